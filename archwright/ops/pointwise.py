"""What the ops that work point by point share: rules for dtypes, complex numbers in ONNX, and the maker of unary ops.

What is computed of which dtype is a rule: one entry for each category (bool, whole numbers, floating point, complex),
which is "same", "real" (the floating-point dtype of a complex one), a dtype, or None where torch refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from archwright.errors import EmitError, TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Attr, Cost, Op, Source, Types, category, elementwise, number

Rule = tuple[str | None, str | None, str | None, str | None]

ALL: Rule = ("same", "same", "same", "same")
FLOATED: Rule = ("float32", "float32", "same", "same")
REAL: Rule = ("float32", "float32", "same", None)
ORDERED: Rule = ("same", "same", "same", None)
NUMBERS: Rule = (None, "same", "same", "same")
ROUNDED: Rule = (None, "same", "same", None)
FLOATS: Rule = (None, None, "same", None)
BITS: Rule = ("same", "same", None, None)
TEST: Rule = ("bool", "bool", "bool", "bool")
COMPARED: Rule = ("bool", "bool", "bool", None)

PART = {"complex64": "float32", "complex128": "float64"}
"""The dtype of a complex dtype's real part."""

_NAMES = ("bool", "whole numbers", "floating point", "complex")


def ruled(rule: Rule, dtype: str) -> str:
    """The dtype that a rule gives. Raises `TypeMismatch`, naming what is allowed, where it gives none."""
    made = rule[category(dtype)]
    if made is None:
        allowed = [name for name, entry in zip(_NAMES, rule, strict=True) if entry is not None]
        raise TypeMismatch(f"dtype is {dtype}, expected {' or '.join(allowed)}: cast it first")
    if made == "same":
        return dtype
    return PART[dtype] if made == "real" else made


def scalar_dtype(dtype: str, value: Any) -> str:
    """The dtype in which torch computes with a tensor of `dtype` and a Python number."""
    value = number(value)
    kind = 0 if type(value) is bool else 1 if type(value) is int else 2
    return dtype if kind <= category(dtype) else "int64" if kind == 1 else "float32"


def differentiable(t: Type) -> bool:
    """Whether gradients flow to a value of this type."""
    return category(t.dtype) >= 2


# ------------------------------------------------------------------------------------------------ complex in ONNX
def refuse_complex(what: str) -> EmitError:
    """The error of an op that has no form in ONNX for complex numbers."""
    return EmitError(f"{what} of complex numbers has no form in ONNX: write the net as PyTorch source instead")


def onnx_complex(o, x: str, t: Type, dtype: str) -> str:
    """A value as a complex one of this dtype, which ONNX holds as a real one with a last dimension of 2."""
    if t.dtype == dtype:
        return x
    if t.dtype not in PART:
        x = o.unsqueeze(o.cast(x, PART[dtype]), -1)
        return o.node("Mul", [x, o.const([1, 0], PART[dtype])])
    return o.cast(x, PART[dtype])


def onnx_parts(o, x: str) -> tuple[str, str]:
    """Real and imaginary part of a complex value, each of the shape that the value has to us."""
    return tuple([o.node("Gather", [x, o.scalar(part, "int64")], axis=-1) for part in (0, 1)])  # type: ignore


def onnx_join(o, real: str, imag: str) -> str:
    """The complex value of two parts."""
    return o.concat([o.unsqueeze(real, -1), o.unsqueeze(imag, -1)], -1)


def by_parts(op: Op) -> Op:
    """The op whose ONNX form works on real and imaginary parts apart: for ops that only move or add numbers."""
    write = op.onnx
    assert write is not None

    def onnx(o, a, x, w, xt, yt):
        if not any(t.dtype in PART for t in xt):
            return write(o, a, x, w, xt, yt)
        split = [onnx_parts(o, v) if t.dtype in PART else (v, v) for v, t in zip(x, xt, strict=True)]
        real = [[t._replace(dtype=PART.get(t.dtype, t.dtype)) for t in types] for types in (xt, yt)]
        made = [write(o, a, [parts[k] for parts in split], w, *real) for k in (0, 1)]
        if isinstance(made[0], tuple):
            return tuple([onnx_join(o, *parts) for parts in zip(*made, strict=True)])
        return onnx_join(o, *made)

    return replace(op, onnx=onnx)


