"""Choosing by value: the k greatest, sorting, and whole numbers as unit vectors.

Shapes: x [..., n, ...] -> [..., k, ...] for topk, [..., n, ...] for sort and argsort; ids [...] -> [..., num] for
one_hot. Indices are int64. Among equal values any order may come.
"""

from __future__ import annotations

import torch

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Source, Types, axis, category, labels
from archwright.ops.pointwise import ORDERED, differentiable, ruled


def _infer_topk(a: A, x: Types) -> tuple[Type, ...]:
    shape, dtype = list(x[0].shape), ruled((None, *ORDERED[1:]), x[0].dtype)
    dim = axis(a["dim"], len(shape))
    if a["k"] > shape[dim]:
        raise TypeMismatch(f"k={a['k']}, expected at most the size of dimension {dim} of {x[0]}")
    shape[dim] = a["k"]
    return Type(tuple(shape), dtype), Type(tuple(shape), "int64")


def _run_topk(a: A, x, w, train):
    return tuple(torch.topk(x[0], a["k"], a["dim"], a["largest"], a["sorted"]))


def _cost_indexed(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("y1",)) if differentiable(x[0]) else Cost()


def _axes_along(a: A, x: Types, y: Types) -> Axes:
    """The dimension is pinned, as indices point into it."""
    dim, terms = axis(a["dim"], len(x[0].shape)), labels(x[0].shape)
    before, after = terms[:dim], terms[dim + 1 :]
    made = (*before, Dim(None, y[0].shape[dim]), *after)
    return Axes(((*before, Dim(None, x[0].shape[dim]), *after),), (made,) * len(y))


def _onnx_topk(o, a, x, w, xt, yt):
    dim = axis(a["dim"], len(xt[0].shape))
    return o.node("TopK", [x[0], o.const([a["k"]])], outputs=2, axis=dim, largest=a["largest"], sorted=a["sorted"])


def _source_topk(a: A, x: Types, y: Types) -> Source:
    options = "".join(f", {name}={a[name]}" for name in ("largest", "sorted") if not a[name])
    return Source(f"torch.topk({{x0}}, {a['k']}, {a['dim']}{options})")


def _infer_sort(a: A, x: Types) -> tuple[Type, ...]:
    axis(a["dim"], len(x[0].shape))
    return Type(x[0].shape, ruled(ORDERED, x[0].dtype)), Type(x[0].shape, "int64")


def _run_sort(a: A, x, w, train):
    return tuple(torch.sort(x[0], a["dim"], a["descending"]))


def _onnx_sort(o, a, x, w, xt, yt):
    dim, value = axis(a["dim"], len(xt[0].shape)), x[0]
    if xt[0].dtype == "bool":
        value = o.cast(value, "int32")
    size = o.dim(value, dim)
    made, indices = o.node("TopK", [value, size], outputs=2, axis=dim, largest=a["descending"], sorted=True)
    return (o.cast(made, "bool") if xt[0].dtype == "bool" else made), indices


def _source_sort(name: str):
    def source(a: A, x: Types, y: Types) -> Source:
        return Source(f"torch.{name}({{x0}}, {a['dim']}{', descending=True' if a['descending'] else ''})")

    return source


def _infer_argsort(a: A, x: Types) -> tuple[Type, ...]:
    return _infer_sort(a, x)[1:]


def _run_argsort(a: A, x, w, train):
    return torch.argsort(x[0].detach(), a["dim"], a["descending"])  # no gradient: nothing is to be kept for one


def _onnx_argsort(o, a, x, w, xt, yt):
    return _onnx_sort(o, a, x, w, xt, yt)[1]


def _infer_one_hot(a: A, x: Types) -> tuple[Type, ...]:
    if category(x[0].dtype) != 1:
        raise TypeMismatch(f"ids are {x[0]}, expected whole numbers: cast them to int64")
    return (Type((*x[0].shape, a["num"]), "int64"),)


def _run_one_hot(a: A, x, w, train):
    # torch's one_hot looks at the numbers first, which vmap and graphs of kernels don't allow
    return (x[0].unsqueeze(-1) == torch.arange(a["num"], device=x[0].device)).to(torch.int64)


def _axes_one_hot(a: A, x: Types, y: Types) -> Axes:
    terms = labels(x[0].shape)
    return Axes((terms,), ((*terms, Dim(None, a["num"])),))


def _onnx_one_hot(o, a, x, w, xt, yt):
    ids = x[0] if xt[0].dtype == "int64" else o.cast(x[0], "int64")
    return o.cast(o.node("Equal", [o.unsqueeze(ids, -1), o.const(list(range(a["num"])))]), "int64")


def _source_one_hot(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.one_hot({{x0}}{'' if x[0].dtype == 'int64' else '.long()'}, {a['num']})")


_SORT = {"dim": Attr("int", -1), "descending": Attr("bool", False)}

OPS = (
    Op(
        "topk", _infer_topk, _run_topk,
        {"k": Attr("size"), "dim": Attr("int", -1), "largest": Attr("bool", True), "sorted": Attr("bool", True)},
        cost=_cost_indexed, axes=_axes_along, onnx=_onnx_topk, source=_source_topk,
        doc="(values, indices) of the k greatest, or least, along a dimension.",
    ),
    Op(
        "sort", _infer_sort, _run_sort, _SORT, cost=_cost_indexed, axes=_axes_along, onnx=_onnx_sort,
        source=_source_sort("sort"), doc="(values, indices) in order along a dimension.",
    ),
    Op(
        "argsort", _infer_argsort, _run_argsort, _SORT, axes=_axes_along, onnx=_onnx_argsort,
        source=_source_sort("argsort"), doc="The indices that put a dimension in order.",
    ),
    Op(
        "one_hot", _infer_one_hot, _run_one_hot, {"num": Attr("size")}, axes=_axes_one_hot, onnx=_onnx_one_hot,
        source=_source_one_hot, doc="1 at the place that a number names, else 0; all 0 for a number out of range.",
    ),
)  # fmt: skip
