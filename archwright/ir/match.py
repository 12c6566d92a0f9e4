"""Patterns: find small pieces of a graph by ops and wiring.

    conv = Pattern("conv", ANY, name="conv")
    for found in find(graph, Pattern("batch_norm", conv, name="norm")):
        found["conv"], found["norm"]          # the nodes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archwright.ir.graph import Graph, Node, owner


@dataclass(frozen=True)
class Any_:
    """Matches any value. With a name, the value's name is bound; the same name twice must be the same value."""

    name: str | None = None


ANY = Any_()
REST = Any_("...")
"""As the last input of a pattern: any number of further inputs."""


@dataclass(frozen=True, init=False)
class Pattern:
    """A node whose op is one of `op` (a name, several joined by "|", or "*" for any) and whose inputs match.

    `where` is a further test of the node. `name` binds the node in the result.
    """

    ops: frozenset[str]
    inputs: tuple[Pattern | Any_, ...]
    name: str | None
    where: Callable[[Node], bool] | None

    def __init__(
        self,
        op: str,
        *inputs: Pattern | Any_,
        name: str | None = None,
        where: Callable[[Node], bool] | None = None,
    ) -> None:
        object.__setattr__(self, "ops", frozenset(op.split("|")))
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "where", where)


@dataclass(frozen=True)
class Match:
    """Where a pattern was found: `nodes` by pattern name, `values` by the names of `Any_`, `all` the matched nodes."""

    root: Node
    nodes: Mapping[str, Node]
    values: Mapping[str, str]
    all: tuple[Node, ...]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]


def find(graph: Graph, pattern: Pattern) -> Iterator[Match]:
    """All places where the pattern's root matches, in the order of the graph. Matches may overlap."""
    for node in graph.nodes:
        if node.op in pattern.ops or "*" in pattern.ops:
            found = match(graph, pattern, node)
            if found is not None:
                yield found


def match(graph: Graph, pattern: Pattern, root: Node) -> Match | None:
    """The match of the pattern at one node, or None."""
    nodes: dict[str, Node] = {}
    values: dict[str, str] = {}
    seen: dict[str, Node] = {}
    if not _match(graph, pattern, root, nodes, values, seen):
        return None
    return Match(root, nodes, values, tuple(seen.values()))


def _match(
    graph: Graph, pattern: Pattern, node: Node, nodes: dict[str, Node], values: dict[str, str], seen: dict[str, Node]
) -> bool:
    if not (node.op in pattern.ops or "*" in pattern.ops) or (pattern.where is not None and not pattern.where(node)):
        return False
    wanted, open_ended = pattern.inputs, bool(pattern.inputs) and pattern.inputs[-1] is REST
    if open_ended:
        wanted = wanted[:-1]
    if len(node.inputs) < len(wanted) or (len(node.inputs) > len(wanted) and not open_ended):
        return False
    seen[node.name] = node
    if pattern.name is not None and nodes.setdefault(pattern.name, node) != node:
        return False
    for inner, value in zip(wanted, node.inputs, strict=False):
        if isinstance(inner, Any_):
            if inner.name is not None and values.setdefault(inner.name, value) != value:
                return False
        elif not _match(graph, inner, graph.by_name[owner(value)], nodes, values, seen):
            return False
    return True
