import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import Net, init
from archwright.parts.block import metaformer


def net(shape=(None, 8, 6, 6), **hp):
    g = ops.edit()
    return rough(init(g.finish(metaformer.build(g, g.input("x", shape), **hp))), seed=1)


def mixer(name, shape, head_dim=4):
    g = ops.edit()
    return rough(init(g.finish(metaformer.mix(g, g.input("x", shape), name, head_dim))), seed=1)


def reference(w, x):
    """PoolFormer's block."""
    y = F.group_norm(x, 1, w["mixer.norm.weight"], w["mixer.norm.bias"])
    counts = F.avg_pool2d(torch.ones_like(y), 3, 1, 1)
    y = F.avg_pool2d(y, 3, 1, 1) / counts - y
    x = x + w["scale1"] * y
    y = F.group_norm(x, 1, w["mlp.norm.weight"], w["mlp.norm.bias"])
    y = F.gelu(torch.einsum("oc,nchw->nohw", w["mlp.up.weight"][:, :, 0, 0], y) + w["mlp.up.bias"][:, None, None])
    y = torch.einsum("oc,nchw->nohw", w["mlp.down.weight"][:, :, 0, 0], y) + w["mlp.down.bias"][:, None, None]
    return x + w["scale2"] * y


def test_it_is_the_papers_formula():
    made, x = net(ratio=3), torch.randn(3, 8, 6, 6)
    torch.testing.assert_close(outputs(made, (x,))[0], reference(made.weights, x), rtol=1e-5, atol=1e-5)


def test_pooling_has_no_parameters_and_is_zero_on_constant_maps():
    made = mixer("pool", (None, 4, 5, 7))
    assert not made.weights
    x = torch.randn(2, 4, 1, 1).expand(2, 4, 5, 7).contiguous()
    torch.testing.assert_close(outputs(made, (x,))[0], torch.zeros_like(x), rtol=0, atol=1e-6)
    ones = torch.full((1, 4, 5, 7), 3.0)
    assert torch.equal(outputs(made, (ones,))[0], torch.zeros_like(ones))


def test_identity_mixes_nothing():
    made, x = mixer("identity", (None, 4, 5, 5)), torch.randn(2, 4, 5, 5)
    assert torch.equal(outputs(made, (x,))[0], x)


def test_the_random_matrix_is_frozen_and_averages():
    made, x = mixer("random", (None, 4, 3, 3)), torch.randn(2, 4, 3, 3)
    assert made.cost().params == 0
    expected = torch.einsum("st,nct->ncs", made.weights["across"].softmax(1), x.flatten(2)).reshape(x.shape)
    torch.testing.assert_close(outputs(made, (x,))[0], expected)


def test_attention_is_torchs():
    made, x = mixer("attention", (None, 8, 3, 3)), torch.randn(2, 8, 3, 3)
    w = made.weights
    torchs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([w["q.weight"], w["k.weight"], w["v.weight"]]))
        torchs.in_proj_bias.zero_()
        torchs.out_proj.weight.copy_(w["out.weight"])
        torchs.out_proj.bias.copy_(w["out.bias"])
        t = x.flatten(2).transpose(1, 2)
        expected = torchs(t, t, t)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-6)


def test_the_mlp_is_a_matrix_over_positions():
    made, x = mixer("mlp", (None, 4, 3, 3)), torch.randn(2, 4, 3, 3)
    expected = F.linear(x.flatten(2), made.weights["across.weight"], made.weights["across.bias"]).reshape(x.shape)
    torch.testing.assert_close(outputs(made, (x,))[0], expected)


def test_scales_of_zero_make_it_the_identity():
    made, x = net(mixer="conv"), torch.randn(2, 8, 6, 6)
    weights = {name: torch.zeros_like(w) if name.startswith("scale") else w for name, w in made.weights.items()}
    assert torch.equal(outputs(Net(made.graph, weights), (x,))[0], x)


@pytest.mark.parametrize(("name", "params"), [("S12", 11_915_176), ("S24", 21_388_968), ("M48", 73_473_448)])
def test_poolformers_have_the_sizes_of_the_published_weights(name, params):
    depths, dims, start = metaformer.POOLFORMER[name]
    g = ops.edit()
    x = g.input("x", (None, 3, 224, 224))
    graph = g.finish(metaformer.network(g, x, depths=depths, dims=dims, scale_init=start))
    assert sum(torch.Size(p.shape).numel() for p in ops.params(graph).values()) == params


def test_stages_may_have_different_mixers():
    g = ops.edit()
    y = metaformer.network(
        g, g.input("x", (None, 1, 16, 16)), classes=3, depths=(1, 1, 1), dims=(8, 8, 16), head_dim=8,
        mixers=("pool", "attention"), stem=(3, 1, 1),
    )  # fmt: skip
    graph = g.finish(y)
    assert [node.op for node in graph.nodes if node.op in ("avg_pool", "attention")] == [
        "avg_pool", "attention", "attention",
    ]  # fmt: skip


def test_what_it_refuses():
    with pytest.raises(ArchwrightError, match="mixer is 'fourier'"):
        net(mixer="fourier")
    with pytest.raises(ArchwrightError, match="divisor"):
        net(mixer="attention", head_dim=3)
