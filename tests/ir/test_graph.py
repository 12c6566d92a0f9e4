import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright.errors import ArchwrightError, FormatError, GraphError
from archwright.ir import Graph, Node, rename, sort
from tests.ir.strategies import graphs

IN = Node("x", "input", (), {"shape": [None, 4]})


def chain(*ops: str) -> Graph:
    nodes, value = [IN], "x"
    for i, op in enumerate(ops):
        nodes.append(Node(f"n{i}", op, (value,)))
        value = f"n{i}"
    return Graph(tuple(nodes), (value,))


# ------------------------------------------------------------------------------------------------------------ JSON
@given(graphs())
def test_json_goes_round(graph):
    again = Graph.from_json(graph.to_json())
    assert again == graph and again.key() == graph.key() and again.to_json() == graph.to_json()


@given(graphs(), st.data())
@settings(max_examples=60)
def test_any_truncation_is_a_clear_error(graph, data):
    text = graph.to_json().rstrip()
    cut = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ArchwrightError):
        Graph.from_json(text[:cut])


@given(graphs(max_nodes=4), st.data())
@settings(max_examples=150)
def test_no_edit_of_a_file_gives_anything_but_a_graph_or_a_clear_error(graph, data):
    parsed = json.loads(graph.to_json())
    junk = data.draw(st.sampled_from([None, 3, "x", [], {}, [1], {"name": 1}, True, -1, "in", ["in"], 2.5]))
    where = data.draw(st.sampled_from(["version", "nodes", "outputs", "node", "field", "extra"]))
    if where in parsed:
        parsed[where] = junk
    elif where == "node":
        parsed["nodes"][data.draw(st.integers(0, len(parsed["nodes"]) - 1))] = junk
    elif where == "field":
        node = parsed["nodes"][data.draw(st.integers(0, len(parsed["nodes"]) - 1))]
        node[data.draw(st.sampled_from(["name", "op", "inputs", "attrs", "slot"]))] = junk
    else:
        parsed["extra"] = junk
    try:
        assert isinstance(Graph.from_json(json.dumps(parsed)), Graph)
    except ArchwrightError as error:
        assert len(str(error)) > 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"nodes": [], "outputs": []}', "version"),
        ('{"version": 99, "nodes": [], "outputs": []}', "got version 99"),
        ('{"version": true, "nodes": [], "outputs": []}', "version"),
        ('{"version": 1, "nodes": [], "outputs": []}', "no outputs"),
        ('{"version": 1, "nodes": [{"name": "a", "op": "input", "attrs": {"p": NaN}}], "outputs": ["a"]}', "NaN"),
        (
            '{"version": 1, "nodes": [{"name": "a", "op": "f", "colour": 1}], "outputs": ["a"]}',
            "unknown field 'colour'",
        ),
        ('{"version": 1, "nodes": [{"name": "a", "op": "f", "inputs": "b"}], "outputs": ["a"]}', "node 'a'"),
    ],
)
def test_bad_files_say_what_is_wrong(text, message):
    with pytest.raises(ArchwrightError, match=message):
        Graph.from_json(text)


def test_deep_nesting_is_an_error_and_not_a_crash():
    with pytest.raises(FormatError):
        Graph.from_json("[" * 200_000)


# ------------------------------------------------------------------------------------------------------- structure
@pytest.mark.parametrize(
    ("nodes", "outputs", "message"),
    [
        ([IN, Node("x", "f")], ["x"], "two nodes are named 'x'"),
        ([IN, Node("y", "f", ("z",))], ["y"], "node 'y' reads 'z', which no node makes"),
        ([IN, Node("a", "f", ("b",)), Node("b", "f", ("a",))], ["b"], "'a' reads 'b', which comes later"),
        ([IN, Node("a", "f", ("a",))], ["a"], "itself"),
        ([IN], ["y"], "output 'y' is made by no node"),
        ([IN, Node("", "f")], ["x"], "not allowed"),
        ([IN, Node("a:1", "f")], ["x"], "not allowed"),
        ([IN, Node("a", "f", ("x:0",))], ["a"], "number from 1"),
        ([IN, Node("a", "f", ("x:z",))], ["a"], "number from 1"),
    ],
)
def test_bad_structure_names_the_node(nodes, outputs, message):
    with pytest.raises(GraphError, match=message):
        Graph(tuple(nodes), tuple(outputs))


