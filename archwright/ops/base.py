"""What an operation is: `Op`, a record of pure facts, and the small vocabulary that the facts are stated in.

Symbols used in every file of this floor: `a` the complete attributes (defaults filled in), `x` the types (or tensors)
of the inputs, `y` the types of the outputs, `w` the weights by parameter name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Attrs, Type

A = Mapping[str, Any]
Types = Sequence[Type]


# ---------------------------------------------------------------------------------------------------- attributes
class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED = _Required()


class Attr(NamedTuple):
    """Schema of one attribute.

    kind    "int", "size" (an int of at least 1), "number" (held as float), "bool", "str",
            "number?" (a number, or None where that is not the default),
            "scalar" (a number held as given: 2 and 2.0 promote whole-number tensors differently),
            "ints" (a tuple of ints; one int is a tuple of one),
            "sizes" (one int for all dimensions, or a tuple; equal ones become one int),
            "padding" (as "sizes", or "same"), "shape" (a tuple of ints or None), "any" (any JSON value)
    default the value where it isn't given. None as default means that None is allowed
    choices the only values allowed, if any
    """

    kind: str
    default: Any = REQUIRED
    choices: tuple[Any, ...] = ()


def _is_int(value: Any) -> bool:
    return type(value) is int


_EXPECTED = {
    "int": "an integer",
    "size": "an integer of at least 1",
    "number": "a number",
    "scalar": "a number",
    "number?": "a number or null",
    "bool": "true or false",
    "str": "a string",
    "ints": "a list of integers",
    "sizes": "an integer or a list of integers",
    "padding": "an integer, a list of integers, or 'same'",
    "shape": "a list of integers or nulls",
    "any": "a JSON value",
}


def _canonical(kind: str, value: Any) -> Any:
    """The one spelling of a value of that kind. Raises ValueError if it isn't of the kind."""
    if kind == "int" and _is_int(value):
        return value
    if kind == "size" and _is_int(value) and value >= 1:
        return value
    if kind in ("number", "number?"):
        if value is None and kind == "number?":
            return value
        if type(value) is float or _is_int(value):
            return float(value)
        if value in ("inf", "-inf"):
            return value
    if kind == "scalar" and (type(value) in (int, float, bool) or value in ("inf", "-inf")):
        return value
    if kind == "bool" and type(value) is bool:
        return value
    if kind == "str" and type(value) is str:
        return value
    if kind == "any":
        return value
    if kind in ("sizes", "padding") and _is_int(value):
        return value
    if kind == "ints" and _is_int(value):
        return (value,)
    if kind == "padding" and value == "same":
        return value
    known = type(value) is tuple and kind in ("ints", "sizes", "padding", "shape")
    if known and all(_is_int(v) or (kind == "shape" and v is None) for v in value):
        if kind in ("sizes", "padding") and value and all(v == value[0] for v in value):
            return value[0]
        return value
    raise ValueError(kind)


# --------------------------------------------------------------------------------------------------- weights, cost
class Param(NamedTuple):
    """One tensor that a node uses.

    shape, dtype   as of a `Type`
    init           ("zeros",), ("ones",), ("constant", v), ("uniform", bound) on [-bound, bound], ("normal", std),
                   ("range",) for 0, 1, 2, ...
    buffer         True where it isn't trained (running statistics, constants)
    """

    shape: tuple[int, ...]
    init: tuple[Any, ...] = ("zeros",)
    dtype: str = "float32"
    buffer: bool = False


class Cost(NamedTuple):
    """What running a node costs, beside reading its inputs and weights and writing its outputs.

    flops   multiply-adds x 2 of its contractions, as torch.utils.flop_counter counts; 0 for elementwise work
    keeps   what autograd keeps for the backward pass: "x0", "x1", ... inputs and "y0", ... outputs
    extra   further bytes that autograd keeps (masks, saved statistics, indices)
    moved   bytes of memory traffic, where it isn't simply inputs + weights + outputs
    scratch bytes that exist only while the node runs
    """

    flops: int = 0
    keeps: tuple[str, ...] = ()
    extra: int = 0
    moved: int | None = None
    scratch: int = 0


