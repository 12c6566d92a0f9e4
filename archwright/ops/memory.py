"""The order of a tensor's numbers in memory, for the few places where it can be seen.

    contiguous  y = x, in row-major order

Nothing that a net computes depends on it, but random numbers do: dropout draws them in the order of memory.
"""

from __future__ import annotations

from archwright.ops.base import A, Op, Source, Types, elementwise, same_type


def _run(a: A, x, w, train):
    return x[0].contiguous()


def _onnx(o, a, x, w, xt, yt):
    return x[0]


def _source(a: A, x: Types, y: Types) -> Source:
    return Source("{x0}.contiguous()")


OPS = (
    Op(
        "contiguous", same_type, _run, {}, axes=elementwise, onnx=_onnx, source=_source,
        doc="The same tensor, in row-major order in memory.",
    ),
)  # fmt: skip
