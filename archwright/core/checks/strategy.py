"""What a strategy is held to.

It lives with histories that have failed, running and NaN trials and gaps in their numbers; what it proposes lies in the
space; the same history and generator give the same proposals, so a search that was stopped goes on as it would have; it
reads no clock; it beats random search on the toy bench (a baseline need not, beyond noise).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from archwright.core import registry, seeds
from archwright.core.checks import bench, common, toys
from archwright.core.checks.common import Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Budget, Trial
from archwright.core.space import Space

MINIMUM = 35
KEYS = frozenset(("hp", "trials", "batch", "objectives"))
_RUNS = 8


def _bench(part: Part, seed: int = 0) -> tuple[Space, Any]:
    """A space and an objective: of `case(seed)`, or the toy bench."""
    case = common.own(part, "case")
    if case is not None:
        found = case(seed)
        return found[0], found[1]
    return bench.space(), partial(bench.objective, count=part.example.get("objectives", 1))


def _directions(part: Part) -> tuple[str, ...]:
    return ("min",) * part.example.get("objectives", 1)


def _proposer(part: Part, where: Space) -> Any:
    """`propose` with the example's keywords and, where the part learns, what it learned."""
    propose = partial(registry.entry(part), **common.hp(part))
    learn = common.own(part, "learn")
    if learn is None:
        return propose
    known = inspect.signature(learn).parameters
    hp = {k: v for k, v in common.hp(part).items() if k in known}
    state = learn(where, toys.data("table"), Budget(steps=20), seeds.rng(0, "learn"), **hp)
    return partial(propose, state=state)


def _history(where: Space, value: Any, count: int, objectives: int, troubled: bool, seed: int = 0) -> list[Trial]:
    """Random trials. In a troubled history some failed, some run, some gave NaN, and numbers are missing."""
    rng = seeds.rng(seed, "history")
    found = []
    for i in range(count):
        trace = where.random(rng)
        fate = int(rng.integers(6)) if troubled else 5
        number = i if not troubled else 2 * i + 1
        if fate == 0:
            found.append(Trial(number, trace, (), "failed"))
        elif fate == 1:
            found.append(Trial(number, trace, (), "running"))
        elif fate == 2:
            found.append(Trial(number, trace, (float("nan"),) * objectives))
        else:
            found.append(Trial(number, trace, tuple(value(trace))))
    return found


