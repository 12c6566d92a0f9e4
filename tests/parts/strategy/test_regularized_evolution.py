import numpy as np
import pytest

from archwright.core import registry
from archwright.core.records import Trial
from archwright.errors import ArchwrightError
from archwright.kit.tabular_search import cells

module = registry.module(registry.find("strategy/regularized_evolution"))
SPACE = cells()


def history(values, seed=0):
    rng = np.random.default_rng(seed)
    return tuple([Trial(i, SPACE.random(rng), (v,)) for i, v in enumerate(values)])


def changes(one, other):
    return sum(one[name] != other[name] for name in one)


def test_random_until_the_population_is_full():
    past = history([0.5] * 4)
    drawn = np.random.default_rng(3)
    assert module.propose(past, SPACE, np.random.default_rng(3), 2, population=5) == [SPACE.random(drawn) for _ in "ab"]


def test_population_of_one_walks_from_the_last_trial():
    past = history([0.1, 0.2, 0.9])
    for child in module.propose(past, SPACE, np.random.default_rng(0), 20, population=1, sample=1):
        assert changes(child, past[-1].trace) == 1


def test_the_oldest_dies_however_good():
    past = history([0.0, 0.5, 0.4, 0.3])  # the best is the oldest
    for child in module.propose(past, SPACE, np.random.default_rng(0), 20, population=3, sample=200):
        assert changes(child, past[3].trace) == 1
    for child in module.propose(past, SPACE, np.random.default_rng(0), 20, population=4, sample=200):
        assert changes(child, past[0].trace) == 1


def test_how_often_each_member_is_the_parent():
    """The k-th best of P is the parent with probability ((P - k + 1)^S - (P - k)^S) / P^S."""
    past = history([0.1, 0.2, 0.3, 0.4])
    counts = np.zeros(4)
    for child in module.propose(past, SPACE, np.random.default_rng(0), 4000, population=4, sample=2):
        counts[next(i for i in range(4) if changes(child, past[i].trace) == 1)] += 1
    expected = np.array([(5 - k) ** 2 - (4 - k) ** 2 for k in (1, 2, 3, 4)]) / 16
    assert np.abs(counts / 4000 - expected).max() < 0.03


def test_trials_without_values_are_not_in_the_population():
    past = (*history([0.1, 0.2]), Trial(2, SPACE.random(np.random.default_rng(9)), (), "failed"))
    for child in module.propose(past, SPACE, np.random.default_rng(0), 10, population=1, sample=1):
        assert changes(child, past[1].trace) == 1


def test_errors():
    with pytest.raises(ArchwrightError, match="at least 1"):
        module.propose((), SPACE, np.random.default_rng(0), 1, sample=0)
