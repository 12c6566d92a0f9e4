"""Activations: nonlinear functions of one tensor, point by point. prelu learns its slopes, glu gates half by half.

Shapes: x [...] -> y [...], except glu, whose dimension `dim` is halved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
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
    Prod,
    Source,
    Types,
    axis,
    labels,
    literal,
    need_float,
    number,
    operand,
)
from archwright.ops.pointwise import FLOATED, FLOATS, ROUNDED, Rule, unary

_SOFTSIGN: Rule = (None, "float32", "same", "same")


def _call(function: str, a: A, **renamed: str) -> str:
    """The call of a function of torch.nn.functional with the attributes as keywords (its own names where given)."""
    options = "".join(f", {renamed.get(key, key)}={literal(value)}" for key, value in a.items())
    return f"F.{function}({{x0}}{options})"


_MODULES = {
    "relu": "ReLU", "relu6": "ReLU6", "sigmoid": "Sigmoid", "tanh": "Tanh", "silu": "SiLU", "mish": "Mish",
    "selu": "SELU", "softsign": "Softsign", "tanhshrink": "Tanhshrink", "log_sigmoid": "LogSigmoid",
    "hardsigmoid": "Hardsigmoid",
    "hardswish": "Hardswish", "gelu": "GELU", "leaky_relu": "LeakyReLU", "elu": "ELU", "celu": "CELU", "glu": "GLU",
    "hardtanh": "Hardtanh", "softplus": "Softplus", "softshrink": "Softshrink", "hardshrink": "Hardshrink",
    "threshold": "Threshold",
}  # fmt: skip


def _with_module(op: Op) -> Op:
    """The op whose source leaves defaults out, and has the module of torch.nn as well."""
    made, write = _MODULES.get(op.name), op.source
    if made is None or write is None:
        return op

    def source(a: A, x: Types, y: Types) -> Source:
        told = {key: value for key, value in a.items() if key in op.required or value != op.defaults[key]}
        found = write(told if op.name != "glu" else a, x, y)
        inside = found.call.partition("{x0}")[2].removeprefix(", ").removesuffix(")")
        return replace(found, module=f"nn.{made}({inside})")

    return replace(op, source=source)


# ------------------------------------------------------------------------------------------------------------- onnx
def _with(op: str, **attributes: float) -> Callable[..., str]:
    """An ONNX operator with fixed attributes."""
    return lambda o, a, x, dtype: o.node(op, [x], **attributes)


def _from(op: str, **names: str) -> Callable[..., str]:
    """An ONNX operator whose attributes are ours, by other names."""
    return lambda o, a, x, dtype: o.node(op, [x], **{theirs: a[ours] for theirs, ours in names.items()})


def _onnx_clip(o, a, x, dtype):
    low, high = number(a.get("min", 0.0)), number(a.get("max", 6.0))
    return o.node("Clip", [x, o.scalar(low, dtype), o.scalar(high, dtype)])


def _onnx_silu(o, a, x, dtype):
    return o.node("Mul", [x, o.node("Sigmoid", [x])])


def _onnx_tanhshrink(o, a, x, dtype):
    return o.node("Sub", [x, o.node("Tanh", [x])])


def _onnx_log_sigmoid(o, a, x, dtype):
    return o.node("Neg", [o.node("Softplus", [o.node("Neg", [x])])])


def _onnx_softplus(o, a, x, dtype):
    beta = o.scalar(a["beta"], dtype)
    scaled = x if a["beta"] == 1 else o.node("Mul", [x, beta])
    made = o.node("Softplus", [scaled])
    made = made if a["beta"] == 1 else o.node("Div", [made, beta])
    if a["threshold"] >= 20:  # softplus(20) - 20 = 2e-9: no float32 tells them apart
        return made
    return o.node("Where", [o.node("Greater", [scaled, o.scalar(a["threshold"], dtype)]), x, made])


def _onnx_threshold(o, a, x, dtype):
    above = o.node("Greater", [x, o.scalar(a["threshold"], dtype)])
    return o.node("Where", [above, x, o.scalar(a["value"], dtype)])


def _rrelu(x, a: A, train: bool):
    if train:
        return F.rrelu(x, a["lower"], a["upper"], training=True)
    return F.leaky_relu(x, (a["lower"] + a["upper"]) / 2)  # the same, and known to vmap


def _onnx_rrelu(o, a, x, dtype):
    return o.node("LeakyRelu", [x], alpha=(a["lower"] + a["upper"]) / 2)


def _onnx_celu(o, a, x, dtype):
    """max(x, 0) + min(alpha (exp(x / alpha) - 1), 0); the operator Celu exists in float32 alone."""
    alpha, zero = o.scalar(a["alpha"], dtype), o.scalar(0, dtype)
    below = o.node("Sub", [o.node("Exp", [o.node("Div", [o.node("Min", [x, zero]), alpha])]), o.scalar(1, dtype)])
    return o.node("Add", [o.node("Max", [x, zero]), o.node("Mul", [alpha, below])])


# ------------------------------------------------------------------------------------------------------------ prelu
def _prelu_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_float(x[0])
    channels = x[0].shape[1] if len(x[0].shape) > 1 else 1
    if len(x) == 2:
        num = x[1].shape[0] if len(x[1].shape) == 1 else None
        if x[1].dtype != x[0].dtype:
            raise TypeMismatch(f"weight is {x[1]}, expected {x[0].dtype}, as the input is")
    else:
        num = a["num"]
    if num not in (1, channels):
        got = f"weight is {x[1]}" if len(x) == 2 else f"num={num}"
        raise TypeMismatch(f"{got}, expected 1 slope or one for each of the {channels} channels of {x[0]}")
    return (x[0],)


def _prelu_params(a: A, x: Types) -> dict[str, Param]:
    return {} if len(x) == 2 else {"weight": Param((a["num"],), ("constant", 0.25), x[0].dtype)}


def _prelu_run(a: A, x, w, train):
    return F.prelu(x[0], operand("weight", 1, x, w))


def _prelu_cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0", "x1")[: len(x)])


def _prelu_axes(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    num = x[1].shape[0] if len(x) == 2 else a["num"]
    slope = dims[1] if num > 1 else Dim(None, 1)
    if len(x) == 2:
        return Axes((dims, (slope,)), (dims,))
    return Axes((dims,), (dims,), {"weight": (slope,)}, attrs={"num": slope} if num > 1 else {})


def _prelu_onnx(o, a, x, w, xt, yt):
    weight, rank = operand("weight", 1, x, w), len(xt[0].shape)
    return o.node("PRelu", [x[0], o.unsqueeze(weight, *range(1, rank - 1)) if rank > 2 else weight])


def _prelu_source(a: A, x: Types, y: Types) -> Source:
    if len(x) == 2:
        return Source("F.prelu({x0}, {x1})")
    return Source(module=f"nn.PReLU({a['num'] if a['num'] > 1 else ''})")


# -------------------------------------------------------------------------------------------------------------- glu
def _glu_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_float(x[0])
    shape = list(x[0].shape)
    dim = axis(a["dim"], len(shape))
    if shape[dim] % 2:
        raise TypeMismatch(f"dimension {dim} of {x[0]} is odd, expected an even size to halve")
    shape[dim] //= 2
    return (Type(tuple(shape), x[0].dtype),)


def _glu_axes(a: A, x: Types, y: Types) -> Axes:
    out = labels(y[0].shape)
    dim = axis(a["dim"], len(out))
    halves = Prod(Dim(None, 2), out[dim])
    return Axes(((*out[:dim], halves, *out[dim + 1 :]),), (out,))


def _glu_onnx(o, a, x, w, xt, yt):
    dim = axis(a["dim"], len(xt[0].shape))
    value, gate = o.node("Split", [x[0]], outputs=2, axis=dim, num_outputs=2)
    return o.node("Mul", [value, o.node("Sigmoid", [gate])])


_NUMBER = "number"

_X0, _Y0 = ("x0",), ("y0",)

_OPS = (
    unary("relu", F.relu, ROUNDED, _Y0, "Relu", "F.relu({x0})", doc="max(x, 0)"),
    unary("relu6", F.relu6, ROUNDED, _X0, _onnx_clip, "F.relu6({x0})", doc="min(max(x, 0), 6)"),
    unary("sigmoid", torch.sigmoid, FLOATED, _Y0, "Sigmoid", doc="1 / (1 + exp(-x))"),
    unary("tanh", torch.tanh, FLOATED, _Y0, "Tanh"),
    unary("silu", F.silu, FLOATS, _X0, _onnx_silu, "F.silu({x0})", doc="x sigmoid(x)"),
    unary("mish", F.mish, FLOATS, _X0, "Mish", "F.mish({x0})", doc="x tanh(log(1 + exp(x)))"),
    unary("selu", F.selu, FLOATS, _X0, "Selu", "F.selu({x0})", doc="elu, scaled so that variance 1 stays 1"),
    unary("softsign", F.softsign, _SOFTSIGN, _X0, "Softsign", "F.softsign({x0})", extra=1, doc="x / (1 + |x|)"),
    unary(
        "tanhshrink", F.tanhshrink, _SOFTSIGN, (), _onnx_tanhshrink, "F.tanhshrink({x0})", extra=1, doc="x - tanh(x)"
    ),
    unary(
        "log_sigmoid", F.logsigmoid, FLOATS, _X0, _onnx_log_sigmoid, "F.logsigmoid({x0})", extra=1, doc="log sigmoid(x)"
    ),
    unary(
        "hardsigmoid", F.hardsigmoid, FLOATS, _X0, _with("HardSigmoid", alpha=1 / 6, beta=0.5), "F.hardsigmoid({x0})",
        doc="min(max(x + 3, 0), 6) / 6",
    ),
    unary("hardswish", F.hardswish, FLOATS, _X0, "HardSwish", "F.hardswish({x0})", doc="x hardsigmoid(x)"),
    unary(
        "gelu", lambda x, a, train: F.gelu(x, approximate=a["approximate"]), FLOATS, _X0,
        _from("Gelu", approximate="approximate"),
        lambda a: f"F.gelu({{x0}}, approximate={a['approximate']!r})" if a else "F.gelu({x0})",
        attrs={"approximate": Attr("str", "none", ("none", "tanh"))}, doc="x P(z < x) for z standard normal",
    ),
    unary(
        "leaky_relu", lambda x, a, train: F.leaky_relu(x, a["slope"]), FLOATS, _X0, _from("LeakyRelu", alpha="slope"),
        lambda a: _call("leaky_relu", a, slope="negative_slope"), attrs={"slope": Attr(_NUMBER, 0.01)},
        doc="x if x > 0 else slope x",
    ),
    unary(
        "elu", lambda x, a, train: F.elu(x, a["alpha"]), FLOATS, _X0, _from("Elu", alpha="alpha"),
        lambda a: _call("elu", a), attrs={"alpha": Attr(_NUMBER, 1.0)}, doc="x if x > 0 else alpha (exp(x) - 1)",
    ),
    unary(
        "celu", lambda x, a, train: F.celu(x, a["alpha"]), FLOATS, _X0, _onnx_celu, lambda a: _call("celu", a),
        attrs={"alpha": Attr(_NUMBER, 1.0)}, doc="x if x > 0 else alpha (exp(x / alpha) - 1)",
    ),
    unary(
        "hardtanh", lambda x, a, train: F.hardtanh(x, number(a["min"]), number(a["max"])), ROUNDED, _X0, _onnx_clip,
        lambda a: _call("hardtanh", a, min="min_val", max="max_val"),
        attrs={"min": Attr(_NUMBER, -1.0), "max": Attr(_NUMBER, 1.0)}, doc="min(max(x, min), max)",
    ),
    unary(
        "softplus", lambda x, a, train: F.softplus(x, a["beta"], a["threshold"]), FLOATS, _X0, _onnx_softplus,
        lambda a: _call("softplus", a), attrs={"beta": Attr(_NUMBER, 1.0), "threshold": Attr(_NUMBER, 20.0)},
        doc="log(1 + exp(beta x)) / beta, and x where beta x > threshold",
    ),
    unary(
        "softshrink", lambda x, a, train: F.softshrink(x, a["lambd"]), FLOATS, _X0,
        _from("Shrink", lambd="lambd", bias="lambd"), lambda a: _call("softshrink", a),
        attrs={"lambd": Attr(_NUMBER, 0.5)}, doc="sign(x) max(|x| - lambd, 0)",
    ),
    unary(
        "hardshrink", lambda x, a, train: F.hardshrink(x, a["lambd"]), FLOATS, _X0, _from("Shrink", lambd="lambd"),
        lambda a: _call("hardshrink", a), attrs={"lambd": Attr(_NUMBER, 0.5)}, doc="x if |x| > lambd else 0",
    ),
    unary(
        "threshold", lambda x, a, train: F.threshold(x, a["threshold"], a["value"]), ROUNDED, _X0, _onnx_threshold,
        lambda a: _call("threshold", a), attrs={"threshold": Attr(_NUMBER), "value": Attr(_NUMBER)},
        doc="x if x > threshold else value",
    ),
    unary(
        "rrelu", _rrelu, FLOATS, _X0, _onnx_rrelu,
        lambda a: _call("rrelu", a)[:-1] + ", training={training})",
        attrs={"lower": Attr(_NUMBER, 1 / 8), "upper": Attr(_NUMBER, 1 / 3)}, extra=1, random=True,
        doc="leaky_relu with a slope drawn from [lower, upper] for each element in training, the middle otherwise",
    ),
    Op(
        "prelu", _prelu_infer, _prelu_run, {"num": Attr("size", 1)}, inputs=(1, 2), params=_prelu_params,
        cost=_prelu_cost, axes=_prelu_axes, onnx=_prelu_onnx, source=_prelu_source,
        doc="x if x > 0 else weight x, with one slope, or one for each channel (dimension 1)",
    ),
    Op(
        "glu", _glu_infer, lambda a, x, w, train: F.glu(x[0], a["dim"]), {"dim": Attr("int", -1)},
        cost=lambda a, x, y: Cost(keeps=_X0), axes=_glu_axes, onnx=_glu_onnx,
        source=lambda a, x, y: Source(f"F.glu({{x0}}, {a['dim']})"), doc="one half times the sigmoid of the other",
    ),
)  # fmt: skip

OPS = tuple([_with_module(op) for op in _OPS])
