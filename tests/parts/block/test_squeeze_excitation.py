import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import Net, init
from archwright.parts.block import squeeze_excitation


def net(shape=(None, 8, 5, 6), **hp):
    g = ops.edit()
    return rough(init(g.finish(squeeze_excitation.build(g, g.input("x", shape), **hp))), seed=1)


def test_it_is_the_papers_formula():
    made, x = net(ratio=2), torch.randn(3, 8, 5, 6)
    w = made.weights
    s = F.relu(F.linear(x.mean((2, 3)), w["down.weight"], w["down.bias"]))
    gate = torch.sigmoid(F.linear(s, w["up.weight"], w["up.bias"]))
    torch.testing.assert_close(outputs(made, (x,))[0], x * gate[:, :, None, None])


def test_zero_weights_halve_the_input():
    made, x = net(), torch.randn(2, 8, 5, 6)
    zeros = {name: torch.zeros_like(t) if name.startswith("up.") else t for name, t in made.weights.items()}
    torch.testing.assert_close(outputs(Net(made.graph, zeros), (x,))[0], x / 2)


def test_parameters_follow_the_formula_and_the_hidden_layer_is_never_empty():
    assert net((None, 12, 4, 4), ratio=3).cost().params == 2 * 12 * 4 + 12 + 4
    assert net((None, 4, 4, 4), ratio=16).weights["down.weight"].shape == (1, 4)


def test_a_ratio_of_zero_is_refused():
    with pytest.raises(ArchwrightError, match="ratio is 0"):
        net(ratio=0)


def test_claim_holds():
    assert squeeze_excitation.claim().held
