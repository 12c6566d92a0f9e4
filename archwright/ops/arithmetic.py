"""Functions of two tensors, point by point, or of a tensor and a number; choosing and mixing by masks and weights.

Shapes broadcast and dtypes promote as in torch. An op z = f(x, y) of two tensors is with one input an op of a tensor
and the number `value`, and z = f(value, x) where `reverse` is set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Cost,
    Op,
    Source,
    Types,
    broadcast,
    category,
    elementwise,
    literal,
    number,
    promote,
)
from archwright.ops.elementary import onnx_trunc
from archwright.ops.pointwise import (
    ALL,
    BITS,
    COMPARED,
    FLOATED,
    NUMBERS,
    ORDERED,
    PART,
    REAL,
    ROUNDED,
    TEST,
    Rule,
    differentiable,
    onnx_complex,
    onnx_complex_inverse,
    onnx_complex_mul,
    refuse_complex,
    ruled,
    scalar_dtype,
)


# -------------------------------------------------------------------------------------------------- two inputs
def _common(a: A, x: Types) -> str:
    """The dtype in which two operands meet. Checks that there are two."""
    if len(x) == 2:
        if a["value"] is not None or a["reverse"]:
            raise GraphError("'value' and 'reverse' are for one input: got two inputs")
        return promote(x)
    if a["value"] is None:
        raise GraphError("one input and no 'value': give a second input, or a number as 'value'")
    return scalar_dtype(x[0].dtype, a["value"])


def _filled(x, value):
    """A number as a 0-dimensional tensor of the dtype that it promotes to."""
    dtype = getattr(torch, scalar_dtype(str(x.dtype).removeprefix("torch."), value))
    return torch.full((), value, dtype=dtype, device=x.device)


def _binary(
    name: str,
    function: Callable[..., Any],
    reverse: Callable[..., Any] | None,
    rule: Rule | Callable[[A, Types], Rule],
    keeps: Callable[[A, Types], Sequence[str]],
    onnx: str | Callable[..., str],
    symbol: str | Callable[[A], str],
    *,
    attrs: Mapping[str, Attr] | None = None,
    complex_onnx: Callable[..., str] | None = None,
    doc: str = "",
) -> Op:
    """An op of two operands that works point by point.

    function      f(x, y), or f(x, y, a) where the op has further attributes; y may be a number if `reverse` is given
    reverse       f(value, x), or f(value, x, a), with a number first; None where torch takes tensors only
    keeps         what autograd keeps, from attributes and input types
    onnx          an operator's name, or f(o, a, p, q, dtype) with both operands in their common dtype
    symbol        Python's operator or the name of torch's function, or f(a) -> one of them
    """

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        common = _common(a, x)
        return (Type(broadcast(x), ruled(rule if isinstance(rule, tuple) else rule(a, x), common)),)

    def run(a: A, x, w, train):
        more = (a,) if attrs else ()
        if len(x) == 2:
            return function(x[0], x[1], *more)
        value = number(a["value"])
        if reverse is None:
            filled = _filled(x[0], value)
            return function(filled, x[0], *more) if a["reverse"] else function(x[0], filled, *more)
        return reverse(value, x[0], *more) if a["reverse"] else function(x[0], value, *more)

    def cost(a: A, x: Types, y: Types) -> Cost:
        return Cost(keeps=tuple(keeps(a, x))) if any(map(differentiable, x)) else Cost()

    def write(o, a, x, w, xt, yt):
        dtype = _common(a, xt)
        if dtype in PART:
            if complex_onnx is None:
                raise refuse_complex(name)
            given = [onnx_complex(o, v, t, dtype) for v, t in zip(x, xt, strict=True)]
            if len(given) == 1:
                given.append(o.const([number(a["value"]), 0], PART[dtype]))
        else:
            given = [v if t.dtype == dtype else o.cast(v, dtype) for v, t in zip(x, xt, strict=True)]
            if len(given) == 1:
                given.append(o.scalar(number(a["value"]), dtype))
        p, q = reversed(given) if a["reverse"] else given
        if dtype in PART:
            return complex_onnx(o, p, q, dtype)  # type: ignore[misc]
        return o.node(onnx, [p, q]) if isinstance(onnx, str) else onnx(o, a, p, q, dtype)

    def text(a: A, x: Types, y: Types) -> Source:
        written = symbol if isinstance(symbol, str) else symbol(a)
        called = written[0].isalpha()
        given = ["{x0}", "{x1}" if len(x) == 2 else literal(a["value"])]
        if called and len(x) == 1 and (a["reverse"] or reverse is None):
            dtype = scalar_dtype(x[0].dtype, a["value"])
            given[1] = f"torch.full((), {given[1]}, dtype=torch.{dtype}, device={{x0}}.device)"
        p, q = reversed(given) if a["reverse"] else given
        rounding = f", rounding_mode={a['rounding']!r}" if a.get("rounding") else ""
        return Source(f"torch.{written}({p}, {q}{rounding})" if called else f"{p} {written} {q}")

    schema = {"value": Attr("scalar", None), "reverse": Attr("bool", False), **(attrs or {})}
    return Op(name, infer, run, schema, inputs=(1, 2), cost=cost, axes=elementwise, onnx=write, source=text, doc=doc)


def _nothing(a: A, x: Types) -> Sequence[str]:
    return ()


def _keeps_mul(a: A, x: Types) -> Sequence[str]:
    """Each factor is kept for the other's gradient."""
    return [f"x{i}" for i in range(len(x)) if len(x) == 2 and differentiable(x[1 - i])]


