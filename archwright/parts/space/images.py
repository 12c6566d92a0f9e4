"""The default space for images: a stem, one to four stages, each of its own kind and half as large, and a head.

    stem     convolution (stem.kernel, stem.stride) to `width` channels, batch norm, activation
    stage i  `depth` blocks at width * growth^(i - 1) channels; the later ones begin by halving the map, in the first
             block (down = "conv") or by pooling in front of it ("max", "average")
    head     mean over positions ("average"), that and the maximum ("average_max"), or means over a grid of at most
             3 x 3 ("grid"); dropout; linear

A stage is one of

    conv       convolution, batch norm, activation
    residual   block/resnet: two convolutions and a sum; with a Squeeze-and-Excitation gate where `squeeze` says so
    inverted   block/inverted_residual: expanded by `ratio`, depthwise, narrowed; likewise with a gate
    convnext   block/convnext: depthwise convolution, layer norm, perceptron
    mixer      block/mlp_mixer over the positions as tokens
    attention  block/vit over the positions as tokens, after a depthwise convolution that tells them where they are
               (Chu et al., 2021, arXiv 2102.10882); heads of 8 channels

so that networks may be convolutional in front and mix globally behind. Mixers and attention are offered in stages that
have at most 256 positions. Stem strides and the number of stages are offered as they fit the image: no map gets
smaller than two pixels unless the image is.

Takes [N, C, height, width], gives [N, outputs]. Sizes: from about a hundred weights to several millions, most draws
between 3 and 300 thousand.

`known` are shapes that did well on digits (8 x 8), MNIST and Fashion-MNIST on a CPU, with how they were trained.
Fails on images much larger than 128 pixels, where the first stages get slow, and where the object is a small part of
the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from archwright import ops
from archwright.core import registry
from archwright.core.choose import Choose
from archwright.core.records import Claim
from archwright.core.space import Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.ir import Editor, Graph

PART = {
    "kind": "space",
    "name": "images",
    "id": "",
    "title": "The default space for images",
    "year": 2025,
    "arxiv": "",
    "needs": ["image"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 1, 8, 8]], "outputs": 4},
        "hp": {"widths": [4, 8], "depth": 2},
        "small": {
            "hp": {
                "widths": [4, 8],
                "kinds": ["conv", "inverted"],
                "depth": 1,
                "activations": ["relu"],
                "growths": [1.5],
                "dropouts": [0.0],
            },
            "spec": {"inputs": [[None, 1, 3, 3]], "outputs": 2},
            "count": 228,
        },
        "supernet": {
            "fixed": {
                "act": "relu",
                "stem.stride": 1,
                "growth": 1.5,
                "stages": 2,
                "down": "max",
                "head.pool": "average",
                "head.dropout": 0.0,
                "stage1.kind": "residual",
                "stage1.depth": 1,
                "stage1.squeeze": False,
                "stage2.kind": "inverted",
                "stage2.depth": 2,
                "stage2.squeeze": True,
                "stage2.ratio": 2,
            },
            "join": "switch",
        },
        "draws": 12,
    },
    "exact": "Every draw gives [N, outputs] for any image of at least one pixel; no map is smaller than two pixels "
    "where the image is not.",
    "claim": {
        "text": "Test accuracy on digits (8 x 8) of the first known shape after 15 epochs.",
        "paper": "98 % and more is what small convolutional networks reach on these data",
    },
}

KINDS = ("conv", "residual", "inverted", "convnext", "mixer", "attention")
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
GROWTHS = (1.0, 1.25, 1.5, 2.0)
ACTIVATIONS = ("relu", "silu", "gelu", "hardswish")
DROPOUTS = (0.0, 0.1, 0.2, 0.3, 0.5)
TOKENS = 256
"""Positions up to which all of them may be mixed with all others."""


class Room(NamedTuple):
    """What fits an image: strides of the stem, the greatest number of stages, and the positions of each stage at the
    least stride."""

    strides: tuple[int, ...]
    stages: int
    positions: tuple[int, ...]


def room(height: int, width: int, most: int = 4) -> Room:
    """The room that an image has for at most `most` stages."""
    side = min(height, width)
    strides = (2, 4) if side >= 48 else (1, 2) if side >= 16 else (1,)
    stages = min(most, 1 + max(0, int(math.log2(max(1, side // strides[-1]))) - 1))
    halved = [strides[0] * 2**i for i in range(stages)]
    return Room(strides, stages, tuple([math.ceil(height / by) * math.ceil(width / by) for by in halved]))


def draw(
    choose: Choose, spec: Spec, *, stages: int = 4, depth: int = 4, kinds: Sequence[str] = KINDS,
    widths: Sequence[int] = WIDTHS, growths: Sequence[float] = GROWTHS, activations: Sequence[str] = ACTIVATIONS,
    dropouts: Sequence[float] = DROPOUTS,
) -> Graph:  # fmt: skip
    """A network for images. At most `stages` stages of at most `depth` blocks; the rest is what may be chosen.

    Raises `TypeMismatch` if the input is no image, `ChoiceError` for an unknown kind of stage.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ChoiceError(f"kinds {list(kinds)}: expected some of {', '.join(KINDS)}")
    shape = spec.inputs[0]
    if len(spec.inputs) != 1 or len(shape) != 4 or None in shape[1:] or spec.dtype(0) != "float32":
        raise TypeMismatch(
            f"inputs {[list(s) for s in spec.inputs]} of {spec.dtype(0)}, expected one float32 "
            "[None, channels, height, width]"
        )
    fits = room(shape[2], shape[3], stages)
    g = ops.edit()
    x = g.input("image", shape)
    act = choose.one_of("act", activations)
    width = choose.one_of("width", widths)
    x = _stem(choose, g, x, width, act, fits)
    count = choose.integer("stages", 1, fits.stages)
    growth = choose.one_of("growth", growths) if count > 1 else 1.0
    down = choose.one_of("down", ("conv", "max", "average")) if count > 1 else "conv"
    kind = "conv"
    for i in range(1, count + 1):
        name = f"stage{i}"
        times = choose.integer(f"{name}.depth", int(i > 1), depth)  # the first stage may be the stem alone
        if not times:
            continue
        offered = [k for k in kinds if k not in _GLOBAL or fits.positions[i - 1] <= TOKENS]
        kind = choose.one_of(f"{name}.kind", offered or kinds)
        block = _STAGES[kind](choose, name, act)
        out, stride = _width(width * growth ** (i - 1)), 1
        if i > 1 and down == "conv":
            stride = 2
        elif i > 1:
            x = g.add(f"{'avg' if down == 'average' else 'max'}_pool", x, kernel=2, name=f"{name}.pool")
        for j in range(times):
            with g.scope(f"{name}.{j}"):
                x = block(g, x, out, stride if j == 0 else 1)
    return g.finish(_head(choose, g, x, spec.outputs, dropouts, normed=kind in _NORMED))


