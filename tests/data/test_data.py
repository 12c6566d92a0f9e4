"""Data: well formed, split without overlap, standardised by the train split alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from archwright.data.builtin import BUILTIN, _sklearn, builtin
from archwright.data.data import SPLITS, Data, from_arrays, split
from archwright.errors import DataError

RNG = np.random.default_rng(0)


def splits(*sizes):
    edges = np.cumsum([0, *sizes])
    return {name: np.arange(edges[i], edges[i + 1]) for i, name in enumerate(SPLITS)}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 100))
def test_splits_are_disjoint_complete_and_alike_in_each_class(sizes, seed):
    target = np.repeat(np.arange(len(sizes)), sizes)
    found = split(target, "classification", np.random.default_rng(seed))
    joined = np.concatenate([found[name] for name in SPLITS])
    assert sorted(joined) == list(range(len(target)))
    for c, size in enumerate(sizes):
        counts = [int((target[found[name]] == c).sum()) for name in SPLITS]
        assert counts[0] >= 1 and sum(counts) == size
        if counts[1] or counts[2]:
            assert counts[1] == counts[2] == round(0.15 * size)


def test_a_split_is_decided_by_its_generator():
    target = RNG.standard_normal(50)
    one, same, other = [split(target, "regression", np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert all(np.array_equal(one[name], same[name]) for name in SPLITS)
    assert not np.array_equal(one["train"], other["train"])
    assert [len(one[name]) for name in SPLITS] == [34, 8, 8]


def test_standardised_by_the_train_split():
    x = RNG.standard_normal((100, 3)) * [1, 10, 0] + [5, -3, 2]
    data = from_arrays(x, np.arange(100) % 2, standardise=True)
    train = data.inputs[0][data.splits["train"]]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(0)[:2], 1, atol=1e-4)
    assert np.isfinite(data.inputs[0]).all()
    assert abs(data.inputs[0].mean(0)[0]) > 1e-4
    assert data.meta["standardised"] == "feature"


def test_targets_say_the_task():
    x = RNG.standard_normal((12, 2))
    assert from_arrays(x, np.array(["a", "b"] * 6)).classes == ("a", "b")
    shifted = from_arrays(x, np.array([3, 7] * 6))
    assert shifted.task == "classification" and set(shifted.target) == {0, 1} and shifted.classes == ("3", "7")
    named = from_arrays(x, np.array([0, 1] * 6), classes=("no", "yes"))
    assert named.classes == ("no", "yes") and named.target.dtype == np.int64
    numbers = from_arrays(x, RNG.standard_normal(12))
    assert numbers.task == "regression" and numbers.target.shape == (12, 1) and numbers.target.dtype == np.float32
    assert from_arrays(x, RNG.standard_normal((12, 3))).outputs == 3
    assert from_arrays(x, np.arange(12), task="regression").outputs == 1


def test_shapes_dtypes_and_batches():
    data = from_arrays([RNG.standard_normal((10, 3, 4)), RNG.integers(0, 5, (10, 2))], np.arange(10) % 2)
    assert data.shapes == ((None, 3, 4), (None, 2)) and data.dtypes == ("float32", "int64")
    (x, ids), y = data.batch([3, 1])
    assert x.dtype == torch.float32 and ids.dtype == torch.int64 and y.tolist() == [1, 1]
    np.testing.assert_array_equal(x.numpy(), data.inputs[0][[3, 1]])
    x[:] = 0
    assert data.inputs[0][3].any()
    assert len(data.tensors("train")[1]) == data.size("train")


def test_taking_some_of_a_split():
    data = builtin("iris")
    less = data.take("train", 20, np.random.default_rng(0))
    assert less.size("train") == 20 and less.size("test") == data.size("test")
    assert set(less.splits["train"]) <= set(data.splits["train"])
    again = data.take("train", 20, np.random.default_rng(0))
    np.testing.assert_array_equal(less.splits["train"], again.splits["train"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": (np.zeros((9, 2), np.float32),)}, "input 0 has 9 samples, the target 10"),
        ({"splits": {"train": np.arange(10)}}, r"got splits \['train'\]"),
        ({"splits": {"train": np.arange(6), "valid": np.arange(5, 8), "test": np.arange(8, 10)}}, "overlap"),
        ({"splits": splits(6, 2, 3)}, "outside of the 10 samples"),
        ({"splits": {**splits(6, 2, 2), "test": np.array([-1, 9])}}, "outside"),
        ({"target": np.zeros(10, np.float32)}, "expected whole numbers from 0"),
        ({"target": np.arange(10) - 1}, "expected whole numbers from 0"),
        ({"target": np.arange(10) % 3}, r"class 2, but there are 2"),
        ({"inputs": ()}, "no inputs"),
        ({"task": "ranking"}, "task is 'ranking'"),
    ],
)
def test_what_is_wrong_with_data_is_said(change, message):
    good = {
        "inputs": (np.zeros((10, 2), np.float32),), "target": np.arange(10) % 2, "task": "classification",
        "splits": splits(6, 2, 2), "classes": ("a", "b"),
    }  # fmt: skip
    Data(**good)
    with pytest.raises(DataError, match=message):
        Data(**{**good, **change})


@pytest.mark.parametrize(
    ("inputs", "target", "message"),
    [
        (np.zeros((4, 2)), np.zeros(5), "input 0 has 4 samples, the target 5"),
        (np.zeros((0, 2)), np.zeros(0), "no samples"),
        (np.array([["a"], ["b"]]), np.zeros(2), "input 0 holds .*expected numbers"),
        (np.full((3, 2), np.inf), np.zeros(3), "input 0 has 6 values that are not finite"),
        (np.zeros((3, 2)), np.array([0.0, np.nan, 1.0]), "target .*not finite"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(inputs, target, message):
    with pytest.raises(DataError, match=message):
        from_arrays(inputs, target)


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_built_in_data_are_well_formed(name):
    data = builtin(name)
    assert data.name == name
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in data.inputs)
    assert min(data.size(s) for s in SPLITS) > 20
    assert data.inputs[0].ndim == {"digits": 4, "mnist1d": 3}.get(name, 2)
    if data.task == "classification":
        assert set(data.target) == set(range(data.outputs)) and len(data.classes) == data.outputs
    other = builtin(name, seed=1)
    np.testing.assert_array_equal(np.sort(other.target.ravel()), np.sort(data.target.ravel()))
    assert not np.array_equal(other.splits["test"], data.splits["test"])


def test_digits_are_those_of_scikit_learn():
    """Which are read from its file."""
    bunch = load_digits()
    x, y, classes = _sklearn("digits")
    np.testing.assert_array_equal(x, bunch.data)
    np.testing.assert_array_equal(y, bunch.target)
    assert x.dtype == np.float32 and y.dtype == np.int64 and classes == [str(c) for c in bunch.target_names]


def test_an_unknown_name_is_an_error():
    with pytest.raises(DataError, match="'irys': expected one of"):
        builtin("irys")


def test_a_key_error_inside_a_loader_is_not_taken_for_an_unknown_name(monkeypatch):
    def broken(seed):
        raise KeyError("column")

    monkeypatch.setitem(BUILTIN, "broken", broken)
    with pytest.raises(KeyError):
        builtin("broken")