def _keeps_div(a: A, x: Types) -> Sequence[str]:
    if len(x) == 1:
        return ("x0",) if a["reverse"] else ()
    return ("x0", "x1") if differentiable(x[1]) else ("x1",)


def _keeps_pow(a: A, x: Types) -> Sequence[str]:
    if len(x) == 1:
        return ("x0", "y0") if a["reverse"] else ("x0",)
    return ("x0", "x1", "y0") if differentiable(x[1]) else ("x0", "x1")


def _keeps_both(a: A, x: Types) -> Sequence[str]:
    return ("x0", "x1")[: len(x)]


def _keeps_remainder(a: A, x: Types) -> Sequence[str]:
    if len(x) == 1:
        return ("x0",) if a["reverse"] else ()
    return ("x0", "x1") if differentiable(x[1]) else ()


def _rule_sub(a: A, x: Types) -> Rule:
    if type(a["value"]) is bool or any(t.dtype == "bool" for t in x):
        raise TypeMismatch("bool is subtracted or subtracted from: use logical_xor or logical_not, or cast it first")
    return NUMBERS


def _rule_div(a: A, x: Types) -> Rule:
    return FLOATED if a["rounding"] is None else ROUNDED


def _symbol_div(a: A) -> str:
    return "/" if a["rounding"] is None else "div"


def _div(p, q, a: A):
    return torch.div(p, q, rounding_mode=a["rounding"])


def _div_of(value, x, a: A):
    return torch.div(_filled(x, value), x, rounding_mode=a["rounding"])


def _remainder_of(value, x):
    return torch.remainder(_filled(x, value), x)  # of a Python number torch knows no gradient


def _onnx_div(o, a, p, q, dtype):
    if a["rounding"] is None:
        if category(dtype) < 2:
            p, q = o.cast(p, "float32"), o.cast(q, "float32")
        return o.node("Div", [p, q])
    if category(dtype) == 2:
        if a["rounding"] == "trunc":
            return onnx_trunc(o, a, o.node("Div", [p, q]), dtype)
        rest = o.node("Mod", [p, q], fmod=1)  # exact, where the quotient itself may round up to a whole number
        made = o.node("Round", [o.node("Div", [o.node("Sub", [p, rest]), q])])
        return o.node("Sub", [made, o.cast(_wrong_sign(o, rest, q, dtype), dtype)])
    made = o.node("Div", [p, q])  # of whole numbers: towards 0
    if a["rounding"] == "trunc":
        return made
    rest = o.node("Sub", [p, o.node("Mul", [made, q])])
    return o.node("Sub", [made, o.cast(_wrong_sign(o, rest, q, dtype), dtype)])


def _wrong_sign(o, rest: str, q: str, dtype: str) -> str:
    """Whether a remainder is not 0 and has another sign than the divisor."""
    zero = o.scalar(0, dtype)
    other = o.node("Xor", [o.node("Less", [rest, zero]), o.node("Less", [q, zero])])
    return o.node("And", [other, o.node("Not", [o.node("Equal", [rest, zero])])])


def _onnx_remainder(o, a, p, q, dtype):
    if category(dtype) < 2:
        return o.node("Mod", [p, q])
    rest = o.node("Mod", [p, q], fmod=1)
    return o.node("Where", [_wrong_sign(o, rest, q, dtype), o.node("Add", [rest, q]), rest])


def onnx_atan2(o, a, p, q, dtype):
    """atan(y / x), plus pi with the sign of y where x < 0; y / 0 is infinite, and 0 / 0 is taken as 0."""
    if category(dtype) < 2:
        p, q, dtype = o.cast(p, "float32"), o.cast(q, "float32"), "float32"
    zero = o.scalar(0, dtype)
    both = o.node("And", [o.node("Equal", [p, zero]), o.node("Equal", [q, zero])])
    angle = o.node("Atan", [o.node("Div", [p, o.node("Where", [both, o.scalar(1, dtype), q])])])
    turn = o.node("Where", [o.node("Less", [p, zero]), o.scalar(-math.pi, dtype), o.scalar(math.pi, dtype)])
    return o.node("Add", [angle, o.node("Where", [o.node("Less", [q, zero]), turn, zero])])


