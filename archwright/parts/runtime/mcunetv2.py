"""Patch-based inference: the first stage of a network, where memory peaks, runs on one patch of the image at a time.

The value at which the network is split is cut into a grid of n x m tiles. For each tile the boxes that it needs are
worked out backwards, from the tile to the input, node by node, and only these boxes are computed. Along a dimension,
for a window of kernel k, dilation d, stride s and padding p, with n elements in front of it,

    out [l, h)  needs  in [s l - p, s (h - 1) - p + d (k - 1) + 1),  of which [0, n) exists and the rest is padding.

Any other op passes a box through along the dimensions that it leaves alone, which its axes tell: norms with stored
statistics, activations, sums, products, concatenation of channels, transpositions. Where an op looks at all positions
(squeeze-and-excitation, attention) its whole input is needed: the result is still right, but nothing is saved. The
tiles are put together, and the rest of the network runs as ever.

    peak  = input + max(split value + greatest patch, rest)     [bytes of activations, in storages]
    extra = sum over patches of FLOPs / FLOPs of the stage at once - 1, since neighbours overlap (the halo)

The planner works out both for each sensible split and grid without running anything, and takes the least peak whose
extra FLOPs, as a share of the whole network's, are at most `overhead`; or the least FLOPs whose peak keeps `limit`.
What is reported is measured: bytes by watching storages come and go, FLOPs by torch's counter.

Outputs are those of the whole image up to rounding. Fails to help where the peak is not in the early stage, or where
receptive fields are as wide as the image. Differs from the paper in that the receptive field is not moved to later
stages by architecture search (any net is taken as it is), and that memory is torch's, float32, with the input counted.

Lin, Chen, Cai, Gan, Han: MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning, 2021,
arXiv 2110.15352.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from archwright import ops
from archwright.core.records import Claim, Figure, Measured
from archwright.errors import ArchwrightError
from archwright.ir import INPUT, Graph, Node, output, owner
from archwright.kit.boxes import WINDOWS, Backward, Box, Read, Step, full, join
from archwright.kit.storages import Storages
from archwright.net.net import Net
from archwright.ops.base import spread

PART = {
    "kind": "runtime",
    "name": "mcunetv2",
    "id": "mcunetv2",
    "title": "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning",
    "year": 2021,
    "arxiv": "2110.15352",
    "needs": ["image"],
    "extras": [],
    "example": {"hp": {"grid": 3}, "data": "image", "net": "residual"},
    "exact": "Outputs equal those of the whole image for every split and grid; counted FLOPs equal the planned ones.",
    "claim": {
        "text": "Peak activation bytes, measured: plain run over patches, first half of MobileNetV2 at 128 x 128.",
        "paper": "4 to 8 times less for existing networks",
    },
}

GRIDS = (2, 3, 4, 6, 8)
"""Tiles along each dimension that the planner tries."""


# -------------------------------------------------------------------------------------------------------------- plans
@dataclass(frozen=True)
class Plan:
    """How a network is run.

    split       the value that is made in patches; "" where nothing is
    grid        tiles along each of its spatial dimensions
    patches     for each tile, its box and the steps that make it
    before      nodes that depend on no input (made weights): run once, first
    rest        the steps after
    peak_bytes  most activation bytes alive at once, as worked out
    plain_bytes the same for the plain run
    flops, plain_flops
    """

    split: str
    grid: tuple[int, ...]
    patches: tuple[tuple[Box, tuple[Step, ...]], ...]
    before: tuple[Step, ...]
    rest: tuple[Step, ...]
    peak_bytes: int
    plain_bytes: int
    flops: int
    plain_flops: int

    @property
    def overhead(self) -> float:
        """Share of FLOPs that is added."""
        return self.flops / self.plain_flops - 1 if self.plain_flops else 0.0


class _Planner:
    """Plans for one graph at one batch size."""

    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph, self.back = graph, Backward(graph, batch)
        self.types = ops.infer(graph, batch)
        run = [node for node in graph.nodes if node.name in self.back.used and node.op != INPUT]
        moves: set[str] = {node.name for node in graph.inputs}
        for node in run:  # what depends on an input, or is drawn anew
            f = self.back.known[node.name]
            if f.op.random or any(owner(value) in moves for value in self._read(node)):
                moves.add(node.name)
        self.inputs = [node.name for node in graph.inputs]
        self.fixed = [node for node in run if node.name not in moves]
        self.nodes = [node for node in run if node.name in moves]
        self.before = self._dying([self.back.whole(node) for node in self.fixed], keep=None)
        self.held = sum(self.types[name].nbytes for name in self.inputs)
        self.held += sum(t.nbytes for n in self.fixed if n.inputs for t in self.back.known[n.name].y)
        steps = self._dying([self.back.whole(node) for node in self.nodes], keep=graph.outputs)
        self.plain = Plan(
            "", (), (), self.before, steps, (peak := self._peak(steps)), peak, (work := _flops(steps)), work
        )

    def _read(self, node: Node) -> list[str]:
        return [node.inputs[index] for index in self.back.used[node.name]]

    def stage(self, split: str) -> list[Node] | None:
        """The nodes that make a value, if nobody else reads what they make; None otherwise."""
        if owner(split) not in {node.name for node in self.nodes} or not 3 <= len(self.types[split].shape) <= 5:
            return None
        inside = {owner(split)}
        for node in reversed(self.nodes):
            if node.name in inside:
                inside.update([owner(value) for value in self._read(node)])
        found = [node for node in self.nodes if node.name in inside]
        names = {node.name for node in found}
        read = [value for node in self.nodes if node.name not in names for value in self._read(node)]
        if any(owner(value) in names and value != split for value in (*read, *self.graph.outputs)):
            return None
        fresh = ("random", "random_like", "bernoulli")  # each patch would get numbers of its own
        return None if any(node.op in fresh for node in found) else found

    def splits(self) -> list[str]:
        """Values at which to split: no larger than any before, and the last of a chain of pointwise operations."""
        found: list[str] = []
        least = math.inf
        for node in self.nodes:
            t = self.types[node.name]
            if len(t.shape) < 3 or t.nbytes > least or node.name in self.graph.outputs or not min(t.shape):
                continue
            if self.stage(node.name) is not None:
                if self._read(node) == found[-1:] and t.nbytes == least and node.op not in WINDOWS:
                    found.pop()
                found.append(node.name)
                least = t.nbytes
        return found

    def plan(self, split: str, grid: Sequence[int]) -> Plan | None:
        """The plan of a split and grid; None if the value cannot be made alone. Raises `ArchwrightError` if the grid
        has more tiles than there are positions."""
        stage = self.stage(split)
        if stage is None:
            return None
        t = self.types[split]
        if len(grid) != len(t.shape) - 2 or any(not 1 <= g <= n for g, n in zip(grid, t.shape[2:], strict=True)):
            raise ArchwrightError(
                f"got grid {list(grid)} for '{split}' {t}: expected 1 to {list(t.shape[2:])} tiles along each dimension"
            )
        cuts = [[(n * i // g, n * (i + 1) // g) for i in range(g)] for n, g in zip(t.shape[2:], grid, strict=True)]
        patches = []
        for tile in itertools.product(*cuts):
            box = (*full(t)[:2], *tile)
            patches.append((box, self._steps(stage, split, box)))
        names = {node.name for node in stage}
        after = [self.back.whole(node) for node in self.nodes if node.name not in names]
        rest = self._dying(after, keep=self.graph.outputs)
        first = max([self._peak(steps) for steps in {_signature(steps): steps for _, steps in patches}.values()])
        peak = max(first + t.nbytes, self._peak(rest, split))
        flops = _flops(rest) + sum(_flops(steps) for _, steps in patches)
        plain = self.plain
        return Plan(
            split, tuple(grid), tuple(patches), self.before, rest, peak, plain.peak_bytes, flops, plain.flops
        )  # fmt: skip

    def _steps(self, stage: Sequence[Node], split: str, box: Box) -> tuple[Step, ...]:
        """What makes a box of the split value."""
        need: dict[str, Box] = {split: box}
        found = []
        for node in reversed(stage):
            values = [output(node.name, i) for i in range(len(self.back.known[node.name].y))]
            step = self.back.step(node, {i: need[value] for i, value in enumerate(values) if value in need})
            for read in step.reads:
                if read is not None:
                    need[read.value] = join(need.get(read.value), read.box)
            found.append(step)
        return self._dying(found[::-1], keep=(split,))

    def _dying(self, steps: Sequence[Step], keep: Sequence[str] | None) -> tuple[Step, ...]:
        """The steps with the values that nobody reads after each of them (keep=None: all are kept)."""
        if keep is None:
            return tuple(steps)
        given = {*self.inputs, *[node.name for node in self.fixed]}
        last: dict[str, int] = {}
        for place, step in enumerate(steps):
            last.update({output(step.node.name, i): place for i in range(len(step.made))})
            last.update({r.value: place for r in step.reads if r is not None and owner(r.value) not in given})
        dead: dict[int, list[str]] = {}
        for value, place in last.items():
            if value not in keep:
                dead.setdefault(place, []).append(value)
        return tuple([step._replace(dead=tuple(dead.get(place, ()))) for place, step in enumerate(steps)])

    def _peak(self, steps: Sequence[Step], start: str | None = None) -> int:
        """Most bytes alive while the steps run, with what is held throughout."""
        storage: dict[str, int] = {}  # value -> number of its storage; not there: held throughout
        sizes: dict[int, int] = {}
        users: dict[int, int] = {}  # storage -> values that lie in it

        def put(value: str, place: int, size: int = 0) -> None:
            storage[value] = place
            sizes.setdefault(place, size)
            users[place] = users.get(place, 0) + 1

        def drop(value: str) -> None:
            place = storage.pop(value, None)
            if place is not None:
                users[place] -= 1
                if not users[place]:
                    del sizes[place], users[place]

        if start is not None:
            put(start, -1, self.types[start].nbytes)
        peak = sum(sizes.values())
        for place, step in enumerate(steps):
            f, shared = step.facts, None
            for index, read in enumerate(step.reads):
                if read is not None and read.pads:
                    put(f"copy {index}", -2 - len(steps) * (index + 1) - place, f.x[index].nbytes)
            peak = max(peak, sum(sizes.values()))
            plain = [r.value for r in step.reads if r is not None and not r.pads and r.value in storage]
            late = [value for value in step.dead if value in plain or value not in storage]
            for value in step.dead:
                if value not in late:
                    drop(value)
            sharing = f.op.view or f.cost.moved == 0 or f.op.modes is not None or (f.op.random and not f.params)
            if sharing and step.reads:
                index = next((i for i, r in enumerate(step.reads) if r is not None), 0)
                read = step.reads[index]
                shared = f"copy {index}" if read is not None and read.pads else read.value if read is not None else None
            weight = "" in f.params and not f.x
            for index, t in enumerate(f.y):
                if shared is not None and shared in storage:
                    put(output(step.node.name, index), storage[shared])
                elif shared is None and not weight:
                    put(output(step.node.name, index), place * 16 + index, t.nbytes)
            peak = max(peak, sum(sizes.values()) + f.cost.scratch)
            for value in (*late, *[f"copy {index}" for index in range(len(step.reads))]):
                drop(value)
        return self.held + peak


def _signature(steps: Sequence[Step]) -> tuple[Any, ...]:
    """Equal for patches of equal sizes."""
    return tuple([(s.facts.x, s.facts.y, tuple([r is not None and bool(r.pads) for r in s.reads])) for s in steps])


def _flops(steps: Sequence[Step]) -> int:
    return sum([step.facts.cost.flops for step in steps])


def plan(
    graph: Graph,
    batch: int = 1,
    *,
    split: str | None = None,
    grid: int | Sequence[int] | None = None,
    limit: int | None = None,
    overhead: float = 0.5,
) -> Plan:
    """The plan with the least peak; see `run` for the arguments. Runs nothing.

    Raises `ArchwrightError` for a value that cannot be made alone, a grid with more tiles than positions, a limit that
    no plan keeps.
    """
    if limit is not None and limit < 1:
        raise ArchwrightError(f"got limit={limit}, expected a number of bytes above 0")
    if not overhead >= 0:
        raise ArchwrightError(f"got overhead={overhead}, expected a share of FLOPs of at least 0")
    planner = _Planner(graph, batch)
    if split is not None and (split not in planner.types or planner.stage(split) is None):
        raise ArchwrightError(
            f"'{split}' cannot be made in patches: expected a value with spatial dimensions whose makers nobody else "
            f"reads, such as {', '.join(planner.splits()[:5]) or '(this network has none)'}"
        )
    found = [] if split is not None and grid is not None else [planner.plain]
    for value in [split] if split is not None else planner.splits():
        sizes = planner.types[value].shape[2:]
        for tiles in _grids(grid, sizes, exact=split is not None):
            made = planner.plan(value, tiles)
            if made is not None:
                found.append(made)
                if limit is None and made.overhead > overhead:
                    break  # finer grids overlap more
    if split is not None and grid is not None:
        return found[0]
    if limit is not None:
        fitting = [p for p in found if p.peak_bytes <= limit]
        if not fitting:
            least = min(found, key=lambda p: p.peak_bytes)
            raise ArchwrightError(
                f"no plan stays below {limit} bytes: the least is {least.peak_bytes}, with '{least.split}' in "
                f"{list(least.grid)} tiles"
            )
        return min(fitting, key=lambda p: (p.flops, p.peak_bytes))
    return min([p for p in found if p.overhead <= overhead] or found[:1], key=lambda p: (p.peak_bytes, p.flops))


def _grids(grid: int | Sequence[int] | None, sizes: Sequence[int], exact: bool) -> Iterator[tuple[int, ...]]:
    rank = len(sizes)
    if grid is None:
        found = {tuple([min(g, n) for n in sizes]): None for g in GRIDS}
    else:
        found = {spread(grid if isinstance(grid, int) else tuple(grid), rank, "grid"): None}
    for tiles in found:
        if exact or all(1 <= g <= n for g, n in zip(tiles, sizes, strict=True)):
            yield tiles


# ------------------------------------------------------------------------------------------------------------ running
_Values = dict[str, tuple[Tensor, Box]]


def _cut(tensor: Tensor, home: Box, read: Read) -> Tensor:
    """The part of a value that lies at `home`: a view, or a copy where there is padding."""
    for dim, ((start, stop), (origin, end)) in enumerate(zip(read.box, home, strict=True)):
        if (start, stop) != (origin, end):
            tensor = tensor.narrow(dim, start - origin, stop - start)
    if not read.pads:
        return tensor
    tensor = F.pad(tensor, [max(0, n) for pair in reversed(read.pads) for n in pair], value=read.fill)
    for dim, (before, after) in enumerate(read.pads):  # a box that is nothing but padding
        if before < 0 or after < 0:
            tensor = tensor.narrow(dim, max(0, -before), tensor.shape[dim] + min(0, before) + min(0, after))
    return tensor


def _inputs(step: Step, values: _Values, given: _Values) -> list[Tensor | None]:
    """The inputs of a step. A function of its own, so that nothing here holds on to values while the step runs."""
    return [None if read is None else _cut(*(values.get(read.value) or given[read.value]), read) for read in step.reads]


def _advance(steps: Sequence[Step], values: _Values, given: _Values, weights: Mapping[str, Tensor]) -> None:
    """Run steps; `values` gets what they make, and loses what nobody needs any more."""
    for step in steps:
        x = _inputs(step, values, given)
        for value in step.dead:
            values.pop(value, None)
        f = step.facts
        w = {param: weights[ops.weight_name(step.node.slot or "", param)] for param in f.params}
        made = f.op.run(f.a, x, w, False)
        x.clear()
        for index, tensor in enumerate(made if isinstance(made, tuple) else (made,)):
            name = output(step.node.name, index)
            if name not in step.dead:
                values[name] = tensor, step.made[index]
            del tensor
        del made


def execute(net: Net, x: Sequence[Tensor], how: Plan) -> tuple[Tensor, ...]:
    """The network's outputs, by a plan made for the batch size of x."""
    graph = net.graph
    given: _Values = {
        node.name: (tensor, tuple([(0, n) for n in tensor.shape])) for node, tensor in zip(graph.inputs, x, strict=True)
    }
    _advance(how.before, given, given, net.weights)
    values: _Values = {}
    if how.patches:
        shape = tuple([stop for _, stop in how.patches[-1][0]])
        whole: Tensor | None = None
        for box, steps in how.patches:
            patch: _Values = {}
            if whole is None:
                first = next(iter(given.values()))[0]
                dtype = getattr(torch, _dtype(steps, how.split))
                whole = torch.empty(shape, dtype=dtype, device=first.device)
            _advance(steps, patch, given, net.weights)
            place = Read(how.split, box)
            _cut(whole, _of(shape), place).copy_(_cut(*patch[how.split], place))
        assert whole is not None
        values[how.split] = whole, _of(shape)
        del whole, patch
    _advance(how.rest, values, given, net.weights)
    return tuple([(values.get(value) or given[value])[0] for value in graph.outputs])


