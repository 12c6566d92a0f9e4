"""What is trained next: the strategy's proposals, within the limits, grouped by what can train together.

Nothing that exceeds a limit is ever trained. A proposal that does is made smaller first, choice by choice; strategies
know nothing of limits. Candidates whose architectures are equal, and whose batches, smoothing, augmentation and
optimiser are, form a group: one job.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archwright.core import choose, registry, seeds
from archwright.core.choose import Picker
from archwright.core.ledger import Ledger
from archwright.core.records import Direction, Trace
from archwright.core.space import Space
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.errors import ArchwrightError, ChoiceError, FormatError, GraphError, TypeMismatch
from archwright.flows.objectives import costs, over
from archwright.ir import Graph
from archwright.kit.ensemble import ensemble_graph
from archwright.kit.settings import PREFIX, USUAL, Settings
from archwright.kit.trials import name as text_of

TRIES = 40
"""Proposals in a row that may come to nothing before the search ends."""

SHRINKS = 60
"""Steps by which a proposal may be made smaller to keep to the limits."""


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
        self._over = False
        self._smallest = self._broken = ""
        self._sampler = self._strategy = None
        if isinstance(strategy, str) and strategy.startswith("optuna:"):
            self._sampler = sampler(strategy.removeprefix("optuna:"), seed)
            book.study.sampler = self._sampler
            return
        self._strategy = registry.load(strategy, "strategy") if isinstance(strategy, str) else strategy
        accepted = inspect.signature(self._strategy).parameters
        offered = {"directions": directions, "known": self._known(known), "siblings": siblings}
        self._more: dict[str, Any] = {name: value for name, value in offered.items() if name in accepted}

    def next(self, most: int) -> list[Candidate]:
        """Candidates of one job, at most so many; none if nothing new is proposed any more.

        Raises `FormatError` if no network keeps to the limits, or none can be made.
        """
        for attempt in range(TRIES):
            if self._pending:
                return self._pending.pop(0)[:most]
            try:
                self._pending = self._groups(attempt >= TRIES // 2)
            except (ChoiceError, GraphError, TypeMismatch) as error:  # the space has no network for these choices
                self._broken = str(error)
            if self._over:  # the strategy has nothing more to propose
                break
        if any(t.values for t in self._book.trials()):
            return []
        if self._smallest:
            raise FormatError(
                f"no network of space {self.space.name} keeps to the limits: the smallest that was found has"
                f" {self._smallest}; allow more, or give another space"
            )
        if self._broken:
            raise FormatError(f"space {self.space.name} makes no network for these data: {self._broken}")
        if self._over and not self._book.trials():
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
            except (ChoiceError, TypeMismatch):  # it does not fit these data
                continue
        return found

    def _groups(self, anything: bool) -> list[list[Candidate]]:
        """New candidates. `anything`: random ones too, if the strategy repeats itself or only knows what is over a
        limit."""
        if self._sampler is not None and not anything:
            return self._sampled()
        history = self._book.trials()
        self._asked += 1
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
        settings = Settings.of(trace)
        one = Candidate(trace, graph, settings, self.cost([graph]), trial.number)
        reason = over(one.costs, self.limits)
        if reason is None:
            self._book.note(trial.number, key=graph.key(), costs=dict(one.costs))
            return [[one]]
        self._smallest = reason
        self._book.prune(trial.number, reason, refused=True)
        return []

    # -------------------------------------------------------------------------------------------------------- limits
    def candidate(self, trace: Mapping[str, Any]) -> Candidate:
        """The candidate of a trace."""
        shape = Trace({name: value for name, value in trace.items() if not name.startswith(PREFIX)}).text
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
        """The trace, made smaller choice by choice until it keeps to the limits; None if that leads nowhere."""
        if not self.limits:
            return trace
        one = self.candidate(trace)
        for _ in range(SHRINKS):
            excess = self._excess(one)
            if excess <= 1:
                return one.trace
            asked = self.space.decisions(one.trace)
            sizes = [
                name for name, options in asked.items()
                if options.kind != "number" and name != "train.batch" and all([type(v) is int for v in options.values])
                and any([v < one.trace[name] for v in options.values])
            ]  # fmt: skip
            if not sizes:
                break
            chosen = sizes[int(rng.integers(len(sizes)))]
            lower = max([int(v) for v in asked[chosen].values if v < one.trace[chosen]])
            smaller = self.candidate(_completed(self.space, {**one.trace, chosen: lower}, rng))
            if self._excess(smaller) < excess:
                one = smaller
        if self._excess(one) <= 1:
            return one.trace
        self._smallest = ", ".join([f"{name} {one.costs[name]:.6g}" for name in self.limits])
        return None

    def _excess(self, one: Candidate) -> float:
        return max([one.costs[name] / most for name, most in self.limits.items()])


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
