"""B-splines on even knots: evaluation and fitting, with tensors. parts/block/kan.py builds graphs that do the same.

A spline of degree k on G intervals of [low, high] is sum_j c_j B_j with G + k basis functions, each a copy of one bump
M over k + 1 intervals: B_j(x) = M((x - low) / h + k - j), h = (high - low) / G. De Boor's recursion, on even knots:

    M_0(d) = 1 for 0 <= d < 1, else 0          M_p(d) = (d M_(p-1)(d) + (p + 1 - d) M_(p-1)(d - 1)) / p

Outside of [low - k h, high + k h] all of them are 0; inside of [low, high] they sum to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from archwright.errors import ArchwrightError


def basis(x: Tensor, low: float | Tensor, high: float | Tensor, intervals: int, degree: int) -> Tensor:
    """x [...] -> values of the basis functions [..., intervals + degree]. low and high: numbers, or shaped like x."""
    if intervals < 1 or degree < 0:
        raise ArchwrightError(f"got {intervals} intervals and degree {degree}, expected at least 1 and 0")
    place = (x - low) * intervals / (high - low) + degree
    d = place.unsqueeze(-1) - torch.arange(intervals + 2 * degree, dtype=x.dtype, device=x.device)
    found = ((d >= 0) & (d < 1)).to(x.dtype)
    for p in range(1, degree + 1):
        d = d[..., :-1]
        found = (d * found[..., :-1] + (p + 1 - d) * found[..., 1:]) / p
    return found


def fit(x: Tensor, y: Tensor, low: float, high: float, intervals: int, degree: int) -> Tensor:
    """Coefficients [..., intervals + degree] of the splines nearest to y [..., points] at x [points], in least squares.

    Where points leave a coefficient open, the smallest one is taken. Computed in double precision.
    """
    matrix = basis(x.double(), low, high, intervals, degree)
    flat = y.reshape(-1, y.shape[-1]).double()
    found = torch.linalg.lstsq(matrix, flat.T, driver="gelsd").solution.T
    return found.reshape(*y.shape[:-1], intervals + degree).to(y.dtype)
