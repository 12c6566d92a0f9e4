"""Costs without running, against what running shows: FLOP counter, saved tensors, tensors alive."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from archwright import build, edit, init
from archwright.ir import Graph
from archwright.net.cost import cost
from archwright.net.net import example
from tests.net import graphs

torch.set_num_threads(1)


class Alive(TorchDispatchMode):
    """Counts the bytes of storages made while it is on, and the most of them alive at once. Knows nothing of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, weakref.finalize] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for t in tree_leaves(made):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                if storage._cdata not in given and storage._cdata not in self.seen:
                    self.now += storage.nbytes()
                    self.seen[storage._cdata] = weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return made

    def free(self, key: int, nbytes: int) -> None:
        self.now -= nbytes
        del self.seen[key]


def alive(graph: Graph, batch: int) -> int:
    module, inputs = build(init(graph)).eval(), example(graph, batch)
    with torch.no_grad(), Alive() as seen:
        module(*inputs)
    return seen.peak


def saved(graph: Graph, batch: int) -> int:
    """Bytes of the storages that autograd holds after a forward pass in training, weights apart."""
    module, inputs = build(init(graph)).train(), example(graph, batch)
    weights = {t.untyped_storage()._cdata for t in (*module.parameters(), *module.buffers())}
    held = {}

    def pack(t):
        storage = t.untyped_storage()
        if storage._cdata not in weights:
            held[storage._cdata] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        kept = module(*inputs)
        assert kept is not None
        return sum(storage.nbytes() for storage in held.values())


