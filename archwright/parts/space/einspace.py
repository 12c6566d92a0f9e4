"""einspace: networks drawn from a probabilistic grammar of four modules over tensors of an image or of a matrix.

    S -> sequential(M, M) | branching(B, M, M, A) | branching(B, M, A) | routing(P, M, Q)
    M -> sequential | branching | routing | computation(C),      p(computation) = p, the others (1 - p) / 3 each
    B -> clone2 | clone4 | clone8 | group2 | group4 | group8 of a dimension
    A -> dot | scaled_dot | add | cat of a dimension
    P -> identity | permutation | im2col k, stride, padding      Q -> identity | permutation | col2im
    C -> identity | linear to a width | norm | leaky_relu | softmax | position

Two branches are derived each for itself; of four or eight one is derived and repeated with weights of its own. A value
is an image [N, C, H, W] or a matrix [N, S, D]; linear maps and softmax act on the last dimension, so a convolution is
routing(im2col, linear, col2im) and attention a branching that ends in dot. norm is batch normalisation of an image and
layer normalisation of a matrix. Only what fits the shape is offered, so every derivation is a network.

The trace is the derivation: the choice of a module is named by its path ("net.first.left"), so that changing one is
changing a subtree, and `read` and `write` go between traces and derivations written as nested tuples.
The expected number of modules is finite if a module has less than one module below it on average: with a third of the
splits two-way that is (1 - p) / 3 (2 + 4/3 + 1) = 0.98 at p = 0.32. Where more of them are, p is raised to keep it
there, so the mean size is finite at any depth. `depth` bounds the size too, `copies` how often a derivation is repeated
along a path, `limit` the numbers in a value of one sample and in a linear map.

Shapes: [N, C, H, W] or [N, S, D] -> mean over positions, linear -> [N, outputs].
Fails for search budgets of a few hundred from nothing: most of the space is poor. Start from `write` of a good network.
Differs from the paper: p depends on what fits, as said; where no aggregation fits two branches, linear maps bring the
second to the first's shape (the official code draws again). Strides, kernels and widths are the official ones.

Ericsson, Espinosa, Yang, Antoniou, Storkey, Cohen, McDonagh, Crowley: einspace: Searching for Neural Architectures from
Fundamental Operations, 2024, arXiv 2405.20838.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archwright import ops
from archwright.core.choose import Choose
from archwright.core.records import Claim, Trace
from archwright.core.space import Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.ir import Editor, Graph

PART = {
    "kind": "space",
    "name": "einspace",
    "id": "einspace",
    "title": "einspace: Searching for Neural Architectures from Fundamental Operations",
    "year": 2024,
    "arxiv": "2405.20838",
    "needs": ["image", "tokens"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 3, 8, 8]], "outputs": 5},
        "hp": {"widths": [4, 16], "depth": 5, "limit": 4096},
        "small": {
            "hp": {"widths": [2], "depth": 1, "limit": 4096},
            "spec": {"inputs": [[None, 3, 2]], "outputs": 2},
            "count": 292,
        },
        "supernet": None,
        "draws": 12,
    },
    "exact": "Every derivation gives the shape asked for; a convolution, a residual block, attention are derivations.",
    "claim": {
        "text": "Share of 1,000 random derivations that compile to the shape asked for, with a finite mean size.",
        "paper": "1.0 by construction; mean size finite for p(computation) above 0.31",
    },
}

WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
PATCHES = ((1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (4, 4, 0), (8, 8, 0), (16, 16, 0))
"""Kernel, stride, padding of im2col."""
PERMUTATIONS = {3: ("21",), 4: ("132", "213", "231", "312", "321")}
"""By rank of the value; "231": the first dimension of the new value is the second of the old one, and so on."""


_BELOW = 2 + 4 / 3 + 1
"""Modules below a sequential, a branching (where a third of the splits are two-way) and a routing, taken together."""


@dataclass(frozen=True)
class _Value:
    """A value on its way through the network, and the image [height, width] that its rows come from, if any."""

    name: str
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Grammar:
    """What stays the same throughout a derivation."""

    choose: Choose
    g: Editor
    widths: tuple[int, ...]
    computation: float
    depth: int
    copies: int
    limit: int

    def shape(self, x: _Value) -> tuple[int, ...]:
        """Shape without the batch."""
        return self.g.shape(x.name)[1:]

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a value of this shape is allowed."""
        return all(n > 0 for n in shape) and math.prod(shape) <= self.limit

    # --------------------------------------------------------------------------------------------------- the modules
    def module(self, path: str, x: _Value, depth: int, copies: int = 1, start: bool = False) -> _Value:
        """M at a path of the derivation; `start`: the first module, which is no computation."""
        if start:
            kinds, weights = ("sequential", "branching", "routing"), (1.0, 1.0, 1.0)
        elif depth >= self.depth:
            kinds, weights = ("computation",), (1.0,)
        else:
            kinds = ("sequential", "branching", "routing", "computation")
            end = self.ending(x, copies)
            weights = (*[(1 - end) / 3] * 3, end)
        kind = self.choose.one_of(path, kinds, weights=weights)
        if kind == "sequential":
            x = self.below(f"{path}.first", x, depth, copies)
            return self.below(f"{path}.second", x, depth, copies)
        if kind == "branching":
            return self.branching(path, x, depth, copies)
        if kind == "routing":
            x = self.before(self.choose.one_of(f"{path}.before", self.befores(x)), x)
            x = self.below(f"{path}.inner", x, depth, copies)
            return self.after(self.choose.one_of(f"{path}.after", self.afters(x)), x)
        return self.compute(self.choose.one_of(f"{path}.op", self.computations(x)), x)

    def ending(self, x: _Value, copies: int) -> float:
        """p for this value: raised where only two-way splits fit, so that no module has more below it on average."""
        ways = self.splits(x, copies)
        two = sum(way[5] == "2" for way in ways) / len(ways)
        return max(self.computation, 1 - (1 - self.computation) * _BELOW / (2 + (1 + two) + 1))

    def below(self, path: str, x: _Value, depth: int, copies: int) -> _Value:
        """A module one level down, in a scope named by the last step of its path."""
        with self.g.scope(path.rpartition(".")[2]):
            return self.module(path, x, depth + 1, copies)

    def branching(self, path: str, x: _Value, depth: int, copies: int) -> _Value:
        how = self.choose.one_of(f"{path}.split", self.splits(x, copies))
        count = int(how[5])
        parts = self.split(how, x)
        if count == 2:
            left = self.below(f"{path}.left", parts[0], depth, copies)
            right = self.below(f"{path}.right", parts[1], depth, copies)
            if not self.joins([left, right]):
                right = self.stitch(right, left)
            ends = [left, right]
        else:
            ends = []
            for i, part in enumerate(parts):
                with self.g.scope(f"branch{i}"):
                    ends.append(self.module(f"{path}.each", part, depth + 1, copies * count))
        return self.join(self.choose.one_of(f"{path}.join", self.joins(ends)), ends)

    # ------------------------------------------------------------------------------------------------ splits and joins
    def splits(self, x: _Value, copies: int) -> tuple[str, ...]:
        """Ways to split a value. Those into four and eight only as far as copies allow."""
        counts = [n for n in (2, 4, 8) if n == 2 or copies * n <= self.copies]
        groups = [f"group{n}.{dim}" for dim, size in enumerate(self.shape(x), 1) for n in counts if size % n == 0]
        return (*[f"clone{n}" for n in counts], *groups)

    def split(self, how: str, x: _Value) -> list[_Value]:
        count = int(how[5])
        if how.startswith("clone"):
            return [x] * count
        dim = int(how.rpartition(".")[2])
        size = self.g.shape(x.name)[dim] // count
        return [replace(x, name=name) for name in self.g.add("split", x.name, sizes=(size,) * count, dim=dim)]

    def joins(self, ends: Sequence[_Value]) -> tuple[str, ...]:
        """Ways to join values; none where they do not fit each other."""
        shapes = [self.shape(e) for e in ends]
        first, last = shapes[0], shapes[-1]
        if any(len(s) != len(first) for s in shapes):
            return ()
        found = []
        if len(ends) == 2 and first[-1] == last[-2] and first[:-2] == last[:-2]:
            found += ["dot", "scaled_dot"] if self.fits((*first[:-1], last[-1])) else []
        if len(set(shapes)) == 1:
            found.append("add")
        for dim in range(len(first)):
            others = {s[:dim] + s[dim + 1 :] for s in shapes}
            total = (*first[:dim], sum(s[dim] for s in shapes), *first[dim + 1 :])
            if len(others) == 1 and self.fits(total):
                found.append(f"cat.{dim + 1}")
        return tuple(found)

    def join(self, how: str, ends: Sequence[_Value]) -> _Value:
        g, names = self.g, [e.name for e in ends]
        grid = ends[0].grid
        if how == "add":
            total = names[0]
            for other in names[1:]:
                total = g.add("add", total, other)
            return _Value(total, grid)
        if how.startswith("cat"):
            return _Value(g.add("concat", *names, dim=int(how.rpartition(".")[2])), grid)
        y = g.add("matmul", *names)
        if how == "scaled_dot":
            y = g.add("mul", y, value=1 / math.sqrt(g.shape(names[0])[-1]))
        return _Value(y, grid)

    def stitch(self, x: _Value, like: _Value) -> _Value:
        """x brought to the shape of another value, by a linear map along each dimension that differs."""
        g = self.g
        with g.scope("stitch"):
            if len(self.shape(x)) != len(self.shape(like)):
                x = self.rows(x) if len(self.shape(x)) == 3 else self.flat_image(x)
            rank = len(self.shape(x)) + 1
            now, then = self.shape(x), self.shape(like)
            # those that shrink come first, so that no value on the way is larger than both ends
            for dim in sorted(range(1, rank), key=lambda d: then[d - 1] / now[d - 1]):
                size = then[dim - 1]
                if now[dim - 1] != size:
                    order = [*[d for d in range(rank) if d != dim], dim]
                    y = g.add("linear", g.add("permute", x.name, dims=order), out=size, name=f"linear{dim}")
                    x = replace(x, name=g.add("permute", y, dims=[order.index(d) for d in range(rank)]))
        return replace(x, grid=like.grid)

    def rows(self, x: _Value) -> _Value:
        """An image [N, C, H, W] as a matrix [N, H W, C]."""
        _, height, width = self.shape(x)
        y = self.g.add("permute", self.g.add("flatten", x.name, start=2), dims=(0, 2, 1))
        return _Value(y, (height, width))

    def flat_image(self, x: _Value) -> _Value:
        """A matrix [N, S, D] as an image [N, D, S, 1]."""
        return _Value(self.g.add("unsqueeze", self.g.add("permute", x.name, dims=(0, 2, 1)), dim=3))

    # ------------------------------------------------------------------------------------------------------- routing
    def befores(self, x: _Value) -> tuple[str, ...]:
        """Ways to route a value before a module."""
        shape = self.shape(x)
        found = ["identity", *[f"permute.{p}" for p in PERMUTATIONS[len(shape) + 1]]]
        if len(shape) == 3:
            for kernel, stride, padding in PATCHES:
                grid = _grid(shape[1:], kernel, stride, padding)
                if min(shape[1:]) >= kernel and self.fits((math.prod(grid), shape[0] * kernel**2)):
                    found.append(f"im2col.{kernel}.{stride}.{padding}")
        return tuple(found)

    def before(self, how: str, x: _Value) -> _Value:
        if how.startswith("im2col"):
            kernel, stride, padding = map(int, how.split(".")[1:])
            grid = _grid(self.shape(x)[1:], kernel, stride, padding)
            y = self.g.add("unfold", x.name, kernel=kernel, stride=stride, padding=padding)
            return _Value(self.g.add("permute", y, dims=(0, 2, 1)), grid)
        return self.permuted(how, x)

    def afters(self, x: _Value) -> tuple[str, ...]:
        """Ways to route a value after a module."""
        shape = self.shape(x)
        found = ["identity", *[f"permute.{p}" for p in PERMUTATIONS[len(shape) + 1]]]
        if len(shape) == 2 and x.grid is not None and math.prod(x.grid) == shape[0]:
            found.append("col2im")
        return tuple(found)

    def after(self, how: str, x: _Value) -> _Value:
        if how == "col2im":
            assert x.grid is not None
            y = self.g.add("permute", x.name, dims=(0, 2, 1))
            return _Value(self.g.add("reshape", y, shape=(-1, self.shape(x)[1], *x.grid)))
        return self.permuted(how, x)

    def permuted(self, how: str, x: _Value) -> _Value:
        if how == "identity":
            return x
        dims = (0, *[int(d) for d in how.rpartition(".")[2]])
        return replace(x, name=self.g.add("permute", x.name, dims=dims))

    # --------------------------------------------------------------------------------------------------- computation
    def computations(self, x: _Value) -> tuple[str, ...]:
        """What may be computed of a value."""
        shape = self.shape(x)
        linear = [
            f"linear.{w}" for w in self.widths if self.fits((*shape[:-1], w)) and w * (shape[-1] + 1) <= self.limit
        ]
        return ("identity", *linear, "norm", "leaky_relu", "softmax", "position")

    def compute(self, how: str, x: _Value) -> _Value:
        g, shape = self.g, self.shape(x)
        if how == "identity":
            return x
        if how.startswith("linear"):
            return replace(x, name=g.add("linear", x.name, out=int(how.rpartition(".")[2]), name="linear"))
        if how == "norm":
            return replace(x, name=g.add("batch_norm" if len(shape) == 3 else "layer_norm", x.name, name="norm"))
        if how == "position":
            place = g.add("param", shape=(1, *shape), init=("normal", 1.0), name="position")
            return replace(x, name=g.add("add", x.name, place))
        return replace(x, name=g.add(how, x.name, dim=-1) if how == "softmax" else g.add(how, x.name))


