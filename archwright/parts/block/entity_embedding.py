"""Entity embeddings: each value of a category is a point of a small space of its own, learned with the network.

    y = [E_1[x_1], E_2[x_2], ..., E_C[x_C]]          E_c [codes_c, d_c], rows beside each other

x [N, C] whole numbers, x_c in 0 .. codes_c - 1 -> y [N, sum d_c]. Parameters: sum codes_c d_c. Cost: one row read for
each column. Columns of at most `one_hot` codes enter as they are instead, d_c = codes_c numbers of which one is 1: a
linear layer on top is then an embedding already.

The paper chooses d_c by hand between 1 and codes_c - 1. Here it is min(width, ceil(codes_c / 2)). Rows are within 0.05
of 0 at the start, as in the paper's code, so that values which are rarely seen stay near to nothing.

Fails for values that training never saw: their rows stay as they were drawn. Fails to save anything where each value is
seen once (names, identifiers). Differs from the paper: no second dense layer is fed to other methods.

Guo, Berkhahn: Entity Embeddings of Categorical Variables, 2016, arXiv 1604.06737.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from archwright.core.records import Claim
from archwright.errors import TypeMismatch
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "entity_embedding",
    "id": "",
    "title": "Entity Embeddings of Categorical Variables",
    "year": 2016,
    "arxiv": "1604.06737",
    "needs": ["table"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3], "dtype": "int64", "high": 4}],
        "hp": {"codes": [5, 4, 9], "width": 3},
        "vary": [
            {"inputs": [{"shape": [None, 2], "dtype": "int64", "high": 3}], "hp": {"codes": [3, 12], "width": 2}},
            {
                "inputs": [{"shape": [None, 4], "dtype": "int64", "high": 3}],
                "hp": {"codes": [3, 7, 4, 30], "width": 4, "one_hot": 4},
            },
        ],
    },
    "exact": "A linear layer over one-hot columns and one over embeddings with E = identity are the same map.",
    "claim": {
        "text": "Test RMSE with embeddings over that with one-hot columns, the same layers above: a category of 300 "
        "values, each with two hidden slopes of its own, 13 rows a value.",
        "paper": "embeddings help a neural network to generalise better where data are sparse (abstract)",
    },
}


def build(g: Editor, x: str, *, codes: Sequence[int] = (2,), width: int = 8, one_hot: int = 0) -> str:
    """x [N, C] of whole numbers -> float32 [N, sum of widths].

    codes    how many codes each column has; a single flag by default
    width    greatest width of an embedding
    one_hot  columns of so many codes at most are not embedded
    """
    shape = g.shape(x)
    if len(shape) != 2 or shape[1] != len(codes) or g.type(x).dtype not in ("int64", "int32"):
        raise TypeMismatch(f"'{x}' is {g.type(x)}, expected whole numbers [N, {len(codes)}], as many as codes")
    columns = g.add("unbind", x, dim=1) if len(codes) > 1 else (g.add("select", x, dim=1, index=0),)
    made = []
    for i, (column, count) in enumerate(zip(columns, codes, strict=True)):
        if count <= one_hot:
            made.append(g.add("cast", g.add("one_hot", column, num=count, name=f"one_hot{i}"), dtype="float32"))
        else:
            dim = dimension(count, width)
            table = g.add("param", shape=(count, dim), init=("uniform", 0.05), name=f"column{i}")
            made.append(g.add("embedding", column, table, num=count, dim=dim))
    return g.add("concat", *made, dim=1) if len(made) > 1 else made[0]


def dimension(codes: int, width: int) -> int:
    """The width of the embedding of a column with so many codes."""
    return max(1, min(width, math.ceil(codes / 2)))


def claim(*, seed: int = 0) -> Claim:
    """Test RMSE of an MLP over embeddings (width 4) and over one-hot columns, two nets each."""
    import numpy as np

    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.data import Data
    from archwright.kit.train import evaluate, fit
    from archwright.net.net import init

    count, rows = 300, 6000
    rng = seeds.rng(seed, "rows")
    place = rng.normal(size=(count, 2))
    codes, numbers = rng.integers(0, count, (rows, 1)), rng.normal(size=(rows, 2)).astype(np.float32)
    y = (place[codes[:, 0]] * numbers).sum(1, keepdims=True) + 0.1 * rng.normal(size=(rows, 1))
    splits = {name: np.arange(*ends) for name, ends in
              (("train", (0, 4000)), ("valid", (4000, 5000)), ("test", (5000, 6000)))}  # fmt: skip
    data = Data((numbers, codes), y.astype(np.float32), "regression", splits)
    how, details = {"lr": 1e-2, "schedule": "one_cycle"}, {}
    shares: list[float] = []
    for name, one_hot in (("embeddings", 0), ("one-hot", count)):
        g = ops.edit()
        h = g.input("numbers", (None, 2))
        entity = build(g, g.input("codes", (None, 1), "int64"), codes=(count,), width=4, one_hot=one_hot)
        h = g.add("concat", h, entity, dim=1)
        for i in range(2):
            h = g.add("relu", g.add("linear", h, out=64, name=f"hidden{i}"))
        graph = g.finish(g.add("linear", h, out=1, name="head"))
        errors = []
        for n in range(2):
            start = init(graph, seed + n)
            net, _ = fit(start, data, Budget(steps=500), seeds.rng(seed, name, n), batch_size=128, **how)
            errors.append(evaluate(net, data))
            if not one_hot:
                shares.append(_explained(net.weights["column0"].double().numpy(), place))
        details[f"test RMSE, {name}"] = float(np.mean(errors))
        details[f"weights, {name}"] = float(start.cost().params)
    details["variance of the hidden slopes that embeddings explain (share)"] = float(np.mean(shares))
    figure = details["test RMSE, embeddings"] / details["test RMSE, one-hot"]
    return Claim(figure, "1", "below 0.9", figure < 0.9, "below 1", details)


def _explained(table: Any, place: Any) -> float:
    """Share of the variance of `place` [values, 2] that a linear map of `table` [values, d] explains."""
    import numpy as np

    x, y = table - table.mean(0), place - place.mean(0)
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - np.square(left).sum() / np.square(y).sum())
