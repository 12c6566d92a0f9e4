"""Space to channels and back: sliding windows, pixel shuffle, channel shuffle.

    unfold           [N, C, H, W] -> [N, C * kernel, windows]        fold is its adjoint: overlaps add up
    window           [.., n, ..] -> [.., windows, .., size]          Tensor.unfold
    pixel_shuffle    [.., C * r * r, H, W] -> [.., C, H * r, W * r]  pixel_unshuffle is its inverse
    channel_shuffle  [N, groups * C, ..] -> [N, C * groups, ..]

Axes: channels keep their identity as one factor of the channel dimension; space is pinned.
"""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Dim,
    Dims,
    Op,
    Prod,
    Source,
    Types,
    axis,
    labels,
    need_float,
    need_rank,
    pin,
    spread,
)
from archwright.ops.pieces import swapped
from archwright.ops.pointwise import by_parts
from archwright.ops.shape import onnx_dims, view_cost

_OPTIONS = ("dilation", "padding", "stride")


def _windows(a: A, size: tuple[int, ...]) -> int:
    """Number of windows over an image of that size."""
    settings = [spread(a[name], 2, name) for name in ("kernel", "stride", "padding", "dilation")]
    counts = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(size, *settings, strict=True)]
    if min(counts) < 1:
        raise TypeMismatch(f"kernel {a['kernel']} does not fit into size {list(size)} padded by {a['padding']}")
    return math.prod(counts)


def _block(a: A) -> int:
    return math.prod(spread(a["kernel"], 2, "kernel"))


def _options(a: A) -> str:
    defaults = {"dilation": 1, "padding": 0, "stride": 1}
    return "".join(f", {name}={a[name]}" for name in _OPTIONS if a[name] != defaults[name])


# ------------------------------------------------------------------------------------------------- unfold and fold
def _infer_unfold(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3, 4)
    need_float(x[0])
    *lead, channels, _, _ = x[0].shape
    return (Type((*lead, channels * _block(a), _windows(a, x[0].shape[-2:])), x[0].dtype),)


def _run_unfold(a: A, x, w, train):
    return F.unfold(x[0], a["kernel"], a["dilation"], a["padding"], a["stride"])


def _axes_columns(a: A, image: Type, columns: Type) -> tuple[Dims, Dims]:
    """Axes of an image and of its columns."""
    *lead, channels = labels(image.shape[:-2])
    block = Prod(channels, Dim(None, _block(a)))
    return (*lead, channels, *pin(image.shape[-2:])), (*lead, block, Dim(None, columns.shape[-1]))


def _axes_unfold(a: A, x: Types, y: Types) -> Axes:
    image, columns = _axes_columns(a, x[0], y[0])
    return Axes((image,), (columns,))


def _onnx_unfold(o, a, x, w, xt, yt):
    # a convolution for each channel, whose kernels pick one pixel each
    kernel, channels = spread(a["kernel"], 2), xt[0].shape[-3]
    pick = np.tile(np.eye(_block(a)).reshape(-1, 1, *kernel), (channels, 1, 1, 1))
    single = len(xt[0].shape) == 3
    made = o.node(
        "Conv",
        [o.unsqueeze(x[0], 0) if single else x[0], o.const(pick, xt[0].dtype)],
        kernel_shape=kernel,
        strides=spread(a["stride"], 2),
        dilations=spread(a["dilation"], 2),
        pads=spread(a["padding"], 2) * 2,
        group=channels,
    )
    made = o.reshape(made, 0, 0, -1)
    return o.squeeze(made, 0) if single else made


