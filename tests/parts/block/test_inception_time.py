import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.net.build import build
from archwright.net.net import init
from archwright.parts.block import inception_time as part


def net(make, shape=(None, 3, 40), **hp):
    g = ops.edit()
    return rough(init(g.finish(make(g, g.input("x", shape), **hp))), seed=1)


def test_it_is_the_papers_module():
    made, x = net(part.build, width=4, bottleneck=2, kernels=(9, 5, 3)), torch.randn(2, 3, 40)
    w = made.weights
    read = F.conv1d(x, w["bottleneck.weight"])
    branches = [F.conv1d(read, w[f"branch{i}.weight"], padding=k // 2) for i, k in enumerate((9, 5, 3), 1)]
    branches.append(F.conv1d(F.max_pool1d(x, 3, 1, 1), w["pooled.weight"]))
    y = F.batch_norm(
        torch.cat(branches, 1), w["norm.running_mean"], w["norm.running_var"], w["norm.weight"], w["norm.bias"]
    ).relu()
    torch.testing.assert_close(outputs(made, (x,))[0], y, rtol=1e-4, atol=1e-5)


def test_parameters_follow_the_formula():
    c, b, width, kernels = 6, 5, 4, (9, 5, 3)
    found = net(part.build, (None, c, 30), width=width, bottleneck=b, kernels=kernels).cost().params
    assert found == c * b + b * width * sum(kernels) + c * width + 8 * width


def test_a_single_channel_has_no_bottleneck():
    assert "bottleneck.weight" not in net(part.build, (None, 1, 30), width=4, kernels=(5,)).weights


def test_a_step_sees_as_far_as_the_longest_kernels_reach():
    depth, longest = 2, 9
    g = ops.edit()
    x = g.input("x", (None, 1, 41))
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = part.build(g, x, width=3, kernels=(longest, 3), bottleneck=3)
    module = build(rough(init(g.finish(x)), seed=1)).eval()
    seen = torch.zeros(41, dtype=torch.bool)
    for seed in range(8):  # a path may be shut by relu for one input, not for all
        values = torch.randn(1, 1, 41, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        seen |= torch.autograd.grad(module(values)[0, :, 20].sum(), values)[0][0, 0] != 0
    places = seen.nonzero().flatten()
    assert (places.min(), places.max()) == (20 - depth * (longest // 2), 20 + depth * (longest // 2))


def test_the_network_has_a_shortcut_after_every_third_module():
    made = net(part.network, (None, 2, 60), classes=3, width=4)
    assert {name.split(".")[0] for name in made.weights if name.startswith("shortcut")} == {"shortcut0", "shortcut1"}
    assert outputs(made, (torch.randn(2, 2, 60),))[0].shape == (2, 3)
