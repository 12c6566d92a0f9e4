"""How a budget is divided, whatever the data and the budget are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright.data.data import Data, from_arrays
from archwright.flows.jobs import folds_of
from archwright.flows.plan import plan
from archwright.kit.settings import Settings


def data(rows: int, kind: str = "table", **meta: Any) -> Data:
    shape = {"table": (3,), "image": (1, 8, 8), "signal": (1, 20)}[kind]
    made = from_arrays(np.zeros((rows, *shape), np.float32), np.arange(rows) % 2, kind=kind)  # type: ignore[arg-type]
    return replace(made, meta=meta)


@given(
    st.integers(4, 30_000), st.sampled_from(["table", "image", "signal"]),
    st.sampled_from([None, 0.5, 2.0, 60.0, 3600.0]), st.integers(1, 8), st.sampled_from([1, 16, 512]),
    st.sampled_from(["random", "temporal", "given"]),
)  # fmt: skip
def test_every_plan_is_possible(
    rows: int, kind: str, budget: float | None, workers: int, batch: int, split: str
) -> None:
    made = data(rows, kind, split=split)
    found = plan(made, budget, workers)
    settings = Settings(batch=batch)
    assert 1 <= found.rows <= rows and found.siblings >= 1 and found.folds >= 0
    assert found.steps(settings, final=True) >= found.steps(settings) >= 1
    assert found.steps(settings) * min(batch, found.rows) <= max(20 * batch, 301 * found.rows) + batch
    if split != "random" and made.size("valid"):
        assert found.folds == 0
    if budget is None:
        assert found.wrap == 0 and found.job_seconds(None) is None and found.job_seconds(3) is None
    else:
        assert 0 <= found.wrap <= 0.25 * budget
        for full in (None, 0.0, 0.1 * budget, 1e6):
            assert 0 < found.final_seconds(full) <= max(0.6 * budget, 0.1)
            assert found.wrap + found.final_seconds(full) < budget
        for left in (-1.0, 0.0, 0.1, budget):
            seconds = found.job_seconds(left)
            assert seconds is not None and 0 < seconds <= max(0.2, budget / 4)


@pytest.mark.parametrize("count", [0, 3, 5])
def test_folds_hold_back_each_row_once_and_no_test_row(count: int) -> None:
    made = data(60)
    folds = folds_of(made, count, seed=3)
    held = np.sort(np.concatenate([rows for _, rows in folds]))
    free = np.sort(np.concatenate([made.splits["train"], made.splits["valid"]]))
    np.testing.assert_array_equal(held, free if count else made.splits["valid"])
    for fit, rows in folds:
        assert not set(fit) & set(rows) and set(fit) <= set(free)
        if count:
            assert len(fit) + len(rows) == len(free) and abs(made.target[rows].mean() - 0.5) < 0.15
    again = folds_of(made, count, seed=3)
    assert all((a[1] == b[1]).all() for a, b in zip(folds, again, strict=True))


@given(st.lists(st.integers(0, 9), min_size=12, max_size=60), st.sampled_from(["classification", "regression"]))
def test_folds_hold_back_whole_groups(codes: list[int], task: Any) -> None:
    groups = np.array(codes)
    made = from_arrays(np.zeros((len(groups), 3), np.float32), np.arange(len(groups)) % 2, task="classification")
    if task == "regression":
        made = replace(made, target=np.zeros((len(groups), 1), np.float32), task=task, classes=())
    made = replace(made, groups=groups, meta={"split": "group"})
    free = np.concatenate([made.splits["train"], made.splits["valid"]])
    count = plan(made, 60.0, 2).folds
    there = len(np.unique(groups[free]))
    largest = len(free) if task == "regression" else np.bincount(made.target[free]).max()
    assert count == (min(there, 5, largest) if there > 1 and len(free) >= 10 else 0)
    folds = folds_of(made, count, seed=3)
    if count:
        assert len(folds) == count and all(len(fit) and len(rows) for fit, rows in folds)
        assert not any(set(groups[fit]) & set(groups[rows]) for fit, rows in folds)
        np.testing.assert_array_equal(np.sort(np.concatenate([rows for _, rows in folds])), np.sort(free))


@pytest.mark.parametrize(("classes", "expected"), [(4, 3), (6, 2), (12, 0)])
def test_no_more_folds_than_a_class_has_samples(classes: int, expected: int) -> None:
    target = np.arange(12) % classes
    splits = {"train": np.arange(10), "valid": np.arange(10, 12), "test": np.zeros(0, np.int64)}
    made = from_arrays(np.zeros((12, 3), np.float32), target, task="classification", splits=splits)
    found = plan(made, 60.0, 2)
    assert found.folds == expected
    assert len(folds_of(made, found.folds, seed=0)) == max(1, expected)


def test_folds_of_classes_with_one_sample() -> None:
    made = data(60)
    target = made.target.copy()
    target[made.splits["train"][0]] = 2
    folds = folds_of(replace(made, target=target, classes=("a", "b", "c")), 5, seed=0)
    assert len(folds) == 5 and sum(2 in target[rows] for _, rows in folds) == 1
