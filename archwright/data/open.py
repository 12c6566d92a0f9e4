"""`open_data`: from whatever a user has to `Data` with a recipe; `open_raw`: the same sources for predictions, and
`open_parts`: these as well, large files in parts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data import builtin, columns, folders, idx, image, npz, rows, signal, table, ts
from archwright.data.data import Array, Data, Kind, Task
from archwright.data.recipe import ImageRecipe, Recipe, SignalRecipe, TableRecipe, Target
from archwright.errors import DataError

TABLES = (".csv", ".tsv", ".txt", ".data", ".dat", ".parquet", ".pq")
EXPECTED = (
    "expected a CSV or Parquet file, a folder of class folders with images or sounds, an .npz, IDX or .ts file, or one"
    f" of {', '.join(builtin.BUILTIN)}"
)


def open_data(
    source: Any,
    *,
    target: Any = None,
    task: Task | None = None,
    seed: int = 0,
    time: str | int | None = None,
    group: Any = None,
    valid: float = 0.15,
    test: float = 0.2,
    folder: str | os.PathLike[str] | None = None,
    kind: Kind | None = None,
    size: int | Sequence[int] | None = None,
    rate: int | None = None,
) -> Data:
    """Data of a source, with `meta["recipe"]` fitted on its train split.

    source   a path (CSV, Parquet, .npz, IDX, .ts; a folder of class folders with images or sounds), a built-in name, a
             DataFrame, an array, a list of series, (X, y), or `Data`, which are returned as they are
    target   the column to predict, by name or place (the last, if it is not given); with an array or a DataFrame it
             may also be the targets themselves: [n], or [n, k] numbers
    task     "classification" or "regression", if what is inferred is not what is meant
    seed     decides the splits and nothing else
    time     column of a table by whose order the splits are made: the newest rows are the test
    group    column of a table whose values stay together in a split; "speaker" or "take" for a folder of sounds; or
             an array [n] with arrays
    valid, test   shares of the samples; test files that lie beside are taken instead
    folder   where arrays go that are too large for memory; a temporary one by default
    kind     "table", "image" or "signal", where an array could be several of them
    size     pixels of the images of a folder: a number, or (height, width)
    rate     Hz of the recordings of a folder

    Raises `DataError` for whatever nothing can be learned from, in one sentence. `meta["notices"]` says what was done.
    """
    if isinstance(source, Data):
        return source
    source, target = _unpacked(source, target)
    common = {"seed": seed, "valid": valid, "test": test}
    if _is_builtin(source):
        x, y = builtin.raw(str(source))
        found = open_arrays(x, y, task=task, kind="image" if source == "digits" else None, group=group, time=time,
                            folder=folder, name=str(source), **common)  # fmt: skip
        return found
    if not isinstance(source, (str, os.PathLike)):
        return open_arrays(
            source, target, task=task, kind=kind, group=group, time=time, folder=folder, name="data", **common
        )
    path = existing(source)
    form = form_of(path)
    if form == "table":
        first, tested, notices = _tables(path, target)
        data = table.open_table(first, target=target, task=task, time=time, group=group, folder=folder,
                                name=stem(path), tested=tested, **common)  # fmt: skip
        return _noticed(data, notices)
    for option, value in (("target", target), ("time", time)):
        if value is not None:
            raise DataError(f"got {option}={value!r}, which names a column of a table: {path} is none")
    if form == "sounds":
        return signal.open_folder(path, rate=rate, group=group, home=folder, **common)
    if group is not None:
        raise DataError(f"got group='{group}', which is for tables and folders of sounds: {path} is neither")
    if form == "images":
        return image.open_folder(path, size=size, home=folder, **common)
    if form == "ts":
        series, y, inner, given = ts.load(path)
        data = signal.open_series(series, np.asarray(y), task=task or inner, given=given, home=folder, name=stem(path),
                                  **common)  # fmt: skip
        return _noticed(data, _given(given))
    x, y, given = idx.load(_idx(path)) if form == "idx" else npz.load(path)
    if y is None:
        raise DataError(f"{path} holds one array, expected inputs and targets: X and y")
    data = open_arrays(x, y, task=task, kind=kind, given=given, folder=folder, name=stem(path), **common)
    return _noticed(data, _given(given))


def open_arrays(
    x: Any, y: Any, *, task: Task | None = None, kind: Kind | None = None, given: Sequence[str] | None = None,
    group: Any = None, time: Any = None, folder: Any = None, name: str = "data", **common: Any,
) -> Data:  # fmt: skip
    """Data of what is in memory: a DataFrame, or an array whose shape says what it is.

    [n], [n, features] a table; [n, H, W, C], [n, C, H, W] images; [n, H, W] images if bytes or square, else signals
    [n, channels, time]; a list of arrays of unequal length: signals. `kind` overrides.
    """
    import pandas as pd

    if isinstance(x, (pd.DataFrame, pd.Series)):
        frame = x.to_frame() if isinstance(x, pd.Series) else x
        if kind not in (None, "table"):
            raise DataError(f"got a DataFrame and kind='{kind}', expected kind='table' or an array")
        return _frame(frame, y, task, group, time, folder, name, given, False, common)
    ragged = isinstance(x, (list, tuple)) and len({np.shape(part) for part in x}) > 1
    array = x if ragged else _array(x)
    if not len(array):
        raise DataError("got no samples, expected at least one")
    kind = kind or ("signal" if ragged else kind_of(array))
    if kind == "table":
        if ragged or array.ndim > 2:
            raise DataError(f"got an array of shape {np.shape(x)} for a table, expected [rows, columns]")
        frame = pd.DataFrame(array.reshape(len(array), -1)).infer_objects()
        return _frame(frame, y, task, group, time, folder, name, given, True, common)
    if y is None or isinstance(y, str):
        raise DataError(f"got {kind}s without targets, expected (X, y)")
    if time is not None:
        raise DataError("got a time, which is for tables")
    groups = _groups(group, len(array))
    y = np.asarray(y)
    if kind == "image" and not ragged:
        return image.open_arrays(array, y, task=task, given=given, groups=groups, name=name, **common)
    if kind == "signal":
        series = array[:, None] if not ragged and array.ndim == 2 else array
        if not ragged and series.ndim != 3:
            raise DataError(f"got signals of shape {series.shape}, expected [n, channels, time] or [n, time]")
        return signal.open_series(series, y, task=task, given=given, groups=groups, home=folder, name=name, **common)
    raise DataError(f"got kind='{kind}' and shape {np.shape(array[0])} for a sample, expected table, image or signal")


def _frame(
    frame: Any, y: Any, task: Task | None, group: Any, time: Any, folder: Any, name: str,
    given: Sequence[str] | None, plain: bool, common: dict[str, Any],
) -> Data:  # fmt: skip
    if group is not None and np.ndim(group) == 1:
        groups, group = _groups(group, len(frame)), None
    else:
        groups = None
    named = y is None or isinstance(y, (str, int))
    return table.open_table(
        rows.of_frame(frame), target=y if named else None, y=None if named else _targets(y), task=task, time=time,
        group=group, folder=folder, name=name, plain=plain, given=given, groups=groups, **common,
    )  # fmt: skip


def open_raw(source: Any, recipe: Recipe) -> tuple[Any, Array | None]:
    """What `recipe.encode` takes, of a source of the kind that it was fitted to; and the true targets, or None.

    Targets are labels of the type of the recipe's labels (None in place of a missing one), or numbers [n] or [n, k].
    Raises `DataError` for a source of another kind, and if a column is missing.
    """
    import pandas as pd

    if isinstance(source, Data):
        raise DataError("got Data, which are encoded already: give the source that they came from")
    source, y = _unpacked(source, None)
    if _is_builtin(source):
        source, y = builtin.raw(str(source))
    if isinstance(source, (str, os.PathLike)):
        source, y = _read(existing(source), recipe)
    if isinstance(recipe, TableRecipe):
        frame = recipe.frame(source.to_frame() if isinstance(source, pd.Series) else source)
        return _with_truth(frame, y, recipe)
    if isinstance(source, pd.DataFrame):
        raise DataError(f"got a table, expected {recipe.kind}s: the network was trained with them")
    raw = source if isinstance(source, (list, tuple)) else _array(source)
    if not len(raw):
        raise DataError("got no samples, expected at least one")
    if isinstance(recipe, SignalRecipe) and isinstance(raw, np.ndarray) and raw.ndim == 2:
        raw = raw[:, None]
    return raw, _truth(y, recipe.target)


def open_parts(source: Any, recipe: Recipe) -> Iterator[tuple[Any, Array | None]]:
    """What `open_raw` gives; of a file with a table that is large, chunk by chunk."""
    if isinstance(recipe, TableRecipe) and isinstance(source, (str, os.PathLike)) and not _is_builtin(source):
        path = existing(source)
        if form_of(path, recipe) == "table":
            yield from (_with_truth(chunk, None, recipe) for chunk in _chunks(path, recipe))
            return
    yield open_raw(source, recipe)


def _chunks(path: Path, recipe: TableRecipe) -> Iterator[Any]:
    """The columns of a file that are needed, and the target if it is there. Numbers are read with the file's signs."""
    import pandas as pd

    found = rows.of_file(path, recipe)
    target = recipe.target
    texts = {c.name for c in recipe.categories} | {d.name for d in recipe.dates}
    if target.task == "classification" and all(isinstance(label, str) for label in target.labels):
        texts |= {target.name}
    wanted = {*recipe.needed, target.name}
    kept = [name for name in found.names if name in wanted]
    numbers = {number.name for number in recipe.numbers} | ({target.name} if target.task == "regression" else set())
    for chunk in found.read(texts, None):  # of all columns: of some, pandas would read a row that is too long
        chunk = chunk[kept]
        written = [name for name in kept if name in numbers and not pd.api.types.is_numeric_dtype(chunk[name])]
        yield chunk.assign(**{name: columns.numbers(chunk[name], found.signs) for name in written})


