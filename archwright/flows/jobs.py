"""A job: candidates of one architecture that are trained together, as plain data. What a worker does.

A candidate is a trial of the search: the architecture with settings of its own. It is trained on each fold, in as many
copies as its settings say, all at once; its error is that of the mean of its copies on the rows that each fold held
back. So one number stands for all rows, and the copies of all candidates run as one network.

    job = {"graph": JSON text, "candidates": [{"number": 7, "settings": {...}, "bars": [...], "start": folder or None}],
           "folds": 5, "final": False, "steps": 2000, "seconds": 3.5 or None, "seed": 0, "metric": "error",
           "halve": True, "save": folder or None}
    result = {"number": 7, "state": "complete" | "pruned" | "failed", "value": 0.08, "loss": 0.3, "reason": "",
              "curve": [[s, v]], "seconds": 1.2, "steps": 2000}

`bars` are values, one for each look, at which a candidate is given up if it is worse; `halve` lets the worse half of
the candidates go at the second look and at the fourth. `final` trains on all rows but those of the test split.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from archwright.core import seeds
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.ir import Graph
from archwright.kit.ensemble import ensemble, mean_outputs
from archwright.kit.losses import loss_for
from archwright.kit.metrics import metric
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS, Limits, Rows, Samples, Trained, train_together
from archwright.net.net import Net, init, load

Job = Mapping[str, Any]
Result = dict[str, Any]

LEAST = 60
"""Steps of a candidate that count for something: running statistics of norms are those of the first before."""

QUICK = 2000
"""Held rows that are predicted at a look before the end, where there is no cross-validation."""


def folds_of(data: Data, count: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Rows to learn from and rows held back, for each fold. Without folds (0): the train and the valid split."""
    train, valid = [np.asarray(data.splits[name], np.int64) for name in ("train", "valid")]
    if not count:
        return [(train, valid)]
    from sklearn.model_selection import KFold, StratifiedKFold

    pool = np.sort(np.concatenate([train, valid]))
    kind = StratifiedKFold if data.task == "classification" else KFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class has fewer samples than there are folds
        parts = kind(count, shuffle=True, random_state=seed % 2**32).split(pool, data.target[pool])
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
        # torch's first optimiser imports it, for seconds, which would be taken from the first job's training
        import torch._dynamo  # noqa: F401

        self._data, self._samples = data, Samples(data)

    def run(self, job: Job) -> list[Result]:
        """The results of a job's candidates. What goes wrong in a candidate's training is in its result."""
        try:
            return _Run(job, self._data).results(self._samples)
        except (MemoryError, RuntimeError, ValueError, ArithmeticError) as error:
            return failures(job, _reason(error))


@dataclass
class _Candidate:
    """A trial within a job. `places`: for each fold, which of the job's nets are its copies."""

    number: int
    settings: Settings
    bars: Sequence[float | None]
    places: list[list[int]] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    state: str = "running"
    reason: str = ""

    @property
    def nets(self) -> list[int]:
        """All its nets, fold by fold."""
        return [i for places in self.places for i in places]

    def close(self, state: str, reason: str) -> None:
        """It does not go on."""
        self.state, self.reason = state, reason


class _Run:
    """One job: its nets, which rows each learns from and is looked at with, and what became of its candidates."""

    def __init__(self, job: Job, data: Data) -> None:
        self.job, self.data = job, data
        self.final = bool(job.get("final"))
        self.score = metric(job["metric"], data.task, data.outputs)
        recipe = data.meta.get("recipe")
        self.target = recipe_from(recipe).target if recipe else None
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
                one.places.append([])
                for member in range(one.settings.members):
                    one.places[fold].append(len(self.nets))
                    seed = seeds.derive(job["seed"], "weights", fold, member)
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
                one.curve.append([share, self._value(one, outputs, self.quick)])
            else:
                one.close("failed", f"diverged before {share:.0%} of its training")
        running = [one for one in running if one.state == "running"]
        _give_up(running, self.looks, self.score.direction, bool(self.job.get("halve")))
        return [i for one in running if one.state == "running" for i in one.nets]

    def _outputs(self, one: _Candidate, outputs: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The mean of its copies on the held rows of all folds, one after another."""
        return np.concatenate([mean_outputs([outputs[i] for i in places], self.data.task) for places in one.places])

    def _loss(self, one: _Candidate, outputs: Mapping[int, NDArray[np.float32]]) -> float:
        """The task's loss on the held rows, which tells apart what has the same error: few rows, few values."""
        truth = np.concatenate([self.data.target[rows] for rows in self.held])
        return float(loss_for(self.data)(torch.from_numpy(self._outputs(one, outputs)), torch.from_numpy(truth)))

    def _value(
        self, one: _Candidate, outputs: Mapping[int, NDArray[np.float32]], held: Sequence[Rows]
    ) -> float:
        """The metric on the held rows of all folds, in the target's own units."""
        made = self._outputs(one, outputs)
        truth = np.concatenate([self.data.target[rows] for rows in held])
        if self.data.task == "regression" and self.target is not None:
            truth, made = self.target.decode(truth), self.target.decode(made)
        return self.score(truth, made)

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
                found["value"] = self._value(one, outputs, self.held)
                found["loss"] = self._loss(one, outputs)
                one.curve.append([1.0, found["value"]])
                if not math.isfinite(found["value"]):
                    one.close("failed", f"its {self.score.name} is {found['value']}")
        if one.state == "complete" and self.job.get("save"):
            members = [trained.nets[i] for i in one.places[0]]
            ensemble(members, self.data.task).save(Path(self.job["save"]) / str(one.number))
        return {**found, "state": one.state, "reason": one.reason, "curve": one.curve}


def _begin(graph: Graph, start: str | None, seed: int) -> Net:
    """Fresh weights, or those of a net that the architecture was made from, where names and shapes agree."""
    net = init(graph, seed)
    if start is None:
        return net
    known = load(start).weights
    same = {n: known[n] for n, t in net.weights.items() if n in known and known[n].shape == t.shape}
    return Net(graph, {**net.weights, **same})


def _give_up(running: Sequence[_Candidate], look: int, direction: str, halve: bool) -> None:
    """Mark the candidates that are worse than their bar, and at two looks the worse half of all."""
    sign = 1.0 if direction == "min" else -1.0
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
