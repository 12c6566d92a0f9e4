"""The table of NAS-Bench-201: what all 15,625 cells reached, to try strategies and predictors on without training.

Dong and Yang, NAS-Bench-201, 2020, arXiv 2001.00326. The cell has nodes 0 to 3; a choice "edge_i_j" names the operation
from node i to node j. The table is read from the data folder (see `archwright.data.home`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from archwright.core.records import Trace
from archwright.data.home import data_file

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""In the order of the official string: edges into node 1, into node 2, into node 3."""


def choice(edge: tuple[int, int]) -> str:
    """Name of the choice of an edge's operation."""
    return f"edge_{edge[0]}_{edge[1]}"


def to_string(trace: Mapping[str, Any]) -> str:
    """The official string of a cell: |op~0|+|op~0|op~1|+|op~0|op~1|op~2|."""
    groups = []
    for target in (1, 2, 3):
        groups.append("|" + "".join(f"{trace[choice((source, target))]}~{source}|" for source in range(target)))
    return "+".join(groups)


def from_string(text: str) -> Trace:
    """The trace of an official string."""
    found = {}
    for target, group in enumerate(text.split("+"), 1):
        for source, part in enumerate(group.strip("|").split("|")):
            found[choice((source, target))] = part.split("~")[0]
    return Trace(found)


@dataclass(frozen=True)
class Table:
    """The table. Columns as in the file, such as "c10_valid_12", "c10_test_200", "c10_params" (M), "c10_flops" (M)."""

    frame: pd.DataFrame
    index: Mapping[str, int]

    def query(self, trace: Mapping[str, Any], column: str) -> float:
        """A column's value for a cell."""
        return float(self.frame[column].iloc[self.index[to_string(trace)]])

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """A column for all cells, in the official order."""
        values: np.ndarray[Any, Any] = self.frame[name].to_numpy()
        return values

    def traces(self) -> list[Trace]:
        """The traces of all cells, in the official order."""
        return [from_string(text) for text in self.frame["arch"]]


@cache
def table() -> Table:
    """The table, read once. Raises `DataError` if the data folder does not hold it."""
    frame = pd.read_csv(data_file("nas_bench_201", "nb201.csv.gz"))
    return Table(frame, {text: i for i, text in enumerate(frame["arch"])})
