"""The charts of a report, from what a run recorded. Each gives SVG text, or "" where nothing is recorded for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from archwright.report import svg, words
from archwright.report.words import number

_MOST_POINTS = 60
"""Of one thin learning curve: more cannot be told apart."""


class Objective(NamedTuple):
    """What is sought: its name, how it is shown, its unit, and which way is better."""

    name: str
    label: str
    unit: str
    direction: str

    def show(self, value: Any) -> str:
        """A value of it."""
        return words.value(value, self.unit)


class Drawn(NamedTuple):
    """A chart with its heading and a sentence on how to read it."""

    title: str
    svg: str
    caption: str = ""


def objectives(run: Mapping[str, Any]) -> list[Objective]:
    """The objectives of a run, metrics before costs; the error alone where none are recorded."""
    found = [o for o in listed(run.get("objectives")) if o.get("name")]
    found = found or [{"name": "error", "unit": _error_unit(run), "direction": "min"}]
    made = [objective(str(o["name"]), o.get("unit"), o.get("direction")) for o in found]
    return sorted(made, key=lambda o: o.name in words.UNITS)


def objective(name: str, unit: Any = None, direction: Any = None) -> Objective:
    """An objective by name, with what is known of costs where nothing is said."""
    unit = words.UNITS.get(name, str(unit or ""))
    return Objective(name, words.label(name), unit, "max" if direction == "max" else "min")


def _error_unit(run: Mapping[str, Any]) -> str:
    return "target units" if mapped(run.get("data")).get("task") == "regression" else "share"


def mapped(value: Any) -> Mapping[str, Any]:
    """A mapping as it is; anything else is an empty one."""
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list; nothing for anything else."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else []


def pairs(value: Any) -> list[svg.Point]:
    """The pairs of finite numbers of a list."""
    found = []
    for item in value if isinstance(value, (list, tuple)) else ():
        if isinstance(item, (list, tuple)) and len(item) >= 2:
            a, b = number(item[0]), number(item[1])
            if a is not None and b is not None:
                found.append((a, b))
    return found


# ----------------------------------------------------------------------------------------------------------- the front
def fronts(run: Mapping[str, Any]) -> list[Drawn]:
    """The first objective against each other one; against parameters or time where it is the only one."""
    known = objectives(run)
    tried, best = listed(run.get("scatter")), listed(run.get("front"))
    if len(known) == 1 and not any("seconds" in t or "params" in mapped(t.get("values")) for t in tried):
        return []
    others = known[1:] or [_against(tried)]
    found = [_front(run, known, known[0], other, tried, best) for other in others[:3]]
    return [drawn for drawn in found if drawn]


def _against(tried: Sequence[Mapping[str, Any]]) -> Objective:
    has = sum(number(mapped(t.get("values")).get("params")) is not None for t in tried)
    return objective("params") if 2 * has > len(tried) else Objective("seconds", "training time", "s", "min")


def _at(entry: Mapping[str, Any], name: str) -> float | None:
    value = number(mapped(entry.get("values")).get(name))
    return number(entry.get("seconds")) if value is None and name == "seconds" else value


def _front(
    run: Mapping[str, Any], known: Sequence[Objective], main: Objective, other: Objective,
    tried: Sequence[Mapping[str, Any]], best: Sequence[Mapping[str, Any]],
) -> Drawn | None:  # fmt: skip
    chosen = {entry.get("trial") for entry in best}
    winner = mapped(run.get("winner")).get("trial")
    cloud, rest, front, tips = [], [], [], []
    for entry in tried:
        a, b = _at(entry, other.name), _at(entry, main.name)
        if a is not None and b is not None and entry.get("trial") not in chosen:
            cloud.append((a, b))
            rest.append(_told(entry, known, other))
    of_trial = {entry.get("trial"): entry for entry in tried}
    crown = []
    for entry in best:
        whole = {**of_trial.get(entry.get("trial"), {}), **entry}
        a, b = _at(whole, other.name), _at(whole, main.name)
        if a is not None and b is not None:
            front.append((a, b))
            tips.append(_told(whole, known, other))
            crown += [(a, b)] * (entry.get("trial") == winner)
    if not cloud and not front:
        return None
    x_values, y_values = [p[0] for p in cloud + front], _seen([p[1] for p in cloud], [p[1] for p in front])
    limit = number(mapped(run.get("limits")).get(other.name))
    shown = [limit] if limit is not None and limit <= 3 * max(x_values) else []
    x = svg.across(other.label, x_values + shown, other.unit)
    y = svg.upwards(f"{main.label} on validation", y_values, main.unit)
    body = [svg.dots("cloud", x, y, cloud, 2.6 if len(cloud) > 300 else 3.2, rest)]
    if len(known) <= 2:
        body.append(svg.line("frontline", x, y, sorted(front), steps=True))
    if limit is not None:
        body.append(svg.upright("limit", x, limit, f"limit {other.show(limit)}"))
    body.append(svg.dots("front", x, y, front, 5, tips))
    body.append(svg.dots("crown", x, y, crown, 9))
    title = f"{main.label.capitalize()} against {other.label}"
    caption = (
        "Each dot is a trial. Blue: the front, which no trial beats in "
        f"{'both' if len(known) == 2 else 'all objectives'}. Ringed: the winner."
        if len(known) > 1
        else "Each dot is a trial. Blue and ringed: the best."
    )
    about = f"{len(cloud) + len(front)} trials, {len(front)} on the front"
    return Drawn(title, svg.chart(title, about, x, y, body), caption)


def _told(entry: Mapping[str, Any], known: Sequence[Objective], other: Objective) -> str:
    lines = [f"trial {entry.get('trial', words.NONE)}" + (" (stopped early)" if entry.get("state") == "pruned" else "")]
    shown = [*known, *([other] if other not in known else [])]
    lines += [f"{o.label}: {o.show(_at(entry, o.name))}" for o in shown]
    trace = mapped(entry.get("trace"))
    lines += [words.clip(f"{name} = {words.choice(trace[name])}", 44) for name in list(trace)[:8]]
    return "\n".join(lines + (["…"] if len(trace) > 8 else []))


def _seen(cloud: Sequence[float], front: Sequence[float]) -> list[float]:
    """What an axis has to show: all of the front, and the cloud without its worst twentieth where that is far off."""
    if len(cloud) < 20:
        return [*cloud, *front]
    ordered = sorted(cloud)
    high = ordered[int(0.95 * len(ordered))]
    low = min([*front, ordered[0]])
    far = ordered[-1] - low > 3 * (high - low)
    return [*[v for v in cloud if not far or v <= high], *front]


# ---------------------------------------------------------------------------------------------------------- over time
def progress(run: Mapping[str, Any]) -> Drawn | None:
    """The best validation error so far over the time spent."""
    points = pairs(run.get("best_so_far"))
    if not points:
        return None
    main = objectives(run)[0]
    end = number(run.get("seconds")) or points[-1][0]
    trail = [*points, (max(end, points[-1][0]), points[-1][1])]
    x = svg.across("time since the start", [0.0, trail[-1][0]], "s", exact=True, log=False)
    y = svg.upwards(f"best {main.label} so far", [p[1] for p in points], main.unit)
    tips = [f"after {words.duration(a)}\n{main.label}: {main.show(b)}" for a, b in points]
    body = [svg.line("frontline", x, y, trail, steps=True), svg.dots("front", x, y, points, 3.5, tips)]
    title = "Best so far over time"
    about = f"From {main.show(points[0][1])} to {main.show(points[-1][1])} in {words.duration(trail[-1][0])}"
    return Drawn(title, svg.chart(title, about, x, y, body), f"{about}, on validation.")


def learning(run: Mapping[str, Any]) -> Drawn | None:
    """Learning curves of all trials, the winner's bold."""
    winner = mapped(run.get("winner"))
    curves = {str(name): pairs(curve) for name, curve in mapped(run.get("curves")).items()}
    own = pairs(winner.get("curve")) or curves.get(str(winner.get("trial")), [])
    curves = {name: curve for name, curve in curves.items() if len(curve) > 1}
    if not curves and len(own) < 2:
        return None
    main = objectives(run)[0]
    every = [p for curve in curves.values() for p in curve]
    share = max([p[0] for p in every + own]) <= 1.0001
    title, unit = ("share of the training", "share") if share else ("epochs", "")
    x = svg.across(title, [p[0] for p in every + own], unit, exact=True, log=False)
    y = svg.upwards(f"{main.label} on validation", _seen([p[1] for p in every], [p[1] for p in own]), main.unit)
    faint = min(0.5, max(0.1, 30 / max(1, len(curves))))  # where many lie one over the other, the crowd is darker
    thin = [f'<path d="{svg.trail(x, y, _thinned(curve))}"/>' for curve in curves.values()]
    body = [f'<g class="thin" style="stroke-opacity:{faint:.2f}">{"".join(thin)}</g>', svg.line("bold", x, y, own)]
    body.append(svg.dots("bold", x, y, own, 2.5, [f"winner\n{main.label}: {main.show(p[1])}" for p in own]))
    title = "Learning curves"
    caption = f"Validation {main.label} of {len(curves):,} trials while they trained; bold: the winner."
    return Drawn(title, svg.chart(title, caption, x, y, body), caption)


