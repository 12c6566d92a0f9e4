"""NSGA-II on traces: who survives, and children of a tournament. Values have less for better.

Deb, Pratap, Agarwal, Meyarivan: A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002, IEEE TEC 6(2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from archwright.core.records import Trace, Trial
from archwright.core.space import Space
from archwright.kit.ranks import crowding, fronts
from archwright.kit.trials import finished, losses


def order(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices from the best to the worst: by front, and in a front by crowding distance, the loneliest first.

    values [n, objectives] -> [n]. Points with equal values beyond the first count as crowded.
    """
    if values.shape[1] == 1:  # every front is one value
        return np.argsort(values[:, 0], kind="stable")
    rank = fronts(values)
    lonely = np.zeros(len(values))
    for level in range(int(rank.max(initial=-1)) + 1):
        members = np.flatnonzero(rank == level)
        _, first = np.unique(values[members], axis=0, return_index=True)
        once = members[np.sort(first)]
        lonely[once] = crowding(values[once]) if len(once) else 0.0
    return np.lexsort((np.arange(len(values)), -lonely, rank))


def children(
    parents: Sequence[Trace], space: Space, rng: np.random.Generator, n: int, crossover: float = 0.9
) -> list[Trace]:
    """n children of parents that are sorted from best to worst: binary tournaments, crossover with some probability,
    and one choice changed."""
    found = []
    for _ in range(n):
        a, b = rng.integers(len(parents), size=(2, 2)).min(1)  # of two drawn the better, twice
        child = space.cross(parents[a], parents[b], rng) if rng.random() < crossover else parents[a]
        found.append(space.mutate(child, rng))
    return found


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    population: int = 50,
) -> list[Trace]:
    """Plain NSGA-II as a function of the history: parents are the `population` best of all finished trials."""
    done = finished(history)
    if len(done) < population:
        return [space.random(rng) for _ in range(n)]
    best = order(losses(done, directions))[:population]
    return children([Trace(done[i].trace) for i in best], space, rng, n)
