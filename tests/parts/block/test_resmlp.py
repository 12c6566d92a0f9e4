import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import TypeMismatch
from archwright.net.net import Net, init
from archwright.parts.block import resmlp


def net(shape=(None, 9, 12), **hp):
    g = ops.edit()
    return rough(init(g.finish(resmlp.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x):
    """The paper's formula, patch by patch and channel by channel."""
    y = w["affine1.scale"] * x + w["affine1.shift"]
    y = torch.einsum("st,ntc->nsc", w["across.weight"], y) + w["across.bias"][None, :, None]
    z = x + w["scale1"] * y
    y = w["affine2.scale"] * z + w["affine2.shift"]
    y = F.gelu(y @ w["mlp.up.weight"].T + w["mlp.up.bias"]) @ w["mlp.down.weight"].T + w["mlp.down.bias"]
    return z + w["scale2"] * y


def test_it_is_the_papers_formula():
    made, x = net(expansion=3), torch.randn(4, 9, 12)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x), rtol=1e-5, atol=1e-5)


def test_folded_it_computes_the_same():
    made, x = net(), torch.randn(4, 9, 12)
    folded = Net(net(folded=True).graph, resmlp.fold(made.weights))
    torch.testing.assert_close(outputs(folded, (x,))[0], outputs(made, (x,))[0], rtol=1e-5, atol=1e-5)


def test_scales_of_zero_make_it_the_identity():
    made, x = net(), torch.randn(2, 9, 12)
    weights = {name: torch.zeros_like(w) if name.startswith("scale") else w for name, w in made.weights.items()}
    assert torch.equal(outputs(Net(made.graph, weights), (x,))[0], x)


def test_parameters_follow_the_formula():
    tokens, c, e = 9, 12, 4
    assert net().cost().params == tokens**2 + tokens + 2 * e * c**2 + (e + 7) * c


@pytest.mark.parametrize(("dim", "depth", "millions"), [(384, 12, 15.4), (384, 24, 30.0), (768, 24, 115.7)])
def test_the_papers_networks_have_the_papers_sizes(dim, depth, millions):
    g = ops.edit()
    graph = g.finish(resmlp.network(g, g.input("x", (None, 3, 224, 224)), dim=dim, depth=depth))
    assert sum(torch.Size(p.shape).numel() for p in ops.params(graph).values()) / 1e6 == pytest.approx(
        millions, abs=0.06
    )


def test_an_image_is_refused():
    with pytest.raises(TypeMismatch, match="tokens, channels"):
        net((None, 3, 8, 8))


def test_claim_holds():
    assert resmlp.claim().held
