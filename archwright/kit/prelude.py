"""A network with its preprocessing inside: raw numbers in, probabilities or numbers in target units out.

    table    x <- fill where NaN;  x <- s_0 + sum_k slope_k clamp(x - knot_k, 0, knot_{k+1} - knot_k);
             x <- clamp((x - mean) / deviation, -LIMIT, LIMIT);  [x, isnan of the flagged columns], codes as they are
    image    (x - mean) / deviation of each channel, 0 where NaN
    signal   the same, and with a mask one more channel that is 1 where any channel has a value
    output   softmax of the logits; or y deviation + mean

This is what `recipe.scale` computes, as nodes of the graph; numbers of tables are scaled in float64, as there: times
and amounts can be large beside their deviation. Cost: a few operations a number, and one a knot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archwright import ops
from archwright.data.recipe import LIMIT, ImageRecipe, Number, Recipe, SignalRecipe, TableRecipe
from archwright.errors import TypeMismatch
from archwright.ir import INPUT, Editor, Graph, Node, output, owner
from archwright.net.net import Net

_INSIDE = "net."
"""What stands before the names of the network's own nodes and weights."""


def with_recipe(net: Net, recipe: Recipe) -> Net:
    """The net that takes what `recipe.encode` gives, and gives probabilities [N, classes] or numbers [N, targets] in
    the target's own units.

    Raises `TypeMismatch` if the net does not take what `recipe.scale` gives, or gives another number of outputs.
    """
    made = _Prelude()
    scaled = made.scale(recipe)
    if len(scaled) != len(net.graph.inputs):
        raise TypeMismatch(f"the net takes {len(net.graph.inputs)} inputs, the recipe gives {len(scaled)}")
    for node, value in zip(net.graph.inputs, scaled, strict=True):
        wanted, got = node.attrs, made.g.type(value)
        if tuple(wanted["shape"][1:]) != got.shape[1:] or wanted.get("dtype", "float32") != got.dtype:
            raise TypeMismatch(
                f"input '{node.name}' of the net is {wanted.get('dtype', 'float32')} {list(wanted['shape'])}, the "
                f"recipe gives {got.dtype} {[None, *got.shape[1:]]}"
            )
    front = made.g.finish(*scaled)
    given = {node.name: value for node, value in zip(net.graph.inputs, scaled, strict=True)}
    inner = [_within(node, given) for node in net.graph.nodes if node.op != INPUT]
    result = _renamed(net.graph.outputs[0], given)
    made.g = ops.edit(Graph((*front.nodes, *inner), (result,)))
    graph = made.g.finish(made.decode(recipe, result))
    return Net(graph, {**made.weights, **{_INSIDE + name: tensor for name, tensor in net.weights.items()}})


def _renamed(value: str, given: dict[str, str]) -> str:
    source, _, index = value.partition(":")
    return given[source] if source in given else output(_INSIDE + owner(value), int(index or 0))


def _within(node: Node, given: dict[str, str]) -> Node:
    return node.with_(
        name=_INSIDE + node.name,
        inputs=tuple([_renamed(value, given) for value in node.inputs]),
        slot=None if node.slot is None else _INSIDE + node.slot,
    )


