"""Tables: what each column is, what is predicted, and the recipe that makes arrays of them.

A column is, in this order of tests, on the rows of the train split (a sample of them, if they are very many):

    ignored    all missing, or one value only; numbers that number the rows (whole and all different in a first column
               without a name, or with hardly a gap), or are whole, all different and beyond 2^53
    number     numbers, also if up to one in twenty is something else; durations
    date       dates, as type or as text that is written like one
    ignored    texts of which more than half are different: names of rows, or free text if they are long
    category   everything else, booleans included: the values that occur at least 3 times (in a table of fewer than 100
               rows: all), the most frequent 254 of them; the rest is "unknown"

A number has heavy tails if its skewness is beyond 1 or its kurtosis above 6 (a normal distribution has 0 and 3). It is
then mapped piecewise linearly, at up to 32 quantiles, to the scores that a normal distribution has at the same ranks.

The task: texts, booleans, and at most 20 different whole numbers (at most one in two rows its own) are classes, all
other numbers are regression.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from archwright.data import columns
from archwright.data.data import Array, Data, Task
from archwright.data.recipe import FLOAT32, Category, Date, Label, Number, TableRecipe, Target
from archwright.data.rows import Rows, joined
from archwright.data.splits import divide, numbered
from archwright.data.store import gather
from archwright.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = 64 * 2**20
"""Bytes of rows from which a recipe is fitted at most."""
VALUES = 254
"""Values of a category that have a code of their own at most."""
KNOTS = 32


# -------------------------------------------------------------------------------------------------------------- target
def position(wanted: str | int, names: tuple[str, ...], role: str = "target") -> str:
    """The column that is meant: by name, or by its place from 0 (negative: from the end). Raises `DataError`."""
    if isinstance(wanted, str) and wanted in names:
        return wanted
    place = int(wanted) if str(wanted).lstrip("-").isdecimal() else None
    if place is not None and -len(names) <= place < len(names):
        return names[place]
    near = difflib.get_close_matches(str(wanted), names, 3, 0.5) or list(names[:6])
    raise DataError(
        f"no column is named '{wanted}', which was given as the {role}: the nearest are"
        f" {', '.join([repr(name) for name in near])}"
    )


def target_of(
    raw: Any, name: str, task: Task | None, signs: columns.Signs = columns.PLAIN
) -> tuple[Target, Array, Array]:
    """The target without its scale; what it holds (classes [n] int64, or numbers [n, k] float64); which are known [n].

    raw    Series or array [n], or numbers [n, k]
    signs  of numbers that are text
    Raises `DataError` if there is nothing to learn, or the task does not suit the values.
    """
    import pandas as pd

    if task not in (None, "classification", "regression"):
        raise DataError(f"task is {task!r}, expected classification or regression")
    if np.ndim(raw) == 2 and np.shape(raw)[1] > 1:
        if task == "classification":
            raise DataError(f"target '{name}' has {np.shape(raw)[1]} columns, expected one for classification")
        y = np.stack([columns.numbers(pd.Series(column)) for column in np.asarray(raw).T], 1)
        return Target(name, "regression"), y, np.isfinite(y).all(1)
    column = raw if isinstance(raw, pd.Series) else pd.Series(np.asarray(raw).reshape(len(raw)))
    column = column.infer_objects()
    y = columns.numbers(column, signs)
    filled = columns.filled(column)
    count = int(filled.sum())
    numeric = not isinstance(column.dtype, (pd.BooleanDtype, pd.CategoricalDtype)) and column.dtype != bool
    numeric = numeric and int(np.isfinite(y).sum()) >= 0.95 * count
    if not count:
        raise DataError(f"target '{name}' has no values: all {len(column)} are missing")
    if task is None:
        known = y[np.isfinite(y)]
        whole = numeric and bool((known == np.round(known)).all())
        different = len(np.unique(known)) if numeric else 0
        few = whole and different <= min(20, max(2, len(known) // 2))
        task = "classification" if few or not numeric else "regression"
    if task == "regression":
        if not np.isfinite(y).any():
            held = columns.written(column[filled].iloc[0])
            raise DataError(f"target '{name}' holds {held!r}, expected numbers for regression")
        return Target(name, task), y[:, None], np.isfinite(y)
    index, texts = columns.values(column)
    labels, code = _labels(column, texts)
    if len(labels) < 2:
        raise DataError(f"target '{name}' has one class, {labels[0]!r}, in all rows: there is nothing to learn")
    if len(labels) > max(20, count // 2):
        raise DataError(
            f"target '{name}' has {len(labels)} different values in {len(column)} rows, expected classes that come"
            " again: name another column, or give the task regression"
        )
    return Target(name, task, tuple(labels)), np.array([*code, -1])[index], index >= 0


def _labels(column: pd.Series, texts: list[str]) -> tuple[list[Label], list[int]]:
    """Labels in order, of the type that they have: int, float, bool or str; and the place of each text among them."""
    import pandas as pd

    kind = column.cat.categories.dtype if isinstance(column.dtype, pd.CategoricalDtype) else column.dtype
    made: list[Label] = list(texts)
    if set(texts) <= {"True", "False"} and (pd.api.types.is_bool_dtype(kind) or pd.api.types.is_object_dtype(kind)):
        made = [text == "True" for text in texts]
    elif pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind):
        made = [float(text) if "." in text or "e" in text or "inf" in text else int(text) for text in texts]
        if any(isinstance(label, float) for label in made):
            made = [float(label) for label in made]
    ordinal = all(re.fullmatch(r"-?\d+", text) for text in texts)  # "10" comes after "2", also as text
    labels = sorted(made, key=int if ordinal else None)  # type: ignore[type-var, arg-type]
    place = {label: i for i, label in enumerate(labels)}
    return labels, [place[label] for label in made]


# -------------------------------------------------------------------------------------------------------------- recipe
def fit(
    frame: pd.DataFrame, target: Target, names: tuple[str, ...], *, rows: int, header: bool = True,
    ignored: dict[str, str] | None = None, plain: bool = False, signs: columns.Signs = columns.PLAIN,
) -> TableRecipe:  # fmt: skip
    """The recipe for rows of the train split.

    names    all columns of the source; rows: how many rows that has
    ignored  column -> why, of those that are to be left out
    plain    whether the columns are an array's: then a number is never taken for the name of a row
    signs    of numbers that are text

    Raises `DataError` if no column is left.
    """
    reasons = dict(ignored or {})
    roles: dict[str, Any] = {}
    for name in names:
        if name == target.name or name in reasons:
            continue
        role = _role(frame[name], name, rows, plain, signs)
        if isinstance(role, str):
            reasons[name] = role
        else:
            roles[name] = role
    dates = {name: date for name, date in roles.items() if isinstance(date, Date)}
    numbers = [role for role in roles.values() if isinstance(role, Number)]
    for name, date in dates.items():
        days = columns.dates(frame[name], date.format)
        found = [_number(f"{name}.{part}", columns.date_part(days, part)) for part in columns.PARTS
                 if f"{name}.{part}" not in names]  # fmt: skip
        varies = [number for number in found if isinstance(number, Number)]
        kept = tuple([number.name[len(name) + 1 :] for number in varies])
        numbers += [dataclasses.replace(number, missing=number.missing and i == 0) for i, number in enumerate(varies)]
        dates[name] = dataclasses.replace(date, parts=kept)
        if not kept:
            reasons[name] = "constant"
    categories = tuple([role for role in roles.values() if isinstance(role, Category)])
    if not numbers and not categories:
        raise DataError(f"no column is left to learn from: {describe(reasons) or 'the target is the only one'}")
    return TableRecipe(
        target, names, tuple(numbers), categories, tuple([date for date in dates.values() if date.parts]),
        tuple([(name, reasons[name]) for name in names if name in reasons]), header, *signs,
    )  # fmt: skip


def describe(reasons: dict[str, str]) -> str:
    """Which columns are left out, and why, as one sentence."""
    by: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by.setdefault(why, []).append(name)
    parts = []
    for why, names in by.items():
        shown = ", ".join([f"'{name}'" for name in names[:5]]) + (f" and {len(names) - 5} more" if names[5:] else "")
        parts.append(f"{shown} ({why})")
    return "left out: " + "; ".join(parts) if parts else ""


def _role(column: pd.Series, name: str, rows: int, plain: bool, signs: columns.Signs) -> Number | Category | Date | str:
    """What a column is, or why it is ignored."""
    import pandas as pd

    kind = column.dtype
    if pd.api.types.is_datetime64_any_dtype(kind):
        return Date(name, columns.ISO, ()) if column.notna().any() else "all values are missing"
    numeric = pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_timedelta64_dtype(kind)
    if numeric and not pd.api.types.is_bool_dtype(kind):
        return _numeric(column, name, rows, plain, signs)
    try:
        index, texts = columns.values(column)
    except TypeError:
        return "its cells are no single values"
    filled = int((index >= 0).sum())
    if not filled:
        return "all values are missing"
    counts = np.bincount(index[index >= 0], minlength=len(texts))
    if not isinstance(kind, pd.CategoricalDtype):
        known = np.isfinite(columns.numbers(pd.Series(texts, dtype="str"), signs))
        if counts[known].sum() >= 0.95 * filled:
            return _numeric(column, name, rows, plain, signs)
        format = columns.date_format([texts[i] for i in np.argsort(-counts, kind="stable")[:1000]])
        if format is not None:
            return Date(name, format, ())
    return _category(name, texts, counts, filled == len(column), plain)


def _numeric(column: pd.Series, name: str, rows: int, plain: bool, signs: columns.Signs) -> Number | str:
    x = columns.numbers(column, signs)
    known = x[np.isfinite(x)]
    if not len(known):
        return "all values are missing"
    if not plain and len(known) >= 20 and bool((known == np.round(known)).all()):
        exact = column.to_numpy() if column.dtype.kind in "iu" else known  # float64 cannot tell huge ones apart
        unique = np.unique(exact)
        if len(unique) == len(known) and np.abs(known).max() >= 2**53:
            return "whole numbers, all different and huge: names of the rows"
        if len(unique) == len(known) and known.max() - known.min() < 1.05 * rows:
            return "numbers the rows"
    return _number(name, x)


def _number(name: str, x: Array) -> Number | str:
    """The scaling of a column [n], float64 with NaN for missing."""
    raw = x[np.isfinite(x)]
    known = np.clip(raw, -FLOAT32, FLOAT32).astype(np.float32).astype(np.float64)  # as `encode` gives it
    missing = len(known) < len(x)
    if not len(known):
        return "all values are missing"
    fill, mean, deviation = float(np.median(known)), float(known.mean()), float(known.std())
    if deviation <= 1e-7 * abs(mean) or deviation == 0:
        same = known.min() == known.max() and len(np.unique(raw)) == 1
        why = "constant" if same else "constant to the seven digits of float32"
        return Number(name, fill, True, fill, 1.0) if missing else why
    z = (known - mean) / deviation
    if abs((z * z * z).mean()) <= 1 and np.square(z * z).mean() <= 6:
        return Number(name, fill, missing, mean, deviation)
    knots, scores = _quantiles(known)
    mapped = np.interp(known, knots, scores)
    return Number(
        name, fill, missing, float(mapped.mean()), float(mapped.std()), tuple(knots.tolist()), tuple(scores.tolist())
    )


def _quantiles(known: Array) -> tuple[Array, Array]:
    """Up to `KNOTS` values of a column, ascending, and what a normal distribution has at their ranks."""
    ordered = np.sort(known)
    knots = np.unique(ordered[np.linspace(0, len(ordered) - 1, KNOTS).round().astype(int)])
    below, upto = np.searchsorted(ordered, knots, "left"), np.searchsorted(ordered, knots, "right")
    ranks = (below + upto) / 2 / len(ordered)
    normal = NormalDist()
    return knots, np.array([normal.inv_cdf(min(max(rank, 1e-4), 1 - 1e-4)) for rank in ranks])


def _category(name: str, texts: list[str], counts: Array, whole: bool, plain: bool) -> Category | str:
    filled = int(counts.sum())
    if len(texts) == 1 and whole:
        return "constant"
    if len(texts) > 20 and len(texts) > filled / 2 and not plain:
        if np.mean([len(text.split()) for text in texts[:1000]]) >= 3 or np.mean([len(t) for t in texts[:1000]]) > 40:
            return "free text"
        if len(texts) > 0.9 * filled:
            return "nearly every row has its own value"
    order = np.lexsort((np.array(texts), -counts))[:VALUES]
    few = 3 if filled >= 100 else 1
    kept = tuple([texts[i] for i in order if counts[i] >= few])
    return Category(name, kept) if kept else "no value comes often enough"


# ---------------------------------------------------------------------------------------------------------------- open
@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of all rows.

    counts  rows of each table
    sample  some of the rows, or all: their index is the place of the row
    texts   columns that hold text somewhere
    """

    counts: tuple[int, ...]
    sample: pd.DataFrame
    texts: frozenset[str]