def _with_truth(frame: Any, y: Any, recipe: TableRecipe) -> tuple[Any, Array | None]:
    if y is None and recipe.target.name in frame.columns:
        y = frame[recipe.target.name]
    return frame, _truth(y, recipe.target, recipe.signs)


def _read(path: Path, recipe: Recipe) -> tuple[Any, Any]:
    """Raw inputs and targets of a path."""
    form = form_of(path, recipe)
    fitting = {"table": ("table", "npz"), "image": ("images", "idx", "npz"), "signal": ("sounds", "ts", "npz")}
    if form not in fitting[recipe.kind]:
        raise DataError(f"{path} holds {form}, expected {recipe.kind}s: the network was trained with them")
    if isinstance(recipe, TableRecipe) and form == "table":
        return rows.joined(list(_chunks(path, recipe))).reset_index(drop=True), None
    if isinstance(recipe, ImageRecipe) and form == "images":
        return _labelled(image.raw_folder(path, recipe))
    if isinstance(recipe, SignalRecipe) and form == "sounds":
        return _labelled(signal.raw_folder(path, recipe))
    if form == "ts":
        series, y, _ = ts.read(path)
        return series, y
    if form == "idx":
        images = _idx(path)
        images = (idx.tests_of(images) if path.is_dir() else None) or images
        return idx.pair(images) if idx.labels_of(images) else (idx.read(images), None)
    x, y, given = npz.load(path)
    if given is not None and "test" in given:
        tested = np.array([split == "test" for split in given])
        return x[tested], None if y is None else y[tested]
    return x, y


