"""Toy benches: a space with a made-up objective for strategies, and one with stored trainings for estimators.

The made-up objective has what real ones have: choices that matter a lot and hardly, choices that only count where
others were made, an interaction, a best width in the middle. It is a function of the trace alone.

    error(t) = 0.9 - sum of gains, in (0, 1), to be minimised      size(t) = weights of the graph, in thousands
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from archwright import ops
from archwright.core import seeds
from archwright.core.choose import Choose
from archwright.core.records import Trial
from archwright.core.space import Space, Spec
from archwright.data.data import Data
from archwright.errors import FormatError
from archwright.ir import Editor, Graph

STORED = Path(__file__).with_name("bench.json")
_ACTS = ("relu", "tanh", "silu", "sigmoid")


# ------------------------------------------------------------------------------------------ for strategies: made up
def draw(choose: Choose, spec: Spec, *, real: bool = False) -> Graph:
    """A perceptron: width, activation, one to four blocks of three kinds, each with its own choices."""
    g = ops.edit()
    x = g.input("x", spec.inputs[0])
    width = choose.integer("width", 4, 32, step=4)
    act = choose.one_of("act", _ACTS)
    if real:
        choose.number("rate", 1e-4, 1e-1, log=True)

    def plain(g: Editor, x: str) -> str:
        return g.add(act, g.add("linear", x, out=width, name="linear"))

    def body(g: Editor, x: str, i: int) -> str:
        def residual(g: Editor, x: str) -> str:
            return g.add("add", x, plain(g, x))

        def bottleneck(g: Editor, x: str) -> str:
            squeeze = choose.one_of(f"squeeze.{i}", (2, 4))
            y = g.add(act, g.add("linear", x, out=width // squeeze, name="down"))
            return g.add("linear", y, out=width, name="up")

        return choose.branch(f"block.{i}", g, x, {"plain": plain, "residual": residual, "bottleneck": bottleneck})

    x = g.add("linear", x, out=width, name="stem")
    x = choose.repeat("depth", g, x, 1, 4, body)
    if choose.one_of("norm", (False, True)):
        x = g.add("layer_norm", x, name="norm")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


SPEC = Spec(((None, 6),), 3)


def space(*, real: bool = False) -> Space:
    """The space of the made-up bench; `real` adds a choice that is a real number."""

    def program(choose: Choose, spec: Spec) -> Graph:
        return draw(choose, spec, real=real)

    return Space("toy_real" if real else "toy", program, SPEC)


def error(trace: Mapping[str, Any]) -> float:
    """The made-up error of a trace, in (0, 1)."""
    gain = 0.25 * math.exp(-(((trace["width"] - 20) / 8) ** 2))
    gain += {"relu": 0.06, "tanh": 0.03, "silu": 0.08, "sigmoid": 0.0}[trace["act"]]
    gain += (0.0, 0.05, 0.12, 0.08)[trace["depth"] - 1]
    for i in range(trace["depth"]):
        kind = trace[f"block.{i}"]
        gain += {"plain": 0.0, "residual": 0.03 * (i + 1) / 2, "bottleneck": 0.02}[kind]
        if kind == "bottleneck" and trace[f"squeeze.{i}"] == 4:
            gain -= 0.015
    if trace["norm"]:
        gain += 0.06 if trace["depth"] > 2 else -0.03  # norms help deep ones
    gain += 0.05 if trace["act"] == "silu" and trace.get("block.1") == "residual" else 0.0
    if "rate" in trace:
        gain -= 0.02 * abs(math.log10(trace["rate"]) + 2.5)
    return 0.9 - gain


def objective(trace: Mapping[str, Any], count: int = 1) -> tuple[float, ...]:
    """Error, and the number of weights in thousands if two objectives are asked for."""
    if count == 1:
        return (error(trace),)
    weights = sum(math.prod(p.shape) for p in ops.params(space(real="rate" in trace).draw(trace)).values())
    return error(trace), weights / 1000


def search(
    propose: Any,
    where: Space,
    value: Any,
    *,
    trials: int,
    batch: int,
    seed: int,
    directions: Sequence[str] = ("min",),
) -> list[Trial]:
    """A history: ask, evaluate, until so many trials are done or nothing more is proposed."""
    history: list[Trial] = []
    while len(history) < trials:
        rng = seeds.rng(seed, "propose", len(history))
        proposed = propose(tuple(history), where, rng, min(batch, trials - len(history)), directions=directions)
        if not proposed:
            break
        for trace in list(proposed)[: trials - len(history)]:
            history.append(Trial(len(history), trace, tuple(value(trace))))
    return history


def quality(history: Sequence[Trial]) -> float:
    """How good a search was, less is better: the best error; for two objectives minus the area that its front
    dominates, up to error 1 and 10 thousand weights."""
    points = [t.values for t in history if t.values]
    if len(points[0]) == 1:
        return min(p[0] for p in points)
    area, best = 0.0, 1.0
    for value, size in sorted(points, key=lambda p: (p[1], p[0])):
        if value < best and size < 10:
            area += (best - value) * (10 - size) / 10
            best = value
    return -area


@cache
def random_quality(trials: int, count: int, runs: int = 30) -> tuple[float, float]:
    """Mean quality of random search after so many trials, and its standard error."""
    where = space()
    found = []
    for run in range(runs):
        rng = seeds.rng(run, "random")
        traces = [where.random(rng) for _ in range(trials)]
        found.append(quality([Trial(i, t, objective(t, count)) for i, t in enumerate(traces)]))
    return float(np.mean(found)), float(np.std(found) / math.sqrt(runs))


# ------------------------------------------------------------------------------------------ for estimators: stored
def real_draw(choose: Choose, spec: Spec) -> Graph:
    """Small convolutional networks for 8 x 8 images, from hopeless to good."""
    g = ops.edit()
    x = g.input("x", spec.inputs[0])
    width = choose.one_of("width", (2, 4, 8, 16))
    act = choose.one_of("act", ("relu", "silu", "tanh", "sigmoid"))
    norm = choose.one_of("norm", (True, False))

    def body(g: Editor, x: str, i: int) -> str:
        kernel = choose.one_of(f"kernel.{i}", (1, 3))
        stride = choose.one_of(f"stride.{i}", (1, 2))
        x = g.add("conv", x, out=width * (i + 1), kernel=kernel, padding=kernel // 2, stride=stride, name="conv")
        if norm:
            x = g.add("batch_norm", x, name="norm")
        return g.add(act, x)

    x = choose.repeat("depth", g, x, 1, 4, body)
    head = choose.one_of("head", ("mean", "flatten"))
    x = g.add("flatten", x) if head == "flatten" else g.add("mean", x, dim=[2, 3])
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


REAL_SPEC = Spec(((None, 1, 8, 8),), 10)


def real_space() -> Space:
    """The space of the stored bench."""
    return Space("toy_digits", real_draw, REAL_SPEC)


def real_data() -> Data:
    """The data of the stored bench: 600 of scikit-learn's digits."""
    from archwright.data.builtin import builtin

    data = builtin("digits")
    return data.take("train", 400, np.random.default_rng(0)).take("valid", 200, np.random.default_rng(1))


