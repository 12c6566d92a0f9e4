"""How a CSV file is written: encoding, separator, header, and the signs in its numbers, guessed from its beginning."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from archwright.data.columns import GROUPED, MISSING, Signs
from archwright.errors import DataError

HEAD = 256 * 2**10
"""Characters of a file from which all is guessed; more where that is fewer than `ENOUGH` lines, `MOST` at most."""
ENOUGH = 20
MOST = 64 * 2**20
BLOCK = 4 * 2**20
"""Bytes that are read at once to find the encoding."""

WHITESPACE = r"\s+"
SEPARATORS = (";", "\t", "|", ",", WHITESPACE)
"""In the order of preference where several divide all lines alike: a comma may also be a decimal sign."""
EMPTY = re.compile(r'[\s;|,"]*')
"""A line without anything in its cells."""

UNREADABLE = (OSError, EOFError, UnicodeError, zlib.error)
"""What reading a file may raise."""


# -------------------------------------------------------------------------------------------------------------- lines
def beginning(path: Path) -> tuple[list[str], str]:
    """The first whole lines of a file, and its encoding. Raises `DataError` for what is no text."""
    try:
        encoding = _encoding(path)
        with _opened(path)(path, "rt", encoding=encoding, newline="") as file:
            text = file.read(HEAD)
            while _ends(text) < ENOUGH and len(text) < MOST and (more := file.read(len(text))):
                text += more
            complete = not file.read(1)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    lines = list(io.StringIO(text, newline=""))
    return lines if complete or len(lines) < 2 else lines[:-1], encoding


def _opened(path: Path) -> Any:
    return gzip.open if path.suffix.lower() == ".gz" else open


def _ends(text: str) -> int:
    return text.count("\n") or text.count("\r")


def _encoding(path: Path) -> str:
    """The first encoding in which the whole file can be read."""
    with _opened(path)(path, "rb") as file:
        head = file.read(HEAD)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if b"\0" in head:
        raise DataError(f"{path} is not text, expected a CSV file")
    return next((name for name in ("utf-8-sig", "cp1252") if _is_encoded(path, name)), "latin-1")


def _is_encoded(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with _opened(path)(path, "rb") as file:
            while block := file.read(BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


# -------------------------------------------------------------------------------------------------------------- cells
def cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The cells of the lines that hold something; none if the lines cannot be divided."""
    if separator == WHITESPACE:
        return [line.split() for line in lines if line.strip()]
    limit = csv.field_size_limit(MOST)  # of this process: it is given back
    try:
        found = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in found if any(row)]
    except csv.Error:
        return []
    finally:
        csv.field_size_limit(limit)


def separator(lines: Sequence[str], known: Collection[str] = ()) -> str:
    """What divides the lines best; a comma if nothing does.

    That is, in this order: what finds most of the known names in the first line; no comma, and divides all lines alike;
    divides the first line like most others; divides most lines alike; divides them into most cells.
    """
    best, most = ",", (0, False, False, 0.0, 1)
    for candidate in SEPARATORS:
        found = cells(lines[:200], candidate)
        if not found or (candidate == WHITESPACE and most[-1] > 1):
            continue
        sizes = Counter(map(len, found))
        size, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
        share, named = round(count / len(found), 1), sum(cell in known for cell in found[0])
        rank = (named, candidate != "," and len(sizes) == 1, len(found[0]) == size, share, size)
        if size > 1 and share >= 0.8 and rank > most:
            best, most = candidate, rank
    return best


def has_header(rows: Sequence[Sequence[str]], known: Collection[str] | None = None) -> bool:
    """Whether the first row names the columns: it holds no number where the rows below do. Where no column holds
    numbers, whether none of its cells comes again in its column; or, if names are known, whether it holds one."""
    if known is not None and any(cell in known for cell in rows[0]):
        return True
    votes = _votes(rows)
    if votes or known is not None:
        return votes > 0
    if len(rows) == 1:
        return not any(is_number(cell) for cell in rows[0])
    return not any(name in column for name, column in zip(rows[0], columns(rows[1:]), strict=False) if name)


