"""`Data`: what a network learns from. Inputs, targets and a split, as arrays that may be memory-mapped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archwright.errors import DataError

Task = Literal["classification", "regression"]
Kind = Literal["table", "image", "signal", "points", "graph", "text"]
Array = NDArray[Any]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Data:
    """Samples and what is to be predicted of them.

    inputs   one array for each input of a network, samples first: float32 [n, ...], or int64 for indices
    target   int64 [n] classes from 0, or float32 [n, k] numbers
    task     "classification" or "regression"
    splits   "train", "valid", "test" -> indices of samples, without overlap
    kind     what the inputs are: "table" [n, features], "image" [n, channels, height, width], "signal" [n, channels,
             time], "points" [n, points, 3], ...
    classes  names of the classes
    meta     anything else as plain data: where it came from, what was done to it
    scales   for each input None, or (mean, deviation) that fit one sample: a network sees (input - mean) / deviation.
             So images stay bytes on disk and in memory, and become numbers batch by batch
    groups   int64 [n] or None: samples of equal number (one speaker's, one patient's) must stay on one side of any
             split, else what is learned of the group passes for what is learned of the task
    """

    inputs: tuple[Array, ...]
    target: Array
    task: Task
    splits: Mapping[str, Array]
    kind: Kind = "table"
    classes: tuple[str, ...] = ()
    name: str = "data"
    meta: Mapping[str, Any] = field(default_factory=dict)
    scales: tuple[tuple[Array, Array] | None, ...] = ()
    groups: Array | None = None

    def __post_init__(self) -> None:
        count = len(self.target)
        if self.task not in ("classification", "regression"):
            raise DataError(f"task is {self.task!r}, expected classification or regression")
        if not self.inputs:
            raise DataError("data with no inputs: give at least one array")
        for index, array in enumerate(self.inputs):
            if len(array) != count:
                raise DataError(f"input {index} has {len(array)} samples, the target {count}")
        if self.scales and len(self.scales) != len(self.inputs):
            raise DataError(f"got {len(self.scales)} scales for {len(self.inputs)} inputs, expected one for each")
        if self.groups is not None and np.shape(self.groups) != (count,):
            raise DataError(f"groups have shape {np.shape(self.groups)}, expected a number for each of {count} samples")
        if set(self.splits) != set(SPLITS):
            raise DataError(f"got splits {sorted(self.splits)}, expected train, valid and test")
        taken = np.concatenate([np.asarray(self.splits[name]) for name in SPLITS])
        if len(taken) and (taken.min() < 0 or taken.max() >= count or np.bincount(taken).max() > 1):
            raise DataError(f"splits overlap or reach outside of the {count} samples")
        if self.task == "classification":
            whole = np.issubdtype(self.target.dtype, np.integer)
            if not whole or (count and self.target.min() < 0):
                got = f"{self.target.min()}" if whole else f"{self.target.dtype}"
                raise DataError(f"target is {got}, expected whole numbers from 0 for classification")
            if self.classes and count and self.target.max() >= len(self.classes):
                raise DataError(f"target has class {self.target.max()}, but there are {len(self.classes)} classes")

    @property
    def outputs(self) -> int:
        """Numbers that a network has to give for a sample: classes, or targets."""
        if self.task == "classification":
            return len(self.classes) or int(self.target.max()) + 1
        return int(self.target.shape[1]) if self.target.ndim > 1 else 1

    @property
    def shapes(self) -> tuple[tuple[int | None, ...], ...]:
        """The shape of each input, with None for the batch."""
        return tuple([(None, *array.shape[1:]) for array in self.inputs])

    @property
    def dtypes(self) -> tuple[str, ...]:
        """dtype of each input as a network sees it."""
        real = [np.issubdtype(array.dtype, np.floating) for array in self.inputs]
        return tuple(["float32" if r or self._scale(i) is not None else "int64" for i, r in enumerate(real)])

    def size(self, split: str = "train") -> int:
        """Number of samples in a split."""
        return len(self.splits[split])

    def batch(self, index: Sequence[int] | Array) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and target of some samples, as tensors (float32 or int64)."""
        index = np.asarray(index)
        inputs = []
        for i, array in enumerate(self.inputs):
            scale, rows = self._scale(i), array[index]
            if scale is not None:
                rows = (rows.astype(np.float32) - scale[0]) / scale[1]
            inputs.append(_tensor(rows))
        return tuple(inputs), _tensor(self.target[index])

    def _scale(self, index: int) -> tuple[Array, Array] | None:
        return self.scales[index] if self.scales else None

    def tensors(self, split: str = "train") -> tuple[tuple[Tensor, ...], Tensor]:
        """All of a split, as tensors."""
        return self.batch(self.splits[split])

    def take(self, split: str, count: int, rng: np.random.Generator) -> Data:
        """The same data with one split cut to a random `count` of its samples."""
        index = np.asarray(self.splits[split])
        chosen = np.sort(rng.permutation(len(index))[:count])
        return replace(self, splits={**self.splits, split: index[chosen]})


