import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.core.registry import load
from archwright.errors import ArchwrightError
from archwright.kit.digits import perceptron
from archwright.net.build import build
from archwright.parts.rule.ewc import Memory, consolidate, fisher, fit


def run(net, data, steps=20, **hp):
    return fit(net, data, Budget(steps=steps), np.random.default_rng(0), **hp)[0]


def test_the_fisher_of_logistic_regression_is_the_analytic_one():
    data = toys.data("table")
    net = perceptron(data, ())
    (x,), _ = data.tensors("train")
    p = build(net)(x).softmax(-1).detach()
    spread = p * (1 - p)  # [n, classes]
    found = fisher(net, data, samples=10_000)
    torch.testing.assert_close(found["head.weight"], spread.T @ x.square() / len(x), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["head.bias"], spread.mean(0), rtol=1e-4, atol=1e-7)


def test_the_fisher_of_linear_regression_is_the_mean_square_of_the_input():
    data = toys.data("regression")
    (x,), _ = data.tensors("train")
    found = fisher(perceptron(data, ()), data, samples=10_000)
    torch.testing.assert_close(found["head.weight"][0], x.square().mean(0), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found["head.bias"], torch.ones(1))


@pytest.mark.parametrize(("data", "net"), [("table", "mlp"), ("image", "conv"), ("tokens", "attention")])
def test_the_empirical_fisher_is_the_mean_square_of_each_samples_gradient(data, net):
    source = toys.data(data)
    made = toys.net(net, source)
    module = build(made).eval()
    x, y = source.tensors("train")
    by_hand = {}
    for i in range(len(y)):
        module.zero_grad()
        module(*[t[i : i + 1] for t in x]).log_softmax(-1)[0, y[i]].backward()
        by_hand[i] = torch.cat([p.grad.flatten() ** 2 for p in module.parameters()])
    every = fisher(made, source, samples=10_000, kind="empirical")
    mean = torch.stack(list(by_hand.values())).mean(0)
    torch.testing.assert_close(
        torch.cat([every[n].flatten() for n, _ in module.named_parameters()]), mean, rtol=1e-3, atol=1e-6
    )


def test_sampling_classes_approaches_the_exact_fisher():
    data = toys.data("table")
    net = perceptron(data, ())
    exact = fisher(net, data, samples=10_000)["head.bias"]
    drawn = torch.stack([fisher(net, data, samples=10_000, kind="sampled", seed=s)["head.bias"] for s in range(8)])
    assert ((drawn.mean(0) - exact).abs() < 0.03).all()


def test_without_strength_it_is_backpropagation():
    data = toys.data("table")
    net = toys.net("mlp", data)
    memory = consolidate(net, data)
    free = run(net, data, memory=memory, strength=0.0)
    plain, _ = load("rule/backpropagation")(
        net, data, Budget(steps=20), np.random.default_rng(0), optimiser="Adam", lr=1e-3, keep="last"
    )
    assert all(torch.equal(w, plain.weights[n]) for n, w in free.weights.items())


def test_the_penalty_is_the_papers_and_holds_the_weights():
    data = toys.data("table")
    net, other = toys.net("mlp", data), toys.net("mlp", data, 1)
    memory = consolidate(other, data, consolidate(net, data), online=False)
    expected = 0.0
    for anchor in (net, other):
        f = fisher(anchor, data)
        expected += sum(float((f[n] * (net.weights[n] - anchor.weights[n]) ** 2).sum()) for n in f) / 2
    assert float(memory.penalty(net.weights)) == pytest.approx(expected, rel=1e-5)
    near = run(net, data, 60, memory=consolidate(net, data), strength=1e3)
    far = run(net, data, 60)
    f = fisher(net, data)

    def moved(made):
        return sum(float((f[n] * (made.weights[n] - net.weights[n]) ** 2).sum()) for n in f)

    assert moved(near) < 0.1 * moved(far)


def test_online_keeps_one_spring():
    data = toys.data("table")
    nets = [toys.net("mlp", data, s) for s in range(3)]
    memory = None
    for net in nets:
        memory = consolidate(net, data, memory, online=True, decay=0.5)
    ((anchor, total),) = memory.springs
    parts = [fisher(net, data) for net in nets]
    for n in total:
        torch.testing.assert_close(total[n], 0.25 * parts[0][n] + 0.5 * parts[1][n] + parts[2][n])
        assert torch.equal(anchor[n], nets[2].weights[n])
    assert len(consolidate(nets[0], data, consolidate(nets[1], data), online=False).springs) == 2


def test_what_is_wrong_is_said():
    data = toys.data("table")
    net = toys.net("mlp", data)
    with pytest.raises(ArchwrightError, match="memory"):
        run(net, data, memory=Memory((({"w": torch.zeros(2)}, {"w": torch.ones(2)}),)))
    with pytest.raises(ArchwrightError, match="empirical"):
        fisher(net, data, kind="true")
