"""Numbers as people write them: 2.3 %, 12.3 k, 48 kB, 0.21 ms, 1 min 12 s. What is no number is a dash."""

from __future__ import annotations

import math
from typing import Any

NONE = "–"
_GAP = "\u00a0"  # a number stays on one line with its unit
PERCENT = f"{_GAP}%"

LABELS = {
    "error": "error",
    "params": "parameters",
    "flops": "FLOPs a sample",
    "latency": "latency",
    "latency_s": "latency",
    "bytes": "size of the weights",
    "memory": "activation memory",
    "activation": "activation memory",
    "activation_bytes": "activation memory",
    "energy": "memory traffic",
    "traffic": "memory traffic",
    "traffic_bytes": "memory traffic",
}
"""Names of objectives and costs as they are shown; others are shown as they are, with spaces for underscores."""

UNITS = {
    "params": "1", "flops": "FLOPs", "latency": "s", "latency_s": "s", "bytes": "bytes", "memory": "bytes",
    "activation": "bytes", "activation_bytes": "bytes", "energy": "bytes", "traffic": "bytes", "traffic_bytes": "bytes",
}  # fmt: skip
"""The units of costs, where a run does not say them."""

_SHARES = ("share", "%")
_SECONDS = ("s", "seconds")
_BYTES = ("bytes", "byte", "B")


def number(value: Any) -> float | None:
    """A finite number, or None: records write NaN and infinities as strings."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def label(name: str) -> str:
    """A name as it is shown."""
    return LABELS.get(name, name.replace("_", " "))


def value(v: Any, unit: str = "") -> str:
    """A number in its unit."""
    n = number(v)
    if n is None:
        return NONE
    if n < 0:
        return "−" + value(-n, unit)
    if unit in _SHARES and n < 1e4:
        return f"{_digits(100 * n, 2)}{PERCENT}"
    if unit in _SECONDS:
        return duration(n)
    if unit in _BYTES:
        return scaled(n, "B", ("", "k", "M", "G", "T"))
    if unit in ("FLOP", "FLOPs", "flops"):
        return scaled(n, "FLOPs")
    if unit in ("params", "weights"):
        return count(n)
    plain = count(n) if n == int(n) and abs(n) < 1e15 else _significant(n)
    return plain if unit in ("", "1", "target units") else f"{plain}{_GAP}{unit}"


def choice(found: Any) -> str:
    """A value of any kind: a choice of a trace, a fact about a machine."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    return value(found) if isinstance(found, (int, float)) else clip(found, 60)


def count(n: float) -> str:
    """A count: in full up to five digits, then in thousands and so on."""
    return f"{round(n):,}" if abs(n) < 99_999.5 else scaled(n, "")


def scaled(n: float, unit: str, steps: tuple[str, ...] = ("", "k", "M", "G", "T")) -> str:
    """Three digits with k, M, G or T."""
    power = 0
    while abs(n) >= 999.5 and power < len(steps) - 1:
        n, power = n / 1000, power + 1
    mark = f"{steps[power]}{unit}"
    return f"{_significant(n, 3)}{_GAP if mark else ''}{mark}"


def duration(seconds: float) -> str:
    """A time, from microseconds to hours."""
    if seconds == 0:
        return f"0{_GAP}s"
    if abs(seconds) < 0.9995e-3:
        return f"{_significant(seconds * 1e6, 3)}{_GAP}µs"
    if abs(seconds) < 0.9995:
        return f"{_significant(seconds * 1e3, 3)}{_GAP}ms"
    if seconds < 59.95 or seconds > 1e10:
        return f"{_significant(seconds, 3)}{_GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{_GAP}h" + (f"{_GAP}{minutes}{_GAP}min" if minutes else "")
    return f"{minutes}{_GAP}min" + (f"{_GAP}{rest}{_GAP}s" if rest else "")


def clip(text: Any, most: int) -> str:
    """A text on one line of at most so many characters, its end left out."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def shorten(text: Any, most: int) -> str:
    """A text on one line of at most so many characters, its middle left out: names often differ at their ends."""
    line = " ".join(str(text).split())
    tail = most // 3
    return line if len(line) <= most else line[: most - tail - 1].rstrip() + "…" + line[-tail:].lstrip()


def _digits(n: float, places: int) -> str:
    """So many places after the point, less where they are zero; more for what would be nothing."""
    if n and abs(n) < 0.5 * 10**-places:
        return f"{n:.1g}"
    text = f"{n:.{places}f}" if abs(n) < 9.995 else f"{n:.1f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _significant(n: float, digits: int = 4) -> str:
    if n and not 1e-4 <= abs(n) < 1e7:
        mantissa, _, power = f"{n:.{digits - 1}e}".partition("e")
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa.rstrip('0').rstrip('.')}·10{raised}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(n)))) if n else 0
    text = f"{n:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
