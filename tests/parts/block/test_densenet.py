import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import init
from archwright.parts.block import densenet


def net(shape=(None, 6, 8, 8), **hp):
    g = ops.edit()
    return rough(init(g.finish(densenet.build(g, g.input("x", shape), **hp))), seed=1)


def reference(w, x, layers, bottleneck):
    def norm(name, t):
        mean, var, gain, bias = [w[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(t, mean, var, gain, bias))

    for i in range(layers):
        y = norm(f"layer{i}.norm1", x)
        if bottleneck:
            y = norm(f"layer{i}.norm2", F.conv2d(y, w[f"layer{i}.conv1.weight"]))
        x = torch.cat([x, F.conv2d(y, w[f"layer{i}.conv2.weight"], padding=1)], 1)
    if "transition.conv.weight" in w:
        x = F.avg_pool2d(F.conv2d(norm("transition.norm", x), w["transition.conv.weight"]), 2)
    return x


@pytest.mark.parametrize("bottleneck", [0, 2])
@pytest.mark.parametrize("compression", [None, 0.5])
def test_it_is_the_papers_formula(bottleneck, compression):
    made = net(layers=3, growth=4, bottleneck=bottleneck, compression=compression)
    x = torch.randn(3, 6, 8, 8)
    expected = reference(made.weights, x, 3, bottleneck)
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-4, atol=1e-5)


def test_the_input_comes_through_unchanged_in_front():
    x = torch.randn(2, 6, 8, 8)
    found = outputs(net(layers=2, growth=3), (x,))[0]
    assert found.shape == (2, 12, 8, 8)
    assert torch.equal(found[:, :6], x)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_there_are_l_times_l_plus_1_halves_links(layers):
    assert densenet.links(net(layers=layers, growth=2).graph) == layers * (layers + 1) // 2


def test_parameters_follow_the_formula():
    c, k, b, layers = 6, 4, 4, 3
    sizes = [c + i * k for i in range(layers)]
    assert net(layers=layers, growth=k).cost().params == sum(
        2 * s + b * s * k + 2 * b * k + 9 * b * k * k for s in sizes
    )


@pytest.mark.parametrize(("blocks", "growth", "params"), [
    ((6, 12, 24, 16), 32, 7_978_856), ((6, 12, 32, 32), 32, 14_149_480), ((6, 12, 48, 32), 32, 20_013_928),
    ((6, 12, 36, 24), 48, 28_681_000),
])  # fmt: skip
def test_published_networks_have_the_published_sizes(blocks, growth, params):
    g = ops.edit()
    graph = g.finish(densenet.network(g, g.input("x", (None, 3, 224, 224)), blocks=blocks, growth=growth))
    weights = [p for p in ops.params(graph).values() if not p.buffer]
    assert sum(torch.Size(p.shape).numel() for p in weights) == params


def test_a_small_network_runs():
    g = ops.edit()
    x = g.input("x", (None, 1, 8, 8))
    made = init(g.finish(densenet.network(g, x, classes=3, blocks=(2, 2), growth=4, small=True)))
    assert outputs(made, (torch.randn(2, 1, 8, 8),))[0].shape == (2, 3)


def test_what_it_refuses():
    with pytest.raises(ArchwrightError, match="layers is 0"):
        net(layers=0)
    with pytest.raises(ArchwrightError, match=r"compression is 1\.5"):
        net(compression=1.5)


def test_claim_holds():
    assert densenet.claim().held
