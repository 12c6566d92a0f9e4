from archwright.ir import ANY, REST, Any_, Graph, Node, Pattern, find

IN = Node("x", "input", (), {"shape": [None, 4]})
GRAPH = Graph(
    (
        IN,
        Node("c1", "conv", ("x",), {"out": 4}),
        Node("b1", "norm", ("c1",)),
        Node("c2", "conv", ("b1",), {"out": 8}),
        Node("b2", "norm", ("c2",)),
        Node("s", "add", ("b1", "b2")),
        Node("t", "add", ("s", "s")),
    ),
    ("t",),
)


def test_finds_every_place_in_order():
    found = list(find(GRAPH, Pattern("norm", Pattern("conv", ANY, name="conv"), name="norm")))
    assert [(m["conv"].name, m["norm"].name) for m in found] == [("c1", "b1"), ("c2", "b2")]
    assert [n.name for n in found[0].all] == ["b1", "c1"]


def test_values_bind_and_repeat():
    same = Any_("v")
    assert [m.root.name for m in find(GRAPH, Pattern("add", same, same))] == ["t"]
    assert next(find(GRAPH, Pattern("add", Any_("a"), Any_("b")))).values == {"a": "b1", "b": "b2"}


def test_alternatives_wildcards_conditions_and_arity():
    assert len(list(find(GRAPH, Pattern("conv|norm", ANY)))) == 4
    assert len(list(find(GRAPH, Pattern("*", REST)))) == 7
    assert [m.root.name for m in find(GRAPH, Pattern("conv", ANY, where=lambda n: n.attrs["out"] == 8))] == ["c2"]
    assert not list(find(GRAPH, Pattern("add", ANY)))
    assert len(list(find(GRAPH, Pattern("add", ANY, REST)))) == 2
