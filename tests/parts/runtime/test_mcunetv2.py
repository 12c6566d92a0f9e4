import itertools

import pytest
import torch

from archwright import ops
from archwright.core.checks.common import rough
from archwright.errors import ArchwrightError
from archwright.net.cost import cost
from archwright.net.net import Net, example, init
from archwright.parts.runtime.mcunetv2 import claim, execute, measure, mobilenet, plan, run


def net_of(make, shape):
    g = ops.edit()
    return rough(init(g.finish(make(g, g.input("x", (None, *shape))))), 1)


def odd(g, x):
    """Strides, dilation, paddings, groups and pools that do not divide anything."""
    x = g.add("conv", x, out=6, kernel=(5, 3), stride=(2, 3), padding=(2, 0), name="a")
    x = g.add("batch_norm", x, name="an")
    x = g.add("max_pool", g.add("silu", x), kernel=3, stride=2, padding=1, ceil=True)
    y = g.add("conv", x, out=6, kernel=3, padding=2, dilation=2, groups=3, name="b")
    y = g.add("prelu", y, num=6, name="act")
    z = g.add("avg_pool", x, kernel=3, stride=1, padding=1)
    x = g.add("add", g.add("add", x, y), z)
    return g.add("conv", x, out=4, kernel=3, padding=1, stride=(1, 2), name="c")


def pads(g, x):
    x = g.add("pad", x, pads=(3, 1, 0, 2), mode="reflect")
    x = g.add("conv", x, out=4, kernel=3, name="a")
    x = g.add("pad", x, pads=(2, 2, 1, 0), mode="replicate")
    x = g.add("pad", x, pads=(1, -1, -2, 3), value=0.5)
    x = g.add("conv", x, out=4, kernel=(1, 4), padding="same", name="b")
    x = g.add("pad", x, pads=(5, 4, 5, 0))
    return g.add("conv", x, out=3, kernel=2, stride=2, padding=4, name="c")


def around(g, x):
    """What no box passes through: circular padding, means over all positions, pools that count, resizing."""
    x = g.add("pad", g.add("conv", x, out=4, kernel=3, name="a"), pads=(1, 1, 1, 1), mode="circular")
    x = g.add("avg_pool", x, kernel=3, stride=2, padding=1, count_include_pad=False)
    gate = g.add("sigmoid", g.add("conv", g.add("mean", x, dim=[2, 3], keepdim=True), out=4, kernel=1, name="gate"))
    x = g.add("upsample", g.add("mul", x, gate), scale=(2.0, 2.0))
    x = g.add("instance_norm", x)
    x = g.add("lp_pool", g.add("exp", x), p=2.0, kernel=2, ceil=True)
    return g.add("conv", x, out=3, kernel=3, padding=1, name="b")


def channels_last(g, x):
    x = g.add("conv", x, out=8, kernel=3, stride=2, padding=1, name="a")
    x = g.add("permute", x, dims=(0, 2, 3, 1))
    x = g.add("linear", g.add("layer_norm", x, name="n"), out=6, name="l")
    x = g.add("permute", g.add("glu", x), dims=(0, 3, 1, 2))
    one, other = g.add("chunk", g.add("concat", x, g.add("tanh", x), dim=1), parts=2, dim=1)
    weight = g.add("tanh", g.add("param", shape=(3, 3, 3, 3), init=("normal", 0.3), name="w"))
    return g.add("conv", g.add("mul", one, other), weight, out=3, kernel=3, padding=1, bias=False)


CASES = {"odd": (odd, (3, 33, 41)), "pads": (pads, (2, 13, 17)), "around": (around, (2, 14, 11)),
         "channels last": (channels_last, (3, 15, 18))}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_those_of_the_whole_image_for_every_grid(name):
    make, shape = CASES[name]
    g = ops.edit()
    last = make(g, g.input("x", (None, *shape)))
    flat = g.add("linear", g.add("flatten", last), out=3, name="head")
    net = rough(init(g.finish(flat)), 1)
    x = example(net.graph, 2, 5)
    (expected,) = ops.run(net.graph, net.weights, x)
    height, width = ops.infer(net.graph)[last].shape[2:]
    for grid in itertools.product(sorted({1, 2, min(5, height)}), sorted({1, 3, width})):
        found = run(net, x, split=last, grid=grid)
        torch.testing.assert_close(found.outputs[0], expected, rtol=1e-5, atol=1e-5)
        figures = {f.name: f.value for f in found.figures}
        assert figures["FLOPs"] == figures["planned FLOPs"]


