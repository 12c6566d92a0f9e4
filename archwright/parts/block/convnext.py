"""ConvNeXt: a residual block in which a wide depthwise convolution mixes positions and a perceptron mixes channels.

    y = x + s * W2 gelu(W1 LN(D * x))        D: one kernel of 7 x 7 for each channel; W1 [4 C, C], W2 [C, 4 C]

LN normalises over the channels of each position; s [C] starts near 0 (LayerScale).

x [N, C, *spatial] -> y of the same shape. Parameters: C (kernel^2 + 2 ratio C + ratio + 5) in two dimensions.
Cost: 2 C (kernel^2 + 2 ratio C) FLOPs a position.

Down-sampling is not in the block: between stages stand a norm and a 2 x 2 convolution of stride 2, see `network`.
Fails on small data and few steps, where batch normalisation makes plain convolutions learn faster.
Differs from the paper in nothing.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s, 2022, arXiv 2201.03545.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.tokens import mlp, residual, scale

PART = {
    "kind": "block",
    "name": "convnext",
    "id": "",
    "title": "A ConvNet for the 2020s",
    "year": 2022,
    "arxiv": "2201.03545",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 6, 8, 8], "dtype": "float32"}],
        "hp": {"scale_init": 0.1},
        "vary": [
            {"inputs": [{"shape": [None, 8, 5, 7], "dtype": "float32"}], "hp": {"kernel": 3, "ratio": 2}},
            {"inputs": [{"shape": [None, 5, 12], "dtype": "float32"}], "hp": {"kernel": 5, "drop": 0.1, "act": "silu"}},
        ],
    },
    "exact": "With s = 0 the block is the identity; ConvNeXt-T for ImageNet has 28,589,128 parameters.",
    "claim": {
        "text": "ConvNeXt-T, S and B have the published parameters and multiply-adds at 224 x 224, to 1.5 %.",
        "paper": "29, 50, 89 M parameters (28.59, 50.22, 88.59 published weights); 4.5, 8.7, 15.4 G (table 1)",
    },
}

SIZES = {
    "T": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "S": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "B": ((3, 3, 27, 3), (128, 256, 512, 1024)),
}
"""Name -> blocks and channels of each stage."""


def build(
    g: Editor, x: str, *, kernel: int = 7, ratio: float = 4, act: str = "gelu", scale_init: float = 1e-6,
    drop: float = 0.0,
) -> str:  # fmt: skip
    """x [N, C, *spatial] -> the same shape.

    kernel      of the depthwise convolution, odd
    ratio       hidden channels over C
    scale_init  first value of the scales of the branch
    drop        probability that the branch is left out in training
    """
    _, channels, *spatial = g.shape(x)
    y = g.add(
        "conv", x, out=channels, kernel=[kernel] * len(spatial), padding=kernel // 2, groups=channels, name="depthwise"
    )
    y = g.add("layer_norm", last(g, y), eps=1e-6, name="norm")
    y = mlp(g, y, max(1, int(ratio * channels)), act=act)
    return residual(g, x, first(g, scale(g, y, scale_init)), drop)


def last(g: Editor, x: str) -> str:
    """Channels to the end: x [N, C, *spatial] -> [N, *spatial, C]."""
    rank = len(g.shape(x))
    return g.add("permute", x, dims=(0, *range(2, rank), 1))


def first(g: Editor, x: str) -> str:
    """Channels to the front: x [N, *spatial, C] -> [N, C, *spatial]."""
    rank = len(g.shape(x))
    return g.add("permute", x, dims=(0, rank - 1, *range(1, rank - 1)))


def network(
    g: Editor, x: str, *, classes: int = 1000, depths: Sequence[int] = (3, 3, 9, 3),
    dims: Sequence[int] = (96, 192, 384, 768), patch: int = 4,
) -> str:  # fmt: skip
    """ConvNeXt-T by default: x [N, C, height, width] -> [N, classes]. `patch`: size and stride of the first patches."""
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        with g.scope(f"down{i}"):
            if i:
                x = first(g, g.add("layer_norm", last(g, x), eps=1e-6, name="norm"))
            x = g.add("conv", x, out=dim, kernel=2 if i else patch, stride=2 if i else patch, name="conv")
            if not i:
                x = first(g, g.add("layer_norm", last(g, x), eps=1e-6, name="norm"))
        for j in range(depth):
            with g.scope(f"stage{i}.{j}"):
                x = build(g, x)
    x = g.add("layer_norm", g.add("mean", x, dim=(2, 3)), eps=1e-6, name="norm")
    return g.add("linear", x, out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """The greatest distance to the published figures, relative, over parameters and multiply-adds of three models."""
    from archwright import ops
    from archwright.net.cost import cost

    table = {"T": (28.59, 4.5), "S": (50.22, 8.7), "B": (88.59, 15.4)}
    details: dict[str, float] = {}
    worst = 0.0
    for name, (params, macs) in table.items():
        depths, dims = SIZES[name]
        g = ops.edit()
        made = cost(g.finish(network(g, g.input("image", (None, 3, 224, 224)), depths=depths, dims=dims)))
        details |= {f"{name} parameters (M)": made.params / 1e6, f"{name} G multiply-adds": made.flops / 2e9}
        worst = max(worst, abs(made.params / 1e6 / params - 1), abs(made.flops / 2e9 / macs - 1))
    return Claim(100 * worst, "%", "at most 1.5", worst <= 0.015, "0", details)
