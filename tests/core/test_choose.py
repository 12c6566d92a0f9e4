"""One program, many ways to decide: exact properties over random small spaces."""

from __future__ import annotations

import json
import math

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.core import choose
from archwright.core.choose import Options, Picker
from archwright.core.records import Trace
from archwright.core.space import Space, Spec
from archwright.errors import ChoiceError
from tests.core import spaces

SEEDS = st.integers(0, 2**32 - 1)


def asker(program, result=None):
    """A space whose program asks only, and makes a graph of one node."""

    def draw(c, spec):
        program(c)
        g = ops.edit()
        return g.finish(g.add("relu", g.input("x", (None, 2))))

    return Space("asker", draw, Spec(((None, 2),), 2))


# ------------------------------------------------------------------------------------------------------- properties
@settings(max_examples=40, deadline=None)
@given(spaces.programs(), SEEDS)
def test_replaying_a_trace_gives_the_same_graph(program, seed):
    space = spaces.space(program)
    rng = np.random.default_rng(seed)
    picker = Picker(choose.at_random(rng))
    graph = space.program(picker, space.spec)
    again = space.draw(json.loads(json.dumps(picker.trace)))
    assert again.key() == graph.key() and again == graph
    assert space.random(np.random.default_rng(seed)) == picker.trace


@settings(max_examples=30, deadline=None)
@given(spaces.programs(), SEEDS)
def test_mutation_crossover_and_neighbours_stay_inside(program, seed):
    space, rng = spaces.space(program), np.random.default_rng(seed)
    one, other = space.random(rng), space.random(rng)
    for _ in range(3):
        changed = space.mutate(one, rng)
        assert changed in space
        open_ = any(len(options.values) > 1 for options in space.decisions(one).values())
        assert (changed != one) == open_
    child = space.cross(one, other, rng)
    assert child in space
    for name, value in child.items():
        if name in one and name in other:
            assert value in (one[name], other[name])
    for near in space.neighbours(one):
        assert near in space and near != one
        shared = [name for name in near if name in one and near[name] != one[name]]
        assert len(shared) == 1


@settings(max_examples=30, deadline=None)
@given(spaces.programs())
def test_count_is_enumeration_is_the_rule_of_products(program):
    space = spaces.space(program)
    traces = [json.dumps(trace, sort_keys=True) for trace in space.traces()]
    assert len(traces) == len(set(traces)) == spaces.count(program) == space.count()
    assert all(json.loads(trace) in space for trace in traces[:20])


@settings(max_examples=15, deadline=None)
@given(spaces.programs(), SEEDS)
def test_the_estimated_count_is_near(program, seed):
    space = spaces.space(program)
    mean, error = choose.estimate_count(space.program, space.spec, np.random.default_rng(seed), 300)
    wanted = spaces.count(program)
    assert abs(mean - wanted) <= 6 * error + 0.05 * wanted


def test_the_estimate_is_exact_where_decisions_are_independent():
    space = asker(lambda c: [c.one_of(f"c{i}", range(i + 2)) for i in range(5)])
    mean, error = choose.estimate_count(space.program, space.spec, np.random.default_rng(0), 10)
    assert (mean, error) == (math.factorial(6), 0.0) == (space.count(), 0.0)


def test_knuths_estimate_is_unbiased():
    """The mean over all random paths, weighted by their chance, is the number of traces."""

    def program(c):
        if c.one_of("deep", (True, False)):
            c.one_of("a", range(5))
            c.one_of("b", range(3))

    space = asker(program)
    found = [choose.estimate_count(space.program, space.spec, np.random.default_rng(s), 200)[0] for s in range(50)]
    assert space.count() == 16
    assert np.mean(found) == pytest.approx(16, rel=0.05)


def test_enumeration_is_in_the_order_of_options():
    space = asker(lambda c: (c.one_of("a", ("x", "y")), c.integer("b", 1, 2)))
    assert [tuple(t.values()) for t in space.traces()] == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]


def test_a_space_without_choices_has_one_trace():
    assert asker(lambda c: None).count() == 1
    assert list(asker(lambda c: None).traces()) == [Trace()]


# ---------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_integers_are_all_of_their_range(step):
    space = asker(lambda c: c.integer("n", 3, 10, step=step))
    assert [t["n"] for t in space.traces()] == list(range(3, 11, step))


def test_numbers_lie_within_their_limits_and_log_ones_spread_over_magnitudes():
    rng = np.random.default_rng(0)
    options = Options("number", (), 1e-4, 1e-1, True)
    drawn = [options.sample(rng) for _ in range(2000)]
    assert min(drawn) >= 1e-4 and max(drawn) <= 1e-1
    assert 0.3 < np.mean(np.asarray(drawn) < 1e-3) < 0.37
    assert 0.1 not in Options("number", (), 0.2, 1.0) and 0.2 in Options("number", (), 0.2, 1.0)


def test_values_are_told_apart_by_type():
    options = Options("one_of", (1, "1"))
    assert 1 in options and "1" in options
    assert 1.0 not in options and True not in options and None not in options


def test_asking_twice_is_one_choice():
    space = asker(lambda c: [c.one_of("op", ("a", "b", "c")) for _ in range(4)])
    assert space.count() == 3
    assert list(space.random(np.random.default_rng(0))) == ["op"]


