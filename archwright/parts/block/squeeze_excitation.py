"""Squeeze-and-Excitation: each channel is scaled by a gate that sees the mean of all channels.

    s_c = mean over positions of x[n, c]
    y   = x * sigmoid(W2 relu(W1 s + b1) + b2)        W1 [C / ratio, C], W2 [C, C / ratio]

x [N, C, *spatial] -> y of the same shape. Parameters: 2 C^2 / ratio + C + C / ratio. Cost: 4 C^2 / ratio FLOPs a sample
whatever the number of positions, and two passes over x, which on a CPU take longer than the FLOPs.

In the paper it stands at the end of a residual branch, before the sum: `resnet` and `inverted_residual` have it there.
Fails to help where the mean over positions says little: few positions, or features whose place is what matters.
Differs from the paper in nothing.

Hu, Shen, Albanie, Sun, Wu: Squeeze-and-Excitation Networks, 2017, arXiv 1709.01507.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "squeeze_excitation",
    "id": "",
    "title": "Squeeze-and-Excitation Networks",
    "year": 2017,
    "arxiv": "1709.01507",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 8, 6, 6], "dtype": "float32"}],
        "hp": {"ratio": 2},
        "vary": [
            {"inputs": [{"shape": [None, 12, 5, 7], "dtype": "float32"}], "hp": {"ratio": 3, "act": "silu"}},
            {"inputs": [{"shape": [None, 10, 16], "dtype": "float32"}], "hp": {"ratio": 2}},
        ],
    },
    "exact": "With W2 = 0 and b2 = 0 the output is half the input.",
    "claim": {
        "text": "In the sixteen blocks of ResNet-50 the gates have 2.5 million parameters and under 1 % of its FLOPs.",
        "paper": "2.5 M parameters, 0.26 % more GFLOPs: 3.87 in place of 3.86 (section 4)",
    },
}

RESNET50 = ((3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7))
"""Blocks, channels and size of the map in each stage."""


def build(g: Editor, x: str, *, ratio: int = 16, act: str = "relu") -> str:
    """x [N, C, *spatial] -> the same shape.

    ratio  divides C in the gate's hidden layer, which has at least one unit
    act    of the hidden layer
    """
    if ratio < 1:
        raise ArchwrightError(f"ratio is {ratio}, expected at least 1")
    _, channels, *spatial = g.shape(x)
    gate = g.add("mean", x, dim=list(range(2, 2 + len(spatial))), name="squeeze")
    gate = g.add(act, g.add("linear", gate, out=max(1, channels // ratio), name="down"))
    gate = g.add("sigmoid", g.add("linear", gate, out=channels, name="up"))
    gate = g.add("reshape", gate, shape=(-1, channels, *[1] * len(spatial)))
    return g.add("mul", x, gate, name="excite")


def claim(*, seed: int = 0) -> Claim:
    """Parameters of the gates alone, and their FLOPs beside the 3.86 G of the network; counted, nothing is trained."""
    from archwright import ops
    from archwright.net.cost import cost

    params, flops = 0, 0
    for blocks, channels, size in RESNET50:
        g = ops.edit()
        made = cost(g.finish(build(g, g.input("x", (None, channels, size, size)), ratio=16)))
        params += blocks * made.params
        flops += blocks * made.flops
    figure, share = params / 1e6, 100 * flops / (2 * 3.86e9)
    held = abs(figure - 2.5) < 0.05 and share < 1
    details = {"share of ResNet-50's FLOPs (%)": share}
    notes = ("The paper counts a multiplication with its addition as one; here they are two, of both.",)
    return Claim(figure, "M parameters", "2.5 to the digit given, FLOPs below 1 %", held, "2.5", details, notes)
