"""How a search spends its budget: folds, steps, seconds for each job, and when the last training has to begin.

    full training   as many samples as the data deserve: `epochs` times the training rows, within bounds
    folds           small data are cross-validated: an error over 300 held-back rows decides nothing. Where samples come
                    in groups, whole groups are held back
    siblings        settings that are tried at once for one architecture, where many nets run as one cheaply
    job             without a clock (trials are counted) a job is always a full training; with one it may take the
                    time of the search divided by `JOBS` a worker, whichever is less
    final           what the last training of the best so far takes, between a twenty-fifth and six tenths of the budget
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from archwright.core.records import Record
from archwright.data.data import Data
from archwright.kit.settings import Settings

JOBS = 8
"""Jobs that each worker should at least get done."""

WRAP = 2.5
"""Seconds that writing the bundle takes, about."""

FOLDED = 4000
"""Rows up to which data are cross-validated."""


@dataclass(frozen=True)
class Plan(Record):
    """The plan of a search.

    folds     of cross-validation; 0: the valid split
    rows      that a training learns from
    samples   of a full training
    siblings  settings tried together for one architecture
    members   networks that may be averaged in the end, at most
    measured  whether the last training is as long as its trial's was
    budget    seconds in all, or None where trials are counted
    workers   processes
    """

    folds: int
    rows: int
    samples: int
    siblings: int
    members: int
    measured: bool
    budget: float | None
    workers: int

    def steps(self, settings: Settings, *, final: bool = False) -> int:
        """Steps of a training. `final`: on all rows, which are more."""
        samples = settings.length * self.samples * (self._all / self.rows if final else 1.0)
        batch = settings.batch
        return max(20, round(samples / min(batch, self.rows)))

    @property
    def _all(self) -> float:
        return self.rows * self.folds / (self.folds - 1) if self.folds else self.rows / 0.82

    def final_steps(self, settings: Settings, taken: int | None) -> int:
        """Steps of the last training, on all rows, after a trial that took so many (None: there was none).

        A trial that the clock cut short was measured as it was, and for a table longer may be worse: its error is that
        of a short training. Images gain by each epoch more.
        """
        full = self.steps(settings, final=True)
        if taken is None or not self.measured:
            return full
        return min(full, max(20, round(taken * self._all / self.rows)))

    @property
    def wrap(self) -> float:
        """Seconds kept for what follows the last training."""
        return 0.0 if self.budget is None else min(WRAP, 0.2 * self.budget) + 0.01 * self.budget

    def job_seconds(self, left: float | None) -> float | None:
        """Seconds that a job may take, of so many that are left for the search; None without a clock."""
        if self.budget is None or left is None:
            return None
        share = 0.7 * self.budget / JOBS
        return max(0.2, min(share, left))

    def final_seconds(self, full: float | None) -> float:
        """Seconds for the last training, given what a full training of the best so far takes."""
        assert self.budget is not None
        least, most = 0.04 * self.budget, 0.6 * self.budget
        return min(max(1.25 * full + 0.5, least), most) if full is not None else 0.25 * self.budget


def plan(data: Data, budget: float | None, workers: int) -> Plan:
    """The plan for data, a budget in seconds (None: trials are counted) and a number of workers."""
    train, valid = data.size("train"), data.size("valid")
    pool = np.concatenate([data.splits["train"], data.splits["valid"]])
    units = len(pool)  # what can be held back: samples, or whole groups
    if data.groups is not None:
        units = len(np.unique(data.groups[pool]))
    if data.task == "classification" and len(pool):  # folds that are alike need a class with a sample for each
        units = min(units, int(np.bincount(data.target[pool]).max()))
    free = data.meta.get("split", "random") in ("random", "group")
    folds = 0
    if data.kind != "image" and free and 10 <= train + valid <= FOLDED and units > 1:
        folds = min(units, 5 if train + valid <= 1500 else 3)
    elif not valid:
        folds = min(units, 3) if train >= 6 and units > 1 else 0
    rows = (train + valid) * (folds - 1) // folds if folds else train
    samples = _samples(data.kind, max(1, rows))
    numbers = sum(int(a[0].size) for a in data.inputs) if train else 1
    siblings = 3 if data.kind != "image" and numbers <= 4096 else 1
    members = {"table": 8, "signal": 4}.get(data.kind, 1)
    return Plan(folds, max(1, rows), samples, siblings, members, data.kind != "image", budget, workers)


def _samples(kind: str, rows: int) -> int:
    """Samples of a full training: many epochs for few rows, fewer for many, 300 at most."""
    if kind == "image":
        wanted = min(max(40_000, 60 * rows), 1_200_000)
    elif kind == "signal":
        wanted = min(max(15_000, 60 * rows), 600_000)
    else:
        wanted = min(max(40_000, 100 * rows), 2_000_000)
    return min(wanted, 300 * rows)
