"""Fourier and cosine transforms, and the parts of complex numbers.

    fft      X_k = sum_i x_i exp(-2 pi i k / n) along one dimension; fftn along several
    rfft     the first n / 2 + 1 of them for real x, which determine the others
    dct      the cosine transforms I to IV, as a product with a matrix, which is fast for the sizes of layers

norm says who divides by n: "backward" the inverse, "forward" the transform, "ortho" both by its root.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.arithmetic import onnx_atan2
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Source, Types, axis, labels, need_float
from archwright.ops.pointwise import ALL, PART, Rule, onnx_parts, unary

_COMPLEX = {part: whole for whole, part in PART.items()}


def _complex_of(t: Type) -> str:
    """The complex dtype that torch transforms a value in."""
    if t.dtype in ("float16", "bfloat16"):
        raise TypeMismatch(f"input is {t}, expected float32, float64 or complex: cast it first")
    return t.dtype if t.dtype in PART else _COMPLEX["float64" if t.dtype == "float64" else "float32"]


# ------------------------------------------------------------------------------------------------------- transforms
class _Plan:
    """Dimensions of a transform (counted from 0, in order) with the size of the signal along each.

    real     "in" (rfft: the last dimension comes out halved), "out" (irfft: it comes in halved) or ""
    """

    def __init__(self, a: A, t: Type, real: str) -> None:
        several = "dims" in a
        given: Sequence[int] = a["dims"] if several else (a["dim"],)
        lengths = a["size"] if several else None if a["n"] is None else (a["n"],)
        if not given:
            raise GraphError("'dims' is empty, expected at least one dimension")
        self.dims = tuple([axis(dim, len(t.shape)) for dim in given])
        if len(set(self.dims)) < len(self.dims):
            raise TypeMismatch(f"'dims' is {list(given)}, which names a dimension of {t} twice")
        if real == "in" and t.dtype in PART:
            raise TypeMismatch(f"input is {t}, expected a real one: use fft")
        if lengths is None:
            found = [t.shape[dim] for dim in self.dims]
            if real == "out":
                found[-1] = 2 * (found[-1] - 1)
            lengths = tuple(found)
        if len(lengths) != len(self.dims):
            raise GraphError(f"'size' has {len(lengths)} entries, expected one for each of {len(self.dims)} dimensions")
        if min(lengths) < 1:
            raise TypeMismatch(f"the signal has sizes {list(lengths)}, expected at least 1")
        self.lengths = tuple(lengths)
        whole = _complex_of(t)
        shape = list(t.shape)
        for dim, n in zip(self.dims, self.lengths, strict=True):
            shape[dim] = n
        if real == "in":
            shape[self.dims[-1]] = self.lengths[-1] // 2 + 1
        self.whole = whole
        self.result = Type(tuple(shape), PART[whole] if real == "out" else whole)


def _transform(name: str, *, inverse: bool, real: str, several: bool, doc: str) -> Op:
    function = getattr(torch.fft, name)

    def infer(a: A, x: Types) -> tuple[Type, ...]:
        return (_Plan(a, x[0], real).result,)

    def run(a: A, x, w, train):
        if several:
            return function(x[0], a["size"], a["dims"], a["norm"])
        return function(x[0], a["n"], a["dim"], a["norm"])

    def cost(a: A, x: Types, y: Types) -> Cost:
        """Of real numbers torch keeps the signal, cut or filled up; a transform of complex ones keeps nothing."""
        if x[0].dtype not in _COMPLEX or real == "out" or (several and not real):
            return Cost()
        plan = _Plan(a, x[0], real)
        signal = list(x[0].shape)
        for dim, n in zip(plan.dims, plan.lengths, strict=True):
            signal[dim] = n
        filled = any(n > m for n, m in zip(signal, x[0].shape, strict=True))
        return Cost(extra=math.prod(signal) * DTYPES[x[0].dtype]) if filled else Cost(keeps=("x0",))

    def axes(a: A, x: Types, y: Types) -> Axes:
        dims = _Plan(a, x[0], real).dims

        def terms(t: Type):
            return tuple([Dim(None, d.size) if i in dims else d for i, d in enumerate(labels(t.shape))])

        return Axes((terms(x[0]),), (terms(y[0]),))

    def write(o, a, x, w, xt, yt):
        plan, value, part = _Plan(a, xt[0], real), x[0], PART[_complex_of(xt[0])]
        if xt[0].dtype not in PART:
            value = o.unsqueeze(value if xt[0].dtype == part else o.cast(value, part), -1)
            if real == "out":
                value = o.node("Mul", [value, o.const([1, 0], part)])
        steps = list(zip(plan.dims, plan.lengths, strict=True))
        if real == "in":  # the real signal is there at the beginning only, or at the end
            steps.reverse()
        for step, (dim, n) in enumerate(steps):
            onesided = real == "in" and step == 0
            if real == "out" and step == len(steps) - 1:
                value = _onnx_mirrored(o, value, dim, n, part)
            value = o.node(
                "DFT", [value, o.scalar(n, "int64"), o.scalar(dim, "int64")], inverse=inverse, onesided=onesided
            )
        scale = _scale(a["norm"], inverse, math.prod(plan.lengths))
        if scale != 1:
            value = o.node("Mul", [value, o.scalar(scale, part)])
        return o.node("Gather", [value, o.scalar(0, "int64")], axis=-1) if real == "out" else value

    def text(a: A, x: Types, y: Types) -> Source:
        if several:
            given = [("s", a["size"], None), ("dim", a["dims"], None)]
        else:
            given = [("n", a["n"], None), ("dim", a["dim"], -1)]
        given.append(("norm", a["norm"], "backward"))
        options = "".join(f", {key}={value!r}" for key, value, default in given if value != default)
        return Source(f"torch.fft.{name}({{x0}}{options})")

    one, many = {"n": Attr("size", None), "dim": Attr("int", -1)}, {"dims": Attr("ints"), "size": Attr("ints", None)}
    attrs = {**(many if several else one), "norm": Attr("str", "backward", ("backward", "forward", "ortho"))}
    return Op(name, infer, run, attrs, cost=cost, axes=axes, onnx=write, source=text, doc=doc)


def _scale(norm: str, inverse: bool, n: int) -> float:
    """What ONNX's transform, whose norm is "backward", is to be multiplied by."""
    return {"backward": 1.0, "ortho": n ** (0.5 if inverse else -0.5), "forward": float(n) if inverse else 1 / n}[norm]


