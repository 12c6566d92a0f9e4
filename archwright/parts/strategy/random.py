"""Random search: every trace is drawn from the space's own distribution, whatever came before.

After T draws the best one is in the top share q of the space with probability 1 - (1 - q)^T: 60 draws reach the best
5 % with probability 0.954, however many choices there are and whichever of them matter. No search method has beaten
that which was not also compared with it.

Cost: one reading of the space for a proposal. Fails where good networks are rare: the expected rank of the best of T
among N traces is (N + 1) / (T + 1), which falls no faster than 1 / T.
`distinct` leaves out what was tried before, as long as a hundred draws find something new.

Bergstra and Bengio: Random Search for Hyper-Parameter Optimization, 2012, JMLR 13.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archwright.core.records import Claim, Trace, Trial
from archwright.core.space import Space
from archwright.kit.trials import name

PART = {
    "kind": "strategy",
    "name": "random",
    "id": "",
    "title": "Random Search for Hyper-Parameter Optimization",
    "year": 2012,
    "arxiv": "",
    "needs": ["baseline"],
    "extras": [],
    "example": {"hp": {}},
    "exact": "The proposals do not depend on the values of the history.",
    "claim": {
        "text": "Share of searches whose best of 60 draws is in the top 5 % of the 15,625 cells of NAS-Bench-201.",
        "paper": "1 - 0.95^60 = 0.954",
    },
}


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    distinct: bool = False,
) -> list[Trace]:
    """n traces drawn from the space. `distinct`: only such as are not in the history, fewer than n if none is found."""
    if not distinct:
        return [space.random(rng) for _ in range(n)]
    seen = {name(trial.trace) for trial in history}
    found: list[Trace] = []
    for _ in range(n):
        for _ in range(100):
            trace = space.random(rng)
            if name(trace) not in seen:
                seen.add(name(trace))
                found.append(trace)
                break
    return found


def claim(*, seed: int = 0) -> Claim:
    """400 searches of 60 draws, the objective being a random order of all cells."""
    from archwright.kit.nasbench201 import EDGES, OPERATIONS, choice
    from archwright.kit.tabular_search import search

    order = np.random.default_rng(seed).permutation(len(OPERATIONS) ** len(EDGES))

    def rank(trace: Trace) -> tuple[float, ...]:
        digits = [OPERATIONS.index(trace[choice(edge)]) for edge in EDGES]
        return (float(order[sum(d * len(OPERATIONS) ** k for k, d in enumerate(digits))]),)

    runs = 400
    limit = 0.05 * len(order)
    best = [
        min(t.values[0] for t in search(propose, rank, queries=60, batch=60, seed=seed + 1 + i, directions=("min",)))
        for i in range(runs)
    ]
    share = float(np.mean([b < limit for b in best]))
    expected = 1 - 0.95**60
    noise = 3 * float(np.sqrt(expected * (1 - expected) / runs))
    return Claim(
        share,
        "share of searches",
        f"{expected:.3f} within three standard errors ({noise:.3f})",
        abs(share - expected) <= noise,
        "0.954",
        {"expected": expected, "searches": runs},
    )
