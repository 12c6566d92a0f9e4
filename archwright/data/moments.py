"""Mean and deviation of the channels of arrays that had better not be in memory as a whole."""

from __future__ import annotations

import numpy as np

from archwright.data.data import Array

BATCH = 256
"""Samples that are looked at together."""


def moments(x: Array, rows: Array, most: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of x [n, channels, ...], over at most so many of the rows, evenly spread.

    What is not finite does not count. A channel that hardly varies has deviation 1.
    """
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int))]
    others = (0, *range(2, x.ndim))
    count, total, square = [np.zeros(x.shape[1]) for _ in range(3)]
    parts = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
    for part in parts:
        values = x[part].astype(np.float64)
        there = np.isfinite(values)
        count += there.sum(others)
        total += np.where(there, values, 0).sum(others)
    mean = total / np.maximum(count, 1)
    centre = mean.reshape(-1, *[1] * (x.ndim - 2))
    for part in parts:  # a second time, since squares around zero lose what is small beside the mean
        values = x[part].astype(np.float64) - centre
        square += np.square(np.where(np.isfinite(values), values, 0)).sum(others)
    deviation = np.sqrt(square / np.maximum(count, 1))
    deviation = np.where(deviation > 1e-7 * (1e-6 + np.abs(mean)), deviation, 1.0)
    return tuple(mean.tolist()), tuple(deviation.tolist())
