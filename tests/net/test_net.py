"""Nets as values: weights that fit, files that go round, and files that are wrong in every way we could think of."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archwright
from archwright import ops
from archwright.errors import ArchwrightError, ConsentError, FormatError, GraphError, UnknownOp, WeightsError
from archwright.ir import Graph, Node
from archwright.net.net import GRAPH_FILE, WEIGHTS_FILE, Net, example, init, load

SAVED = Path(__file__).parent.parent / "fixtures" / "saved"


def small() -> Net:
    g = ops.edit()
    x = g.add("conv", g.input("x", (None, 3, 6, 6)), out=4, kernel=3, name="stem")
    x = g.add("relu", g.add("batch_norm", x, name="norm"))
    return init(g.finish(g.add("linear", g.add("flatten", x), out=2, name="head")), seed=3)


# -------------------------------------------------------------------------------------------------------- the value
def test_initial_weights_depend_on_the_seed_alone():
    one, other, third = init(small().graph, 1), init(small().graph, 1), init(small().graph, 2)
    assert all(torch.equal(one.weights[n], other.weights[n]) for n in one.weights)
    assert not torch.equal(one.weights["stem.weight"], third.weights["stem.weight"])
    assert one.weights["norm.num_batches_tracked"].dtype == torch.int64


def test_weights_must_fit_the_graph():
    net = small()
    fine = dict(net.weights)

    def refuse(message, **changes):
        with pytest.raises(WeightsError, match=message):
            Net(net.graph, {name: t for name, t in {**fine, **changes}.items() if t is not None})

    refuse("missing head.bias", **{"head.bias": None})
    refuse("not in the graph extra.weight", **{"extra.weight": torch.zeros(1)})
    refuse(r"'head.bias' has shape \[3\], the graph expects \[2\]", **{"head.bias": torch.zeros(3)})
    refuse("'head.bias' is int64, the graph expects float32", **{"head.bias": torch.zeros(2, dtype=torch.int64)})
    refuse("num_batches_tracked' is float32", **{"norm.num_batches_tracked": torch.tensor(0.0)})
    half = Net(net.graph, {n: t.half() if t.is_floating_point() else t for n, t in fine.items()})
    assert half.weights["head.bias"].dtype == torch.float16
    with pytest.raises(TypeError):
        net.weights["head.bias"] = torch.zeros(2)


def test_a_slot_used_twice_must_hold_the_same():
    nodes = (
        Node("x", "input", (), {"shape": [None, 4]}),
        Node("a", "linear", ("x",), {"out": 4}, "s"),
        Node("b", "linear", ("a",), {"out": 5}, "s"),
    )
    with pytest.raises(GraphError, match="node 'b': slot 's'"):
        init(Graph(nodes, ("b",)))
    with pytest.raises(GraphError, match="node 'a': linear has weights, but no slot"):
        ops.params(Graph((nodes[0], Node("a", "linear", ("x",), {"out": 4})), ("a",)))
    with pytest.raises(GraphError, match="node 'a': relu has a slot, but no weights"):
        ops.params(Graph((nodes[0], Node("a", "relu", ("x",), {}, "s")), ("a",)))


# ---------------------------------------------------------------------------------------------------------- files
def test_a_saved_net_goes_round(tmp_path):
    net = small()
    again = load(net.save(tmp_path / "a" / "b"))
    assert again.graph == net.graph and again.graph.key() == net.graph.key()
    assert all(torch.equal(again.weights[n], t) and again.weights[n].dtype == t.dtype for n, t in net.weights.items())
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted([GRAPH_FILE, WEIGHTS_FILE])
    assert archwright.load(tmp_path / "a" / "b").graph == net.graph


def test_weights_that_share_memory_are_saved(tmp_path):
    net = small()
    block = torch.zeros(4)
    weights = {**net.weights, "norm.weight": block, "norm.bias": block}
    again = load(Net(net.graph, weights).save(tmp_path))
    assert torch.equal(again.weights["norm.weight"], again.weights["norm.bias"])


@pytest.mark.parametrize("folder", sorted(SAVED.iterdir()) if SAVED.exists() else [], ids=lambda p: p.name)
def test_files_of_earlier_versions_load_for_ever(folder):
    record = json.loads((folder / "expected.json").read_text())
    net = load(folder, allow_opaque=True)
    assert net.graph.key() == record["key"]
    outputs = ops.run(net.graph, net.weights, example(net.graph, 2, seed=0))
    found = [float(t.double().sum()) for t in outputs]
    assert found == pytest.approx(record["sums"], rel=1e-4, abs=1e-4)


def write(folder: Path, graph: object, weights: dict | bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / GRAPH_FILE).write_text(graph if isinstance(graph, str) else json.dumps(graph))
    if isinstance(weights, bytes):
        (folder / WEIGHTS_FILE).write_bytes(weights)
    elif weights is not None:
        safetensors.torch.save_file(weights, folder / WEIGHTS_FILE)
    return folder


def parsed() -> dict:
    return json.loads(small().graph.to_json())


def test_an_unknown_op_is_named_with_the_nearest(tmp_path):
    graph = parsed()
    graph["nodes"][1]["op"] = "convolution"
    with pytest.raises(UnknownOp, match=r"node 'stem': unknown op 'convolution'.*did you mean .*conv"):
        load(write(tmp_path, graph, dict(small().weights)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "four"}, "attribute 'out' is 'four', expected an integer of at least 1"),
        ({"out": 0}, "expected an integer of at least 1"),
        ({"out": True}, "expected an integer of at least 1"),
        ({"kernel": [3, 5, 3]}, "3 entries, expected one for each of 2"),
        ({"kernel": 99}, "does not fit"),
        ({"groups": 2}, "multiple of groups=2"),
        ({"colour": 1}, "unknown attribute 'colour'"),
        ({"out": 5}, "'stem.weight' has shape"),
    ],
)
def test_wrong_attributes_name_the_node(tmp_path, change, message):
    graph = parsed()
    graph["nodes"][1]["attrs"].update(change)
    with pytest.raises(ArchwrightError, match=message):
        load(write(tmp_path, graph, dict(small().weights)))


def test_files_that_are_not_there_or_not_whole(tmp_path):
    with pytest.raises(FormatError, match=r"holds no graph\.json"):
        load(tmp_path)
    folder = small().save(tmp_path / "net")
    whole = (folder / WEIGHTS_FILE).read_bytes()
    for cut in (0, 4, 8, 100, len(whole) - 1):
        (folder / WEIGHTS_FILE).write_bytes(whole[:cut])
        with pytest.raises(FormatError, match="not a whole safetensors file"):
            load(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(FormatError, match=r"holds no weights\.safetensors"):
        load(folder)
    (folder / GRAPH_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="cannot be read"):
        load(folder)


def test_opaque_nodes_need_consent_before_anything_is_looked_at(tmp_path):
    graph = {
        "version": 1,
        "nodes": [
            {"name": "x", "op": "input", "attrs": {"shape": [None, 4]}},
            {"name": "y", "op": "opaque", "inputs": ["x"], "attrs": {"target": "aten.no_such_thing.default"}},
        ],
        "outputs": ["y"],
    }
    with pytest.raises(ConsentError, match=r"aten.no_such_thing.default.*allow_opaque"):
        load(write(tmp_path, graph, {"w": torch.zeros(1)}))
    with pytest.raises(ArchwrightError):
        load(tmp_path, allow_opaque=True)


@given(st.data())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_fuzzed_files_give_a_net_or_a_clear_error(tmp_path, data):
    """Random edits of a saved net: of the JSON tree, or of single bytes of either file."""
    folder = small().save(tmp_path / "fuzz")
    kind = data.draw(st.sampled_from(["tree", "graph bytes", "weight bytes"]))
    if kind == "tree":
        graph = parsed()
        node = graph["nodes"][data.draw(st.integers(0, len(graph["nodes"]) - 1))]
        junk = st.sampled_from([None, -1, 0, 2**70, 1.5, "x", [], [1, -1], {}, {"a": []}, True, "norm", ["stem"]])
        if data.draw(st.booleans()) and node.get("attrs"):
            node["attrs"][data.draw(st.sampled_from([*node["attrs"], "stride", "eps"]))] = data.draw(junk)
        else:
            node[data.draw(st.sampled_from(["name", "op", "inputs", "attrs", "slot"]))] = data.draw(junk)
        (folder / GRAPH_FILE).write_text(json.dumps(graph))
    else:
        path = folder / (GRAPH_FILE if kind == "graph bytes" else WEIGHTS_FILE)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, min(len(content), 1500) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(content))
    try:
        assert isinstance(load(folder), Net)
    except ArchwrightError as error:
        assert len(str(error)) > 10


def test_examples_fit_the_graph():
    g = ops.edit()
    ids = g.input("ids", (None, 5), "int64")
    mask = g.input("mask", (None, 5), "bool")
    x = g.add("embedding", g.add("masked_fill", ids, mask, value=0), num=7, dim=4)
    graph = g.finish(x)
    found, flags = example(graph, 64)
    assert found.dtype == torch.int64 and found.shape == (64, 5) and flags.dtype == torch.bool
    assert torch.equal(example(graph, 64)[0], found)
