"""Model cards: what a network is, what it is for, and how well it does for whom, in nine sections.

The sections are the paper's: model details, intended use, factors, metrics, evaluation data, training data,
quantitative analyses, ethical considerations, caveats and recommendations. Each is filled from what is recorded of the
network's making (`run`) and from the network itself; one about which nothing is recorded says so (`missing` lists
them), because an author has to see that it is empty. Front matter is that of the Hugging Face hub.

Quantitative analyses are worked out from outcomes of single samples, `run["groups"]`: [{"group": {factor: value},
"right": [0, 1, ...]}, ...], as `outcomes` records them. For each factor, each pair of factors, and all factors together
every group that occurs has

    accuracy          a = right / count
    Wilson's interval (a + z^2 / 2n +- z sqrt(a (1 - a) / n + z^2 / 4n^2)) / (1 + z^2 / n)

n = count, z the normal quantile of `level`. Groups of one table share out all samples, so their accuracies weighted by
counts are the overall accuracy, exactly.

Fields of `run` that are read, all optional: name, description, date, author, license, language, tags, citation, data
{name, kind, task, classes, train, valid, test, source}, training {...}, metrics [{name, split, value, unit}], groups,
uses, users, not_for, factors, ethics, limits, recommendations, versions {...}, command. The same record gives the same
bytes, whatever the order of its fields: nothing is looked up, and no date but the recorded one is written.

Cost: reading the outcomes once for each table. Fails to be of use where nobody records groups: the card then only says
that they are missing. Intervals are for independent samples, one at a time, not for all groups together. Differs from
the paper: groups have accuracies, not rates of each kind of error.

Mitchell, Wu, Zaldivar, Barnes, Vasserman, Hutchinson, Spitzer, Raji, Gebru: Model Cards for Model Reporting, 2018,
arXiv 1810.03993.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from archwright.core.records import MISSING, Claim
from archwright.data.data import Data
from archwright.errors import DataError, FormatError
from archwright.kit.losses import predict
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "zoo",
    "name": "model_cards",
    "id": "model-cards",
    "title": "Model Cards for Model Reporting",
    "year": 2018,
    "arxiv": "1810.03993",
    "needs": [],
    "extras": [],
    "example": {},
    "exact": "Accuracies of the groups of a table, weighted by their counts, are the overall accuracy; the same record "
    "gives the same bytes.",
    "claim": {
        "text": "Digits, three factors: greatest difference between overall accuracy and the accuracies of a table's "
        "groups weighted by counts; the card of the saved run is byte-identical, and empty sections are flagged.",
        "paper": "none: a framework, shown on two models",
    },
}

SECTIONS = (
    "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data", "Quantitative analyses",
    "Ethical considerations", "Caveats and recommendations",
)  # fmt: skip
NOWHERE = "not recorded"
"""The value of a factor for samples that have none."""


@dataclass(frozen=True)
class Group:
    """The samples that have these values of these factors: how many, and how many of them are right."""

    values: tuple[str, ...]
    right: int
    count: int

    @property
    def accuracy(self) -> float:
        """Share of right ones; NaN where there is no sample."""
        return self.right / self.count if self.count else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Wilson's confidence interval of the accuracy; (0, 1) where there is no sample."""
        if not 0 < level < 1:
            raise FormatError(f"got level={level}, expected a share above 0 and below 1")
        if not self.count:
            return 0.0, 1.0
        z, n, a = NormalDist().inv_cdf((1 + level) / 2), self.count, self.accuracy
        half = z * math.sqrt(a * (1 - a) / n + z * z / (4 * n * n))
        middle, scale = a + z * z / (2 * n), 1 + z * z / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def tables(recorded: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], tuple[Group, ...]]:
    """Factors -> their groups, sorted: () for all samples, then each factor, each pair, and all factors together.

    `recorded` is `run["groups"]`. Raises `FormatError` if it is not as the head of the file says.
    """
    samples: list[tuple[Mapping[str, str], int, int]] = []
    for entry in recorded:
        group, right = (entry.get("group"), entry.get("right")) if isinstance(entry, Mapping) else (None, None)
        if not isinstance(group, Mapping) or not isinstance(right, Sequence) or any(r not in (0, 1) for r in right):
            expected = "{'group': {factor: value}, 'right': [0, 1, ...]}"
            raise FormatError(f"recorded group is {str(entry)[:80]}, expected {expected}")
        samples.append(({str(k): _line(v) for k, v in group.items()}, sum(map(int, right)), len(right)))
    factors = sorted({name for group, _, _ in samples for name in group})
    found: dict[tuple[str, ...], tuple[Group, ...]] = {}
    for size in sorted({0, 1, 2, len(factors)}):
        for names in combinations(factors, size):
            counts: dict[tuple[str, ...], list[int]] = {}
            for group, right, count in samples:
                sums = counts.setdefault(tuple([group.get(name, NOWHERE) for name in names]), [0, 0])
                sums[0], sums[1] = sums[0] + right, sums[1] + count
            found[names] = tuple([Group(values, *sums) for values, sums in sorted(counts.items())])
    return found


