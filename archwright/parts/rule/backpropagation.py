"""Backpropagation with minibatches: the gradient of the loss by the chain rule, and an optimiser that follows it.

    g_t = d/dw mean_{i in batch t} L(f(x_i; w), y_i)        w_{t+1} = optimiser(w_t, clip(g_t), lr * s(t / T))

f the network, L cross-entropy in nats (with labels smoothed by eps: (1 - eps) one-hot + eps / classes) or the squared
error, s the schedule, a factor in [0, 1] of the share of the budget that is spent. One step is one minibatch.

    optimiser  any of torch.optim by name: "AdamW", "SGD", "Adagrad", "LBFGS", ...; `options` are its further arguments
    schedule   "constant", "linear", "cosine", "one_cycle", after a straight rise over the share `warmup`
    clip       greatest Euclidean length of the gradient of all weights together
    precision  "bfloat16": the network runs under autocast, while weights, loss and optimiser stay float32
    patience   stop early after so many evaluations of the validation split without a better one

The result is the state with the least validation error that was seen (`keep="last"`: the one at the end). Cost: about
three forward passes a step; memory for what autograd keeps. Fails where gradients vanish or explode (deep nets
without norms or residuals), where the network is not differentiable, and on a learning rate that does not suit.
The reference that other rules are compared with; the paper has full-batch gradients with momentum.

Rumelhart, Hinton, Williams: Learning representations by back-propagating errors, Nature 323, 1986.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from archwright.core.records import Budget, Claim, Log
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.net.net import Net

PART = {
    "kind": "rule",
    "name": "backpropagation",
    "id": "",
    "title": "Learning representations by back-propagating errors",
    "year": 1986,
    "arxiv": "",
    "needs": ["baseline"],
    "extras": [],
    "example": {"hp": {"lr": 0.01}, "steps": 60},
    "exact": "With SGD a step is w - lr * g with g the gradient of the mean loss of the minibatch.",
    "claim": {
        "text": "Test accuracy on digits of a perceptron with 64 hidden units, 600 steps of AdamW.",
        "paper": "none: it shows what hidden units come to represent",
    },
}


def fit(
    net: Net,
    data: Data,
    budget: Budget,
    rng: np.random.Generator,
    *,
    optimiser: str = "AdamW",
    lr: float = 3e-3,
    options: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    batch_size: int = 64,
    clip: float | None = None,
    smoothing: float = 0.0,
    precision: str = "float32",
    patience: int | None = None,
    evaluations: int = 20,
    keep: str = "best",
) -> tuple[Net, Log]:
    """The net trained. See the head of the file; `evaluations` is about how often validation is looked at.

    Raises `ArchwrightError` for an unknown optimiser, schedule or precision, and for arguments that the optimiser does
    not take.
    """
    if precision not in ("float32", "bfloat16"):
        raise ArchwrightError(f"got precision '{precision}', expected 'float32' or 'bfloat16'")
    return train.fit(
        net, data, budget, rng, optimiser=optimiser, lr=lr, options=options, schedule=schedule, warmup=warmup,
        batch_size=batch_size, clip=clip, smoothing=smoothing, bfloat16=precision == "bfloat16", patience=patience,
        evaluations=evaluations, keep=keep,
    )  # fmt: skip


def claim(*, seed: int = 0) -> Claim:
    """Test accuracy, mean of three runs; the same without hidden units beside it."""
    from archwright.data.builtin import builtin
    from archwright.kit.digits import perceptron

    data = builtin("digits", seed)
    found: dict[str, list[float]] = {"hidden": [], "linear": []}
    for run in range(3):
        for label, widths in (("hidden", (64,)), ("linear", ())):
            net, _ = fit(
                perceptron(data, widths, seed=seed + run), data, Budget(steps=600),
                np.random.default_rng((seed, run)), schedule="cosine",
            )  # fmt: skip
            found[label].append(100 * (1 - train.evaluate(net, data)))
    mean = float(np.mean(found["hidden"]))
    return Claim(
        mean, "%", "above 95", mean > 95, "",
        {"without hidden units": float(np.mean(found["linear"]))},
    )  # fmt: skip
