"""Data that come with a library or are generated: digits, iris, wine, breast_cancer, diabetes, mnist1d."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any

import numpy as np

from archwright.data.data import Array, Data, from_arrays
from archwright.errors import DataError


def _sklearn(name: str) -> tuple[Array, Array, list[str]]:
    if name == "digits":  # what everyone tries first: read without importing scikit-learn, which takes a second
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        rows = np.loadtxt(str(file), delimiter=",", dtype=np.float32)
        return rows[:, :-1], rows[:, -1].astype(np.int64), [str(digit) for digit in range(10)]
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    return bunch.data.astype(np.float32), bunch.target, [str(n) for n in getattr(bunch, "target_names", [])]


def _table(name: str) -> Callable[[int], Data]:
    def load(seed: int) -> Data:
        x, y, classes = _sklearn(name)
        if name == "diabetes":
            y = (y.astype(np.float32) - y.mean()) / y.std()
            return from_arrays(x, y, task="regression", seed=seed, standardise=True, name=name)
        return from_arrays(x, y, seed=seed, standardise=True, name=name, classes=classes)

    return load


def _digits(seed: int) -> Data:
    x, y, classes = _sklearn("digits")
    images = (x.reshape(-1, 1, 8, 8) / 16 - 0.3).astype(np.float32)  # the mean of the pixels is near 0.3
    return from_arrays(images, y, kind="image", seed=seed, name="digits", classes=classes)


_DIGIT_SHAPES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
"""Twelve heights for each digit, as in MNIST-1D (Greydanus and Kobak, 2020, arXiv 2011.14439)."""


def _mnist1d(seed: int) -> Data:
    x, target = _shapes()
    x = (x - x.mean()) / x.std()
    return from_arrays(x, target, kind="signal", seed=seed, name="mnist1d", classes=[str(d) for d in range(10)])


def _shapes(count: int = 5000, length: int = 40) -> tuple[Array, Array]:
    """Ten one-dimensional shapes, padded, scaled, sheared, shifted, with correlated and white noise, after MNIST-1D.

    Signals [count, 1, length] float32 and digits [count].
    """
    rng = np.random.default_rng(20201128)
    target = np.arange(count) % 10
    x = np.empty((count, 1, length), np.float32)
    for i, label in enumerate(target):
        shape = np.asarray(_DIGIT_SHAPES[label], float) - 5
        room = int(rng.integers(36, 61))
        signal = np.concatenate([shape, np.zeros(room)])
        grid = np.linspace(0, len(signal) - 1, 72)
        signal = np.interp(grid, np.arange(len(signal)), signal) * (1 + 0.4 * (rng.random() - 0.5))
        signal = np.roll(signal, int(rng.integers(0, 49)))
        noise = np.convolve(rng.standard_normal(72), np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2), "same")
        signal = signal + 0.25 * noise + 0.02 * rng.standard_normal(72)
        signal = signal + 0.75 * (rng.random() - 0.5) * np.linspace(-0.5, 0.5, 72)
        x[i, 0] = np.interp(np.linspace(0, 71, length), np.arange(72), signal)
    return x, target


BUILTIN: dict[str, Callable[[int], Data]] = {
    "digits": _digits,
    "mnist1d": _mnist1d,
    **{name: _table(name) for name in ("iris", "wine", "breast_cancer", "diabetes")},
}


def builtin(name: str, seed: int = 0) -> Data:
    """Built-in data by name. The seed decides the split only."""
    if name not in BUILTIN:
        raise DataError(f"no built-in data are named '{name}': expected one of {', '.join(BUILTIN)}")
    return BUILTIN[name](seed)


def raw(name: str) -> tuple[Any, Array]:
    """Inputs as they come, and targets as a user would write them: what a recipe is fitted to.

    A DataFrame with named columns for tables; digits [n, 1, 8, 8] of bytes 0 to 16; mnist1d [n, 1, 40].
    """
    if name not in BUILTIN:
        raise DataError(f"no built-in data are named '{name}': expected one of {', '.join(BUILTIN)}")
    if name == "mnist1d":
        return _shapes()
    if name == "digits":
        x, y, _ = _sklearn(name)
        return x.reshape(-1, 1, 8, 8).astype(np.uint8), y
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **({"scaled": False} if name == "diabetes" else {}))
    y = bunch.target.to_numpy()
    return bunch.data, y if name == "diabetes" else np.array([str(label) for label in bunch.target_names])[y]
