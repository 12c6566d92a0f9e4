import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.errors import ArchwrightError
from archwright.kit.digits import perceptron
from archwright.net.build import build
from archwright.net.net import init
from archwright.parts.rule.mono_forward import LOCAL, fit, layers, local, share

KINDS = [("table", "mlp"), ("image", "conv"), ("image", "residual"), ("tokens", "attention"), ("graph", "gnn")]


@pytest.mark.parametrize(("data", "kind"), KINDS)
def test_no_loss_has_a_gradient_in_another_layer(data, kind):
    source = toys.data(data)
    net = toys.net(kind, source)
    graph = local(net.graph, source.outputs)
    module = build(init(graph)).train()
    layer = layers(net.graph)
    of_slot = {node.slot: layer[node.name] for node in net.graph.nodes if node.slot}
    projected = [int(v.rsplit(".", 1)[1]) for v in graph.outputs[1:]]
    assert len(projected) == max(layer.values()) - 1 and len(projected) >= 1
    x, y = source.batch(range(12))
    outputs = module(*x)
    weights = dict(module.named_parameters())
    touched = set()
    for number, out in zip([max(layer.values()), *projected], outputs, strict=True):
        grads = torch.autograd.grad(F.cross_entropy(out, y), weights.values(), retain_graph=True, allow_unused=True)
        for name, grad in zip(weights, grads, strict=True):
            if grad is None:
                continue
            slot = name.rsplit(".", 1)[0]
            mine = f"{LOCAL}.project.{number}" == slot or of_slot.get(name, of_slot.get(slot)) == number
            assert mine, f"loss of layer {number} reaches {name}"
            touched.add(name)
    assert touched == set(weights)  # and every weight is reached by its own


def test_a_step_is_the_papers_formula():
    data = toys.data("table")
    net = perceptron(data, (7,))
    x, y = data.tensors("train")
    made, _ = fit(net, data, Budget(steps=1), np.random.default_rng(0), optimiser="SGD", lr=0.5, batch_size=1000)
    w, b = [net.weights[f"hidden0.{p}"].clone().requires_grad_() for p in ("weight", "bias")]
    head = [net.weights[f"head.{p}"].clone().requires_grad_() for p in ("weight", "bias")]
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.default_rng(0).integers(2**63)))
        inner = share(build(net), local(net.graph, data.outputs), _seed())
    m = inner.get_submodule(f"{LOCAL}.project.1").weight.detach()
    a = F.relu(F.linear(x[0], w, b))
    F.cross_entropy(a @ m.T, y).backward()
    F.cross_entropy(F.linear(a.detach(), *head), y).backward()
    for name, before in {"hidden0.weight": w, "hidden0.bias": b, "head.weight": head[0], "head.bias": head[1]}.items():
        torch.testing.assert_close(made.weights[name], (before - 0.5 * before.grad).detach(), rtol=1e-5, atol=1e-6)


def _seed():
    from archwright.core import seeds

    return seeds.derive(torch.initial_seed() >> 1, LOCAL)


def test_a_net_of_one_layer_is_trained_by_backpropagation():
    from archwright.core.registry import load

    data = toys.data("table")
    net = perceptron(data, ())
    a, _ = fit(net, data, Budget(steps=9), np.random.default_rng(0))
    b, _ = load("rule/backpropagation")(net, data, Budget(steps=9), np.random.default_rng(0))
    assert all(torch.equal(w, b.weights[n]) for n, w in a.weights.items())


def test_regression_and_statistics_of_norms_are_learned_too():
    data = toys.data("regression")
    _, log = fit(toys.net("mlp", data), data, Budget(steps=80), np.random.default_rng(0), evaluations=8)
    assert log.columns["train_loss"][-1] < log.columns["train_loss"][0]
    data = toys.data("image")
    net = toys.net("conv", data)
    made, _ = fit(net, data, Budget(steps=5), np.random.default_rng(0))
    assert not torch.equal(made.weights["stem.norm.running_mean"], net.weights["stem.norm.running_mean"])
    assert made.graph == net.graph


def test_a_net_without_layers_is_refused():
    data = toys.data("table")
    g = ops.edit()
    net = init(g.finish(g.add("relu", g.input("x", (None, 6)))))
    with pytest.raises(ArchwrightError, match="nothing to train"):
        fit(net, data, Budget(steps=1), np.random.default_rng(0))