# ------------------------------------------------------------------------------------------------------------ axes
class Dim(NamedTuple):
    """A dimension, or a factor of one, by label. Equal labels within one node are the same axis; None is pinned."""

    label: str | None
    size: int


class Prod(tuple):  # type: ignore[type-arg]
    """A dimension made of factors, the slowest first: index = (i0 * n1 + i1) * n2 + i2 ..."""

    __slots__ = ()

    def __new__(cls, *terms: Term) -> Prod:
        return super().__new__(cls, terms)


class Cat(tuple):  # type: ignore[type-arg]
    """A dimension made of pieces one after the other."""

    __slots__ = ()

    def __new__(cls, *terms: Term) -> Cat:
        return super().__new__(cls, terms)


Term = Dim | Prod | Cat
Dims = tuple[Term, ...]


class Axes(NamedTuple):
    """Which axes of a node's inputs, outputs and weights are the same axis.

    The claim: for any permutation of the units of a label, permuting that axis everywhere it stands in `x` and `w`
    permutes it everywhere it stands in `y` and changes nothing else. A label that stands in inputs and not in outputs
    is summed over, and its unit can be left out where its terms are zero.

    x, y    a tuple of terms for each input, each output
    w       parameter name -> a tuple of terms
    coupled labels whose units are tied by more than a sum (normalised over, sorted, averaged): they can be permuted,
            but leaving one out is not the same as setting it to zero
    sums    parameter name -> the dimension that it sums over within the node, where x and y don't show it: recurrent
            weights, and the last of several maps
    attrs   attribute name -> term (or tuple of terms and Nones) whose size it holds, rewritten when an axis is resized;
            a negative attribute holds minus the size (a slice's bound that counts from the end) and stays negative
    freeze  attributes to be set to these values before an axis is resized (a default that depends on a size)
    """

    x: tuple[Dims, ...]
    y: tuple[Dims, ...]
    w: Mapping[str, Dims] = {}
    coupled: frozenset[str] = frozenset()
    attrs: Mapping[str, Any] = {}
    freeze: Mapping[str, Any] = {}
    sums: Mapping[str, int] = {}


def size(term: Term) -> int:
    """Number of positions of a term."""
    if isinstance(term, Prod):
        return math.prod(size(inner) for inner in term)
    if isinstance(term, Cat):
        return sum(size(inner) for inner in term)
    return term.size


def pin(shape: Sequence[int]) -> Dims:
    """All dimensions pinned."""
    return tuple([Dim(None, n) for n in shape])


def pinned(a: A, x: Types, y: Types) -> Axes:
    """Nothing is known: every axis of the inputs and outputs is pinned. For ops without weights."""
    return Axes(tuple([pin(t.shape) for t in x]), tuple([pin(t.shape) for t in y]))


def labels(shape: Sequence[int], prefix: str = "d") -> Dims:
    """A label of its own for each dimension: d0, d1, ..."""
    return tuple([Dim(f"{prefix}{i}", n) for i, n in enumerate(shape)])


def elementwise(a: A, x: Types, y: Types) -> Axes:
    """Outputs are made point by point from inputs that broadcast as in torch."""
    shape = y[0].shape
    out = labels(shape)
    rank = len(shape)
    inputs = []
    for t in x:
        lead = rank - len(t.shape)
        inputs.append(tuple([out[lead + i] if n == shape[lead + i] else Dim(None, n) for i, n in enumerate(t.shape)]))
    return Axes(tuple(inputs), (out,) * len(y))


# ---------------------------------------------------------------------------------------------------------- source
@dataclass(frozen=True)
class Source:
    """How a node is written in plain PyTorch.

    call     an expression with {x0}, {x1}, ... for inputs, {x} for all of them joined by commas, {name} for a parameter
             of that name (dots as underscores), {self} for the module, {training} for the mode flag
    module   the constructor of a torch.nn module whose state has the same names and shapes, if there is one. An op
             without weights may have a call that needs no {self}, and a module for where it stands in a nn.Sequential
    helpers  plain functions (only torch, math and nn.functional as F inside) that the call uses; their source is copied
    """

    call: str = "{self}({x})"
    module: str | None = None
    helpers: tuple[Callable[..., Any], ...] = ()


