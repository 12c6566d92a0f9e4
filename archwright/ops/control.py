"""Choice among branches: what makes a supernet a graph like any other.

mix     y = sum_i f(alpha)_i x_i            f is softmax, sigmoid or none; alpha is learned
switch  y = x_index                         the other branches are not run
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Param, Source, Types, labels, need_float

_WEIGHTING = {"softmax": "{alpha}.softmax(0)", "sigmoid": "{alpha}.sigmoid()", "none": "{alpha}"}


def mix(weights, *xs):
    """The sum of weights[i] * xs[i]."""
    total = weights[0] * xs[0]
    for weight, x in zip(weights[1:], xs[1:], strict=True):
        total = total + weight * x
    return total


def _infer_same(a: A, x: Types) -> tuple[Type, ...]:
    if any(t != x[0] for t in x):
        raise TypeMismatch(f"branches are {', '.join(map(str, x))}, expected one type")
    return (x[0],)


# ------------------------------------------------------------------------------------------------------------- mix
def _infer_mix(a: A, x: Types) -> tuple[Type, ...]:
    need_float(x[0])
    return _infer_same(a, x)


def _params_mix(a: A, x: Types) -> dict[str, Param]:
    n = len(x)
    init = ("constant", 1 / n) if a["weighting"] == "none" else ("zeros",)
    return {"alpha": Param((n,), init, x[0].dtype)}


def _run_mix(a: A, x, w, train):
    alpha = w["alpha"]
    match a["weighting"]:
        case "softmax":
            return mix(alpha.softmax(0), *x)
        case "sigmoid":
            return mix(alpha.sigmoid(), *x)
        case _:
            return mix(alpha, *x)


def _cost_mix(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=tuple([f"x{i}" for i in range(len(x))]))


def _axes_mix(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    return Axes((dims,) * len(x), (dims,), {"alpha": (Dim(None, len(x)),)})


def _onnx_mix(o, a, x, w, xt, yt):
    weights = w["alpha"]
    if a["weighting"] == "softmax":
        weights = o.node("Softmax", [weights], axis=0)
    elif a["weighting"] == "sigmoid":
        weights = o.node("Sigmoid", [weights])
    parts = [o.node("Mul", [o.node("Gather", [weights, o.scalar(i, "int64")]), v]) for i, v in enumerate(x)]
    return parts[0] if len(parts) == 1 else o.node("Sum", parts)


def _source_mix(a: A, x: Types, y: Types) -> Source:
    return Source(f"mix({_WEIGHTING[a['weighting']]}, {{x}})", helpers=(mix,))


# ---------------------------------------------------------------------------------------------------------- switch
def _infer_switch(a: A, x: Types) -> tuple[Type, ...]:
    _needs_switch(a, len(x))
    return _infer_same(a, x)


def _needs_switch(a: A, n: int) -> Sequence[int]:
    if not 0 <= a["index"] < n:
        raise TypeMismatch(f"index is {a['index']}, expected 0 to {n - 1} for {n} branches")
    return (a["index"],)


def _run_switch(a: A, x, w, train) -> torch.Tensor:
    return x[a["index"]]


def _cost_switch(a: A, x: Types, y: Types) -> Cost:
    return Cost(moved=0)


def _axes_switch(a: A, x: Types, y: Types) -> Axes:
    """All branches share their axes, so that any of them can be chosen after a change of width."""
    dims = labels(x[0].shape)
    return Axes((dims,) * len(x), (dims,))


def _onnx_switch(o, a, x, w, xt, yt):
    return o.node("Identity", [x[a["index"]]])


def _source_switch(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x{a['index']}}}")


OPS = (
    Op(
        "mix", _infer_mix, _run_mix, {"weighting": Attr("str", "softmax", tuple(_WEIGHTING))}, inputs=(1, None),
        params=_params_mix, cost=_cost_mix, axes=_axes_mix, onnx=_onnx_mix, source=_source_mix,
        doc="Weighted sum of branches of one type, with a learned weight for each.",
    ),
    Op(
        "switch", _infer_switch, _run_switch, {"index": Attr("int", 0)}, inputs=(1, None), cost=_cost_switch,
        axes=_axes_switch, onnx=_onnx_switch, source=_source_switch, needs=_needs_switch,
        doc="One of several branches of one type; only that one is run.",
    ),
)  # fmt: skip
