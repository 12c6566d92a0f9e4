"""DeepArchitect: a small language in which spaces of networks are written, and their sizes read off.

    expression                      meaning                                  size
    Layer(op, name=(values), ...)   an operation with choices                product of their numbers of values
    Concat(a, b, ...)               one after the other                      |a| |b| ...
    Or(a, b, ...)                   one of them                              |a| + |b| + ...
    Optional(a)                     Or(nothing, a)                           1 + |a|
    MaybeSwap(a, b)                 Concat(a, b) or Concat(b, a)             2 |a| |b|
    Repeat(a, (k, ...))             k of them, each with choices of its own  sum over k of |a|^k
    Tied(a, (k, ...))               k of them with the same choices          |a| for each k
    Residual(a)                     x + a(x), padded where shapes differ     |a|
    Dag(nodes, a)                   h_j = sum over i < j of a_ij(h_i)        |a|^(nodes (nodes - 1) / 2)
    Fixed(f)                        any piece of graph, f(g, x) -> y         1

An expression is a value: it can be named, passed on, used twice. `builder` makes a space's program of it, which asks
for what is chosen where it is met. Choices are numbered by their place in the expression ("or_1", "conv_2.out"), and
those in the i-th repeat end in ".i". What has one value only is not asked. `size` is the formula of the table.

`program` is an expression, or the name of one: "convnet", "resnet", "nas_bench_201".
Shapes: whatever the expression takes -> flattened, linear -> [N, outputs].
Fails where choices constrain each other: all that the language has is the tree, so what does not fit is an error.
Differs from the paper: Dag is added, which NAS-Bench-201 needs; initialisers are not choices; MaybeSwap, whose two
orders the paper writes as an Or of both, has the same size.

Negrinho and Gordon: DeepArchitect: Automatically Designing and Training Deep Architectures, 2017, arXiv 1704.08792.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from archwright import ops
from archwright.core.choose import Choose, Piece
from archwright.core.records import Claim, Trace
from archwright.core.space import Space, Spec
from archwright.errors import ChoiceError
from archwright.ir import Editor, Graph

PART = {
    "kind": "space",
    "name": "deeparchitect",
    "id": "deeparchitect",
    "title": "DeepArchitect: Automatically Designing and Training Deep Architectures",
    "year": 2017,
    "arxiv": "1704.08792",
    "needs": ["image"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 3, 8, 8]], "outputs": 5},
        "hp": {"program": "convnet", "width": 4},
        "small": {
            "hp": {"program": "convnet", "width": 1},
            "spec": {"inputs": [[None, 1, 4, 4]], "outputs": 2},
            "count": 960,
        },
        "supernet": {"fixed": {}, "join": "switch"},
        "draws": 8,
    },
    "exact": "The number of traces is the product formula; NAS-Bench-201 written in it has 15,625, of the same graphs.",
    "claim": {
        "text": "Largest difference between the product formula and the enumerated size, over 40 random expressions.",
        "paper": "sizes follow from the tree",
    },
}

Build = Callable[[Choose, Editor, str, str], str]
"""(choose, g, x, ending) -> y; `ending` is put after the names of choices: ".0.2" in the third of the first repeat."""


class Names:
    """Gives each place in an expression its name: or_0, or_1, conv_0, ..."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, stem: str) -> str:
        self.counts[stem] += 1
        return f"{stem}_{self.counts[stem] - 1}"


class Module:
    """An expression of the language."""

    def size(self) -> int:
        """Number of traces, by formula."""
        raise NotImplementedError

    def bind(self, names: Names) -> Build:
        """What builds it, with names for its choices."""
        raise NotImplementedError


class Layer(Module):
    """An operation of the catalogue; each attribute is a tuple of values to choose from, or one value.

    A convolution keeps the image's size but for its stride (padding is half the kernel); a linear layer flattens.
    """

    def __init__(self, op: str, **attrs: Any) -> None:
        self.op = op
        self.attrs = {name: value if isinstance(value, tuple) else (value,) for name, value in attrs.items()}
        if not all(self.attrs.values()):
            raise ChoiceError(f"layer '{op}': got no values for {[n for n, v in self.attrs.items() if not v]}")

    def size(self) -> int:
        return math.prod(map(len, self.attrs.values()))

    def bind(self, names: Names) -> Build:
        label = names(self.op)

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            taken = {
                name: values[0] if len(values) == 1 else choose.one_of(f"{label}.{name}{ending}", values)
                for name, values in self.attrs.items()
            }
            if self.op == "conv":
                taken["padding"] = taken["kernel"] // 2
            if self.op == "linear" and len(g.shape(x)) > 2:
                x = g.add("flatten", x, name=f"{label}_in")
            value: str = g.add(self.op, x, name=label, **taken)
            return value

        return build


