"""Layer rotation: how far training has turned each layer's weights away from where they started.

    d_l(t) = 1 - <w_l(0), w_l(t)> / (|w_l(0)| |w_l(t)|)          the cosine distance, in [0, 2]; d = 1 is a right angle

w_l(t) is the weight matrix or kernel of layer l after t steps, as one long vector. The paper finds that nets whose
layers all get near 1 generalise best, whatever the optimiser, and that what rates, decay, warm-up and adaptive
optimisers do to generalisation they do through rotation. `look` shows d over snapshots, the first being the start.

`layca` (layer-level control of amount of rotation) makes any optimiser turn every layer by the same angle each step:

    s = the optimiser's step, its part along w taken away          w' = |w| (w + r |w| s / |s|) / |w + r |w| s / |s||

so the angle between w and w' is exactly arctan(r), and the norm of w stays. r is the learning rate, so schedules work
as ever. Weights with less than two dimensions (biases, gains) stay at their start, as in the paper's experiments, or
follow the plain optimiser (`others="free"`). A layer whose step is 0, or points along w, stays; one of zeros, too.

Cost of `look`: one pass over the weights for each snapshot; of `layca`: a few passes and a copy of the weights a step.
`data` is not looked at. Fails to say anything for layers that start at zero (left out), and where the scale of weights
matters (nets without norms, which Layca cannot grow). Differs from the paper in nothing.

Carbonnelle, De Vleeschouwer: Layer rotation: a surprisingly powerful indicator of generalization in deep networks?,
2018, arXiv 1806.01603.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archwright.core.records import Chart, Claim, Figure, Finding
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.layers import kernels
from archwright.kit.train import optimiser_named
from archwright.net.net import Net

PART = {
    "kind": "lens",
    "name": "layer_rotation",
    "id": "layer-rotation",
    "title": "Layer rotation: a surprisingly powerful indicator of generalization in deep networks?",
    "year": 2018,
    "arxiv": "1806.01603",
    "needs": ["weights", "training"],
    "extras": [],
    "example": {},
    "exact": "The distance is 0 for the start and any positive multiple of it, 2 for its negative. A step of Layca "
    "turns each layer by arctan(rate) and keeps its norm.",
    "claim": {
        "text": "Digits, 150 to train on, perceptrons trained for as many steps with Layca at ten rates: Spearman's "
        "rank correlation of final mean rotation with test accuracy.",
        "paper": "greater final rotation, better generalisation, by up to 30 % test accuracy (abstract)",
    },
}


def distance(start: Tensor, now: Tensor) -> float:
    """Cosine distance of two tensors as vectors, in [0, 2]; NaN where one of them is zero."""
    a, b = start.detach().flatten().double(), now.detach().flatten().double()
    length = float(a.norm() * b.norm())
    return min(2.0, max(0.0, 1 - float(a @ b) / length)) if length else float("nan")


def rotations(start: Net, now: Net) -> dict[str, float]:
    """Cosine distance of each layer from its start, by the name of its weight; layers that are zero are left out.

    Raises `ArchwrightError` if the nets do not have the same layers.
    """
    before, after = kernels(start), kernels(now)
    if [(n, w.shape) for n, w in before.items()] != [(n, w.shape) for n, w in after.items()]:
        raise ArchwrightError("the snapshots have different layers, expected those of one training")
    found = {name: distance(weight, after[name]) for name, weight in before.items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def rotate(weight: Tensor, step: Tensor, rate: float) -> Tensor:
    """The weight turned by arctan(rate) towards `step`, a tensor of its shape (what an optimiser would add to it)."""
    w, s = weight.flatten().double(), step.flatten().double()
    length = w.norm()
    if not float(length):
        return weight.clone()
    w = w / length
    s = s - (s @ w) * w
    s = s - (s @ w) * w  # once more: what rounding left along w
    size = s.norm()
    if float(size) <= 1e-12 * float(step.double().norm()) or not float(size):
        return weight.clone()
    turned = w + rate * s / size
    return (length * turned / turned.norm()).reshape(weight.shape).to(weight.dtype)


Optimiser = type[torch.optim.Optimizer]


def layca(optimiser: str | Optimiser = "SGD", *, others: str = "still") -> Optimiser:
    """An optimiser of `torch.optim`, by name or class, under Layca: a class to be used like it, by a rule for instance:
    `fit(net, data, budget, rng, optimiser=layca("Adam"), lr=0.03)`.

    others  what becomes of weights with less than two dimensions: "still" or "free"
    """
    if others not in ("still", "free"):
        raise ArchwrightError(f"got others={others!r}, expected 'still' or 'free'")
    kind = optimiser_named(optimiser)

    class Layca(kind):  # type: ignore[misc, valid-type]
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            before = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
            loss = super().step(closure)
            with torch.no_grad():
                for group, old in zip(self.param_groups, before, strict=True):
                    for p, w in zip(group["params"], old, strict=True):
                        if p.dim() >= 2:
                            p.copy_(rotate(w, p - w, float(group["lr"])))
                        elif others == "still":
                            p.copy_(w)
            return loss

    Layca.__name__ = Layca.__qualname__ = f"Layca{kind.__name__}"
    return Layca


def look(net: Net, data: Data, snapshots: Sequence[Net] = ()) -> Finding:
    """How far each layer has turned from the first snapshot (default: the net itself) at each snapshot and in `net`."""
    course = [*snapshots, net]
    turned = [rotations(course[0], now) for now in course]
    layers = list(turned[0])
    if not layers:
        raise ArchwrightError("all layers start at zero, expected one that has a direction")
    lines = {name: [t.get(name, 0.0) for t in turned] for name in layers}
    lines["mean"] = [float(np.mean([lines[name][i] for name in layers])) for i in range(len(course))]
    final = {name: line[-1] for name, line in lines.items()}
    spread = float(np.std([final[name] for name in layers]))
    figures = [
        Figure("mean rotation", final.pop("mean"), "1"),
        Figure("least rotation", min(final.values()), "1"),
        Figure("spread over layers", spread, "1"),
        *[Figure(f"rotation of {name}", value, "1") for name, value in final.items()],
    ]
    number = list(range(len(course)))
    chart = Chart(
        "Layer rotation", "line", {name: {"x": number, "y": line} for name, line in lines.items()}, "snapshot",
        "cosine distance from the start",
    )  # fmt: skip
    text = (
        f"The layers have turned by {figures[0].value:.2f} on average, the least by {figures[1].value:.2f}. "
        "Nets whose layers all get near 1 (a right angle) tend to generalise best; far below it, weights have hardly "
        "left where they started: a greater learning rate, or a rule that turns all layers alike, may help."
    )
    return Finding("Layer rotation", tuple(figures), (chart,), text)


def case(seed: int) -> tuple[Net, Data, tuple[Net, ...]]:
    """A perceptron after thirty steps of Layca, its data, and its snapshots before."""
    from archwright.core.checks import toys
    from archwright.core.records import Budget
    from archwright.kit import train

    data = toys.data("table")
    nets = [toys.net("mlp", data, seed)]
    for part in range(3):
        nets.append(
            train.fit(
                nets[-1], data, Budget(steps=10), np.random.default_rng((seed, part)), optimiser=layca("Adam"), lr=0.02,
                evaluations=1, keep="last",
            )[0]
        )  # fmt: skip
    return nets[-1], data, tuple(nets[:-1])


def claim(*, seed: int = 0) -> Claim:
    """A sweep of Layca's rate; each net is trained for as many steps, with cosine decay."""
    from archwright.core.records import Budget
    from archwright.core.seeds import rng as stream
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.kit.digits import perceptron
    from archwright.kit.ranks import spearman

    data = builtin("digits", seed).take("train", 150, stream(seed, "train"))
    rates = [float(r) for r in np.geomspace(1e-3, 0.3, 10)]
    turned, accuracy, fitted = [], [], []
    for index, rate in enumerate(rates):
        start = perceptron(data, (100, 100), seed=seed + index)
        net, _ = train.fit(
            start, data, Budget(steps=1000), np.random.default_rng((seed, index)), optimiser=layca("SGD"), lr=rate,
            schedule="cosine", evaluations=1, keep="last",
        )  # fmt: skip
        turned.append(float(np.mean(list(rotations(start, net).values()))))
        accuracy.append(100 * (1 - train.evaluate(net, data)))
        fitted.append(100 * (1 - train.evaluate(net, data, "train")))
    agreement = spearman(turned, accuracy)
    best, least = int(np.argmax(accuracy)), int(np.argmin(turned))
    return Claim(
        agreement,
        "1",
        "above 0.5",
        agreement > 0.5,
        "greater rotation generalises better, by up to 30 % test accuracy (abstract)",
        {
            "best accuracy": accuracy[best],
            "rotation of the best": turned[best],
            "worst accuracy": min(accuracy),
            "least rotation": min(turned),
            "greatest rotation": max(turned),
            "train accuracy of the best": fitted[best],
            "train accuracy of the least turned": fitted[least],
            "correlation with train accuracy": spearman(turned, fitted),
        },
        (
            "perceptrons of two layers of 100, Layca on SGD, rates from 0.001 to 0.3, 1,000 steps, cosine decay",
            "low rates turn too little in 1,000 steps to fit even the training samples, so that rotation tells of "
            "fitting as much as of generalisation; on MNIST-1D, tried first, it was 1.00 and no net fitted its samples",
        ),
    )
