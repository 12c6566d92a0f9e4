"""Tensors put together, taken apart, cut, padded and shifted along their dimensions.

Axes: a dimension that is put together is a `Cat` of its pieces, and so is one that is cut, so that a channel keeps its
identity through concat, split, slice and constant padding. Shifts, mirrored padding and strided slices pin the
dimensions that they move.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cat,
    Cost,
    Dim,
    Dims,
    Op,
    Prod,
    Source,
    Term,
    Types,
    axis,
    labels,
    need_rank,
    promote,
)
from archwright.ops.pointwise import by_parts
from archwright.ops.shape import onnx_dims, view_cost


def swapped(dims: Dims, places: Mapping[int, Term]) -> Dims:
    """The dimensions with those at some places replaced."""
    return tuple([places.get(i, dim) for i, dim in enumerate(dims)])


def resized(t: Type, dim: int, n: int) -> Type:
    """The type with another size at one dimension."""
    return Type((*t.shape[:dim], n, *t.shape[dim + 1 :]), t.dtype)


NOTHING = Dim(None, 0)


def joined(*terms: Term) -> Term:
    """The pieces that aren't empty, one after the other."""
    kept = [term for term in terms if isinstance(term, (Prod, Cat)) or term.size]
    return kept[0] if len(kept) == 1 else Cat(*kept)


def number(value: float | str) -> str:
    """A number as source text; infinities, which attributes hold as text, too."""
    return f"float('{value}')" if isinstance(value, str) else repr(value)


