"""`cost`: what a network costs at a batch size, worked out from the graph without running it.

    flops          sum over the nodes that run (torch.utils.flop_counter's convention: 2 for a multiply-add)
    peak_bytes     max over steps of: activations alive + outputs being made + scratch; in inference, each value freed
                   after its last use (arguments too), weights not counted
    train_bytes    the storages that autograd holds between forward and backward: those of the values that the nodes
                   say they keep, each once, and what nodes hold besides (masks, statistics). Weights not counted
    traffic_bytes  sum over nodes of inputs + weights + outputs, each read or written once; 0 where memory is shared

Memory is counted in storages: a view shares its base's. Whether an op of which the output may share memory really does
(a reshape of transposed data copies) is found by running it on meta tensors, which have strides but no data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from archwright import ops
from archwright.ir import DTYPES, INPUT, Graph, Type


class NodeCost(NamedTuple):
    """What one node costs.

    name, op       of the node
    outputs        types of its outputs
    params         trainable numbers in its slot; 0 if an earlier node has the same slot
    flops          of its forward pass
    traffic_bytes  memory that it reads and writes
    train_bytes    what autograd keeps because of it, and of no earlier node
    """

    name: str
    op: str
    outputs: tuple[Type, ...]
    params: int
    flops: int
    traffic_bytes: int
    train_bytes: int


class NetCost(NamedTuple):
    """What a network costs at a batch size. `print(cost)` shows a table.

    batch          the batch size
    params         trainable numbers (a slot that several nodes share counts once), and their bytes
    buffers        numbers that aren't trained (statistics, constants), and their bytes
    flops          of one forward pass of the whole batch
    peak_bytes     most activation bytes alive at once in inference, and the node at which that is
    train_bytes    activation bytes held for the backward pass
    traffic_bytes  memory read and written by one forward pass
    per_node       the same for each node that runs in inference, in the order of execution
    """

    batch: int
    params: int
    param_bytes: int
    buffers: int
    buffer_bytes: int
    flops: int
    peak_bytes: int
    peak_node: str
    train_bytes: int
    traffic_bytes: int
    per_node: tuple[NodeCost, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        nodes = [{**node._asdict(), "outputs": [str(t) for t in node.outputs]} for node in self.per_node]
        return {**self._asdict(), "per_node": nodes}

    def __str__(self) -> str:
        return _table(self)


def cost(graph: Graph, batch: int = 1) -> NetCost:
    """The cost of a graph at a batch size. Raises what `archwright.ops.infer` raises."""
    found = graph.derived.get(("cost", batch))
    if found is None:
        found = graph.derived["cost", batch] = _cost(graph, batch)
    return found  # type: ignore[no-any-return]


def _cost(graph: Graph, batch: int) -> NetCost:
    known, reads, trained = ops.analyse(graph, batch), ops.reads(graph, False), ops.reads(graph, True)
    params, buffers, of_slot = _weights(graph, known)
    infer = train = _place(graph, known, reads, train=False)
    if trained is not reads or any([known[name].op.random for name in reads]):  # such as dropout
        train = _place(graph, known, trained, train=True)
    peak, peak_node = _peak(graph, known, reads, infer)
    kept = _kept(graph, known, trained, train)
    nodes = []
    seen: set[str] = set()
    flops = traffic = 0
    sizes = infer.nbytes
    by_name = graph.by_name
    for name, indices in reads.items():
        f, node = known[name], by_name[name]
        if node.op == INPUT:
            continue
        count = nbytes = 0
        if node.slot is not None:
            numbers, nbytes = of_slot[node.slot]
            count = numbers if node.slot not in seen else 0
            seen.add(node.slot)
        moved = f.cost.moved
        if not moved:
            moved = 0
            place = infer.storage[name]
            if place and place not in [infer.storage[node.inputs[index]] for index in indices]:
                moved = nbytes + sizes[name]
                for index in indices:
                    moved += sizes[node.inputs[index]]
                for index in range(1, len(f.y)):
                    moved += sizes[f"{name}:{index}"]
        flops += f.cost.flops
        traffic += moved
        nodes.append(NodeCost(name, node.op, f.y, count, f.cost.flops, moved, kept.get(name, 0)))
    return NetCost(
        batch, *params, *buffers, flops, peak, peak_node, sum(kept.values()), traffic, tuple(nodes)
    )  # fmt: skip


Pair = tuple[int, int]


def _weights(graph: Graph, known: Mapping[str, ops.Facts]) -> tuple[Pair, Pair, Mapping[str, Pair]]:
    """(numbers, bytes) of the parameters, of the buffers; and slot -> (trainable numbers, bytes of all its weights).

    Of all nodes: a branch that is not taken has weights too.
    """
    sizes: dict[tuple[str, str], tuple[int, int, bool]] = {}
    for node in graph.nodes:
        if node.slot is not None:
            for param, (shape, _, dtype, buffer) in known[node.name].params.items():
                if (node.slot, param) not in sizes:
                    numbers = math.prod(shape)
                    sizes[node.slot, param] = numbers, numbers * DTYPES[dtype], buffer
    totals = [0, 0, 0, 0]
    of_slot: dict[str, Pair] = {}
    for (slot, _), (numbers, nbytes, buffer) in sizes.items():
        totals[2 * buffer] += numbers
        totals[2 * buffer + 1] += nbytes
        trainable, held = of_slot.get(slot, (0, 0))
        of_slot[slot] = trainable + (0 if buffer else numbers), held + nbytes
    return (totals[0], totals[1]), (totals[2], totals[3]), of_slot


# ---------------------------------------------------------------------------------------------------------- memory
class _Places(NamedTuple):
    """Where values live. Storage 0 stands for all weights and has no size."""

    storage: Mapping[str, int]  # value -> number of its storage
    nbytes: Mapping[str, int]  # value -> its own size: that of its storage unless it is a view or a weight
    sizes: list[int]  # bytes of each storage
    grads: set[str]  # values through which gradients flow to parameters


def _place(graph: Graph, known: Mapping[str, ops.Facts], reads: Mapping[str, tuple[int, ...]], train: bool) -> _Places:
    storage: dict[str, int] = {}
    nbytes: dict[str, int] = {}
    strides: dict[str, tuple[int, ...]] = {}  # of the values that aren't contiguous
    sizes = [0]
    grads: set[str] = set()
    for name, indices in reads.items():
        f, node = known[name], graph.by_name[name]
        learns = False
        for index in indices:
            if node.inputs[index] in grads:
                learns = True
        for param in f.params.values():
            if not param.buffer and param.dtype in _SMOOTH:
                learns = True
        seen = None
        if "" in f.params and not f.x:
            storage[name], nbytes[name] = 0, f.y[0].nbytes
            if learns:
                grads.add(name)
            continue
        if f.op.view or f.cost.moved == 0 or f.op.modes is not None or (f.op.random and not (train or f.params)):
            seen = _try(f, node.attrs.text, tuple([strides.get(value) for value in node.inputs]), train)
        for index, (shape, dtype) in enumerate(f.y):
            made = f"{name}:{index}" if index else name
            nbytes[made] = size = math.prod(shape) * DTYPES[dtype]
            carries = True
            if seen is not None:
                source, layout, carries = seen[index]
                if layout is not None:
                    strides[made] = layout
            if seen is not None and source is not None:
                storage[made] = storage[node.inputs[source]]
            else:
                storage[made] = len(sizes)
                sizes.append(size)
            if learns and carries and dtype in _SMOOTH:
                grads.add(made)
    return _Places(storage, nbytes, sizes, grads)


_SMOOTH = frozenset([dtype for dtype in DTYPES if dtype.startswith(("float", "bfloat", "complex"))])
"""The dtypes that have gradients."""


class _Seen(NamedTuple):
    """What became of an output: which input's memory it shares, its strides unless contiguous, does gradient flow."""

    source: int | None
    strides: tuple[int, ...] | None
    carries: bool


