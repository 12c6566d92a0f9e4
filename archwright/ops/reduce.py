"""Sums, means, norms, extremes and logic over dimensions; softmax and cumulative sums along one.

In reductions `dim` is a list of dimensions, or None for all of them; a reduced dimension is left out, or kept with size
1 where `keepdim` is set. `prod`, `argmax` and `argmin` take one dimension or all. `max` and `min` give values and
indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cost,
    Dim,
    Dims,
    Op,
    Source,
    Types,
    axis,
    labels,
    literal,
    number,
)
from archwright.ops.pointwise import (
    FLOATED,
    FLOATS,
    ORDERED,
    PART,
    TEST,
    Rule,
    by_parts,
    differentiable,
    refuse_complex,
    ruled,
)

_SUM: Rule = ("int64", "int64", "same", "same")
_MEAN: Rule = (None, None, "same", "same")
_SPREAD: Rule = (None, None, "same", "real")
_INDEX: Rule = (None, "int64", "int64", None)


def reduced(a: A, t: Type) -> tuple[int, ...]:
    """The dimensions reduced over, sorted and counted from 0."""
    rank = len(t.shape)
    if a["dim"] is None:
        return tuple(range(rank))
    if not a["dim"]:
        raise GraphError("'dim' is empty: name the dimensions, or leave it out for all of them")
    dims = tuple(sorted(axis(dim, rank) for dim in a["dim"]))
    if len(set(dims)) < len(dims):
        raise TypeMismatch(f"'dim' is {list(a['dim'])}, which names a dimension of {t} twice")
    return dims


def _left(shape: Sequence[Any], dims: Sequence[int], keepdim: bool, one: Any) -> tuple[Any, ...]:
    """What is left of a shape (or of its terms) after reduction; `one` stands where a dimension is kept."""
    return tuple([one if i in dims else n for i, n in enumerate(shape) if keepdim or i not in dims])


def _axes_of(a: A, x: Types, dims: Sequence[int], kind: str) -> tuple[Dims, Dims, frozenset[str]]:
    """Terms of x and y, and what is coupled. kind: "sum", "coupled" or "pinned", as the reduced dimensions are."""
    terms = labels(x[0].shape)
    if kind == "pinned":
        terms = tuple([Dim(None, t.size) if i in dims else t for i, t in enumerate(terms)])  # type: ignore[union-attr]
    coupled = frozenset(f"d{i}" for i in dims) if kind == "coupled" else frozenset()
    return terms, _left(terms, dims, a["keepdim"], Dim(None, 1)), coupled


# ------------------------------------------------------------------------------------------------------- reductions
def _reduction(
    name: str,
    function: Callable[..., Any],
    rule: Rule,
    keeps: tuple[str, ...],
    onnx: Callable[..., str],
    *,
    attrs: dict[str, Attr] | None = None,
    kind: str | Callable[[A], str] = "coupled",
    single: bool = False,
    needs_values: bool = False,
    doc: str = "",
) -> Op:
    """An op that reduces over dimensions.

    function      f(x, dim=..., keepdim=..., **attrs); with `single`, dim is one dimension or None
    onnx          f(o, a, x, dims, keepdim, t) -> value name, where x has the output's dtype if that is a number's, t is
                  the type of x, and dims are sorted and counted from 0
    kind          what happens to labels of reduced dimensions: "sum", "coupled" or "pinned"
    needs_values  torch refuses dimensions of size 0
    """
    extra = tuple(attrs or {})

    def dims_of(a: A, x: Types) -> tuple[int, ...]:
        dims = reduced(a, x[0])
        if single and a["dim"] is not None and len(dims) > 1:
            raise TypeMismatch(f"'dim' is {list(a['dim'])}, expected one dimension, or none at all for all of them")
        return dims

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        dims, dtype = dims_of(a, x), ruled(rule, x[0].dtype)
        if needs_values and any(x[0].shape[i] == 0 for i in dims):
            raise TypeMismatch(f"{x[0]} has nothing along dimensions {list(dims)}, expected at least one element")
        return (Type(_left(x[0].shape, dims, a["keepdim"], 1), dtype),)

    def run(a: A, x, w, train):
        options = {key: number(a[key]) for key in extra}
        dim = a["dim"] if a["dim"] is not None else tuple(range(x[0].dim()))
        if not single:
            return function(x[0], dim=dim, keepdim=a["keepdim"], **options)
        if a["dim"] is not None:
            return function(x[0], dim=dim[0], keepdim=a["keepdim"], **options)
        made = function(x[0], **options)  # without a dimension torch takes no keepdim either
        return made.reshape((1,) * x[0].dim()) if a["keepdim"] else made

    def cost(a: A, x: Types, y: Types) -> Cost:
        return Cost(keeps=keeps) if differentiable(x[0]) and differentiable(y[0]) else Cost()

    def axes(a: A, x: Types, y: Types) -> Axes:
        terms, left, coupled = _axes_of(a, x, dims_of(a, x), kind if isinstance(kind, str) else kind(a))
        return Axes((terms,), (left,), coupled=coupled)

    def write(o, a, x, w, xt, yt):
        if xt[0].dtype in PART:
            raise refuse_complex(name)
        dims, value, t = dims_of(a, xt), x[0], xt[0]
        if rule is not _INDEX and yt[0].dtype not in ("bool", t.dtype):
            t = t._replace(dtype=yt[0].dtype)
            value = o.cast(value, t.dtype)
        if not dims and name not in ("any", "all"):  # of a 0-dimensional value, over which ONNX doesn't reduce
            made = onnx(o, a, o.reshape(value, 1), (0,), 0, t._replace(shape=(1,)))
            return o.reshape(made, [])
        return onnx(o, a, value, dims, int(a["keepdim"]), t)

    def text(a: A, x: Types, y: Types) -> Source:
        options = [f"{key}={literal(a[key])}" for key in extra]
        dims, rank = a["dim"], len(x[0].shape)
        value = "{x0}.bool()" if rule is TEST and x[0].dtype == "uint8" else "{x0}"
        if dims is None and (single or not a["keepdim"]) and name != "logsumexp":
            made = f"torch.{name}({', '.join([value, *options])})"
            return Source(f"{made}.reshape({(1,) * rank})" if a["keepdim"] else made)
        dims = tuple(range(rank)) if dims is None else dims
        options.insert(0, f"dim={dims[0] if len(dims) == 1 else dims}")
        if a["keepdim"]:
            options.append("keepdim=True")
        return Source(f"torch.{name}({', '.join([value, *options])})")

    return Op(
        name, infer, run, {"dim": Attr("ints", None), "keepdim": Attr("bool", False), **(attrs or {})},
        cost=cost, axes=axes, onnx=write, source=text, doc=doc,
    )  # fmt: skip


def _onnx_reduce(op: str) -> Callable[..., str]:
    def write(o, a, x, dims, keepdim, t):
        return o.node(op, [x, o.const(list(dims))], keepdims=keepdim)

    return write


def _onnx_extreme(op: str) -> Callable[..., str]:
    def write(o, a, x, dims, keepdim, t):
        if t.dtype != "bool":
            return _onnx_reduce(op)(o, a, x, dims, keepdim, t)
        return o.cast(_onnx_reduce(op)(o, a, o.cast(x, "int32"), dims, keepdim, t), "bool")

    return write


def _onnx_logic(op: str) -> Callable[..., str]:
    """any is the maximum, all the minimum, of 0 and 1."""

    def write(o, a, x, dims, keepdim, t):
        value = o.cast(x if t.dtype == "bool" else o.cast(x, "bool"), "int32")
        made = o.node(op, [value, o.const(list(dims))], keepdims=keepdim) if dims else value
        return o.cast(made, "bool")

    return write


def _logic(function: Callable[..., Any]) -> Callable[..., Any]:
    """any or all, which torch gives as uint8 for uint8, as bool."""
    return lambda x, dim, keepdim: function(x.bool() if x.dtype == torch.uint8 else x, dim=dim, keepdim=keepdim)


def _onnx_count(o, x: str, dims: Sequence[int], dtype: str) -> str:
    """How many elements are reduced to one, when the model runs."""
    sizes = o.node("Gather", [o.shape_of(x), o.const(list(dims))])
    return o.cast(o.node("ReduceProd", [sizes], keepdims=0), dtype)


def _onnx_var(o, a, x, dims, keepdim, t):
    axes = o.const(list(dims))
    away = o.node("Sub", [x, o.node("ReduceMean", [x, axes], keepdims=1)])
    total = o.node("ReduceSumSquare", [away, axes], keepdims=keepdim)
    count = o.node("Sub", [_onnx_count(o, x, dims, t.dtype), o.scalar(a["correction"], t.dtype)])
    return o.node("Div", [total, o.node("Max", [count, o.scalar(0, t.dtype)])])


def _onnx_std(o, a, x, dims, keepdim, t):
    return o.node("Sqrt", [_onnx_var(o, a, x, dims, keepdim, t)])


def _onnx_norm(o, a, x, dims, keepdim, t):
    p, axes = number(a["p"]), o.const(list(dims))
    plain = {1.0: "ReduceL1", 2.0: "ReduceL2"}.get(p)
    if plain:
        return o.node(plain, [x, axes], keepdims=keepdim)
    size = o.node("Abs", [x])
    if math.isinf(p):
        return o.node("ReduceMax" if p > 0 else "ReduceMin", [size, axes], keepdims=keepdim)
    if p == 0:
        there = o.cast(o.cast(x, "bool"), t.dtype)
        return o.node("ReduceSum", [there, axes], keepdims=keepdim)
    total = o.node("ReduceSum", [o.node("Pow", [size, o.scalar(p, t.dtype)]), axes], keepdims=keepdim)
    return o.node("Pow", [total, o.scalar(1 / p, t.dtype)])


def _onnx_index(op: str) -> Callable[..., str]:
    def write(o, a, x, dims, keepdim, t):
        if len(dims) == 1:
            return o.node(op, [x], axis=dims[0], keepdims=keepdim)
        made = o.node(op, [o.reshape(x, -1)], axis=0, keepdims=0)
        return o.reshape(made, [1] * len(t.shape)) if keepdim else made

    return write


def _kind_of_norm(a: A) -> str:
    return "sum" if number(a["p"]) >= 0 else "coupled"


def _norm(x, dim, keepdim, p):
    return torch.linalg.vector_norm(x, p, dim, keepdim)


def _source_norm(a: A, x: Types, y: Types) -> Source:
    keepdim = ", keepdim=True" if a["keepdim"] else ""
    return Source(f"torch.linalg.vector_norm({{x0}}, {literal(a['p'])}, dim={a['dim']}{keepdim})")


# ----------------------------------------------------------------------------------------------------- max and min
def _extreme(name: str, function: Callable[..., Any], value_op: str, index_op: str) -> Op:
    """(values, indices) along one dimension."""

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        dim = axis(a["dim"], len(x[0].shape))
        ruled(ORDERED, x[0].dtype)
        if x[0].shape[dim] == 0:
            raise TypeMismatch(f"{x[0]} has nothing along dimension {dim}, expected at least one element")
        shape = _left(x[0].shape, (dim,), a["keepdim"], 1)
        return Type(shape, x[0].dtype), Type(shape, "int64")

    def run(a: A, x, w, train):
        return tuple(function(x[0], a["dim"], a["keepdim"]))

    def cost(a: A, x: Types, y: Types) -> Cost:
        return Cost(keeps=("y1",)) if differentiable(x[0]) else Cost()

    def axes(a: A, x: Types, y: Types) -> Axes:
        terms, left, _ = _axes_of(a, x, (axis(a["dim"], len(x[0].shape)),), "pinned")
        return Axes((terms,), (left, left))

    def write(o, a, x, w, xt, yt):
        dim, keepdim, value = axis(a["dim"], len(xt[0].shape)), int(a["keepdim"]), x[0]
        if xt[0].dtype == "bool":
            value = o.cast(value, "int32")
        made = o.node(value_op, [value, o.const([dim])], keepdims=keepdim)
        indices = o.node(index_op, [value], axis=dim, keepdims=keepdim)
        return (o.cast(made, "bool") if xt[0].dtype == "bool" else made), indices

    def text(a: A, x: Types, y: Types) -> Source:
        return Source(f"torch.{name}({{x0}}, {a['dim']}{', keepdim=True' if a['keepdim'] else ''})")

    return Op(
        name, infer, run, {"dim": Attr("int"), "keepdim": Attr("bool", False)}, cost=cost, axes=axes, onnx=write,
        source=text, doc=f"(values, indices) of the {name}imum along a dimension",
    )  # fmt: skip


# -------------------------------------------------------------------------------------------- along one dimension
def _along(
    name: str,
    function: Callable[..., Any],
    rule: Rule,
    keeps: tuple[str, ...],
    onnx: Callable[..., str],
    *,
    coupled: bool,
    module: str | None = None,
    doc: str = "",
) -> Op:
    """An op that keeps the shape and works along one dimension.

    onnx     f(o, x, dim, t) -> value name, where x has the output's dtype and t is its type
    coupled  the order along the dimension doesn't matter; otherwise it is pinned
    module   the class of torch.nn, if there is one
    """

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        axis(a["dim"], len(x[0].shape))
        return (Type(x[0].shape, ruled(rule, x[0].dtype)),)

    def cost(a: A, x: Types, y: Types) -> Cost:
        return Cost(keeps=keeps) if differentiable(x[0]) else Cost()

    def axes(a: A, x: Types, y: Types) -> Axes:
        dim, terms = axis(a["dim"], len(x[0].shape)), labels(x[0].shape)
        if not coupled:
            terms = (*terms[:dim], Dim(None, x[0].shape[dim]), *terms[dim + 1 :])
        return Axes((terms,), (terms,), coupled=frozenset({f"d{dim}"}) if coupled else frozenset())

    def write(o, a, x, w, xt, yt):
        if xt[0].dtype in PART:
            raise refuse_complex(name)
        value = x[0] if xt[0].dtype == yt[0].dtype else o.cast(x[0], yt[0].dtype)
        return onnx(o, value, axis(a["dim"], len(xt[0].shape)), yt[0])

    def source(a: A, x: Types, y: Types) -> Source:
        return Source(f"torch.{name}({{x0}}, {a['dim']})", module and f"nn.{module}({a['dim']})")

    return Op(
        name, infer, lambda a, x, w, train: function(x[0], a["dim"]), {"dim": Attr("int")}, cost=cost, axes=axes,
        onnx=write, source=source, doc=doc,
    )  # fmt: skip


def _onnx_scan(o, x: str, dim: int, t: Type, start: float, step: Callable[..., str]) -> str:
    """A running value along a dimension: s_i = step(o, s_(i - 1), x_i), from s_(-1) = start everywhere."""
    first = o.squeeze(o.slice(x, dim, 0, 1), dim)
    slot = t._replace(shape=t.shape[:dim] + t.shape[dim + 1 :])
    initial = o.expand(o.const(start, t.dtype), o.shape_of(first))
    inner = o.body()
    state, element = inner.fresh("state"), inner.fresh("element")
    made = step(inner, state, element)
    again = inner.node("Identity", [made])
    body = inner.graph([(state, slot), (element, slot)], [(made, slot), (again, slot)])
    _, found = o.node(
        "Scan", [initial, x], outputs=2, body=body, num_scan_inputs=1, scan_input_axes=[dim], scan_output_axes=[dim]
    )
    return found


def _onnx_cumprod(o, x, dim, t):
    return _onnx_scan(o, x, dim, t, 1, lambda inner, s, e: inner.node("Mul", [s, e]))


def _onnx_logcumsumexp(o, x, dim, t):
    """log(exp(s) + exp(e)) = max(s, e) + log(1 + exp(-|s - e|)); the start stands for minus infinity."""

    def step(inner, s, e):
        gap = inner.node("Neg", [inner.node("Abs", [inner.node("Sub", [s, e])])])
        rest = inner.node("Log", [inner.node("Add", [inner.node("Exp", [gap]), inner.scalar(1, t.dtype)])])
        return inner.node("Add", [inner.node("Max", [s, e]), rest])

    return _onnx_scan(o, x, dim, t, torch.finfo(getattr(torch, t.dtype)).min / 4, step)


OPS = (
    by_parts(_reduction("sum", torch.sum, _SUM, (), _onnx_reduce("ReduceSum"), kind="sum")),
    by_parts(_reduction("mean", torch.mean, _MEAN, (), _onnx_reduce("ReduceMean"))),
    _reduction("prod", torch.prod, _SUM, ("x0", "y0"), _onnx_reduce("ReduceProd"), single=True),
    _reduction(
        "amax", torch.amax, ORDERED, ("x0", "y0"), _onnx_extreme("ReduceMax"), needs_values=True,
        doc="the greatest value",
    ),
    _reduction(
        "amin", torch.amin, ORDERED, ("x0", "y0"), _onnx_extreme("ReduceMin"), needs_values=True,
        doc="the least value",
    ),
    _reduction(
        "var", torch.var, _SPREAD, ("x0",), _onnx_var, attrs={"correction": Attr("number", 1.0)},
        doc="sum of (x - mean)^2, divided by their number - correction",
    ),
    _reduction(
        "std", torch.std, _SPREAD, ("x0", "y0"), _onnx_std, attrs={"correction": Attr("number", 1.0)},
        doc="the square root of var",
    ),
    replace(
        _reduction(
            "norm", _norm, _SPREAD, ("x0", "y0"), _onnx_norm, attrs={"p": Attr("number", 2.0)}, kind=_kind_of_norm,
            doc="(sum of |x|^p)^(1 / p)",
        ),
        source=_source_norm,
    ),
    _reduction(
        "logsumexp", torch.logsumexp, FLOATED, ("x0", "y0"), _onnx_reduce("ReduceLogSumExp"),
        doc="log of the sum of exp(x)",
    ),
    _reduction("any", _logic(torch.any), TEST, (), _onnx_logic("ReduceMax"), kind="sum"),
    _reduction("all", _logic(torch.all), TEST, (), _onnx_logic("ReduceMin")),
    _reduction(
        "argmax", torch.argmax, _INDEX, (), _onnx_index("ArgMax"), kind="pinned", single=True, needs_values=True,
        doc="where the greatest value is; over all dimensions, its place in the flattened tensor",
    ),
    _reduction(
        "argmin", torch.argmin, _INDEX, (), _onnx_index("ArgMin"), kind="pinned", single=True, needs_values=True,
        doc="where the least value is; over all dimensions, its place in the flattened tensor",
    ),
    _extreme("max", torch.max, "ReduceMax", "ArgMax"),
    _extreme("min", torch.min, "ReduceMin", "ArgMin"),
    _along(
        "softmax", torch.softmax, FLOATS, ("y0",), lambda o, x, dim, t: o.node("Softmax", [x], axis=dim), coupled=True,
        module="Softmax", doc="exp(x), divided by its sum along the dimension",
    ),
    _along(
        "log_softmax", torch.log_softmax, FLOATS, ("y0",), lambda o, x, dim, t: o.node("LogSoftmax", [x], axis=dim),
        coupled=True, module="LogSoftmax", doc="log of softmax",
    ),
    _along(
        "cumsum", torch.cumsum, _SUM, (), lambda o, x, dim, t: o.node("CumSum", [x, o.scalar(dim, "int64")]),
        coupled=False, doc="the sum of all up to here",
    ),
    _along(
        "cumprod", torch.cumprod, _SUM, ("x0", "y0"), _onnx_cumprod, coupled=False, doc="the product of all up to here"
    ),
    _along(
        "logcumsumexp", torch.logcumsumexp, _MEAN, ("x0", "y0"), _onnx_logcumsumexp, coupled=False,
        doc="log of the sum of exp(x) of all up to here",
    ),
)  # fmt: skip
