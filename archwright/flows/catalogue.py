"""The catalogue: rows of all parts with the status of their claims, and the reference tables in docs/reference.

Nothing here imports a part, torch or numpy: five hundred parts are listed in a fraction of a second. What is shown of a
part comes from its PART literal and its docstring, which is parsed, not run.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archwright.core import registry
from archwright.core.part import KINDS, Part

CLAIMS = Path(__file__).resolve().parents[2] / "docs" / "claims.json"
"""Where claims are recorded in a checkout. An installed package has none: then every status is "not run"."""

REFERENCE = CLAIMS.parent / "reference"
"""Where the reference pages are in a checkout."""

_PLURAL = {
    "block": "Blocks", "space": "Spaces", "strategy": "Strategies", "estimator": "Estimators",
    "transform": "Transforms", "rule": "Rules", "lens": "Lenses", "weightspace": "Weightspaces", "zoo": "Zoos",
    "runtime": "Runtimes", "task": "Tasks",
}  # fmt: skip
_VERB = {
    "block": "`build(g, x) -> x` adds operations to a graph.",
    "space": "`draw(choose, spec) -> Graph` is a program that makes choices while it builds.",
    "strategy": "`propose(history, space, rng, n) -> traces` says which graphs to try next.",
    "estimator": "`score(net, data, seed) -> Score` is a number without full training.",
    "transform": "`apply(net, data) -> (Net, Report)`: network in, network out, weights carried along.",
    "rule": "`fit(net, data, budget, rng) -> (Net, Log)` is how weights are found.",
    "lens": "`look(net, data) -> Finding`: network and data in, insight out.",
    "weightspace": "`encode`, `edit`, `decode`: networks that read or write other networks' weights.",
    "zoo": "`card`, `find`, `reuse`, `put`: keep, document and find networks.",
    "runtime": "`run(net, x) -> Measured`: execute small or fast.",
    "task": "`load(source) -> Data`: a kind of data, and the flow that suits it.",
}


def recorded(path: str | os.PathLike[str] = CLAIMS) -> Mapping[str, Any]:
    """Part key -> its recorded claim; nothing where there is no file."""
    try:
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["claims"]
    except FileNotFoundError:
        return {}
    return found


def status(part: Part, records: Mapping[str, Any]) -> str:
    """ "held", "not held", "not run", or "none" for a part that claims nothing."""
    if not part.claim:
        return "none"
    if part.key not in records:
        return "not run"
    return "held" if records[part.key]["held"] else "not held"


def rows(kind: str | None = None, claims: str | os.PathLike[str] = CLAIMS) -> list[dict[str, Any]]:
    """One row for each part: kind, name, id, title, year, arxiv, claim. Raises `UnknownPart` for an unknown kind."""
    records = recorded(claims)
    return [
        {
            "kind": part.kind, "name": part.name, "id": part.id, "title": part.title, "year": part.year,
            "arxiv": part.arxiv, "claim": status(part, records),
        }
        for part in registry.parts(kind)
    ]  # fmt: skip


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text, a line each, in columns."""
    if not found:
        return "no parts"
    columns = ("kind", "name", "id", "year", "arxiv", "claim", "title")
    cells = [columns, *[tuple([str(row[c]) for c in columns]) for row in found]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns) - 1)]
    return "\n".join(
        "  ".join([*[cell.ljust(width) for cell, width in zip(line, widths, strict=False)], line[-1]]) for line in cells
    )


# -------------------------------------------------------------------------------------------------- reference pages
def summary(part: Part) -> str:
    """The first sentence of the docstring, as it stands in the file."""
    doc = ast.get_docstring(ast.parse(part.path.read_text(encoding="utf-8"))) or ""
    return " ".join(doc.partition("\n\n")[0].split())


def page(kind: str, parts: Sequence[Part], records: Mapping[str, Any]) -> str:
    """The reference page of a kind: a table of its parts, then the docstring of each. Same parts, same text."""
    lines = [
        f"# {_PLURAL[kind]}",
        "",
        f"{_VERB[kind]} Made from the parts' own files: `python -m archwright.flows.catalogue` writes it anew.",
    ]
    if not parts:
        return "\n".join([*lines, "", "There are none yet.", ""])
    lines += ["", "| name | what it is | paper | claim |", "| --- | --- | --- | --- |"]
    for part in parts:
        lines.append(
            f"| [{part.name}](#{part.name}) | {_cell(summary(part))} | {_paper(part)} | {_claim(part, records)} |"
        )
    for part in parts:
        doc = ast.get_docstring(ast.parse(part.path.read_text(encoding="utf-8"))) or ""
        lines += ["", f"## {part.name}", "", "```text", doc.replace("```", "'''"), "```", "", f"Exact: {part.exact}"]
        if part.needs:
            lines += ["", f"For: {', '.join(part.needs)}."]
        if part.extras:
            lines += ["", f"Needs: `pip install 'archwright[{','.join(part.extras)}]'`."]
        if part.claim:
            lines += [
                "",
                f"Claim: {part.claim['text']} The paper: {part.claim['paper']} Here: {_figure(part, records)}",
            ]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _paper(part: Part) -> str:
    name = _cell(part.title) + f" ({part.year})"
    return f"[{name}](https://arxiv.org/abs/{part.arxiv})" if part.arxiv else name


def _claim(part: Part, records: Mapping[str, Any]) -> str:
    found = status(part, records)
    return f"{found}: {_number(records[part.key])}" if found in ("held", "not held") else found


def _figure(part: Part, records: Mapping[str, Any]) -> str:
    found = records.get(part.key)
    if found is None:
        return "not run yet."
    verdict = "held" if found["held"] else "not held"
    return f"{_number(found)} (expected: {found['expectation']}), {verdict}, {found['date']}."


def _number(record: Mapping[str, Any]) -> str:
    value, unit = record["figure"], record["unit"]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if unit == "1" else f"{text} {unit}"


def pages(claims: str | os.PathLike[str] = CLAIMS) -> dict[str, str]:
    """File name -> text of each page of docs/reference."""
    records, shipped = recorded(claims), registry.shipped()
    found = {f"{kind}.md": page(kind, [p for p in shipped if p.kind == kind], records) for kind in KINDS}
    lines = [
        "# Parts",
        "",
        "| kind | parts | claims that held | not held | not run |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        states = [status(p, records) for p in shipped if p.kind == kind]
        counts = [states.count(state) for state in ("held", "not held", "not run")]
        lines.append(f"| [{kind}]({kind}.md) | {len(states)} | {' | '.join(map(str, counts))} |")
    found["index.md"] = "\n".join([*lines, ""])
    return found


def write(folder: str | os.PathLike[str], claims: str | os.PathLike[str] = CLAIMS) -> list[Path]:
    """Write the pages into a folder; returns the files that changed."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in pages(claims).items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the reference pages of the parts.")
    parser.add_argument("folder", nargs="?", default=REFERENCE)
    for path in write(parser.parse_args().folder):
        print(path)
