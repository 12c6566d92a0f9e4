"""What an argument of a call can stand for while it is being said in our ops: `Made`, `Known` or `Weight`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archwright.exchange.capturing.program import Meta, Size, equal


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What a draft makes: the name of the value."""

    name: str
    meta: Meta


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A constant. `tensor` has the rank of `meta.shape` and broadcasts to it: size 1 wherever the batch sets the size,
    and it may be so elsewhere. `name` is the module's name for it, if it has one."""

    tensor: Tensor
    meta: Meta
    name: str = ""

    def at(self, batch: int) -> Tensor:
        """The whole tensor at a batch size."""
        return self.tensor.expand(self.meta.at(batch))

    @property
    def sized(self) -> bool:
        """Whether its shape depends on the batch."""
        return any(isinstance(n, Size) for n in self.meta.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A parameter, or a buffer that training changes, by its name in the module."""

    name: str
    meta: Meta
    buffer: bool = False


Value = Made | Known | Weight


def constant(tensor: Tensor, name: str = "") -> Known:
    """A tensor as a value."""
    return Known(tensor, Meta(tuple(tensor.shape), dtype_name(tensor.dtype)), name)


def filled(number: float, meta: Meta) -> Known:
    """A constant of one number everywhere."""
    return Known(torch.full([1] * len(meta.shape), number, dtype=getattr(torch, meta.dtype)), meta)


def stretched(value: Known, shape: Sequence[Any]) -> Known:
    """A constant in a shape that it broadcasts to."""
    lead = len(shape) - value.tensor.dim()
    return Known(value.tensor[(None,) * lead], Meta(tuple(shape), value.meta.dtype), value.name)


def dtype_name(dtype: Any) -> str:
    """Name of a torch dtype, without the prefix."""
    return str(dtype).removeprefix("torch.")


def scalar(value: Any) -> float | int | bool | complex | None:
    """The number, where a value is one and the same number everywhere; else None."""
    if isinstance(value, (int, float, bool)) and not isinstance(value, Size):
        return value
    if isinstance(value, Known) and value.tensor.numel() == 1 and not value.tensor.is_complex():
        return value.tensor.item()  # type: ignore[no-any-return]
    return None


def compact(tensor: Tensor, meta: Meta) -> Tensor | None:
    """A tensor with size 1 where its shape depends on the batch, or None if it is not the same all along."""
    for dim, n in enumerate(meta.shape):
        if isinstance(n, Size):
            first = tensor.narrow(dim, 0, 1)
            if not equal(first.expand_as(tensor), tensor):
                return None
            tensor = first
    return tensor


def shrunk(tensor: Tensor) -> Tensor:
    """A tensor of one number everywhere, with all its sizes 1; any other as it is."""
    if tensor.numel() < 2:
        return tensor
    first = tensor[(slice(0, 1),) * tensor.dim()]
    return first.clone() if bool((tensor == first).all()) else tensor


def sizes(value: Any) -> list[Size]:
    """All numbers that depend on the batch, in an argument or in a mapping of them."""
    if isinstance(value, Size):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [s for item in value for s in sizes(item)] if isinstance(value, (list, tuple)) else []


def values(items: Any) -> list[Value]:
    """All values in an argument."""
    if isinstance(items, (Made, Known, Weight)):
        return [items]
    if isinstance(items, (list, tuple)) and not isinstance(items, Size):
        return [v for item in items for v in values(item)]
    return []
