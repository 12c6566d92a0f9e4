"""What a transform is held to.

An exact one computes the same to rtol 1e-4, on nets with random statistics of the norms and biases that are not zero;
any other states the measure of what it changed and stays below its bound. The new net is whole: it builds, runs, has
finite outputs, can be saved and loaded.
"""

from __future__ import annotations

import tempfile
from typing import Any

from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Report
from archwright.net.net import Net, example, init, load

MINIMUM = 25
KEYS = TOYS


def calls(part: Part) -> Calls:
    """The example's net transformed."""
    entry = registry.entry(part)
    return {"apply": Call(entry, lambda seed: common.net_and_data(part, seed), common.hp(part))}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    made = calls(part)
    result = common.every(c, made, KEYS)["apply"]
    _pair(c, result)
    for seed in (1, 2):
        net, *rest = made["apply"].make(seed)
        nets = net if isinstance(net, tuple) else (net,)
        rough = tuple([common.rough(n, seed) for n in nets])
        given = rough if isinstance(net, tuple) else rough[0]
        found = made["apply"]((given, *rest), seed)
        _pair(c, found)
        if found[1].exact:
            _exact(c, rough[0], found[0], seed)
        _whole(c, found[0])
    if result[1].exact:
        first = made["apply"].make(0)[0]
        _exact(c, first[0] if isinstance(first, tuple) else first, result[0], 0)
    else:
        measure, bound = result[1].measure, result[1].bound
        c.that(
            measure.value <= bound, f"{measure.name} is {measure.value:.4g} {measure.unit}, its bound is {bound:.4g}"
        )
        c.that(bool(measure.unit), f"the measure '{measure.name}' has no unit")
    return c.count


def _pair(c: Checks, result: Any) -> None:
    is_pair = isinstance(result, tuple) and len(result) == 2
    c.that(
        is_pair and isinstance(result[0], Net) and isinstance(result[1], Report), "apply has to return (Net, Report)"
    )
    report = result[1]
    c.that(bool(report.name), "the report has no name")
    common.figures(c, report.figures, "the report")
    common.charts(c, report.charts, "the report")
    common.jsonable(c, report, "the report")


def _exact(c: Checks, before: Net, after: Net, seed: int) -> None:
    x = example(before.graph, 4, seed)
    c.same(
        common.outputs(after, x), common.outputs(before, x),
        "said to be exact, but the outputs are not the same (random statistics and biases)", 1e-4, 1e-6,
    )  # fmt: skip


def _whole(c: Checks, net: Net) -> None:
    x = example(net.graph, 3)
    c.that(common.finite(common.outputs(net, x)), "outputs of the new net are not finite")
    c.that(init(net.graph).weights.keys() == net.weights.keys(), "the new net's weights are not those of its graph")
    with tempfile.TemporaryDirectory() as folder:
        net.save(folder)
        c.same(load(folder, allow_opaque=True), _detached(net), "the new net, saved and loaded, differs")


def _detached(net: Net) -> Net:
    return Net(net.graph, {name: w.detach().contiguous() for name, w in net.weights.items()})
