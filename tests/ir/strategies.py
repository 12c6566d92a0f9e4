"""Hypothesis strategies: random attribute values and random graphs, with sharing, several outputs and dead nodes."""

from __future__ import annotations

from hypothesis import strategies as st

from archwright.ir import Graph, Node

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
attributes = st.dictionaries(st.text(min_size=1, max_size=6), json_values, max_size=3)


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 12) -> Graph:
    """A graph of made-up ops: structure is all that floor 0 knows."""
    count = draw(st.integers(1, max_nodes))
    nodes = [Node("in", "input", (), {"shape": [None, 3]})]
    values = ["in"]
    for i in range(count):
        kind = draw(st.sampled_from(["f", "g", "h", "two", "input"]))
        name = f"n{i}" if draw(st.booleans()) else f"block.{i}.é"
        if kind == "input":
            nodes.append(Node(name, "input", (), {"shape": [None, 3]}))
        else:
            inputs = tuple(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3)))
            slot = draw(st.none() | st.sampled_from(["w0", "w1", name]))
            nodes.append(Node(name, kind, inputs, draw(attributes), slot))
        values.append(name)
        if kind == "two":
            values.append(f"{name}:1")
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return Graph(tuple(nodes), tuple(outputs))