def _onnx_mirrored(o, x: str, dim: int, n: int, part: str) -> str:
    """The n numbers of a spectrum whose signal is real, from its first n / 2 + 1 (more are cut, missing ones are 0)."""
    half = n // 2 + 1
    fill = o.node("Pad", [x, o.const([0, half]), None, o.const([dim])])
    first = o.slice(fill, dim, 0, half)
    count = n - half
    if not count:
        return first
    rest = o.slice(first, dim, count, 0, -1)
    return o.concat([first, o.node("Mul", [rest, o.const([1, -1], part)])], dim)


# ------------------------------------------------------------------------------------------------- parts of numbers
def _onnx_angle(o, a, x, dtype):
    return o.node("Where", [o.node("Less", [x, o.scalar(0, dtype)]), o.scalar(math.pi, dtype), o.scalar(0, dtype)])


def _onnx_complex_angle(o, x, dtype):
    real, imag = onnx_parts(o, x)
    return onnx_atan2(o, {}, imag, real, PART[dtype])


def _infer_view_as_real(a: A, x: Types) -> tuple[Type, ...]:
    if x[0].dtype not in PART:
        raise TypeMismatch(f"input is {x[0]}, expected a complex one")
    return (Type((*x[0].shape, 2), PART[x[0].dtype]),)


