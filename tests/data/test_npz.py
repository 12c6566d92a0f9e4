"""NumPy archives under the names that people give their arrays."""

from __future__ import annotations

import numpy as np
import pytest

from archwright.data import npz
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)), np.arange(30) % 2


@pytest.mark.parametrize("names", [("X", "y"), ("data", "target"), ("images", "labels"), ("first", "second")])
def test_inputs_and_targets(tmp_path, names):
    np.savez(tmp_path / "a.npz", **dict(zip(names, (X, Y), strict=True)))
    data = open_data(tmp_path / "a.npz")
    assert data.kind == "table" and data.inputs[0].shape == (30, 4) and data.name == "a" and data.outputs == 2
    raw, y = open_raw(tmp_path / "a.npz", recipe_from(data.meta["recipe"]))
    np.testing.assert_array_equal(raw.to_numpy(), X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("names", ["x_{}", "X_{}", "{}_x"])
def test_splits_by_name(tmp_path, names):
    arrays = {}
    for split, count in (("train", 20), ("test", 6), ("val", 4)):
        x = names.format(split)
        arrays |= {x: X[:count], x.replace("x", "y").replace("X", "y"): Y[:count]}
    np.savez(tmp_path / "a.npz", **arrays)
    data = open_data(tmp_path / "a.npz")
    assert {name: len(index) for name, index in data.splits.items()} == {"train": 20, "valid": 4, "test": 6}
    assert data.meta["split"] == "given"
    raw, y = open_raw(tmp_path / "a.npz", recipe_from(data.meta["recipe"]))
    assert len(raw) == len(y) == 6


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((8,), "f8", "table"), ((8, 8), "u1", "image"), ((1, 8, 8), "f8", "image"), ((8, 8, 3), "u1", "image"),
     ((2, 50), "f8", "signal"), ((8, 8), "f8", "image")],
)  # fmt: skip
def test_the_shape_says_what_it_is(tmp_path, shape, dtype, kind):
    np.savez_compressed(tmp_path / "a.npz", X=(99 * RNG.random((30, *shape))).astype(dtype), y=Y)
    assert open_data(tmp_path / "a.npz").kind == kind
    if len(shape) == 2:
        assert open_data(tmp_path / "a.npz", kind="signal").kind == "signal"


def test_what_is_no_archive_is_said(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot be read as .npz"):
        npz.load(path)
    np.savez(path, X=X)
    with pytest.raises(DataError, match="holds one array, expected inputs and targets"):
        open_data(path)
    np.savez(path, X=np.array([{}, []], object), y=Y)
    with pytest.raises(DataError, match=r"cannot be read as .npz: Object arrays"):
        npz.load(path)
    np.savez(path)
    with pytest.raises(DataError, match="holds no arrays"):
        npz.load(path)
    np.savez(path, X=X, y=Y[:9])
    with pytest.raises(DataError, match="got 30 rows and 9 targets"):
        open_data(path)
    np.savez(path, x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y)
    with pytest.raises(DataError, match="expected samples of one shape"):
        npz.load(path)
