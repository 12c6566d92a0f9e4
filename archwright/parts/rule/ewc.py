"""Elastic weight consolidation: weights that mattered to earlier tasks are held by springs while a new one is learned.

    L(w) = L_new(w) + lambda / 2 * sum_tasks sum_i F_i (w_i - w*_i)^2
    F_i  = E_x E_{y ~ p(y | x; w*)} (d log p(y | x; w*) / dw_i)^2

w* the weights after a task, F the diagonal of the Fisher information there, lambda the strength. `consolidate` measures
F once a task is learned and gives the `Memory` to hand to the next `fit`; without a memory `fit` is backpropagation.

    kind     "exact" sums over all classes, weighted by p; "sampled" draws one class for each sample; "empirical" takes
             the label. For regression p is normal with unit variance: F_i = E_x sum_k (d f_k / dw_i)^2
    online   one spring for all tasks: F <- decay * F_old + F_new, anchored at the newest weights (Huszar, 2018, arXiv
             1712.03847; Schwarz et al., 2018, arXiv 1805.06370). Memory does not grow with the number of tasks, and
             the old anchors don't pull the weights away from where the last task left them. False: a spring a task

One step is one minibatch. Cost: a few operations for each weight and task a step, and once a task the gradients of
`samples` samples, times the classes for "exact". Memory: two numbers for each weight and task, or for each weight.
Fails where tasks need more than there is room for, where the Fisher is far from diagonal, and for lambda * lr * F far
above 1, where the springs oscillate. Batch norms' statistics are not held: their running means forget.
Differs from the paper: by default one spring for all tasks, and the exact expectation over classes in the Fisher. The
state at the end of training is returned, not the one best on the newest task.

Kirkpatrick et al.: Overcoming catastrophic forgetting in neural networks, 2016, arXiv 1612.00796.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archwright import ops
from archwright.core import seeds
from archwright.core.records import Budget, Claim, Log
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.kit.losses import loss_for
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "rule",
    "name": "ewc",
    "id": "ewc",
    "title": "Overcoming catastrophic forgetting in neural networks",
    "year": 2016,
    "arxiv": "1612.00796",
    "needs": ["continual"],
    "extras": [],
    "example": {"hp": {"lr": 0.01}, "steps": 60},
    "exact": "For logistic regression the Fisher of weight (k, j) is the mean of p_k (1 - p_k) x_j^2; with strength 0 "
    "it is backpropagation.",
    "claim": {
        "text": "Five tasks of permuted digits in a row: mean final test accuracy over all five, points above plain "
        "fine-tuning.",
        "paper": "ten permuted MNIST tasks: about 95 % kept, plain SGD falls (Figure 2)",
    },
}


@dataclass(frozen=True)
class Memory:
    """What is kept of earlier tasks. Each spring is (weights, Fisher), both by weight name, trained weights only."""

    springs: tuple[tuple[Mapping[str, Tensor], Mapping[str, Tensor]], ...] = ()

    def penalty(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """sum F (w - w*)^2 / 2, over all springs: a number."""
        parts = [
            (f * (parameters[name] - anchor[name]).square()).sum()
            for anchor, fisher in self.springs
            for name, f in fisher.items()
        ]
        return 0.5 * torch.stack(parts).sum()


def fisher(
    net: Net, data: Data, *, samples: int = 256, kind: str = "exact", chunk: int = 32, seed: int = 0
) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of a net, by weight name, over random samples of the train split."""
    if kind not in ("exact", "sampled", "empirical"):
        raise ArchwrightError(f"got kind '{kind}', expected 'exact', 'sampled' or 'empirical'")
    rng = seeds.rng(seed, "fisher")
    index = np.asarray(data.splits["train"])
    index = index[np.sort(rng.permutation(len(index))[:samples])]
    x, y = data.batch(index)
    module = build(net).eval()
    wanted = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}
    rest = {n: t for n, t in (*module.named_parameters(), *module.named_buffers()) if n not in wanted}
    classes = data.task == "classification"

    def log_p(w: dict[str, Tensor], *sample: Tensor) -> Tensor:
        out = torch.func.functional_call(module, {**rest, **w}, tuple([s.unsqueeze(0) for s in sample]))
        return out.log_softmax(-1).flatten() if classes else out.flatten()

    def one(w: dict[str, Tensor], target: Tensor, *sample: Tensor) -> Tensor:
        return log_p(w, *sample).gather(0, target.reshape(1)).sum()

    found = {name: torch.zeros_like(p) for name, p in wanted.items()}
    for start in range(0, len(index), chunk):
        part = tuple([t[start : start + chunk] for t in x])
        inside = (None, *[0] * len(part))
        if kind == "exact" or not classes:
            slopes = torch.func.vmap(torch.func.jacrev(log_p), inside)(wanted, *part)
            share = torch.func.vmap(log_p, inside)(wanted, *part).exp() if classes else None
            for name, j in slopes.items():  # [samples, classes, *shape]
                square = j.flatten(2).square()
                if share is not None:
                    square = square * share[..., None]
                found[name] += square.sum((0, 1)).reshape(found[name].shape)
        else:
            target = y[start : start + chunk]
            if kind == "sampled":
                share = torch.func.vmap(log_p, inside)(wanted, *part).exp().double().numpy()
                drawn = [rng.choice(len(p), p=p / p.sum()) for p in share]
                target = torch.tensor(drawn)
            slopes = torch.func.vmap(torch.func.grad(one), (None, 0, *inside[1:]))(wanted, target, *part)
            for name, j in slopes.items():
                found[name] += j.square().sum(0)
    return {name: (total / len(index)).detach() for name, total in found.items()}


