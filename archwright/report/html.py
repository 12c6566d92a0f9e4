"""`render`: the record of a search and its winner as one HTML file that needs nothing else.

The text is laid out by report.html.jinja beside this file, which escapes whatever it is given; charts are SVG made by
`archwright.report.figures`. The page loads nothing, and says so to the browser. Every key of the record may be absent:
a section about which nothing is known is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from archwright.exchange.draw import draw
from archwright.net.net import Net
from archwright.report import figures, words
from archwright.report.figures import Objective, listed, mapped
from archwright.report.words import number, value

_HERE = Path(__file__).parent
_MOST_NODES = 60
_MOST_REASONS = 30
_MOST_FRONT = 40
_MOST_NAMES = 60

Input = tuple[str, Sequence[int | None], str]


def render(run: Mapping[str, Any], net: Net, inputs: Sequence[Input] = ()) -> str:
    """The report as HTML text.

    run     the record of a search, plain data; see `archwright.flows.bundle`
    net     the winner, which is drawn and costed
    inputs  name, shape with None for the batch, and dtype of what model.onnx takes; those of the net if not given
    """
    from markupsafe import Markup

    found = inputs or [(n.name, n.attrs["shape"], n.attrs.get("dtype", "float32")) for n in net.graph.inputs]

    def drawn(*charts: figures.Drawn | None) -> list[dict[str, Any]]:
        return [{"title": c.title, "svg": Markup(c.svg), "caption": c.caption} for c in charts if c]

    context = {
        "title": _title(run),
        "headline": _headline(run, net),
        "tiles": _tiles(run, net),
        "scores": _scores(run),
        "search": drawn(*figures.fronts(run), figures.progress(run), figures.learning(run)),
        "quality": drawn(figures.confusion(run), figures.calibration(run), *figures.regression(run)),
        "confused": figures.confused(run),
        "classes": _classes(run),
        "front": _front(run),
        "picture": Markup(draw(net)),
        "costs": _costs(run, net),
        "nodes": _nodes(net),
        "members": _members(run),
        "choices": _choices(mapped(run.get("winner")).get("trace")),
        "training": _choices(mapped(run.get("winner")).get("training")),
        "trials": _trials(run),
        "data": _data(run),
        "notices": [str(n) for n in mapped(run.get("data")).get("notices") or ()],
        "python": _python(run),
        "onnx": _onnx(run, found),
        "shell": _shell(),
        "no_onnx": str(run.get("onnx") or ""),
        "facts": _facts(run),
    }
    return _template().render(context)


@cache
def _template() -> Any:
    import jinja2

    there = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return there.get_template("report.html.jinja")


# ----------------------------------------------------------------------------------------------------------- headline
def _title(run: Mapping[str, Any]) -> str:
    return words.clip(mapped(run.get("data")).get("name") or "Network", 80)


def _main(run: Mapping[str, Any]) -> tuple[Objective, float | None, float | None]:
    """The first objective that was tested, its value on the test split, and the trivial predictor's."""
    test, known = mapped(run.get("test")), figures.objectives(run)
    found = next((o for o in known if o.name in test), None)
    if found is None:
        name = "error" if "error" in test or not test else str(next(iter(test)))
        found = known[0] if name == "error" and known[0].name == "error" else _metric(run, name)
    return found, number(test.get(found.name)), number(mapped(run.get("baseline")).get(found.name))


def _metric(run: Mapping[str, Any], name: str) -> Objective:
    """A metric of the test split: an objective, or what is known of it by its name."""
    for o in figures.objectives(run):
        if o.name == name:
            return o
    regression = mapped(run.get("data")).get("task") == "regression"
    shares = not regression and (name == "error" or any(part in name for part in ("accuracy", "precision", "recall")))
    return figures.objective(name, "share" if shares else "", "min" if name == "error" else "max")


def _headline(run: Mapping[str, Any], net: Net) -> str:
    data = mapped(run.get("data"))
    params = words.count(number(mapped(run.get("cost")).get("params")) or net.cost().params)
    main, test, baseline = _main(run)
    count = number(mapped(data.get("samples")).get("test"))
    target = data.get("target")
    of = f" of “{words.clip(target, 40)}”" if target else ""
    if test is None:
        return f"A network of {params} parameters{of and ' that predicts ' + of[4:]}. No test figure is recorded."
    begun = mapped(run.get("start"))  # a network that was there may know test samples from its own training
    unseen = " that the search never saw" if not begun or begun.get("clean") is True else ""
    samples = f" on {round(count):,} test samples{unseen}" if count else " on the test split"
    if data.get("task") == "regression":
        text = f"A network of {params} parameters predicts{of[3:] or ' the target'} with {_root(main)}{main.show(test)}"
    elif main.name == "error":
        text = f"A network of {params} parameters gets the class{of} wrong in {main.show(test)} of cases"
    else:
        text = f"A network of {params} parameters reaches {main.label} {main.show(test)}"
    text += samples
    if baseline is None:
        return text + "."
    trivial = (
        "always saying the mean" if data.get("task") == "regression" else "knowing only how frequent each class is"
    )
    return f"{text}; {trivial} gives {main.show(baseline)}."


