"""What a part says of itself: the literal `PART` at the top of its file, read without importing the file.

    PART = {
        "kind": "block",
        "name": "mlp_mixer",                       # the file's name
        "id": "mlp-mixer",                         # in the table of systems; "" for references and users' own
        "title": "MLP-Mixer: An all-MLP Architecture for Vision",
        "year": 2021,
        "arxiv": "2105.01601",                     # "" where there is none
        "needs": ["tokens"],                       # kinds of input it is for; free words
        "extras": [],                              # optional dependencies, by extra name
        "example": {...},                          # keyword arguments (and inputs) of a small working example
        "exact": "what holds exactly, in a sentence",
        "claim": {"text": ..., "paper": ...},      # what `claim()` of the file measures; the paper's own figure
    }
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archwright.errors import FormatError

KINDS = (
    "block", "space", "strategy", "estimator", "transform", "rule", "lens", "weightspace", "zoo", "runtime", "task",
)  # fmt: skip
"""The kinds of part, in the order of a search: each is one verb over values."""

_FIELDS: dict[str, type] = {
    "kind": str, "name": str, "id": str, "title": str, "year": int, "arxiv": str,
    "needs": list, "extras": list, "example": dict, "exact": str, "claim": dict,
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """The record of a part, and where its file is. `data` holds the whole literal."""

    kind: str
    name: str
    id: str
    title: str
    year: int
    arxiv: str
    needs: tuple[str, ...]
    extras: tuple[str, ...]
    example: Mapping[str, Any]
    exact: str
    claim: Mapping[str, Any]
    path: Path = field(compare=False)

    @property
    def key(self) -> str:
        """Kind and name, as the command line writes them: "block/mlp_mixer"."""
        return f"{self.kind}/{self.name}"


def read(path: Path) -> Part:
    """The record of a part's file, without importing it. Raises `FormatError` saying which field is wrong."""
    literal = _literal(path)
    missing, extra = sorted(_FIELDS.keys() - literal.keys()), sorted(literal.keys() - _FIELDS.keys())
    if missing or extra:
        raise FormatError(f"{path}: PART lacks {missing} and has unknown {extra}: expected {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if type(literal[name]) is not kind:
            raise FormatError(f"{path}: PART['{name}'] is {literal[name]!r}, expected {kind.__name__}")
    if literal["kind"] not in KINDS:
        raise FormatError(f"{path}: PART['kind'] is {literal['kind']!r}, expected one of {', '.join(KINDS)}")
    if literal["name"] != path.stem:
        raise FormatError(f"{path}: PART['name'] is {literal['name']!r}, expected the file's name, '{path.stem}'")
    values = {**literal, "needs": tuple(literal["needs"]), "extras": tuple(literal["extras"])}
    return Part(**values, path=path)


def _literal(path: Path) -> dict[str, Any]:
    """Only the text of the literal is parsed: a folder of hundreds of parts is listed in milliseconds."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path} cannot be read: {error}") from None
    start = 0 if text.startswith("PART = {") else text.find("\nPART = {") + 1
    end = text.find("\n}", start)
    if (start == 0 and not text.startswith("PART = {")) or end < 0:
        raise FormatError(f"{path} has no literal 'PART = {{' ... '}}' at the start of a line")
    try:
        value = ast.literal_eval(text[start + len("PART = ") : end + 2])
    except (ValueError, SyntaxError) as error:
        raise FormatError(f"{path}: PART is not a plain literal: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: PART is not a mapping of fields to values")
    return value