def survey(tables: Sequence[Rows], kept: set[str], seed: int) -> tuple[Survey, pd.DataFrame]:
    """Read all rows of tables with the same columns once, and keep some columns whole.

    Columns that are numbers in one chunk and text in another are read again, as text: what a cell holds must not depend
    on where it stands.
    """
    rng = np.random.default_rng([seed, 7])
    size = sum(table.bytes for table in tables)
    share = min(1.0, SAMPLE / max(1, size)) if any(table.large for table in tables) else 1.0
    counts, samples, pieces = [0] * len(tables), [], []
    texts: set[str] = set()
    others: set[str] = set()
    for i, chunk in _chunks(tables, (), None):
        for name in chunk.columns:
            if not chunk[name].isna().all():
                (texts if _is_text(chunk[name]) else others).add(name)
        counts[i] += len(chunk)
        pieces.append(chunk[[name for name in chunk.columns if name in kept]])
        samples.append(chunk if share == 1 else chunk[rng.random(len(chunk)) < share])
    if not counts[0]:
        raise DataError("the table has no rows, expected one for each sample")
    mixed = texts & others
    sample, whole = [joined([part.drop(columns=mixed & set(part.columns)) for part in parts])
                     for parts in (samples, pieces)]  # fmt: skip
    if mixed:
        again = [(chunk[chunk.index.isin(sample.index)], chunk[[name for name in mixed if name in kept]])
                 for _, chunk in _chunks(tables, mixed, mixed)]  # fmt: skip
        first, second = joined([part for part, _ in again]), joined([part for _, part in again])
        sample = sample.assign(**{name: first[name] for name in first.columns})
        whole = whole.assign(**{name: second[name] for name in second.columns})
    return Survey(tuple(counts), sample, frozenset(texts)), whole