def _onnx_extreme(op: str) -> Callable[..., str]:
    def write(o, a, p, q, dtype):
        if dtype == "bool":
            return o.node("Or" if op == "Max" else "And", [p, q])
        return o.node(op, [p, q])

    return write


def _onnx_logical(op: str) -> Callable[..., str]:
    def write(o, a, p, q, dtype):
        return o.node(op, [p, q] if dtype == "bool" else [o.cast(p, "bool"), o.cast(q, "bool")])

    return write


def _onnx_bits(op: str) -> Callable[..., str]:
    return lambda o, a, p, q, dtype: o.node(op if dtype == "bool" else f"Bitwise{op}", [p, q])


def _onnx_sum(o, a, p, q, dtype):
    return o.node("Or" if dtype == "bool" else "Add", [p, q])


def _onnx_product(o, a, p, q, dtype):
    return o.node("And" if dtype == "bool" else "Mul", [p, q])


def _onnx_equal(negated: bool) -> Callable[..., str]:
    def write(o, a, p, q, dtype):
        made = o.node("Equal", [p, q])
        return o.node("Not", [made]) if negated else made

    return write


def _onnx_compared(op: str) -> Callable[..., str]:
    def write(o, a, p, q, dtype):
        if dtype == "bool":
            p, q = o.cast(p, "int32"), o.cast(q, "int32")
        return o.node(op, [p, q])

    return write


