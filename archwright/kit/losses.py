"""Losses and errors by task: what is minimised, and what is reported."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from archwright.data.data import Data

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_for(data: Data, smoothing: float = 0.0) -> Loss:
    """The loss of a task, (output [n, k], target) -> mean over samples: cross-entropy in nats, or squared error."""
    if data.task == "classification":
        return lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing)
    return lambda output, target: F.mse_loss(output.reshape(target.shape), target)


def error(output: Tensor, target: Tensor, task: str) -> float:
    """The error of predictions, less is better: share of wrong classes, or the root of the mean squared error."""
    if task == "classification":
        return float((output.argmax(-1) != target).double().mean())
    return float(F.mse_loss(output.reshape(target.shape), target).sqrt())


def error_unit(task: str) -> str:
    """The unit of `error`: a share of samples, or the unit of the target."""
    return "share" if task == "classification" else "target units"


@torch.no_grad()
def predict(module: torch.nn.Module, inputs: tuple[Tensor, ...], batch: int = 1024) -> Tensor:
    """Outputs of a module in eval mode, batch by batch; its mode is put back."""
    training = module.training
    module.eval()
    try:
        count = len(inputs[0])
        return torch.cat([module(*[x[i : i + batch] for x in inputs]) for i in range(0, count, batch)])
    finally:
        module.train(training)
