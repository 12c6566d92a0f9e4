"""Agreement of two rankings, and the best of several objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def kendall(one: ArrayLike, other: ArrayLike) -> float:
    """Kendall's tau-b, in [-1, 1]."""
    from scipy.stats import kendalltau

    return float(kendalltau(one, other).statistic)


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]."""
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def signed(values: ArrayLike, directions: Sequence[str]) -> NDArray[np.float64]:
    """Objective values [n, objectives] turned so that less is better."""
    return np.asarray(values, float) * np.array([-1.0 if d == "max" else 1.0 for d in directions])


def fronts(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number of the non-dominated front of each point, the best being 0. values [n, objectives], less is better."""
    count = len(values)
    better = (values[:, None] <= values[None]).all(-1) & (values[:, None] < values[None]).any(-1)  # [i, j]: i beats j
    rank = np.full(count, -1, np.int64)
    left = np.ones(count, bool)
    level = 0
    while left.any():
        front = left & ~(better & left[:, None]).any(0)
        rank[front] = level
        left &= ~front
        level += 1
    return rank


def undominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points belong to the first front: those that no other dominates. values [n, objectives], less is better."""
    found = np.ones(len(values), bool)
    for place, one in enumerate(values):
        if found[place]:  # what it dominates can be left out at once
            found &= ~((one <= values).all(-1) & (one < values).any(-1))
    return found


def crowding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Crowding distance of the points of one front (Deb et al., NSGA-II, 2002); infinite at the ends."""
    count, objectives = values.shape
    found = np.zeros(count)
    for k in range(objectives):
        order = np.argsort(values[:, k], kind="stable")
        spread = values[order[-1], k] - values[order[0], k]
        found[order[[0, -1]]] = np.inf
        if count > 2 and spread > 0:
            found[order[1:-1]] += (values[order[2:], k] - values[order[:-2], k]) / spread
    return found


def hypervolume(values: NDArray[np.float64], reference: Sequence[float]) -> float:
    """Volume dominated by points, up to a reference point. values [n, 2], less is better."""
    points = values[(values < np.asarray(reference)).all(1)]
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    volume, ceiling = 0.0, float(reference[1])
    for x, y in points:
        if y < ceiling:
            volume += (reference[0] - x) * (ceiling - y)
            ceiling = y
    return float(volume)
