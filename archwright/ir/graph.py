"""`Node` and `Graph`: an architecture as an immutable value that can be compared, hashed and stored as JSON.

A value (an edge) is named by a string: output 0 of node `n` is "n", output k > 0 is "n:k". Names are dotted
paths ("blocks.0.conv1"), equal to the prefixes of the weights that the node uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from archwright.errors import FormatError, GraphError
from archwright.ir.types import NO_ATTRS, Attrs

VERSION = 1
"""Version of the graph format. A reader takes its own version and all older ones."""

INPUT = "input"
"""The op whose nodes are the arguments of the graph, in the order of the nodes."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation.

    name    unique dotted path
    op      what it does: a name known to `archwright.ops`
    inputs  names of the values that it reads, in order
    attrs   what the op is told; only JSON values, and only those that differ from the op's defaults
    slot    prefix of the weights that it uses, or None. Two nodes with one slot share weights;
            with two slots they don't, however alike they look
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attrs: Attrs = NO_ATTRS
    slot: str | None = None

    def __post_init__(self) -> None:
        if type(self.attrs) is not Attrs:
            object.__setattr__(self, "attrs", Attrs(self.attrs))
        if type(self.inputs) is not tuple:
            object.__setattr__(self, "inputs", tuple(self.inputs))

    def with_(self, **changes: Any) -> Node:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        attrs = "".join(f", {key}={value}" for key, value in self.attrs.items())
        slot = f", slot={self.slot}" if self.slot is not None and self.slot != self.name else ""
        return f"{self.name} = {self.op}({', '.join(self.inputs)}{attrs}{slot})"


def owner(value: str) -> str:
    """Name of the node that makes a value: "split:1" -> "split"."""
    return value.partition(":")[0]


def output(name: str, index: int) -> str:
    """Name of output `index` of node `name`: ("split", 1) -> "split:1", ("split", 0) -> "split"."""
    return f"{name}:{index}" if index else name


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order and the values that come out.

    Construction checks the structure (unique names, every input made by an earlier node, outputs that exist) and
    raises `GraphError` naming the node. What ops and shapes mean is checked by `archwright.ops.infer`.
    The order of the nodes is the order of execution: it matters only to the random numbers that dropout draws.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    version: int = VERSION

    def __post_init__(self) -> None:
        if type(self.nodes) is not tuple:
            object.__setattr__(self, "nodes", tuple(self.nodes))
        if type(self.outputs) is not tuple:
            object.__setattr__(self, "outputs", tuple(self.outputs))
        _check_structure(self)

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Name -> node."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The input nodes, in order: the graph's arguments."""
        return tuple([node for node in self.nodes if node.op == INPUT])

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """Node name -> the nodes that read any of its values, once each, in order."""
        users: dict[str, dict[str, Node]] = {node.name: {} for node in self.nodes}
        for node in self.nodes:
            for value in node.inputs:
                users[value.partition(":")[0]][node.name] = node
        return {name: tuple(found.values()) for name, found in users.items()}

    @cached_property
    def slots(self) -> Mapping[str, tuple[Node, ...]]:
        """Slot -> the nodes that use it, in order."""
        slots: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.slot is not None:
                slots.setdefault(node.slot, []).append(node)
        return {slot: tuple(nodes) for slot, nodes in slots.items()}

    @cached_property
    def derived(self) -> dict[Any, Any]:
        """A place where functions of the graph (types, costs) keep what they computed. Never stored, never compared."""
        return {}

    def key(self) -> str:
        """A hash of what the graph computes, up to its weights: 32 hexadecimal digits.

        Nodes and slots are numbered as a depth-first walk from the outputs first meets them, and the numbered lines
        are hashed. Equal for graphs that differ only in names, in the order of independent nodes or in nodes that no
        output needs; different whenever ops, attributes, wiring, sharing of weights, or the arguments differ.
        """
        if "key" not in self.derived:
            self.derived["key"], self.derived["order"] = _key(self)
        return self.derived["key"]  # type: ignore[no-any-return]

    def order(self) -> tuple[str, ...]:
        """Names of the nodes that the outputs need, in the order in which `key` numbers them.

        In two graphs of equal key, nodes at equal places do the same.
        """
        self.key()
        return tuple([value for value in self.derived["order"] if ":" not in value])

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        try:
            return self.by_name[name]
        except KeyError:
            raise GraphError(f"no node is named '{name}'") from None

    def __str__(self) -> str:
        return "\n".join([*map(str, self.nodes), f"return {', '.join(self.outputs)}"])

    def __getstate__(self) -> dict[str, Any]:
        return {"nodes": self.nodes, "outputs": self.outputs, "version": self.version}

    def to_json(self) -> str:
        """The graph as JSON text, one node a line. `Graph.from_json` reads it back."""
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(", ", ": ")).encode
        lines = []
        for node in self.nodes:
            record: dict[str, Any] = {"name": node.name, "op": node.op}
            if node.inputs:
                record["inputs"] = node.inputs
            if node.attrs:
                record["attrs"] = node.attrs
            if node.slot is not None:
                record["slot"] = node.slot
            lines.append(encode(record))
        body = ",\n  ".join(lines)
        return f'{{"version": {self.version}, "nodes": [\n  {body}\n], "outputs": {encode(self.outputs)}}}\n'

    @staticmethod
    def from_json(text: str) -> Graph:
        """Read what `to_json` wrote. Raises `FormatError` if it is not a graph, `GraphError` if it is a bad one."""
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (json.JSONDecodeError, RecursionError) as error:
            raise FormatError(f"graph is not valid JSON ({error}): the file may be truncated") from None
        return Graph.from_data(data)

    @staticmethod
    def from_data(data: Any) -> Graph:
        """Make a graph from parsed JSON. Raises like `from_json`."""
        _expect(data, dict, "graph")
        version = data.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise FormatError(f"graph: got version {version!r}, expected 1 to {VERSION}: try a newer archwright")
        _only(data, {"version", "nodes", "outputs"}, "graph")
        nodes = []
        for index, record in enumerate(_expect(data.get("nodes"), list, "graph: 'nodes'")):
            where = f"graph: node {index}"
            _expect(record, dict, where)
            if not _NODE_FIELDS.issuperset(record):
                _only(record, _NODE_FIELDS, where)
            name, op, slot = record.get("name"), record.get("op"), record.get("slot")
            inputs, attrs = record.get("inputs", ()), record.get("attrs", NO_ATTRS)
            _expect(name, str, f"{where}: 'name'")
            _expect(op, str, f"node '{name}': 'op'")
            if inputs != () and (type(inputs) is not list or not all([type(value) is str for value in inputs])):
                raise FormatError(f"node '{name}': 'inputs' must be a list of strings: got {inputs!r}")
            if slot is not None:
                _expect(slot, str, f"node '{name}': 'slot'")
            try:
                frozen = Attrs(_expect(attrs, dict, f"node '{name}': 'attrs'")) if attrs else NO_ATTRS
            except GraphError as error:
                raise GraphError(f"node '{name}': {error}") from None
            nodes.append(Node(name, op, tuple(inputs), frozen, slot))
        outputs = _expect(data.get("outputs"), list, "graph: 'outputs'")
        for value in outputs:
            _expect(value, str, "graph: each of 'outputs'")
        return Graph(tuple(nodes), tuple(outputs), VERSION)


