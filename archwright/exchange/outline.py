"""A graph as a few boxes to look at: scopes folded, equal blocks in a row shown once, small ops put to larger ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from archwright import ops
from archwright.ir import INPUT, Attrs, Graph, Node, output, owner

Path = tuple[str, ...]

_MOST_ROWS = 6
_ARGUMENTS = ("input", "param", "buffer")


@dataclass
class Box:
    """One box of the outline.

    kind    "input", "nodes" (a chain of nodes, each a row), "scope" (folded) or "output"
    nodes   what stands in it (of a folded scope: all of its nodes)
    path    the scope that it stands for, or that its nodes stand in
    output  the value that is shown: its last
    """

    kind: str
    nodes: list[Node]
    path: Path
    output: str
    count: int = 1
    flops: int = 0
    params: int = 0


@dataclass
class Cluster:
    """A scope that is unfolded: its boxes by number; `paths` are the scopes that it stands for, itself first."""

    path: Path
    boxes: list[int]
    paths: list[Path]
    params: int = 0
    flops: int = 0


@dataclass
class Outline:
    """Boxes in topological order, edges between them by number, unfolded scopes."""

    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)


def outline(graph: Graph, limit: int = 60, depth: int | None = None, batch: int = 1) -> Outline:
    """The outline of a graph, unfolded to about `limit` boxes or, if given, to a depth of names."""
    return _Outliner(graph, batch).outline(limit, depth)


class _Outliner:
    def __init__(self, graph: Graph, batch: int) -> None:
        self.graph = graph
        self.known = ops.analyse(graph, batch)
        self.run = ops.reads(graph, False)  # what no output needs in eval mode costs nothing
        self.position = {node.name: index for index, node in enumerate(graph.nodes)}
        self.path = {node.name: tuple(node.name.split("."))[:-1] for node in graph.nodes}
        self.nodes = list(graph.nodes)
        self.inputs = {node.name: node.inputs for node in graph.nodes}
        self.outputs = list(graph.outputs)
        self.repeats: dict[Path, list[Path]] = {}
        self.whole = _scopes(graph.nodes, self.path)
        self._reduce((), self.nodes)
        self.absorbed = self._absorb()

    # --------------------------------------------------------------------------------------------------- repetition
    def _reduce(self, scope: Path, nodes: Sequence[Node]) -> None:
        """Leave one of each run of equal scopes, at every level."""
        groups: dict[Path, list[Node]] = {}
        for node in nodes:
            path = self.path[node.name]
            if len(path) > len(scope):
                groups.setdefault(path[: len(scope) + 1], []).append(node)
        paths = list(groups)
        ends = {path: self._ends(groups[path]) for path in paths}
        keys = {path: self._key(groups[path], *ends[path]) for path in paths if _numbered(path)}
        index = 0
        while index < len(paths):
            run = [paths[index]]
            while index + len(run) < len(paths) and self._follows(run, paths[index + len(run)], keys, ends):
                run.append(paths[index + len(run)])
            if len(run) > 1:
                self._merge(run, groups, ends)
            self._reduce(run[0], groups[run[0]])
            index += len(run)

    def _ends(self, nodes: Sequence[Node]) -> tuple[list[str], list[str]]:
        """The values that nodes read from outside, and those that outside reads from them."""
        inside = {node.name for node in nodes}
        given: dict[str, None] = {}
        for node in nodes:
            for value in self.inputs[node.name]:
                if owner(value) not in inside:
                    given[value] = None
        made = []
        for node in nodes:
            outer = [user for user in self.graph.users[node.name] if user.name not in inside]
            for index in range(len(self.known[node.name].y)):
                value = output(node.name, index)
                if value in self.outputs or any(value in user.inputs for user in outer):
                    made.append(value)
        return list(given), made

    def _key(self, nodes: Sequence[Node], given: Sequence[str], made: Sequence[str]) -> str:
        """A hash of what a scope computes, its inputs' types included."""
        names = {value: f"{index}" for index, value in enumerate(given)}
        arguments = []
        for value, name in names.items():
            maker, _, index = value.partition(":")
            t = self.known[maker].y[int(index or 0)]
            arguments.append(Node(name, INPUT, (), Attrs(shape=t.shape, dtype=t.dtype)))
        inner = []
        for node in nodes:
            inputs = tuple([names.get(value, f"n.{value}") for value in self.inputs[node.name]])
            inner.append(replace(node, name=f"n.{node.name}", inputs=inputs))
        return Graph((*arguments, *inner), tuple([f"n.{value}" for value in made])).key()

    def _follows(
        self, run: Sequence[Path], path: Path, keys: Mapping[Path, str],
        ends: Mapping[Path, tuple[list[str], list[str]]],
    ) -> bool:  # fmt: skip
        """Whether a scope is one more of a run: equal, and fed by the last of it as that was by the one before."""
        last = run[-1]
        if path not in keys or last not in keys or keys[path] != keys[last] or _stem(path) != _stem(last):
            return False
        if any(value in self.outputs for value in ends[last][1]):
            return False
        if any(
            self.path[user.name][: len(path)] != path
            for value in ends[last][1]
            for user in self.graph.users[owner(value)]
            if value in user.inputs and self.path[user.name][: len(path)] != last
        ):
            return False
        return bool(ends[last][1]) and all(
            new == old or new in ends[last][1] for old, new in zip(ends[last][0], ends[path][0], strict=True)
        )

    def _merge(
        self, run: list[Path], groups: Mapping[Path, list[Node]], ends: Mapping[Path, tuple[list[str], list[str]]]
    ) -> None:
        self.repeats[run[0]] = run
        gone = {node.name for path in run[1:] for node in groups[path]}
        self.nodes = [node for node in self.nodes if node.name not in gone]
        swap = dict(zip(ends[run[-1]][1], ends[run[0]][1], strict=False))
        for node in self.nodes:
            self.inputs[node.name] = tuple([swap.get(value, value) for value in self.inputs[node.name]])
        self.outputs = [swap.get(value, value) for value in self.outputs]

    # ----------------------------------------------------------------------------------------------------- folding
    def _absorb(self) -> dict[str, str]:
        """Parameters and buffers as values -> the node that they are shown with: the first that reads them."""
        found: dict[str, str] = {}
        for node in self.nodes:
            for value in self.inputs[node.name]:
                name = owner(value)
                if self.graph[name].op in ("param", "buffer") and name not in self.outputs:
                    found.setdefault(name, node.name)
        return found

    def outline(self, limit: int, depth: int | None) -> Outline:
        opened: set[Path] = {()}
        closed: set[Path] = set()
        groups = self._fit(opened)
        while True:
            folded = [path for path in groups if isinstance(path, tuple) and path not in closed]
            folded = [path for path in folded if depth is None or len(path) <= depth]
            if not folded:
                break
            path = min(folded, key=lambda p: (len(p), -len(groups[p])))
            trial = opened | {path}
            after = self._fit(trial)
            if depth is None and len(self._fuse(after)) > limit:
                closed.add(path)
                continue
            opened, groups = trial, after
        return self._finish(groups, opened)

    def _groups(self, opened: set[Path]) -> dict[Path | str, list[Node]]:
        groups: dict[Path | str, list[Node]] = {}
        for node in self.nodes:
            if node.name in self.absorbed:
                continue
            path = self.path[node.name]
            level = 1
            while len(path) >= level and path[:level] in opened:
                level += 1
            groups.setdefault(path[:level] if len(path) >= level else node.name, []).append(node)
        return groups

    def _fit(self, opened: set[Path]) -> dict[Path | str, list[Node]]:
        """Groups in an order in which they can run. Opens scopes (adding to the set) that stand in a cycle."""
        while True:
            groups = self._groups(opened)
            where = {node.name: key for key, members in groups.items() for node in members}
            before: dict[Path | str, set[Path | str]] = {key: set() for key in groups}
            for key, members in groups.items():
                for node in members:
                    for value in self.inputs[node.name]:
                        source = where.get(owner(value))
                        if source is not None and source != key:
                            before[key].add(source)
            order: dict[Path | str, list[Node]] = {}
            stuck: Path | None = None
            state: dict[Path | str, int] = {}
            for root in groups:
                stack = [root]
                while stack and stuck is None:
                    key = stack[-1]
                    if state.get(key) == 2:
                        stack.pop()
                        continue
                    state[key] = 1
                    waiting = [source for source in before[key] if state.get(source) != 2]
                    if not waiting:
                        state[key] = 2
                        order[key] = groups[key]
                        continue
                    waiting.sort(key=lambda k: self.position[groups[k][0].name], reverse=True)
                    for source in waiting:
                        if state.get(source) == 1:
                            cycle = [k for k in stack[stack.index(source) :] if state.get(k) == 1]
                            scopes = [k for k in cycle if isinstance(k, tuple)]
                            stuck = min(scopes, key=lambda k: len(groups[k]))
                    stack += waiting
            if stuck is None:
                return order
            opened.add(stuck)

    def _fuse(self, groups: Mapping[Path | str, list[Node]]) -> list[list[Path | str]]:
        """Groups as boxes: light nodes that only continue the one before them join its box."""
        where = {node.name: key for key, members in groups.items() for node in members}
        readers: dict[str, set[Path | str]] = {}
        for key, members in groups.items():
            for node in members:
                for value in self.inputs[node.name]:
                    if owner(value) in where and where[owner(value)] != key:
                        readers.setdefault(owner(value), set()).add(key)
        box: dict[Path | str, list[Path | str]] = {}
        boxes: list[list[Path | str]] = []
        for key, members in groups.items():
            node = members[0]
            joined = None
            if isinstance(key, str) and self._light(node):
                sources = {where[owner(v)] for v in self.inputs[node.name] if owner(v) in where}
                source = next(iter(sources)) if len(sources) == 1 else None
                if isinstance(source, str) and self.graph[source].op != INPUT and readers[source] == {key}:
                    scope = self.path[key]
                    near = scope == self.path[box[source][0]] or (
                        len(self.whole.get(scope, ())) == 1 and scope[:-1] == self.path[box[source][0]]
                    )
                    if len(box[source]) < _MOST_ROWS and near and source not in map(owner, self.outputs):
                        joined = box[source]
            if joined is None:
                joined = []
                boxes.append(joined)
            joined.append(key)
            box[key] = joined
        return boxes

    def _light(self, node: Node) -> bool:
        f = self.known[node.name]
        return node.op not in _ARGUMENTS and not f.cost.flops and len(f.y) == 1

    # ---------------------------------------------------------------------------------------------------- together
    def _finish(self, groups: Mapping[Path | str, list[Node]], opened: set[Path]) -> Outline:
        found = Outline()
        where: dict[str, int] = {}
        with_: dict[str, list[Node]] = {}
        for name, user in self.absorbed.items():
            with_.setdefault(user, []).append(self.graph[name])
        for keys in self._fuse(groups):
            first, last = keys[0], keys[-1]
            nodes = [node for key in keys for node in groups[key]]
            extra = [absorbed for node in nodes for absorbed in with_.get(node.name, ())]
            if isinstance(first, tuple):
                run = self.repeats.get(first, [first])
                members = [node for path in run for node in self.whole[path]]
                shown = self._shown(groups[first])
                box = Box("scope", self.whole[first], first, shown, len(run))
                box.flops, box.params = self._cost(members + [n for n in extra if n not in members])
            else:
                node = groups[last][0]
                box = Box("input" if node.op == INPUT else "nodes", nodes + extra, self.path[node.name], node.name)
                box.flops, box.params = self._cost(box.nodes)
            for node in nodes:
                where[node.name] = len(found.boxes)
            found.boxes.append(box)
        edges: dict[tuple[int, int], None] = {}
        for node in self.nodes:
            for value in self.inputs[node.name]:
                source, target = where.get(owner(value)), where.get(node.name)
                if source is not None and target is not None and source != target:
                    edges[source, target] = None
        for value in self.outputs:
            edges[where[owner(value)], len(found.boxes)] = None
            found.boxes.append(Box("output", [], (), value))
        found.edges = sorted(edges)
        self._clusters(found, where, opened)
        return found

    def _shown(self, nodes: Sequence[Node]) -> str:
        """The value that a folded scope is shown with: the last that is read outside."""
        made = self._ends(nodes)[1]
        return made[-1] if made else nodes[-1].name

    def _cost(self, nodes: Sequence[Node]) -> tuple[int, int]:
        weights = {
            ops.weight_name(node.slot or "", name): param
            for node in nodes
            for name, param in self.known[node.name].params.items()
            if not param.buffer
        }
        count = 0
        for param in weights.values():
            size = 1
            for n in param.shape:
                size *= n
            count += size
        return sum(self.known[node.name].cost.flops for node in nodes if node.name in self.run), count

    def _clusters(self, found: Outline, where: Mapping[str, int], opened: set[Path]) -> None:
        for path in sorted(opened - {()}, key=len):
            inside = [node.name for node in self.nodes if self.path[node.name][: len(path)] == path]
            members = sorted({where[name] for name in inside if name in where})
            run = self.repeats.get(path, [path])
            if not members or (len(members) < 2 and len(run) == 1):
                continue
            nodes = [node for one in run for node in self.whole[one]]
            flops, params = self._cost(nodes)
            found.clusters.append(Cluster(path, members, run, params, flops))


def _scopes(nodes: Sequence[Node], paths: Mapping[str, Path]) -> dict[Path, list[Node]]:
    found: dict[Path, list[Node]] = {}
    for node in nodes:
        path = paths[node.name]
        for depth in range(1, len(path) + 1):
            found.setdefault(path[:depth], []).append(node)
    return found


def _numbered(path: Path) -> bool:
    return bool(re.search(r"\d$", path[-1]))


def _stem(path: Path) -> Path:
    return (*path[:-1], re.sub(r"\d+$", "", path[-1]))