def _infer_view_as_complex(a: A, x: Types) -> tuple[Type, ...]:
    if x[0].dtype not in _COMPLEX or x[0].shape[-1:] != (2,):
        raise TypeMismatch(f"input is {x[0]}, expected float32 or float64 with a last dimension of 2")
    return (Type(x[0].shape[:-1], _COMPLEX[x[0].dtype]),)


def _axes_pair(a: A, x: Types, y: Types) -> Axes:
    """The pair of parts is pinned."""
    longer = x[0].shape if len(x[0].shape) > len(y[0].shape) else y[0].shape
    terms = labels(longer[:-1])
    pair = (*terms, Dim(None, 2))
    return Axes((pair,), (terms,)) if longer is x[0].shape else Axes((terms,), (pair,))


def _view(a: A, x: Types, y: Types) -> Cost:
    return Cost(moved=0)


# -------------------------------------------------------------------------------------------------- cosine transform
def dct_matrix(n, kind, norm, inverse):
    """The matrix of a cosine transform of n numbers, float64 [n, n]: y = matrix x, as scipy.fft.dct and idct do."""
    if inverse and norm is None:
        count = 2 * n - 2 if kind == 1 else 2 * n
        return dct_matrix(n, {1: 1, 2: 3, 3: 2, 4: 4}[kind], None, False) / count
    k = torch.arange(n, dtype=torch.float64)[:, None]
    i = torch.arange(n, dtype=torch.float64)[None, :]
    ends = torch.ones(n, dtype=torch.float64)
    if kind == 1:
        made = 2 * torch.cos(math.pi * k * i / (n - 1))
        ends[0] = ends[-1] = 0.5
        if norm == "ortho":
            made = made * (ends[:, None] * ends[None, :]).sqrt() / math.sqrt(2 * (n - 1))
        else:
            made = made * ends[None, :]
    elif kind in (2, 3):
        made = 2 * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
        ends[0] = 0.5
        if norm == "ortho":
            made = made * ends[:, None].sqrt() / math.sqrt(2 * n)
        if kind == 3:
            made = made.T if norm == "ortho" else made.T * ends[None, :]
    else:
        made = 2 * torch.cos(math.pi * (2 * k + 1) * (2 * i + 1) / (4 * n))
        if norm == "ortho":
            made = made / math.sqrt(2 * n)
    return made.T if inverse else made


def cosine_transform(x, dim, kind, norm, inverse):
    """The cosine transform of x along a dimension."""
    matrix = dct_matrix(x.shape[dim], kind, norm, inverse).to(device=x.device, dtype=x.dtype)
    return (x.movedim(dim, -1) @ matrix.T).movedim(-1, dim)


def _infer_dct(a: A, x: Types) -> tuple[Type, ...]:
    need_float(x[0])
    n = x[0].shape[axis(a["dim"], len(x[0].shape))]
    if n < (2 if a["kind"] == 1 else 1):
        raise TypeMismatch(f"{x[0]} has {n} elements along dimension {a['dim']}, expected more for kind {a['kind']}")
    return (x[0],)


def _cost_dct(a: A, x: Types, y: Types) -> Cost:
    n = x[0].shape[axis(a["dim"], len(x[0].shape))]
    return Cost(2 * x[0].numel * n, extra=n * n * DTYPES[x[0].dtype], scratch=n * n * DTYPES["float64"])


def _axes_dct(a: A, x: Types, y: Types) -> Axes:
    dim, terms = axis(a["dim"], len(x[0].shape)), labels(x[0].shape)
    terms = (*terms[:dim], Dim(None, x[0].shape[dim]), *terms[dim + 1 :])
    return Axes((terms,), (terms,))


