"""NumPy archives (.npz): inputs and targets under the names that people give them. Nothing in one is executed."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from archwright.data.data import Array
from archwright.errors import DataError

PAIRS = (("x", "y"), ("x", "t"), ("data", "target"), ("data", "labels"), ("images", "labels"), ("features", "labels"),
         ("inputs", "targets"), ("features", "target"), ("signals", "labels"))  # fmt: skip
SPLITS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}


def load(path: str | os.PathLike[str]) -> tuple[Array, Array | None, list[str] | None]:
    """Inputs, targets, and the split of each sample where the names say it.

    Names, in any case: x_train, y_train, x_test, y_test (also images and labels, and x_val); X and y, data and target
    and the like; else the first two arrays. Targets are None if there is a single array. Raises `DataError`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if isinstance(file, np.ndarray):
                raise DataError(f"{os.fspath(path)} holds one array, expected an .npz with X and y")
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{os.fspath(path)} cannot be read as .npz: {error}") from None
    if not arrays:
        raise DataError(f"{os.fspath(path)} holds no arrays, expected X and y")
    lower = {name.lower().replace("-", "_"): array for name, array in arrays.items()}
    divided = _divided(lower)
    if divided is not None:
        return divided
    for x, y in PAIRS:
        if x in lower and y in lower:
            return lower[x], lower[y], None
    first, *rest = arrays.values()
    return first, rest[0] if rest else None, None


def _divided(arrays: dict[str, Array]) -> tuple[Array, Array, list[str]] | None:
    xs, ys, home = [], [], []
    for split, names in SPLITS.items():
        for name in names:
            found = [(arrays.get(f"{x}_{name}", arrays.get(f"{name}_{x}")),
                      arrays.get(f"{y}_{name}", arrays.get(f"{name}_{y}"))) for x, y in PAIRS]  # fmt: skip
            for x, y in found:
                if x is not None and y is not None:
                    xs.append(x)
                    ys.append(y)
                    home += [split] * len(x)
                    break
    if "train" not in home:
        return None
    if len({x.shape[1:] for x in xs}) > 1:
        raise DataError(f"the splits hold {', '.join([str(x.shape) for x in xs])}, expected samples of one shape")
    if len(home) == len(xs[0]):
        return xs[0], ys[0], home
    return np.concatenate(xs), np.concatenate(ys), home
