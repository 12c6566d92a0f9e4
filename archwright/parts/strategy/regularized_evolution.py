"""Regularized evolution: a tournament for the parent, and the oldest dies, not the worst.

    population  the P youngest trials that finished
    parent      the best of S of them, drawn with replacement
    child       the parent with one choice changed

Until P trials are finished, children are drawn at random. Since every network dies of age, one that got a lucky
evaluation survives only if its descendants do well too: the search remembers architectures, not luck.

P population, S sample; all is a function of the history, so a child of a batch does not see the others. With several
objectives only the first counts. Cost: one pass over the history and two readings of the space for a proposal.
Fails where one choice at a time leads nowhere (a valley between two good regions), and on budgets not well above P.
Differs from the paper: any choice of any space may mutate, with equal probability, instead of the two mutations
(operation, hidden state) of its cells; trials that failed are not in the population.

Real, Aggarwal, Huang, Le: Regularized Evolution for Image Classifier Architecture Search, 2018, arXiv 1802.01548.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archwright.core.records import Claim, Trace, Trial
from archwright.core.space import Space
from archwright.errors import ArchwrightError
from archwright.kit.trials import finished, losses

PART = {
    "kind": "strategy",
    "name": "regularized_evolution",
    "id": "",
    "title": "Regularized Evolution for Image Classifier Architecture Search",
    "year": 2018,
    "arxiv": "1802.01548",
    "needs": [],
    "extras": [],
    "example": {"hp": {"population": 12, "sample": 6}, "trials": 60, "batch": 1},
    "exact": "With a population of 1 it is a random walk of single changes, each from the last finished trial.",
    "claim": {
        "text": "NAS-Bench-201, 300 queries of CIFAR-10 validation accuracy: test regret over that of random search.",
        "paper": "better models than random search throughout",
    },
}


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    population: int = 100,
    sample: int = 25,
) -> list[Trace]:
    """n children. `population` youngest trials, of which `sample` are drawn for each tournament."""
    if population < 1 or sample < 1:
        raise ArchwrightError(f"got population {population} and sample {sample}, expected at least 1")
    alive = finished(history)[-population:]
    if len(alive) < population:
        return [space.random(rng) for _ in range(n)]
    loss = losses(alive, directions)[:, 0]
    found = []
    for _ in range(n):
        drawn = rng.integers(len(alive), size=sample)
        found.append(space.mutate(alive[drawn[int(np.argmin(loss[drawn]))]].trace, rng))
    return found


def claim(*, seed: int = 0) -> Claim:
    """Regret: the best test accuracy of the table minus that of the cell with the best validation accuracy found."""
    from functools import partial

    from archwright.core.registry import load
    from archwright.kit.tabular_search import columns, search

    runs, queries = 100, 300
    value, test = columns("c10_valid_200"), columns("c10_test_200")
    top = _best_of_table()
    regret: dict[str, list[float]] = {"evolution": [], "random": []}
    ways = {"evolution": partial(propose, population=30, sample=10), "random": load("strategy/random")}
    for label, way in ways.items():
        for run in range(runs):
            found = search(way, value, queries=queries, seed=seed + run)
            regret[label].append(top - test(max(found, key=lambda t: t.values[0]).trace)[0])
    means = {label: float(np.mean(r)) for label, r in regret.items()}
    gain = np.array(regret["random"]) - np.array(regret["evolution"])
    error = float(gain.std(ddof=1) / np.sqrt(runs))
    return Claim(
        means["evolution"] / means["random"],
        "1",
        "below 1, the difference of regrets above two standard errors",
        bool(gain.mean() > 2 * error),
        "better than random search throughout",
        {"regret": means["evolution"], "regret of random": means["random"], "error of the difference": error},
        (f"{runs} searches of {queries} queries, population 30, sample 10; regret in points of accuracy",),
    )


def _best_of_table() -> float:
    from archwright.kit.nasbench201 import table

    return float(table().column("c10_test_200").max())
