"""NAS-Bench-201: a cell of four nodes whose six edges take one of five operations each, stacked into a full network.

    h_0 = x,   h_j = sum_{i < j} o_ij(h_i)  for j = 1, 2, 3,   the cell gives h_3
    o_ij in {none: 0, skip_connect: h, nor_conv_1x1, nor_conv_3x3: BN(W relu(h)), avg_pool_3x3}

    stem     BN(conv 3x3 to `width` channels)
    stages   `cells` cells each at widths w, 2w, 4w; between them a residual block that halves the image:
             y = BN(conv 3x3(relu(BN(conv 3x3 stride 2(relu(x)))))) + conv 1x1(mean over 2 x 2 of x)
    head     relu(BN(x)), mean over the image, linear

The choices are "edge_i_j", one for each edge, the same in every cell: 5^6 = 15,625 traces. `encode` and `decode` go to
the official string and back. Many cells compute the same function: `canonical` names the class, where sums have no
order, skip_connect is nothing at all, and (unless `zeros` are kept as an operation like any other) operations on zero
are zero. It is the official rule, which compares text and misses some equal sums; `reduced` finds those too.

Shapes: [N, C, H, W] with H and W multiples of 4 -> [N, outputs]. Parameters at the published size: 0.07 to 1.53 M.
Fails where what matters is not in the cell: width, depth and reductions are fixed. Operations that no path connects to
the output have no parameters here, while the official network keeps (and counts) them.
Differs from the official code in nothing else; a convolution that reads a zero still adds its normalisation's bias.

Dong and Yang: NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search, 2020, arXiv 2001.00326.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archwright import ops
from archwright.core.choose import Choose, Piece
from archwright.core.records import Claim, Trace
from archwright.core.space import Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.ir import Editor, Graph
from archwright.kit.nasbench201 import EDGES, OPERATIONS, choice, from_string, to_string

PART = {
    "kind": "space",
    "name": "nas_bench_201",
    "id": "nas-bench-201",
    "title": "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search",
    "year": 2020,
    "arxiv": "2001.00326",
    "needs": ["image"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 3, 8, 8]], "outputs": 10},
        "hp": {"cells": 1, "width": 4},
        "small": {
            "hp": {"cells": 1, "width": 2, "operations": ["none", "nor_conv_1x1"]},
            "spec": {"inputs": [[None, 1, 4, 4]], "outputs": 2},
            "count": 64,
        },
        "supernet": {"fixed": {}, "join": "switch"},
        "draws": 6,
    },
    "exact": "15,625 traces in 6,466 classes of equal functions (12,751 keeping zeros); the table's parameters.",
    "claim": {
        "text": "Number of classes of cells that compute the same function, by enumeration of all 15,625.",
        "paper": "6,466 unique topology structures (12,751 keeping the zero operation)",
    },
}


def draw(
    choose: Choose, spec: Spec, *, cells: int = 5, width: int = 16, operations: Sequence[str] = OPERATIONS
) -> Graph:
    """The stacked network of a cell. `cells` in each of three stages, `width` channels in the first; `operations`
    is what an edge may be. Raises `TypeMismatch` where the image cannot be halved twice."""
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown or not operations:
        raise ChoiceError(f"operations {list(operations)}: expected some of {', '.join(OPERATIONS)}")
    shape = spec.inputs[0]
    if len(shape) != 4 or any(n is None or n % 4 for n in shape[2:]):
        raise TypeMismatch(f"input {list(shape)}: expected [None, channels, height, width], multiples of 4")
    pieces = {name: _PIECES[name] for name in operations}
    g = ops.edit()
    x = g.input("image", shape, spec.dtype(0))
    with g.scope("stem"):
        x = g.add("batch_norm", _conv(g, x, width, 3, name="conv"), name="norm")
    for stage in range(3):
        if stage:
            with g.scope(f"reduce{stage}"):
                x = _reduction(g, x)
        for i in range(cells):
            with g.scope(f"stage{stage + 1}.cell{i}"):
                x = cell(choose, g, x, pieces)
    with g.scope("head"):
        x = g.add("relu", g.add("batch_norm", x, name="norm"))
        x = g.add("mean", x, dim=(2, 3))
        return g.finish(g.add("linear", x, out=spec.outputs, name="linear"))


def cell(choose: Choose, g: Editor, x: str, pieces: Mapping[str, Piece]) -> str:
    """One cell: x [N, C, H, W] -> [N, C, H, W]."""
    nodes = [x]
    for target in (1, 2, 3):
        terms = [choose.branch(choice((source, target)), g, nodes[source], pieces) for source in range(target)]
        total = terms[0]
        for source, term in enumerate(terms[1:], 1):
            total = g.add("add", total, term, name=f"sum_{target}_{source}")
        nodes.append(total)
    return nodes[3]


def _conv(g: Editor, x: str, out: int, kernel: int, stride: int = 1, name: str = "conv") -> str:
    value: str = g.add("conv", x, out=out, kernel=kernel, stride=stride, padding=kernel // 2, bias=False, name=name)
    return value


def _relu_conv_norm(g: Editor, x: str, out: int, kernel: int, stride: int = 1) -> str:
    x = _conv(g, g.add("relu", x, name="relu"), out, kernel, stride)
    value: str = g.add("batch_norm", x, name="norm")
    return value


def _reduction(g: Editor, x: str) -> str:
    """x [N, C, H, W] -> [N, 2 C, H / 2, W / 2]."""
    out = 2 * g.shape(x)[1]
    with g.scope("first"):
        y = _relu_conv_norm(g, x, out, 3, stride=2)
    with g.scope("second"):
        y = _relu_conv_norm(g, y, out, 3)
    with g.scope("skip"):
        x = _conv(g, g.add("avg_pool", x, kernel=2, stride=2), out, 1)
    value: str = g.add("add", x, y)
    return value


def _conv_piece(kernel: int) -> Piece:
    return lambda g, x: _relu_conv_norm(g, x, g.shape(x)[1], kernel)


_PIECES: dict[str, Piece] = {
    "none": lambda g, x: g.add("mul", x, value=0.0, name="zero"),
    "skip_connect": lambda g, x: x,
    "nor_conv_1x1": _conv_piece(1),
    "nor_conv_3x3": _conv_piece(3),
    "avg_pool_3x3": lambda g, x: g.add(
        "avg_pool", x, kernel=3, stride=1, padding=1, count_include_pad=False, name="pool"
    ),
}


# ---------------------------------------------------------------------------------------------- cells as strings
def encode(trace: Mapping[str, Any]) -> str:
    """The official string of a cell: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|."""
    return to_string(trace)


def decode(text: str) -> Trace:
    """The trace of an official string. Raises `ChoiceError` if it is not of this space."""
    try:
        trace = from_string(text)
    except ValueError:
        trace = Trace({})
    odd = set(trace) != {choice(edge) for edge in EDGES} or any(op not in OPERATIONS for op in trace.values())
    if odd or to_string(trace) != text:
        raise ChoiceError(f"got '{text}', expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with op of {OPERATIONS}")
    return trace


def canonical(trace: Mapping[str, Any], *, zeros: bool = False) -> str:
    """The official unique string: the same text for cells that are the same function by the rules of this file's head.

    It is the sum that node 3 holds, written out: "0" is the cell's input, "(a)@op" an operation on a, "#" zero. `zeros`
    keeps "none" as an operation on what it reads, so that only skips and the order of terms make cells equal.
    """
    sums = ["0"]
    for target in (1, 2, 3):
        terms = []
        for source in range(target):
            operation, value = trace[choice((source, target))], sums[source]
            if not zeros and (operation == "none" or value == "#"):
                terms.append("#")
            else:
                terms.append(value if operation == "skip_connect" else f"({value})@{operation}")
        sums.append("+".join(sorted(terms)))
    return sums[3]


def reduced(trace: Mapping[str, Any]) -> str:
    """A stricter canonical form: zero terms vanish from every sum, and a skipped sum dissolves in the sum it joins.

    The official rule misses some of these, since it compares text: it keeps "#+#" apart from "#", and does not sort
    terms again that a skip brought in.
    """
    sums: list[tuple[str, ...]] = [("0",)]
    for target in (1, 2, 3):
        terms: list[str] = []
        for source in range(target):
            operation, value = trace[choice((source, target))], sums[source]
            if operation == "skip_connect":
                terms += value
            elif operation != "none" and value:
                terms.append(f"({'+'.join(value)})@{operation}")
        sums.append(tuple(sorted(terms)))
    return "+".join(sums[3]) or "#"


def neighbours(trace: Mapping[str, Any]) -> Iterator[Trace]:
    """The 24 cells that differ in one edge."""
    for edge in EDGES:
        for operation in OPERATIONS:
            if operation != trace[choice(edge)]:
                yield Trace({**trace, choice(edge): operation})


def every() -> Iterator[Trace]:
    """All 15,625 cells."""
    for number in range(len(OPERATIONS) ** len(EDGES)):
        digits = [number // len(OPERATIONS) ** k % len(OPERATIONS) for k in range(len(EDGES))]
        yield Trace({choice(edge): OPERATIONS[digit] for edge, digit in zip(EDGES, digits, strict=True)})


def claim(*, seed: int = 0) -> Claim:
    """Enumerates all cells and counts the classes; nothing is drawn at random."""
    cells = list(every())
    count = len({encode(trace) for trace in cells})
    unique = len({canonical(trace) for trace in cells})
    kept = len({canonical(trace, zeros=True) for trace in cells})
    strict = len({reduced(trace) for trace in cells})
    return Claim(
        unique,
        "classes",
        "exactly 6,466; of 15,625 cells; 12,751 keeping zeros",
        (count, unique, kept) == (15625, 6466, 12751),
        "6,466",
        {"cells": count, "keeping zeros": kept, "with zero terms dropped and sums flattened": strict},
    )
