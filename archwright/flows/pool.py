"""Who does the jobs: worker processes, or this process itself.

Both have the same four verbs: `send` a job, `wait` for what is done, `abandon`, `stop`; and `free` and `spare` places.
Jobs come back with their results in the order in which they end; a job whose worker died comes back with failures, and
a new worker starts. A process may have a second job, which it begins as soon as it is done with the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.flows.forkserver import ForkServer, last_words
from archwright.flows.interrupts import Interrupts
from archwright.flows.jobs import Job, Result, Worker, failures

Done = tuple[Job, list[Result]]

STOPPED = "stopped before its training was over"


class Here:
    """Jobs are done in this process, one at a time, when they are waited for. Ctrl-C stops one in its middle."""

    def __init__(self, data: Data, interrupts: Interrupts | None = None) -> None:
        self._worker = Worker(data)
        self._interrupts = interrupts or Interrupts()
        self._jobs: list[Job] = []
        self.size, self.apart = 1, False

    @property
    def free(self) -> int:
        """Jobs that would begin at once."""
        return self.size - len(self._jobs)

    @property
    def spare(self) -> list[float]:
        """No job is taken before the one that is being done has ended."""
        return []

    def send(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self, seconds: float) -> list[Done]:
        """Do a job; `seconds` is of no account here."""
        if not self._jobs:
            return []
        with self._interrupts.open():
            results = self._worker.run(self._jobs[0])
        return [(self._jobs.pop(0), results)]

    def abandon(self) -> list[Done]:
        """Drop what has not begun, or was interrupted; its candidates count as pruned."""
        jobs, self._jobs = self._jobs, []
        return [(job, failures(job, STOPPED, "pruned")) for job in jobs]

    def stop(self) -> None:
        """Nothing is left to stop."""


class Pool:
    """Worker processes of one thread each. They start at once, which takes seconds, and need data before jobs.

    size   how many processes
    apart  whether jobs are done while this process does other things
    """

    def __init__(self, size: int) -> None:
        self.size, self.apart = size, True
        self._first: Mapping[str, Any] | None = None
        self._selector = selectors.DefaultSelector()
        self._busy: dict[_Process, list[Job]] = {}  # the longer a process works, the earlier it stands
        self._why = ""
        self._server = ForkServer()
        self._idle = [self._start() for _ in range(size)]

    def open(self, folder: str | os.PathLike[str], memory: int = 0) -> None:
        """Say where the data are stored, for the workers to map into memory, and how many bytes each may allocate
        beyond what it has then; 0 for no limit."""
        self._first = {"data": str(folder), "memory": memory}
        for process in self._idle:
            process.send(self._first)

    def _start(self) -> _Process:
        process = _Process(self._server)
        if self._first is not None:
            process.send(self._first)
        self._selector.register(process.output, selectors.EVENT_READ, process)
        return process

    @property
    def free(self) -> int:
        """Jobs that would begin at once."""
        return len(self._idle)

    @property
    def spare(self) -> list[float]:
        """When the workers that may get a second job began with their first, on the monotonic clock, ascending."""
        return [process.began for process, jobs in self._busy.items() if len(jobs) == 1]

    def send(self, job: Job) -> None:
        """Give a job to a worker that has none, or else to the one that has worked on a single one for the longest.
        Raises `ArchwrightError` if no worker could be started, or all have two."""
        single = next((process for process, jobs in self._busy.items() if len(jobs) == 1), None)
        process = self._idle.pop(0) if self._idle else single
        if process is None and self._busy:
            raise ArchwrightError("each worker process has two jobs: wait for one to be done")
        if process is None:
            raise ArchwrightError(f"no worker process could be started: {self._why}; try with workers=0")
        if process not in self._busy:
            process.began = time.monotonic()
        self._busy.setdefault(process, []).append(job)
        process.send(job)

    def wait(self, seconds: float) -> list[Done]:
        """Jobs that are done, waiting for the first at most so long."""
        found: list[Done] = []
        end = time.monotonic() + seconds
        while not found and self._busy:
            left = max(0.0, end - time.monotonic())
            for key, _ in self._selector.select(left):
                process: _Process = key.data
                lines = process.read()
                for line in lines or ():
                    if "results" in line:
                        found.append((self._done(process), line["results"]))
                if lines is None:
                    found += self._died(process)
            if time.monotonic() >= end:
                break
        return found

    def _done(self, process: _Process) -> Job:
        """The job that a process has ended; it goes on with its next, or is free."""
        job, *rest = self._busy.pop(process)
        if rest:
            process.began = time.monotonic()
            self._busy[process] = rest
        else:
            self._idle.append(process)
        return job

    def _died(self, process: _Process) -> list[Done]:
        jobs = self._gone(process, again=process.ready)  # what could not even start is not tried again
        self._why = process.end()
        found = [(job, failures(job, self._why)) for job in jobs[:1]]
        for job in jobs[1:]:  # it had not begun
            if self._idle:
                self.send(job)
            else:
                found.append((job, failures(job, self._why)))
        return found

    def _gone(self, process: _Process, *, again: bool) -> list[Job]:
        """Take a process that has ended off the lists, and start another one; the jobs that it had."""
        self._selector.unregister(process.output)
        jobs = self._busy.pop(process, [])
        if process in self._idle:
            self._idle.remove(process)
        if again:
            self._idle.append(self._start())
        return jobs

    def abandon(self) -> list[Done]:
        """Stop all jobs, begun or waiting: their candidates count as pruned. The workers start anew."""
        found: list[Done] = []
        for process in list(self._busy):
            process.kill()
            jobs = self._gone(process, again=True)
            process.end()
            found += [(job, failures(job, STOPPED, "pruned")) for job in jobs]
        return found

    def stop(self) -> None:
        """End the workers."""
        self._server.stop()
        for process in [*self._busy, *self._idle]:
            self._selector.unregister(process.output)
            process.end()
        self._busy, self._idle = {}, []
        self._selector.close()


class _Process:
    """One worker process and the pipes to it.

    ready  whether it has taken the data
    pid    its process, once it is ready
    began  when it began with its job, on the monotonic clock
    """

    def __init__(self, server: ForkServer) -> None:
        self._server = server
        # a file, since a pipe that nobody reads would stop a process that has much to say
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 closed by `end`
        its_input, mine = os.pipe()
        self._input = os.fdopen(mine, "wb")
        mine, its_output = os.pipe()
        self.output = os.fdopen(mine, "rb")
        os.set_blocking(mine, False)
        self._number = server.fork((its_input, its_output, self._said.fileno()))
        os.close(its_input)
        os.close(its_output)
        self._rest = b""
        self.ready, self.pid = False, 0
        self.began = 0.0

    def send(self, line: Mapping[str, Any]) -> None:
        try:
            self._input.write(json.dumps(dict(line)).encode() + b"\n")
            self._input.flush()
        except BrokenPipeError:
            pass  # it died: `wait` finds the end of its output

    def read(self) -> list[dict[str, Any]] | None:
        """Lines that have come, or None when there will be no more."""
        data = self.output.read()
        if data == b"":
            return None
        *lines, self._rest = (self._rest + (data or b"")).split(b"\n")
        found = [json.loads(line) for line in lines if line.strip()]
        for line in found:
            if "ready" in line:
                self.ready, self.pid = True, line["ready"]
        return found

    def kill(self) -> None:
        self._server.kill(self._number)

    def end(self) -> str:
        """Close the pipes; why the process ended."""
        code = self._server.code(self._number)
        last = last_words(self._said.fileno()) or self._server.said()
        for pipe in (self._input, self.output, self._said):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        if code == -9:
            return "its process was killed (out of memory?)"
        return f"its process ended with code {code}{': ' + last if last else ''}"


def memory_for_each(size: int) -> int:
    """Bytes that each of so many workers may take: their share of four fifths of what is available now; 0 if that is
    not known."""
    try:
        with open("/proc/meminfo") as file:
            known: Mapping[str, str] = dict(line.split(":", 1) for line in file)
        return int(int(known["MemAvailable"].split()[0]) * 1024 * 0.8 / size)
    except (OSError, KeyError, ValueError):
        return 0
