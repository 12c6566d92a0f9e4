"""Spaces are programs that ask: one program, read in three ways.

A space is a function `draw(choose, spec) -> Graph`. While it builds, it asks:

    choose.one_of("act", ("relu", "gelu"))            one of some values (None, booleans, numbers, strings); `weights`
                                                      make some more likely in random draws
    choose.integer("width", 8, 64, step=8)            a whole number within limits, both included
    choose.number("rate", 1e-4, 1e-1, log=True)       a real number
    choose.branch("op", g, x, {"conv3": f, ...})      a piece of graph: f(g, x) -> y
    choose.repeat("depth", g, x, 1, 6, body)          body(g, x, i) -> y, applied so many times

The readings:
- `Picker`: decides by a function: random draw, replay of a trace, mutation, crossover, an Optuna trial;
- `enumerate_traces`, `count`, `estimate_count`: visit every decision in turn;
- `Keeper`: keeps every branch and every depth as inputs of a `switch` (or `mix`) and the greatest numbers: a supernet.

A name asked twice with the same options is one choice (a cell repeated through a network); with others an error.
Names of nodes must depend on the names of the choices only, which `branch` and `repeat` see to by opening a scope.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from archwright.core.records import Trace
from archwright.errors import ChoiceError
from archwright.ir import Editor, Graph

Scalar = None | bool | int | float | str
Piece = Callable[[Editor, str], str]
Body = Callable[[Editor, str, int], str]
Draw = Callable[["Choose", Any], Graph]


@dataclass(frozen=True)
class Options:
    """What one decision may be.

    values  the options of a finite decision, in order
    low, high, log   the limits of a real number; then `values` is empty
    kind    "one_of", "integer", "number", "branch", "repeat"
    weights   how likely each value is when drawn at random, above 0, in any unit; all alike where it is empty
    """

    kind: str
    values: tuple[Scalar, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    weights: tuple[float, ...] = ()

    def __contains__(self, value: object) -> bool:
        if self.kind == "number":
            return type(value) in (int, float) and self.low <= float(value) <= self.high  # type: ignore[arg-type]
        return any(value == option and type(value) is type(option) for option in self.values)

    def sample(self, rng: np.random.Generator) -> Scalar:
        """A random value: uniform or by weight, for numbers on a log scale if they are asked for so."""
        if self.weights:
            return self.values[int(rng.choice(len(self.values), p=np.divide(self.weights, sum(self.weights))))]
        if self.kind != "number":
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            return float(np.clip(math.exp(rng.uniform(math.log(self.low), math.log(self.high))), self.low, self.high))
        return float(rng.uniform(self.low, self.high))

    def one_in(self, value: Scalar) -> float:
        """`sample` gives this value of a finite decision one time in so many: their number, where all are alike."""
        if not self.weights:
            return float(len(self.values))
        place = next(i for i, v in enumerate(self.values) if v == value and type(v) is type(value))
        return sum(self.weights) / self.weights[place]

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]" if self.kind == "number" else f"{list(self.values)}"


class Choose(Protocol):
    """What a space may ask. See the head of this file."""

    def one_of(self, name: str, options: Sequence[Scalar], weights: Sequence[float] = ()) -> Any: ...
    def integer(self, name: str, low: int, high: int, step: int = 1) -> int: ...
    def number(self, name: str, low: float, high: float, log: bool = False) -> float: ...
    def branch(self, name: str, g: Editor, x: str, pieces: Mapping[str, Piece]) -> str: ...
    def repeat(self, name: str, g: Editor, x: str, low: int, high: int, body: Body) -> str: ...


Decide = Callable[[str, Options], Scalar]
"""(name, options) -> a value among the options."""


@dataclass
class Picker:
    """A chooser that takes one option at every decision, and remembers all of them."""

    decide: Decide
    taken: dict[str, Scalar] = field(default_factory=dict)
    asked: dict[str, Options] = field(default_factory=dict)

    @property
    def trace(self) -> Trace:
        """The choices made so far."""
        return Trace(self.taken)

    def one_of(self, name: str, options: Sequence[Scalar], weights: Sequence[float] = ()) -> Any:
        """One of some values; `weights` say how likely each is in a random draw, where they are not all alike."""
        if weights and (len(weights) != len(options) or not all(w > 0 for w in weights)):
            raise ChoiceError(f"choice '{name}': got weights {list(weights)}, expected {len(options)} above 0")
        return self._ask(name, Options("one_of", tuple(options), weights=tuple([float(w) for w in weights])))

    def integer(self, name: str, low: int, high: int, step: int = 1) -> int:
        """A whole number from low to high, both included, in steps."""
        value = self._ask(name, integers(name, "integer", low, high, step))
        assert type(value) is int
        return value

    def number(self, name: str, low: float, high: float, log: bool = False) -> float:
        """A real number from low to high; `log` if its magnitude is what matters."""
        if not low <= high or (log and low <= 0):
            raise ChoiceError(f"choice '{name}': got limits {low} to {high}, expected rising ones, above 0 if log")
        value = self._ask(name, Options("number", (), float(low), float(high), log))
        assert type(value) in (int, float)
        return float(value)  # type: ignore[arg-type]

    def branch(self, name: str, g: Editor, x: str, pieces: Mapping[str, Piece]) -> str:
        """One of several pieces of graph, built in the scope "name.option"."""
        option = str(self._ask(name, Options("branch", tuple(pieces))))
        with g.scope(f"{name}.{option}"):
            return pieces[option](g, x)

    def repeat(self, name: str, g: Editor, x: str, low: int, high: int, body: Body) -> str:
        """A piece of graph applied low to high times, the i-th in the scope "name.i"."""
        times = self._ask(name, integers(name, "repeat", low, high, 1))
        assert type(times) is int
        for i in range(times):
            with g.scope(f"{name}.{i}"):
                x = body(g, x, i)
        return x

    def _ask(self, name: str, options: Options) -> Scalar:
        known = self.asked.get(name)
        if known is not None:
            if known != options:
                raise ChoiceError(f"choice '{name}' is asked twice, with options {known} and {options}")
            return self.taken[name]
        if options.kind != "number" and not options.values:
            raise ChoiceError(f"choice '{name}' has no options")
        value = self.decide(name, options)
        if value not in options:
            raise ChoiceError(f"choice '{name}' is {value!r}, expected one of {options}")
        self.asked[name] = options
        self.taken[name] = value
        return value


def integers(name: str, kind: str, low: int, high: int, step: int) -> Options:
    """The options of a whole number. Raises `ChoiceError` if the limits do not rise."""
    if step < 1 or high < low:
        raise ChoiceError(f"choice '{name}': got limits {low} to {high} in steps of {step}, expected rising ones")
    return Options(kind, tuple(range(low, high + 1, step)))


# --------------------------------------------------------------------------------------------------- ways to decide
def at_random(rng: np.random.Generator) -> Decide:
    """Every decision at random."""
    return lambda name, options: options.sample(rng)


def replay(trace: Mapping[str, Any], otherwise: Decide | None = None) -> Decide:
    """The decisions of a trace. What it lacks, or has outside the options, is left to `otherwise`, or an error."""

    def decide(name: str, options: Options) -> Scalar:
        if name in trace and trace[name] in options:
            value: Scalar = trace[name]
            return value
        if otherwise is None:
            got = repr(trace[name]) if name in trace else "nothing"
            raise ChoiceError(f"the trace has {got} for '{name}', expected one of {options}")
        return otherwise(name, options)

    return decide


def from_optuna(trial: Any) -> Decide:
    """The decisions of an Optuna trial: parameters are named as the choices (see `parameter`)."""
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from optuna.trial import Trial

    past = trial.study.get_trials(deepcopy=False) if isinstance(trial, Trial) else []
    known = {name: one for other in past for name, one in other.distributions.items()}

    def decide(name: str, options: Options) -> Scalar:
        wanted = distribution(options)
        place = parameter(name, wanted, known)
        value: Scalar
        if isinstance(wanted, CategoricalDistribution):
            value = trial.suggest_categorical(place, wanted.choices)
        elif isinstance(wanted, IntDistribution):
            value = trial.suggest_int(place, wanted.low, wanted.high, step=wanted.step)
        else:
            value = trial.suggest_float(place, wanted.low, wanted.high, log=wanted.log)
        return value

    return decide


def distribution(options: Options) -> Any:
    """The Optuna distribution of a decision."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if options.kind == "number":
        return FloatDistribution(options.low, options.high, log=options.log)
    if options.kind in ("integer", "repeat") and len(options.values) > 1:
        low, second, high = options.values[0], options.values[1], options.values[-1]
        return IntDistribution(low, high, step=second - low)  # type: ignore[operator, arg-type]
    return CategoricalDistribution(options.values)


