"""Which networks are averaged: greedy, with replacement, the best first, within limits and time."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from archwright.core.records import Trace, Trial
from archwright.flows.team import HELD, Team, outputs_of, seconds_of, select

ROWS = 40


def trials(count: int) -> list[Trial]:
    return [Trial(10 + i, Trace({"depth": i}), (float(i),)) for i in range(count)]


class Held:
    """Outputs that are the truth and noise of their own: together they are better than alone."""

    def __init__(self, task: str, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.task, self.ranked = task, trials(count)
        if task == "regression":
            self.truth = rng.normal(size=(ROWS, 1))
            made = [self.truth + rng.normal(size=(ROWS, 1)) for _ in range(count)]
        else:
            self.truth = rng.integers(3, size=ROWS)
            made = [2.0 * np.eye(3)[self.truth] + 2.0 * rng.normal(size=(ROWS, 3)) for _ in range(count)]
        made.sort(key=self.score)
        self.outputs = {t.number: y.astype(np.float32) for t, y in zip(self.ranked, made, strict=True)}

    def score(self, output: Any) -> tuple[float, ...]:
        if self.task == "regression":
            return (float(np.mean((output - self.truth) ** 2)),)
        logs = output - np.log(np.exp(output).sum(-1, keepdims=True))
        return float((output.argmax(-1) != self.truth).mean()), float(-logs[np.arange(ROWS), self.truth].mean())

    def mean(self, numbers: list[int]) -> tuple[float, ...]:
        """As a user would take it."""
        made = [self.outputs[n].astype(float) for n in numbers]
        if self.task == "regression":
            return self.score(np.mean(made, 0))
        chances = [np.exp(y) / np.exp(y).sum(-1, keepdims=True) for y in made]
        return self.score(np.log(np.mean(chances, 0)))

    def select(self, most: int = 8, fits: Any = None, **more: Any) -> Team:
        given: dict[str, Any] = {"held": lambda t: self.outputs.get(t.number), **more}
        seconds = lambda copies: seconds_of(copies, lambda t: 1.0, 1)  # noqa: E731
        return select(self.ranked, most, fits or (lambda team: True), seconds, given["held"], self.task, self.score)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("seed", range(4))
def test_each_that_is_added_is_the_best_of_all(task: str, seed: int) -> None:
    case = Held(task, 6, seed)
    team = case.select()
    chosen = [t.number for t in team.trials]
    assert chosen[0] == 10 and len(chosen) == 8
    for i in range(1, 8):
        best = min(case.mean([*chosen[:i], other]) for other in case.outputs)
        np.testing.assert_allclose(case.mean(chosen[: i + 1]), best, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(team.score, case.mean(chosen), rtol=1e-5, atol=1e-6)
    assert team.score < case.mean([10])
    assert sum(copies for _, copies in team.copies) == 8 and len({t.number for t, _ in team.copies}) == len(team.copies)


def test_what_does_not_fit_is_passed_over() -> None:
    case = Held("regression", 6)
    free = case.select()
    banned = next(t.number for t in free.trials if t.number != 10)
    team = case.select(fits=lambda team: all(t.number != banned for t in team.trials))
    assert banned not in {t.number for t in team.trials} and len(team.trials) == 8
    assert len(case.select(fits=lambda team: len(team.trials) <= 3).trials) == 3
    assert [t.number for t in case.select(fits=lambda team: False).trials] == [10]
    assert all(team.seconds == pytest.approx(sum(max(1, 0.4 * c) for _, c in team.copies)) for team in (free, team))


def test_one_that_is_not_here_is_copied_as_often_as_fits() -> None:
    case = Held("classification", 4)
    away = case.select(held=lambda trial: None if trial.number == 10 else case.outputs[trial.number])
    assert [t.number for t in away.trials] == [10] * 8 and away.score == ()
    few = case.select(held=lambda trial: None, fits=lambda team: len(team.trials) <= 2)
    assert [t.number for t in few.trials] == [10] * 2
    others = case.select(held=lambda trial: None if trial.number == 11 else case.outputs[trial.number])
    assert 11 not in {t.number for t in others.trials}


def test_one_alone_needs_no_outputs() -> None:
    def never(trial: Trial) -> Any:
        raise AssertionError

    assert [t.number for t in Held("regression", 3).select(1, held=never).trials] == [10]


def test_time_on_several_workers() -> None:
    first, second, third = trials(3)
    alone = {10: 4.0, 11: 2.0, 12: 1.0}
    times = {n: seconds_of([(first, 1), (second, 1), (third, 5)], lambda t: alone[t.number], n) for n in (1, 2, 4)}
    assert times == {1: 8.0, 2: 4.0, 4: 4.0}
    assert math.isinf(seconds_of([(first, 1)], lambda t: math.inf, 2))


def test_outputs_are_read_if_they_are_whole(tmp_path: Any) -> None:
    made = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert outputs_of(tmp_path) is None
    np.save(tmp_path / HELD, made)
    np.testing.assert_array_equal(outputs_of(tmp_path), made)  # type: ignore[arg-type]
    whole = (tmp_path / HELD).read_bytes()
    for size in itertools.chain(range(0, len(whole), 9), [len(whole) - 1]):
        (tmp_path / HELD).write_bytes(whole[:size])
        assert outputs_of(tmp_path) is None
    np.save(tmp_path / HELD, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert outputs_of(tmp_path) is None
