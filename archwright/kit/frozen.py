"""What training never changes is computed once: the front of a graph, as features that the rest learns from.

    net(x) = rest(front(x))      front: every node before which nothing is trained, drawn, or depends on the minibatch

Random kernels (ROCKET), reservoirs, fixed transforms and normalisations within a sample are such fronts. A training of
100 epochs runs them 100 times over for the same numbers; here each sample passes once, and what is trained is the rest,
often a norm and a linear map. The result is the same up to rounding; `benchmarks/search.py fronts` shows what it saves.

Not where inputs are augmented: then each epoch has inputs of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archwright import ops
from archwright.data.data import Data
from archwright.ir import BATCH, INPUT, Graph, Node, owner
from archwright.ir.walk import ancestors, descendants
from archwright.net.build import build
from archwright.net.cost import cost
from archwright.net.net import Net

Rows = NDArray[np.int64]
Read = Callable[[Tensor], tuple[tuple[Tensor, ...], Tensor]]

WORTH = 0.5
"""Share of the FLOPs that a front needs to have."""

ROOM = 512 * 2**20
"""Bytes that features may take."""

AT_ONCE = 64 * 2**20
"""Bytes of activations while they are computed, about."""

FEATURES = ("float32", "int64")
"""Types of what a network learns from, see `Data`."""


@dataclass(frozen=True)
class Divided:
    """A graph in two: outputs of `front` are the inputs of `rest`, in order. Both keep the names of their weights."""

    front: Graph
    rest: Graph


def divide(graph: Graph) -> Divided | None:
    """The front that training never changes, and the rest; None where there is none, or it costs next to nothing."""
    known = ops.analyse(graph, BATCH)
    trained = {node.slot for node in graph.nodes if known[node.name].op.stateful}  # by what it shares a slot with
    frozen: set[str] = set()
    for node in graph.nodes:
        f = known[node.name]
        still = not (f.op.random or f.op.stateful or f.op.modes or node.op == "opaque")
        learns = any([not p.buffer for p in f.params.values()]) or (node.slot is not None and node.slot in trained)
        if still and not learns and all([owner(value) in frozen for value in node.inputs]):
            frozen.add(node.name)
    fed = descendants(graph, [node.name for node in graph.inputs])
    read = dict.fromkeys([v for n in graph.nodes if n.name not in frozen for v in n.inputs] + list(graph.outputs))
    border = [value for value in read if owner(value) in frozen and owner(value) in fed]
    made = [value for value in border if graph[owner(value)].op != INPUT]
    flops = {node.name: node.flops for node in cost(graph).per_node}
    spared = sum([flops.get(name, 0) for name in frozen])
    if not made or spared < WORTH * sum(flops.values()) or not _by_sample(graph, border):
        return None
    needed = ancestors(graph, border)
    front = Graph(tuple([n for n in graph.nodes if n.name in needed or n.op == INPUT]), tuple(border))
    return Divided(front, _rest(graph, border))


def _by_sample(graph: Graph, values: Sequence[str]) -> bool:
    """Whether each of the values has a row for each sample, and is of a type that a network may read."""
    one, other = ops.infer(graph, BATCH), ops.infer(graph, BATCH + 1)
    return all([
        one[v].dtype in FEATURES
        and (one[v].shape[:1], other[v].shape[:1]) == ((BATCH,), (BATCH + 1,))
        and one[v].shape[1:] == other[v].shape[1:]
        for v in values
    ])  # fmt: skip


def _rest(graph: Graph, border: Sequence[str]) -> Graph:
    """What is computed from the values of the border."""
    kinds = ops.infer(graph, BATCH)
    names, free = dict[str, str](), {node.name for node in graph.nodes}
    arguments = []
    for value in border:
        name = value
        while ":" in name or (name != value and name in free):
            name = name.replace(":", ".") if ":" in name else f"{name}_"
        free.add(name)
        names[value] = name
        arguments.append(Node(name, INPUT, (), {"shape": (None, *kinds[value].shape[1:]), "dtype": kinds[value].dtype}))  # type: ignore[arg-type]
    inner, needed, stack = set[str](), set(border), [v for v in graph.outputs if v not in names]
    while stack:
        node = graph[owner(stack.pop())]
        if node.name not in inner:
            inner.add(node.name)
            stack += [value for value in node.inputs if value not in needed]
    nodes = [n.with_(inputs=tuple([names.get(v, v) for v in n.inputs])) for n in graph.nodes if n.name in inner]
    return Graph((*arguments, *nodes), tuple([names.get(v, v) for v in graph.outputs]))


@dataclass(frozen=True, eq=False)
class Features:
    """Nets without their fronts, and what they learn from instead.

    nets   the rest of each net
    data   the features of all rows that any of them needs, for each different front anew
    where  for each net a map from rows of the old data to those of the new
    """

    nets: tuple[Net, ...]
    data: Data
    where: tuple[Callable[[Rows], Rows], ...]
    _whole: tuple[Net, ...]

    def whole(self, rest: Sequence[Net]) -> tuple[Net, ...]:
        """The nets with what was trained of them."""
        return tuple([Net(n.graph, {**n.weights, **r.weights}) for n, r in zip(self._whole, rest, strict=True)])


def features(
    nets: Sequence[Net], read: Read, rows: Sequence[Rows], data: Data, *, passes: float, seconds: float | None
) -> Features | None:
    """Features of nets of one architecture, each with a front of its own; None where computing them does not pay.

    read     rows -> inputs and targets
    rows     that each net needs
    passes   of all samples through all nets that the training would make
    seconds  that computing them may take: if the first of them show that it takes longer, nothing comes of it
    """
    divided = divide(nets[0].graph)
    if divided is None or passes < 2 * sum(map(len, rows)):
        return None
    fronts: dict[bytes, list[int]] = {}
    for i, net in enumerate(nets):
        fronts.setdefault(_digest(net, divided.front), []).append(i)
    needed = [np.unique(np.concatenate([rows[i] for i in own])) for own in fronts.values()]
    shapes = [node.attrs["shape"][1:] for node in divided.rest.inputs]
    types = [np.dtype(node.attrs.get("dtype", "float32")) for node in divided.rest.inputs]
    total = sum(map(len, needed))
    if total * sum([t.itemsize * int(np.prod(s)) for s, t in zip(shapes, types, strict=True)]) > ROOM:
        return None
    made = [np.empty((total, *s), t) for s, t in zip(shapes, types, strict=True)]
    targets = np.empty((total, *data.target.shape[1:]), data.target.dtype)
    at, began = 0, time.monotonic()
    width = int(max(1, min(4096, AT_ONCE // max(1, cost(divided.front).peak_bytes))))
    for own, part in zip(fronts.values(), needed, strict=True):
        front = build(_part(nets[own[0]], divided.front)).eval()
        for start in range(0, len(part), width):
            inputs, target = read(torch.from_numpy(part[start : start + width]))
            found = _run(front, inputs)
            if not at and not _alone(front, inputs, found):
                return None
            for whole, piece in zip(made, found, strict=True):
                whole[at : at + len(target)] = piece.numpy()
            targets[at : at + len(target)] = target.numpy()
            at += len(target)
            if seconds is not None and (time.monotonic() - began) * total / at > seconds:
                return None
    none = np.zeros(0, np.int64)
    splits = {"train": np.arange(total), "valid": none, "test": none}
    places: list[Callable[[Rows], Rows]] = [lambda rows: rows] * len(nets)
    offset = 0
    for own, part in zip(fronts.values(), needed, strict=True):
        for i in own:
            places[i] = _Place(part, offset)
        offset += len(part)
    own_data = Data(tuple(made), targets, data.task, splits, "table", data.classes, data.name)
    return Features(tuple([_part(net, divided.rest) for net in nets]), own_data, tuple(places), tuple(nets))


@dataclass(frozen=True, eq=False)
class _Place:
    """Where rows stand among those of one front."""

    rows: Rows
    offset: int

    def __call__(self, rows: Rows) -> Rows:
        return np.searchsorted(self.rows, rows).astype(np.int64) + self.offset


@torch.no_grad()
def _run(front: torch.nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    found = front(*inputs)
    return found if isinstance(found, tuple) else (found,)


def _alone(front: torch.nn.Module, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether a sample gives the same by itself: else it depends on those beside it."""
    some = [0, len(inputs[0]) - 1]
    alone = [_run(front, [x[i : i + 1] for x in inputs]) for i in some]
    return all([
        torch.allclose(one, whole[i : i + 1], rtol=1e-3, atol=1e-4, equal_nan=True)
        for i, every in zip(some, alone, strict=True) for one, whole in zip(every, found, strict=True)
    ])  # fmt: skip


def _part(net: Net, graph: Graph) -> Net:
    return Net(graph, {name: net.weights[name] for name in ops.params(graph)})


def _digest(net: Net, front: Graph) -> bytes:
    """Equal for nets whose fronts compute the same."""
    found = hashlib.sha256()
    for name in sorted(ops.params(front)):
        found.update(np.ascontiguousarray(net.weights[name].numpy()).tobytes())
    return found.digest()
