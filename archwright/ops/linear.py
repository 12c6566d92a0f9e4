"""Linear maps: linear, embedding (a row of a table for each index) and bilinear.

    linear     y[..., o] = b[o] + sum_i W[o, i] x[..., i]
    embedding  y[..., d] = W[ids[...], d]
    bilinear   y[..., o] = b[o] + sum_ij W[o, i, j] x1[..., i] x2[..., j]

With inputs (x, weight[, bias]) or (ids, weight) instead of a slot the weights are values of the graph.
"""

from __future__ import annotations

import math

import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cost,
    Dim,
    Op,
    Param,
    Source,
    Types,
    labels,
    need_float,
    need_rank,
    operand,
)


def _need_shape(x: Types, index: int, name: str, shape: tuple[int, ...]) -> None:
    """Check a weight that comes as an input."""
    if len(x) > index and x[index].shape != shape:
        raise TypeMismatch(f"{name} is {x[index]}, expected shape {list(shape)}")


# ---------------------------------------------------------------------------------------------------------- linear
def _infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    if len(x) == 1:
        need_float(x[0])
    _need_shape(x, 1, "weight", (a["out"], x[0].shape[-1]))
    _need_shape(x, 2, "bias", (a["out"],))
    return (Type((*x[0].shape[:-1], a["out"]), x[0].dtype),)


def _params(a: A, x: Types) -> dict[str, Param]:
    if len(x) > 1:
        return {}
    inside = x[0].shape[-1]
    bound = 1 / math.sqrt(max(1, inside))  # torch: kaiming_uniform with a = sqrt(5)
    found = {"weight": Param((a["out"], inside), ("uniform", bound), x[0].dtype)}
    if a["bias"]:
        found["bias"] = Param((a["out"],), ("uniform", bound), x[0].dtype)
    return found


def _cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(2 * y[0].numel * x[0].shape[-1], ("x0", "x1")[: len(x)])


def _run(a: A, x, w, train):
    return F.linear(x[0], operand("weight", 1, x, w), operand("bias", 2, x, w))


def _axes(a: A, x: Types, y: Types) -> Axes:
    lead, i, o = labels(x[0].shape[:-1]), Dim("i", x[0].shape[-1]), Dim("o", a["out"])
    inputs, outputs = ((*lead, i), (o, i), (o,))[: max(1, len(x))], ((*lead, o),)
    if len(x) > 1:
        return Axes(inputs, outputs, attrs={"out": o})
    return Axes(inputs, outputs, {"weight": (o, i)} | ({"bias": (o,)} if a["bias"] else {}), attrs={"out": o})


def _onnx(o, a, x, w, xt, yt):
    weight, bias = operand("weight", 1, x, w), operand("bias", 2, x, w)
    if len(xt[0].shape) == 2:
        return o.node("Gemm", [x[0], weight, bias], transB=1)
    made = o.node("MatMul", [x[0], o.transpose(weight, (1, 0))])
    return o.node("Add", [made, bias]) if bias else made


def _source(a: A, x: Types, y: Types) -> Source:
    if len(x) > 1:
        return Source("F.linear({x})")
    return Source(module=f"nn.Linear({x[0].shape[-1]}, {a['out']}{'' if a['bias'] else ', bias=False'})")


# ------------------------------------------------------------------------------------------------------- embedding
def _embedding_infer(a: A, x: Types) -> tuple[Type, ...]:
    if x[0].dtype not in ("int64", "int32"):
        raise TypeMismatch(f"ids are {x[0]}, expected int64 or int32")
    _need_shape(x, 1, "weight", (a["num"], a["dim"]))
    padding = a["padding_idx"]
    if padding is not None and not -a["num"] <= padding < a["num"]:
        raise TypeMismatch(f"padding_idx={padding}, expected an index into {a['num']} rows")
    return (Type((*x[0].shape, a["dim"]), x[1].dtype if len(x) > 1 else "float32"),)


def _embedding_params(a: A, x: Types) -> dict[str, Param]:
    return {} if len(x) > 1 else {"weight": Param((a["num"], a["dim"]), ("normal", 1.0))}


def _embedding_cost(a: A, x: Types, y: Types) -> Cost:
    # one row is read for each index, not the whole table
    return Cost(0, ("x0",), moved=x[0].nbytes + 2 * y[0].nbytes)


def _embedding_run(a: A, x, w, train):
    return F.embedding(x[0], operand("weight", 1, x, w), a["padding_idx"])


