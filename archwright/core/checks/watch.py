"""Watches a call: does it touch global state, write files, read the clock, open connections?"""

from __future__ import annotations

import datetime
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas  # noqa: F401  its C modules crash if they are imported while the classes of datetime are replaced
import rich.style  # noqa: F401  draws a random number when it is imported, by scikit-learn for one
import torch

from archwright.core import registry
from archwright.core.part import Part

_CLOCKS = (
    "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
    "process_time_ns", "localtime", "gmtime", "ctime", "strftime",
)  # fmt: skip
_HERE = Path(__file__).resolve().parent
_PACKAGE = _HERE.parent.parent
_ALLOWED = (str(_HERE), str(_HERE.parent / "records.py"))
"""Where the clock may be read: `Budget`, and the checks themselves."""

IMPORTED = ("environment variables", "sys.path")
"""What importing a library may change."""

_OPEN: list[Watch] = []
"""The watches that are open now. Hooks of `sys` stay for ever, so there is one for all of them."""
_HOOKED = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for watch in _OPEN:
        if watch.thread == threading.get_ident():
            watch.heard(event, args)


class Watch:
    """`with Watch(part) as saw:` afterwards `saw.state`, `.files`, `.clock`, `.network` say what was touched."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.state: list[str] = []
        self.files: list[str] = []
        self.clock: list[str] = []
        self.network: list[str] = []
        self.thread = 0
        self._written: dict[str, None] = {}
        self._removed: dict[str, None] = {}
        self._undo: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> Watch:
        global _HOOKED
        if not _HOOKED:
            sys.addaudithook(_hook)
            _HOOKED = True
        self._before = _state()
        self._restore = _restorer()
        self._stop_clocks()
        self.thread = threading.get_ident()
        _OPEN.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _OPEN.remove(self)
        for home, name, value in reversed(self._undo):
            setattr(home, name, value)
        after = _state()
        self.state = [name for name, value in self._before.items() if after[name] != value]
        self._restore()
        self.files = [path for path in self._written if os.path.exists(path)]
        self.files += [f"{path} (removed)" for path in self._removed if path not in self._written]

    # ------------------------------------------------------------------------------------------------------- events
    def heard(self, event: str, args: tuple[Any, ...]) -> None:
        """Take in an event of `sys.audit`."""
        if event == "open":
            path, mode, flags = args
            writes = (isinstance(mode, str) and any(letter in mode for letter in "wax+")) or (
                isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            )
            if writes and isinstance(path, (str, bytes, os.PathLike)):
                self._note(self._written, path)
        elif event == "os.mkdir":
            self._note(self._written, args[0])
        elif event == "os.rename":
            self._note(self._removed, args[0])
            self._note(self._written, args[1])
        elif event in ("os.remove", "os.rmdir"):
            self._note(self._removed, args[0])
        elif event == "socket.connect":
            self.network.append(str(args[1]))

    def _note(self, where: dict[str, None], path: Any) -> None:
        text = os.path.abspath(os.fsdecode(path))
        if "__pycache__" not in text and not text.startswith(("/dev/", "/proc/")):
            where[text] = None

    # ------------------------------------------------------------------------------------------------------- clocks
    def _stop_clocks(self) -> None:
        """Clocks go on working, but reads from the part's file and from the package are noted."""
        module = registry.module(self.part)
        made: dict[int, Any] = {id(getattr(time, name)): self._noting(getattr(time, name), name) for name in _CLOCKS}
        for name in _CLOCKS:
            self._put(time, name, made[id(getattr(time, name))])
        dated = self._dated()
        made |= {id(datetime.datetime): dated[0], id(datetime.date): dated[1]}
        for name, value in list(vars(module).items()):
            if id(value) in made:
                self._put(module, name, made[id(value)])
        self._put(datetime, "datetime", dated[0])
        self._put(datetime, "date", dated[1])

    def _put(self, home: Any, name: str, value: Any) -> None:
        self._undo.append((home, name, getattr(home, name)))
        setattr(home, name, value)

    def _noting(self, real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def read(*args: Any, **kw: Any) -> Any:
            self._read(f"time.{name}", 2)
            return real(*args, **kw)

        return read

    def _dated(self) -> tuple[type, type]:
        """`datetime.datetime` and `datetime.date` whose reads of the clock are noted."""
        watch, moment, day = self, datetime.datetime, datetime.date

        class AsBefore(type):  # values made before and inside are of either class
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, moment if cls.__name__ == "datetime" else day)

        class Moment(datetime.datetime, metaclass=AsBefore):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                watch._read("datetime.now", 2)
                return moment.now(tz)

            @classmethod
            def today(cls) -> Any:
                watch._read("datetime.today", 2)
                return moment.today()

            @classmethod
            def utcnow(cls) -> Any:
                watch._read("datetime.utcnow", 2)
                return moment.now(datetime.UTC).replace(tzinfo=None)

        class Day(datetime.date, metaclass=AsBefore):
            @classmethod
            def today(cls) -> Any:
                watch._read("date.today", 2)
                return day.today()

        Moment.__name__, Day.__name__ = "datetime", "date"
        return Moment, Day

    def _read(self, what: str, depth: int) -> None:
        where = sys._getframe(depth).f_code.co_filename
        ours = where.startswith(str(_PACKAGE)) and not where.startswith(_ALLOWED)
        if ours or where == str(self.part.path):
            self.clock.append(f"{what} in {Path(where).name}")


# --------------------------------------------------------------------------------------------------- global state
def _state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {
        "the generator of torch": torch.get_rng_state().numpy().tobytes(),
        "the generator of NumPy": (name, np.asarray(keys).tobytes(), rest),
        "the generator of Python": random.getstate(),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "default dtype or device": (torch.get_default_dtype(), torch.get_default_device()),
        "number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "precision of matmul": torch.get_float32_matmul_precision(),
        "NumPy's error handling": np.geterr(),
        "the working directory": os.getcwd(),
        "environment variables": dict(os.environ),
        "sys.path": list(sys.path),
    }


def _restorer() -> Callable[[], None]:
    """Puts back what would disturb later checks."""
    rng, legacy, python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    grad, dtype, threads, folder = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        os.getcwd(),
    )

    def restore() -> None:
        torch.set_rng_state(rng)
        np.random.set_state(legacy)
        random.setstate(python)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        os.chdir(folder)

    return restore
