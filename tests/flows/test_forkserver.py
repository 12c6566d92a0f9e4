"""The process that forks workers ends when it is told to, whenever that is."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")

PROGRAM = """
import os, signal, socket, sys, time
from archwright.flows import forkserver, worker
worker.prepare = lambda: None
worker.work = lambda parent: time.sleep(60)
if {amid}:
    os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGTERM))
forkserver.serve(socket.socket(fileno=int(sys.argv[1])))
"""


@pytest.mark.parametrize("how", ["amid a fork", "later", "the line ends"])
def test_it_ends_when_it_is_told_to(how: str) -> None:
    """An exception that a signal's handler raises amid a fork would be lost, and the server would wait for ever."""
    near, far = socket.socketpair()
    with near, far:
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(amid=how == "amid a fork"), str(far.fileno())],
            pass_fds=[far.fileno()], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        far.close()
        with open("/dev/null") as null:
            socket.send_fds(near, [b"\1\0\0\0\7\0\0\0"], [null.fileno()] * 3)
        if how != "amid a fork":
            near.sendall(b"\2\0\0\0\7\0\0\0")  # killed: it tells so
            assert near.recv(8, socket.MSG_WAITALL) == b"\7\0\0\0\xf7\xff\xff\xff"
        if how == "later":
            server.send_signal(signal.SIGTERM)
        elif how == "the line ends":
            near.close()
        _, said = server.communicate(timeout=30)
        assert server.returncode == 0 and not said
