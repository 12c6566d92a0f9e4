"""What a zoo is held to.

`card`: the same text again, at another time and place; each section has content or says MISSING, also when nothing is
recorded. `find`: names of the nets with finite scores, best first. `reuse`: a net that runs, and a report. `put`:
writes below its folder only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from archwright.core.checks import common, toys
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import MISSING, Report
from archwright.net.net import Net, example

MINIMUM = 20
KEYS = TOYS | {"query"}
VERBS = ("card", "find", "reuse", "put")

RUN: Mapping[str, Any] = {
    "name": "toy classifier",
    "description": "A small network for three classes.",
    "date": "2025-01-31",
    "author": "someone",
    "license": "apache-2.0",
    "data": {"name": "table", "kind": "table", "task": "classification", "classes": ["a", "b", "c"], "train": 168,
             "valid": 36, "test": 36, "source": "made up"},
    "training": {"rule": "backpropagation", "steps": 200, "seconds": 1.5, "seed": 0},
    "metrics": [{"name": "error", "split": "test", "value": 0.125, "unit": "share"}],
    "groups": [  # outcomes of single samples, from which a card works out metrics for each group
        {"group": {"age": "young", "sex": "f"}, "right": [1, 1, 0, 1]},
        {"group": {"age": "old", "sex": "m"}, "right": [1, 0, 1]},
        {"group": {"age": "old", "sex": "f"}, "right": [1, 1]},
    ],
    "uses": ["tests"],
    "limits": ["knows three classes only"],
    "versions": {"archwright": "0.1.0", "torch": "2.13.0"},
    "command": "archwright search table.csv",
}  # fmt: skip
"""What is recorded of a network's making. Every field may be absent."""


def nets_of(part: Part, seed: int) -> dict[str, Net]:
    """Three nets of one architecture under names."""
    source = toys.data(part.example.get("data", "table"))
    return {name: toys.net(part.example.get("net"), source, 10 * seed + i) for i, name in enumerate("abc")}


def unlike(part: Part, seed: int) -> dict[str, Net]:
    """Three nets of different architectures under names."""
    source = toys.data(part.example.get("data", "table"))
    return {name: toys.net(kind, source, seed) for name, kind in (("c", "mlp"), ("a", "conv"), ("b", "attention"))}


def calls(part: Part) -> Calls:
    """Whichever of card, find, reuse and put the part has."""
    source = toys.data(part.example.get("data", "table"))

    def net(seed: int) -> Net:
        return common.net_and_data(part, seed)[0]

    made = {
        "card": lambda seed: (net(seed), dict(RUN)),
        "find": lambda seed: (part.example.get("query", "a small network"), unlike(part, seed)),
        "reuse": lambda seed: (tuple(nets_of(part, seed).values()), source),
        "put": lambda seed: (common.scratch(), net(seed), dict(RUN)),
    }
    if common.own(part, "case") is not None and common.own(part, "reuse") is not None:
        made["reuse"] = lambda seed: common.net_and_data(part, seed)
    found = {}
    for verb in VERBS:
        function = common.own(part, verb)
        if function is not None:
            found[verb] = Call(function, made[verb], common.hp(part), writes=verb == "put",
                               run=_put(function) if verb == "put" else None)  # fmt: skip
    return found


def _put(function: Any) -> Any:
    """What was put, as the texts of the files below the folder: the path itself differs from call to call."""

    def run(args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        path = function(*args, **kw)
        below = sorted(p for p in args[0].rglob("*") if p.is_file())
        inside = Path(path).is_relative_to(args[0])
        return {"inside": inside, "files": [(str(p.relative_to(args[0])), p.read_bytes().hex()) for p in below]}

    return run


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    made = calls(part)
    c.that(bool(made), "defines none of card, find, reuse and put")
    results = common.every(c, made, KEYS)
    if "card" in made:
        _card(c, made["card"], results["card"])
    if "find" in made:
        _find(c, results["find"], unlike(part, 0))
    if "reuse" in made:
        net, report = results["reuse"]
        c.that(isinstance(net, Net) and isinstance(report, Report), "reuse has to return (Net, Report)")
        c.that(common.finite(common.outputs(net, example(net.graph, 3))), "outputs of the new net are not finite")
        common.figures(c, report.figures, "the report")
        common.jsonable(c, report, "the report")
    if "put" in made:
        c.that(results["put"]["inside"], "put has to return a path below the folder that it was given")
        c.that(len(results["put"]["files"]) > 0, "put wrote nothing")
    return c.count


def sections(card: str) -> dict[str, str]:
    """Heading -> what stands below it, of a Markdown text; the front matter left out."""
    body = card.split("---\n", 2)[2] if card.startswith("---\n") and card.count("---\n") > 1 else card
    found: dict[str, str] = {}
    heading = ""
    for line in body.splitlines():
        if line.startswith("## "):
            heading = line[3:].strip()
            found[heading] = ""
        elif heading:
            found[heading] += line + "\n"
    return found


def _card(c: Checks, call: Call, card: Any) -> None:
    c.that(isinstance(card, str) and bool(card.strip()), "card has to return text")
    net, run = call.make(0)
    backwards = dict(reversed(list(run.items())))
    c.that(call((net, backwards)) == card, "the card depends on the order of the fields of `run`")
    found = sections(card)
    c.that(len(found) >= 3, f"the card has {len(found)} sections, expected at least 3 (headings with ##)")
    hollow = [name for name, text in found.items() if not text.strip("# \n")]
    c.that(not hollow, f"sections {hollow} of the card are empty: say '{MISSING}'")
    c.that("None" not in card.split() and "nan" not in card.split(), "the card says None or nan")
    bare = call((net, {}))
    empty = sections(bare)
    hollow = [name for name, text in empty.items() if not text.strip("# \n")]
    c.that(not hollow, f"with nothing recorded, sections {hollow} are empty: say '{MISSING}'")
    c.that(MISSING in bare, f"with nothing recorded, the card does not say '{MISSING}'")
    for field in run:
        lacking = call((net, {k: v for k, v in run.items() if k != field}))
        c.that(isinstance(lacking, str) and bool(lacking), f"without '{field}' recorded there is no card")


def _find(c: Checks, found: Any, nets: Mapping[str, Net]) -> None:
    c.that(isinstance(found, (list, tuple)) and len(found) > 0, "find has to return [(name, score), ...]")
    c.that(all(name in nets for name, _ in found), f"find names {[name for name, _ in found]}, known are {list(nets)}")
    scores = [score for _, score in found]
    c.that(all(math.isfinite(score) for score in scores), "scores are not finite")
    c.that(all(a >= b for a, b in pairwise(scores)), "find has to return the best first")
    c.that(len({name for name, _ in found}) == len(found), "find names a net twice")