def _width(wanted: float) -> int:
    """Channels: multiples of 4 from 16 on, of 2 below, which is what convolutions run fastest with."""
    step = 4 if wanted >= 16 else 2
    return max(step, step * round(wanted / step))


def _stem(choose: Choose, g: Editor, x: str, width: int, act: str, fits: Room) -> str:
    kernel = choose.one_of("stem.kernel", (3, 5) if fits.strides[0] == 1 else (5, 7))
    stride = choose.one_of("stem.stride", fits.strides)
    with g.scope("stem"):
        return _conv(g, x, width, kernel, stride, act)


def _head(choose: Choose, g: Editor, x: str, outputs: int, dropouts: Sequence[float], *, normed: bool) -> str:
    pool = choose.one_of("head.pool", ("average", "average_max", "grid"))
    dropout = choose.one_of("head.dropout", dropouts)
    with g.scope("head"):
        if not normed:
            x = g.add("batch_norm", x, name="norm")
        if pool == "grid":
            x = g.add("adaptive_avg_pool", x, size=[min(3, n) for n in g.shape(x)[2:]], name="pool")
            x = g.add("flatten", x)
        else:
            mean = g.add("mean", x, dim=(2, 3), name="mean")
            x = mean if pool == "average" else g.add("concat", mean, g.add("amax", x, dim=(2, 3), name="max"), dim=1)
        if dropout:
            x = g.add("dropout", x, p=dropout)
        return g.add("linear", x, out=outputs, name="linear")


