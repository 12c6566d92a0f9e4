"""How a graph becomes nested modules: which scopes get a forward of their own, and in which order it all runs.

A scope is a dotted prefix of names, as a tuple of its parts; () is the whole net. A scope can be called as a module if
all that it does can be done in one go (no node outside runs between two of its nodes) and if it owns the weights that
it uses. Otherwise its nodes run in the forward of the scope around it, which reaches into it for the weights.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from archwright import ops
from archwright.errors import EmitError
from archwright.ir import INPUT, Graph, Node, output, owner
from archwright.ops.base import Source

Path = tuple[str, ...]

_ARGUMENTS = (INPUT, "param", "buffer")
"""Ops that are not run: arguments and weights."""


def split(name: str) -> Path:
    """A dotted name as a path."""
    return tuple(name.split("."))


def common(a: Path, b: Path) -> Path:
    """The longest path that both start with."""
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n]


@dataclass(frozen=True)
class Leaf:
    """A module of its own in the tree of modules: an nn module, or a small class around one op's weights."""

    path: Path
    node: Node
    source: Source
    params: Mapping[str, ops.Param]


@dataclass
class Plan:
    """One forward: nodes and inner forwards in order, the values that it is given and those that it returns."""

    scope: Path
    items: list[Node | Plan]
    inputs: list[str]
    outputs: list[str]
    chain: bool = False
    nodes: list[Node] = field(default_factory=list)


