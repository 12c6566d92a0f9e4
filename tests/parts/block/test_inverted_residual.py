import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.net import Net, init
from archwright.parts.block import inverted_residual


def net(shape=(None, 4, 7, 5), **hp):
    g = ops.edit()
    return rough(init(g.finish(inverted_residual.build(g, g.input("x", shape), **hp))), seed=1)


def norm(w, name, x):
    return F.batch_norm(x, *[w[f"{name}_norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")])


def reference(w, x, stride):
    y = F.relu6(norm(w, "expand", F.conv2d(x, w["expand.weight"])))
    y = F.conv2d(y, w["depthwise.weight"], stride=stride, padding=1, groups=y.shape[1])
    y = norm(w, "project", F.conv2d(F.relu6(norm(w, "depthwise", y)), w["project.weight"]))
    return x + y if y.shape == x.shape else y


@pytest.mark.parametrize("hp", [{}, {"out": 6}, {"stride": 2}, {"expand": 2.5}])
def test_it_is_the_papers_formula(hp):
    made, x = net(**hp), torch.randn(3, 4, 7, 5)
    expected = reference(made.weights, x, hp.get("stride", 1))
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


def test_nothing_is_expanded_by_one():
    assert not [name for name in net(expand=1).weights if name.startswith("expand")]


def test_a_bottleneck_of_zeros_is_the_identity():
    made, x = net(), torch.randn(2, 4, 7, 5)
    last = ("project.weight", "project_norm.bias", "project_norm.running_mean")
    zeros = {name: torch.zeros_like(t) if name in last else t for name, t in made.weights.items()}
    assert torch.equal(outputs(Net(made.graph, zeros), (x,))[0], x)


def test_the_gate_stands_after_the_depthwise_convolution():
    made = net(expand=3, squeeze=4)
    assert made.weights["gate.up.weight"].shape == (12, 3)
    closed = dict(made.weights)
    closed["gate.up.weight"] = torch.zeros_like(closed["gate.up.weight"])
    closed["gate.up.bias"] = torch.full_like(closed["gate.up.bias"], -100.0)  # no channel gets through
    x = torch.randn(2, 4, 7, 5)
    shift = outputs(Net(made.graph, closed), (x,))[0] - x
    torch.testing.assert_close(shift, shift[:1, :, :1, :1].expand_as(shift), rtol=1e-5, atol=1e-5)


def test_claim_holds():
    assert inverted_residual.claim().held
