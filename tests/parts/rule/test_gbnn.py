import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.checks import toys
from archwright.core.checks.common import outputs
from archwright.core.records import Budget
from archwright.errors import ArchwrightError
from archwright.kit.digits import perceptron
from archwright.net.build import build
from archwright.net.net import init
from archwright.parts.rule.gbnn import fit, truncate


def run(net, data, steps=6, seed=0, **hp):
    return fit(net, data, Budget(steps=steps), np.random.default_rng(seed), keep=hp.pop("keep", "last"), **hp)


def test_it_is_the_bias_plus_the_sum_of_the_stages():
    data = toys.data("table")
    made, _ = run(perceptron(data, (5,), act="tanh"), data, neurons=3)
    x = data.tensors("train")[0][0]
    w = {n: t.double() for n, t in made.weights.items()}
    total = w["head.bias"].expand(len(x), -1)
    for t in range(6):
        units = slice(3 * t, 3 * t + 3)
        inside = x.double() @ w["hidden0.weight"][units].T + w["hidden0.bias"][units]
        total = total + torch.tanh(inside) @ w["head.weight"][:, units].T
    torch.testing.assert_close(build(made).double()(x.double()), total, rtol=1e-6, atol=1e-6)
    assert w["hidden0.weight"].shape == (18, 6)


@pytest.mark.parametrize("kind", ["table", "regression"])
def test_cut_it_is_what_fewer_stages_gave(kind):
    data = toys.data(kind)
    start = perceptron(data, (5,))
    long, log = run(start, data, 6, neurons=2)
    short, _ = run(start, data, 4, neurons=2)
    cut = truncate(long, 8)
    x = data.tensors("valid")[0]
    torch.testing.assert_close(outputs(cut, x)[0], outputs(short, x)[0], rtol=1e-5, atol=1e-5)
    best, _ = run(start, data, 6, neurons=2, keep="best")
    stages = ops.infer(best.graph, 2)["hidden0"].shape[1] // 2
    assert stages == 1 + int(np.argmin(log.columns["valid_error"]))


def test_a_stage_is_a_newton_step_on_the_residual():
    data = toys.data("regression")
    (x,), y = data.tensors("train")
    made, log = run(perceptron(data, (5,), act="tanh"), data, 1, neurons=4)
    torch.testing.assert_close(made.weights["head.bias"], y.mean(0))
    h = (outputs(made, (x,))[0] - y.mean()).double()
    r = (y - y.mean()).double()
    torch.testing.assert_close((r * h).sum() / (h * h).sum(), torch.ones((), dtype=torch.float64), rtol=1e-4, atol=1e-4)
    assert log.last("train_loss") == pytest.approx(float((r - h).square().mean()), rel=1e-4)


def test_the_bias_alone_gives_the_shares_of_the_classes():
    data = toys.data("table")
    made, _ = run(perceptron(data, (5,)), data, 1)
    y = data.tensors("train")[1]
    torch.testing.assert_close(made.weights["head.bias"].softmax(0), torch.bincount(y) / len(y))


@pytest.mark.parametrize(("data", "kind"), [("image", "conv"), ("tokens", "attention"), ("table", "mlp")])
def test_what_is_below_stays_as_it_is(data, kind):
    source = toys.data(data)
    net = toys.net(kind, source, trained=True)
    made, log = run(net, source, 5, iterations=30)
    shared = [n for n in made.weights if not n.startswith(("boosted", "head", "hidden1"))]
    assert shared and all(torch.equal(made.weights[n], net.weights[n]) for n in shared)
    assert log.columns["train_loss"][-1] < log.columns["train_loss"][0]


def test_subsampling_and_early_stopping():
    data = toys.data("table")
    _, log = run(perceptron(data, (5,)), data, 60, subsample=0.5, patience=3, keep="best", iterations=10)
    assert log.stopped == "early"
    errors = log.columns["valid_error"]
    assert len(errors) - 1 - int(np.argmin(errors)) == 3


def test_what_is_wrong_is_said():
    data = toys.data("table")
    g = ops.edit()
    bare = init(g.finish(g.add("relu", g.add("linear", g.input("x", (None, 6)), out=3))))
    with pytest.raises(ArchwrightError, match="linear"):
        run(bare, data)
    with pytest.raises(ArchwrightError, match="units"):
        truncate(perceptron(data, (5,)), 6)
    with pytest.raises(ArchwrightError, match="neurons"):
        run(perceptron(data, (5,)), data, neurons=0)
