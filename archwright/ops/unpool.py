"""Max pooling that also says where each maximum was found, for networks that put values back there (SegNet).

    max_pool_indices   (y, i): y as of `max_pool`; i the place in the flattened spatial dimensions of x

Shapes: x [N, C, *spatial] -> y [N, C, *spatial'] and i the same, int64. To put values back is
`scatter` over the flattened spatial dimensions.
"""

from __future__ import annotations

import math

import torch.nn.functional as F

from archwright.ir import Type
from archwright.ops import pool
from archwright.ops.base import A, Axes, Cost, Op, Source, Types

_POOLS = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_BASE = next(op for op in pool.OPS if op.name == "max_pool")


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    (y,) = _BASE.infer(a, x)
    return (y, Type(y.shape, "int64"))


def _run(a: A, x, w, train):
    made = _POOLS[x[0].dim() - 3](
        x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"], return_indices=True
    )
    return tuple(made)


def _cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0", "y1"))


def _axes(a: A, x: Types, y: Types) -> Axes:
    axes = _BASE.axes(a, x, y[:1])
    return Axes(axes.x, (axes.y[0], axes.y[0]))


def _onnx(o, a, x, w, xt, yt):
    rank = len(xt[0].shape) - 2

    def each(value):
        return [value] * rank if isinstance(value, int) else list(value)

    padding = each(a["padding"])
    y, places = o.node(
        "MaxPool", [x[0]], outputs=2, kernel_shape=each(a["kernel"]), pads=[*padding, *padding],
        strides=each(a["kernel"] if a["stride"] is None else a["stride"]), dilations=each(a["dilation"]),
        ceil_mode=int(a["ceil"]),
    )  # fmt: skip
    # ONNX counts through the whole tensor, torch through the spatial dimensions of each channel
    return y, o.node("Mod", [places, o.scalar(math.prod(xt[0].shape[2:]), "int64")])


def _source(a: A, x: Types, y: Types) -> Source:
    rank = len(x[0].shape) - 2
    given = ", ".join(repr(a[name]) for name in ("kernel", "stride", "padding", "dilation", "ceil"))
    return Source(f"F.max_pool{rank}d({{x0}}, {given}, return_indices=True)")


OPS = (
    Op(
        "max_pool_indices", _infer, _run, _BASE.attrs, cost=_cost, axes=_axes, onnx=_onnx, source=_source,
        doc="Max pooling, and the places of the maxima in the flattened spatial dimensions.",
    ),
)  # fmt: skip
