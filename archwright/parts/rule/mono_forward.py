"""Mono-Forward: every layer learns from its own loss; no gradient passes from one layer to another.

    a_l = layer_l(stop(a_{l-1}))        G_l = M_l a_l  (goodness of each class)        L_l = cross-entropy(G_l, y)
    W_l and M_l follow the gradients of L_l only

a_l all that other layers read of layer l, flattened [n, units], M_l [classes, units] its projection, G_l [n, classes].
The network's last layer is its own projection: its output is trained by the task's loss, and it is what predicts. For
regression the local losses are squared errors. The M_l exist in training only: the net keeps its graph.

A layer is an operation with a weight of rank 2 or more, with all that follows it without such a weight (norm,
activation, pooling). Wherever a value goes from one layer to another, skip connections included, a `detach` is put into
the graph that is trained, so gradients across layers are zero by construction. Layers that meet (q, k, v; the two
arms of a residual) belong together with the last one, and the others are detached. One step is one minibatch, in which
all layers move.

Cost: that of backpropagation plus 2 n classes units for each layer. Fails where a layer has to prepare what only a
later one can use (bottlenecks, embeddings far from the loss), and on recurrent layers, which are one layer here.
Differs from the paper: one backward pass over the sum of the losses finds the gradients, which are the same, but memory
is that of backpropagation. The last layer's goodness predicts.

Gong, Li, Abdulla: Mono-Forward: Backpropagation-Free Algorithm for Efficient Neural Network Training Harnessing Local
Errors, 2025, arXiv 2501.09238.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archwright import ops
from archwright.core import seeds
from archwright.core.records import Budget, Claim, Log
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.ir import BATCH, INPUT, Graph, owner
from archwright.kit import train
from archwright.kit.losses import loss_for
from archwright.net.build import Built, build
from archwright.net.net import Net, init

PART = {
    "kind": "rule",
    "name": "mono_forward",
    "id": "mono-forward",
    "title": "Mono-Forward: Backpropagation-Free Algorithm for Efficient Neural Network Training Harnessing Local "
    "Errors",
    "year": 2025,
    "arxiv": "2501.09238",
    "needs": ["local"],
    "extras": [],
    "example": {"hp": {"lr": 0.01}, "data": "image", "net": "residual", "steps": 60},
    "exact": "The loss of a layer has gradient zero with respect to the weights of all other layers.",
    "claim": {
        "text": "Digits, perceptron with two hidden layers of 128: test accuracy minus that of backpropagation.",
        "paper": "matches or surpasses backpropagation on MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100",
    },
}

LOCAL = "mono_forward"
"""Prefix of the nodes that are added for training."""


def layers(graph: Graph) -> dict[str, int]:
    """Node name -> number of its layer, from 1; 0 for what comes before the first one."""
    known = ops.analyse(graph, BATCH)
    found: dict[str, int] = {}
    count = 0
    for node in graph.nodes:
        if any(len(p.shape) > 1 and not p.buffer for p in known[node.name].params.values()) and node.inputs:
            count += 1
            found[node.name] = count
        else:
            found[node.name] = max([found[owner(value)] for value in node.inputs], default=0)
    for node in reversed(graph.nodes):  # weights without inputs (positions, scales) belong to the layer that reads them
        if not node.inputs and node.op != INPUT:
            found[node.name] = max([found[user.name] for user in graph.users[node.name]], default=0)
    return found


def local(graph: Graph, outputs: int) -> Graph:
    """The graph that is trained: values detached between layers; outputs are the net's own, then each G_l."""
    layer = layers(graph)
    if not any(layer.values()):
        raise ArchwrightError("the net has no layer with a matrix of weights: there is nothing to train")
    g = ops.edit()
    rest: dict[str, str] = {}
    leaving: dict[int, list[str]] = {}
    for node in graph.nodes:
        inputs = []
        for value in node.inputs:
            home = layer[owner(value)]
            if 0 < home < layer[node.name]:
                if value not in rest:
                    rest[value] = g.add("detach", value, name=f"{LOCAL}.stop.{value.replace(':', '.')}")
                    leaving.setdefault(home, []).append(value)
                value = rest[value]
            inputs.append(value)
        g.add(node.op, *inputs, name=node.name, slot=node.slot, **node.attrs)
    small, large = ops.infer(graph, 2), ops.infer(graph, 3)
    goodness = []
    for number, values in sorted(leaving.items()):
        flat = []
        for value in values:
            t = small[value]
            if t.shape[:1] == (2,) and large[value].shape[:1] == (3,) and "float" in t.dtype:  # one row a sample
                flat.append(value if len(t.shape) == 2 else g.add("reshape", value, shape=(-1, t.numel // 2)))
        if flat:
            joined = g.add("concat", *flat) if len(flat) > 1 else flat[0]
            goodness.append(g.add("linear", joined, out=outputs, bias=False, name=f"{LOCAL}.project.{number}"))
    return g.finish(*graph.outputs, *goodness)


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
    patience: int | None = None,
    evaluations: int = 20,
    keep: str = "best",
) -> tuple[Net, Log]:
    """The net trained layer by layer. The log's train_loss is that of the last layer. Settings as `backpropagation`.

    Raises `ArchwrightError` for a net without layers, or with several outputs.
    """
    if len(net.graph.outputs) != 1:
        raise ArchwrightError(f"got a net with {len(net.graph.outputs)} outputs, expected one")
    trained = local(net.graph, data.outputs)
    kind = train.optimiser_named(optimiser)
    made: list[torch.optim.Optimizer] = []

    def make_step(module: nn.Module) -> train.Step:
        assert isinstance(module, Built)
        inner = share(module, trained, seeds.derive(torch.initial_seed() >> 1, LOCAL))
        made.append(kind(inner.parameters(), lr=lr, **(options or {})))  # type: ignore[call-arg]
        loss = loss_for(data)

        def step(module: nn.Module, inputs: tuple[Tensor, ...], target: Tensor, number: int) -> float:
            made[0].zero_grad(set_to_none=True)
            found = inner(*inputs)
            found = found if isinstance(found, tuple) else (found,)
            losses = [loss(output, target) for output in found]
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            made[0].step()
            return float(losses[0].detach())

        return step

    def set_rate(factor: float) -> None:
        for group in made[0].param_groups:
            group["lr"] = lr * factor

    return train.train(
        net, data, budget, rng, make_step=make_step, set_rate=set_rate, schedule=schedule, warmup=warmup,
        batch_size=batch_size, patience=patience, evaluations=evaluations, keep=keep,
    )  # fmt: skip


def share(module: Built, graph: Graph, seed: int) -> Built:
    """A module of the trained graph that has the parameters and buffers of the net's; the projections are its own."""
    known = dict(module.named_parameters()) | dict(module.named_buffers())
    fresh = init(graph, seed).weights
    inner = build(Net(graph, {name: known[name].detach() if name in known else w for name, w in fresh.items()}))
    for name in fresh:
        if name in known:
            path, _, leaf = name.rpartition(".")
            home = inner.get_submodule(path)
            table = home._parameters if leaf in home._parameters else home._buffers
            table[leaf] = known[name]  # type: ignore[assignment]
    return inner.train()


def claim(*, seed: int = 0) -> Claim:
    """Mean test accuracy of three runs each, the same settings for both rules."""
    from archwright.core.registry import load
    from archwright.data.builtin import builtin
    from archwright.kit.digits import perceptron

    data, plain = builtin("digits", seed), load("rule/backpropagation")
    found: dict[str, list[float]] = {"mono_forward": [], "backpropagation": []}
    for run in range(3):
        for label, rule in (("mono_forward", fit), ("backpropagation", plain)):
            net, _ = rule(
                perceptron(data, (128, 128), seed=seed + run), data, Budget(steps=600),
                np.random.default_rng((seed, run)), schedule="cosine",
            )  # fmt: skip
            found[label].append(100 * (1 - train.evaluate(net, data)))
    means = {label: float(np.mean(values)) for label, values in found.items()}
    gap = means["mono_forward"] - means["backpropagation"]
    return Claim(
        gap, "points", "above -1", gap > -1, "matches or surpasses backpropagation",
        {f"test accuracy, {label}": mean for label, mean in means.items()},
        ("600 steps of AdamW at 0.003, cosine",),
    )  # fmt: skip
