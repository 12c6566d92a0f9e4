"""Splits by chance, by time, by group, and as they are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright.data.data import SPLITS
from archwright.data.splits import divide
from archwright.errors import DataError


def rng():
    return np.random.default_rng(0)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=80), st.integers(0, 9))
def test_every_sample_is_in_one_split_and_every_class_in_train(target, seed):
    target = np.array(target)
    try:
        found, how = divide(target, "classification", np.random.default_rng(seed))
    except DataError:
        assert len(target) - len(np.unique(target)) < 2
        return
    assert how == "random"
    assert sorted(np.concatenate([found[name] for name in SPLITS])) == list(range(len(target)))
    assert all(len(found[name]) for name in SPLITS)
    assert set(target[found["train"]]) == set(target)


def test_small_classes_leave_no_split_empty():
    found, _ = divide(np.repeat(np.arange(20), 3), "classification", rng())
    assert len(found["valid"]) == 9 and len(found["test"]) == 20 and len(found["train"]) == 31


def test_the_newest_are_the_test():
    times = np.random.default_rng(1).permutation(100).astype(float)
    times[:2] = np.nan
    found, how = divide(np.zeros(100), "regression", rng(), times=times)
    assert how == "temporal" and [len(found[name]) for name in SPLITS] == [65, 15, 20]
    assert np.nanmax(times[found["train"]]) < times[found["valid"]].min()
    assert times[found["valid"]].max() < times[found["test"]].min() and {0, 1} <= set(found["train"])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 8), min_size=5, max_size=60), st.integers(0, 9))
def test_groups_stay_together(groups, seed):
    groups = np.array(groups)
    if len(np.unique(groups)) < 3:
        with pytest.raises(DataError, match=r"groups?, expected at least 3"):
            divide(np.zeros(len(groups)), "regression", rng(), groups=groups)
        return
    found, how = divide(np.zeros(len(groups)), "regression", np.random.default_rng(seed), groups=groups)
    homes = [set(groups[found[name]]) for name in SPLITS]
    assert how == "group" and all(homes) and sum(map(len, homes)) == len(np.unique(groups))
    assert sum(len(found[name]) for name in SPLITS) == len(groups)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=5, max_size=60))
def test_the_newest_groups_are_the_test(samples):
    groups, times = np.array(samples).T
    if len(np.unique(groups)) < 3:
        return
    found, how = divide(np.zeros(len(groups)), "regression", rng(), groups=groups, times=times)
    newest = [[times[groups == g].max() for g in np.unique(groups[found[name]])] for name in SPLITS]
    assert how == "temporal" and sum(map(len, newest)) == len(np.unique(groups))
    assert max(newest[0]) <= min(newest[1]) and max(newest[1]) <= min(newest[2])


def test_what_the_source_says_stays():
    home = ["train"] * 20 + ["test"] * 5
    found, how = divide(np.arange(25) % 2, "classification", rng(), given=home)
    assert how == "random" and found["test"].tolist() == [20, 21, 22, 23, 24] and len(found["valid"]) == 4
    home[:3] = ["valid"] * 3
    found, how = divide(np.arange(25) % 2, "classification", rng(), given=home)
    assert how == "given" and found["valid"].tolist() == [0, 1, 2] and len(found["train"]) == 17


def test_no_test_split_if_none_is_wanted():
    found, _ = divide(np.arange(20) % 2, "classification", rng(), test=0.0)
    assert not len(found["test"]) and len(found["valid"]) == 4


@pytest.mark.parametrize(
    ("count", "hp", "message"),
    [
        (1, {}, "got 1 sample to divide, expected at least 3"),
        (9, {"valid": 0.7, "test": 0.5}, "leave something for training"),
        (9, {"valid": -0.1}, "leave something"),
        (9, {"groups": np.zeros(9)}, "got 1 groups, expected at least 3"),
    ],
)
def test_what_cannot_be_divided_is_said(count, hp, message):
    with pytest.raises(DataError, match=message):
        divide(np.zeros(count), "regression", rng(), **hp)


def test_classes_of_one_sample_each_cannot_be_divided():
    with pytest.raises(DataError, match="no sample can be spared for the valid split"):
        divide(np.arange(8), "classification", rng())