def _labelled(found: tuple[Any, list[str]]) -> tuple[Any, list[str] | None]:
    raw, labels = found
    return raw, labels if any(labels) else None


def _truth(y: Any, target: Target, signs: columns.Signs = columns.PLAIN) -> Array | None:
    """Targets as `Target.decode` gives them; None if there are none, or all are missing. `signs`: in texts."""
    import pandas as pd

    if y is None:
        return None
    if target.task == "regression":
        found = np.stack([columns.numbers(pd.Series(column), signs) for column in np.atleast_2d(np.asarray(y).T)], 1)
        if not np.isfinite(found).any():
            return None
        return found[:, 0] if len(target.mean) == 1 else found
    codes = target.codes(y)
    if (codes >= 0).all():
        return np.array(target.labels)[codes]
    index, texts = columns.values(pd.Series(y))
    if (index < 0).all() or not (codes >= 0).any():
        return None
    labels = np.array([*target.labels, None], object)[codes]
    unknown = (codes < 0) & (index >= 0)
    labels[unknown] = np.array(texts, object)[index[unknown]]
    return labels


# --------------------------------------------------------------------------------------------------------------- forms
def form_of(path: Path, recipe: Recipe | None = None) -> str:
    """What a path holds: "table", "images", "sounds", "npz", "idx" or "ts". Raises `DataError` for anything else."""
    if path.is_dir():
        if idx.images_in(path) is not None:
            return "idx"
        return "images" if folders.kind_of(path) == "image" else "sounds"
    name = path.name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix == ".npz":
        return "npz"
    if suffix == ".ts":
        return "ts"
    if idx.is_idx(path):
        return "idx"
    if suffix in TABLES:
        return "table"
    if recipe is not None and suffix in (*folders.pixels.SUFFIXES, *folders.sound.SUFFIXES):
        return "images" if suffix in folders.pixels.SUFFIXES else "sounds"
    raise DataError(f"{path} ends in '{suffix}', {EXPECTED}")