def test_a_graph_is_a_value():
    assert chain("f", "g") == chain("f", "g") and hash(chain("f", "g")) == hash(chain("f", "g"))
    with pytest.raises(AttributeError):
        chain("f").nodes = ()
    with pytest.raises(AttributeError):
        IN.op = "g"


# ------------------------------------------------------------------------------------------------------------- key
@given(graphs(), st.randoms(use_true_random=False))
def test_key_is_blind_to_names_and_to_the_order_of_independent_nodes(graph, random):
    names = {node.name: f"renamed.{i}" for i, node in enumerate(graph.nodes)}
    other = rename(graph, names)
    slots = {slot: f"s{i}" for i, slot in enumerate(sorted(graph.slots))}
    nodes = [
        n if n.slot is None else n.with_(slot=slots.get(n.slot, slots.get(_old(names, n.slot)))) for n in other.nodes
    ]
    inputs = [n for n in nodes if n.op == "input"]
    rest = [n for n in nodes if n.op != "input"]
    random.shuffle(rest)
    assert Graph(sort([*inputs, *rest]), other.outputs).key() == graph.key()


def _old(names, new):
    return next((old for old, name in names.items() if name == new), None)


def test_key_tells_tied_from_separate_weights():
    def pair(first, second):
        return Graph((IN, Node("a", "f", ("x",), {}, first), Node("b", "f", ("a",), {}, second)), ("b",))

    assert pair("s", "s").key() != pair("s", "t").key()
    assert pair("s", "t").key() == pair("u", "v").key()


def test_key_tells_the_order_of_arguments_and_which_output_is_read():
    two = (IN, Node("y", "input", (), {"shape": [None, 4]}))
    keys = {
        Graph((*two, Node("d", "sub", pair)), ("d",)).key() for pair in (("x", "y"), ("y", "x"), ("x", "x"), ("y", "y"))
    }
    assert len(keys) == 4
    split = Node("s", "two", ("x",))
    keys = {Graph((IN, split), outputs).key() for outputs in (("s",), ("s:1",), ("s", "s:1"), ("s:1", "s"))}
    assert len(keys) == 4


def test_key_tells_a_shared_value_from_one_computed_twice():
    shared = Graph((IN, Node("a", "f", ("x",)), Node("c", "add", ("a", "a"))), ("c",))
    twice = Graph((IN, Node("a", "f", ("x",)), Node("b", "f", ("x",)), Node("c", "add", ("a", "b"))), ("c",))
    assert shared.key() != twice.key()


def test_key_ignores_dead_nodes_but_not_unused_arguments():
    base = chain("f")
    dead = Graph((*base.nodes, Node("dead", "g", ("x",))), base.outputs)
    unused = Graph((*base.nodes, Node("y", "input", (), {"shape": [None, 4]})), base.outputs)
    assert dead.key() == base.key() != unused.key()


def test_key_is_the_same_for_ever():
    assert chain("relu", "tanh").key() == "46a27fa5f7ac514612f7a6f12028076e"


def test_key_of_a_deep_graph_needs_no_recursion():
    assert len(chain(*["f"] * 20_000).key()) == 32


@given(graphs(), graphs())
def test_different_graphs_have_different_keys(one, other):
    if one.key() == other.key():
        assert [n.op for n in _walk(one)] == [n.op for n in _walk(other)]
        assert [n.attrs for n in _walk(one)] == [n.attrs for n in _walk(other)]


def _walk(graph):
    """Live nodes, depth first: an independent reading of what the key promises."""
    done, order = set(), []

    def visit(name):
        if name not in done:
            done.add(name)
            for value in graph[name].inputs:
                visit(value.partition(":")[0])
            order.append(graph[name])

    for value in graph.outputs:
        visit(value.partition(":")[0])
    return order
