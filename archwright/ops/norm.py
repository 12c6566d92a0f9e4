"""Normalisation: y = weight (x - mean) / sqrt(var + eps) + bias, with mean and variance over different dimensions.

    batch_norm           over batch and positions, for each channel (dimension 1); running statistics in eval mode
    instance_norm        over positions, for each sample and channel
    group_norm           over positions and the channels of a group, for each sample
    layer_norm           over the last `dims` dimensions
    rms_norm             over the last `dims` dimensions, without mean and bias: x / sqrt(mean(x^2) + eps)
    local_response_norm  y = x / (k + alpha mean x^2)^beta, the mean over `size` neighbouring channels

Running statistics are buffers that training changes in place, exactly as torch.nn does: running <- (1 - momentum)
running + momentum batch, with the unbiased variance. momentum None is the plain average over all batches so far.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cost,
    Dim,
    Op,
    Param,
    Prod,
    Source,
    Types,
    labels,
    need_float,
    need_rank,
    operand,
)


def _options(a: A, defaults: A) -> str:
    """Keyword arguments for a torch.nn module: those that differ from its defaults."""
    return "".join(f", {name}={a[name]!r}" for name, default in defaults.items() if a[name] != default)


def _nbytes(numel: int, dtype: str) -> int:
    return numel * DTYPES[dtype]


def _statistics_params(a: A, x: Types) -> dict[str, Param]:
    """Weight and bias for each channel, and running statistics."""
    shape, dtype = (x[0].shape[1],), x[0].dtype
    found = {}
    if a["affine"]:
        found["weight"] = Param(shape, ("ones",), dtype)
        found["bias"] = Param(shape, ("zeros",), dtype)
    if a["track"]:
        found["running_mean"] = Param(shape, ("zeros",), dtype, buffer=True)
        found["running_var"] = Param(shape, ("ones",), dtype, buffer=True)
        found["num_batches_tracked"] = Param((), ("zeros",), "int64", buffer=True)
    return found


def _statistics_axes(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    named = {name: (() if name == "num_batches_tracked" else dims[1:2]) for name in _statistics_params(a, x)}
    return Axes((dims,), (dims,), named)


def _coupled(axes: Axes, *dims: int) -> Axes:
    """The axes with the labels of some dimensions of the first input coupled."""
    terms = [axes.x[0][dim] for dim in dims]
    return axes._replace(coupled=frozenset(term.label for term in terms if isinstance(term, Dim) and term.label))


def _onnx_scale(o, x, w, t, lead: int):
    """x * weight + bias, for weights of one dimension that stands after `lead` others."""
    behind = [1] * (len(t.shape) - lead - 1)
    for op_type, name in (("Mul", "weight"), ("Add", "bias")):
        if name in w:
            x = o.node(op_type, [x, o.reshape(w[name], -1, behind) if behind else w[name]])
    return x


# ------------------------------------------------------------------------------------------------------- batch norm
def batch_norm(x, running_mean, running_var, num_batches_tracked, weight, bias, training, momentum, eps):
    """What torch.nn.BatchNorm does, for any number of positions."""
    if running_mean is None:
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, eps)
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, 0.0, eps)
    num_batches_tracked.add_(1)
    if momentum is not None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, True, momentum, eps)
    # the momentum is 1 / (number of batches), a tensor: take the batch's statistics out, so as not to read its value
    mean, var = torch.zeros_like(running_mean), torch.ones_like(running_var)
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
    share = num_batches_tracked.to(mean.dtype).reciprocal()
    running_mean.mul_(1 - share).add_(mean * share)
    running_var.mul_(1 - share).add_(var * share)
    return y


def _batch_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2)
    need_float(x[0])
    return (x[0],)


def _batch_cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(0, ("x0",), extra=2 * _nbytes(x[0].shape[1], x[0].dtype))


def _batch_run(a: A, x, w, train):
    return batch_norm(
        x[0], w.get("running_mean"), w.get("running_var"), w.get("num_batches_tracked"), w.get("weight"), w.get("bias"),
        train, a["momentum"], a["eps"],
    )  # fmt: skip


def _batch_axes(a: A, x: Types, y: Types) -> Axes:
    # with running statistics a unit does not see the others in eval mode, which is what axes are about
    axes = _statistics_axes(a, x, y)
    return axes if a["track"] else _coupled(axes, *[i for i in range(len(x[0].shape)) if i != 1])


def _batch_onnx(o, a, x, w, xt, yt):
    t = xt[0]
    if a["track"]:
        ones, zeros = [1.0] * t.shape[1], [0.0] * t.shape[1]
        weight = w["weight"] if a["affine"] else o.const(ones, t.dtype)
        bias = w["bias"] if a["affine"] else o.const(zeros, t.dtype)
        return o.node("BatchNormalization", [x[0], weight, bias, w["running_mean"], w["running_var"]], epsilon=a["eps"])
    over = o.const([i for i in range(len(t.shape)) if i != 1])
    centred = o.node("Sub", [x[0], o.node("ReduceMean", [x[0], over])])
    variance = o.node("ReduceMean", [o.node("Mul", [centred, centred]), over])
    deviation = o.node("Sqrt", [o.node("Add", [variance, o.scalar(a["eps"], t.dtype)])])
    return _onnx_scale(o, o.node("Div", [centred, deviation]), w, t, 1)


def _batch_source(a: A, x: Types, y: Types) -> Source:
    rank, channels = len(x[0].shape), x[0].shape[1]
    if rank <= 5:
        options = _options(a, {"eps": 1e-5, "momentum": 0.1, "affine": True})
        track = "" if a["track"] else ", track_running_stats=False"
        return Source(module=f"nn.BatchNorm{max(rank - 2, 1)}d({channels}{options}{track})")
    statistics = "{running_mean}, {running_var}, {num_batches_tracked}" if a["track"] else "None, None, None"
    weights = "{weight}, {bias}" if a["affine"] else "None, None"
    return Source(
        f"batch_norm({{x0}}, {statistics}, {weights}, {{training}}, {a['momentum']!r}, {a['eps']!r})",
        helpers=(batch_norm,),
    )


# ---------------------------------------------------------------------------------------------------- instance norm
def _instance_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3)
    need_float(x[0])
    return (x[0],)


def _instance_cost(a: A, x: Types, y: Types) -> Cost:
    # torch repeats weight and running statistics for each sample, and keeps them beside mean and deviation
    repeated = 2 + bool(a["affine"]) + 2 * bool(a["track"])
    return Cost(0, ("x0",), extra=repeated * _nbytes(x[0].shape[0] * x[0].shape[1], x[0].dtype))


def _instance_run(a: A, x, w, train):
    momentum = 0.0 if a["momentum"] is None else a["momentum"]  # as torch.nn.InstanceNorm, which has no plain average
    return F.instance_norm(
        x[0], w.get("running_mean"), w.get("running_var"), w.get("weight"), w.get("bias"),
        train or not a["track"], momentum, a["eps"],
    )  # fmt: skip


def _instance_axes(a: A, x: Types, y: Types) -> Axes:
    axes = _statistics_axes(a, x, y)
    return axes if a["track"] else _coupled(axes, *range(2, len(x[0].shape)))


def _instance_onnx(o, a, x, w, xt, yt):
    t = xt[0]
    weight = w["weight"] if a["affine"] else o.const([1.0] * t.shape[1], t.dtype)
    bias = w["bias"] if a["affine"] else o.const([0.0] * t.shape[1], t.dtype)
    if a["track"]:
        statistics = [w["running_mean"], w["running_var"]]
        return o.node("BatchNormalization", [x[0], weight, bias, *statistics], epsilon=a["eps"])
    return o.node("InstanceNormalization", [x[0], weight, bias], epsilon=a["eps"])


def _instance_source(a: A, x: Types, y: Types) -> Source:
    rank, channels = len(x[0].shape), x[0].shape[1]
    if rank <= 5:
        options = _options(a, {"eps": 1e-5, "momentum": 0.1, "affine": False})
        track = ", track_running_stats=True" if a["track"] else ""
        return Source(module=f"nn.InstanceNorm{rank - 2}d({channels}{options}{track})")
    statistics = "{running_mean}, {running_var}" if a["track"] else "None, None"
    weights = "{weight}, {bias}" if a["affine"] else "None, None"
    use_input = "{training}" if a["track"] else "True"
    momentum = 0.0 if a["momentum"] is None else a["momentum"]
    return Source(f"F.instance_norm({{x0}}, {statistics}, {weights}, {use_input}, {momentum!r}, {a['eps']!r})")


# ------------------------------------------------------------------------------------------------------- group norm
def _group_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2)
    need_float(x[0])
    if x[0].shape[1] % a["groups"]:
        raise TypeMismatch(f"input {x[0]} has {x[0].shape[1]} channels, expected a multiple of groups={a['groups']}")
    for t in x[1:]:
        if t.shape != x[0].shape[1:2]:
            raise TypeMismatch(f"weight or bias is {t}, expected shape {list(x[0].shape[1:2])}")
    return (x[0],)


def _group_params(a: A, x: Types) -> dict[str, Param]:
    return {} if len(x) > 1 else _statistics_params({**a, "track": False}, x)


def _group_cost(a: A, x: Types, y: Types) -> Cost:
    return Cost(0, ("x0", "x1")[: len(x)], extra=2 * _nbytes(x[0].shape[0] * a["groups"], x[0].dtype))


def _group_run(a: A, x, w, train):
    return F.group_norm(x[0], a["groups"], operand("weight", 1, x, w), operand("bias", 2, x, w), a["eps"])


def _group_axes(a: A, x: Types, y: Types) -> Axes:
    dims, groups = labels(x[0].shape), a["groups"]
    channel = Prod(Dim("g", groups), Dim("c", x[0].shape[1] // groups))
    shape = (dims[0], channel, *dims[2:])
    inputs = (shape, *((channel,) for _ in x[1:]))
    coupled = frozenset(["c", *(f"d{i}" for i in range(2, len(dims)))])
    named = dict.fromkeys(_group_params(a, x), (channel,))
    return Axes(inputs, (shape,), named, coupled, attrs={"groups": Dim("g", groups)})


def _group_onnx(o, a, x, w, xt, yt):
    t, groups = xt[0], a["groups"]
    # a group as one channel. ONNX's own GroupNormalization has weights for each group up to opset 20
    flat = o.reshape(x[0], 0, groups, -1)
    ones, zeros = o.const([1.0] * groups, t.dtype), o.const([0.0] * groups, t.dtype)
    flat = o.node("InstanceNormalization", [flat, ones, zeros], epsilon=a["eps"])
    given = {name: operand(name, i, x, w) for i, name in ((1, "weight"), (2, "bias"))}
    return _onnx_scale(o, o.reshape(flat, o.shape_of(x[0])), {n: v for n, v in given.items() if v}, t, 1)


def _group_source(a: A, x: Types, y: Types) -> Source:
    if len(x) > 1:
        weights = ", ".join(f"{{x{i}}}" for i in range(1, len(x)))
        return Source(f"F.group_norm({{x0}}, {a['groups']}, {weights}, eps={a['eps']!r})")
    options = _options(a, {"eps": 1e-5, "affine": True})
    return Source(module=f"nn.GroupNorm({a['groups']}, {x[0].shape[1]}{options})")


# ------------------------------------------------------------------------------------------------ layer and rms norm
def _last(a: A, x: Types) -> tuple[int, ...]:
    """The dimensions that are normalised over."""
    return x[0].shape[len(x[0].shape) - a["dims"] :]


def _layer_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], a["dims"])
    need_float(x[0])
    for t in x[1:]:
        if t.shape != _last(a, x):
            raise TypeMismatch(f"weight or bias is {t}, expected shape {list(_last(a, x))}")
    return (x[0],)


def _layer_params(a: A, x: Types) -> dict[str, Param]:
    if len(x) > 1 or not a["affine"]:
        return {}
    found = {"weight": Param(_last(a, x), ("ones",), x[0].dtype)}
    if a.get("bias"):
        found["bias"] = Param(_last(a, x), ("zeros",), x[0].dtype)
    return found


def _layer_cost(a: A, x: Types, y: Types) -> Cost:
    rows = math.prod(x[0].shape[: len(x[0].shape) - a["dims"]])
    return Cost(0, ("x0", "x1")[: len(x)], extra=2 * _nbytes(rows, x[0].dtype))


def _layer_run(a: A, x, w, train):
    shape = x[0].shape[x[0].dim() - a["dims"] :]
    return F.layer_norm(x[0], shape, operand("weight", 1, x, w), operand("bias", 2, x, w), a["eps"])


def _layer_axes(a: A, x: Types, y: Types) -> Axes:
    dims, rank = labels(x[0].shape), len(x[0].shape)
    last = dims[rank - a["dims"] :]
    axes = Axes((dims, *(last for _ in x[1:])), (dims,), dict.fromkeys(_layer_params(a, x), last))
    return _coupled(axes, *range(rank - a["dims"], rank))


def _layer_onnx(o, a, x, w, xt, yt):
    t, shape = xt[0], _last(a, xt)
    weight, bias = operand("weight", 1, x, w), operand("bias", 2, x, w)
    if weight is None:  # ONNX asks for one
        weight = o.expand(o.scalar(1.0, t.dtype), shape)
    return o.node("LayerNormalization", [x[0], weight, bias], axis=-a["dims"], epsilon=a["eps"])


def _shape_text(shape: tuple[int, ...]) -> str:
    return str(shape[0] if len(shape) == 1 else shape)


def _layer_source(a: A, x: Types, y: Types) -> Source:
    shape = _last(a, x)
    if len(x) > 1:
        weights = ", ".join(f"{{x{i}}}" for i in range(1, len(x)))
        return Source(f"F.layer_norm({{x0}}, {shape}, {weights}, eps={a['eps']!r})")
    affine = ", elementwise_affine=False" if not a["affine"] else "" if a["bias"] else ", bias=False"
    return Source(module=f"nn.LayerNorm({_shape_text(shape)}{_options(a, {'eps': 1e-5})}{affine})")


def _rms_cost(a: A, x: Types, y: Types) -> Cost:
    # the root and the normalised input, whose product with the weight is the output
    rows = math.prod(x[0].shape[: len(x[0].shape) - a["dims"]])
    weighted = len(x) > 1 or a["affine"]
    extra = _nbytes(rows, x[0].dtype) + (x[0].nbytes if weighted else 0)
    return Cost(0, ("x0", "x1")[: len(x)], extra=extra)


def _rms_run(a: A, x, w, train):
    shape = x[0].shape[x[0].dim() - a["dims"] :]
    return F.rms_norm(x[0], shape, operand("weight", 1, x, w), a["eps"])


def _rms_onnx(o, a, x, w, xt, yt):
    t = xt[0]
    weight = operand("weight", 1, x, w)
    eps = torch.finfo(getattr(torch, t.dtype)).eps if a["eps"] is None else a["eps"]
    mean = o.node("ReduceMean", [o.node("Mul", [x[0], x[0]]), o.const(list(range(-a["dims"], 0)))])
    made = o.node("Div", [x[0], o.node("Sqrt", [o.node("Add", [mean, o.scalar(eps, t.dtype)])])])
    return o.node("Mul", [made, weight]) if weight else made


def _rms_source(a: A, x: Types, y: Types) -> Source:
    shape = _last(a, x)
    if len(x) > 1:
        return Source(f"F.rms_norm({{x0}}, {shape}, {{x1}}{_options(a, {'eps': None})})")
    affine = "" if a["affine"] else ", elementwise_affine=False"
    return Source(module=f"nn.RMSNorm({_shape_text(shape)}{_options(a, {'eps': None})}{affine})")


# ---------------------------------------------------------------------------------------------- local response norm
def _response_cost(a: A, x: Types, y: Types) -> Cost:
    # torch keeps the squares (padded), the base and the power
    n, channels, *space = x[0].shape
    padded = n * (channels + a["size"] - 1) * math.prod(space)
    return Cost(0, ("x0",), extra=2 * x[0].nbytes + _nbytes(padded, x[0].dtype))


def _response_run(a: A, x, w, train):
    return F.local_response_norm(x[0], a["size"], a["alpha"], a["beta"], a["k"])


def _response_axes(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    shape = (dims[0], Dim(None, x[0].shape[1]), *dims[2:])
    return Axes((shape,), (shape,))


def _response_onnx(o, a, x, w, xt, yt):
    t, size = xt[0], a["size"]
    # the channels become a dimension to pool over: the LRN of ONNX Runtime takes images and odd sizes only
    squares = o.reshape(o.node("Mul", [x[0], x[0]]), 0, 1, t.shape[1], -1)
    pads = [size // 2, 0, (size - 1) // 2, 0]
    mean = o.node("AveragePool", [squares], kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    base = o.node("Mul", [o.reshape(mean, o.shape_of(x[0])), o.scalar(a["alpha"], t.dtype)])
    base = o.node("Add", [base, o.scalar(a["k"], t.dtype)])
    return o.node("Div", [x[0], o.node("Pow", [base, o.scalar(a["beta"], t.dtype)])])


def _response_source(a: A, x: Types, y: Types) -> Source:
    told = f"{a['size']}, {a['alpha']!r}, {a['beta']!r}, {a['k']!r}"
    return Source(f"F.local_response_norm({{x0}}, {told})", f"nn.LocalResponseNorm({told})")


_LAST = {"dims": Attr("size", 1), "affine": Attr("bool", True)}
_STATISTICS = {"eps": Attr("number", 1e-5), "momentum": Attr("number?", 0.1)}

OPS = (
    Op(
        "batch_norm", _batch_infer, _batch_run,
        {**_STATISTICS, "affine": Attr("bool", True), "track": Attr("bool", True)}, params=_statistics_params,
        cost=_batch_cost, axes=_batch_axes, onnx=_batch_onnx, source=_batch_source, stateful=True,
        doc="Batch normalisation for each channel, in any number of dimensions.",
    ),
    Op(
        "instance_norm", _instance_infer, _instance_run,
        {**_STATISTICS, "affine": Attr("bool", False), "track": Attr("bool", False)}, params=_statistics_params,
        cost=_instance_cost, axes=_instance_axes, onnx=_instance_onnx, source=_instance_source, stateful=True,
        doc="Normalisation over positions, for each sample and channel.",
    ),
    Op(
        "group_norm", _group_infer, _group_run,
        {"groups": Attr("size"), "eps": Attr("number", 1e-5), "affine": Attr("bool", True)}, inputs=(1, 3),
        params=_group_params, cost=_group_cost, axes=_group_axes, onnx=_group_onnx, source=_group_source,
        doc="Normalisation over positions and the channels of a group, for each sample.",
    ),
    Op(
        "layer_norm", _layer_infer, _layer_run,
        {**_LAST, "eps": Attr("number", 1e-5), "bias": Attr("bool", True)},
        inputs=(1, 3), params=_layer_params, cost=_layer_cost, axes=_layer_axes, onnx=_layer_onnx,
        source=_layer_source, doc="Normalisation over the last `dims` dimensions.",
    ),
    Op(
        "rms_norm", _layer_infer, _rms_run,
        {**_LAST, "eps": Attr("number", None)}, inputs=(1, 2),
        params=_layer_params, cost=_rms_cost, axes=_layer_axes, onnx=_rms_onnx, source=_rms_source,
        doc="Division by the root mean square over the last `dims` dimensions. eps None: the dtype's machine epsilon.",
    ),
    Op(
        "local_response_norm", _instance_infer, _response_run,
        {"size": Attr("size"), "alpha": Attr("number", 1e-4), "beta": Attr("number", 0.75), "k": Attr("number", 1.0)},
        cost=_response_cost, axes=_response_axes, onnx=_response_onnx, source=_response_source,
        doc="Division by a power of the mean square over neighbouring channels.",
    ),
)  # fmt: skip
