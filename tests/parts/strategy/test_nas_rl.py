import numpy as np
import pytest

from archwright.core import registry, seeds
from archwright.core.checks import bench
from archwright.core.choose import Options
from archwright.core.records import Trace, Trial
from archwright.errors import ArchwrightError
from archwright.kit.controller import BINS, Controller, Question, tokens
from archwright.kit.tabular_search import cells

module = registry.module(registry.find("strategy/nas_rl"))


def controller(space, count=12, hidden=5):
    rng = np.random.default_rng(0)
    written = [tokens(space, space.random(rng)) for _ in range(count)]
    made = Controller.fresh(list(dict.fromkeys(q for t in written for q, _ in t)), hidden, spread=0.5)
    return made, written


def log_p(made, trace):
    """log p of one trace, step by step as the formulas at the head of the file say."""
    v, n = made.views, made.hidden
    h = c = np.zeros(n)
    total, entropy, last = 0.0, 0.0, v["start"]
    sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
    for question, answer in trace:
        q = made.places[question]
        i, f, o, u = np.split((last + v["asked"][q]) @ v["wx"] + h @ v["wh"] + v["b"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(u)
        h = sigmoid(o) * np.tanh(c)
        logits = (v["head"][q] @ h + v["bias"][q])[: question.size]
        p = np.exp(logits) / np.exp(logits).sum()
        total += np.log(p[answer])
        entropy -= (p * np.log(p)).sum()
        last = v["chosen"][q, answer]
    return total, entropy


def test_log_probabilities_and_gradients_by_differences():
    """Traces of different lengths in one batch."""
    made, written = controller(bench.space())
    batch = written[:4]
    assert len({len(t) for t in batch}) > 1
    weights, bonus = np.array([0.7, -0.3, 1.1, 0.2]), 0.05

    def loss():
        found = [log_p(made, t) for t in batch]
        return -sum(w * log for w, (log, _) in zip(weights, found, strict=True)) - bonus * sum(e for _, e in found)

    gradient, logs = made.gradient(batch, weights, bonus)
    np.testing.assert_allclose(logs, [log_p(made, t)[0] for t in batch], rtol=1e-10)
    rng = np.random.default_rng(1)
    for at in rng.integers(len(made.flat), size=80):
        kept = made.flat[at]
        made.flat[at] = kept + 1e-5
        up = loss()
        made.flat[at] = kept - 1e-5
        down = loss()
        made.flat[at] = kept
        assert gradient[at] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-7)


def test_samples_come_as_often_as_their_probability():
    from archwright.core.choose import Picker

    space = cells()
    made, _ = controller(space, 40)
    made.views["bias"][:] = np.random.default_rng(2).normal(size=made.views["bias"].shape)
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(3000):
        picker = Picker(made.sampler(rng))
        space.program(picker, space.spec)
        drawn.append(tokens(space, picker.trace))
    firsts = np.bincount([t[0][1] for t in drawn], minlength=5) / len(drawn)
    question = drawn[0][0][0]
    expected = [np.exp(log_p(made, ((question, k),))[0]) for k in range(5)]
    np.testing.assert_allclose(firsts, expected, atol=0.03)


def test_expected_update_is_the_gradient_of_the_expected_reward():
    """Exact, over all traces of a small space: sum p(t) (R(t) - b) grad log p(t) = grad sum p(t) R(t), whatever b."""
    from archwright.core.space import Space
    from archwright.kit.tabular_search import _stub

    def draw(choose, spec):
        if choose.one_of("a", (0, 1, 2)) == 1:
            choose.one_of("b", ("x", "y"))
        return _stub()

    space = Space("tiny", draw, cells().spec)
    written = [tokens(space, t) for t in space.traces()]
    assert len(written) == 4
    made = Controller.fresh(list(dict.fromkeys(q for t in written for q, _ in t)), 4, spread=0.7)
    reward = np.array([1.0, -2.0, 0.5, 3.0])

    def expected():
        return sum(np.exp(log_p(made, t)[0]) * r for t, r in zip(written, reward, strict=True))

    p = np.exp([log_p(made, t)[0] for t in written])
    assert p.sum() == pytest.approx(1)
    update, _ = made.gradient(written, p * (reward - 1.7))
    for at in range(0, len(made.flat), 7):
        kept = made.flat[at]
        made.flat[at] = kept + 1e-5
        up = expected()
        made.flat[at] = kept - 1e-5
        down = expected()
        made.flat[at] = kept
        assert -update[at] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-7)


def test_learns_which_operation_is_good():
    space, history = cells(), []
    while len(history) < 400:
        rng = seeds.rng(0, len(history))
        for trace in module.propose(tuple(history), space, rng, 8, directions=("max",)):
            history.append(Trial(len(history), trace, (float(trace["edge_0_1"] == "nor_conv_1x1"),)))
    assert np.mean([t.values[0] for t in history[:80]]) < 0.5
    assert np.mean([t.values[0] for t in history[-80:]]) > 0.9


def test_units_of_the_objective_do_not_matter():
    space, rng = cells(), np.random.default_rng(0)
    traces = [space.random(rng) for _ in range(40)]
    small = tuple([Trial(i, t, (float(rng.integers(8)),)) for i, t in enumerate(traces)])
    large = tuple([Trial(t.number, t.trace, (4 * t.values[0] + 64,)) for t in small])
    one, other = (module.propose(h, space, np.random.default_rng(1), 5) for h in (small, large))
    assert one == other


def test_real_numbers_are_cut_into_parts():
    question = Question("rate", Options("number", (), 1e-4, 1e-1, True))
    for index in range(BINS):
        assert question.index(question.value(index, 0.5)) == index
    assert question.value(0, 0.0) == pytest.approx(1e-4)
    assert question.index(1e-1) == BINS - 1


def test_fast_enough_to_be_trained_anew_each_time():
    import time

    space, rng = cells(), np.random.default_rng(0)
    history = tuple([Trial(i, Trace(space.random(rng)), (rng.random(),)) for i in range(500)])
    module.propose(history, space, rng, 1)
    start = time.perf_counter()
    for _ in range(3):
        module.propose(history, space, rng, 1)
    assert (time.perf_counter() - start) / 3 < 0.3  # about 0.045 s of one core


def test_errors():
    with pytest.raises(ArchwrightError, match="batch 0"):
        module.propose((), cells(), np.random.default_rng(0), 1, batch=0)
