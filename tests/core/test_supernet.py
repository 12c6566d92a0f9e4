"""A supernet restricted to a trace is the drawn graph, and computes what the supernet computes when switched to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.core import choose
from archwright.core.checks.common import outputs, rough
from archwright.core.choose import Picker
from archwright.core.space import Spec
from archwright.core.supernet import Supernet, supernet_trace
from archwright.errors import ChoiceError
from archwright.ir import Graph
from archwright.net.net import Net
from tests.core import spaces

SEEDS = st.integers(0, 2**32 - 1)


def switched(supernet, trace):
    """The supernet's own graph, every switch set to the trace by its index."""
    nodes = []
    for node in supernet.graph.nodes:
        for name, joins in supernet.switches.items():
            if node.name in joins and name in trace:
                index = list(joins[node.name]).index(trace[name])
                node = node.with_(attrs=ops.get("switch").normal({"index": index}))
        nodes.append(node)
    return Graph(tuple(nodes), supernet.graph.outputs)


@settings(max_examples=40, deadline=None)
@given(spaces.programs(supernet=True, sizes=False), SEEDS)
def test_without_sizes_structure_and_output_are_those_of_the_supernet(program, seed):
    space = spaces.space(program)
    whole = Supernet.of(space.program, space.spec)
    net = rough(whole.init(seed), seed)
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    for _ in range(3):
        trace = space.random(rng)
        cut = whole.restrict(net, trace)
        assert cut.graph.key() == space.draw(trace).key()
        expected = outputs(Net(switched(whole, trace), net.weights), [x])
        torch.testing.assert_close(outputs(cut, [x]), expected, rtol=1e-6, atol=1e-7)
        assert all(cut.weights[name] is net.weights[name] for name in cut.weights)


@settings(max_examples=40, deadline=None)
@given(spaces.programs(supernet=True), SEEDS)
def test_with_sizes_weights_are_slices(program, seed):
    space = spaces.space(program)
    whole = Supernet.of(space.program, space.spec)
    net = rough(whole.init(seed), seed)
    trace = space.random(np.random.default_rng(seed))
    cut = whole.restrict(net, trace)
    drawn = space.draw(trace)
    assert cut.graph.key() == drawn.key()
    assert {name: tuple(w.shape) for name, w in cut.weights.items()} == {
        name: p.shape for name, p in ops.params(drawn).items()
    }
    for name, weight in cut.weights.items():
        large = net.weights[name]
        middle = [
            (m - n) // 2 if dim >= 2 else 0 for dim, (n, m) in enumerate(zip(weight.shape, large.shape, strict=True))
        ]
        place = tuple([slice(start, start + n) for start, n in zip(middle, weight.shape, strict=True)])
        assert torch.equal(weight, large[place])


@settings(max_examples=20, deadline=None)
@given(spaces.programs(supernet=True), SEEDS)
def test_mix_supernets_restrict_alike(program, seed):
    space = spaces.space(program)
    whole = Supernet.of(space.program, space.spec, join="mix")
    net = whole.init(seed)
    trace = space.random(np.random.default_rng(seed))
    cut = whole.restrict(net, trace)
    assert cut.graph.key() == space.draw(trace).key()
    assert not any("alpha" in name for name in cut.weights)


def test_a_wide_net_masked_computes_what_the_narrow_slice_computes():
    """Width 8 with units from the third on set to zero is width 2."""
    space = spaces.space((("size", (2, 8)),))
    whole = Supernet.of(space.program, space.spec)
    net = rough(whole.init(0))
    weights = dict(net.weights)
    weights["p0_out.weight"] = weights["p0_out.weight"].clone()
    weights["p0_out.weight"][:, 2:] = 0
    x = torch.randn(4, 6)
    narrow = whole.restrict(net, {"p0": 2})
    torch.testing.assert_close(outputs(narrow, [x]), outputs(Net(whole.graph, weights), [x]))


def test_kernels_are_cut_from_the_middle():
    space = spaces.space((("kernel", (1, 3, 5)),))
    whole = Supernet.of(space.program, space.spec)
    net = rough(whole.init(0))
    weights = dict(net.weights)
    weights["p0_conv.weight"] = weights["p0_conv.weight"].clone()
    weights["p0_conv.weight"][..., [0, 4]] = 0
    x = torch.randn(4, 6)
    cut = whole.restrict(net, {"p0": 3})
    torch.testing.assert_close(outputs(cut, [x]), outputs(Net(whole.graph, weights), [x]))


