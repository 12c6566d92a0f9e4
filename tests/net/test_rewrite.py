"""The rewrites keep the function, and the engine refuses what would break it."""

from __future__ import annotations

import pytest
import torch

from archwright import ops
from archwright.errors import RewriteError
from archwright.ir import Any_, Graph, Pattern
from archwright.net import rules
from archwright.net.net import Net, example
from archwright.net.rewrite import Rule, rewrite
from tests.net.test_axes import assert_same, assert_spread, build, outputs, randomised

ALL_OPS = ("conv", "conv_transpose", "linear")


def check(net: Net, batch: int = 3, rtol: float = 1e-4):
    inputs = example(net.graph, batch)
    new, report = rewrite(net)
    before = outputs(net, inputs)
    assert_spread(before)
    assert_same(outputs(new, inputs), before, rtol)
    assert report.exact
    again, second = rewrite(new)
    assert not second.applied and again.graph == new.graph
    return new, report


def ops_of(net: Net) -> list[str]:
    return [node.op for node in net.graph.nodes]


def reasons(report) -> str:
    return " | ".join(left.why for left in report.refused)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("conv", {"out": 6, "kernel": 3, "padding": 1}),
        ("conv", {"out": 8, "kernel": 3, "groups": 4, "stride": 2}),
        ("conv", {"out": 4, "kernel": (3, 1), "groups": 4}),
        ("conv_transpose", {"out": 6, "kernel": 3, "stride": 2}),
        ("conv_transpose", {"out": 6, "kernel": 2, "groups": 2}),
        ("conv_transpose", {"out": 4, "kernel": 2, "groups": 4}),
    ],
)
def test_batch_norm_folds_into_convolutions(op, attrs, bias, affine):
    def make(g, x):
        x = g.add(op, x, **attrs, bias=bias, name="map")
        return g.add("relu", g.add("batch_norm", x, affine=affine, eps=1e-3, name="norm"))

    new, report = check(build(make, 4, 7, 5))
    assert ops_of(new) == ["input", op, "relu"] and set(new.weights) == {"map.weight", "map.bias"}
    assert [(a.rule, a.node) for a in report.applied] == [("fold_batch_norm", "norm")]


def test_batch_norm_folds_into_linear_layers_of_rank_two_only():
    def flat(g, x):
        return g.add("batch_norm", g.add("linear", x, out=6))

    assert ops_of(check(build(flat, 5))[0]) == ["input", "linear"]

    def tokens(g, x):
        return g.add("batch_norm", g.add("linear", x, out=6))

    new, report = check(build(tokens, 4, 5))
    assert ops_of(new) == ["input", "linear", "batch_norm"] and "another dimension" in reasons(report)


def test_batch_norm_folds_forward_where_nothing_is_padded():
    def make(padding):
        def build_(g, x):
            return g.add("conv", g.add("batch_norm", x), out=4, kernel=3, groups=2, padding=padding)

        return build_

    assert ops_of(check(build(make(0), 4, 6, 6))[0]) == ["input", "conv"]
    new, report = check(build(make(1), 4, 6, 6))
    assert "batch_norm" in ops_of(new) and "pads" in reasons(report)


def test_a_convolution_used_twice_with_two_norms_is_not_folded():
    def make(g, x):
        a = g.add("conv", x, out=4, kernel=3, padding=1, name="conv")
        a = g.add("batch_norm", a, name="norm1")
        b = g.add("conv", a, out=4, kernel=3, padding=1, name="again", slot="conv")
        return g.add("batch_norm", b, name="norm2")

    net = build(make, 4, 6, 6)
    new, report = check(net)
    assert new.graph == net.graph
    assert reasons(report).count("also used by") == 3  # both foldings into a norm, and one forward


def test_a_value_read_elsewhere_is_left_alone():
    def make(g, x):
        a = g.add("conv", x, out=4, kernel=1, name="conv")
        return g.add("add", g.add("batch_norm", a, name="norm"), a)

    net = build(make, 4, 5, 5)
    new, report = check(net)
    assert new.graph == net.graph and "'conv' is also read by 'add'" in reasons(report)


def test_an_output_of_the_network_is_left_alone():
    g = ops.edit()
    a = g.add("conv", g.input("x", (None, 3, 5, 5)), out=4, kernel=1, name="conv")
    net = randomised(g.finish(g.add("batch_norm", a, name="norm"), a))
    new, report = check(net)
    assert new.graph == net.graph and "output of the network" in reasons(report)


def test_a_norm_without_running_statistics_is_left_alone():
    net = build(lambda g, x: g.add("batch_norm", g.add("conv", x, out=4, kernel=1), track=False), 3, 5, 5)
    _, report = check(net)
    assert "depends on the batch" in reasons(report)


def test_dropout_and_identity_go():
    def make(g, x):
        x = g.add("dropout", g.add("linear", g.add("identity", x), out=4), p=0.3)
        x = g.add("feature_dropout", g.add("relu", x), p=0.2)
        return g.add("stochastic_depth", x, p=0.1)

    new, _ = check(build(make, 5))
    assert ops_of(new) == ["input", "linear", "relu"]