def _thinned(curve: Sequence[svg.Point]) -> Sequence[svg.Point]:
    step = max(1, math.ceil(len(curve) / _MOST_POINTS))
    return curve if step == 1 else [*curve[:-1:step], curve[-1]]


# --------------------------------------------------------------------------------------------------------- on the test
def confusion(run: Mapping[str, Any]) -> Drawn | None:
    """True against predicted classes on the test split."""
    rows = mapped(run.get("detail")).get("confusion")
    square = (
        isinstance(rows, (list, tuple))
        and len(rows) > 0
        and all(isinstance(row, (list, tuple)) and len(row) == len(rows) for row in rows)
    )
    if not square:
        return None
    counts = [[int(number(c) or 0) for c in row] for row in rows]
    names = class_names(run, len(counts))
    wrong = sum(sum(row) for row in counts) - sum(counts[i][i] for i in range(len(counts)))
    caption = f"Counts on the test split; shade: share of the true class. {wrong:,} of {sum(map(sum, counts)):,} wrong."
    return Drawn("Confusion matrix", svg.matrix(counts, names), caption)


def class_names(run: Mapping[str, Any], count: int) -> list[str]:
    """Names of the classes; numbers where they are not recorded."""
    names = mapped(run.get("data")).get("classes")
    known = [str(name) for name in names] if isinstance(names, (list, tuple)) else []
    return known[:count] + [str(i) for i in range(len(known), count)]


