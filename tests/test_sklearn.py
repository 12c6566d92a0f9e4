"""`ArchClassifier` and `ArchRegressor` are estimators as scikit-learn understands them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from archwright.errors import FormatError
from archwright.flows.bundle import Bundle
from archwright.flows.plan import Plan
from archwright.kit import latency
from archwright.sklearn import ArchClassifier, ArchRegressor

STEPS = 40
QUICK: dict[str, Any] = {"trials": 1, "workers": 0, "random_state": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings end early, and latencies are measured less well: there are a hundred fits."""
    whole = Plan.steps
    monkeypatch.setattr(Plan, "steps", lambda *given, **named: min(STEPS, whole(*given, **named)))
    monkeypatch.setattr(latency, "_MOST_RUNS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [ArchClassifier, ArchRegressor])
def test_every_check_of_scikit_learn(kind: Any) -> None:
    found = check_estimator(kind(**QUICK), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in found if r["status"] not in ("passed", "skipped")}
    assert not failed
    skipped = {r["check_name"]: str(r["exception"]) for r in found if r["status"] == "skipped"}
    assert all("SCIPY_ARRAY_API" in why or "not installed" in why for why in skipped.values()), skipped
    assert len(found) - len(skipped) >= 45


def frame(n: int = 60) -> pd.DataFrame:
    """A table with a category, a date, a number with gaps and a flag."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    return pd.DataFrame({
        "colour": rng.choice(["red", "blue", None], size=n), "when": pd.date_range("2020-01-01", periods=n),
        "size": np.where(rng.random(n) < 0.2, np.nan, x), "flag": rng.random(n) < 0.5, "x": x,
    })  # fmt: skip


@pytest.mark.parametrize("labels", [["no", "yes", "maybe"], [7, -2, 30], [1.0, 2.0, 4.0], [False, True]])
def test_labels_come_back_as_they_were(labels: list[Any]) -> None:
    X = frame()
    y = np.array(labels)[np.digitize(X["x"], [-0.4, 0.4][: len(labels) - 1])]
    model = ArchClassifier(**QUICK).fit(X, y)
    assert list(model.classes_) == sorted(labels) and model.classes_.dtype == y.dtype
    assert model.predict(X).dtype == y.dtype and model.score(X, y) > 0.6
    chances = model.predict_proba(X)
    assert chances.shape == (60, len(labels)) and np.allclose(chances.sum(1), 1)
    assert (model.classes_[chances.argmax(1)] == model.predict(X)).all()
    assert list(model.feature_names_in_) == list(X.columns) and model.n_features_in_ == 5
    shuffled = model.predict(X.iloc[::-1])[::-1]
    assert (shuffled == model.predict(X)).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename(columns={"x": "z"}))


def test_numbers_of_one_and_of_several_targets() -> None:
    X = frame()
    y = 1000 + 50 * X["x"]
    model = ArchRegressor(**QUICK).fit(X, y)
    assert model.predict(X).shape == (60,) and model.score(X, y) > 0.3
    both = np.stack([y, -y / 7], 1)
    model = ArchRegressor(**QUICK).fit(X, both)
    assert model.predict(X).shape == (60, 2) and model.score(X, both) > 0.3
    with pytest.raises(ValueError, match="NaN"):
        ArchRegressor(**QUICK).fit(X, y.where(X.index > 3))
    with pytest.raises(ValueError, match="inconsistent"):
        ArchRegressor(**QUICK).fit(X, y[:50])


def test_a_frame_of_numbers_and_an_array_are_the_same() -> None:
    data = load_iris(as_frame=True)
    one = ArchClassifier(**QUICK).fit(data.data, data.target)
    other = ArchClassifier(**QUICK).fit(data.data.to_numpy(), data.target.to_numpy())
    np.testing.assert_array_equal(one.predict_proba(data.data), other.predict_proba(data.data.to_numpy()))
    gaps = data.data.to_numpy().copy()
    gaps[::7, 2] = np.nan
    assert np.isfinite(ArchClassifier(**QUICK).fit(gaps, data.target).predict_proba(gaps)).all()


def test_images_and_signals() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    images = rng.random((40, 8, 8)) + y[:, None, None]
    assert ArchClassifier(**QUICK).fit(images, y).score(images, y) > 0.6
    waves = rng.normal(size=(40, 2, 30)) + y[:, None, None]
    assert ArchClassifier(**QUICK).fit(waves, y).predict_proba(waves).shape == (40, 2)


def test_parameters_clones_and_copies(tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    model = ArchClassifier(objective="error,params", limit="params=300", strategy="random", **QUICK)
    assert clone(model).get_params() == model.get_params()
    assert clone(model).set_params(limit={"params": 500}).limit == {"params": 500}
    model.fit(X, y)
    assert model.run_["cost"]["params"] <= 300 and model.run_["limits"] == {"params": 300}
    assert not hasattr(clone(model), "bundle_")
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    folder = model.bundle_.save(tmp_path / "net")
    np.testing.assert_array_equal(Bundle.load(folder).predict(X), model.predict(X))


def test_what_is_wrong_is_said_when_fitting() -> None:
    X, y = load_iris(return_X_y=True)
    for wrong in ({"limit": "parms=3"}, {"trials": 0}, {"budget": "soon"}):
        model = ArchClassifier(**{**QUICK, **wrong})  # the constructor does nothing
        with pytest.raises(FormatError):
            model.fit(X, y)
    with pytest.raises(ValueError, match="one class"):
        ArchClassifier(**QUICK).fit(X, np.zeros(len(X), int))


def test_within_other_tools_of_scikit_learn() -> None:
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), ArchClassifier(**QUICK))
    assert cross_val_score(model, X, y, cv=2).mean() > 0.7
    grid = GridSearchCV(ArchClassifier(**QUICK), {"limit": ["params=15", "params=2k"]}, cv=2).fit(X, y)
    assert grid.best_score_ > 0.6 and grid.best_params_["limit"] in ("params=15", "params=2k")


def test_what_depends_on_the_clock_says_so() -> None:
    for options, depends in (({}, True), ({"budget": "5s", "trials": 2}, True), ({"trials": 2}, False)):
        assert ArchClassifier(**options).__sklearn_tags__().non_deterministic is depends
    X, y = load_iris(return_X_y=True)
    run = ArchClassifier(budget="3s", workers=0, random_state=0).fit(X, y).run_
    assert run["budget_s"] == 3