def counted(graph: Graph, batch: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(init(graph)).eval()(*example(graph, batch))
    return counter.get_total_flops()


ONE = ("mlp", "cnn", "transformer", "branches")


@pytest.mark.parametrize("name", ONE)
@pytest.mark.parametrize("batch", [1, 8])
def test_peak_is_what_a_run_has_alive(name: str, batch: int) -> None:
    # the caller holds the arguments, so the tracker leaves them out; in these graphs they are gone before the peak.
    # Kernels also return statistics of a few bytes that the graph does not know
    graph = graphs.ALL[name]()
    assert cost(graph, batch).peak_bytes == pytest.approx(alive(graph, batch), rel=0.04)


@pytest.mark.parametrize("name", ["mlp", "cnn", "several", "branches"])
@pytest.mark.parametrize("batch", [2, 8])
def test_train_bytes_are_what_autograd_saves(name: str, batch: int) -> None:
    graph = graphs.ALL[name]()
    assert cost(graph, batch).train_bytes == saved(graph, batch)


def test_train_bytes_of_a_transformer() -> None:
    # fused attention writes its output so that the reshape after it need not copy, which the graph cannot know
    graph = graphs.transformer()
    copies = 2 * 8 * 6 * 16 * 4
    assert cost(graph, 8).train_bytes == saved(graph, 8) + copies


def test_train_bytes_with_dropout_count_the_mask() -> None:
    graph = graphs.mlp(dropout=0.3)
    assert cost(graph, 8).train_bytes == saved(graph, 8)
    # what dropout keeps it keeps in training only: in inference it hands on its input
    assert cost(graph, 8).peak_bytes == cost(graphs.mlp(), 8).peak_bytes == alive(graph, 8)


@pytest.mark.parametrize("name", ["mlp", "cnn", "several", "branches"])
@pytest.mark.parametrize("batch", [1, 3])
def test_flops_are_the_counters(name: str, batch: int) -> None:
    graph = graphs.ALL[name]()
    assert cost(graph, batch).flops == counted(graph, batch)


def test_flops_of_a_transformer() -> None:
    # torch's counter does not know the CPU's fused attention
    graph = graphs.transformer()
    attention = sum(node.flops for node in cost(graph, 8).per_node if node.op == "attention")
    assert attention == 2 * (2 * 2 * 8 * 2 * 6 * 6 * 8)
    assert cost(graph, 8).flops == counted(graph, 8) + attention


@pytest.mark.parametrize("name", graphs.ALL)
def test_parameters_are_those_of_the_module(name: str) -> None:
    graph = graphs.ALL[name]()
    found, module = cost(graph, 2), build(init(graph))
    if name not in ("branches", "modes"):  # branches that are not taken have weights, but no cost
        assert found.params == sum(node.params for node in found.per_node)
    assert found.params == sum(t.numel() for t in module.parameters())
    assert found.param_bytes == sum(t.nbytes for t in module.parameters())
    assert found.buffers == sum(t.numel() for t in module.buffers())
    assert found.buffer_bytes == sum(t.nbytes for t in module.buffers())


def chain(*adds: Callable) -> Graph:
    g = edit()
    x = g.input("x", (None, 4, 6))
    for add in adds:
        x = add(g, x)
    return g.finish(x)


def test_arithmetic_by_hand() -> None:
    graph = chain(
        lambda g, x: g.add("linear", x, out=10, name="fc"),
        lambda g, x: g.add("relu", x, name="act"),
    )
    found = cost(graph, 2)
    x, y, w = 2 * 4 * 6 * 4, 2 * 4 * 10 * 4, (6 * 10 + 10) * 4
    fc, act = found.per_node
    assert (fc.name, fc.op, fc.params, fc.flops) == ("fc", "linear", 70, 2 * 2 * 4 * 6 * 10)
    assert (fc.traffic_bytes, act.traffic_bytes) == (x + w + y, 2 * y)
    assert (fc.train_bytes, act.train_bytes) == (x, y)
    assert (found.peak_bytes, found.peak_node) == (2 * y, "act")
    assert found.traffic_bytes == x + w + y + 2 * y
    assert found.flops == fc.flops


def test_arguments_count_until_their_last_use() -> None:
    graph = graphs.several()
    x = 8 * 8 * 4  # bytes of each value; argument y is an output too, so it stays
    found = cost(graph, 8)
    assert (found.peak_bytes, found.peak_node) == (4 * x, "add")


def test_views_share_memory() -> None:
    graph = chain(
        lambda g, x: g.add("neg", x),
        lambda g, x: g.add("reshape", x, shape=(-1, 24)),
        lambda g, x: g.add("slice", x, dim=1, start=0, stop=1),
        lambda g, x: g.add("expand", x, shape=(-1, 1000)),
        lambda g, x: g.add("square", x),
    )
    found = cost(graph, 2)
    assert [node.traffic_bytes for node in found.per_node[1:4]] == [0, 0, 0]
    assert found.peak_bytes == 2 * 24 * 4 + 2 * 1000 * 4  # the slice keeps all of its base alive
    assert found.peak_bytes == alive(graph, 2)


def test_reshape_of_transposed_data_copies() -> None:
    graph = chain(
        lambda g, x: g.add("neg", x),
        lambda g, x: g.add("transpose", x, dim0=1, dim1=2),
        lambda g, x: g.add("reshape", x, shape=(-1, 24)),
    )
    value = 2 * 24 * 4
    found = cost(graph, 2)
    assert [node.traffic_bytes for node in found.per_node] == [2 * value, 0, 2 * value]
    assert found.peak_bytes == alive(graph, 2) == 2 * value


def test_no_gradient_nothing_kept() -> None:
    plain = chain(lambda g, x: g.add("relu", x), lambda g, x: g.add("exp", x))
    assert cost(plain, 4).train_bytes == saved(plain, 4) == 0
    stopped = chain(
        lambda g, x: g.add("linear", x, out=3),
        lambda g, x: g.add("detach", x),
        lambda g, x: g.add("exp", x),
    )
    assert cost(stopped, 4).train_bytes == saved(stopped, 4) == 4 * 24 * 4  # the linear layer's input


def test_branches_not_taken_cost_nothing_but_their_weights() -> None:
    found = cost(graphs.branches(1), 2)
    assert [node.name for node in found.per_node] == ["way1.up", "way1.down", "choice"]
    assert found.params == 3 * (4 * 9 + 9 + 9 * 4 + 4)
    assert found.flops == 2 * 2 * (4 * 9 + 9 * 4)


def test_each_mode_costs_what_it_runs() -> None:
    graph = graphs.modes()
    found = cost(graph, 8)
    assert [node.name for node in found.per_node] == ["neg", "cold", "choice", "after", "exp"]
    assert found.flops == counted(graph, 8) == 2 * 8 * 8 * 8
    assert found.peak_bytes == alive(graph, 8)
    assert found.train_bytes == saved(graph, 8) == 3 * 8 * 8 * 4  # input of linear, outputs of relu and exp
    assert found.traffic_bytes == 2 * 256 + (2 * 256 + 72 * 4) + 0 + 0 + 2 * 256


def test_shared_slots_count_once() -> None:
    found = cost(graphs.several(), 2)
    assert [node.params for node in found.per_node[:2]] == [8 * 8 + 8, 0]
    assert found.params == 8 * 8 + 8


def test_as_dict_is_json_and_table_is_aligned() -> None:
    found = init(graphs.cnn()).cost(4)
    data = json.loads(json.dumps(found.as_dict()))
    assert data["batch"] == 4 and data["flops"] == found.flops
    assert data["per_node"][0]["outputs"] == ["float32[4, 8, 8, 8]"]
    assert {key: value for key, value in data.items() if key != "per_node"} == {
        key: value for key, value in found._asdict().items() if key != "per_node"
    }
    lines = str(found).splitlines()
    assert lines[0] == "batch 4" and "parameters   2,757" in lines[1]
    head = lines.index(next(line for line in lines if line.startswith("node")))
    assert len(lines) - head - 1 == len(found.per_node)
    column = lines[head].index("op ")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[head:])


def test_remembered() -> None:
    graph = graphs.mlp()
    assert cost(graph, 2) is cost(graph, 2)
    assert cost(graph, 2) == cost(Graph(graph.nodes, graph.outputs), 2)
