"""Traces as numbers, for predictors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Encoding:
    """Columns learned from traces: a finite choice is one column for each value seen, a real number one column.

    A choice that a trace does not make, and a value never seen, is zero in all its columns.
    """

    columns: tuple[tuple[str, Any], ...]

    @staticmethod
    def of(traces: Sequence[Mapping[str, Any]]) -> Encoding:
        """The columns for all values that stand in the traces, in the order of their first appearance."""
        seen: dict[tuple[str, Any], None] = {}
        for trace in traces:
            for name, value in trace.items():
                seen[(name, None if type(value) is float else (type(value).__name__, value))] = None
        return Encoding(tuple(seen))

    def __call__(self, traces: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """[traces, columns]."""
        place = {column: i for i, column in enumerate(self.columns)}
        found = np.zeros((len(traces), len(self.columns)))
        for row, trace in enumerate(traces):
            for name, value in trace.items():
                real = type(value) is float
                column = place.get((name, None if real else (type(value).__name__, value)))
                if column is not None:
                    found[row, column] = value if real else 1.0
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """A readable name for each column."""
        return tuple([name if value is None else f"{name}={value[1]}" for name, value in self.columns])
