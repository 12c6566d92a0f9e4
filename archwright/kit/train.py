"""The training loop that rules share: minibatches, an optimiser, a schedule, early stopping, a log.

Randomness comes from the generator that is given and from nowhere else: the same net, data, budget in steps and
generator state give the same weights. Torch's own generator (dropout) is seeded from it inside, and put back after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archwright.core.records import Budget, Log
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.losses import Loss, error, error_unit, loss_for, predict
from archwright.kit.schedules import schedule as schedule_of
from archwright.net.build import build, to_net
from archwright.net.net import Net

Step = Callable[[nn.Module, tuple[Tensor, ...], Tensor, int], float]
"""(module, inputs, target, number of the step) -> loss. Changes the module's weights."""


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Within the block torch draws from a seed taken from `rng`; its own state is put back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        yield


def minibatches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray[Any, Any]]:
    """Indices of minibatches for ever, a new order every epoch; the last of an epoch may be smaller, but not a single
    sample where that can be helped (batch normalisation needs two)."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count, size):
            if count - start > 1 or count == 1:
                yield order[start : start + size]


Edit = Callable[[Sequence[Tensor], int], None]
"""(parameters, number of the step): changes the gradients of parameters, in place."""


def optimiser_named(name: str | type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimiser of `torch.optim` by name, whatever its case ("AdamW", "sgd"), or the class that is given."""
    if not isinstance(name, str):
        return name
    known = {n.lower(): c for n, c in vars(torch.optim).items() if n not in ("Optimizer", "SparseAdam")}
    found = {n: c for n, c in known.items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)}
    if name.lower() not in found:
        raise ArchwrightError(f"unknown optimiser '{name}': expected one of {', '.join(sorted(found))}")
    return found[name.lower()]


