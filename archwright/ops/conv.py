"""Convolution in 1, 2 and 3 dimensions and its transpose; the rank of the input says which.

    conv            y[n, o, p] = b[o] + sum_i,k W[o, i, k] x[n, g(o) + i, stride p + dilation k - padding]
    conv_transpose  the adjoint of conv in x, with W of shape [in, out / groups, *kernel]

Shapes: x [N, C, *spatial] -> y [N, out, *spatial']. With inputs (x, weight[, bias]) instead of a slot the kernel is
a value of the graph (weight standardisation, dynamic kernels).
"""

from __future__ import annotations

import math

import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cost,
    Dim,
    Dims,
    Op,
    Param,
    Prod,
    Source,
    Types,
    need_rank,
    operand,
    pin,
    spread,
)

_CONV = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSE = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _geometry(a: A, x: Types) -> tuple[int, int, tuple[int, ...]]:
    """Spatial rank, input channels, kernel. Checks what both directions share."""
    need_rank(x[0], 3, 5)
    rank, channels = len(x[0].shape) - 2, x[0].shape[1]
    if channels % a["groups"]:
        raise TypeMismatch(f"input {x[0]} has {channels} channels, expected a multiple of groups={a['groups']}")
    if a["out"] % a["groups"]:
        raise TypeMismatch(f"out={a['out']}, expected a multiple of groups={a['groups']}")
    return rank, channels, spread(a["kernel"], rank, "kernel")


def _check_weight(x: Types, shape: tuple[int, ...]) -> None:
    if len(x) > 1 and x[1].shape != shape:
        raise TypeMismatch(f"weight is {x[1]}, expected shape {list(shape)}")


