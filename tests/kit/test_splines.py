import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline

from archwright.errors import ArchwrightError
from archwright.kit import splines


def scipys(x, low, high, intervals, degree):
    """Values of all basis functions by scipy, on the same knots."""
    step = (high - low) / intervals
    knots = low + step * np.arange(-degree, intervals + degree + 1)
    return np.nan_to_num(BSpline(knots, np.eye(intervals + degree), degree, extrapolate=False)(x))


@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("intervals", [1, 4, 9])
def test_the_basis_is_scipys(intervals, degree):
    x = np.random.default_rng(0).uniform(-1.5, 2.5, 200)  # inside of the grid [-1.5, 2.5]
    found = splines.basis(torch.from_numpy(x), -1.5, 2.5, intervals, degree).numpy()
    np.testing.assert_allclose(found, scipys(x, -1.5, 2.5, intervals, degree), atol=1e-12)


def test_inside_the_grid_it_sums_to_one_and_far_outside_it_is_zero():
    inside = splines.basis(torch.linspace(-1, 1, 101).double(), -1.0, 1.0, 6, 3)
    torch.testing.assert_close(inside.sum(-1), torch.ones(101).double())
    assert not splines.basis(torch.tensor([-3.0, 3.0]), -1.0, 1.0, 6, 3).any()


def test_ends_may_differ_for_each_input():
    x, low, high = torch.rand(5, 3).double(), torch.tensor([0.0, -1, -2]).double(), torch.tensor([1.0, 1, 3]).double()
    found = splines.basis(x, low, high, 4, 2)
    for i in range(3):
        torch.testing.assert_close(found[:, i], splines.basis(x[:, i], float(low[i]), float(high[i]), 4, 2))


def test_a_spline_is_found_again_and_a_cubic_is_exact():
    t = torch.linspace(-1, 1, 200).double()
    c = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)).double()
    y = c @ splines.basis(t, -1.0, 1.0, 5, 3).T
    torch.testing.assert_close(splines.fit(t, y, -1.0, 1.0, 5, 3), c)
    cubic = t**3 - t
    found = splines.basis(t, -1.0, 1.0, 4, 3) @ splines.fit(t, cubic, -1.0, 1.0, 4, 3)
    torch.testing.assert_close(found, cubic)


def test_no_intervals_are_refused():
    with pytest.raises(ArchwrightError, match="0 intervals"):
        splines.basis(torch.zeros(1), 0.0, 1.0, 0, 3)
