"""The first rewrites. Each is a small piece of algebra; `archwright.net.rewrite` guards it.

    drop_identity         identity(x) = x;  dropout(x) = x in eval mode
    fold_constants        f(constants) = a constant
    fold_batch_norm       norm(W x + b) = (s W) x + (s (b - m) + t),        s = weight / sqrt(var + eps), m mean, t bias
    fold_batch_norm_next  W norm(x) + b = (W s) x + (b + W (t - s m)),      where no zeros are padded in between
    merge_linear          V (W x + b) + c = (V W) x + (V b + c),            where that is not more work
    merge_pointwise       the same for a convolution followed by a 1 x 1 convolution
"""

from __future__ import annotations

import torch
from torch import Tensor

from archwright.ir import REST, Any_, Node, Pattern
from archwright.net.rewrite import SOURCES, Rule, Site

X = Any_("x")


def _always(site: Site) -> str | None:
    return None


# ---------------------------------------------------------------------------------------------- identity, constants
def _first_input(site: Site) -> str:
    return site.value("x")


DROP_IDENTITY = Rule(
    "drop_identity",
    Pattern("identity|detach|dropout|feature_dropout|alpha_dropout|stochastic_depth", X, name="node"),
    _always,
    _first_input,
)


def _not_constant(site: Site) -> str | None:
    node = site["node"]
    op = site.op(node)
    if node.op in SOURCES or not node.inputs or op.random or op.stateful or node.slot is not None:
        return "not a function of constants"
    if any(site.maker(value).op != "buffer" for value in node.inputs):
        return "not a function of constants"
    if node.op == "opaque":
        return "opaque operators are not run while rewriting"
    return None


def _fold_constant(site: Site) -> str:
    node = site["node"]
    with torch.no_grad():
        tensors = [site.weights(site.maker(value))[""] for value in node.inputs]
        made = site.op(node).run(site.attrs(node), tensors, {}, False)
    if type(made) is tuple:
        made = made[0]
    made = made.contiguous().clone()
    dtype = str(made.dtype).removeprefix("torch.")
    return site.add("buffer", shape=tuple(made.shape), dtype=dtype, weights={"": made})


def _foldable(node: Node) -> bool:
    return node.op not in SOURCES and bool(node.inputs) and node.slot is None


FOLD_CONSTANTS = Rule(
    "fold_constants",
    Pattern("*", REST, name="node", where=_foldable),
    _not_constant,
    _fold_constant,
    mode="both",
)


# ------------------------------------------------------------------------------------------------- batch norm folding
def _scale_shift(site: Site) -> tuple[Tensor, Tensor]:
    """(s, t - s m) of a batch norm, in float64: norm(x) = s x + (t - s m)."""
    w = {name: tensor.detach().double() for name, tensor in site.weights(site["norm"]).items()}
    s = (w["running_var"] + site.attrs(site["norm"])["eps"]).rsqrt()
    if "weight" in w:
        s = s * w["weight"]
    shift = -s * w["running_mean"]
    return s, shift + w["bias"] if "bias" in w else shift


def _norm_unfit(site: Site) -> str | None:
    if not site.attrs(site["norm"])["track"]:
        return "the norm has no running statistics: it depends on the batch"
    if site["map"].slot is None:
        return f"the weights of '{site['map'].name}' are computed, not stored"
    if site["map"].op == "linear" and len(site.inputs(site["map"])[0].shape) != 2:
        return "the norm runs over another dimension than the linear layer's outputs"
    return None


def _per_output(op: str, groups: int, weight: Tensor, s: Tensor) -> Tensor:
    """Multiply a weight by a factor for each output channel."""
    if op != "conv_transpose":
        return weight * s.reshape(-1, *[1] * (weight.dim() - 1))
    inner = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])  # [g, in / g, out / g, *kernel]
    return (inner * s.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))).reshape(weight.shape)


def _with_bias(site: Site, node: Node, weight: Tensor, bias: Tensor) -> str:
    dtype = site.weights(node)["weight"].dtype
    weights = {"weight": weight.to(dtype), "bias": bias.to(dtype)}
    return site.add(node.op, site.value("x"), **{**node.attrs, "bias": True}, weights=weights)


