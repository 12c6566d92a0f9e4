import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.cost import cost
from archwright.net.net import Net, init
from archwright.parts.block import resnet


def net(shape=(None, 6, 7, 5), **hp):
    g = ops.edit()
    return rough(init(g.finish(resnet.build(g, g.input("x", shape), **hp))), seed=1)


def norm(w, name, x):
    return F.batch_norm(x, *[w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")])


def after(w, x, stride):
    y = F.relu(norm(w, "norm1", F.conv2d(x, w["conv1.weight"], stride=stride, padding=1)))
    y = norm(w, "norm2", F.conv2d(y, w["conv2.weight"], padding=1))
    if "project.weight" in w:
        x = norm(w, "project_norm", F.conv2d(x, w["project.weight"], stride=stride))
    return F.relu(x + y)


def before(w, x, stride):
    start = F.relu(norm(w, "norm1", x))
    y = F.conv2d(start, w["conv1.weight"], stride=stride, padding=1)
    y = F.conv2d(F.relu(norm(w, "norm2", y)), w["conv2.weight"], padding=1)
    return y + (F.conv2d(start, w["project.weight"], stride=stride) if "project.weight" in w else x)


@pytest.mark.parametrize(("form", "reference"), [(False, after), (True, before)])
@pytest.mark.parametrize("hp", [{}, {"out": 8, "stride": 2}])
def test_it_is_the_papers_formula(form, reference, hp):
    made, x = net(before=form, **hp), torch.randn(3, 6, 7, 5)
    expected = reference(made.weights, x, hp.get("stride", 1))
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


def test_a_branch_of_zeros_is_the_identity():
    made, x = net(before=True), torch.randn(2, 6, 7, 5)
    zeros = {name: torch.zeros_like(t) if name == "conv2.weight" else t for name, t in made.weights.items()}
    assert torch.equal(outputs(Net(made.graph, zeros), (x,))[0], x)


def test_the_gate_scales_the_branch_only():
    made, x = net(before=True, squeeze=2), torch.randn(2, 6, 7, 5)
    closed = dict(made.weights)
    closed["gate.up.weight"] = torch.zeros_like(closed["gate.up.weight"])
    closed["gate.up.bias"] = torch.full_like(closed["gate.up.bias"], -100.0)
    torch.testing.assert_close(outputs(Net(made.graph, closed), (x,))[0], x)


def test_without_shortcut_it_is_a_plain_network():
    graph = net(shortcut=False).graph
    assert not [node for node in graph.nodes if node.op == "add"]


def test_published_networks_have_the_published_parameters():
    def params(size, **hp):
        g = ops.edit()
        return cost(g.finish(resnet.network(g, g.input("x", (None, 3, size, size)), **hp))).params

    assert params(224) == 11_689_512
    assert params(224, depths=(3, 4, 6, 3)) == 21_797_672
    # table 6 of the paper, with shortcuts of option A, which have no parameters: 0.27 and 1.7 million
    assert params(32, depths=(3,) * 3, width=16, small=True, classes=10) / 1e6 == pytest.approx(0.27, abs=0.006)
    assert params(32, depths=(18,) * 3, width=16, small=True, classes=10) / 1e6 == pytest.approx(1.7, abs=0.06)


def test_pre_activation_networks_run():
    g = ops.edit()
    y = resnet.network(g, g.input("x", (None, 1, 8, 8)), classes=3, depths=(1, 1), width=4, small=True, before=True)
    assert outputs(init(g.finish(y)), (torch.randn(2, 1, 8, 8),))[0].shape == (2, 3)


@pytest.mark.slow
def test_claim_holds():
    assert resnet.claim().held
