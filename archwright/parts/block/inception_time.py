"""The Inception module for time series: convolutions of several lengths side by side, and a pooled branch.

    b  = W_b x                                    bottleneck, kernel 1, where x has more than one channel
    y  = act(norm([K_1 * b, K_2 * b, K_3 * b, W_p max_3(x)]))        [...] one after the other along channels

x [N, C, T] -> y [N, 4 width, T] with the paper's three kernels of 40, 20 and 10 steps; max_3 is the greatest of a step
and its two neighbours. `network` is the paper's: six modules, after every third one a shortcut, the mean over time.
Parameters: C B + B width sum of k_i + C width + 8 width with the bottleneck B and three kernels. No biases.
Cost: 2 T (C B + B width sum of k_i + C width) FLOPs a sample.

Fails on short series, whose length the kernels exceed (choose them shorter), and for one copy alone: the paper's
figures are those of five networks averaged. Differs from the paper in nothing at the defaults.

Ismail Fawaz, Lucas, Forestier, Pelletier, Schmidt, Weber, Webb, Idoumghar, Muller, Petitjean: InceptionTime: Finding
AlexNet for Time Series Classification, 2019, arXiv 1909.04939.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.signals import convolve, need_signal, normalise

PART = {
    "kind": "block",
    "name": "inception_time",
    "id": "",
    "title": "InceptionTime: Finding AlexNet for Time Series Classification",
    "year": 2019,
    "arxiv": "1909.04939",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3, 24], "dtype": "float32"}],
        "hp": {"width": 4, "bottleneck": 2, "kernels": [9, 5, 3]},
        "vary": [
            {"inputs": [{"shape": [None, 1, 17], "dtype": "float32"}], "hp": {"width": 3, "kernels": [10, 4]}},
            {
                "inputs": [{"shape": [None, 5, 12], "dtype": "float32"}],
                "hp": {"width": 2, "bottleneck": 0, "kernels": [7, 5, 3], "norm": "group", "act": "silu"},
            },
        ],
    },
    "exact": "At every step the network sees 1 + depth (longest kernel - 1) steps, and none beyond.",
    "claim": {
        "text": "MNIST-1D: test error of one module with kernels of 19, 9 and 5 over that of one with kernels of 3.",
        "paper": "longer kernels are better on the average (the study of filter lengths)",
    },
}


def build(
    g: Editor, x: str, *, width: int = 32, kernels: Sequence[int] = (40, 20, 10), bottleneck: int = 32,
    norm: str = "batch", act: str = "relu",
) -> str:  # fmt: skip
    """x [N, C, T] -> [N, (kernels + 1) width, T].

    width       channels of each branch
    kernels     lengths of the convolutions side by side
    bottleneck  channels that they read; 0 for all of x
    norm, act   as in `time_series_resnet`
    """
    channels, _ = need_signal(g, x)
    pooled = g.add("max_pool", x, kernel=3, stride=1, padding=1, name="pool")
    read = x
    if bottleneck and channels > 1:
        read = g.add("conv", x, out=bottleneck, kernel=1, bias=False, name="bottleneck")
    made = [
        g.add("conv", read, out=width, kernel=kernel, padding="same", bias=False, name=f"branch{i}")
        for i, kernel in enumerate(kernels, 1)
    ]
    made.append(g.add("conv", pooled, out=width, kernel=1, bias=False, name="pooled"))
    return g.add(act, normalise(g, g.add("concat", *made, dim=1), norm))


def network(
    g: Editor, x: str, *, classes: int, width: int = 32, depth: int = 6, kernels: Sequence[int] = (40, 20, 10)
) -> str:
    """One network of the paper's five: x [N, C, T] -> [N, classes]."""
    shortcut = x
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, width=width, kernels=kernels, bottleneck=width)
        if i % 3 == 2:
            same = convolve(g, shortcut, g.shape(x)[1], 1, name=f"shortcut{i // 3}")
            x = shortcut = g.add("relu", g.add("add", x, same))
    return g.add("linear", g.add("mean", x, dim=2), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """One module each, 600 steps, otherwise alike."""
    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.net.net import init

    data = builtin("mnist1d", seed=0)
    error: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, kernels in (("long", (19, 9, 5)), ("short", (3, 3, 3))):
        g = ops.edit()
        graph = g.finish(
            network(g, g.input("x", data.shapes[0]), classes=data.outputs, width=8, depth=1, kernels=kernels)
        )  # fmt: skip
        net, _ = train.fit(
            init(graph, seed), data, Budget(steps=600), seeds.rng(seed, name), lr=1e-2, schedule="one_cycle",
            evaluations=4,
        )  # fmt: skip
        error[name] = train.evaluate(net, data)
        details |= {f"{name}, error": error[name], f"{name}, weights": net.cost().params}
    ratio = error["long"] / error["short"]
    return Claim(ratio, "1", "below 1", ratio < 1, "below 1: longer kernels are better", details)
