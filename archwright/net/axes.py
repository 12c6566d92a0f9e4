"""Which axes of a network are the same axis: the one analysis behind pruning, merging, growing and permuting.

Every op states how the axes of its inputs, outputs and weights correspond (`archwright.ops.Axes`). Here the statements
are put together by unification (`archwright.net.terms`): a dimension is an atom (units that nothing tells apart so
far), a product (what a reshape makes of two dimensions) or a concatenation. What is left at the end are atoms, and each
is one class of tied axes.

The axes of the network's own inputs and outputs are pinned. Cost: linear in the number of nodes, whatever the widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from archwright import ops
from archwright.errors import GraphError
from archwright.ir import BATCH, INPUT, Graph, Node
from archwright.net import terms
from archwright.net.net import Net
from archwright.ops.base import Axes, Cat, Dim, Dims, Term
from archwright.ops.base import size as term_size
from archwright.ops.engine import weight_name

Index = NDArray[np.int64]

PROBE = 1009
"""The batch size at which axes are analysed: a prime, so that it nests with other sizes only where any batch would."""


# -------------------------------------------------------------------------------------------------------- analysis
class _Summed(NamedTuple):
    """Node `node` sums over `over`, all or part of `term`, which is dimension `dim` of an input or a weight."""

    node: str
    input: int | None
    param: str | None
    dim: int
    term: terms.Term
    over: tuple[terms.Term, ...]


@dataclass
class _Solution:
    """Everything that the pass over a graph leaves behind."""

    values: dict[str, list[terms.Term]] = field(default_factory=dict)
    weights: dict[str, list[terms.Term]] = field(default_factory=dict)  # by weight name
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)  # node -> attribute -> term or tuple of terms
    freeze: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    touched: dict[str, list[terms.Term]] = field(default_factory=dict)  # node -> the terms of its labels
    coupled: list[terms.Term] = field(default_factory=list)
    summed: list[_Summed] = field(default_factory=list)
    unscaled: list[terms.Term] = field(default_factory=list)  # summed by a node that has no weight along it
    inner: list[tuple[str, int, terms.Term]] = field(default_factory=list)  # weight, dimension: summed over unseen


def _match(template: Term, term: terms.Term, env: dict[str, terms.Term]) -> None:
    if type(template) is Dim:
        if template.label is None:
            if template.size != 1:
                terms.pin(term, "an op that treats its positions differently")
        else:
            known = env.setdefault(template.label, term)
            if known is not term:
                terms.unify(known, term)
        return
    inner = list(template)
    sizes = [term_size(part) for part in inner]
    found = terms.split(term, sizes) if type(template) is Cat else terms.factor(term, sizes)
    if found is None:
        found = terms.give_up([term], sizes)
    for part, piece in zip(inner, found, strict=True):
        _match(part, piece, env)


def _make(template: Term, env: dict[str, terms.Term]) -> terms.Term:
    if type(template) is Dim:
        if template.label is None:
            return terms.Atom(template.size, "an op that treats its positions differently", True)
        term = env.get(template.label)
        if term is None:
            term = env[template.label] = terms.Atom(template.size)
        return term
    parts = [_make(part, env) for part in template]
    return terms.concat(parts) if type(template) is Cat else terms.product(parts)


def _labels(dims: Dims) -> Iterator[str]:
    for term in dims:
        if type(term) is Dim:
            if term.label is not None:
                yield term.label
        else:
            yield from _labels(term)  # type: ignore[arg-type]


def _solve(graph: Graph) -> _Solution:
    known = ops.analyse(graph, PROBE)
    found = _Solution()
    values = found.values
    for node in graph.nodes:
        facts = known[node.name]
        if node.op == INPUT:
            values[node.name] = [terms.Atom(n, "an input of the network") for n in facts.y[0].shape]
            continue
        spec: Axes = facts.op.axes(facts.a, facts.x, facts.y)
        env: dict[str, terms.Term] = {}
        for value, dims in zip(node.inputs, spec.x, strict=True):
            for template, term in zip(dims, values[value], strict=True):
                _match(template, term, env)
        for param, facts_param in facts.params.items():
            name = weight_name(node.slot or "", param)
            dims = spec.w.get(param)
            if dims is None:
                dims = tuple([Dim(None, n) for n in facts_param.shape])
            if name in found.weights:
                for template, term in zip(dims, found.weights[name], strict=True):
                    _match(template, term, env)
            else:
                found.weights[name] = [_make(template, env) for template in dims]
        for index, dims in enumerate(spec.y):
            values[f"{node.name}:{index}" if index else node.name] = [_make(template, env) for template in dims]
        _record(found, node, spec, env)
    for value in graph.outputs:
        for term in values[value]:
            terms.pin(term, "an output of the network")
            for atom in terms.atoms(term):
                atom.anonymous = False
    return found


def _record(found: _Solution, node: Node, spec: Axes, env: dict[str, terms.Term]) -> None:
    if spec.attrs:
        found.attrs[node.name] = {
            name: tuple([None if t is None else _make(t, env) for t in value])
            if type(value) is tuple
            else _make(value, env)
            for name, value in spec.attrs.items()
        }
    if spec.freeze:
        found.freeze[node.name] = spec.freeze
    found.touched[node.name] = list(env.values())
    for label in spec.coupled:
        if label in env:
            found.coupled.append(env[label])
    inside = _record_inner(found, node, spec, env)
    if spec.x and spec.y:
        kept = {label for dims in spec.y for label in _labels(dims)}
        kept |= inside
        along = {label for dims in spec.w.values() for label in _labels(dims)}
        for label in {label for dims in spec.x for label in _labels(dims)} - kept:
            if label not in along and label not in spec.coupled:
                found.unscaled.append(env[label])
        for index, dims in enumerate(spec.x):
            _record_sums(found, node.name, index, None, dims, kept, env)
        for param, dims in spec.w.items():
            _record_sums(found, node.name, None, weight_name(node.slot or "", param), dims, kept, env)


def _record_inner(found: _Solution, node: Node, spec: Axes, env: dict[str, terms.Term]) -> set[str]:
    """Sums within the node. Returns the labels that stand in weights only."""
    if not spec.w or not spec.x:
        return set()
    seen = {label for dims in (*spec.x, *spec.y) for label in _labels(dims)}
    inside = {label for dims in spec.w.values() for label in _labels(dims)} - seen
    done: set[str] = set()
    for param, dim in spec.sums.items():
        template = spec.w[param][dim]
        over = list(_labels((template,)))
        done.update(over)
        weight, term = weight_name(node.slot or "", param), _make(template, env)
        found.summed.append(_Summed(node.name, None, weight, dim, term, tuple([env[label] for label in over])))
        found.inner.append((weight, dim, term))
    found.unscaled += [env[label] for label in inside - done]
    for param, dims in spec.w.items():
        for dim, template in enumerate(dims):
            if set(_labels((template,))) & (inside - done):
                found.inner.append((weight_name(node.slot or "", param), dim, _make(template, env)))
    return inside


def _record_sums(
    found: _Solution,
    node: str,
    index: int | None,
    param: str | None,
    dims: Dims,
    kept: set[str],
    env: dict[str, terms.Term],
) -> None:
    for dim, template in enumerate(dims):
        if type(template) is Dim and template.label is None:
            continue
        over = tuple([env[label] for label in _labels((template,)) if label not in kept])
        if over:
            found.summed.append(_Summed(node, index, param, dim, _make(template, env), over))


# ---------------------------------------------------------------------------------------------------------- result
@dataclass(frozen=True)
class Member:
    """A dimension of a weight in which the units of a class stand.

    slot, param  the weight; `weight` is its whole name
    dim          the dimension
    """

    slot: str
    param: str
    dim: int
    _index: Callable[[], Index] = field(repr=False, compare=False)

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return weight_name(self.slot, self.param)

    @property
    def index(self) -> Index:
        """Index map, [units, positions of each unit]: where in the dimension each unit stands."""
        return self._index()


@dataclass(frozen=True)
class AxisClass:
    """Axes that are one axis.

    size      number of units
    members   the dimensions of weights in which they stand
    pinned    why the units cannot be moved ("" if they can): the axis reaches an input or output of the network, or
              an op that treats positions differently
    coupled   the units are tied by more than sums (a normalisation or softmax over them): leaving one out is not the
              same as setting it to zero
    permute   the units can be permuted without changing what the network computes
    remove    units can be left out: the network still runs, with the same output types
    grow      units can be doubled with the function kept, by dividing the weights that sum over them

    A single unit can be neither removed nor grown: a dimension of size 1 may be broadcast.
    """

    number: int
    size: int
    members: tuple[Member, ...]
    pinned: str
    coupled: bool
    permute: bool
    remove: bool
    grow: bool


class TiedAxes:
    """The classes of tied axes of a graph, and what can be done with them. Made by `archwright.axes`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._solution = _solve(graph)
        self._roots: list[terms.Atom] = []
        self._users: dict[str, list[str]] = {}  # weight name -> nodes
        self.classes: tuple[AxisClass, ...] = self._classes()
        self._numbers = {id(root): number for number, root in enumerate(self._roots)}

    @property
    def free(self) -> tuple[AxisClass, ...]:
        """The classes whose units can be permuted, except those of a single unit."""
        return tuple([c for c in self.classes if c.permute and c.size > 1])

    def of(self, weight: str, dim: int) -> tuple[AxisClass, ...]:
        """The classes that make up a dimension of a weight, in order."""
        return self._of(self._solution.weights[weight][dim])

    def of_value(self, value: str, dim: int) -> tuple[AxisClass, ...]:
        """The classes that make up a dimension of a value of the graph, in order (pieces without weights left out)."""
        return self._of(self._solution.values[value][dim])

    def _of(self, term: terms.Term) -> tuple[AxisClass, ...]:
        numbers = [self._numbers.get(id(atom)) for atom in terms.atoms(term)]
        return tuple([self.classes[number] for number in numbers if number is not None])

    def __iter__(self) -> Iterator[AxisClass]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"TiedAxes({len(self.classes)} classes, {len(self.free)} free)"

    # ------------------------------------------------------------------------------------------------------ surgery
    def take(self, net: Net, units: Mapping[int, Sequence[int]], *, rescale: bool = False) -> Net:
        """A net whose classes hold the units named, in that order: a permutation, a selection, or a repetition.

        units    class number -> indices of old units. Left-out units are removed, repeated ones doubled
        rescale  divide the weights that sum over a class by how often each unit is taken, which keeps the function
                 when units are doubled
        Raises `GraphError` for a class that cannot be changed so, or indices out of range.
        """
        chosen: dict[int, Index] = {}
        for number, wanted in units.items():
            chosen[id(self._roots[number])] = self._check(self.classes[number], wanted, rescale)
        weights = dict(net.weights)
        for name, dims in self._solution.weights.items():
            for dim, term in enumerate(dims):
                if any(id(atom) in chosen for atom in terms.atoms(term)):
                    index = torch.from_numpy(_positions(term, chosen)).to(weights[name].device)
                    weights[name] = weights[name].index_select(dim, index)
        if rescale:
            self._rescale(weights, chosen)
        return Net(self._resized(chosen), weights)

    def permute(self, net: Net, orders: Mapping[int, Sequence[int]]) -> Net:
        """The same function with the units of some classes in another order: class number -> permutation."""
        for number, order in orders.items():
            if sorted(order) != list(range(self.classes[number].size)):
                raise GraphError(f"class {number}: expected a permutation of {self.classes[number].size} units")
        return self.take(net, orders)

    def remove(self, net: Net, units: Mapping[int, Sequence[int]]) -> Net:
        """A smaller net without the named units: class number -> units to leave out."""
        keep = {}
        for number, gone in units.items():
            left_out = set(gone)
            keep[number] = [unit for unit in range(self.classes[number].size) if unit not in left_out]
        return self.take(net, keep)

    def grow(self, net: Net, units: Mapping[int, Sequence[int]]) -> Net:
        """A wider net with the same function: class number -> units to double, appended at the end."""
        return self.take(net, {n: [*range(self.classes[n].size), *more] for n, more in units.items()}, rescale=True)

    def mask(self, net: Net, units: Mapping[int, Sequence[int]]) -> Net:
        """The net with units set to zero wherever they are summed over: class number -> units.

        For classes that are not coupled this computes what `remove` gives.
        """
        keep = {id(self._roots[n]): np.ones(self.classes[n].size, bool) for n in units}
        for number, gone in units.items():
            keep[id(self._roots[number])][list(gone)] = False
        weights = dict(net.weights)
        masks: dict[str, list[_Summed]] = {}
        for use in self._solution.summed:
            if use.input is not None and any(id(atom) in keep for atom in terms.atoms(use.term)):
                masks.setdefault(use.node, []).append(use)
        nodes: list[Node] = []
        for node in net.graph.nodes:
            inputs = list(node.inputs)
            for use in masks.get(node.name, ()):
                rank = len(self._solution.values[node.inputs[use.input or 0]])
                name = f"{node.name}.mask_{use.input}_{use.dim}"
                shape = [1] * rank
                shape[use.dim] = use.term.size
                weights[name] = torch.from_numpy(_mask(use.term, keep).astype(np.float32)).reshape(shape)
                nodes.append(Node(name, "buffer", (), ops.get("buffer").normal({"shape": tuple(shape)}), name))
                nodes.append(Node(f"{name}_mul", "mul", (inputs[use.input or 0], name)))
                inputs[use.input or 0] = f"{name}_mul"
            nodes.append(node.with_(inputs=tuple(inputs)))
        for weight, dim, term in self._solution.inner:
            if any(id(atom) in keep for atom in terms.atoms(term)):
                old = weights[weight]
                shape = [1] * old.dim()
                shape[dim] = -1
                weights[weight] = old * torch.from_numpy(_mask(term, keep)).to(old).reshape(shape)
        return Net(Graph(tuple(nodes), net.graph.outputs), weights)

    # ----------------------------------------------------------------------------------------------------- internals
    def _classes(self) -> tuple[AxisClass, ...]:
        solution = self._solution
        members: dict[int, list[Member]] = {}
        roots: dict[int, terms.Atom] = {}
        known = ops.analyse(self.graph, PROBE)
        homes = {}
        for node in self.graph.nodes:
            for param in known[node.name].params:
                name = weight_name(node.slot or "", param)
                homes[name] = (node.slot or "", param)
                self._users.setdefault(name, []).append(node.name)
        for name, dims in solution.weights.items():
            slot, param = homes[name]
            for dim, term in enumerate(dims):
                for place, atom in enumerate(terms.atoms(term)):
                    if atom.anonymous and atom.pinned:
                        continue
                    roots[id(atom)] = atom
                    index = _index_of(term, place)
                    members.setdefault(id(atom), []).append(Member(slot, param, dim, index))
        coupled = {id(atom) for term in solution.coupled for atom in terms.atoms(term)}
        unscaled = {id(atom) for term in solution.unscaled for atom in terms.atoms(term)} | self._unscalable()
        found = []
        for number, (key, atom) in enumerate(roots.items()):
            self._roots.append(atom)
            free = not atom.pinned
            found.append(
                AxisClass(
                    number,
                    atom.size,
                    tuple(members[key]),
                    atom.pinned,
                    key in coupled,
                    permute=free,
                    remove=free and atom.size > 1,
                    grow=free and atom.size > 1 and key not in coupled and key not in unscaled,
                )
            )
        return tuple(found)

    def _unscalable(self) -> set[int]:
        """Atoms summed over with a weight that another node uses in another way: dividing it would change that node."""
        sums: dict[str, dict[str, set[int]]] = {}
        for use in self._solution.summed:
            if use.param is not None:
                atoms = sums.setdefault(use.param, {}).setdefault(use.node, set())
                atoms.update([id(atom) for term in use.over for atom in terms.atoms(term)])
        found: set[int] = set()
        for name, by_node in sums.items():
            atoms = set().union(*by_node.values())
            for user in self._users[name]:
                found |= atoms - by_node.get(user, set())
        return found

    def _check(self, axis: AxisClass, wanted: Sequence[int], rescale: bool) -> Index:
        index = np.asarray(wanted, dtype=np.int64)
        what = f"class {axis.number} ({axis.size} units, {axis.members[0].weight} dimension {axis.members[0].dim})"
        if axis.pinned:
            raise GraphError(f"{what} cannot be changed: it touches {axis.pinned}")
        if index.ndim != 1 or not len(index) or index.min() < 0 or index.max() >= axis.size:
            raise GraphError(f"{what}: got units {list(wanted)[:8]}, expected at least one, from 0 to {axis.size - 1}")
        if rescale and not axis.grow and len(index) != len(set(wanted)):
            raise GraphError(f"{what} cannot be grown with the function kept: its units are not only summed by weights")
        return index

    def _resized(self, chosen: Mapping[int, Index]) -> Graph:
        new = {key: len(index) for key, index in chosen.items()}

        def changed(term: terms.Term) -> bool:
            return any(id(atom) in new and new[id(atom)] != atom.size for atom in terms.atoms(term))

        nodes = []
        for node in self.graph.nodes:
            sized = self._solution.attrs.get(node.name, {})
            attrs = dict(node.attrs)
            if any(changed(term) for term in self._solution.touched.get(node.name, ())):
                attrs = {**self._solution.freeze.get(node.name, {}), **attrs}
            for name, value in sized.items():
                if type(value) is tuple:
                    if any(term is not None and changed(term) for term in value):
                        old = attrs[name] if type(attrs[name]) is tuple else (attrs[name],) * len(value)
                        attrs[name] = tuple(
                            [a if t is None else _stored(a, t, new) for a, t in zip(old, value, strict=True)]
                        )
                elif changed(value):
                    attrs[name] = _stored(attrs.get(name), value, new)
            nodes.append(node if attrs == dict(node.attrs) else node.with_(attrs=ops.get(node.op).normal(attrs)))
        resized = Graph(tuple(nodes), self.graph.outputs)
        before, after = ops.infer(self.graph, BATCH), ops.infer(resized, BATCH)
        for value in self.graph.outputs:
            if before[value] != after[value]:
                raise GraphError(f"output '{value}' would change from {before[value]} to {after[value]}")
        return resized

    def _rescale(self, weights: dict[str, torch.Tensor], chosen: Mapping[int, Index]) -> None:
        times = {}
        for root in self._roots:
            if id(root) in chosen:
                counts = np.bincount(chosen[id(root)], minlength=root.size)
                times[id(root)] = 1.0 / np.maximum(counts, 1)[chosen[id(root)]]
        done = set()
        for use in self._solution.summed:
            if use.param is None or (use.param, use.dim) in done:
                continue
            done.add((use.param, use.dim))
            scale = _scale(use, times, chosen)
            if scale is not None:
                old = weights[use.param]
                shape = [1] * old.dim()
                shape[use.dim] = -1
                weights[use.param] = old * torch.from_numpy(scale).to(old).reshape(shape)


