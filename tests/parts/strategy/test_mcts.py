import math

import numpy as np
import pytest

from archwright.core import registry
from archwright.core.records import Trial
from archwright.core.space import Space
from archwright.errors import ArchwrightError
from archwright.kit.controller import tokens
from archwright.kit.tabular_search import _stub, cells

module = registry.module(registry.find("strategy/mcts"))


def draw(choose, spec):
    if choose.one_of("a", ("left", "right")) == "left":
        choose.one_of("b", (1, 2, 3))
    return _stub()


TINY = Space("tiny", draw, cells().spec)


def trial(number, reward, state="complete", **trace):
    return Trial(number, trace, (reward,) if state == "complete" else (), state)


def test_every_value_once_before_any_twice():
    history = []
    for i in range(4):
        (trace,) = module.propose(tuple(history), TINY, np.random.default_rng(i), 1, exploration=100.0)
        history.append(trial(i, 0.5, **trace))
    assert {t.trace["a"] for t in history[:2]} == {"left", "right"}
    batch = module.propose((), cells(), np.random.default_rng(0), 5)
    assert len({trace["edge_0_1"] for trace in batch}) == 5


def test_the_bound_is_that_of_the_paper():
    tree = module.Tree(0.7)
    for reward, trace in [(1.0, ("left", 1)), (2.0, ("left", 2)), (4.0, ("right",)), (3.0, ("left", 1))]:
        given = dict(zip("ab", trace, strict=False))
        tree.add(tokens(TINY, module.Trace(given)), reward)
    assert tree.worth((), (0,)) == pytest.approx(2.0 + 0.7 * math.sqrt(2 * math.log(4) / 3))
    assert tree.worth((), (1,)) == pytest.approx(4.0 + 0.7 * math.sqrt(2 * math.log(4) / 1))
    assert tree.worth((0,), (0, 0)) == pytest.approx(2.0 + 0.7 * math.sqrt(2 * math.log(3) / 2))


def test_without_exploration_it_takes_the_best_mean():
    lefts = [trial(i, reward, a="left", b=b) for i, (reward, b) in enumerate([(0.1, 1), (0.2, 2), (0.0, 3)])]
    past = (*lefts, trial(3, 0.9, a="right"))
    (trace,) = module.propose(past, TINY, np.random.default_rng(0), 1, directions=("max",), exploration=0.0)
    assert trace == {"a": "right"}
    (trace,) = module.propose(past, TINY, np.random.default_rng(0), 1, directions=("min",), exploration=0.0)
    assert trace == {"a": "left", "b": 3}


def test_running_trials_turn_the_search_elsewhere():
    past = (trial(0, 0.5, a="left", b=1), trial(1, 0.6, a="right"))
    better = {"directions": ("max",), "exploration": 0.01}
    assert module.propose(past, TINY, np.random.default_rng(0), 1, **better)[0]["a"] == "right"
    waiting = [trial(i, 0, "running", a="right") for i in range(2, 12)]
    wide = {"directions": ("max",), "exploration": 4.0}
    assert module.propose((*past, *waiting), TINY, np.random.default_rng(0), 1, **wide)[0]["a"] == "left"


def test_finds_the_best_leaf_of_a_planted_tree():
    space, history = cells(), []

    def value(trace):
        return float(trace["edge_0_1"] == "nor_conv_3x3") + float(trace["edge_0_2"] == "skip_connect")

    while len(history) < 200:
        rng = np.random.default_rng(len(history))
        for trace in module.propose(tuple(history), space, rng, 4, directions=("max",)):
            history.append(Trial(len(history), trace, (value(trace),)))
    assert np.mean([t.values[0] for t in history[-50:]]) > 1.5


def test_errors():
    with pytest.raises(ArchwrightError, match="exploration"):
        module.propose((), TINY, np.random.default_rng(0), 1, exploration=-1.0)