# --------------------------------------------------------------------------------------------------------- forward
def _weight_shape(a: A, x: Types) -> tuple[int, ...]:
    _, channels, kernel = _geometry(a, x)
    return (a["out"], channels // a["groups"], *kernel)


def _padding(a: A, rank: int) -> tuple[tuple[int, int], ...]:
    """(before, after) for each spatial dimension."""
    if a["padding"] == "same":
        kernel, dilation = spread(a["kernel"], rank), spread(a["dilation"], rank)
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple([(t // 2, t - t // 2) for t in total])
    return tuple([(p, p) for p in spread(a["padding"], rank, "padding")])


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    rank, _, kernel = _geometry(a, x)
    _check_weight(x, _weight_shape(a, x))
    stride, dilation = spread(a["stride"], rank, "stride"), spread(a["dilation"], rank, "dilation")
    if a["padding"] == "same" and any(s != 1 for s in stride):
        raise TypeMismatch("padding='same' needs stride 1")
    sizes = []
    for n, k, s, d, (before, after) in zip(x[0].shape[2:], kernel, stride, dilation, _padding(a, rank), strict=True):
        room = n + before + after - d * (k - 1) - 1
        if room < 0:
            raise TypeMismatch(f"kernel {k} with dilation {d} does not fit size {n} padded by {before} and {after}")
        sizes.append(room // s + 1)
    return (Type((x[0].shape[0], a["out"], *sizes), x[0].dtype),)


def _params_of(shape: tuple[int, ...], a: A, dtype: str) -> dict[str, Param]:
    bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))  # torch: kaiming_uniform with a = sqrt(5)
    found = {"weight": Param(shape, ("uniform", bound), dtype)}
    if a["bias"]:
        found["bias"] = Param((a["out"],), ("uniform", bound), dtype)
    return found


def _params(a: A, x: Types) -> dict[str, Param]:
    return {} if len(x) > 1 else _params_of(_weight_shape(a, x), a, x[0].dtype)


def _cost(a: A, x: Types, y: Types) -> Cost:
    _, _, kernel = _geometry(a, x)
    per_output = x[0].shape[1] // a["groups"] * math.prod(kernel)
    return Cost(2 * y[0].numel * per_output, ("x0", "x1")[: len(x)])


def _run(a: A, x, w, train):
    rank = x[0].dim() - 2
    return _CONV[rank - 1](
        x[0], operand("weight", 1, x, w), operand("bias", 2, x, w),
        a["stride"], a["padding"], a["dilation"], a["groups"],
    )  # fmt: skip


def _axes_of(a: A, x: Types, y: Types, transposed: bool) -> Axes:
    groups, channels, out = a["groups"], x[0].shape[1], a["out"]
    g, i, o = Dim("g", groups), Dim("i", channels // groups), Dim("o", out // groups)
    n, spatial = Dim("n", x[0].shape[0]), pin(x[0].shape[2:])
    kernel = pin(spread(a["kernel"], len(spatial)))
    weight: Dims = (Prod(g, i), o, *kernel) if transposed else (Prod(g, o), i, *kernel)
    terms: list[Dims] = [(n, Prod(g, i), *spatial)]
    named = {"weight": weight}
    if a["bias"]:
        named["bias"] = (Prod(g, o),)
    if len(x) > 1:
        terms += list(named.values())[: len(x) - 1]
        named = {}
    return Axes(
        tuple(terms), ((n, Prod(g, o), *pin(y[0].shape[2:])),), named, attrs={"out": Prod(g, o), "groups": g}
    )


def _axes(a: A, x: Types, y: Types) -> Axes:
    return _axes_of(a, x, y, transposed=False)


def _onnx(o, a, x, w, xt, yt):
    rank = len(xt[0].shape) - 2
    pads = _padding(a, rank)
    return o.node(
        "Conv",
        [x[0], operand("weight", 1, x, w), operand("bias", 2, x, w)],
        kernel_shape=spread(a["kernel"], rank),
        strides=spread(a["stride"], rank),
        dilations=spread(a["dilation"], rank),
        pads=[p[0] for p in pads] + [p[1] for p in pads],
        group=a["groups"],
    )


def _options(a: A, names: tuple[str, ...]) -> str:
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "bias": True}
    return "".join(f", {name}={a[name]!r}" for name in names if a[name] != defaults[name])


def _source(a: A, x: Types, y: Types) -> Source:
    rank = len(x[0].shape) - 2
    names = ("stride", "padding", "dilation", "groups")
    if len(x) > 1:
        weights = ", ".join(f"{{x{i}}}" for i in range(1, len(x)))
        return Source(f"F.conv{rank}d({{x0}}, {weights}{_options(a, names)})")
    made = f"nn.Conv{rank}d({x[0].shape[1]}, {a['out']}, {a['kernel']}{_options(a, (*names, 'bias'))})"
    return Source(module=made)


# ------------------------------------------------------------------------------------------------------- transposed
def _transpose_weight_shape(a: A, x: Types) -> tuple[int, ...]:
    _, channels, kernel = _geometry(a, x)
    return (channels, a["out"] // a["groups"], *kernel)


def _transpose_infer(a: A, x: Types) -> tuple[Type, ...]:
    rank, _, kernel = _geometry(a, x)
    _check_weight(x, _transpose_weight_shape(a, x))
    settings = [spread(a[name], rank, name) for name in ("stride", "padding", "output_padding", "dilation")]
    sizes = []
    for n, k, s, p, extra, d in zip(x[0].shape[2:], kernel, *settings, strict=True):
        if extra >= max(s, d):
            raise TypeMismatch(f"output_padding={extra}, expected less than stride ({s}) or dilation ({d})")
        sizes.append((n - 1) * s - 2 * p + d * (k - 1) + extra + 1)
        if sizes[-1] < 1:
            raise TypeMismatch(f"padding {p} leaves nothing of size {n} with kernel {k} and stride {s}")
    return (Type((x[0].shape[0], a["out"], *sizes), x[0].dtype),)


def _transpose_params(a: A, x: Types) -> dict[str, Param]:
    return {} if len(x) > 1 else _params_of(_transpose_weight_shape(a, x), a, x[0].dtype)


def _transpose_cost(a: A, x: Types, y: Types) -> Cost:
    _, _, kernel = _geometry(a, x)
    return Cost(2 * x[0].numel * a["out"] // a["groups"] * math.prod(kernel), ("x0", "x1")[: len(x)])


def _transpose_run(a: A, x, w, train):
    rank = x[0].dim() - 2
    return _TRANSPOSE[rank - 1](
        x[0], operand("weight", 1, x, w), operand("bias", 2, x, w),
        a["stride"], a["padding"], a["output_padding"], a["groups"], a["dilation"],
    )  # fmt: skip


def _transpose_axes(a: A, x: Types, y: Types) -> Axes:
    return _axes_of(a, x, y, transposed=True)


def _transpose_onnx(o, a, x, w, xt, yt):
    rank = len(xt[0].shape) - 2
    padding = spread(a["padding"], rank)
    return o.node(
        "ConvTranspose",
        [x[0], operand("weight", 1, x, w), operand("bias", 2, x, w)],
        kernel_shape=spread(a["kernel"], rank),
        strides=spread(a["stride"], rank),
        dilations=spread(a["dilation"], rank),
        pads=[*padding, *padding],
        output_padding=spread(a["output_padding"], rank),
        group=a["groups"],
    )


def _transpose_source(a: A, x: Types, y: Types) -> Source:
    rank = len(x[0].shape) - 2
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    if len(x) > 1:
        weights = ", ".join(f"{{x{i}}}" for i in range(1, len(x)))
        return Source(f"F.conv_transpose{rank}d({{x0}}, {weights}{_options(a, names)})")
    options = _options(a, ("stride", "padding", "output_padding", "groups", "bias", "dilation"))
    return Source(module=f"nn.ConvTranspose{rank}d({x[0].shape[1]}, {a['out']}, {a['kernel']}{options})")


_ATTRS = {
    "out": Attr("size"),
    "kernel": Attr("sizes"),
    "stride": Attr("sizes", 1),
    "padding": Attr("padding", 0),
    "dilation": Attr("sizes", 1),
    "groups": Attr("size", 1),
    "bias": Attr("bool", True),
}

OPS = (
    Op(
        "conv", _infer, _run, _ATTRS, inputs=(1, 3), params=_params, cost=_cost, axes=_axes, onnx=_onnx, source=_source,
        doc="Convolution in 1, 2 or 3 dimensions. padding is an int, a list, or 'same'.",
    ),
    Op(
        "conv_transpose", _transpose_infer, _transpose_run,
        {**_ATTRS, "padding": Attr("sizes", 0), "output_padding": Attr("sizes", 0)},
        inputs=(1, 3), params=_transpose_params, cost=_transpose_cost, axes=_transpose_axes, onnx=_transpose_onnx,
        source=_transpose_source, doc="Transposed convolution in 1, 2 or 3 dimensions.",
    ),
)  # fmt: skip
