"""IDX files: what is in them, and what lies beside them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from archwright.data import idx
from archwright.data.home import data_file, data_home
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError

CODES = {np.dtype(dtype).newbyteorder(">").str: code for code, dtype in idx.TYPES.items()}


def written(path, array):
    wide = array.astype(array.dtype.newbyteorder(">"))
    head = bytes([0, 0, CODES[wide.dtype.str if wide.dtype.itemsize > 1 else wide.dtype.str.replace("|", "|")],
                  array.ndim])  # fmt: skip
    raw = head + np.array(array.shape, ">u4").tobytes() + wide.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def small(home, suffix=""):
    rng = np.random.default_rng(0)
    for name, count in (("train", 40), ("t10k", 10)):
        written(home / f"{name}-images-idx3-ubyte{suffix}", rng.integers(0, 256, (count, 5, 6), dtype=np.uint8))
        written(home / f"{name}-labels-idx1-ubyte{suffix}", (np.arange(count) % 4).astype(np.uint8))
    return home


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_arrays_of_every_type(tmp_path, dtype, suffix):
    array = (100 * np.random.default_rng(0).random((3, 4, 5))).astype(dtype)
    found = idx.read(written(tmp_path / f"a.idx{suffix}", array))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("whole", [True, False])
def test_labels_and_tests_are_found(tmp_path, suffix, whole):
    small(tmp_path, suffix)
    source = tmp_path if whole else tmp_path / f"train-images-idx3-ubyte{suffix}"
    data = open_data(source)
    assert data.inputs[0].shape == (50, 1, 5, 6) and data.inputs[0].dtype == np.uint8 and data.outputs == 4
    assert data.splits["test"].tolist() == list(range(40, 50)) and data.size("train") + data.size("valid") == 40
    assert "the test split is the one that comes with the data" in data.meta["notices"]
    raw, y = open_raw(source, recipe_from(data.meta["recipe"]))
    assert len(raw) == len(y) == (10 if whole else 40) and y.dtype.kind == "i"


def test_images_alone_can_be_predicted_and_not_learned(tmp_path):
    recipe = recipe_from(open_data(small(tmp_path)).meta["recipe"])
    for path in tmp_path.glob("*labels*"):
        path.unlink()
    raw, y = open_raw(tmp_path / "t10k-images-idx3-ubyte", recipe)
    assert raw.shape == (10, 5, 6) and y is None
    with pytest.raises(DataError, match="no labels lie beside"):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "begins with , expected the head"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01a", "begins with 00 00 07 01"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", r"has 11 bytes, expected \(5,\) numbers of 1 bytes"),
    ],
)
def test_what_is_no_idx_file_is_said(tmp_path, raw, message):
    (tmp_path / "a-idx1-ubyte").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        idx.read(tmp_path / "a-idx1-ubyte")
    (tmp_path / "a.idx.gz").write_bytes(raw)
    with pytest.raises(DataError):
        idx.read(tmp_path / "a.idx.gz")


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
def test_mnist():
    data = open_data(data_file("mnist", "train-images-idx3-ubyte.gz"))
    assert data.inputs[0].shape == (70000, 1, 28, 28) and data.inputs[0].nbytes == 70000 * 784
    assert {name: len(index) for name, index in data.splits.items()} == {"train": 51000, "valid": 9000, "test": 10000}
    (x,), _ = data.batch(data.splits["train"][:2000])
    assert abs(x.mean()) < 0.03 and abs(x.std() - 1) < 0.03
    assert np.bincount(data.target).min() > 6000
