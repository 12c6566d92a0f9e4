"""A recurrent controller over the decisions of a space: an LSTM that reads what was chosen and says what comes next.

    x_t = E[choice t-1, its value] + Q[choice t]        what was chosen last, and what is asked now
    i, f, o, u = split(x_t Wx + h_{t-1} Wh + b),  c_t = s(f) c_{t-1} + s(i) tanh(u),  h_t = s(o) tanh(c_t)
    p(value of t | before) = softmax(H[choice t] h_t + a[choice t])

Small and in NumPy, so that it can be trained anew from a history in milliseconds: inputs and outputs of all steps are
computed at once, only the recurrence is a loop. Everything is a function of the numbers given: no state, no generator.
Each choice has its own rows of E, Q, H and a, whose first values depend on its name only, so that choices may be met in
any order. A real number is one of `BINS` equal parts of its range (on a log scale if it is on one).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core import seeds
from archwright.core.choose import Options, Picker, Scalar, replay
from archwright.core.records import Trace
from archwright.core.space import Space

Array = NDArray[np.float64]
BINS = 8
"""Parts into which the range of a real number is cut."""


# ------------------------------------------------------------------------------------------------- traces as tokens
@dataclass(frozen=True)
class Question:
    """A choice with its options: what one softmax of the controller is about."""

    name: str
    options: Options

    @property
    def size(self) -> int:
        """Number of values."""
        return BINS if self.options.kind == "number" else len(self.options.values)

    def index(self, value: Any) -> int:
        """Which of them a value is."""
        o = self.options
        if o.kind != "number":
            return next(i for i, v in enumerate(o.values) if v == value and type(v) is type(value))
        low, high, at = (math.log(v) if o.log else v for v in (o.low, o.high, float(value)))
        return 0 if high <= low else min(BINS - 1, max(0, int((at - low) / (high - low) * BINS)))

    def value(self, index: int, place: float) -> Scalar:
        """The value of that index; a real number lies at `place` in [0, 1) of its part."""
        o = self.options
        if o.kind != "number":
            return o.values[index]
        low, high = (math.log(v) if o.log else v for v in (o.low, o.high))
        at = low + (index + place) / BINS * (high - low)
        return float(min(o.high, max(o.low, math.exp(at) if o.log else at)))


Tokens = tuple[tuple[Question, int], ...]
"""The decisions of a trace in the order in which they were asked, each with the index of its value."""


@lru_cache(maxsize=20_000)
def tokens(space: Space, trace: Trace) -> Tokens:
    """The decisions of a trace. Remembered, since it takes a reading of the space; it depends on nothing else."""
    picker = Picker(replay(trace))
    space.program(picker, space.spec)
    questions = [Question(name, options) for name, options in picker.asked.items()]
    return tuple([(q, q.index(picker.taken[q.name])) for q in questions])


# ---------------------------------------------------------------------------------------------------- the controller
@dataclass
class Controller:
    """The controller's numbers: one vector, and views of it by name.

    wx, wh [hidden, 4 hidden], b [4 hidden], start [hidden], asked [questions, hidden],
    chosen and head [questions, most options, hidden], bias [questions, most options]
    """

    places: Mapping[Question, int]
    flat: Array
    views: Mapping[str, Array]
    mask: NDArray[np.bool_]
    hidden: int

    @staticmethod
    def fresh(questions: Sequence[Question], hidden: int, spread: float = 0.08, seed: int = 0) -> Controller:
        """Numbers uniform within +- spread; biases of heads zero, so that at first all values are about as likely."""
        most = max([q.size for q in questions], default=1)
        count, wide = len(questions), 4 * hidden
        shapes = {
            "wx": (hidden, wide), "wh": (hidden, wide), "b": (wide,), "start": (hidden,), "asked": (count, hidden),
            "chosen": (count, most, hidden), "head": (count, most, hidden), "bias": (count, most),
        }  # fmt: skip
        flat = np.zeros(sum(math.prod(s) for s in shapes.values()))
        views, offset = {}, 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            views[name] = flat[offset : offset + size].reshape(shape)
            offset += size
        rng = seeds.rng(seed, "controller", hidden)
        for name in ("wx", "wh", "b", "start"):
            views[name][:] = rng.uniform(-spread, spread, views[name].shape)
        mask = np.zeros((count, most), bool)
        for i, q in enumerate(questions):
            rng = seeds.rng(seed, "question", q.name, str(q.options))
            views["asked"][i] = rng.uniform(-spread, spread, hidden)
            views["chosen"][i, : q.size] = rng.uniform(-spread, spread, (q.size, hidden))
            views["head"][i, : q.size] = rng.uniform(-spread, spread, (q.size, hidden))
            mask[i, : q.size] = True
        return Controller({q: i for i, q in enumerate(questions)}, flat, views, mask, hidden)

    def pack(self, batch: Sequence[Tokens]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Questions and answers [batch, steps] as numbers, and where a trace is that long."""
        steps = max([len(t) for t in batch], default=0)
        asked, taken = np.zeros((len(batch), steps), np.int64), np.zeros((len(batch), steps), np.int64)
        real = np.zeros((len(batch), steps), bool)
        for i, trace in enumerate(batch):
            for t, (question, answer) in enumerate(trace):
                asked[i, t], taken[i, t], real[i, t] = self.places[question], answer, True
        return asked, taken, real

    def gradient(self, batch: Sequence[Tokens], weights: Array, entropy: float = 0.0) -> tuple[Array, Array]:
        """Gradient of  sum_i -weights_i log p(trace_i) - entropy * sum_i,t H_it  [numbers], and log p [batch]."""
        v, n = self.views, self.hidden
        asked, taken, real = self.pack(batch)
        count, steps = asked.shape
        x = v["asked"][asked]
        x[:, 0] += v["start"]
        x[:, 1:] += v["chosen"][asked[:, :-1], taken[:, :-1]]
        into = x @ v["wx"] + v["b"]
        h, c = np.zeros((steps + 1, count, n)), np.zeros((steps + 1, count, n))
        gates, u, squashed = np.empty((steps, count, 3 * n)), np.empty((steps, count, n)), np.empty((steps, count, n))
        for t in range(steps):
            z = into[:, t] + h[t] @ v["wh"]
            gates[t] = 1 / (1 + np.exp(-z[:, : 3 * n]))
            u[t] = np.tanh(z[:, 3 * n :])
            c[t + 1] = gates[t, :, n : 2 * n] * c[t] + gates[t, :, :n] * u[t]
            squashed[t] = np.tanh(c[t + 1])
            h[t + 1] = gates[t, :, 2 * n :] * squashed[t]
        out = h[1:].transpose(1, 0, 2)
        heads = v["head"][asked]
        logits = np.where(self.mask[asked], (heads @ out[..., None])[..., 0] + v["bias"][asked], -np.inf)
        p, logp = _softmax(logits)
        rows = np.arange(count)[:, None], np.arange(steps)[None]
        log_taken = np.where(real, logp[(*rows, taken)], 0.0)
        # back from the logits to the numbers
        d = p * weights[:, None, None]
        d[(*rows, taken)] -= weights[:, None]
        if entropy:
            finite = np.where(p > 0, logp, 0.0)
            d += entropy * p * (finite - (p * finite).sum(-1, keepdims=True))
        d *= real[..., None]
        flat = np.zeros_like(self.flat)
        g = _views_like(flat, v)
        np.add.at(g["bias"], asked, d)
        np.add.at(g["head"], asked, d[..., None] * out[:, :, None])
        d_out = (d[:, :, None] @ heads)[:, :, 0].transpose(1, 0, 2)
        d_z = np.empty((steps, count, 4 * n))
        d_h, d_c = np.zeros((count, n)), np.zeros((count, n))
        for t in reversed(range(steps)):
            d_h = d_h + d_out[t]
            d_c = d_c + d_h * gates[t, :, 2 * n :] * (1 - squashed[t] ** 2)
            d_z[t, :, :n] = d_c * u[t]
            d_z[t, :, n : 2 * n] = d_c * c[t]
            d_z[t, :, 2 * n : 3 * n] = d_h * squashed[t]
            d_z[t, :, : 3 * n] *= gates[t] * (1 - gates[t])
            d_z[t, :, 3 * n :] = d_c * gates[t, :, :n] * (1 - u[t] ** 2)
            d_h = d_z[t] @ v["wh"].T
            d_c = d_c * gates[t, :, n : 2 * n]
        g["wh"] += h[:-1].reshape(-1, n).T @ d_z.reshape(-1, 4 * n)
        g["b"] += d_z.sum((0, 1))
        d_z = d_z.transpose(1, 0, 2)
        g["wx"] += x.reshape(-1, n).T @ d_z.reshape(-1, 4 * n)
        d_x = d_z @ v["wx"].T
        g["start"] += d_x[:, 0].sum(0)
        np.add.at(g["asked"], asked, d_x)
        np.add.at(g["chosen"], (asked[:, :-1], taken[:, :-1]), d_x[:, 1:])
        return flat, log_taken.sum(1)

    def sampler(self, rng: np.random.Generator) -> Callable[[str, Options], Scalar]:
        """A way to decide, for one reading of a space: each value drawn from what the controller says of it."""
        v, n = self.views, self.hidden
        h, c, last = np.zeros(n), np.zeros(n), v["start"]

        def decide(name: str, options: Options) -> Scalar:
            nonlocal h, c, last
            question = Question(name, options)
            place = self.places.get(question)
            x = last + (v["asked"][place] if place is not None else 0.0)
            z = x @ v["wx"] + v["b"] + h @ v["wh"]
            gates = 1 / (1 + np.exp(-z[: 3 * n]))
            c = gates[n : 2 * n] * c + gates[:n] * np.tanh(z[3 * n :])
            h = gates[2 * n :] * np.tanh(c)
            if place is None:  # never asked before: all values are as likely
                last = np.zeros(n)
                return question.value(int(rng.integers(question.size)), float(rng.random()))
            p, _ = _softmax((v["head"][place] @ h + v["bias"][place])[: question.size])
            answer = min(question.size - 1, int(np.searchsorted(np.cumsum(p), rng.random(), side="right")))
            last = v["chosen"][place, answer]
            return question.value(answer, float(rng.random()) if options.kind == "number" else 0.0)

        return decide


def _views_like(flat: Array, views: Mapping[str, Array]) -> dict[str, Array]:
    found, offset = {}, 0
    for name, view in views.items():
        found[name] = flat[offset : offset + view.size].reshape(view.shape)
        offset += view.size
    return found


def _softmax(logits: Array) -> tuple[Array, Array]:
    """Probabilities and their logarithms along the last dimension."""
    shifted = logits - logits.max(-1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return np.exp(logp), logp


class Adam:
    """Adam on a vector, changed in place by `step`."""

    def __init__(self, flat: Array, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.flat, self.lr, self.betas, self.count = flat, lr, betas, 0
        self.mean, self.square = np.zeros_like(flat), np.zeros_like(flat)

    def step(self, gradient: Array) -> None:
        """One update against the gradient."""
        one, two = self.betas
        self.count += 1
        self.mean += (1 - one) * (gradient - self.mean)
        self.square += (1 - two) * (gradient * gradient - self.square)
        rate = self.lr * math.sqrt(1 - two**self.count) / (1 - one**self.count)
        self.flat -= rate * self.mean / (np.sqrt(self.square) + 1e-8)
