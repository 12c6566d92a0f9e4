"""Tables as chunks of rows: CSV and Parquet files are read piece by piece, so that no table has to fit into memory."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archwright.data import dialect
from archwright.data.columns import MISSING, PLAIN, Signs, named, unique_names
from archwright.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from archwright.data.recipe import TableRecipe

LARGE = 192 * 2**20
"""Bytes of a file (unpacked) from which on it is read in chunks, twice, instead of once as a whole."""
CHUNK = 48 * 2**20
"""Bytes of a file that make one chunk."""
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
    bytes    about how many bytes it has
    unnamed  whether the first column has no name of its own, as the one has in which pandas writes an index
    signs    of its numbers, where they are text
    notices  what has to be said about how it was read
    """

    names: tuple[str, ...]
    read: Callable[[Collection[str], Collection[str] | None], Iterator[pd.DataFrame]]
    header: bool = True
    large: bool = False
    bytes: int = 0
    unnamed: bool = False
    signs: Signs = PLAIN
    notices: tuple[str, ...] = ()

    def whole(self, texts: Collection[str] = (), wanted: Collection[str] | None = None) -> pd.DataFrame:
        """All rows."""
        return joined(list(self.read(texts, wanted))).reset_index(drop=True)


def joined(chunks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The chunks one after the other. Columns that are categorical in all of them stay so."""
    import pandas as pd

    if len(chunks) == 1:
        return chunks[0]
    found = pd.concat(chunks)
    for name in found.columns:
        parts = [chunk[name] for chunk in chunks]
        if all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
            found[name] = pd.api.types.union_categoricals(parts)
    return found


def of_frame(frame: pd.DataFrame) -> Rows:
    """A DataFrame. Columns that are numbered and not named are "x0", "x1", ... ."""
    import pandas as pd

    header = not isinstance(frame.columns, pd.RangeIndex)
    unnamed = bool(header and frame.shape[1]) and _is_unnamed(str(frame.columns[0]))
    frame = named(frame if header else frame.set_axis([f"x{i}" for i in range(frame.shape[1])], axis=1))
    if frame.shape[1] == 0:
        raise DataError("the table has no columns, expected at least one")
    return Rows(tuple(frame.columns), lambda texts, wanted: iter([_only(frame, wanted)]), header, unnamed=unnamed)


def _only(frame: pd.DataFrame, wanted: Collection[str] | None) -> pd.DataFrame:
    return frame if wanted is None else frame[[name for name in frame.columns if name in wanted]]


def _is_unnamed(name: str) -> bool:
    return name.strip() in ("", "Unnamed: 0")


def of_file(path: str | os.PathLike[str], recipe: TableRecipe | None = None) -> Rows:
    """A table file by its ending; with a recipe, one that it is for: the columns are then named as there."""
    path = Path(path)
    return (of_parquet if path.suffix.lower() in (".parquet", ".pq") else of_csv)(path, recipe)


# ------------------------------------------------------------------------------------------------------------ Parquet
_INDEX = re.compile(r"__index_level_\d+__")
"""Columns in which pandas keeps an index without a name."""


def of_parquet(path: Path, recipe: TableRecipe | None = None) -> Rows:
    """A Parquet file; `recipe` as in `of_file`. Raises `DataError` for what is none."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            encoded = sum(group.total_byte_size for group in groups)
            sample = next(file.iter_batches(1024), None)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    ours = [name for name in schema.names if not _INDEX.fullmatch(name)]
    if not count or not ours:
        raise DataError(f"{path} holds {count} rows and {len(ours)} columns, expected some of both")
    width = max(8 * len(ours), sample.nbytes // max(1, sample.num_rows), encoded // count)  # repetition is encoded away
    unnamed = _is_unnamed(schema.names[0])
    every = unique_names(schema.names)
    names = tuple([name for name, theirs in zip(every, schema.names, strict=True) if not _INDEX.fullmatch(theirs)])
    placed = dict(zip(names, recipe.placed(names) if recipe is not None else names, strict=True))
    large = count * width >= LARGE

    def read(texts: Collection[str], wanted: Collection[str] | None) -> Iterator[pd.DataFrame]:
        chosen = [name for name in every if name in placed and (wanted is None or placed[name] in wanted)]
        columns = chosen if every == schema.names else None  # two of the same name cannot be chosen from
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(max(1, CHUNK // width) if large else count, columns=columns):
                frame = batch.to_pandas(ignore_metadata=True)
                frame = frame if columns is not None else frame.set_axis(every, axis=1)
                yield frame[chosen].rename(columns=placed)

    signs = PLAIN if recipe is None else recipe.signs
    return Rows(tuple(placed.values()), read, True, large, count * width, unnamed, signs)


# ---------------------------------------------------------------------------------------------------------------- CSV
def of_csv(path: Path, recipe: TableRecipe | None = None) -> Rows:
    """A CSV file, also packed (.gz): separator, header and the signs in numbers are guessed from its beginning.

    With a recipe (see `of_file`) a header has to hold one of its names, only columns that it needs say what the signs
    are, and where they don't, its own count.

    Raises `DataError` if it is empty, holds a header only, or cannot be read.
    """
    lines, encoding = dialect.beginning(path)
    if all(dialect.EMPTY.fullmatch(line) for line in lines):
        raise DataError(f"{path} is empty, expected a table with a row for each sample")
    known = frozenset(recipe.columns if recipe is not None and recipe.header else ())
    separator = dialect.separator(lines, known)
    cells = dialect.cells(lines, separator)
    header = dialect.has_header(cells, None if recipe is None else known)
    if header and len(cells) == 1:
        raise DataError(f"{path} holds a header and no rows, expected a row for each sample")
    given = dialect.header(cells) if header else [f"x{i}" for i in range(len(cells[0]))]
    names = tuple(unique_names(given))
    columns = dialect.columns(cells[1:] if header else cells)
    empty = next(i for i, line in enumerate(lines) if not dialect.EMPTY.fullmatch(line))  # lines before the header
    former = None
    if recipe is not None:
        names = recipe.placed(names, header)
        needed = {*recipe.needed, recipe.target.name}
        columns = [column for name, column in zip(names, columns, strict=False) if name in needed]
        former = None if recipe.signs == PLAIN else recipe.signs
    signs = dialect.signs(columns, separator, former)
    packed = path.suffix.lower() == ".gz"
    size = path.stat().st_size * (PACKED if packed else 1)
    width = max(1, sum(map(len, lines)) // len(lines))
    notices = () if header else (
        f"{path.name} has no header: its columns are called '{names[0]}' to '{names[-1]}'",
    )
    options = {
        "sep": separator, "header": 0 if header else None, "names": list(names), "index_col": False,
        "encoding": encoding, "na_values": list(MISSING), "skipinitialspace": True, "decimal": signs[0],
        "low_memory": False, "skiprows": empty if header else 0,
        "compression": "gzip" if packed else None,
    }  # fmt: skip

    def read(texts: Collection[str], wanted: Collection[str] | None) -> Iterator[pd.DataFrame]:
        chosen = {"dtype": dict.fromkeys([name for name in texts if wanted is None or name in wanted], "str")}
        if wanted is not None:
            chosen["usecols"] = [name for name in names if name in wanted]
        if size >= LARGE:
            chosen["chunksize"] = max(1, CHUNK // width)
        yield from _parsed(path, {**options, **chosen}, len(names))

    unnamed = header and _is_unnamed(given[0])
    return Rows(names, read, header, size >= LARGE, size, unnamed, signs, notices)


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
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError,
            *dialect.UNREADABLE) as error:  # fmt: skip
        reason = str(error).strip().splitlines()[-1].replace("C error: ", "").replace("Error tokenizing data. ", "")
        raise DataError(f"{path} cannot be read as a table of {width} columns: {reason}") from None


def _strictly(read: Callable[[], Any]) -> Any:
    """What `read` gives. Rows that are longer than the header are an error: pandas would cut them."""
    import warnings

    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return read()
