"""What benchmarks/search.py compares a search over signals with, both from aeon: 1-nearest-neighbour DTW with a window
learned from the training cases, and ROCKET (10,000 random kernels) with a ridge classifier. Neither has a time limit.

Cases are arrays [channels, time] of any length; each channel is brought to mean 0 and deviation 1 over all training
cases. What either method has to choose it chooses by leaving training cases out, one at a time.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

WINDOWS = (0.05, 0.1, 0.2, 1.0)
"""Shares of the length by which DTW may shift."""


def standardised(train: list[Array], test: list[Array]) -> tuple[list[Array], list[Array]]:
    """Both, by the channels' mean and deviation in `train`."""
    together = np.concatenate(train, axis=1).astype(np.float64)
    mean, deviation = together.mean(1, keepdims=True), together.std(1, keepdims=True) + 1e-8
    return [(c - mean) / deviation for c in train], [(c - mean) / deviation for c in test]


def nearest_by_dtw(train: list[Array], labels: Array, test: list[Array], jobs: int = 2) -> Array:
    """Labels of the nearest training cases."""
    from aeon.distances import pairwise_distance

    train, test = standardised(train, test)

    def right(window: float) -> float:
        distances = pairwise_distance(train, method="dtw", window=window, n_jobs=jobs)
        np.fill_diagonal(distances, np.inf)
        return float(np.mean(labels[distances.argmin(1)] == labels))

    window = max(WINDOWS, key=right)  # the smallest of equals
    return labels[pairwise_distance(test, train, method="dtw", window=window, n_jobs=jobs).argmin(1)]


def rocket_ridge(train: list[Array], labels: Array, test: list[Array], seed: int, jobs: int = 2) -> Array:
    """What aeon's RocketClassifier does, with cases filled up with zeros to one length. Whether each case is brought to
    mean 0 and deviation 1 by itself is chosen by the ridge's own score of cases left out."""
    from aeon.transformations.collection.convolution_based import Rocket
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = standardised(train, test)
    length = max([case.shape[1] for case in (*train, *test)])
    x, y = [np.stack([np.pad(c, ((0, 0), (0, length - c.shape[1]))) for c in cases]) for cases in (train, test)]
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what aeon's own calls are told about their future
        for normalise in (True, False):
            rocket = Rocket(normalise=normalise, n_jobs=jobs, random_state=seed)
            ridge = RidgeClassifierCV(alphas=np.logspace(-3, 3, 10))
            made.append(make_pipeline(rocket, StandardScaler(with_mean=False), ridge).fit(x, labels))
        return max(made, key=lambda model: model[-1].best_score_).predict(y)