def _swapped(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda value, x: function(x, value)


def _plain(op: str) -> Callable[..., str]:
    return lambda o, p, q, dtype: o.node(op, [p, q])


_ROUNDING = {"rounding": Attr("str", None, ("floor", "trunc"))}

_BINARY = (
    _binary(
        "add", torch.add, _swapped(torch.add), ALL, _nothing, _onnx_sum, "+", complex_onnx=_plain("Add"), doc="x + y"
    ),
    _binary(
        "sub", torch.sub, _swapped(torch.rsub), _rule_sub, _nothing, "Sub", "-", complex_onnx=_plain("Sub"), doc="x - y"
    ),
    _binary(
        "mul", torch.mul, _swapped(torch.mul), ALL, _keeps_mul, _onnx_product, "*", complex_onnx=onnx_complex_mul,
        doc="x y",
    ),
    _binary(
        "div", _div, _div_of, _rule_div, _keeps_div, _onnx_div, _symbol_div, attrs=_ROUNDING,
        complex_onnx=lambda o, p, q, dtype: onnx_complex_mul(o, p, onnx_complex_inverse(o, q, dtype), dtype),
        doc="x / y, rounded down or towards zero where 'rounding' says so",
    ),
    _binary("pow", torch.pow, torch.pow, NUMBERS, _keeps_pow, "Pow", "**", doc="x to the y"),
    _binary("maximum", torch.maximum, None, ORDERED, _keeps_both, _onnx_extreme("Max"), "maximum"),
    _binary("minimum", torch.minimum, None, ORDERED, _keeps_both, _onnx_extreme("Min"), "minimum"),
    _binary(
        "remainder", torch.remainder, _remainder_of, ROUNDED, _keeps_remainder, _onnx_remainder, "%",
        doc="x modulo y, with the sign of y",
    ),
    _binary("atan2", torch.atan2, None, REAL, _keeps_both, onnx_atan2, "atan2", doc="the angle of (y, x)"),
    _binary("eq", torch.eq, _swapped(torch.eq), TEST, _nothing, _onnx_equal(False), "=="),
    _binary("ne", torch.ne, _swapped(torch.ne), TEST, _nothing, _onnx_equal(True), "!="),
    _binary("lt", torch.lt, _swapped(torch.gt), COMPARED, _nothing, _onnx_compared("Less"), "<"),
    _binary("le", torch.le, _swapped(torch.ge), COMPARED, _nothing, _onnx_compared("LessOrEqual"), "<="),
    _binary("gt", torch.gt, _swapped(torch.lt), COMPARED, _nothing, _onnx_compared("Greater"), ">"),
    _binary("ge", torch.ge, _swapped(torch.le), COMPARED, _nothing, _onnx_compared("GreaterOrEqual"), ">="),
    _binary("logical_and", torch.logical_and, None, TEST, _nothing, _onnx_logical("And"), "logical_and"),
    _binary("logical_or", torch.logical_or, None, TEST, _nothing, _onnx_logical("Or"), "logical_or"),
    _binary("logical_xor", torch.logical_xor, None, TEST, _nothing, _onnx_logical("Xor"), "logical_xor"),
    _binary("bitwise_and", torch.bitwise_and, _swapped(torch.bitwise_and), BITS, _nothing, _onnx_bits("And"), "&"),
    _binary("bitwise_or", torch.bitwise_or, _swapped(torch.bitwise_or), BITS, _nothing, _onnx_bits("Or"), "|"),
)  # fmt: skip


# ----------------------------------------------------------------------------------------- where, masked_fill, lerp
def _need_mask(t: Type, what: str) -> None:
    if t.dtype != "bool":
        raise TypeMismatch(f"{what} is {t}, expected bool: compare or cast it first")


def _infer_where(a: A, x: Types) -> tuple[Type, ...]:
    _need_mask(x[0], "condition")
    return (Type(broadcast(x), promote(x[1:])),)


def _run_where(a: A, x, w, train):
    return torch.where(*x)


def _cost_where(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0",)) if any(map(differentiable, x[1:])) else Cost()


def _onnx_where(o, a, x, w, xt, yt):
    dtype = yt[0].dtype
    condition = x[0]
    if dtype in PART:
        given = [onnx_complex(o, v, t, dtype) for v, t in zip(x[1:], xt[1:], strict=True)]
        return o.node("Where", [o.unsqueeze(condition, -1), *given])
    held = "uint8" if dtype == "bool" else dtype  # ONNX Runtime selects among numbers only
    given = [v if t.dtype == held else o.cast(v, held) for v, t in zip(x[1:], xt[1:], strict=True)]
    made = o.node("Where", [condition, *given])
    return made if held == dtype else o.cast(made, dtype)


def _infer_masked_fill(a: A, x: Types) -> tuple[Type, ...]:
    _need_mask(x[1], "mask")
    if scalar_dtype(x[0].dtype, a["value"]) != x[0].dtype and category(x[0].dtype) == 0:
        raise TypeMismatch(f"input is {x[0]} and value {a['value']!r}: expected true or false as value")
    return (Type(broadcast(x), x[0].dtype),)


def _run_masked_fill(a: A, x, w, train):
    return x[0].masked_fill(x[1], number(a["value"]))


def _cost_masked_fill(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x1",)) if differentiable(x[0]) else Cost()


def _onnx_masked_fill(o, a, x, w, xt, yt):
    dtype, value, mask = yt[0].dtype, number(a["value"]), x[1]
    if dtype in PART:
        return o.node("Where", [o.unsqueeze(mask, -1), o.const([value, 0], PART[dtype]), x[0]])
    if dtype == "bool":
        return o.node("Or", [x[0], mask]) if value else o.node("And", [x[0], o.node("Not", [mask])])
    return o.node("Where", [mask, o.scalar(value, dtype), x[0]])


def _source_masked_fill(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.masked_fill({{x1}}, {literal(a['value'])})")


def _infer_lerp(a: A, x: Types) -> tuple[Type, ...]:
    if (a["weight"] is None) != (len(x) == 3):
        raise GraphError(f"got {len(x)} inputs and weight={a['weight']}, expected either a third input or 'weight'")
    if category(x[0].dtype) < 2 or any(t.dtype != x[0].dtype for t in x):
        raise TypeMismatch(f"inputs are {', '.join(map(str, x))}, expected one floating-point or complex dtype")
    return (Type(broadcast(x), x[0].dtype),)


def _run_lerp(a: A, x, w, train):
    return torch.lerp(x[0], x[1], x[2] if len(x) == 3 else a["weight"])


def _cost_lerp(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0", "x1", "x2") if len(x) == 3 else ())


def _onnx_lerp(o, a, x, w, xt, yt):
    dtype = yt[0].dtype
    if dtype in PART:
        raise refuse_complex("lerp")
    weight = x[2] if len(x) == 3 else o.scalar(a["weight"], dtype)
    return o.node("Add", [x[0], o.node("Mul", [weight, o.node("Sub", [x[1], x[0]])])])


def _source_lerp(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.lerp({{x0}}, {{x1}}, {'{x2}' if len(x) == 3 else literal(a['weight'])})")


OPS = (
    *_BINARY,
    Op(
        "where", _infer_where, _run_where, {}, inputs=(3, 3), cost=_cost_where, axes=elementwise, onnx=_onnx_where,
        source=lambda a, x, y: Source("torch.where({x0}, {x1}, {x2})"), doc="y where the condition x holds, else z",
    ),
    Op(
        "masked_fill", _infer_masked_fill, _run_masked_fill, {"value": Attr("scalar")}, inputs=(2, 2),
        cost=_cost_masked_fill, axes=elementwise, onnx=_onnx_masked_fill, source=_source_masked_fill,
        doc="x, with a number in its place where the mask holds",
    ),
    Op(
        "lerp", _infer_lerp, _run_lerp, {"weight": Attr("number", None)}, inputs=(2, 3), cost=_cost_lerp,
        axes=elementwise, onnx=_onnx_lerp, source=_source_lerp, doc="x + weight (y - x)",
    ),
)  # fmt: skip
