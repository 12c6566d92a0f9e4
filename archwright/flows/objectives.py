"""What a search looks for and what it may not exceed: objectives and limits by name.

    error or any metric of scikit-learn      measured on held-back samples           archwright.kit.metrics
    params                                   trainable numbers, exactly
    flops                                    floating point operations for one sample, exactly
    bytes                                    of all weights and buffers, exactly
    memory                                   most bytes of activations alive at once, for one sample
    energy                                   a proxy: bytes read and written for one sample (memory traffic)
    latency                                  seconds for one sample, measured on this machine with ONNX Runtime
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archwright.core.records import Direction, Record
from archwright.data.data import Task
from archwright.data.recipe import Recipe
from archwright.errors import EmitError, FormatError
from archwright.ir import Graph
from archwright.kit.latency import latency
from archwright.kit.metrics import metric
from archwright.kit.prelude import with_recipe
from archwright.net.cost import cost
from archwright.net.net import init

UNITS = {
    "params": "1", "flops": "FLOP", "bytes": "B", "memory": "B", "energy": "B", "latency": "s",
}  # fmt: skip
"""Costs that a network has before it is trained, and their units."""

_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Objective(Record):
    """One thing that is searched for."""

    name: str
    unit: str
    direction: Direction

    @property
    def is_cost(self) -> bool:
        """Whether it is known before training."""
        return self.name in UNITS


def objectives(text: str | Sequence[str], task: Task, classes: int) -> tuple[Objective, ...]:
    """Objectives from "error,params" or a list of names. The first metric among them is what trials are compared by.

    Raises `FormatError` for an unknown name, one that is given twice, or costs alone; `DataError` for a metric that
    does not fit the task.
    """
    names = [n.strip() for n in (text.split(",") if isinstance(text, str) else text) if n.strip()]
    if not names or len(set(names)) < len(names):
        raise FormatError(f"got objectives {', '.join(names) or 'none'}: expected different names: error,params")
    found = []
    for name in names:
        if name in UNITS:
            found.append(Objective(name, UNITS[name], "min"))
        else:
            m = metric(name, task, classes)
            found.append(Objective(name, m.unit, m.direction))
    if all(o.is_cost for o in found):
        raise FormatError(f"got objectives {', '.join(names)}: expected a metric among them, such as error")
    return tuple(found)


def limits(text: str | Mapping[str, float | str] | None) -> dict[str, float]:
    """Limits from "params=20k,latency=1ms" or a mapping, in the units of `UNITS`.

    Numbers take k, M, G; bytes kB, MB, KiB, MiB; times us, ms, s. Raises `FormatError` saying what was not understood.
    """
    if not text:
        return {}
    if isinstance(text, str):
        pairs = [part.partition("=") for part in text.split(",") if part.strip()]
        given: Mapping[str, float | str] = {name.strip(): value.strip() for name, _, value in pairs}
    else:
        given = text
    found = {}
    for name, value in given.items():
        if name not in UNITS:
            near = difflib.get_close_matches(name, UNITS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(UNITS)}"
            raise FormatError(f"unknown limit '{name}': {hint}")
        found[name] = value if isinstance(value, (int, float)) else quantity(value, UNITS[name], name)
        if not found[name] > 0:
            raise FormatError(f"limit {name}={value}: expected a number above 0")
    return found


def quantity(text: str, unit: str, name: str) -> float:
    """A number with a scale: "20k", "1.5MB", "1ms" (in seconds). Raises `FormatError`."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-zµ]*)\s*", text.lower())
    scales = {"B": {**_SCALES, **_BYTES}, "s": _TIMES}.get(unit, _SCALES)
    if match is None or (match[2] not in scales and not (unit == "s" and not match[2])):
        example = {"B": "100kB", "s": "1ms"}.get(unit, "20k")
        raise FormatError(f"got {name}={text}, expected a number such as {example}")
    return float(match[1]) * (scales[match[2]] if match[2] else 1.0)


def seconds(text: str | float | int) -> float:
    """A duration: "60s", "5m", "1h", "90" or a number of seconds. Raises `FormatError` unless it is above 0."""
    value = float(text) if isinstance(text, (int, float)) else quantity(text, "s", "budget")
    if not 0 < value < 1e8:
        raise FormatError(f"got a budget of {text}, expected a time above 0 such as 60s, 5m or 1h")
    return value


def costs(graph: Graph, names: Sequence[str], recipe: Recipe | None = None) -> dict[str, float]:
    """The costs of those names for a graph, as the whole network is delivered.

    Latency is measured, with random weights; with a recipe, what it does to raw inputs is included. A graph that has no
    form in ONNX has an infinite one.
    """
    known = cost(graph, 1)
    found: dict[str, float] = {
        "params": known.params,
        "flops": known.flops,
        "bytes": known.param_bytes + known.buffer_bytes,
        "memory": known.peak_bytes,
        "energy": known.traffic_bytes,
    }
    if "latency" in names:
        whole = init(graph)
        try:
            found["latency"] = latency(with_recipe(whole, recipe) if recipe else whole, seconds=0.1).seconds
        except EmitError:
            found["latency"] = math.inf
    return {name: found[name] for name in names}


def over(found: Mapping[str, float], limit: Mapping[str, float]) -> str | None:
    """The first limit that is exceeded, in words; None if none is."""
    for name, most in limit.items():
        if found[name] > most:
            return f"{name} {found[name]:.6g} {UNITS[name]} is over the limit of {most:.6g}".replace(" 1 is", " is")
    return None
