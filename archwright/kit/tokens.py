"""Pieces of graph that token architectures share: patches, multilayer perceptrons, layer scale, residuals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from archwright.errors import TypeMismatch
from archwright.ir import Editor


def need_tokens(g: Editor, x: str) -> tuple[int, int]:
    """Tokens and channels of x [N, tokens, channels]. Raises `TypeMismatch` for anything else."""
    if len(g.shape(x)) != 3 or g.type(x).dtype != "float32":
        raise TypeMismatch(f"'{x}' is {g.type(x)}, expected float32 [N, tokens, channels]")
    return g.shape(x)[1], g.shape(x)[2]


def patches(g: Editor, x: str, patch: int | Sequence[int], dim: int, name: str = "patches") -> str:
    """x [N, C, *spatial] -> [N, tokens, dim]: a linear map of each patch, patches beside each other."""
    x = g.add("conv", x, out=dim, kernel=patch, stride=patch, name=name)
    return g.add("transpose", g.add("flatten", x, start=2), dim0=1, dim1=2)


def mlp(g: Editor, x: str, hidden: int, *, name: str = "mlp", act: str = "gelu", dropout: float = 0.0) -> str:
    """x [N, ..., C] -> [N, ..., C]: W2 act(W1 x + b1) + b2 with W1 [hidden, C]."""
    width = g.shape(x)[-1]
    with g.scope(name):
        x = g.add(act, g.add("linear", x, out=hidden, name="up"))
        if dropout:
            x = g.add("dropout", x, p=dropout)
        x = g.add("linear", x, out=width, name="down")
        return g.add("dropout", x, p=dropout) if dropout else x


def across_tokens(g: Editor, x: str, body: Callable[[str], str]) -> str:
    """x [N, tokens, C] -> body(x transposed [N, C, tokens]) transposed back."""
    return g.add("transpose", body(g.add("transpose", x, dim0=1, dim1=2)), dim0=1, dim1=2)


def scale(g: Editor, x: str, value: float, *, dim: int = -1, name: str = "scale") -> str:
    """x times a learned factor for each unit of a dimension, `value` at the start (LayerScale, arXiv 2103.17239)."""
    rank, size = len(g.shape(x)), g.shape(x)[dim]
    shape = (size, *[1] * (rank - 1 - dim % rank))
    return g.add("mul", x, g.add("param", shape=shape, init=("constant", value), name=name))


def shift(g: Editor, x: str, *, dim: int = -1, name: str = "shift") -> str:
    """x plus a learned number for each unit of a dimension, 0 at the start."""
    rank, size = len(g.shape(x)), g.shape(x)[dim]
    shape = (size, *[1] * (rank - 1 - dim % rank))
    return g.add("add", x, g.add("param", shape=shape, name=name))


def residual(g: Editor, x: str, y: str, drop: float = 0.0) -> str:
    """x + y, where y is left out for single samples with probability `drop` in training (stochastic depth)."""
    return g.add("add", x, g.add("stochastic_depth", y, p=drop) if drop else y)
