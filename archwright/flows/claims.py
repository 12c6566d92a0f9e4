"""Claims: run `claim()` of parts and record what came out, held or not, with figure, date and machine.

docs/claims.json: {"version": 1, "claims": {part key: record}}, sorted, one part a line, so that two people who ran
different claims can merge. The file is replaced whole, so that a reader never sees half of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archwright.core import registry
from archwright.core.part import Part
from archwright.core.records import Claim
from archwright.errors import FormatError
from archwright.flows.catalogue import CLAIMS

VERSION = 1


def claims(
    names: Sequence[str] = (),
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = CLAIMS,
    progress: Callable[[Part, Mapping[str, Any]], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the claims of the named parts (all that claim something, without names) and record them.

    out       the file to record in; None records nothing
    progress  called with each part and its record as soon as it is there

    Returns part key -> record. A claim that raises is recorded as not held, with the error as a note. Raises
    `UnknownPart` for an unknown name, `FormatError` for a named part that claims nothing.
    """
    chosen = [registry.find(name) for name in names] if names else [p for p in registry.parts() if p.claim]
    bare = [part.key for part in chosen if not part.claim]
    if bare:
        raise FormatError(f"{', '.join(bare)}: claims nothing, expected a part with PART['claim'] and claim()")
    found = {}
    for part in chosen:
        found[part.key] = run(part, seed=seed)
        if out is not None:
            record({part.key: found[part.key]}, out)
        if progress is not None:
            progress(part, found[part.key])
    return found


def run(part: Part, *, seed: int = 0) -> dict[str, Any]:
    """The record of one part's claim, run now: what `Claim` says, text, paper, date, seconds, seed, machine, code."""
    module = registry.module(part)
    if "claim" not in vars(module):
        raise FormatError(f"{part.path}: PART['claim'] says something, but the file defines no claim()")
    began = time.perf_counter()
    try:
        made = module.claim(seed=seed)
    except Exception as error:
        made = Claim(float("nan"), "", "", False, notes=(f"raised {type(error).__name__}: {error}",))
    seconds = time.perf_counter() - began
    if not isinstance(made, Claim):
        raise FormatError(f"{part.path}: claim() returned {type(made).__name__}, expected a Claim")
    return {
        **made.as_dict(),
        "paper": str(part.claim["paper"] or made.paper),
        "text": str(part.claim["text"]),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "seed": seed,
        "machine": machine(),
        "code": fingerprint(part),
    }


def fingerprint(part: Part) -> str:
    """A hash of the part's file: a record holds for the code that it was measured with."""
    return hashlib.blake2b(part.path.read_bytes(), digest_size=8).hexdigest()


def changed(path: str | os.PathLike[str] = CLAIMS) -> list[Part]:
    """The parts whose claim was never recorded, or whose file is another than when it was."""
    known = read(path)
    return [p for p in registry.parts() if p.claim and known.get(p.key, {}).get("code") != fingerprint(p)]


def machine() -> dict[str, Any]:
    """What the figures were measured on: cpu, cores that may be used, torch and archwright versions."""
    from importlib.metadata import version

    import torch

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "archwright": version("archwright"),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def record(found: Mapping[str, Mapping[str, Any]], out: str | os.PathLike[str] = CLAIMS) -> Path:
    """Merge records into the file: those of other parts stay. Raises `FormatError` if the file is not one of claims."""
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    merged = {**read(out), **found}
    lines = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(merged[key], sort_keys=True)}" for key in sorted(merged))
    text = (
        f'{{"version": {VERSION}, "claims": {{\n  {lines}\n}}}}\n'
        if merged
        else f'{{"version": {VERSION}, "claims": {{}}}}\n'
    )
    handle, work = tempfile.mkstemp(prefix=".claims-", dir=out.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(work, 0o644)
        os.replace(work, out)
    except BaseException:
        os.unlink(work)
        raise
    return out


def read(path: str | os.PathLike[str] = CLAIMS) -> dict[str, Any]:
    """The recorded claims; nothing where there is no file. Raises `FormatError` for anything else than such a file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise FormatError(f"{path} cannot be read as recorded claims: {error}") from None
    if not isinstance(data, dict) or data.get("version") != VERSION or not isinstance(data.get("claims"), dict):
        raise FormatError(f"{path} holds no recorded claims of version {VERSION}")
    found: dict[str, Any] = data["claims"]
    return found


def line(part: Part, found: Mapping[str, Any]) -> str:
    """One claim in a few lines: what came out, what was expected, what the paper says."""
    verdict = "held" if found["held"] else "NOT HELD"
    value = found["figure"]
    number = f"{value:.4g}" if isinstance(value, float) else str(value)
    unit = "" if found["unit"] == "1" else f" {found['unit']}"
    lines = [
        f"{part.key}: {verdict} ({found['seconds']} s)",
        f"  {found['text']}",
        f"  figure    {number}{unit}",
        f"  expected  {found['expectation']}",
        f"  paper     {found['paper'] or '-'}",
    ]
    return "\n".join([*lines, *[f"  note      {note}" for note in found["notes"]]])