def outcomes(net: Net, data: Data, factors: Mapping[str, ArrayLike], *, split: str = "test") -> list[dict[str, Any]]:
    """What a card's groups are worked out from: which samples of a split the net gets right, by the values of factors.

    `factors`: name -> one value for each sample of the data (of all splits). Raises `DataError` if they do not fit.
    """
    if data.task != "classification":
        raise DataError(f"data '{data.name}' are for {data.task}, expected classification: outcomes are right or wrong")
    values = {name: np.asarray(of) for name, of in sorted(factors.items())}
    wrong = [name for name, of in values.items() if of.shape != (len(data.target),)]
    if wrong:
        raise DataError(f"factor '{wrong[0]}' has shape {values[wrong[0]].shape}, expected ({len(data.target)},)")
    x, y = data.tensors(split)
    right = (predict(build(net), x).argmax(-1) == y).int().tolist()
    found: dict[tuple[str, ...], list[int]] = {}
    for sample, good in zip(np.asarray(data.splits[split]).tolist(), right, strict=True):
        found.setdefault(tuple([str(of[sample]) for of in values.values()]), []).append(good)
    return [{"group": dict(zip(values, key, strict=True)), "right": found[key]} for key in sorted(found)]


def card(net: Net, run: Mapping[str, Any], *, level: float = 0.95) -> str:
    """The card as Markdown. Raises `FormatError` for groups that are not as the head of the file says."""
    found = tables(run.get("groups") or ())
    data = run.get("data") or {}
    bodies = (
        _details(net, run), _use(run), _factors(run, found), _metrics(run, found, level), _evaluation(data, found),
        _training(run, data), _analyses(found, level), _bullets(run.get("ethics")), _caveats(run, found, level),
    )  # fmt: skip
    title = _line(run["name"]) if run.get("name") else "Network"
    parts = [f"---\n{_front(run, title)}---", f"# {title}"]
    if run.get("description"):
        parts.append(_line(run["description"]))
    for heading, body in zip(SECTIONS, bodies, strict=True):
        parts += [f"## {heading}", body or MISSING]
    return "\n\n".join(parts) + "\n"


def missing(text: str) -> tuple[str, ...]:
    """The sections of a card about which nothing is recorded."""
    found = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return tuple([name for name, body in zip(found[::2], found[1::2], strict=True) if body.strip() == MISSING])


# --------------------------------------------------------------------------------------------------------- sections
def _details(net: Net, run: Mapping[str, Any]) -> str:
    cost = net.cost()
    facts = {
        "Author": run.get("author"),
        "Date": run.get("date"),
        "License": run.get("license"),
        "Parameters": f"{cost.params:,}",
        "FLOPs a sample": f"{cost.flops:,}",
        "Inputs": ", ".join([_shape(node.attrs["shape"]) for node in net.graph.inputs]),
        "Operations": len(net.graph) - len(net.graph.inputs),
        "Versions": run.get("versions"),
        "Command": f"`{_line(run['command'])}`" if run.get("command") else None,
        "Citation": run.get("citation"),
    }
    return "\n".join([f"- {name}: {MISSING if _empty(v) else _value(v)}" for name, v in facts.items()])


