"""GBDT-NAS: gradient-boosted trees over one-hot choices predict how good an architecture is.

    x = one-hot(trace)        y^ = sum_t lr * tree_t(x),  trees grown one after the other on the residual (LightGBM)
    attribution of a choice: TreeSHAP values phi with  y^ = phi_0 + sum_j phi_j(x)

`fit` learns from the trials of a history (values standardised inside), `score` predicts the first objective for a
trace, in its own unit. `harmful` names the choices whose mean attribution, over the traces that make them, is worst:
what the paper prunes from the space before it searches on.

trees, leaves, rate, least   number of trees, leaves a tree, learning rate, least trials in a leaf
Cost: fit in milliseconds for hundreds of trials, a prediction in microseconds. Fails with a few dozen trials, on
choices that no trial has made, and on spaces where numbers interact (a tree needs a split for each pair). Differs from
the paper: any space's traces, with real numbers as columns of their own; a choice's attribution is summed over its
columns; pruning is left to who asks for it.

Luo, Tan, Wang, Qin, Chen, Liu: Accuracy Prediction with Non-neural Model for Neural Architecture Search, 2020, arXiv
2007.04785.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core.records import Claim, Score, Trial
from archwright.core.space import Space
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.encodings import Encoding
from archwright.kit.trials import finished
from archwright.net.net import Net

PART = {
    "kind": "estimator",
    "name": "gbdt_nas",
    "id": "gbdt-nas",
    "title": "Accuracy Prediction with Non-neural Model for Neural Architecture Search",
    "year": 2020,
    "arxiv": "2007.04785",
    "needs": ["history"],
    "extras": [],
    "example": {"hp": {"least": 2}, "target": "error", "floor": 0.4},
    "exact": "The attributions of a prediction and their base add up to it.",
    "claim": {
        "text": "NAS-Bench-201, CIFAR-10: Kendall's tau on all other cells after 200 random ones.",
        "paper": "NASBench-101: the global optimum with 22 times fewer queries than random search",
    },
}


@dataclass(frozen=True, eq=False)
class State:
    """What `fit` learned: the columns, LightGBM's model as text, and the scale of the values."""

    encoding: Encoding
    model: str
    mean: float
    spread: float

    def predict(self, traces: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """Predicted values, [traces]."""
        made: NDArray[np.float64] = _booster(self.model).predict(self.encoding(traces), num_threads=1)
        return self.mean + self.spread * made

    def attributions(self, traces: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """What each column adds to the prediction, and the base last: [traces, columns + 1], in the values' unit."""
        made = _booster(self.model).predict(self.encoding(traces), pred_contrib=True, num_threads=1)
        found: NDArray[np.float64] = self.spread * np.asarray(made)
        found[:, -1] += self.mean
        return found


def _booster(model: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=model)


def fit(
    history: Sequence[Trial],
    space: Space,
    *,
    seed: int = 0,
    trees: int = 100,
    leaves: int = 31,
    rate: float = 0.05,
    least: int = 5,
) -> State:
    """Learn the first objective from finished trials. Raises `ArchwrightError` for fewer than two of them."""
    import lightgbm

    trials = finished(history)
    if len(trials) < 2:
        raise ArchwrightError(f"got {len(trials)} finished trials, expected at least 2 to learn from")
    traces = [trial.trace for trial in trials]
    values = np.array([trial.values[0] for trial in trials])
    encoding = Encoding.of(traces)
    mean, spread = float(values.mean()), float(values.std()) or 1.0
    settings = {
        "objective": "regression", "num_leaves": leaves, "learning_rate": rate, "min_data_in_leaf": least,
        "min_data_in_bin": 1, "seed": seed % 2**31, "deterministic": True, "force_row_wise": True, "num_threads": 1,
        "verbosity": -1,
    }  # fmt: skip
    table = lightgbm.Dataset(encoding(traces), (values - mean) / spread, params={"verbosity": -1, "min_data_in_bin": 1})
    model = lightgbm.train(settings, table, trees)
    return State(encoding, model.model_to_string(), mean, spread)


def score(
    net: Net,
    data: Data,
    *,
    seed: int = 0,
    state: State | None = None,
    trace: Mapping[str, Any] | None = None,
    direction: str = "min",
    unit: str = "objective",
) -> Score:
    """The predicted first objective of a trace; net and data are not looked at.

    `direction` and `unit` are those of the objective. Raises `ArchwrightError` without a state or a trace.
    """
    if state is None or trace is None:
        raise ArchwrightError("gbdt_nas predicts from what was tried: give state=fit(history, space) and trace")
    if direction not in ("min", "max"):
        raise ArchwrightError(f"got direction '{direction}', expected 'min' or 'max'")
    return Score(float(state.predict([trace])[0]), unit, "min" if direction == "min" else "max")


def harmful(
    state: State, traces: Sequence[Mapping[str, Any]], *, direction: str = "min", share: float = 0.1
) -> list[tuple[str, Any, float]]:
    """The choices that make things worst: (name, value, mean attribution), worst first, at most a share of all of them.

    The mean is over the traces that make the choice. Choices that help, and real numbers, are left out.
    """
    columns, parts, made = state.encoding.columns, state.attributions(traces), state.encoding(traces)
    sign = 1.0 if direction == "min" else -1.0
    found = []
    for j, (name, value) in enumerate(columns):
        taken = made[:, j] > 0
        if value is not None and taken.any():
            same = [k for k, column in enumerate(columns) if column[0] == name]
            effect = float(parts[taken][:, same].sum(1).mean())
            if sign * effect > 0:
                found.append((name, value[1], effect))
    found.sort(key=lambda item: -sign * item[2])
    return found[: max(1, int(share * len(columns)))]


def claim(*, seed: int = 0) -> Claim:
    """Mean tau of five draws of 200 cells, and the queries to the best 0.1 % against random search."""
    from archwright.kit.nasbench201 import table
    from archwright.kit.ranks import kendall
    from archwright.kit.tabular_search import cells

    known, space = table(), cells()
    traces, accuracy = known.traces(), known.column("c10_valid_200")
    best = set(np.argsort(-accuracy)[: len(traces) // 1000].tolist())
    taus, queries = [], []
    for run in range(5):
        order = np.random.default_rng((seed, run)).permutation(len(traces))
        state = fit([Trial(i, traces[j], (float(accuracy[j]),)) for i, j in enumerate(order[:200])], space, seed=run)
        guess = state.predict([traces[j] for j in order[200:]])
        taus.append(kendall(guess, accuracy[order[200:]]))
        tried = [*order[:200], *order[200:][np.argsort(-guess)]]
        queries.append(1 + next(i for i, j in enumerate(tried) if int(j) in best))
    tau = float(np.mean(taus))
    return Claim(
        tau, "1", "above 0.5", tau > 0.5, "22 times fewer queries than random search (NASBench-101)",
        {"queries to the best 0.1 %": float(np.mean(queries)),
         "queries of random search": (len(traces) + 1) / (len(best) + 1), "worst tau of five": min(taus)},
        ("100 trees of 31 leaves, learning rate 0.05, as set before the first run",),
    )  # fmt: skip
