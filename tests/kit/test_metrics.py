"""Metrics by name: against scikit-learn on the same predictions, and where nothing sensible can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from archwright.errors import DataError
from archwright.kit.metrics import metric, names, probabilities

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 4))
CLASSES = RNG.integers(0, 4, 60)
PROBABILITIES = probabilities(LOGITS)
GUESSES = LOGITS.argmax(1)


def test_error_is_a_share_or_a_root_in_target_units() -> None:
    wrong = metric("error", "classification")
    assert wrong([0, 1, 1, 0], [[2.0, 1], [0, 1], [3, 1], [1, 0]]) == 0.25
    assert (wrong.unit, wrong.direction, wrong.needs) == ("share", "min", "labels")
    root = metric("error", "regression")
    assert root(np.array([1.0, 2.0]), np.array([[2.0], [4.0]])) == pytest.approx(math.sqrt(2.5))
    assert (root.unit, root.direction, root.needs) == ("target units", "min", "numbers")


@pytest.mark.parametrize(
    ("name", "needs", "value"),
    [
        ("accuracy", "labels", sk.accuracy_score(CLASSES, GUESSES)),
        ("balanced_accuracy", "labels", sk.balanced_accuracy_score(CLASSES, GUESSES)),
        ("f1_macro", "labels", sk.f1_score(CLASSES, GUESSES, average="macro")),
        ("roc_auc_ovr", "probabilities", sk.roc_auc_score(CLASSES, PROBABILITIES, multi_class="ovr")),
        ("neg_log_loss", "probabilities", -sk.log_loss(CLASSES, PROBABILITIES)),
        ("top_k_accuracy", "probabilities", sk.top_k_accuracy_score(CLASSES, LOGITS)),
    ],
)
def test_of_classes(name: str, needs: str, value: float) -> None:
    found = metric(name, "classification", 4)
    assert found(CLASSES, LOGITS) == pytest.approx(value)
    assert (found.needs, found.direction) == (needs, "max")


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "f1", "neg_brier_score", "top_k_accuracy"])
def test_of_two_classes_is_about_the_second(name: str) -> None:
    y, right = np.array([0, 1, 0, 1]), np.array([[3.0, 0], [0, 3], [2, 0], [1, 2]])
    assert metric(name, "classification", 2)(y, right) > metric(name, "classification", 2)(y, -right) - (name[0] == "t")


def test_of_numbers() -> None:
    y, out = RNG.normal(size=(30, 2)), RNG.normal(size=(30, 2))
    assert metric("r2", "regression")(y, out) == pytest.approx(sk.r2_score(y, out))
    found = metric("neg_mean_absolute_error", "regression")
    assert found(y[:, 0], out[:, :1]) == pytest.approx(-sk.mean_absolute_error(y[:, 0], out[:, 0]))
    assert found.unit == "target units"


def test_every_scorer_fits_a_task_or_says_why_not() -> None:
    fits = {}
    for name in names():
        for task, classes in (("classification", 2), ("classification", 5), ("regression", 1)):
            try:
                found = metric(name, task, classes)  # type: ignore[arg-type]
            except DataError as error:
                assert name in str(error) and "\n" not in str(error)
                continue
            fits.setdefault(name, []).append(task)
            if task == "classification":
                y = np.arange(20) % classes
                right = 30.0 * np.eye(classes)[y]
                assert found(y, right) >= found(y, right[:, ::-1])
            else:
                y = np.arange(1.0, 21)
                assert found(y, y[:, None]) > found(y, y[::-1, None])
    assert sorted(set(names()) - set(fits)) == [f"{n}_samples" for n in ("f1", "jaccard", "precision", "recall")]
    assert not [name for name, tasks in fits.items() if len(set(tasks)) > 1]


@pytest.mark.parametrize("name", ["roc_auc_ovr", "roc_auc_ovo", "neg_log_loss", "balanced_accuracy", "f1_macro"])
def test_a_class_missing_in_a_fold(name: str) -> None:
    without = CLASSES.copy()
    without[without == 3] = 1
    assert math.isfinite(metric(name, "classification", 4)(without, LOGITS))
    two = CLASSES % 2
    assert math.isfinite(metric(name, "classification", 4)(two, LOGITS))
    one = metric("roc_auc_ovr", "classification", 4)(np.zeros(60, int), LOGITS)
    assert math.isnan(one)


def test_log_loss_counts_what_was_given_to_missing_classes() -> None:
    y = np.zeros(60, int)
    assert metric("neg_log_loss", "classification", 4)(y, LOGITS) == pytest.approx(np.log(PROBABILITIES[:, 0]).mean())


def test_what_is_not_finite_is_nan() -> None:
    bad = LOGITS.copy()
    bad[3, 1] = np.nan
    for name in ("error", "accuracy", "neg_log_loss"):
        found = metric(name, "classification", 4)
        assert math.isnan(found(CLASSES, bad))
        assert found.better(found(CLASSES, LOGITS), found(CLASSES, bad))
        assert not found.better(found(CLASSES, bad), found(CLASSES, LOGITS))


@pytest.mark.parametrize(
    ("name", "task", "classes", "said"),
    [
        ("acuracy", "classification", 2, "did you mean accuracy"),
        ("qqqqq", "classification", 2, "scorer name"),
        ("r2", "classification", 2, "is for numbers"),
        ("accuracy", "regression", 1, "is for classes"),
        ("f1", "classification", 3, "f1_macro"),
        ("roc_auc", "classification", 3, "roc_auc_ovr"),
        ("error", "clustering", 3, "expected classification or regression"),
    ],
)
def test_one_sentence(name: str, task: str, classes: int, said: str) -> None:
    with pytest.raises(DataError, match=said):
        metric(name, task, classes)  # type: ignore[arg-type]


def test_what_does_not_fit_the_samples() -> None:
    with pytest.raises(DataError, match="one for each"):
        metric("error", "classification")(CLASSES, LOGITS[:3])
    with pytest.raises(DataError, match="expected one for each"):
        metric("error", "classification")([], np.zeros((0, 2)))
    with pytest.raises(DataError, match="does not fit the target"):
        metric("neg_mean_squared_log_error", "regression")([-2.0, 1], [[1.0], [2]])
    assert math.isnan(metric("neg_mean_squared_log_error", "regression")([2.0, 1], [[-3.0], [2]]))
    with pytest.raises(DataError, match=r"expected \[2, 1\]"):
        metric("r2", "regression")([2.0, 1], [[-3.0, 1], [2, 1]])


def test_a_prediction_that_a_metric_does_not_allow_is_not_a_number() -> None:
    """Targets may be 0, predictions may not: it is the prediction that does not fit."""
    counts = np.array([0.0, 1.0, 3.0, 2.0])
    deviance = metric("neg_mean_poisson_deviance", "regression")
    assert np.isnan(deviance(counts, counts[:, None] - 0.5)) and deviance(counts, np.full((4, 1), 1.5)) < 0
    with pytest.raises(DataError, match="does not fit the target"):
        deviance(counts - 2, counts[:, None])