# -------------------------------------------------------------------------------------------------------------- op
def no_params(a: A, x: Types) -> dict[str, Param]:
    """No weights."""
    return {}


def pointwise_cost(a: A, x: Types, y: Types) -> Cost:
    """No contractions, nothing kept."""
    return Cost()


def same_type(a: A, x: Types) -> tuple[Type, ...]:
    """One output like the first input."""
    return (x[0],)


@dataclass(frozen=True)
class Op:
    """An operation: the facts that every tool needs, in one place. All are pure functions.

    infer(a, x) -> output types, a tuple       params(a, x) -> {name: Param}       cost(a, x, y) -> Cost
    run(a, x, w, train) -> tensor, or a tuple of tensors where there are several outputs
    axes(a, x, y) -> Axes
    onnx(o, a, x, w, xt, yt) -> value name or tuple of names; `o` is an `archwright.ops.onnx.Writer`
    source(a, x, y) -> Source

    inputs  least and greatest number of inputs (None: any)
    view    the outputs share memory with the first input
    random  draws random numbers in training
    stateful changes its buffers in training
    needs(a, n) -> indices of the inputs that are really read, for ops that leave some out
    modes(a, n, train) -> the same, for ops that read other inputs in training than in evaluation
    """

    name: str
    infer: Callable[[A, Types], tuple[Type, ...]]
    run: Callable[[A, Sequence[Any], Mapping[str, Any], bool], Any]
    attrs: Mapping[str, Attr]
    inputs: tuple[int, int | None] = (1, 1)
    params: Callable[[A, Types], dict[str, Param]] = no_params
    cost: Callable[[A, Types, Types], Cost] = pointwise_cost
    axes: Callable[[A, Types, Types], Axes] = pinned
    onnx: Callable[..., Any] | None = None
    source: Callable[[A, Types, Types], Source] | None = None
    view: bool = False
    random: bool = False
    stateful: bool = False
    needs: Callable[[A, int], Sequence[int]] | None = None
    modes: Callable[[A, int, bool], Sequence[int]] | None = None
    doc: str = ""

    def full(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes with the defaults filled in."""
        return {**self.defaults, **attrs}

    def normal(self, attrs: Mapping[str, Any]) -> Attrs:
        """Canonical attributes: checked, one spelling, without those equal to their default. Raises `GraphError`."""
        schema = self.attrs
        kept = {}
        for key, value in Attrs(attrs).items():
            if key not in schema:
                raise GraphError(f"{self.name}: unknown attribute '{key}': it takes {', '.join(schema) or 'none'}")
            kind, default, choices = schema[key]
            if value is None and default is None:
                continue
            try:
                value = _canonical(kind, value)
            except ValueError:
                raise GraphError(f"{self.name}: attribute '{key}' is {value!r}, expected {_EXPECTED[kind]}") from None
            if choices and value not in choices:
                raise GraphError(f"{self.name}: attribute '{key}' is {value!r}, expected one of {list(choices)}")
            if value != default or type(value) is not type(default):
                kept[key] = value
        for key in self.required:
            if key not in kept:
                raise GraphError(f"{self.name}: attribute '{key}' is missing, expected {_EXPECTED[schema[key].kind]}")
        return Attrs(kept)

    def __post_init__(self) -> None:
        defaults = {key: attr.default for key, attr in self.attrs.items() if attr.default is not REQUIRED}
        object.__setattr__(self, "defaults", defaults)
        object.__setattr__(self, "required", tuple(key for key in self.attrs if key not in defaults))

    defaults: Mapping[str, Any] = None  # type: ignore[assignment]
    required: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------- helpers for families
def spread(value: int | Sequence[int], rank: int, name: str = "value") -> tuple[int, ...]:
    """A "sizes" attribute for each of `rank` dimensions."""
    if isinstance(value, int):
        return (value,) * rank
    if len(value) != rank:
        raise GraphError(f"'{name}' has {len(value)} entries, expected one for each of {rank} dimensions")
    return tuple(value)


def axis(dim: int, rank: int, name: str = "dim") -> int:
    """A dimension counted from 0. Raises `TypeMismatch` if there is no such dimension."""
    if not -rank <= dim < rank:
        raise TypeMismatch(f"'{name}' is {dim}, expected {-rank} to {rank - 1} for an input of rank {rank}")
    return dim % rank


def need_rank(t: Type, low: int, high: int | None = None, what: str = "input") -> None:
    """Raise `TypeMismatch` unless the type's rank is within [low, high]."""
    rank = len(t.shape)
    if rank < low or (high is not None and rank > high):
        wanted = f"{low}" if high == low else f"{low} to {high}" if high is not None else f"at least {low}"
        raise TypeMismatch(f"{what} is {t}, expected rank {wanted}")


def need_float(t: Type, what: str = "input") -> None:
    """Raise `TypeMismatch` unless the type is a real floating-point one."""
    if "float" not in t.dtype:
        raise TypeMismatch(f"{what} is {t}, expected a floating-point dtype: cast it first")


def number(value: Any) -> Any:
    """A "number" or "scalar" attribute as Python's number: "inf" and "-inf" become infinities."""
    return float(value) if type(value) is str else value


def literal(value: Any) -> str:
    """A number (or None) as Python text, with `math.inf` for infinity: for the `source` fact."""
    value = number(value)
    if type(value) is float and math.isinf(value):
        return "math.inf" if value > 0 else "-math.inf"
    return repr(value)


def broadcast(x: Types) -> tuple[int, ...]:
    """The shape that the inputs broadcast to. Raises `TypeMismatch` if they don't."""
    if len(x) == 1 or all(t.shape == x[0].shape for t in x):
        return x[0].shape
    rank = max(len(t.shape) for t in x)
    shape = [1] * rank
    for t in x:
        lead = rank - len(t.shape)
        for i, n in enumerate(t.shape, lead):
            if n != 1:
                if shape[i] != 1 and shape[i] != n:
                    raise TypeMismatch(f"inputs {', '.join(map(str, x))} do not broadcast: {shape[i]} against {n}")
                shape[i] = n
    return tuple(shape)


def operand(name: str, index: int, x: Sequence[Any], w: Mapping[str, Any]) -> Any:
    """A weight that comes from the slot or, where the node has none, as a further input."""
    return w[name] if name in w else (x[index] if len(x) > index else None)


_WIDE = {"bool": 0, "uint8": 1, "int8": 1, "int16": 2, "int32": 3, "int64": 4,
         "float16": 5, "bfloat16": 5, "float32": 6, "float64": 7, "complex64": 8, "complex128": 9}  # fmt: skip


def category(dtype: str) -> int:
    """0 for bool, 1 for whole numbers, 2 for floating point, 3 for complex."""
    rank = _WIDE[dtype]
    return 0 if rank == 0 else 1 if rank < 5 else 2 if rank < 8 else 3


def promote(x: Types) -> str:
    """The dtype of an elementwise result, as torch promotes tensors (0-dimensional ones only across categories)."""
    first = x[0].dtype
    if all(t.dtype == first for t in x):
        return first

    full = [t.dtype for t in x if t.shape] or [t.dtype for t in x]
    zero = [t.dtype for t in x if not t.shape]
    best = _join(full)
    if zero and category(_join(zero)) > category(best):
        if category(best) == 2:
            return "complex128" if best == "float64" else "complex64"
        return _join([best, *zero])
    return best


def _join(dtypes: Sequence[str]) -> str:
    kinds = set(dtypes)
    best = max(kinds, key=lambda d: _WIDE[d])
    if {"float16", "bfloat16"} <= kinds and _WIDE[best] == 5:
        return "float32"
    if best == "complex64" and "float64" in kinds:
        return "complex128"
    if kinds == {"uint8", "int8"}:
        return "int16"
    return best
