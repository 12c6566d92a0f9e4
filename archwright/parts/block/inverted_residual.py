"""MobileNetV2's inverted residual: channels are expanded, each is filtered alone, and a linear map narrows them again.

    u = act(BN(We x))                1x1, C -> expand C; left out for expand = 1
    v = act(BN(D * u))               depthwise: one kernel for each channel, with the stride
    y = BN(Wp v)                     1x1, expand C -> out, without activation: the "linear bottleneck"

and x + y where out = C and the stride is 1. act is relu6: min(max(x, 0), 6).

x [N, C, *spatial] -> y [N, out, *spatial / stride]. No biases. Parameters, E = expand C: E (C + kernel^2 + out) and
those of the norms. Cost: 2 E (C + kernel^2 + out) FLOPs a position at stride 1.

With squeeze > 0 a Squeeze-and-Excitation gate (part block/squeeze_excitation) follows the depthwise convolution, as in
MobileNetV3 (arXiv 1905.02244). Few FLOPs are not little time: a depthwise convolution and the norms move E channels
through memory, and for its FLOPs the block takes about twice as long as a plain convolution on a CPU.
Differs from the paper in nothing.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, arXiv 1801.04381.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.core.registry import load
from archwright.ir import Editor
from archwright.kit.tokens import residual

PART = {
    "kind": "block",
    "name": "inverted_residual",
    "id": "",
    "title": "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
    "year": 2018,
    "arxiv": "1801.04381",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 4, 6, 6], "dtype": "float32"}],
        "hp": {"expand": 3},
        "vary": [
            {"inputs": [{"shape": [None, 4, 5, 7], "dtype": "float32"}], "hp": {"out": 6, "stride": 2}},
            {"inputs": [{"shape": [None, 8, 5, 5], "dtype": "float32"}], "hp": {"expand": 1, "act": "silu"}},
            {"inputs": [{"shape": [None, 4, 9], "dtype": "float32"}], "hp": {"expand": 2, "kernel": 5, "squeeze": 2}},
            {"inputs": [{"shape": [None, 4, 6, 6], "dtype": "float32"}], "hp": {"expand": 2.5, "drop": 0.1}},
        ],
    },
    "exact": "With Wp = 0 the block is the identity; MobileNetV2 for ImageNet has 3,504,872 parameters.",
    "claim": {
        "text": "MobileNetV2 at 224 x 224 has exactly 3,504,872 parameters, and 300 million multiply-adds to 1 %.",
        "paper": "3.4 M parameters, 300 M multiply-adds (table 4); 3,504,872 in the published weights of torchvision",
    },
}

MOBILENETV2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
)  # fmt: skip
"""expand, channels, blocks and stride of the first of them, for each stage (table 2)."""


def build(
    g: Editor, x: str, *, out: int | None = None, stride: int = 1, expand: float = 6, kernel: int = 3,
    act: str = "relu6", squeeze: int = 0, drop: float = 0.0,
) -> str:  # fmt: skip
    """x [N, C, *spatial] -> [N, out, *ceil(spatial / stride)].

    out      channels; as many as x has if not given
    expand   channels of the depthwise convolution over C
    kernel   of the depthwise convolution, odd
    squeeze  ratio of a Squeeze-and-Excitation gate after it; 0 for none
    drop     probability that the branch is left out in training, where there is a sum
    """
    _, channels, *spatial = g.shape(x)
    out = out or channels
    inner = max(1, round(expand * channels))
    ones = [1] * len(spatial)
    y = x
    if inner != channels:
        y = g.add("conv", y, out=inner, kernel=ones, bias=False, name="expand")
        y = g.add(act, g.add("batch_norm", y, name="expand_norm"))
    y = g.add(
        "conv", y, out=inner, kernel=[kernel * n for n in ones], stride=stride, padding=kernel // 2, groups=inner,
        bias=False, name="depthwise",
    )  # fmt: skip
    y = g.add(act, g.add("batch_norm", y, name="depthwise_norm"))
    if squeeze:
        with g.scope("gate"):
            y = load("block/squeeze_excitation")(g, y, ratio=squeeze)
    y = g.add("conv", y, out=out, kernel=ones, bias=False, name="project")
    y = g.add("batch_norm", y, name="project_norm")
    return residual(g, x, y, drop) if out == channels and stride == 1 else y


def network(g: Editor, x: str, *, classes: int = 1000) -> str:
    """MobileNetV2, width 1: x [N, C, height, width] -> [N, classes]."""
    x = g.add("conv", x, out=32, kernel=3, stride=2, padding=1, bias=False, name="stem")
    x = g.add("relu6", g.add("batch_norm", x, name="stem_norm"))
    for i, (expand, out, blocks, stride) in enumerate(MOBILENETV2):
        for j in range(blocks):
            with g.scope(f"stage{i}.{j}"):
                x = build(g, x, out=out, stride=1 if j else stride, expand=expand)
    x = g.add("conv", x, out=1280, kernel=1, bias=False, name="last")
    x = g.add("mean", g.add("relu6", g.add("batch_norm", x, name="last_norm")), dim=(2, 3))
    return g.add("linear", g.add("dropout", x, p=0.2), out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Parameters and multiply-adds of the whole network, counted."""
    from archwright import ops
    from archwright.net.cost import cost

    g = ops.edit()
    made = cost(g.finish(network(g, g.input("image", (None, 3, 224, 224)))))
    millions = made.flops / 2e6
    held = made.params == 3_504_872 and abs(millions / 300 - 1) <= 0.01
    details = {"M multiply-adds": millions}
    expected = "exactly 3504872, 300 M multiply-adds to 1 %"
    return Claim(float(made.params), "parameters", expected, held, "3.4 M", details)
