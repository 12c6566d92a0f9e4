"""Nets of one architecture that are trained side by side, each on its own rows and with its own settings.

Nets with equal keys run as one under `archwright.batch`: twenty small nets take little longer than two, so folds,
copies and settings are compared at a fraction of their price. Where there is one net, or torch cannot run the
architecture for all at once, each is run alone, with the same results up to rounding (convolutions of images then run
in bfloat16 where the CPU has it: their weights, gradients and statistics stay in float32). What training never changes
is computed once, see `frozen`.

    share of the training   s in [0, 1]: the steps done, or the time used, whichever is nearer to its limit
    learning rate           lr * schedule(s)
    looks                   at s = 1/8, 2/8, ... 1 the held rows are predicted; who looks may let nets go
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from archwright.data.data import Data
from archwright.kit import frozen
from archwright.kit.augment import augmentation
from archwright.kit.schedules import schedule as schedule_of
from archwright.kit.settings import Settings
from archwright.kit.train import seeded
from archwright.net.batch import Batch
from archwright.net.build import build, to_net
from archwright.net.net import Net

Rows = NDArray[np.int64]

LOOKS = 8
"""How often in a training the held rows are predicted."""

CHUNK = 4096
"""Samples that are predicted at once, over all nets."""


class Samples:
    """Data as tensors that are read in place: arrays on disk stay there, and bytes become numbers batch by batch."""

    def __init__(self, data: Data) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # they are only read
            self._inputs = [torch.from_numpy(np.asarray(array)) for array in data.inputs]
            self._target = torch.from_numpy(np.asarray(data.target))
        scales = data.scales or (None,) * len(data.inputs)
        self._scales = [None if s is None else [torch.as_tensor(np.asarray(v), dtype=torch.float32) for v in s]
                        for s in scales]  # fmt: skip

    def __call__(self, rows: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Inputs and target of the rows, in the shape of `rows` and then that of a sample."""
        found = []
        for array, scale in zip(self._inputs, self._scales, strict=True):
            x = array[rows]
            if scale is not None:
                x = (x.float() - scale[0]) / scale[1]
            found.append(x.float() if x.is_floating_point() else x.long())
        return tuple(found), self._target[rows]


