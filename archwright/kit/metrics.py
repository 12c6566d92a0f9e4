"""Metrics by name, computed from what a network gives: "error", or any scorer name of scikit-learn.

    classification   output [n, k] logits; probabilities are their softmax, the predicted class is the greatest
    regression       output [n, t] numbers in the units of the target (undo standardisation first)

"error" is the share of wrong classes, or the root of the mean squared error. All other names and their directions are
scikit-learn's, whose scorers are greater where they are better ("neg_log_loss" is below 0). Metrics of two classes
("f1", "roc_auc") are about the second class. Which metric fits a task is not kept in a table here: each is tried once
on a few made-up samples.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from archwright.core.records import Direction
from archwright.data.data import Array, Task
from archwright.errors import DataError

Needs = Literal["labels", "probabilities", "numbers"]

ERROR = "error"
_TARGET_UNITS = ("absolute_error", "root_mean_squared_error", "max_error")
_SHARES = ("accuracy", "f1", "precision", "recall", "jaccard")


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    unit       "share", "target units", "nats", "1"
    direction  which way is better
    needs      what it looks at: predicted "labels", "probabilities" of the classes, or "numbers"
    function   (target [n] or [n, t], output [n, k]) -> value
    """

    name: str
    unit: str
    direction: Direction
    needs: Needs
    function: Callable[[Array, Array], float]

    def __call__(self, target: ArrayLike, output: ArrayLike) -> float:
        """The value; NaN where it is not defined: outputs that are not finite, or a target of which it says nothing
        (the area under the curve of a single class). Classes that the target lacks are left out.

        Raises `DataError` for no samples, or another number of outputs than of targets.
        """
        y, out = np.asarray(target), np.asarray(output, dtype=np.float64)
        if not len(y) or len(y) != len(out):
            raise DataError(f"metric '{self.name}': got {len(out)} outputs for {len(y)} targets, expected one for each")
        if not np.isfinite(out).all():
            return float("nan")
        value = float(self.function(y, out))
        return value if np.isfinite(value) else float("nan")

    def better(self, value: float, than: float) -> bool:
        """Whether one value is better than another; no value is better than NaN, any is than that."""
        if np.isnan(value) or np.isnan(than):
            return bool(np.isnan(than) and not np.isnan(value))
        return value < than if self.direction == "min" else value > than