def parameter(name: str, wanted: Any, known: Mapping[str, Any]) -> str:
    """The name under which Optuna keeps a choice: its own, or name#2, name#3 ... where an Optuna study has that name
    with another list of options (`known`: name -> distribution), which Optuna does not allow to change."""
    place, number = name, 1
    while place in known and not _compatible(known[place], wanted):
        number += 1
        place = f"{name}#{number}"
    return place


def choice(name: str) -> str:
    """The choice that an Optuna parameter stands for: the inverse of `parameter`."""
    return name.partition("#")[0]


def _compatible(one: Any, other: Any) -> bool:
    from optuna.distributions import CategoricalDistribution

    return type(one) is type(other) and (not isinstance(one, CategoricalDistribution) or one == other)


# -------------------------------------------------------------------------------------------- counting, enumerating
def enumerate_traces(draw: Draw, spec: Any) -> Iterator[tuple[Trace, Graph]]:
    """Every trace of a finite space, with its graph, in the order of the options. The program is run once for each."""
    path: list[int] = []
    while True:
        sizes: list[int] = []

        def decide(name: str, options: Options, sizes: list[int] = sizes) -> Scalar:
            if options.kind == "number":
                raise ChoiceError(f"choice '{name}' is a real number: the space cannot be enumerated")
            place = len(sizes)
            sizes.append(len(options.values))
            if place == len(path):
                path.append(0)
            return options.values[path[place]]

        picker = Picker(decide)
        graph = draw(picker, spec)
        yield picker.trace, graph
        del path[len(sizes) :]
        while path and path[-1] + 1 == sizes[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def count(draw: Draw, spec: Any, limit: int = 1_000_000) -> int:
    """The exact number of traces, by enumeration. Raises `ChoiceError` above the limit: use `estimate_count` there."""
    number = 0
    for _ in enumerate_traces(draw, spec):
        number += 1
        if number > limit:
            raise ChoiceError(f"the space has more than {limit} traces: use estimate_count")
    return number


def estimate_count(draw: Draw, spec: Any, rng: np.random.Generator, samples: int = 1000) -> tuple[float, float]:
    """An unbiased estimate of the number of traces, and its standard error.

    The mean, over random draws, of one over their probability: the product of the numbers of options met, where all
    are as likely (Knuth, Estimating the Efficiency of Backtrack Programs, 1975). Exact then, with error 0, where the
    decisions do not depend on each other.
    """
    products = []
    for _ in range(samples):
        picker = Picker(at_random(rng))
        draw(picker, spec)
        if any(options.kind == "number" for options in picker.asked.values()):
            return math.inf, 0.0
        products.append(math.prod(options.one_in(picker.taken[n]) for n, options in picker.asked.items()))
    mean = float(np.mean(products))
    return mean, float(np.std(products, ddof=1) / math.sqrt(samples)) if samples > 1 else math.inf
