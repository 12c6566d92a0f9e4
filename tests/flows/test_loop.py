"""What the loop does while workers train: it thinks ahead, so that none waits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from archwright.core.records import Trace, Trial
from archwright.data.open import open_data
from archwright.errors import ArchwrightError
from archwright.flows import search as module
from archwright.flows.jobs import Worker, failures
from archwright.flows.loop import Loop
from archwright.flows.objectives import objectives
from archwright.flows.pool import STOPPED
from archwright.flows.search import search

pytestmark = pytest.mark.usefixtures("quick")

EVENTS: list[str] = []


class Two:
    """Two workers, each with room for a second job, that train while they are waited for, and end together."""

    def __init__(self, size: int) -> None:
        self.size, self.apart = 2, True
        self._worker = Worker(open_data("iris", test=0.0))
        self._jobs: list[Any] = []
        self._began = 0.0

    @property
    def free(self) -> int:
        return max(0, 2 - len(self._jobs))

    @property
    def spare(self) -> list[float]:
        return [self._began] * min(len(self._jobs), 4 - len(self._jobs))

    def open(self, folder: Any, memory: int) -> None:
        pass

    def send(self, job: Any) -> None:
        assert job["seconds"] > 0 and len(self._jobs) < 4
        EVENTS.append(f"send {len(self._jobs)}")
        self._began = self._began if self._jobs else time.monotonic()
        self._jobs.append(job)

    def wait(self, seconds: float) -> list[Any]:
        if seconds == 0:
            return []  # they are not done yet
        ended, self._jobs, self._began = self._jobs[:2], self._jobs[2:], time.monotonic()
        EVENTS.append(f"done {len(self._jobs)}")
        return [(job, self._worker.run({**job, "seconds": None})) for job in ended]

    def abandon(self) -> list[Any]:
        jobs, self._jobs = self._jobs, []
        return [(job, failures(job, STOPPED, "pruned")) for job in jobs]

    def stop(self) -> None:
        pass


def run(monkeypatch: pytest.MonkeyPatch, budget: float, trials: int) -> Any:
    EVENTS.clear()
    monkeypatch.setattr(module, "Pool", Two)
    return search("iris", space="small", budget=budget, trials=trials, workers=2, test=0.0, strategy="random").study


def test_workers_go_on_with_what_was_thought_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs are short: whenever both workers are done, each has its next."""
    trials = run(monkeypatch, 7.0, 24).trials
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"} and len(trials) == 24
    assert EVENTS[:4] == ["send 0", "send 1", "send 2", "send 3"]
    done = [event for event in EVENTS if event.startswith("done")]
    assert len(done) > 3 and done[:3] == ["done 2"] * 3
    assert not any(trial.user_attrs.get("reason") == STOPPED for trial in trials)


def test_when_time_is_up_nothing_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = run(monkeypatch, 4.0, 10_000).trials
    assert len(trials) > 8 and {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert not any(trial.user_attrs.get("reason") == STOPPED for trial in trials)


def test_the_next_of_long_jobs_is_not_thought_of_so_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "run", lambda self, job: [
        {**result, "seconds": 9.0} for result in failures(job, "slow")
    ])  # fmt: skip
    with pytest.raises(ArchwrightError):
        run(monkeypatch, 100.0, 12)
    assert EVENTS[:8] == ["send 0", "send 1", "done 0", "send 0", "send 1", "done 0", "send 0", "send 1"]


def test_jobs_that_end_early_are_expected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may take nine seconds, and take a hundredth: after the first have shown that, none is waited for."""
    run(monkeypatch, 100.0, 40)
    assert EVENTS[:3] == ["send 0", "send 1", "done 0"] and EVENTS[3:8].count("send 3") == 1


def test_the_best_is_on_the_front() -> None:
    """Also where many have the same error: then the other objectives decide, and only then the loss."""
    told = [
        ((0.2, 9, 0.5), 0.3), ((0.1, 50, 0.5), 0.1), ((0.1, 20, 0.7), 0.5), ((0.1, 20, 0.8), 0.4), ((0.3, 9, 0.5), 0),
    ]  # fmt: skip
    trials = [Trial(i, Trace({}), values, "complete", {"loss": loss}) for i, (values, loss) in enumerate(told)]
    loop = object.__new__(Loop)
    wanted = objectives("error,params,accuracy", "classification", 3)
    ask = {"objectives": wanted, "sign": 1.0, "value": lambda t: t.values[0]}
    vars(loop).update(ask=SimpleNamespace(**ask), book=SimpleNamespace(trials=lambda _: trials))
    assert [t.number for t in loop.ranked()] == [3, 2, 1, 0, 4]
    assert [t.number for t in loop.front()] == [3, 0]
    trials.clear()
    assert loop.ranked() == loop.front() == [] and loop.best() is None
