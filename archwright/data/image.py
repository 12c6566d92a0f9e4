"""Images: folders of class folders, and arrays. Kept as bytes; what standardises them is data in the recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data import folders, pixels
from archwright.data.data import Array, Data, Task
from archwright.data.moments import moments
from archwright.data.recipe import ImageRecipe, Target
from archwright.data.splits import divide, numbered
from archwright.data.store import gather
from archwright.data.table import lonely, scaled_target, target_of
from archwright.errors import DataError

LARGEST = 64
"""Pixels of the longer side to which the images of a folder are brought at most, unless a size is asked for."""
LOOKED_AT = 1000
"""Files from whose heads the size is chosen; statistics of pixels come from at most ten times as many images."""


def open_folder(
    folder: Path, *, size: int | Sequence[int] | None = None, seed: int = 0, valid: float = 0.15, test: float = 0.2,
    home: Any = None,
) -> Data:  # fmt: skip
    """Images of any size and colour, brought to one size: their median, at most `LARGEST`, or the `size` asked for.

    Raises `DataError` if fewer than two classes can be read.
    """
    files = folders.labelled(folder, pixels.SUFFIXES)
    few = [files[i] for i in np.unique(np.linspace(0, len(files) - 1, min(LOOKED_AT, len(files))).astype(int))]
    colour = any([_is_colour(file.path) for file in few[:: max(1, len(few) // 64)]])
    channels = 3 if colour else 1
    wanted, notices = _size(size) if size is not None else _common([file.path for file in few])
    reader = folders.Reader(files, lambda path: pixels.read(path, channels, wanted))
    batches = ((pixels.stack(batch, channels, wanted, "uint8"),) for batch in reader.batches())
    arrays = gather(batches, len(files), home)
    if not arrays:
        raise DataError(f"{folder} holds no image that can be read: {reader.bad[0]}")
    given = [file.split for file in reader.good]
    data = open_arrays(
        arrays[0], np.array([file.label for file in reader.good]), seed=seed, valid=valid, test=test,
        given=given if any(given) else None, name=folder.name, target="class",
    )  # fmt: skip
    notices = [*notices, *reader.notices(), *data.meta["notices"]]
    return dataclasses.replace(data, meta={**data.meta, "notices": notices})


def open_arrays(
    x: Array, y: Any, *, task: Task | None = None, seed: int = 0, valid: float = 0.15, test: float = 0.2,
    given: Sequence[str | None] | None = None, name: str = "data", target: str = "target", groups: Array | None = None,
) -> Data:  # fmt: skip
    """Images [n, H, W], [n, C, H, W] or [n, H, W, C], of bytes or numbers; `y` [n], or [n, k] numbers.

    Arrays that are mapped into memory stay so. Raises `DataError` for other shapes, and gaps in the target.
    """
    x = first(x)
    what, codes, known = target_of(y, target, task)
    if len(codes) != len(x):
        raise DataError(f"got {len(x)} images and {len(codes)} targets, expected as many")
    if not known.all():
        raise DataError(f"the target of {int((~known).sum())} of {len(known)} images is missing, expected all")
    split, how = divide(
        codes, what.task, np.random.default_rng(seed), valid=valid, test=test, given=given, groups=groups
    )
    what, encoded = scaled_target(what, codes, split["train"])
    recipe = fit(x, split["train"], what)
    scales = recipe.scales
    if recipe.dtype == "float32":  # nothing is saved by scaling them later
        x, scales = recipe.scale((x,))[0], ()
    meta = {
        "recipe": recipe.to_dict(), "codes": [], "split": how, "notices": lonely(what, codes), "features": [],
        "target": target,
    }  # fmt: skip
    return Data((x,), encoded, what.task, split, "image", what.classes, name, meta, scales, numbered(groups))


def first(x: Array) -> Array:
    """[n, C, H, W] uint8 or float32 of images in any of the three layouts."""
    x = np.asanyarray(x)
    layout = pixels.layout(x.shape[1:])
    if layout is None or x.dtype.kind not in "fiub":
        raise DataError(f"got images of shape {x.shape}, {x.dtype}, expected [n, H, W], [n, C, H, W] or [n, H, W, C]")
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1:] != layout:
        x = x.transpose(0, 3, 1, 2)
    if x.dtype.kind in "iu" and x.dtype != np.uint8 and x.size and x.min() >= 0 and x.max() <= 255:
        return x.astype(np.uint8)
    return x if x.dtype == np.uint8 else pixels.known(x)


def fit(x: Array, train: Array, target: Target) -> ImageRecipe:
    """The recipe of images [n, C, H, W]: mean and deviation of each channel over (some of) the train split."""
    mean, deviation = moments(x, train, 10 * LOOKED_AT)
    dtype = "uint8" if x.dtype == np.uint8 else "float32"
    return ImageRecipe(
        target, x.shape[1], (int(x.shape[2]), int(x.shape[3])), mean, deviation, dtype
    )


def raw_folder(folder: Path, recipe: ImageRecipe) -> tuple[Array, list[str]]:
    """Images [n, channels, H, W] as the recipe wants them, and their labels ("" where none is known).

    Raises `DataError` if one cannot be read: none may be missing among predictions.
    """
    files = [folders.File(folder, "")] if folder.is_file() else folders.unlabelled(folder, pixels.SUFFIXES)
    tested = [file for file in files if file.split == "test"]
    files = tested or files

    def batches() -> Iterator[tuple[Array]]:
        for start in range(0, len(files), folders.BATCH):
            some = files[start : start + folders.BATCH]
            read = [pixels.read(file.path, recipe.channels, recipe.size) for file in some]
            yield (pixels.stack(read, recipe.channels, recipe.size, recipe.dtype),)

    return gather(batches(), len(files), None)[0], [file.label for file in files]


def _is_colour(path: Path) -> bool:
    """Whether any pixel of a file has a colour: grey photographs are often stored as coloured ones."""
    try:
        image = pixels.read(path)
    except DataError:
        return False
    return image.ndim == 3 and bool((image != image[..., :1]).any())


def _common(paths: Sequence[Path]) -> tuple[tuple[int, int], list[str]]:
    sizes = []
    for path in paths:
        try:
            sizes.append(pixels.measure(path))
        except DataError:
            continue
    if not sizes:
        raise DataError(f"none of the {len(paths)} files that were looked at can be read as an image: see {paths[0]}")
    median = np.median(np.array(sizes), 0)
    scale = min(1.0, LARGEST / median.max())
    found = (max(1, round(median[0] * scale)), max(1, round(median[1] * scale)))
    if set(sizes) == {found}:
        return found, []
    return found, [f"images are brought to {found[0]} x {found[1]} pixels (their median is {median[0]:.0f} x"
                   f" {median[1]:.0f}; another size can be asked for)"]  # fmt: skip


def _size(size: int | Sequence[int]) -> tuple[tuple[int, int], list[str]]:
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise DataError(f"size is {size!r}, expected pixels: one number, or height and width")
    return (pair[0], pair[1]), []
