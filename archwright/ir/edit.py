"""`Editor`: the one way to make and change graphs. A graph is immutable; an editor gathers nodes and finishes one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from archwright.errors import ArchwrightError, GraphError
from archwright.ir.graph import INPUT, Graph, Node, output, owner
from archwright.ir.types import Attrs, Type
from archwright.ir.walk import alive, sort

BATCH = 2
"""The batch size at which an editor shows types. Not 1, so that a mistaken broadcast over the batch is seen."""


class Ops(Protocol):
    """What an editor has to know about operations. `archwright.ops` provides it."""

    def admit(self, op: str, attrs: Mapping[str, Any], inputs: Sequence[Type]) -> tuple[Attrs, tuple[Type, ...], bool]:
        """Canonical attributes, output types, and whether the op has weights. Raises for anything not allowed."""
        ...


class Editor:
    """Gathers nodes, then `finish(*outputs)` gives the graph.

        g = archwright.edit()
        x = g.input("x", (None, 3, 32, 32))             # None is the batch
        x = g.add("conv", x, out=16, kernel=3, padding=1, name="stem")
        graph = g.finish(g.add("relu", x))

    Every `add` checks attributes and types at once. Types are shown at batch size `BATCH`: write -1, not that
    number, where the batch is meant.
    """

    def __init__(self, graph: Graph | None = None, *, ops: Ops) -> None:
        self._ops = ops
        self._nodes: dict[str, Node] = {}
        self._types: dict[str, Type] = {}
        self._prefix = ""
        self._counts: dict[str, int] = {}
        self._outputs: tuple[str, ...] = ()
        if graph is not None:
            for node in graph.nodes:
                self._admit(node)
            self._outputs = graph.outputs

    def input(self, name: str, shape: Sequence[int | None], dtype: str = "float32") -> str:
        """A new argument of the graph. `shape` has None where the batch is."""
        value: str = self.add(INPUT, name=name, shape=tuple(shape), dtype=dtype)
        return value

    def add(self, op: str, *inputs: str, name: str | None = None, slot: str | None = None, **attrs: Any) -> Any:
        """Add a node; returns the name of its value, or a tuple of names if it has several outputs.

        `name` is made up from the op where it isn't given, and prefixed by the open scopes. `slot` names the weights,
        by default the node's own name: give another node's to share its weights.
        """
        full = self._prefix + name if name is not None else self.fresh(self._prefix + op)
        if full in self._nodes:
            raise GraphError(f"two nodes are named '{full}': names must be unique")
        outputs = self._admit(Node(full, op, inputs, Attrs(attrs), slot))
        return outputs[0] if len(outputs) == 1 else outputs

    def fresh(self, stem: str) -> str:
        """A name that no node has: the stem itself, or the stem with the first free number."""
        count = self._counts.get(stem, 0)
        name = f"{stem}_{count}" if count else stem
        while name in self._nodes:
            count += 1
            name = f"{stem}_{count}"
        self._counts[stem] = count + 1
        return name

    @property
    def prefix(self) -> str:
        """What the open scopes put before the names of new nodes."""
        return self._prefix

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Within the `with` block, names of new nodes get the prefix `name.`. Scopes nest."""
        before = self._prefix
        self._prefix = f"{before}{name}."
        try:
            yield
        finally:
            self._prefix = before

    def type(self, value: str) -> Type:
        """Type of a value at batch size `BATCH`."""
        try:
            return self._types[value]
        except KeyError:
            raise GraphError(f"no value is named '{value}'") from None

    def shape(self, value: str) -> tuple[int, ...]:
        """Shape of a value at batch size `BATCH`."""
        return self.type(value).shape

    def node(self, name: str) -> Node:
        """The node of that name, or that makes that value."""
        try:
            return self._nodes[owner(name)]
        except KeyError:
            raise GraphError(f"no node is named '{name}'") from None

    def redirect(self, old: str, new: str) -> None:
        """Let everything that reads value `old` (outputs included) read value `new`, except what `new` itself needs."""
        if self.type(old) != self.type(new):
            raise GraphError(f"cannot let '{new}' ({self.type(new)}) take the place of '{old}' ({self.type(old)})")
        needed = self._needs(new)
        for name, node in self._nodes.items():
            if name not in needed and old in node.inputs:
                self._nodes[name] = node.with_(inputs=tuple([new if value == old else value for value in node.inputs]))
        self._outputs = tuple([new if value == old else value for value in self._outputs])

    def finish(self, *outputs: str) -> Graph:
        """The graph, sorted, without the nodes that no output needs. Without arguments: the outputs it came with."""
        return alive(Graph(sort(tuple(self._nodes.values())), outputs or self._outputs))

    def _needs(self, value: str) -> set[str]:
        found: set[str] = set()
        stack = [owner(value)]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(owner(v) for v in self._nodes[name].inputs)
        return found

    def _admit(self, node: Node) -> tuple[str, ...]:
        """Check a node, bring it to canonical form, take it in; returns the names of its values."""
        try:
            types = [self._types[value] for value in node.inputs]
        except KeyError as missing:
            raise GraphError(f"node '{node.name}' reads {missing}, which no node makes") from None
        try:
            attrs, made, weighty = self._ops.admit(node.op, node.attrs, types)
        except ArchwrightError as error:
            raise type(error)(f"node '{node.name}': {error}") from None
        slot = node.slot if node.slot is not None else node.name
        self._nodes[node.name] = Node(node.name, node.op, node.inputs, attrs, slot if weighty else None)
        values = tuple([output(node.name, index) for index in range(len(made))])
        self._types.update(zip(values, made, strict=True))
        return values
