import pytest
import torch

from archwright import ops
from archwright.core.checks import toys
from archwright.errors import ArchwrightError
from archwright.kit.layers import kernel_names, kernels
from archwright.net.net import Net, init


def test_matrices_and_kernels_are_layers_and_nothing_else_is():
    net = toys.net("residual", toys.data("image"))
    expected = [n for n in net.weights if n.endswith("conv.weight")] + ["head.weight"]
    assert sorted(kernel_names(net.graph)) == sorted(expected)
    assert all(kernels(net)[n] is not None and kernels(net)[n].dim() >= 2 for n in expected)
    assert "lstm.weight_ih_l0" in kernel_names(toys.net("recurrent", toys.data("tokens")).graph)


def test_a_net_without_layers_or_with_broken_ones_is_refused():
    g = ops.edit()
    with pytest.raises(ArchwrightError, match="at least one layer"):
        kernels(init(g.finish(g.add("relu", g.input("x", (None, 3))))))
    net = toys.net("mlp", toys.data("table"))
    with pytest.raises(ArchwrightError, match="not finite"):
        kernels(Net(net.graph, {n: torch.full_like(w, float("inf")) for n, w in net.weights.items()}))