_NODE_FIELDS = frozenset(("name", "op", "inputs", "attrs", "slot"))


def _expect(value: Any, kind: type, where: str) -> Any:
    if type(value) is not kind and not (kind is dict and isinstance(value, dict)):
        names: dict[type, str] = {dict: "an object", list: "a list", str: "a string"}
        raise FormatError(f"{where}: got {type(value).__name__} {str(value)[:60]!r}, expected {names[kind]}")
    return value


def _only(record: dict[str, Any], fields: set[str] | frozenset[str], where: str) -> None:
    extra = sorted(set(record) - fields)
    if extra:
        raise FormatError(f"{where}: unknown field {', '.join(map(repr, extra))}, expected {', '.join(sorted(fields))}")


def _refuse_constant(name: str) -> None:
    raise FormatError(f"graph holds the number {name}: write infinity as the string \"inf\", NaN not at all")


def _check_structure(graph: Graph) -> None:
    made: set[str] = set()
    for node in graph.nodes:
        name = node.name
        if name in made or not name or ":" in name:
            if name in made:
                raise GraphError(f"two nodes are named '{name}': names must be unique")
            raise GraphError(f"node name {name!r} is not allowed: got an empty name or one with ':'")
        for value in node.inputs:
            if value not in made:
                source, _, index = value.partition(":")
                if source not in made:
                    raise _unmade(graph, node, value)
                if not (index.isascii() and index.isdigit() and index[0] != "0"):
                    raise GraphError(f"node '{name}': input {value!r}: an output index must be a number from 1")
        made.add(name)
    if not graph.outputs:
        raise GraphError("the graph has no outputs: name at least one value")
    for value in graph.outputs:
        source, colon, index = value.partition(":")
        if source not in made or (colon and not (index.isascii() and index.isdigit() and index[0] != "0")):
            raise GraphError(f"output '{value}' is made by no node")


def _unmade(graph: Graph, node: Node, value: str) -> GraphError:
    source = owner(value)
    if any(other.name == source for other in graph.nodes):
        kind = "itself" if source == node.name else f"'{source}', which comes later"
        return GraphError(f"node '{node.name}' reads {kind}: nodes must be in topological order, without cycles")
    return GraphError(f"node '{node.name}' reads '{value}', which no node makes")


def _key(graph: Graph) -> tuple[str, dict[str, str]]:
    """The key, and the numbered values in the order of the walk."""
    by_name = graph.by_name
    numbers: dict[str, str] = {}  # of the values met so far; output k > 0 is added when it is first read
    slots: dict[str | None, str] = {None: ""}
    arguments = {node.name: index for index, node in enumerate(graph.inputs)}
    lines = [str(len(arguments))]
    count = 0
    for root in graph.outputs:
        stack = [root.partition(":")[0]]
        while stack:
            name = stack[-1]
            if name in numbers:
                stack.pop()
                continue
            node = by_name[name]
            refs, waiting = "", []
            for value in node.inputs:
                number = numbers.get(value)
                if number is None:
                    source, _, index = value.partition(":")
                    if source not in numbers:
                        waiting.append(source)
                        continue
                    number = numbers[value] = f"{numbers[source]}:{index}"
                refs += number + ","
            if waiting:
                waiting.reverse()  # so that the first of them is visited first
                stack += waiting
                continue
            stack.pop()
            numbers[name] = str(count)
            count += 1
            slot = slots.get(node.slot)
            if slot is None:
                slot = slots[node.slot] = str(len(slots))
            argument = arguments[name] if node.op == INPUT else ""
            lines.append(f"{node.op}|{refs}|{slot}|{argument}|{node.attrs.text}")
    for value in graph.outputs:
        source, _, index = value.partition(":")
        lines.append(f">{numbers[source]}:{index}")
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest(), numbers
