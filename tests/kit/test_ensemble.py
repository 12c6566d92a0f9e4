"""Several nets as one: the mean of their predictions, exactly, in torch and in ONNX; costs add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.errors import GraphError
from archwright.exchange.onnx import to_onnx
from archwright.kit.ensemble import ensemble, mean_outputs
from archwright.net.build import build
from archwright.net.net import example


def nets(kind, count, data="table"):
    source = toys.data(data)
    return [toys.net(kind, source, seed) for seed in range(count)]


@pytest.mark.parametrize("kind, data, task", [
    ("mlp", "table", "classification"), ("mlp", "regression", "regression"), ("conv", "image", "classification"),
    ("residual", "image", "classification"), ("recurrent", "signal", "classification"),
])  # fmt: skip
def test_outputs_are_the_mean_of_predictions(kind, data, task, tmp_path):
    members = nets(kind, 3, data)
    whole = ensemble(members, task)
    x = example(members[0].graph, 5, seed=1)
    each = [build(net).eval()(*x).detach() for net in members]
    y = build(whole).eval()(*x).detach()
    if task == "classification":
        wanted = torch.stack([e.softmax(-1) for e in each]).mean(0)
        torch.testing.assert_close(y.softmax(-1), wanted, rtol=1e-5, atol=1e-6)
    else:
        torch.testing.assert_close(y, torch.stack(each).mean(0), rtol=1e-5, atol=1e-6)
    outside = mean_outputs([e.numpy() for e in each], task)
    np.testing.assert_allclose(outside, y.numpy(), rtol=1e-4, atol=1e-4)
    assert whole.cost().params == sum(net.cost().params for net in members)
    assert to_onnx(whole, tmp_path / "net.onnx").difference < 1e-4


def test_members_of_different_architecture_are_one_as_well():
    source = toys.data("image")
    members = [toys.net("conv", source, 0), toys.net("residual", source, 1)]
    whole = ensemble(members, "classification")
    x = example(members[0].graph, 4)
    each = [build(net).eval()(*x).softmax(-1) for net in members]
    torch.testing.assert_close(build(whole).eval()(*x).softmax(-1), sum(each) / 2, rtol=1e-5, atol=1e-6)


def test_one_net_is_itself_and_none_or_other_inputs_are_an_error():
    net, other = nets("mlp", 1)[0], nets("conv", 1, "image")[0]
    assert ensemble([net], "classification") is net
    with pytest.raises(GraphError, match="at least one"):
        ensemble([], "classification")
    with pytest.raises(GraphError, match="same inputs"):
        ensemble([net, other], "classification")