def onnx_bilinear(o, product, p: str, q: str) -> str:
    """A bilinear product of two complex values, from `product(p, q)` of real ones."""
    (a, b), (c, d) = onnx_parts(o, p), onnx_parts(o, q)
    real = o.node("Sub", [product(a, c), product(b, d)])
    return onnx_join(o, real, o.node("Add", [product(a, d), product(b, c)]))


def onnx_complex_mul(o, p: str, q: str, dtype: str) -> str:
    """p q of two complex values: p re(q) + (i p) im(q)."""
    real, imag = o.split(p, [1, 1], -1)
    turned = o.concat([o.node("Neg", [imag]), real], -1)
    real, imag = o.split(q, [1, 1], -1)
    return o.node("Add", [o.node("Mul", [p, real]), o.node("Mul", [turned, imag])])


def onnx_complex_inverse(o, x: str, dtype: str) -> str:
    """1 / x of a complex value: conj(x) / |x|^2."""
    square = o.node("ReduceSumSquare", [x, o.const([-1])], keepdims=1)
    return o.node("Div", [o.node("Mul", [x, o.const([1, -1], PART[dtype])]), square])


# --------------------------------------------------------------------------------------------------- one input
def unary(
    name: str,
    function: Callable[..., Any],
    rule: Rule,
    keeps: tuple[str, ...] = (),
    onnx: str | Callable[..., str] | None = None,
    source: str | Callable[[A], str] | None = None,
    *,
    attrs: Mapping[str, Attr] | None = None,
    extra: int = 0,
    complex_onnx: Callable[..., str] | None = None,
    random: bool = False,
    view: bool = False,
    doc: str = "",
) -> Op:
    """An op of one input that works point by point.

    function      f(x), or f(x, a, train) where the op has attributes or is random
    keeps, extra  what autograd keeps of a floating input: names, and how many further tensors of the input's size
    onnx          an operator's name, or f(o, a, x, dtype) -> value name; x has the output's dtype (for tests: its own)
    complex_onnx  the same for complex x, as f(o, x, dtype); None where there is no way
    source        an expression, or f(a) -> expression; by default torch's function of the op's name
    """
    takes_attrs = attrs is not None or random

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        return (Type(x[0].shape, ruled(rule, x[0].dtype)),)

    def run(a: A, x, w, train):
        return function(x[0], a, train) if takes_attrs else function(x[0])

    def cost(a: A, x: Types, y: Types) -> Cost:
        moved = 0 if view else None
        return Cost(0, keeps, extra * y[0].nbytes, moved) if differentiable(x[0]) else Cost(moved=moved)

    def write(o, a, x, w, xt, yt):
        value, dtype = x[0], xt[0].dtype
        if category(dtype) == 3:
            if complex_onnx is None:
                raise refuse_complex(name)
            return complex_onnx(o, value, dtype)
        if yt[0].dtype not in ("bool", dtype):
            value, dtype = o.cast(value, yt[0].dtype), yt[0].dtype
        return o.node(onnx, [value]) if isinstance(onnx, str) else onnx(o, a, value, dtype)  # type: ignore[misc]

    def text(a: A, x: Types, y: Types) -> Source:
        if source is None:
            return Source(f"torch.{name}({{x0}})")
        return Source(source if isinstance(source, str) else source(a))

    return Op(
        name, infer, run, attrs or {}, cost=cost, axes=elementwise, onnx=write if onnx else None, source=text,
        view=view, random=random, doc=doc,
    )  # fmt: skip
