import numpy as np
import pytest

from archwright.core.checks import bench
from archwright.core.records import Trial
from archwright.data.home import data_home
from archwright.errors import ArchwrightError
from archwright.kit.encodings import Encoding
from archwright.kit.ranks import kendall
from archwright.parts.estimator.gbdt_nas import claim, fit, harmful, score

SPACE = bench.space()


def history(count, seed=0):
    rng = np.random.default_rng(seed)
    traces = [SPACE.random(rng) for _ in range(count)]
    return [Trial(i, t, (bench.error(t),)) for i, t in enumerate(traces)]


def test_it_ranks_what_it_has_not_seen():
    state = fit(history(200), SPACE)
    fresh = history(100, seed=1)
    assert kendall(state.predict([t.trace for t in fresh]), [t.values[0] for t in fresh]) > 0.6
    one = score(None, None, state=state, trace=fresh[0].trace)
    assert one.direction == "min" and one.value == pytest.approx(state.predict([fresh[0].trace])[0])


def test_attributions_add_up_to_the_prediction():
    trials = history(80)
    state, traces = fit(trials, SPACE), [t.trace for t in trials[:20]]
    np.testing.assert_allclose(state.attributions(traces).sum(1), state.predict(traces), rtol=1e-6)


def test_one_tree_with_one_split_predicts_the_means_of_its_sides():
    rng = np.random.default_rng(0)
    traces = [{"op": str(rng.choice(["a", "b"])), "other": int(rng.integers(3))} for _ in range(60)]
    values = [3.0 if t["op"] == "a" else 1.0 for t in traces]
    trials = [Trial(i, t, (v,)) for i, (t, v) in enumerate(zip(traces, values, strict=True))]
    state = fit(trials, SPACE, trees=1, leaves=2, rate=1.0)
    np.testing.assert_allclose(state.predict([{"op": "a", "other": 1}, {"op": "b", "other": 2}]), [3, 1], atol=1e-6)
    assert [(name, value) for name, value, _ in harmful(state, traces)] == [("op", "a")]
    ((name, value, effect),) = harmful(state, traces, direction="max")
    share = np.mean([t["op"] == "a" for t in traces])
    assert (name, value) == ("op", "b") and effect == pytest.approx(1 - (3 * share + 1 - share), abs=1e-5)


def test_failed_trials_are_passed_over_and_values_may_be_on_any_scale():
    trials = history(60)
    bad = [Trial(100, trials[0].trace, (), "failed"), Trial(101, trials[0].trace, (float("nan"),))]
    a = fit(trials, SPACE).predict([trials[3].trace])
    b = fit([*bad, *trials], SPACE).predict([trials[3].trace])
    scaled = fit([Trial(t.number, t.trace, (1e6 * t.values[0] + 5,)) for t in trials], SPACE).predict([trials[3].trace])
    np.testing.assert_allclose(a, b)
    np.testing.assert_allclose(scaled, 1e6 * a + 5, rtol=1e-6)
    assert len(Encoding.of([t.trace for t in trials]).names) == fit(trials, SPACE).attributions([{}]).shape[1] - 1


def test_what_is_wrong_is_said():
    with pytest.raises(ArchwrightError, match="at least 2"):
        fit([], SPACE)
    with pytest.raises(ArchwrightError, match="state"):
        score(None, None)
    with pytest.raises(ArchwrightError, match="direction"):
        score(None, None, state=fit(history(5), SPACE), trace={}, direction="up")


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="no data folder")
def test_the_claim_holds():
    assert claim().held