def test_a_choice_made_in_two_places_is_one_choice():
    """A cell repeated through a network: both joins follow it."""

    def draw(c, spec):
        g = ops.edit()
        x = g.input("x", spec.inputs[0])
        for cell in range(2):
            with g.scope(f"cell{cell}"):
                x = c.branch("op", g, x, {
                    "linear": lambda g, x: g.add("linear", x, out=6, name="linear"),
                    "skip": lambda g, x: x,
                })  # fmt: skip
        return g.finish(x)

    whole = Supernet.of(draw, Spec(((None, 6),), 6))
    assert len(whole.switches["op"]) == 2
    net = whole.init(0)
    for option in ("linear", "skip"):
        cut = whole.restrict(net, {"op": option})
        assert cut.graph.key() == draw(Picker(choose.replay({"op": option})), Spec(((None, 6),), 6)).key()
        assert len(cut.weights) == (4 if option == "linear" else 0)


def fixed_space(c, spec):
    g = ops.edit()
    act = c.one_of("act", ("relu", "tanh"))
    rate = c.number("rate", 0.1, 0.5)
    x = g.add("linear", g.input("x", spec.inputs[0]), out=c.integer("width", 2, 8, step=2), name="a")
    x = g.add("mul", g.add(act, x, name="act"), value=rate, name="scale")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


def test_values_that_are_no_sizes_have_to_be_fixed():
    with pytest.raises(ChoiceError, match=r"'act' is among \['relu', 'tanh'\].*fixed"):
        Supernet.of(fixed_space, spaces.SPEC)
    with pytest.raises(ChoiceError, match=r"'rate' is a real number.*fixed"):
        Supernet.of(fixed_space, spaces.SPEC, fixed={"act": "relu"})
    whole = Supernet.of(fixed_space, spaces.SPEC, fixed={"act": "relu", "rate": 0.25})
    assert list(whole.numbers) == ["width"]
    trace = {"act": "relu", "rate": 0.25, "width": 4}
    cut = whole.restrict(whole.init(0), trace)
    drawn = fixed_space(Picker(choose.replay(trace)), spaces.SPEC)
    assert cut.graph.key() == drawn.key()
    assert supernet_trace(whole, trace) == {"width": 4}
    assert whole.restrict(whole.init(0), {"width": 4}).graph.key() == drawn.key()


def test_a_fixed_value_outside_its_options_is_an_error():
    with pytest.raises(ChoiceError, match="'act' is 'gelu', expected one of"):
        Supernet.of(fixed_space, spaces.SPEC, fixed={"act": "gelu", "rate": 0.25})
    with pytest.raises(ChoiceError, match=r"'rate' is 0.9, expected one of"):
        Supernet.of(fixed_space, spaces.SPEC, fixed={"act": "relu", "rate": 0.9})


def test_a_choice_can_be_fixed_that_is_a_branch_or_a_depth():
    space = spaces.space((("branch", ((("layer",),), (), (("layer",), ("layer",)))), ("each", 0, 2, (("layer",),))))
    whole = Supernet.of(space.program, space.spec, fixed={"p0": "o2", "p1": 1})
    assert not whole.switches
    trace = {"p0": "o2", "p1": 1}
    assert whole.graph.key() == space.draw(trace).key()
    assert whole.restrict(whole.init(0), trace).graph.key() == space.draw(trace).key()


def test_a_trace_against_what_is_fixed_is_an_error():
    whole = Supernet.of(fixed_space, spaces.SPEC, fixed={"act": "relu", "rate": 0.25})
    with pytest.raises(ChoiceError, match="fixed at 'relu'"):
        whole.restrict(whole.init(0), {"act": "tanh", "rate": 0.25, "width": 4})


@pytest.mark.parametrize(
    ("trace", "message"), [({"p0": "o9"}, "'p0'"), ({}, "p0"), ({"p0": "o0", "x": 1}, "does not ask: x")]
)
def test_a_trace_that_does_not_fit_is_an_error(trace, message):
    space = spaces.space((("branch", ((("layer",),), ())),))
    whole = Supernet.of(space.program, space.spec)
    with pytest.raises(ChoiceError, match=message):
        whole.restrict(whole.init(0), trace)


def test_branches_of_different_types_cannot_be_joined():
    def draw(c, spec):
        g = ops.edit()
        x = g.input("x", spec.inputs[0])
        return g.finish(
            c.branch("op", g, x, {"a": lambda g, x: g.add("linear", x, out=4, name="l"), "b": lambda g, x: x})
        )

    with pytest.raises(ChoiceError, match=r"end in .*: a supernet needs one type"):
        Supernet.of(draw, spaces.SPEC)


def test_names_that_depend_on_values_are_refused():
    def draw(c, spec):
        g = ops.edit()
        width = c.integer("width", 2, 4)
        x = g.add("linear", g.input("x", spec.inputs[0]), out=width, name=f"layer{width}")
        return g.finish(g.add("linear", x, out=3, name="head"))

    whole = Supernet.of(draw, spaces.SPEC)
    with pytest.raises(ChoiceError, match="names of nodes depend on more"):
        whole.restrict(whole.init(0), {"width": 2})
