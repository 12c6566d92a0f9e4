"""Which samples are for training, for choosing (valid) and for the final figure (test)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archwright.data.data import SPLITS, Array, Task, split
from archwright.errors import DataError

Splits = dict[str, Array]


def divide(
    target: Array,
    task: Task,
    rng: np.random.Generator,
    *,
    valid: float = 0.15,
    test: float = 0.2,
    times: Array | None = None,
    groups: Array | None = None,
    given: Sequence[str | None] | Array | None = None,
) -> tuple[Splits, str]:
    """Splits of all samples, and how "valid" was drawn: "random", "temporal", "group" or "given".

    target   classes or numbers [n]; at random, each class is divided alike, and one of a single sample is for training
    times    numbers [n]: the oldest samples are for training, the newest for the test; NaN counts as oldest
    groups   [n]: the samples of a group stay together, in a split chosen at random; with times, in one that the newest
             sample of the group decides
    given    [n] of "train", "valid", "test": what the source itself says. Without "valid", that is taken from "train"
             in one of the ways above; without "test", likewise

    Raises `DataError` where a split that was asked for would be empty.
    """
    count = len(target)
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise DataError(f"got valid={valid} and test={test}, expected shares that leave something for training")
    if given is not None:
        home = np.array(list(given), object)
        rest = np.flatnonzero(home == "train")
        inner, how = divide(
            np.asarray(target)[rest], task, rng, valid=valid if "valid" not in home else 0.0,
            test=test if "test" not in home else 0.0, times=None if times is None else np.asarray(times)[rest],
            groups=None if groups is None else np.asarray(groups)[rest],
        )  # fmt: skip
        found = {name: np.concatenate([rest[inner[name]], np.flatnonzero(home == name)]) for name in SPLITS[1:]}
        found = {name: np.sort(places) for name, places in found.items()}
        return {"train": rest[inner["train"]], **found}, "given" if "valid" in home else how
    wanted = {"valid": valid, "test": test}
    needed = 1 + sum(share > 0 for share in wanted.values())
    if count < needed:
        some = f"{count} sample{'s' * (count != 1)}"
        raise DataError(f"got {some} to divide, expected at least {needed}: one for each split")
    when = None if times is None else np.nan_to_num(np.asarray(times, float), nan=-np.inf)
    if groups is not None:
        return _grouped(np.asarray(groups), wanted, rng, when), "group" if when is None else "temporal"
    if when is not None:
        return _temporal(when, wanted), "temporal"
    return _random(np.asarray(target), task, wanted, rng), "random"


def numbered(groups: Array | None) -> Array | None:
    """int64 [n]: a number for each group, whatever they are called."""
    return None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _random(target: Array, task: Task, wanted: dict[str, float], rng: np.random.Generator) -> Splits:
    found = split(target, task, rng, valid=wanted["valid"], test=wanted["test"])
    for name, share in wanted.items():
        if share and not len(found[name]):  # many small classes, or few samples: whoever can be spared
            free = _spare(target, found["train"], task)
            if not len(free):
                raise DataError(
                    f"no sample can be spared for the {name} split: got {len(target)} samples, and no class with"
                    " more than one left for training"
                )
            taken = rng.permutation(free)[: max(1, round(share * len(target)))]
            found[name] = np.sort(taken)
            found["train"] = np.setdiff1d(found["train"], taken)
    return found


def _spare(target: Array, train: Array, task: Task) -> Array:
    """Samples of `train` without the first one of each class."""
    if task != "classification":
        return train[1:]
    _, first = np.unique(target[train], return_index=True)
    return np.delete(train, first)


def _temporal(times: Array, wanted: dict[str, float]) -> Splits:
    order = np.argsort(times, kind="stable")
    sizes = {name: max(1, round(share * len(order))) if share else 0 for name, share in wanted.items()}
    edges = np.cumsum([max(1, len(order) - sum(sizes.values())), sizes["valid"]])
    return {name: np.sort(part) for name, part in zip(SPLITS, np.split(order, edges), strict=True)}


def _grouped(groups: Array, wanted: dict[str, float], rng: np.random.Generator, times: Array | None) -> Splits:
    """Whole groups: the newest, or those that the chance puts last, are for the test."""
    names, which, counts = np.unique(groups, return_inverse=True, return_counts=True)
    needed = 1 + sum(share > 0 for share in wanted.values())
    if len(names) < needed:
        raise DataError(f"got {len(names)} groups, expected at least {needed}: one for each split")
    if times is None:
        order = list(rng.permutation(len(names)))
    else:
        newest = np.full(len(names), -np.inf)
        np.maximum.at(newest, which, times)
        order = list(np.argsort(newest, kind="stable"))
    home = np.zeros(len(names), int)  # place in SPLITS
    for name in ("test", "valid"):
        wished, taken = wanted[name] * len(groups), 0
        spare = len(order) - (1 + (name == "test" and wanted["valid"] > 0))
        while wished and spare > 0 and (not taken or taken + counts[order[-1]] / 2 <= wished):
            group = order.pop()
            home[group], taken, spare = SPLITS.index(name), taken + counts[group], spare - 1
    return {name: np.flatnonzero(home[which] == place) for place, name in enumerate(SPLITS)}
