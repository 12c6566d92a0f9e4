import pytest
from hypothesis import given

from archwright.errors import GraphError
from archwright.ir import Graph, Node, alive, ancestors, descendants, last_uses, owner, sort
from tests.ir.strategies import graphs

IN = Node("x", "input", (), {"shape": [None, 4]})


@given(graphs())
def test_alive_keeps_what_the_outputs_need_and_the_arguments(graph):
    kept = {node.name for node in alive(graph).nodes}
    assert kept == ancestors(graph, graph.outputs) | {node.name for node in graph.inputs}
    assert alive(graph).key() == graph.key()


@given(graphs())
def test_ancestors_and_descendants_are_each_others_reverse(graph):
    for node in graph.nodes:
        for other in graph.nodes:
            assert (node.name in ancestors(graph, [other.name])) == (other.name in descendants(graph, [node.name]))


@given(graphs())
def test_values_die_after_their_last_use_and_not_before(graph):
    dying = last_uses(graph)
    position = {node.name: i for i, node in enumerate(graph.nodes)}
    dead_at = {value: position[name] for name, values in dying.items() for value in values}
    for node in graph.nodes:
        for value in node.inputs:
            assert value in graph.outputs or dead_at[value] >= position[node.name]
    assert not set(dead_at) & set(graph.outputs)


@given(graphs())
def test_sort_restores_a_reversed_graph(graph):
    inputs = [n for n in graph.nodes if n.op == "input"]
    rest = [n for n in graph.nodes if n.op != "input"]
    made = set()
    for node in sort([*rest[::-1], *inputs]):
        assert {owner(value) for value in node.inputs} <= made
        made.add(node.name)
    assert sort(graph.nodes) == graph.nodes


def test_sort_refuses_cycles_and_unknown_names():
    with pytest.raises(GraphError, match="need each other"):
        sort([Node("a", "f", ("b",)), Node("b", "f", ("a",))])
    with pytest.raises(GraphError, match="no node makes"):
        sort([Node("a", "f", ("b",))])


def test_sort_does_not_recurse():
    nodes = [IN, *[Node(f"n{i}", "f", (f"n{i - 1}" if i else "x",)) for i in range(5000)]]
    assert len(sort(nodes[::-1])) == 5001
    assert len(Graph(sort(nodes[::-1]), ("n4999",))) == 5001
