import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.net.net import init
from archwright.parts.block import vit


def net(shape=(None, 9, 12), **hp):
    g = ops.edit()
    return rough(init(g.finish(vit.build(g, g.input("x", shape), **hp))), seed=1)


def test_it_is_torchs_encoder_layer():
    made, x = net(head_dim=4, ratio=2), torch.randn(3, 9, 12)
    w = made.weights
    torchs = torch.nn.TransformerEncoderLayer(
        12, 3, 24, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    with torch.no_grad():
        for part in ("weight", "bias"):
            joint = torch.cat([w[f"attention.{name}.{part}"] for name in ("q", "k", "v")])
            getattr(torchs.self_attn, f"in_proj_{part}").copy_(joint)
            getattr(torchs.self_attn.out_proj, part).copy_(w[f"attention.out.{part}"])
            names = {"norm1": "norm1", "norm2": "norm2", "mlp.up": "linear1", "mlp.down": "linear2"}
            for ours, theirs in names.items():
                getattr(getattr(torchs, theirs), part).copy_(w[f"{ours}.{part}"])
        expected = torchs(x)
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


def test_tokens_permuted_give_the_output_permuted():
    made, x, order = net(head_dim=4), torch.randn(2, 9, 12), torch.randperm(9)
    found = outputs(made, (x[:, order],))[0]
    torch.testing.assert_close(found, outputs(made, (x,))[0][:, order], rtol=1e-5, atol=1e-6)


def test_any_width_has_at_least_one_head():
    assert net((None, 4, 10), head_dim=4).weights["attention.q.weight"].shape == (8, 10)
    assert net((None, 4, 3), head_dim=8).weights["attention.q.weight"].shape == (8, 3)


def test_parameters_follow_the_formula():
    c, ratio = 12, 3
    assert net(head_dim=4, ratio=ratio).cost().params == (4 + 2 * ratio) * c**2 + (9 + ratio) * c


def test_the_network_reads_the_class_token():
    g = ops.edit()
    y = vit.network(g, g.input("x", (None, 1, 8, 8)), classes=5, patch=4, dim=8, depth=1, head_dim=4)
    made, x = init(g.finish(y)), torch.randn(3, 1, 8, 8)
    assert made.weights["class_token"].shape == (1, 1, 8) and made.weights["positions"].shape == (5, 8)
    assert outputs(made, (x,))[0].shape == (3, 5)
    other = outputs(made, (F.pad(x[..., 4:], (4, 0)),))[0]
    assert not torch.allclose(other, outputs(made, (x,))[0])  # it sees every patch


def test_wrong_input_and_wrong_heads_are_refused():
    with pytest.raises(TypeMismatch, match="tokens, channels"):
        net((None, 3, 8, 8))
    with pytest.raises(ArchwrightError, match="head_dim is 0"):
        net(head_dim=0)


def test_claim_holds():
    assert vit.claim().held
