"""Layer rotation: the cosine distance, and Layca's step against the paper's four lines."""

import math

import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.core.registry import find, load, module
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.net.net import Net

look = load("lens/layer_rotation")
lens = module(find("lens/layer_rotation"))


def angle(a, b):
    """Between two tensors, exact for small angles too (Kahan)."""
    a, b = a.flatten().double() / a.double().norm(), b.flatten().double() / b.double().norm()
    return float(2 * torch.atan2((a - b).norm(), (a + b).norm()))


def trained(optimiser, steps, rate=0.1, data="image", net="conv", **more):
    source = toys.data(data)
    start = toys.net(net, source)
    made, _ = train.fit(
        start, source, Budget(steps=steps), np.random.default_rng(0), optimiser=optimiser, lr=rate, keep="last", **more
    )
    return start, made


def test_the_distance():
    w = torch.randn(3, 4)
    assert lens.distance(w, 5 * w) == pytest.approx(0, abs=1e-12)
    assert lens.distance(w, -w) == pytest.approx(2)
    assert lens.distance(torch.tensor([1.0, 0]), torch.tensor([0, 2.0])) == 1
    assert lens.distance(torch.tensor([1.0, 0]), torch.tensor([1.0, 1])) == pytest.approx(1 - math.sqrt(0.5))
    assert math.isnan(lens.distance(w, 0 * w))


@pytest.mark.parametrize("rate", [1e-4, 0.01, 0.1, 3.0])
@pytest.mark.parametrize("shape", [(4, 6), (8, 3, 3, 3)])
def test_a_step_is_the_papers_turns_by_arctan_of_the_rate_and_keeps_the_norm(rate, shape):
    r = torch.Generator().manual_seed(0)
    w, s = (torch.randn(shape, generator=r, dtype=torch.float64) for _ in "ws")
    plain = s - (s * w).sum() * w / w.norm() ** 2
    plain = plain / plain.norm() * w.norm()
    by_hand = w + rate * plain
    by_hand = by_hand / by_hand.norm() * w.norm()
    made = lens.rotate(w, s, rate)
    torch.testing.assert_close(made, by_hand)
    assert angle(w, made) == pytest.approx(math.atan(rate), rel=1e-9)
    assert float(made.norm()) == pytest.approx(float(w.norm()), rel=1e-12)
    assert torch.allclose(lens.rotate(w, 1e-6 * s, rate), made)  # the length of the step is no matter
    assert torch.allclose(lens.rotate(w, s + 7 * w, rate), made)  # nor is its part along w


def test_what_cannot_turn_stays():
    w = torch.randn(3, 4)
    for weight, step in ((w, 0 * w), (w, 2 * w), (0 * w, w)):
        assert torch.equal(lens.rotate(weight, step, 0.1), weight)


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "RMSprop", torch.optim.AdamW])
def test_any_optimiser_turns_each_layer_by_the_same_angle_and_keeps_norms(optimiser):
    start, made = trained(lens.layca(optimiser), 1)
    for name, w in start.weights.items():
        if w.dim() >= 2:
            assert angle(w, made.weights[name]) == pytest.approx(math.atan(0.1), rel=1e-5)
            assert float(made.weights[name].norm()) == pytest.approx(float(w.norm()), rel=1e-6)
        elif "running" not in name and w.is_floating_point():
            assert torch.equal(w, made.weights[name])
    start, made = trained(lens.layca(optimiser), 30)
    for name, w in start.weights.items():
        if w.dim() >= 2:
            assert float(made.weights[name].norm()) == pytest.approx(float(w.norm()), rel=1e-6)


def test_the_first_step_goes_where_the_plain_optimiser_goes():
    start, plain = trained("SGD", 1)
    _, made = trained(lens.layca("SGD"), 1)
    for name, w in start.weights.items():
        if w.dim() >= 2:
            expected = lens.rotate(w, plain.weights[name] - w, 0.1)
            torch.testing.assert_close(made.weights[name], expected, rtol=1e-4, atol=1e-5)


def test_other_weights_can_be_free_and_schedules_work():
    start, made = trained(lens.layca("SGD", others="free"), 5, 0.1)
    assert not torch.equal(start.weights["head.bias"], made.weights["head.bias"])
    start, made = trained(lens.layca("SGD"), 20, 0.01, schedule="cosine")
    most = sum(math.atan(0.01 * 0.5 * (1 + math.cos(math.pi * t / 20))) for t in range(20))
    assert 0 < angle(start.weights["head.weight"], made.weights["head.weight"]) <= most * (1 + 1e-4)


def test_it_is_a_rules_optimiser():
    data = toys.data("table")
    fit = load("rule/backpropagation")
    _, log = fit(
        toys.net("mlp", data), data, Budget(steps=80), np.random.default_rng(0), optimiser=lens.layca("Adam"), lr=0.05
    )
    assert log.columns["train_loss"][-1] < 0.8 * log.columns["train_loss"][0]


def test_look_measures_from_the_first_snapshot():
    start, made = trained("Adam", 20, 0.01)
    data = toys.data("image")
    finding = look(made, data, (start, start))
    turned = lens.rotations(start, made)
    assert finding["mean rotation"] == pytest.approx(np.mean(list(turned.values())))
    assert finding["least rotation"] == min(turned.values()) > 0
    line = finding.charts[0].series["head.weight"]["y"]
    assert line == [0.0, 0.0, turned["head.weight"]] or line[:2] == pytest.approx([0, 0], abs=1e-12)
    assert look(start, data)["mean rotation"] == pytest.approx(0, abs=1e-12)


def test_what_is_wrong_is_said():
    data = toys.data("image")
    with pytest.raises(ArchwrightError, match="different layers"):
        look(toys.net("conv", data), data, [toys.net("residual", data)])
    net = toys.net("mlp", data)
    with pytest.raises(ArchwrightError, match="start at zero"):
        look(Net(net.graph, {n: 0 * w for n, w in net.weights.items()}), data)
    with pytest.raises(ArchwrightError, match="others"):
        lens.layca("SGD", others="gone")
    with pytest.raises(ArchwrightError, match="unknown optimiser"):
        lens.layca("SGDX")