class Concat(Module):
    """One module after the other."""

    def __init__(self, *modules: Module) -> None:
        self.modules = modules

    def size(self) -> int:
        return math.prod(m.size() for m in self.modules)

    def bind(self, names: Names) -> Build:
        builds = [m.bind(names) for m in self.modules]

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            for each in builds:
                x = each(choose, g, x, ending)
            return x

        return build


class Or(Module):
    """One of several modules."""

    def __init__(self, *modules: Module) -> None:
        if not modules:
            raise ChoiceError("Or of nothing: expected at least one module")
        self.modules = modules

    def size(self) -> int:
        return sum(m.size() for m in self.modules)

    def bind(self, names: Names) -> Build:
        label = names("or")
        builds = {str(i): m.bind(names) for i, m in enumerate(self.modules)}

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            def piece(each: Build) -> Callable[[Editor, str], str]:
                return lambda g, x: each(choose, g, x, ending)

            if len(builds) == 1:
                return builds["0"](choose, g, x, ending)
            return choose.branch(f"{label}{ending}", g, x, {name: piece(each) for name, each in builds.items()})

        return build


def Empty() -> Module:
    """Nothing: what goes in comes out."""
    return Concat()


def Optional(module: Module) -> Module:
    """The module or nothing."""
    return Or(Empty(), module)


def MaybeSwap(first: Module, second: Module) -> Module:
    """Two modules in one order or the other."""
    return Or(Concat(first, second), Concat(second, first))


class Repeat(Module):
    """So many of a module, each with choices of its own; `tied` ones share their choices, not their weights. `between`
    stands between any two; it has no choices."""

    def __init__(
        self, module: Module, counts: Sequence[int], tied: bool = False, between: Module | None = None
    ) -> None:
        if not counts or min(counts) < 0 or len(set(counts)) != len(counts):
            raise ChoiceError(f"repeat: got counts {tuple(counts)}, expected different ones from 0")
        if between is not None and between.size() != 1:
            raise ChoiceError(f"repeat: what stands between has {between.size()} forms, expected one")
        self.module, self.counts, self.tied = module, tuple(sorted(counts)), tied
        self.between = between if between is not None else Empty()

    def size(self) -> int:
        one = self.module.size()
        return sum(one ** (min(k, 1) if self.tied else k) for k in self.counts)

    def bind(self, names: Names) -> Build:
        label, counts = names("repeat"), self.counts
        each, between = self.module.bind(names), self.between.bind(names)
        in_a_row = counts == tuple(range(counts[0], counts[-1] + 1))

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            def body(g: Editor, x: str, i: int) -> str:
                if i:
                    x = between(choose, g, x, ending)
                return each(choose, g, x, ending if self.tied else f"{ending}.{i}")

            if in_a_row and len(counts) > 1:
                return choose.repeat(f"{label}{ending}", g, x, counts[0], counts[-1], body)
            times = counts[0] if len(counts) == 1 else choose.one_of(f"{label}{ending}", counts)
            for i in range(times):
                with g.scope(f"{label}{ending}.{i}"):
                    x = body(g, x, i)
            return x

        return build


def Tied(module: Module, counts: Sequence[int], between: Module | None = None) -> Module:
    """So many of a module, all with the same choices."""
    return Repeat(module, counts, True, between)