# ---------------------------------------------------------------------------------------------------------- stages
Block = Callable[[Editor, str, int, int], str]
"""(editor, x [N, C, H, W], channels, stride) -> [N, channels, H / stride, W / stride]."""


@cache
def _load(name: str) -> Any:
    return registry.load(name, "block")


def _conv(g: Editor, x: str, out: int, kernel: int, stride: int, act: str = "") -> str:
    x = g.add("conv", x, out=out, kernel=kernel, stride=stride, padding=kernel // 2, bias=False, name="conv")
    x = g.add("batch_norm", x, name="norm")
    return g.add(act, x) if act else x


def _fitted(g: Editor, x: str, out: int, stride: int) -> str:
    """x with the channels and the size that a block needs which keeps both."""
    if stride == 1 and g.shape(x)[1] == out:
        return x
    with g.scope("fit"):
        return _conv(g, x, out, 3 if stride > 1 else 1, stride)


def _kernel(choose: Choose, name: str) -> int:
    return choose.one_of(f"{name}.kernel", (3, 5))


def _ratio(choose: Choose, name: str) -> int:
    return choose.one_of(f"{name}.ratio", (1, 2, 3, 4))


def _plain(choose: Choose, name: str, act: str) -> Block:
    kernel = _kernel(choose, name)
    return lambda g, x, out, stride: _conv(g, x, out, kernel, stride, act)


def _residual(choose: Choose, name: str, act: str) -> Block:
    kernel, gate = _kernel(choose, name), _gate(choose, name)
    return lambda g, x, out, stride: _load("resnet")(g, x, out=out, stride=stride, kernel=kernel, act=act, squeeze=gate)


def _inverted(choose: Choose, name: str, act: str) -> Block:
    kernel, ratio, gate = _kernel(choose, name), _ratio(choose, name), _gate(choose, name)
    return lambda g, x, out, stride: _load("inverted_residual")(
        g, x, out=out, stride=stride, expand=ratio, kernel=kernel, act=act, squeeze=gate
    )


def _gate(choose: Choose, name: str) -> int:
    return 4 if choose.one_of(f"{name}.squeeze", (False, True)) else 0


def _convnext(choose: Choose, name: str, act: str) -> Block:
    kernel, ratio = _kernel(choose, name), _ratio(choose, name)
    return lambda g, x, out, stride: _load("convnext")(
        g, _fitted(g, x, out, stride), kernel=kernel, ratio=ratio, act=act, scale_init=0.1
    )


def _mixer(choose: Choose, name: str, act: str) -> Block:
    ratio = _ratio(choose, name)

    def block(g: Editor, x: str, out: int, stride: int) -> str:
        x = _fitted(g, x, out, stride)
        height, width = g.shape(x)[2:]
        hidden = max(4, height * width // 8)  # few: the weights over tokens should not outgrow those over channels
        return _as_tokens(g, x, lambda t: _load("mlp_mixer")(g, t, token_hidden=hidden, channel_hidden=ratio * out))

    return block


def _attention(choose: Choose, name: str, act: str) -> Block:
    ratio = _ratio(choose, name)

    def block(g: Editor, x: str, out: int, stride: int) -> str:
        x = _fitted(g, x, out, stride)
        place = g.add("conv", x, out=out, kernel=3, padding=1, groups=out, name="positions")
        x = g.add("add", x, place)
        return _as_tokens(g, x, lambda t: _load("vit")(g, t, head_dim=8, ratio=ratio, act=act))

    return block


def _as_tokens(g: Editor, x: str, body: Callable[[str], str]) -> str:
    """x [N, C, H, W] -> body over tokens [N, H W, C] -> [N, C, H, W]."""
    _, channels, height, width = g.shape(x)
    tokens = body(g.add("transpose", g.add("flatten", x, start=2), dim0=1, dim1=2))
    return g.add("reshape", g.add("transpose", tokens, dim0=1, dim1=2), shape=(-1, channels, height, width))


_STAGES: dict[str, Callable[[Choose, str, str], Block]] = {
    "conv": _plain, "residual": _residual, "inverted": _inverted, "convnext": _convnext, "mixer": _mixer,
    "attention": _attention,
}  # fmt: skip
_GLOBAL = ("mixer", "attention")
_NORMED = ("conv", "residual", "inverted")
"""Kinds whose blocks end in a norm; the others hand on a sum, which the head has to norm."""


# ----------------------------------------------------------------------------------------------------- known shapes
def known(spec: Spec) -> list[dict[str, Any]]:
    """Shapes that did well, best bets first, as parts of traces: names of choices and of settings of training
    ("train.lr") -> values. What they leave out is to be drawn.

    For images of 16 to 47 pixels the stem looks at full size, and the map is halved by maximum right after it: nets of
    like size behind a stem of stride 2 took three quarters of the time a step, and were 1.6 and 2.6 points worse on
    Fashion-MNIST after three epochs. The stages are convolutions and residual blocks: for its FLOPs a step of the other
    kinds takes about twice as long on a CPU. Digits of 8 x 8 are halved once, and best left as they are: moving or
    turning them cost half a point. The shapes for 48 pixels and more were not measured: they are those for fewer,
    behind a stem of stride 2 or 4.
    """
    height, width = [int(n or 0) for n in spec.inputs[0][2:]]
    side, most = min(height, width), room(height, width).stages
    shapes = _SMALL if side < 16 else _MEDIUM if side < 48 else _LARGE
    fitting = [dict(shape) for shape in shapes if shape["stages"] <= most]
    return fitting or [_shape(16, [("conv", 2)], augment="none", **_FEW)]


def _shape(
    width: int, stages: Sequence[tuple[str, int]], *, growth: float = 1.5, down: str = "max", stride: int = 1,
    pool: str = "average", dropout: float = 0.0, act: str = "relu", squeeze: bool = False, ratio: int = 2,
    kernel: int = 3, **train: Any,
) -> dict[str, Any]:  # fmt: skip
    """A trace: (kind, depth) of each stage, and settings of training."""
    found: dict[str, Any] = {"act": act, "width": width, "stem.kernel": kernel, "stem.stride": stride}
    found["stages"] = len(stages)
    if len(stages) > 1:
        found |= {"growth": growth, "down": down}
    for i, (kind, depth) in enumerate(stages, 1):
        name = f"stage{i}"
        found[f"{name}.depth"] = depth
        if depth:
            found[f"{name}.kind"] = kind
            found |= {f"{name}.{key}": value for key, value in _details(kind, squeeze, ratio).items()}
    found |= {"head.pool": pool, "head.dropout": dropout}
    settings = {
        "lr": 2e-2, "weight_decay": 1e-2, "batch": 128, "smoothing": 0.05, "optimiser": "adamw", "augment": "shift",
    } | train  # fmt: skip
    return found | {f"train.{name}": value for name, value in settings.items()}


def _details(kind: str, squeeze: bool, ratio: int) -> dict[str, Any]:
    """What a stage of a known shape asks beside its kind and depth."""
    kernel = {"kernel": 3} if kind not in _GLOBAL else {}
    gate = {"squeeze": squeeze} if kind in ("residual", "inverted") else {}
    wide = {"ratio": ratio} if kind not in ("conv", "residual") else {}
    return kernel | gate | wide


_STEM = ("conv", 0)
"""A first stage that is the stem alone."""

_FEW: dict[str, Any] = {"lr": 1e-2, "batch": 64, "smoothing": 0.0}
"""For a thousand images or two, which are all seen many times."""

_SMALL = [
    _shape(16, [("residual", 1), ("residual", 1)], dropout=0.1, augment="none", **_FEW),
    _shape(24, [("conv", 2), ("residual", 1)], dropout=0.2, augment="none", **_FEW),
    _shape(16, [("conv", 1), ("conv", 2)], growth=2.0, augment="none", **_FEW),
    _shape(32, [("residual", 2), ("residual", 2)], down="conv", dropout=0.2, augment="none", **_FEW),
    _shape(24, [("conv", 1), ("attention", 2)], down="conv", **_FEW),
    _shape(12, [("conv", 1), ("conv", 1)], growth=2.0, augment="none", **_FEW),
    _shape(8, [("conv", 1), ("conv", 1)], pool="grid", augment="none", **_FEW),
    _shape(4, [("conv", 1), ("conv", 1)], growth=2.0, augment="none", **_FEW),
]
_MEDIUM = [
    _shape(16, [_STEM, ("conv", 2), ("conv", 2)], lr=1e-2, smoothing=0.0),
    _shape(16, [_STEM, ("residual", 1), ("residual", 2)], augment="flip"),
    _shape(16, [_STEM, ("conv", 2), ("conv", 3)], augment="flip"),
    _shape(16, [_STEM, ("residual", 1), ("residual", 1)]),
    _shape(32, [_STEM, ("residual", 1), ("residual", 2)], augment="flip", dropout=0.2),
    _shape(12, [_STEM, ("conv", 1), ("conv", 2)]),
    _shape(16, [_STEM, ("residual", 1), ("attention", 2)], augment="affine", lr=5e-3),
    _shape(8, [_STEM, ("conv", 1), ("conv", 1)]),
    _shape(6, [_STEM, ("conv", 1), ("conv", 1)], growth=1.25),
]
_LARGE = [
    _shape(16, [_STEM, ("residual", 1), ("residual", 1), ("conv", 1)], stride=2, kernel=5, augment="flip"),
    _shape(24, [("conv", 1), ("residual", 1), ("residual", 1)], stride=4, kernel=5, augment="flip"),
    _shape(16, [_STEM, ("conv", 1), ("conv", 1), ("conv", 2)], stride=2, kernel=5, augment="shift"),
    _shape(24, [_STEM, ("residual", 1), ("residual", 2), ("residual", 1)], stride=2, kernel=5, augment="flip"),
    _shape(24, [("conv", 1), ("inverted", 2), ("attention", 2)], stride=4, kernel=5, squeeze=True, augment="flip"),
    _shape(8, [_STEM, ("conv", 1), ("conv", 1)], stride=4, kernel=5, augment="shift"),
    _shape(6, [_STEM, ("conv", 1), ("conv", 1)], stride=4, kernel=5, growth=1.25, augment="shift"),
]


def claim(*, seed: int = 0) -> Claim:
    """The first known shape as it says it is trained, on the built-in digits: accuracy on the test split."""
    import numpy as np

    from archwright.core.choose import Picker, replay
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit.augment import augmentation
    from archwright.kit.train import evaluate, fit
    from archwright.net.net import init

    data = builtin("digits", seed)
    spec = Spec.of(data)
    trace = known(spec)[0]
    graph = draw(Picker(replay(trace)), spec)
    augment = augmentation(trace["train.augment"])
    net, _ = fit(
        init(graph, seed), data, Budget(epochs=15), np.random.default_rng(seed), lr=trace["train.lr"],
        schedule="one_cycle", batch_size=trace["train.batch"], keep="last", evaluations=2,
        options={"weight_decay": trace["train.weight_decay"]},
        augment=augment and (lambda inputs, rng: (augment(inputs[0], rng),)),
    )  # fmt: skip
    accuracy = 100 * (1 - evaluate(net, data))
    return Claim(accuracy, "% correct", "at least 98", accuracy >= 98, "", {"weights": float(net.cost().params)})
