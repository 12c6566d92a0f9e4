"""Rules for layers: what has weights, and what goes with them (dropout, pooling, attention)."""

from __future__ import annotations

import math
from typing import Any

import torch

from archwright.exchange.capturing.export import ATTENTION_WEIGHTS
from archwright.exchange.capturing.program import Meta, Size
from archwright.exchange.capturing.rules_index import draw
from archwright.exchange.capturing.table import Unfit, rule
from archwright.exchange.capturing.values import Known, Value, Weight, filled, scalar


class NotLiftable(Exception):
    """A nn.MultiheadAttention has weights that are computed: it must be captured operator by operator."""


def layer(c, op: str, x: Value, given: dict[str, Value | None], **attrs: Any) -> Any:
    """An op with its weights: in its slot if all of them are weights of the module, else as further inputs."""
    named = {param: value for param, value in given.items() if value is not None}
    if all(isinstance(value, Weight) for value in named.values()):
        return c.emit(op, x, held=named, **attrs)
    return c.emit(op, x, *named.values(), **attrs)


def static(value: Any) -> Any:
    """A list of numbers in the form that attributes have: one number if all are equal."""
    return value[0] if isinstance(value, (list, tuple)) and len(set(value)) == 1 else value


# ------------------------------------------------------------------------------------------------ linear, convolution
@rule("linear")
def _linear(c, call, a):
    weight, bias = a["weight"], a["bias"]
    if len(weight.meta.shape) == 1:
        made = c.emit("matmul", a["input"], weight)
        return made if bias is None else c.emit("add", made, bias)
    out, extra = weight.meta.shape[0], {"bias": False} if bias is None else {}
    return layer(c, "linear", a["input"], {"weight": weight, "bias": bias}, out=out, **extra)


@rule("bilinear")
def _bilinear(c, call, a):
    weight, bias = a["weight"], a["bias"]
    named = {"weight": weight} | ({} if bias is None else {"bias": bias})
    extra = {"bias": False} if bias is None else {}
    return c.emit("bilinear", a["input1"], a["input2"], held=named, out=weight.meta.shape[0], **extra)


def _batched(c, x: Value, rank: int) -> tuple[Value, bool]:
    """A sample without a batch dimension gets one."""
    if len(x.meta.shape) == rank + 2:
        return x, False
    return c.emit("unsqueeze", x, dim=0), True


@rule("conv1d", "conv2d", "conv3d")
def _conv(c, call, a):
    return _convolve(c, a, "conv", a["padding"], {})


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(c, call, a):
    return _convolve(c, a, "conv_transpose", a["padding"], {"output_padding": static(a["output_padding"])})


@rule("convolution")
def _convolution(c, call, a):
    if a["transposed"]:
        return _convolve(c, a, "conv_transpose", a["padding"], {"output_padding": static(a["output_padding"])})
    return _convolve(c, a, "conv", a["padding"], {})


def _convolve(c, a: dict[str, Any], op: str, padding: Any, extra: dict[str, Any]) -> Value:
    weight, bias = a["weight"], a["bias"]
    shape = weight.meta.shape
    x, single = _batched(c, a["input"], len(shape) - 2)
    if padding == "valid":
        padding = 0
    groups = a["groups"]
    if isinstance(groups, Size) and op == "conv" and x.meta.shape[0] == 1:
        return _convolve_each(c, a, x, padding, groups.k)
    attrs = {
        "out": shape[1] * groups if op == "conv_transpose" else shape[0], "kernel": static(shape[2:]),
        "stride": static(a["stride"]), "padding": static(padding), "dilation": static(a["dilation"]), "groups": groups,
        **extra,
    }  # fmt: skip
    if bias is None:
        attrs["bias"] = False
    made = layer(c, op, x, {"weight": weight, "bias": bias}, **attrs)
    return c.emit("squeeze", made, dim=[0]) if single else made  # type: ignore[no-any-return]


