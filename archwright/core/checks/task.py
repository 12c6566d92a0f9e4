"""What a task is held to.

Data that are well formed: finite inputs, disjoint splits of which none is empty, classes that all occur, a target of
the right form; standardised by the train split alone. A flow, where there is one, keeps its budget.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Budget, Log, Record
from archwright.data.data import SPLITS, Data
from archwright.net.net import Net, example

MINIMUM = 30
KEYS = frozenset(("hp", "source", "steps"))
_KINDS = ("table", "image", "signal", "points", "graph", "text")


def calls(part: Part) -> Calls:
    """The example's source loaded; a few steps of the flow on it."""
    load = registry.entry(part)

    def source(seed: int) -> tuple[Any, ...]:
        case = common.own(part, "case")
        if case is None:
            return (part.example.get("source"),)
        found: tuple[Any, ...] = case(seed, common.scratch())
        return found

    found = {"load": Call(load, source, common.hp(part))}
    flow = common.own(part, "flow")
    if flow is not None:

        def make(seed: int) -> tuple[Any, ...]:
            data = found["load"](source(seed), seed)
            return data, Budget(steps=part.example.get("steps", 20)), np.random.default_rng(seed)

        found["flow"] = Call(flow, make)
    return found


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    made = calls(part)
    given = common.own(part, "case") is not None or "source" in part.example
    c.that(given, "there is nothing to load: define case(seed, folder) or PART['example']['source']")
    results = common.every(c, made, KEYS)
    for seed in (0, 1):
        data = results["load"] if seed == 0 else made["load"](made["load"].make(1), 1)
        c.that(isinstance(data, Data), f"load returned {type(data).__name__}, expected Data")
        _well_formed(c, data)
        _standardised(c, data)
    if "flow" in results:
        _flow(c, part, results["flow"])
    return c.count


def _well_formed(c: Checks, data: Data) -> None:
    c.that(data.kind in _KINDS, f"kind is {data.kind!r}, expected one of {', '.join(_KINDS)}")
    c.that(data.task in ("classification", "regression"), f"task is {data.task!r}")
    c.that(bool(data.name) and len(data.inputs) > 0, "the data have no name or no inputs")
    for i, array in enumerate(data.inputs):
        c.that(array.dtype in (np.float32, np.int64), f"input {i} is {array.dtype}, expected float32 or int64")
        fine = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        c.that(fine, f"input {i} has values that are not finite")
    splits = {name: np.asarray(data.splits[name]) for name in SPLITS}
    for name, index in splits.items():
        c.that(len(index) > 0, f"split '{name}' is empty")
        c.that(len(np.unique(index)) == len(index), f"split '{name}' holds a sample twice")
    joined = np.concatenate(list(splits.values()))
    c.that(len(np.unique(joined)) == len(joined), "splits overlap")
    if data.task == "classification":
        c.that(data.target.dtype == np.int64 and data.target.min() >= 0, "classes are not int64 from 0")
        c.that(int(data.target.max()) < data.outputs, f"class {int(data.target.max())} of {data.outputs}")
        missing = sorted(set(range(data.outputs)) - set(data.target[splits["train"]].ravel().tolist()))
        c.that(not missing, f"classes {missing[:5]} do not occur in the train split")
    else:
        c.that(data.target.dtype == np.float32, f"target is {data.target.dtype}, expected float32")
        c.that(data.target.ndim >= 2, "a target of numbers needs shape [n, k]")
        c.that(bool(np.isfinite(data.target).all()), "targets are not finite")
    repeated = _repeated(data, splits)
    c.that(not repeated, f"{repeated} samples of the test split stand in the train split too")
    common.jsonable(c, _Meta(dict(data.meta)), "meta")


@dataclasses.dataclass(frozen=True)
class _Meta(Record):
    meta: dict[str, Any]


def _repeated(data: Data, splits: dict[str, Any]) -> int:
    """Samples of the test split, inputs of real numbers, that are in the train split bit by bit."""
    if not all(a.dtype.kind == "f" for a in data.inputs):
        return 0
    rows = {
        name: {b"".join(np.ascontiguousarray(a[i]).tobytes() for a in data.inputs) for i in splits[name]}
        for name in ("train", "test")
    }
    both = rows["train"] & rows["test"]
    return len(both) if len(both) > 0.05 * len(rows["test"]) else 0  # sensors repeat themselves now and then


def _standardised(c: Checks, data: Data) -> None:
    said = data.meta.get("standardised", "")
    c.that(said in ("", "feature", "channel"), f"meta['standardised'] is {said!r}, expected 'feature' or 'channel'")
    train = np.asarray(data.splits["train"])
    for i, array in enumerate(data.inputs):
        if array.dtype.kind != "f":
            continue
        over = (0,) if said != "channel" else (0, *range(2, array.ndim))
        inside, whole = _moments(array[train], over), _moments(array, over)
        if said:
            c.that(
                inside < 1e-3,
                f"input {i} is said to be standardised by {said}, but over the train split mean and deviation are off "
                f"by {inside:.2g}: statistics were taken of more than the train split",
            )
        else:
            leaks = whole < 1e-4 < inside
            c.that(not leaks, f"input {i} is standardised by the statistics of all splits: the test split leaks")


def _moments(array: Any, over: tuple[int, ...]) -> float:
    """How far means are from 0 and deviations from 1, features that never change left out."""
    mean, deviation = array.mean(over, dtype=np.float64), array.std(over, dtype=np.float64)
    varies = deviation > 1e-4
    if not varies.any():
        return 0.0
    return float(max(np.abs(mean[varies]).max(), np.abs(deviation[varies] - 1).max()))


def _flow(c: Checks, part: Part, result: Any) -> None:
    is_pair = isinstance(result, tuple) and len(result) == 2
    c.that(is_pair and isinstance(result[0], Net) and isinstance(result[1], Log), "flow has to return (Net, Log)")
    net, log = result
    steps = part.example.get("steps", 20)
    c.that(log.units.get("step") == "steps", "the log needs a column 'step' with unit 'steps'")
    c.that(log.columns["step"][-1] <= steps, f"{log.columns['step'][-1]} steps, the budget was {steps}")
    c.that(common.finite(common.outputs(net, example(net.graph, 3))), "outputs of the net are not finite")