def _source_unfold(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.unfold({{x0}}, {a['kernel']}{_options(a)})")


def _infer_fold(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2, 3)
    need_float(x[0])
    if len(a["size"]) != 2:
        raise TypeMismatch(f"size is {list(a['size'])}, expected height and width")
    block, windows = _block(a), _windows(a, a["size"])
    *lead, channels, columns = x[0].shape
    if channels % block or columns != windows:
        raise TypeMismatch(f"columns are {x[0]}, expected a multiple of {block} channels and {windows} windows")
    return (Type((*lead, channels // block, *a["size"]), x[0].dtype),)


def _run_fold(a: A, x, w, train):
    return F.fold(x[0], a["size"], a["kernel"], a["dilation"], a["padding"], a["stride"])


def _axes_fold(a: A, x: Types, y: Types) -> Axes:
    image, columns = _axes_columns(a, y[0], x[0])
    return Axes((columns,), (image,))


def _onnx_fold(o, a, x, w, xt, yt):
    single = len(xt[0].shape) == 2
    made = o.node(
        "Col2Im",
        [o.unsqueeze(x[0], 0) if single else x[0], o.const(list(a["size"])), o.const(list(spread(a["kernel"], 2)))],
        dilations=spread(a["dilation"], 2),
        pads=spread(a["padding"], 2) * 2,
        strides=spread(a["stride"], 2),
    )
    return o.squeeze(made, 0) if single else made


def _source_fold(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.fold({{x0}}, {a['size']}, {a['kernel']}{_options(a)})")


# ---------------------------------------------------------------------------------------------------------- window
def _infer_window(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    dim, shape = axis(a["dim"], len(x[0].shape)), x[0].shape
    if a["size"] > shape[dim]:
        raise TypeMismatch(f"size is {a['size']}, expected at most {shape[dim]}, dimension {dim} of {x[0]}")
    return (Type((*shape[:dim], (shape[dim] - a["size"]) // a["step"] + 1, *shape[dim + 1 :], a["size"]), x[0].dtype),)


def _run_window(a: A, x, w, train):
    return x[0].unfold(a["dim"], a["size"], a["step"])


def _axes_window(a: A, x: Types, y: Types) -> Axes:
    dim, dims = axis(a["dim"], len(x[0].shape)), labels(x[0].shape)
    after = (*swapped(dims, {dim: Dim(None, y[0].shape[dim])}), Dim(None, a["size"]))
    return Axes((swapped(dims, {dim: Dim(None, x[0].shape[dim])}),), (after,))


def _onnx_window(o, a, x, w, xt, yt):
    rank = len(xt[0].shape)
    dim = axis(a["dim"], rank)
    stop = o.squeeze(o.node("Sub", [o.dim(x[0], dim), o.const([a["size"] - 1])]), 0)
    starts = o.node("Range", [o.scalar(0, "int64"), stop, o.scalar(a["step"], "int64")])
    places = o.node("Add", [o.unsqueeze(starts, 1), o.const(list(range(a["size"])))])
    made = o.node("Gather", [x[0], places], axis=dim)
    return o.transpose(made, [i for i in range(rank + 1) if i != dim + 1] + [dim + 1])


def _source_window(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.unfold({a['dim']}, {a['size']}, {a['step']})")


# --------------------------------------------------------------------------------------- pixel and channel shuffle
def _infer_shuffle(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3)
    *lead, channels, height, width = x[0].shape
    r = a["factor"]
    if channels % (r * r):
        raise TypeMismatch(f"input is {x[0]}, expected channels (dimension -3) in multiples of {r * r}")
    return (Type((*lead, channels // (r * r), height * r, width * r), x[0].dtype),)


def _run_shuffle(a: A, x, w, train):
    return F.pixel_shuffle(x[0], a["factor"])


def _axes_pixels(a: A, deep: Type, wide: Type) -> tuple[Dims, Dims]:
    """Axes of the side with many channels and of the side with many pixels."""
    *lead, channels = labels(wide.shape[:-2])
    r = Dim(None, a["factor"])
    return (*lead, Prod(channels, r, r), *pin(deep.shape[-2:])), (*lead, channels, *pin(wide.shape[-2:]))


def _axes_shuffle(a: A, x: Types, y: Types) -> Axes:
    deep, wide = _axes_pixels(a, x[0], y[0])
    return Axes((deep,), (wide,))


def _onnx_flat(o, x: str, t: Type) -> str:
    """[.., C, H, W] as [N, C, H, W]; C, H and W as `t` has them."""
    return x if len(t.shape) == 4 else o.reshape(x, -1, t.shape[-3:])


def _onnx_lead(o, made: str, x: str, xt: Type, yt: Type) -> str:
    """[N, C, H, W] with the leading dimensions of x again."""
    lead = len(xt.shape) - 3
    return made if lead == 1 else o.reshape(made, onnx_dims(o, x, 0, lead), yt.shape[-3:])


def _onnx_shuffle(o, a, x, w, xt, yt):
    made = o.node("DepthToSpace", [_onnx_flat(o, x[0], xt[0])], blocksize=a["factor"], mode="CRD")
    return _onnx_lead(o, made, x[0], xt[0], yt[0])


def _source_shuffle(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.pixel_shuffle({{x0}}, {a['factor']})", f"nn.PixelShuffle({a['factor']})")


def _infer_unshuffle(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3)
    *lead, channels, height, width = x[0].shape
    r = a["factor"]
    if height % r or width % r:
        raise TypeMismatch(f"input is {x[0]}, expected height and width (dimensions -2 and -1) in multiples of {r}")
    return (Type((*lead, channels * r * r, height // r, width // r), x[0].dtype),)


def _run_unshuffle(a: A, x, w, train):
    return F.pixel_unshuffle(x[0], a["factor"])


def _axes_unshuffle(a: A, x: Types, y: Types) -> Axes:
    deep, wide = _axes_pixels(a, y[0], x[0])
    return Axes((wide,), (deep,))


def _onnx_unshuffle(o, a, x, w, xt, yt):
    r = a["factor"]
    channels, height, width = xt[0].shape[-3:]
    made = o.reshape(_onnx_flat(o, x[0], xt[0]), -1, channels, height // r, r, width // r, r)
    made = o.reshape(o.transpose(made, [0, 1, 3, 5, 2, 4]), -1, yt[0].shape[-3:])
    return _onnx_lead(o, made, x[0], xt[0], yt[0])


def _source_unshuffle(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.pixel_unshuffle({{x0}}, {a['factor']})", f"nn.PixelUnshuffle({a['factor']})")


def _infer_channels(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3)
    if x[0].shape[1] % a["groups"]:
        raise TypeMismatch(f"input is {x[0]}, expected channels (dimension 1) in multiples of groups={a['groups']}")
    return (x[0],)


def _run_channels(a: A, x, w, train):
    return F.channel_shuffle(x[0], a["groups"])


def _axes_channels(a: A, x: Types, y: Types) -> Axes:
    dims, g = labels(x[0].shape), Dim("g", a["groups"])
    c = Dim("c", x[0].shape[1] // a["groups"])
    return Axes((swapped(dims, {1: Prod(g, c)}),), (swapped(dims, {1: Prod(c, g)}),), attrs={"groups": g})


def _onnx_channels(o, a, x, w, xt, yt):
    split = o.reshape(x[0], 0, a["groups"], xt[0].shape[1] // a["groups"], -1)
    return o.reshape(o.transpose(split, [0, 2, 1, 3]), o.shape_of(x[0]))


def _source_channels(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.channel_shuffle({{x0}}, {a['groups']})", f"nn.ChannelShuffle({a['groups']})")


_WINDOW = {
    "kernel": Attr("sizes"),
    "stride": Attr("sizes", 1),
    "padding": Attr("sizes", 0),
    "dilation": Attr("sizes", 1),
}
_FACTOR = {"factor": Attr("size")}

_OPS = (
    Op(
        "unfold", _infer_unfold, _run_unfold, _WINDOW, axes=_axes_unfold, onnx=_onnx_unfold, source=_source_unfold,
        doc="Sliding windows of an image as columns (im2col).",
    ),
    Op(
        "fold", _infer_fold, _run_fold, {"size": Attr("ints"), **_WINDOW}, axes=_axes_fold, onnx=_onnx_fold,
        source=_source_fold, doc="Columns back to an image of the given size, overlaps added up (col2im).",
    ),
    Op(
        "window", _infer_window, _run_window, {"dim": Attr("int"), "size": Attr("size"), "step": Attr("size")},
        cost=view_cost, axes=_axes_window, onnx=_onnx_window, source=_source_window, view=True,
        doc="Sliding windows of one dimension, as a new last dimension (Tensor.unfold).",
    ),
    Op(
        "pixel_shuffle", _infer_shuffle, _run_shuffle, _FACTOR, axes=_axes_shuffle, onnx=_onnx_shuffle,
        source=_source_shuffle, doc="Moves channels into space, factor times as high and wide.",
    ),
    Op(
        "pixel_unshuffle", _infer_unshuffle, _run_unshuffle, _FACTOR, axes=_axes_unshuffle, onnx=_onnx_unshuffle,
        source=_source_unshuffle, doc="Moves space into channels: the inverse of pixel_shuffle.",
    ),
    Op(
        "channel_shuffle", _infer_channels, _run_channels, {"groups": Attr("size")}, axes=_axes_channels,
        onnx=_onnx_channels, source=_source_channels, doc="Takes channels from each group in turn.",
    ),
)  # fmt: skip

OPS = tuple([by_parts(op) for op in _OPS])
