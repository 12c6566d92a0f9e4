"""A process that has imported what workers need, and forks them: each begins in a hundredth of a second.

    python -m archwright.flows.forkserver FD        as `ForkServer` starts it

Imports take a second of a core. They are done once, not in each worker, and not again when workers are stopped in the
middle of a job and others take their places. `multiprocessing` has such a server, too, but its children import the main
module of the program: a script that searches without `if __name__ == "__main__"` would not come to an end.

The two ends talk over a socket. Wishes go there, (what, number): FORK, with three files that become the worker's input,
output and error output, or KILL. Ends of workers come back, (number, exit code). When the socket ends, or the process
that started it, the server kills its workers and ends.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence

from archwright.flows import worker

FORK, KILL = 1, 2
_PAIR = struct.Struct("=ii")


class ForkServer:
    """The near end. What is wished for before the server has imported all waits for it; a server that died is replaced
    when the next worker is wished for."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._alive: set[int] = set()
        self._codes: dict[int, int] = {}
        self._last = ""
        self._begin()

    def _begin(self) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        # a file, since a pipe that nobody reads would stop a process that has much to say
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 closed by `stop`
        self._line, theirs = socket.socketpair()
        with theirs:
            # it would be told to end by the terminal's Ctrl-C otherwise; its parent decides
            self._process = subprocess.Popen(
                [sys.executable, "-m", "archwright.flows.forkserver", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._said, pass_fds=[theirs.fileno()],
                env={**os.environ, **threads, "PYTHONWARNINGS": "ignore"}, start_new_session=True,
            )  # fmt: skip

    def fork(self, files: Sequence[int]) -> int:
        """Start a worker, whose input, output and error output the files become; its number."""
        number = next(self._numbers)
        try:
            socket.send_fds(self._line, [_PAIR.pack(FORK, number)], files)
        except OSError:
            self.stop()
            self._begin()
            socket.send_fds(self._line, [_PAIR.pack(FORK, number)], files)
        self._alive.add(number)
        return number

    def kill(self, number: int) -> None:
        """End a worker, if it still runs."""
        with contextlib.suppress(OSError):  # the server is gone, and so are its workers
            self._line.sendall(_PAIR.pack(KILL, number))

    def code(self, number: int) -> int:
        """The exit code of a worker, once; minus the signal that ended it. If the server ended, then its own. Waits."""
        while number in self._alive:
            try:
                told = self._line.recv(_PAIR.size, socket.MSG_WAITALL)
            except OSError:
                told = b""
            if len(told) == _PAIR.size:
                which, code = _PAIR.unpack(told)
                self._alive.discard(which)
                self._codes[which] = code
            else:
                self.stop()
        return self._codes.pop(number)

    def said(self) -> str:
        """The last that the server itself said on its error output."""
        return self._last if self._said.closed else last_words(self._said.fileno())

    def stop(self) -> None:
        """End the server and its workers."""
        self._process.terminate()
        self._line.close()
        code = self._process.wait()
        self._last = self.said()
        self._said.close()
        self._codes.update(dict.fromkeys(self._alive, code))
        self._alive.clear()


def last_words(file: int) -> str:
    """The last line of a file, a few hundred letters at most."""
    size = os.fstat(file).st_size
    said = os.pread(file, 4096, max(0, size - 4096)).decode(errors="replace")
    return said.strip().rpartition("\n")[2][:200]


# ---------------------------------------------------------------------------------------------------- the far end
def serve(line: socket.socket) -> None:
    """Fork and kill workers, and tell of those that have ended, until the line or the parent ends, or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent, here = os.getppid(), os.getpid()
    told_to_end = False

    def end(*_: object) -> None:
        # noted, not raised: an exception would be lost if the signal came amid the hooks that Python runs around a fork
        nonlocal told_to_end
        told_to_end = True

    worker.prepare()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, end)
    pids: dict[int, int] = {}
    try:
        while not told_to_end and os.getppid() == parent:
            ready = select.select([line.fileno(), woken], [], [], worker.ORPHANED)[0]
            if woken in ready:
                os.read(woken, 4096)
            if line.fileno() in ready:
                told, files, *_ = socket.recv_fds(line, _PAIR.size, 3)
                if not told:
                    return
                wish, number = _PAIR.unpack(told)
                if wish == KILL:
                    if number in pids:
                        os.kill(pids[number], signal.SIGKILL)
                elif pid := os.fork():
                    pids[number] = pid
                    for file in files:
                        os.close(file)
                else:
                    _become_worker(here, files, [line.fileno(), woken, wake])
            for number, pid in list(pids.items()):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del pids[number]
                    line.sendall(_PAIR.pack(number, os.waitstatus_to_exitcode(status)))
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _become_worker(parent: int, files: Sequence[int], others: Sequence[int]) -> None:
    """What a forked process does; it never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for place, file in enumerate(files):
            os.dup2(file, place)
        for file in (*files, *others):
            os.close(file)
        worker.work(parent)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody listens any more
        serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)  # at once: there is nothing to put away
