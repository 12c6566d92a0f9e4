import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.net.net import Net, init
from archwright.parts.block import gmlp


def net(shape=(None, 9, 12), **hp):
    g = ops.edit()
    return rough(init(g.finish(gmlp.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x):
    def linear(name, t):
        return F.linear(t, w[name + ".weight"], w[name + ".bias"])

    def norm(name, t):
        return F.layer_norm(t, t.shape[-1:], w[name + ".weight"], w[name + ".bias"])

    inside = norm("norm", x)
    z1, z2 = F.gelu(linear("up", inside)).chunk(2, -1)
    gate = torch.einsum("st,nte->nse", w["gate.spatial"], norm("gate.norm", z2)) + w["gate.bias"][:, None]
    if "attention.qkv.weight" in w:
        q, k, v = linear("attention.qkv", inside).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        gate = gate + linear("attention.out", weights @ v)
    return x + linear("down", z1 * gate)


@pytest.mark.parametrize("attention", [0, 5])
def test_it_is_the_papers_formula(attention):
    made, x = net(hidden=14, attention=attention), torch.randn(4, 9, 12)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x), rtol=1e-5, atol=1e-5)


def test_with_no_spatial_weights_and_unit_bias_the_gate_is_one_and_tokens_do_not_see_each_other():
    made, x = net(), torch.randn(2, 9, 12)
    w = dict(made.weights)
    w["gate.spatial"], w["gate.bias"] = torch.zeros(9, 9), torch.ones(9)
    gated = next(node for node in made.graph.nodes if node.op == "mul")
    parts = Net(type(made.graph)(made.graph.nodes, gated.inputs), w)
    assert torch.equal(outputs(parts, (x,))[1], torch.ones(2, 9, 36))
    other = x.clone()
    other[:, 0] += 1
    assert torch.equal(outputs(Net(made.graph, w), (x,))[0][:, 1:], outputs(Net(made.graph, w), (other,))[0][:, 1:])


def test_fresh_weights_are_near_the_plain_feed_forward_layer():
    g = ops.edit()
    made = init(g.finish(gmlp.build(g, g.input("x", (None, 9, 12)))))
    assert made.weights["gate.spatial"].abs().max() <= 1e-3 / 9
    assert torch.equal(made.weights["gate.bias"], torch.ones(9))


def test_an_odd_width_is_refused():
    with pytest.raises(ArchwrightError, match="even"):
        net(hidden=7)


def test_an_image_is_refused():
    with pytest.raises(TypeMismatch, match="tokens, channels"):
        net((None, 3, 8, 8))


def test_claim_holds():
    assert gmlp.claim().held
