"""What is trained next: the strategy's proposals, within the limits, grouped by what can train together.

Nothing that exceeds a limit is ever trained. A proposal that does is made smaller first, choice by choice; strategies
know nothing of limits. Costs that are computed are looked at in each step. A latency is measured, which takes a hundred
times as long: it is bisected for, between the proposal and the smallest that its choices lead to. Candidates whose
architectures are equal, and whose batches, smoothing, augmentation and optimiser are, form a group: one job.
"""

from __future__ import annotations

import inspect
import math
import time
import warnings
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from archwright.core import choose, registry, seeds
from archwright.core.choose import Options, Picker
from archwright.core.ledger import Ledger
from archwright.core.records import Direction, Trace
from archwright.core.space import Space
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.errors import ArchwrightError, ChoiceError, FormatError, GraphError, TypeMismatch
from archwright.flows.objectives import UNITS, costs, over
from archwright.ir import Graph
from archwright.kit.ensemble import ensemble_graph
from archwright.kit.settings import PREFIX, USUAL, Settings
from archwright.kit.trials import name as text_of

TRIES = 40
"""Proposals in a row that may come to nothing before the search ends."""

SHRINKS = 200
"""Steps that may be looked at to make a proposal smaller, so that it keeps to the limits."""

FREE = (f"{PREFIX}lr", f"{PREFIX}weight_decay")
"""Settings in which what trains together may differ."""

MISFITS = (ChoiceError, GraphError, TypeMismatch)
"""What a space raises that has no network for some choices."""


@dataclass(eq=False)
class Candidate:
    """A proposal that may be trained. `number` is its trial's, once it has one."""

    trace: Trace
    graph: Graph
    settings: Settings
    costs: Mapping[str, float]
    number: int = -1

    @property
    def together(self) -> tuple[Any, ...]:
        """What has to be equal in candidates that train together."""
        s = self.settings
        return self.graph.key(), s.batch, s.smoothing, s.augment, s.optimiser, s.length


class _Step(NamedTuple):
    """A network on the way to smaller ones. `excess`: the most by which it exceeds a limit on a computed cost, times;
    1 if it exceeds none."""

    trace: Trace
    asked: Mapping[str, Options]
    graph: Graph
    excess: float
    flops: float


