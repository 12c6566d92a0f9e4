"""What a space is held to.

Replaying a trace gives the same graph, also after the trace was JSON; mutation, crossover and neighbours stay inside; a
small setting has exactly as many traces as stated; a trace that lacks a choice or has one too many is an error; every
draw builds, runs and gives the output asked for; the supernet cut to a trace is the drawn graph, and computes what the
supernet computes with its switches set to that trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from archwright import ops
from archwright.core import choose, registry
from archwright.core.checks import common
from archwright.core.checks.common import Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.space import Space, Spec
from archwright.core.supernet import Supernet
from archwright.errors import ChoiceError
from archwright.ir import Graph
from archwright.net.net import Net, example, init

MINIMUM = 45
KEYS = frozenset(("spec", "hp", "small", "supernet", "draws", "output"))
_MOST = 5000


def spec_of(literal: Mapping[str, Any]) -> Spec:
    """A `Spec` from the literal of an example."""
    dtypes, codes = tuple(literal.get("dtypes", ())), tuple(literal.get("codes", ()))
    return Spec(tuple(map(tuple, literal["inputs"])), literal["outputs"], dtypes, codes)


def space_of(part: Part, setting: Mapping[str, Any] | None = None) -> Space:
    """The part's space at its example, or with what a setting says instead."""
    given = {**part.example, **(setting or {})}
    hp = {**common.hp(part), **(setting or {}).get("hp", {})}
    return Space(part.name, partial(registry.entry(part), **hp), spec_of(given["spec"]))