def calls(part: Part) -> Calls:
    """Proposals after a troubled history."""
    where, value = _bench(part)
    objectives = part.example.get("objectives", 1)
    propose = _proposer(part, where)
    history = tuple(_history(where, value, 30, objectives, True))

    def make(seed: int) -> tuple[Any, ...]:
        return history, where, np.random.default_rng(seed), 4

    def run(args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        return propose(*args, directions=_directions(part), **{k: v for k, v in kw.items() if k not in common.hp(part)})

    return {"propose": Call(registry.entry(part), make, common.hp(part), run)}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    common.every(c, calls(part), KEYS)
    where, value = _bench(part)
    objectives = part.example.get("objectives", 1)
    propose, directions = _proposer(part, where), _directions(part)
    _survives(c, where, value, propose, directions, objectives)
    if common.own(part, "case") is None and "finite" not in part.needs:
        real = bench.space(real=True)
        history = _history(real, partial(bench.objective, count=objectives), 20, objectives, True)
        found = _proposer(part, real)(tuple(history), real, np.random.default_rng(0), 4, directions=directions)
        _proposals(c, real, found, 4, "in a space with a real number")
    _resumes(c, where, value, propose, directions)
    _maximises(c, where, value, propose, objectives)
    _beats_random(c, part, where, value, propose, directions)
    return c.count


def _proposals(c: Checks, where: Space, proposed: Any, n: int, when: str) -> None:
    c.that(isinstance(proposed, Sequence), f"{when}: got {type(proposed).__name__}, expected a sequence of traces")
    c.that(len(proposed) <= n, f"{when}: {len(proposed)} proposals, {n} were asked for")
    for trace in proposed:
        c.that(trace in where, f"{when}: a proposal does not lie in the space: {common.plain(trace)}")
        text = json.loads(json.dumps(common.plain(trace)))
        c.that(text in where, f"{when}: a proposal is not plain data: {common.plain(trace)}")


def _survives(c: Checks, where: Space, value: Any, propose: Any, directions: Sequence[str], objectives: int) -> None:
    trace = where.random(np.random.default_rng(3))
    histories: dict[str, list[Trial]] = {
        "without history": [],
        "with a history of one": [Trial(0, trace, tuple(value(trace)))],
        "when all trials failed": [Trial(i, trace, (), "failed") for i in range(6)],
        "when all trials run": [Trial(i, trace, (), "running") for i in range(6)],
        "when all values are NaN": [Trial(i, trace, (float("nan"),) * objectives) for i in range(6)],
        "when all trials are equal": [Trial(i, trace, tuple(value(trace))) for i in range(12)],
        "with failed, running, NaN and missing trials": _history(where, value, 40, objectives, True, 4),
        "when trials end out of order": _out_of_order(_history(where, value, 24, objectives, False, 5)),
        "with infinite values": [
            *_history(where, value, 12, objectives, False, 6), Trial(12, trace, (float("inf"),) * objectives),
        ],
    }  # fmt: skip
    for when, history in histories.items():
        for n in (1, 4):
            try:
                proposed = propose(tuple(history), where, np.random.default_rng(n), n, directions=directions)
            except Exception as error:
                c.that(False, f"{when}: raised {type(error).__name__}: {error}")
                return
            _proposals(c, where, proposed, n, when)
            c.that(bool(proposed) or len(history) > 0, f"{when}: nothing is proposed")


def _out_of_order(history: list[Trial]) -> list[Trial]:
    """Early trials still run while late ones are complete."""
    return [Trial(t.number, t.trace, (), "running") if t.number % 3 == 0 else t for t in history]


def _resumes(c: Checks, where: Space, value: Any, propose: Any, directions: Sequence[str]) -> None:
    whole = bench.search(propose, where, value, trials=24, batch=4, seed=1, directions=directions)
    for cut in (4, 12):
        history = tuple([Trial(**json.loads(_text(t))) for t in whole[:cut]])
        again = propose(history, where, seeds.rng(1, "propose", cut), 4, directions=directions)
        c.same(
            [common.plain(t) for t in again], [common.plain(t.trace) for t in whole[cut : cut + len(again)]],
            f"resumed from the ledger after {cut} trials, it proposes something else",
        )  # fmt: skip


def _text(trial: Trial) -> str:
    return json.dumps({"number": trial.number, "trace": common.plain(trial.trace), "values": list(trial.values)})


def _maximises(c: Checks, where: Space, value: Any, propose: Any, objectives: int) -> None:
    """With all values negated and "max" instead of "min", the proposals are the same."""
    history = _history(where, value, 30, objectives, False, 8)
    negated = tuple([Trial(t.number, t.trace, tuple([-v for v in t.values])) for t in history])
    down = propose(tuple(history), where, np.random.default_rng(0), 4, directions=("min",) * objectives)
    up = propose(negated, where, np.random.default_rng(0), 4, directions=("max",) * objectives)
    c.same(
        [common.plain(t) for t in up], [common.plain(t) for t in down],
        "maximising the negated values gives other proposals than minimising the values",
    )  # fmt: skip


def _beats_random(c: Checks, part: Part, where: Space, value: Any, propose: Any, directions: Sequence[str]) -> None:
    trials, batch = part.example.get("trials", 60), part.example.get("batch", 4)
    found = [
        bench.quality(bench.search(propose, where, value, trials=trials, batch=batch, seed=seed, directions=directions))
        for seed in range(_RUNS)
    ]
    mean, error = float(np.mean(found)), float(np.std(found) / np.sqrt(_RUNS))
    if common.own(part, "case") is None:
        other, spread = bench.random_quality(trials, len(directions))
    else:
        runs = [_random(where, value, trials, seed) for seed in range(2 * _RUNS)]
        other, spread = float(np.mean(runs)), float(np.std(runs) / np.sqrt(len(runs)))
    noise = 2 * float(np.hypot(error, spread))
    random = f"of random search {other:.4f} +- {spread:.4f}"
    what = f"the mean best after {trials} trials is {mean:.4f} +- {error:.4f}, {random}"
    if "baseline" in part.needs:
        c.that(mean <= other + noise, f"worse than random search: {what}")
    else:
        c.that(mean < other - noise, f"does not beat random search beyond noise: {what}")


def _random(where: Space, value: Any, trials: int, seed: int) -> float:
    rng = seeds.rng(seed, "random")
    traces = [where.random(rng) for _ in range(trials)]
    return bench.quality([Trial(i, t, tuple(value(t))) for i, t in enumerate(traces)])
