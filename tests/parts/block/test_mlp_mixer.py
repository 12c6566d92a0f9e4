import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import TypeMismatch
from archwright.net.net import Net, init
from archwright.parts.block import mlp_mixer


def net(shape=(None, 9, 12), **hp):
    g = ops.edit()
    return rough(init(g.finish(mlp_mixer.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x):
    def mlp(name, t):
        up, down = f"{name}.up.", f"{name}.down."
        return F.linear(F.gelu(F.linear(t, w[up + "weight"], w[up + "bias"])), w[down + "weight"], w[down + "bias"])

    def norm(name, t):
        centred = t - t.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[name + ".weight"] + w[name + ".bias"]

    u = x + torch.stack([mlp("tokens", column) for column in norm("norm1", x).unbind(-1)], -1)
    return u + torch.stack([mlp("channels", row) for row in norm("norm2", u).unbind(1)], 1)


def test_it_is_the_papers_formula():
    made, x = net(token_hidden=7, channel_hidden=20), torch.randn(4, 9, 12)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x), rtol=1e-5, atol=1e-5)


def test_patches_and_token_weights_permuted_together_change_only_the_order():
    made, x = net(), torch.randn(3, 9, 12)
    order = torch.randperm(9)
    w = dict(made.weights)
    w["tokens.up.weight"] = w["tokens.up.weight"][:, order]
    w["tokens.down.weight"] = w["tokens.down.weight"][order]
    w["tokens.down.bias"] = w["tokens.down.bias"][order]
    found = outputs(Net(made.graph, w), (x[:, order],))[0]
    torch.testing.assert_close(found, outputs(made, (x,))[0][:, order], rtol=1e-5, atol=1e-6)


def test_hidden_widths_default_to_the_papers_ratios():
    made = net((None, 9, 16))
    assert made.weights["tokens.up.weight"].shape == (8, 9)
    assert made.weights["channels.up.weight"].shape == (64, 16)


def test_parameters_follow_the_formula():
    t, c, s, d = 9, 12, 6, 48
    assert net().cost().params == 2 * t * s + t + s + 2 * c * d + c + d + 4 * c


def test_an_image_is_refused():
    with pytest.raises(TypeMismatch, match="tokens, channels"):
        net((None, 3, 8, 8))


def test_claim_holds():
    found = mlp_mixer.claim()
    assert found.held and len(found.details) == 7