def calls(part: Part) -> Calls:
    """A graph drawn at random, and its trace."""

    def run(args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        picker, spec = args
        return registry.entry(part)(picker, spec, **kw), dict(picker.trace)

    def make(seed: int) -> tuple[Any, ...]:
        return choose.Picker(choose.at_random(np.random.default_rng(seed))), spec_of(part.example["spec"])

    return {"draw": Call(registry.entry(part), make, common.hp(part), run)}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    common.every(c, calls(part), KEYS)
    space = space_of(part)
    rng = np.random.default_rng(0)
    traces = [space.random(rng) for _ in range(part.example.get("draws", 8))]
    for i, trace in enumerate(traces):
        _replayed(c, space, trace)
        for _ in range(3):
            other = space.mutate(trace, rng)
            c.that(other in space, "a mutated trace is not in the space")
            c.that(other != trace or not _open(space, trace), "a mutation changed nothing")
        c.that(space.cross(trace, traces[i - 1], rng) in space, "a crossed trace is not in the space")
        _runs(c, part, space, space.draw(trace))
    for other in _some(space.neighbours(traces[0]), 10):
        c.that(other in space, "a neighbour is not in the space")
    _counted(c, part)
    if part.example.get("supernet") is not None:
        _supernet(c, part, rng)
    return c.count


def _open(space: Space, trace: Mapping[str, Any]) -> bool:
    return any(o.kind == "number" or len(o.values) > 1 for o in space.decisions(trace).values())


def _some(items: Any, count: int) -> list[Any]:
    return [item for item, _ in zip(items, range(count), strict=False)]


def _replayed(c: Checks, space: Space, trace: Mapping[str, Any]) -> None:
    graph = space.draw(trace)
    c.that(graph.key() == space.draw(trace).key(), "replaying a trace gives another graph")
    text = json.loads(json.dumps(trace))
    c.that(graph.key() == space.draw(text).key(), "a trace that was JSON gives another graph")
    c.raises(
        ChoiceError, lambda: space.draw({**trace, "no such choice": 1}), "a choice too many in a trace is no error"
    )
    if trace:
        lacking = dict(list(trace.items())[:-1])
        c.raises(ChoiceError, lambda: space.draw(lacking), "a trace that lacks its last choice is no error")


def _runs(c: Checks, part: Part, space: Space, graph: Graph) -> None:
    net = init(graph)
    inputs = [node.attrs["shape"] for node in graph.inputs]
    c.that(
        common.plain(inputs) == common.plain(space.spec.inputs),
        f"a graph takes inputs {common.plain(inputs)}, the spec says {common.plain(space.spec.inputs)}",
    )
    for size in (2, 3):
        found = common.outputs(net, example(graph, size))
        expected = tuple([size if n is None else n for n in part.example.get("output", [None, space.spec.outputs])])
        shapes = [tuple(t.shape) for t in found]
        c.that(shapes[0] == expected, f"a graph gives {list(shapes[0])} at batch {size}, expected {list(expected)}")
        c.that(common.finite(found), "the outputs of a fresh graph are not finite")


def _counted(c: Checks, part: Part) -> None:
    small = part.example.get("small")
    c.that(isinstance(small, Mapping) and "count" in small, "PART['example']['small'] with its 'count' is missing")
    assert small is not None
    space = space_of(part, {k: v for k, v in small.items() if k in ("hp", "spec")})
    seen: dict[str, None] = {}
    keys = set()
    for trace, graph in choose.enumerate_traces(space.program, space.spec):
        seen[json.dumps(trace, sort_keys=True)] = None
        keys.add(graph.key())
        if len(seen) > _MOST:
            break
    wanted = small["count"]
    c.that(len(seen) == wanted, f"the small setting has {len(seen)} traces, PART says {wanted} (at most {_MOST})")
    c.that(space.count() == len(seen), f"count() is {space.count()}, but {len(seen)} distinct traces are enumerated")
    if "unique" in small:
        c.that(len(keys) == small["unique"], f"{len(keys)} distinct graphs, PART says {small['unique']}")
    mean, error = choose.estimate_count(space.program, space.spec, np.random.default_rng(0), 200)
    c.that(abs(mean - wanted) <= 6 * error + 1e-6 * wanted, f"the estimated count is {mean} +- {error}, not {wanted}")


def _supernet(c: Checks, part: Part, rng: np.random.Generator) -> None:
    settings = part.example["supernet"]
    fixed = dict(settings.get("fixed", {}))
    space = space_of(part)
    whole = Supernet.of(space.program, space.spec, join=settings.get("join", "switch"), fixed=fixed)
    net = common.rough(whole.init(0), 1)
    most = {name: max(options.values) for name, options in whole.numbers.items()}  # type: ignore[type-var]
    for i in range(8):
        picker = choose.Picker(choose.replay({**fixed, **(most if i % 2 else {})}, choose.at_random(rng)))
        drawn = space.program(picker, space.spec)
        cut = whole.restrict(net, picker.trace)
        c.that(cut.graph.key() == drawn.key(), "the supernet restricted to a trace is not the drawn graph")
        elastic = [name for name in whole.numbers if name in picker.trace]
        largest = all(picker.trace[name] == most[name] for name in elastic)
        if settings.get("join", "switch") == "switch" and largest:
            x = example(whole.graph, 3)
            set_to = Net(_switched(whole, picker.trace), net.weights)
            c.same(
                common.outputs(cut, x), common.outputs(set_to, x),
                "the supernet restricted to a trace computes something else than with its switches set to it",
                1e-4, 1e-6,
            )  # fmt: skip
        else:
            c.that(all(torch.isfinite(w).all() for w in cut.weights.values()), "restricted weights are not finite")
        c.that(
            cut.weights.keys() == ops.params(drawn).keys(), "restricted weights have other names than the drawn ones"
        )


def _switched(whole: Supernet, trace: Mapping[str, Any]) -> Graph:
    """The supernet's own graph with the index of each switch set to what the trace takes."""
    index = {
        join: list(options).index(trace[name])
        for name, joins in whole.switches.items()
        if name in trace
        for join, options in joins.items()
    }
    nodes = [
        node.with_(attrs=ops.get("switch").normal({**node.attrs, "index": index[node.name]}))
        if node.name in index
        else node
        for node in whole.graph.nodes
    ]
    return Graph(tuple(nodes), whole.graph.outputs)
