"""What benchmarks/search.py compares a search over images with: a fixed convolutional network, sensible for small grey
pictures, trained by a plain loop for as long as the search takes: AdamW, one cycle of the learning rate over the time
that there is, pictures shifted by up to two pixels (and mirrored, where that makes sense)."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]


def network(width: int, classes: int = 10) -> nn.Sequential:
    """Three stages of two 3x3 convolutions, batch norm and ReLU, halved by max pooling, then the mean over the places.
    Widths w, 2 w and 3 w."""
    layers: list[nn.Module] = []
    now = 1
    for stage in range(3):
        for _ in range(2):
            out = (stage + 1) * width
            layers += [nn.Conv2d(now, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            now = out
        layers += [nn.MaxPool2d(2)] if stage < 2 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(now, classes))


def largest(limit: int) -> nn.Sequential:
    """The widest such network below `limit` weights."""
    found = [net for net in map(network, range(4, 64)) if count(net) < limit]
    return found[-1]


def count(net: nn.Module) -> int:
    """Number of weights."""
    return sum([p.numel() for p in net.parameters()])


def shifted(x: Tensor, generator: torch.Generator, mirror: bool, by: int = 2) -> Tensor:
    """Pictures [n, 1, h, w], each shifted by up to `by` pixels and, if `mirror`, turned left to right or not."""
    n, _, height, width = x.shape
    padded = F.pad(x, (by,) * 4)
    down, right = torch.randint(0, 2 * by + 1, (2, n, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    if mirror:
        flip = torch.rand((n, 1), generator=generator) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def fixed_cnn(
    images: Array, labels: Array, test: Array, *, limit: int, seconds: float, seed: int, mirror: bool, batch: int = 128
) -> tuple[Array, int]:
    """Classes of the test images, and the number of weights. Images are bytes [n, 28, 28]."""
    end = time.perf_counter() + 0.98 * seconds  # what is left is for the test
    start = time.perf_counter()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    mean, deviation = float(images.mean() / 255), float(images.std() / 255)

    def numbers(part: Array) -> Tensor:
        return (torch.from_numpy(np.ascontiguousarray(part)).float()[:, None] / 255 - mean) / deviation

    x, y = numbers(images), torch.from_numpy(labels.astype(np.int64))
    net = largest(limit)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02, fused=True)
    while (now := time.perf_counter()) < end:
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            if (now := time.perf_counter()) >= end:
                break
            done = (now - start) / (end - start)
            rise, fall = done / 0.2, 0.5 * (1 + math.cos(math.pi * (done - 0.2) / 0.8))
            for group in optimizer.param_groups:
                group["lr"] = 5e-3 * max(min(rise, fall if done > 0.2 else 1.0), 1e-4)
            optimizer.zero_grad()
            loss = F.cross_entropy(net(shifted(x[rows], generator, mirror)), y[rows], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
    net.eval()
    with torch.no_grad():
        found = torch.cat([net(part).argmax(1) for part in numbers(test).split(1000)])
    return found.numpy(), count(net)
