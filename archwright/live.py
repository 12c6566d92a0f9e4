"""What the command line shows of a search: one live line, a table at the end. All of it on standard error."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from archwright.errors import EmitError
from archwright.flows.loop import Progress, State
from archwright.flows.objectives import UNITS
from archwright.report.words import value

PLAIN_EVERY = 10.0
"""Seconds between lines where standard error is no terminal."""


def command() -> str:
    """The command line as it was typed."""
    return shlex.join(["archwright", *sys.argv[1:]])


def name_of(data: str) -> str:
    """A name for what a path or a built-in name stands for: "titanic" for data/titanic.csv.gz."""
    name = Path(data).name
    for suffix in (".gz", ".csv", ".tsv", ".txt", ".parquet", ".npz", ".ts"):
        name = name.removesuffix(suffix)
    return name or "data"


@contextmanager
def shown() -> Iterator[Progress]:
    """Within the block, states are shown: as a line that changes on a terminal, else as a line now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Live(Text(""), console=console, refresh_per_second=4, transient=True) as live:
            yield lambda state: live.update(Text(line(state), overflow="ellipsis", no_wrap=True))
        return
    last = -PLAIN_EVERY
    phase = ""

    def progress(state: State) -> None:
        nonlocal last, phase
        now = time.monotonic()
        if state.phase != phase or now - last >= PLAIN_EVERY:
            last, phase = now, state.phase
            print(line(state), file=sys.stderr, flush=True)

    yield progress


def line(state: State) -> str:
    """One line: time left, trials done, best so far, size of the front."""
    wanted = f" of {state.wanted}" if state.wanted else ""
    parts = [state.phase]
    if state.left is not None:
        left = max(0, round(state.left))
        parts.append(f"{left // 60}:{left % 60:02d} left")
    parts.append(f"{state.trials}{wanted} trials" + (f" ({state.failed} failed)" if state.failed else ""))
    if state.best is not None:
        parts.append(f"best {state.metric} {value(state.best, state.unit)}")
        parts.append(f"{state.front} on the front")
    return " · ".join(parts)


def summary(run: Mapping[str, Any], folder: Path) -> None:
    """The front as a table, the winner's figures, and where the bundle is."""
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120, highlight=False)
    objectives, winner = run["objectives"], run["winner"]
    heads = [o["name"] + ("" if o["name"] in UNITS else " (validation)") for o in objectives]
    rows = [["trial", *heads, "choices"]]
    for entry in run["front"]:
        mark = "*" if entry["trial"] == winner["trial"] else ""
        values = [value(entry["values"][o["name"]], o["unit"]) for o in objectives]
        rows.append([f"{mark}{entry['trial']}", *values, short(entry["trace"])])
    console.print(f"front of {sum(run['trials'].values())} trials (* is the winner)", markup=False)
    widths = [max([len(row[i]) for row in rows]) for i in range(len(heads) + 1)]
    for row in rows:
        left = "  ".join([cell.rjust(width) for cell, width in zip(row, widths, strict=False)])
        console.print(f"{left}  {row[-1]}", markup=False, no_wrap=True, overflow="ellipsis")
    if run["failures"]:
        reasons: dict[str, list[int]] = {}
        for failure in run["failures"]:
            reasons.setdefault(failure["reason"], []).append(failure["trial"])
        for reason, trials in reasons.items():
            console.print(f"failed: {few(trials)}: {reason}", markup=False)
    for notice in run["data"]["notices"]:
        console.print(f"note: {notice}", markup=False)
    cost = run["cost"]
    members = winner.get("members", ())
    if members:
        told = ", ".join([f"{m['trial']}" + (f" ({m['copies']} times)" if m["copies"] > 1 else "") for m in members])
        console.print(f"winner: the mean of {sum([m['copies'] for m in members])} networks, of trials {told}")
    took = f", {value(cost['latency_s'], 's')} a sample" if cost["latency_s"] is not None else ""
    needs = f"{value(cost['params'])} parameters, {value(cost['flops'], 'FLOP')}, {value(cost['bytes'], 'B')}"
    console.print(f"winner: {needs}{took}", markup=False)
    units = {o["name"]: o["unit"] for o in objectives} | {
        "error": "share" if run["data"]["task"] == "classification" else "target units"
    }
    for name, found in run["test"].items():
        unit = units.get(name, "1")
        trivial = value(run["baseline"][name], unit)
        console.print(f"test {name}: {value(found, unit)} (trivial predictor: {trivial})", markup=False)
    console.print(f"bundle: {folder}", markup=False, soft_wrap=True)
    console.print(f"report: {folder / 'report.html'}", markup=False, soft_wrap=True)


def few(numbers: Sequence[int]) -> str:
    """Trial numbers for a sentence."""
    shown_ = ", ".join(map(str, numbers[:6]))
    return f"trial {shown_}" + (f" and {len(numbers) - 6} more" if len(numbers) > 6 else "")


def short(trace: Mapping[str, Any]) -> str:
    """The choices of an architecture as one line, its training left out."""
    chosen = [f"{name}={value}" for name, value in trace.items() if not name.startswith("train.")]
    return " ".join(chosen)


def write(path: Path, text: str) -> None:
    """A text file, whole or not at all. Raises `EmitError`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise EmitError(f"{path} could not be written: {error.strerror}") from None


def clean(work: Path) -> None:
    """Remove what only a search under way needs; the ledger and the trained nets stay."""
    for name in ("data", "opened", "start", "final"):
        shutil.rmtree(work / name, ignore_errors=True)