def _convolve_each(c, a: dict[str, Any], x: Value, padding: Any, groups: int) -> Value:
    """A kernel of its own for each sample: in torch the batch as groups of one sample, here a product with patches."""
    weight, bias = a["weight"], a["bias"]
    out, inside, *kernel = weight.meta.shape
    if len(kernel) != 2 or padding == "same" or not isinstance(out, Size) or out.c:
        raise Unfit("a kernel for each sample, of another kind than a plain convolution of images")
    batch, out = Size(1, 0), out.k // groups
    x = c.reshape(x, (batch, groups * inside, *x.meta.shape[2:]))
    patches = c.emit(
        "unfold", x, kernel=static(kernel), stride=static(a["stride"]), padding=static(padding),
        dilation=static(a["dilation"]),
    )  # fmt: skip
    lead = (batch,) if groups == 1 else (batch, groups)
    places = patches.meta.shape[2]
    if groups > 1:
        patches = c.reshape(patches, (*lead, inside * kernel[0] * kernel[1], places))
    weight = c.reshape(weight, (*lead, out, inside * kernel[0] * kernel[1]))
    made = c.emit("matmul", weight, patches)
    sizes = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(
            x.meta.shape[2:], *[_pair(v) for v in (padding, a["dilation"], kernel, a["stride"])], strict=True
        )
    ]
    made = c.reshape(made, (1, Size(groups * out, 0), *sizes))
    return made if bias is None else c.emit("add", made, c.reshape(bias, (1, Size(groups * out, 0), 1, 1)))  # type: ignore[no-any-return]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@rule("embedding")
def _embedding(c, call, a):
    weight = a["weight"]
    if a.get("scale_grad_by_freq") or a.get("sparse"):
        raise Unfit("gradients of another kind")
    num, dim = weight.meta.shape
    padding = {} if a["padding_idx"] in (-1, None) else {"padding_idx": a["padding_idx"]}
    return layer(c, "embedding", a["indices"], {"weight": weight}, num=num, dim=dim, **padding)


