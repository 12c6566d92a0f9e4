"""Tables as chunks of rows: CSV and Parquet files are read piece by piece, so that no table has to fit into memory."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archwright.data.columns import MISSING, named, unique_names
from archwright.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

LARGE = 192 * 2**20
"""Bytes of a file (unpacked) from which on it is read in chunks, twice, instead of once as a whole."""
CHUNK = 48 * 2**20
"""Bytes of a file that make one chunk."""
HEAD = 256 * 2**10
"""Characters of a file from which separator and header are guessed."""
PACKED = 6
"""Bytes that one byte of a .gz file is taken to hold."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A table that is read in chunks.

    names    of the columns
    read     read(texts, wanted) gives the chunks as DataFrames with those names: columns in `texts` as text, and of all
             only those in `wanted`, unless it is None
    header   whether the source gave the names
    large    whether the whole had better not be in memory
    bytes    about how many bytes it has, and `width` about how many of them a row has
    notices  what has to be said about how it was read
    """

    names: tuple[str, ...]
    read: Callable[[Collection[str], Collection[str] | None], Iterator[pd.DataFrame]]
    header: bool = True
    large: bool = False
    bytes: int = 0
    width: int = 1
    notices: tuple[str, ...] = ()

    def whole(self, texts: Collection[str] = (), wanted: Collection[str] | None = None) -> pd.DataFrame:
        """All rows."""
        import pandas as pd

        return pd.concat(list(self.read(texts, wanted)), ignore_index=True)


def of_frame(frame: pd.DataFrame) -> Rows:
    """A DataFrame. Columns that are numbered and not named are "x0", "x1", ... ."""
    import pandas as pd

    header = not isinstance(frame.columns, pd.RangeIndex)
    frame = named(frame if header else frame.set_axis([f"x{i}" for i in range(frame.shape[1])], axis=1))
    if frame.shape[1] == 0:
        raise DataError("the table has no columns, expected at least one")
    return Rows(tuple(frame.columns), lambda texts, wanted: iter([_only(frame, wanted)]), header)


def _only(frame: pd.DataFrame, wanted: Collection[str] | None) -> pd.DataFrame:
    return frame if wanted is None else frame[[name for name in frame.columns if name in wanted]]


def of_parquet(path: Path) -> Rows:
    """A Parquet file. Raises `DataError` for what is none."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    if not count or not schema.names:
        raise DataError(f"{path} holds {count} rows and {len(schema.names)} columns, expected some of both")
    names = tuple(unique_names(schema.names))
    width = max(1, size // count)

    def read(texts: Collection[str], wanted: Collection[str] | None) -> Iterator[pd.DataFrame]:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(max(1, CHUNK // width) if size >= LARGE else count):
                yield _only(batch.to_pandas().set_axis(list(names), axis=1), wanted)

    return Rows(names, read, large=size >= LARGE, bytes=size, width=width)


# ---------------------------------------------------------------------------------------------------------------- CSV
def of_csv(path: Path, known: Collection[str] | None = None) -> Rows:
    """A CSV file, also packed (.gz): separator, header and decimal point are guessed from its beginning.

    known   names of columns one of which a header has to hold; none if no header is expected

    Raises `DataError` if it is empty, holds a header only, or cannot be read.
    """
    text, encoding, complete = _beginning(path)
    if not text.strip():
        raise DataError(f"{path} is empty, expected a table with a row for each sample")
    lines = list(io.StringIO(text, newline=""))
    lines = lines if complete or len(lines) < 2 else lines[:-1]
    separator = _separator(lines)
    cells = _cells(lines, separator)
    if known is None:
        header = _has_header(cells)
    else:
        header = any(cell in known for cell in cells[0]) or _votes(cells) > 0
    if header and len(cells) == 1:
        raise DataError(f"{path} holds a header and no rows, expected a row for each sample")
    names = tuple(unique_names(_header(cells) if header else [f"x{i}" for i in range(len(cells[0]))]))
    packed = path.suffix.lower() == ".gz"
    size = path.stat().st_size * (PACKED if packed else 1)
    width = max(1, sum(map(len, lines)) // len(lines))
    notices = () if header else (
        f"{path.name} has no header: its columns are called '{names[0]}' to '{names[-1]}'",
    )
    options = {
        "sep": separator, "header": 0 if header else None, "names": list(names), "index_col": False,
        "encoding": encoding, "encoding_errors": "replace", "na_values": list(MISSING), "skipinitialspace": True,
        "decimal": _decimal(cells, separator), "low_memory": False,
        "compression": "gzip" if packed else None,
    }  # fmt: skip

    def read(texts: Collection[str], wanted: Collection[str] | None) -> Iterator[pd.DataFrame]:
        chosen = {"dtype": dict.fromkeys([name for name in texts if wanted is None or name in wanted], "str")}
        if wanted is not None:
            chosen["usecols"] = [name for name in names if name in wanted]
        if size >= LARGE:
            chosen["chunksize"] = max(1, CHUNK // width)
        yield from _parsed(path, {**options, **chosen}, len(names))

    return Rows(names, read, header, size >= LARGE, size, width, notices)


def _parsed(path: Path, options: dict[str, Any], width: int) -> Iterator[pd.DataFrame]:
    import pandas as pd

    try:
        found = _strictly(lambda: pd.read_csv(path, **options))
        if isinstance(found, pd.DataFrame):
            yield found
            return
        with found as chunks:
            while (chunk := _strictly(lambda: next(chunks, None))) is not None:
                yield chunk
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1].replace("C error: ", "").replace("Error tokenizing data. ", "")
        raise DataError(f"{path} cannot be read as a table of {width} columns: {reason}") from None


def _strictly(read: Callable[[], Any]) -> Any:
    """What `read` gives. Rows that are longer than the header are an error: pandas would cut them."""
    import warnings

    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return read()


def _beginning(path: Path) -> tuple[str, str, bool]:
    """The first characters of a file, its encoding, and whether they are all of it."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rb") as file:
            raw = file.read(HEAD + 1)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    complete, raw = len(raw) <= HEAD, raw[:HEAD]
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw[: len(raw) // 2 * 2].decode("utf-16", "replace"), "utf-16", complete
    if b"\0" in raw:
        raise DataError(f"{path} is not text, expected a CSV file")
    for cut in range(4):  # the last character may be cut in two
        try:
            return raw[: len(raw) - cut].decode("utf-8-sig"), "utf-8-sig", complete
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), "latin-1", complete


def _cells(lines: Sequence[str], separator: str) -> list[list[str]]:
    if separator == r"\s+":
        return [line.split() for line in lines if line.strip()]
    found = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    return [[cell.strip() for cell in row] for row in found if any(row)]


def _separator(lines: Sequence[str]) -> str:
    """The separator that divides most lines into equally many cells, and into most of them; a comma if none does."""
    best, most = ",", (0.0, 1)
    for separator in (",", ";", "\t", "|", r"\s+"):
        sizes = Counter(len(row) for row in _cells(lines[:200], separator))
        size, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
        share = round(count / sum(sizes.values()), 1)
        if size > 1 and share >= 0.8 and (separator != r"\s+" or most[1] == 1) and (share, size) > most:
            best, most = separator, (share, size)
    return best


def _has_header(cells: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names the columns: it holds no number where the rows below do. Where no column holds
    numbers, whether none of its cells comes again in its column."""
    votes = _votes(cells)
    if votes:
        return votes > 0
    if len(cells) == 1:
        return not any(_is_number(cell) for cell in cells[0])
    return not any(name in column for name, column in zip(cells[0], _columns(cells), strict=False) if name)


def _columns(cells: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The cells below the first row, by column."""
    return list(itertools.zip_longest(*cells[1:500], fillvalue=""))[: len(cells[0])]


def _votes(cells: Sequence[Sequence[str]]) -> int:
    """How many more columns of numbers begin with something else than with a number."""
    votes = 0
    for name, column in zip(cells[0], _columns(cells), strict=False):
        known = [cell for cell in column if cell not in MISSING]
        if known and sum(map(_is_number, known)) > 0.9 * len(known) and name not in MISSING:
            votes += -1 if _is_number(name) else 1
    return votes


def _header(cells: Sequence[Sequence[str]]) -> list[str]:
    """The names in the first row. Where it is shorter than the rows, they begin with a name, or end with nothing."""
    names, width = list(cells[0]), Counter(len(row) for row in cells[1:]).most_common(1)[0][0]
    extra = [""] * max(0, width - len(names))
    ends = any(row[-1] for row in cells[1:] if len(row) == width)
    return [*extra, *names] if ends else [*names, *extra]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ".") if cell.count(",") == 1 else cell)
    except ValueError:
        return False
    return True


def _decimal(cells: Sequence[Sequence[str]], separator: str) -> str:
    """A comma, if the cells hold numbers with one and none with a point."""
    if separator == ",":
        return "."
    plain = [cell for row in cells[1:500] for cell in row if _is_number(cell)]
    return "," if any("," in cell for cell in plain) and not any("." in cell for cell in plain) else "."


def of_file(path: str | os.PathLike[str], known: Collection[str] | None = None) -> Rows:
    """A table file by its ending; `known` as in `of_csv`."""
    path = Path(path)
    return of_parquet(path) if path.suffix.lower() in (".parquet", ".pq") else of_csv(path, known)


def chain(first: Rows, second: Rows) -> Rows:
    """The rows of the first, then those of the second, which has the same columns by name or by place."""

    def read(texts: Collection[str], wanted: Collection[str] | None) -> Iterator[pd.DataFrame]:
        yield from first.read(texts, wanted)
        yield from second.read(texts, wanted)

    return Rows(
        first.names, read, first.header, first.large or second.large, first.bytes + second.bytes, first.width,
        first.notices,
    )  # fmt: skip
