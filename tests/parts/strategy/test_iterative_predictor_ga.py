import numpy as np
import pytest

from archwright.core import registry
from archwright.core.records import Trial
from archwright.errors import ArchwrightError
from archwright.kit.ranks import kendall
from archwright.kit.tabular_search import cells
from archwright.kit.trials import name

module = registry.module(registry.find("strategy/iterative_predictor_ga"))
SPACE = cells()
SMALL = {"start": 10, "population": 20, "generations": 5}


def worth(trace):
    """Two objectives that pull apart: convolutions cost, and help more where they meet."""
    sizes = {"nor_conv_3x3": 9.0, "nor_conv_1x1": 1.0}
    size = sum(sizes.get(op, 0.0) for op in trace.values())
    pair = trace["edge_0_1"] == trace["edge_1_3"] == "nor_conv_1x1"
    return 20 - size**0.5 - 3 * pair + (5 if trace["edge_0_3"] == "none" else 0), size


def history(count, seed=0):
    rng = np.random.default_rng(seed)
    traces = [SPACE.random(rng) for _ in range(count)]
    return tuple([Trial(i, t, worth(t)) for i, t in enumerate(traces)])


def test_ridge_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 4)), rng.normal(size=30)
    predict = module._ridge(2.0)(x, y)
    zero = predict(x.mean(0, keepdims=True))[0]
    w = np.array([predict(x.mean(0, keepdims=True) + e)[0] - zero for e in np.eye(4)])
    residual = (y - y.mean()) - (x - x.mean(0)) @ w
    np.testing.assert_allclose(-2 * (x - x.mean(0)).T @ residual + 2 * 2.0 * w, 0, atol=1e-9)


def test_normal_scores_keep_the_order_and_tame_outliers():
    y = np.array([3.0, -1e9, 5.0, 4.0, 4.0])
    scores = module._scores(y)
    assert scores.argsort(kind="stable").tolist() == y.argsort(kind="stable").tolist()
    assert scores[3] == scores[4]
    assert np.abs(scores).max() < 2


def test_predictors_rank_what_they_have_not_seen():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (160, 10)).astype(float)
    linear = x @ rng.normal(size=10)
    together = x[:, 0] * x[:, 1] * 3 + (x[:, 2] != x[:, 3]) * 2.0 + 0.5 * x[:, 4]
    for y in (linear, -linear, together):
        predict = module.fit(x[:100], y[:100])
        assert kendall(predict(x[100:]), y[100:]) > 0.7
    assert np.all(module.fit(x, np.ones(160))(x) == 0)


def test_what_was_tried_is_not_proposed_again():
    past = history(60)
    seen = {name(t.trace) for t in past}
    found = module.propose(past, SPACE, np.random.default_rng(0), 10, directions=("min", "min"), **SMALL)
    assert len(found) == 10
    assert len({name(t) for t in found} - seen) == 10


def test_proposals_are_nearer_to_the_front_than_what_was_measured():
    past = history(60)
    found = module.propose(past, SPACE, np.random.default_rng(0), 10, directions=("min", "min"), **SMALL)
    before = np.array([t.values for t in past])
    after = np.array([worth(t) for t in found])
    beaten = lambda p: (before <= p).all(1) & (before < p).any(1)  # noqa: E731
    assert np.mean([beaten(p).sum() for p in after]) < np.mean([beaten(p).sum() for p in before]) / 4


def test_one_objective_is_enough():
    past = tuple([Trial(t.number, t.trace, t.values[:1]) for t in history(40)])
    found = module.propose(past, SPACE, np.random.default_rng(0), 5, **SMALL)
    assert np.mean([worth(t)[0] for t in found]) < np.mean([t.values[0] for t in past])


def test_errors():
    with pytest.raises(ArchwrightError, match="generations 0"):
        module.propose((), SPACE, np.random.default_rng(0), 1, generations=0)
