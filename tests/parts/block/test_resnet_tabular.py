import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import Net, init
from archwright.parts.block import resnet_tabular


def net(body=resnet_tabular.build, **hp):
    g = ops.edit()
    return rough(init(g.finish(body(g, g.input("x", (None, 6)), **hp))), seed=1)


def normal(w, at, x):
    return F.batch_norm(x, *[w[f"{at}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")])


def block(w, x, at=""):
    y = F.linear(normal(w, f"{at}norm", x), w[f"{at}up.weight"], w[f"{at}up.bias"])
    return x + F.linear(F.relu(y), w[f"{at}down.weight"], w[f"{at}down.bias"])


def test_it_is_the_papers_formula():
    made, x = net(hidden=9, dropout=0.3, drop=0.2), torch.randn(20, 6)
    torch.testing.assert_close(outputs(made, (x,))[0], block(made.weights, x), rtol=1e-4, atol=1e-5)


def test_the_network_is_the_papers():
    made, x = net(resnet_tabular.network, outputs=3, width=5, depth=2), torch.randn(20, 6)
    w = made.weights
    h = F.linear(x, w["stem.weight"], w["stem.bias"])
    for i in range(2):
        h = block(w, h, f"block{i}.")
    expected = F.linear(F.relu(normal(w, "norm", h)), w["head.weight"], w["head.bias"])
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-4, atol=1e-5)


def test_without_a_branch_it_is_the_identity():
    made, x = net(), torch.randn(20, 6)
    still = {n: torch.zeros_like(t) if n.startswith("down") else t for n, t in made.weights.items()}
    torch.testing.assert_close(outputs(Net(made.graph, still), (x,))[0], x)


def test_parameters_follow_the_formula():
    assert net(hidden=9).cost().params == 2 * 9 * 6 + 9 + 3 * 6
    assert net().cost().params == 2 * 12 * 6 + 12 + 3 * 6


def test_another_norm_is_refused():
    with pytest.raises(ArchwrightError, match="norm is 'rms'"):
        net(norm="rms")


def test_claim_holds():
    assert resnet_tabular.claim().held
