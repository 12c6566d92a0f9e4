"""Reduction and softmax over segments: rows that share an index, as the messages to one node of a graph do.

    sum      y[s] = sum of x[e] over e with ids[e] = s          mean, max, min likewise; an empty segment gives 0
    softmax  y[e] = exp(x[e] - m[ids[e]]) / sum of the same over the segment, with m the segment's maximum

Shapes: x [E, ...], ids [E] of int64 in 0..num-1 -> y [num, ...]; softmax keeps [E, ...]. `num` is an attribute, or the
size of dimension 0 of a third input, `ref`. Time and memory are linear in x.
"""

from __future__ import annotations

from typing import Any

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Source, Types, labels, need_float, need_rank
from archwright.ops.pieces import swapped
from archwright.ops.shape import free, onnx_dims


def segment_sum(x, ids, num):
    """Sums of the rows of x by segment: [num, ...]."""
    return x.new_zeros(num, *x.shape[1:]).index_add(0, ids, x)


def segment_mean(x, ids, num):
    """Means of the rows of x by segment; 0 where a segment is empty."""
    count = x.new_zeros(num).index_add(0, ids, x.new_ones(ids.shape[0])).clamp(min=1)
    return segment_sum(x, ids, num) / count.reshape(num, *[1] * (x.dim() - 1))


def segment_extreme(x, ids, num, reduce):
    """Greatest ("amax") or least ("amin") of the rows of x by segment; 0 where a segment is empty."""
    places = ids.reshape(ids.shape[0], *[1] * (x.dim() - 1)).expand_as(x)
    return x.new_zeros(num, *x.shape[1:]).scatter_reduce(0, places, x, reduce, include_self=False)


def segment_softmax(x, ids, num):
    """Softmax within each segment, safe for large numbers."""
    top = segment_extreme(x.detach(), ids, num, "amax")
    e = (x - top.index_select(0, ids)).exp()
    return e / segment_sum(e, ids, num).index_select(0, ids)


def _num(a: A, x: Any) -> int:
    return x[2].shape[0] if a["num"] is None else a["num"]


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    need_float(x[0])
    if x[1] != Type(x[0].shape[:1], "int64"):
        raise TypeMismatch(f"segment indices are {x[1]}, expected int64[{x[0].shape[0]}] for {x[0]}")
    if (a["num"] is None) == (len(x) < 3):
        raise TypeMismatch(f"num is {a['num']} with {len(x)} inputs, expected either num or a third input to size it")
    if len(x) > 2:
        need_rank(x[2], 1, what="ref")
    return (x[0] if a["reduce"] == "softmax" else Type((_num(a, x), *x[0].shape[1:]), x[0].dtype),)


def _run(a: A, x, w, train):
    num = _num(a, x)
    match a["reduce"]:
        case "sum":
            return segment_sum(x[0], x[1], num)
        case "mean":
            return segment_mean(x[0], x[1], num)
        case "softmax":
            return segment_softmax(x[0], x[1], num)
        case reduce:
            return segment_extreme(x[0], x[1], num, "a" + reduce)


def _cost(a: A, x: Types, y: Types) -> Cost:
    match a["reduce"]:
        case "sum":
            return Cost(keeps=("x0", "x1"))
        case "mean":
            return Cost(keeps=("x0", "x1"), extra=_num(a, x) * DTYPES[x[0].dtype])
        case "softmax":  # the exponentials and, row by row, the sums that they are divided by
            return Cost(keeps=("x1",), extra=2 * x[0].nbytes, scratch=2 * x[0].nbytes)
        case _:  # the zeros that are written over
            return Cost(keeps=("x0", "x1", "y0"), extra=y[0].nbytes)


def _axes(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape, "e")
    softmax = a["reduce"] == "softmax"
    after = dims if softmax else (Dim(None, y[0].shape[0]), *dims[1:])
    # rows may come in any order; that a row is missing is no matter to a sum alone
    coupled = frozenset() if a["reduce"] == "sum" else frozenset(["e0"])
    refs = [swapped(free(t), {0: Dim(None, t.shape[0])}) for t in x[2:]]
    return Axes((dims, dims[:1], *refs), (after,), coupled=coupled)


def _onnx_reduce(o, x: str, places: str, shape: str, dtype: str, how: str, start: Any) -> str:
    return o.node("ScatterND", [o.full(shape, start, dtype), places, x], reduction=how)


def _onnx_extreme(o, x: str, ids: str, num: Any, t: Type, how: str) -> str:
    places, rank = o.unsqueeze(ids, 1), len(t.shape)
    shape = o.concat_ints(num, onnx_dims(o, x, 1, rank))
    made = _onnx_reduce(o, x, places, shape, t.dtype, how, "-inf" if how == "max" else "inf")
    count = _onnx_reduce(o, o.full(o.shape_of(ids), 1), places, o.concat_ints(num), "float32", "add", 0)
    empty = o.node("Equal", [count, o.scalar(0.0)])
    empty = o.unsqueeze(empty, *range(1, rank)) if rank > 1 else empty
    return o.node("Where", [empty, o.scalar(0.0, t.dtype), made])


def _onnx_sum(o, x: str, ids: str, num: Any, t: Type) -> str:
    shape = o.concat_ints(num, onnx_dims(o, x, 1, len(t.shape)))
    return _onnx_reduce(o, x, o.unsqueeze(ids, 1), shape, t.dtype, "add", 0)


def _onnx(o, a, x, w, xt, yt):
    t, reduce = xt[0], a["reduce"]
    num = o.dim(x[2], 0) if a["num"] is None else a["num"]
    if reduce in ("max", "min"):
        return _onnx_extreme(o, x[0], x[1], num, t, reduce)
    if reduce == "softmax":
        top = o.node("Gather", [_onnx_extreme(o, x[0], x[1], num, t, "max"), x[1]])
        e = o.node("Exp", [o.node("Sub", [x[0], top])])
        return o.node("Div", [e, o.node("Gather", [_onnx_sum(o, e, x[1], num, t), x[1]])])
    total = _onnx_sum(o, x[0], x[1], num, t)
    if reduce == "sum":
        return total
    count = _onnx_sum(o, o.full(o.shape_of(x[1]), 1, t.dtype), x[1], num, Type(t.shape[:1], t.dtype))
    count = o.node("Max", [count, o.scalar(1.0, t.dtype)])
    rank = len(t.shape)
    return o.node("Div", [total, o.unsqueeze(count, *range(1, rank)) if rank > 1 else count])


def _source(a: A, x: Types, y: Types) -> Source:
    given = f"{{x0}}, {{x1}}, {'{x2}.shape[0]' if a['num'] is None else a['num']}"
    match a["reduce"]:
        case "sum":
            return Source(f"segment_sum({given})", helpers=(segment_sum,))
        case "mean":
            return Source(f"segment_mean({given})", helpers=(segment_sum, segment_mean))
        case "softmax":
            return Source(f"segment_softmax({given})", helpers=(segment_sum, segment_extreme, segment_softmax))
        case reduce:
            return Source(f"segment_extreme({given}, 'a{reduce}')", helpers=(segment_extreme,))


OPS = (
    Op(
        "segment", _infer, _run,
        {"reduce": Attr("str", "sum", ("sum", "mean", "max", "min", "softmax")), "num": Attr("size", None)},
        inputs=(2, 3), cost=_cost, axes=_axes, onnx=_onnx, source=_source,
        doc="Reduces (or normalises) the rows of x that share an index. num, or dimension 0 of `ref`, counts segments.",
    ),
)  # fmt: skip