def _use(run: Mapping[str, Any]) -> str:
    return _titled({"Uses": run.get("uses"), "Users": run.get("users"), "Not for": run.get("not_for")})


def _factors(run: Mapping[str, Any], found: Mapping[tuple[str, ...], tuple[Group, ...]]) -> str:
    lines = []
    for names, groups in found.items():
        if len(names) == 1:
            lines.append(f"- {names[0]}: {', '.join([g.values[0] for g in groups])}")
    stated = _bullets(run.get("factors"))
    return "\n".join([*lines, *([stated] if stated else [])])


def _metrics(run: Mapping[str, Any], found: Mapping[tuple[str, ...], tuple[Group, ...]], level: float) -> str:
    named = [m for m in run.get("metrics") or () if m.get("name")]
    rows = [[m["name"], m.get("split"), m.get("value"), m.get("unit")] for m in named]
    text = _table(["metric", "split", "value", "unit"], rows) if rows else ""
    if len(found) > 1:
        said = f"Groups have the share of right answers, with Wilson's interval at the level {level:g}."
        text = f"{text}\n\n{said}" if text else said
    return text


def _evaluation(data: Mapping[str, Any], found: Mapping[tuple[str, ...], tuple[Group, ...]]) -> str:
    facts = {"Data": data.get("name"), "Source": data.get("source"), "Test samples": data.get("test")}
    count = sum(group.count for group in found[()])
    facts["Samples with recorded outcomes"] = count or None
    return _known(facts)


def _training(run: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    facts = {
        "Data": data.get("name"), "Source": data.get("source"), "Kind": data.get("kind"), "Task": data.get("task"),
        "Classes": data.get("classes"), "Training samples": data.get("train"), "Validation samples": data.get("valid"),
    }  # fmt: skip
    made = run.get("training") or {}
    return _known(facts | {f"Training, {name}": made[name] for name in sorted(made)})


def _analyses(found: Mapping[tuple[str, ...], tuple[Group, ...]], level: float) -> str:
    texts = []
    for names, groups in found.items():
        if not any(group.count for group in groups):
            continue
        rows = []
        for group in groups:
            low, high = group.interval(level)
            span = f"{low:.3f} to {high:.3f}"
            rows.append([*group.values, group.count, f"{group.accuracy:.3f}" if group.count else MISSING, span])
        kind = "All samples" if not names else "By " + " and ".join(names)
        head = [*names, "samples", "accuracy", f"{100 * level:g} % interval"]
        texts.append(f"### {kind}\n\n{_table(head, rows)}")
    return "\n\n".join(texts)


def _caveats(run: Mapping[str, Any], found: Mapping[tuple[str, ...], tuple[Group, ...]], level: float) -> str:
    text = _titled({"Limits": run.get("limits"), "Recommendations": run.get("recommendations")})
    overall = found[()]
    lines = [text] if text else []
    for names, groups in found.items():
        counted = [group for group in groups if group.count]
        if len(names) == 1 and len(counted) > 1:
            worst = min(counted, key=lambda group: (group.accuracy, group.values))
            if worst.interval(level)[1] < overall[0].accuracy:
                lines.append(f"Less right than on average for {names[0]} {worst.values[0]}: {worst.accuracy:.3f}.")
    return "\n\n".join(lines)


# ------------------------------------------------------------------------------------------------------ front matter
def _front(run: Mapping[str, Any], title: str) -> str:
    """YAML for the hub: license, tags, and the recorded metrics as a model index."""
    from huggingface_hub import EvalResult, ModelCardData

    data = run.get("data") or {}
    results = [
        EvalResult(
            task_type=_line(data.get("task") or "other"), dataset_type=_slug(data["name"]),
            dataset_name=_line(data["name"]), metric_type=_slug(m["name"]), metric_name=_line(m["name"]),
            metric_value=m["value"], dataset_split=_line(m["split"]) if m.get("split") else None,
        )
        for m in run.get("metrics") or ()
        if data.get("name") and m.get("name") and not _empty(m.get("value"))
    ]  # fmt: skip
    tags = ["archwright", *[_line(tag) for tag in run.get("tags") or ()]]
    made = ModelCardData(
        language=run.get("language"), license=run.get("license"), library_name="archwright", tags=tags,
        model_name=title, eval_results=results or None,
    )  # fmt: skip
    return str(made.to_yaml(line_break="\n")).strip("\n") + "\n"


# ----------------------------------------------------------------------------------------------------------- wording
def _empty(value: Any) -> bool:
    number = isinstance(value, float) and not math.isfinite(value)
    return number or value is None or (isinstance(value, (str, Mapping, list, tuple)) and not value)


def _line(value: Any) -> str:
    """Any text on one line, so that it cannot open a section of its own."""
    return " ".join(str(value).split())


def _value(value: Any) -> str:
    if _empty(value):
        return MISSING
    if isinstance(value, Mapping):
        return ", ".join([f"{_line(k)} {_value(value[k])}" for k in sorted(value)])
    if isinstance(value, (list, tuple)):
        return ", ".join([_value(item) for item in value])
    return f"{value:.6g}" if isinstance(value, float) else _line(value)


def _slug(value: Any) -> str:
    return re.sub(r"[^a-z0-9]+", "-", str(value).lower()).strip("-") or "unnamed"


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join(["batch" if n is None else str(n) for n in shape]) + "]"


def _known(facts: Mapping[str, Any]) -> str:
    return "\n".join([f"- {_line(name)}: {_value(value)}" for name, value in facts.items() if not _empty(value)])


def _bullets(items: Any) -> str:
    items = [items] if isinstance(items, str) else items or ()
    return "\n".join([f"- {_value(item)}" for item in items if not _empty(item)])


def _titled(lists: Mapping[str, Any]) -> str:
    made = {name: _bullets(items) for name, items in lists.items()}
    return "\n\n".join([f"{name}:\n\n{text}" for name, text in made.items() if text])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *[[_value(cell) for cell in row] for row in rows]]
    return "\n".join(["| " + " | ".join([cell.replace("|", "\\|") for cell in line]) + " |" for line in lines])