def optimiser_step(
    optimiser: torch.optim.Optimizer,
    loss: Loss,
    clip: float | None = None,
    *,
    bfloat16: bool = False,
    edit: Edit | None = None,
) -> Step:
    """The usual step: loss, gradients by backpropagation, gradient clipping if wanted, optimiser.

    bfloat16  the network runs under autocast; weights, loss and gradients stay float32
    edit      changes the gradients after clipping
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def step(module: nn.Module, inputs: tuple[Tensor, ...], target: Tensor, number: int) -> float:
        def closure() -> Tensor:  # optimisers with a line search call it several times
            optimiser.zero_grad(set_to_none=True)
            if bfloat16:
                with torch.autocast(inputs[0].device.type, torch.bfloat16):
                    output = module(*inputs)
                value = loss(output.float(), target)
            else:
                value = loss(module(*inputs), target)
            value.backward()  # type: ignore[no-untyped-call]
            if clip is not None:
                nn.utils.clip_grad_norm_(parameters, clip)
            if edit is not None:
                edit(parameters, number)
            return value

        return float(optimiser.step(closure).detach())  # type: ignore[arg-type, union-attr]

    return step


def train(
    net: Net,
    data: Data,
    budget: Budget,
    rng: np.random.Generator,
    *,
    make_step: Callable[[nn.Module], Step],
    set_rate: Callable[[float], None] | None = None,
    schedule: str = "constant",
    warmup: float = 0.0,
    batch_size: int = 64,
    evaluations: int = 20,
    patience: int | None = None,
    keep: str = "best",
    augment: Callable[[tuple[Tensor, ...], np.random.Generator], tuple[Tensor, ...]] | None = None,
    watch: Callable[[nn.Module, int], dict[str, float]] | None = None,
    watch_units: dict[str, str] | None = None,
    halt: Callable[[Mapping[str, float]], bool] | None = None,
) -> tuple[Net, Log]:
    """Train a net until the budget is spent, and return the best state seen on the validation split (the last one where
    there is no validation split).

    make_step    (module) -> step; see `optimiser_step`
    set_rate     called with the schedule's factor before every step
    evaluations  about how often the validation split is looked at
    patience     stop after so many evaluations without a better one
    keep         "best": the state of the evaluation with the least validation error; "last": the one at the end
    augment      changes the inputs of a minibatch
    watch        further columns of the log, measured at every evaluation, with their units
    halt         asked after every evaluation, with its row of the log, whether to stop
    """
    if keep not in ("best", "last"):
        raise ArchwrightError(f"got keep={keep!r}, expected 'best' or 'last'")
    clock = budget.start()
    shape = schedule_of(schedule, warmup)
    x, y = data.tensors("train")
    held = data.tensors("valid") if data.size("valid") else None
    per_epoch = max(1, -(-len(y) // batch_size))
    every = _every(budget, per_epoch, evaluations)
    names = ["step", "seconds", "train_loss", *(["valid_error"] if held else []), *(watch_units or {})]
    rows: list[list[float]] = []
    module = build(net)
    best, best_error, since = None, float("inf"), 0
    stopped, step, losses = "budget", 0, []
    with seeded(rng):
        take = make_step(module)
        module.train()
        for index in minibatches(len(y), batch_size, rng):
            share = clock.share(step, step / per_epoch)
            if set_rate is not None:
                set_rate(shape(share))
            inputs = tuple([t[index] for t in x])
            if augment is not None:
                inputs = augment(inputs, rng)
            losses.append(take(module, inputs, y[index], step))
            step += 1
            done = clock.spent(step, step / per_epoch)
            if not np.isfinite(losses[-1]):
                stopped, done = "diverged", True
            if step % every and not done:
                continue
            row = [float(step), clock.elapsed(), float(np.mean(losses))]
            losses = []
            if held:
                row.append(error(predict(module, held[0]), held[1], data.task))
                if row[-1] < best_error:
                    best, best_error, since = to_net(module) if keep == "best" else None, row[-1], 0
                else:
                    since += 1
                    if patience is not None and since >= patience and not done:
                        stopped, done = "early", True
            if watch is not None:
                found = watch(module, step)
                row += [found[name] for name in watch_units or {}]
            rows.append(row)
            if halt is not None and not done and halt(dict(zip(names, row, strict=True))):
                stopped, done = "early", True
            if done:
                break
    units = {"step": "steps", "seconds": "s", "train_loss": "loss", "valid_error": error_unit(data.task)}
    units |= watch_units or {}
    columns = {name: tuple([row[i] for row in rows]) for i, name in enumerate(names)}
    return best or to_net(module), Log(columns, {name: units[name] for name in names}, stopped)


def _every(budget: Budget, per_epoch: int, evaluations: int) -> int:
    """Steps between evaluations: by the number of steps if it is known, else once an epoch."""
    steps = budget.steps if budget.steps is not None else None
    if budget.epochs is not None:
        by_epochs = int(budget.epochs * per_epoch)
        steps = by_epochs if steps is None else min(steps, by_epochs)
    return max(1, (steps or per_epoch * evaluations) // evaluations)


def fit(
    net: Net,
    data: Data,
    budget: Budget,
    rng: np.random.Generator,
    *,
    optimiser: str | type[torch.optim.Optimizer] = torch.optim.AdamW,
    lr: float = 3e-3,
    clip: float | None = None,
    smoothing: float = 0.0,
    bfloat16: bool = False,
    edit: Callable[[], Edit] | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> tuple[Net, Log]:
    """Train by backpropagation. `options` go to the optimiser, `settings` to `train`.

    edit  makes what changes the gradients; called once, with torch's generator already seeded for this training
    """
    kind = optimiser_named(optimiser)
    if smoothing and data.task != "classification":
        raise ArchwrightError(f"got smoothing={smoothing} for regression: only classes can be smoothed")
    made: list[torch.optim.Optimizer] = []

    def make_step(module: nn.Module) -> Step:
        try:
            made.append(kind(module.parameters(), lr=lr, **(options or {})))  # type: ignore[call-arg]
        except (TypeError, ValueError) as error:
            raise ArchwrightError(f"{kind.__name__} with options {dict(options or {})}: {error}") from None
        changed = edit() if edit is not None else None
        return optimiser_step(made[0], loss_for(data, smoothing), clip, bfloat16=bfloat16, edit=changed)

    def set_rate(factor: float) -> None:
        for group in made[0].param_groups:
            group["lr"] = lr * factor

    return train(net, data, budget, rng, make_step=make_step, set_rate=set_rate, **settings)


def evaluate(net: Net, data: Data, split: str = "test") -> float:
    """The error of a net on a split: share of wrong classes, or root mean squared error."""
    x, y = data.tensors(split)
    return error(predict(build(net), x), y, data.task)
