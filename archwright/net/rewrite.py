"""Rewriting: a pattern, a check that can say why not, a replacement, and its weights.

A rule knows the algebra; the engine guarantees the rest, for every rule:

- values inside the matched piece have no users outside of it, and are not outputs of the network;
- slots of the matched nodes have no other nodes (a convolution used twice is not folded into one norm);
- new nodes get names that nobody has, and weights under those names;
- the replacement has the type of what it replaces, at two batch sizes;
- every pass makes the network strictly smaller (working nodes, then FLOPs, then all nodes), so it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from archwright import ops
from archwright.errors import RewriteError
from archwright.ir import BATCH, Graph, Match, Node, Pattern, Type, alive, find, sort
from archwright.net.net import Net
from archwright.ops.engine import weight_name

SOURCES = frozenset(("input", "param", "buffer"))
"""Ops that only bring a value in."""


@dataclass(frozen=True)
class Rule:
    """A rewrite.

    name     what it does, in snake case
    pattern  what it looks for
    why_not  (site) -> a reason to leave this place alone, or None
    replace  (site) -> the value that takes the place of the root's; new nodes are made with `site.add`
    exact    True where the function stays the same up to rounding; `error` states the error where it doesn't
    mode     "eval": the function is kept in eval mode only; "both": also in training
    """

    name: str
    pattern: Pattern
    why_not: Callable[[Site], str | None]
    replace: Callable[[Site], str]
    exact: bool = True
    error: str = ""
    mode: str = "eval"


class Site:
    """A place where a pattern was found, with all that a rule may want to know about it."""

    def __init__(self, net: Net, match: Match) -> None:
        self._net = net
        self._facts = ops.analyse(net.graph, BATCH)
        self.match = match
        self.added: list[tuple[str, str, tuple[str, ...], Mapping[str, Any], Mapping[str, Tensor]]] = []

    def __getitem__(self, name: str) -> Node:
        """The node that the pattern calls `name`."""
        return self.match.nodes[name]

    def value(self, name: str) -> str:
        """The value that the pattern calls `name`."""
        return self.match.values[name]

    def attrs(self, node: Node) -> Mapping[str, Any]:
        """The complete attributes of a node."""
        return self._facts[node.name].a

    def inputs(self, node: Node) -> Sequence[Type]:
        """The types of a node's inputs, at batch size `archwright.ir.BATCH`."""
        return self._facts[node.name].x

    def maker(self, value: str) -> Node:
        """The node that makes a value."""
        return self._net.graph[value.partition(":")[0]]

    def weights(self, node: Node) -> dict[str, Tensor]:
        """The weights of a node, by parameter name."""
        return {p: self._net.weights[weight_name(node.slot or "", p)] for p in self._facts[node.name].params}

    def op(self, node: Node) -> ops.Op:
        """The op of a node."""
        return self._facts[node.name].op

    def add(self, op: str, *inputs: str, weights: Mapping[str, Tensor] | None = None, **attrs: Any) -> str:
        """A new node, with its weights by parameter name. Returns a stand-in for its value."""
        stand_in = f"new {len(self.added)}"
        self.added.append((stand_in, op, inputs, attrs, weights or {}))
        return stand_in


@dataclass(frozen=True)
class Applied:
    """A rule applied at a node."""

    rule: str
    node: str


@dataclass(frozen=True)
class Refused:
    """A place where a rule's pattern was found and the rule not applied, and why."""

    rule: str
    node: str
    why: str


@dataclass(frozen=True)
class RewriteReport:
    """What a rewrite did."""

    applied: tuple[Applied, ...] = ()
    refused: tuple[Refused, ...] = ()
    exact: bool = True
    errors: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"{done.rule}: {done.node}" for done in self.applied]
        lines += [f"{left.rule}: {left.node} left alone: {left.why}" for left in self.refused]
        return "\n".join(lines) or "nothing to rewrite"


def rewrite(net: Net, rules: Sequence[Rule] | None = None) -> tuple[Net, RewriteReport]:
    """Apply rules wherever they hold until none does, and drop what no output needs any more.

    rules  by default `archwright.net.rules.FOR_INFERENCE`: what makes a network smaller without changing what it
           computes in eval mode
    Returns the new net, and what was done and what was left alone, with reasons.
    """
    if rules is None:
        from archwright.net.rules import FOR_INFERENCE as rules
    applied: list[Applied] = []
    used: list[Rule] = []
    while True:
        refused: list[Refused] = []
        before = _measure(net.graph)
        done = 0
        for rule in rules:
            net, places, left = _pass(net, rule)
            refused += left
            done += len(places)
            if places:
                applied += [Applied(rule.name, name) for name in places]
                used.append(rule)
                after = _measure(net.graph)
                if after >= before:
                    raise RewriteError(f"rule '{rule.name}' did not make the network smaller: {before} to {after}")
                before = after
        if not done:
            exact = all(rule.exact for rule in used)
            errors = tuple({f"{rule.name}: {rule.error}": None for rule in used if not rule.exact})
            return net, RewriteReport(tuple(applied), tuple(refused), exact, errors)


