"""Augmentation by name: batches of images [n, C, H, W] and of signals [n, C, T], changed a little in every step.

    images    shift    moved by up to a twelfth of the size (at least one pixel)
              flip     mirrored left to right half of the time, and moved
              affine   turned by up to 10 degrees, stretched by up to a tenth, and moved
              cutout   moved, and a square of a third of the size set to the sample's mean
    signals   shift    moved in time by up to a tenth of the length
              noise    white noise of a tenth of each channel's deviation
              mask     a stretch of up to a fifth of the length set to the channel's mean

What comes in from beyond the edge repeats the edge. Each sample gets its own numbers, and all of them come from the
generator that is given. The cost is that of one or two passes over the batch, far below that of a training step.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from archwright.errors import ArchwrightError

Augment = Callable[[Tensor, np.random.Generator], Tensor]
"""(batch, generator) -> a new batch of the same shape, dtype and memory format; the one given is left as it is."""

TURN = math.radians(10)
STRETCH = 0.1
NOISE = 0.1


def augmentation(name: str) -> Augment | None:
    """The augmentation of that name, for images or signals as the batch's rank says; None for "none".

    Raises `ArchwrightError` for an unknown name; an image's name raises it for a signal when called, and the other way
    round.
    """
    if name == "none":
        return None
    if name not in _IMAGES and name not in _SIGNALS:
        near = difflib.get_close_matches(name, (*IMAGES, *SIGNALS), n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ArchwrightError(
            f"unknown augmentation '{name}', expected one of {', '.join(IMAGES)} for images, "
            f"{', '.join(SIGNALS)} for signals{hint}"
        )

    def augment(x: Tensor, rng: np.random.Generator) -> Tensor:
        known = {3: _SIGNALS, 4: _IMAGES}.get(x.dim())
        if known is None or not x.is_floating_point():
            raise ArchwrightError(
                f"'{name}' got {x.dtype} {list(x.shape)}, expected real numbers [n, C, H, W] or [n, C, T]"
            )
        if name not in known:
            kind = "images" if x.dim() == 4 else "signals"
            raise ArchwrightError(f"augmentation '{name}' is not for {kind}, expected one of none, {', '.join(known)}")
        return known[name](x, rng)

    return augment


# ---------------------------------------------------------------------------------------------------------- images
def shift(x: Tensor, rng: np.random.Generator, *, flip: bool = False) -> Tensor:
    """Images moved by whole pixels, each in its own direction; with `flip` half of them are mirrored as well."""
    n, channels, height, width = x.shape
    rows, columns = _moved(n, height, 12, rng), _moved(n, width, 12, rng)
    if flip:
        mirrored = torch.from_numpy(rng.random(n) < 0.5)[:, None]
        columns = torch.where(mirrored, width - 1 - columns, columns)
    place = (rows[:, :, None] * width + columns[:, None, :]).reshape(n, 1, -1).expand(n, channels, -1)
    moved = x.reshape(n, channels, -1).gather(2, place).view(x.shape)
    return moved.contiguous(memory_format=_format(x))


def flip(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Images mirrored half of the time, and moved."""
    return shift(x, rng, flip=True)


def affine(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Images turned, stretched along each axis and moved, read between pixels by linear interpolation."""
    n, _, height, width = x.shape
    angle = torch.from_numpy(rng.uniform(-TURN, TURN, n))
    stretch = torch.from_numpy(rng.uniform(1 - STRETCH, 1 + STRETCH, (2, n)))
    # grid_sample measures from -1 to 1, so a move of one pixel is 2 / size; turning is undistorted where the axes are
    # measured alike, hence the ratio of the sides
    most = torch.tensor([[2 * _most(width, 12) / width], [2 * _most(height, 12) / height]])
    moved = torch.from_numpy(rng.uniform(-1, 1, (2, n))) * most
    sine, cosine = angle.sin(), angle.cos()
    theta = torch.stack(
        [
            torch.stack([cosine * stretch[0], -sine * stretch[0] * (height / width), moved[0]], 1),
            torch.stack([sine * stretch[1] * (width / height), cosine * stretch[1], moved[1]], 1),
        ],
        1,
    ).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    made = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return made.contiguous(memory_format=_format(x))


def cutout(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Images moved, with a square set to the sample's mean, as Cutout has it (DeVries and Taylor, 2017, arXiv
    1708.04552): its centre is anywhere, so that less of it may be inside."""
    n, _, height, width = x.shape
    rows, columns = _window(n, height, 3, rng), _window(n, width, 3, rng)
    hole = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(hole, x.mean((1, 2, 3), keepdim=True), shift(x, rng)).contiguous(memory_format=_format(x))


# --------------------------------------------------------------------------------------------------------- signals
def shift_time(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Signals moved in time."""
    n, _, length = x.shape
    return x.gather(2, _moved(n, length, 10, rng)[:, None, :].expand(x.shape))


def noise(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Signals with white noise; a channel that does not vary gets none."""
    drawn = torch.from_numpy(rng.standard_normal(tuple(x.shape), np.float32)).to(x.dtype)
    return x + NOISE * x.std(2, correction=0, keepdim=True) * drawn


def mask_time(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Signals with a stretch set to each channel's mean, as SpecAugment masks time (Park et al., 2019, arXiv
    1904.08779)."""
    n, _, length = x.shape
    return torch.where(_window(n, length, 5, rng)[:, None, :], x.mean(2, keepdim=True), x)


# --------------------------------------------------------------------------------------------------------- indices
def _most(size: int, part: int) -> int:
    """The longest move: the size over `part`, at least one where there is room."""
    return min(max(1, size // part), size - 1)


def _moved(n: int, size: int, part: int, rng: np.random.Generator) -> Tensor:
    """Where each position of n moved samples is read: int64 [n, size]."""
    most = _most(size, part)
    by = torch.from_numpy(rng.integers(-most, most + 1, (n, 1)))
    return (torch.arange(size) + by).clamp_(0, size - 1)


def _window(n: int, size: int, part: int, rng: np.random.Generator) -> Tensor:
    """Which positions lie in a window of size / part about a random centre: bool [n, size]."""
    width = max(1, size // part)
    start = torch.from_numpy(rng.integers(0, size, (n, 1))) - width // 2
    place = torch.arange(size)
    return (place >= start) & (place < start + width)


def _format(x: Tensor) -> torch.memory_format:
    """How a batch lies in memory, so that what is made of it lies alike."""
    if x.is_contiguous():
        return torch.contiguous_format
    alike = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if alike else torch.contiguous_format


_IMAGES: dict[str, Augment] = {"shift": shift, "flip": flip, "affine": affine, "cutout": cutout}
_SIGNALS: dict[str, Augment] = {"shift": shift_time, "noise": noise, "mask": mask_time}

IMAGES = ("none", *_IMAGES)
SIGNALS = ("none", *_SIGNALS)
