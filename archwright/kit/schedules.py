"""Learning-rate schedules: functions from the share of training done, in [0, 1], to a factor."""

from __future__ import annotations

import math
from collections.abc import Callable

from archwright.errors import ArchwrightError

Schedule = Callable[[float], float]


def constant(share: float) -> float:
    """1 throughout."""
    return 1.0


def linear(share: float) -> float:
    """From 1 straight down to 0."""
    return 1.0 - share


def cosine(share: float) -> float:
    """From 1 to 0 along half a cosine (Loshchilov and Hutter, SGDR, 2016, arXiv 1608.03983, without restarts)."""
    return 0.5 * (1 + math.cos(math.pi * share))


def one_cycle(share: float, peak: float = 0.3) -> float:
    """From 0.04 up to 1 at `peak`, then down to 0, both along cosines (Smith and Topin, 2017, arXiv 1708.07120)."""
    if share < peak:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * share / peak))
    return 0.5 * (1 + math.cos(math.pi * (share - peak) / (1 - peak)))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine, "one_cycle": one_cycle}


def schedule(name: str, warmup: float = 0.0) -> Schedule:
    """A schedule by name, after a straight rise over the share `warmup`."""
    try:
        shape = SCHEDULES[name]
    except KeyError:
        raise ArchwrightError(f"unknown schedule '{name}': expected one of {', '.join(SCHEDULES)}") from None
    if not warmup:
        return shape
    return lambda share: share / warmup if share < warmup else shape((share - warmup) / (1 - warmup))
