"""Boxes: the part of a value that a node needs so that it makes a part of its outputs.

A box is [start, stop) along each dimension. Along a dimension, for a window of kernel k, dilation d, stride s and
padding p, with n elements in front of it,

    out [l, h)  needs  in [s l - p, s (h - 1) - p + d (k - 1) + 1),  of which [0, n) exists and the rest is padding.

Any other op passes a box through along the dimensions that it leaves alone, which its axes tell. Where nothing is known
the whole is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Graph, Node, Type
from archwright.ops.base import Dim, spread
from archwright.ops.base import size as size_of

WINDOWS = ("conv", "max_pool", "avg_pool", "lp_pool")
"""Ops that look at windows."""

Box = tuple[tuple[int, int], ...]
"""Part of a value: [start, stop) along each dimension."""


class Read(NamedTuple):
    """One input of a step: part `box` of a value, surrounded by `pads` (before, after) of `fill`."""

    value: str
    box: Box
    pads: tuple[tuple[int, int], ...] = ()
    fill: float = 0.0


class Step(NamedTuple):
    """A node run on boxes: its inputs (None: not read), facts at these sizes, boxes of outputs, values dead then."""

    node: Node
    facts: ops.Facts
    reads: tuple[Read | None, ...]
    made: tuple[Box, ...]
    dead: tuple[str, ...] = ()


def full(t: Type) -> Box:
    """All of a value."""
    return tuple([(0, n) for n in t.shape])


def join(one: Box | None, other: Box) -> Box:
    """The least box that holds both."""
    if one is None:
        return other
    return tuple([(min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True)])


def shape_of(box: Box) -> tuple[int, ...]:
    """Sizes of a box."""
    return tuple([stop - start for start, stop in box])


class Backward:
    """What a node has to be given so that it makes a box of its outputs. Knows a graph at one batch size."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph = graph
        self.known = ops.analyse(graph, batch)
        self.used = ops.reads(graph, False)
        self._local: dict[str, tuple[ops.Axes, set[str]]] = {}

    def step(self, node: Node, wanted: Mapping[int, Box]) -> Step:
        """wanted: output index -> box. The step makes at least these; the whole where the op cannot make less."""
        f = self.known[node.name]
        if not all(box == full(f.y[index]) for index, box in wanted.items()):
            rule = _window if node.op in WINDOWS else _pad if node.op == "pad" else self._through
            found = rule(node, f, wanted)
            step = self._fits(node, f, *found) if found is not None else None
            if step is not None:
                return step
        return self.whole(node)

    def whole(self, node: Node) -> Step:
        """The node on all of its inputs."""
        f, used = self.known[node.name], self.used[node.name]
        reads = [Read(v, full(t)) if i in used else None for i, (v, t) in enumerate(zip(node.inputs, f.x, strict=True))]
        return Step(node, f, tuple(reads), tuple([full(t) for t in f.y]))

    def _fits(
        self, node: Node, f: ops.Facts, reads: Sequence[Read], made: Sequence[Box], changed: Mapping[str, Any]
    ) -> Step | None:
        """The step, if the op with some attributes changed makes boxes of just that size of such inputs; else None."""
        shapes = [
            tuple([n + sum(p) for n, p in zip(shape_of(r.box), r.pads or ((0, 0),) * len(r.box), strict=True)])
            for r in reads
        ]
        types = tuple([Type(shape, t.dtype) for shape, t in zip(shapes, f.x, strict=True)])
        try:
            sized = ops.facts(node.op, f.op.normal({**f.a, **changed}) if changed else node.attrs, types)
        except (GraphError, TypeMismatch):  # an attribute that holds the size of the whole
            return None
        if [t.shape for t in sized.y] != [shape_of(box) for box in made] or sized.params != f.params:
            return None
        used = self.used[node.name]
        return Step(node, sized, tuple([r if i in used else None for i, r in enumerate(reads)]), tuple(made))

    def _through(self, node: Node, f: ops.Facts, wanted: Mapping[int, Box]) -> Any:
        """By axes: a label that is the same dimension in inputs and outputs, and in nothing else, passes its range on.

        A label of a coupled axis, of a weight or of an attribute doesn't, nor one inside a product or concatenation.
        """
        spec, local = self._local.get(node.name) or self._local.setdefault(node.name, _local(f))
        ranges: dict[str, tuple[int, int]] = {}
        for index, box in wanted.items():
            for term, (start, stop) in zip(spec.y[index], box, strict=True):
                if isinstance(term, Dim) and term.label in local:
                    a, b = ranges.get(term.label, (start, stop))
                    ranges[term.label] = min(a, start), max(b, stop)

        def boxes(terms: Any) -> Box:
            return tuple([
                ranges.get(t.label, (0, t.size)) if isinstance(t, Dim) else (0, size_of(t)) for t in terms
            ])  # fmt: skip

        reads = [Read(value, boxes(terms)) for value, terms in zip(node.inputs, spec.x, strict=True)]
        return reads, [boxes(terms) for terms in spec.y], {}


