"""The .ts format of the UEA and UCR archives, also packed (.gz): one series a line, channels divided by colons."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data.data import Array, Task
from archwright.errors import DataError


def read(path: str | os.PathLike[str]) -> tuple[list[Array], list[str] | Array | None, Task | None]:
    """Series [channels, time] of their own lengths, NaN for "?"; labels as text or targets as numbers; the task.

    Raises `DataError` for time stamps, channels that differ in number or length, and lines that hold no numbers.
    """
    opener: Any = gzip.open if str(path).lower().endswith(".gz") else open
    head: dict[str, str] = {}
    series: list[Array] = []
    ends: list[str] = []
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            inside = False
            for number, line in enumerate(file, 1):
                line = line.strip()
                if not line or line.startswith("#"):
                    continue
                if line.startswith("@"):
                    name, _, rest = line[1:].partition(" ")
                    head[name.lower()] = rest.strip()
                    inside = name.lower() == "data"
                elif inside:
                    *channels, end = line.split(":")
                    if not _targeted(head):
                        channels, end = [*channels, end], ""
                    series.append(_series(channels, path, number))
                    ends.append(end.strip())
                else:
                    raise DataError(f"{os.fspath(path)}, line {number}: expected @data before the first series")
    except (OSError, EOFError) as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {error}") from None
    if head.get("timestamps", "false").lower().startswith("true"):
        raise DataError(f"{os.fspath(path)} has time stamps, expected series of equal steps: leave the stamps out")
    if not series:
        raise DataError(f"{os.fspath(path)} holds no series, expected some after @data")
    counts = {len(s) for s in series}
    if len(counts) > 1:
        raise DataError(f"{os.fspath(path)} has series of {sorted(counts)} channels, expected as many in each")
    if not _targeted(head):
        return series, None, None
    if head.get("targetlabel", "").lower().startswith("true"):
        try:
            return series, np.array([float(end) for end in ends]), "regression"
        except ValueError as error:
            raise DataError(f"{os.fspath(path)} holds a target that is no number: {error}") from None
    return series, ends, "classification"


def _targeted(head: dict[str, str]) -> bool:
    return any(head.get(name, "").lower().startswith("true") for name in ("classlabel", "targetlabel"))


def _series(channels: list[str], path: str | os.PathLike[str], number: int) -> Array:
    try:
        found = [np.array([float(v) for v in c.replace("?", "nan").split(",")], np.float32) for c in channels]
    except ValueError as error:
        raise DataError(f"{os.fspath(path)}, line {number}: {error}, expected numbers") from None
    if not found or len({len(channel) for channel in found}) > 1:
        raise DataError(f"{os.fspath(path)}, line {number}: {len(found)} channels of unequal length")
    return np.stack(found)


def tests_of(path: Path) -> Path | None:
    """X_TEST.ts beside X_TRAIN.ts, packed or not."""
    name = re.sub(r"_TRAIN\.ts(\.gz)?$", "_TEST.ts", path.name, flags=re.IGNORECASE)
    if name == path.name:
        return None
    return next((p for p in (path.with_name(name), path.with_name(f"{name}.gz")) if p.is_file()), None)


def load(path: Path) -> tuple[list[Array], Any, Task, list[str] | None]:
    """Series, targets, task, and the split of each where a test file lies beside."""
    series, y, task = read(path)
    if y is None or task is None:
        raise DataError(f"{path} has neither class labels nor targets, expected one of them to learn")
    beside = tests_of(path)
    if beside is None:
        return series, y, task, None
    more, truth, other = read(beside)
    if truth is None or other != task:
        raise DataError(f"{beside} has other targets than {path.name}, expected {task}")
    return [*series, *more], np.concatenate([y, truth]), task, ["train"] * len(series) + ["test"] * len(more)
