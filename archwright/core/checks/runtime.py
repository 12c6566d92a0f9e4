"""What a runtime is held to: outputs equal to the reference (or within its bound), and figures that were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from archwright import ops
from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Measured
from archwright.data.data import Data
from archwright.net.net import Net

MINIMUM = 25
KEYS = TOYS | {"bound"}


def calls(part: Part) -> Calls:
    """The example's net run on five samples."""

    def make(seed: int) -> tuple[Any, ...]:
        net, data = common.net_and_data(part, seed)
        if common.own(part, "case") is not None and not isinstance(data, Data):
            return net, data
        return common.rough(net, seed), data.batch(np.asarray(data.splits["train"])[5 * seed : 5 * seed + 5])[0]

    return {"run": Call(registry.entry(part), make, common.hp(part), clock=True, writes=True)}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    call = calls(part)["run"]
    _measured(c, part, call.make(0), common.every(c, {"run": call}, KEYS)["run"])
    for seed in (1, 2):
        args = call.make(seed)
        _measured(c, part, args, call(args, seed))
    return c.count


def _measured(c: Checks, part: Part, args: tuple[Any, ...], found: Any) -> None:
    c.that(isinstance(found, Measured), f"run returned {type(found).__name__}, expected Measured")
    c.that(
        math.isfinite(found.seconds) and found.seconds > 0, f"seconds are {found.seconds}, expected what was measured"
    )
    c.that(type(found.peak_bytes) is int and found.peak_bytes >= 0, f"peak_bytes is {found.peak_bytes!r}")
    common.figures(c, found.figures, "what was measured")
    common.jsonable(c, found, "what was measured")
    c.that("outputs" not in found.as_dict(), "outputs are in the JSON")
    net, x = args
    if isinstance(net, Net):
        _outputs(c, part, ops.run(net.graph, net.weights, x), found.outputs)


def _outputs(c: Checks, part: Part, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
    bound = part.example.get("bound")
    c.that(len(found) == len(expected), f"{len(found)} outputs, the network has {len(expected)}")
    c.same(
        [t.detach() for t in found], [t.detach() for t in expected],
        "the outputs are not the network's" + ("" if bound is None else f" within {bound}"),
        1e-4 if bound is None else float(bound), 1e-6,
    )  # fmt: skip