_TRIED: dict[tuple[Any, ...], tuple[_Seen, ...]] = {}
_TRIED_SIZE = 50_000


def _try(f: ops.Facts, attrs: str, strides: tuple[tuple[int, ...] | None, ...], train: bool) -> tuple[_Seen, ...]:
    """How the outputs lie in memory if the inputs have these strides (None: contiguous): a run on meta tensors."""
    key = (f.op.name, attrs, f.x, strides, train)
    found = _TRIED.get(key)
    if found is None:
        if len(_TRIED) >= _TRIED_SIZE:
            _TRIED.clear()
        found = _TRIED[key] = tuple(_run_meta(f, strides, train))
    return found


def _run_meta(f: ops.Facts, strides: tuple[tuple[int, ...] | None, ...], train: bool) -> list[_Seen]:
    x = []
    for t, layout in zip(f.x, strides, strict=True):
        dtype = getattr(torch, t.dtype)
        if layout is None:
            x.append(torch.empty(t.shape, dtype=dtype, device="meta", requires_grad=t.dtype in _SMOOTH))
        else:
            x.append(torch.empty_strided(t.shape, layout, dtype=dtype, device="meta", requires_grad=t.dtype in _SMOOTH))
    w = {name: torch.empty(p.shape, dtype=getattr(torch, p.dtype), device="meta") for name, p in f.params.items()}
    with torch.enable_grad():
        made = f.op.run(f.a, x, w, train)
    bases = [tensor.untyped_storage()._cdata for tensor in x]
    found = []
    for y in made if isinstance(made, tuple) else (made,):
        base = y.untyped_storage()._cdata
        source = bases.index(base) if base in bases else None
        found.append(_Seen(source, None if y.is_contiguous() else y.stride(), y.requires_grad))
    return found


