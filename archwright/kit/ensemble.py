"""Several nets as one: each runs on the same inputs, and their predictions are averaged inside the graph.

    classes    y = log(1/m sum_i softmax(f_i(x)))        numbers    y = 1/m sum_i f_i(x)

Shapes: [N, k] -> [N, k]; the result for classes are logits whose softmax is the mean probability. Weights, FLOPs and
time are those of all members together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright import ops
from archwright.errors import GraphError
from archwright.ir import INPUT, Graph, Node, owner
from archwright.net.net import Net

LEAST = 1e-12
"""Probabilities below this one are taken for it where their logarithm is needed."""


def ensemble(nets: Sequence[Net], task: str) -> Net:
    """One net from several that take the same inputs and give [N, k]. A single net is returned as it is.

    Names become "member0.<name>" and so on; the inputs are those of the first. Raises `GraphError` if inputs differ.
    """
    graph = ensemble_graph([net.graph for net in nets], task)
    if len(nets) == 1:
        return nets[0]
    weights = {f"member{i}.{name}": tensor for i, net in enumerate(nets) for name, tensor in net.weights.items()}
    return Net(graph, weights)


def ensemble_graph(graphs: Sequence[Graph], task: str) -> Graph:
    """The graph of `ensemble`, for costs that are wanted before there are weights."""
    if not graphs:
        raise GraphError("got no nets, expected at least one")
    first = graphs[0]
    if len(graphs) == 1:
        return first
    nodes = list(first.inputs)
    names = [node.name for node in first.inputs]
    outputs: list[str] = []
    for i, graph in enumerate(graphs):
        if [n.attrs for n in graph.inputs] != [n.attrs for n in first.inputs] or len(graph.outputs) != 1:
            raise GraphError("nets of an ensemble need the same inputs and one output each")
        place = {node.name: name for node, name in zip(graph.inputs, names, strict=True)}
        place |= {node.name: f"member{i}.{node.name}" for node in graph.nodes if node.op != INPUT}
        for node in graph.nodes:
            if node.op != INPUT:
                slot = f"member{i}.{node.slot}" if node.slot is not None else None
                nodes.append(Node(place[node.name], node.op, _moved(node.inputs, place), node.attrs, slot))
        outputs += _moved(graph.outputs, place)
    g = ops.edit(Graph(tuple(nodes), tuple(outputs)))
    with g.scope("mean"):
        if task == "classification":
            outputs = [g.add("softmax", y, dim=-1) for y in outputs]
        total = outputs[0]
        for y in outputs[1:]:
            total = g.add("add", total, y)
        total = g.add("mul", total, value=1 / len(graphs))
        if task == "classification":
            total = g.add("log", g.add("clamp", total, min=LEAST))
    return g.finish(total)


def _moved(values: Sequence[str], place: dict[str, str]) -> tuple[str, ...]:
    return tuple([place[owner(v)] + v[len(owner(v)) :] for v in values])


def averaged(output: NDArray[Any], task: str) -> NDArray[np.float32]:
    """What is averaged of outputs that are there already, [rows, k]: probabilities of classes, or the numbers."""
    if task != "classification":
        return output
    from scipy.special import softmax

    return np.asarray(softmax(output, -1), np.float32)


def output_of(mean: NDArray[np.float32], task: str) -> NDArray[np.float32]:
    """The output that stands for such a mean."""
    return np.log(np.maximum(mean, LEAST)) if task == "classification" else mean


def mean_outputs(outputs: Sequence[NDArray[Any]], task: str) -> NDArray[np.float32]:
    """The outputs of `ensemble`, of those of its nets: [rows, k] each."""
    if len(outputs) == 1:
        return outputs[0]
    return output_of(np.mean([averaged(y, task) for y in outputs], axis=0), task)