def existing(source: str | os.PathLike[str]) -> Path:
    """The path, if there is something. Raises `DataError`."""
    path = Path(source).expanduser()
    if not path.exists():
        raise DataError(f"{path} does not exist: {EXPECTED}")
    return path


def stem(path: Path) -> str:
    """A name for data: of the file, without endings."""
    return path.name if path.is_dir() else path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def kind_of(array: Array) -> Kind:
    """What an array holds, by its shape: see `open_arrays`."""
    if array.ndim <= 2:
        return "table"
    if array.ndim == 4 or (array.ndim == 3 and (array.dtype == np.uint8 or array.shape[1] == array.shape[2])):
        return "image"
    if array.ndim == 3:
        return "signal"
    raise DataError(f"got an array of shape {array.shape}, expected 2 axes for tables, 3 for signals, 4 for images")


def _is_builtin(source: Any) -> bool:
    return isinstance(source, str) and source in builtin.BUILTIN and not Path(source).exists()


def _idx(path: Path) -> Path:
    found = idx.images_in(path) if path.is_dir() else path
    assert found is not None  # form_of saw it
    return found


def _tables(path: Path, target: Any) -> tuple[rows.Rows, rows.Rows | None, list[str]]:
    """The table, that of its test file if one lies beside and can be used, and what has to be said of it."""
    first = rows.of_file(path)
    name = re.sub("train", lambda m: "TEST" if m[0].isupper() else "test", path.name, count=1, flags=re.IGNORECASE)
    beside = path.with_name(name)
    if name == path.name or not beside.is_file():
        return first, None, []
    second = rows.of_file(beside)
    if second.names != first.names:
        return first, None, [f"{name} is not used as the test split: it has other columns than {path.name}"]
    column = first.names[-1] if target is None else table.position(target, first.names)
    known, others = _values(first, column, 101), _values(second, column, 10000)
    strange = np.flatnonzero(columns.codes(others, known) < 0)
    if len(strange) and len(known) <= 100:
        found = others[strange[0]]
        return first, None, [f"{name} is not used as the test split: its target '{column}' holds '{found}'"]
    return first, second, [f"the test split is {name}"]


def _values(found: rows.Rows, column: str, most: int) -> list[str]:
    """The different texts of a column in the first chunk, so many at most."""
    cells = next(found.read({column}, {column}))[column]
    return columns.values(cells.drop_duplicates().head(most))[1]


def _given(given: Sequence[str] | None) -> list[str]:
    return ["the test split is the one that comes with the data"] if given is not None and "test" in given else []


def _noticed(data: Data, notices: list[str]) -> Data:
    return replace(data, meta={**data.meta, "notices": [*notices, *data.meta["notices"]]}) if notices else data


# -------------------------------------------------------------------------------------------------------------- arrays
def _unpacked(source: Any, target: Any) -> tuple[Any, Any]:
    """X and y of a pair (X, y)."""
    if isinstance(source, tuple) and len(source) == 2 and target is None and hasattr(source[0], "__len__"):
        return source
    return source, target


def _array(x: Any) -> Array:
    try:
        array = x if isinstance(x, np.ndarray) else np.asarray(x)
    except ValueError:
        raise DataError("got samples of unequal shape, expected an array, or a list of signals") from None
    if array.ndim == 0:
        raise DataError(f"got {type(x).__name__} {str(x)[:40]!r}: {EXPECTED}, a DataFrame or arrays")
    return array


def _targets(y: Any) -> Any:
    import pandas as pd

    if isinstance(y, pd.DataFrame):
        return y.iloc[:, 0] if y.shape[1] == 1 else y.to_numpy()
    return y if isinstance(y, pd.Series) else np.asarray(y)


def _groups(group: Any, count: int) -> Array | None:
    if group is None:
        return None
    found = np.asarray(group)
    if found.ndim != 1 or len(found) != count:
        raise DataError(f"got groups of shape {found.shape}, expected one for each of the {count} samples")
    return found
