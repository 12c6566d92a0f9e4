"""Runs parts in another process, with another order of hashes: the same seed has to give the same results there.

One process serves all the checks of this one: starting torch takes seconds. It reads lines of JSON (the path of a
part's file) and answers with lines of JSON (the packed results of the part's calls).
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from archwright.core.part import Part

_PROCESS: subprocess.Popen[str] | None = None


def ask(part: Part) -> dict[str, Any]:
    """Function name -> packed result, of the part's calls with seed 0, made in the other process."""
    process = _started()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(str(part.path)) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"{part.key}: the other process ended while it ran the part")
    found: dict[str, Any] = json.loads(line)
    if "error" in found:
        raise AssertionError(f"{part.key}: failed in another process: {found['error']}")
    results: dict[str, Any] = found["results"]
    return results


def _started() -> subprocess.Popen[str]:
    global _PROCESS
    if _PROCESS is None or _PROCESS.poll() is not None:
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        home = str(Path(__file__).resolve().parents[3])
        paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        _PROCESS = subprocess.Popen(
            [sys.executable, "-c", "from archwright.core.checks.elsewhere import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths},
        )
        atexit.register(_PROCESS.kill)
    return _PROCESS


def serve() -> None:
    """Answer until standard input ends. What parts print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # also what libraries print past Python
        for line in sys.stdin:
            replies.write(json.dumps(_answer(Path(json.loads(line)))) + "\n")
            replies.flush()


def _answer(path: Path) -> dict[str, Any]:
    from archwright.core.checks import suite
    from archwright.core.checks.common import flatten, pack, workshop
    from archwright.core.part import read

    try:
        part = read(path)
        calls = suite(part.kind).calls(part)
        with workshop():
            return {"results": {verb: pack(flatten(call(call.make(0)))) for verb, call in calls.items()}}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
