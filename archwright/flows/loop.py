"""The loop of a search: propose, train, record, until the budget or the trials are spent.

With a budget in seconds jobs follow one another on whichever worker is free. Where trials are counted, rounds of one
job for each worker follow one another, so that what is proposed depends on finished rounds alone and not on the clock.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from archwright.core import seeds
from archwright.core.ledger import Ledger
from archwright.core.records import Trial
from archwright.core.space import Space
from archwright.data.data import Data
from archwright.flows.interrupts import Interrupts
from archwright.flows.jobs import Judge
from archwright.flows.objectives import Objective, over
from archwright.flows.plan import Plan
from archwright.flows.pool import Done, Here, Pool
from archwright.flows.proposals import Candidate, Proposals
from archwright.flows.team import Team, outputs_of, seconds_of, select
from archwright.kit.ranks import signed, undominated
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS

KEEP = {2: 0.6, 3: 0.5, 4: 0.4, 5: 0.35, 6: 0.3}
"""Look -> the share of comparable candidates that go on after it."""

COMPARABLE = 8
"""Candidates that must have come to a look before any is given up there."""


@dataclass
class State:
    """How a search stands, for who shows it.

    phase   "search", "final training", "done"
    left    seconds of the budget that are left, None where trials are counted
    trials  finished ones, whatever came of them; `wanted` of them where they are counted; `failed` ones
    best    the best value of the first metric so far; its name and unit
    front   trials that no other dominates
    """

    phase: str
    left: float | None
    trials: int
    wanted: int | None
    failed: int
    best: float | None
    metric: str
    unit: str
    front: int


SHARED = 0.7
"""What the last training of a network for images takes with a thread for each worker, of the time with one."""

AHEAD = 1.0
"""Seconds before a worker has to be done with a job, from which on it gets the next: thinking of that and recording it
take a tenth of a second, which none should wait. Not sooner, so that as much as can be is known by then."""

LATER = ("torch._dynamo", "sklearn.metrics")
"""What is needed sooner or later and takes a second to import: it is imported when all workers have enough to do. What
tells how tensors lie in memory, for the costs of some networks; and what the figures of the end are computed by."""

FRESH = 1.0
"""Seconds for which the ledger need not be read again: only other processes may have written."""

Progress = Callable[[State], None]


@dataclass(frozen=True, eq=False)
class Ask:
    """What is asked for, checked.

    trials  how many to train, None for as many as the budget allows
    began   when this process began to spend of the budget, on the monotonic clock
    before  seconds of the budget that others had spent by then: the search is a resumed one
    """

    data: Data
    objectives: tuple[Objective, ...]
    limits: Mapping[str, float]
    plan: Plan
    trials: int | None
    seed: int
    began: float
    before: float = 0.0

    @property
    def metric(self) -> Objective:
        """What candidates are compared by: the first objective that is no cost."""
        return next(o for o in self.objectives if not o.is_cost)

    @property
    def metrics(self) -> list[str]:
        """The names of all objectives that are no costs, that one first."""
        return [o.name for o in self.objectives if not o.is_cost]

    @property
    def sign(self) -> float:
        """1 where less of the metric is better, else -1."""
        return 1.0 if self.metric.direction == "min" else -1.0

    @property
    def cost_names(self) -> list[str]:
        """Costs that are objectives or limits; and parameters, which are worth knowing anyway."""
        return list(dict.fromkeys([*[o.name for o in self.objectives if o.is_cost], *self.limits, "params"]))

    @property
    def left(self) -> float | None:
        """Seconds until the end of the budget."""
        return None if self.plan.budget is None else self.plan.budget - self.at

    @property
    def at(self) -> float:
        """Seconds of the budget that are spent."""
        return self.before + self.spent

    @property
    def spent(self) -> float:
        """Seconds that this process spent of it."""
        return time.monotonic() - self.began

    def value(self, trial: Trial) -> float:
        """The metric of a complete trial."""
        return trial.values[self.objectives.index(self.metric)]


class Loop:
    """A search under way.

    start   (trace) -> folder of a net whose weights the trace begins with, or None for fresh ones
    nets    where the nets of complete trials are kept, by number
    """

    def __init__(
        self,
        ask: Ask,
        space: Space,
        proposals: Proposals,
        book: Ledger,
        work: Path,
        *,
        label: str,
        start: Callable[[Mapping[str, Any]], str] | None = None,
        progress: Progress | None = None,
        interrupts: Interrupts | None = None,
    ) -> None:
        self.ask, self.space, self.proposals, self.book = ask, space, proposals, book
        self.work, self.nets, self.label = work, work / "nets" / book.id, label
        self.interrupts = interrupts or Interrupts()
        self._start, self._progress = start, progress
        self._entered = 0
        self._shown = 0.0
        self._state: State | None = None
        self.judge = Judge(ask.data, ask.metrics)
        self._final: tuple[int, float | None] = 0, None
        self._reckoned = 0.0
        self._took: deque[float] = deque(maxlen=9)  # seconds of the last jobs
        self._later = list(LATER)

    def run(self, pool: Pool | Here) -> bool:
        """Search until the budget or the trials are spent; whether Ctrl-C ended it."""
        interrupted = False
        self._entered = self._tried()
        try:
            if self.ask.plan.budget is None:
                self._counted(pool)
            else:
                self._timed(pool)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            for done in pool.abandon():
                self._close(done)
            self.book.spend(self.ask.spent)
        return self.interrupts.take() or interrupted

    def _tried(self) -> int:
        """Finished trials, whatever came of them, but those that were refused."""
        return sum([t.state != "running" and not t.extra.get("refused") for t in self.book.trials(FRESH)])

    def _counted(self, pool: Pool | Here) -> None:
        wanted = self.ask.trials or 0
        while (left := wanted - self._tried()) > 0 and not self.interrupts.asked:
            jobs: list[dict[str, Any]] = []
            while len(jobs) < pool.free and left > 0 and (group := self._proposed(left)):
                jobs.append(self._enter(group, None))  # at once: what is in the ledger is not proposed again
                left -= len(group)
            if not jobs:
                return
            for job in jobs:
                pool.send(job)
            found: list[Done] = []
            while len(found) < len(jobs) and not self.interrupts.asked:
                found += pool.wait(0.25)
                self.show()
            for done in sorted(found, key=lambda done: done[0]["candidates"][0]["number"]):
                self._close(done)
            self.proposals.forget()

    def _timed(self, pool: Pool | Here) -> None:
        budget = self.ask.plan.budget or 0.0
        running = 0
        done: list[Done] = []
        try:
            while True:
                left = self._search_left()
                while left > 0.1 and pool.free and (job := self._next(left)):
                    pool.send(job)
                    running += 1
                    left = self._search_left()
                while done:
                    self._close(done.pop(0))
                # a job that does not keep its time is abandoned: the last training needs it
                if not running or left < -1.0 - 0.02 * budget:
                    return
                job = None
                if spare := pool.spare:
                    wait = max(0.0, spare[0] + self._usual(left) - time.monotonic())
                    if wait < AHEAD and left - wait > 0.2 and (job := self._next(left - wait)):
                        pool.send(job)
                        running += 1
                elif pool.apart and self._took and not pool.free and self._later:
                    import_module(self._later.pop(0))
                done = pool.wait(0.0 if job else 0.25)
                running -= len(done)
                while done and not pool.apart:  # what is proposed next depends on what came of it
                    self._close(done.pop(0))
                if self.interrupts.asked:
                    return
                self.show()
        finally:
            while done:
                self._close(done.pop(0))

    def _usual(self, left: float) -> float:
        """Seconds that a job takes: those that it may, or the median of the last ones."""
        most = self.ask.plan.job_seconds(left) or 0.0
        return min([most, statistics.median(self._took)]) if self._took else most

    def _next(self, left: float) -> dict[str, Any] | None:
        """A job of what is proposed next, entered into the ledger; None if nothing is."""
        room = math.inf if self.ask.trials is None else self.ask.trials - self._entered
        group = self._proposed(int(min(room, 1000)), time.monotonic() + left) if room > 0 else []
        self._entered += len(group)
        return self._enter(group, left) if group else None

    def _proposed(self, most: int, until: float = math.inf) -> list[Candidate]:
        return self.proposals.next(most, until=until, stopped=lambda: self.interrupts.asked)

    def _search_left(self) -> float:
        """Seconds until the last training has to begin."""
        left = self.ask.left
        assert left is not None
        return left - self.ask.plan.wrap - self.ask.plan.final_seconds(self._final_seconds())

    def team(self) -> Team:
        """The trials whose networks are averaged in the end; at least one must be complete. They keep to the limits
        together, and their last training takes at most a third of the budget."""
        plan = self.ask.plan
        most = 1 if any([o.is_cost for o in self.ask.objectives]) else plan.members

        def fits(team: Team) -> bool:
            if plan.budget is not None and team.seconds > plan.budget / 3:
                return False
            if not self.ask.limits:
                return True
            graphs = [self.space.draw(trial.trace) for trial in team.trials]
            return over(self.proposals.cost(graphs), self.ask.limits) is None

        return select(
            self.within(), most, fits, lambda copies: seconds_of(copies, self.alone_seconds, plan.workers),
            lambda trial: outputs_of(self.nets / str(trial.number)), self.ask.data.task, self.judge.held,
        )  # fmt: skip

    def _final_seconds(self) -> float | None:
        """What the last training would take. Reckoned anew when trials were completed, but for a fiftieth of the time
        at most: some metrics are slow."""
        done, began = len(self.within()), time.monotonic()
        if done and done != self._final[0] and began >= self._reckoned:
            seconds = self.team().seconds
            self._final = done, seconds if math.isfinite(seconds) else None
            now = time.monotonic()
            self._reckoned = now + 50 * (now - began)
        return self._final[1]

    def alone_seconds(self, trial: Trial) -> float:
        """What the last training of one copy would take; infinite where that is not known."""
        if not trial.extra.get("steps"):
            return math.inf
        plan = self.ask.plan
        step = trial.extra["job_seconds"] / trial.extra["steps"]
        # in its job the folds, and on average half of the siblings, ran as one: alone, it takes more than its share
        at_once = max(1, plan.folds) * (plan.siblings + 1) / 2
        wanted = plan.final_steps(Settings.of(trial.trace), trial.extra["steps"])
        shared = SHARED if self.ask.data.kind == "image" and plan.workers > 1 else 1.0
        return float(shared * wanted * step / (1 + 0.3 * (at_once - 1)))

    # ----------------------------------------------------------------------------------------------- jobs and trials
    def _enter(self, group: Sequence[Candidate], left: float | None) -> dict[str, Any]:
        """Open the trials of a group, and make the job."""
        history, entries = self.book.trials(FRESH), []
        for one in group:
            if one.number < 0:
                asked = self.space.decisions(one.trace)
                one.number = self.book.open(one.trace, asked, key=one.graph.key(), costs=dict(one.costs))
            start = self._start(one.trace) if self._start is not None else None
            entries.append({"number": one.number, "settings": asdict(one.settings), "start": start,
                            "bars": self._bars(one, history)})  # fmt: skip
        plan = self.ask.plan
        return {
            "graph": group[0].graph.to_json(), "candidates": entries, "folds": plan.folds,
            "steps": plan.steps(group[0].settings), "seconds": plan.job_seconds(left),
            "seed": seeds.derive(self.ask.seed, "job", group[0].number), "metrics": self.ask.metrics,
            "halve": True, "save": str(self.nets),
        }  # fmt: skip

    def final_job(
        self, trace: Mapping[str, Any], name: int, taken: int | None, seconds: float | None, *, copies: int = 1,
        threads: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The job that trains copies of a trace on all rows but the test split's, after a trial that took so many
        steps; the nets are saved in final/<name>/0, final/<name>/1 ..."""
        settings = Settings.of(trace)
        start = self._start(trace) if self._start is not None else None
        return {
            "graph": self.space.draw(trace).to_json(), "folds": 0, "final": True,
            "candidates": [
                {"number": copy, "settings": asdict(settings), "start": start, "copy": copy} for copy in range(copies)
            ],
            "steps": self.ask.plan.final_steps(settings, taken), "seconds": seconds,
            "seed": seeds.derive(self.ask.seed, "final", name), "metrics": self.ask.metrics,
            "save": str(self.work / "final" / str(name)), "threads": threads,
        }  # fmt: skip

    def _bars(self, one: Candidate, history: Sequence[Trial]) -> list[float | None]:
        """For each look what a candidate has to reach: a quantile of those that cost no more than it."""
        names, sign = [o.name for o in self.ask.objectives if o.is_cost], self.ask.sign
        curves = [
            dict(zip(trial.extra["curve_steps"], trial.extra["curve"], strict=True))
            for trial in history
            if trial.extra.get("curve_steps")
            and all([trial.extra.get("costs", {}).get(n, math.inf) <= one.costs[n] for n in names])
        ]
        bars: list[float | None] = []
        for look in range(1, LOOKS):
            reached = sorted([sign * curve[look] for curve in curves if look in curve])
            enough = look in KEEP and len(reached) >= COMPARABLE
            bars.append(sign * reached[int(KEEP[look] * len(reached))] if enough else None)
        return bars

    def _close(self, done: Done) -> None:
        """Write the results of a job into the ledger."""
        _, results = done
        together = sum([r["seconds"] for r in results])
        self._took.append(together)
        costs = {trial.number: trial.extra.get("costs", {}) for trial in self.book.trials(FRESH)}
        for r in results:
            number, state = r["number"], r["state"]
            curve = {round(share * LOOKS): value for share, value in r["curve"]}
            more = {"curve": curve, "seconds": r["seconds"], "steps": r["steps"], "job_seconds": together,
                    "at": self.ask.at}  # fmt: skip
            if state == "complete":
                more["loss"] = r["loss"]
                known = costs[number]
                values = [known[o.name] if o.is_cost else r["values"][o.name] for o in self.ask.objectives]
                self.book.complete(number, values, **more)
            elif state == "pruned":
                self.book.prune(number, r["reason"], **more)
            else:
                self.book.fail(number, r["reason"], **more)
        self.book.spend(self.ask.spent)

    # ------------------------------------------------------------------------------------------------------- reading
    def ranked(self) -> list[Trial]:
        """Complete trials from the best to the worst: by the metric, then by the other objectives in their order, so
        that the first is on the front; then by the loss."""
        done = [trial for trial in self.book.trials(FRESH) if trial.values]
        signs = [1.0 if o.direction == "min" else -1.0 for o in self.ask.objectives]

        def rank(t: Trial) -> tuple[float, ...]:
            others = [sign * value for sign, value in zip(signs, t.values, strict=True)]
            return (self.ask.sign * self.ask.value(t), *others, t.extra.get("loss", 0.0), t.number)

        return sorted(done, key=rank)

    def within(self) -> list[Trial]:
        """Those of them that keep to the limits: a resumed search may have others."""
        return [t for t in self.ranked() if over(t.extra.get("costs", {}), self.ask.limits) is None]

    def best(self) -> Trial | None:
        """The best trial by the metric."""
        ranked = self.ranked()
        return ranked[0] if ranked else None

    def front(self) -> list[Trial]:
        """Complete trials that no other dominates, in the order of their values."""
        done = self.ranked()
        if not done:
            return []
        values = signed([trial.values for trial in done], [o.direction for o in self.ask.objectives])
        best = [trial for trial, first in zip(done, undominated(values), strict=True) if first]
        return sorted(best, key=lambda trial: trial.values)

    def show(self, phase: str = "search") -> None:
        """Tell who watches how it stands, a few times a second at most."""
        if self._progress is None or (phase == "search" and time.monotonic() - self._shown < 0.2):
            return
        self._shown = time.monotonic()
        finished = [trial for trial in self.book.trials(FRESH) if trial.state != "running"]
        if self._state is None or len(finished) != self._state.trials:
            best, metric = self.best(), self.ask.metric
            failed = sum([trial.extra.get("state") == "fail" for trial in finished])
            self._state = State(
                phase, None, len(finished), self.ask.trials, failed, self.ask.value(best) if best else None,
                metric.name, metric.unit, len(self.front()),
            )  # fmt: skip
        self._progress(replace(self._state, phase=phase, left=self.ask.left))
