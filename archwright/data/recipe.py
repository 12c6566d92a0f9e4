"""Preprocessing as data: a frozen record that turns what a user has into what a network takes, and back.

A recipe is fitted on the train split once, written as JSON into a bundle, and applied again by `predict`. It works in
two steps, so that the second can be part of an ONNX graph:

    encode(raw)    -> typed arrays: what is text becomes codes, what is a file has been read; NaN where nothing is known
    scale(arrays)  -> what the network sees: gaps filled, every channel near mean 0 and deviation 1

    TableRecipe    numbers float32 [n, F] if F > 0, then categories int64 [n, C] if C > 0 (0: missing or unknown)
                   scaled: numbers [n, F + flags], a 0/1 flag (after the numbers, in their order) for each number that
                   was missing in train; categories as they are
    ImageRecipe    uint8 or float32 [n, channels, height, width]; scaled: float32
    SignalRecipe   float32 [n, channels, length], NaN after the end of a short one; scaled: NaN is 0, and with `mask`
                   one more channel, 1 where any channel had a value

How one number x is scaled, elementwise, in this order:

    x <- fill where x is NaN;  x <- piecewise linear map knots -> scores, held at its ends, if there are knots
    x <- clamp((x - mean) / deviation, -LIMIT, LIMIT)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from archwright.data import columns, pixels, sound
from archwright.data.columns import Signs
from archwright.data.data import Array, Task
from archwright.errors import DataError, FormatError

if TYPE_CHECKING:
    import pandas as pd

Label = str | int | float | bool
Input = tuple[str, tuple[int | None, ...], str]
"""Name, shape with None for the batch, dtype."""

LIMIT = 10.0
"""No number of a table reaches a network further from its mean than this many deviations."""
FLOAT32 = 3.4e38
VERSION = 1


@dataclass(frozen=True)
class Target:
    """What is predicted.

    name       of the column
    task       "classification" or "regression"
    labels     classes as the user writes them, all of one type
    mean, deviation   of each number to be predicted, in its own units: networks see (y - mean) / deviation
    """

    name: str
    task: Task
    labels: tuple[Label, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels as text."""
        return tuple([str(label) for label in self.labels])

    @property
    def outputs(self) -> int:
        """How many numbers a network gives for a sample."""
        return len(self.labels) if self.task == "classification" else len(self.mean)

    def codes(self, raw: Any) -> Array:
        """Labels [n] as classes from 0, int64, -1 for what is missing or no known label."""
        import pandas as pd

        index, texts = columns.values(pd.Series(raw))
        known = [str(columns.written(label)) for label in self.labels]
        return np.append(columns.codes(texts, known), -1)[index]

    def encode(self, raw: Any) -> Array:
        """Classes from 0 [n] int64, or standardised numbers [n, k] float32.

        Raises `DataError` for a label that was not there in training, and for missing values.
        """
        if self.task == "classification":
            found = self.codes(raw)
            if (found < 0).any():
                wrong = np.asarray(raw, object)[int(np.argmax(found < 0))]
                raise DataError(f"target '{self.name}' holds {wrong!r}, expected one of {_few(self.classes)}")
            return found
        y = np.asarray(raw, np.float64).reshape(len(raw), -1)
        if y.shape[1] != len(self.mean):
            raise DataError(f"target '{self.name}' has {y.shape[1]} numbers, expected {len(self.mean)}")
        if not np.isfinite(y).all():
            raise DataError(f"target '{self.name}' has {int((~np.isfinite(y)).sum())} values that are no numbers")
        return ((y - self.mean) / self.deviation).astype(np.float32)

    def decode(self, outputs: Array) -> Array:
        """Labels [n] of logits or probabilities [n, k]; or numbers in the target's units, [n] or [n, k], of outputs."""
        outputs = np.asarray(outputs)
        if self.task == "classification":
            return np.array(self.labels)[outputs.argmax(1)]
        y = outputs.reshape(len(outputs), len(self.mean)).astype(np.float64) * self.deviation + self.mean
        return y[:, 0] if len(self.mean) == 1 else y


