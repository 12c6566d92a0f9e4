"""The values that parts exchange: frozen records of plain data, each of which can be written as JSON.

A number never travels alone: it has a unit and, where one is better than another, a direction. Figures are data
(`Chart`), so that a test can read them and a report can draw them.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from archwright.errors import FormatError
from archwright.ir import Attrs

Trace = Attrs
"""The choices made while a graph was drawn: name -> value. With the space's name it is the genotype."""

Direction = Literal["min", "max"]

MISSING = "Not recorded."
"""What a card says where nothing is known, so that an empty section is seen to be empty."""


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    raise FormatError(f"a record holds {type(value).__name__} {str(value)[:40]!r}, expected plain data")


class Record:
    """Mixed into every record: `as_dict()` and `to_json()`. NaN and infinities are written as strings."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """The record as plain dictionaries, lists, strings and numbers."""
        found: dict[str, Any] = _plain(self)
        return found

    def to_json(self) -> str:
        """The record as JSON text with sorted keys: equal records have equal texts."""
        return json.dumps(self.as_dict(), sort_keys=True, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Figure(Record):
    """A number with a name and a unit ("1" for a pure number, "share" for one in [0, 1])."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Chart(Record):
    """A figure as data, neutral to who draws it.

    kind    "line", "scatter", "bar", "heatmap", "histogram"
    series  name -> {"x": [...], "y": [...]} (heatmap: {"x", "y", "z"} with z a list of rows)
    x, y    axis titles with units
    """

    title: str
    kind: Literal["line", "scatter", "bar", "heatmap", "histogram"]
    series: Mapping[str, Mapping[str, Any]]
    x: str = ""
    y: str = ""
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Score(Record):
    """What an estimator says of a network: a value, what it is in, and which way is better."""

    value: float
    unit: str
    direction: Direction
    seconds: float = 0.0
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report(Record):
    """What a transform did: figures before and after, charts, notes.

    exact    whether the function is kept exactly
    measure  if not: what changed, as the one figure that matters ("output difference", "test error rise")
    bound    and what it is promised to stay below
    """

    name: str
    exact: bool
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    measure: Figure | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        if not self.exact and (self.measure is None or self.bound is None):
            raise FormatError(f"report '{self.name}' is not exact: it needs the measure of what changed, and its bound")


@dataclass(frozen=True)
class Log(Record):
    """What happened in training: columns of equal length, one entry a record.

    columns  name -> values ("step", "seconds", "train_loss", "valid_error", ...)
    units    name -> unit
    stopped  why it ended: "budget", "steps", "early", "diverged", "done"
    """

    columns: Mapping[str, tuple[float, ...]]
    units: Mapping[str, str]
    stopped: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.columns.values()}
        if len(lengths) > 1:
            raise FormatError(f"log columns have lengths {sorted(lengths)}, expected equal ones")
        if set(self.units) != set(self.columns):
            raise FormatError(f"log has units for {sorted(self.units)}, expected them for {sorted(self.columns)}")

    def last(self, column: str) -> float:
        """The last value of a column."""
        return self.columns[column][-1]


@dataclass(frozen=True)
class Finding(Record):
    """What a lens saw: figures with units, charts, and a sentence that says what they mean."""

    title: str
    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...] = ()
    text: str = ""

    def __getitem__(self, name: str) -> float:
        """The value of the figure of that name."""
        for figure in self.figures:
            if figure.name == name:
                return figure.value
        raise KeyError(name)


@dataclass(frozen=True)
class Measured(Record):
    """What running a network cost. `outputs` are tensors and stay out of the JSON."""

    seconds: float
    peak_bytes: int
    figures: tuple[Figure, ...] = ()
    outputs: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = _plain(dataclasses.replace(self, outputs=()))
        del found["outputs"]
        return found


@dataclass(frozen=True)
class Claim(Record):
    """What a part's `claim()` measured.

    figure       the number, in `unit`
    expectation  what was expected of it, in words ("above 0.5")
    held         whether it was met
    paper        the paper's own figure, in words
    """

    figure: float
    unit: str
    expectation: str
    held: bool
    paper: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trial(Record):
    """One entry of a search's history, as a strategy sees it: what was tried, and what came of it.

    values   objective values, in the order of the study's objectives; empty unless the trial is complete
    state    "complete", "failed", "running"
    extra    what else was recorded, as plain data: "curve" (the metric while it trained, [...]), "curve_steps"
             (when, [...]: `flows.search` looks eight times), "costs" {...}
    """

    number: int
    trace: Trace
    values: tuple[float, ...] = ()
    state: Literal["complete", "failed", "running"] = "complete"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget(Record):
    """What may be spent: seconds of wall time, steps or epochs of training. None is no limit; at least one is set."""

    seconds: float | None = None
    steps: int | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        limits = (self.seconds, self.steps, self.epochs)
        if all(limit is None for limit in limits):
            raise FormatError("a budget without any limit: give seconds, steps or epochs")
        if any(limit is not None and not limit > 0 for limit in limits):
            raise FormatError(f"a budget of {self.as_dict()}: limits must be above 0")

    def start(self) -> Clock:
        """Begin to spend it."""
        return Clock(self, time.monotonic())


@dataclass(frozen=True)
class Clock:
    """A budget being spent. The only place where training looks at the time."""

    budget: Budget
    began: float

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def spent(self, step: int, epoch: float = 0.0) -> bool:
        """Whether any limit is reached after so many steps and epochs."""
        b = self.budget
        return (
            (b.steps is not None and step >= b.steps)
            or (b.epochs is not None and epoch >= b.epochs)
            or (b.seconds is not None and self.elapsed() >= b.seconds)
        )

    def share(self, step: int, epoch: float = 0.0) -> float:
        """The share of the budget that is spent, in [0, 1], by whichever limit is nearest."""
        b = self.budget
        shares = [
            step / b.steps if b.steps else 0.0,
            epoch / b.epochs if b.epochs else 0.0,
            self.elapsed() / b.seconds if b.seconds else 0.0,
        ]
        return min(1.0, max(shares))