def _of(shape: Sequence[int]) -> Box:
    return tuple([(0, n) for n in shape])


def _dtype(steps: Sequence[Step], split: str) -> str:
    types = {output(s.node.name, i): t.dtype for s in steps for i, t in enumerate(s.facts.y)}
    return types[split]


def measure(net: Net, x: Sequence[Tensor], how: Plan) -> Measured:
    """Run by a plan: once for the time, once for bytes and FLOPs. The figures hold what was planned and what came."""
    with torch.no_grad():
        began = time.perf_counter()
        outputs = execute(net, x, how)
        seconds = time.perf_counter() - began
        with FlopCounterMode(display=False) as counter, Storages(x, list(net.weights.values())) as seen:
            execute(net, x, how)
    figures = (
        Figure("patches", float(max(1, len(how.patches))), "1"),
        Figure("planned peak", float(how.peak_bytes), "B"),
        Figure("planned peak of the plain run", float(how.plain_bytes), "B"),
        Figure("FLOPs", float(counter.get_total_flops()), "FLOP"),
        Figure("planned FLOPs", float(how.flops), "FLOP"),
        Figure("FLOPs of the plain run", float(how.plain_flops), "FLOP"),
        Figure("planned overhead", how.overhead, "share"),
    )  # fmt: skip
    return Measured(seconds, seen.peak, figures, outputs)