def test_the_output_may_be_what_is_dropped():
    g = ops.edit()
    x = g.input("x", (None, 4))
    net = randomised(g.finish(g.add("dropout", x)))
    new, _ = rewrite(net)
    assert new.graph.outputs == ("x",) and ops_of(new) == ["input"]


def test_linear_maps_merge_unless_the_middle_is_narrow():
    def chain(middle):
        def make(g, x):
            x = g.add("linear", g.add("linear", x, out=middle, bias=middle != 12), out=6, name="b")
            return g.add("relu", x)

        return make

    new, _ = check(build(chain(12), 7))
    assert ops_of(new) == ["input", "linear", "relu"] and new.weights["b.weight"].shape == (6, 7)
    new, report = check(build(chain(2), 7))
    assert ops_of(new).count("linear") == 2 and "narrow" in reasons(report)


def test_pointwise_convolutions_merge_into_the_one_before():
    def make(g, x):
        x = g.add("conv", x, out=9, kernel=3, stride=2, padding=1, name="a")
        return g.add("conv", g.add("dropout", x), out=4, kernel=1, bias=False, name="b")

    new, _ = check(build(make, 3, 8, 8))
    assert ops_of(new) == ["input", "conv"] and new.graph.nodes[1].attrs["stride"] == 2


def test_constants_fold():
    g = ops.edit()
    x = g.input("x", (None, 4))
    c = g.add("buffer", shape=(4,), init=("range",), name="c")
    y = g.add("mul", g.add("add", g.add("exp", c), c), value=0.5)
    p = g.add("param", shape=(4,), init=("ones",), name="p")
    net = randomised(g.finish(g.add("add", x, g.add("mul", y, p))))
    new, _ = check(net)
    assert sorted(ops_of(new)) == ["add", "buffer", "input", "mul", "param"]
    assert len([n for n in new.weights if n != "p"]) == 1


def test_everything_at_once():
    def make(g, x):
        for i in range(3):
            x = g.add("conv", x, out=8, kernel=3, padding=1, groups=1 + i % 2, bias=bool(i), name=f"conv{i}")
            x = g.add("dropout", g.add("relu", g.add("batch_norm", x, name=f"norm{i}")), p=0.1)
        x = g.add("flatten", g.add("adaptive_avg_pool", x, size=1))
        return g.add("linear", g.add("linear", x, out=16), out=5)

    new, report = check(build(make, 4, 9, 9))
    assert ops_of(new).count("batch_norm") == 0 and len(report.applied) == 7


# ----------------------------------------------------------------------------------------------- the engine's guards
X = Any_("x")


def rule(op, replace, name="bad"):
    return Rule(name, Pattern(op, X, name="node"), lambda site: None, replace)


def test_a_rule_that_changes_types_is_an_error():
    net = build(lambda g, x: g.add("relu", g.add("linear", x, out=4)), 5)
    with pytest.raises(RewriteError, match="gave float32"):
        rewrite(net, [rule("linear", lambda site: site.value("x"))])


def test_a_rule_that_does_not_shrink_is_an_error_and_not_a_loop():
    net = build(lambda g, x: g.add("relu", g.add("tanh", x)), 5)
    with pytest.raises(RewriteError, match="smaller"):
        rewrite(net, [rule("relu", lambda site: site.add("relu", site.value("x")))])


def test_new_names_never_clash():
    def make(g, x):
        a = g.add("linear", x, out=4, name="a")
        b = g.add("relu", g.add("linear", a, out=4, name="a_1"))
        return g.add("linear", b, out=4, name="c")

    net = build(make, 4)

    def replace(site):
        return site.add("linear", site.value("x"), out=4, weights=site.weights(site["node"]))

    with pytest.raises(RewriteError, match="smaller"):
        rewrite(net, [rule("linear", replace)])
    new, _ = rewrite(net)
    assert len({n.name for n in new.graph.nodes}) == len(new.graph)


def test_a_rewrite_of_a_shared_weight_is_refused_by_the_engine_not_the_rule():
    def make(g, x):
        a = g.add("linear", x, out=4, name="a")
        return g.add("linear", g.add("relu", a), out=4, name="b", slot="a")

    net = build(make, 4)
    drop = rule("linear", lambda site: site.value("x"))
    new, report = rewrite(net, [drop])
    assert new.graph == net.graph and len(report.refused) == 2


def test_the_net_that_came_is_left_as_it_was():
    net = build(lambda g, x: g.add("batch_norm", g.add("conv", x, out=4, kernel=1)), 3, 5, 5)
    before = {name: tensor.clone() for name, tensor in net.weights.items()}
    text = net.graph.to_json()
    rewrite(net)
    assert net.graph.to_json() == text and all(torch.equal(net.weights[n], t) for n, t in before.items())
    assert isinstance(net.graph, Graph) and rules.FOR_INFERENCE