def _fold_norm(site: Site) -> str:
    node = site["map"]
    a, w = site.attrs(node), site.weights(node)
    s, shift = _scale_shift(site)
    weight = _per_output(node.op, a.get("groups", 1), w["weight"].detach().double(), s)
    bias = s * w["bias"].detach().double() + shift if "bias" in w else shift
    return _with_bias(site, node, weight, bias)


FOLD_BATCH_NORM = Rule(
    "fold_batch_norm",
    Pattern("batch_norm", Pattern("conv|conv_transpose|linear", X, name="map"), name="norm"),
    _norm_unfit,
    _fold_norm,
)


def _next_unfit(site: Site) -> str | None:
    a = site.attrs(site["map"])
    if a.get("padding", 0) != 0:
        return "the convolution pads with zeros after the norm"
    return _norm_unfit(site)


def _fold_norm_next(site: Site) -> str:
    node = site["map"]
    a, w = site.attrs(node), site.weights(node)
    s, shift = _scale_shift(site)
    old = w["weight"].detach().double()
    groups = a.get("groups", 1)
    inner = old.reshape(groups, old.shape[0] // groups, *old.shape[1:])  # [g, out / g, in / g, *kernel]
    tail = [1] * (old.dim() - 2)
    weight = (inner * s.reshape(groups, 1, -1, *tail)).reshape(old.shape)
    moved = (inner * shift.reshape(groups, 1, -1, *tail)).flatten(2).sum(2).reshape(-1)
    bias = w["bias"].detach().double() + moved if "bias" in w else moved
    return _with_bias(site, node, weight, bias)


FOLD_BATCH_NORM_NEXT = Rule(
    "fold_batch_norm_next",
    Pattern("conv|linear", Pattern("batch_norm", X, name="norm"), name="map"),
    _next_unfit,
    _fold_norm_next,
)


# ------------------------------------------------------------------------------------------------ merging linear maps
def _merge_unfit(site: Site) -> str | None:
    first, second = site["first"], site["second"]
    if first.slot is None or second.slot is None:
        return "the weights of one of the two are computed, not stored"
    one, two = site.weights(first)["weight"], site.weights(second)["weight"]
    if first.op == "conv":
        a = site.attrs(second)
        if a["stride"] != 1 or a["padding"] not in (0, "same") or a["groups"] != 1 or a["kernel"] != 1:
            return "the second convolution is not a plain 1 x 1 one"
        if site.attrs(first)["groups"] != 1:
            return "the first convolution has groups"
    if two.shape[0] * one[0].numel() > one.numel() + two.numel():
        return "the two together are cheaper than their product (a narrow middle)"
    return None


def _merge(site: Site) -> str:
    first, second = site["first"], site["second"]
    one = {name: t.detach().double() for name, t in site.weights(first).items()}
    two = {name: t.detach().double() for name, t in site.weights(second).items()}
    outer = two["weight"].flatten(1)
    weight = (outer @ one["weight"].flatten(1)).reshape(-1, *one["weight"].shape[1:])
    bias = two.get("bias", torch.zeros(len(outer), dtype=torch.float64))
    if "bias" in one:
        bias = bias + outer @ one["bias"]
    has_bias = "bias" in one or "bias" in two
    dtype = site.weights(first)["weight"].dtype
    weights = {"weight": weight.to(dtype)} | ({"bias": bias.to(dtype)} if has_bias else {})
    attrs = {**first.attrs, "out": site.attrs(second)["out"], "bias": has_bias}
    return site.add(first.op, site.value("x"), **attrs, weights=weights)


MERGE_LINEAR = Rule(
    "merge_linear",
    Pattern("linear", Pattern("linear", X, name="first"), name="second"),
    _merge_unfit,
    _merge,
    mode="both",
)
MERGE_POINTWISE = Rule(
    "merge_pointwise",
    Pattern("conv", Pattern("conv", X, name="first"), name="second"),
    _merge_unfit,
    _merge,
    mode="both",
)

FOR_INFERENCE = (
    DROP_IDENTITY,
    FOLD_CONSTANTS,
    FOLD_BATCH_NORM,
    FOLD_BATCH_NORM_NEXT,
    MERGE_LINEAR,
    MERGE_POINTWISE,
)
"""What makes a network smaller without changing what it computes in eval mode."""