def _embedding_axes(a: A, x: Types, y: Types) -> Axes:
    lead, row, o = labels(x[0].shape), Dim(None, a["num"]), Dim("o", a["dim"])
    if len(x) > 1:
        return Axes((lead, (row, o)), ((*lead, o),), attrs={"dim": o})
    return Axes((lead,), ((*lead, o),), {"weight": (row, o)}, attrs={"dim": o})


def _embedding_onnx(o, a, x, w, xt, yt):
    return o.node("Gather", [operand("weight", 1, x, w), x[0]], axis=0)


def _embedding_source(a: A, x: Types, y: Types) -> Source:
    padding = "" if a["padding_idx"] is None else f", padding_idx={a['padding_idx']}"
    if len(x) > 1:
        return Source(f"F.embedding({{x}}{padding})")
    return Source(module=f"nn.Embedding({a['num']}, {a['dim']}{padding})")


# -------------------------------------------------------------------------------------------------------- bilinear
def _bilinear_infer(a: A, x: Types) -> tuple[Type, ...]:
    for t in x:
        need_rank(t, 1)
        need_float(t)
    if x[0].shape[:-1] != x[1].shape[:-1]:
        raise TypeMismatch(f"inputs are {x[0]} and {x[1]}, expected equal shapes apart from the last dimension")
    return (Type((*x[0].shape[:-1], a["out"]), x[0].dtype),)


def _bilinear_params(a: A, x: Types) -> dict[str, Param]:
    first, second = x[0].shape[-1], x[1].shape[-1]
    bound = 1 / math.sqrt(max(1, first))
    found = {"weight": Param((a["out"], first, second), ("uniform", bound), x[0].dtype)}
    if a["bias"]:
        found["bias"] = Param((a["out"],), ("uniform", bound), x[0].dtype)
    return found


def _bilinear_cost(a: A, x: Types, y: Types) -> Cost:
    # the cheaper order: contract with the first input, then with the second
    rows = math.prod(x[0].shape[:-1])
    return Cost(2 * rows * a["out"] * x[1].shape[-1] * (x[0].shape[-1] + 1), ("x0", "x1"))


def _bilinear_run(a: A, x, w, train):
    return F.bilinear(x[0], x[1], w["weight"], w.get("bias"))


def _bilinear_axes(a: A, x: Types, y: Types) -> Axes:
    lead, o = labels(x[0].shape[:-1]), Dim("o", a["out"])
    i, j = Dim("i", x[0].shape[-1]), Dim("j", x[1].shape[-1])
    named = {"weight": (o, i, j)} | ({"bias": (o,)} if a["bias"] else {})
    return Axes(((*lead, i), (*lead, j)), ((*lead, o),), named, attrs={"out": o})


def _bilinear_onnx(o, a, x, w, xt, yt):
    first, second = xt[0].shape[-1], xt[1].shape[-1]
    # [..., i] -> [..., o * j] -> [..., o, j], then the sum over j as a product with a column
    weight = o.reshape(o.transpose(w["weight"], (1, 0, 2)), first, a["out"] * second)
    lead = [0] * (len(xt[0].shape) - 1)
    made = o.reshape(o.node("MatMul", [x[0], weight]), lead, a["out"], second)
    made = o.squeeze(o.node("MatMul", [made, o.unsqueeze(x[1], -1)]), -1)
    return o.node("Add", [made, w["bias"]]) if "bias" in w else made


def _bilinear_source(a: A, x: Types, y: Types) -> Source:
    bias = "" if a["bias"] else ", bias=False"
    return Source(module=f"nn.Bilinear({x[0].shape[-1]}, {x[1].shape[-1]}, {a['out']}{bias})")


_ATTRS = {"out": Attr("size"), "bias": Attr("bool", True)}

OPS = (
    Op(
        "linear", _infer, _run, _ATTRS, inputs=(1, 3), params=_params, cost=_cost, axes=_axes, onnx=_onnx,
        source=_source, doc="Matrix product over the last dimension, plus a bias.",
    ),
    Op(
        "embedding", _embedding_infer, _embedding_run,
        {"num": Attr("size"), "dim": Attr("size"), "padding_idx": Attr("int", None)}, inputs=(1, 2),
        params=_embedding_params, cost=_embedding_cost, axes=_embedding_axes, onnx=_embedding_onnx,
        source=_embedding_source,
        doc="A row of a table for each index. The row padding_idx gets no gradient; it is not set to zero.",
    ),
    Op(
        "bilinear", _bilinear_infer, _bilinear_run, _ATTRS, inputs=(2, 2), params=_bilinear_params,
        cost=_bilinear_cost, axes=_bilinear_axes, onnx=_bilinear_onnx, source=_bilinear_source,
        doc="A product of two inputs with a weight [out, in1, in2], plus a bias.",
    ),
)  # fmt: skip
