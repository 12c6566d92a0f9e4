"""MLP-Mixer: one perceptron mixes the patches of each channel, another the channels of each patch.

    u = x + (W2 gelu(W1 LN(x)))      on columns: W1 [D_S, T], W2 [T, D_S], shared over channels
    y = u + (W4 gelu(W3 LN(u)))      on rows:    W3 [D_C, C], W4 [C, D_C], shared over patches

x [N, T, C] -> y [N, T, C], T patches, C channels; all maps have biases, LN normalises over channels.
Parameters: 2 T D_S + T + D_S + 2 C D_C + C + D_C + 4 C. Cost: 4 T C (D_S + D_C) FLOPs a sample,
which is linear in T if D_S is fixed.

Needs no positions: the token perceptron knows each patch by its place. Hence a permutation of the patches, together
with the columns of W1 and the rows of W2 (and its bias), changes nothing but the order of the output.
Fails where the number of patches changes, and overfits small data where a convolution would not.
Differs from the paper in nothing.

Tolstikhin, Houlsby, Kolesnikov, Beyer, Zhai, Unterthiner, Yung, Steiner, Keysers, Uszkoreit, Lucic, Dosovitskiy:
MLP-Mixer: An all-MLP Architecture for Vision, 2021, arXiv 2105.01601.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.tokens import across_tokens, mlp, need_tokens, patches, residual

PART = {
    "kind": "block",
    "name": "mlp_mixer",
    "id": "mlp-mixer",
    "title": "MLP-Mixer: An all-MLP Architecture for Vision",
    "year": 2021,
    "arxiv": "2105.01601",
    "needs": ["tokens", "image"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 9, 12], "dtype": "float32"}],
        "hp": {"token_hidden": 10, "channel_hidden": 14},
        "vary": [
            {"inputs": [{"shape": [None, 6, 16], "dtype": "float32"}], "hp": {}},
            {"inputs": [{"shape": [None, 12, 8], "dtype": "float32"}], "hp": {"token_hidden": 5, "dropout": 0.1}},
        ],
    },
    "exact": "Patches permuted together with the token perceptron's weights: the output is permuted alike.",
    "claim": {
        "text": "The seven published Mixers have the published parameters (stem and blocks) to 0.6 million.",
        "paper": "S/32 19, S/16 18, B/32 60, B/16 59, L/32 206, L/16 207, H/14 431 M (table 1)",
    },
}

SIZES = {"S": (512, 8, 256, 2048), "B": (768, 12, 384, 3072), "L": (1024, 24, 512, 4096), "H": (1280, 32, 640, 5120)}
"""Name -> channels, depth, D_S, D_C."""


def build(
    g: Editor, x: str, *, token_hidden: int | None = None, channel_hidden: int | None = None, dropout: float = 0.0,
    drop: float = 0.0,
) -> str:  # fmt: skip
    """x [N, T, C] -> [N, T, C].

    token_hidden    D_S; C / 2 as in the paper's models
    channel_hidden  D_C; 4 C as in the paper's models
    dropout         within the perceptrons
    drop            probability that a branch is left out in training
    """
    _, channels = need_tokens(g, x)
    inner, outer = token_hidden or max(1, channels // 2), channel_hidden or 4 * channels
    y = g.add("layer_norm", x, name="norm1")
    y = across_tokens(g, y, lambda t: mlp(g, t, inner, name="tokens", dropout=dropout))
    x = residual(g, x, y, drop)
    y = mlp(g, g.add("layer_norm", x, name="norm2"), outer, name="channels", dropout=dropout)
    return residual(g, x, y, drop)


def network(
    g: Editor, x: str, *, classes: int | None = 1000, patch: int = 16, dim: int = 768, depth: int = 12,
    token_hidden: int | None = None, channel_hidden: int | None = None,
) -> str:  # fmt: skip
    """Mixer for images, B/16 by default: x [N, C, *spatial] -> [N, classes], or [N, dim] for classes=None."""
    x = patches(g, x, patch, dim)
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, token_hidden=token_hidden, channel_hidden=channel_hidden)
    x = g.add("mean", g.add("layer_norm", x, name="norm"), dim=1)
    return g.add("linear", x, out=classes, name="head") if classes else x


def claim(*, seed: int = 0) -> Claim:
    """The greatest distance to the paper's table, over its seven models for 224 x 224, without their heads."""
    from archwright import ops
    from archwright.net.cost import cost

    table = {"S/32": 19, "S/16": 18, "B/32": 60, "B/16": 59, "L/32": 206, "L/16": 207, "H/14": 431}
    found = {}
    for name in table:
        size, _, patch = name.partition("/")
        dim, depth, inner, outer = SIZES[size]
        g = ops.edit()
        x = g.input("image", (None, 3, 224, 224))
        x = network(
            g, x, classes=None, patch=int(patch), dim=dim, depth=depth, token_hidden=inner, channel_hidden=outer
        )
        found[name] = cost(g.finish(x)).params / 1e6
    figure = max(abs(found[name] - table[name]) for name in table)
    return Claim(figure, "M parameters", "at most 0.6 (the table gives whole millions)", figure <= 0.6, "0", found)
