"""Curve regression: the beginning of a learning curve, its differences and the architecture predict the end.

    x = (c_1 .. c_m,  c_2 - c_1 .. c_m - c_{m-1},  second differences,  one-hot(trace))      y = final value
    "svr"     nu-SVR with radial basis functions on standardised x and y, C and gamma by cross-validation
    "linear"  least squares with a ridge, its strength by leave-one-out

c_1 .. c_m are the first m = `points` entries of a validation curve. `fit` learns from trials that hold their whole
curve (`Trial.extra["curve"]`); y is the trial's first objective. `score` predicts for a curve that is given, or trains
the net for as long as the beginning took: m entries, `every` steps apart, with the settings given, which should be
those of the history. `worse` turns a prediction into the probability that a run ends worse than the best one: with that
above 0.95 a run is stopped early; its deviation is that of cross-validated errors.

Cost: fit in about a second for hundreds of trials; a score is m * every steps of training. Fails when curves of the
history were trained differently (schedules!), where curves cross late, and with few dozen trials. Differs from the
paper: hyperparameters are part of the trace; "linear" has a small ridge, as one-hot columns depend on each other; the
deviation comes from five folds instead of leave-one-out.

Baker, Gupta, Raskar, Naik: Accelerating Neural Architecture Search using Performance Prediction, 2017, arXiv
1705.10823.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core import seeds
from archwright.core.records import Budget, Claim, Score, Trial
from archwright.core.space import Space
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.kit.encodings import Encoding
from archwright.kit.trials import finished
from archwright.net.net import Net

PART = {
    "kind": "estimator",
    "name": "curve_svr",
    "id": "curve-svr",
    "title": "Accelerating Neural Architecture Search using Performance Prediction",
    "year": 2017,
    "arxiv": "1705.10823",
    "needs": ["history", "curves"],
    "extras": [],
    "example": {
        "hp": {"points": 2, "every": 13, "lr": 0.005, "batch_size": 32}, "target": "error", "floor": 0.6,
    },
    "exact": "Curves whose end is a linear function of their beginning are predicted exactly by the linear model.",
    "claim": {
        "text": "SpikeNAS-Bench, 100 cells learned from: R^2 of the accuracy after 100 epochs from the first 25.",
        "paper": "more accurate than Bayesian curve models and the last value seen; searches up to 6 times faster",
    },
}


@dataclass(frozen=True, eq=False)
class State:
    """What `fit` learned. `deviation` is that of cross-validated errors, in the unit of the objective."""

    points: int
    encoding: Encoding
    model: Any
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    middle: float
    spread: float
    deviation: float

    def predict(self, curves: Sequence[Sequence[float]], traces: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Predicted final values, [runs], from beginnings of at least `points` entries."""
        x = (features(curves, traces, self.points, self.encoding) - self.mean) / self.scale
        found: NDArray[np.float64] = self.model.predict(x)
        return self.middle + self.spread * found


def features(
    curves: Sequence[Sequence[float]], traces: Sequence[Mapping[str, Any]], points: int, encoding: Encoding
) -> NDArray[np.float64]:
    """[runs, features]: see the head of the file. Raises `ArchwrightError` for a curve that is too short."""
    short = min([len(curve) for curve in curves], default=points)
    if short < points:
        raise ArchwrightError(f"got a curve of {short} entries, expected at least points={points}")
    begun = np.array([[float(v) for v in curve[:points]] for curve in curves])
    return np.concatenate([begun, np.diff(begun), np.diff(begun, n=2), encoding(traces)], 1)


def fit(history: Sequence[Trial], space: Space, *, seed: int = 0, points: int = 4, model: str = "svr") -> State:
    """Learn from finished trials that hold a curve; `points` entries of it are looked at.

    Raises `ArchwrightError` for fewer than five such trials, and for a model that is neither "svr" nor "linear".
    """
    if model not in ("svr", "linear") or points < 1:
        raise ArchwrightError(f"got model '{model}', points={points}, expected 'svr' or 'linear', and at least 1")
    trials = [t for t in finished(history) if len(t.extra.get("curve", ())) >= points]
    if len(trials) < 5:
        raise ArchwrightError(f"got {len(trials)} finished trials with curves of {points} entries, expected at least 5")
    traces = [t.trace for t in trials]
    encoding = Encoding.of(traces)
    x = features([t.extra["curve"] for t in trials], traces, points, encoding)
    y = np.array([t.values[0] for t in trials])
    mean, scale = x.mean(0), np.where(x.std(0) > 1e-12, x.std(0), 1.0)
    middle, spread = float(y.mean()), float(y.std()) or 1.0
    x, y = (x - mean) / scale, (y - middle) / spread
    made = _regressor(model, x, y, seed)
    return State(points, encoding, made, mean, scale, middle, spread, spread * _deviation(made, x, y, seed))


