"""Where the data for tests and claims are: the folder that the variable ARCHWRIGHT_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

from archwright.errors import DataError

VARIABLE = "ARCHWRIGHT_DATA"


def data_home() -> Path | None:
    """The folder, or None where there is none. By default ../shared/data from the working directory."""
    folder = Path(os.environ.get(VARIABLE, Path("..") / "shared" / "data"))
    return folder if folder.is_dir() else None


def data_file(*names: str) -> Path:
    """A file of that folder. Raises `DataError` saying how to provide it."""
    home = data_home()
    if home is None:
        raise DataError(f"the data folder is not there: set {VARIABLE} to the folder that holds {'/'.join(names)}")
    path = home.joinpath(*names)
    if not path.exists():
        raise DataError(f"{path} does not exist: expected it in the folder that {VARIABLE} names")
    return path
