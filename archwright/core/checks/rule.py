"""What a rule is held to.

A new net of the same graph (unless it says that it grows one); a log whose columns have units and whose last step is
the budget's; no step more than allowed, no second much more; what it learns shows on toy data; the test split is not
read.
"""

from __future__ import annotations

import dataclasses
import math
import time
from itertools import pairwise
from typing import Any

import numpy as np

from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Budget, Log
from archwright.data.data import Data
from archwright.net.net import Net, example

MINIMUM = 30
KEYS = TOYS | {"steps", "falls", "rises", "same_graph"}

_ENDS = ("budget", "steps", "early", "diverged", "done")
_SLACK = 5.0  # seconds that a rule may take beyond a budget of time: one step, and what comes before the first


def calls(part: Part) -> Calls:
    """A few steps."""

    def make(seed: int) -> tuple[Any, ...]:
        return (*common.net_and_data(part, seed)[:2], Budget(steps=8), np.random.default_rng(seed))

    return {"fit": Call(registry.entry(part), make, common.hp(part))}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    call = calls(part)["fit"]
    net, log = _pair(c, common.every(c, {"fit": call}, KEYS)["fit"])
    _logged(c, log, Budget(steps=8))
    given = call.make(0)
    if part.example.get("same_graph", True):
        c.that(net.graph.key() == given[0].graph.key(), 'the new net has another graph (say "same_graph": False)')
        changed = common.difference(common.flatten(net), common.flatten(given[0]))
        c.that(bool(changed), "after 8 steps the weights are what they were")
    c.that(all(not w.requires_grad for w in net.weights.values()), "weights of the new net still require gradients")
    c.that(common.finite(common.outputs(net, example(net.graph, 3))), "outputs of the new net are not finite")
    for steps in (1, 5):
        _, short = _pair(c, call((*call.make(0)[:2], Budget(steps=steps), np.random.default_rng(0))))
        _logged(c, short, Budget(steps=steps))
    _timely(c, call)
    _learns(c, part, call)
    _test_unread(c, call, net)
    return c.count


def _pair(c: Checks, result: Any) -> tuple[Net, Log]:
    is_pair = isinstance(result, tuple) and len(result) == 2
    c.that(is_pair and isinstance(result[0], Net) and isinstance(result[1], Log), "fit has to return (Net, Log)")
    return result


def _logged(c: Checks, log: Log, budget: Budget) -> None:
    c.that(log.units.get("step") == "steps", "the log needs a column 'step' with unit 'steps'")
    steps = log.columns["step"]
    c.that(len(steps) > 0 and all(a < b for a, b in pairwise(steps)), "steps in the log do not rise")
    bare = [name for name, unit in log.units.items() if not unit]
    c.that(not bare, f"columns {bare} of the log have no unit: write '1' for a pure number")
    c.that(log.stopped in _ENDS, f"the log ends with {log.stopped!r}, expected one of {', '.join(_ENDS)}")
    c.that(all(type(v) in (int, float) for column in log.columns.values() for v in column), "the log holds no numbers")
    common.jsonable(c, log, "the log")
    limit = budget.steps or 0
    if log.stopped in ("budget", "steps"):
        c.that(steps[-1] == limit, f"a budget of {limit} steps ended after {steps[-1]}: the budget is not kept")
    else:
        c.that(steps[-1] <= limit, f"a budget of {limit} steps, but {steps[-1]} were taken: the budget is not kept")


def _timely(c: Checks, call: Call) -> None:
    began = time.monotonic()
    _, log = _pair(c, call((*call.make(0)[:2], Budget(seconds=0.3), np.random.default_rng(0))))
    took = time.monotonic() - began
    c.that(took < 0.3 + _SLACK, f"a budget of 0.3 s took {took:.1f} s: the budget is not kept")
    c.that(log.stopped in _ENDS, f"the log ends with {log.stopped!r}, expected one of {', '.join(_ENDS)}")


def _learns(c: Checks, part: Part, call: Call) -> None:
    steps = part.example.get("steps", 60)
    net, log = _pair(c, call((*call.make(0)[:2], Budget(steps=steps), np.random.default_rng(0))))
    name = part.example.get("rises") or part.example.get("falls", "train_loss")
    sign = -1 if "rises" in part.example else 1
    c.that(name in log.columns, f"the log has columns {', '.join(log.columns)}, PART's example names '{name}'")
    column = np.asarray(log.columns[name], float)
    c.that(len(column) >= 2, f"the log of {steps} steps has {len(column)} entries, expected at least 2")
    third = max(1, len(column) // 3)
    first, last = float(column[:third].mean()), float(column[-third:].mean())
    verb = "rise" if sign < 0 else "fall"
    learned = math.isfinite(last) and sign * last < sign * first
    c.that(learned, f"'{name}' does not {verb} in {steps} steps: {first:.4g} at first, {last:.4g} at last")
    c.that(common.finite(net), "after learning, weights are not finite")


def _test_unread(c: Checks, call: Call, expected: Net) -> None:
    """With other numbers in the test split, the same net comes out."""
    net, data, *rest = call.make(0)
    if not isinstance(data, Data) or not data.size("test"):
        return
    index = np.asarray(data.splits["test"])
    inputs = []
    for array in data.inputs:
        copy = np.array(array)
        copy[index] = copy[index][::-1] * 3 if copy.dtype.kind == "f" else copy[index][::-1]
        inputs.append(copy)
    target = np.array(data.target)
    target[index] = target[index][::-1]
    found, _ = call((net, dataclasses.replace(data, inputs=tuple(inputs), target=target), *rest))
    c.same(found, expected, "other numbers in the test split give another net: the test split is read", 1e-5, 1e-7)
