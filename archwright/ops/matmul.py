"""Contractions: matrix products with broadcast batches, and einsum, in which every letter is an axis.

    matmul   c[..., i, j] = sum_k a[..., i, k] b[..., k, j]; a 1-dimensional operand is a row, or a column, and its
             dimension is not in the result
    einsum   the sum over all letters that stand in operands and not in the result of the product of the operands

What autograd keeps follows how torch computes them: both become one batched product of matrices, for which an operand
is kept as it is where that is only another view of it, and as a rearranged copy where it isn't.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Dims, Op, Source, Types, broadcast
from archwright.ops.pointwise import PART, differentiable, onnx_bilinear, refuse_complex


def _same_dtype(x: Types) -> str:
    """The dtype of all operands. torch contracts no bools and never promotes."""
    dtype = x[0].dtype
    if dtype == "bool" or any(t.dtype != dtype for t in x):
        raise TypeMismatch(f"operands are {', '.join(map(str, x))}, expected one dtype of numbers: cast them first")
    return dtype


def _strides(shape: Sequence[int]) -> list[int]:
    """Strides of a contiguous tensor."""
    found, step = [], 1
    for n in reversed(shape):
        found.append(step)
        step *= n
    return found[::-1]


def _merges(dims: Sequence[tuple[int, int]]) -> bool:
    """Whether dimensions, as (size, stride), can be seen as one dimension without a copy."""
    dims = [dim for dim in dims if dim[0] != 1]
    return all(outer == inner * n for (_, outer), (n, inner) in pairwise(dims))


# ----------------------------------------------------------------------------------------------------------- matmul
def _infer_matmul(a: A, x: Types) -> tuple[Type, ...]:
    dtype, (left, right) = _same_dtype(x), (t.shape for t in x)
    if not left or not right:
        raise TypeMismatch(f"operands are {x[0]} and {x[1]}, expected at least one dimension each: use mul for numbers")
    if left[-1] != right[-2 if len(right) > 1 else -1]:
        raise TypeMismatch(f"operands are {x[0]} and {x[1]}, expected as many columns as the second has rows")
    batch = broadcast((Type(left[:-2]), Type(right[:-2])))
    return (Type((*batch, *left[-2:-1], *(right[-1:] if len(right) > 1 else ())), dtype),)


def _run_matmul(a: A, x, w, train):
    return torch.matmul(x[0], x[1])


def _cost_matmul(a: A, x: Types, y: Types) -> Cost:
    left, right = x[0].shape, x[1].shape
    flops = 2 * y[0].numel * left[-1]
    if not differentiable(y[0]):
        return Cost(flops)
    keeps, extra = [], 0
    if len(left) > 2 and len(right) > 2:
        # both are expanded to the common batch, which is then made one dimension
        batch = y[0].shape[:-2]
        for index, t in enumerate(x):
            own = (1,) * (len(batch) + 2 - len(t.shape)) + t.shape
            strides = _strides(own)
            seen = [(n, s if m == n else 0) for n, m, s in zip(batch, own, strides, strict=False)]
            if _merges(seen):
                keeps.append(f"x{index}")
            else:
                extra += math.prod(batch) * math.prod(own[-2:]) * DTYPES[t.dtype]
    elif len(right) > 2:
        # one product of matrices: all but the contracted dimension of the second operand become one
        strides = _strides(right)
        keeps.append("x0")
        if _merges([*zip(right[:-2], strides, strict=False), (right[-1], 1)]):
            keeps.append("x1")
        else:
            extra = x[1].nbytes
    else:
        keeps = ["x0", "x1"]
    return Cost(flops, tuple(keeps), extra)


def _axes_matmul(a: A, x: Types, y: Types) -> Axes:
    left, right = x[0].shape, x[1].shape
    batch = broadcast((Type(left[:-2]), Type(right[:-2])))

    def lead(shape: Sequence[int]) -> Dims:
        """Terms of an operand's batch dimensions, labelled from the right: a size of 1 that is broadcast is pinned."""
        skip = len(batch) - len(shape)
        return tuple([Dim(f"b{len(batch) - i}" if n == batch[i] else None, n) for i, n in enumerate(shape, skip)])

    i: Dims = (Dim("i", left[-2]),) if len(left) > 1 else ()
    j: Dims = (Dim("j", right[-1]),) if len(right) > 1 else ()
    k = Dim("k", left[-1])
    return Axes(((*lead(left[:-2]), *i, k), (*lead(right[:-2]), k, *j)), ((*lead(batch), *i, *j),))


