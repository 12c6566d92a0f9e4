"""Ctrl-C while a search runs: noted at once, raised only where nothing is lost by it.

    with Interrupts() as interrupts:
        with interrupts.open():
            train()                     # KeyboardInterrupt at once
        write()                         # noted: `interrupts.take()` tells
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

IMPATIENT = 3
"""Presses of Ctrl-C from which on it is raised wherever the program is."""


class Interrupts:
    """Takes Ctrl-C over within a `with` block. In a thread, or where it is ignored, nothing changes."""

    def __init__(self) -> None:
        self._asked = self._open = False
        self._presses = 0
        self._former: Any = None

    def __enter__(self) -> Self:
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGINT) not in (None, signal.SIG_IGN):
            self._former = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _note(self, *_: Any) -> None:
        self._asked = True
        self._presses += 1
        if self._open or self._presses >= IMPATIENT:
            raise KeyboardInterrupt

    @property
    def asked(self) -> bool:
        """Whether Ctrl-C was pressed and nobody has taken note of it."""
        return self._asked

    def take(self) -> bool:
        """The same, and from now on it counts as taken note of."""
        asked, self._asked = self._asked, False
        return asked

    @contextmanager
    def open(self) -> Iterator[None]:
        """Within the block Ctrl-C raises KeyboardInterrupt; one that came before raises it now."""
        self._open = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._open = False

    def shut(self) -> None:
        """End an `open` block before its end: from now on Ctrl-C is only noted."""
        self._open = False