def claim(*, seed: int = 0) -> Claim:
    """A perceptron on digits, its outcomes by parity, thickness and half of the data, and the cards made of them."""
    import json
    from fractions import Fraction

    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.kit.digits import perceptron

    data = builtin("digits", seed)
    start = perceptron(data, (32,), seed=seed)
    net, _ = train.fit(start, data, Budget(steps=200), np.random.default_rng(seed), evaluations=1, keep="last")
    ink = data.inputs[0].reshape(len(data.target), -1).mean(1)
    factors = {
        "parity": np.where(data.target % 2, "odd", "even"),
        "stroke": np.where(ink > np.median(ink), "thick", "thin"),
        "writer": np.where(np.arange(len(ink)) < len(ink) // 2, "first half", "second half"),
    }
    error = train.evaluate(net, data)
    run = {
        "name": "digits", "date": "2025-01-31", "data": {"name": "digits", "task": "classification"},
        "metrics": [{"name": "error", "split": "test", "value": error, "unit": "share"}],
        "groups": outcomes(net, data, factors), "limits": ["digits of 8 by 8 pixels"],
    }  # fmt: skip
    found = tables(run["groups"])
    overall = Fraction(found[()][0].right, found[()][0].count)
    away: list[Fraction] = []
    for groups in found.values():
        count = sum(g.count for g in groups)
        total = sum([Fraction(g.right, g.count) * g.count for g in groups], Fraction(0))
        away.append(abs(total / count - overall))
    text = card(net, run)
    same = text == card(net, json.loads(json.dumps(run, sort_keys=True)))
    empty = missing(text)
    flagged = empty == ("Intended use", "Ethical considerations") and len(missing(card(net, {}))) == 8
    whole = abs(float(overall) - (1 - error)) < 1e-9
    return Claim(
        float(max(away)),
        "share",
        "0, byte-identical, empty sections flagged",
        max(away) == 0 and same and flagged and whole,
        "none",
        {"tables": float(len(found)), "groups": float(sum(map(len, found.values()))), "byte-identical": float(same),
         "sections flagged": float(len(empty)), "least accurate group": min(g.accuracy for g in found["parity",])},
    )  # fmt: skip