@pytest.mark.parametrize("rank", [1, 3])
def test_signals_and_volumes(rank):
    def make(g, x):
        x = g.add("relu", g.add("conv", x, out=5, kernel=3, stride=2, padding=1, name="a"))
        x = g.add("conv", g.add("max_pool", x, kernel=3, stride=1, padding=1), out=3, kernel=3, name="b")
        return g.add("linear", g.add("flatten", x), out=2, name="head")

    net = net_of(make, (2, *(13, 14, 15)[:rank]))
    x = example(net.graph, 2)
    found = run(net, x, split="b", grid=2)
    torch.testing.assert_close(found.outputs, ops.run(net.graph, net.weights, x), rtol=1e-5, atol=1e-6)


def test_halo_is_the_receptive_field():
    def make(g, x):
        for i, stride in enumerate((2, 1, 2)):
            x = g.add("conv", x, out=2, kernel=3, stride=stride, padding=1, name=f"c{i}")
        return g.add("mean", x, dim=[2, 3])

    how = plan(net_of(make, (1, 64, 64)).graph, split="c2", grid=16)
    inside = next(steps for box, steps in how.patches if box[2:] == ((8, 9), (8, 9)))
    assert [stop - start for start, stop in inside[0].reads[0].box[2:]] == [11, 11]  # 1 + 2 (1 + 2 + 1 * 2)
    assert not inside[0].reads[0].pads
    corner = how.patches[0][1]
    assert corner[0].reads[0].box[2:] == ((0, 6), (0, 6)) and corner[0].reads[0].pads[2:] == ((1, 0), (1, 0))


def test_planned_peak_is_measured_and_plain_peak_is_that_of_the_cost_model():
    net = init(mobilenet(size=32))
    x = example(net.graph, 1)
    for split, grid in (("block0.0.project.norm", 2), ("block1.1.add", (2, 4)), ("block2.0.project.conv", 4)):
        how = plan(net.graph, split=split, grid=grid)
        found = measure(net, x, how)
        assert found.peak_bytes == how.peak_bytes
        # the cost model lets go of the input after its last use; here the caller keeps it
        assert 0 <= how.plain_bytes - cost(net.graph).peak_bytes <= x[0].nbytes


def test_limit_takes_the_least_flops_that_keep_it():
    graph = mobilenet(size=64)
    least = plan(graph, overhead=10.0)
    loose = plan(graph, limit=least.plain_bytes)
    assert loose.split == "" and loose.overhead == 0
    middle = plan(graph, limit=least.plain_bytes // 2)
    assert middle.peak_bytes <= least.plain_bytes // 2 and 0 < middle.overhead < least.overhead
    with pytest.raises(ArchwrightError, match="the least is"):
        plan(graph, limit=1000)


def test_what_cannot_be_done_is_said():
    graph = mobilenet(size=32)
    with pytest.raises(ArchwrightError, match="cannot be made in patches"):
        plan(graph, split="block1.1.project.norm")  # the residual is read beside it
    with pytest.raises(ArchwrightError, match="cannot be made in patches"):
        plan(graph, split="nobody")
    with pytest.raises(ArchwrightError, match="tiles along each dimension"):
        plan(graph, split="block2.0.project.conv", grid=5)
    with pytest.raises(ArchwrightError, match="got 0 inputs"):
        run(init(graph), ())


def test_random_numbers_are_not_drawn_patch_by_patch():
    g = ops.edit()
    x = g.add("conv", g.input("x", (None, 1, 16, 16)), out=2, kernel=3, name="c")
    noise = g.add("random_like", x)
    x = g.add("conv", g.add("add", x, noise), out=1, kernel=3, stride=2, name="d")
    graph = g.finish(x)
    with pytest.raises(ArchwrightError, match="cannot be made in patches"):
        plan(graph, split="d", grid=2)


def test_nothing_to_gain_is_the_plain_run():
    g = ops.edit()
    graph = g.finish(g.add("linear", g.input("x", (None, 4)), out=2, name="l"))
    net = Net(graph, init(graph).weights)
    how = plan(graph)
    assert how.split == "" and how.peak_bytes == how.plain_bytes
    x = example(graph, 2)
    torch.testing.assert_close(execute(net, x, plan(graph, 2)), ops.run(graph, net.weights, x))


def test_claim_holds():
    assert claim().held
