"""What a lens is held to: every figure has a unit, the finding can be written as JSON, charts are well formed."""

from __future__ import annotations

import math
from typing import Any

from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Finding

MINIMUM = 25
KEYS = TOYS


def calls(part: Part) -> Calls:
    """A look at the example's net."""
    return {"look": Call(registry.entry(part), lambda seed: common.net_and_data(part, seed), common.hp(part))}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    call = calls(part)["look"]
    _found(c, common.every(c, {"look": call}, KEYS)["look"])
    for seed in (1, 2):
        _found(c, call(call.make(seed), seed))
    return c.count


def _found(c: Checks, finding: Any) -> None:
    c.that(isinstance(finding, Finding), f"look returned {type(finding).__name__}, expected a Finding")
    c.that(bool(finding.title), "the finding has no title")
    c.that(bool(finding.text), "the finding has no text that says what the figures mean")
    c.that(len(finding.figures) > 0, "the finding has no figure")
    common.figures(c, finding.figures, "the finding")
    common.charts(c, finding.charts, "the finding")
    common.jsonable(c, finding, "the finding")
    for figure in finding.figures:
        value = figure.value
        c.that(type(value) in (int, float), f"figure '{figure.name}' is a {type(value).__name__}, expected a number")
        if figure.unit == "share":
            inside = math.isnan(value) or -1e-9 <= value <= 1 + 1e-9
            c.that(inside, f"figure '{figure.name}' is {value}, expected a share in [0, 1]")
