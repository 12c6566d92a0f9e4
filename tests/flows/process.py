"""The command line in processes of its own, which can be killed. They are forked from one that has imported everything,
so that each takes a tenth of a second to begin."""

from __future__ import annotations

import errno
import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOAD = ["archwright.cli", "archwright.flows.search", "archwright.live", "pandas", "sklearn.model_selection",
           "sklearn.datasets", "onnxscript", "onnxruntime", "torch._dynamo", "torch.onnx", "archwright.exchange.onnx",
           "tests.flows.process"]  # fmt: skip

BEGUN = "the command begins"


@functools.cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


class Running:
    """A command that runs in `folder`. Trainings take `steps` steps, if given; the disk is full when the file `full` of
    a bundle is written."""

    def __init__(self, folder: Path, *argv: Any, steps: int | None = None, full: str = "") -> None:
        self.err, self.out = folder / "stderr.txt", folder / "stdout.txt"
        words = [str(word) for word in argv]
        self.process = _context().Process(target=_main, args=(str(folder), words, steps, full), daemon=True)
        self.process.start()
        self.pid: int = self.process.pid

    def send(self, number: signal.Signals) -> None:
        """A signal, if it still runs."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.join(30)

    def end(self, seconds: float = 300.0) -> int | None:
        """The exit code."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise TimeoutError(self.said())
        return self.process.exitcode

    def said(self) -> str:
        """Standard error."""
        return self.err.read_text() if self.err.exists() else ""

    def sentences(self) -> list[str]:
        """What it said but progress."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return [line for line in lines if not line.startswith((BEGUN, "search ·", "final training ·", "done ·"))]

    def until(self, seen: Callable[[], Any], seconds: float = 120.0) -> bool:
        """Wait for something to be seen; whether it was before the process ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if seen():
                return True
            if not self.process.is_alive():
                return bool(seen())
            time.sleep(0.01)
        raise TimeoutError(self.said())

    def workers(self) -> list[int]:
        """Its worker processes: those that its fork server has forked."""
        return [pid for server in children(self.pid) for pid in children(server)]


def children(pid: int) -> list[int]:
    """Processes whose parent a process is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def alive(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _main(folder: str, argv: list[str], steps: int | None, full: str) -> None:
    os.chdir(folder)
    for name, number in (("stdout.txt", 1), ("stderr.txt", 2)):
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    from archwright import cli
    from archwright.flows import bundle
    from archwright.flows.plan import Plan

    torch.set_num_threads(1)
    if steps is not None:
        Plan.steps = lambda *_, **__: steps  # type: ignore[method-assign]
    if full:
        bundle.WRITERS[full] = _no_space
    sys.argv = ["archwright", *argv]
    print(BEGUN, file=sys.stderr, flush=True)
    cli.main()


def _no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
