"""Which of the trained networks are averaged in the end: greedy selection by the rows that were held back.

    t_1 = the best;    t_m = argmin_t  L( mean of the outputs of t_1 .. t_(m-1) and t )      one may come again

after Caruana and others, "Ensemble selection from libraries of models" (ICML 2004). L is the metric, then the task's
loss. Each trial's outputs on the held rows come from nets that did not learn from them, so the figure of a mean is that
of a candidate; which of several thousand means is best is as uncertain as which candidate is.

A mean of unlike networks that are about as good is better than any one of them, and than a mean of copies of the best:
on few rows the best by a hair is the luckiest. It has more parameters than one, so where costs are objectives there is
no mean: the front says what more parameters give.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archwright.core.records import Trial
from archwright.kit.ensemble import averaged, output_of

AMONG = 16
"""The best so many trials are chosen from."""

HELD = "held.npy"
"""Beside a trial's net: its outputs on the held rows, in the order of their numbers."""

Score = Callable[[NDArray[np.float32]], tuple[float, ...]]
"""Outputs on the held rows -> what is to be small, the most important first."""


@dataclass(frozen=True, eq=False)
class Team:
    """The networks that are averaged.

    trials   the best first; one that was chosen k times stands k times, and has k copies
    seconds  that training them takes, about; infinite where that is not known
    score    of the mean on the held rows, as `Score` gives it; empty where that is not known
    """

    trials: tuple[Trial, ...]
    seconds: float = math.inf
    score: tuple[float, ...] = ()

    @property
    def copies(self) -> list[tuple[Trial, int]]:
        """Each trial once, and how many copies it has."""
        count = Counter(trial.number for trial in self.trials)
        return [(trial, count[trial.number]) for trial in {t.number: t for t in self.trials}.values()]


def seconds_of(copies: Sequence[tuple[Trial, int]], alone: Callable[[Trial], float], workers: int) -> float:
    """What training them takes, about, on so many workers; infinite where that is not known of one.

    Copies train as one network: each takes two fifths of the time of one alone.
    """
    each = [alone(trial) * max(1.0, 0.4 * count) for trial, count in copies]
    return max(max(each), sum(each) / workers)


def select(
    ranked: Sequence[Trial],
    most: int,
    fits: Callable[[Team], bool],
    seconds: Callable[[Sequence[tuple[Trial, int]]], float],
    held: Callable[[Trial], NDArray[np.float32] | None],
    task: str,
    score: Score,
) -> Team:
    """The team of the best trial and at most `most` - 1 more, as far as they fit.

    ranked   the best trial first
    fits     whether a team keeps to the limits and to the time
    seconds  (trials and their copies) -> how long training them takes
    held     (trial) -> its outputs on the held rows, [rows, outputs]
    """
    best = ranked[0]

    def team(trials: Sequence[Trial], found: tuple[float, ...] = ()) -> Team:
        made = Team(tuple(trials))
        return Team(made.trials, seconds(made.copies), found)

    outputs = {} if most == 1 else {t.number: y for t in ranked[:AMONG] if (y := held(t)) is not None}
    if best.number not in outputs:  # trained elsewhere: copies of it are all that is known to be good
        copies = [team([best] * count) for count in range(most, 1, -1)]
        return next((made for made in copies if fits(made)), team([best]))
    parts = {t.number: averaged(outputs[t.number], task) for t in ranked[:AMONG] if t.number in outputs}
    chosen, total = team([best], score(outputs[best.number])), parts[best.number]
    while len(chosen.trials) < most:
        tried = []
        for trial in ranked[:AMONG]:
            if trial.number in parts:
                mean = (total + parts[trial.number]) / (len(chosen.trials) + 1)
                tried.append((score(output_of(mean, task)), trial.number, trial))
        more = (team([*chosen.trials, trial], found) for found, _, trial in sorted(tried, key=lambda one: one[:2]))
        wider = next((made for made in more if fits(made)), None)
        if wider is None:
            break
        chosen, total = wider, total + parts[wider.trials[-1].number]
    return chosen


def outputs_of(folder: Path) -> NDArray[np.float32] | None:
    """What stands beside a trial's net, if it is there and whole."""
    try:
        found = np.load(folder / HELD, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return np.asarray(found, np.float32)
