"""Example arguments of a module: which of their dimensions is the batch, and arguments at other batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from archwright.errors import CaptureError


@dataclass(frozen=True)
class Example:
    """Arguments, flattened. `dims` is for each the dimension that is the batch, or None."""

    leaves: tuple[Any, ...]
    spec: Any
    dims: tuple[int | None, ...]
    batch: int

    @property
    def free(self) -> bool:
        """Whether there is a batch dimension at all."""
        return any(dim is not None for dim in self.dims)

    def plans(self) -> list[tuple[int, int]]:
        """Pairs of batch sizes to export at, the cheapest first."""
        if not self.free:
            return []
        plans = [(2, 3)]
        if self.batch > 3:  # rows may refer to one another, as in graphs: then no fewer will do
            plans.append((self.batch, self.batch + 1))
        return plans

    def at(self, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with another number of rows, taken in turn."""
        return self._unflatten(self.rows(batch))

    def rows(self, batch: int) -> list[Any]:
        """The same, flat."""
        return [self._rows(leaf, dim, batch) for leaf, dim in zip(self.leaves, self.dims, strict=True)]

    def random(self, batch: int, generator: torch.Generator) -> list[Any]:
        """Flat arguments of random numbers: floating ones as spread as the example's and within its bounds, others rows
        of the example."""
        found = []
        for leaf, dim in zip(self.leaves, self.dims, strict=True):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel() > 1:
                shape = list(leaf.shape)
                if dim is not None:
                    shape[dim] = batch
                wide = leaf.detach().to(torch.float64)
                drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * wide.std() + wide.mean()
                found.append(drawn.clamp(wide.min(), wide.max()).to(leaf.dtype))
            elif isinstance(leaf, Tensor):
                rows = self._rows(leaf, dim, batch)
                if dim is not None:
                    rows = rows.index_select(dim, torch.randperm(batch, generator=generator))
                found.append(rows)
            else:
                found.append(leaf)
        return found

    def call(self, module: nn.Module, leaves: list[Any]) -> Any:
        """Run a module on flat arguments."""
        args, kwargs = self._unflatten([leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves])
        return module(*args, **kwargs)

    def tensors(self, leaves: list[Any]) -> list[Tensor]:
        """Those that are tensors: the net's arguments."""
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    def _rows(self, leaf: Any, dim: int | None, batch: int) -> Any:
        if dim is None or leaf.shape[dim] == batch:
            return leaf
        return leaf.detach().index_select(dim, torch.arange(batch) % leaf.shape[dim])

    def _unflatten(self, leaves: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return pytree.tree_unflatten(leaves, self.spec)  # type: ignore[no-any-return]


def example_of(
    module: nn.Module, example: Any, kwargs: dict[str, Any], batch_dims: Mapping[int, int | None] | None
) -> Example:
    """The arguments as an `Example`. Raises `CaptureError` if there is no tensor, or no such dimension."""
    args = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    leaves, spec = pytree.tree_flatten((args, kwargs))
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if not tensors:
        name = type(module).__name__
        raise CaptureError(f"the example of {name} holds no tensor: expected a tensor or a tuple of arguments")
    dims: list[int | None] = [None] * len(leaves)
    ranked = [i for i in tensors if leaves[i].dim() > 0]
    if batch_dims is None:
        size = leaves[ranked[0]].shape[0] if ranked else 0
        for i in ranked:
            if leaves[i].shape[0] == size:
                dims[i] = 0
    else:
        for number, dim in batch_dims.items():
            if not 0 <= number < len(tensors) or (dim is not None and not 0 <= dim < leaves[tensors[number]].dim()):
                raise CaptureError(
                    f"batch_dims has {number}: {dim}, expected the number of one of {len(tensors)} tensors, "
                    "and one of its dimensions"
                )
            dims[tensors[number]] = dim
    found = {leaves[i].shape[dim] for i, dim in enumerate(dims) if dim is not None}
    if len(found) > 1:
        raise CaptureError(f"batch_dims names dimensions of sizes {sorted(found)}, expected one batch size")
    return Example(tuple(leaves), spec, tuple(dims), found.pop() if found else 1)