def _local(f: ops.Facts) -> tuple[ops.Axes, set[str]]:
    """The axes of a node, and the labels that pass ranges on."""
    spec = f.op.axes(f.a, f.x, f.y)
    bare = {t.label for dims in spec.x for t in dims if isinstance(t, Dim) and t.label is not None}
    nested = [t for dims in (*spec.x, *spec.y) for t in dims if not isinstance(t, Dim)]
    elsewhere = _labels([nested, list(spec.w.values()), list(spec.attrs.values())])
    return spec, bare - elsewhere - set(spec.coupled)


def _labels(terms: Any) -> set[str]:
    """All labels in nested terms."""
    if isinstance(terms, Dim):
        return {terms.label} if terms.label is not None else set()
    return set().union(*map(_labels, terms)) if isinstance(terms, (tuple, list)) else set()


def _window(node: Node, f: ops.Facts, wanted: Mapping[int, Box]) -> Any:
    """Convolution and pooling: the padding that the box needs is put on before, and none is left to the op."""
    a, t, rank = f.a, f.x[0], len(f.x[0].shape) - 2
    kernel = spread(a["kernel"], rank)
    stride = kernel if a["stride"] is None else spread(a["stride"], rank)
    dilation, padding = spread(a.get("dilation", 1), rank), a.get("padding", 0)
    if padding == "same":
        before = tuple([d * (k - 1) // 2 for k, d in zip(kernel, dilation, strict=True)])
    else:
        before = spread(padding, rank)
    box, pads = [full(t)[0], full(t)[1]], [(0, 0), (0, 0)]
    for n, k, s, d, p, (low, high) in zip(t.shape[2:], kernel, stride, dilation, before, wanted[0][2:], strict=True):
        start, stop = s * low - p, s * (high - 1) - p + d * (k - 1) + 1
        first = min(max(start, 0), n - 1)  # at least one element, cut off again where all is padding
        last = max(min(stop, n), first + 1)
        box.append((first, last))
        pads.append((first - start, stop - last))
    padded = any(any(pair) for pair in pads)
    if padded and (node.op == "lp_pool" or (node.op == "avg_pool" and (a["ceil"] or not a["count_include_pad"]))):
        return None  # what a mean is divided by depends on where the padding is
    attrs = {name: off for name, off in (("padding", 0), ("ceil", False)) if name in a}
    fill = -math.inf if node.op == "max_pool" else 0.0
    reads = [Read(node.inputs[0], tuple(box), tuple(pads) if padded else (), fill)]
    reads += [Read(value, full(x)) for value, x in zip(node.inputs[1:], f.x[1:], strict=True)]
    return reads, [(*full(f.y[0])[:2], *wanted[0][2:])], attrs


def _pad(node: Node, f: ops.Facts, wanted: Mapping[int, Box]) -> Any:
    """Padding: as much of it as lies within the box. Reflection needs elements as far inside as it reaches outside."""
    a, sizes, mode = f.a, f.x[0].shape, f.a["mode"]
    count = len(a["pads"]) // 2
    given = [(0, 0)] * (len(sizes) - count) + [(a["pads"][2 * i], a["pads"][2 * i + 1]) for i in reversed(range(count))]
    if mode == "circular":
        return None
    box, made, pads = [], [], []
    for n, (before, _), (low, high) in zip(sizes, given, wanted[0], strict=True):
        start, stop = low - before, high - before
        first = min(max(start, 0), n - 1)
        last = max(min(stop, n), first + 1)
        if mode == "reflect":
            first, last = min(first, n - 1 - max(0, stop - n)), max(last, min(n, 1 - start))
        start, stop = min(start, first), max(stop, last)  # what is read is made as a whole: nothing is cut off
        box.append((first, last))
        made.append((start + before, stop + before))
        pads.append((first - start, stop - last))
    flat = tuple([n for pair in reversed(pads[len(pads) - count :]) for n in pair])
    if any(any(pair) for pair in pads[: len(pads) - count]):
        return None
    return [Read(node.inputs[0], tuple(box))], [tuple(made)], {"pads": flat}