def _tensor(array: Array) -> Tensor:
    wanted = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
    return torch.from_numpy(np.ascontiguousarray(array, dtype=wanted))


def split(
    target: Array, task: Task, rng: np.random.Generator, *, valid: float = 0.15, test: float = 0.15
) -> dict[str, Array]:
    """Random splits; for classification each class is divided alike (a class of one sample goes to train)."""
    groups = [np.flatnonzero(target == c) for c in np.unique(target)] if task == "classification" else [
        np.arange(len(target))
    ]
    found: dict[str, list[Array]] = {name: [] for name in SPLITS}
    for group in groups:
        order = rng.permutation(group)
        n_valid, n_test = round(valid * len(order)), round(test * len(order))
        if n_valid + n_test >= len(order):
            n_valid = n_test = 0
        found["valid"].append(order[:n_valid])
        found["test"].append(order[n_valid : n_valid + n_test])
        found["train"].append(order[n_valid + n_test :])
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in found.items()}


def from_arrays(
    inputs: Array | Sequence[Array],
    target: Array,
    *,
    task: Task | None = None,
    kind: Kind = "table",
    seed: int = 0,
    standardise: bool = False,
    name: str = "data",
    classes: Sequence[str] = (),
    splits: Mapping[str, Array] | None = None,
) -> Data:
    """Data from arrays, split at random.

    `standardise` brings each feature to mean 0 and deviation 1 over the training split. The task is
    classification if the target holds whole numbers or strings, unless it is given.
    """
    arrays = [np.asarray(a) for a in ([inputs] if isinstance(inputs, np.ndarray) else inputs)]
    target = np.asarray(target)
    _check(arrays, target)
    task = task or ("regression" if np.issubdtype(target.dtype, np.floating) else "classification")
    if task == "classification" and not (np.issubdtype(target.dtype, np.integer) and classes):
        names, target = np.unique(target, return_inverse=True)
        classes = classes or [str(n) for n in names]
    if task == "classification":
        target = target.astype(np.int64)
    else:
        target = target.astype(np.float32).reshape(len(target), -1)
    chosen = dict(splits) if splits is not None else split(target, task, np.random.default_rng(seed))
    arrays = [a.astype(np.float32) if np.issubdtype(a.dtype, np.floating) else a.astype(np.int64) for a in arrays]
    meta = {}
    if standardise:
        arrays = [_standardised(a, chosen["train"]) if a.dtype == np.float32 else a for a in arrays]
        meta["standardised"] = "feature"
    return Data(tuple(arrays), target, task, chosen, kind, tuple(classes), name, meta)


def _check(arrays: Sequence[Array], target: Array) -> None:
    """Raise `DataError` for what no network can learn from."""
    if not len(target):
        raise DataError("got no samples, expected at least one")
    if target.dtype.kind == "f" and not np.isfinite(target).all():
        raise DataError(f"target has {int((~np.isfinite(target)).sum())} values that are not finite")
    for index, array in enumerate(arrays):
        if array.dtype.kind not in "fiub":
            raise DataError(f"input {index} holds {array.dtype}, expected numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"input {index} has {int((~np.isfinite(array)).sum())} values that are not finite")


def _standardised(array: Array, train: Array) -> Array:
    """Mean 0 and deviation 1 over the samples `train`; features that do not vary there become 0 there."""
    mean = array[train].mean(0, dtype=np.float64)
    deviation = array[train].std(0, dtype=np.float64)
    return ((array - mean) / np.where(deviation > 1e-8, deviation, 1.0)).astype(np.float32)