def _root(main: Objective) -> str:
    return "a root mean squared error of " if main.name == "error" else f"{main.label} "


def _tiles(run: Mapping[str, Any], net: Net) -> list[dict[str, Any]]:
    """The figures that matter most: name, value, and notes below."""
    main, test, baseline = _main(run)
    cost, own = mapped(run.get("cost")), net.cost()
    limits = mapped(run.get("limits"))
    tiles = []
    if test is not None:
        count = number(mapped(mapped(run.get("data")).get("samples")).get("test"))
        notes = [f"baseline {main.show(baseline)}"] if baseline is not None else []
        if main.name in ("error", "accuracy") and main.unit == "share" and count and 0 <= test <= 1:
            low, high = _wilson(test, count)
            notes.append(f"95 % interval {_span(main, low, high)}")
        name = "root mean squared error" if main.name == "error" and main.unit != "share" else main.label
        tiles.append({"name": f"Test {name}", "value": main.show(test), "notes": notes})
    known = {"params": own.params, "bytes": own.param_bytes + own.buffer_bytes}
    for key, name in (
        ("params", "Parameters"),
        ("bytes", "Size of the weights"),
        ("latency_s", "Latency of one sample"),
    ):
        found = number(cost.get(key))
        found = known.get(key) if found is None else found
        if found is None:
            continue
        notes = []
        limit = number(limits.get(key, limits.get(key.removesuffix("_s"))))
        if limit is not None:
            notes.append(f"limit {value(limit, words.UNITS[key])}")
        if key == "latency_s":
            runs = number(cost.get("latency_runs"))
            notes += ["ONNX Runtime, one thread"] + ([f"median of {round(runs):,} runs"] if runs else [])
        elif key == "params":
            notes.append(f"{value(number(cost.get('flops')) or own.flops, 'FLOPs')} a sample")
        tiles.append({"name": name, "value": value(found, words.UNITS[key]), "notes": notes})
    return tiles


def _span(main: Objective, low: float, high: float) -> str:
    return f"{main.show(low).removesuffix(words.PERCENT)} – {main.show(high)}"


