import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.data.home import data_home
from archwright.errors import TypeMismatch
from archwright.ir import Graph
from archwright.net.net import Net, init
from archwright.parts.block import gat

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 0, 1, 2, 2, 4, 5, 5]])  # node 3 hears nobody but itself


def net(nodes=6, features=4, edges=8, **hp):
    g = ops.edit()
    x = g.input("x", (nodes, features))
    return rough(init(g.finish(gat.build(g, x, g.input("edges", (2, edges), "int64"), **hp))), seed=1)


def dense(w, x, edges, heads, concat):
    """The paper's formula over a whole matrix of scores, masked by the edges and the diagonal."""
    n = len(x)
    h = F.linear(x, w["map.weight"]).unflatten(1, (heads, -1)).transpose(0, 1)  # [heads, n, width]
    mask = torch.eye(n, dtype=torch.bool)
    mask[edges[1], edges[0]] = True
    e = (h @ w["score_target"][:, :, None]) + (h @ w["score_source"][:, :, None]).transpose(1, 2)  # [heads, i, j]
    weights = F.leaky_relu(e, 0.2).masked_fill(~mask, float("-inf")).softmax(-1)
    y = weights @ h
    return (y.transpose(0, 1).flatten(1) if concat else y.mean(0)) + w["bias"]


@pytest.mark.parametrize("concat", [True, False])
@pytest.mark.parametrize("heads", [1, 3])
def test_it_is_masked_dense_attention(heads, concat):
    made, x = net(heads=heads, width=5, concat=concat), torch.randn(6, 4)
    expected = dense(made.weights, x, EDGES, heads, concat)
    torch.testing.assert_close(outputs(made, (x, EDGES))[0], expected, rtol=1e-5, atol=1e-6)


def test_weights_of_a_node_sum_to_one():
    made, x = net(heads=3), torch.randn(6, 4)
    inner = Net(Graph(made.graph.nodes, ("attention",)), made.weights)
    weights = outputs(inner, (x, EDGES))[0]
    target = torch.cat([EDGES[1], torch.arange(6)])
    torch.testing.assert_close(torch.zeros(6, 3).index_add(0, target, weights), torch.ones(6, 3))


def test_renaming_the_nodes_renames_the_output():
    made, x = net(heads=2), torch.randn(6, 4)
    order = torch.randperm(6)
    place = order.argsort()
    found = outputs(made, (x[order], place[EDGES]))[0]
    torch.testing.assert_close(found, outputs(made, (x, EDGES))[0][order], rtol=1e-5, atol=1e-6)


def test_the_order_of_the_edges_does_not_matter():
    made, x = net(heads=2), torch.randn(6, 4)
    found = outputs(made, (x, EDGES[:, torch.randperm(8)]))[0]
    torch.testing.assert_close(found, outputs(made, (x, EDGES))[0], rtol=1e-5, atol=1e-6)


def test_a_node_without_neighbours_keeps_its_own_features():
    made, x = net(heads=2, width=3), torch.randn(6, 4)
    found = outputs(made, (x, EDGES))[0][3]
    torch.testing.assert_close(found, F.linear(x, made.weights["map.weight"])[3] + made.weights["bias"])


def test_without_loops_it_hears_only_the_bias():
    made, x = net(heads=2, loops=False), torch.randn(6, 4)
    torch.testing.assert_close(outputs(made, (x, EDGES))[0][3], made.weights["bias"])


def test_the_number_of_nodes_may_be_left_open():
    made = net(nodes=None, heads=2, width=3)
    x = torch.randn(6, 4)
    torch.testing.assert_close(
        outputs(made, (x, EDGES))[0], dense(made.weights, x, EDGES, 2, True), rtol=1e-5, atol=1e-6
    )


def test_edges_of_another_shape_are_refused():
    g = ops.edit()
    x, edges = g.input("x", (6, 4)), g.input("edges", (8, 2), "int64")
    with pytest.raises(TypeMismatch, match="sources over targets"):
        gat.build(g, x, edges)


def test_edges_help_on_a_generated_block_model():
    data = gat.block_model(0)
    none = {**data, "edges": torch.empty(2, 0, dtype=torch.int64)}
    assert gat.accuracy(data, 60, 0) > gat.accuracy(none, 60, 0) + 10


@pytest.mark.data
def test_cora_is_read():
    home = data_home()
    if home is None or not (home / "graph_cora").is_dir():
        pytest.skip("the data folder, which ARCHWRIGHT_DATA names, has no graph_cora")
    data = gat.cora()
    assert data["x"].shape == (2708, 1433) and data["edges"].shape == (2, 10556)
    assert [len(data[name]) for name in ("train", "valid", "test")] == [140, 500, 1000]
