"""Data on disk come back as they were, mapped into memory."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from archwright.data.open import open_data
from archwright.data.store import RELEASED, gather, store, stored
from archwright.errors import FormatError


@pytest.mark.parametrize("name", ["iris", "digits", "mnist1d", "diabetes"])
def test_stored_data_come_back(tmp_path, name):
    data = open_data(name)
    again = stored(store(data, tmp_path / "a"))
    assert isinstance(again.inputs[0], np.memmap)
    assert (again.task, again.kind, again.classes, again.name) == (data.task, data.kind, data.classes, data.name)
    assert dict(again.meta) == dict(data.meta)
    for split in data.splits:
        (x, *_), y = data.tensors(split)
        (same, *_), truth = again.tensors(split)
        assert x.equal(same) and y.equal(truth)


def test_groups_are_stored(tmp_path):
    data = open_data((np.eye(30), np.arange(30) % 2), group=["a", "b", "c"] * 10, kind="table")
    assert data.groups.tolist() == [0, 1, 2] * 10
    np.testing.assert_array_equal(stored(store(data, tmp_path / "a")).groups, data.groups)
    assert stored(store(open_data("iris"), tmp_path / "b")).groups is None


def test_what_is_mapped_is_linked_and_not_copied(tmp_path):
    data = stored(store(open_data("iris"), tmp_path / "a"))
    store(data, tmp_path / "b")
    one, other = [(tmp_path / name / "input0.npy").stat() for name in "ab"]
    assert one.st_ino == other.st_ino
    store(data, tmp_path / "a")
    np.testing.assert_array_equal(stored(tmp_path / "a").inputs[0], data.inputs[0])


def test_a_part_of_a_mapped_array_is_copied(tmp_path):
    whole = gather([(np.arange(10.0),)], 10, tmp_path, large=True)[0]
    less = gather([(np.arange(6.0),)], 10, tmp_path, large=True)[0]
    assert isinstance(whole, np.memmap) and less.tolist() == [0, 1, 2, 3, 4, 5]


def test_batches_are_gathered_in_order(tmp_path):
    batches = [(np.arange(3), np.ones((3, 2))), (np.arange(3, 5), np.zeros((2, 2)))]
    for folder, large in ((None, False), (tmp_path, True), (None, True)):
        x, y = gather(batches, 5, folder, large=large)
        assert x.tolist() == [0, 1, 2, 3, 4] and y.sum() == 6 and isinstance(x, np.memmap) == large
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_what_is_no_stored_data_is_said(tmp_path):
    with pytest.raises(FormatError, match="holds no stored data"):
        stored(tmp_path)
    store(open_data("iris"), tmp_path)
    (tmp_path / "target.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(FormatError, match=r"target.npy is no stored array"):
        stored(tmp_path)


def resident() -> int:
    """Bytes of mapped files that count as this process's memory."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssFile"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_was_written_to_a_file_is_not_kept_in_memory(tmp_path):
    rows, before = 2**19, resident()
    batches = ((np.full(rows, i, np.int64), np.full((rows, 2), -i, np.float32)) for i in range(40))
    x, y = gather(batches, 40 * rows, tmp_path, large=True)
    assert x.nbytes + y.nbytes == 5 * RELEASED and resident() - before < 2 * RELEASED
    assert x[::rows].tolist() == (-y[rows - 1 :: rows, 1]).tolist() == list(range(40))
