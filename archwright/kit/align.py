"""Permuting the units of one network so that they stand where another's do: the assignments behind merging.

Works on the axes of any graph (`archwright.net.axes`): a class of tied axes is a set of units that can be permuted, and
its members say in which dimensions of which weights they stand. An order says, for each place, which unit stands there
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archwright import ops
from archwright.errors import GraphError
from archwright.ir import Graph
from archwright.net.axes import AxisClass, TiedAxes
from archwright.net.build import build
from archwright.net.net import Net

Orders = dict[int, NDArray[np.int64]]
"""Class number -> the unit that stands at each place."""

Weights = Mapping[str, Tensor]


def need_same_graph(one: Net, other: Net) -> None:
    """Raise `GraphError` unless two nets have one graph, names included."""
    if one.graph != other.graph:
        raise GraphError("the two nets have different graphs: expected the same nodes, names and sizes")


def identity(tied: TiedAxes) -> Orders:
    """Every unit where it is."""
    return {c.number: np.arange(c.size) for c in tied.free}


def assign(gain: NDArray[np.float64] | Tensor) -> NDArray[np.int64]:
    """The order that collects most: gain [places, units] -> the unit of each place (Jonker and Volgenant)."""
    from scipy.optimize import linear_sum_assignment

    order: NDArray[np.int64] = linear_sum_assignment(np.asarray(gain, float), maximize=True)[1]
    return order


class Matcher:
    """Weights of a graph, permuted class by class, with the index maps read once."""

    def __init__(self, tied: TiedAxes) -> None:
        self.tied = tied
        params = ops.params(tied.graph)
        self.members = {
            c.number: [(m.weight, m.dim, torch.from_numpy(m.index)) for m in c.members] for c in tied.free
        }
        self.trained = {name for name, p in params.items() if not p.buffer and "float" in p.dtype}

    def permuted(self, weights: Weights, orders: Orders, *, besides: int | None = None) -> dict[str, Tensor]:
        """The weights with the units of all classes (but one) in their new order."""
        found = dict(weights)
        for number, order in orders.items():
            if number != besides:
                for name, dim, index in self.members[number]:
                    found[name] = _move(found[name], dim, index, order)
        return found

    def gain(self, number: int, reference: Weights, weights: Weights) -> NDArray[np.float64]:
        """[places, units]: inner products of what belongs to a place of the reference and to a unit of the weights."""
        size = self.tied.classes[number].size
        total = torch.zeros(size, size, dtype=torch.float64)
        for name, dim, index in self.members[number]:
            if name in self.trained:
                total += _rows(reference[name], dim, index) @ _rows(weights[name], dim, index).T
        return total.numpy()

    def match(
        self, reference: Weights, weights: Weights, rng: np.random.Generator, orders: Orders | None = None,
        *, sweeps: int = 100,
    ) -> Orders:  # fmt: skip
        """Weight matching: the orders that bring the weights nearest to the reference, by coordinate ascent.

        One class after the other, in random order, is assigned anew with all others as they are, until none changes.
        A class that meets itself in a weight (a recurrent one) is changed only where that brings the two nearer.
        """
        found = {**identity(self.tied), **(orders or {})}
        now = self.permuted(weights, found)
        for _ in range(sweeps):
            changed = False
            for number in rng.permutation(sorted(found)).tolist():
                # the class is still where it was in `now`: what is found is an order of its present places
                order = assign(self.gain(number, reference, now))
                if (order == np.arange(len(order))).all():
                    continue
                moved = self.permuted(now, {number: order})
                if self._inner(reference, moved) > self._inner(reference, now) + 1e-9:
                    found[number], now, changed = found[number][order], moved, True
            if not changed:
                break
        return found

    def _inner(self, one: Weights, other: Weights) -> float:
        return float(sum([(one[n].double() * other[n].double()).sum() for n in self.trained]))


def _move(weight: Tensor, dim: int, index: Tensor, order: NDArray[np.int64]) -> Tensor:
    found = weight.clone()
    taken = weight.index_select(dim, index[torch.from_numpy(np.asarray(order))].reshape(-1))
    return found.index_copy_(dim, index.reshape(-1), taken)


def _rows(weight: Tensor, dim: int, index: Tensor) -> Tensor:
    """[units, all that belongs to each], float64."""
    taken = weight.detach().double().index_select(dim, index.reshape(-1)).movedim(dim, 0)
    return taken.reshape(len(index), -1)


def activations(tied: TiedAxes, net: Net, x: Sequence[Tensor], classes: Sequence[AxisClass]) -> dict[int, list[Tensor]]:
    """What the units of classes do: class number -> matrices [units, samples and positions], one for each value."""
    known = ops.infer(tied.graph, 2)
    places: list[tuple[str, int, int]] = []
    for value, kind in known.items():
        if not kind.dtype.startswith("float"):
            continue
        for dim in range(1, len(kind.shape)):
            group = tied.of_value(value, dim)
            if len(group) == 1 and group[0].size == kind.shape[dim] and group[0] in classes:
                places.append((value, dim, group[0].number))
                break
    if not places:
        return {}
    graph = Graph(net.graph.nodes, tuple([value for value, _, _ in places]))
    with torch.no_grad():
        made: Any = build(Net(graph, net.weights)).eval()(*x)
    made = made if isinstance(made, tuple) else (made,)
    found: dict[int, list[Tensor]] = {}
    for (_, dim, number), tensor in zip(places, made, strict=True):
        found.setdefault(number, []).append(tensor.double().movedim(dim, 0).flatten(1))
    return found


def correlation(one: Sequence[Tensor], other: Sequence[Tensor]) -> NDArray[np.float64]:
    """[units, units]: correlation of what units of two nets do, summed over values; 0 for units that do nothing."""
    total = None
    for a, b in zip(one, other, strict=True):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        a, b = [t / t.norm(dim=1, keepdim=True).clamp(min=1e-12) for t in (a, b)]
        total = a @ b.T if total is None else total + a @ b.T
    assert total is not None
    return total.numpy()


def interpolate(one: Net, other: Net, share: float) -> Net:
    """(1 - share) of one net's weights and `share` of the other's; whole-number buffers are the first one's."""
    need_same_graph(one, other)
    return Net(one.graph, {
        name: torch.lerp(w, other.weights[name], share) if w.is_floating_point() else w
        for name, w in one.weights.items()
    })  # fmt: skip


def barrier(
    one: Net, other: Net, x: Sequence[Tensor], y: Tensor, loss: Any, points: int = 11
) -> tuple[float, list[float]]:
    """Greatest rise of the loss on the way from one net to the other above the straight line between their losses.

    Also the losses along the way, at `points` places.
    """
    shares = np.linspace(0, 1, points).tolist()
    losses = []
    with torch.no_grad():
        for share in shares:
            losses.append(float(loss(build(interpolate(one, other, share)).eval()(*x), y)))
    straight = [losses[0] + s * (losses[-1] - losses[0]) for s in shares]
    return max(a - b for a, b in zip(losses, straight, strict=True)), losses
