"""A job: candidates of one architecture that are trained together, as plain data. What a worker does.

A candidate is a trial of the search: the architecture with settings of its own. It is trained on each fold, and its
error is that on the rows that each fold held back. So one number stands for all rows, and the nets of all candidates
and folds run as one network.

    job = {"graph": JSON text, "candidates": [{"number": 7, "settings": {...}, "bars": [...], "start": folder or None,
                                               "copy": 0}],
           "folds": 5, "final": False, "steps": 2000, "seconds": 3.5 or None, "seed": 0, "metrics": ["error"],
           "halve": True, "save": folder or None}
    result = {"number": 7, "state": "complete" | "pruned" | "failed", "values": {"error": 0.08}, "loss": 0.3,
              "reason": "", "curve": [[s, v]], "seconds": 1.2, "steps": 2000}

The first of the `metrics` is what candidates are compared by. `bars` are its values, one for each look, at which a
candidate is given up if it is worse; `halve` lets the worse half of the candidates go at the second look and at the
fourth. Candidates with the same `copy` begin with the same weights. `final` trains on all rows but those of the test
split. In `save` each net gets a folder by its candidate's number, with its outputs on the held rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from archwright.core import seeds
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.flows.team import HELD
from archwright.ir import Graph
from archwright.kit.losses import loss_for
from archwright.kit.metrics import metric
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS, Limits, Rows, Samples, Trained, train_together
from archwright.net.net import Net, init, load

Job = Mapping[str, Any]
Outputs = NDArray[np.float32]
Result = dict[str, Any]

LEAST = 60
"""Steps of a candidate that count for something: running statistics of norms are those of the first before."""

QUICK = 2000
"""Held rows that are predicted at a look before the end, where there is no cross-validation."""


def folds_of(data: Data, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Rows to learn from and rows held back, for each fold: groups as a whole, classes as evenly as that allows.

    Without folds (0): the train and the valid split.
    """
    train, valid = [np.asarray(data.splits[name], np.int64) for name in ("train", "valid")]
    if not count:
        return [(train, valid)]
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    pool = np.sort(np.concatenate([train, valid]))
    groups = None if data.groups is None else np.asarray(data.groups)[pool]
    kinds = (StratifiedKFold, KFold) if groups is None else (StratifiedGroupKFold, GroupKFold)
    folds = kinds[data.task != "classification"](count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class has fewer samples than there are folds
        parts = folds.split(pool, data.target[pool], groups)
        return [(pool[fit], pool[held]) for fit, held in parts]


def failures(job: Job, reason: str, state: str = "failed") -> list[Result]:
    """Results of a job that came to nothing."""
    return [
        {"number": c["number"], "state": state, "reason": reason, "curve": [], "seconds": 0.0, "steps": 0}
        for c in job["candidates"]
    ]


class Worker:
    """Does jobs on data."""

    def __init__(self, data: Data) -> None:
        self._data, self._samples = data, Samples(data)

    def run(self, job: Job) -> list[Result]:
        """The results of a job's candidates. What goes wrong in a candidate's training is in its result."""
        try:
            return _Run(job, self._data).results(self._samples)
        except Exception as error:  # whatever a part of the user's own does, or a full disk: the search goes on
            return failures(job, _reason(error))


class Judge:
    """How good outputs for some rows of the data are, in the target's own units.

    names  of the metrics; the first is what candidates are compared by
    sign   1 where less of that one is better, else -1
    """

    def __init__(self, data: Data, names: Sequence[str]) -> None:
        self._data, self._loss = data, loss_for(data)
        self._metrics = [metric(name, data.task, data.outputs) for name in names]
        recipe = data.meta.get("recipe")
        numbers = data.task == "regression" and recipe is not None
        self._decode = recipe_from(recipe).target.decode if numbers else None
        self.sign = 1.0 if self._metrics[0].direction == "min" else -1.0

    def value(self, outputs: Outputs, rows: Rows) -> float:
        """The first metric."""
        return self._metrics[0](*self._decoded(outputs, rows))

    def values(self, outputs: Outputs, rows: Rows) -> dict[str, float]:
        """All metrics by name."""
        truth, outputs = self._decoded(outputs, rows)
        return {one.name: one(truth, outputs) for one in self._metrics}

    def _decoded(self, outputs: Outputs, rows: Rows) -> tuple[Outputs, Outputs]:
        truth = self._data.target[rows]
        return (truth, outputs) if self._decode is None else (self._decode(truth), self._decode(outputs))

    def loss(self, outputs: Outputs, rows: Rows) -> float:
        """The task's loss, which tells apart what has the same metric: few rows, few values."""
        return float(self._loss(torch.from_numpy(outputs), torch.from_numpy(self._data.target[rows])))

    def held(self, outputs: Outputs) -> tuple[float, float]:
        """What is to be small, of outputs on all rows that candidates are judged by, in the order of their numbers."""
        rows = self.held_rows(outputs)
        return self.sign * self.value(outputs, rows), self.loss(outputs, rows)

    def held_rows(self, outputs: Outputs) -> Rows:
        """The rows that such outputs are of."""
        folded, valid = self._all_held
        return folded if len(outputs) == len(folded) else valid

    @cached_property
    def _all_held(self) -> tuple[Rows, Rows]:
        """The rows that are held back with cross-validation, and without."""
        train, valid = [np.asarray(self._data.splits[name], np.int64) for name in ("train", "valid")]
        return np.sort(np.concatenate([train, valid])), np.sort(valid)


@dataclass
class _Candidate:
    """A trial within a job. `nets`: which of the job's nets are its own, fold by fold."""

    number: int
    settings: Settings
    bars: Sequence[float | None]
    nets: list[int] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    state: str = "running"
    reason: str = ""

    def close(self, state: str, reason: str) -> None:
        """It does not go on."""
        self.state, self.reason = state, reason


class _Run:
    """One job: its nets, which rows each learns from and is looked at with, and what became of its candidates."""

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data = job, data
        self.final = bool(job.get("final"))
        self.judge = Judge(data, job["metrics"])
        parts = folds_of(data, 0 if self.final else job["folds"], job["seed"])
        if self.final:
            parts = [(np.sort(np.concatenate(parts[0])), np.zeros(0, np.int64))]
        # without cross-validation a look before the end is at some of the held rows
        self.held = [back for _, back in parts]
        self.quick = self.held if job["folds"] else [back[:: max(1, len(back) // QUICK)] for back in self.held]
        graph = Graph.from_json(job["graph"])
        self.candidates: list[_Candidate] = []
        self.nets: list[Net] = []
        self.fold_of: list[int] = []
        for entry in job["candidates"]:
            one = _Candidate(entry["number"], Settings(**entry["settings"]), entry.get("bars") or ())
            for fold in range(len(parts)):
                one.nets.append(len(self.nets))
                seed = seeds.derive(job["seed"], "weights", fold, entry.get("copy", 0))
                self.nets.append(_begin(graph, entry.get("start"), seed))
                self.fold_of.append(fold)
            self.candidates.append(one)
        self.rows = [parts[fold][0] for fold in self.fold_of]
        self.looks = 0

    def results(self, samples: Samples) -> list[Result]:
        """Train, and say what came of it."""
        job = self.job
        trained = train_together(
            self.nets, [one.settings for one in self.candidates for _ in one.nets], self.data, self.rows,
            [self.quick[fold] for fold in self.fold_of],
            Limits(job["steps"], job.get("seconds"), 0 if self.final else LEAST),
            seeds.rng(job["seed"], "train", *[one.number for one in self.candidates]),
            look=None if self.final else self.look, samples=samples, finish=[self.held[f] for f in self.fold_of],
            threads=job.get("threads") or 1,
        )  # fmt: skip
        outputs = {i: y for i, y in enumerate(trained.outputs) if y is not None}
        return [self._result(one, trained, outputs) for one in self.candidates]

    def look(self, share: float, alive: Sequence[int], found: Sequence[NDArray[np.float32]]) -> list[int]:
        """Who goes on: see `Look`."""
        self.looks += 1
        outputs = dict(zip(alive, found, strict=True))
        running = [one for one in self.candidates if one.state == "running"]
        for one in running:
            if all([i in outputs for i in one.nets]):
                one.curve.append([share, self.judge.value(self._outputs(one, outputs), np.concatenate(self.quick))])
            else:
                one.close("failed", f"diverged before {share:.0%} of its training")
        running = [one for one in running if one.state == "running"]
        _give_up(running, self.looks, self.judge.sign, bool(self.job.get("halve")))
        return [i for one in running if one.state == "running" for i in one.nets]

    def _outputs(self, one: _Candidate, outputs: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Its outputs on the held rows of all folds, one after another."""
        return np.concatenate([outputs[i] for i in one.nets])

    def _result(self, one: _Candidate, trained: Trained, outputs: Mapping[int, NDArray[np.float32]]) -> Result:
        seconds = trained.seconds / len(self.candidates)
        found: Result = {"number": one.number, "steps": trained.steps, "seconds": seconds}
        if one.state == "running":
            whole = all([i in outputs for i in one.nets])
            one.close(*(("complete", "") if whole else ("failed", "diverged at the end of its training")))
        if one.state == "complete" and not self.final:
            if not sum(map(len, self.held)):
                one.close("failed", "there are no rows to hold back")
            else:
                made, rows = self._outputs(one, outputs), np.concatenate(self.held)
                found["values"], found["loss"] = self.judge.values(made, rows), self.judge.loss(made, rows)
                one.curve.append([1.0, found["values"][self.job["metrics"][0]]])
                for name, value in found["values"].items():
                    if not math.isfinite(value):
                        one.close("failed", f"its {name} is {value}")
        if one.state == "complete" and self.job.get("save"):
            folder = Path(self.job["save"]) / str(one.number)
            trained.nets[one.nets[0]].save(folder)
            if not self.final:
                order = np.argsort(np.concatenate(self.held), kind="stable")
                np.save(folder / HELD, self._outputs(one, outputs)[order])
        return {**found, "state": one.state, "reason": one.reason, "curve": one.curve}


def _begin(graph: Graph, start: str | None, seed: int) -> Net:
    """Fresh weights, or those of a net that the architecture was made from, where names and shapes agree."""
    net = init(graph, seed)
    if start is None:
        return net
    known = load(start).weights
    same = {n: known[n] for n, t in net.weights.items() if n in known and known[n].shape == t.shape}
    return Net(graph, {**net.weights, **same})


def _give_up(running: Sequence[_Candidate], look: int, sign: float, halve: bool) -> None:
    """Mark the candidates that are worse than their bar, and at two looks the worse half of all."""
    for one in running:
        bar = one.bars[look - 1] if look <= len(one.bars) else None
        if bar is not None and sign * one.curve[-1][1] > sign * bar:
            one.close("pruned", f"worse than most others at {one.curve[-1][0]:.0%} of their training")
    left = sorted([one for one in running if one.state == "running"], key=lambda one: sign * one.curve[-1][1])
    if halve and look in (LOOKS // 4, LOOKS // 2):
        for one in left[-(-len(left) // 2) :]:
            one.close("pruned", f"worse than others of its architecture at {one.curve[-1][0]:.0%} of the training")


def _reason(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or "not enough memory" in text or "allocate memory" in text:
        return f"out of memory: {text[:200]}"
    return f"{type(error).__name__}: {text[:300]}"
