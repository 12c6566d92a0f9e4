import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.net.net import Net, init
from archwright.parts.block import time_series_resnet as part


def net(shape=(None, 3, 20), **hp):
    g = ops.edit()
    return rough(init(g.finish(part.build(g, g.input("x", shape), **hp))), seed=1)


def norm(w, name, x):
    return F.batch_norm(
        x, w[f"{name}.running_mean"], w[f"{name}.running_var"], w[f"{name}.weight"], w[f"{name}.bias"]
    )  # fmt: skip


def test_it_is_the_papers_block():
    made, x = net(width=4), torch.randn(2, 3, 20)
    w, h = made.weights, x
    for i, kernel in enumerate((8, 5, 3), 1):
        before = (kernel - 1) // 2
        padded = F.pad(h, (before, kernel - 1 - before))
        h = norm(w, f"conv{i}.norm", F.conv1d(padded, w[f"conv{i}.full.weight"]))
        h = h.relu() if i < 3 else h
    shortcut = norm(w, "shortcut.norm", F.conv1d(x, w["shortcut.full.weight"]))
    torch.testing.assert_close(outputs(made, (x,))[0], (h + shortcut).relu(), rtol=1e-4, atol=1e-5)


def test_with_the_last_kernel_zero_it_is_the_shortcut():
    made, x = net((None, 4, 12), width=4, act="silu"), torch.randn(3, 4, 12)
    w = dict(made.weights)
    for name in ("conv3.full.weight", "conv3.norm.bias", "conv3.norm.running_mean"):
        w[name] = torch.zeros_like(w[name])
    torch.testing.assert_close(outputs(Net(made.graph, w), (x,))[0], F.silu(x))


def test_separable_convolutions_have_fewer_weights():
    full, separable = (net((None, 16, 20), width=16, kernels=(5, 5), separable=s).cost().params for s in (False, True))
    assert full == 2 * (5 * 16 * 16 + 2 * 16)
    assert separable == 2 * (5 * 16 + 16 * 16 + 2 * 16)


def test_the_fully_convolutional_network_has_the_papers_layers():
    g = ops.edit()
    made = g.finish(part.fcn(g, g.input("x", (None, 1, 50)), classes=4))
    weights = 8 * 128 + 5 * 128 * 256 + 3 * 256 * 128 + (128 + 256 + 128) + 2 * (128 + 256 + 128) + 129 * 4
    assert init(made).cost().params == weights


def test_what_it_cannot_read_is_refused():
    with pytest.raises(TypeMismatch, match="channels, time"):
        net((None, 3, 8, 8))
    with pytest.raises(ArchwrightError, match="norm='layer'"):
        net(norm="layer")
