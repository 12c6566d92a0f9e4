"""Gradient noise: annealed Gaussian noise is added to every gradient before the optimiser sees it.

    g_t <- clip(g_t) + n_t,   n_t ~ N(0, sigma_t^2 I),   sigma_t^2 = eta / (1 + t)^gamma

t counts steps from 0; eta is the variance at the start (the paper tries 0.01, 0.3 and 1.0), gamma = 0.55 its decay.
The noise is added after clipping, so that clipping does not take it away again. One step is one minibatch. Cost: one
random number for each weight and step.

Helps very deep networks without norms or residuals out of a poor initialisation, where gradients are so small that the
noise is what moves at first. It has nothing to offer where training goes well without it; with optimisers that divide
by the size of the gradient (Adam) tiny gradients drown in it. Differs from the paper in nothing.

Neelakantan, Vilnis, Le, Sutskever, Kaiser, Kurach, Martens: Adding Gradient Noise Improves Learning for Very Deep
Networks, 2015, arXiv 1511.06807.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archwright.core import seeds
from archwright.core.records import Budget, Claim, Log
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.net.net import Net

PART = {
    "kind": "rule",
    "name": "gradient_noise",
    "id": "gradient-noise",
    "title": "Adding Gradient Noise Improves Learning for Very Deep Networks",
    "year": 2015,
    "arxiv": "1511.06807",
    "needs": ["deep"],
    "extras": [],
    "example": {"hp": {"lr": 0.1}, "steps": 60},
    "exact": "With eta = 0 the weights are bit for bit those of backpropagation with the same optimiser.",
    "claim": {
        "text": "Digits, 20 hidden layers, weights drawn from N(0, 0.01), SGD at 0.1: test accuracy with noise of eta "
        "0.1, where training without it stays at chance.",
        "paper": "a 20-layer network trained from a poor initialisation; 72 % fewer errors in question answering",
    },
}


def deviation(step: int, eta: float, gamma: float = 0.55) -> float:
    """Standard deviation of the noise at a step, counted from 0."""
    return float((eta / (1 + step) ** gamma) ** 0.5)


def fit(
    net: Net,
    data: Data,
    budget: Budget,
    rng: np.random.Generator,
    *,
    eta: float = 0.01,
    gamma: float = 0.55,
    optimiser: str = "SGD",
    lr: float = 0.1,
    options: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    batch_size: int = 64,
    clip: float | None = None,
    smoothing: float = 0.0,
    patience: int | None = None,
    evaluations: int = 20,
    keep: str = "best",
) -> tuple[Net, Log]:
    """The net trained. The other settings are those of `backpropagation`. Raises `ArchwrightError` for eta below 0."""
    if eta < 0:
        raise ArchwrightError(f"got eta={eta}, expected a variance of at least 0")

    def noise() -> train.Edit:
        # a generator of its own, so that dropout draws the same numbers whatever eta is
        source = torch.Generator().manual_seed(seeds.derive(torch.initial_seed() >> 1, "gradient noise"))

        def add(parameters: Sequence[Tensor], step: int) -> None:
            spread = deviation(step, eta, gamma)
            for p in parameters:
                if p.grad is not None:
                    p.grad += spread * torch.randn(p.shape, generator=source, dtype=p.dtype).to(p.device)

        return add

    return train.fit(
        net, data, budget, rng, edit=noise if eta else None, optimiser=optimiser, lr=lr, options=options,
        schedule=schedule, warmup=warmup, batch_size=batch_size, clip=clip, smoothing=smoothing, patience=patience,
        evaluations=evaluations, keep=keep,
    )  # fmt: skip


def claim(*, seed: int = 0) -> Claim:
    """Mean test accuracy of three runs with noise and without."""
    from archwright.data.builtin import builtin
    from archwright.kit.digits import perceptron

    data = builtin("digits", seed)
    found: dict[float, list[float]] = {0.1: [], 0.0: []}
    for run in range(3):
        start = perceptron(data, (50,) * 20)
        draw = torch.Generator().manual_seed(seed + run)
        poor = {
            name: 0.1 * torch.randn(w.shape, generator=draw) if w.dim() > 1 else torch.zeros_like(w)
            for name, w in start.weights.items()
        }
        for eta, accuracies in found.items():
            net, _ = fit(Net(start.graph, poor), data, Budget(steps=1500), np.random.default_rng((seed, run)), eta=eta)
            accuracies.append(100 * (1 - train.evaluate(net, data)))
    noisy, plain = float(np.mean(found[0.1])), float(np.mean(found[0.0]))
    return Claim(
        noisy,
        "%",
        "above 45, and below 20 without noise",
        noisy > 45 and plain < 20,
        "a 20-layer network is trained even from a poor initialisation (MNIST)",
        {"without noise": plain, "worst of three": min(found[0.1]), "best of three": max(found[0.1])},
        ("50 units a layer, 1,500 steps, batches of 64",),
    )
