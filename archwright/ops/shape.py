"""The same numbers in another arrangement: reshape, permute, expand, repeat and their kin.

Nothing here computes. What matters is which factor of which dimension is which: a reshape is read as the common
refinement of two row-major factorisations (`regroup`), so that (h*d) -> (h, d) keeps both h and d as axes.

The batch never stands in an attribute: `reshape` has -1 there, `expand` and `repeat` have 0, which means the size of
dimension 0 of their last input, `ref`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import mul

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Dims, Op, Prod, Source, Term, Types, axis, labels, pin
from archwright.ops.pointwise import by_parts


def view_cost(a: A, x: Types, y: Types) -> Cost:
    """Nothing is moved: the output is the input seen in another way."""
    return Cost(moved=0)


def differentiable(t: Type) -> bool:
    """Whether autograd follows values of this type."""
    return t.dtype.startswith(("float", "bfloat", "complex"))


def free(t: Type, prefix: str = "r") -> Dims:
    """Dimensions of an input whose numbers are not used: each has a label that stands nowhere else."""
    return labels(t.shape, prefix)


def onnx_dims(o, value: str, start: int, end: int) -> str | list[int]:
    """Sizes of the dimensions [start, end) of an ONNX value when the model runs: int64 [end - start]."""
    return o.node("Shape", [value], start=start, end=end) if start < end else []


# --------------------------------------------------------------------------------------------------------- reshape
def regroup(before: Sequence[int], after: Sequence[int]) -> tuple[Dims, Dims]:
    """The dimensions before and after a row-major reshape, as terms over their common factors d0, d1, ...

    Every dimension covers the span between two cut points, which are the products of the sizes to its right. Where all
    cut points between two that both shapes have divide one another, the spans between them are common factors:
    (n, h*d) -> (n, h, d) has n, h and d. Where they don't, as in (2, 3) -> (3, 2), those dimensions are pinned.
    Dimensions of size 1 are pinned.
    """
    if 0 in before:
        return pin(before), pin(after)
    cuts = _cuts(before), _cuts(after)
    points = sorted(set(cuts[0]) | set(cuts[1]))
    shared = sorted(set(cuts[0]) & set(cuts[1]))
    factors: dict[tuple[int, int], Dim] = {}
    for low, high in pairwise(shared):
        inner = list(pairwise([point for point in points if low <= point <= high]))
        if all(b % a == 0 for a, b in inner):
            for a, b in inner:
                factors[a, b] = Dim(f"d{len(points) - 2 - points.index(a)}", b // a)

    def dims(shape: Sequence[int], cut: Sequence[int]) -> Dims:
        terms: list[Term] = []
        for n, (low, high) in zip(reversed(shape), pairwise(cut), strict=True):
            inner = [pair for pair in pairwise(points) if low <= pair[0] and pair[1] <= high]
            if inner and inner[0] in factors:
                made = [factors[pair] for pair in reversed(inner)]
                terms.append(made[0] if len(made) == 1 else Prod(*made))
            else:
                terms.append(Dim(None, n))
        return tuple(reversed(terms))

    return dims(before, cuts[0]), dims(after, cuts[1])


def _cuts(shape: Sequence[int]) -> list[int]:
    """1 and the products of ever more sizes from the right."""
    return list(accumulate(reversed(shape), mul, initial=1))


def _infer_reshape(a: A, x: Types) -> tuple[Type, ...]:
    shape, numel = a["shape"], x[0].numel
    if any(n < -1 for n in shape) or shape.count(-1) > 1:
        raise TypeMismatch(f"shape is {list(shape)}, expected sizes with at most one -1")
    known = math.prod(n for n in shape if n != -1)
    if (numel != known) if -1 not in shape else (known == 0 or numel % known):
        raise TypeMismatch(f"{x[0]} has {numel} elements, which shape {list(shape)} cannot hold")
    return (Type(tuple([numel // known if n == -1 else n for n in shape]), x[0].dtype),)


def _run_reshape(a: A, x, w, train):
    return x[0].reshape(a["shape"])


def _axes_reshape(a: A, x: Types, y: Types) -> Axes:
    before, after = regroup(x[0].shape, y[0].shape)
    sizes = [None if n == -1 or term == Dim(None, n) else term for n, term in zip(a["shape"], after, strict=True)]
    return Axes((before,), (after,), attrs={"shape": tuple(sizes)})


def _onnx_reshape(o, a, x, w, xt, yt):
    shape = list(a["shape"])
    if o.batch_stays and shape[0] == -1 and 0 not in shape:
        return o.node("Reshape", [x[0], o.const([0, *shape[1:]])])
    return o.node("Reshape", [x[0], o.const(shape)], allowzero=int(0 in shape))


def _source_reshape(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.reshape({_listed(a['shape']) or '()'})")


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _span(a: A, x: Types) -> tuple[int, int]:
    """First and last dimension to be merged."""
    rank = max(1, len(x[0].shape))
    start, end = axis(a["start"], rank, "start"), axis(a["end"], rank, "end")
    if start > end:
        raise TypeMismatch(f"start={a['start']} comes after end={a['end']} for {x[0]}")
    return start, end


def _infer_flatten(a: A, x: Types) -> tuple[Type, ...]:
    start, end = _span(a, x)
    shape = x[0].shape
    return (Type((*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]), x[0].dtype),)


def _run_flatten(a: A, x, w, train):
    return x[0].flatten(a["start"], a["end"])


def _axes_flatten(a: A, x: Types, y: Types) -> Axes:
    start, end = _span(a, x)
    dims = labels(x[0].shape)
    inner = dims[start : end + 1]
    merged = inner[0] if len(inner) == 1 else Prod(*inner) if inner else Dim(None, 1)
    return Axes((dims,), ((*dims[:start], merged, *dims[end + 1 :]),))


def _onnx_flatten(o, a, x, w, xt, yt):
    start, end = _span(a, xt)
    rank = len(xt[0].shape)
    return o.reshape(x[0], [0] * start, -1, onnx_dims(o, x[0], end + 1, rank))  # 0 keeps the size


def _source_flatten(a: A, x: Types, y: Types) -> Source:
    span = f"{a['start']}" if a["end"] == -1 else f"{a['start']}, {a['end']}"
    return Source(f"{{x0}}.flatten({span})", f"nn.Flatten({span})")


# --------------------------------------------------------------------------------------------- order of dimensions
def _perm(a: A, x: Types) -> list[int]:
    """Which dimension of the input each dimension of the output is."""
    rank = len(x[0].shape)
    if "dims" in a:
        perm = [axis(d, rank, "dims") for d in a["dims"]]
        if sorted(perm) != list(range(rank)):
            raise TypeMismatch(f"dims is {list(a['dims'])}, expected each of the {rank} dimensions of {x[0]} once")
        return perm
    perm = list(range(rank))
    first, second = axis(a["dim0"], rank, "dim0"), axis(a["dim1"], rank, "dim1")
    perm[first], perm[second] = perm[second], perm[first]
    return perm


def _infer_permute(a: A, x: Types) -> tuple[Type, ...]:
    return (Type(tuple([x[0].shape[i] for i in _perm(a, x)]), x[0].dtype),)


def _run_permute(a: A, x, w, train):
    return x[0].permute(a["dims"])


def _run_transpose(a: A, x, w, train):
    return x[0].transpose(a["dim0"], a["dim1"])


def _axes_permute(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    return Axes((dims,), (tuple([dims[i] for i in _perm(a, x)]),))


def _onnx_permute(o, a, x, w, xt, yt):
    return o.node("Transpose", [x[0]], perm=_perm(a, xt))


def _source_permute(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.permute({_listed(a['dims']) or '()'})")


def _source_transpose(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.transpose({a['dim0']}, {a['dim1']})")


# ------------------------------------------------------------------------------------------------- dimensions of 1
def _infer_unsqueeze(a: A, x: Types) -> tuple[Type, ...]:
    dim = axis(a["dim"], len(x[0].shape) + 1)
    return (Type((*x[0].shape[:dim], 1, *x[0].shape[dim:]), x[0].dtype),)


def _run_unsqueeze(a: A, x, w, train):
    return x[0].unsqueeze(a["dim"])


def _axes_unsqueeze(a: A, x: Types, y: Types) -> Axes:
    dims, dim = labels(x[0].shape), axis(a["dim"], len(y[0].shape))
    return Axes((dims,), ((*dims[:dim], Dim(None, 1), *dims[dim:]),))


def _onnx_unsqueeze(o, a, x, w, xt, yt):
    return o.unsqueeze(x[0], a["dim"])


def _source_unsqueeze(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.unsqueeze({a['dim']})")


def _squeezed(a: A, x: Types) -> set[int]:
    found = {axis(d, len(x[0].shape)) for d in a["dim"]}
    for d in found:
        if x[0].shape[d] != 1:  # torch leaves such dimensions: then the rank would depend on the batch size
            raise TypeMismatch(f"dimension {d} of {x[0]} has size {x[0].shape[d]}, expected 1")
    return found


def _infer_squeeze(a: A, x: Types) -> tuple[Type, ...]:
    gone = _squeezed(a, x)
    return (Type(tuple([n for i, n in enumerate(x[0].shape) if i not in gone]), x[0].dtype),)


def _run_squeeze(a: A, x, w, train):
    return x[0].squeeze(a["dim"])


def _axes_squeeze(a: A, x: Types, y: Types) -> Axes:
    gone, dims = _squeezed(a, x), labels(x[0].shape)
    before = tuple([Dim(None, 1) if i in gone else dim for i, dim in enumerate(dims)])
    return Axes((before,), (tuple([dim for i, dim in enumerate(dims) if i not in gone]),))


def _onnx_squeeze(o, a, x, w, xt, yt):
    return o.squeeze(x[0], *a["dim"]) if a["dim"] else o.node("Identity", [x[0]])


def _source_squeeze(a: A, x: Types, y: Types) -> Source:
    dim = a["dim"]
    return Source(f"{{x0}}.squeeze({dim[0] if len(dim) == 1 else dim})")


# ----------------------------------------------------------------------------------------------- expand and repeat
def ref_size(codes: Sequence[int], x: Types, name: str) -> int:
    """What the code 0 stands for: dimension 0 of the last input. Raises `TypeMismatch` if it is used without one."""
    if 0 not in codes:
        return 0
    if len(x) < 2 or not x[-1].shape:
        raise TypeMismatch(
            f"{name} is {list(codes)}: 0 means the size of dimension 0 of a further input, which is missing"
        )
    return x[-1].shape[0]


def coded(codes: Sequence[int], x) -> list[int]:
    """The sizes with 0 replaced by dimension 0 of the last tensor."""
    return [x[-1].shape[0] if n == 0 else n for n in codes]


def source_codes(codes: Sequence[int], ref: str) -> str:
    """The sizes as source text, with `ref` written where the code is 0."""
    return ", ".join([ref if n == 0 else str(n) for n in codes])


def onnx_codes(o, codes: Sequence[int], ref: str) -> str:
    """The sizes as a 1-d int64 value, with dimension 0 of the value `ref` where the code is 0."""
    return o.concat_ints(*[o.dim(ref, 0) if n == 0 else n for n in codes])


def _infer_expand(a: A, x: Types) -> tuple[Type, ...]:
    codes, shape = a["shape"], x[0].shape
    batch, lead = ref_size(codes, x, "shape"), len(codes) - len(shape)
    if lead < 0 or any(n < -1 for n in codes) or -1 in codes[:lead]:
        raise TypeMismatch(
            f"shape is {list(codes)} for {x[0]}, expected at least {len(shape)} sizes; -1 keeps one of the input's"
        )
    sizes = [batch if n == 0 else shape[i - lead] if n == -1 else n for i, n in enumerate(codes)]
    for have, want in zip(shape, sizes[lead:], strict=True):
        if have not in (1, want):
            raise TypeMismatch(f"{x[0]} cannot be expanded to {sizes}: only dimensions of size 1 can")
    return (Type(tuple(sizes), x[0].dtype),)


def _run_expand(a: A, x, w, train):
    return x[0].expand(coded(a["shape"], x))


def _axes_expand(a: A, x: Types, y: Types) -> Axes:
    after = labels(y[0].shape)
    lead = len(after) - len(x[0].shape)
    before = [d if n == d.size else Dim(None, n) for n, d in zip(x[0].shape, after[lead:], strict=True)]
    sizes = tuple([None if n in (-1, 0) else term for n, term in zip(a["shape"], after, strict=True)])
    return Axes((tuple(before), *_refs(a["shape"], x, after)), (after,), attrs={"shape": sizes})


def _refs(codes: Sequence[int], x: Types, after: Dims) -> list[Dims]:
    """The dimensions of `ref`, if it is there: only the size of the first matters, which an output dimension has."""
    found = []
    for t in x[1:]:
        shared = [term for n, term in zip(codes, after, strict=True) if n == 0 and isinstance(term, Dim)]
        found.append((*shared[:1], *free(t)[len(shared[:1]) :]))
    return found


def _onnx_expand(o, a, x, w, xt, yt):
    codes = [1 if n == -1 else n for n in a["shape"]]  # ONNX: 1 keeps the dimension
    return o.node("Expand", [x[0], onnx_codes(o, codes, x[-1])])


def _source_expand(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.expand({source_codes(a['shape'], f'{{x{len(x) - 1}}}.shape[0]')})")


def _infer_repeat(a: A, x: Types) -> tuple[Type, ...]:
    codes, shape = a["repeats"], x[0].shape
    batch, lead = ref_size(codes, x, "repeats"), len(codes) - len(shape)
    if lead < 0 or any(n < 0 for n in codes):
        raise TypeMismatch(f"repeats is {list(codes)} for {x[0]}, expected at least {len(shape)} counts")
    counts = [batch if n == 0 else n for n in codes]
    return (Type(tuple([r * n for r, n in zip(counts, (1,) * lead + shape, strict=True)]), x[0].dtype),)


def _run_repeat(a: A, x, w, train):
    return x[0].repeat(coded(a["repeats"], x))


def _axes_repeat(a: A, x: Types, y: Types) -> Axes:
    codes, rank = a["repeats"], len(y[0].shape)
    lead = rank - len(x[0].shape)
    before: list[Term] = []
    after: list[Term] = []
    counts: list[Term | None] = []
    for i, (n, total) in enumerate(zip((1,) * lead + x[0].shape, y[0].shape, strict=True)):
        alike = codes[i] == 1
        grown = n == 1 and not alike  # an expanded dimension, which all units of are equal
        before.append(Dim(None, 1) if grown else Dim(f"d{i}", n))
        after.append(
            Dim(f"d{i}", total) if alike or grown else Prod(Dim(None, total // n if n else 0), Dim(f"d{i}", n))
        )
        counts.append(after[-1] if grown and codes[i] else None)
    return Axes(
        (tuple(before[lead:]), *_refs(codes, x, tuple(after))), (tuple(after),), attrs={"repeats": tuple(counts)}
    )


def _onnx_repeat(o, a, x, w, xt, yt):
    lead = len(a["repeats"]) - len(xt[0].shape)
    value = o.unsqueeze(x[0], *range(lead)) if lead else x[0]
    return o.node("Tile", [value, onnx_codes(o, a["repeats"], x[-1])]) if a["repeats"] else o.node("Identity", [value])


def _source_repeat(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.repeat({source_codes(a['repeats'], f'{{x{len(x) - 1}}}.shape[0]') or '()'})")


def _infer_interleave(a: A, x: Types) -> tuple[Type, ...]:
    shape, dim = list(x[0].shape), axis(a["dim"], len(x[0].shape))
    shape[dim] *= a["repeats"]
    return (Type(tuple(shape), x[0].dtype),)


def _run_interleave(a: A, x, w, train):
    return x[0].repeat_interleave(a["repeats"], a["dim"])


def _axes_interleave(a: A, x: Types, y: Types) -> Axes:
    dims, dim = labels(x[0].shape), axis(a["dim"], len(x[0].shape))
    return Axes((dims,), ((*dims[:dim], Prod(dims[dim], Dim(None, a["repeats"])), *dims[dim + 1 :]),))


def _onnx_interleave(o, a, x, w, xt, yt):
    rank = len(xt[0].shape)
    dim = axis(a["dim"], rank)
    counts = [a["repeats"] if i == dim + 1 else 1 for i in range(rank + 1)]
    copies = o.node("Tile", [o.unsqueeze(x[0], dim + 1), o.const(counts)])
    return o.reshape(copies, [0] * dim, -1, onnx_dims(o, x[0], dim + 1, rank))


def _source_interleave(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.repeat_interleave({a['repeats']}, {a['dim']})")


_OPS = (
    Op(
        "reshape", _infer_reshape, _run_reshape, {"shape": Attr("ints")}, cost=view_cost, axes=_axes_reshape,
        onnx=_onnx_reshape, source=_source_reshape, view=True, doc="Row-major reshape; at most one size is -1.",
    ),
    Op(
        "flatten", _infer_flatten, _run_flatten, {"start": Attr("int", 1), "end": Attr("int", -1)}, cost=view_cost,
        axes=_axes_flatten, onnx=_onnx_flatten, source=_source_flatten, view=True,
        doc="Merges the dimensions start to end, both included.",
    ),
    Op(
        "permute", _infer_permute, _run_permute, {"dims": Attr("ints")}, cost=view_cost, axes=_axes_permute,
        onnx=_onnx_permute, source=_source_permute, view=True, doc="Dimension i of the output is dims[i] of the input.",
    ),
    Op(
        "transpose", _infer_permute, _run_transpose, {"dim0": Attr("int"), "dim1": Attr("int")}, cost=view_cost,
        axes=_axes_permute, onnx=_onnx_permute, source=_source_transpose, view=True, doc="Swaps two dimensions.",
    ),
    Op(
        "unsqueeze", _infer_unsqueeze, _run_unsqueeze, {"dim": Attr("int")}, cost=view_cost, axes=_axes_unsqueeze,
        onnx=_onnx_unsqueeze, source=_source_unsqueeze, view=True, doc="A new dimension of size 1 at position dim.",
    ),
    Op(
        "squeeze", _infer_squeeze, _run_squeeze, {"dim": Attr("ints")}, cost=view_cost, axes=_axes_squeeze,
        onnx=_onnx_squeeze, source=_source_squeeze, view=True, doc="Drops these dimensions, which must be of size 1.",
    ),
    Op(
        "expand", _infer_expand, _run_expand, {"shape": Attr("ints")}, inputs=(1, 2), cost=view_cost, axes=_axes_expand,
        onnx=_onnx_expand, source=_source_expand, view=True,
        doc="Repeats dimensions of size 1 without copying. -1 keeps a size, 0 is the size of dimension 0 of `ref`.",
    ),
    Op(
        "repeat", _infer_repeat, _run_repeat, {"repeats": Attr("ints")}, inputs=(1, 2), axes=_axes_repeat,
        onnx=_onnx_repeat, source=_source_repeat,
        doc="Tiles: copies one after the other. 0 is the size of dimension 0 of `ref`.",
    ),
    Op(
        "repeat_interleave", _infer_interleave, _run_interleave, {"repeats": Attr("size"), "dim": Attr("int")},
        axes=_axes_interleave, onnx=_onnx_interleave, source=_source_interleave,
        doc="Repeats every unit of a dimension next to itself.",
    ),
)  # fmt: skip

OPS = tuple([by_parts(op) for op in _OPS])
