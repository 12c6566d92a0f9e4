import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core import seeds
from archwright.core.checks import toys
from archwright.core.checks.common import rough
from archwright.core.records import Budget
from archwright.errors import ArchwrightError
from archwright.ir import rename
from archwright.net.axes import axes
from archwright.net.net import Net, init
from archwright.parts.weightspace.gmn import Metanetwork, claim, edit, encode, fit, parameter_graph, predict

ALL = [("table", "mlp"), ("image", "conv"), ("image", "residual"), ("tokens", "attention"), ("signal", "recurrent"),
       ("graph", "gnn")]  # fmt: skip


def net_of(data, name, seed=0):
    return rough(toys.net(name, toys.data(data), seed), seed)


def grouped(seed=0):
    """Groups, a concatenation, a product of axes: dimensions that touch several nodes, or none."""
    g = ops.edit()
    x = g.add("conv", g.input("x", (None, 2, 6, 6)), out=6, kernel=3, name="stem")
    y = g.add("conv", x, out=12, kernel=3, padding=1, groups=3, name="groups")
    x = g.add("concat", g.add("relu", y), x, dim=1)
    x = g.add("group_norm", x, groups=3, name="norm")
    x = g.add("flatten", g.add("conv", x, out=4, kernel=1, name="last"))
    return rough(init(g.finish(g.add("linear", x, out=3, name="head"))), seed)


def permuted(net, seed):
    tied = axes(net)
    rng = np.random.default_rng(seed)
    orders = {a.number: rng.permutation(a.size).tolist() for a in tied.free}
    assert orders
    return tied.permute(net, orders), lambda other: tied.permute(other, orders)


