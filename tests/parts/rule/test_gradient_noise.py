import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.core.registry import load
from archwright.errors import ArchwrightError
from archwright.net.net import Net
from archwright.parts.rule.gradient_noise import deviation, fit


def run(net, data, steps, rule=fit, **hp):
    return rule(net, data, Budget(steps=steps), np.random.default_rng(0), **hp)[0]


@pytest.mark.parametrize(("data", "net"), [("table", "mlp"), ("image", "conv")])
def test_without_noise_it_is_backpropagation_bit_for_bit(data, net):
    source = toys.data(data)
    given = toys.net(net, source)
    noisy = run(given, source, 12, eta=0.0)
    plain = run(given, source, 12, load("rule/backpropagation"), optimiser="SGD", lr=0.1)
    assert all(torch.equal(w, plain.weights[n]) for n, w in noisy.weights.items())


def test_the_variance_is_the_papers():
    assert deviation(0, 0.3) ** 2 == pytest.approx(0.3)
    assert deviation(99, 1.0) ** 2 == pytest.approx(100**-0.55)
    assert deviation(7, 0.0) == 0.0


@pytest.mark.parametrize("clip", [None, 1e-9])
def test_what_is_added_to_the_first_gradient_has_that_variance(clip):
    source = toys.data("table")
    given = toys.net("mlp", source)
    wide = Net(given.graph, given.weights)
    noisy = run(wide, source, 1, eta=0.5, lr=1.0, clip=clip)
    plain = run(wide, source, 1, eta=0.0, lr=1.0, clip=clip)
    added = torch.cat([(plain.weights[n] - w).flatten() for n, w in noisy.weights.items()])
    assert abs(float(added.std()) - 0.5**0.5) < 0.06 and abs(float(added.mean())) < 0.1


def test_a_variance_below_zero_is_refused():
    source = toys.data("table")
    with pytest.raises(ArchwrightError, match="eta"):
        run(toys.net("mlp", source), source, 1, eta=-1.0)
