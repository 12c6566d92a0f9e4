"""Memory as it is used: the storages of activations, watched while operators run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode


class Storages(TorchDispatchMode):
    """Watches storages come and go: `peak` is the most bytes that were alive at once after any operator.

    held  tensors that are there already and stay: counted throughout. Weights are not given, and not counted
    """

    def __init__(self, held: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in weights}
        self.peak = 0
        for tensor in held:
            self._see(tensor)
        self._count()

    def _see(self, value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage._cdata not in self._known and storage._cdata not in self._alive:
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        elif isinstance(value, (tuple, list)):
            for item in value:
                self._see(item)

    def _count(self) -> None:
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum([size for _, size in self._alive.values()]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self._see(made)
        self._count()
        return made