def _peak(
    graph: Graph, known: Mapping[str, ops.Facts], reads: Mapping[str, tuple[int, ...]], places: _Places
) -> tuple[int, str]:
    """Most bytes alive at once, and the node where that is."""
    storage, sizes = places.storage, places.sizes
    by_name = graph.by_name
    last = [-1] * len(sizes)  # step after which a storage is free
    for step, (name, indices) in enumerate(reads.items()):
        last[storage[name]] = step
        outputs = len(known[name].y)
        if outputs > 1:
            for index in range(1, outputs):
                last[storage[f"{name}:{index}"]] = step
        inputs = by_name[name].inputs
        for index in indices:
            last[storage[inputs[index]]] = step
    for value in graph.outputs:
        last[storage[value]] = len(reads)
    free: list[int] = [0] * (len(reads) + 1)
    for number, step in enumerate(last):
        free[step] += sizes[number]
    alive = sum([sizes[storage[node.name]] for node in graph.inputs if node.name in storage])
    peak, where = alive, graph.inputs[0].name if graph.inputs else ""
    number = 0
    for step, name in enumerate(reads):
        f = known[name]
        if by_name[name].op != INPUT:
            for index in range(len(f.y)):
                place = storage[f"{name}:{index}" if index else name]
                if place > number:  # storages are numbered in the order in which they are made
                    number = place
                    alive += sizes[place]
            if alive + f.cost.scratch > peak:
                peak, where = alive + f.cost.scratch, name
        alive -= free[step]
    return peak, where


def _kept(
    graph: Graph, known: Mapping[str, ops.Facts], reads: Mapping[str, tuple[int, ...]], places: _Places
) -> Mapping[str, int]:
    """Node name -> bytes that autograd keeps because of it and of no node before."""
    storage, _, sizes, grads = places
    kept = {0}
    found: dict[str, int] = {}
    for name in reads:
        f = known[name]
        if not f.cost.keeps and not f.cost.extra:
            continue
        if name in grads or any([f"{name}:{index}" in grads for index in range(1, len(f.y))]):
            total = f.cost.extra
            inputs = graph.by_name[name].inputs
            for keep in f.cost.keeps:
                index = int(keep[1:])
                place = storage[inputs[index] if keep[0] == "x" else f"{name}:{index}" if index else name]
                if place not in kept:
                    kept.add(place)
                    total += sizes[place]
            found[name] = total
    return found


# ----------------------------------------------------------------------------------------------------------- table
def _quantity(n: int, unit: str = "", base: int = 1000) -> str:
    """A number with three digits and a prefix: 1234567 -> "1.23 M"."""
    prefixes = ("", "k", "M", "G", "T", "P") if base == 1000 else ("", "Ki", "Mi", "Gi", "Ti", "Pi")
    size, power = float(n), 0
    while size >= base and power < len(prefixes) - 1:
        size /= base
        power += 1
    digits = f"{n}" if power == 0 else f"{size:.2f}" if size < 10 else f"{size:.1f}" if size < 100 else f"{size:.0f}"
    return f"{digits} {prefixes[power]}{unit}".rstrip()


def _bytes(n: int) -> str:
    return _quantity(n, "B", 1024)


def _table(c: NetCost) -> str:
    lines = [
        f"batch {c.batch}",
        f"  parameters   {c.params:,} ({_bytes(c.param_bytes)}), buffers {c.buffers:,} ({_bytes(c.buffer_bytes)})",
        f"  flops        {_quantity(c.flops)}",
        f"  peak         {_bytes(c.peak_bytes)}" + (f" in {c.peak_node}" if c.peak_node else ""),
        f"  for backward {_bytes(c.train_bytes)}",
        f"  traffic      {_bytes(c.traffic_bytes)}",
        "",
    ]
    rows = [("node", "op", "output", "params", "flops", "traffic", "for backward")]
    for node in c.per_node:
        output = ", ".join(map(str, node.outputs))
        counts = [f"{node.params:,}" if node.params else "", _quantity(node.flops) if node.flops else ""]
        memory = [_bytes(n) if n else "" for n in (node.traffic_bytes, node.train_bytes)]
        rows.append((node.name, node.op, output, counts[0], counts[1], memory[0], memory[1]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
