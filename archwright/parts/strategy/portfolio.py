"""Start from a portfolio of known good shapes, then evolve the front: what `archwright search` does by default.

    1. portfolio   the known shapes one after another; what they leave open is drawn at random
    2. parents     binary tournaments among the `parents` best trials, by front and crowding (NSGA-II)
    3. children    from two parents a mix of their choices, or from one a copy; then one to three choices change:
                   numbers move a little (log-normally where they are logarithmic), ordered options to a neighbour
                   or anywhere, others anywhere; one proposal in ten is random
    4. screen      `screen` times as many children are made as are wanted; the best by a ridge regression of the first
                   objective on the choices are kept, once 20 trials are finished
    5. siblings    each architecture is proposed `siblings` times with other learning rates and weight decays, since
                   equal architectures train together at little more than the price of one

A portfolio answers "what would an expert try first", so that the first minute is not spent on finding that out; the
evolution then changes what is good already. Ridge regression is a crude predictor (additive, y = b + sum_c w_c [c in
trace]), but 1,000 trials cost it a few milliseconds, and it only has to tell hopeless children from others.

Cost: O(T^2) in finished trials for the fronts, a few readings of the space for a proposal.
Fails where the known shapes are all wrong and the budget is a handful of trials: then it is no better than random.
Differs from the paper: the portfolio is written by hand in the space, not learned over data sets, and what follows it
is evolution instead of Bayesian optimisation.

Feurer, Eggensperger, Falkner, Lindauer, Hutter: Auto-Sklearn 2.0: Hands-free AutoML via Meta-Learning, 2020,
arXiv 2007.04074.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core import choose
from archwright.core.choose import Options, Picker
from archwright.core.records import Claim, Trace, Trial
from archwright.core.space import Space
from archwright.kit.nsga2 import order
from archwright.kit.trials import finished, losses, name

PART = {
    "kind": "strategy",
    "name": "portfolio",
    "id": "",
    "title": "Auto-Sklearn 2.0: Hands-free AutoML via Meta-Learning",
    "year": 2020,
    "arxiv": "2007.04074",
    "needs": [],
    "extras": [],
    "example": {"hp": {"parents": 10}, "trials": 80, "batch": 2},
    "exact": "The first proposals are the known shapes, in their order, siblings side by side.",
    "claim": {
        "text": "NAS-Bench-201, 100 queries of CIFAR-10 validation accuracy, empty portfolio: test regret over that of "
        "random search.",
        "paper": "a portfolio and then a search are better than either alone",
    },
}

LR, DECAY = "train.lr", "train.weight_decay"
ENOUGH = 20
"""Finished trials from which on children are screened."""

LEARNED = 300
"""Finished trials, the latest, that the regression learns from."""


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    known: Sequence[Mapping[str, Any]] = (),
    parents: int = 16,
    screen: int = 4,
    siblings: int = 1,
) -> list[Trace]:
    """n traces: known shapes, then children of the best.

    known     partial traces, the best bets first
    parents   how many of the best trials may have children
    screen    children made for each that is kept
    siblings  proposals for each architecture; n is rounded up to whole families
    """
    families = -(-n // siblings)
    early = len(history) < 4 * siblings * len(known)  # families are counted only where some may not have begun
    begun = len({name(_family(t.trace)) for t in history}) if early else len(known)
    found = [_filled(space, shape, rng) for shape in known[begun : begun + families]]
    wanted = families - len(found)
    if wanted > 0:
        found += _children(history, space, rng, wanted, directions, parents, screen)
    return [trace for one in found for trace in _family_of(space, one, rng, siblings)]


def _filled(space: Space, shape: Mapping[str, Any], rng: np.random.Generator) -> Trace:
    picker = Picker(choose.replay(shape, choose.at_random(rng)))
    space.program(picker, space.spec)
    return picker.trace


def _children(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    directions: Sequence[str],
    parents: int,
    screen: int,
) -> list[Trace]:
    done = finished(history)
    if len(done) < 2:
        return [space.random(rng) for _ in range(n)]
    values = losses(done, directions)
    best = [done[i].trace for i in order(values)[:parents]]
    seen = {name(t.trace) for t in history}
    many = n * (screen if len(done) >= ENOUGH else 1)
    made: dict[str, Trace] = {}
    for _ in range(8 * many):
        child = _child(best, space, rng)
        if name(child) not in seen:
            made[name(child)] = child
        if len(made) == many:
            break
    found = list(made.values())
    if len(found) > n:
        guess = _ridge([t.trace for t in done[-LEARNED:]], values[-LEARNED:, 0], found)
        found = [found[i] for i in np.argsort(guess, kind="stable")[:n]]
    return found + [space.random(rng) for _ in range(n - len(found))]


def _child(best: Sequence[Mapping[str, Any]], space: Space, rng: np.random.Generator) -> Trace:
    """A random trace, one time in ten; else a parent, or a mix of two, with one to three decisions changed."""
    if rng.random() < 0.1:
        return space.random(rng)
    one, other = [best[int(rng.integers(len(best), size=2).min())] for _ in range(2)]
    trace = space.cross(one, other, rng) if rng.random() < 0.3 else one
    asked = space.decisions(trace)
    open_ = [c for c, options in asked.items() if options.kind == "number" or len(options.values) > 1]
    count = min(len(open_), 1 + int(rng.integers(3)))
    chosen = [open_[i] for i in rng.choice(len(open_), count, replace=False)] if open_ else []
    moved = {c: _moved(trace[c], asked[c], rng) for c in chosen}
    return _filled(space, {**trace, **moved}, rng)


def _moved(value: Any, options: Options, rng: np.random.Generator) -> Any:
    if options.kind == "number":
        if options.log:
            return float(np.clip(value * math.exp(rng.normal(0, 0.7)), options.low, options.high))
        return float(np.clip(value + rng.normal(0, 0.2) * (options.high - options.low), options.low, options.high))
    others = [v for v in options.values if v != value or type(v) is not type(value)]
    ordered = all([type(v) in (int, float) for v in options.values])
    if ordered and rng.random() < 0.7:
        place = options.values.index(value) + (1 if rng.random() < 0.5 else -1)
        return options.values[min(max(place, 0), len(options.values) - 1)]
    return others[int(rng.integers(len(others)))]


def _family(trace: Mapping[str, Any]) -> Trace:
    return Trace({c: v for c, v in trace.items() if c not in (LR, DECAY)})


def _family_of(space: Space, trace: Trace, rng: np.random.Generator, siblings: int) -> list[Trace]:
    """The trace and others that differ from it in learning rate and weight decay alone."""
    found = [trace]
    if siblings > 1 and LR in trace:
        asked = space.decisions(trace)
        for i in range(1, siblings):
            lr, decay = asked[LR], asked.get(DECAY)
            factor = 10 ** ((0.5 if i % 2 else -0.5) * ((i + 1) // 2) + rng.normal(0, 0.1))
            new = {**trace, LR: float(np.clip(trace[LR] * factor, lr.low, lr.high))}
            if decay is not None:
                new[DECAY] = decay.sample(rng)
            found.append(Trace(new))
    return found


def _ridge(
    traces: Sequence[Mapping[str, Any]], values: NDArray[np.float64], children: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """What a ridge regression on the choices says of the children. Real numbers count by their logarithm."""
    from archwright.kit.encodings import Encoding

    def numbers(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{c: math.log10(abs(v) + 1e-8) if type(v) is float else v for c, v in t.items()} for t in found]

    known, new = numbers(traces), numbers(children)
    encoding = Encoding.of(known)
    x, x_new = encoding(known), encoding(new)
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    x, x_new = (x - mean) / deviation, np.clip((x_new - mean) / deviation, -5, 5)
    y = np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)  # ranks: outliers do no harm
    y -= y.mean()
    gram = x.T @ x + 10.0 * np.eye(x.shape[1])
    found: NDArray[np.float64] = x_new @ np.linalg.solve(gram, x.T @ y)
    return found


def claim(*, seed: int = 0) -> Claim:
    """Regret: the best test accuracy of the table minus that of the cell with the best validation accuracy found."""
    from archwright.core.registry import load
    from archwright.kit.nasbench201 import table
    from archwright.kit.tabular_search import columns, search

    runs, queries = 100, 100
    value, test = columns("c10_valid_200"), columns("c10_test_200")
    top = float(max(table().column("c10_test_200")))
    regret: dict[str, list[float]] = {"portfolio": [], "random": []}
    for label, way in (("portfolio", propose), ("random", load("strategy/random"))):
        for run in range(runs):
            found = search(way, value, queries=queries, batch=4, seed=seed + run)
            regret[label].append(top - test(max(found, key=lambda t: t.values[0]).trace)[0])
    means = {label: float(np.mean(r)) for label, r in regret.items()}
    gain = np.array(regret["random"]) - np.array(regret["portfolio"])
    error = 2 * float(gain.std(ddof=1) / math.sqrt(runs))
    return Claim(
        means["portfolio"] - means["random"],
        "points of accuracy",
        f"below 0 by more than two standard errors ({error:.3f})",
        float(gain.mean()) > error,
        "a portfolio and then a search are better than either alone",
        {**means, "searches": float(runs)},
    )
