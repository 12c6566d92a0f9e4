"""Mean and deviation by channel, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from archwright.data.moments import BATCH, moments


@pytest.mark.parametrize("shape", [(1, 2, 5), (BATCH + 3, 3, 4), (2 * BATCH, 2, 3, 3)])
def test_they_are_numpys(shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(0).normal(size=shape) * 3 + 1e4).astype(np.float32)
    x[0, 0, ..., 0] = np.nan
    x[-1, 1, ..., -1] = np.inf
    rows = np.arange(len(x))[::-1]
    mean, deviation = moments(x, rows, len(x))
    for channel in range(shape[1]):
        known = x[:, channel].astype(np.float64)
        known = known[np.isfinite(known)]
        assert mean[channel] == pytest.approx(known.mean(), rel=1e-12)
        assert deviation[channel] == pytest.approx(known.std(), rel=1e-9)


def test_a_channel_that_does_not_vary_and_one_that_is_unknown() -> None:
    x = np.stack([np.full((9, 4), 7.0), np.full((9, 4), np.nan), np.arange(36.0).reshape(9, 4)], 1).astype(np.float32)
    mean, deviation = moments(x, np.arange(9), 9)
    assert mean[:2] == (7.0, 0.0) and deviation[:2] == (1.0, 1.0) and deviation[2] > 1


def test_at_most_so_many_rows_are_looked_at() -> None:
    x = np.zeros((100, 1, 2), np.float32)
    x[[0, 99]] = 4.0
    assert moments(x, np.arange(100), 2)[0] == (4.0,)
