"""One column of a table in three readings: as numbers, as values, as dates. No Python for each cell."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "NaT")
"""Texts that stand for a missing value, once spaces around them are taken away."""

Signs = tuple[str, str]
"""The decimal sign of numbers that are written as text, and the sign that groups their thousands ("" for none)."""
PLAIN: Signs = (".", "")
GROUPED = {
    ",": r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?",
    ".": r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?",
}
"""How a number is written whose thousands are grouped by that sign."""

BLOCK = 2**20
"""Cells that are texts of Python's at once."""

ISO = "ISO8601"
FORMATS = (
    ISO, "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%y", "%d/%m/%y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d",
    "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y",
)  # fmt: skip
"""How dates may be written, in the order in which they are tried: month before day where both are possible."""

PARTS = ("days", "year.sin", "year.cos", "week.sin", "week.cos", "day.sin", "day.cos")
"""The numbers that a date becomes: days since 2000, and where it stands in the year, the week and the day."""


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with text for column names, all different: the second "a" is "a.1", one without a name "x" and its
    place."""
    names = unique_names([".".join(map(str, n)) if isinstance(n, tuple) else str(n) for n in frame.columns])
    return frame if names == list(frame.columns) else frame.set_axis(names, axis=1)


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, made different from each other and from nothing."""
    found: dict[str, None] = {}
    for place, name in enumerate(names):
        base = fresh = name.strip() or f"x{place}"
        count = 0
        while fresh in found:
            count += 1
            fresh = f"{base}.{count}"
        found[fresh] = None
    return list(found)


def numbers(column: pd.Series, signs: Signs = PLAIN) -> NDArray[np.float64]:
    """The column as numbers [n], NaN for what is missing, infinite or no number. True is 1; durations are seconds.

    signs   of numbers that are texts
    """
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        found = np.append(numbers(pd.Series(column.cat.categories), signs), np.nan)[column.cat.codes]
    elif pd.api.types.is_timedelta64_dtype(column.dtype):
        found = column.dt.total_seconds().to_numpy(np.float64, na_value=np.nan)
    elif pd.api.types.is_datetime64_any_dtype(column.dtype):
        found = dates(column)
    elif pd.api.types.is_complex_dtype(column.dtype):
        found = np.full(len(column), np.nan)
    elif pd.api.types.is_numeric_dtype(column.dtype):
        found = column.to_numpy(np.float64, na_value=np.nan)
    else:
        found = np.concatenate([_parsed(block, signs) for block in _blocks(column)])
    return np.where(np.isfinite(found), found, np.nan)


def _parsed(column: pd.Series, signs: Signs) -> NDArray[np.float64]:
    """Texts, or whatever else, as numbers."""
    import pandas as pd

    try:
        index, unique = pd.factorize(column)
        cells = pd.Series(unique)
        if signs != PLAIN:
            cells = _plain(cells.astype("str"), signs)
        parsed = pd.to_numeric(cells, errors="coerce")
    except (TypeError, ValueError, OverflowError):  # cells that are no values at all
        return np.full(len(column), np.nan)
    return np.append(parsed.to_numpy(np.float64, na_value=np.nan), np.nan)[index]


def _plain(texts: pd.Series, signs: Signs) -> pd.Series:
    """The texts with numbers written as Python writes them. A decimal point is one whatever the sign is."""
    decimal, thousands = signs
    texts = texts.str.strip()
    if not texts.str.contains("[,.]" if decimal == "," else ",").any():
        return texts
    if thousands:
        grouped = texts.str.fullmatch(GROUPED[thousands])
        texts = texts.mask(grouped, texts.str.replace(thousands, "", regex=False))
    return texts if decimal == "." else texts.str.replace(decimal, ".", regex=False)


def _blocks(column: pd.Series) -> list[pd.Series]:
    return [column.iloc[start : start + BLOCK] for start in range(0, max(1, len(column)), BLOCK)]


def filled(column: pd.Series) -> NDArray[np.bool_]:
    """Whether each cell holds something [n]."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.notna().to_numpy(bool)
    if isinstance(column.dtype, pd.StringDtype):
        return (column.notna() & ~column.str.strip().isin(MISSING)).to_numpy(bool)
    return np.concatenate([values(block)[0] >= 0 for block in _blocks(column)])


def values(column: pd.Series) -> tuple[NDArray[np.int64], list[str]]:
    """The column as (index [n], texts): which text each cell holds, -1 where it is missing.

    Numbers are written as short as they are (7.0 is "7"), spaces around texts are dropped. Raises TypeError for cells
    that cannot be compared (lists, dictionaries).
    """
    import pandas as pd

    index, unique = pd.factorize(column)
    texts = [written(value) for value in unique.tolist()]
    if len(set(texts)) == len(texts) and None not in texts:
        return index.astype(np.int64), [str(text) for text in texts]
    known = {text: i for i, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
    place = np.array([*[-1 if text is None else known[text] for text in texts], -1], np.int64)
    return place[index], list(known)


def written(value: Any) -> str | None:
    """The text of one value, or None if it stands for nothing."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(value) < 2**63:
        return str(int(value))
    text = str(value).strip()
    return None if text in MISSING else text


def codes(texts: Sequence[str], known: Sequence[str]) -> NDArray[np.int64]:
    """Which of the known texts each one is, -1 for none.

    A text is the known one that is written alike; or else the same whole number (2.0 is 2), or, where nothing is known
    but true and false, the same of these (TRUE is True).
    """
    truths = all(text.lower() in ("true", "false") for text in known)
    alike = str.lower if truths else _whole
    exact = {text: code for code, text in enumerate(known)}
    loose = {alike(text): code for code, text in reversed(list(enumerate(known)))}
    found = [exact[text] if text in exact else loose.get(alike(text), -1) for text in texts]
    return np.array(found, np.int64)


def _whole(text: str) -> str:
    return re.sub(r"^([-+]?\d+)\.0*$", r"\1", text)


def dates(column: pd.Series, format: str = ISO) -> NDArray[np.float64]:
    """The column as days since 2000-01-01 UTC [n], NaN for what is missing or not written in that format."""
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = pd.to_datetime(column, format=format, errors="coerce", utc=True)
    elif getattr(column.dtype, "tz", None) is None:
        column = column.dt.tz_localize("UTC")
    since = (column - pd.Timestamp("2000-01-01", tz="UTC")).dt.total_seconds()
    return since.to_numpy(np.float64, na_value=np.nan) / 86400


def date_format(texts: list[str]) -> str | None:
    """The format in which at least 19 in 20 of the texts are dates, or None. Numbers alone are no dates."""
    import pandas as pd

    column = pd.Series(texts, dtype="str")
    if not len(column) or not column.str.contains(r"\d").all() or np.isfinite(numbers(column)).any():
        return None
    for format in FORMATS:
        if np.isfinite(dates(column, format)).mean() >= 0.95:
            return format
    return None


def date_part(days: NDArray[np.float64], part: str) -> NDArray[np.float64]:
    """One of `PARTS` of dates given in days since 2000-01-01, a Saturday."""
    name, _, wave = part.partition(".")
    if not wave:
        return days
    period = {"year": 365.2425, "week": 7.0, "day": 1.0}[name]
    phase = 2 * np.pi * np.round(days % period, 8) / period  # the same time of day is the same number
    return np.sin(phase) if wave == "sin" else np.cos(phase)