class Residual(Module):
    """x + module(x). Where shapes differ the smaller is padded with zeros; where ranks differ both are flattened."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def size(self) -> int:
        return self.module.size()

    def bind(self, names: Names) -> Build:
        label, inner = names("residual"), self.module.bind(names)

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            with g.scope(label):
                y = inner(choose, g, x, ending)
                if len(g.shape(x)) != len(g.shape(y)):
                    x, y = (v if len(g.shape(v)) == 2 else g.add("flatten", v) for v in (x, y))
                most = [max(pair) for pair in zip(g.shape(x), g.shape(y), strict=True)]
                x, y = _padded(g, x, most), _padded(g, y, most)
                value: str = g.add("add", x, y, name="sum")
                return value

        return build


def _padded(g: Editor, x: str, most: Sequence[int]) -> str:
    lacks = [wanted - has for wanted, has in zip(most[1:], g.shape(x)[1:], strict=True)]
    if not any(lacks):
        return x
    value: str = g.add("pad", x, pads=[n for lack in reversed(lacks) for n in (0, lack)])
    return value


class Dag(Module):
    """A cell: nodes 0, 1, ...; each but the first is the sum of a module, chosen anew, of each one before."""

    def __init__(self, nodes: int, module: Module) -> None:
        if nodes < 2:
            raise ChoiceError(f"got a cell of {nodes} nodes, expected at least 2")
        self.nodes, self.module = nodes, module

    def size(self) -> int:
        return self.module.size() ** (self.nodes * (self.nodes - 1) // 2)

    def bind(self, names: Names) -> Build:
        label = names("cell")
        builds = [[self.module.bind(names) for _ in range(target)] for target in range(self.nodes)]

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            values = [x]
            with g.scope(label):
                for target in range(1, self.nodes):
                    terms = []
                    for source in range(target):
                        with g.scope(f"edge_{source}_{target}"):
                            terms.append(builds[target][source](choose, g, values[source], ending))
                    total = terms[0]
                    for source, term in enumerate(terms[1:], 1):
                        total = g.add("add", total, term, name=f"sum_{target}_{source}")
                    values.append(total)
            return values[-1]

        return build


class Fixed(Module):
    """Any piece of graph, f(g, x) -> y, without choices."""

    def __init__(self, piece: Piece) -> None:
        self.piece = piece

    def size(self) -> int:
        return 1

    def bind(self, names: Names) -> Build:
        label = names("fixed")

        def build(choose: Choose, g: Editor, x: str, ending: str) -> str:
            with g.scope(label):
                return self.piece(g, x)

        return build


def builder(module: Module) -> Build:
    """What builds an expression, its choices named by their places: `builder(e)(choose, g, x, "")`."""
    return module.bind(Names())


# ----------------------------------------------------------------------------------------------- expressions by name
def convnet(width: int) -> Module:
    """Convolutions, swapped norm and activation, dropout if wanted, one or two blocks, a hidden layer."""
    block = Concat(Layer("conv", out=2 * width, kernel=(1, 3)), Or(Layer("relu"), Layer("tanh")))
    return Concat(
        Layer("conv", out=(width, 2 * width), kernel=(3, 5)),
        MaybeSwap(Layer("relu"), Layer("batch_norm")),
        Optional(Layer("dropout", p=(0.25, 0.5))),
        Layer("max_pool", kernel=2, stride=2),
        Repeat(block, (1, 2)),
        Layer("linear", out=(4 * width, 8 * width)),
        Layer("relu"),
    )


def resnet(width: int) -> Module:
    """The paper's residual space: repeats of residual blocks, then perhaps a reduction and wider ones."""

    def block(out: int) -> Module:
        conv = Layer("conv", out=out, kernel=(1, 3, 5))
        inner = Tied(Concat(conv, MaybeSwap(Layer("batch_norm"), Layer("relu"))), (1, 2, 4))
        return Concat(Residual(Concat(inner, conv)), Optional(Layer("dropout", p=(0.1, 0.5))))

    wider = Concat(Layer("avg_pool", kernel=2, stride=2), Repeat(block(2 * width), (1, 2, 4)))
    return Concat(
        Layer("conv", out=width, kernel=3), Repeat(block(width), (1, 2, 4, 8)), Optional(wider), Fixed(_space_mean)
    )


def nas_bench_201(width: int, cells: int = 5) -> Module:
    """NAS-Bench-201: `cells` of one cell at each of three widths, a residual block between them."""
    pool = Layer("avg_pool", kernel=3, stride=1, padding=1, count_include_pad=False)
    edge = Or(Layer("mul", value=0.0), Empty(), Fixed(_relu_conv_norm(1)), Fixed(_relu_conv_norm(3)), pool)
    stem = Layer("conv", out=width, kernel=3, bias=False)
    stages = Tied(Tied(Dag(4, edge), (cells,)), (3,), between=Fixed(_reduction))
    return Concat(stem, Layer("batch_norm"), stages, Layer("batch_norm"), Layer("relu"), Fixed(_space_mean))


def _space_mean(g: Editor, x: str) -> str:
    value: str = g.add("mean", x, dim=(2, 3))
    return value