def confused(run: Mapping[str, Any], most: int = 8) -> list[tuple[str, str, int]]:
    """The pairs (true, predicted) that are mistaken most often, with counts; for more classes than a picture shows."""
    rows = mapped(run.get("detail")).get("confusion")
    if not isinstance(rows, (list, tuple)) or len(rows) <= 12:
        return []
    names = class_names(run, len(rows))
    found = [(int(c), i, j) for i, row in enumerate(rows) if isinstance(row, (list, tuple))
             for j, c in enumerate(row) if i != j and j < len(names) and number(c)]  # fmt: skip
    return [(names[i], names[j], c) for c, i, j in sorted(found, key=lambda f: (-f[0], f[1], f[2]))[:most]]


def calibration(run: Mapping[str, Any]) -> Drawn | None:
    """How often the network is right, against how sure it is."""
    bins = []
    for entry in listed(mapped(run.get("detail")).get("calibration")):
        sure, right, count = (number(entry.get(key)) for key in ("confidence", "accuracy", "count"))
        if sure is not None and right is not None and count:
            bins.append((sure, right, count))
    if not bins:
        return None
    total = sum(b[2] for b in bins)
    gap = sum(b[2] * abs(b[0] - b[1]) for b in bins) / total
    low = min([0.5, *[b[0] for b in bins], *[b[1] for b in bins]])
    x = svg.across("confidence: probability of the predicted class", [low, 1.0], "share", exact=True, log=False)
    y = svg.upwards("share that is right", [low, 1.0], "share", exact=True, log=False)
    body = [svg.line("reference", x, y, [(low, low), (1.0, 1.0)])]
    for sure, right, count in sorted(bins, key=lambda b: -b[2]):
        tip = f"confidence {words.value(sure, 'share')}\nright {words.value(right, 'share')}\n{round(count):,} samples"
        body.append(svg.dots("front", x, y, [(sure, right)], 3 + 11 * math.sqrt(count / total), [tip]))
    caption = (
        f"On the dashed line the network is as sure as it is right; below it, too sure. Area: number of samples. "
        f"Mean distance {words.value(gap, 'share')}."
    )
    return Drawn("Calibration", svg.chart("Calibration", caption, x, y, body), caption)


