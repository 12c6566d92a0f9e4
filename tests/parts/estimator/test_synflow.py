import math

import pytest
import torch

from archwright import ops
from archwright.core.checks import toys
from archwright.net.net import Net, init
from archwright.parts.estimator.synflow import saliency, score

DATA = toys.data("table")


def chain(*widths):
    g = ops.edit()
    x = g.input("x", (None, widths[0]))
    for i, width in enumerate(widths[1:]):
        x = g.add("linear", x, out=width, bias=False, name=f"l{i}")
    return init(g.finish(x))


def test_a_chain_of_linear_layers_conserves_the_flow():
    net = chain(4, 7, 5, 3)
    flow, parts = saliency(net)
    a, b, c = [net.weights[f"l{i}.weight"].double().abs() for i in range(3)]
    expected = float((c @ b @ a).sum())
    assert flow == pytest.approx(expected, rel=1e-12)
    assert all(float(p.sum()) == pytest.approx(expected, rel=1e-9) for p in parts.values())
    assert score(net, DATA).value == pytest.approx(math.log1p(3 * expected))


def test_it_is_the_formula_on_a_convolutional_net():
    g = ops.edit()
    x = g.add("conv", g.input("x", (None, 2, 6, 6)), out=3, kernel=3, name="c")
    x = g.add("relu", g.add("batch_norm", x, name="n"))
    net = init(g.finish(g.add("linear", g.add("mean", x, dim=[2, 3]), out=4, name="h")))
    w = {n: t.double().abs().requires_grad_() for n, t in net.weights.items() if n[0] in "ch"}
    y = torch.nn.functional.conv2d(torch.ones(1, 2, 6, 6).double(), w["c.weight"], w["c.bias"])
    total = torch.nn.functional.linear(y.relu().mean((2, 3)), w["h.weight"], w["h.bias"]).sum()
    total.backward()
    expected = sum(float((w[n] * w[n].grad).detach().abs().sum()) for n in ("c.weight", "h.weight"))
    assert score(net, DATA).value == pytest.approx(math.log1p(expected), rel=1e-9)


def test_signs_of_weights_and_data_do_not_matter():
    net = toys.net("conv", toys.data("image"))
    flipped = Net(net.graph, {n: w if "num" in n or "running" in n else -w for n, w in net.weights.items()})
    assert score(net, DATA).value == score(flipped, toys.data("image"), seed=5).value


@pytest.mark.parametrize(("data", "kind"), [("tokens", "attention"), ("signal", "recurrent"), ("graph", "gnn")])
def test_other_kinds_of_nets_have_scores(data, kind):
    assert score(toys.net(kind, toys.data(data)), DATA).value > 0


def test_what_cannot_be_reached_adds_nothing_and_depth_does_not_overflow():
    assert math.isfinite(score(chain(50, *[200] * 200, 3), DATA).value)
    net = chain(4, 7, 3)
    cut = Net(net.graph, {**net.weights, "l1.weight": torch.zeros(3, 7)})
    assert score(cut, DATA).value == 0.0