def _grid(size: Sequence[int], kernel: int, stride: int, padding: int) -> tuple[int, int]:
    height, width = [(n + 2 * padding - kernel) // stride + 1 for n in size]
    return height, width


def draw(
    choose: Choose,
    spec: Spec,
    *,
    widths: Sequence[int] = WIDTHS,
    computation: float = 0.32,
    depth: int = 8,
    copies: int = 8,
    limit: int = 2**20,
) -> Graph:
    """A derivation, and a head. `computation` is p; at `depth` modules end; of four or eight branches at most `copies`
    along a path; no value has more than `limit` numbers a sample, no weight more than that.

    Raises `TypeMismatch` unless the input is an image or a matrix within the limit.
    """
    shape = spec.inputs[0]
    if not 0 < computation < 1 or depth < 1:
        raise ChoiceError(f"got computation {computation} and depth {depth}, expected one in (0, 1) and at least 1")
    if len(shape) not in (3, 4) or any(n is None for n in shape[1:]) or math.prod(n or 1 for n in shape) > limit:
        raise TypeMismatch(f"input {list(shape)}: expected [None, C, H, W] or [None, S, D] of at most {limit} numbers")
    g = ops.edit()
    x = _Value(g.input("x", shape, spec.dtype(0)))
    grammar = _Grammar(choose, g, tuple(widths), computation, depth, copies, limit)
    with g.scope("net"):
        x = grammar.module("net", x, 0, start=True)
    pooled = g.add("mean", x.name, dim=(2, 3) if len(g.shape(x.name)) == 4 else 1)
    return g.finish(g.add("linear", pooled, out=spec.outputs, name="head"))


# ------------------------------------------------------------------------------------- derivations as nested tuples
Tree = tuple[Any, ...]
"""("sequential", tree, tree), ("branching", split, tree, tree, join) or with one tree for four and eight branches,
("routing", before, tree, after), ("computation", op)."""


def write(tree: Tree, path: str = "net") -> Trace:
    """The trace of a derivation. Raises `ChoiceError` if it is not of the grammar; whether it fits shapes, drawing
    says."""
    found: dict[str, Any] = {}

    def visit(tree: Tree, path: str) -> None:
        kind, *rest = tree
        found[path] = kind
        match kind, rest:
            case "sequential", [first, second]:
                visit(first, f"{path}.first")
                visit(second, f"{path}.second")
            case "branching", [split, left, right, join]:
                found.update({f"{path}.split": split, f"{path}.join": join})
                visit(left, f"{path}.left")
                visit(right, f"{path}.right")
            case "branching", [split, each, join]:
                found.update({f"{path}.split": split, f"{path}.join": join})
                visit(each, f"{path}.each")
            case "routing", [before, inner, after]:
                found.update({f"{path}.before": before, f"{path}.after": after})
                visit(inner, f"{path}.inner")
            case "computation", [op]:
                found[f"{path}.op"] = op
            case _:
                raise ChoiceError(f"at '{path}': got {kind!r} with {len(rest)} parts, which is no module")

    visit(tree, path)
    return Trace(found)


def read(trace: Mapping[str, Any], path: str = "net") -> Tree:
    """The derivation of a trace, or of the subtree at a path."""
    kind = trace[path]
    if kind == "sequential":
        return (kind, read(trace, f"{path}.first"), read(trace, f"{path}.second"))
    if kind == "routing":
        return (kind, trace[f"{path}.before"], read(trace, f"{path}.inner"), trace[f"{path}.after"])
    if kind == "branching":
        sides = ("left", "right") if f"{path}.left" in trace else ("each",)
        below = [read(trace, f"{path}.{side}") for side in sides]
        return (kind, trace[f"{path}.split"], *below, trace[f"{path}.join"])
    return (kind, trace[f"{path}.op"])


def modules(trace: Mapping[str, Any]) -> int:
    """Number of modules of a derivation."""
    kinds = ("sequential", "branching", "routing", "computation")
    return sum(value in kinds for value in trace.values())


# ------------------------------------------------------------------------------------------------------------ claim
def claim(*, seed: int = 0) -> Claim:
    """Images of 3 x 16 x 16; every tenth network is also run."""
    from archwright.core.choose import Picker, at_random
    from archwright.net.build import build
    from archwright.net.net import example, init

    count, right, sizes = 1000, 0, []
    spec, rng = Spec(((None, 3, 16, 16),), 10), np.random.default_rng(seed)
    for i in range(count):
        picker = Picker(at_random(rng))
        graph = draw(picker, spec, widths=(4, 16, 64), limit=2**14)
        sizes.append(modules(picker.trace))
        shape = ops.infer(graph, 3)[graph.outputs[0]].shape
        if i % 10 == 0:
            shape = tuple(build(init(graph, i)).eval()(*example(graph, 3)).shape)
        right += shape == (3, 10)
    mean, error = float(np.mean(sizes)), float(np.std(sizes, ddof=1) / np.sqrt(count))
    below = (1 - 0.32) / 3 * _BELOW
    return Claim(
        right / count,
        "share of derivations",
        "exactly 1, with less than one module below a module on average",
        right == count and below < 1,
        "1.0 by construction",
        {"mean modules": mean, "standard error": error, "most modules": max(sizes), "modules below one": below},
    )
