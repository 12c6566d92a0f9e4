"""Small data and small nets of unlike kinds, made in milliseconds: what the conformance checks feed to parts.

data            inputs                             target
"table"         [240, 6]                           3 classes, curved boundaries
"regression"    [240, 4]                           one number: a product and a sine
"image"         [240, 1, 8, 8]                     4 classes: the direction of a bar in noise
"signal"        [240, 2, 32]                       3 classes: frequencies in noise
"tokens"        int64 [240, 12] below 10           2 classes: whether token 7 occurs more than once
"points"        [120, 24, 3]                       3 classes: line, ring, ball
"graph"         [160, 9, 4], adjacency [160, 9, 9] 2 classes: a cycle or a tree

net             architecture                                                     default for
"mlp"           flatten, two hidden layers                                       table, regression
"conv"          two convolutions with batch norm, mean, linear                   image, signal
"residual"      stem, residual and depthwise block with batch norm, mean         (image, signal)
"attention"     embedding or linear, attention block with layer norm, mean       tokens, points
"recurrent"     embedding or none, LSTM, last state                              (signal, tokens, points)
"gnn"           two rounds of neighbour sums, mean                               graph
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from archwright import ops
from archwright.core import seeds
from archwright.data.data import Array, Data, from_arrays
from archwright.errors import DataError
from archwright.ir import Editor
from archwright.net.build import build, to_net
from archwright.net.net import Net, init

VOCABULARY = 10


# ------------------------------------------------------------------------------------------------------------- data
def _table(r: np.random.Generator) -> Data:
    x = r.standard_normal((240, 6)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] + 0.5 * x[:, 3] ** 2 > 0.8)
    return from_arrays(x, y, name="table", standardise=True)


def _regression(r: np.random.Generator) -> Data:
    x = r.uniform(-1.5, 1.5, (240, 4)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.05 * r.standard_normal(240)
    return from_arrays(x, y.astype(np.float32), name="regression", standardise=True)


def _image(r: np.random.Generator) -> Data:
    y = np.arange(240) % 4
    rows, columns = np.mgrid[:8, :8] - 3.5
    x = 0.4 * r.standard_normal((240, 1, 8, 8))
    for i, label in enumerate(y):
        angle = np.pi * label / 4 + 0.1 * r.standard_normal()
        away = rows * np.cos(angle) - columns * np.sin(angle) - r.uniform(-1, 1)
        x[i, 0] += np.exp(-(away**2))
    return from_arrays(x.astype(np.float32), y, kind="image", name="image")


def _signal(r: np.random.Generator) -> Data:
    y = np.arange(240) % 3
    time = np.arange(32) / 32
    phase = r.uniform(0, 2 * np.pi, (240, 2, 1))
    x = np.sin(2 * np.pi * (2 + 2 * y[:, None, None]) * time + phase) + 0.4 * r.standard_normal((240, 2, 32))
    return from_arrays(x.astype(np.float32), y, kind="signal", name="signal")


def _tokens(r: np.random.Generator) -> Data:
    x = r.integers(0, VOCABULARY, (240, 12))
    return from_arrays(x, ((x == 7).sum(1) > 1).astype(np.int64), kind="text", name="tokens")


def _points(r: np.random.Generator) -> Data:
    y = np.arange(120) % 3
    x = np.empty((120, 24, 3))
    for i, label in enumerate(y):
        direction = r.standard_normal((24, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        turn = np.linalg.qr(r.standard_normal((3, 3)))[0]
        if label == 0:
            direction = np.outer(r.uniform(-1, 1, 24), turn[0])
        elif label == 1:
            angle = r.uniform(0, 2 * np.pi, 24)
            direction = np.cos(angle)[:, None] * turn[0] + np.sin(angle)[:, None] * turn[1]
        x[i] = direction + 0.05 * r.standard_normal((24, 3))
    return from_arrays(x.astype(np.float32), y, kind="points", name="points")


def _graph(r: np.random.Generator) -> Data:
    y = np.arange(160) % 2
    x, adjacency = r.standard_normal((160, 9, 4)), np.zeros((160, 9, 9))
    for i, label in enumerate(y):
        order = r.permutation(9)
        edges = (
            [(order[k], order[(k + 1) % 9]) for k in range(9)]
            if label
            else [(order[k], order[int(r.integers(k))]) for k in range(1, 9)]
        )
        for a, b in edges:
            adjacency[i, a, b] = adjacency[i, b, a] = 1
        x[i, :, 0] = adjacency[i].sum(1)
    return from_arrays([x.astype(np.float32), adjacency.astype(np.float32)], y, kind="graph", name="graph")


DATA: dict[str, Callable[[np.random.Generator], Data]] = {
    "table": _table, "regression": _regression, "image": _image, "signal": _signal,
    "tokens": _tokens, "points": _points, "graph": _graph,
}  # fmt: skip


def data(name: str = "table", seed: int = 0) -> Data:
    """Toy data by name, made anew (a part that changes its input spoils them for itself only). Raises `DataError`."""
    if name not in DATA:
        raise DataError(f"no toy data are named '{name}': expected one of {', '.join(DATA)}")
    return DATA[name](seeds.rng(seed, "toys", name))


# ------------------------------------------------------------------------------------------------------------- nets
def _inputs(g: Editor, source: Data) -> list[str]:
    pairs = zip(source.shapes, source.dtypes, strict=True)
    return [g.input(f"x{i}", shape, dtype) for i, (shape, dtype) in enumerate(pairs)]


def _floats(g: Editor, x: str, width: int) -> str:
    """Tokens are embedded; the rest is as it is."""
    return g.add("embedding", x, num=VOCABULARY, dim=width, name="embed") if g.type(x).dtype == "int64" else x


def _mlp(g: Editor, source: Data) -> str:
    x = _floats(g, _inputs(g, source)[0], 8)
    if len(g.shape(x)) > 2:
        x = g.add("flatten", x)
    for i, width in enumerate((16, 12)):
        x = g.add("relu", g.add("linear", x, out=width, name=f"hidden{i}"))
    return x


def _conv_bn(g: Editor, x: str, name: str, out: int, act: bool = True, **attrs: Any) -> str:
    with g.scope(name):
        x = g.add("conv", x, out=out, kernel=3, padding=1, name="conv", **attrs)
        x = g.add("batch_norm", x, name="norm")
        return g.add("relu", x) if act else x


def _pooled(g: Editor, x: str) -> str:
    return g.add("mean", x, dim=list(range(2, len(g.shape(x)))))


def _channels(g: Editor, source: Data) -> str:
    """Images and signals as they are, other data as a signal of one channel for each feature."""
    x = _floats(g, _inputs(g, source)[0], 8)
    rank = len(g.shape(x))
    if rank == 2:
        return g.add("unsqueeze", x, dim=1)
    return x if source.kind in ("image", "signal") else g.add("transpose", x, dim0=1, dim1=2)


def _conv(g: Editor, source: Data) -> str:
    x = _conv_bn(g, _channels(g, source), "stem", 8)
    return _pooled(g, _conv_bn(g, x, "second", 12, stride=2))


def _residual(g: Editor, source: Data) -> str:
    x = _conv_bn(g, _channels(g, source), "stem", 8)
    y = _conv_bn(g, _conv_bn(g, x, "block.a", 12), "block.b", 8, act=False)
    x = g.add("relu", g.add("add", x, y))
    x = _conv_bn(g, x, "depthwise", 8, groups=8)
    return _pooled(g, _conv_bn(g, x, "last", 12, stride=2))


def _sequence(g: Editor, source: Data, width: int) -> str:
    """[N, steps, features]."""
    x = _floats(g, _inputs(g, source)[0], width)
    if len(g.shape(x)) == 2:
        return g.add("unsqueeze", x, dim=2)
    if source.kind in ("image", "signal"):
        x = g.add("transpose", g.add("flatten", x, start=2), dim0=1, dim1=2)
    return x


def _attention(g: Editor, source: Data) -> str:
    x = g.add("linear", _sequence(g, source, 16), out=16, name="project")
    steps = g.shape(x)[1]
    y = g.add("layer_norm", x, name="norm1")
    q, k, v = [
        g.add("permute", g.add("reshape", g.add("linear", y, out=16, name=name), shape=(-1, steps, 2, 8)),
              dims=(0, 2, 1, 3))
        for name in ("q", "k", "v")
    ]  # fmt: skip
    y = g.add("permute", g.add("attention", q, k, v), dims=(0, 2, 1, 3))
    y = g.add("reshape", y, shape=(-1, steps, 16))
    x = g.add("add", x, g.add("linear", y, out=16, name="mix"))
    y = g.add("linear", g.add("layer_norm", x, name="norm2"), out=24, name="up")
    x = g.add("add", x, g.add("linear", g.add("gelu", y), out=16, name="down"))
    return g.add("mean", g.add("layer_norm", x, name="norm3"), dim=1)


def _recurrent(g: Editor, source: Data) -> str:
    x = g.add("lstm", _sequence(g, source, 8), hidden=12, batch_first=True, name="lstm")[0]
    return g.add("select", x, dim=1, index=-1)


def _gnn(g: Editor, source: Data) -> str:
    x, adjacency = _inputs(g, source)
    for i in range(2):
        y = g.add("linear", g.add("matmul", adjacency, x), out=12, name=f"neighbours{i}")
        x = g.add("relu", g.add("add", y, g.add("linear", x, out=12, name=f"self{i}")))
    return g.add("mean", x, dim=1)


NETS: dict[str, Callable[[Editor, Data], str]] = {
    "mlp": _mlp, "conv": _conv, "residual": _residual, "attention": _attention, "recurrent": _recurrent, "gnn": _gnn,
}  # fmt: skip

SUITS = {
    "table": "mlp", "regression": "mlp", "image": "conv", "signal": "conv",
    "tokens": "attention", "points": "attention", "graph": "gnn",
}  # fmt: skip
"""Data -> the net that suits them."""


def net(name: str | None, source: Data, seed: int = 0, *, trained: bool = False) -> Net:
    """A toy net for data, with fresh weights or trained for a moment. Raises `DataError` for an unknown name."""
    name = name or SUITS[source.name]
    if name not in NETS:
        raise DataError(f"no toy net is named '{name}': expected one of {', '.join(NETS)}")
    g = ops.edit()
    x = NETS[name](g, source)
    made = init(g.finish(g.add("linear", x, out=source.outputs, name="head")), seed)
    return train(made, source, seed=seed) if trained else made


def loss(outputs: torch.Tensor, target: torch.Tensor, source: Data) -> torch.Tensor:
    """Cross-entropy for classes, mean squared error for numbers."""
    return F.cross_entropy(outputs, target) if source.task == "classification" else F.mse_loss(outputs, target)


def train(made: Net, source: Data, steps: int = 60, rate: float = 0.01, batch: int = 32, seed: int = 0) -> Net:
    """The net after some steps of Adam on the train split. For toys: rules are what trains nets in earnest."""
    module = build(made).train()
    optimiser = torch.optim.Adam(module.parameters(), rate)
    r = seeds.rng(seed, "toys", "train")
    index: Array = np.asarray(source.splits["train"])
    with seeds.forked(seeds.derive(seed, "toys", "dropout")), torch.enable_grad():
        for _ in range(steps):
            x, y = source.batch(r.choice(index, min(batch, len(index)), replace=False))
            optimiser.zero_grad()
            loss(module(*x), y, source).backward()
            optimiser.step()
    return to_net(module)


def error(made: Net, source: Data, split: str = "valid") -> float:
    """Share of wrong answers, or root mean squared error, on a split."""
    x, y = source.tensors(split)
    with torch.no_grad():
        out = build(made).eval()(*x)
    wrong = (
        (out.argmax(-1) != y).float().mean() if source.task == "classification" else (out - y).square().mean().sqrt()
    )
    return float(wrong)
