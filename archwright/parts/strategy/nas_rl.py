"""NAS with reinforcement learning: an LSTM writes the network choice by choice and is rewarded for what it reaches.

    J(theta) = E_{trace ~ p_theta} R(trace)
    gradient = 1/m sum_k (R_k - b) / s  sum_t grad log p_theta(value_t | values before)         REINFORCE
    b <- 0.9 b + 0.1 mean R,    s likewise of |R - b|                                           moving averages

R is the objective, turned so that more is better. One update by Adam for each `batch` = m finished trials, in their
order. The controller is `archwright.kit.controller`: one softmax for each choice of the space, whatever their number.

Nothing is kept between calls: the controller is trained anew from the history each time, 0.7 ms for an update, so
about 45 ms after 500 trials. Its first numbers do not depend on the generator; only the draws do.
With several objectives only the first counts. Fails on small budgets: below some 20 m trials it is random search with
a lean; and it repeats itself once it is sure (`entropy` is a bonus that keeps it from it).
Differs from the paper: one layer of 35 units instead of two; the reward is divided by its spread, so that the rate does
not depend on units; skip connections are choices like any other instead of attention to anchors.

Zoph and Le: Neural Architecture Search with Reinforcement Learning, 2016, arXiv 1611.01578.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archwright.core.choose import Picker
from archwright.core.records import Claim, Trace, Trial
from archwright.core.space import Space
from archwright.errors import ArchwrightError
from archwright.kit.controller import Adam, Controller, tokens
from archwright.kit.trials import finished, losses

PART = {
    "kind": "strategy",
    "name": "nas_rl",
    "id": "nas-rl",
    "title": "Neural Architecture Search with Reinforcement Learning",
    "year": 2016,
    "arxiv": "1611.01578",
    "needs": [],
    "extras": [],
    "example": {"hp": {"batch": 4, "lr": 0.05}, "trials": 100, "batch": 4},
    "exact": "The expected update is the gradient of the expected reward.",
    "claim": {
        "text": "NAS-Bench-201, 500 queries: mean accuracy of the last 100 proposals minus that of the first 100.",
        "paper": "the best and the mean of the top models improve on random search's as training goes on (Figure 6)",
    },
}


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    batch: int = 8,
    lr: float = 0.02,
    hidden: int = 35,
    entropy: float = 0.01,
    decay: float = 0.9,
) -> list[Trace]:
    """n traces drawn from the controller. `batch` trials for an update, `decay` of the moving averages."""
    if batch < 1 or hidden < 1:
        raise ArchwrightError(f"got batch {batch} and hidden {hidden}, expected at least 1")
    controller = train(history, space, directions, batch, lr, hidden, entropy, decay)
    found = []
    for _ in range(n):
        picker = Picker(controller.sampler(rng))
        space.program(picker, space.spec)
        found.append(picker.trace)
    return found


def train(
    history: Sequence[Trial],
    space: Space,
    directions: Sequence[str],
    batch: int,
    lr: float,
    hidden: int,
    entropy: float,
    decay: float,
) -> Controller:
    """The controller after all updates that the history allows: one for each full batch of finished trials."""
    done = finished(history)
    reward = -losses(done, directions)[:, 0]
    written = [tokens(space, Trace(trial.trace)) for trial in done]
    controller = Controller.fresh(list(dict.fromkeys(q for trace in written for q, _ in trace)), hidden)
    optimiser = Adam(controller.flat, lr)
    baseline, spread = 0.0, 0.0
    for k in range(len(done) // batch):
        part = slice(k * batch, (k + 1) * batch)
        r = reward[part]
        if k == 0:
            baseline = float(r.mean())
        new = float(np.abs(r - baseline).mean())
        spread = new if k == 0 else decay * spread + (1 - decay) * new
        advantage = (r - baseline) / spread if spread > 0 else np.zeros(batch)
        if written[part][0]:
            gradient, _ = controller.gradient(written[part], advantage / batch, entropy / batch)
            optimiser.step(gradient)
        baseline = decay * baseline + (1 - decay) * float(r.mean())
    return controller


def claim(*, seed: int = 0) -> Claim:
    """Ten searches of 500 queries of CIFAR-10 validation accuracy after 12 epochs, as a search would see it."""
    from archwright.core.registry import load
    from archwright.kit.tabular_search import columns, search

    runs, queries = 10, 500
    value = columns("c10_valid_12")
    first, last, other = [], [], []
    for run in range(runs):
        found = [t.values[0] for t in search(propose, value, queries=queries, batch=8, seed=seed + run)]
        first.append(float(np.mean(found[:100])))
        last.append(float(np.mean(found[-100:])))
        drawn = search(load("strategy/random"), value, queries=queries, batch=queries, seed=seed + run)
        other.append(float(np.mean([t.values[0] for t in drawn])))
    gain = float(np.mean(last) - np.mean(first))
    return Claim(
        gain,
        "points of accuracy",
        "above 0 in every search, and the last 100 above random search",
        all(late > early and late > random for early, late, random in zip(first, last, other, strict=True)),
        "ever better than random search (Figure 6)",
        {"first 100": float(np.mean(first)), "last 100": float(np.mean(last)), "random": float(np.mean(other))},
        (f"{runs} searches of {queries} queries, batches of 8",),
    )
