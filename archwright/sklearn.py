"""Searches as scikit-learn estimators: `ArchClassifier` and `ArchRegressor`.

    from archwright.sklearn import ArchClassifier
    model = ArchClassifier(budget="60s", limit="params=20k").fit(X, y)
    model.predict(X);  model.bundle_.save("folder")

X may be an array [n, features] or a DataFrame, with missing values and, in a DataFrame, with categories and dates; or
an array of more dimensions: images [n, H, W], [n, C, H, W] or signals [n, C, T]. A DataFrame of numbers and an array of
the same give the same network.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_y,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

BUDGET = "60s"


class _Arch(BaseEstimator):
    """What both have in common. The constructor stores its arguments and does nothing else."""

    _task = ""

    def __init__(
        self,
        *,
        budget: float | str | None = None,
        objective: str = "error",
        limit: str | dict[str, float | str] | None = None,
        space: str | None = None,
        strategy: str = "portfolio",
        trials: int | None = None,
        workers: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.budget = budget
        self.objective = objective
        self.limit = limit
        self.space = space
        self.strategy = strategy
        self.trials = trials
        self.workers = workers
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.non_deterministic = self._budget is not None  # what is found in a time depends on the machine
        return tags

    @property
    def _budget(self) -> float | str | None:
        return BUDGET if self.budget is None and self.trials is None else self.budget

    def _search(self, X: Any, y: Any) -> Self:
        from archwright.flows.search import search

        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        found = search(
            X, y=y, task=self._task, budget=self._budget, objective=self.objective, limit=self.limit, space=self.space,
            strategy=self.strategy, trials=self.trials, workers=self.workers, seed=seed, test=0.0,
            command=repr(self),
        )  # fmt: skip
        self.bundle_, self.run_ = found.best, found.run
        return self

    def _checked(self, X: Any, y: Any = None) -> Any:
        """X as the search takes it; with y, X and y. Sets or checks what is known of the features."""
        fitting = y is not None
        if _has_text(X):
            _check_feature_names(self, X, reset=fitting)
            _check_n_features(self, X, reset=fitting)
            if not fitting:
                return X
            numeric = self._task == "regression"
            y = _check_y(y, multi_output=numeric, y_numeric=numeric, estimator=self)
            check_consistent_length(X, y)
            return X, y
        settings: dict[str, Any] = {"ensure_all_finite": "allow-nan", "allow_nd": True, "reset": fitting}
        if not fitting:
            return validate_data(self, X, **settings)
        return validate_data(self, X, y, multi_output=self._task == "regression", y_numeric=self._task == "regression",
                             **settings)  # fmt: skip


def _has_text(X: Any) -> bool:
    """Whether X is a DataFrame with columns that are no numbers."""
    kinds = getattr(X, "dtypes", None)
    return hasattr(X, "columns") and any(getattr(kind, "kind", "O") not in "fiub" for kind in kinds)


class ArchClassifier(ClassifierMixin, _Arch):
    """A classifier that is searched for.

    budget        wall time of a fit, such as "5m". A minute where neither it nor `trials` is given
    objective     see `archwright.search`; further objectives make a front, of which the most accurate is taken
    limit         costs that are never exceeded, such as "params=20k,latency=1ms"
    space, strategy, workers   see `archwright.search`
    trials        candidates to train; without a budget, a fit depends on `random_state` and `workers` alone
    random_state  decides folds, proposals and weights

    Attributes: classes_ [k], bundle_ (`archwright.flows.bundle.Bundle`), run_ (the record), n_features_in_,
    feature_names_in_.
    """

    _task = "classification"

    def fit(self, X: Any, y: Any) -> Self:
        """Search a network for X [n, ...] and labels y [n]."""
        X, y = self._checked(X, _needed(y))
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: expected at least two classes")
        # codes, so that labels of any type come back as they were
        return self._search(X, codes)

    def predict(self, X: Any) -> Any:
        """Labels [n]."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> Any:
        """Probabilities [n, k], the columns in the order of `classes_`."""
        check_is_fitted(self)
        found = np.zeros((len(X := self._checked(X)), len(self.classes_)))
        found[:, [int(label) for label in self.bundle_.classes]] = self.bundle_.predict_proba(X)
        return found


class ArchRegressor(RegressorMixin, _Arch):
    """A regressor that is searched for. Parameters and attributes are those of `ArchClassifier`, but for classes."""

    _task = "regression"

    def fit(self, X: Any, y: Any) -> Self:
        """Search a network for X [n, ...] and numbers y [n] or [n, k]."""
        X, y = self._checked(X, _needed(y))
        y = np.asarray(y, float)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return self._search(X, y)

    def predict(self, X: Any) -> Any:
        """Numbers [n] or [n, k]."""
        check_is_fitted(self)
        return self.bundle_.predict(self._checked(X))


def _needed(y: Any) -> Any:
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    return y


__all__ = ["ArchClassifier", "ArchRegressor"]