def _wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share of n samples."""
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _scores(run: Mapping[str, Any]) -> list[list[str]]:
    """Rows (metric, validation, test, baseline on test)."""
    valid = mapped(mapped(run.get("winner")).get("valid"))
    test, baseline = mapped(run.get("test")), mapped(run.get("baseline"))
    rows = []
    for name in dict.fromkeys([*test, *valid]):
        m = _metric(run, str(name))
        arrow = "less is better" if m.direction == "min" else "more is better"
        rows.append([m.label, arrow, *[m.show(found.get(name)) for found in (valid, test, baseline)]])
    return rows


def _classes(run: Mapping[str, Any]) -> list[list[str]]:
    """Rows (class, precision, recall, samples)."""
    rows = []
    for entry in listed(mapped(run.get("detail")).get("per_class")):
        shares = [value(entry.get(key), "share") for key in ("precision", "recall")]
        rows.append([words.clip(entry.get("class"), 60), *shares, value(entry.get("count"))])
    return rows


# ------------------------------------------------------------------------------------------------------------- tables
def _front(run: Mapping[str, Any]) -> dict[str, Any]:
    """The front as a table; the choices of a network are what hovering shows."""
    known, best = figures.objectives(run), listed(run.get("front"))
    winner = mapped(run.get("winner")).get("trial")
    first = known[0]
    best = sorted(best, key=lambda e: (number(mapped(e.get("values")).get(first.name)) or 0.0)
                  * (1 if first.direction == "min" else -1))  # fmt: skip
    rows = [
        {
            "cells": [str(entry.get("trial", words.NONE)),
                      *[o.show(mapped(entry.get("values")).get(o.name)) for o in known]],
            "choices": ", ".join([f"{k} {words.choice(v)}" for k, v in mapped(entry.get("trace")).items()]),
            "winner": entry.get("trial") == winner and winner is not None,
        }
        for entry in best
    ]  # fmt: skip
    head = ["trial", *[o.label for o in known]]
    return {"head": head, "rows": rows[:_MOST_FRONT], "more": max(0, len(rows) - _MOST_FRONT)}


def _members(run: Mapping[str, Any]) -> dict[str, Any]:
    """The networks that the winner is the mean of, if they are several."""
    found = listed(mapped(run.get("winner")).get("members"))
    metrics = list(dict.fromkeys([str(name) for one in found for name in mapped(one.get("valid"))]))
    shown = [_metric(run, name) for name in metrics]
    rows = [
        {
            "cells": [str(one.get("trial", words.NONE)), value(one.get("copies")),
                      *[m.show(mapped(one.get("valid")).get(name)) for m, name in zip(shown, metrics, strict=True)]],
            "choices": ", ".join([f"{k} {words.choice(v)}" for k, v in mapped(one.get("trace")).items()]),
        }
        for one in found
    ]  # fmt: skip
    count = sum([int(number(one.get("copies")) or 0) for one in found])
    return {"head": ["trial", "copies", *[m.label for m in shown]], "rows": rows[:_MOST_FRONT], "count": count}


def _costs(run: Mapping[str, Any], net: Net) -> list[list[str]]:
    """Rows (what, how much, how it is counted)."""
    cost, own = mapped(run.get("cost")), net.cost()
    rows = [
        ("params", own.params, "numbers that were trained"),
        ("bytes", own.param_bytes + own.buffer_bytes, "as 32-bit floats, constants included"),
        ("flops", own.flops, "multiply-add counts two; exact, from the graph"),
        ("activation_bytes", own.peak_bytes, "most that is alive at once, for one sample"),
        ("traffic_bytes", own.traffic_bytes, "read and written for one sample; stands for energy"),
        ("latency_s", None, "measured on the machine of the search, one sample, one thread"),
    ]
    found = []
    for key, counted, how in rows:
        n = number(cost.get(key))
        n = counted if n is None else n
        if n is not None:
            found.append([words.label(key), value(n, words.UNITS[key]), how])
    return found


def _nodes(net: Net) -> dict[str, Any]:
    """The operations with weights or work, in the order of execution."""
    cost = net.cost()
    busy = [n for n in cost.per_node if n.params or n.flops]
    chosen = busy
    if len(busy) > _MOST_NODES:
        heavy = sorted(busy, key=lambda n: -(n.flops + n.params))[:_MOST_NODES]
        names = {n.name for n in heavy}
        chosen = [n for n in busy if n.name in names]
    total = max(1, cost.flops)
    rows = [
        {
            "cells": [n.name, n.op, " × ".join(["N", *map(str, n.outputs[0].shape[1:])]), words.count(n.params),
                      words.scaled(n.flops, "")],
            "share": round(100 * n.flops / total, 1),
        }
        for n in chosen
    ]  # fmt: skip
    return {"rows": rows, "more": len(cost.per_node) - len(chosen)}


def _choices(found: Any) -> list[list[str]]:
    shown = {"seconds": lambda v: value(v, "s")}
    return [[words.clip(k, 60), shown.get(str(k), words.choice)(v)] for k, v in mapped(found).items()]


def _trials(run: Mapping[str, Any]) -> dict[str, Any]:
    counts = mapped(run.get("trials"))
    said = {"complete": "finished", "pruned": "given up as hopeless", "stopped": "cut short by the end of the search",
            "failed": "failed"}  # fmt: skip
    told = [f"{round(n):,} {text}" for key, text in said.items() if (n := number(counts.get(key))) is not None]
    reasons: dict[str, list[str]] = {}
    for failure in listed(run.get("failures")):
        reasons.setdefault(words.clip(failure.get("reason") or "no reason recorded", 300), []).append(
            str(failure.get("trial", words.NONE))
        )
    ordered = sorted(reasons.items(), key=lambda found: -len(found[1]))
    rows = [[reason, f"{len(which):,}", ", ".join(which[:12]) + (", …" if len(which) > 12 else "")]
            for reason, which in ordered[:_MOST_REASONS]]  # fmt: skip
    return {"told": ", ".join(told), "rows": rows, "more": max(0, len(ordered) - _MOST_REASONS)}


def _data(run: Mapping[str, Any]) -> list[list[str]]:
    data = mapped(run.get("data"))
    samples = mapped(data.get("samples"))
    use = {"train": "to train", "valid": "to validate", "test": "to test"}
    parts = [f"{round(n):,} {told}" for key, told in use.items() if (n := number(samples.get(key))) is not None]
    shapes = [" × ".join(["N" if n is None else str(n) for n in shape]) for shape in data.get("inputs") or ()
              if isinstance(shape, (list, tuple))]  # fmt: skip
    rows: list[list[Any]] = [
        ["Data", data.get("name")], ["Kind", data.get("kind")], ["Task", data.get("task")],
        ["Target", data.get("target")], ["Samples", ", ".join(parts)], ["Split", data.get("split")],
        ["Raw inputs", ", ".join(shapes)], ["Features", _names(data.get("features"))],
        ["Classes", _names(data.get("classes"))],
    ]  # fmt: skip
    return [[name, str(found)] for name, found in rows if found not in (None, "")]


def _names(names: Any) -> str:
    if not isinstance(names, (list, tuple)) or not names:
        return ""
    shown = ", ".join([words.clip(name, 40) for name in names[:_MOST_NAMES]])
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return f"{len(names):,}: {shown}{more}"


def _facts(run: Mapping[str, Any]) -> list[list[str]]:
    versions, machine = mapped(run.get("versions")), mapped(run.get("machine"))
    budget, spent = number(run.get("budget_s")), number(run.get("seconds"))
    limits, known = mapped(run.get("limits")), figures.objectives(run) if run.get("objectives") else []
    rows: list[list[Any]] = [
        ["Command", run.get("command")],
        ["Space", run.get("space")],
        ["Strategy", run.get("strategy")],
        ["Objectives", ", ".join([f"{o.label} ({o.direction})" for o in known])],
        [
            "Limits",
            ", ".join([f"{words.label(str(k))} {value(v, words.UNITS.get(str(k), ''))}" for k, v in limits.items()]),
        ],
        ["Seed", run.get("seed")],
        ["Started", run.get("started")],
        ["Finished", run.get("finished")],
        ["Budget", words.duration(budget) if budget else None],
        ["Time spent", words.duration(spent) if spent else None],
        ["archwright", run.get("archwright")],
        ["Versions", ", ".join([f"{k} {v}" for k, v in versions.items()])],
        ["Machine", ", ".join([f"{k} {words.choice(v)}" for k, v in machine.items()])],
    ]
    return [[name, str(found)] for name, found in rows if found not in (None, "")]


# ------------------------------------------------------------------------------------------------------- how to load
def _python(run: Mapping[str, Any]) -> str:
    data = mapped(run.get("data"))
    kind, classes = data.get("kind"), data.get("task") != "regression"
    table = kind not in ("image", "signal")
    lines = [*(["import pandas"] if table else []), "from archwright import Bundle", ""]
    lines.append('bundle = Bundle.load("BUNDLE")   # the folder of this report')
    if table:
        lines.append('X = pandas.read_csv("new.csv")   # the columns that it was trained on, in any order')
    elif kind == "image":
        lines.append("X = images   # an array [n, height, width] or a list of images of any size")
    else:
        lines.append("X = signals   # an array [n, channels, time] or a list of signals of any length")
    lines.append("labels = bundle.predict(X)" if classes else "numbers = bundle.predict(X)   # in the target's units")
    return "\n".join(lines + (["chances = bundle.predict_proba(X)   # [n, classes]"] if classes else []))


def _onnx(run: Mapping[str, Any], inputs: Sequence[Input]) -> str:
    """The snippet for ONNX Runtime; names are written as JSON strings, which are Python's too."""
    classes = mapped(run.get("data")).get("task") != "regression"
    lines = ["import numpy as np, onnxruntime", "", 'session = onnxruntime.InferenceSession("BUNDLE/model.onnx")']
    said = {
        "numbers": "   # raw numbers, NaN where missing",
        "categories": "   # codes as recipe.json lists them; 0: unknown",
        "image": "   # pixels as they are", "signal": "   # raw values, NaN after the end",
    }  # fmt: skip
    lines.append("feeds = {")
    for name, shape, dtype in inputs:
        sizes = ", ".join(["1" if n is None else str(n) for n in shape])
        lines.append(f"    {json.dumps(str(name))}: np.zeros([{sizes}], {json.dumps(dtype)}),{said.get(str(name), '')}")
    gives = "probabilities   # [n, classes]" if classes else "numbers   # [n, targets], in the target's units"
    name, _, comment = gives.partition("   ")
    return "\n".join([*lines, "}", f"[{name}] = session.run(None, feeds)   {comment}"])


def _shell() -> str:
    return "archwright predict BUNDLE new.csv\narchwright inspect BUNDLE"