def axes(net: Net | Graph) -> TiedAxes:
    """The classes of tied axes of a network.

    They say which dimensions of which weights are the same axis, and whether its units can be permuted, removed, grown.
    """
    return TiedAxes(net.graph if isinstance(net, Net) else net)


def _index_of(term: terms.Term, place: int) -> Callable[[], Index]:
    return lambda: _occurrence(term, place)[0]


def _occurrence(term: terms.Term, place: int) -> tuple[Index, int]:
    """Positions [units, k] of the atom that is the `place`-th of the term's; and how many atoms the term has."""
    term = terms.resolve(term)
    if type(term) is terms.Atom:
        return np.arange(term.size)[:, None], 1
    before, offset, outer = 0, 0, 1
    for number, inner in enumerate(term):
        count = sum(1 for _ in terms.atoms(inner))
        if place < before + count:
            index, _ = _occurrence(inner, place - before)
            if type(term) is terms.Concat:
                return index + offset, count
            rest = terms.Product(term[number + 1 :]).size
            grid = (np.arange(outer)[None, :, None, None] * inner.size + index[:, None, :, None]) * rest
            return (grid + np.arange(rest)).reshape(len(index), -1), count
        before += count
        offset += inner.size
        outer *= inner.size
    raise AssertionError("no such atom")


