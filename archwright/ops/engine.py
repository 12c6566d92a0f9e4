"""The facts of single ops carried over whole graphs: types, parameters, cost, and a plain interpreter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from archwright.errors import ArchwrightError, GraphError, TypeMismatch
from archwright.ir import BATCH, INPUT, Attrs, Editor, Graph, Node, Type, last_uses, output, owner
from archwright.ops import registry
from archwright.ops.base import Cost, Op, Param


class Facts(NamedTuple):
    """What is known of one node: its op, complete attributes, input and output types, parameters and cost."""

    op: Op
    a: Mapping[str, Any]
    x: tuple[Type, ...]
    y: tuple[Type, ...]
    params: Mapping[str, Param]
    cost: Cost


_MEMO: dict[tuple[str, str, tuple[Type, ...]], Facts] = {}
_MEMO_SIZE = 200_000


def facts(name: str, attrs: Attrs, x: tuple[Type, ...]) -> Facts:
    """The facts of an op with these (canonical) attributes and input types. Remembered, as they are pure."""
    key = (name, attrs.text, x)
    found = _MEMO.get(key)
    if found is None:
        op = registry.get(name)
        low, high = op.inputs
        if len(x) < low or (high is not None and len(x) > high):
            wanted = f"{low}" if high == low else f"{low} to {high}" if high is not None else f"at least {low}"
            raise GraphError(f"{name} has {len(x)} inputs, expected {wanted}")
        a = op.full(attrs)
        try:
            y = op.infer(a, x)
            params = op.params(a, x)
        except TypeMismatch as error:
            raise TypeMismatch(f"{name}: {error}") from None
        for t in y:
            if min(t.shape, default=0) < 0:
                raise TypeMismatch(f"{name}: inputs {', '.join(map(str, x))} give a negative size {t}")
        found = Facts(op, a, x, y, params, op.cost(a, x, y))
        if len(_MEMO) >= _MEMO_SIZE:
            _MEMO.clear()
        _MEMO[key] = found
    return found


def argument(node: Node, batch: int) -> Type:
    """Type of an input node at a batch size."""
    return Type(
        tuple([batch if n is None else n for n in node.attrs["shape"]]), node.attrs.get("dtype", "float32")
    )


def analyse(graph: Graph, batch: int = 1) -> Mapping[str, Facts]:
    """Node name -> facts, at a batch size. Raises an error that names the node where something doesn't fit."""
    key = ("facts", batch)
    found = graph.derived.get(key)
    if found is not None:
        return found  # type: ignore[no-any-return]
    types: dict[str, Type] = {}
    found = {}
    for node in graph.nodes:
        try:
            if node.op == INPUT:
                attrs = registry.get(INPUT).normal(node.attrs)
                x: tuple[Type, ...] = ()
                t = argument(node, batch)
                f = Facts(registry.get(INPUT), attrs, x, (t,), {}, Cost())
            else:
                x = tuple([types[value] for value in node.inputs])
                f = facts(node.op, node.attrs, x)
        except KeyError as error:
            raise GraphError(f"node '{node.name}' reads value {error}, which its maker does not have") from None
        except ArchwrightError as error:
            raise type(error)(f"node '{node.name}': {error}") from None
        found[node.name] = f
        types[node.name] = f.y[0]
        for index in range(1, len(f.y)):
            types[f"{node.name}:{index}"] = f.y[index]
    for value in graph.outputs:
        if value not in types:
            raise GraphError(f"output '{value}' does not exist: '{value.partition(':')[0]}' has fewer outputs")
    graph.derived[key] = found
    graph.derived[("types", batch)] = types
    return found


def infer(graph: Graph, batch: int = 1) -> Mapping[str, Type]:
    """Value name -> type, at a batch size."""
    types = graph.derived.get(("types", batch))
    if types is None:
        analyse(graph, batch)
        types = graph.derived[("types", batch)]
    return types  # type: ignore[no-any-return]


