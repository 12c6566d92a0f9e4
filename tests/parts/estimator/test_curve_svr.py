import numpy as np
import pytest

from archwright.core.checks import bench, toys
from archwright.core.records import Trial
from archwright.data.home import data_home
from archwright.errors import ArchwrightError
from archwright.kit.encodings import Encoding
from archwright.parts.estimator.curve_svr import claim, features, fit, score, worse

SPACE = bench.space()


def history(count, seed=0, final=lambda c: 2 * c[1] - c[0] + 0.3):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        curve = np.sort(rng.random(6))[::-1]
        found.append(Trial(i, SPACE.random(rng), (float(final(curve)),), extra={"curve": curve.tolist()}))
    return found


def test_features_are_the_curve_its_differences_and_the_choices():
    traces = [{"op": "a"}, {"op": "b"}]
    x = features([[1, 4, 9, 16], [0, 1, 0, 7]], traces, 3, Encoding.of(traces))
    np.testing.assert_array_equal(x, [[1, 4, 9, 3, 5, 2, 1, 0], [0, 1, 0, 1, -1, -2, 0, 1]])


def test_the_linear_model_is_exact_where_the_end_is_linear_in_the_beginning():
    state = fit(history(100), SPACE, points=3, model="linear")
    fresh = history(30, seed=1)
    made = state.predict([t.extra["curve"] for t in fresh], [t.trace for t in fresh])
    np.testing.assert_allclose(made, [t.values[0] for t in fresh], atol=1e-3)
    assert state.deviation < 1e-3


@pytest.mark.parametrize("model", ["svr", "linear"])
def test_it_does_better_than_the_mean_where_it_is_not(model):
    state = fit(history(150, final=lambda c: c[2] ** 2 + c[0]), SPACE, points=3, model=model)
    fresh = history(60, 1, lambda c: c[2] ** 2 + c[0])
    true = np.array([t.values[0] for t in fresh])
    made = state.predict([t.extra["curve"] for t in fresh], [t.trace for t in fresh])
    assert np.mean((made - true) ** 2) < 0.15 * np.var(true)
    assert 0.3 < np.std(made - true) / state.deviation < 3


def test_the_choices_count_where_the_curve_says_nothing():
    rng = np.random.default_rng(0)
    trials = [
        Trial(i, (t := SPACE.random(rng)), (float(t["width"]),), extra={"curve": rng.random(3).tolist()})
        for i in range(200)
    ]
    state = fit(trials[:150], SPACE, points=2)
    made = state.predict([t.extra["curve"] for t in trials[150:]], [t.trace for t in trials[150:]])
    assert np.corrcoef(made, [t.values[0] for t in trials[150:]])[0, 1] > 0.8


def test_the_probability_of_ending_worse():
    state = fit(history(60), SPACE, points=3)
    trial = history(1, 5)[0]
    curve, at = trial.extra["curve"], float(state.predict([trial.extra["curve"]], [trial.trace])[0])
    assert worse(state, curve, trial.trace, at) == pytest.approx(0.5)
    assert worse(state, curve, trial.trace, at - 2 * state.deviation) == pytest.approx(0.977, abs=1e-3)
    assert worse(state, curve, trial.trace, at - 2 * state.deviation, direction="max") == pytest.approx(0.023, abs=1e-3)


def test_without_a_curve_the_net_is_trained_as_far():
    data = toys.data("table")
    net = toys.net("mlp", data)
    trial = history(1)[0]
    state = fit(history(60), SPACE, points=3)
    one = score(net, data, state=state, trace=trial.trace, every=5)
    again = score(net, data, state=state, trace=trial.trace, every=5)
    other = score(net, data, state=state, trace=trial.trace, every=40, lr=0.02)
    given = score(net, data, state=state, trace=trial.trace, curve=trial.extra["curve"])
    assert one == again and one.value != other.value
    assert given.value == pytest.approx(state.predict([trial.extra["curve"]], [trial.trace])[0])


def test_what_is_wrong_is_said():
    with pytest.raises(ArchwrightError, match="at least 5"):
        fit(history(4), SPACE)
    with pytest.raises(ArchwrightError, match="at least 5"):
        fit(history(40), SPACE, points=7)
    with pytest.raises(ArchwrightError, match="linear"):
        fit(history(40), SPACE, model="tree")
    state = fit(history(20), SPACE)
    with pytest.raises(ArchwrightError, match="points=4"):
        score(None, None, state=state, trace={}, curve=[0.1])
    with pytest.raises(ArchwrightError, match="state"):
        score(None, None)


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="no data folder")
def test_the_claim_holds():
    assert claim().held
