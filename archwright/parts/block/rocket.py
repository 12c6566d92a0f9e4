"""ROCKET: many random convolutions that are never trained; only a linear map of two numbers of each is.

    z_k = (W_k - mean W_k) *_d(k) x + b_k          W ~ N(0, 1), b ~ U(-1, 1), k = 1 .. K
    y   = [max_t z_k,  mean_t 1(z_k > 0)] for all k, each brought to mean 0 and deviation 1

x [N, C, T] -> y [N, 2 K]: features for a linear head. The second is called PPV, the proportion of positive values.
Kernels have 7, 9 and 11 taps in turn and dilations 1, 2, 4, ... as far as they fit into the series, and every kernel
reads a few random channels. What is random is drawn with the weights of the net: buffers, stored in the bundle and
counted in bytes and FLOPs, but not among the parameters, which training changes.
Parameters: none (2 K outputs after a head of `out` are 2 K out + out). Cost: 2 T K C 9 FLOPs a sample on the average.

Fails where features have to be learned: long signals of many classes with samples to learn from. The linear head needs
much weight decay (the paper fits a ridge classifier), since it has more weights than there are series.
Differs from the paper: taps and dilations go in turn instead of at random, so that kernels of a kind are one
convolution; every kernel is padded; mean and deviation of the features are the average over all minibatches so far, by
a batch norm without weights, so that they are right after a few steps.

Dempster, Petitjean, Webb: ROCKET: Exceptionally Fast and Accurate Time Series Classification Using Random Convolutional
Kernels, 2019, arXiv 1910.13051.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor
from archwright.kit.signals import need_signal

PART = {
    "kind": "block",
    "name": "rocket",
    "id": "",
    "title": "ROCKET: Exceptionally Fast and Accurate Time Series Classification Using Random Convolutional Kernels",
    "year": 2019,
    "arxiv": "1910.13051",
    "needs": ["signal"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3, 24], "dtype": "float32"}],
        "hp": {"kernels": 12},
        "vary": [
            {"inputs": [{"shape": [None, 1, 50], "dtype": "float32"}], "hp": {"kernels": 30}},
            {"inputs": [{"shape": [None, 9, 8], "dtype": "float32"}], "hp": {"kernels": 5, "channels": 9}},
        ],
    },
    "exact": "A constant series gives inner convolutions of 0, whatever its level: kernels have mean 0.",
    "claim": {
        "text": "MNIST-1D: test accuracy of a linear map of 1,000 random kernels, beside one of the series.",
        "paper": "with 10,000 kernels as accurate, by rank over 85 sets, as learned ones (figure 1)",
    },
}

TAPS = (7, 9, 11)


def build(g: Editor, x: str, *, kernels: int = 1000, channels: int = 4) -> str:
    """x [N, C, T] -> [N, 2 kernels].

    kernels   K
    channels  that each kernel reads, at most: the others have weight 0
    """
    _, steps = need_signal(g, x)
    if kernels < 1 or channels < 1:
        raise ArchwrightError(f"got kernels={kernels} and channels={channels}, expected at least 1 of each")
    made = []
    forms = _forms(steps)
    for i, (taps, dilation) in enumerate(forms):
        count = len(range(i, kernels, len(forms)))
        if count:
            with g.scope(f"taps{taps}.dilation{dilation}"):
                made.append(_features(g, x, count, taps, dilation, channels))
    y = g.add("concat", *made, dim=1) if len(made) > 1 else made[0]
    return g.add("batch_norm", y, affine=False, momentum=None, name="norm")


def _forms(steps: int) -> list[tuple[int, int]]:
    """(taps, dilation) of the kinds of kernels that fit into so many steps; the shortest alone where none does."""
    fitting = [(taps, 2**i) for i in range(steps.bit_length()) for taps in TAPS if (taps - 1) * 2**i < steps]
    return fitting or [(TAPS[0], 1)]


def _features(g: Editor, x: str, count: int, taps: int, dilation: int, channels: int) -> str:
    """The features [N, 2 count] of kernels of one kind."""
    inside = g.shape(x)[1]
    w = g.add("buffer", shape=(count, inside, taps), init=("normal", 1.0), name="kernels")
    w = g.add("sub", w, g.add("mean", w, dim=2, keepdim=True))
    if channels < inside:
        places = g.add("buffer", shape=(count, inside, 1), init=("uniform", 1.0), name="channels")
        least = g.add("amin", g.add("topk", places, k=channels, dim=1)[0], dim=1, keepdim=True)
        w = g.add("mul", w, g.add("cast", g.add("ge", places, least), dtype="float32"))
    bias = g.add("buffer", shape=(count,), init=("uniform", 1.0), name="bias")
    z = g.add("conv", x, w, bias, out=count, kernel=taps, dilation=dilation, padding="same", name="conv")
    positive = g.add("cast", g.add("gt", z, value=0.0), dtype="float32")
    return g.add("concat", g.add("amax", z, dim=2), g.add("mean", positive, dim=2), dim=1)


def claim(*, seed: int = 0) -> Claim:
    """The features are computed once, since nothing before the head is trained; the head is fitted by 1,500 steps."""
    from dataclasses import replace

    import torch

    from archwright import ops
    from archwright.core import seeds
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.net.build import build as module
    from archwright.net.net import init

    data = builtin("mnist1d", seed=0)
    g = ops.edit()
    features = module(init(g.finish(build(g, g.input("x", data.shapes[0]), kernels=1000)), seed)).eval()
    with torch.no_grad():
        made = torch.cat([features(part) for part in torch.from_numpy(data.inputs[0]).split(500)]).numpy()
    error = {}
    for name, x in (("kernels", made), ("series", data.inputs[0].reshape(len(made), -1))):
        own = replace(data, inputs=(x,), kind="table", scales=())
        h = ops.edit()
        v = h.add("batch_norm", h.input("x", own.shapes[0]), affine=False)
        net, _ = train.fit(
            init(h.finish(h.add("linear", v, out=data.outputs, name="head")), seed), own, Budget(steps=1500),
            seeds.rng(seed, name), lr=3e-3, schedule="one_cycle", evaluations=4, options={"weight_decay": 0.1},
        )  # fmt: skip
        error[name] = 100 * train.evaluate(net, own)
    found = 100 - error["kernels"]
    return Claim(found, "%", "above 80", found > 80, "no figure for this set", {"of the series": 100 - error["series"]})
