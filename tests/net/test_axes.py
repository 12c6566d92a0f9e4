"""Tied axes: known classes on small nets, and on every fixture the proofs by permuting, removing and growing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.errors import GraphError
from archwright.ir import Graph
from archwright.net.axes import axes
from archwright.net.net import Net, example, init
from tests.fixtures.models import NAMES
from tests.fixtures.nets import captured

torch.set_num_threads(1)


def randomised(graph: Graph, seed: int = 0) -> Net:
    """Fresh weights with nothing left at 0 or 1: norm statistics, biases and scales are random."""
    net = init(graph, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    weights = {}
    for name, tensor in net.weights.items():
        if not tensor.is_floating_point():
            weights[name] = tensor
        elif name.endswith("running_var"):
            weights[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        elif tensor.dim() <= 1:
            weights[name] = torch.randn(tensor.shape, generator=generator) * 0.5 + 0.5
        else:
            weights[name] = tensor
    return Net(graph, weights)


def outputs(net: Net, inputs, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    with torch.no_grad():
        return [t.detach() for t in ops.run(net.graph, net.weights, inputs)]


def assert_same(found, wanted, rtol: float = 1e-4) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        if one.is_floating_point():
            assert torch.isfinite(other).all()
            assert (one - other).abs().max() <= rtol * other.abs().max()
        elif not one.is_complex():
            assert (one == other).float().mean() > 0.99  # an index may flip between two equal numbers


def assert_spread(found) -> None:
    assert any(t.is_floating_point() and t.float().std() > 1e-3 for t in found)


def prove(net: Net, inputs) -> None:
    """The three proofs: permute everything, remove what can be removed, grow what can be grown."""
    tied = axes(net)
    rng = np.random.default_rng(0)
    before = outputs(net, inputs)
    assert_spread(before)
    permuted = tied.permute(net, {c.number: rng.permutation(c.size).tolist() for c in tied.free})
    assert permuted.graph == net.graph
    assert_same(outputs(permuted, inputs), before)

    def half(c):
        return rng.choice(c.size, c.size // 2, replace=False).tolist()

    gone = {c.number: half(c) for c in tied if c.remove and not c.coupled}
    assert_same(outputs(tied.remove(net, gone), inputs), outputs(tied.mask(net, gone), inputs))
    smaller = tied.remove(net, {**gone, **{c.number: half(c) for c in tied if c.remove and c.coupled}})
    for one, other in zip(outputs(smaller, inputs), before, strict=True):
        assert one.shape == other.shape
    grown = tied.grow(net, {c.number: rng.integers(0, c.size, c.size // 2 + 1).tolist() for c in tied if c.grow})
    assert_same(outputs(grown, inputs), before)
    for new in (smaller, grown):
        assert {n.name for n in new.graph.nodes} == {n.name for n in net.graph.nodes}


@pytest.mark.parametrize("name", NAMES)
def test_every_fixture(name):
    from tests.fixtures.models import make

    prove(captured(name), make(name)[1])


# ------------------------------------------------------------------------------------------------ known structures
def members(c) -> set[tuple[str, int]]:
    return {(m.weight, m.dim) for m in c.members}


def test_resnet20_has_the_classes_of_git_re_basin():
    """As its hand-written specification for ResNet-20 has them (Ainsworth et al., 2022): P_bg0, P_bg1, P_bg2 on the
    residual streams and an inner one in each of the nine blocks."""
    tied = axes(captured("resnet20"))
    assert len(tied.free) == 12
    streams = [c for c in tied.free if len({m.weight for m in c.members}) > 12]
    inner = [c for c in tied.free if c not in streams]
    assert len(streams) == 3 and len(inner) == 9
    assert sorted(c.size for c in streams) == sorted({c.size for c in inner})
    for c in inner:  # conv1 out, norm1, conv2 in
        assert len({m.weight for m in c.members if m.weight.endswith("weight") and m.dim == 0}) == 2
        assert len([m for m in c.members if m.dim == 1]) == 1
    assert all(c.remove and c.grow for c in tied.free)


def build(make, *shape, dtype: str = "float32") -> Net:
    g = ops.edit()
    x = g.input("x", (None, *shape), dtype)
    return randomised(g.finish(make(g, x)))


def free_sizes(net: Net) -> list[int]:
    return sorted(c.size for c in axes(net).free)


def test_two_layers_share_the_axis_between_them():
    net = build(lambda g, x: g.add("linear", g.add("relu", g.add("linear", x, out=8, name="a")), out=3, name="b"), 5)
    tied = axes(net)
    (c,) = tied.free
    assert members(c) == {("a.weight", 0), ("a.bias", 0), ("b.weight", 1)} and c.remove and c.grow
    assert tied.of("a.weight", 1)[0].pinned == "an input of the network"
    assert tied.of("b.weight", 0)[0].pinned == "an output of the network"
    with pytest.raises(GraphError, match="cannot be changed"):
        tied.remove(net, {tied.of("b.weight", 0)[0].number: [0]})
    with pytest.raises(GraphError, match="permutation"):
        tied.permute(net, {c.number: [0] * 8})
    with pytest.raises(GraphError, match="at least one"):
        tied.remove(net, {c.number: list(range(8))})
    prove(net, example(net.graph, 4))


def test_flatten_before_a_linear_layer_keeps_channels_apart():
    def make(g, x):
        x = g.add("relu", g.add("conv", x, out=6, kernel=3, name="conv"))
        return g.add("linear", g.add("flatten", x), out=4, name="head")

    net = build(make, 2, 7, 5)
    (c,) = axes(net).free
    (head,) = [m for m in c.members if m.weight == "head.weight"]
    assert head.index.shape == (6, 15) and head.index[2].tolist() == list(range(30, 45))
    prove(net, example(net.graph, 3))


def test_concat_of_two_branches_and_a_norm_after_it():
    def make(g, x):
        a = g.add("conv", x, out=4, kernel=1, name="a")
        b = g.add("conv", x, out=6, kernel=1, name="b")
        x = g.add("batch_norm", g.add("concat", a, b, a), name="norm")
        return g.add("mean", g.add("conv", x, out=3, kernel=1, name="c"), dim=(2, 3))

    net = build(make, 2, 4, 4)
    assert free_sizes(net) == [4, 6]
    first = next(c for c in axes(net).free if c.size == 4)
    places = [m.index[:, 0].tolist() for m in first.members if m.weight == "norm.weight"]
    assert places == [[0, 1, 2, 3], [10, 11, 12, 13]]
    prove(net, example(net.graph, 3))


def test_grouped_convolution_moves_whole_groups_and_within_groups():
    def make(g, x):
        x = g.add("conv", x, out=12, kernel=1, name="a")
        x = g.add("conv", x, out=8, kernel=3, groups=4, padding=1, name="b")
        return g.add("mean", g.add("conv", x, out=3, kernel=1, name="c"), dim=(2, 3))

    net = build(make, 2, 4, 4)
    assert free_sizes(net) == [2, 3, 4]
    prove(net, example(net.graph, 3))


def test_depthwise_convolution_carries_its_channels():
    def make(g, x):
        x = g.add("conv", x, out=10, kernel=1, name="a")
        x = g.add("batch_norm", g.add("conv", x, out=10, kernel=3, groups=10, padding=1, name="dw"), name="n")
        return g.add("mean", g.add("conv", x, out=3, kernel=1, name="c"), dim=(2, 3))

    net = build(make, 2, 4, 4)
    (c,) = axes(net).free
    assert c.size == 10 and ("dw.weight", 0) in members(c) and c.remove and c.grow
    smaller = axes(net).remove(net, {c.number: [0, 3]})
    assert smaller.graph["dw"].attrs["groups"] == smaller.graph["dw"].attrs["out"] == 8
    prove(net, example(net.graph, 3))


@pytest.mark.parametrize("cut", ["split", "chunk"])
def test_the_halves_of_a_gate_are_one_axis(cut):
    def make(g, x):
        x = g.add("linear", x, out=12, name="up")
        a, b = g.add("split", x, sizes=(6, 6), dim=-1) if cut == "split" else g.add("chunk", x, parts=2, dim=-1)
        return g.add("linear", g.add("mul", a, g.add("sigmoid", b)), out=3, name="down")

    net = build(make, 5)
    (c,) = axes(net).free
    assert c.size == 6 and [m.weight for m in c.members].count("up.weight") == (2 if cut == "split" else 1)
    prove(net, example(net.graph, 4))


def test_glu_halves_are_one_axis():
    net = build(lambda g, x: g.add("linear", g.add("glu", g.add("linear", x, out=12)), out=3), 5)
    assert free_sizes(net) == [6]
    prove(net, example(net.graph, 4))


def attention(g, x, heads: int, width: int):
    """Packed projections, then heads, as in most vision transformers."""
    tokens = g.shape(x)[1]
    qkv = g.add("reshape", g.add("linear", x, out=3 * width, name="qkv"), shape=(-1, tokens, 3, heads, width // heads))
    q, k, v = g.add("unbind", g.add("permute", qkv, dims=(2, 0, 3, 1, 4)), dim=0)
    y = g.add("permute", g.add("attention", q, k, v), dims=(0, 2, 1, 3))
    return g.add("linear", g.add("reshape", y, shape=(-1, tokens, width)), out=g.shape(x)[-1], name="proj")


def test_attention_heads_move_whole_and_within():
    def make(g, x):
        x = g.add("linear", x, out=10, name="embed")
        x = g.add("add", x, attention(g, g.add("layer_norm", x, name="norm"), 4, 12))
        return g.add("linear", g.add("mean", x, dim=(1,)), out=3, name="head")

    net = build(make, 6, 7)
    assert free_sizes(net) == [3, 4, 10]
    stream = next(c for c in axes(net).free if c.size == 10)
    assert stream.coupled and not stream.grow
    prove(net, example(net.graph, 3))


def test_separate_projections_tie_queries_to_keys_only():
    def make(g, x):
        tokens, heads, d, e = 6, 2, 4, 5
        q, k, v = (
            g.add(
                "permute",
                g.add("reshape", g.add("linear", x, out=heads * n, name=name), shape=(-1, tokens, heads, n)),
                dims=(0, 2, 1, 3),
            )
            for name, n in (("q", d), ("k", d), ("v", e))
        )
        y = g.add("permute", g.add("attention", q, k, v), dims=(0, 2, 1, 3))
        return g.add("linear", g.add("reshape", y, shape=(-1, tokens, heads * e)), out=3, name="proj")

    net = build(make, 6, 7)
    assert free_sizes(net) == [2, 4, 5]
    inner = next(c for c in axes(net).free if c.size == 4)
    assert {m.weight for m in inner.members} == {"q.weight", "q.bias", "k.weight", "k.bias"} and not inner.grow
    prove(net, example(net.graph, 3))


def test_residual_chain_is_one_axis():
    def make(g, x):
        x = g.add("linear", x, out=8, name="stem")
        for i in range(3):
            h = g.add("relu", g.add("linear", x, out=6, name=f"up{i}"))
            x = g.add("add", x, g.add("linear", h, out=8, name=f"down{i}"))
        return g.add("linear", x, out=2, name="head")

    net = build(make, 5)
    assert free_sizes(net) == [6, 6, 6, 8]
    prove(net, example(net.graph, 4))


def test_tied_embedding_is_one_axis_that_cannot_be_grown():
    g = ops.edit()
    ids = g.input("ids", (None, 5), "int64")
    table = g.add("param", shape=(11, 8), init=("normal", 1.0), name="table")
    x = g.add("embedding", ids, table, num=11, dim=8)
    x = g.add("relu", g.add("linear", x, out=8, name="mid"))
    net = randomised(g.finish(g.add("linear", x, table, out=11, bias=False)))
    tied = axes(net)
    (c,) = [c for c in tied.free if ("table", 1) in members(c)]
    assert members(c) >= {("table", 1), ("mid.weight", 0), ("mid.weight", 1)} and c.remove and not c.grow
    prove(net, example(net.graph, 4))


def test_a_slot_used_twice_ties_what_it_touches():
    def make(g, x):
        a = g.add("relu", g.add("linear", x, out=8, name="a"))
        b = g.add("relu", g.add("linear", a, out=8, name="b"))
        c = g.add("relu", g.add("linear", b, out=8, name="again", slot="b"))
        return g.add("linear", c, out=3, name="head")

    net = build(make, 5)
    (c,) = axes(net).free
    assert {("b.weight", 0), ("b.weight", 1), ("a.weight", 0), ("head.weight", 1)} <= members(c)
    prove(net, example(net.graph, 4))


def test_channels_padded_with_zeros_meet_others():
    def make(g, x):
        x = g.add("conv", x, out=4, kernel=1, name="a")
        y = g.add("conv", x, out=10, kernel=1, name="b")
        x = g.add("add", g.add("pad", x, pads=(0, 0, 0, 0, 2, 4)), y)
        return g.add("mean", g.add("conv", x, out=3, kernel=1, name="c"), dim=(2, 3))

    net = build(make, 2, 4, 4)
    assert free_sizes(net) == [2, 4, 4]
    prove(net, example(net.graph, 3))


def test_what_does_not_nest_is_pinned():
    def make(g, x):
        x = g.add("linear", x, out=6, name="a")
        x = g.add("reshape", g.add("reshape", x, shape=(-1, 2, 3)), shape=(-1, 3, 2))
        return g.add("linear", g.add("relu", g.add("flatten", x)), out=3, name="b")

    net = build(make, 5)
    assert not axes(net).free
    prove(net, example(net.graph, 4))


def test_normalised_axes_are_coupled():
    net = build(
        lambda g, x: g.add("linear", g.add("softmax", g.add("linear", x, out=8, name="a"), dim=-1), out=3, name="b"), 5
    )
    (c,) = axes(net).free
    assert c.coupled and c.remove and not c.grow
    prove(net, example(net.graph, 4))


def test_growing_a_group_axis_and_a_transposed_convolution():
    def make(g, x):
        x = g.add("conv", x, out=8, kernel=1, name="a")
        x = g.add("conv_transpose", x, out=12, kernel=2, stride=2, groups=2, name="up")
        return g.add("mean", g.add("conv", x, out=3, kernel=1, name="c"), dim=(2, 3))

    net = build(make, 2, 4, 4)
    assert free_sizes(net) == [2, 4, 6]
    prove(net, example(net.graph, 3))
