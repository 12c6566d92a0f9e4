"""Linear algebra: the eigen decomposition of symmetric matrices.

    eigh   x [..., d, d] -> values [..., d] in rising order, vectors [..., d, d] in columns:  x v_j = l_j v_j

Only the lower triangle of x is read. The sign of each vector is free, and any basis may come where values are equal;
there, gradients through vectors are infinite.
"""

from __future__ import annotations

import torch

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Axes, Cost, Dim, Op, Source, Types, labels, need_rank


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2)
    if x[0].dtype not in ("float32", "float64"):
        raise TypeMismatch(f"input is {x[0]}, expected float32 or float64: cast it first")
    if x[0].shape[-1] != x[0].shape[-2]:
        raise TypeMismatch(f"input is {x[0]}, expected square matrices [..., d, d]")
    return Type(x[0].shape[:-1], x[0].dtype), x[0]


def _run(a: A, x, w, train):
    return tuple(torch.linalg.eigh(x[0]))


def _cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("y0", "y1"))


def _axes(a: A, x: Types, y: Types) -> Axes:
    """Permuting rows and columns of x permutes the rows of the vectors only up to their signs: pinned."""
    lead, d = labels(x[0].shape[:-2]), Dim(None, x[0].shape[-1])
    return Axes(((*lead, d, d),), ((*lead, d), (*lead, d, d)))


def _source(a: A, x: Types, y: Types) -> Source:
    return Source("torch.linalg.eigh({x0})")


OPS = (
    Op("eigh", _infer, _run, {}, cost=_cost, axes=_axes, source=_source,
       doc="(values, vectors) of symmetric matrices, values rising, vectors in columns."),
)  # fmt: skip
