"""Searches on the table of NAS-Bench-201 without training: a space of the six choices, and the loop of ask and tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from archwright import ops
from archwright.core import seeds
from archwright.core.choose import Choose
from archwright.core.records import Trace, Trial
from archwright.core.space import Space, Spec
from archwright.ir import Graph
from archwright.kit.nasbench201 import EDGES, OPERATIONS, choice, to_string

Propose = Callable[..., Sequence[Trace]]
Objective = Callable[[Mapping[str, Any]], tuple[float, ...]]


@cache
def _stub() -> Graph:
    g = ops.edit()
    return g.finish(g.add("linear", g.input("x", (None, 1)), out=1, name="head"))


def _draw(choose: Choose, spec: Spec) -> Graph:
    for edge in EDGES:
        choose.one_of(choice(edge), OPERATIONS)
    return _stub()


def cells() -> Space:
    """The six choices of NAS-Bench-201 with a stand-in for the network: for searches that look results up."""
    return Space("nas_bench_201_cells", _draw, Spec(((None, 1),), 1))


def search(
    propose: Propose,
    objective: Objective,
    *,
    queries: int,
    batch: int = 1,
    seed: int = 0,
    directions: Sequence[str] = ("max",),
    space: Space | None = None,
) -> list[Trial]:
    """Ask a strategy, look up, tell; until so many queries are made or it proposes nothing more."""
    where = cells() if space is None else space
    history: list[Trial] = []
    while len(history) < queries:
        rng = seeds.rng(seed, "propose", len(history))
        wanted = min(batch, queries - len(history))
        proposed = propose(tuple(history), where, rng, wanted, directions=directions)
        if not proposed:
            break
        history += [Trial(len(history) + i, t, objective(t)) for i, t in enumerate(proposed[:wanted])]
    return history


@cache
def _lookup() -> tuple[Mapping[str, int], Mapping[str, np.ndarray[Any, Any]]]:
    from archwright.kit.nasbench201 import table

    found = table()
    numeric = {name: found.column(name) for name in found.frame.columns if name not in ("arch", "ops")}
    return found.index, numeric


def columns(*names: str) -> Objective:
    """An objective that reads columns of the table: `columns("c10_valid_12", "c10_flops")`.

    Raises `DataError` if the data folder does not hold the table.
    """
    index, numeric = _lookup()
    arrays = [numeric[name] for name in names]
    return lambda trace: tuple([float(array[index[to_string(trace)]]) for array in arrays])
