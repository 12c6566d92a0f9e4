"""The residual block of temporal convolutional networks: two dilated convolutions that look back only.

    h = drop(relu(W1 *_d x + b1));  h = drop(relu(W2 *_d h + b2));  y = relu(h + s(x))
    (W *_d x)[t] = sum_{i < k} W[i] x[t - d i],  x[t] = 0 before the start;   W = g V / |V| for each output channel

x [N, C, T] -> y [N, width, T]; s(x) = x, or a map of the channels where the width changes. Blocks with d = 1, 2, 4, ...
see 1 + 2 (k - 1)(2^blocks - 1) steps, and a step never depends on a later one.
Parameters: k width (C + width) + 4 width with weight normalisation, and (C + 1) width for s where it is a map.
Cost: 2 T k width (C + width) FLOPs a sample.

Fails where the end of the series has to be judged from farther back than that. Differs from the paper: |V| = 1 at the
start gives way to g = sqrt(2) (the gain of relu) where the code draws W with deviation 0.01; the norm can be another.

Bai, Kolter, Koltun: An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling,
2018, arXiv 1803.01271.
"""

from __future__ import annotations

import math

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.signals import need_signal, normalise

PART = {
    "kind": "block",
    "name": "tcn",
    "id": "",
    "title": "An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling",
    "year": 2018,
    "arxiv": "1803.01271",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3, 20], "dtype": "float32"}],
        "hp": {"width": 4, "dilation": 2},
        "vary": [
            {"inputs": [{"shape": [None, 6, 9], "dtype": "float32"}], "hp": {"width": 6, "kernel": 2}},
            {
                "inputs": [{"shape": [None, 4, 16], "dtype": "float32"}],
                "hp": {"width": 5, "kernel": 5, "dilation": 4, "norm": "batch", "act": "silu", "dropout": 0.1},
            },
        ],
    },
    "exact": "A step of the output does not depend on later steps of the input.",
    "claim": {
        "text": "Remembering the first of 80 steps, 250 minibatches: test error, against that of a GRU of equal size.",
        "paper": "copy memory over 1,000 steps: a loss near 0, where LSTM and GRU stay at guessing (table 1)",
    },
}


def build(
    g: Editor, x: str, *, width: int = 25, kernel: int = 3, dilation: int = 1, norm: str = "weight", act: str = "relu",
    dropout: float = 0.0,
) -> str:  # fmt: skip
    """x [N, C, T] -> [N, width, T].

    dilation  d, steps between what the kernels read
    norm      "weight" as in the paper, "batch", "group" or "none"
    dropout   of single numbers, after each convolution (the paper drops whole channels)
    """
    channels, _ = need_signal(g, x)
    y = x
    for i in (1, 2):
        with g.scope(f"conv{i}"):
            y = g.add(act, _causal(g, y, width, kernel, dilation, norm))
            if dropout:
                y = g.add("dropout", y, p=dropout)
    if channels != width:
        x = g.add("conv", x, out=width, kernel=1, name="shortcut")
    return g.add(act, g.add("add", y, x))


def _causal(g: Editor, x: str, width: int, kernel: int, dilation: int, norm: str) -> str:
    channels, _ = need_signal(g, x)
    x = g.add("pad", x, pads=((kernel - 1) * dilation, 0))
    if norm != "weight":
        x = g.add("conv", x, out=width, kernel=kernel, dilation=dilation, bias=norm == "none", name="full")
        return normalise(g, x, norm)
    v = g.add("param", shape=(width, channels, kernel), init=("normal", 0.01), name="direction")
    gain = g.add("param", shape=(width, 1, 1), init=("constant", math.sqrt(2)), name="gain")
    bias = g.add("param", shape=(width,), name="bias")
    weight = g.add("mul", gain, g.add("div", v, g.add("norm", v, dim=(1, 2), keepdim=True)), name="weight")
    return g.add("conv", x, weight, bias, out=width, kernel=kernel, dilation=dilation, name="conv")


def network(
    g: Editor, x: str, *, outputs: int, width: int = 25, depth: int = 4, kernel: int = 7, dropout: float = 0.0
) -> str:
    """The paper's network with dilations 1, 2, 4, ..., read at the last step: x [N, C, T] -> [N, outputs]."""
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, width=width, kernel=kernel, dilation=2**i, dropout=dropout)
    return g.add("linear", g.add("select", x, dim=2, index=-1), out=outputs, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Eight symbols, told at the first step and followed by 79 of faint noise; 250 minibatches for each network."""
    import numpy as np

    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.data import from_arrays
    from archwright.kit import train
    from archwright.net.net import init

    rng, count = seeds.rng(seed, "symbols"), 4000
    target = rng.integers(8, size=count)
    x = 0.05 * rng.standard_normal((count, 8, 80)).astype(np.float32)
    x[:, :, 0] = np.eye(8, dtype=np.float32)[target]
    data = from_arrays(x, target, kind="signal", seed=seed)
    g, h = ops.edit(), ops.edit()
    tcn = g.finish(network(g, g.input("x", data.shapes[0]), outputs=8, width=8, depth=4, kernel=5))
    steps = h.add("transpose", h.input("x", data.shapes[0]), dim0=1, dim1=2)
    states, _ = h.add("gru", steps, hidden=24, batch_first=True)
    gru = h.finish(h.add("linear", h.add("select", states, dim=1, index=-1), out=8, name="head"))
    error, details = {}, {}
    for name, graph in (("tcn", tcn), ("gru", gru)):
        net, _ = train.fit(
            init(graph, seed), data, Budget(steps=250), seeds.rng(seed, "fit"), lr=1e-2, schedule="one_cycle", clip=1.0,
            evaluations=4,
        )  # fmt: skip
        error[name] = 100 * train.evaluate(net, data)
        details[f"{name}, weights"] = net.cost().params
    held = error["tcn"] < 0.5 * error["gru"]
    paper = "the loss is near 0, where that of recurrent networks stays at guessing"
    return Claim(error["tcn"], "%", "below half of the GRU's", held, paper, {**details, "of the gru": error["gru"]})