def _onnx_matmul(o, a, x, w, xt, yt):
    if yt[0].dtype in PART:
        return onnx_bilinear(o, lambda p, q: o.node("MatMul", [p, q]), x[0], x[1])
    return o.node("MatMul", list(x))


# ----------------------------------------------------------------------------------------------------------- einsum
class _Equation(NamedTuple):
    """An equation with "..." written out: the labels of each operand's dimensions and of the result's.

    A label is a letter, or "...k" for the k-th dimension from the right that "..." stands for.
    """

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]


def _labels(text: str, dots: int) -> tuple[str, ...]:
    before, ellipsis, after = text.partition("...")
    middle = [f"...{k}" for k in range(dots, 0, -1)] if ellipsis else []
    for letter in before + after:
        if not (letter.isascii() and letter.isalpha()):
            raise GraphError(f"'{text}' has {letter!r}, expected letters and at most one '...'")
    return (*before, *middle, *after)


def parse(equation: str, ranks: Sequence[int]) -> _Equation:
    """Read an equation as torch.einsum does; without "->" the result has the letters that stand once, sorted.

    Raises `GraphError` if it isn't one, or doesn't fit the ranks of the operands.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(ranks):
        raise GraphError(f"equation '{equation}' has {len(texts)} operands, got {len(ranks)} inputs")
    operands, widest = [], 0
    for text, rank in zip(texts, ranks, strict=True):
        letters = len(text.replace("...", "", 1))
        if rank < letters or (rank > letters and "..." not in text):
            raise GraphError(f"'{text}' of equation '{equation}' has {letters} letters, its operand is of rank {rank}")
        operands.append(_labels(text, rank - letters))
        widest = max(widest, rank - letters)
    count: dict[str, int] = {}
    for operand in operands:
        for label in operand:
            count[label] = count.get(label, 0) + 1
    if arrow:
        result = _labels(right, widest)
    else:
        dots = [f"...{k}" for k in range(widest, 0, -1)]
        result = (*dots, *sorted(label for label, n in count.items() if n == 1 and label[0] != "."))
    unknown = [label for label in result if label not in count]
    if unknown or len(set(result)) < len(result):
        raise GraphError(f"the result of equation '{equation}' must have letters of its operands, each once")
    return _Equation(tuple(operands), result)


def _sizes(equation: _Equation, x: Types) -> dict[str, int]:
    """Label -> size, after size 1 is broadcast."""
    sizes: dict[str, int] = {}
    for labels, t in zip(equation.operands, x, strict=True):
        own: dict[str, int] = {}
        for label, n in zip(labels, t.shape, strict=True):
            if own.setdefault(label, n) != n:
                raise TypeMismatch(f"'{label}' stands for sizes {own[label]} and {n} of operand {t}")
            known = sizes.get(label, 1)
            if n != known and 1 not in (n, known):
                raise TypeMismatch(f"'{label}' stands for sizes {known} and {n} of operands {', '.join(map(str, x))}")
            sizes[label] = n if known == 1 else known
    return sizes


def _infer_einsum(a: A, x: Types) -> tuple[Type, ...]:
    dtype = _same_dtype(x)
    if dtype in ("uint8", "int8", "int16", "int32"):
        raise TypeMismatch(f"operands are {dtype}, expected floating point, complex or int64: cast them first")
    equation = parse(a["equation"], [len(t.shape) for t in x])
    sizes = _sizes(equation, x)
    return (Type(tuple([sizes[label] for label in equation.result]), dtype),)


def _run_einsum(a: A, x, w, train):
    return torch.einsum(a["equation"], *x)


class _Operand(NamedTuple):
    """An operand on torch's way through an equation: (size, stride) by label, without those of size 1.

    name    "x0", ... for an input as it came; None for what was computed on the way
    """

    name: str | None
    dims: Mapping[str, tuple[int, int]]


def _cost_einsum(a: A, x: Types, y: Types) -> Cost:
    """Operands are contracted from left to right, in pairs. A pair that shares no summed letter is multiplied point by
    point; any other is a batched product of matrices. Letters of one operand alone are summed first."""
    equation = parse(a["equation"], [len(t.shape) for t in x])
    nbytes = DTYPES[y[0].dtype]
    waiting = []
    for index, (labels, t) in enumerate(zip(equation.operands, x, strict=True)):
        dims: dict[str, tuple[int, int]] = {}
        for label, n, stride in zip(labels, t.shape, _strides(t.shape), strict=True):
            if n != 1:
                dims[label] = (n, stride + dims.get(label, (n, 0))[1])
        waiting.append(_Operand(f"x{index}", dims))
    count: dict[str, int] = {}
    for operand in waiting:
        for label in operand.dims:
            count[label] = count.get(label, 0) + 1
    flops, keeps, extra = 0, set(), 0

    def keep(operand: _Operand, view: bool) -> None:
        nonlocal extra
        if operand.name is not None and view:
            keeps.add(operand.name)
        else:
            extra += math.prod(n for n, _ in operand.dims.values()) * nbytes

    left = waiting[0]
    for right in waiting[1:]:
        both = [label for label in left.dims if label in right.dims]
        summed = []
        for label in both:
            if label not in equation.result:
                count[label] -= 1
                if count[label] == 1:
                    summed.append(label)
        left, right = (
            _summed(o, [label for label in o.dims if label not in (*equation.result, *both) and count[label] == 1])
            for o in (left, right)
        )
        batch = [label for label in both if label not in summed]
        if summed:
            for operand in (left, right):
                own = [label for label in operand.dims if label not in both]
                order = [*equation.result, *(label for label in count if label not in equation.result)]
                groups = [[operand.dims[label] for label in order if label in g] for g in (batch, own, summed)]
                keep(operand, all(map(_merges, groups)))
            flops += 2 * math.prod(n for n, _ in {**left.dims, **right.dims}.values())
        else:
            keep(left, True)
            keep(right, True)
        made = {label: dim for label, dim in {**left.dims, **right.dims}.items() if label not in summed}
        left = _Operand(None, made)
    return Cost(flops, tuple(sorted(keeps)), extra) if differentiable(y[0]) else Cost(flops)


def _summed(operand: _Operand, labels: Sequence[str]) -> _Operand:
    """The operand, summed over some letters."""
    if not labels:
        return operand
    return _Operand(None, {label: dim for label, dim in operand.dims.items() if label not in labels})


def _axes_einsum(a: A, x: Types, y: Types) -> Axes:
    equation = parse(a["equation"], [len(t.shape) for t in x])
    sizes = _sizes(equation, x)

    def terms(labels: Sequence[str], shape: Sequence[int]) -> Dims:
        return tuple([Dim(label if n == sizes[label] else None, n) for label, n in zip(labels, shape, strict=True)])

    return Axes(
        tuple([terms(labels, t.shape) for labels, t in zip(equation.operands, x, strict=True)]),
        (terms(equation.result, y[0].shape),),
    )


def _onnx_einsum(o, a, x, w, xt, yt):
    # "..." is written out: ONNX Runtime wants it to stand for as many dimensions in each operand
    read = parse(a["equation"], [len(t.shape) for t in xt])
    free = [letter for letter in string.ascii_letters if letter not in a["equation"]]
    letters = {label: label if label[0] != "." else free[int(label[3:])] for dims in read.operands for label in dims}
    texts = ["".join(letters[label] for label in dims) for dims in (*read.operands, read.result)]
    equation = ",".join(texts[:-1]) + "->" + texts[-1]
    if yt[0].dtype not in PART:
        return o.node("Einsum", list(x), equation=equation)
    if len(x) != 2:
        raise refuse_complex(f"einsum with {len(x)} operands")
    return onnx_bilinear(o, lambda p, q: o.node("Einsum", [p, q], equation=equation), x[0], x[1])


OPS = (
    Op(
        "matmul", _infer_matmul, _run_matmul, {}, inputs=(2, 2), cost=_cost_matmul, axes=_axes_matmul,
        onnx=_onnx_matmul, source=lambda a, x, y: Source("{x0} @ {x1}"),
        doc="Product of matrices, with batches that broadcast.",
    ),
    Op(
        "einsum", _infer_einsum, _run_einsum, {"equation": Attr("str")}, inputs=(1, None), cost=_cost_einsum,
        axes=_axes_einsum, onnx=_onnx_einsum,
        source=lambda a, x, y: Source(f"torch.einsum({a['equation']!r}, {{x}})"),
        doc="Sum of products over letters, as torch.einsum: 'bik,bkj->bij'.",
    ),
)  # fmt: skip
