"""Images as arrays: read from files, brought to a size, put into one array. Pillow reads and resizes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from archwright.data.data import Array
from archwright.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")


def read(path: str | os.PathLike[str], channels: int | None = None, size: tuple[int, int] | None = None) -> Array:
    """Pixels of a file, uint8 [H, W] if it is grey, else [H, W, 3]; with `channels` and `size` brought to them.

    16 bits become 8, what is transparent loses its transparency, and a photograph is turned as it says it should be.
    Raises `DataError` for what is no image.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            if size is not None:
                file.draft(None, (2 * size[1], 2 * size[0]))  # a large JPEG is decoded small at once
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off instead of scale
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            grey = image.mode in ("1", "L", "LA", "F") if channels is None else channels == 1
            image = image.convert("L" if grey else "RGB")
            if size is not None and image.size != size[::-1]:
                image = image.resize(size[::-1], Image.Resampling.BILINEAR)
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{os.fspath(path)} cannot be read as an image: {reason}") from None


def measure(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(height, width) of a file, from its head alone. Raises `DataError` for what is no image."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = file.getexif().get(0x0112, 1) >= 5  # EXIF orientation: lying on its side
            return (width, height) if turned else (height, width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{os.fspath(path)} cannot be read as an image: {error}") from None


def resize(image: Array, size: tuple[int, int]) -> Array:
    """[C, H, W] of any number type at another size, bilinear over the area that a pixel covers."""
    if image.shape[1:] == size:
        return image
    from PIL import Image

    planes = [plane if plane.dtype == np.uint8 else plane.astype(np.float32) for plane in image]
    small = [np.asarray(Image.fromarray(p).resize(size[::-1], Image.Resampling.BILINEAR)) for p in planes]
    return np.stack(small)


def layout(shape: Sequence[int]) -> tuple[int, int, int] | None:
    """(channels, height, width) of an image of that shape, [H, W], [C, H, W] or [H, W, C]; None if it is none.

    Channels are 1 to 4; where both ends could be channels, they come first.
    """
    if len(shape) == 2:
        return (1, shape[0], shape[1])
    if len(shape) != 3:
        return None
    if shape[0] <= 4:
        return (shape[0], shape[1], shape[2])
    return (shape[2], shape[0], shape[1]) if shape[2] <= 4 else None


def first(image: Array, channels: int) -> Array:
    """[C, H, W] of an image [H, W], [C, H, W] or [H, W, C], with that many channels: colour is averaged to grey, grey
    is repeated, a fourth channel (transparency) is dropped. Raises `DataError` if it is no image."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3 and image.shape[0] != channels:
        likely = (1, 3, 4)
        if image.shape[2] == channels or (image.shape[2] in likely and image.shape[0] not in likely):
            image = image.transpose(2, 0, 1)
    if image.ndim != 3 or image.dtype.kind not in "fiub":
        raise DataError(f"got an image of shape {image.shape} and {image.dtype}, expected [H, W], [H, W, C], [C, H, W]")
    if image.shape[0] == channels:
        return image
    if channels == 1:
        grey = image[:3].mean(0, keepdims=True)
        return grey.round().astype(np.uint8) if image.dtype == np.uint8 else grey
    if image.shape[0] == 1:
        return image.repeat(channels, 0)
    if channels == 3 and image.shape[0] == 4:
        return image[:3]
    raise DataError(f"got an image with {image.shape[0]} channels, expected {channels}")


def stack(raw: Any, channels: int, size: tuple[int, int], dtype: str) -> Array:
    """[n, channels, height, width] of an array of images, or of a list of images of any size."""
    if isinstance(raw, np.ndarray) and raw.ndim == 4 and raw.shape[1:] == (channels, *size):
        return _cast(raw, dtype)
    if isinstance(raw, np.ndarray) and raw.ndim not in (3, 4):
        raise DataError(f"got images of shape {raw.shape}, expected [n, H, W], [n, H, W, C] or [n, C, H, W]")
    found = np.empty((len(raw), channels, *size), dtype)
    for i, image in enumerate(raw):
        found[i] = _cast(resize(first(image, channels), size), dtype)
    return found


def _cast(image: Array, dtype: str) -> Array:
    if dtype == "uint8" and image.dtype != np.uint8:
        return np.nan_to_num(image).round().clip(0, 255).astype(np.uint8)
    return image if dtype == "uint8" else known(image)


def known(image: Array) -> Array:
    """The numbers as float32, NaN for those that are not finite. As it is where that holds already."""
    found = image.astype(np.float32, copy=False)
    finite = np.isfinite(found)
    return found if finite.all() else np.where(finite, found, np.float32(np.nan))
