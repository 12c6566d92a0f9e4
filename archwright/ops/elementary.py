"""Functions of one tensor, point by point: exp, log, sine and their kin, rounding, clamp and cast."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from archwright.errors import GraphError
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Cost, Op, Source, Types, category, elementwise, literal, number
from archwright.ops.pointwise import (
    ALL,
    BITS,
    FLOATED,
    NUMBERS,
    ORDERED,
    PART,
    REAL,
    ROUNDED,
    TEST,
    differentiable,
    onnx_complex,
    onnx_complex_inverse,
    onnx_complex_mul,
    refuse_complex,
    ruled,
    scalar_dtype,
    unary,
)


def _after(o, a, x, dtype, *ops: str) -> str:
    """Operators of one input, one after the other."""
    for op in ops:
        x = o.node(op, [x])
    return x


def _onnx_exp2(o, a, x, dtype):
    return o.node("Exp", [o.node("Mul", [x, o.scalar(math.log(2), dtype)])])


def _onnx_log2(o, a, x, dtype):
    return o.node("Mul", [o.node("Log", [x]), o.scalar(1 / math.log(2), dtype)])


def _onnx_expm1(o, a, x, dtype):
    """exp(x) - 1, as 2 sinh(x / 2) exp(x / 2), which is exact near 0."""
    half = o.node("Mul", [x, o.scalar(0.5, dtype)])
    return o.node("Mul", [o.node("Mul", [o.node("Sinh", [half]), o.scalar(2, dtype)]), o.node("Exp", [half])])


def _onnx_log1p(o, a, x, dtype):
    """log(1 + x). Near 0, where 1 + x is rounded, log(u) x / (u - 1) with u = 1 + x as rounded (Kahan)."""
    one = o.scalar(1, dtype)
    u = o.node("Add", [x, one])
    rest = o.node("Sub", [u, one])
    log, exact = o.node("Log", [u]), o.node("Equal", [rest, o.scalar(0, dtype)])
    ratio = o.node("Div", [x, o.node("Where", [exact, one, rest])])
    plain = o.node("IsInf", [u])
    return o.node("Where", [exact, x, o.node("Mul", [log, o.node("Where", [plain, one, ratio])])])


def _onnx_rounding(op: str) -> Callable[..., str]:
    return lambda o, a, x, dtype: o.node(op if category(dtype) == 2 else "Identity", [x])


def onnx_trunc(o, a, x, dtype):
    """Rounded towards zero."""
    if category(dtype) < 2:
        return o.node("Identity", [x])
    return o.node("Mul", [o.node("Sign", [x]), o.node("Floor", [o.node("Abs", [x])])])


def _onnx_sign(o, a, x, dtype):
    return o.node("Identity" if dtype == "bool" else "Sign", [x])


def _onnx_logical_not(o, a, x, dtype):
    return o.node("Not", [x if dtype == "bool" else o.cast(x, "bool")])


def _onnx_bitwise_not(o, a, x, dtype):
    return o.node("Not" if dtype == "bool" else "BitwiseNot", [x])


def _onnx_is(op: str) -> Callable[..., str]:
    def write(o, a, x, dtype):
        return o.node(op, [x if category(dtype) == 2 else o.cast(x, "float32")])

    return write


def _complex_exp(o, x, dtype):
    real, imag = o.split(x, [1, 1], -1)
    return o.node("Mul", [o.node("Exp", [real]), o.concat([o.node("Cos", [imag]), o.node("Sin", [imag])], -1)])


_UNARY = (
    unary("neg", torch.neg, NUMBERS, (), "Neg", "-{x0}", complex_onnx=lambda o, x, d: o.node("Neg", [x])),
    unary(
        "abs", torch.abs, (None, "same", "same", "real"), ("x0",), "Abs", doc="|x|, real also for complex x",
        complex_onnx=lambda o, x, d: o.node("ReduceL2", [x, o.const([-1])], keepdims=0),
    ),
    unary("exp", torch.exp, FLOATED, ("y0",), "Exp", complex_onnx=_complex_exp),
    unary("expm1", torch.expm1, FLOATED, ("y0",), _onnx_expm1, doc="exp(x) - 1"),
    unary("exp2", torch.exp2, FLOATED, ("y0",), _onnx_exp2, doc="2 to the x"),
    unary("log", torch.log, FLOATED, ("x0",), "Log"),
    unary("log2", torch.log2, FLOATED, ("x0",), _onnx_log2),
    unary("log1p", torch.log1p, FLOATED, ("x0",), _onnx_log1p, doc="log(1 + x)"),
    unary("sqrt", torch.sqrt, FLOATED, ("y0",), "Sqrt"),
    unary("rsqrt", torch.rsqrt, FLOATED, ("y0",), lambda *given: _after(*given, "Sqrt", "Reciprocal"), doc="1 / sqrt"),
    unary(
        "square", torch.square, ("int64", "same", "same", "same"), ("x0",), lambda o, a, x, d: o.node("Mul", [x, x]),
        complex_onnx=lambda o, x, d: onnx_complex_mul(o, x, x, d),
    ),
    unary(
        "reciprocal", torch.reciprocal, FLOATED, ("y0",), "Reciprocal", complex_onnx=onnx_complex_inverse, doc="1 / x"
    ),
    unary("sin", torch.sin, FLOATED, ("x0",), "Sin"),
    unary("cos", torch.cos, FLOATED, ("x0",), "Cos"),
    unary("tan", torch.tan, FLOATED, ("y0",), "Tan"),
    unary("asin", torch.asin, FLOATED, ("x0",), "Asin"),
    unary("acos", torch.acos, FLOATED, ("x0",), "Acos"),
    unary("atan", torch.atan, FLOATED, ("x0",), "Atan"),
    unary("sinh", torch.sinh, FLOATED, ("x0",), "Sinh"),
    unary("cosh", torch.cosh, FLOATED, ("x0",), "Cosh"),
    unary("erf", torch.erf, REAL, ("x0",), "Erf", doc="the Gauss error function"),
    unary("floor", torch.floor, ROUNDED, (), _onnx_rounding("Floor")),
    unary("ceil", torch.ceil, ROUNDED, (), _onnx_rounding("Ceil")),
    unary("round", torch.round, ROUNDED, (), _onnx_rounding("Round"), doc="to the nearest integer, halves to even"),
    unary("trunc", torch.trunc, ROUNDED, (), onnx_trunc),
    unary("sign", torch.sign, ORDERED, (), _onnx_sign),
    unary("logical_not", torch.logical_not, TEST, (), _onnx_logical_not),
    unary("bitwise_not", torch.bitwise_not, BITS, (), _onnx_bitwise_not, "~{x0}"),
    unary("isnan", torch.isnan, TEST, (), _onnx_is("IsNaN")),
    unary("isinf", torch.isinf, TEST, (), _onnx_is("IsInf")),
    unary(
        "identity", lambda x: x, ALL, (), lambda o, a, x, d: x, "{x0}", complex_onnx=lambda o, x, d: x, view=True,
    ),
    unary(
        "detach", torch.detach, ALL, (), lambda o, a, x, d: x, "{x0}.detach()", view=True,
        complex_onnx=lambda o, x, d: x, doc="x, through which no gradient flows",
    ),
)  # fmt: skip


def _infer_cast(a: A, x: Types) -> tuple[Type, ...]:
    return (Type(x[0].shape, a["dtype"]),)


def _onnx_cast(o, a, x, w, xt, yt):
    dtype = a["dtype"]
    if dtype in PART:
        return onnx_complex(o, x[0], xt[0], dtype)
    value, kind = x[0], xt[0].dtype
    if kind in PART:
        if dtype == "bool":
            raise refuse_complex("cast to bool")
        value, kind = o.node("Gather", [value, o.scalar(0, "int64")], axis=-1), PART[kind]
    return value if kind == dtype else o.cast(value, dtype)


# ------------------------------------------------------------------------------------------------------- clamp
def _clamp_dtype(a: A, dtype: str) -> str:
    for bound in (a["min"], a["max"]):
        dtype = dtype if bound is None else scalar_dtype(dtype, bound)
    return dtype


def _infer_clamp(a: A, x: Types) -> tuple[Type, ...]:
    if a["min"] is None and a["max"] is None:
        raise GraphError("neither 'min' nor 'max' is given, expected at least one")
    ruled(ORDERED, x[0].dtype)
    return (Type(x[0].shape, _clamp_dtype(a, x[0].dtype)),)


def _run_clamp(a: A, x, w, train):
    return torch.clamp(x[0], number(a["min"]), number(a["max"]))


def _onnx_clamp(o, a, x, w, xt, yt):
    dtype = yt[0].dtype
    value = x[0] if xt[0].dtype == dtype else o.cast(x[0], dtype)
    return o.node("Clip", [value, *(None if a[n] is None else o.scalar(number(a[n]), dtype) for n in ("min", "max"))])


def _source_clamp(a: A, x: Types, y: Types) -> Source:
    bounds = ", ".join(f"{name}={literal(a[name])}" for name in ("min", "max") if a[name] is not None)
    return Source(f"{{x0}}.clamp({bounds})")


def _keeps_input(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0",)) if differentiable(x[0]) else Cost()


OPS = (
    *_UNARY,
    Op(
        "cast", _infer_cast, lambda a, x, w, train: x[0].to(getattr(torch, a["dtype"])),
        {"dtype": Attr("str", choices=tuple(DTYPES))}, axes=elementwise, onnx=_onnx_cast,
        source=lambda a, x, y: Source(f"{{x0}}.to(torch.{a['dtype']})"), doc="x in another dtype",
    ),
    Op(
        "clamp", _infer_clamp, _run_clamp, {"min": Attr("scalar", None), "max": Attr("scalar", None)},
        cost=_keeps_input, axes=elementwise, onnx=_onnx_clamp, source=_source_clamp, doc="x, held between min and max",
    ),
)  # fmt: skip