@dataclass(frozen=True)
class Number:
    """A number and how it is scaled: see the head of the file.

    missing        whether it has a flag of its own
    knots, scores  of the piecewise linear map, equally many, knots ascending; none for a column without heavy tails
    """

    name: str
    fill: float
    missing: bool
    mean: float
    deviation: float
    knots: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Category:
    """A column of values that are only equal or not: code 1 is values[0]; 0 is missing or unknown."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Date:
    """A column of dates, the format in which they are written, and which parts of them are among the numbers.

    The numbers are named as the column, a dot, and the part: "when.week.sin".
    """

    name: str
    format: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class TableRecipe:
    """Rows of a table: a DataFrame with the columns by name in any order, or an array with the columns in order.

    columns     every column of the source, in order: the target (where it is one of them), and ignored ones
    numbers     those of the columns, then those that come of dates
    categories  columns of values; dates: columns that become numbers
    ignored     (column, why) of the others
    header      whether the source gave the names; without, columns are known by their place
    decimal, thousands   the signs in numbers that are text
    """

    kind: ClassVar[Literal["table"]] = "table"
    target: Target
    columns: tuple[str, ...]
    numbers: tuple[Number, ...] = ()
    categories: tuple[Category, ...] = ()
    dates: tuple[Date, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    header: bool = True
    decimal: str = "."
    thousands: str = ""

    @property
    def signs(self) -> Signs:
        """The signs in numbers that are text."""
        return self.decimal, self.thousands

    @property
    def codes(self) -> tuple[int, ...]:
        """How many codes each category has, code 0 included."""
        return tuple([1 + len(c.values) for c in self.categories])

    @property
    def features(self) -> tuple[str, ...]:
        """Names of what the network sees, in order: numbers, flags, categories."""
        flags = [f"{n.name} is missing" for n in self.numbers if n.missing]
        return (*[n.name for n in self.numbers], *flags, *[c.name for c in self.categories])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What `encode` gives."""
        sizes = (("numbers", len(self.numbers), "float32"), ("categories", len(self.categories), "int64"))
        return tuple([(name, (None, size), dtype) for name, size, dtype in sizes if size])

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that a source must have."""
        dated = {f"{d.name}.{part}" for d in self.dates for part in d.parts}
        plain = [n.name for n in self.numbers if n.name not in dated]
        return (*plain, *[d.name for d in self.dates], *[c.name for c in self.categories])

    def placed(self, names: Sequence[str], header: bool = True) -> tuple[str, ...]:
        """What the columns of a source are called here: by name or, where there is no header, by place.

        Raises `DataError` if one is missing.
        """
        known = set(names)
        if not self.header and not (header and known >= set(self.needed)):
            return self._by_place(len(names))
        missing = [name for name in self.needed if name not in known]
        if missing:
            raise DataError(
                f"the table lacks column{'s' * (len(missing) > 1)} {_few(missing)} that the network was trained"
                f" with: got {_few(names)}, add what is missing"
            )
        return tuple(names)

    def _by_place(self, count: int) -> tuple[str, ...]:
        """The names of so many columns: the features, or all columns of the source."""
        features = tuple([name for name in self.columns if name != self.target.name])
        if count not in (len(features), len(self.columns)):
            raise DataError(
                f"the table has {count} columns, expected the {len(features)} that the network was trained with, in the"
                " same order"
            )
        return features if count == len(features) else self.columns

    def frame(self, raw: Any) -> pd.DataFrame:
        """What was given as a DataFrame with the columns by name. Raises `DataError` if one is missing."""
        import pandas as pd

        if isinstance(raw, pd.DataFrame):
            frame = columns.named(raw)
            names = self.placed(list(frame.columns))
        else:
            array = np.asarray(raw)
            if array.ndim != 2:
                expected = len([name for name in self.columns if name != self.target.name])
                raise DataError(f"got an array of shape {array.shape}, expected [rows, {expected} columns]")
            frame, names = pd.DataFrame(array), self._by_place(array.shape[1])
        return frame if list(names) == list(frame.columns) else frame.set_axis(list(names), axis=1)

    def encode(self, raw: Any) -> tuple[Array, ...]:
        """Numbers [n, F] float32 with NaN for missing, and categories [n, C] int64; what is empty is left out."""
        frame = self.frame(raw)
        found: list[Array] = []
        if self.numbers:
            days = {date.name: columns.dates(frame[date.name], date.format) for date in self.dates}
            derived = {f"{date.name}.{part}": (date.name, part) for date in self.dates for part in date.parts}
            numbers = np.empty((len(frame), len(self.numbers)), np.float32)
            for i, number in enumerate(self.numbers):
                if number.name in derived:
                    name, part = derived[number.name]
                    x = columns.date_part(days[name], part)
                else:
                    x = columns.numbers(frame[number.name], self.signs)
                numbers[:, i] = np.clip(x, -FLOAT32, FLOAT32)
            found.append(numbers)
        if self.categories:
            codes = np.zeros((len(frame), len(self.categories)), np.int64)
            for i, category in enumerate(self.categories):
                index, texts = columns.values(frame[category.name])
                codes[:, i] = np.append(columns.codes(texts, category.values) + 1, 0)[index]
            found.append(codes)
        return tuple(found)

    def scale(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """What the network sees of what `encode` gave: numbers and flags [n, F + flags] float32, categories."""
        if not self.numbers:
            return tuple(arrays)
        x = np.asarray(arrays[0], np.float32)
        flagged = [i for i, number in enumerate(self.numbers) if number.missing]
        found = np.empty((len(x), len(self.numbers) + len(flagged)), np.float32)
        for i, number in enumerate(self.numbers):
            column = np.where(np.isnan(x[:, i]), number.fill, x[:, i].astype(np.float64))
            if number.knots:
                column = np.interp(column, number.knots, number.scores)
            found[:, i] = np.clip((column - number.mean) / number.deviation, -LIMIT, LIMIT)
        found[:, len(self.numbers) :] = np.isnan(x[:, flagged])
        return (found, *arrays[1:])

    def apply(self, raw: Any) -> tuple[Array, ...]:
        """`scale(encode(raw))`."""
        return self.scale(self.encode(raw))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return _to_dict(self)


@dataclass(frozen=True)
class ImageRecipe:
    """Images brought to one number of channels (1: grey, 3: colour) and one size, and standardised by channel.

    size       (height, width)
    dtype      "uint8" where pixels are bytes 0..255, else "float32": numbers in whatever range they came
    mean, deviation   of each channel, in the units of the pixels
    """

    kind: ClassVar[Literal["image"]] = "image"
    target: Target
    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    dtype: Literal["uint8", "float32"] = "uint8"

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What `encode` gives."""
        return (("image", (None, self.channels, *self.size), self.dtype),)

    @property
    def scales(self) -> tuple[tuple[Array, Array], ...]:
        """(mean, deviation), each [channels, 1, 1], as `Data.scales` has them."""
        shape = (self.channels, 1, 1)
        return ((np.array(self.mean, np.float32).reshape(shape), np.array(self.deviation, np.float32).reshape(shape)),)

    def encode(self, raw: Any) -> tuple[Array, ...]:
        """[n, channels, height, width] of an array [n, H, W], [n, C, H, W] or [n, H, W, C], or of a list of images of
        any size, [H, W] or [H, W, C]. Raises `DataError` for what is none of them."""
        return (pixels.stack(raw, self.channels, self.size, self.dtype),)

    def scale(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """(x - mean) / deviation, float32; 0 where x is NaN."""
        mean, deviation = self.scales[0]
        x = (np.asarray(arrays[0], np.float32) - mean) / deviation
        return (np.nan_to_num(x, nan=0.0),)

    def apply(self, raw: Any) -> tuple[Array, ...]:
        """`scale(encode(raw))`."""
        return self.scale(self.encode(raw))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return _to_dict(self)


@dataclass(frozen=True)
class SignalRecipe:
    """Signals brought to one length, and standardised by channel.

    channels, length   of what `encode` gives: with a front end, its mel bands and its frames
    rate       Hz of the samples, or None where time has no unit
    front      None, or the settings of `sound.log_mel`: samples, window, hop, mels, floor (not in old recipes)
    mask       whether the network sees one more channel that says where the signal is
    mean, deviation   of each channel
    """

    kind: ClassVar[Literal["signal"]] = "signal"
    target: Target
    channels: int
    length: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    rate: int | None = None
    front: Mapping[str, int] | None = None
    mask: bool = False

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What `encode` gives."""
        return (("signal", (None, self.channels, self.length), "float32"),)

    def encode(self, raw: Any) -> tuple[Array, ...]:
        """[n, channels, length] float32 of an array [n, T] or [n, C, T], or of a list of [T] or [C, T], at `rate`.

        A longer one is cut after `length` (with a front end: to its middle), a shorter one is NaN after its end (with
        a front end: in the middle of silence). Raises `DataError` for another number of channels.
        """
        if self.front is not None:
            waves = [sound.mono(wave) for wave in raw]
            found = [sound.log_mel(wave, self.rate or 1, **self.front) for wave in waves]
            empty = np.zeros((0, self.channels, self.length), np.float32)
            return (np.stack(found).astype(np.float32) if found else empty,)
        return (sound.pad(raw, self.channels, self.length),)

    def scale(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """[n, channels (+ 1 with mask), length] float32: (x - mean) / deviation, 0 where there is no signal."""
        x = np.asarray(arrays[0], np.float32)
        mean = np.array(self.mean, np.float32)[:, None]
        deviation = np.array(self.deviation, np.float32)[:, None]
        found = np.nan_to_num((x - mean) / deviation, nan=0.0)
        if self.mask:
            here = (~np.isnan(x)).any(1, keepdims=True)
            found = np.concatenate([found, here.astype(np.float32)], 1)
        return (found,)

    def apply(self, raw: Any) -> tuple[Array, ...]:
        """`scale(encode(raw))`."""
        return self.scale(self.encode(raw))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return _to_dict(self)


Recipe = TableRecipe | ImageRecipe | SignalRecipe


# --------------------------------------------------------------------------------------------------------------- JSON
def _to_dict(recipe: Recipe) -> dict[str, Any]:
    return {"version": VERSION, "kind": recipe.kind, **_plain(recipe)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def recipe_from(values: Any) -> Recipe:
    """The recipe that `to_dict` wrote. Raises `FormatError` for anything else, saying which entry is wrong."""
    if not isinstance(values, Mapping) or "kind" not in values:
        raise FormatError(f"got {str(values)[:40]!r} for a recipe, expected an object with a kind")
    kinds: dict[str, Any] = {cls.kind: cls for cls in (TableRecipe, ImageRecipe, SignalRecipe)}
    if values["kind"] not in kinds:
        raise FormatError(f"the recipe is of kind {values['kind']!r}, expected one of {', '.join(kinds)}")
    if values.get("version") != VERSION:
        raise FormatError(f"the recipe has version {values.get('version')!r}, this archwright reads {VERSION}")
    rest = {key: value for key, value in values.items() if key not in ("kind", "version")}
    found: Recipe = _read(kinds[values["kind"]], rest, "recipe")
    _agree(found)
    return found


_SHAPES: dict[str, Any] = {
    "target": Target, "numbers": (Number,), "categories": (Category,), "dates": (Date,), "ignored": ((str, str),),
    "name": str, "task": ("classification", "regression"), "labels": (Label,), "columns": (str,), "values": (str,),
    "parts": columns.PARTS, "format": str, "header": bool, "mask": bool, "missing": bool, "fill": float,
    "knots": (float,), "scores": (float,), "size": (int,), "channels": int, "length": int,
    "rate": int, "dtype": ("uint8", "float32"), "decimal": (".", ","), "thousands": ("", ".", ","),
}  # fmt: skip
"""What each entry has to be; `mean` and `deviation` are a number in `Number`, and elsewhere a list."""


def _read(cls: Any, values: Any, where: str) -> Any:
    if not isinstance(values, Mapping):
        raise FormatError(f"{where} is {str(values)[:40]!r}, expected an object")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    needed = {name for name, f in fields.items() if f.default is dataclasses.MISSING}
    if values.keys() - fields.keys() or needed - values.keys():
        raise FormatError(
            f"{where} has the entries {', '.join(sorted(map(str, values)))}, expected {', '.join(sorted(fields))}"
        )
    return cls(**{name: _entry(cls, name, value, f"{where}.{name}") for name, value in values.items()})


def _entry(cls: Any, name: str, value: Any, where: str) -> Any:
    if name in ("mean", "deviation"):
        found = _value(value, float if cls is Number else (float,), where)
        if name == "deviation" and not all(d > 0 for d in np.atleast_1d(found)):
            raise FormatError(f"{where} is {str(value)[:40]}, expected numbers above 0")
        return found
    if name == "front":
        return None if value is None else _front(value, where)
    if name == "rate" and value is None:
        return None
    if name in ("task", "dtype", "decimal", "thousands"):
        if value not in _SHAPES[name]:
            raise FormatError(f"{where} is {value!r}, expected one of {', '.join(filter(None, _SHAPES[name]))}")
        return value
    if name == "parts":
        found = _value(value, (str,), where)
        if not set(found) <= set(columns.PARTS):
            raise FormatError(f"{where} is {value!r}, expected some of {', '.join(columns.PARTS)}")
        return found
    return _value(value, _SHAPES[name], where)


def _value(value: Any, shape: Any, where: str) -> Any:
    """`value` as what `shape` says: a type, a record, (shape,) for a list of any length, (a, b) for a pair."""
    if isinstance(shape, tuple):
        if not isinstance(value, (list, tuple)) or (len(shape) > 1 and len(value) != len(shape)):
            raise FormatError(f"{where} is {str(value)[:40]!r}, expected a list")
        shapes = shape if len(shape) > 1 else shape * len(value)
        return tuple([_value(v, s, f"{where}[{i}]") for i, (v, s) in enumerate(zip(value, shapes, strict=True))])
    if dataclasses.is_dataclass(shape):
        return _read(shape, value, where)
    if shape is Label:
        good = isinstance(value, (str, int, float, bool))
    elif shape is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))
        value = float(value) if good else value
    elif shape is int:
        good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    else:
        good = isinstance(value, shape)
    if not good:
        raise FormatError(f"{where} is {str(value)[:40]!r}, expected {getattr(shape, '__name__', 'text or a number')}")
    return value


def _front(value: Any, where: str) -> dict[str, int]:
    names = {"samples", "window", "hop", "mels"}
    if not isinstance(value, Mapping) or set(value) - {"floor"} != names:
        raise FormatError(f"{where} is {str(value)[:60]!r}, expected {', '.join(sorted(names))}, floor")
    return {name: _value(number, int, f"{where}.{name}") for name, number in value.items()}


def _agree(recipe: Recipe) -> None:
    """Raise `FormatError` where entries do not fit one another."""
    target = recipe.target
    if target.task == "classification" and len(target.classes) != len(set(target.classes)):
        raise FormatError(f"the recipe's labels are {_few(target.classes)}, expected different ones")
    if target.task == "classification" and not target.labels:
        raise FormatError("the recipe's target has no labels, expected them for classification")
    if len(target.mean) != len(target.deviation) or not target.mean:
        raise FormatError(f"target has {len(target.mean)} means, {len(target.deviation)} deviations, expected as many")
    if isinstance(recipe, TableRecipe):
        if recipe.decimal == recipe.thousands:
            raise FormatError(f"recipe.decimal and recipe.thousands are both {recipe.decimal!r}, expected two signs")
        for number in recipe.numbers:
            rising = all(a < b for a, b in zip(number.knots, number.knots[1:], strict=False))
            if len(number.knots) != len(number.scores) or not rising:
                raise FormatError(f"number '{number.name}' has {len(number.knots)} knots, expected ascending ones"
                                  " with a score each")  # fmt: skip
        return
    for name, numbers in (("mean", recipe.mean), ("deviation", recipe.deviation)):
        if len(numbers) != recipe.channels:
            raise FormatError(f"recipe.{name} has {len(numbers)} entries for {recipe.channels} channels")
    if isinstance(recipe, ImageRecipe) and len(recipe.size) != 2:
        raise FormatError(f"recipe.size is {recipe.size}, expected height and width")
    if isinstance(recipe, SignalRecipe) and recipe.front is not None and recipe.rate is None:
        raise FormatError("the recipe has a front end but no rate, expected the rate in Hz")


def _few(names: Sequence[str], most: int = 8) -> str:
    """Names for a sentence: the first few, and how many more."""
    shown = ", ".join([f"'{name}'" for name in names[:most]])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