# ------------------------------------------------------------------------------------------------ concat and stack
def _infer_concat(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    shape = x[0].shape
    dim = axis(a["dim"], len(shape))
    for t in x[1:]:
        if len(t.shape) != len(shape) or resized(t, dim, 0).shape != resized(x[0], dim, 0).shape:
            raise TypeMismatch(f"inputs {', '.join(map(str, x))} must agree in every dimension but {dim}")
    return (Type((*shape[:dim], sum(t.shape[dim] for t in x), *shape[dim + 1 :]), promote(x)),)


def _run_concat(a: A, x, w, train):
    return torch.cat(list(x), a["dim"])


def _axes_concat(a: A, x: Types, y: Types) -> Axes:
    dim = axis(a["dim"], len(y[0].shape))
    shared = labels(y[0].shape)
    pieces = [Dim(f"x{i}", t.shape[dim]) for i, t in enumerate(x)]
    return Axes(tuple([swapped(shared, {dim: piece}) for piece in pieces]), (swapped(shared, {dim: joined(*pieces)}),))


def _onnx_alike(o, x, xt, yt) -> list[str]:
    """The inputs in the output's dtype."""
    return [v if t.dtype == yt[0].dtype else o.cast(v, yt[0].dtype) for v, t in zip(x, xt, strict=True)]


def _onnx_concat(o, a, x, w, xt, yt):
    return o.concat(_onnx_alike(o, x, xt, yt), a["dim"])


def _source_concat(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.cat([{{x}}], {a['dim']})")


def _infer_stack(a: A, x: Types) -> tuple[Type, ...]:
    dim = axis(a["dim"], len(x[0].shape) + 1)
    if any(t.shape != x[0].shape for t in x):
        raise TypeMismatch(f"inputs {', '.join(map(str, x))} must have one shape")
    return (Type((*x[0].shape[:dim], len(x), *x[0].shape[dim:]), promote(x)),)


def _run_stack(a: A, x, w, train):
    return torch.stack(list(x), a["dim"])


def _axes_stack(a: A, x: Types, y: Types) -> Axes:
    dims, dim = labels(x[0].shape), axis(a["dim"], len(y[0].shape))
    return Axes((dims,) * len(x), ((*dims[:dim], Dim(None, len(x)), *dims[dim:]),))


def _onnx_stack(o, a, x, w, xt, yt):
    return o.concat([o.unsqueeze(v, a["dim"]) for v in _onnx_alike(o, x, xt, yt)], a["dim"])


def _source_stack(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.stack([{{x}}], {a['dim']})")


# ----------------------------------------------------------------------------------------- split, chunk and unbind
def _several(made: Sequence[Any]) -> Any:
    """What `run` and `onnx` return: a tuple exactly where there are several outputs."""
    return made[0] if len(made) == 1 else tuple(made)


def _infer_split(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    dim, sizes = axis(a["dim"], len(x[0].shape)), a["sizes"]
    if not sizes or any(n < 0 for n in sizes) or sum(sizes) != x[0].shape[dim]:
        raise TypeMismatch(
            f"sizes is {list(sizes)}, expected sizes that add up to {x[0].shape[dim]}, dimension {dim} of {x[0]}"
        )
    return tuple([resized(x[0], dim, n) for n in sizes])


def _run_split(a: A, x, w, train):
    return _several(x[0].split(a["sizes"], a["dim"]))


def _axes_split(a: A, x: Types, y: Types) -> Axes:
    dim, shared = axis(a["dim"], len(x[0].shape)), labels(x[0].shape)
    pieces = tuple([Dim(f"y{i}", n) for i, n in enumerate(a["sizes"])])
    return Axes(
        (swapped(shared, {dim: joined(*pieces)}),),
        tuple([swapped(shared, {dim: piece}) for piece in pieces]),
        attrs={"sizes": pieces},
    )


def _onnx_split(o, a, x, w, xt, yt):
    return _several(o.split(x[0], a["sizes"], a["dim"]))


def _source_pieces(call: str, y: Types) -> Source:
    """A call that gives a sequence: the sequence itself where there are several outputs, else its only item."""
    return Source(call if len(y) > 1 else f"{call}[0]")


def _source_split(a: A, x: Types, y: Types) -> Source:
    return _source_pieces(f"{{x0}}.split({list(a['sizes'])}, {a['dim']})", y)


def _infer_chunk(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    dim = axis(a["dim"], len(x[0].shape))
    n = x[0].shape[dim]
    if n == 0:
        raise TypeMismatch(f"dimension {dim} of {x[0]} is empty: there is nothing to split")
    step = -(-n // a["parts"])
    return tuple([resized(x[0], dim, min(step, n - start)) for start in range(0, n, step)])


def _run_chunk(a: A, x, w, train):
    return _several(x[0].chunk(a["parts"], a["dim"]))


def _axes_chunk(a: A, x: Types, y: Types) -> Axes:
    dim, parts, shared = axis(a["dim"], len(x[0].shape)), a["parts"], labels(x[0].shape)
    n = x[0].shape[dim]
    if n % parts:
        return Axes(
            (swapped(shared, {dim: Dim(None, n)}),), tuple([swapped(shared, {dim: Dim(None, t.shape[dim])}) for t in y])
        )
    part = Dim("part", n // parts)
    whole = part if parts == 1 else Prod(Dim(None, parts), part)
    return Axes((swapped(shared, {dim: whole}),), (swapped(shared, {dim: part}),) * parts)


def _onnx_chunk(o, a, x, w, xt, yt):
    if len(yt) == 1:
        return o.node("Identity", [x[0]])
    return o.node("Split", [x[0]], outputs=len(yt), axis=a["dim"], num_outputs=len(yt))


def _source_chunk(a: A, x: Types, y: Types) -> Source:
    return _source_pieces(f"{{x0}}.chunk({a['parts']}, {a['dim']})", y)


def _infer_unbind(a: A, x: Types) -> tuple[Type, ...]:
    dim = axis(a["dim"], len(x[0].shape))
    shape = x[0].shape
    if not shape[dim]:
        raise TypeMismatch(f"dimension {dim} of {x[0]} is empty: there is nothing to take")
    return (Type((*shape[:dim], *shape[dim + 1 :]), x[0].dtype),) * shape[dim]


def _run_unbind(a: A, x, w, train):
    return _several(x[0].unbind(a["dim"]))


def _axes_taken(a: A, x: Types, y: Types) -> Axes:
    """One position of a dimension in every output: that dimension is pinned, the others stay."""
    dims, dim = labels(x[0].shape), axis(a["dim"], len(x[0].shape))
    return Axes((swapped(dims, {dim: Dim(None, dims[dim].size)}),), ((*dims[:dim], *dims[dim + 1 :]),) * len(y))


def _onnx_unbind(o, a, x, w, xt, yt):
    return _several([o.squeeze(piece, a["dim"]) for piece in o.split(x[0], [1] * len(yt), a["dim"])])


def _source_unbind(a: A, x: Types, y: Types) -> Source:
    return _source_pieces(f"{{x0}}.unbind({a['dim']})", y)


# ------------------------------------------------------------------------------------------------ slice and select
def _range(a: A, x: Types) -> tuple[int, range]:
    """The dimension, and the positions of it that are taken."""
    need_rank(x[0], 1)
    dim = axis(a["dim"], len(x[0].shape))
    return dim, range(*slice(a["start"], a["stop"], a["step"]).indices(x[0].shape[dim]))


def _infer_slice(a: A, x: Types) -> tuple[Type, ...]:
    dim, taken = _range(a, x)
    return (resized(x[0], dim, len(taken)),)


def _index(a: A, rank: int) -> tuple[slice, ...]:
    dim = axis(a["dim"], rank)
    return (*(slice(None),) * dim, slice(a["start"], a["stop"], a["step"]))


def _run_slice(a: A, x, w, train):
    return x[0][_index(a, x[0].dim())]


_END = 2**31
"""A stop from here on says "to the end", however large the axis grows."""


def _axes_slice(a: A, x: Types, y: Types) -> Axes:
    dim, taken = _range(a, x)
    n, start, stop, shared = x[0].shape[dim], a["start"], a["stop"], labels(x[0].shape)
    if stop is not None and stop >= _END:
        stop = None
    outside = abs(start) > n or (stop is not None and abs(stop) > n)  # bounds that mean something else if n grows
    if a["step"] > 1 or outside or not taken:
        return Axes((swapped(shared, {dim: Dim(None, n)}),), (swapped(shared, {dim: Dim(None, len(taken))}),))
    before, mid, after = Dim("before", taken.start), Dim("mid", len(taken)), Dim("after", n - taken.stop)
    sizes: dict[str, Term] = {}
    if start:
        sizes["start"] = before if start > 0 else joined(mid, after)
    if stop is not None:
        sizes["stop"] = joined(before, mid) if stop > 0 else after
    return Axes((swapped(shared, {dim: joined(before, mid, after)}),), (swapped(shared, {dim: mid}),), attrs=sizes)


def _onnx_slice(o, a, x, w, xt, yt):
    return o.slice(x[0], axis(a["dim"], len(xt[0].shape)), a["start"], a["stop"], a["step"])


def _source_slice(a: A, x: Types, y: Types) -> Source:
    start, stop = a["start"] or "", "" if a["stop"] is None else a["stop"]
    step = f":{a['step']}" if a["step"] > 1 else ""
    return Source(f"{{x0}}[{':, ' * axis(a['dim'], len(x[0].shape))}{start}:{stop}{step}]")


def _infer_select(a: A, x: Types) -> tuple[Type, ...]:
    shape = x[0].shape
    dim = axis(a["dim"], len(shape))
    axis(a["index"], shape[dim], "index")
    return (Type((*shape[:dim], *shape[dim + 1 :]), x[0].dtype),)


def _run_select(a: A, x, w, train):
    return x[0].select(a["dim"], a["index"])


def _onnx_select(o, a, x, w, xt, yt):
    return o.node("Gather", [x[0], o.scalar(a["index"], "int64")], axis=a["dim"])


def _source_select(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.select({a['dim']}, {a['index']})")


# ------------------------------------------------------------------------------------------------------------- pad
_ONNX_PAD = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def _pads(a: A, x: Types) -> list[tuple[int, int]]:
    """(before, after) for each dimension of the input. Negative: that much is cut off."""
    pads, rank = a["pads"], len(x[0].shape)
    if len(pads) % 2 or len(pads) > 2 * rank:
        raise TypeMismatch(
            f"pads is {list(pads)}, expected up to {rank} pairs, for {x[0]} and the last dimension first"
        )
    pairs = [(pads[i], pads[i + 1]) for i in range(0, len(pads), 2)]
    return [(0, 0)] * (rank - len(pairs)) + pairs[::-1]


def _infer_pad(a: A, x: Types) -> tuple[Type, ...]:
    mode, shape, pads = a["mode"], x[0].shape, _pads(a, x)
    if mode != "constant":
        count = len(a["pads"]) // 2
        if not 1 <= count <= 3 or len(shape) not in (count + 1, count + 2):
            raise TypeMismatch(
                f"pads is {list(a['pads'])} for {x[0]}: mode '{mode}' pads all but the first one or two dimensions"
            )
        for n, pair in zip(shape, pads, strict=True):
            room = {"reflect": n - 1, "circular": n, "replicate": math.inf if n else 0}[mode]
            if max(pair) > room:
                raise TypeMismatch(
                    f"a size of {n} cannot be padded by {max(pair)} in mode '{mode}', expected at most {room}"
                )
    for n, (before, after) in zip(shape, pads, strict=True):
        if n + before + after < 0 or (n + min(before, 0) + min(after, 0)) < 0:
            raise TypeMismatch(f"pads is {list(a['pads'])}, which cuts more than there is of {x[0]}")
    return (Type(tuple([n + before + after for n, (before, after) in zip(shape, pads, strict=True)]), x[0].dtype),)


def _run_pad(a: A, x, w, train):
    return F.pad(x[0], a["pads"], a["mode"], float(a["value"]) if a["mode"] == "constant" else None)


def _cost_pad(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0",) if a["mode"] in ("reflect", "replicate") else ())


def _axes_pad(a: A, x: Types, y: Types) -> Axes:
    before: list[Term] = list(labels(x[0].shape))
    after = list(before)
    stored: list[Term | None] = [None] * len(a["pads"])
    for i, (low, high) in enumerate(_pads(a, x)):
        n = x[0].shape[i]
        if not (low or high):
            continue
        if a["mode"] != "constant":
            before[i], after[i] = Dim(None, n), Dim(None, n + low + high)
            continue
        kept = Dim(f"d{i}", n + min(low, 0) + min(high, 0))
        first, last = Dim(f"p{i}", abs(low)), Dim(f"q{i}", abs(high))
        before[i] = joined(first if low < 0 else NOTHING, kept, last if high < 0 else NOTHING)
        after[i] = joined(first if low > 0 else NOTHING, kept, last if high > 0 else NOTHING)
        at = 2 * (len(before) - 1 - i)
        stored[at : at + 2] = [first if low else None, last if high else None]
    return Axes((tuple(before),), (tuple(after),), attrs={"pads": tuple(stored)})


def _onnx_pad(o, a, x, w, xt, yt):
    pads = _pads(a, xt)
    value = o.scalar(a["value"], xt[0].dtype) if a["mode"] == "constant" else None
    flat = [low for low, _ in pads] + [high for _, high in pads]
    if value is not None or min(flat, default=0) >= 0:
        return o.node("Pad", [x[0], o.const(flat), value], mode=_ONNX_PAD[a["mode"]])
    # torch mirrors what it cuts off on the other side, ONNX Runtime cuts first
    made = o.node("Pad", [x[0], o.const([max(n, 0) for n in flat])], mode=_ONNX_PAD[a["mode"]])
    return o.node("Pad", [made, o.const([min(n, 0) for n in flat])], mode="constant")


def _source_pad(a: A, x: Types, y: Types) -> Source:
    more = f", '{a['mode']}'" if a["mode"] != "constant" else f", value={number(a['value'])}" if a["value"] else ""
    return Source(f"F.pad({{x0}}, {a['pads']}{more})")


# --------------------------------------------------------------------------------------------------- roll and flip
def _infer_roll(a: A, x: Types) -> tuple[Type, ...]:
    shifts, dims = a["shifts"], a["dims"]
    if len(shifts) != (len(dims) or 1):
        raise TypeMismatch(f"shifts is {list(shifts)} and dims {list(dims)}, expected one shift for each dimension")
    for d in dims:
        axis(d, len(x[0].shape), "dims")
    return (x[0],)


def _run_roll(a: A, x, w, train):
    return torch.roll(x[0], a["shifts"], a["dims"])


def _moved(a: A, x: Types) -> list[int]:
    """The dimensions that are moved: those named, or all."""
    rank = len(x[0].shape)
    return [axis(d, rank, "dims") for d in a["dims"]] if a["dims"] or "shifts" not in a else list(range(rank))


def _axes_moved(a: A, x: Types, y: Types) -> Axes:
    dims = swapped(labels(x[0].shape), {d: Dim(None, x[0].shape[d]) for d in _moved(a, x)})
    return Axes((dims,), (dims,))


def _onnx_roll(o, a, x, w, xt, yt):
    value = x[0] if a["dims"] else o.reshape(x[0], -1)
    for shift, d in zip(a["shifts"], a["dims"] or (0,), strict=True):
        # the first position to come out: -shift modulo the size
        cut = o.node("Mod", [o.const([-shift]), o.dim(value, d)])
        value = o.concat([o.slice(value, d, cut), o.slice(value, d, 0, cut)], d)
    return value if a["dims"] else o.reshape(value, onnx_dims(o, x[0], 0, len(xt[0].shape)))


def _source_roll(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.roll({{x0}}, {a['shifts']}, {a['dims']})")


def _infer_flip(a: A, x: Types) -> tuple[Type, ...]:
    if len({axis(d, len(x[0].shape), "dims") for d in a["dims"]}) < len(a["dims"]):
        raise TypeMismatch(f"dims is {list(a['dims'])}, expected each dimension once")
    return (x[0],)


def _run_flip(a: A, x, w, train):
    return x[0].flip(a["dims"])


def _onnx_flip(o, a, x, w, xt, yt):
    value = x[0]
    for d in a["dims"]:
        value = o.slice(value, d, -1, None, -1)
    return value if a["dims"] else o.node("Identity", [value])


def _source_flip(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.flip({a['dims']})")


# ------------------------------------------------------------------------------------------ triangles and diagonal
def _infer_triangle(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2)
    return (x[0],)


def _run_tril(a: A, x, w, train):
    return x[0].tril(a["diagonal"])


def _run_triu(a: A, x, w, train):
    return x[0].triu(a["diagonal"])


def _axes_triangle(a: A, x: Types, y: Types) -> Axes:
    rank = len(x[0].shape)
    dims = swapped(labels(x[0].shape), {d: Dim(None, x[0].shape[d]) for d in (rank - 2, rank - 1)})
    return Axes((dims,), (dims,))


def _onnx_triangle(o, a, x, xt, upper: int):
    known = ("float32", "float64", "int64", "bool")  # those that ONNX Runtime has Trilu for
    wide = x[0] if xt[0].dtype in known else o.cast(x[0], "float32" if "float" in xt[0].dtype else "int64")
    made = o.node("Trilu", [wide, o.scalar(a["diagonal"], "int64")], upper=upper)
    return made if xt[0].dtype in known else o.cast(made, xt[0].dtype)


def _onnx_tril(o, a, x, w, xt, yt):
    return _onnx_triangle(o, a, x, xt, 0)


def _onnx_triu(o, a, x, w, xt, yt):
    return _onnx_triangle(o, a, x, xt, 1)


def _source_tril(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.tril({a['diagonal'] or ''})")


def _source_triu(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.triu({a['diagonal'] or ''})")


def _diagonal(a: A, x: Types) -> tuple[int, int, list[int]]:
    """The rows' dimension, the columns', and the others."""
    rank = len(x[0].shape)
    rows, columns = axis(a["dim1"], rank, "dim1"), axis(a["dim2"], rank, "dim2")
    if rows == columns:
        raise TypeMismatch(f"dim1 and dim2 are both dimension {rows} of {x[0]}, expected two")
    return rows, columns, [i for i in range(rank) if i not in (rows, columns)]


def _infer_diagonal(a: A, x: Types) -> tuple[Type, ...]:
    rows, columns, rest = _diagonal(a, x)
    shape, offset = x[0].shape, a["offset"]
    n = max(0, min(shape[rows] + min(offset, 0), shape[columns] - max(offset, 0)))
    return (Type((*[shape[i] for i in rest], n), x[0].dtype),)


def _run_diagonal(a: A, x, w, train):
    return x[0].diagonal(a["offset"], a["dim1"], a["dim2"])


def _axes_diagonal(a: A, x: Types, y: Types) -> Axes:
    rows, columns, rest = _diagonal(a, x)
    dims = labels(x[0].shape)
    before = swapped(dims, {d: Dim(None, x[0].shape[d]) for d in (rows, columns)})
    return Axes((before,), ((*[dims[i] for i in rest], Dim(None, y[0].shape[-1])),))


def _onnx_diagonal(o, a, x, w, xt, yt):
    rows, columns, rest = _diagonal(a, xt)
    offset = a["offset"]
    n_rows, n_columns = o.dim(x[0], rows), o.dim(x[0], columns)
    count = o.node(
        "Min",
        [o.node("Add", [n_rows, o.const([min(offset, 0)])]), o.node("Sub", [n_columns, o.const([max(offset, 0)])])],
    )
    count = o.node("Max", [count, o.const([0])])
    # positions in a row-major matrix: start, start + columns + 1, ...
    step = o.node("Add", [n_columns, o.const([1])])
    start = o.const([offset]) if offset >= 0 else o.node("Mul", [n_columns, o.const([-offset])])
    stop = o.node("Add", [start, o.node("Mul", [count, step])])
    places = o.node("Range", [o.squeeze(bound, 0) for bound in (start, stop, step)])
    value = o.transpose(x[0], [*rest, rows, columns])
    value = o.reshape(value, onnx_dims(o, value, 0, len(rest)), -1)
    return o.node("Gather", [value, places], axis=len(rest))


def _source_diagonal(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.diagonal({a['offset']}, {a['dim1']}, {a['dim2']})")


_DIAGONAL = {"diagonal": Attr("int", 0)}
_PAD = {"pads": Attr("ints"), "mode": Attr("str", "constant", tuple(_ONNX_PAD)), "value": Attr("number", 0.0)}
_SLICE = {"dim": Attr("int"), "start": Attr("int", 0), "stop": Attr("int", None), "step": Attr("size", 1)}

_OPS = (
    Op(
        "concat", _infer_concat, _run_concat, {"dim": Attr("int", 1)}, inputs=(1, None), axes=_axes_concat,
        onnx=_onnx_concat, source=_source_concat, doc="Inputs one after the other along a dimension.",
    ),
    Op(
        "stack", _infer_stack, _run_stack, {"dim": Attr("int", 0)}, inputs=(1, None), axes=_axes_stack,
        onnx=_onnx_stack, source=_source_stack, doc="Inputs of one shape along a new dimension.",
    ),
    Op(
        "split", _infer_split, _run_split, {"sizes": Attr("ints"), "dim": Attr("int", 1)}, cost=view_cost,
        axes=_axes_split, onnx=_onnx_split, source=_source_split, view=True,
        doc="Pieces of the given sizes, an output for each.",
    ),
    Op(
        "chunk", _infer_chunk, _run_chunk, {"parts": Attr("size"), "dim": Attr("int", 1)}, cost=view_cost,
        axes=_axes_chunk, onnx=_onnx_chunk, source=_source_chunk, view=True,
        doc="Equal pieces, an output for each; where they don't fit, fewer or a smaller last one, as in torch.",
    ),
    Op(
        "unbind", _infer_unbind, _run_unbind, {"dim": Attr("int", 0)}, cost=view_cost, axes=_axes_taken,
        onnx=_onnx_unbind, source=_source_unbind, view=True, doc="An output for each position of a dimension.",
    ),
    Op(
        "slice", _infer_slice, _run_slice, _SLICE, cost=view_cost, axes=_axes_slice, onnx=_onnx_slice,
        source=_source_slice, view=True, doc="x[start:stop:step] along a dimension, with Python's negative bounds.",
    ),
    Op(
        "select", _infer_select, _run_select, {"dim": Attr("int"), "index": Attr("int")}, cost=view_cost,
        axes=_axes_taken, onnx=_onnx_select, source=_source_select, view=True, doc="One position of a dimension.",
    ),
    Op(
        "pad", _infer_pad, _run_pad, _PAD, cost=_cost_pad, axes=_axes_pad, onnx=_onnx_pad, source=_source_pad,
        doc="Padding as torch.nn.functional.pad: (before, after) pairs, the last dimension first; negative cuts.",
    ),
    Op(
        "roll", _infer_roll, _run_roll, {"shifts": Attr("ints"), "dims": Attr("ints")}, axes=_axes_moved,
        onnx=_onnx_roll, source=_source_roll, doc="Shifts around the ends. Empty dims: of the flattened input.",
    ),
    Op(
        "flip", _infer_flip, _run_flip, {"dims": Attr("ints")}, axes=_axes_moved, onnx=_onnx_flip, source=_source_flip,
        doc="Reverses dimensions.",
    ),
    Op(
        "tril", _infer_triangle, _run_tril, _DIAGONAL, axes=_axes_triangle, onnx=_onnx_tril, source=_source_tril,
        doc="The part of each matrix on and below a diagonal.",
    ),
    Op(
        "triu", _infer_triangle, _run_triu, _DIAGONAL, axes=_axes_triangle, onnx=_onnx_triu, source=_source_triu,
        doc="The part of each matrix on and above a diagonal.",
    ),
    Op(
        "diagonal", _infer_diagonal, _run_diagonal,
        {"offset": Attr("int", 0), "dim1": Attr("int", 0), "dim2": Attr("int", 1)}, cost=view_cost,
        axes=_axes_diagonal, onnx=_onnx_diagonal, source=_source_diagonal, view=True,
        doc="The diagonal of two dimensions, as the last dimension.",
    ),
)  # fmt: skip

OPS = tuple([by_parts(op) for op in _OPS])