def run(
    net: Net,
    x: Sequence[Tensor],
    *,
    split: str | None = None,
    grid: int | Sequence[int] | None = None,
    limit: int | None = None,
    overhead: float = 0.5,
) -> Measured:
    """The network's outputs in eval mode, the early stage in patches; peak bytes and FLOPs measured.

    split     name of the value up to which patches are run; chosen where not given
    grid      tiles along each spatial dimension; chosen where not given
    limit     bytes of activations: the least FLOPs that stay below, instead of the least peak
    overhead  greatest share of FLOPs that may be added, where there is a choice and no limit

    Raises `ArchwrightError` as `plan` does.
    """
    if len(x) != len(net.graph.inputs):
        raise ArchwrightError(f"got {len(x)} inputs, expected {len(net.graph.inputs)}")
    batch = next((len(t) for t, n in zip(x, net.graph.inputs, strict=True) if n.attrs["shape"][:1] == (None,)), 1)
    return measure(net, x, plan(net.graph, batch, split=split, grid=grid, limit=limit, overhead=overhead))


# -------------------------------------------------------------------------------------------------------------- claim
def mobilenet(size: int = 128, classes: int = 10, width: float = 1.0) -> Graph:
    """MobileNetV2's stem and first eleven inverted residuals (expansion 6, widths 16, 24, 32, 64), mean, linear."""
    g = ops.edit()

    def unit(
        x: str, name: str, out: int, kernel: int = 1, stride: int = 1, *, act: bool = True, groups: int = 1
    ) -> str:
        with g.scope(name):
            x = g.add(
                "conv", x, out=out, kernel=kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False,
                name="conv",
            )  # fmt: skip
            x = g.add("batch_norm", x, name="norm")
            return g.add("relu6", x) if act else x

    x = unit(g.input("image", (None, 3, size, size)), "stem", int(32 * width), 3, 2)
    blocks = [(16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6)]
    for stage, (out, count, stride, expand) in enumerate(blocks):
        for i in range(count):
            out_, y, inside = int(out * width), x, g.shape(x)[1] * expand
            with g.scope(f"block{stage}.{i}"):
                if expand > 1:
                    y = unit(y, "expand", inside)
                y = unit(y, "depthwise", inside, 3, stride if i == 0 else 1, groups=inside)
                y = unit(y, "project", out_, act=False)
                x = g.add("add", x, y) if i else y
    x = g.add("mean", x, dim=[2, 3])
    return g.finish(g.add("linear", x, out=classes, name="head"))


def claim(*, seed: int = 0) -> Claim:
    """Measured peaks of both runs; outputs equal to 1e-5; FLOPs as planned."""
    from archwright.net.net import example, init

    graph = mobilenet()
    net, x = init(graph, seed), example(graph, 1, seed)
    planner = _Planner(graph, 1)
    plain, found = measure(net, x, planner.plain), run(net, x)
    figures = {figure.name: figure.value for figure in found.figures}
    scale = float(plain.outputs[0].abs().max())
    apart = float((plain.outputs[0] - found.outputs[0]).abs().max()) / scale
    ratio = plain.peak_bytes / found.peak_bytes
    exact = figures["FLOPs"] == figures["planned FLOPs"]
    return Claim(
        ratio, "times", "at least 4, outputs equal to 1e-5, FLOPs as planned", ratio >= 4 and apart < 1e-5 and exact,
        "4 to 8",
        {
            "plain peak (B)": float(plain.peak_bytes), "peak (B)": float(found.peak_bytes),
            "patches": figures["patches"], "overhead (share of FLOPs)": figures["planned overhead"],
            "greatest difference (relative)": apart, "plain (s)": plain.seconds, "in patches (s)": found.seconds,
        },
    )  # fmt: skip