@rule("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(c, call, a):
    """Bags of equal length, as the batch of a nn.EmbeddingBag is: torch flattens them and counts offsets."""
    weight, ids, offsets = a["weight"], a["indices"], a["offsets"]
    mode = ("sum", "mean", "amax")[a["mode"]]
    if a["padding_idx"] not in (None, -1) or a.get("include_last_offset"):
        raise Unfit("bags of different lengths")
    bags, total = offsets.meta.shape[0], ids.meta.shape[0]
    length = total.k // bags.k if not isinstance(total, int) and not isinstance(bags, int) else None
    if length is None and isinstance(total, int) and isinstance(bags, int):
        length = total // bags
    if length is None or not _evenly(offsets, length):
        raise Unfit("bags of different lengths")
    num, dim = weight.meta.shape
    made = layer(c, "embedding", c.reshape(ids, (bags, length)), {"weight": weight}, num=num, dim=dim)
    if a["per_sample_weights"] is not None:
        share = c.reshape(a["per_sample_weights"], (bags, length, 1))
        made = c.emit("mul", made, share)
    return (c.emit(mode, made, dim=[1]), None, None, None)


def _evenly(offsets: Value, length: int) -> bool:
    """Whether offsets are 0, length, 2 length ... Those of the batch are made by counting, and proven afterwards."""
    if isinstance(offsets, Known) and not offsets.sized:
        return bool((offsets.at(0) == torch.arange(0, offsets.at(0).numel() * length, length)).all())
    return True


# ------------------------------------------------------------------------------------------------------------- norms
def _statistics(a: dict[str, Any]) -> dict[str, Value]:
    """Weights of a normalisation with running statistics, by parameter; the counter stands beside the mean."""
    mean = a["running_mean"]
    counter = f"{mean.name.rpartition('.')[0]}.num_batches_tracked".lstrip(".")
    return {
        "running_mean": mean, "running_var": a["running_var"],
        "num_batches_tracked": Weight(counter, Meta((), "int64"), buffer=True),
    }  # fmt: skip


@rule("batch_norm")
def _batch_norm(c, call, a):
    mean, momentum = a["running_mean"], a["momentum"]
    if mean is not None and not isinstance(mean, Weight):
        raise Unfit("running statistics that are computed")
    still = mean is not None and (mean.name in c.frozen or (c.train and not a["training"]))
    if still or (a["training"] and mean is not None and not c.train):
        return _affine(c, a, 1) if still else _fresh(c, a, "batch_norm")
    if mean is None:
        return _fresh(c, a, "batch_norm")
    named = _statistics(a)
    weight, bias = a["weight"], a["bias"]
    inside = isinstance(weight, Weight) and isinstance(bias, Weight)
    if inside:
        named |= {"weight": weight, "bias": bias}
    affine = {} if inside else {"affine": False}
    made = c.emit("batch_norm", a["input"], held=named, eps=a["eps"], momentum=momentum, **affine)
    return made if inside else _scale(c, made, weight, bias, 1)


def _fresh(c, a: dict[str, Any], op: str) -> Value:
    """A normalisation by the statistics of the batch alone."""
    weight, bias = a["weight"], a["bias"]
    attrs = {"eps": a["eps"], "track": False}
    if isinstance(weight, Weight) and isinstance(bias, Weight):
        return c.emit(op, a["input"], held={"weight": weight, "bias": bias}, affine=True, **attrs)  # type: ignore[no-any-return]
    made = c.emit(op, a["input"], affine=False, **attrs)
    return _scale(c, made, weight, bias, 1)


def _scale(c, made: Value, weight: Value | None, bias: Value | None, lead: int) -> Value:
    """x * weight + bias, for a weight for each channel."""
    behind = len(made.meta.shape) - lead - 1
    for op, value in (("mul", weight), ("add", bias)):
        if value is not None:
            made = c.emit(op, made, c.reshape(value, (*value.meta.shape, *[1] * behind)) if behind else value)
    return made


def _affine(c, a: dict[str, Any], lead: int) -> Value:
    """A normalisation whose statistics stand still: a scale and a shift for each channel."""
    scale = c.emit("rsqrt", c.emit("add", a["running_var"], value=a["eps"]))
    if a["weight"] is not None:
        scale = c.emit("mul", scale, a["weight"])
    shift = c.emit("neg", c.emit("mul", a["running_mean"], scale))
    if a["bias"] is not None:
        shift = c.emit("add", shift, a["bias"])
    return _scale(c, a["input"], scale, shift, lead)


@rule("instance_norm")
def _instance_norm(c, call, a):
    mean = a["running_mean"]
    if mean is None:
        return _fresh(c, a, "instance_norm")
    if mean.name in c.frozen or (a["use_input_stats"] and not c.train):
        raise Unfit("statistics that stand still")
    named = _statistics(a)
    affine = a["weight"] is not None
    if affine:
        named |= {"weight": a["weight"], "bias": a["bias"]}
    return c.emit(
        "instance_norm", a["input"], held=named, eps=a["eps"], momentum=a["momentum"], affine=affine, track=True
    )


@rule("layer_norm", "native_layer_norm")
def _layer_norm(c, call, a):
    weight, bias = a["weight"], a["bias"]
    dims = len(a["normalized_shape"])
    attrs: dict[str, Any] = {"dims": dims, "eps": a["eps"]}
    if weight is None and bias is not None:
        made = c.emit("add", c.emit("layer_norm", a["input"], affine=False, **attrs), bias)
    else:
        attrs |= {"affine": False} if weight is None else {"bias": False} if bias is None else {}
        made = layer(c, "layer_norm", a["input"], {"weight": weight, "bias": bias}, **attrs)
    return (made, None, None) if call.name == "native_layer_norm" else made


@rule("rms_norm")
def _rms_norm(c, call, a):
    weight = a["weight"]
    attrs = {"dims": len(a["normalized_shape"]), "eps": a["eps"]} | ({"affine": False} if weight is None else {})
    return layer(c, "rms_norm", a["input"], {"weight": weight}, **attrs)


@rule("group_norm")
def _group_norm(c, call, a):
    weight, bias = a["weight"], a["bias"]
    attrs = {"groups": a["num_groups"], "eps": a["eps"]}
    if (weight is None) != (bias is None) or weight is None:
        return _scale(c, c.emit("group_norm", a["input"], affine=False, **attrs), weight, bias, 1)
    return layer(c, "group_norm", a["input"], {"weight": weight, "bias": bias}, **attrs)


@rule("prelu")
def _prelu(c, call, a):
    weight = a["weight"]
    if len(weight.meta.shape) != 1:
        raise Unfit("slopes in another shape")
    return layer(c, "prelu", a["self"], {"weight": weight}, num=weight.meta.shape[0])


# ------------------------------------------------------------------------------------------------------------ dropout
def _dropout(names: str, op: str) -> None:
    def run(c, call, a):
        x, p, active = a["input"] if "input" in a else a["self"], float(a["p"]), a["train"]
        if p == 0 or (c.train and not active):
            return x
        if active and not c.train:
            return _always(c, x, p, op)
        return c.emit(op, x, p=p)

    rule(*names.split())(run)


def _always(c, x: Value, p: float, op: str) -> Value:
    """Dropout in eval mode too: a mask drawn afresh each time."""
    if op != "dropout" or p >= 1:
        raise Unfit(f"{op} in eval mode")
    noise = draw(c, x.meta, "bernoulli", p=1 - p)
    return c.emit("mul", x, c.emit("div", noise, value=1 - p))  # type: ignore[no-any-return]


_dropout("dropout native_dropout", "dropout")
_dropout("feature_dropout", "feature_dropout")
_dropout("alpha_dropout", "alpha_dropout")


# --------------------------------------------------------------------------------------------------------------- pools
def _stride(a: dict[str, Any]) -> dict[str, Any]:
    stride, kernel = static(a["stride"]), static(a["kernel_size"])
    return {} if stride in ([], (), kernel) else {"stride": stride}


@rule("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(c, call, a):
    x, single = _batched(c, a["self"], int(call.name[-2]))
    made = c.emit(
        "max_pool", x, kernel=static(a["kernel_size"]), padding=static(a["padding"]), dilation=static(a["dilation"]),
        ceil=a["ceil_mode"], **_stride(a),
    )  # fmt: skip
    return c.emit("squeeze", made, dim=[0]) if single else made


@rule("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool_with_indices(c, call, a):
    places = c.is_read(call, 1)
    made = c.emit(
        "max_pool_indices" if places else "max_pool", a["self"], kernel=static(a["kernel_size"]),
        padding=static(a["padding"]), dilation=static(a["dilation"]), ceil=a["ceil_mode"], **_stride(a),
    )  # fmt: skip
    return made if places else (made, None)


@rule("max_unpool2d", "max_unpool3d")
def _max_unpool(c, call, a):
    """Values put back where they were the greatest."""
    lead, sizes = a["self"].meta.shape[:2], call.out.shape[2:]
    flat = [c.emit("flatten", a[key], start=2) for key in ("self", "indices")]
    empty = filled(0, Meta((*lead, math.prod(sizes)), call.out.dtype))
    return c.reshape(c.emit("scatter", empty, flat[1], flat[0], dim=2), call.out.shape)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(c, call, a):
    x, single = _batched(c, a["self"], int(call.name[-2]))
    made = c.emit(
        "avg_pool", x, kernel=static(a["kernel_size"]), padding=static(a["padding"]), ceil=a["ceil_mode"],
        count_include_pad=a["count_include_pad"], divisor=a.get("divisor_override"), **_stride(a),
    )  # fmt: skip
    return c.emit("squeeze", made, dim=[0]) if single else made


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_avg_pool(c, call, a):
    x, single = _batched(c, a["self"], int(call.name[-2]))
    made = c.emit("adaptive_avg_pool", x, size=static(list(a["output_size"])))
    return c.emit("squeeze", made, dim=[0]) if single else made


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(c, call, a):
    if c.is_read(call, 1):
        raise Unfit("the indices are used")
    return c.emit("adaptive_max_pool", a["self"], size=static(list(a["output_size"]))), None


# ---------------------------------------------------------------------------------------------------------- attention
@rule("scaled_dot_product_attention")
def _attention(c, call, a):
    inputs = [a["query"], a["key"], a["value"], *([] if a["attn_mask"] is None else [a["attn_mask"]])]
    return c.emit(
        "attention", *inputs, causal=a["is_causal"], scale=a["scale"], dropout=float(a["dropout_p"]),
        grouped=a["enable_gqa"],
    )  # fmt: skip


@rule("multihead_attention")
def _multihead_attention(c, call, a):
    named = {name: value for name, value in zip(ATTENTION_WEIGHTS, a["weights"], strict=True) if value is not None}
    prefixes = {v.name.removesuffix(name) if isinstance(v, Weight) else None for name, v in named.items()}
    if None in prefixes or len(prefixes) != 1 or any(not v.name.endswith(n) for n, v in named.items()):
        raise NotLiftable
    masks = [a["key_padding_mask"], a["attn_mask"]]
    attrs: dict[str, Any] = {
        "heads": a["heads"], "dropout": a["dropout"], "bias": "in_proj_bias" in named,
        "batch_first": a["batch_first"], "bias_kv": "bias_k" in named, "zero_attn": a["zero_attn"],
        "padding_mask": masks[0] is not None, "mask": masks[1] is not None, "causal": a["causal"],
        "weights": a["need_weights"], "average": a["average"],
    }  # fmt: skip
    if "q_proj_weight" in named:
        attrs |= {"key_dim": named["k_proj_weight"].meta.shape[1], "value_dim": named["v_proj_weight"].meta.shape[1]}
    inputs = [a["query"], a["key"], a["value"], *[m for m in masks if m is not None]]
    return c.emit("multihead_attention", *inputs, held=named, **attrs)


# ---------------------------------------------------------------------------------------------------------- recurrence
def _recurrent_weights(params: list[Value], layers: int, both: bool, bias: bool, proj: bool) -> dict[str, Value]:
    names = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if bias else []), *(["weight_hr"] if proj else [])]
    ends = [f"_l{i}{end}" for i in range(layers) for end in (("", "_reverse") if both else ("",))]
    wanted = [name + end for end in ends for name in names]
    return dict(zip(wanted, params, strict=True))


def _zero(value: Value) -> bool:
    return scalar(value) == 0


@rule("lstm")
def _lstm(c, call, a):
    if "data" in a:
        raise Unfit("packed sequences")
    layers, both, bias = a["num_layers"], a["bidirectional"], a["has_biases"]
    h, cell = a["hx"]
    proj = h.meta.shape[-1] if h.meta.shape[-1] != cell.meta.shape[-1] else 0
    weights = _recurrent_weights(a["params"], layers, both, bias, bool(proj))
    state = () if _zero(h) and _zero(cell) else (h, cell)
    extra = {"proj": proj} if proj else {}
    return c.emit(
        "lstm", a["input"], *state, held=weights, hidden=cell.meta.shape[-1], layers=layers, bias=bias,
        batch_first=a["batch_first"], dropout=float(a["dropout"]), bidirectional=both, **extra,
    )  # fmt: skip


@rule("gru", "rnn_tanh", "rnn_relu")
def _gru(c, call, a):
    if "data" in a:
        raise Unfit("packed sequences")
    layers, both, bias, h = a["num_layers"], a["bidirectional"], a["has_biases"], a["hx"]
    weights = _recurrent_weights(a["params"], layers, both, bias, False)
    kind = {} if call.name != "rnn_relu" else {"nonlinearity": "relu"}
    return c.emit(
        "gru" if call.name == "gru" else "rnn", a["input"], *(() if _zero(h) else (h,)), held=weights,
        hidden=h.meta.shape[-1], layers=layers, bias=bias, batch_first=a["batch_first"], dropout=float(a["dropout"]),
        bidirectional=both, **kind,
    )  # fmt: skip


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _cell(c, call, a):
    names = {"weight_ih": a["w_ih"], "weight_hh": a["w_hh"], "bias_ih": a["b_ih"], "bias_hh": a["b_hh"]}
    weights = {name: value for name, value in names.items() if value is not None}
    states = a["hx"] if isinstance(a["hx"], (list, tuple)) else [a["hx"]]
    attrs: dict[str, Any] = {"hidden": states[0].meta.shape[-1], "bias": a["b_ih"] is not None}
    if call.name == "rnn_relu_cell":
        attrs["nonlinearity"] = "relu"
    op = "rnn_cell" if call.name.startswith("rnn") else call.name
    made = c.emit(op, a["input"], *states, held=weights, **attrs)
    return made


