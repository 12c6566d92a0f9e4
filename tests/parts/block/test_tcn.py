import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.build import build
from archwright.net.net import Net, init
from archwright.parts.block import tcn as part


def net(make=part.build, shape=(None, 3, 30), **hp):
    g = ops.edit()
    return rough(init(g.finish(make(g, g.input("x", shape), **hp))), seed=1)


def test_it_is_the_papers_block_with_weight_normalisation():
    made, x = net(width=4, kernel=3, dilation=2), torch.randn(2, 3, 30)
    w, h = made.weights, x
    for i in (1, 2):
        v = w[f"conv{i}.direction"]
        kernel = torch._weight_norm(v, w[f"conv{i}.gain"], 0)
        h = F.conv1d(F.pad(h, (4, 0)), kernel, w[f"conv{i}.bias"], dilation=2).relu()
    y = (h + F.conv1d(x, w["shortcut.weight"], w["shortcut.bias"])).relu()
    torch.testing.assert_close(outputs(made, (x,))[0], y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["weight", "batch", "none"])
def test_no_step_depends_on_a_later_one(norm):
    made, x = net(width=5, kernel=4, dilation=3, norm=norm), torch.randn(2, 3, 30)
    changed = x.clone()
    changed[:, :, 17:] += 1
    one, other = outputs(made, (x,))[0], outputs(made, (changed,))[0]
    torch.testing.assert_close(one[:, :, :17], other[:, :, :17])
    assert not torch.allclose(one[:, :, 17:], other[:, :, 17:])


def test_the_network_looks_back_as_far_as_its_head_says():
    depth, kernel = 3, 3
    reach = 1 + 2 * (kernel - 1) * (2**depth - 1)
    made = net(part.network, (None, 1, 50), outputs=2, width=6, depth=depth, kernel=kernel)
    made = Net(made.graph, {name: w.abs() for name, w in made.weights.items()})  # so that relu lets all paths through
    x = torch.rand(1, 1, 50, requires_grad=True)
    slope = torch.autograd.grad(build(made).eval()(x).sum(), x)[0][0, 0]
    assert len(slope.nonzero()) == reach
    assert not slope[:-reach].any()


def test_variance_is_kept_at_the_start():
    g = ops.edit()
    made = init(g.finish(part.build(g, g.input("x", (None, 32, 64)), width=32)))
    y = outputs(made, (torch.randn(8, 32, 64),))[0]
    assert 0.3 < y.std() < 3