class _Prelude:
    """The nodes before and after the net, with their constants."""

    def __init__(self) -> None:
        self.g: Editor = ops.edit()
        self.weights: dict[str, Tensor] = {}

    def constant(self, name: str, values: Any, dtype: str) -> str:
        """A tensor that is never trained."""
        array = np.asarray(values, dtype)
        value: str = self.g.add("buffer", name=name, shape=array.shape, dtype=dtype)
        self.weights[self.g.prefix + name] = torch.from_numpy(array.copy())
        return value

    def scale(self, recipe: Recipe) -> list[str]:
        """The recipe's inputs, and then what `recipe.scale` gives of them."""
        inputs = [self.g.input(*argument) for argument in recipe.inputs]
        with self.g.scope("scale"):
            if isinstance(recipe, TableRecipe):
                return [self._numbers(inputs[0], recipe.numbers), *inputs[1:]] if recipe.numbers else inputs
            return [self._channels(inputs[0], recipe)]

    def _numbers(self, raw: str, numbers: Sequence[Number]) -> str:
        g = self.g
        flagged = [i for i, number in enumerate(numbers) if number.missing]
        empty = g.add("isnan", raw)
        fill = self.constant("fill", [n.fill for n in numbers], "float64")
        x = g.add("where", empty, fill, g.add("cast", raw, dtype="float64"))
        bent = [i for i, number in enumerate(numbers) if number.knots]
        if bent:
            x = self._bend(x, numbers, bent)
        x = g.add("sub", x, self.constant("mean", [n.mean for n in numbers], "float64"))
        x = g.add("div", x, self.constant("deviation", [n.deviation for n in numbers], "float64"))
        x = g.add("cast", g.add("clamp", x, min=-LIMIT, max=LIMIT), dtype="float32")
        if not flagged:
            return x
        flags = self._take(g.add("cast", empty, dtype="float32"), flagged, len(numbers), "flagged")
        return g.add("concat", x, flags, dim=1)

    def _take(self, x: str, columns: Sequence[int], count: int, name: str) -> str:
        """Some columns of `count`."""
        if list(columns) == list(range(count)):
            return x
        return self.g.add("index_select", x, self.constant(name, columns, "int64"), dim=1)

    def _bend(self, x: str, numbers: Sequence[Number], bent: Sequence[int]) -> str:
        """The piecewise linear maps of columns with knots, as sums of clamped pieces; short ones are filled up with
        pieces of no width."""
        g, most = self.g, max([len(numbers[i].knots) for i in bent])
        knots = np.array([[*numbers[i].knots, *[numbers[i].knots[-1]] * (most - len(numbers[i].knots))] for i in bent])
        scores = np.array([[*numbers[i].scores, *[numbers[i].scores[-1]] * (most - len(numbers[i].scores))]
                           for i in bent])  # fmt: skip
        width = np.diff(knots, axis=1)
        slope = np.diff(scores, axis=1) / np.where(width > 0, width, 1)
        picked = self._take(x, bent, len(numbers), "bent")
        if most > 1:
            pieces = g.add("sub", g.add("unsqueeze", picked, dim=2), self.constant("knots", knots[:, :-1], "float64"))
            pieces = g.add("minimum", g.add("clamp", pieces, min=0.0), self.constant("widths", width, "float64"))
            pieces = g.add("mul", pieces, self.constant("slopes", slope, "float64"))
            moved = g.add("sum", pieces, dim=2)
        else:
            moved = g.add("mul", picked, value=0.0)
        y = g.add("add", moved, self.constant("first", scores[:, 0], "float64"))
        order = np.arange(len(numbers))
        order[list(bent)] = len(numbers) + np.arange(len(bent))
        if len(bent) == len(numbers):
            return y
        return self._take(g.add("concat", x, y, dim=1), order.tolist(), -1, "order")

    def _channels(self, raw: str, recipe: ImageRecipe | SignalRecipe) -> str:
        g = self.g
        shape = (recipe.channels,) + (1,) * (len(g.shape(raw)) - 2)
        x = raw if g.type(raw).dtype == "float32" else g.add("cast", raw, dtype="float32")
        x = g.add("sub", x, self.constant("mean", np.reshape(recipe.mean, shape), "float32"))
        x = g.add("div", x, self.constant("deviation", np.reshape(recipe.deviation, shape), "float32"))
        if g.type(raw).dtype != "float32":  # whole numbers are never NaN
            return x
        empty = g.add("isnan", raw)
        x = g.add("masked_fill", x, empty, value=0.0)
        if not (isinstance(recipe, SignalRecipe) and recipe.mask):
            return x
        here = g.add("any", g.add("logical_not", empty), dim=1, keepdim=True)
        return g.add("concat", x, g.add("cast", here, dtype="float32"), dim=1)

    def decode(self, recipe: Recipe, result: str) -> str:
        """Probabilities, or numbers in target units."""
        g, target = self.g, recipe.target
        shape = g.shape(result)
        if len(shape) != 2 or shape[1] != target.outputs:
            raise TypeMismatch(f"the net gives {[None, *shape[1:]]}, expected [None, {target.outputs}] for the target")
        if target.task == "classification":
            return g.add("softmax", result, dim=1, name=g.fresh("probabilities"))
        with g.scope("target"):
            deviation = self.constant("deviation", target.deviation, "float32")
            mean = self.constant("mean", target.mean, "float32")
            scaled = g.add("mul", result, deviation, name="scaled")
        return g.add("add", scaled, mean, name=g.fresh("prediction"))
