"""ResMLP: patches talk through one linear map, channels through a two-layer perceptron; no normalisation, no attention.

    Aff(x) = a * x + b                       an affine map of each channel, in the place of a norm
    z = x + s1 * (A Aff1(x) + c)             A [T, T] acts across the patches, the same for all channels
    y = z + s2 * (W2 gelu(W1 Aff2(z)))       W1 [expansion C, C], W2 [C, expansion C], with biases, at each patch

x [N, T, C] -> y [N, T, C], T patches, C channels; a, b, s1, s2 [C].
Parameters: T^2 + T + 2 expansion C^2 + (expansion + 7) C. Cost: 2 T^2 C + 4 expansion T C^2 FLOPs a sample.

Nothing in it depends on statistics of the data, so after training all affine maps can be folded away: `fold` moves a1
into s1, (a2, b2) into W1, s2 into W2, and what b1 and c add becomes one bias [T, C] (`folded=True` builds that form).

Fails where the number of patches changes: A belongs to one T. Starts slowly with a small `scale` and few blocks.
Differs from the paper: after a residual branch stands a scale without an offset, as in the published weights; the
paper's formula also writes an offset there, which the bias before it makes redundant.

Touvron, Bojanowski, Caron, Cord, El-Nouby, Grave, Izacard, Joulin, Synnaeve, Verbeek, Jegou: ResMLP: Feedforward
networks for image classification with data-efficient training, 2021, arXiv 2105.03404.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from archwright.core.records import Claim
from archwright.ir import Editor
from archwright.kit.tokens import across_tokens, mlp, need_tokens, patches, residual, scale, shift

PART = {
    "kind": "block",
    "name": "resmlp",
    "id": "resmlp",
    "title": "ResMLP: Feedforward networks for image classification with data-efficient training",
    "year": 2021,
    "arxiv": "2105.03404",
    "needs": ["tokens", "image"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 9, 12], "dtype": "float32"}],
        "hp": {"expansion": 2},
        "vary": [
            {"inputs": [{"shape": [None, 6, 16], "dtype": "float32"}], "hp": {"expansion": 4, "scale_init": 1e-4}},
            {"inputs": [{"shape": [None, 12, 8], "dtype": "float32"}], "hp": {"folded": True}},
        ],
    },
    "exact": "The folded block computes what the block computes; with scales of 0 the block is the identity.",
    "claim": {
        "text": "Folding all affine maps of ResMLP-S12 (dim 96 here) away changes the output by rounding only.",
        "paper": "Aff can be integrated into the linear layers at inference (section 2)",
    },
}


def build(
    g: Editor, x: str, *, expansion: int = 4, scale_init: float = 0.1, drop: float = 0.0, folded: bool = False
) -> str:
    """x [N, T, C] -> [N, T, C].

    expansion   hidden channels over C
    scale_init  first value of the scales of the branches: 0.1 up to depth 18, 1e-5 for 24, 1e-6 beyond, in the paper
    drop        probability that a branch is left out in training
    folded      the form for inference, without affine maps: see `fold`
    """
    tokens, channels = need_tokens(g, x)
    if folded:
        y = across_tokens(g, x, lambda t: g.add("linear", t, out=tokens, bias=False, name="across"))
        y = scale(g, y, scale_init, name="scale1")
        y = g.add("add", y, g.add("param", shape=(tokens, channels), name="offset"))
        z = residual(g, x, y, drop)
        return residual(g, z, mlp(g, z, expansion * channels), drop)
    y = affine(g, x, "affine1")
    y = across_tokens(g, y, lambda t: g.add("linear", t, out=tokens, name="across"))
    z = residual(g, x, scale(g, y, scale_init, name="scale1"), drop)
    y = mlp(g, affine(g, z, "affine2"), expansion * channels)
    return residual(g, z, scale(g, y, scale_init, name="scale2"), drop)


def affine(g: Editor, x: str, name: str) -> str:
    """a * x + b with a, b [C]; the identity at the start."""
    with g.scope(name):
        return shift(g, scale(g, x, 1.0))


def fold(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights of a block as those of the same block with `folded=True`. `prefix` is its scope: "block0."."""
    w = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    a1, b1 = w["affine1.scale"], w["affine1.shift"]
    a2, b2 = w["affine2.scale"], w["affine2.shift"]
    s1, s2 = w["scale1"], w["scale2"]
    across, up, down = w["across.weight"], w["mlp.up.weight"], w["mlp.down.weight"]
    found = {
        "across.weight": across,
        "scale1": s1 * a1,
        "offset": s1 * (across.sum(1)[:, None] * b1 + w["across.bias"][:, None]),
        "mlp.up.weight": up * a2,
        "mlp.up.bias": w["mlp.up.bias"] + up @ b2,
        "mlp.down.weight": s2[:, None] * down,
        "mlp.down.bias": s2 * w["mlp.down.bias"],
    }
    return {prefix + name: tensor for name, tensor in found.items()}


def network(
    g: Editor, x: str, *, classes: int = 1000, patch: int = 16, dim: int = 384, depth: int = 12,
    scale_init: float = 0.1, folded: bool = False,
) -> str:  # fmt: skip
    """ResMLP for images, S12 by default: x [N, C, *spatial] -> [N, classes]. S24: depth=24, B24: dim=768, depth=24."""
    x = patches(g, x, patch, dim)
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, scale_init=scale_init, folded=folded)
    x = affine(g, x, "affine")
    return g.add("linear", g.add("mean", x, dim=1), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Largest difference, over the largest output, between a network with random affine maps and the folded one."""
    import torch

    from archwright import ops
    from archwright.net.build import build as module
    from archwright.net.net import Net, init

    graphs = []
    for folded in (False, True):
        g = ops.edit()
        x = g.input("image", (None, 3, 64, 64))
        graphs.append(g.finish(network(g, x, classes=10, patch=8, dim=96, scale_init=0.5, folded=folded)))
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: w if w.dim() > 1 else w + 0.3 * torch.randn(w.shape, generator=generator)
        for name, w in init(graphs[0], seed).weights.items()
    }
    net = Net(graphs[0], weights)
    merged = {name: w for name, w in weights.items() if not name.startswith("block")}
    for i in range(12):
        merged |= fold(weights, f"block{i}.")
    folded_net = Net(graphs[1], merged)
    images = torch.randn(8, 3, 64, 64, generator=generator)
    with torch.no_grad():
        before, after = module(net).eval()(images), module(folded_net).eval()(images)
    figure = float((before - after).abs().max() / before.abs().max())
    nodes = {"nodes": float(len(net.graph)), "nodes folded": float(len(folded_net.graph))}
    return Claim(figure, "1", "below 1e-5", figure < 1e-5, "exact", nodes)
