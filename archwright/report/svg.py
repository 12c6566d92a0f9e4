"""Charts as SVG text. Colours are classes that the page's style gives, so that light, dark and print each have theirs.

A chart is 480 wide, which two columns of a desktop and the one of a phone show at about its own size: text is legible
on both. A point carries what hovering shows in `data-tip`, one line below the other. Every text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape as _escape

from archwright.report import words

WIDTH, HEIGHT = 480, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 20, 36, 50

Point = tuple[float, float]
_TIMES = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def escape(text: object) -> str:
    """Text for elements and attributes; line breaks are kept."""
    return _escape(str(text), quote=True).replace("\n", "&#10;")


@dataclass(frozen=True)
class Axis:
    """Numbers -> places between two ends of a drawing, straight or logarithmic.

    title  with what is measured; the unit is in the ticks
    show   number -> text of a tick
    """

    title: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False
    show: Callable[[float], str] = words.value
    ticks: tuple[float, ...] = ()

    def __call__(self, value: float) -> float:
        """The place of a number; what lies outside is at the edge."""
        value = min(max(value, self.low), self.high)
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.start + share * (self.end - self.start)


def across(title: str, values: Sequence[float], unit: str = "", **options: bool) -> Axis:
    """The axis from left to right for these values."""
    return _axis(title, values, unit, LEFT, WIDTH - RIGHT, **options)


def upwards(title: str, values: Sequence[float], unit: str = "", **options: bool) -> Axis:
    """The axis from bottom to top for these values."""
    return _axis(title, values, unit, HEIGHT - BOTTOM, TOP, **options)


def _axis(
    title: str, values: Sequence[float], unit: str, start: float, end: float, *,
    zero: bool = False, log: bool | None = None, exact: bool = False,
) -> Axis:  # fmt: skip
    """zero   whether 0 has to be seen
    log    None: where all are above 0 and the greatest is 20 times the least
    exact  end at the least and greatest value, without room"""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log is None:
        log = not zero and low > 0 and high >= 20 * low

    def show(v: float) -> str:
        return words.value(v, unit)

    if log and low > 0:
        room = (high / low) ** 0.06 if high > low else 2.0
        low, high = low / room, high * room
        return Axis(title, low, high, start, end, True, show, _log_ticks(low, high))
    low = min(low, 0.0) if zero else low
    if not exact:
        room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        low, high, least, most = low - room, high + room, low, high
        low = max(low, 0.0) if least >= 0 else low  # nothing is below 0 percent
        high = min(high, 1.0) if unit == "share" and most <= 1 else high
    elif low == high:
        high = low + 1.0
    return Axis(title, low, high, start, end, False, show, _ticks(low, high, unit in ("s", "seconds")))


def _ticks(low: float, high: float, times: bool = False, most: int = 5) -> tuple[float, ...]:
    rough = (high - low) / most
    if times and rough > 1:
        step = float(next((t for t in _TIMES if t >= rough), 86400 * math.ceil(rough / 86400)))
    else:
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f for f in (1, 2, 5, 10) if f * power >= rough * 0.999) * power
    first = math.ceil(low / step - 1e-9)
    return tuple([round(k * step, 12) if step < 1e6 else k * step for k in range(first, first + 12)
                  if k * step <= high + 1e-9 * step])  # fmt: skip


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    decades = math.log10(high / low)
    steps = (1,) if decades > 2.5 else (1, 3) if decades > 1.4 else (1, 2, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / 6))
    return tuple([s * 10.0**p for p in range(first, last + 1, every) for s in steps if low <= s * 10.0**p <= high])


# ------------------------------------------------------------------------------------------------------------ drawing
def chart(name: str, about: str, x: Axis, y: Axis, body: Sequence[str]) -> str:
    """A frame with both axes, and what is drawn within. `about` says in words what is to be seen."""
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{name}. {about}")}">']
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    shown = -math.inf
    for tick in x.ticks:
        place, text = x(tick), x.show(tick)
        parts.append(f'<path class="grid" d="M{place:.1f} {TOP}V{bottom}"/>')
        half = 4.3 * len(text)
        middle = min(place, WIDTH - half)
        if middle - half > shown:
            parts.append(f'<text x="{middle:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>')
            shown = middle + half + 5
    for tick in y.ticks:
        place = y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{place + 4.5:.1f}" text-anchor="end">{escape(y.show(tick))}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    middle = (LEFT + right) / 2
    x_title = x.title + (" (log scale)" if x.log else "")
    y_title = y.title + (" (log scale)" if y.log else "")
    parts.append(
        f'<text class="title" x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_title)} →</text>'
    )
    parts.append(f'<text class="title" x="2" y="18">↑ {escape(y_title)}</text>')  # level, so that it is easily read
    return "".join([*parts, *body, "</svg>"])


def dots(kind: str, x: Axis, y: Axis, points: Sequence[Point], radius: float = 3, tips: Sequence[str] = ()) -> str:
    """Points, each with what hovering shows."""
    found = []
    for index, (a, b) in enumerate(points):
        tip = f' data-tip="{escape(tips[index])}"' if tips else ""
        found.append(f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="{radius:g}"{tip}/>')
    return f'<g class="{kind}">{"".join(found)}</g>' if found else ""


def line(kind: str, x: Axis, y: Axis, points: Sequence[Point], *, steps: bool = False) -> str:
    """A line through points; with `steps` each value holds until the next."""
    path = trail(x, y, points, steps=steps)
    return f'<path class="{kind}" d="{path}"/>' if path else ""


def trail(x: Axis, y: Axis, points: Sequence[Point], *, steps: bool = False) -> str:
    """The same as the text of a path, so that many can be one element."""
    if not points:
        return ""
    (a, b), *rest = points
    text = [f"M{x(a):.1f} {y(b):.1f}"]
    for a, b in rest:
        text.append(f"H{x(a):.1f}V{y(b):.1f}" if steps else f"L{x(a):.1f} {y(b):.1f}")
    return "".join(text)


def upright(kind: str, x: Axis, value: float, text: str) -> str:
    """A line from bottom to top at a value, with a word at its head; nothing where it is out of sight."""
    if not x.low <= value <= x.high:
        return ""
    place = x(value)
    left = place > (LEFT + WIDTH) / 2
    side = f'x="{place - 5:.1f}" text-anchor="end"' if left else f'x="{place + 5:.1f}"'
    return (
        f'<path class="{kind}" d="M{place:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
        f'<text class="note" {side} y="{TOP + 11}">{escape(text)}</text>'
    )


def level(kind: str, y: Axis, value: float, text: str) -> str:
    """A line from left to right at a value, with a word at its right end."""
    if not y.low <= value <= y.high:
        return ""
    place = y(value)
    at = place - 5 if place > TOP + 20 else place + 14
    return (
        f'<path class="{kind}" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="note" x="{WIDTH - RIGHT - 3}" y="{at:.1f}" text-anchor="end">{escape(text)}</text>'
    )


def bars(kind: str, x: Axis, y: Axis, edges: Sequence[float], heights: Sequence[float], tips: Sequence[str]) -> str:
    """A histogram: one bar between each pair of edges."""
    found = []
    for left, right, height, tip in zip(edges[:-1], edges[1:], heights, tips, strict=True):
        top, a, b = y(height), x(left), x(right)
        found.append(
            f'<rect x="{a + 0.5:.1f}" y="{top:.1f}" width="{max(0.5, b - a - 1):.1f}" '
            f'height="{max(0.0, y(y.low) - top):.1f}" data-tip="{escape(tip)}"/>'
        )
    return f'<g class="{kind}">{"".join(found)}</g>'


def matrix(rows: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """A confusion matrix: true classes downwards, predicted ones across; shaded by the share of the row.

    Up to 12 classes have their counts written, up to 30 their names.
    """
    n = len(rows)
    shown = [words.shorten(name, 15) for name in names] if n <= 30 else []
    reach = _LETTER * max(map(len, shown), default=0)
    left, top = 34 + reach, 6.0
    size = (WIDTH - left - 6) / n
    bottom = top + n * size
    level = reach < 0.95 * size  # names of columns fit side by side
    height = bottom + (20 if level else 0.72 * reach + 14) + 24
    about = f"Confusion matrix of {n} classes. The table below lists precision and recall."
    return "".join([
        f'<svg class="chart matrix" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(about)}">',
        *_cells(rows, names, left, top, size),
        *_names(shown, left, top, size, level),
        f'<rect class="edge" x="{left - 1:.1f}" y="{top - 1}" width="{n * size + 1:.1f}" height="{n * size + 1:.1f}"/>',
        f'<text class="title" x="{left + n * size / 2:.0f}" y="{height - 6:.0f}" text-anchor="middle">',
        "predicted class</text>",
        f'<text class="title" transform="translate(13 {top + n * size / 2:.0f}) rotate(-90)" text-anchor="middle">',
        "true class</text></svg>",
    ])  # fmt: skip


_LETTER = 6.6  # about how wide a letter of a class's name is


def _font(size: float) -> float:
    return max(7.5, min(13.0, 0.62 * size))


def _cells(rows: Sequence[Sequence[int]], names: Sequence[str], left: float, top: float, size: float) -> list[str]:
    numbers, font, parts = len(rows) <= 12, _font(size), []
    for i, row in enumerate(rows):
        total = sum(row)
        for j, count in enumerate(row):
            if not count and not numbers:
                continue
            share = count / (total or 1)
            tip = f"true: {names[i]}\npredicted: {names[j]}\n{count:,} of {total:,} ({words.value(share, 'share')})"
            least = 0.1 if i == j else 0.22  # a single mistake has to be seen
            shade = least + (1 - least) * share if count else 0
            x, y = left + j * size, top + i * size
            parts.append(
                f'<g class="{"right" if i == j else "wrong"}" data-tip="{escape(tip)}"><rect x="{x:.1f}" y="{y:.1f}" '
                f'width="{size - 1:.1f}" height="{size - 1:.1f}" rx="2" style="fill-opacity:{shade:.2f}"/>'
            )
            if numbers and count:
                strong = ' class="strong"' if share > 0.55 else ""
                parts.append(
                    f'<text{strong} x="{x + 0.5 * size - 0.5:.1f}" y="{y + 0.5 * size + 0.35 * font:.1f}" '
                    f'style="font-size:{font:.1f}px" text-anchor="middle">{words.count(count)}</text>'
                )
            parts.append("</g>")
    return parts


def _names(shown: Sequence[str], left: float, top: float, size: float, level: bool) -> list[str]:
    style, parts = f'style="font-size:{min(_font(size), 12):.1f}px"', []
    for i, name in enumerate(shown):
        text, middle = escape(name), (i + 0.5) * size
        parts.append(f'<text x="{left - 6:.1f}" y="{top + middle + 4:.1f}" {style} text-anchor="end">{text}</text>')
        x, y = left + middle, top + len(shown) * size + (15 if level else 10)
        place = f'x="{x:.1f}" y="{y:.1f}" ' + ("" if level else f'transform="rotate(-45 {x:.1f} {y:.1f})" ')
        parts.append(f'<text {place}{style} text-anchor="{"middle" if level else "end"}">{text}</text>')
    return parts
