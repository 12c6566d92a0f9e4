"""ResNet's basic block: two convolutions learn what is to be added to their input.

    y = act(x' + BN(W2 * act(BN(W1 * x))))                     after (He et al., 2015)
    y = x' + W2 * act(BN(W1 * act(BN(x))))                     before, "pre-activation" (He et al., 2016, 1603.05027)

x' = x, or BN(1x1 convolution of x) where channels or size change (option B of the paper; with pre-activation the
convolution reads act(BN(x)) and has no norm after it).

x [N, C, *spatial] -> y [N, out, *spatial / stride]. Convolutions are `kernel` wide and have no bias. Parameters, for
C = out: 2 kernel^2 C^2 + 4 C. Cost: 4 kernel^2 C^2 FLOPs a position.

With squeeze > 0 a Squeeze-and-Excitation gate (part block/squeeze_excitation) scales the branch before the sum.
Fails where depth is small anyway: up to about ten layers a plain network trains as well.
Differs from the paper in nothing; the bottleneck block of ResNet-50 and above is not here.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, 2015, arXiv 1512.03385.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.core.registry import load
from archwright.ir import Editor
from archwright.kit.tokens import residual

PART = {
    "kind": "block",
    "name": "resnet",
    "id": "",
    "title": "Deep Residual Learning for Image Recognition",
    "year": 2015,
    "arxiv": "1512.03385",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 6, 6, 6], "dtype": "float32"}],
        "hp": {},
        "vary": [
            {"inputs": [{"shape": [None, 4, 5, 7], "dtype": "float32"}], "hp": {"out": 8, "stride": 2}},
            {"inputs": [{"shape": [None, 6, 6, 6], "dtype": "float32"}], "hp": {"before": True, "act": "silu"}},
            {"inputs": [{"shape": [None, 4, 8, 5], "dtype": "float32"}], "hp": {"before": True, "out": 6, "stride": 2}},
            {"inputs": [{"shape": [None, 6, 12], "dtype": "float32"}], "hp": {"kernel": 5, "squeeze": 2, "drop": 0.1}},
        ],
    },
    "exact": "With W2 = 0 pre-activation is the identity; ResNet-18 for ImageNet has 11,689,512 parameters.",
    "claim": {
        "text": "A net of 42 convolutions on digits: its training loss with the shortcuts minus without them.",
        "paper": "Plain-34 trains worse than plain-18, ResNet-34 better than ResNet-18 (figure 4); CIFAR-10 alike",
    },
}


def build(
    g: Editor, x: str, *, out: int | None = None, stride: int = 1, kernel: int = 3, act: str = "relu",
    before: bool = False, squeeze: int = 0, drop: float = 0.0, shortcut: bool = True,
) -> str:  # fmt: skip
    """x [N, C, *spatial] -> [N, out, *ceil(spatial / stride)].

    out       channels; as many as x has if not given
    kernel    odd
    before    norm and activation before each convolution rather than after it
    squeeze   ratio of a Squeeze-and-Excitation gate at the end of the branch; 0 for none
    drop      probability that the branch is left out in training
    shortcut  False leaves out the sum: the plain network that the paper compares with
    """
    _, channels, *spatial = g.shape(x)
    out = out or channels
    ones = [1] * len(spatial)
    wide = {"kernel": [kernel * n for n in ones], "padding": kernel // 2, "bias": False}
    changed = out != channels or stride != 1
    start = g.add(act, g.add("batch_norm", x, name="norm1")) if before else x
    y = g.add("conv", start, out=out, stride=stride, **wide, name="conv1")
    y = g.add(act, g.add("batch_norm", y, name="norm2" if before else "norm1"))
    y = g.add("conv", y, out=out, **wide, name="conv2")
    if not before:
        y = g.add("batch_norm", y, name="norm2")
    if squeeze:
        with g.scope("gate"):
            y = load("block/squeeze_excitation")(g, y, ratio=squeeze)
    if shortcut:
        if changed:
            x = g.add("conv", start, out=out, kernel=ones, stride=stride, bias=False, name="project")
            x = x if before else g.add("batch_norm", x, name="project_norm")
        y = residual(g, x, y, drop)
    return y if before else g.add(act, y)


def network(
    g: Editor, x: str, *, classes: int = 1000, depths: Sequence[int] = (2, 2, 2, 2), width: int = 64,
    small: bool = False, before: bool = False, shortcut: bool = True,
) -> str:  # fmt: skip
    """Stages of blocks, each with half the size and twice the channels of the one before; ResNet-18 by default.

    x [N, C, height, width] -> [N, classes]. `small`: a 3x3 convolution in front, for images of 32 x 32, in the place of
    a 7x7 one with stride and max pooling. depths=(n, n, n), width=16, small=True is the paper's net for CIFAR-10.
    """
    kernel, stride = (3, 1) if small else (7, 2)
    x = g.add("conv", x, out=width, kernel=kernel, stride=stride, padding=kernel // 2, bias=False, name="stem")
    if not before:
        x = g.add("relu", g.add("batch_norm", x, name="stem_norm"))
    if not small:
        x = g.add("max_pool", x, kernel=3, stride=2, padding=1)
    for i, depth in enumerate(depths):
        for j in range(depth):
            with g.scope(f"stage{i}.{j}"):
                first = i > 0 and j == 0
                x = build(g, x, out=width * 2**i, stride=1 + first, before=before, shortcut=shortcut)
    if before:
        x = g.add("relu", g.add("batch_norm", x, name="norm"))
    return g.add("linear", g.add("mean", x, dim=(2, 3)), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Training loss (mean over the last steps) of 42 convolutions with shortcuts, and of the same without them."""
    import numpy as np

    from archwright import ops
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit.train import fit
    from archwright.net.net import init

    data = builtin("digits", seed)
    loss = {}
    for name, depth, shortcut in (("ResNet-42", 7, True), ("plain-42", 7, False), ("plain-12", 2, False)):
        g = ops.edit()
        x = g.input("image", (None, 1, 8, 8))
        y = network(g, x, classes=10, depths=(depth,) * 3, width=8, small=True, shortcut=shortcut)
        _, log = fit(
            init(g.finish(y), seed), data, Budget(steps=100), np.random.default_rng(seed), lr=3e-3, schedule="cosine",
            evaluations=5,
        )  # fmt: skip
        loss[name] = log.columns["train_loss"][-1]
    figure = loss["ResNet-42"] - loss["plain-42"]
    held = figure < 0 and loss["plain-12"] < loss["plain-42"]
    notes = ("Convolutions are counted within the blocks. The shallower plain net shows that depth is what hurts.",)
    return Claim(figure, "nats", "below 0, and plain-12 better than plain-42", held, "below 0", loss, notes)