def reads(graph: Graph, train: bool | None = None) -> Mapping[str, tuple[int, ...]]:
    """Node name -> indices of the inputs that it reads, for the nodes that must run, in the order of the graph.

    A node must run if an output needs it. Ops that leave inputs out (`Op.needs`) don't need the nodes behind them.
    train  the mode, for ops that read other inputs in training (`Op.modes`); None: what either mode reads
    """
    found = graph.derived.get(("reads", train))
    if found is not None:
        return found  # type: ignore[no-any-return]
    wanted = {owner(value) for value in graph.outputs}
    found = {}
    table = registry.table()
    same = True  # in both modes
    for node in reversed(graph.nodes):
        if node.name in wanted:
            op, count = table.get(node.op) or registry.get(node.op), len(node.inputs)
            used = tuple(range(count)) if op.needs is None else tuple(op.needs(op.full(node.attrs), count))
            if op.modes is not None:
                same = False
                if train is not None:
                    used = tuple(op.modes(op.full(node.attrs), count, train))
            found[node.name] = used
            for index in used:
                wanted.add(node.inputs[index].partition(":")[0])
    found = dict(reversed(found.items()))
    for mode in (None, False, True) if same else (train,):
        graph.derived["reads", mode] = found
    return found


def weight_name(slot: str, param: str) -> str:
    """Name of a weight: "slot.param", or the slot alone for ops whose only weight is the value itself."""
    return f"{slot}.{param}" if param else slot


def params(graph: Graph) -> Mapping[str, Param]:
    """Weight name -> what it has to be. Raises `GraphError` if two nodes of one slot disagree."""
    found = graph.derived.get("params")
    if found is not None:
        return found  # type: ignore[no-any-return]
    found = {}
    for name, f in analyse(graph, BATCH).items():
        node = graph.by_name[name]
        if bool(f.params) != (node.slot is not None):
            fault = "has weights, but no slot" if f.params else "has a slot, but no weights"
            raise GraphError(f"node '{name}': {node.op} {fault}")
        for param, wanted in f.params.items():
            key = weight_name(node.slot or "", param)
            known = found.setdefault(key, wanted)
            if known[0] != wanted[0] or known[2:] != wanted[2:]:
                raise GraphError(f"node '{name}': slot '{node.slot}' holds '{param}' as {known}, expected {wanted}")
    graph.derived["params"] = found
    return found


def check(graph: Graph) -> Graph:
    """The graph with every node's attributes in canonical form, after checking all that can be checked without running:
    ops, attributes, types, weights. Raises an error that names the node."""
    nodes = []
    for node in graph.nodes:
        try:
            attrs = registry.get(node.op).normal(node.attrs)
        except ArchwrightError as error:
            raise type(error)(f"node '{node.name}': {error}") from None
        nodes.append(node if attrs == node.attrs else node.with_(attrs=attrs))
    checked = Graph(tuple(nodes), graph.outputs)
    params(checked)
    return checked


class _Ops:
    """What `archwright.ir.Editor` asks about operations."""

    def admit(self, op: str, attrs: Mapping[str, Any], inputs: Sequence[Type]) -> tuple[Attrs, tuple[Type, ...], bool]:
        known = registry.get(op)
        normal = known.normal(attrs)
        if op == INPUT:
            return normal, (argument(Node("?", INPUT, (), normal), BATCH),), False
        f = facts(op, normal, tuple(inputs))
        return normal, f.y, bool(f.params)


OPS = _Ops()


def edit(graph: Graph | None = None) -> Editor:
    """A new editor, empty or starting from a graph."""
    return Editor(graph, ops=OPS)


def run(graph: Graph, weights: Mapping[str, Any], inputs: Sequence[Any], train: bool = False) -> tuple[Any, ...]:
    """Run the graph on tensors, node by node: the plain reference. `archwright.build` makes the module to work with.

    weights  weight name -> tensor, as `params` names them
    inputs   one tensor for each input node, in order
    """
    # types are only needed to know the parameters' names, so the batch size does not matter
    known = analyse(graph, BATCH)
    values = dict(zip([node.name for node in graph.inputs], inputs, strict=True))
    dying = last_uses(graph)
    read = reads(graph, train)
    for node in graph.nodes:
        if node.op != INPUT and node.name in read:
            f = known[node.name]
            w = {param: weights[weight_name(node.slot or "", param)] for param in f.params}
            x = [values[value] if index in read[node.name] else None for index, value in enumerate(node.inputs)]
            made = f.op.run(f.a, x, w, train)
            if type(made) is tuple:
                for index, tensor in enumerate(made):
                    values[output(node.name, index)] = tensor
            else:
                values[node.name] = made
        for value in dying.get(node.name, ()):
            values.pop(value, None)
    return tuple([values[value] for value in graph.outputs])
