"""MetaFormer: the transformer's frame with a slot for whatever mixes the tokens. With pooling in it: PoolFormer.

    y = x + s1 * mix(norm(x))
    z = y + s2 * W2 gelu(W1 norm(y))         W1 [ratio C, C], W2 [C, ratio C], at each position

x [N, C, *spatial] -> z of the same shape; s1, s2 [C] (LayerScale). What can stand for `mix`:

    pool       mean over a window of 3 (edges: of what lies inside) minus the input: no parameters
    identity   nothing is mixed
    random     a frozen random matrix [T, T] over the positions, rows through a softmax
    conv       depthwise convolution, 3 wide
    mlp        a learned matrix [T, T] over the positions, with bias
    attention  self-attention over the positions, heads of `head_dim` channels

Parameters: 2 ratio C^2 + (ratio + 7) C, and those of the mixer. Cost: 4 ratio T C^2 FLOPs a sample, T positions, and
the mixer's: none for pool and identity, T^2 C x 2 for random and mlp, 18 T C for conv in two dimensions.

Pooling subtracts its input because the residual adds it again. On a constant map it gives exactly 0.
Fails where distant positions must meet early: pooling sees 3, 5, 7, ... positions as depth grows.
Differs from the paper in nothing; the paper's ablations of the norm are the keyword `norm`.

Yu, Luo, Zhou, Si, Zhou, Wang, Feng, Yan: MetaFormer Is Actually What You Need for Vision, 2021, arXiv 2111.11418.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor
from archwright.kit.tokens import across_tokens, residual, scale

PART = {
    "kind": "block",
    "name": "metaformer",
    "id": "metaformer",
    "title": "MetaFormer Is Actually What You Need for Vision",
    "year": 2021,
    "arxiv": "2111.11418",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 8, 6, 6], "dtype": "float32"}],
        "hp": {"ratio": 2},
        "vary": [
            {"inputs": [{"shape": [None, 12, 5, 4], "dtype": "float32"}], "hp": {"mixer": "attention", "head_dim": 4}},
            {"inputs": [{"shape": [None, 6, 4, 4], "dtype": "float32"}], "hp": {"mixer": "random", "norm": "layer"}},
            {"inputs": [{"shape": [None, 8, 10], "dtype": "float32"}], "hp": {"mixer": "conv", "norm": "batch"}},
            {"inputs": [{"shape": [None, 8, 4, 4], "dtype": "float32"}], "hp": {"mixer": "mlp"}},
            {"inputs": [{"shape": [None, 10, 4, 4], "dtype": "float32"}], "hp": {"mixer": "identity", "ratio": 4}},
        ],
    },
    "exact": "The pooling mixer has no parameters and gives exactly 0 on constant maps.",
    "claim": {
        "text": "On digits, pooling in the place of attention costs at most 2 points of test accuracy.",
        "paper": "PoolFormer-S24 80.3 % against DeiT-S 79.8 % on ImageNet (table 2)",
    },
}

MIXERS = ("pool", "identity", "random", "conv", "mlp", "attention")
NORMS = ("group", "layer", "batch")

POOLFORMER = {
    "S12": ((2, 2, 6, 2), (64, 128, 320, 512), 1e-5),
    "S24": ((4, 4, 12, 4), (64, 128, 320, 512), 1e-5),
    "S36": ((6, 6, 18, 6), (64, 128, 320, 512), 1e-6),
    "M36": ((6, 6, 18, 6), (96, 192, 384, 768), 1e-6),
    "M48": ((8, 8, 24, 8), (96, 192, 384, 768), 1e-6),
}
"""Name -> blocks in each stage, channels of each stage, first value of the scales."""


def build(
    g: Editor, x: str, *, mixer: str = "pool", ratio: float = 4, norm: str = "group", scale_init: float = 1e-5,
    head_dim: int = 32, drop: float = 0.0,
) -> str:  # fmt: skip
    """x [N, C, *spatial] -> the same shape.

    mixer       one of `MIXERS`
    ratio       hidden channels over C
    norm        "group": over channels and positions (the paper's choice); "layer": over channels; "batch"
    scale_init  first value of the scales of the branches
    head_dim    channels of a head, for attention
    drop        probability that a branch is left out in training
    """
    if mixer not in MIXERS or norm not in NORMS:
        raise ArchwrightError(f"mixer is '{mixer}', norm '{norm}': expected one of {MIXERS}, and of {NORMS}")
    channels, rank = g.shape(x)[1], len(g.shape(x)) - 2
    with g.scope("mixer"):
        y = mix(g, normalise(g, x, norm), mixer, head_dim)
    x = residual(g, x, scale(g, y, scale_init, dim=1, name="scale1"), drop)
    with g.scope("mlp"):
        y = normalise(g, x, norm)
        y = g.add("conv", y, out=int(ratio * channels), kernel=[1] * rank, name="up")
        y = g.add("conv", g.add("gelu", y), out=channels, kernel=[1] * rank, name="down")
    return residual(g, x, scale(g, y, scale_init, dim=1, name="scale2"), drop)


def normalise(g: Editor, x: str, norm: str) -> str:
    """x [N, C, *spatial] normalised: see `build`."""
    if norm == "group":
        return g.add("group_norm", x, groups=1, name="norm")
    if norm == "batch":
        return g.add("batch_norm", x, name="norm")
    rank = len(g.shape(x))
    y = g.add("permute", x, dims=(0, *range(2, rank), 1))
    y = g.add("layer_norm", y, name="norm")
    return g.add("permute", y, dims=(0, rank - 1, *range(1, rank - 1)))


def mix(g: Editor, x: str, mixer: str, head_dim: int) -> str:
    """The token mixer: x [N, C, *spatial] -> the same shape."""
    _, channels, *spatial = g.shape(x)
    rank = len(spatial)
    if mixer == "identity":
        return x
    if mixer == "pool":
        mean = g.add("avg_pool", x, kernel=[3] * rank, stride=1, padding=1, count_include_pad=False)
        return g.add("sub", mean, x)
    if mixer == "conv":
        return g.add("conv", x, out=channels, kernel=[3] * rank, padding=1, groups=channels, name="conv")
    flat = g.add("flatten", x, start=2)
    tokens = g.shape(flat)[2]
    if mixer == "attention":
        flat = across_tokens(g, flat, lambda t: attend(g, t, head_dim))
    elif mixer == "mlp":
        flat = g.add("linear", flat, out=tokens, name="across")
    else:
        weight = g.add("buffer", shape=(tokens, tokens), init=("normal", 1.0), name="across")
        flat = g.add("linear", flat, g.add("softmax", weight, dim=1), out=tokens)
    return g.add("reshape", flat, shape=(-1, channels, *spatial))


def attend(g: Editor, x: str, head_dim: int) -> str:
    """Self-attention: x [N, T, C] -> [N, T, C] with C / head_dim heads, queries, keys and values without bias."""
    _, tokens, channels = g.shape(x)
    if channels % head_dim:
        raise ArchwrightError(f"head_dim is {head_dim}, expected a divisor of the {channels} channels")
    heads = []
    for name in ("q", "k", "v"):
        y = g.add("linear", x, out=channels, bias=False, name=name)
        y = g.add("reshape", y, shape=(-1, tokens, channels // head_dim, head_dim))
        heads.append(g.add("transpose", y, dim0=1, dim1=2))
    y = g.add("transpose", g.add("attention", *heads), dim0=1, dim1=2)
    return g.add("linear", g.add("reshape", y, shape=(-1, tokens, channels)), out=channels, name="out")


def network(
    g: Editor, x: str, *, classes: int = 1000, depths: Sequence[int] = (2, 2, 6, 2),
    dims: Sequence[int] = (64, 128, 320, 512), mixers: Sequence[str] = ("pool",), ratio: float = 4,
    norm: str = "group", scale_init: float = 1e-5, head_dim: int = 32, stem: tuple[int, int, int] = (7, 4, 2),
) -> str:  # fmt: skip
    """Stages of blocks with fewer positions from stage to stage; PoolFormer-S12 by default: [N, classes].

    x       [N, C, *spatial]
    mixers  for each stage; the last one counts for all further stages: ("pool", "pool", "attention") is the hybrid
    stem    kernel, stride and padding of the first patches; between stages they are 3, 2, 1
    """
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        kernel, stride, padding = stem if i == 0 else (3, 2, 1)
        x = g.add("conv", x, out=dim, kernel=kernel, stride=stride, padding=padding, name=f"patches{i}")
        mixer = mixers[min(i, len(mixers) - 1)]
        for j in range(depth):
            with g.scope(f"stage{i}.{j}"):
                x = build(g, x, mixer=mixer, ratio=ratio, norm=norm, scale_init=scale_init, head_dim=head_dim)
    x = normalise(g, x, norm)
    return g.add("linear", g.add("mean", x, dim=list(range(2, len(g.shape(x))))), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Test accuracy with pooling minus that with attention, same frame and training; without any mixing beside them."""
    import numpy as np

    from archwright import ops
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit.train import evaluate, fit
    from archwright.net.net import init

    data = builtin("digits", seed)
    accuracy = {}
    for mixer in ("pool", "attention", "identity"):
        g = ops.edit()
        x = g.input("image", (None, 1, 8, 8))
        y = network(
            g, x, classes=10, depths=(1, 1), dims=(32, 64), mixers=(mixer,), ratio=2, scale_init=0.1, head_dim=16,
            stem=(2, 2, 0),
        )  # fmt: skip
        net, _ = fit(
            init(g.finish(y), seed), data, Budget(steps=400), np.random.default_rng(seed), lr=4e-3, schedule="cosine",
            warmup=0.1, evaluations=5,
        )  # fmt: skip
        accuracy[mixer] = 100 * (1 - evaluate(net, data))
    figure = accuracy["pool"] - accuracy["attention"]
    notes = ("The patches between the stages mix positions too: 'identity' shows how far they alone come.",)
    return Claim(figure, "points", "above -2", figure > -2, "+0.5", accuracy, notes)
