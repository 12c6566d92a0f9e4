"""The .ts format: equal and unequal lengths, channels, labels and targets."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from archwright.data import ts
from archwright.data.home import data_file, data_home
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError

HEAD = "#a comment\n@problemName p\n@timeStamps false\n@classLabel true a b\n@data\n"


def test_series_of_two_channels_and_unequal_length(tmp_path):
    path = tmp_path / "p.ts.gz"
    path.write_bytes(gzip.compress((HEAD + "1,2,3:4,5,6:a\n\n1,?:0,-1e3:b\n").encode()))
    series, labels, task = ts.read(path)
    assert [s.shape for s in series] == [(2, 3), (2, 2)] and labels == ["a", "b"] and task == "classification"
    np.testing.assert_array_equal(series[1], np.array([[1, np.nan], [0, -1000]], np.float32))


def test_targets_that_are_numbers_and_none_at_all(tmp_path):
    (tmp_path / "p.ts").write_text("@targetlabel TRUE\n@data\n1,2:0.5\n3,4:1.5\n")
    _, targets, task = ts.read(tmp_path / "p.ts")
    assert targets.tolist() == [0.5, 1.5] and task == "regression"
    (tmp_path / "p.ts").write_text("@classLabel false\n@data\n1,2:3,4\n")
    series, targets, task = ts.read(tmp_path / "p.ts")
    assert series[0].shape == (2, 2) and targets is None and task is None
    with pytest.raises(DataError, match="neither class labels nor targets"):
        open_data(tmp_path / "p.ts")


def test_the_test_file_beside(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("TRAIN", 20), ("TEST", 8)):
        lines = [",".join(map(str, rng.normal(size=rng.integers(4, 9)))) + f":{'ab'[i % 2]}" for i in range(count)]
        (tmp_path / f"P_{name}.ts").write_text(HEAD + "\n".join(lines))
    data = open_data(tmp_path / "P_TRAIN.ts")
    assert data.splits["test"].tolist() == list(range(20, 28)) and data.size("valid") == 4
    assert data.inputs[0].shape[1] == 2  # the second channel says where the signal is
    raw, y = open_raw(tmp_path / "P_TEST.ts", recipe_from(data.meta["recipe"]))
    assert len(raw) == 8 and set(y) == {"a", "b"}
    assert len(open_data(tmp_path / "P_TEST.ts").target) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "holds no series"),
        ("", "holds no series"),
        ("1,2:a\n", "line 1: expected @data"),
        (HEAD + "1,x:a\n", "line 6: could not convert string to float: 'x'"),
        (HEAD + "1,2:1:a\n", "line 6: 2 channels of unequal length"),
        (HEAD + "1:a\n1:2:a\n", r"series of \[1, 2\] channels"),
        (HEAD.replace("Stamps false", "Stamps true") + "1:a\n", "has time stamps"),
        (HEAD.replace("classLabel", "targetLabel") + "1:a\n", "target that is no number"),
    ],
)
def test_what_is_no_ts_file_is_said(tmp_path, text, message):
    (tmp_path / "p.ts").write_text(text)
    with pytest.raises(DataError, match=message):
        ts.read(tmp_path / "p.ts")


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
@pytest.mark.parametrize(
    ("name", "shape", "outputs", "tests"),
    [
        ("GunPoint", (200, 1, 150), 2, 150), ("ItalyPowerDemand", (1096, 1, 24), 2, 1029),
        ("ACSF1", (200, 1, 1460), 10, 100), ("BasicMotions", (80, 6, 100), 4, 40),
        ("JapaneseVowels", (640, 13, 26), 9, 370), ("PickupGestureWiimoteZ", (100, 2, 361), 10, 50),
        ("Covid3Month", (201, 1, 84), 1, 61),
    ],
)  # fmt: skip
def test_the_archive(name, shape, outputs, tests):
    data = open_data(data_file("ucr_uea", f"{name}_TRAIN.ts.gz"))
    assert data.inputs[0].shape == shape and data.outputs == outputs and data.size("test") == tests
    assert np.isfinite(data.inputs[0]).all() and data.size("valid") >= 8
    assert (data.task == "regression") == (name == "Covid3Month")