def _dct(name: str, inverse: bool, doc: str) -> Op:
    def run(a: A, x, w, train):
        return cosine_transform(x[0], a["dim"], a["kind"], a["norm"], inverse)

    def write(o, a, x, w, xt, yt):
        rank, shape = len(xt[0].shape), xt[0].shape
        dim = axis(a["dim"], rank)
        matrix = np.ascontiguousarray(dct_matrix(shape[dim], a["kind"], a["norm"], inverse).T.numpy())
        value = o.swap(x[0], rank, dim, rank - 1)
        return o.swap(o.node("MatMul", [value, o.const(matrix, xt[0].dtype)]), rank, dim, rank - 1)

    def text(a: A, x: Types, y: Types) -> Source:
        given = f"{a['dim']}, {a['kind']}, {a['norm']!r}, {inverse}"
        return Source(f"cosine_transform({{x0}}, {given})", helpers=(dct_matrix, cosine_transform))

    return Op(
        name, _infer_dct, run,
        {"dim": Attr("int", -1), "kind": Attr("int", 2, (1, 2, 3, 4)), "norm": Attr("any", "ortho", ("ortho", None))},
        cost=_cost_dct, axes=_axes_dct, onnx=write, source=text, doc=doc,
    )  # fmt: skip


_REAL: Rule = ("same", "same", "same", "real")
_ANGLE: Rule = ("float32", "float32", "same", "real")
_IMAG: Rule = (None, None, None, "real")


def _transforms() -> list[Op]:
    made = []
    for suffix, several, where in (("", False, "along a dimension"), ("n", True, "along several dimensions")):
        for name, inverse, real, doc in (
            ("fft", False, "", "Fourier transform"),
            ("ifft", True, "", "Inverse Fourier transform"),
            ("rfft", False, "in", "Fourier transform of real numbers, the first half of it,"),
            ("irfft", True, "out", "Real numbers of which this is the first half of the Fourier transform,"),
        ):
            made.append(_transform(name + suffix, inverse=inverse, real=real, several=several, doc=f"{doc} {where}."))
    return made


OPS = (
    *_transforms(),
    unary(
        "real", torch.real, _REAL, (), lambda o, a, x, d: x, view=True, doc="the real part",
        complex_onnx=lambda o, x, d: onnx_parts(o, x)[0],
    ),
    unary(
        "imag", torch.imag, _IMAG, (), "Identity", complex_onnx=lambda o, x, d: onnx_parts(o, x)[1], view=True,
        doc="the imaginary part",
    ),
    unary(
        "angle", torch.angle, _ANGLE, ("x0",), _onnx_angle, complex_onnx=_onnx_complex_angle,
        doc="the angle in the complex plane",
    ),
    unary(
        "conj", torch.conj, ALL, (), lambda o, a, x, d: x, view=True, doc="the conjugate",
        complex_onnx=lambda o, x, d: o.node("Mul", [x, o.const([1, -1], PART[d])]),
    ),
    Op(
        "view_as_real", _infer_view_as_real, lambda a, x, w, train: torch.view_as_real(x[0].resolve_conj()), {},
        cost=_view, axes=_axes_pair, onnx=lambda o, a, x, w, xt, yt: x[0], view=True,
        source=lambda a, x, y: Source("torch.view_as_real({x0}.resolve_conj())"),
        doc="Complex numbers as pairs of real ones, in a new last dimension.",
    ),
    Op(
        "view_as_complex", _infer_view_as_complex, lambda a, x, w, train: torch.view_as_complex(x[0]), {},
        cost=_view, axes=_axes_pair, onnx=lambda o, a, x, w, xt, yt: x[0], view=True,
        source=lambda a, x, y: Source("torch.view_as_complex({x0})"),
        doc="Pairs of real numbers, in the last dimension, as complex ones.",
    ),
    _dct("dct", False, "Cosine transform of kind 1 to 4 along a dimension."),
    _dct("idct", True, "Inverse of the cosine transform of kind 1 to 4 along a dimension."),
)  # fmt: skip