def columns(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The cells by column, of the first rows."""
    return list(itertools.zip_longest(*rows[:500], fillvalue=""))


def _votes(rows: Sequence[Sequence[str]]) -> int:
    """How many more columns of numbers begin with something else than with a number."""
    return sum(
        -1 if is_number(name) else 1
        for name, column in zip(rows[0], columns(rows[1:]), strict=False)
        if name not in MISSING and _numbers(column)
    )


def header(rows: Sequence[Sequence[str]]) -> list[str]:
    """The names in the first row. Where it is shorter than the rows, they begin with a name, or end with nothing."""
    names, width = list(rows[0]), Counter(len(row) for row in rows[1:]).most_common(1)[0][0]
    extra = [""] * max(0, width - len(names))
    ends = any(row[-1] for row in rows[1:] if len(row) == width)
    return [*extra, *names] if ends else [*names, *extra]


# ------------------------------------------------------------------------------------------------------------ numbers
def is_number(cell: str) -> bool:
    """Whether a cell is a number, whatever its decimal sign is."""
    try:
        float(cell.replace(",", ".") if cell.count(",") == 1 else cell)
    except ValueError:
        return any(pattern.fullmatch(cell) for pattern in _GROUPED.values())
    return True


def _numbers(column: Sequence[str]) -> list[str]:
    """The numbers of a column of numbers; none if it is none."""
    known = [cell for cell in column if cell not in MISSING]
    found = [cell for cell in known if is_number(cell)]
    return found if len(found) > 0.9 * len(known) else []


_GROUPED = {sign: re.compile(pattern) for sign, pattern in GROUPED.items()}
_OTHER = {",": ".", ".": ","}


def signs(found: Sequence[Sequence[str]], separator: str, former: Signs | None = None) -> Signs:
    """The decimal sign of the numbers in these columns, and the sign that groups their thousands ("" for none).

    12,5 and 0,125 have a decimal comma; 1,234,567 and 1,234.5 have thousands. 1,234 may have either: then the other
    numbers decide. If they don't, it is as it was before, if that is known. Else a comma groups thousands, unless
    semicolons divide the cells and all numbers of the column are written like this; and a point is a decimal sign,
    unless semicolons divide the cells and it stands among whole numbers below 1000.

    former   the signs of a table with the same columns
    """
    decimals: Counter[str] = Counter()  # sign -> in how many columns it is surely the decimal sign
    thousands: set[str] = set()  # signs that surely group thousands
    likely: set[str] = set()
    either: set[str] = set()
    for column in found:
        read = Counter(map(_reading, _numbers(column)))
        sure = max(_OTHER, key=lambda sign: read["decimal", sign])
        small = bool(read["small", ""]) and not read["whole", ""]
        if read["decimal", sure]:
            decimals[sure] += 1
        for sign in _OTHER:
            if read["thousands", sign]:
                thousands.add(sign)
            elif read["either", sign] and not read["decimal", sure]:
                (likely if small and (sign == "," or separator == ";") else either).add(sign)
    if decimals:
        decimal = max(decimals, key=lambda sign: (decimals[sign], (sign == ",") == (separator == ";")))
        return decimal, "" if _OTHER[decimal] in decimals.keys() - thousands else _OTHER[decimal]
    if not thousands and former is not None:
        return former
    if grouped := thousands or likely:
        return (".", ",") if "," in grouped else (",", ".")
    if separator != ";" or either == {"."}:
        return ".", ","
    return ",", "." if either else ""


def _reading(cell: str) -> tuple[str, str]:
    """What a number says of the signs in it: (decimal, thousands, either, small or whole; sign)."""
    for sign, pattern in _GROUPED.items():
        if pattern.fullmatch(cell):
            return ("thousands" if cell.count(sign) > 1 or _OTHER[sign] in cell else "either"), sign
    last = max(cell.rfind(","), cell.rfind("."))
    if last >= 0:
        return "decimal", cell[last]
    return "small" if len(cell.lstrip("+-")) <= 3 else "whole", ""
