import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.net import Net, init
from archwright.parts.block import convnext


def net(shape=(None, 6, 9, 7), **hp):
    g = ops.edit()
    return rough(init(g.finish(convnext.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x, kernel):
    y = F.conv2d(x, w["depthwise.weight"], w["depthwise.bias"], padding=kernel // 2, groups=x.shape[1])
    y = F.layer_norm(y.permute(0, 2, 3, 1), (x.shape[1],), w["norm.weight"], w["norm.bias"], 1e-6)
    y = F.gelu(F.linear(y, w["mlp.up.weight"], w["mlp.up.bias"]))
    y = F.linear(y, w["mlp.down.weight"], w["mlp.down.bias"]) * w["scale"]
    return x + y.permute(0, 3, 1, 2)


@pytest.mark.parametrize("kernel", [7, 3])
def test_it_is_the_papers_formula(kernel):
    made, x = net(kernel=kernel), torch.randn(3, 6, 9, 7)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x, kernel), rtol=1e-5, atol=1e-5)


def test_a_scale_of_zero_is_the_identity_and_the_first_scale_is_the_papers():
    made, x = net(), torch.randn(2, 6, 9, 7)
    zeros = {name: torch.zeros_like(t) if name == "scale" else t for name, t in made.weights.items()}
    assert torch.equal(outputs(Net(made.graph, zeros), (x,))[0], x)
    assert torch.equal(init(made.graph).weights["scale"], torch.full((6,), 1e-6))


def test_parameters_follow_the_formula():
    c, kernel, ratio = 6, 5, 3
    expected = c * (kernel**2 + 2 * ratio * c + ratio + 5)
    assert net(kernel=kernel, ratio=ratio).cost().params == expected


def test_the_network_keeps_what_the_strides_leave():
    g = ops.edit()
    y = convnext.network(g, g.input("x", (None, 3, 16, 16)), classes=5, depths=(1, 1), dims=(8, 12), patch=2)
    assert outputs(init(g.finish(y)), (torch.randn(2, 3, 16, 16),))[0].shape == (2, 5)


def test_claim_holds():
    assert convnext.claim().held