def _regressor(model: str, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.svm import NuSVR

    if model == "linear":
        return RidgeCV(np.logspace(-6, 3, 19)).fit(x, y)
    grid = {"C": [0.3, 3.0, 30.0], "gamma": [s / x.shape[1] for s in (0.03, 0.1, 0.3, 1.0)]}
    folds = KFold(5, shuffle=True, random_state=seed % 2**32)
    search = GridSearchCV(NuSVR(), grid, scoring="neg_mean_squared_error", cv=folds).fit(x, y)
    return search.best_estimator_


def _deviation(made: Any, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> float:
    from sklearn.base import clone
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(5, shuffle=True, random_state=(seed + 1) % 2**32)
    return float(np.sqrt(np.mean((cross_val_predict(clone(made), x, y, cv=folds) - y) ** 2)))


def worse(
    state: State, curve: Sequence[float], trace: Mapping[str, Any], best: float, *, direction: str = "min"
) -> float:
    """Probability that a run ends worse than `best`, if errors of prediction are normal."""
    gap = float(state.predict([curve], [trace])[0]) - best
    gap = gap if direction == "min" else -gap
    return 0.5 * (1 + math.erf(gap / max(state.deviation, 1e-12) / math.sqrt(2)))


def score(
    net: Net,
    data: Data,
    *,
    seed: int = 0,
    state: State | None = None,
    trace: Mapping[str, Any] | None = None,
    curve: Sequence[float] | None = None,
    every: int = 100,
    optimiser: str = "Adam",
    lr: float = 1e-3,
    batch_size: int = 64,
    direction: str = "min",
    unit: str = "objective",
) -> Score:
    """The predicted first objective at the end of training.

    curve       how training began, at least the state's `points` entries; without it the net is trained so far, and its
                validation error taken `every` steps
    direction   and `unit` are those of the objective
    Raises `ArchwrightError` without a state or a trace, or for a curve that is too short.
    """
    if state is None or trace is None:
        raise ArchwrightError("curve_svr predicts from what was tried: give state=fit(history, space) and trace")
    if direction not in ("min", "max"):
        raise ArchwrightError(f"got direction '{direction}', expected 'min' or 'max'")
    if curve is None:
        _, log = train.fit(
            net, data, Budget(steps=state.points * every), seeds.rng(seed, "curve_svr"), optimiser=optimiser, lr=lr,
            batch_size=batch_size, evaluations=state.points, keep="last",
        )  # fmt: skip
        curve = log.columns["valid_error"]
    value = float(state.predict([curve], [trace])[0])
    return Score(value, unit, "min" if direction == "min" else "max", details={"deviation": state.deviation})


def claim(*, seed: int = 0) -> Claim:
    """R^2 on 2,000 cells; the last value seen as baseline; epochs spent and winner kept with early stopping."""
    from archwright.core.records import Trace
    from archwright.data.home import data_file
    from archwright.kit.tabular_search import cells

    stored = np.load(data_file("spikenas_bench", "spikenas_cifar10_curves.npz"))
    curves = stored["val_acc_x250"].astype(float) / 250
    digits = np.arange(len(curves))[:, None] // 5 ** np.arange(6) % 5
    order = np.random.default_rng(seed).permutation(len(curves))
    traces = {int(i): Trace({f"edge.{k}": int(d) for k, d in enumerate(digits[i])}) for i in order[:4000]}
    learned, others = order[:100], order[100:2100]
    history = [
        Trial(n, traces[int(i)], (float(curves[i, -1]),), extra={"curve": curves[i].tolist()})
        for n, i in enumerate(learned)
    ]
    final = curves[others, -1]
    details, found = {}, {}
    for model in ("svr", "linear"):
        state = fit(history, cells(), points=25, model=model, seed=seed)
        found[model] = state.predict(curves[others], [traces[int(i)] for i in others]), state.deviation
        details[f"R^2, {model}"] = _r2(found[model][0], final)
    details["R^2, last value seen"] = _r2(curves[others, 24], final)
    spent, kept = [], []
    for start in range(0, 2000, 100):  # 20 searches of 100 cells each
        best, epochs, ends = -math.inf, 0, []
        for i in range(start, start + 100):
            chance = 0.5 * (1 + math.erf((best - found["svr"][0][i]) / found["svr"][1] / math.sqrt(2)))
            epochs += 25 if chance > 0.95 else 100
            if chance <= 0.95:
                best = max(best, final[i])
            ends.append(final[i])
        spent.append(epochs / 10_000)
        kept.append(best == max(ends))
    details |= {"share of epochs spent": float(np.mean(spent)), "searches that kept their winner": float(np.mean(kept))}
    figure = details["R^2, svr"]
    return Claim(
        figure, "1", "above that of the last value seen", figure > details["R^2, last value seen"],
        "more accurate than the last value seen; up to 6 times faster", details,
        ("early stopping: 20 searches of 100 cells, stopped at a probability of 0.95",),
    )  # fmt: skip


def _r2(guess: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    return float(1 - np.mean((guess - true) ** 2) / np.var(true))
