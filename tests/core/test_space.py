"""`Space` and `Spec`: what strategies see."""

from __future__ import annotations

import numpy as np

from archwright.core.space import Spec
from tests.core import spaces


def test_spec_dtypes_default_to_float32():
    assert Spec(((None, 3),), 2).dtype(0) == "float32"
    assert Spec(((None, 3), (None, 4)), 2, ("float32", "int64")).dtype(1) == "int64"


def test_decisions_come_in_the_order_of_asking():
    space = spaces.space((("size", (4, 6)), ("branch", ((("act", ("tanh", "none")),), ()))))
    assert list(space.decisions({"p0": 4, "p1": "o0", "p1o0_0": "tanh"})) == ["p0", "p1", "p1o0_0"]
    assert list(space.decisions({"p0": 4, "p1": "o1"})) == ["p0", "p1"]


def test_a_mutation_keeps_what_still_is_asked():
    space = spaces.space((("size", (4, 6)), ("each", 1, 2, (("act", ("tanh", "none")),))))
    rng = np.random.default_rng(0)
    trace = {"p0": 4, "p1": 1, "p1e0_0": "tanh"}
    for _ in range(50):
        changed = space.mutate(trace, rng)
        assert sum(changed[name] != trace[name] for name in trace) == 1
        assert ("p1e1_0" in changed) == (changed["p1"] == 2)


def test_all_mutations_are_reached():
    space = spaces.space((("size", (2, 8, 5)), ("act", ("tanh", "none"))))
    rng = np.random.default_rng(0)
    trace = {"p0": 2, "p1": "tanh"}
    found = {tuple(space.mutate(trace, rng).items()) for _ in range(100)}
    assert found == {tuple(t.items()) for t in space.neighbours(trace)}


def test_crossing_a_trace_with_itself_changes_nothing():
    space = spaces.space((("size", (2, 8, 5)), ("each", 0, 2, (("layer",),))))
    rng = np.random.default_rng(0)
    trace = space.random(rng)
    assert space.cross(trace, trace, rng) == trace


def test_a_trace_of_another_space_is_not_inside():
    space = spaces.space((("size", (2, 8)),))
    assert {"p0": 2} in space
    assert {"p0": 3} not in space and {} not in space and {"p0": 2, "p1": 0} not in space and None not in space