# ----------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (lambda c: (c.one_of("a", (1, 2)), c.one_of("a", (1, 3))), "'a' is asked twice, with options"),
        (lambda c: (c.one_of("a", (1, 2)), c.integer("a", 1, 2)), "asked twice"),
        (lambda c: c.one_of("a", ()), "'a' has no options"),
        (lambda c: c.integer("a", 5, 4), "'a'.*got limits 5 to 4"),
        (lambda c: c.integer("a", 1, 4, step=0), "steps of 0"),
        (lambda c: c.number("a", 2.0, 1.0), "'a': got limits"),
        (lambda c: c.number("a", 0.0, 1.0, log=True), "above 0 if log"),
    ],
)
def test_a_wrong_question_is_an_error(program, message):
    with pytest.raises(ChoiceError, match=message):
        asker(program).random(np.random.default_rng(0))


def test_a_trace_that_does_not_fit_is_an_error():
    space = asker(lambda c: (c.one_of("a", (1, 2)), c.integer("b", 1, 3)))
    with pytest.raises(ChoiceError, match="nothing for 'b', expected one of"):
        space.draw({"a": 1})
    with pytest.raises(ChoiceError, match="5 for 'b', expected one of"):
        space.draw({"a": 1, "b": 5})
    with pytest.raises(ChoiceError, match="does not ask: c, d"):
        space.draw({"a": 1, "b": 1, "d": 0, "c": 0})
    assert {"a": 1} not in space and 5 not in space and {"a": 1, "b": 3} in space


def test_real_numbers_cannot_be_enumerated():
    space = asker(lambda c: c.number("rate", 0.0, 1.0))
    with pytest.raises(ChoiceError, match="real number: the space cannot be enumerated"):
        space.count()
    assert choose.estimate_count(space.program, space.spec, np.random.default_rng(0), 5)[0] == math.inf


def test_counting_stops_at_its_limit():
    space = asker(lambda c: [c.one_of(f"c{i}", (0, 1)) for i in range(20)])
    with pytest.raises(ChoiceError, match="more than 100 traces: use estimate_count"):
        space.count(limit=100)


def test_mutating_numbers_changes_them():
    space = asker(lambda c: c.number("rate", 1e-3, 1.0, log=True))
    rng = np.random.default_rng(0)
    trace = space.random(rng)
    assert space.mutate(trace, rng)["rate"] != trace["rate"]
    fixed = asker(lambda c: c.number("rate", 0.5, 0.5))
    assert fixed.mutate({"rate": 0.5}, rng) == {"rate": 0.5}


# ----------------------------------------------------------------------------------------------------------- optuna
def all_kinds(c):
    if c.one_of("kind", ("big", "small")) == "big":
        c.integer("width", 8, 64, step=8)
    c.number("rate", 1e-4, 1e-1, log=True)
    c.number("drop", 0.0, 0.5)
    c.integer("only", 3, 3)
    c.one_of("flag", (True, False, None))


def test_an_optuna_study_searches_a_space():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = asker(all_kinds)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))

    def objective(trial):
        trace, graph = space.from_optuna(trial)
        assert trace in space
        assert graph.key() == space.draw(trace).key()
        assert {name: trial.params[name] for name in trace} == dict(trace)
        return abs(math.log10(trace["rate"]) + 2) + (trace["kind"] == "small")

    study.optimize(objective, n_trials=25)
    assert space.draw(study.best_params).key()
    assert study.best_value < 1


def test_optuna_gets_distributions_of_the_right_kind():
    space = asker(all_kinds)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    trial = study.ask()
    while "width" not in trial.params:
        trial = study.ask()
        space.from_optuna(trial)
    kinds = trial.distributions
    assert kinds["width"] == optuna.distributions.IntDistribution(8, 64, step=8)
    assert kinds["rate"] == optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)
    assert kinds["flag"] == optuna.distributions.CategoricalDistribution((True, False, None))
    assert kinds["kind"] == optuna.distributions.CategoricalDistribution(("big", "small"))


def test_a_trial_that_was_enqueued_is_replayed():
    space = asker(all_kinds)
    trace = space.random(np.random.default_rng(4))
    study = optuna.create_study()
    study.enqueue_trial(dict(trace))
    assert space.from_optuna(study.ask())[0] == trace


# ---------------------------------------------------------------------------------------------------------- weights
def weighted(choose, spec):
    if choose.one_of("stop", (True, False), weights=(1, 4)):
        return None
    return choose.one_of("more", ("a", "b", "c"))


def test_weights_say_how_often():
    options = Options("one_of", ("x", "y"), weights=(1.0, 3.0))
    rng = np.random.default_rng(0)
    drawn = [options.sample(rng) for _ in range(4000)]
    assert abs(drawn.count("y") / 4000 - 0.75) < 0.03
    assert options.one_in("x") == 4 and Options("one_of", ("x", "y", "z")).one_in("x") == 3


def test_the_estimated_count_allows_for_weights():
    mean, error = choose.estimate_count(weighted, None, np.random.default_rng(0), 4000)
    assert abs(mean - 4) < 4 * error
    assert len(list(choose.enumerate_traces(weighted, None))) == 4


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, 2, 3)])
def test_wrong_weights_are_an_error(weights):
    with pytest.raises(ChoiceError, match="weights"):
        choose.Picker(choose.at_random(np.random.default_rng(0))).one_of("w", ("x", "y"), weights=weights)
