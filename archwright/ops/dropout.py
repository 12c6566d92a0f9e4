"""Noise: dropout and its kin (in training only), and fresh random tensors (always).

    dropout           y = x m / (1 - p), every m drawn from {0, 1} with P(m = 0) = p
    feature_dropout   one m for each sample and channel (torch.nn.Dropout1d, 2d, 3d)
    alpha_dropout     dropout that keeps mean and variance of what `selu` makes
    stochastic_depth  one m for each sample (mode "row") or for the whole batch (mode "batch")
    random            a tensor drawn afresh in each run, in eval mode too; random_like takes the shape of its input
    bernoulli         0 or 1 with the probabilities that the input holds, in eval mode too

Random numbers are drawn by the same torch calls as in torch.nn and torchvision: the same seed gives the same numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import (
    A,
    Attr,
    Axes,
    Cost,
    Op,
    Source,
    Types,
    elementwise,
    need_float,
    need_rank,
    pin,
)


def _need_p(a: A) -> None:
    if not 0 <= a["p"] <= 1:
        raise TypeMismatch(f"p={a['p']}, expected a probability from 0 to 1")


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    _need_p(a)
    need_float(x[0])
    return (x[0],)


def _onnx_nothing(o, a, x, w, xt, yt):
    return x[0]


# --------------------------------------------------------------------------------------------------------- dropouts
def _cost(a: A, x: Types, y: Types) -> Cost:
    # the mask is held in the dtype of the input
    return Cost(extra=x[0].nbytes if a["p"] > 0 else 0)


def _run(a: A, x, w, train):
    return F.dropout(x[0], a["p"], train)


def _source(a: A, x: Types, y: Types) -> Source:
    return Source(module=f"nn.Dropout({a['p']!r})")


def _feature_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2)
    return _infer(a, x)


def _row_cost(dims: int, a: A, x: Types) -> Cost:
    """One number for each place in the first `dims` dimensions."""
    return Cost(extra=Type(x[0].shape[:dims], x[0].dtype).nbytes if a["p"] > 0 else 0)


def _feature_cost(a: A, x: Types, y: Types) -> Cost:
    return _row_cost(2, a, x)


def _feature_run(a: A, x, w, train):
    return torch.feature_dropout(x[0], a["p"], train)


def _feature_source(a: A, x: Types, y: Types) -> Source:
    rank = len(x[0].shape)
    if 3 <= rank <= 5:
        return Source(module=f"nn.Dropout{rank - 2}d({a['p']!r})")
    return Source(f"torch.feature_dropout({{x0}}, {a['p']!r}, {{training}})")


def _alpha_run(a: A, x, w, train):
    return F.alpha_dropout(x[0], a["p"], train)


def _alpha_source(a: A, x: Types, y: Types) -> Source:
    return Source(module=f"nn.AlphaDropout({a['p']!r})")


def stochastic_depth(x, p, mode, draw, training):
    """Leave out whole samples (mode "row") or the whole batch, and scale what stays: as torchvision and timm do.

    draw "uniform" is the older way, floor(1 - p + u): the same distribution, from other random numbers.
    """
    if not training or p == 0:
        return x
    shape = [x.shape[0] if mode == "row" else 1] + [1] * (x.dim() - 1)
    if draw == "uniform":
        return x.div(1 - p) * torch.rand(shape, dtype=x.dtype, device=x.device).add_(1 - p).floor_()
    # new_empty and not empty: under torch.func.vmap each network then draws its own
    noise = x.new_empty(shape).bernoulli_(1 - p)
    return x * (noise.div_(1 - p) if p < 1 else noise)


def _depth_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 1)
    return _infer(a, x)


def _depth_cost(a: A, x: Types, y: Types) -> Cost:
    return _row_cost(1 if a["mode"] == "row" else 0, a, x)


def _depth_run(a: A, x, w, train):
    return stochastic_depth(x[0], a["p"], a["mode"], a["draw"], train)


def _depth_source(a: A, x: Types, y: Types) -> Source:
    call = f"stochastic_depth({{x0}}, {a['p']!r}, {a['mode']!r}, {a['draw']!r}, {{training}})"
    return Source(call, helpers=(stochastic_depth,))


# --------------------------------------------------------------------------------------------------- fresh numbers
_FLOATS = ("float32", "float64", "float16", "bfloat16")


def _shape(a: A, ref) -> tuple[int, ...]:
    """The shape with the code 0 filled in: the size of dimension 0 of the input."""
    return tuple([n if n else ref.shape[0] for n in a["shape"]])


def _random_infer(a: A, x: Types) -> tuple[Type, ...]:
    _need_p(a)
    if 0 in a["shape"]:
        if not x:
            raise TypeMismatch(f"shape {list(a['shape'])} takes a size from an input, but there is none: add one")
        need_rank(x[0], 1)
    return (Type(_shape(a, x[0] if x else None), a["dtype"]),)


def _random_run(a: A, x, w, train):
    shape, dtype = _shape(a, x[0] if x else None), getattr(torch, a["dtype"])
    # without an input there is nothing that says on which device: torch's default
    device = x[0].device if x else None
    kind = a["kind"]
    if kind == "uniform":
        return torch.rand(shape, dtype=dtype, device=device)
    if kind == "normal":
        return torch.randn(shape, dtype=dtype, device=device)
    if kind == "zeros":
        return torch.zeros(shape, dtype=dtype, device=device)
    # with p as a number, as in dropout: a tensor of probabilities would draw other numbers
    return torch.bernoulli(torch.empty(shape, dtype=dtype, device=device), a["p"])


def _random_axes(a: A, x: Types, y: Types) -> Axes:
    # zeros are the same in any order, drawn numbers are not: the places of the generator's stream are fixed
    return Axes(tuple([pin(t.shape) for t in x]), (pin(y[0].shape),))


def _random_onnx(o, a, x, w, xt, yt):
    shape = o.concat_ints(*[n if n else o.dim(x[0], 0) for n in a["shape"]])
    start = a["p"] if a["kind"] == "bernoulli" else 0.0
    filled = o.full(shape, start, a["dtype"])
    return filled if a["kind"] == "zeros" else o.node(_DRAWN[a["kind"]], [filled])


_DRAWN = {"uniform": "RandomUniformLike", "normal": "RandomNormalLike", "bernoulli": "Bernoulli"}


def _random_source(a: A, x: Types, y: Types) -> Source:
    shape = "(" + "".join(f"{n or '{x0}.shape[0]'}, " for n in a["shape"]) + ")"
    options = f"dtype=torch.{a['dtype']}" + (", device={x0}.device" if x else "")
    if a["kind"] == "bernoulli":
        return Source(f"torch.bernoulli(torch.empty({shape}, {options}), {a['p']!r})")
    function = {"uniform": "rand", "normal": "randn", "zeros": "zeros"}[a["kind"]]
    return Source(f"torch.{function}({shape}, {options})")


_LIKE = {"uniform": torch.rand_like, "normal": torch.randn_like, "zeros": torch.zeros_like}


def _like_run(a: A, x, w, train):
    return _LIKE[a["kind"]](x[0])


def _like_infer(a: A, x: Types) -> tuple[Type, ...]:
    if a["kind"] != "zeros":
        need_float(x[0])
    return (x[0],)


def _like_onnx(o, a, x, w, xt, yt):
    if a["kind"] == "zeros":
        return o.full(o.shape_of(x[0]), 0, xt[0].dtype)
    return o.node(_DRAWN[a["kind"]], [x[0]])


def _like_source(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.{_LIKE[a['kind']].__name__}({{x0}})")


def _bernoulli_infer(a: A, x: Types) -> tuple[Type, ...]:
    need_float(x[0])
    return (x[0],)


def _bernoulli_run(a: A, x, w, train):
    return torch.bernoulli(x[0])


def _bernoulli_onnx(o, a, x, w, xt, yt):
    return o.node("Bernoulli", [x[0]])


def _bernoulli_source(a: A, x: Types, y: Types) -> Source:
    return Source("torch.bernoulli({x0})")


_P = {"p": Attr("number", 0.5)}

OPS = (
    Op(
        "dropout", _infer, _run, _P, cost=_cost, axes=elementwise, onnx=_onnx_nothing, source=_source, random=True,
        doc="Sets single numbers to zero in training.",
    ),
    Op(
        "feature_dropout", _feature_infer, _feature_run, _P, cost=_feature_cost, axes=elementwise, onnx=_onnx_nothing,
        source=_feature_source, random=True, doc="Sets whole channels to zero in training.",
    ),
    Op(
        "alpha_dropout", _infer, _alpha_run, _P, cost=_cost, axes=elementwise, onnx=_onnx_nothing,
        source=_alpha_source, random=True, doc="Dropout for nets with selu: mean and variance stay.",
    ),
    Op(
        "stochastic_depth", _depth_infer, _depth_run, {
            **_P, "mode": Attr("str", "row", ("row", "batch")),
            "draw": Attr("str", "bernoulli", ("bernoulli", "uniform")),
        },
        cost=_depth_cost, axes=elementwise, onnx=_onnx_nothing, source=_depth_source, random=True,
        doc="Sets whole samples, or the whole batch, to zero in training.",
    ),
    Op(
        "random", _random_infer, _random_run,
        {
            "shape": Attr("ints"), "kind": Attr("str", "uniform", ("uniform", "normal", "zeros", "bernoulli")),
            **_P, "dtype": Attr("str", "float32", _FLOATS),
        },
        inputs=(0, 1), axes=_random_axes, onnx=_random_onnx, source=_random_source, random=True,
        doc="Fresh random numbers in each run, in eval mode too. In shape, 0 is the size of dimension 0 of the input.",
    ),
    Op(
        "random_like", _like_infer, _like_run, {"kind": Attr("str", "uniform", tuple(_LIKE))}, onnx=_like_onnx,
        source=_like_source, random=True, doc="Fresh random numbers of the shape of the input, in eval mode too.",
    ),
    Op(
        "bernoulli", _bernoulli_infer, _bernoulli_run, {}, onnx=_bernoulli_onnx, source=_bernoulli_source, random=True,
        doc="0 or 1 with the probabilities that the input holds, in eval mode too.",
    ),
)  # fmt: skip
