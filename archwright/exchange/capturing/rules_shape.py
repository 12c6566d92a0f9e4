"""Rules for shapes: reshapes, orders of dimensions, broadcasts, joins, cuts, padding and images' own rearrangements."""

from __future__ import annotations

import math
from typing import Any

import torch

from archwright.exchange.capturing.program import Size
from archwright.exchange.capturing.table import Unfit, rule
from archwright.exchange.capturing.values import Known, Value, constant

_FAR = 1 << 40
"""Ends of slices beyond this mean "to the end"."""


# ---------------------------------------------------------------------------------------------------------- reshapes
@rule("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "_reshape_alias")
def _reshape(c, call, a):
    x, shape = a["self"], call.out.shape
    if a.get("dtype") is not None:
        raise Unfit("the same bytes as another dtype")
    before = x.meta.shape
    if before == shape:
        return x
    span = _merged(before, shape)
    if span is not None:
        start, end = span
        return c.emit("flatten", x, start=start, end=end if end < len(before) - 1 else -1)
    return c.reshape(x, shape)


def _merged(before: Any, after: Any) -> tuple[int, int] | None:
    """(first, last) dimension, where a reshape does nothing but merge those between."""
    gone = len(before) - len(after)
    if gone < 1 or not after:
        return None
    for start in range(len(after)):
        inside, merged = before[start : start + gone + 1], after[start]
        if before[:start] == after[:start] and before[start + gone + 1 :] == after[start + 1 :]:
            fixed = math.prod(n for n in inside if not isinstance(n, Size))
            moving = [n for n in inside if isinstance(n, Size)]
            if (not moving and merged == fixed) or (
                len(moving) == 1 and moving[0].c == 0 and merged == Size(moving[0].k * fixed, 0)
            ):
                return start, start + gone
    return None


@rule("permute")
def _permute(c, call, a):
    dims = [d % len(a["dims"]) for d in a["dims"]]
    return a["self"] if dims == list(range(len(dims))) else c.emit("permute", a["self"], dims=dims)


@rule("transpose", "swapaxes", "swapdims")
def _transpose(c, call, a):
    first, second = list(a.values())[1:3]
    return c.emit("transpose", a["self"], dim0=first, dim1=second)


@rule("t", "numpy_T", "mT", "matrix_H", "mH", "adjoint")
def _t(c, call, a):
    x = a["self"]
    rank = len(x.meta.shape)
    if "complex" in x.meta.dtype and call.name in ("matrix_H", "mH", "adjoint"):
        x = c.emit("conj", x)
    if rank < 2:
        return x
    if call.name == "numpy_T" and rank > 2:
        return c.emit("permute", x, dims=list(reversed(range(rank))))
    return c.emit("transpose", x, dim0=rank - 2, dim1=rank - 1)


@rule("movedim", "moveaxis")
def _movedim(c, call, a):
    rank = len(a["self"].meta.shape)
    source, target = ([d % rank for d in ([v] if isinstance(v, int) else v)] for v in (a["source"], a["destination"]))
    rest = [d for d in range(rank) if d not in source]
    order = dict(zip(target, source, strict=True))
    return c.emit("permute", a["self"], dims=[order[i] if i in order else rest.pop(0) for i in range(rank)])


@rule("unsqueeze")
def _unsqueeze(c, call, a):
    return c.emit("unsqueeze", a["self"], dim=a["dim"])


@rule("squeeze")
def _squeeze(c, call, a):
    shape = a["self"].meta.shape
    given = a.get("dim")
    dims = range(len(shape)) if given is None else [given] if isinstance(given, int) else given
    gone = sorted({d % len(shape) for d in dims if shape[d] == 1}) if shape else []
    return c.emit("squeeze", a["self"], dim=gone) if gone else a["self"]


@rule("expand", "expand_as", "broadcast_to")
def _expand(c, call, a):
    return c.broadcast(a["self"], call.out)


@rule("atleast_1d", "atleast_2d", "atleast_3d")
def _atleast(c, call, a):
    return c.reshape(a["self"], call.out.shape)


@rule("repeat", "tile")
def _repeat(c, call, a):
    x = a["self"]
    repeats = list(a["repeats"] if "repeats" in a else a["dims"])
    if len(repeats) < len(x.meta.shape):
        repeats = [1] * (len(x.meta.shape) - len(repeats)) + repeats
    lead = len(repeats) - len(x.meta.shape)
    if all(n == 1 for n in repeats):
        return c.reshape(x, call.out.shape)
    # where only dimensions of size 1 are repeated that is an expansion, which needs no memory
    inner = (1,) * lead + x.meta.shape
    if all(m == 1 or n == 1 for n, m in zip(repeats, inner, strict=True)):
        return c.broadcast(x, call.out)
    codes = c.codes(repeats)
    return c.emit("repeat", x, c.ref(), repeats=codes) if 0 in codes else c.emit("repeat", x, repeats=codes)


@rule("repeat_interleave")
def _repeat_interleave(c, call, a):
    if not isinstance(a.get("repeats"), int):
        raise Unfit("a number of repeats for each element")
    x = a["self"]
    if a["dim"] is None:
        x = c.reshape(x, (-1,) if not any(isinstance(n, Size) for n in x.meta.shape) else _flat(x))
    return c.emit("repeat_interleave", x, repeats=a["repeats"], dim=a["dim"] or 0)


def _flat(x: Value) -> tuple[Any, ...]:
    fixed = math.prod(n for n in x.meta.shape if not isinstance(n, Size))
    moving = [n for n in x.meta.shape if isinstance(n, Size)]
    if len(moving) != 1 or moving[0].c:
        raise Unfit("two sizes depend on the batch")
    return (Size(moving[0].k * fixed, 0),)


# ----------------------------------------------------------------------------------------------------- joins and cuts
@rule("cat", "concat", "concatenate")
def _cat(c, call, a):
    parts = [p for p in a["tensors"] if p.meta.shape != (0,) and p.meta.shape[a["dim"]] != 0]
    parts = [p if p.meta.dtype == call.out.dtype else c.cast(p, call.out.dtype) for p in parts]
    return parts[0] if len(parts) == 1 else c.emit("concat", *parts, dim=a["dim"])


@rule("stack")
def _stack(c, call, a):
    parts = [p if p.meta.dtype == call.out.dtype else c.cast(p, call.out.dtype) for p in a["tensors"]]
    return c.emit("stack", *parts, dim=a["dim"])


def _several(made: Any) -> tuple[Any, ...]:
    return made if isinstance(made, tuple) else (made,)


def _dim(a: dict[str, Any]) -> int:
    return int(a["dim"]) % len(a["self"].meta.shape)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes")
def _split(c, call, a):
    dim = _dim(a)
    return _cut(c, a["self"], [out.shape[dim] for out in call.out], dim)


def _cut(c, x: Value, sizes: list[Any], dim: int) -> tuple[Any, ...]:
    if len(sizes) == 1:
        return (x,)
    if any(isinstance(n, Size) for n in sizes):
        n = x.meta.shape[dim]
        if not all(m == sizes[0] for m in sizes) or not isinstance(n, Size):
            raise Unfit("it cuts the batch into unequal parts")
        return _several(c.emit("chunk", x, parts=len(sizes), dim=dim))
    return _several(c.emit("split", x, sizes=sizes, dim=dim))


@rule("chunk", "tensor_split", "unsafe_chunk")
def _chunk(c, call, a):
    dim = _dim(a)
    sizes = [out.shape[dim] for out in call.out]
    if len(sizes) > 1 and all(n == sizes[0] for n in sizes):
        return _several(c.emit("chunk", a["self"], parts=len(sizes), dim=dim))
    return _cut(c, a["self"], sizes, dim)


@rule("unbind")
def _unbind(c, call, a):
    return _several(c.emit("unbind", a["self"], dim=_dim(a)))


@rule("select")
def _select(c, call, a):
    if isinstance(a["index"], Size):
        raise Unfit("the index depends on the batch")
    return c.emit("select", a["self"], dim=_dim(a), index=a["index"])


@rule("slice")
def _slice(c, call, a):
    dim = _dim(a)
    n = a["self"].meta.shape[dim]
    start, stop, step = a["start"] or 0, a["end"], a["step"]
    if stop is not None and not isinstance(stop, Size) and stop > _FAR:
        stop = None
    if isinstance(start, Size) or isinstance(stop, Size):
        if stop == n and not isinstance(start, Size):
            stop = None
        else:
            raise Unfit("it cuts within the batch")
    if isinstance(n, int):
        start, end, _ = slice(start, stop).indices(n)
        stop = None if end == n else end
    if start == 0 and stop is None and step == 1:
        return a["self"]
    return c.emit("slice", a["self"], dim=dim, start=start, stop=stop, step=step)


@rule("narrow")
def _narrow(c, call, a):
    start = scalar_int(a["start"])
    end = _end(start, a["length"])
    return _slice(c, call, {"self": a["self"], "dim": a["dim"], "start": start, "end": end, "step": 1})


def _end(start: int, length: Any) -> Any:
    return Size(length.k, length.c + start) if isinstance(length, Size) else start + length


def scalar_int(value: Any) -> int:
    """A whole number, given as such or as a constant."""
    return int(value.tensor.item()) if isinstance(value, Known) else int(value)


@rule("diagonal")
def _diagonal(c, call, a):
    return c.emit("diagonal", a["self"], offset=a["offset"], dim1=a["dim1"], dim2=a["dim2"])


@rule("unfold")
def _unfold(c, call, a):
    return c.emit("window", a["self"], dim=a["dimension"], size=a["size"], step=a["step"])


# ----------------------------------------------------------------------------------------------- select_scatter and kin
@rule("select_scatter", "slice_scatter")
def _scatter(c, call, a):
    from archwright.exchange.capturing.views import _put

    dim, x, part = a["dim"] % len(a["self"].meta.shape), a["self"], a["src"]
    n = x.meta.shape[dim]
    if not isinstance(n, int):
        raise Unfit("it writes into a part of the batch")
    if call.name == "select_scatter":
        start = a["index"] % n
        return _put(c, x, c.emit("unsqueeze", part, dim=dim), dim, start, start + 1, 1)
    start, stop, step = slice(a["start"], a["end"], a["step"]).indices(n)
    return _put(c, x, part, dim, start, stop, step)


# ------------------------------------------------------------------------------------------------------ pads and moves
@rule("pad", "constant_pad_nd")
def _pad(c, call, a):
    mode = a.get("mode") or "constant"
    if all(n == 0 for n in a["pad"]):
        return a["self"]
    value = a.get("value")
    return c.emit("pad", a["self"], pads=list(a["pad"]), mode=mode, value=0.0 if value is None else value)


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def _reflect(c, call, a):
    return c.emit("pad", a["self"], pads=list(a["padding"]), mode="reflect")


@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _replicate(c, call, a):
    return c.emit("pad", a["self"], pads=list(a["padding"]), mode="replicate")


@rule("roll")
def _roll(c, call, a):
    x, shifts, dims = a["self"], list(a["shifts"]), list(a["dims"] or ())
    if not dims:
        flat = c.reshape(x, _flat(x) if any(isinstance(n, Size) for n in x.meta.shape) else (math.prod(x.meta.shape),))
        return c.reshape(c.emit("roll", flat, shifts=shifts, dims=[0]), x.meta.shape)
    return c.emit("roll", x, shifts=shifts, dims=dims)


@rule("flip")
def _flip(c, call, a):
    return c.emit("flip", a["self"], dims=list(a["dims"]))


@rule("tril", "triu")
def _tril(c, call, a):
    return c.emit(call.name, a["self"], diagonal=a["diagonal"])


@rule("diag_embed", "diag")
def _diag_embed(c, call, a):
    """x on the diagonal of a matrix: x_i [i = j]."""
    x = a["self"]
    rank = len(x.meta.shape)
    if any(a.get(k, d) != d for k, d in (("offset", 0), ("dim1", -2), ("dim2", -1), ("diagonal", 0))):
        raise Unfit("another diagonal")
    if call.name == "diag" and rank == 2:
        return c.emit("diagonal", x, offset=0, dim1=0, dim2=1)
    n = x.meta.shape[-1]
    eye = constant(torch.eye(n, dtype=getattr(torch, x.meta.dtype)))
    return c.emit("mul", c.emit("unsqueeze", x, dim=rank - 1), eye)


# -------------------------------------------------------------------------------------------------------------- images
@rule("im2col")
def _im2col(c, call, a):
    return c.emit(
        "unfold", a["self"], kernel=a["kernel_size"], stride=a["stride"], padding=a["padding"], dilation=a["dilation"]
    )


@rule("col2im")
def _col2im(c, call, a):
    return c.emit(
        "fold", a["self"], size=list(a["output_size"]), kernel=a["kernel_size"], stride=a["stride"],
        padding=a["padding"], dilation=a["dilation"],
    )  # fmt: skip


@rule("pixel_shuffle")
def _pixel_shuffle(c, call, a):
    return c.emit("pixel_shuffle", a["self"], factor=a["upscale_factor"])


@rule("pixel_unshuffle")
def _pixel_unshuffle(c, call, a):
    return c.emit("pixel_unshuffle", a["self"], factor=a["downscale_factor"])


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(c, call, a):
    return c.emit("channel_shuffle", a["self"], groups=a["groups"])


def _upsample(names: str, mode: str, **fixed: Any) -> None:
    def run(c, call, a):
        x = a["self"] if "self" in a else a["input"]
        aligned = {"align_corners": True} if a.get("align_corners") else {}
        scales = a.get("scale_factors")
        if scales is None and a.get("output_size") is None:
            raise Unfit("neither size nor scale")
        if scales is not None:
            by = scales[0] if all(s == scales[0] for s in scales) else list(scales)
            return c.emit("upsample", x, scale=by, mode=mode, **aligned, **fixed)
        given = [a[k] for k in ("scales", "scales_d", "scales_h", "scales_w") if a.get(k) is not None]
        if given and not all(float(s).is_integer() for s in given):
            raise Unfit("size and scale")
        return c.emit("upsample", x, size=list(call.out.shape[2:]), mode=mode, **aligned, **fixed)

    rule(*names.split())(run)


_upsample("upsample_nearest1d upsample_nearest2d upsample_nearest3d", "nearest")
_upsample("_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d", "nearest-exact")
_upsample("upsample_linear1d", "linear")
_upsample("upsample_bilinear2d", "bilinear")
_upsample("upsample_bicubic2d", "bicubic")
_upsample("upsample_trilinear3d", "trilinear")
_upsample("_upsample_bilinear2d_aa", "bilinear", antialias=True)
_upsample("_upsample_bicubic2d_aa", "bicubic", antialias=True)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def _grid_sampler(c, call, a):
    return c.emit(
        "grid_sample", a["input"], a["grid"], mode=("bilinear", "nearest", "bicubic")[a["interpolation_mode"]],
        padding=("zeros", "border", "reflection")[a["padding_mode"]], align_corners=a["align_corners"],
    )  # fmt: skip


@rule("affine_grid_generator")
def _affine_grid(c, call, a):
    codes = c.codes(a["size"])
    inputs = (a["theta"], c.ref()) if 0 in codes else (a["theta"],)
    return c.emit("affine_grid", *inputs, size=codes, align_corners=a["align_corners"])
