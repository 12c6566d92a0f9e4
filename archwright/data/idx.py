"""IDX files, the format of MNIST, also packed (.gz): images and labels, and the test files beside them."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data.data import Array
from archwright.errors import DataError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def is_idx(path: Path) -> bool:
    """Whether a file is named like one: train-images-idx3-ubyte.gz, images.idx."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith("ubyte") or name.endswith(".idx") or ".idx" in name or "-idx" in name


def read(path: str | os.PathLike[str]) -> Array:
    """The array of a file. Raises `DataError` for another format, or a file that ends early."""
    opener: Any = gzip.open if str(path).lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in TYPES or not 1 <= raw[3] <= 8:
        raise DataError(f"{os.fspath(path)} begins with {raw[:4].hex(' ')}, expected the head of an IDX file")
    head = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:head], ">u4").tolist()) if len(raw) >= head else ()
    dtype = np.dtype(TYPES[raw[2]])
    if len(shape) != raw[3] or len(raw) != head + math.prod(shape) * dtype.itemsize:
        raise DataError(f"{os.fspath(path)} has {len(raw)} bytes, expected {shape} numbers of {dtype.itemsize} bytes")
    return np.frombuffer(raw, dtype, offset=head).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def images_in(folder: Path) -> Path | None:
    """The file of training images in a folder, or None where there is none."""
    found = sorted([p for p in folder.iterdir() if p.is_file() and is_idx(p) and "images" in p.name.lower()])
    return next((path for path in found if "train" in path.name.lower()), found[0] if found else None)


def labels_of(images: Path) -> Path | None:
    """The file of labels beside a file of images, packed or not."""
    name = images.name
    return _beside(images, [name.replace("images", "labels").replace(f"idx{n}", "idx1") for n in (2, 3, 4)])


def tests_of(images: Path) -> Path | None:
    """The file of test images beside one of training images."""
    if "train" not in images.name:
        return None
    return _beside(images, [images.name.replace("train", other) for other in ("t10k", "test")])


def _beside(path: Path, names: list[str]) -> Path | None:
    for name in names:
        plain = name.removesuffix(".gz")
        for candidate in (path.with_name(name), path.with_name(plain), path.with_name(f"{plain}.gz")):
            if candidate != path and candidate.is_file():
                return candidate
    return None


def load(path: Path) -> tuple[Array, Array, list[str] | None]:
    """Images, labels, and the split of each where test files lie beside. Raises `DataError` if labels are not there."""
    x, y = pair(path)
    tests = tests_of(path)
    if tests is None or labels_of(tests) is None:
        return x, y, None
    more, truth = pair(tests)
    if more.shape[1:] != x.shape[1:]:
        raise DataError(f"{tests} holds {more.shape[1:]}, expected the shape of the training images, {x.shape[1:]}")
    return np.concatenate([x, more]), np.concatenate([y, truth]), ["train"] * len(x) + ["test"] * len(more)


def pair(path: Path) -> tuple[Array, Array]:
    """Images and labels of one file of images."""
    labels = labels_of(path)
    if labels is None:
        raise DataError(f"no labels lie beside {path}, expected a file like train-labels-idx1-ubyte for it")
    x, y = read(path), read(labels)
    if len(x) != len(y):
        raise DataError(f"{path} holds {len(x)} images and {labels.name} {len(y)} labels, expected as many")
    return x, y
