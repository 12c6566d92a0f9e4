"""`Space`: a space's program bound to what the network is for. Strategies see it and traces, never graphs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from archwright.core import choose
from archwright.core.choose import Draw, Options, Picker
from archwright.core.records import Trace
from archwright.data.data import Data
from archwright.errors import ChoiceError
from archwright.ir import Graph


@dataclass(frozen=True)
class Spec:
    """What a network has to take and give.

    inputs   the shape of each input, with None for the batch
    outputs  size of the last dimension of the output: classes, or numbers to predict
    dtypes   of the inputs, float32 where it is empty
    codes    of a whole-number input [None, columns] of categories: how many codes each column has, from 0
    """

    inputs: tuple[tuple[int | None, ...], ...]
    outputs: int
    dtypes: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()

    @staticmethod
    def of(data: Data) -> Spec:
        """What a network for these data has to take and give."""
        return Spec(data.shapes, data.outputs, data.dtypes, tuple(data.meta.get("codes", ())))

    def dtype(self, index: int) -> str:
        """dtype of an input."""
        return self.dtypes[index] if self.dtypes else "float32"


@dataclass(frozen=True)
class Space:
    """A space, and all that is derived from its program."""

    name: str
    program: Draw
    spec: Spec

    def draw(self, trace: Mapping[str, Any]) -> Graph:
        """The graph of a trace. Raises `ChoiceError` if the trace lacks a choice, or has one too many."""
        picker = Picker(choose.replay(trace))
        graph = self.program(picker, self.spec)
        extra = trace.keys() - picker.taken.keys()
        if extra:
            raise ChoiceError(f"the trace has choices that the space does not ask: {', '.join(sorted(extra))}")
        return graph

    def decisions(self, trace: Mapping[str, Any]) -> Mapping[str, Options]:
        """The decisions met on the way, with their options, in the order in which they are asked."""
        picker = Picker(choose.replay(trace))
        self.program(picker, self.spec)
        return picker.asked

    def random(self, rng: np.random.Generator) -> Trace:
        """A trace drawn at random."""
        return self._trace(choose.at_random(rng))

    def __contains__(self, trace: object) -> bool:
        if not isinstance(trace, Mapping):
            return False
        try:
            self.draw(trace)
        except ChoiceError:
            return False
        return True

    def mutate(self, trace: Mapping[str, Any], rng: np.random.Generator) -> Trace:
        """The trace with one decision changed. What only then is asked is drawn at random; the rest stays."""
        asked = self.decisions(trace)
        open_ = [name for name, options in asked.items() if options.kind == "number" or len(options.values) > 1]
        if not open_:
            return Trace(trace)
        name = open_[int(rng.integers(len(open_)))]
        options = asked[name]
        value = options.sample(rng)
        while value == trace[name] and (options.kind != "number" or options.low < options.high):
            value = options.sample(rng)
        return self._trace(choose.replay({**trace, name: value}, choose.at_random(rng)))

    def cross(self, one: Mapping[str, Any], other: Mapping[str, Any], rng: np.random.Generator) -> Trace:
        """Each decision from one parent or the other, at random where both have it; at random where neither does."""
        mixed = {
            name: one[name] if name not in other or (name in one and rng.random() < 0.5) else other[name]
            for name in {**one, **other}
        }
        return self._trace(choose.replay(mixed, choose.at_random(rng)))

    def neighbours(self, trace: Mapping[str, Any]) -> Iterator[Trace]:
        """The traces that differ in one finite decision; decisions that only then are asked take their first option."""
        for name, options in self.decisions(trace).items():
            for value in options.values:
                if value != trace[name]:
                    yield self._trace(choose.replay({**trace, name: value}, _first))

    def traces(self) -> Iterator[Trace]:
        """Every trace of a finite space."""
        for trace, _ in choose.enumerate_traces(self.program, self.spec):
            yield trace

    def count(self, limit: int = 1_000_000) -> int:
        """The exact number of traces of a finite space."""
        return choose.count(self.program, self.spec, limit)

    def from_optuna(self, trial: Any) -> tuple[Trace, Graph]:
        """The trace that an Optuna trial suggests, and its graph."""
        picker = Picker(choose.from_optuna(trial))
        graph = self.program(picker, self.spec)
        return picker.trace, graph

    def _trace(self, decide: choose.Decide) -> Trace:
        picker = Picker(decide)
        self.program(picker, self.spec)
        return picker.trace


def _first(name: str, options: Options) -> choose.Scalar:
    return options.low if options.kind == "number" else options.values[0]