def _positions(term: terms.Term, chosen: Mapping[int, Index]) -> Index:
    """Old positions of a dimension, in the order in which they are taken."""
    term = terms.resolve(term)
    if type(term) is terms.Atom:
        found = chosen.get(id(term))
        return np.arange(term.size) if found is None else found
    if type(term) is terms.Concat:
        parts, offset = [], 0
        for piece in term:
            parts.append(_positions(piece, chosen) + offset)
            offset += piece.size
        return np.concatenate(parts)
    index: Index = np.zeros(1, np.int64)
    for factor in term:
        index = (index[:, None] * factor.size + _positions(factor, chosen)[None]).reshape(-1)
    return index


def _stored(old: Any, term: terms.Term, new: Mapping[int, int]) -> int:
    """What an attribute becomes that holds the size of a term: a negative one holds minus the size."""
    n = _size(term, new)
    return -n if isinstance(old, int) and old < 0 else n


def _size(term: terms.Term, new: Mapping[int, int]) -> int:
    term = terms.resolve(term)
    if type(term) is terms.Atom:
        return new.get(id(term), term.size)
    sizes = [_size(inner, new) for inner in term]
    return sum(sizes) if type(term) is terms.Concat else terms.count(sizes)


def _spread(term: terms.Term, leaf: Callable[[terms.Atom], Any], join: Callable[[Any, Any], Any]) -> Any:
    """A vector along a dimension, put together from vectors of its atoms."""
    term = terms.resolve(term)
    if type(term) is terms.Atom:
        return leaf(term)
    parts = [_spread(inner, leaf, join) for inner in term]
    if type(term) is terms.Concat:
        return np.concatenate(parts)
    found = parts[0]
    for part in parts[1:]:
        found = join(found[:, None], part[None]).reshape(-1)
    return found


def _mask(term: terms.Term, keep: Mapping[int, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = _spread(term, lambda a: keep.get(id(a), np.ones(a.size, bool)), np.logical_and)
    return mask


def _scale(
    use: _Summed, times: Mapping[int, NDArray[np.float64]], chosen: Mapping[int, Index]
) -> NDArray[np.float64] | None:
    over = {id(atom) for term in use.over for atom in terms.atoms(term)} & times.keys()
    if not over:
        return None

    def leaf(atom: terms.Atom) -> NDArray[np.float64]:
        key = id(atom)
        return times[key] if key in over else np.ones(len(chosen[key]) if key in chosen else atom.size)

    found: NDArray[np.float64] = _spread(use.term, leaf, np.multiply)
    return found
