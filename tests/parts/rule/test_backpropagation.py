import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.errors import ArchwrightError
from archwright.kit.digits import perceptron
from archwright.net.build import build
from archwright.parts.rule.backpropagation import fit


def run(net, data, steps=1, seed=0, **hp):
    return fit(net, data, Budget(steps=steps), np.random.default_rng(seed), **hp)


def weights_after_a_step_by_hand(net, data, lr, smoothing=0.0, clip=None):
    module = build(net)
    x, y = data.tensors("train")
    loss = F.cross_entropy(module(*x), y, label_smoothing=smoothing)
    loss.backward()
    grads = {n: p.grad for n, p in module.named_parameters()}
    length = torch.sqrt(sum((g**2).sum() for g in grads.values()))
    factor = 1.0 if clip is None else min(1.0, clip / float(length))
    return {n: net.weights[n] - lr * factor * g for n, g in grads.items()}


@pytest.mark.parametrize("hp", [{}, {"smoothing": 0.2}, {"clip": 0.01}, {"smoothing": 0.1, "clip": 1e6}])
def test_a_step_of_sgd_is_the_gradient_of_the_mean_loss(hp):
    data = toys.data("table")
    net = toys.net("mlp", data)
    made, log = run(net, data, optimiser="SGD", lr=0.3, batch_size=len(data.splits["train"]), **hp)
    for name, expected in weights_after_a_step_by_hand(net, data, 0.3, **hp).items():
        torch.testing.assert_close(made.weights[name], expected, rtol=1e-5, atol=1e-6)
    assert log.last("step") == 1


@pytest.mark.parametrize(
    ("optimiser", "hp"),
    [("adamw", {}), ("SGD", {"options": {"momentum": 0.9}, "lr": 0.05}), ("RMSprop", {}), ("Adagrad", {"lr": 0.03}),
     ("NAdam", {}), ("LBFGS", {"lr": 0.1, "options": {"max_iter": 2}, "batch_size": 240})],
)  # fmt: skip
def test_optimisers_by_name(optimiser, hp):
    data = toys.data("table")
    _, log = run(toys.net("mlp", data), data, 40, optimiser=optimiser, evaluations=6, **hp)
    assert log.columns["train_loss"][-1] < log.columns["train_loss"][0]


def test_bfloat16_learns_and_leaves_weights_in_float32():
    data = toys.data("image")
    net = toys.net("conv", data)
    made, log = run(net, data, 60, precision="bfloat16", evaluations=6)
    assert all(w.dtype == net.weights[n].dtype for n, w in made.weights.items())
    assert log.columns["train_loss"][-1] < log.columns["train_loss"][0]
    other, _ = run(net, data, 60)
    assert any(not torch.equal(w, other.weights[n]) for n, w in made.weights.items())
    assert not torch.is_autocast_enabled("cpu")


def test_early_stopping_returns_the_best_state():
    data = toys.data("regression")
    net = toys.net("mlp", data)
    made, log = run(net, data, 4000, patience=3, lr=0.05, evaluations=200)
    errors = log.columns["valid_error"]
    assert log.stopped == "early" and log.last("step") < 4000
    assert len(errors) - 1 - int(np.argmin(errors)) == 3
    assert abs(toys.error(made, data) - min(errors)) < 1e-5
    last, _ = run(net, data, int(log.last("step")), lr=0.05, keep="last", evaluations=4)
    assert toys.error(last, data) > min(errors)


def test_the_schedule_is_followed():
    data = toys.data("table")
    net = toys.net("mlp", data)
    plain, _ = run(net, data, 1, optimiser="SGD", schedule="linear")
    warm, _ = run(net, data, 1, optimiser="SGD", schedule="linear", warmup=0.5)
    assert any(not torch.equal(w, net.weights[n]) for n, w in plain.weights.items())
    assert all(torch.equal(w, net.weights[n]) for n, w in warm.weights.items())  # the rise begins at 0


@pytest.mark.parametrize(
    ("hp", "said"),
    [({"optimiser": "magic"}, "adamw"), ({"schedule": "zigzag"}, "cosine"), ({"precision": "int8"}, "bfloat16"),
     ({"options": {"speed": 3}}, "speed"), ({"keep": "first"}, "last")],
)  # fmt: skip
def test_what_is_wrong_is_said(hp, said):
    data = toys.data("table")
    with pytest.raises(ArchwrightError, match=said):
        run(toys.net("mlp", data), data, **hp)


def test_smoothing_is_for_classes():
    data = toys.data("regression")
    with pytest.raises(ArchwrightError, match="classes"):
        run(perceptron(data, (4,)), data, smoothing=0.1)
