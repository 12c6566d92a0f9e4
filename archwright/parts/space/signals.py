"""Networks for signals: five bodies of learned layers over time, and one of random convolutions, under one head.

    x [N, C, T]   ->  input   each series brought to mean 0 and deviation 1, or not; its differences beside it, or not
                  ->  stem    to `width` channels and at most `steps` steps: convolution with a stride, mean then
                              convolution, or patches
                  ->  body    1 to 6 blocks: residual, inception, tcn, recurrent, mixer
                  ->  head    time pooled to features, dropout, linear
    x             ->  rocket  means over a few steps, random convolutions that are never trained, dropout, linear

Residual and inception bodies may halve the time before each further block (`shrink`) and widen by half then (`grow`).
Dilations of a tcn double from block to block. Sizes are on a grid of about equal ratios, so that networks from a few
hundred to some hundred thousand weights are found, for series of 8 to 16,000 steps and 1 to 64 channels.

Fails for series longer than that, and where the place in the series counts to the step: all heads but "cells" forget
it. Choices are independent but for what a body asks beside the common ones.

The blocks are those of the papers, which say where they differ: Wang et al. 2016 (1611.06455), Ismail Fawaz et al. 2019
(1909.04939), Bai et al. 2018 (1803.01271), Cho et al. 2014 (1406.1078), Tolstikhin et al. 2021 (2105.01601), Dempster
et al. 2019 (1910.13051).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from archwright import ops
from archwright.core import registry
from archwright.core.choose import Choose, Piece
from archwright.core.records import Claim
from archwright.core.space import Spec
from archwright.errors import ChoiceError, TypeMismatch
from archwright.ir import Editor, Graph
from archwright.kit.signals import normalise

PART = {
    "kind": "space",
    "name": "signals",
    "id": "",
    "title": "Convolutions, recurrences, mixers and random kernels for signals",
    "year": 2026,
    "arxiv": "",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 2, 20]], "outputs": 3},
        "hp": {"widths": [4, 6], "depth": 2, "kernels": [3, 5]},
        "small": {"hp": {"bodies": ["rocket"]}, "spec": {"inputs": [[None, 1, 8]], "outputs": 2}, "count": 360},
        "supernet": {
            "join": "switch",
            "fixed": {
                "input.scale": "none",
                "input.difference": True,
                "body": "residual",
                "norm": "batch",
                "act": "relu",
                "shrink": False,
                "grow": False,
                "separable": False,
                "stem": "conv",
                "steps": 32,
                "pool": "mean_max",
                "dropout": 0.1,
            },
        },
        "draws": 16,
    },
    "exact": "Every trace gives [N, outputs] for any series of at least 8 steps.",
    "claim": {
        "text": "Known shapes, on mnist1d: test accuracy of the best of them by validation.",
        "paper": "MNIST-1D: 94 % for a convolutional network, 68 % for a perceptron (Greydanus and Kobak 2020)",
    },
}

BODIES = ("residual", "inception", "tcn", "recurrent", "mixer", "rocket")
WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
STEPS = (16, 32, 64, 128, 256, 512, 1024, 2048)
KERNEL_COUNTS = (32, 64, 128, 256, 512, 1024)
KERNELS = (3, 5, 7, 9, 11, 15)
LONGEST = {"recurrent": 64, "mixer": 128}
"""Steps that a body is given at most."""
CELLS = 4
MOST_WIDTH = 256


def draw(
    choose: Choose, spec: Spec, *, bodies: Sequence[str] = BODIES, widths: Sequence[int] = WIDTHS, depth: int = 6,
    kernels: Sequence[int] = KERNELS,
) -> Graph:  # fmt: skip
    """A network for signals [N, channels, time]. `bodies`, `widths`, `kernels` are what may be chosen, `depth` the most
    blocks. Raises `TypeMismatch` for inputs that are no signals, `ChoiceError` for unknown bodies."""
    shape = spec.inputs[0]
    if len(spec.inputs) != 1 or len(shape) != 3 or None in shape[1:] or spec.dtype(0) != "float32":
        raise TypeMismatch(f"got inputs {list(map(list, spec.inputs))}, expected one, float32 [None, channels, time]")
    unknown = [name for name in bodies if name not in _BODIES]
    if unknown or not bodies:
        raise ChoiceError(f"got bodies {list(bodies)}, expected some of {', '.join(_BODIES)}")
    g = ops.edit()
    x = _prepared(choose, g, g.input("signal", shape, spec.dtype(0)))

    def piece(name: str) -> Piece:
        return lambda g, x: _BODIES[name](choose, g, x, name, tuple(widths), depth, tuple(kernels))

    x = choose.branch("body", g, x, {name: piece(name) for name in bodies})
    drop = choose.one_of("dropout", (0.0, 0.1, 0.2, 0.3, 0.5))
    if drop:
        x = g.add("dropout", x, p=drop, name="dropout")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


def _prepared(choose: Choose, g: Editor, x: str) -> str:
    """Each series scaled, and its differences as further channels: [N, C, T] -> [N, C or 2 C, T]."""
    with g.scope("input"):
        if choose.one_of("input.scale", ("none", "series")) == "series":
            x = g.add("instance_norm", x, name="scale")
        if choose.one_of("input.difference", (False, True)):
            before = g.add("pad", g.add("slice", x, dim=2, stop=-1), pads=(1, 0), mode="replicate")
            x = g.add("concat", x, g.add("sub", x, before), dim=1, name="difference")
    return x


def _steps(time: int) -> list[int]:
    """The lengths to which a series of so many steps may be brought: the last one is its own, where that is short."""
    return [n for i, n in enumerate(STEPS) if i == 0 or STEPS[i - 1] < time]


def _stride(choose: Choose, time: int, longest: int = max(STEPS)) -> int:
    """How many steps become one, so that at most `longest` and those that are chosen are left."""
    return -(-time // min(choose.one_of("steps", _steps(time)), longest))


def _stem(choose: Choose, g: Editor, x: str, width: int, kernel: int, longest: int = max(STEPS)) -> str:
    """x [N, C, T] -> [N, width, at most `longest` and the chosen steps], without norm and activation."""
    stride = _stride(choose, g.shape(x)[2], longest)
    kind = choose.one_of("stem", ("conv", "pool", "patches"))
    with g.scope("stem"):
        if kind == "patches":
            return g.add("conv", x, out=width, kernel=stride, stride=stride, name="patches")
        if kind == "pool":
            x = g.add("avg_pool", x, kernel=stride) if stride > 1 else x
            return g.add("conv", x, out=width, kernel=kernel, padding="same", name="conv")
        kernel = max(kernel, 2 * stride - 1)
        return g.add("conv", x, out=width, kernel=kernel, stride=stride, padding=kernel // 2, name="conv")


def known(spec: Spec) -> list[dict[str, Any]]:
    """Partial traces, the best bets first, with how they are trained: what did well on spoken digits (new takes and new
    speakers) and six sets of UCR and UEA with 40 to 270 series to learn from, in seconds."""
    fitting = _steps(int(spec.inputs[0][2] or STEPS[0]))
    plain = {"input.scale": "none", "input.difference": False, "train.optimiser": "adamw", "train.smoothing": 0.0,
             "train.augment": "none"}  # fmt: skip
    many = next(count for count in KERNEL_COUNTS[::-1] if count <= 128 or count * fitting[-1] <= 2**20)
    rocket = {
        **plain, "body": "rocket", "steps": fitting[-1], "rocket.channels": 4, "train.batch": 32,
    }  # fmt: skip
    conv = {
        **plain, "stem": "conv", "steps": fitting[min(len(fitting) - 1, STEPS.index(256))], "kernel": 5,
        "norm": "batch", "act": "relu", "shrink": False, "grow": False, "separable": False, "dropout": 0.1,
        "pool": "mean", "train.lr": 5e-3, "train.weight_decay": 0.05, "train.batch": 32,
    }  # fmt: skip
    residual = {**conv, "body": "residual", "width": 32, "depth": 3}
    return [
        {**rocket, "rocket.kernels": many, "dropout": 0.5, "train.lr": 3e-3, "train.weight_decay": 0.1},
        residual,
        {**rocket, "rocket.kernels": many, "dropout": 0.0, "train.lr": 1e-3, "train.weight_decay": 0.3},
        {**residual, "input.scale": "series", "pool": "mean_max"},
        {**conv, "body": "inception", "width": 24, "depth": 3},
        {**rocket, "rocket.kernels": many // 4, "dropout": 0.0, "train.lr": 1e-2, "train.weight_decay": 0.3},
        {**residual, "width": 16, "depth": 2, "separable": True},
        {**residual, "width": 8, "depth": 1, "stem": "patches", "train.lr": 1e-2},
        {**conv, "body": "recurrent", "width": 32, "both": True, "layers": 1},
        {**residual, "width": 24, "shrink": True, "grow": True, "train.augment": "shift"},
    ]


def _block(name: str) -> Any:
    return registry.load(f"block/{name}")


def _pooled(choose: Choose, g: Editor, x: str) -> str:
    """x [N, C, T] -> [N, features]."""
    pool = choose.one_of("pool", ("mean", "max", "mean_max", "last", "cells"))
    with g.scope("pool"):
        if pool == "last":
            return g.add("select", x, dim=2, index=-1)
        if pool == "cells":
            return g.add("flatten", g.add("adaptive_avg_pool", x, size=min(CELLS, g.shape(x)[2])))
        mean = g.add("mean", x, dim=2) if pool != "max" else ""
        most = g.add("amax", x, dim=2) if pool != "mean" else ""
        return g.add("concat", mean, most, dim=1) if mean and most else mean or most


def _convolutional(
    choose: Choose, g: Editor, x: str, name: str, widths: tuple[int, ...], depth: int, kernels: tuple[int, ...]
) -> str:
    """Residual, inception or tcn blocks: x [N, C, T] -> [N, features]."""
    width, kernel = choose.one_of("width", widths), choose.one_of("kernel", kernels)
    norm, act = choose.one_of("norm", ("batch", "group")), choose.one_of("act", ("relu", "gelu", "silu"))
    shrink = choose.one_of("shrink", (False, True)) if name != "tcn" else False
    grow = choose.one_of("grow", (False, True)) if name != "tcn" else False
    separable = choose.one_of("separable", (False, True)) if name == "residual" else False
    make = _block({"residual": "time_series_resnet", "inception": "inception_time", "tcn": "tcn"}[name])

    def body(g: Editor, x: str, i: int) -> str:
        time = g.shape(x)[2]
        if shrink and i and time >= 8:
            x = g.add("max_pool", x, kernel=2, name="shrink")
        wide = min(round(width * 1.5**i), MOST_WIDTH) if grow else width
        if name == "residual":
            return make(g, x, width=wide, kernels=(kernel, kernel), norm=norm, act=act, separable=separable)
        if name == "tcn":
            return make(g, x, width=wide, kernel=kernel, dilation=min(2**i, time), norm=norm, act=act)
        branch = max(1, wide // 4)
        lengths = (4 * kernel - 1, 2 * kernel - 1, kernel)
        return make(g, x, width=branch, bottleneck=branch, kernels=lengths, norm=norm, act=act)

    x = g.add(act, normalise(g, _stem(choose, g, x, width, kernel), norm, name="stem.norm"))
    return _pooled(choose, g, choose.repeat("depth", g, x, 1, depth, body))


def _recurrent(
    choose: Choose, g: Editor, x: str, name: str, widths: tuple[int, ...], depth: int, kernels: tuple[int, ...]
) -> str:
    """One or two GRU, in one direction or both: x [N, C, T] -> [N, features]."""
    width, both = choose.one_of("width", widths), choose.one_of("both", (False, True))
    x = _stem(choose, g, x, width, choose.one_of("kernel", kernels), LONGEST[name])
    x = g.add("relu", normalise(g, x, name="stem.norm"))
    layer = _block("gru")
    x = choose.repeat("layers", g, x, 1, 2, lambda g, x, i: layer(g, x, width=width, both=both))
    return _pooled(choose, g, x)


def _mixer(
    choose: Choose, g: Editor, x: str, name: str, widths: tuple[int, ...], depth: int, kernels: tuple[int, ...]
) -> str:
    """Mixer blocks over steps and channels: x [N, C, T] -> [N, features]."""
    width = choose.one_of("width", widths)
    x = _stem(choose, g, x, width, choose.one_of("kernel", kernels), LONGEST[name])
    x = g.add("transpose", x, dim0=1, dim1=2)
    layer = _block("mlp_mixer")

    def body(g: Editor, x: str, i: int) -> str:
        return layer(g, x, token_hidden=max(4, width // 2), channel_hidden=2 * width)

    x = g.add("layer_norm", choose.repeat("depth", g, x, 1, depth, body), name="norm")
    return _pooled(choose, g, g.add("transpose", x, dim0=1, dim1=2))


def _rocket(
    choose: Choose, g: Editor, x: str, name: str, widths: tuple[int, ...], depth: int, kernels: tuple[int, ...]
) -> str:
    """Features of random convolutions of x, or of its means over a few steps: [N, C, T] -> [N, 2 count]."""
    stride = _stride(choose, g.shape(x)[2])
    x = g.add("avg_pool", x, kernel=stride, name="shorten") if stride > 1 else x
    count = choose.one_of("rocket.kernels", KERNEL_COUNTS)
    return _block("rocket")(g, x, kernels=count, channels=choose.one_of("rocket.channels", (1, 4, 16)))


_BODIES: dict[str, Callable[..., str]] = {
    "residual": _convolutional, "inception": _convolutional, "tcn": _convolutional, "recurrent": _recurrent,
    "mixer": _mixer, "rocket": _rocket,
}  # fmt: skip


def claim(*, seed: int = 0) -> Claim:
    """The first random-kernel, residual and inception shapes among the known ones, 200 minibatches of 64 each."""
    from archwright.core import seeds
    from archwright.core.choose import Picker, at_random, replay
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.net.net import init

    data = builtin("mnist1d", seed=0)
    spec = Spec.of(data)
    valid, test = {}, {}
    for body in ("rocket", "residual", "inception"):
        trace = next(shape for shape in known(spec) if shape["body"] == body)
        graph = draw(Picker(replay(trace, at_random(seeds.rng(seed, body)))), spec)
        net, log = train.fit(
            init(graph, seed), data, Budget(steps=200), seeds.rng(seed, body, "fit"), lr=trace["train.lr"],
            schedule="one_cycle", evaluations=2, options={"weight_decay": trace["train.weight_decay"]},
        )  # fmt: skip
        valid[body], test[body] = log.last("valid_error"), 100 * (1 - train.evaluate(net, data))
    found = test[min(valid, key=lambda body: valid[body])]
    return Claim(found, "%", "above 85", found > 85, "94 % after far longer training", test)