def _relu_conv_norm(kernel: int, out: int = 1, stride: int = 1) -> Piece:
    """`out` times as many channels."""

    def piece(g: Editor, x: str) -> str:
        wide, y = out * g.shape(x)[1], g.add("relu", x)
        y = g.add("conv", y, out=wide, kernel=kernel, stride=stride, padding=kernel // 2, bias=False)
        value: str = g.add("batch_norm", y)
        return value

    return piece


def _reduction(g: Editor, x: str) -> str:
    y = _relu_conv_norm(3)(g, _relu_conv_norm(3, 2, 2)(g, x))
    small = g.add("avg_pool", x, kernel=2, stride=2)
    value: str = g.add("add", g.add("conv", small, out=2 * g.shape(x)[1], kernel=1, bias=False), y)
    return value


PROGRAMS: dict[str, Callable[[int], Module]] = {"convnet": convnet, "resnet": resnet, "nas_bench_201": nas_bench_201}


def draw(choose: Choose, spec: Spec, *, program: Module | str = "convnet", width: int = 16) -> Graph:
    """The network of an expression, or of one by name at a width, with a linear head."""
    if isinstance(program, str):
        if program not in PROGRAMS:
            raise ChoiceError(f"unknown program '{program}': expected one of {', '.join(PROGRAMS)}, or an expression")
        program = PROGRAMS[program](width)
    g = ops.edit()
    x = builder(program)(choose, g, g.input("x", spec.inputs[0], spec.dtype(0)), "")
    if len(g.shape(x)) > 2:
        x = g.add("flatten", x, name="flat")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


# ------------------------------------------------------------------------------------------------------------- claim
def random_expression(rng: np.random.Generator, depth: int) -> Module:
    """An expression for tables [N, features], of all that the language has."""
    kind = int(rng.integers(9)) if depth else int(rng.integers(2))

    def inner() -> Module:
        return random_expression(rng, depth - 1)

    if kind == 0:
        return Layer("leaky_relu", slope=tuple([0.1 * (i + 1) for i in range(int(rng.integers(1, 4)))]))
    if kind == 1:
        return Layer("linear", out=tuple(range(2, 3 + int(rng.integers(2)))))
    if kind == 2:
        return Concat(*[inner() for _ in range(int(rng.integers(3)))])
    if kind == 3:
        return Or(*[inner() for _ in range(int(rng.integers(1, 4)))])
    if kind == 4:
        return Optional(inner())
    if kind == 5:
        return MaybeSwap(inner(), inner())
    if kind in (6, 7):
        counts = [k for k in range(4) if rng.random() < 0.5] or [2]
        return Repeat(inner(), counts, tied=kind == 7)
    return Residual(inner())


def claim(*, seed: int = 0) -> Claim:
    """Expressions of at most 400 traces are enumerated, each compiled; NAS-Bench-201 is compared graph by graph."""
    from functools import partial

    from archwright.core.registry import load

    rng, worst, checked, total = np.random.default_rng(seed), 0, 0, 0
    while checked < 40:
        program = random_expression(rng, 3)
        if not 2 <= program.size() <= 400:
            continue
        space = Space("expression", partial(draw, program=program), Spec(((None, 4),), 3))
        found = {trace.text for trace in space.traces()}
        worst = max(worst, abs(len(found) - program.size()))
        checked, total = checked + 1, total + len(found)
    spec = Spec(((None, 3, 8, 8),), 10)
    written = Space("written", partial(draw, program=nas_bench_201(4, cells=1)), spec)
    table = Space("table", partial(load("space/nas_bench_201"), cells=1, width=4), spec)
    same = nas_bench_201(4).size() == 5**6
    for _ in range(25):
        trace = table.random(rng)
        same = same and written.draw(as_nas_bench_201(trace)).key() == table.draw(trace).key()
    return Claim(
        worst,
        "traces",
        "exactly 0, and NAS-Bench-201 written in it has 5^6 traces and the same graphs",
        worst == 0 and same,
        "sizes follow from the tree",
        {"expressions": checked, "traces compiled": total, "same as NAS-Bench-201": float(same)},
    )


def as_nas_bench_201(trace: Mapping[str, Any]) -> Trace:
    """A trace of the space nas_bench_201 (edge_i_j) as one of the program of that name (or_0 to or_5)."""
    edges = [(source, target) for target in (1, 2, 3) for source in range(target)]
    labels = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
    return Trace({f"or_{k}": str(labels.index(trace[f"edge_{i}_{j}"])) for k, (i, j) in enumerate(edges)})