class Proposals:
    """Candidates, group by group.

    space, strategy  as `archwright search` names them: a strategy part, "optuna:<sampler>", or a function
    limits           cost name -> the most that is allowed
    cost_names       costs that are recorded: objectives, limits
    siblings         proposals for one architecture
    known            traces to try first; by default the known shapes of the space's part
    """

    def __init__(
        self,
        space: Space,
        strategy: str | Callable[..., Sequence[Trace]],
        book: Ledger,
        data: Data,
        *,
        limits: Mapping[str, float],
        cost_names: Sequence[str],
        directions: Sequence[Direction],
        siblings: int,
        seed: int,
        known: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self.space, self.limits, self.cost_names = space, limits, cost_names
        self._book, self._data, self._seed = book, data, seed
        self._costs: dict[tuple[str, ...], Mapping[str, float]] = {}
        self._graphs: dict[str, Graph] = {}
        self._pending: list[list[Candidate]] = []
        self._asked = 0
        self._begun = False
        self._over = False  # the strategy has nothing more to propose
        self._kept = False  # something kept to the limits
        self._nearest, self._smallest, self._broken = (True, math.inf), "", ""
        self._fitting: dict[str, Trace | None] = {}  # architecture -> what it was made smaller to, None: to nothing
        self._enough: Callable[[], bool] = lambda: False
        self._more: dict[str, Any] = {}
        self._sampler = self._strategy = None
        if isinstance(strategy, str) and strategy.startswith("optuna:"):
            # who comes later, to resume or to help another process, does not begin with the same proposals again
            self._sampler = sampler(strategy.removeprefix("optuna:"), seeds.derive(seed, len(book.trials())))
            book.study.sampler = self._sampler
            return
        self._strategy = registry.load(strategy, "strategy") if isinstance(strategy, str) else strategy
        accepted = inspect.signature(self._strategy).parameters
        self._bets = self._known(known)
        offered = {"directions": directions, "known": self._bets, "siblings": siblings}
        self._more = {name: value for name, value in offered.items() if name in accepted}

    def next(
        self, most: int, *, until: float = math.inf, stopped: Callable[[], bool] = lambda: False
    ) -> list[Candidate]:  # fmt: skip
        """Candidates of one job, at most so many; none if nothing new is proposed any more, or there is no time.

        until    when to give up, on the monotonic clock
        stopped  whether to give up at once

        Raises `FormatError` if no network keeps to the limits, or none can be made.
        """
        # the very first are looked at to the end, however little time there is: there may be just enough to train one
        self._enough = lambda: stopped() or (self._begun and time.monotonic() >= until)
        self._over = False
        for attempt in range(TRIES):
            if self._pending or self._over or self._enough():
                break
            try:
                self._pending = self._groups(attempt >= TRIES // 2)
            except MISFITS as error:
                self._broken = str(error)
            self._begun = True
        if self._pending:
            self._kept = True
            return self._pending.pop(0)[:most]
        if self._kept or stopped() or any([not t.extra.get("refused") for t in self._book.trials()]):
            return []
        if self._smallest:
            what = "was found in time that" if self._enough() else f"of space {self.space.name}"
            raise FormatError(
                f"no network {what} keeps to the limits: the smallest that was found has {self._smallest}; allow more,"
                f" or give another space{' or more time' if self._enough() else ''}"
            )
        if self._broken:
            raise FormatError(f"space {self.space.name} makes no network for these data: {self._broken}")
        if self._over:
            raise FormatError("the strategy proposed nothing: expected at least one trace of the space")
        return []

    def forget(self) -> None:
        """Drop what is proposed and not yet taken."""
        self._pending.clear()

    # ------------------------------------------------------------------------------------------------------- asking
    def _known(self, shapes: Sequence[Mapping[str, Any]] | None) -> list[Trace]:
        """Known shapes, those of the space's part if none are given; what they leave open is drawn at random."""
        if shapes is None:
            try:
                module = registry.module(registry.find(self.space.name, "space"))
            except ArchwrightError:  # a space of the user's own
                return []
            shapes = module.known(self.space.spec) if "known" in vars(module) else ()
        rng, found = seeds.rng(self._seed, "known"), []
        for shape in shapes:
            try:
                found.append(_completed(self.space, {**USUAL, **shape}, rng))
            except MISFITS:  # it does not fit these data
                continue
        return found

    def _fitting_bets(self) -> list[Trace]:
        """The known shapes as the limits leave them, as far as they were looked at: without those that lead to nothing,
        or to what another is already. A strategy that takes them in turn would propose those again and again."""
        found: dict[str, Trace] = {}
        for bet in self._bets:
            shape, training = _halves(bet)
            fitting = self._fitting.get(shape.text, shape)
            if fitting is not None:
                family = {name: value for name, value in {**fitting, **training}.items() if name not in FREE}
                found.setdefault(text_of(family), Trace({**fitting, **training}))
        return list(found.values())

    def _groups(self, anything: bool) -> list[list[Candidate]]:
        """New candidates. `anything`: random ones too, if the strategy repeats itself or only knows what is over a
        limit."""
        if self._sampler is not None and not anything:
            return self._sampled()
        history = self._book.trials()
        self._asked += 1
        self._graphs.clear()  # only siblings have one again
        if "known" in self._more and self.limits:
            self._more["known"] = self._fitting_bets()
        rng = seeds.rng(self._seed, "propose", len(history), self._asked)
        traces: list[Mapping[str, Any]] = []
        if self._strategy is not None:
            traces += self._strategy(tuple(history), self.space, rng, self._more.get("siblings", 1), **self._more)
            self._over = not traces
        if anything and not self._over:
            traces += [self.space.random(rng) for _ in range(4)]
        seen = {text_of(trial.trace) for trial in history}
        groups: dict[tuple[Any, ...], list[Candidate]] = {}
        for proposed in traces:
            if self._enough():
                break
            trace = self._within(proposed, rng)
            if trace is not None and text_of(trace) not in seen:
                seen.add(text_of(trace))
                candidate = self.candidate(trace)
                groups.setdefault(candidate.together, []).append(candidate)
        return list(groups.values())

    def _sampled(self) -> list[list[Candidate]]:
        """A trial that an Optuna sampler suggests; one over a limit is closed as pruned, so that the sampler knows."""
        study = self._book.study
        trial = study.ask()
        try:
            self._book.note(trial.number, session=self._book.session)
            trace, graph = self.space.from_optuna(trial)
        except Exception as error:
            self._book.prune(trial.number, str(error), refused=True)
            if isinstance(error, ArchwrightError):
                raise
            told = str(error).strip().partition("\n")[0].rstrip(".")
            raise FormatError(f"optuna's {type(study.sampler).__name__} cannot search this space: {told}") from None
        seen = {text_of(t.trace): t.number for t in self._book.trials() if t.number < trial.number}
        if text_of(trace) in seen:  # another process may have a sampler that began with the same seed
            reason: str | None = f"trial {seen[text_of(trace)]} has the same choices"
        else:
            one = Candidate(trace, graph, Settings.of(trace), self.cost([graph]), trial.number)
            reason = over(one.costs, self.limits)
            if reason is None:
                self._book.note(trial.number, key=graph.key(), costs=dict(one.costs))
                return [[one]]
            self._note(one.costs)
        self._book.prune(trial.number, reason, refused=True)
        return []

    # -------------------------------------------------------------------------------------------------------- limits
    def candidate(self, trace: Mapping[str, Any]) -> Candidate:
        """The candidate of a trace."""
        shape = _halves(trace)[0].text
        if shape not in self._graphs:  # siblings have one architecture: it is drawn once
            self._graphs[shape] = self.space.draw(trace)
        graph, settings = self._graphs[shape], Settings.of(trace)
        return Candidate(Trace(trace), graph, settings, self.cost([graph]))

    def cost(self, graphs: Sequence[Graph]) -> Mapping[str, float]:
        """The costs that matter, of graphs as one network. The latency of several is taken to be the sum of theirs."""
        place = tuple([graph.key() for graph in graphs])
        if place not in self._costs:
            whole = ensemble_graph(graphs, self._data.task)
            found = costs(whole, [name for name in self.cost_names if name != "latency"])
            exact = {name: most for name, most in self.limits.items() if name in found}
            if "latency" in self.cost_names and len(graphs) > 1:
                found["latency"] = sum([self.cost([graph])["latency"] for graph in graphs])
            elif "latency" in self.cost_names:  # what is over an exact limit need not be measured
                recipe = self._data.meta.get("recipe")
                measured = over(found, exact) is None
                found |= costs(whole, ["latency"], recipe_from(recipe) if recipe else None) if measured else {}
            self._costs[place] = {name: found.get(name, math.inf) for name in self.cost_names}
        return self._costs[place]

    def _within(self, trace: Mapping[str, Any], rng: np.random.Generator) -> Mapping[str, Any] | None:
        """The trace, made smaller choice by choice until it keeps to the limits; None if that leads nowhere. Siblings
        are made smaller alike, since they are to train together."""
        if not self.limits:
            return trace
        shape, training = _halves(trace)
        if shape.text not in self._fitting:
            found = self._smaller(trace, rng)
            if found is None and self._enough():  # it was not looked at to the end
                return None
            self._fitting[shape.text] = None if found is None else _halves(found.trace)[0]
        fitting = self._fitting[shape.text]
        if fitting is None or fitting == shape:
            return None if fitting is None else trace
        return _completed(self.space, {**training, **fitting}, rng)

    def _smaller(self, trace: Mapping[str, Any], rng: np.random.Generator) -> _Step | None:
        """The largest network on a path of ever smaller ones that keeps to the limits. None if none does."""
        path = self._path(trace, rng)
        one = next((step for step in path if step.excess <= 1), None)
        if one is None or "latency" not in self.limits:
            return one
        if self._kept and self._quick(one):
            return one
        steps = [one, *path]  # until something was quick enough, the smallest comes first: it tells whether anything is
        if not self._quick(steps[-1]):
            return None
        if self._quick(one):
            return one
        return steps[bisect_left(steps[:-1], True, key=lambda step: not self._enough() and self._quick(step))]

    def _path(self, trace: Mapping[str, Any], rng: np.random.Generator) -> Iterator[_Step]:
        """The network of a trace and ever smaller ones: a number is lowered at a time, at random, while that lessens
        the excess, or the operations where there is none."""
        one = self._step(choose.replay(trace))
        yield one
        idle: set[str] = set()
        for _ in range(SHRINKS):
            sizes = [
                name for name, options in one.asked.items()
                if name not in idle and options.kind != "number" and not name.startswith(PREFIX)
                and all([type(v) is int for v in options.values]) and any([v < one.trace[name] for v in options.values])
            ]  # fmt: skip
            if not sizes or self._enough():
                return
            chosen = sizes[int(rng.integers(len(sizes)))]
            lower = max([int(v) for v in one.asked[chosen].values if v < one.trace[chosen]])
            try:
                smaller = self._step(choose.replay({**one.trace, chosen: lower}, choose.at_random(rng)))
            except MISFITS:
                smaller = one
            if (smaller.excess, smaller.flops) < (one.excess, one.flops):
                one = smaller
                idle.clear()
                yield one
            else:
                idle.add(chosen)

    def _step(self, decide: choose.Decide) -> _Step:
        picker = Picker(decide)
        graph = self.space.program(picker, self.space.spec)
        exact = {name: most for name, most in self.limits.items() if name != "latency"}
        found = costs(graph, [*exact, "flops"])
        excess = max([1.0, *[found[name] / most for name, most in exact.items()]])
        if excess > 1:
            self._note(found)
        return _Step(picker.trace, picker.asked, graph, excess, found["flops"])

    def _quick(self, one: _Step) -> bool:
        found = self.cost([one.graph])
        self._note(found)
        return found["latency"] <= self.limits["latency"]

    def _note(self, found: Mapping[str, float]) -> None:
        """Remember what comes nearest to the limits, for what is said if nothing keeps to them. What is over a computed
        one has no latency, and is farther than all that have."""
        known = {name: found[name] for name in self.limits if found.get(name, math.inf) < math.inf}
        most = max([cost / self.limits[name] for name, cost in known.items()], default=math.inf)
        near = len(known) < len(self.limits), most
        if near < self._nearest or not self._smallest:
            told = [f"{name} {cost:.6g} {UNITS[name]}".removesuffix(" 1") for name, cost in known.items()]
            self._nearest, self._smallest = near, ", ".join(told) or "a latency that cannot be measured"


def _halves(trace: Mapping[str, Any]) -> tuple[Trace, Trace]:
    """The choices of an architecture, and those of its training."""
    training = {name: value for name, value in trace.items() if name.startswith(PREFIX)}
    return Trace({name: value for name, value in trace.items() if name not in training}), Trace(training)


def _completed(space: Space, shape: Mapping[str, Any], rng: np.random.Generator) -> Trace:
    picker = Picker(choose.replay(shape, choose.at_random(rng)))
    space.program(picker, space.spec)
    return picker.trace


def sampler(name: str, seed: int) -> Any:
    """An Optuna sampler by the name of its class, with a seed where it takes one. Raises `FormatError`."""
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    known = {n: c for n, c in vars(samplers).items() if isinstance(c, type) and not inspect.isabstract(c)}
    if name not in known:
        raise FormatError(f"optuna has no sampler '{name}': expected one of {', '.join(sorted(known))}")
    accepted = inspect.signature(known[name]).parameters
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [n for n, p in accepted.items() if p.default is p.empty and p.kind not in optional]
    if needed:
        raise FormatError(f"optuna's {name} needs {', '.join(needed)}: give another sampler, such as TPESampler")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return known[name](seed=seeds.derive(seed, "sampler") % 2**32) if "seed" in accepted else known[name]()