def metric(name: str, task: Task, classes: int = 2) -> Metric:
    """The metric of that name for a task (and a number of classes).

    Raises `DataError` for an unknown name, with the nearest ones, and for a metric that does not fit the task.
    """
    if task not in ("classification", "regression"):
        raise DataError(f"task is {task!r}, expected classification or regression")
    if name == ERROR:
        if task == "classification":
            return Metric(ERROR, "share", "min", "labels", _wrong)
        return Metric(ERROR, "target units", "min", "numbers", _root)
    if name not in names():
        near = difflib.get_close_matches(name, (ERROR, *names()), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "expected error or a scorer name of scikit-learn"
        raise DataError(f"unknown metric '{name}': {hint}")
    needs = _needs(name, task, max(2, classes))
    return Metric(name, _unit(name, needs), "max", needs, _scored(name, needs))


@cache
def names() -> tuple[str, ...]:
    """The names of scikit-learn's scorers."""
    from sklearn.metrics import get_scorer_names

    return tuple(get_scorer_names())


def probabilities(logits: ArrayLike) -> Array:
    """Softmax over the last dimension, in float64."""
    z = np.asarray(logits, dtype=np.float64)
    z = np.exp(z - z.max(-1, keepdims=True))
    return z / z.sum(-1, keepdims=True)


def _wrong(target: Array, output: Array) -> float:
    return float(np.mean(output.argmax(-1) != target))


def _root(target: Array, output: Array) -> float:
    return float(np.sqrt(np.mean((output.reshape(len(output), -1) - target.reshape(len(target), -1)) ** 2)))


def _unit(name: str, needs: Needs) -> str:
    if needs == "numbers":
        if name.endswith(_TARGET_UNITS):
            return "target units"
        return "target units²" if name.endswith("mean_squared_error") else "1"
    if "log_loss" in name and name.startswith("neg_"):
        return "nats"
    return "share" if any(part in name for part in _SHARES) else "1"


# ------------------------------------------------------------------------------------------------- scikit-learn's own
class _Numbers:
    """Predictions that are there already, as the fitted regressor that a scorer asks for them."""

    mixin = "RegressorMixin"

    def __init__(self, prediction: Array) -> None:
        self.prediction = prediction  # [n, t]
        self.asked: set[str] = set()

    def __sklearn_tags__(self) -> Any:
        from sklearn import base

        return type("Estimator", (getattr(base, self.mixin), base.BaseEstimator), {})().__sklearn_tags__()

    def fit(self, X: Any, y: Any = None) -> _Numbers:
        """Nothing is left to be fitted."""
        return self

    def predict(self, X: Any) -> Array:
        """Numbers: one for each sample where there is one target."""
        return self.prediction[:, 0] if self.prediction.shape[1] == 1 else self.prediction


class _Classes(_Numbers):
    """The same for a classifier: what is given are scores or probabilities [n, k]."""

    mixin = "ClassifierMixin"

    def __init__(self, prediction: Array) -> None:
        super().__init__(prediction)
        self.classes_ = np.arange(prediction.shape[1])

    def predict(self, X: Any) -> Array:
        """The classes."""
        return self.prediction.argmax(-1)

    def predict_proba(self, X: Any) -> Array:
        """The probabilities."""
        self.asked.add("probabilities")
        return self.prediction


def _score(name: str, target: Array, given: _Numbers) -> float:
    from sklearn.metrics import get_scorer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(get_scorer(name)(given, None, target))


@cache
def _needs(name: str, task: Task, classes: int) -> Needs:
    """What a metric looks at, found by trying it. Raises `DataError` if it does not fit."""
    numeric = _tried_on_numbers(name)
    if task == "regression":
        if not numeric:
            raise DataError(f"metric '{name}' is for classes, expected one for numbers, such as r2, as the task is "
                            "regression")  # fmt: skip
        return "numbers"
    if numeric:
        raise DataError(f"metric '{name}' is for numbers, expected one for classes, such as accuracy, as the task is "
                        "classification")  # fmt: skip
    target = np.arange(4 * classes) % classes
    given = _Classes(probabilities(np.eye(classes)[target]))
    try:
        _score(name, target, given)
    except ValueError as error:
        others = [n for n in (f"{name}_macro", f"{name}_ovr") if n in names()]
        hint = f" (for these: {others[0]})" if others else ""
        raise DataError(f"metric '{name}' does not fit {classes} classes{hint}: {_sentence(error)}") from None
    return "probabilities" if "probabilities" in given.asked else "labels"


def _tried_on_numbers(name: str) -> bool:
    target = np.array([0.5, 1.25, 2.75, 4.0])
    given = _Numbers(target[:, None] + 0.25)
    from sklearn.metrics import get_scorer

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # those for clusters only warn that numbers are continuous
            get_scorer(name)(given, None, target)
    except (ValueError, AttributeError, UserWarning):
        return False
    return True


def _scored(name: str, needs: Needs) -> Callable[[Array, Array], float]:
    if needs == "numbers":
        return lambda target, output: _numbers(name, target, output)
    if needs == "labels":
        return lambda target, output: _score(name, target, _Classes(output))
    return lambda target, output: _probable(name, target, probabilities(output))


def _numbers(name: str, target: Array, output: Array) -> float:
    y = np.asarray(target, dtype=np.float64).reshape(len(target), -1)
    if output.reshape(len(output), -1).shape != y.shape:
        raise DataError(f"metric '{name}': outputs are {list(output.shape)}, expected {list(y.shape)} as the target")
    y = y[:, 0] if y.shape[1] == 1 else y
    try:
        return _score(name, y, _Numbers(output.reshape(len(output), -1)))
    except ValueError as error:
        # is it the target, or what was predicted? Where targets may be 0, some metrics allow no prediction of 0
        for possible in (y, np.broadcast_to(y.mean(0), y.shape)):
            with contextlib.suppress(ValueError):
                _score(name, y, _Numbers(possible.reshape(len(y), -1)))
                return float("nan")
        raise DataError(f"metric '{name}' does not fit the target: {_sentence(error)}") from None


def _probable(name: str, target: Array, p: Array) -> float:
    """A metric of probabilities, also where the target lacks classes."""
    from sklearn import metrics

    labels = np.arange(p.shape[1])
    whole: dict[str, Callable[..., float]] = {
        "neg_log_loss": lambda *a, **kw: -metrics.log_loss(*a, **kw),
        "neg_brier_score": lambda *a, **kw: -metrics.brier_score_loss(*a, **kw),
        "d2_log_loss_score": metrics.d2_log_loss_score,
        "d2_brier_score": metrics.d2_brier_score,
        "top_k_accuracy": metrics.top_k_accuracy_score,
    }  # those that have to hear of all classes
    present = np.unique(target)
    if name.startswith("d2_") and len(present) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if name in whole:
                given = p[:, 1] if name == "top_k_accuracy" and len(labels) == 2 else p
                return float(whole[name](target, given, labels=labels))
            if len(labels) > 2 and len(present) < len(labels):  # the others compare columns with the classes they see
                return _among(name, target, p, present)
            return _score(name, target, _Classes(p))
        except ValueError:
            return float("nan")


def _among(name: str, target: Array, p: Array, present: Array) -> float:
    if len(present) < 2:
        return float("nan")
    kept = np.maximum(p[:, present], 1e-300)
    kept = kept / kept.sum(1, keepdims=True)
    binary = name.partition("_ov")[0] if len(present) == 2 else name  # one curve is left
    return _score(binary, np.searchsorted(present, target), _Classes(kept))


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")
