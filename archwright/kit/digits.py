"""Perceptrons for any data with one input, and the permuted tasks made from them: what claims of training use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from archwright import ops
from archwright.data.data import Data
from archwright.net.net import Net, init


def perceptron(data: Data, widths: Sequence[int], *, act: str = "relu", seed: int = 0) -> Net:
    """A multilayer perceptron: the input flattened, hidden layers of these widths, one output a class or target."""
    g = ops.edit()
    x = g.input("x", data.shapes[0], data.dtypes[0])
    if len(data.shapes[0]) > 2:
        x = g.add("flatten", x)
    for i, width in enumerate(widths):
        x = g.add(act, g.add("linear", x, out=width, name=f"hidden{i}"))
    return init(g.finish(g.add("linear", x, out=data.outputs, name="head")), seed)


def permuted(data: Data, rng: np.random.Generator | None) -> Data:
    """The data with the features of every sample in one random order, the same for all; as they are for None."""
    if rng is None:
        return data
    x = data.inputs[0]
    order = rng.permutation(x[0].size)
    return replace(data, inputs=(x.reshape(len(x), -1)[:, order].reshape(x.shape), *data.inputs[1:]))
