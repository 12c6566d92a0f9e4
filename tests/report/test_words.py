"""Numbers as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright.flows import objectives
from archwright.report import svg, words


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0277, "share", "2.77 %"), (0.5, "share", "50 %"), (1.0, "share", "100 %"), (0.0, "share", "0 %"),
        (0.00001, "share", "0.001 %"), (12345, "1", "12,345"), (123456, "1", "123 k"), (1.5e9, "1", "1.5 G"),
        (0.00021, "s", "210 µs"), (0.0123, "s", "12.3 ms"), (4.2, "s", "4.2 s"), (61.2, "s", "1 min 1 s"),
        (3600, "s", "1 h"), (7260, "s", "2 h 1 min"), (59.97, "s", "1 min"), (0, "s", "0 s"), (780, "bytes", "780 B"),
        (48_230, "B", "48.2 kB"), (18_000, "FLOPs", "18 kFLOPs"),
        (12_345_678, "FLOP", "12.3 MFLOPs"), (53.2143, "target units", "53.21"),
        (-0.5, "1", "−0.5"),
        (1.234e-7, "1", "1.234·10⁻⁷"), (float("nan"), "share", "–"), (None, "", "–"), ("nan", "s", "–"),
        (True, "1", "–"),
        (0.1123, "nats", "0.1123 nats"),
    ],
)  # fmt: skip
def test_value(value: Any, unit: str, text: str) -> None:
    assert words.value(value, unit).replace("\u00a0", " ") == text


@given(st.floats(), st.sampled_from([*objectives.UNITS.values(), "share", "target units", "nats", "other"]))
def test_any_number_is_short(value: float, unit: str) -> None:
    text = words.value(value, unit)
    assert text == text.strip() and 0 < len(text) < 30 and "\n" not in text


def test_clip_and_shorten() -> None:
    assert words.clip("a  b\nc", 10) == "a b c" and words.clip("abcdefgh", 5) == "abcd…"
    assert words.shorten("class number 17", 12) == "class n…r 17" and words.shorten("short", 12) == "short"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3, 3.0001), (-5, 1e6), (1e-9, 2e-9), (0, 0), (7, 7), (1e12, 3e12)])
def test_ticks_are_within_and_apart(low: float, high: float) -> None:
    axis = svg.across("x", [low, high], log=False)
    assert 2 <= len(axis.ticks) <= 8
    places = [axis(t) for t in axis.ticks]
    assert places == sorted(set(places)) and places[0] >= svg.LEFT and places[-1] <= svg.WIDTH - svg.RIGHT + 1e-6


@pytest.mark.parametrize(("low", "high"), [(1, 1e6), (2e-5, 1e-3), (3, 70), (1e-12, 1e12)])
def test_log_ticks(low: float, high: float) -> None:
    axis = svg.across("x", [low, high])
    assert axis.log and len(axis.ticks) >= 2
    assert axis(low) < axis(high) and all(axis.low <= t <= axis.high for t in axis.ticks)
