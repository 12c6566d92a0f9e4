"""Known shapes first and in order, siblings side by side, then children of the front that are new and in the space."""

from __future__ import annotations

import numpy as np
import pytest

from archwright.core.checks import bench
from archwright.core.records import Trace, Trial
from archwright.core.space import Space, Spec
from archwright.data.builtin import builtin
from archwright.kit.settings import with_training
from archwright.parts.strategy import portfolio
from archwright.parts.strategy.portfolio import DECAY, LR, propose

TOY = bench.space()
TRAINED = Space("toy", with_training(TOY.program, builtin("iris")), Spec.of(builtin("iris")))


def rng(seed=0):
    return np.random.default_rng(seed)


def history(count, space=TOY, seed=0):
    draw = rng(seed)
    found = []
    for i in range(count):
        trace = space.random(draw)
        found.append(Trial(i, trace, (float(draw.random()),)))
    return found


def test_known_shapes_come_first_in_their_order_and_are_completed():
    known = [TOY.random(rng(seed)) for seed in range(3)]
    partial = [dict(list(t.items())[:2]) for t in known]
    first = propose((), TOY, rng(), 2, known=partial)
    assert len(first) == 2 and all(t in TOY for t in first)
    for trace, shape in zip(first, partial[:2], strict=True):
        assert trace.items() >= shape.items()
    past = tuple([Trial(i, t, (0.5,)) for i, t in enumerate(first)])
    third = propose(past, TOY, rng(), 1, known=partial)
    assert third[0].items() >= partial[2].items()


def test_siblings_differ_in_learning_rate_and_decay_alone_and_count_as_one_shape():
    known = [TRAINED.random(rng(seed)) for seed in range(2)]
    found = propose((), TRAINED, rng(), 4, known=known, siblings=4)
    assert len(found) == 4 and found[0] == known[0] and len({t[LR] for t in found}) == 4
    for trace in found:
        assert trace in TRAINED
        assert {c: v for c, v in trace.items() if c not in (LR, DECAY)} == {
            c: v for c, v in known[0].items() if c not in (LR, DECAY)
        }
    past = tuple([Trial(i, t, (0.5,)) for i, t in enumerate(found)])
    assert propose(past, TRAINED, rng(), 4, known=known, siblings=4)[0] == known[1]


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_children_are_new_distinct_and_in_the_space(count):
    past = history(count)
    found = propose(tuple(past), TOY, rng(3), 6)
    assert len(found) == 6 and all(t in TOY for t in found)
    seen = {t.trace.text for t in past}
    if count >= 2:
        assert sum(Trace(t).text in seen for t in found) <= 1  # random draws may repeat


def test_children_resemble_the_best():
    past = history(60, seed=1)
    best = sorted(past, key=lambda t: t.values[0])[:16]
    found = [t for seed in range(30) for t in propose(tuple(past), TOY, rng(seed), 2)]

    def distance(trace):
        return min(sum(trace.get(c) != v for c, v in b.trace.items()) for b in best)

    random = [TOY.random(rng(100 + i)) for i in range(60)]
    assert np.mean([distance(t) for t in found]) < 0.8 * np.mean([distance(t) for t in random])


def test_the_regression_prefers_the_choice_that_helps():
    traces = [{"a": v, "b": i % 3, "rate": 10.0 ** -(i % 5)} for i, v in enumerate(["x", "y"] * 20)]
    values = np.array([0.0 if t["a"] == "x" else 1.0 for t in traces]) + 0.1 * rng().random(40)
    guess = portfolio._ridge(traces, values, [{"a": "y", "b": 0, "rate": 0.1}, {"a": "x", "b": 0, "rate": 0.1}])
    assert guess[1] < guess[0]


def test_numbers_move_a_little_and_ordered_options_to_a_neighbour_mostly():
    from archwright.core.choose import Options

    log = Options("number", (), 1e-4, 1e-1, True)
    moved = np.array([portfolio._moved(1e-2, log, rng(i)) for i in range(200)])
    assert ((moved >= 1e-4) & (moved <= 1e-1)).all() and 0.3 < np.std(np.log(moved)) < 1.0
    width = Options("one_of", (4, 8, 16, 32, 64))
    steps = [portfolio._moved(16, width, rng(i)) for i in range(200)]
    assert np.mean([s in (8, 32) for s in steps]) > 0.7 and 16 not in steps
