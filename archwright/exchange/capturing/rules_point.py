"""Rules for what works point by point: activations, arithmetic, comparisons, and changes of dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from archwright.exchange.capturing.program import Meta, Size
from archwright.exchange.capturing.table import Unfit, attrs_of, rule
from archwright.exchange.capturing.values import Known, Made, Value, constant, dtype_name, filled, scalar, stretched

# ------------------------------------------------------------------------------------------------------------- unary
_SAME = [
    "relu", "relu6", "sigmoid", "tanh", "silu", "mish", "selu", "log_sigmoid", "hardsigmoid", "hardswish", "abs",
    "neg", "exp", "expm1", "exp2", "log", "log2", "log1p", "sqrt", "rsqrt", "square", "reciprocal", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "erf", "floor", "ceil", "trunc", "sign", "logical_not",
    "bitwise_not", "isnan", "isinf", "angle", "real", "imag",
]
_RENAMED = {
    "negative": "neg", "absolute": "abs", "arcsin": "asin", "arccos": "acos", "arctan": "atan", "special_erf": "erf",
    "special_expit": "sigmoid", "sgn": "sign", "fix": "trunc", "special_expm1": "expm1", "special_exp2": "exp2",
    "special_log1p": "log1p", "conj": "conj", "_conj": "conj", "conj_physical": "conj", "view_as_real": "view_as_real",
    "view_as_complex": "view_as_complex",
}  # fmt: skip


def _unary(op: str) -> Any:
    def run(c, call, a):
        return c.emit(op, floating(c, _only(a), call.out))

    return run


def _only(a: dict[str, Any]) -> Value:
    return a["self"] if "self" in a else a["input"]  # type: ignore[no-any-return]


for _name in _SAME:
    rule(_name)(_unary(_name))
for _name, _op in _RENAMED.items():
    rule(_name)(_unary(_op))


def floating(c, value: Value, out: Meta) -> Value:
    """Whole numbers made floating where the result is: sqrt(3) and its kin."""
    if "float" in out.dtype and "float" not in value.meta.dtype and "complex" not in value.meta.dtype:
        return c.cast(value, out.dtype)  # type: ignore[no-any-return]
    return value


def _activation(names: str, op: str, **attrs: str) -> None:
    def run(c, call, a):
        return c.emit(op, a["self"], **attrs_of(a, **attrs))

    rule(*names.split())(run)


_activation("gelu", "gelu", approximate="approximate")
_activation("leaky_relu", "leaky_relu", slope="negative_slope")
_activation("celu", "celu", alpha="alpha")
_activation("softplus", "softplus", beta="beta", threshold="threshold")
_activation("softshrink", "softshrink", lambd="lambd")
_activation("hardshrink", "hardshrink", lambd="lambd")
_activation("threshold", "threshold", threshold="threshold", value="value")
_activation("glu", "glu", dim="dim")


@rule("elu")
def _elu(c, call, a):
    if a["scale"] != 1 or a["input_scale"] != 1:
        raise Unfit("a scaled elu")
    return c.emit("elu", a["self"], alpha=a["alpha"])


@rule("hardtanh")
def _hardtanh(c, call, a):
    if (a["min_val"], a["max_val"]) == (0, 6):
        return c.emit("relu6", a["self"])
    return c.emit("hardtanh", a["self"], min=a["min_val"], max=a["max_val"])


@rule("round")
def _round(c, call, a):
    if a.get("decimals"):
        raise Unfit("decimals")
    return c.emit("round", a["self"])


@rule("frac")
def _frac(c, call, a):
    return c.emit("sub", a["self"], c.emit("trunc", a["self"]))


@rule("rrelu")
def _rrelu(c, call, a):
    lower, upper = float(a["lower"]), float(a["upper"])
    if c.train and not a["training"]:
        return c.emit("leaky_relu", a["self"], slope=(lower + upper) / 2)
    if a["training"] and not c.train:
        raise Unfit("random slopes in eval mode")
    return c.emit("rrelu", a["self"], lower=lower, upper=upper)


@rule("nan_to_num")
def _nan_to_num(c, call, a):
    x = a["self"]
    limits = torch.finfo(getattr(torch, x.meta.dtype)) if "float" in x.meta.dtype else None
    if limits is None:
        return x
    nan, high, low = a["nan"] or 0.0, a["posinf"], a["neginf"]
    made = c.emit("where", c.emit("isnan", x), _number(c, nan, x), x)
    if high is None and low is None:
        return c.emit("clamp", made, min=limits.min, max=limits.max)
    raise Unfit("replacements for infinities")


def _number(c, number: float, like: Value) -> Value:
    return constant(torch.tensor(number, dtype=getattr(torch, like.meta.dtype)))


# ------------------------------------------------------------------------------------------------------------ binary
def binary(c, op: str, call: Any, x: Any, y: Any, **attrs: Any) -> Value:
    """One of our binary ops on values or numbers. A constant that is one number everywhere becomes an attribute."""
    out: Meta = call.out
    if isinstance(x, Size) or isinstance(y, Size):
        x, y = (size(c, v) if isinstance(v, Size) else v for v in (x, y))
    for number, other, reverse in ((scalar(y), x, False), (scalar(x), y, True)):
        if number is None or scalar(other) is not None or not _fits(number, other):
            continue
        given = y if not reverse else x
        if isinstance(given, Known) and given.meta.dtype != other.meta.dtype and given.meta.shape:
            continue  # a tensor takes part in the promotion of dtypes, a number does not
        made = c.emit(op, other, value=number, **({"reverse": True} if reverse else {}), **attrs)
        if made.meta.shape != out.shape:
            made = c.broadcast(made, out)
        return made  # type: ignore[no-any-return]
    x, y = (constant(torch.tensor(v)) if isinstance(v, (int, float, bool, complex)) else v for v in (x, y))
    return c.emit(op, narrow(c, x, y, out), narrow(c, y, x, out), **attrs)  # type: ignore[no-any-return]


def _fits(number: Any, other: Any) -> bool:
    return number == number and not isinstance(other, (int, float, bool, complex))


def narrow(c, value: Value, other: Value, out: Meta) -> Value:
    """A constant with the dimensions that broadcasting against the other would fill anyway left at size 1."""
    if not isinstance(value, Known) or other.meta.shape != out.shape:
        return value
    tensor = value.tensor
    lead = len(out.shape) - tensor.dim()
    small = tuple([n if n == out.shape[lead + i] else 1 for i, n in enumerate(tensor.shape)])
    return stretched(Known(tensor, Meta(small, value.meta.dtype), value.name), small)


def size(c, n: Size) -> Made:
    """A number that depends on the batch, as a value."""
    made = c.emit("add", c.emit("amax", c.emit("arange", c.ref(), dim=0)), value=1)
    if n.k != 1:
        made = c.emit("mul", made, value=n.k)
    return c.emit("add", made, value=n.c) if n.c else made  # type: ignore[no-any-return]


def _binary(names: str, op: str, **attrs: Any) -> None:
    def run(c, call, a):
        return binary(c, op, call, a["self"], a["other"], **attrs)

    rule(*names.split())(run)


for _names, _op in {
    "mul multiply": "mul", "maximum": "maximum", "minimum": "minimum", "atan2 arctan2": "atan2",
    "eq": "eq", "ne not_equal": "ne", "lt less": "lt", "le less_equal": "le", "gt greater": "gt",
    "ge greater_equal": "ge", "logical_and": "logical_and", "logical_or": "logical_or", "logical_xor": "logical_xor",
    "bitwise_and __and__": "bitwise_and", "bitwise_or __or__": "bitwise_or", "remainder": "remainder",
}.items():  # fmt: skip
    _binary(_names, _op)


def _scaled(c, call: Any, y: Any, alpha: float) -> Any:
    """alpha y, as add and sub take it."""
    if alpha == 1:
        return y
    number = scalar(y)
    if number is not None:
        return number * alpha
    return c.emit("mul", y, value=alpha)


@rule("add")
def _add(c, call, a):
    return binary(c, "add", call, a["self"], _scaled(c, call, a["other"], a["alpha"]))


@rule("sub", "subtract")
def _sub(c, call, a):
    return binary(c, "sub", call, a["self"], _scaled(c, call, a["other"], a["alpha"]))


@rule("rsub")
def _rsub(c, call, a):
    return binary(c, "sub", call, a["other"], _scaled(c, call, a["self"], a["alpha"]))


@rule("div", "divide", "true_divide")
def _div(c, call, a):
    rounding = a.get("rounding_mode")
    return binary(c, "div", call, a["self"], a["other"], **({"rounding": rounding} if rounding else {}))


@rule("floor_divide")
def _floor_divide(c, call, a):
    return binary(c, "div", call, a["self"], a["other"], rounding="floor")


@rule("pow", "float_power")
def _pow(c, call, a):
    return binary(c, "pow", call, a["self"], a["exponent"])


@rule("bitwise_xor", "__xor__")
def _xor(c, call, a):
    if call.out.dtype != "bool":
        raise Unfit("of numbers")
    return binary(c, "logical_xor", call, a["self"], a["other"])


@rule("where")
def _where(c, call, a):
    sides = [
        constant(torch.tensor(v, dtype=getattr(torch, call.out.dtype))) if isinstance(v, (int, float, bool)) else v
        for v in (a["self"], a["other"])
    ]
    parts = [a["condition"], *sides]
    full = next((p for p in parts if not isinstance(p, Known) and p.meta.shape == call.out.shape), None)
    return c.emit("where", *[narrow(c, p, full, call.out) if full is not None else p for p in parts])


@rule("masked_fill")
def _masked_fill(c, call, a):
    number = scalar(a["value"])
    if number is None:
        return c.emit("where", a["mask"], a["value"], a["self"])
    if a["self"].meta.shape != call.out.shape:
        a["self"] = c.broadcast(a["self"], call.out)
    return c.emit("masked_fill", a["self"], narrow(c, a["mask"], a["self"], call.out), value=number)


@rule("lerp")
def _lerp(c, call, a):
    number = scalar(a["weight"])
    if number is not None:
        return c.emit("lerp", a["self"], a["end"], weight=float(number))
    return c.emit("lerp", a["self"], a["end"], a["weight"])


@rule("addcmul")
def _addcmul(c, call, a):
    product = binary(c, "mul", call, a["tensor1"], a["tensor2"])
    return binary(c, "add", call, a["self"], _scaled(c, call, product, a["value"]))


@rule("addcdiv")
def _addcdiv(c, call, a):
    quotient = binary(c, "div", call, a["tensor1"], a["tensor2"])
    return binary(c, "add", call, a["self"], _scaled(c, call, quotient, a["value"]))


@rule("clamp", "clip")
def _clamp(c, call, a):
    x, low, high = a["self"], scalar(a["min"]), scalar(a["max"])
    if (a["min"] is None or low is not None) and (a["max"] is None or high is not None):
        return c.emit("clamp", x, min=low, max=high)
    if a["min"] is not None:
        x = binary(c, "maximum", call, x, a["min"])
    return x if a["max"] is None else binary(c, "minimum", call, x, a["max"])


@rule("clamp_min")
def _clamp_min(c, call, a):
    return _clamp(c, call, {"self": a["self"], "min": a["min"], "max": None})


@rule("clamp_max")
def _clamp_max(c, call, a):
    return _clamp(c, call, {"self": a["self"], "min": None, "max": a["max"]})


@rule("heaviside")
def _heaviside(c, call, a):
    x = a["self"]
    positive = c.cast(c.emit("gt", x, value=0), call.out.dtype)
    return c.emit("where", c.emit("eq", x, value=0), c.broadcast(a["values"], call.out), positive)


@rule("complex")
def _complex(c, call, a):
    return c.emit("view_as_complex", c.emit("stack", a["real"], a["imag"], dim=-1))


@rule("polar")
def _polar(c, call, a):
    parts = [c.emit("mul", a["abs"], c.emit(f, a["angle"])) for f in ("cos", "sin")]
    return c.emit("view_as_complex", c.emit("stack", *parts, dim=-1))


# ---------------------------------------------------------------------------------------------------- same or filled
@rule(
    "alias", "lift_fresh", "lift_fresh_copy", "lift", "positive", "resolve_conj", "resolve_neg",
    "requires_grad", "view_copy", "_reshape_alias_copy", "pin_memory",
)  # fmt: skip
def _same(c, call, a):
    return a["self"]


@rule("contiguous", "clone")
def _contiguous(c, call, a):
    x = a["self"]
    ordered = call.name == "contiguous" or a["memory_format"] is torch.contiguous_format
    return c.emit("contiguous", x) if c.layout and ordered and not isinstance(x, Known) else x


@rule("detach")
def _detach(c, call, a):
    x = a["self"]
    return x if isinstance(x, Known) or "float" not in x.meta.dtype else c.emit("detach", x)


@rule("to", "_to_copy", "type_as", "to_dense", "cpu", "cuda", "float", "double", "half", "type")
def _to(c, call, a):
    x = a["self"]
    return x if x.meta.dtype == call.out.dtype else c.cast(x, call.out.dtype)


@rule("copy")
def _copy(c, call, a):
    x = a["src"]
    x = x if x.meta.dtype == a["self"].meta.dtype else c.cast(x, a["self"].meta.dtype)
    return c.broadcast(x, a["self"].meta)


@rule("fill")
def _fill(c, call, a):
    number, meta = scalar(a["value"]), a["self"].meta
    if number is None:
        return c.broadcast(a["value"], meta)
    return filled(number, meta)


@rule("zero", "zeros_like", "new_zeros", "zeros", "empty", "new_empty", "empty_like")
def _zeros(c, call, a):
    return filled(0, call.out if isinstance(call.out, Meta) else a["self"].meta)


@rule("ones_like", "new_ones", "ones")
def _ones(c, call, a):
    return filled(1, call.out)


@rule("full", "full_like", "new_full")
def _full(c, call, a):
    number = a["fill_value"]
    if isinstance(number, Size):
        return c.broadcast(size(c, number), call.out)
    return filled(number, call.out)


@rule("arange")
def _arange(c, call, a):
    """Whole numbers up to k times the batch: anything else has been folded."""
    start, step, end = a.get("start", 0), a.get("step", 1), a["end"]
    if not isinstance(end, Size) or end.c or start != 0 or step != 1:
        raise Unfit("it counts otherwise than from 0 to the batch")
    made = c.emit("arange", c.ref(), dim=0, dtype=dtype_name(call.out.dtype))
    if end.k == 1:
        return made
    rows = c.emit("unsqueeze", c.emit("mul", made, value=end.k), dim=1)
    return c.emit("flatten", c.emit("add", rows, constant(torch.arange(end.k))), start=0)


def dims_of(dim: Any) -> list[int] | None:
    """Dimensions as a list, or None for all."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return None
    return [dim] if isinstance(dim, int) else list(dim)