class Planner:
    """Places modules and weights, and plans the forward of every scope.

    leaves   path -> module
    tensors  path of a weight that is a value of the graph (op `param` or `buffer`) -> what it is
    alias    value of such an op -> path of its weight
    plans    scope -> its forward, for those scopes that have one
    """

    def __init__(self, graph: Graph, sources: Mapping[str, Source]) -> None:
        self.graph = graph
        self.known = ops.analyse(graph)
        self.reads_of = ops.reads(graph)
        self.sources = sources
        self.leaves: dict[Path, Leaf] = {}
        self.leaf_of: dict[str, Path] = {}
        self.tensors: dict[Path, ops.Param] = {}
        self.alias: dict[str, Path] = {}
        self.home: dict[str, Path] = {}
        self.readers: dict[str, list[Node]] = {}
        self.plans: dict[Path, Plan] = {}
        self._position = {node.name: index for index, node in enumerate(graph.nodes)}
        self._returned = set(graph.outputs)
        for node in graph.nodes:
            for value in self.inputs(node):
                if value is not None:
                    self.readers.setdefault(value, []).append(node)
        self._place()
        self._after = self._order()
        # what no output needs has weights, but does not run
        work = [node for node in graph.nodes if node.name in self.reads_of and node.op not in _ARGUMENTS]
        self.root = self._plan((), work, [node.name for node in graph.inputs])
        self._collect(self.root)

    # ------------------------------------------------------------------------------------------------------- places
    def _place(self) -> None:
        nodes = [node for node in self.graph.nodes if node.op != INPUT]
        for node in nodes:
            f = self.known[node.name]
            if node.slot is not None and "" not in f.params:
                path = split(node.slot)
                before = self.leaves.get(path)
                if before is None or (before.source.module is None and self.sources[node.name].module is not None):
                    self.leaves[path] = Leaf(path, node, self.sources[node.name], f.params)
                self.leaf_of[node.name] = path
                self.home[node.name] = common(split(node.name)[:-1], path[:-1])
            elif node.op not in _ARGUMENTS:
                self.home[node.name] = common(split(node.name)[:-1], split(node.slot or node.name)[:-1])
        weights = {(*path, *split(name)) for path, leaf in self.leaves.items() for name in leaf.params}
        for node in nodes:  # parameters as values live as near to their users as their owner allows
            f = self.known[node.name]
            if "" in f.params:
                path = split(node.slot or "")
                if path not in weights:
                    self.tensors[path] = f.params[""]
                if node.op not in _ARGUMENTS:
                    continue
                self.alias[node.name] = path
                home = path[:-1]
                for user in self.readers.get(node.name, ()):
                    home = common(home, self.home[user.name])
                self.home[node.name] = () if node.name in self._returned else home
        for node in nodes:  # functions that need a module although they have no weights
            source = self.sources[node.name]
            bare = node.slot is None and node.name in self.reads_of
            if bare and source.module is not None and "{self}" in source.call:
                path = (*self.home[node.name], split(node.name)[-1])
                while path in self.leaves or path in self.tensors:
                    path = (*path[:-1], path[-1] + "_")
                self.leaves[path] = Leaf(path, node, source, {})
                self.leaf_of[node.name] = path
        for path in self.tensors:
            if path in self.leaves or any(other[: len(path)] == path for other in weights | set(self.tensors) - {path}):
                raise EmitError(f"weight '{'.'.join(path)}' cannot be written: modules of PyTorch have that name, too")

    def _order(self) -> dict[str, list[str]]:
        """Node -> nodes that must run before it though it reads nothing of them: they draw random numbers before it,
        or update the same buffers."""
        after: dict[str, list[str]] = {}
        last: dict[str, str] = {}
        for node in self.graph.nodes:
            op = self.known[node.name].op
            keys = (["random"] if op.random else []) + ([f"slot {node.slot}"] if op.stateful else [])
            for key in keys:
                if key in last:
                    after.setdefault(node.name, []).append(last[key])
                last[key] = node.name
        return after

    # -------------------------------------------------------------------------------------------------------- plans
    def _plan(self, scope: Path, nodes: Sequence[Node], inputs: Sequence[str] | None = None) -> Plan:
        depth = len(scope)
        opened: set[Path] = set()
        while True:
            groups: dict[Path | str, list[Node]] = {}
            for node in nodes:
                home, level = self.home[node.name], depth + 1
                while len(home) >= level and home[:level] in opened:
                    level += 1
                key: Path | str = home[:level] if len(home) >= level else node.name
                groups.setdefault(key, []).append(node)
            plans: dict[Path | str, Node | Plan] = {}
            again = False
            for key, members in groups.items():
                if isinstance(key, str):
                    plans[key] = members[0]
                    continue
                plan = None if key in self.leaves or not self._owns(key) else self._plan(key, members)
                if plan is None or (self.numeric(key) and not plan.chain):
                    opened.add(key)
                    again = True
                else:
                    plans[key] = plan
            if again:
                continue
            order, stuck = self._sort(groups)
            if stuck is None:
                break
            opened.add(stuck)
        items = [plans[key] for key in order]
        made = {value for node in nodes for value in self.values(node)}
        given = list(inputs) if inputs is not None else self._given(scope, items, made)
        if inputs is not None:
            returned = list(self.graph.outputs)
        else:
            inside = {node.name for node in nodes}
            returned = [
                value
                for item in items
                for value in self.makes(item)
                if value in self._returned or any(user.name not in inside for user in self.readers.get(value, ()))
            ]
        plan = Plan(scope, items, given, returned, nodes=list(nodes))
        plan.chain = self._chain(plan)
        return plan

    def _collect(self, plan: Plan) -> None:
        self.plans[plan.scope] = plan
        for item in plan.items:
            if isinstance(item, Plan):
                self._collect(item)

    def _owns(self, scope: Path) -> bool:
        """Whether there are modules or tensors below a scope."""
        n = len(scope)
        return any(path[:n] == scope and len(path) > n for table in (self.leaves, self.tensors) for path in table)

    def numeric(self, scope: Path) -> bool:
        """Whether everything that is owned below a scope stands in entries named by numbers, as in a list."""
        n = len(scope)
        if any(path[:n] == scope and len(path) == n + 1 for path in self.tensors):
            return False
        below = [path for table in (self.leaves, self.tensors) for path in table if path[:n] == scope]
        names = {path[n] for path in below if len(path) > n}
        return bool(names) and all(name.isdecimal() and str(int(name)) == name for name in names)

    def _sort(self, groups: Mapping[Path | str, Sequence[Node]]) -> tuple[list[Path | str], Path | None]:
        """The groups in an order in which they can run; or the scope to open up because there is none."""
        where = {node.name: key for key, members in groups.items() for node in members}
        first = {key: self._position[members[0].name] for key, members in groups.items()}
        before: dict[Path | str, set[Path | str]] = {key: set() for key in groups}
        users: dict[Path | str, set[Path | str]] = {key: set() for key in groups}
        for key, members in groups.items():
            for node in members:
                for name in (*(owner(v) for v in self.inputs(node) if v), *self._after.get(node.name, ())):
                    source = where.get(name)
                    if source is not None and source != key:
                        before[key].add(source)
                        users[source].add(key)
        waiting = {key: len(needed) for key, needed in before.items()}
        ready = [(first[key], key) for key, count in waiting.items() if not count]
        heapq.heapify(ready)
        order: list[Path | str] = []
        while ready:
            _, key = heapq.heappop(ready)
            order.append(key)
            for user in users[key]:
                waiting[user] -= 1
                if not waiting[user]:
                    heapq.heappush(ready, (first[user], user))
        if len(order) == len(groups):
            return order, None
        done = set(order)
        key, trail = next(key for key in groups if key not in done), []
        while key not in trail:
            trail.append(key)
            key = min((k for k in before[key] if k not in done), key=lambda k: first[k])
        cycle = [k for k in trail[trail.index(key) :] if not isinstance(k, str)]
        return order, min(cycle, key=lambda k: (len(groups[k]), first[k]))

    def values(self, node: Node) -> list[str]:
        """The values that a node makes."""
        return [output(node.name, index) for index in range(len(self.known[node.name].y))]

    def inputs(self, node: Node) -> list[str | None]:
        """The inputs of a node, None for those that it does not read."""
        used = self.reads_of.get(node.name, ())
        return [value if index in used else None for index, value in enumerate(node.inputs)]

    def reads(self, item: Node | Plan) -> list[str]:
        """The values that an item is given."""
        return item.inputs if isinstance(item, Plan) else [value for value in self.inputs(item) if value is not None]

    def makes(self, item: Node | Plan) -> Sequence[str]:
        """The values that an item returns."""
        return item.outputs if isinstance(item, Plan) else self.values(item)

    def _given(self, scope: Path, items: Sequence[Node | Plan], made: set[str]) -> list[str]:
        found: dict[str, None] = {}
        for item in items:
            for value in self.reads(item):
                inner = value in self.alias and self.home[value][: len(scope)] == scope
                if value not in made and not inner:
                    found[value] = None
        return list(found)

    def _chain(self, plan: Plan) -> bool:
        """Whether a forward can be an nn.Sequential: entries named by numbers, each reading what the last one made."""
        if len(plan.inputs) != 1 or len(plan.outputs) != 1 or not self.numeric(plan.scope):
            return False
        value = plan.inputs[0]
        for item in plan.items:
            if self.reads(item) != [value] or len(self.makes(item)) != 1:
                return False
            value = self.makes(item)[0]
        return value == plan.outputs[0] and self.entries(plan) is not None

    def entries(self, plan: Plan) -> list[Node | Plan | None] | None:
        """The entries of an nn.Sequential by their numbers, None for those that do nothing; None if it can't be one."""
        depth = len(plan.scope)
        found: list[Node | Plan | None] = []
        for item in plan.items:
            if isinstance(item, Plan):
                path = item.scope
            else:
                path = self.leaf_of.get(item.name, split(item.name))
                source = self.sources[item.name]
                plain = source.call == "{self}({x})" or (item.slot is None and "{self}" not in source.call)
                if source.module is None and (item.slot is None or self.leaves[path].node is not item):
                    return None
                if source.module is not None and not plain:
                    return None
                if item.slot is not None and len(self.graph.slots[item.slot]) > 1:
                    return None
            if len(path) != depth + 1 or path[:depth] != plan.scope:
                return None
            if path[depth].isdecimal():
                index = int(path[depth])
                if index < len(found) or index > len(found) + 100:
                    return None
                found.extend([None] * (index - len(found)))
            elif self._next_number(plan, item) == len(found):  # no room for it
                return None
            found.append(item)
        return found

    def _next_number(self, plan: Plan, item: Node | Plan) -> int | None:
        """The number that the next numbered entry after an item has."""
        seen = False
        for other in plan.items:
            path = other.scope if isinstance(other, Plan) else self.leaf_of.get(other.name, split(other.name))
            if seen and path[-1].isdecimal():
                return int(path[-1])
            seen = seen or other is item
        return None