@pytest.mark.parametrize("made", [*ALL, None], ids=str)
def test_codes_are_invariant_and_edits_equivariant(made):
    net = net_of(*made) if made else grouped()
    for seed in (1, 2):
        other, permute = permuted(net, seed)
        one, same = encode([net, other], width=8, rounds=2)
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-5)
        (first,), (second,) = edit([other], width=8, size=0.5), edit([net], width=8, size=0.5)
        for name, w in permute(second).weights.items():
            torch.testing.assert_close(first.weights[name], w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("made", [*ALL, None], ids=str)
def test_what_is_no_symmetry_changes_the_code(made):
    net = net_of(*made) if made else grouped()
    code = encode([net], width=8)
    for name, w in net.weights.items():
        if not w.is_floating_point() or w.dim() < 2:
            continue
        turned = Net(net.graph, {**net.weights, name: w.flip(0)})  # one weight alone, or an output of the network
        assert float((encode([turned], width=8) - code).abs().max()) > 1e-6, name


def test_parameter_graph_of_a_perceptron():
    g = ops.edit()
    x = g.add("relu", g.add("linear", g.input("x", (None, 3)), out=4, name="a"))
    graph = g.finish(g.add("linear", x, out=2, name="b"))
    found = parameter_graph(graph)
    assert len(found.place) == 3 + 4 + 2
    by_name = {e.name: e for e in found.edges}
    assert list(by_name) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    nodes = {name: [t.nodes.tolist() for t in e.touches] for name, e in by_name.items()}
    hidden = nodes["a.bias"][0]
    sides = {(t.dim, t.side): t.nodes.tolist() for t in by_name["b.weight"].touches}
    assert sides[1, 1] == hidden and sides[0, 0] == nodes["b.bias"][0]
    assert not found.place[hidden].any() and found.place[nodes["b.bias"][0]].any()
    assert found.touched[hidden].tolist() == [3.0] * 4  # a.weight, a.bias, b.weight
    assert not by_name["b.weight"].place[0, 0].equal(by_name["b.weight"].place[1, 0])  # outputs have places
    assert by_name["b.weight"].place[0, 0].equal(by_name["b.weight"].place[0, 1])  # hidden units have none


def test_a_round_is_the_formula():
    g = ops.edit()
    graph = g.finish(g.add("linear", g.input("x", (None, 3)), out=2, name="a"))
    net = rough(init(graph), 3)
    with seeds.forked(0):
        m, p = Metanetwork(4, 1), parameter_graph(graph)
    weight, bias = [net.weights[e.name][None] for e in p.edges]
    code, (edges, offsets) = m(p, [weight, bias])

    def lift(v, e):
        v = v * e.scale
        values = torch.stack([v, v.tanh(), v.sign() * v.abs().sqrt(), (v.abs() + 1e-3).log() / 4], -1)
        return m.edge_in(torch.cat([values, e.role.expand(*v.shape, -1), e.place], -1))

    e, o = lift(weight[0], p.edges[0]), lift(bias[0], p.edges[1])
    outs, ins = [t.nodes for t in sorted(p.edges[0].touches)]
    h = m.node_in(p.place)
    messages = torch.zeros_like(h)
    for i, u in enumerate(outs):
        messages[u] = (m.to_node[0](sum(e[i, j] for j in range(3)) / 3) + m.to_node[0](o[i])) / 2
    for j, u in enumerate(ins):
        messages[u] = m.to_node[1]((e[0, j] + e[1, j]) / 2)
    apart = torch.zeros_like(h)
    for nodes in (outs, ins):
        some = messages[nodes]
        apart[nodes] = (some - some.mean(0)) / (some.var(0, correction=0) + 1e-6).sqrt()
    h = h + m.node2[0](torch.relu(m.node1[0](h) + messages + m.spread[0](apart)))
    everywhere = m.all[0](h.mean(0))
    for i, u in enumerate(outs):
        told = m.to_edge[0](h[u])
        new = o[i] + m.edge2[0](torch.relu(m.edge1[0](o[i]) + told + everywhere))
        torch.testing.assert_close(offsets[0, i], new, rtol=1e-4, atol=1e-5)
        for j, v in enumerate(ins):
            both = told + m.to_edge[1](h[v])
            new = e[i, j] + m.edge2[0](torch.relu(m.edge1[0](e[i, j]) + both + everywhere))
            torch.testing.assert_close(edges[0, i, j], new, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(code[0, 4:], h.mean(0), rtol=1e-4, atol=1e-5)


def test_nets_of_several_architectures_and_names_in_one_call():
    nets = [net_of("table", "mlp", 0), net_of("image", "conv", 1), net_of("table", "mlp", 2)]
    names = {"hidden0": "first", "head": "top"}
    graph = rename(nets[2].graph, names)
    weights = {
        ".".join([names.get(k.split(".")[0], k.split(".")[0]), *k.split(".")[1:]]): w
        for k, w in nets[2].weights.items()
    }
    renamed = Net(graph, weights)
    codes = encode([*nets, renamed])
    assert codes.shape == (4, 32)
    torch.testing.assert_close(codes[2], codes[3], rtol=1e-6, atol=1e-6)
    for net, code in zip(nets, codes, strict=False):
        torch.testing.assert_close(encode([net])[0], code, rtol=1e-5, atol=1e-6)


def test_edits_leave_statistics_alone_and_size_scales():
    net = net_of("image", "conv")
    (none,), (some,), (twice,) = [edit([net], size=size) for size in (0.0, 0.1, 0.2)]
    moved = 0
    for name, param in ops.params(net.graph).items():
        w = net.weights[name]
        assert torch.equal(none.weights[name], w)
        if param.buffer:
            assert torch.equal(some.weights[name], w)
        else:
            torch.testing.assert_close(twice.weights[name] - w, 2 * (some.weights[name] - w), rtol=1e-3, atol=1e-5)
            moved += not torch.equal(some.weights[name], w)
    assert moved


def test_fit_learns_the_size_of_weights():
    made = toys.net("mlp", toys.data("table"))
    scales = np.random.default_rng(0).uniform(0.3, 2, 60)
    nets = [Net(made.graph, {k: w * float(s) for k, w in rough(made, i).weights.items()}) for i, s in enumerate(scales)]
    state = fit(nets[:48], torch.tensor(scales[:48]), Budget(steps=150), seeds.rng(0, "fit"), width=8)
    apart = predict(nets[48:], state=state) - torch.tensor(scales[48:])
    assert float(apart.square().mean().sqrt()) < 0.4 * float(np.std(scales))
    again = fit(nets[:48], torch.tensor(scales[:48]), Budget(steps=150), seeds.rng(0, "fit"), width=8)
    assert all(torch.equal(w, again.weights[k]) for k, w in state.weights.items())


def test_what_cannot_be_read_is_said():
    g = ops.edit()
    empty = Net(g.finish(g.add("relu", g.input("x", (None, 3)))), {})
    with pytest.raises(ArchwrightError, match="nothing to read"):
        encode([empty])
    net = net_of("table", "mlp")
    with pytest.raises(ArchwrightError, match="width=0"):
        encode([net], width=0)
    for targets in (torch.zeros(2), torch.tensor([float("nan")])):
        with pytest.raises(ArchwrightError, match="finite number for each"):
            fit([net], targets, Budget(steps=1), seeds.rng(0, "fit"))


@pytest.mark.slow
def test_claim_holds():
    assert claim().held
