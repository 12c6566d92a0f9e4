"""Gated recurrent unit: two gates decide how much of the state is read for the next one, and how much is kept.

    r = sigmoid(W_r x + U_r h + b_r)                 reset
    z = sigmoid(W_z x + U_z h + b_z)                 update
    n = tanh(W x + b + r (U h + c))                  candidate
    h' = (1 - z) n + z h

x [N, C, T] -> all states [N, width, T], or [N, 2 width, T] with a second one that runs backwards. The state is 0 at
the start. Parameters: 3 width (C + width + 2) for each direction. Cost: 6 T width (C + width) FLOPs a sample.

Fails on long series: steps are computed one after the other, and gradients fade over hundreds of them.
Differs from the paper: the reset gate acts on U h instead of h, as in cuDNN and torch, and z and 1 - z change places.

Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio: Learning Phrase Representations using RNN
Encoder-Decoder for Statistical Machine Translation, 2014, arXiv 1406.1078.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.signals import need_signal

PART = {
    "kind": "block",
    "name": "gru",
    "id": "",
    "title": "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
    "year": 2014,
    "arxiv": "1406.1078",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3, 7], "dtype": "float32"}],
        "hp": {"width": 4},
        "vary": [
            {"inputs": [{"shape": [None, 5, 4], "dtype": "float32"}], "hp": {"width": 6}},
            {"inputs": [{"shape": [None, 2, 6], "dtype": "float32"}], "hp": {"width": 3, "both": True}},
        ],
    },
    "exact": "The states are those of the equations, step by step.",
    "claim": {
        "text": "MNIST-1D read step by step: test error of a GRU over that of a plain recurrence with as many weights.",
        "paper": "no figure; without gates no meaningful result was had (section 2.3)",
    },
}


def build(g: Editor, x: str, *, width: int = 64, both: bool = False) -> str:
    """x [N, C, T] -> [N, width, T], or [N, 2 width, T] for both directions."""
    need_signal(g, x)
    x = g.add("transpose", x, dim0=1, dim1=2)
    states, _ = g.add("gru", x, hidden=width, batch_first=True, bidirectional=both, name="gru")
    return g.add("transpose", states, dim0=1, dim1=2)


def claim(*, seed: int = 0) -> Claim:
    """Both read 40 steps and are read out at the mean of their states; 400 minibatches."""
    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.net.net import init

    data = builtin("mnist1d", seed=0)
    error: dict[str, float] = {}
    details: dict[str, float] = {}
    for name in ("gru", "rnn"):
        g = ops.edit()
        x = g.input("x", data.shapes[0])
        if name == "gru":
            x = build(g, x, width=24)
        else:
            x = g.add("rnn", g.add("transpose", x, dim0=1, dim1=2), hidden=43, batch_first=True)[0]
            x = g.add("transpose", x, dim0=1, dim1=2)
        graph = g.finish(g.add("linear", g.add("mean", x, dim=2), out=data.outputs, name="head"))
        net, _ = train.fit(
            init(graph, seed), data, Budget(steps=400), seeds.rng(seed, "fit", name), lr=1e-2, schedule="one_cycle",
            clip=1.0, evaluations=4,
        )  # fmt: skip
        error[name] = train.evaluate(net, data)
        details |= {f"{name}, error": error[name], f"{name}, weights": net.cost().params}
    ratio = error["gru"] / error["rnn"]
    return Claim(ratio, "1", "below 0.8", ratio < 0.8, "below 1", details)