def regression(run: Mapping[str, Any]) -> list[Drawn]:
    """Predicted against true numbers on the test split, and the distribution of what is left."""
    detail = mapped(run.get("detail"))
    raw = zip(_column(detail.get("true")), _column(detail.get("predicted")), strict=False)
    points = [(t, p) for t, p in raw if t is not None and p is not None]
    if not points:
        return []
    target = words.clip(mapped(run.get("data")).get("target") or "target", 30)
    both = [v for p in points for v in p]
    x = svg.across(f"true {target}", both, log=False)
    y = svg.upwards(f"predicted {target}", both, log=False)
    ends = [(min(both), min(both)), (max(both), max(both))]
    tips = [f"true {words.value(t)}\npredicted {words.value(p)}\nresidual {words.value(p - t)}" for t, p in points]
    kind = "cloud strong" if len(points) <= 500 else "cloud"
    body = [svg.line("reference", x, y, ends), svg.dots(kind, x, y, points, 3, tips)]
    title = "Predicted against true"
    drawn = [Drawn(title, svg.chart(title, f"{len(points)} test samples", x, y, body),
                   f"{len(points):,} test samples; on the dashed line a prediction is right.")]  # fmt: skip
    return [*drawn, _residuals([p - t for t, p in points], target)]


def _column(values: Any) -> list[float | None]:
    """Numbers, or the first of each row where several are predicted."""
    rows = values if isinstance(values, (list, tuple)) else ()
    return [number(row[0] if isinstance(row, (list, tuple)) and row else row) for row in rows]


def _residuals(left: Sequence[float], target: str) -> Drawn:
    ordered = sorted(left)
    count = len(ordered)
    low, high = ordered[int(0.005 * count)], ordered[min(count - 1, int(0.995 * count))]
    if high <= low:
        low, high = low - 0.5, high + 0.5
    n = max(5, min(40, round(2 * count ** (1 / 3))))
    edges = [low + (high - low) * k / n for k in range(n + 1)]
    heights = [0] * n
    for value in ordered:
        heights[min(n - 1, max(0, int((value - low) / (high - low) * n)))] += 1
    x = svg.across(f"residual: predicted − true {target}", [low, high], log=False)
    y = svg.upwards("test samples", [float(h) for h in heights], zero=True)
    tips = [
        f"{words.value(a)} to {words.value(b)}\n{h:,} samples"
        for a, b, h in zip(edges[:-1], edges[1:], heights, strict=True)
    ]
    body = [svg.bars("bars", x, y, edges, [float(h) for h in heights], tips), svg.upright("reference", x, 0.0, "")]
    mean = sum(ordered) / count
    caption = (
        f"Mean {words.value(mean)}, median {words.value(ordered[count // 2])}; the outermost bars hold what is beyond."
    )
    return Drawn("Residuals", svg.chart("Residuals", caption, x, y, body), caption)