class Together:
    """Nets of one architecture in training.

    nets, settings  one settings for each net; batch, smoothing, augmentation and optimiser are those of the first
    """

    def __init__(self, nets: Sequence[Net], settings: Sequence[Settings], task: str) -> None:
        self.size = len(nets)
        self._settings = list(settings)
        self._loss = _loss(task, settings[0].smoothing)
        self._nets = list(nets)
        self._batch = _batch_of(nets)
        if self._batch is not None:
            self._optimisers = [_optimiser(self._batch, self._settings)]
        else:
            self._bfloat16 = _gains_by_bfloat16(nets[0])
            self._modules = [build(net).to(memory_format=torch.channels_last) for net in nets]
            self._optimisers = [_optimiser_alone(m, s) for m, s in zip(self._modules, settings, strict=True)]

    def step(self, inputs: Sequence[Tensor], target: Tensor, factor: float) -> Tensor:
        """One step of each net on its own samples: inputs [nets, batch, ...]. `factor` scales the learning rates. The
        losses before the step, [nets]."""
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
        if self._batch is not None:
            self._batch.train()
            return self._batch.step(self._optimisers[0], self._loss, inputs, target)
        found = []
        for i, (module, optimiser) in enumerate(zip(self._modules, self._optimisers, strict=True)):
            module.train()
            optimiser.zero_grad(set_to_none=True)
            loss = self._loss(self._run(module, [x[i] for x in inputs]), target[i])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            found.append(loss.detach())
        return torch.stack(found)

    @torch.no_grad()
    def predict(self, samples: Samples, rows: Sequence[Rows]) -> list[NDArray[np.float32]]:
        """Outputs of each net in eval mode on its own rows: [rows, outputs] for each."""
        if self._batch is None:
            made = []
            for module, own in zip(self._modules, rows, strict=True):
                module.eval()
                pieces = [self._run(module, samples(torch.from_numpy(part))[0]) for part in _chunks(own, CHUNK)]
                made.append(torch.cat(pieces).numpy())
            return made
        self._batch.eval()
        longest = max(len(own) for own in rows)
        # nets run as one, so shorter lists are filled up with a row of their own that is dropped again
        padded = torch.from_numpy(np.stack([np.resize(own, longest) if len(own) else np.zeros(longest, np.int64)
                                            for own in rows]))  # fmt: skip
        width = max(1, CHUNK // self.size)
        outputs = [self._batch(*samples(part)[0]) for part in padded.split(width, dim=1)]
        every = torch.cat(outputs, 1).float().numpy()
        return [every[i, : len(own)] for i, own in enumerate(rows)]

    def _run(self, module: torch.nn.Module, inputs: Sequence[Tensor]) -> Tensor:
        """Outputs of one net, images channel by channel: 1.7 times as fast on a CPU, and more in bfloat16."""
        x = [v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for v in inputs]
        if self._bfloat16:
            with torch.autocast("cpu", torch.bfloat16):
                return module(*x).float()
        found: Tensor = module(*x)
        return found

    def keep(self, index: Sequence[int]) -> None:
        """Go on with some of the nets only."""
        if list(index) == list(range(self.size)):
            return
        self._settings = [self._settings[i] for i in index]
        self._nets = [self._nets[i] for i in index]
        if self._batch is None:
            self._modules = [self._modules[i] for i in index]
            self._optimisers = [self._optimisers[i] for i in index]
        else:
            old, state = self._batch, self._optimisers[0].state
            now = old.nets()
            self._batch = Batch([now[i] for i in index])
            self._optimisers = [_optimiser(self._batch, self._settings)]
            for new, i in enumerate(index):
                for p, q in zip(old.parameters(i), self._batch.parameters(new), strict=True):
                    if p in state:
                        copied = {k: v.clone() if isinstance(v, Tensor) else v for k, v in state[p].items()}
                        self._optimisers[0].state[q] = copied
        self.size = len(index)

    def nets(self) -> list[Net]:
        """The nets as they are now."""
        return list(self._batch.nets()) if self._batch is not None else [to_net(m) for m in self._modules]


def _batch_of(nets: Sequence[Net]) -> Batch | None:
    """The nets as one, or None where each is better run alone."""
    if len(nets) == 1:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Batch(nets)
    return made if made.fallback is None else None


def _gains_by_bfloat16(net: Net) -> bool:
    """Whether the net runs faster where products are in bfloat16: convolutions of images on a CPU that has it in
    hardware. Depthwise convolutions and attention are slower for it."""
    nodes = net.graph.nodes
    slower = [n for n in nodes if n.op in ("attention", "multihead_attention") or n.attrs.get("groups", 1) > 1]
    images = len(net.graph.inputs[0].attrs["shape"]) == 4
    return images and not slower and any([n.op == "conv" for n in nodes]) and torch.cpu._is_avx512_bf16_supported()


def _loss(task: str, smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    if task == "classification":
        return lambda output, target: F.cross_entropy(output, target, label_smoothing=smoothing)
    return lambda output, target: F.mse_loss(output.reshape(target.shape), target)


def _kind(settings: Settings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    if settings.optimiser == "sgd":
        return _eager(torch.optim.SGD), {"momentum": 0.9, "nesterov": True}
    return _eager(torch.optim.AdamW), {}


@cache
def _eager(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """The optimiser as it is without its wrappers for `torch.compile`. Their first call imports a compiler, which takes
    more than a second of processor time: much of a short search, in each of its processes."""

    def plain(method: Any) -> Any:
        return getattr(method, "__wrapped__", method)

    def step(self: torch.optim.Optimizer) -> None:
        with torch.no_grad():
            plain(kind.step)(self)

    methods = {"add_param_group": plain(kind.add_param_group), "zero_grad": plain(kind.zero_grad), "step": step}
    return type(kind.__name__, (kind,), methods)


def _decay(s: Settings) -> float:
    """Weight decay as torch's class takes it: SGD's is coupled with the learning rate's scale, so it is lowered."""
    return s.weight_decay if s.optimiser == "adamw" else min(s.weight_decay, 1e-3)


def _optimiser(batch: Batch, settings: Sequence[Settings]) -> torch.optim.Optimizer:
    kind, more = _kind(settings[0])
    made = batch.optimizer(kind, lr=[s.lr for s in settings], weight_decay=[_decay(s) for s in settings], **more)
    return _peaks(made)


def _optimiser_alone(module: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    kind, more = _kind(settings)
    params = [p for p in module.parameters() if p.requires_grad]
    return _peaks(kind(params, lr=settings.lr, weight_decay=_decay(settings), fused=True, **more))


def _peaks(optimiser: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    return optimiser


def _chunks(rows: Rows, size: int) -> list[Rows]:
    return [rows[i : i + size] for i in range(0, max(1, len(rows)), size)]


class Orders:
    """Rows for each net, a new order every epoch, as many a step for all: [nets, batch]."""

    def __init__(self, rows: Sequence[Rows], batch: int, rng: np.random.Generator) -> None:
        self._rows = list(rows)
        self._batch = min([batch, *[len(r) for r in rows]])
        self._rng = rng
        self._left: list[Rows] = [np.zeros(0, np.int64) for _ in rows]

    @property
    def batch(self) -> int:
        """Samples a step: what is asked for, or all rows where there are fewer."""
        return self._batch

    def next(self) -> Tensor:
        """The next batch of each net."""
        taken = []
        for i, rows in enumerate(self._rows):
            if len(self._left[i]) < self._batch:
                self._left[i] = np.concatenate([self._left[i], self._rng.permutation(rows)])
            taken.append(self._left[i][: self._batch])
            self._left[i] = self._left[i][self._batch :]
        return torch.from_numpy(np.stack(taken))

    def keep(self, index: Sequence[int]) -> None:
        """Go on with some of the nets only."""
        self._rows = [self._rows[i] for i in index]
        self._left = [self._left[i] for i in index]


@dataclass(frozen=True)
class Limits:
    """How long a training may be: steps, and seconds of wall time where the clock may be looked at.

    least  steps that are taken even if they take up to three times as long: what is told of fewer says nothing
    """

    steps: int
    seconds: float | None = None
    least: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of a training. For nets that were let go: their state at that time, and no outputs.

    nets      as trained, in the order in which they were given
    outputs   on the held rows at the end, [rows, outputs]; None for those let go
    steps     taken by those that went to the end
    seconds   of wall time
    """

    nets: tuple[Net, ...]
    outputs: tuple[NDArray[np.float32] | None, ...]
    steps: int
    seconds: float


Look = Callable[[float, Sequence[int], Sequence[NDArray[np.float32]]], Sequence[int]]
"""(share, nets that are still trained, their outputs on the held rows) -> the nets to go on with."""


def train_together(
    nets: Sequence[Net],
    settings: Sequence[Settings],
    data: Data,
    rows: Sequence[Rows],
    held: Sequence[Rows],
    limits: Limits,
    rng: np.random.Generator,
    *,
    look: Look | None = None,
    finish: Sequence[Rows] | None = None,
    schedule: str = "one_cycle",
    samples: Samples | None = None,
    threads: int = 1,
) -> Trained:
    """Train nets of one architecture side by side; batch, smoothing, augmentation and optimiser are the first's.

    rows, held  for each net the rows that it learns from, and those that it is looked at with (may be empty)
    look        see `Look`; without it nothing is predicted before the end
    finish      rows that are held at the end, where these are other ones
    threads     torch may use so many: it does if the first steps show that it is faster than with one. Small nets are
                not, nor are any where other work keeps the cores busy
    """
    began = time.monotonic()
    samples = samples or Samples(data)
    last = finish or held
    fixed = None
    if augmentation(settings[0].augment) is None:
        if threads > 1:
            torch.set_num_threads(threads)
        needed = [np.concatenate(three) for three in zip(rows, held, last, strict=True)]
        passes, most = limits.steps * settings[0].batch * len(nets), limits.seconds and 0.5 * limits.seconds
        fixed = frozen.features(nets, samples, needed, data, passes=passes, seconds=most)
    spent = time.monotonic() - began
    if limits.seconds:  # the share of a training that is over is that of its steps, whatever came before them
        limits = replace(limits, seconds=max(limits.seconds - spent, 0.1 * limits.seconds))
    if fixed is not None:
        nets, samples = fixed.nets, Samples(fixed.data)
        rows, held, last = [
            [place(own) for place, own in zip(fixed.where, each, strict=True)] for each in (rows, held, last)
        ]
    trained = _train(nets, settings, data.task, samples, rows, held, last, limits, rng, look, schedule, threads)
    whole = trained.nets if fixed is None else fixed.whole(trained.nets)
    return replace(trained, nets=whole, seconds=trained.seconds + spent)


def _train(
    nets: Sequence[Net], settings: Sequence[Settings], task: str, samples: Samples, rows: Sequence[Rows],
    held: Sequence[Rows], last: Sequence[Rows], limits: Limits, rng: np.random.Generator, look: Look | None,
    schedule: str, threads: int,
) -> Trained:  # fmt: skip
    """`train_together` after the features, if there are any, have been computed."""
    began = time.monotonic()
    shape = schedule_of(schedule)
    augment = augmentation(settings[0].augment)
    alive = list(range(len(nets)))
    found: dict[int, Net] = {}
    with seeded(rng):
        together = Together(nets, settings, task)
        orders = Orders(rows, settings[0].batch, rng)
        step, looked, share = 0, 0, 0.0
        probe = _Threads(threads)
        while share < 1 and alive:
            probe.before(step)
            index = orders.next()
            inputs, target = samples(index)
            if augment is not None:
                flat = augment(inputs[0].flatten(0, 1), rng)
                inputs = (flat.reshape(inputs[0].shape), *inputs[1:])
            losses = together.step(inputs, target, shape(share))
            step += 1
            share = _share(limits, step, time.monotonic() - began)
            gone: set[int] = set()
            due = int(share * LOOKS) > looked
            if step % 10 == 0 or due or share >= 1:
                gone = {i for i, ok in zip(alive, torch.isfinite(losses).tolist(), strict=True) if not ok}
            if look is not None and due and share < 1:
                looked = int(share * LOOKS)
                outputs = together.predict(samples, [held[i] for i in alive])
                stay = set(look(looked / LOOKS, tuple(alive), outputs))
                gone |= set(alive) - stay
            if gone:
                now = together.nets()
                found.update({i: net for i, net in zip(alive, now, strict=True) if i in gone})
                kept = [place for place, i in enumerate(alive) if i not in gone]
                alive = [alive[place] for place in kept]
                if alive:
                    together.keep(kept)
                    orders.keep(kept)
        made: dict[int, NDArray[np.float32]] = {}
        if alive:
            made = dict(zip(alive, together.predict(samples, [last[i] for i in alive]), strict=True))
            found.update(zip(alive, together.nets(), strict=True))
    outputs_of = tuple([made.get(i) for i in range(len(nets))])
    return Trained(tuple([found[i] for i in range(len(nets))]), outputs_of, step, time.monotonic() - began)


class _Threads:
    """Tries one thread and several over the first steps, and settles on what is faster."""

    WARM, TIMED = 3, 6

    def __init__(self, most: int) -> None:
        self._most = most
        self._marks: list[float] = []

    def before(self, step: int) -> None:
        """Called before each step."""
        if self._most < 2 or step > self.WARM + 2 * self.TIMED:
            return
        if step == 0:
            torch.set_num_threads(1)
        elif step == self.WARM:
            self._marks.append(time.monotonic())
        elif step == self.WARM + self.TIMED:
            self._marks.append(time.monotonic())
            torch.set_num_threads(self._most)
        elif step == self.WARM + 2 * self.TIMED:
            alone, together = self._marks[1] - self._marks[0], time.monotonic() - self._marks[1]
            torch.set_num_threads(self._most if together < 0.9 * alone else 1)


def _share(limits: Limits, step: int, elapsed: float) -> float:
    """The share of a training that is over."""
    share = step / limits.steps
    if limits.seconds:
        by_time = elapsed / limits.seconds
        if step < limits.least:
            by_time = max(by_time / 3, min(by_time, step / limits.least))
        share = max(share, by_time)
    return share
