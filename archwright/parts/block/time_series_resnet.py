"""The residual block for time series: three convolutions over time beside a shortcut.

    h  = act(norm(W1 * x));  h = act(norm(W2 * h));  h = norm(W3 * h)        * is convolution over time, no bias
    y  = act(h + s(x))       s(x) = x, or norm(W0 * x) with kernel 1 where the width changes

x [N, C, T] -> y [N, width, T]; W_i [width, ., k_i], k = 8, 5, 3 in the paper. `network` is three such blocks and the
mean over time, `fcn` the fully convolutional network of the same paper, which has no shortcuts. With `separable` each
W_i is a kernel for each channel and then a map of the channels.
Parameters: sum of k_i C_i width, and 2 width for each norm. Cost: 2 T sum of k_i C_i width FLOPs a sample.

Fails where what matters is farther apart than the kernels of all blocks reach together (dilation helps), and on a few
dozen series, where it overfits and copies have to be averaged.
Differs from the paper: the identity shortcut has no norm of its own (the paper's code gives it one), and padding,
activation, norm and dilation can be others.

Wang, Yan, Oates: Time Series Classification from Scratch with Deep Neural Networks: A Strong Baseline, 2016, arXiv
1611.06455.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.signals import convolve, need_signal, normalise

PART = {
    "kind": "block",
    "name": "time_series_resnet",
    "id": "",
    "title": "Time Series Classification from Scratch with Deep Neural Networks: A Strong Baseline",
    "year": 2016,
    "arxiv": "1611.06455",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3, 20], "dtype": "float32"}],
        "hp": {"width": 4},
        "vary": [
            {"inputs": [{"shape": [None, 6, 9], "dtype": "float32"}], "hp": {"width": 6, "kernels": [5, 3]}},
            {
                "inputs": [{"shape": [None, 4, 16], "dtype": "float32"}],
                "hp": {"width": 4, "kernels": [3, 3], "separable": True, "norm": "group", "act": "silu", "dilation": 2},
            },
        ],
    },
    "exact": "With W3 = 0 and the shift of its norm 0 the block is act(s(x)).",
    "claim": {
        "text": "MNIST-1D: test error over that of a multilayer perceptron, after 400 steps each.",
        "paper": "the perceptron is behind by mean rank and by mean error per class on 44 sets (table I)",
    },
}


def build(
    g: Editor, x: str, *, width: int = 64, kernels: Sequence[int] = (8, 5, 3), norm: str = "batch", act: str = "relu",
    separable: bool = False, dilation: int = 1,
) -> str:  # fmt: skip
    """x [N, C, T] -> [N, width, T].

    kernels    of the convolutions, one after the other
    norm       "batch", "group" (one group: over time and channels of each sample) or "none"
    act        an activation, by the name of its op
    separable  depthwise and pointwise convolutions instead of full ones
    dilation   of all kernels
    """
    channels, _ = need_signal(g, x)
    y = x
    for i, kernel in enumerate(kernels, 1):
        y = convolve(g, y, width, kernel, dilation=dilation, separable=separable, norm=norm, name=f"conv{i}")
        if i < len(kernels):
            y = g.add(act, y)
    if channels != width:
        x = convolve(g, x, width, 1, norm=norm, name="shortcut")
    return g.add(act, g.add("add", y, x))


def network(g: Editor, x: str, *, classes: int, widths: Sequence[int] = (64, 128, 128)) -> str:
    """The paper's ResNet: x [N, C, T] -> [N, classes]."""
    for i, width in enumerate(widths):
        with g.scope(f"block{i}"):
            x = build(g, x, width=width)
    return g.add("linear", g.add("mean", x, dim=2), out=classes, name="head")


def fcn(
    g: Editor, x: str, *, classes: int, widths: Sequence[int] = (128, 256, 128), kernels: Sequence[int] = (8, 5, 3)
) -> str:
    """The paper's fully convolutional network: x [N, C, T] -> [N, classes]."""
    need_signal(g, x)
    for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
        x = g.add("conv", x, out=width, kernel=kernel, padding="same", name=f"conv{i}")
        x = g.add("relu", normalise(g, x, name=f"norm{i}"))
    return g.add("linear", g.add("mean", x, dim=2), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """A narrow network of three blocks, and a perceptron of three hidden layers with more weights."""
    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.net.net import init

    data = builtin("mnist1d", seed=0)
    g, p = ops.edit(), ops.edit()
    resnet = g.finish(network(g, g.input("x", data.shapes[0]), classes=data.outputs, widths=(16, 32, 32)))
    x = p.add("flatten", p.input("x", data.shapes[0]))
    for i in range(3):
        x = p.add("relu", p.add("linear", x, out=150, name=f"hidden{i}"))
    perceptron = p.finish(p.add("linear", x, out=data.outputs, name="head"))
    error: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, graph in (("resnet", resnet), ("perceptron", perceptron)):
        net, _ = train.fit(
            init(graph, seed), data, Budget(steps=400), seeds.rng(seed, name), lr=3e-3, schedule="one_cycle",
            evaluations=4,
        )  # fmt: skip
        error[name] = train.evaluate(net, data)
        details |= {f"{name}, error": error[name], f"{name}, weights": net.cost().params}
    ratio = error["resnet"] / error["perceptron"]
    return Claim(ratio, "1", "below 0.5", ratio < 0.5, "below 1", details)