def _measure(graph: Graph) -> tuple[int, int, int]:
    facts = ops.analyse(graph, BATCH)
    working = sum(node.op not in SOURCES for node in graph.nodes)
    return working, sum(f.cost.flops for f in facts.values()), len(graph)


def _pass(net: Net, rule: Rule) -> tuple[Net, list[str], list[Refused]]:
    """Apply one rule at all places that do not overlap."""
    graph = net.graph
    places: list[str] = []
    refused: list[Refused] = []
    taken: set[str] = set()
    gone: set[str] = set()
    redirected: dict[str, str] = {}
    nodes = {node.name: node for node in graph.nodes}
    weights = dict(net.weights)
    types: list[tuple[str, str]] = []
    for match in find(graph, rule.pattern):
        names = {node.name for node in match.all}
        if names & taken:
            continue
        site = Site(net, match)
        why = _outside(graph, match) or rule.why_not(site)
        if why:
            refused.append(Refused(rule.name, match.root.name, why))
            continue
        taken |= names
        new = rule.replace(site)
        for node in match.all:
            del nodes[node.name]
            if node.slot is not None:
                gone.add(node.slot)
        for node in match.all:
            for param in ops.analyse(graph, BATCH)[node.name].params:
                weights.pop(weight_name(node.slot or "", param), None)
        made = _name(site, nodes, weights, match)
        for node in made.values():
            nodes[node.name] = node
            taken.add(node.name)
        result = made[new].name if new in made else new
        redirected[match.root.name] = result
        types.append((match.root.name, result))
        places.append(match.root.name)
    if not places:
        return net, places, refused

    def value(old: str) -> str:
        while old in redirected and redirected[old] != old:
            old = redirected[old]
        return old

    rewired = [
        node.with_(inputs=tuple([value(v) for v in node.inputs])) if any(v in redirected for v in node.inputs) else node
        for node in nodes.values()
    ]
    result_graph = alive(Graph(sort(rewired), tuple([value(v) for v in graph.outputs])))
    for batch in (BATCH, BATCH + 1):
        before, after = ops.infer(graph, batch), ops.infer(result_graph, batch)
        for old, new in types:
            if value(new) in after and before[old] != after[value(new)]:
                raise RewriteError(f"rule '{rule.name}' at '{old}' gave {after[value(new)]}, expected {before[old]}")
    wanted = ops.params(result_graph)
    return Net(result_graph, {name: weights[name] for name in wanted}), places, refused


def _outside(graph: Graph, match: Match) -> str | None:
    """Why the surroundings forbid a rewrite here, or None."""
    names = {node.name for node in match.all}
    outputs = {value.partition(":")[0] for value in graph.outputs}
    for node in match.all:
        if node.name != match.root.name:
            if node.name in outputs:
                return f"'{node.name}' is an output of the network"
            for user in graph.users[node.name]:
                if user.name not in names:
                    return f"'{node.name}' is also read by '{user.name}'"
        elif any(v.startswith(f"{node.name}:") for u in graph.users[node.name] for v in u.inputs):
            return f"further outputs of '{node.name}' are read"
        if node.slot is not None:
            for other in graph.slots[node.slot]:
                if other.name not in names:
                    return f"the weights of '{node.name}' are also used by '{other.name}'"
    return None


def _name(site: Site, nodes: Mapping[str, Node], weights: dict[str, Tensor], match: Match) -> dict[str, Node]:
    """The new nodes by stand-in, named, with their weights stored. One of a matched node's op takes over its name."""
    vacant = {node.op: node.name for node in reversed(match.all)}
    made: dict[str, Node] = {}
    slots = {node.slot for node in nodes.values()}
    for stand_in, op, inputs, attrs, tensors in site.added:
        name = vacant.pop(op, None) or match.root.name
        taken = {node.name for node in made.values()}
        stem, count = name, 0
        while name in nodes or name in taken or name in slots:
            count += 1
            name = f"{stem}_{count}"
        known = ops.get(op)
        inputs = tuple([made[value].name if value in made else value for value in inputs])
        made[stand_in] = Node(name, op, inputs, known.normal(attrs), name if tensors else None)
        for param, tensor in tensors.items():
            weights[weight_name(name, param)] = tensor.detach()
    return made