def make(nets: int = 40, seeds_each: int = 2, epochs: int = 8) -> dict[str, Any]:
    """Train the stored bench anew: some minutes. `python -m archwright.core.checks.bench` writes the file."""
    from archwright.core.checks import toys
    from archwright.net.net import init

    where, data, rng = real_space(), real_data(), np.random.default_rng(7)
    entries: list[dict[str, Any]] = []
    while len(entries) < nets:
        trace = where.random(rng)
        if any(entry["trace"] == trace for entry in entries):
            continue
        graph, curves, losses = where.draw(trace), [], []
        for seed in range(seeds_each):
            net, curve = init(graph, seed), []
            for epoch in range(epochs):
                net = toys.train(net, data, steps=13, rate=0.005, seed=100 * seed + epoch)
                curve.append(toys.error(net, data))
            x, y = data.tensors("valid")
            from archwright.core.checks.common import outputs

            losses.append(float(toys.loss(outputs(net, x)[0], y, data)))
            curves.append(curve)
        curve = [round(float(v), 4) for v in np.mean(curves, 0)]
        entries.append(
            {"trace": dict(trace), "error": curve[-1], "loss": round(float(np.mean(losses)), 4), "curve": curve}
        )
    return {"version": 1, "data": "digits, 400 train, 200 valid", "steps": 13 * epochs, "nets": entries}


@cache
def stored() -> tuple[Mapping[str, Any], ...]:
    """The stored trainings: trace, error (share), loss (nats), curve (error after each 13 steps of Adam)."""
    found = json.loads(STORED.read_text(encoding="utf-8"))
    if found.get("version") != 1:
        raise FormatError(f"{STORED}: got version {found.get('version')!r}, expected 1")
    return tuple(found["nets"])


def target(entry: Mapping[str, Any], name: str) -> float:
    """What an estimator is compared with: a stored result, or a cost of the graph at batch 1. Less is better."""
    if name in ("error", "loss"):
        return float(entry[name])
    if name == "curve_area":
        return float(np.mean(entry["curve"]))
    from archwright.net.cost import cost

    return float(getattr(cost(real_space().draw(entry["trace"])), name))


if __name__ == "__main__":
    lines = make()
    entries = ",\n  ".join(json.dumps(entry) for entry in lines.pop("nets"))
    STORED.write_text(json.dumps(lines)[:-1] + f', "nets": [\n  {entries}\n]}}\n', encoding="utf-8")