def _chunks(
    tables: Sequence[Rows], texts: Collection[str], wanted: Collection[str] | None
) -> Iterator[tuple[int, pd.DataFrame]]:
    """The chunks of the tables, their rows numbered from 0 through all of them, and of which table each is."""
    at = 0
    for i, table in enumerate(tables):
        for chunk in table.read(texts, wanted):
            yield i, chunk.set_axis(np.arange(at, at + len(chunk)), axis=0)
            at += len(chunk)


def _is_text(column: pd.Series) -> bool:
    """Whether it holds anything but numbers, True and False."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        return False
    return column.dtype != object or pd.api.types.infer_dtype(column, skipna=True) != "boolean"


def open_table(
    rows: Rows, *, target: str | int | None = None, y: Any = None, task: Task | None = None, seed: int = 0,
    time: str | int | None = None, group: str | int | None = None, valid: float = 0.15, test: float = 0.2,
    folder: Any = None, name: str = "data", tested: Rows | None = None, plain: bool = False,
    given: Sequence[str] | None = None, groups: Array | None = None,
) -> Data:  # fmt: skip
    """Data of a table.

    target   the column to predict, by default the last; or None with `y` [n] or [n, k], which then holds it
    time, group   columns by which the splits are made: by age, by whole groups
    folder   where arrays go if they are large
    tested   rows of the same columns that are the test split
    plain    whether the columns are an array's
    given, groups   the split of each row, or its group, where the caller knows them

    Raises `DataError` for whatever nothing can be learned from.
    """
    notices = list(rows.notices)
    if y is None:
        column = rows.names[-1] if target is None else position(target, rows.names)
        if target is None:
            notices.append(f"the target is the last column, '{column}'")
        if len(rows.names) == 1:
            raise DataError(f"the table has one column, '{column}', expected the target and at least one more")
    else:
        column = str(getattr(y, "name", None) or "target")
        if column in rows.names:
            column = columns.unique_names([*rows.names, column])[-1]
    roles = {role: position(value, rows.names, role) for role, value in (("time", time), ("group", group))
             if value is not None}  # fmt: skip
    for role, value in roles.items():
        if value == column and y is None:
            raise DataError(f"'{column}' is both the target and the {role}, expected different columns")
    tables = [rows, *([] if tested is None else [tested])]
    found, kept = survey(tables, {*roles.values(), *([column] if y is None else [])}, seed)
    raw = kept[column] if y is None else y
    if len(raw) != sum(found.counts):
        raise DataError(f"got {sum(found.counts)} rows and {len(raw)} targets, expected as many")
    home = None if given is None else np.array(given, object)
    if tested is not None:
        home = np.repeat(np.array(["train", "test"], object), found.counts)
    what, codes, known = target_of(raw, column, task, rows.signs)
    lost: Counter[str] = Counter()
    if what.task == "regression" and y is None:
        lost[column] = int(columns.filled(raw).sum() - known.sum())
    if task is None and len(what.labels) > 2 and not isinstance(what.labels[0], str):
        notices.append(f"the target holds {len(what.labels)} whole numbers, which are taken for classes: to predict"
                       " numbers, ask for the task regression")  # fmt: skip
    if not known.all():
        notices.append(f"{int((~known).sum())} of {len(known)} rows are left out: their target '{column}' is missing")
    where = np.flatnonzero(known)
    codes = codes[where]
    times, grouped = _keys(kept, roles, where, rows.signs)
    del raw, kept  # of all rows, which may be very many
    groups = grouped if groups is None else groups[where]
    split, how = divide(
        codes, what.task, np.random.default_rng(seed), valid=valid, test=test, times=times, groups=groups,
        given=None if home is None else home[where],
    )  # fmt: skip
    what, encoded = scaled_target(what, codes, split["train"])
    notices += lonely(what, codes)
    train = np.zeros(len(known), bool)
    train[where[split["train"]]] = True
    sample = found.sample[train[found.sample.index.to_numpy()]]
    left = {value: f"the splits are made by its {role}" for role, value in roles.items()}
    first = rows.names[0]
    if rows.unnamed and first != column and _counts(sample[first]):
        left.setdefault(first, "numbers the rows")
    recipe = fit(sample, what, rows.names, rows=found.counts[0], header=rows.header, ignored=left, plain=plain,
                 signs=rows.signs)  # fmt: skip
    notices += [describe(dict(recipe.ignored))] if recipe.ignored else []
    del codes, where, train, sample
    large = any(table.large for table in tables)
    inputs = gather(_encoded(tables, recipe, found, known, lost), len(encoded), folder, large=large or None)
    notices += unreadable(lost)
    meta = {
        "recipe": recipe.to_dict(), "codes": list(recipe.codes), "split": how, "notices": notices,
        "features": list(recipe.features), "target": column,
    }  # fmt: skip
    return Data(inputs, encoded, what.task, split, "table", what.classes, name, meta, groups=numbered(groups))


def _keys(
    kept: pd.DataFrame, roles: dict[str, str], where: Array, signs: columns.Signs
) -> tuple[Array | None, Array | None]:
    """When each sample was, and the group that it belongs to."""
    times = groups = None
    if "time" in roles:
        column = kept[roles["time"]]
        times = columns.numbers(column, signs)
        if not np.isfinite(times).any():
            format = columns.date_format(columns.values(column)[1][:1000])
            if format is None:
                raise DataError(f"the time '{roles['time']}' holds {column.iloc[0]!r}, expected numbers or dates")
            times = columns.dates(column, format)
        times = times[where]
    if "group" in roles:
        index, _ = columns.values(kept[roles["group"]])
        alone = np.flatnonzero(index < 0)
        index[alone] = -1 - alone  # where the group is missing, a sample is its own
        groups = index[where]
    return times, groups


def _counts(column: pd.Series) -> bool:
    """Whether a column is whole numbers, all different."""
    x = columns.numbers(column)
    return bool((x == np.round(x)).all()) and len(np.unique(x)) == len(x)


def scaled_target(target: Target, y: Array, train: Array) -> tuple[Target, Array]:
    """The target with the scale that its train samples have, and what networks learn: classes, or numbers [n, k]."""
    if target.task == "classification":
        if len(np.unique(y[train])) < 2:
            only = target.labels[int(y[train][0])]
            raise DataError(f"the train split has one class, {only!r}, of {len(target.labels)}: split in another way")
        return target, y.astype(np.int64)
    mean, deviation = y[train].mean(0), y[train].std(0)
    if (deviation <= 1e-9 * np.abs(mean)).any():
        raise DataError(
            f"target '{target.name}' is {mean.ravel()[0]:g} in all rows of the train split: there is nothing to learn"
        )
    target = dataclasses.replace(target, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
    return target, ((y - mean) / deviation).astype(np.float32)


def lonely(target: Target, codes: Array) -> list[str]:
    """A notice about classes of one sample."""
    if target.task != "classification":
        return []
    alone = [target.classes[c] for c in np.flatnonzero(np.bincount(codes, minlength=len(target.labels)) == 1)]
    if not alone:
        return []
    shown = ", ".join([f"'{name}'" for name in alone[:5]]) + (f" and {len(alone) - 5} more" if alone[5:] else "")
    return [f"one sample only has the class {shown}: it is for training, so nothing says how well it is recognised"]


def unreadable(lost: Counter[str]) -> list[str]:
    """A notice about cells in columns of numbers that are none: how many there are in which column."""
    found = [f"{count} in '{name}'" for name, count in lost.most_common() if count]
    shown = ", ".join(found[:5]) + (f" and some in {len(found) - 5} more columns" if found[5:] else "")
    return [f"cells that could not be read as numbers count as missing: {shown}"] if found else []


def _encoded(
    tables: Sequence[Rows], recipe: TableRecipe, found: Survey, known: Array, lost: Counter[str]
) -> Iterator[tuple[Array, ...]]:
    """What the recipe makes of the rows whose target is known, chunk by chunk; `lost` counts the cells that are no
    numbers in columns that are."""
    at = 0
    whole = len(found.sample) == len(known) and not any(table.large for table in tables)
    numbers = {number.name for number in recipe.numbers} & found.texts
    for chunk in [found.sample] if whole else (chunk for _, chunk in _chunks(tables, found.texts, set(recipe.needed))):
        part = chunk[known[at : at + len(chunk)]]
        at += len(chunk)
        for name in sorted(numbers & set(part.columns)):  # the same notice in every process
            x = columns.numbers(part[name], recipe.signs)
            lost[name] += int((columns.filled(part[name]) & ~np.isfinite(x)).sum())
        yield recipe.apply(part)
