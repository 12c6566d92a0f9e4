"""Walks over a graph: what a value needs, what needs it, which nodes are alive, in which order to run them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from archwright.errors import GraphError
from archwright.ir.graph import INPUT, Graph, Node, owner


def ancestors(graph: Graph, values: Iterable[str]) -> set[str]:
    """Names of the nodes that the values need, their own makers included."""
    found: set[str] = set()
    stack = [owner(value) for value in values]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(owner(value) for value in graph[name].inputs)
    return found


def descendants(graph: Graph, names: Iterable[str]) -> set[str]:
    """Names of the nodes that read, directly or not, what the named nodes make, themselves included."""
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(user.name for user in graph.users[name])
    return found


def alive(graph: Graph) -> Graph:
    """The graph without the nodes that no output needs. Inputs stay: they are the signature."""
    needed = ancestors(graph, graph.outputs)
    if len(needed) == len(graph.nodes):
        return graph
    return Graph(tuple([n for n in graph.nodes if n.name in needed or n.op == INPUT]), graph.outputs)


def last_uses(graph: Graph) -> Mapping[str, tuple[str, ...]]:
    """Node name -> the values that nobody reads after that node has run (outputs of the graph never).

    A value that nobody reads at all dies where it is made; only values that some node names are listed.
    """
    last: dict[str, str] = {}
    for node in graph.nodes:
        last[node.name] = node.name
        for value in node.inputs:
            last[value] = node.name
    dying: dict[str, list[str]] = {}
    kept = set(graph.outputs)
    for value, name in last.items():
        if value not in kept:
            dying.setdefault(name, []).append(value)
    return {name: tuple(values) for name, values in dying.items()}


def sort(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes in topological order, moved as little as possible. Raises `GraphError` on a cycle or unknown name."""
    by_name = {node.name: node for node in nodes}
    done: set[str] = set()
    ordered: list[Node] = []
    for root in nodes:
        stack, open_ = [root.name], set()
        while stack:
            name = stack[-1]
            if name in done:
                stack.pop()
                continue
            node = by_name[name]
            waiting = []
            for value in node.inputs:
                source = owner(value)
                if source not in by_name:
                    raise GraphError(f"node '{name}' reads '{value}', which no node makes")
                if source not in done:
                    waiting.append(source)
            if not waiting:
                stack.pop()
                open_.discard(name)
                done.add(name)
                ordered.append(node)
                continue
            open_.add(name)
            for source in waiting:
                if source in open_:
                    raise GraphError(f"node '{name}' and node '{source}' need each other: a graph has no cycles")
            stack.extend(reversed(waiting))
    return tuple(ordered)


def rename(graph: Graph, names: Mapping[str, str]) -> Graph:
    """The graph with nodes renamed, and slots that had a renamed node's name with them. Others keep theirs."""

    def value(old: str) -> str:
        source, colon, index = old.partition(":")
        return names.get(source, source) + colon + index

    nodes = [
        node.with_(
            name=names.get(node.name, node.name),
            inputs=tuple(map(value, node.inputs)),
            slot=node.slot if node.slot is None else names.get(node.slot, node.slot),
        )
        for node in graph.nodes
    ]
    return Graph(tuple(nodes), tuple(map(value, graph.outputs)))