def consolidate(
    net: Net,
    data: Data,
    memory: Memory | None = None,
    *,
    online: bool = True,
    decay: float = 1.0,
    samples: int = 256,
    kind: str = "exact",
    seed: int = 0,
) -> Memory:
    """The memory with one more task: that of `data`, which `net` has just learned. See the head of the file."""
    new = fisher(net, data, samples=samples, kind=kind, seed=seed)
    anchor = {name: net.weights[name].clone() for name in new}
    springs = memory.springs if memory is not None else ()
    if not online:
        return Memory((*springs, (anchor, new)))
    for _, old in springs:
        new = {name: decay * old[name] + f for name, f in new.items()}
    return Memory(((anchor, new),))


def fit(
    net: Net,
    data: Data,
    budget: Budget,
    rng: np.random.Generator,
    *,
    memory: Memory | None = None,
    strength: float = 100.0,
    optimiser: str = "Adam",
    lr: float = 1e-3,
    options: Mapping[str, Any] | None = None,
    schedule: str = "constant",
    batch_size: int = 64,
    clip: float | None = None,
    evaluations: int = 20,
) -> tuple[Net, Log]:
    """The net trained on a task, held by the memory of earlier ones; the log also has the penalty.

    `strength` is lambda. Raises `ArchwrightError` if the memory is of a net with other weights.
    """
    trained = {n for n, p in ops.params(net.graph).items() if not p.buffer}
    springs = memory.springs if memory is not None and strength else ()
    for anchor, f in springs:
        wrong = sorted(n for n in f if n not in trained or anchor[n].shape != net.weights[n].shape)
        if wrong:
            raise ArchwrightError(f"the memory holds weights {wrong[:3]}, which the net has not, or in another shape")
    held = Memory(springs)
    kind = train.optimiser_named(optimiser)
    made: list[torch.optim.Optimizer] = []

    def make_step(module: nn.Module) -> train.Step:
        made.append(kind(module.parameters(), lr=lr, **(options or {})))  # type: ignore[call-arg]
        plain = loss_for(data)
        if not springs:
            return train.optimiser_step(made[0], plain, clip)
        weights = dict(module.named_parameters())
        return train.optimiser_step(made[0], lambda o, t: plain(o, t) + strength * held.penalty(weights), clip)

    def set_rate(factor: float) -> None:
        for group in made[0].param_groups:
            group["lr"] = lr * factor

    @torch.no_grad()
    def watch(module: nn.Module, step: int) -> dict[str, float]:
        weights = dict(module.named_parameters())
        return {"penalty": float(strength * held.penalty(weights)) if springs else 0.0}

    return train.train(
        net, data, budget, rng, make_step=make_step, set_rate=set_rate, schedule=schedule, batch_size=batch_size,
        evaluations=evaluations, keep="last", watch=watch, watch_units={"penalty": "loss"},
    )  # fmt: skip


def claim(*, seed: int = 0) -> Claim:
    """Mean accuracy on all five tasks at the end, for fine-tuning, for EWC and for its online variant."""
    from archwright.data.builtin import builtin
    from archwright.kit.digits import perceptron, permuted

    data = builtin("digits", seed)
    tasks = [permuted(data, seeds.rng(seed, "task", k) if k else None) for k in range(5)]
    found = {}
    ways = {"plain": (0.0, True), "ewc": (100.0, True), "a spring a task": (100.0, False)}
    for label, (strength, online) in ways.items():
        net, memory = perceptron(data, (400,), seed=seed), None
        for k, task in enumerate(tasks):
            net, _ = fit(
                net, task, Budget(steps=400), np.random.default_rng((seed, k)), memory=memory, strength=strength,
                evaluations=1,
            )  # fmt: skip
            memory = consolidate(net, task, memory, online=online, seed=seed) if strength else None
        found[label] = [100 * (1 - train.evaluate(net, task)) for task in tasks]
    means = {label: float(np.mean(values)) for label, values in found.items()}
    gain = means["ewc"] - means["plain"]
    return Claim(
        gain,
        "points",
        "at least 10",
        gain >= 10,
        "about 95 % after ten permuted MNIST tasks (Figure 2)",
        {f"mean accuracy, {label}": mean for label, mean in means.items()}
        | {f"first task, {label}": values[0] for label, values in found.items()}
        | {f"last task, {label}": values[-1] for label, values in found.items()},
        (
            "400 hidden units, 400 steps of Adam a task, lambda 100",
            "tried first: two layers of 100 units, lambda 100, a spring a task: 6.5 points (online: 11.6)",
            "then lambda (of 1 to 300), width and variant were chosen on the validation splits of another seed",
        ),
    )
