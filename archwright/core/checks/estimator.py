"""What an estimator is held to.

A finite number with unit and direction; the net left as it came; names of nodes don't matter; and on the stored bench
(real trainings of small networks on digits) its rank correlation with what it estimates is above its stated floor.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from archwright.core import registry
from archwright.core.checks import bench, common
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Score, Trial
from archwright.ir import rename
from archwright.net.net import Net, init

MINIMUM = 28
KEYS = TOYS | {"target", "floor"}


def _state(part: Part, half: int | None = None) -> dict[str, Any]:
    """What `fit` learned from the stored bench, or from half of it, as keyword; nothing for parts without `fit`."""
    fit = common.own(part, "fit")
    if fit is None:
        return {}
    entries = bench.stored() if half is None else bench.stored()[half::2]
    history = tuple([
        Trial(i, entry["trace"], (bench.target(entry, part.example.get("target") or "error"),),
              extra={"curve": list(entry["curve"])})
        for i, entry in enumerate(entries)
    ])  # fmt: skip
    known = inspect.signature(fit).parameters
    hp = {k: v for k, v in common.hp(part).items() if k in known}
    return {"state": fit(history, bench.real_space(), seed=0, **hp)}


def _bench_net(index: int, seed: int = 0) -> tuple[Net, dict[str, Any]]:
    entry = bench.stored()[index]
    return init(bench.real_space().draw(entry["trace"]), seed), dict(entry["trace"])


def calls(part: Part) -> Calls:
    """The score of the example's net; of a net of the bench for estimators that learn from history."""
    entry = registry.entry(part)
    state = _state(part)
    known = inspect.signature(entry).parameters

    def make(seed: int) -> tuple[Any, ...]:
        return (_bench_net(0, seed)[0], bench.real_data()) if state else common.net_and_data(part, seed)

    def run(args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        if state and "trace" in known:
            kw = {"trace": _bench_net(0)[1], **kw}
        return entry(*args, **{**state, **kw})

    return {"score": Call(entry, make, _hp(part), run, clock="clock" in part.needs)}


def _hp(part: Part) -> dict[str, Any]:
    """The example's keywords for `score`: all but those that only `fit` takes."""
    fit, hp = common.own(part, "fit"), common.hp(part)
    if fit is None:
        return hp
    known, learns = inspect.signature(registry.entry(part)).parameters, inspect.signature(fit).parameters
    return {key: value for key, value in hp.items() if key in known or key not in learns}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    made = calls(part)
    score = common.every(c, made, KEYS)["score"]
    c.that(isinstance(score, Score), f"score returned {type(score).__name__}, expected a Score")
    c.that(math.isfinite(score.value), f"the score is {score.value}, expected a finite number")
    c.that(type(score.value) is float, f"the score is a {type(score.value).__name__}, expected a Python float")
    c.that(bool(score.unit), "the score has no unit: write '1' for a pure number, 'share' for one in [0, 1]")
    c.that(score.direction in ("min", "max"), f"the direction is {score.direction!r}, expected 'min' or 'max'")
    common.jsonable(c, score, "the score")
    _nets(c, made["score"])
    c.that("target" in part.example, "PART['example'] lacks 'target': what it ranks, or None where nothing stored fits")
    if part.example.get("target") is not None:
        _ranks(c, part)
    return c.count


def _nets(c: Checks, call: Call) -> None:
    args = call.make(0)
    net = args[0]
    if not isinstance(net, Net):
        return
    names = {node.name: f"n{i}.{node.op}" for i, node in enumerate(net.graph.nodes)}
    graph = rename(net.graph, names)
    weights = {_renamed(name, net, names): w for name, w in net.weights.items()}
    other = call((Net(graph, weights), *args[1:]), 0)
    if not call.clock:
        c.same(other, call(args, 0), "the score depends on the names of nodes", 1e-4, 1e-6)
    for seed in (1, 2):
        found = call(call.make(seed), seed)
        c.that(math.isfinite(found.value), f"seed {seed}: the score is {found.value}, expected a finite number")
        same = (found.unit, found.direction) == (other.unit, other.direction)
        c.that(same, "unit or direction depend on the seed")


def _renamed(weight: str, net: Net, names: dict[str, str]) -> str:
    """The weight's name once its slot, if that was a node's name, is renamed."""
    for slot in net.graph.slots:
        if (weight == slot or weight.startswith(slot + ".")) and slot in names:
            longest = max((s for s in net.graph.slots if weight == s or weight.startswith(s + ".")), key=len)
            return names.get(longest, longest) + weight[len(longest) :]
    return weight


def _ranks(c: Checks, part: Part) -> None:
    floor, target = part.example.get("floor", ""), part.example["target"]
    c.that(type(floor) in (int, float), "PART['example'] lacks 'floor': the rank correlation that it promises")
    entry = registry.entry(part)
    known = inspect.signature(entry).parameters
    data = bench.real_data()
    wanted, found = [], []
    halves = (0, 1) if common.own(part, "fit") is not None else (None,)
    for half in halves:
        state = _state(part, half)
        chosen = range(len(bench.stored())) if half is None else range(1 - half, len(bench.stored()), 2)
        for index in chosen:
            net, trace = _bench_net(index)
            more = {"trace": trace} if "trace" in known else {}
            score = entry(net, data, **{"seed": 0, **_hp(part), **state, **more})
            c.that(math.isfinite(score.value), f"the score of net {index} of the stored bench is {score.value}")
            wanted.append(bench.target(bench.stored()[index], target))
            found.append(score.value if score.direction == "min" else -score.value)
    rank = spearman(np.asarray(found), np.asarray(wanted))
    c.that(rank >= floor, f"rank correlation with {target} is {rank:.3f}, stated floor {floor}")


def spearman(one: Any, other: Any) -> float:
    """Spearman's rank correlation; ties share their mean rank. 0 where one of them is constant."""
    ranks = []
    for values in (one, other):
        order = values[:, None]
        ranks.append((order > values).sum(1) + 0.5 * ((order == values).sum(1) - 1.0))
    a, b = ranks[0] - ranks[0].mean(), ranks[1] - ranks[1].mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale > 0 else 0.0
