"""What strategies read from a history: the trials that count, and their values turned so that less is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core.records import Trace, Trial
from archwright.kit.ranks import signed


def finished(history: Sequence[Trial]) -> list[Trial]:
    """The trials that are complete and have finite values, in the order of the history."""
    return [t for t in history if t.state == "complete" and t.values and all([math.isfinite(v) for v in t.values])]


def losses(trials: Sequence[Trial], directions: Sequence[str]) -> NDArray[np.float64]:
    """Values of finished trials, [trials, objectives], less is better."""
    return signed([t.values for t in trials], directions) if trials else np.zeros((0, len(directions)))


def name(trace: Mapping[str, Any]) -> str:
    """A text for a trace, equal for equal traces."""
    return trace.text if isinstance(trace, Trace) else Trace(trace).text
