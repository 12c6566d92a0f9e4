"""Every shipped part passes the suite of its kind. What only its own test can know stands in tests/parts/<kind>/."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from archwright.core import registry
from archwright.core.checks import check_part
from archwright.core.part import KINDS
from archwright.errors import MissingExtra

PARTS = registry.shipped()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.key)
def test_conforms(part):
    try:
        check_part(part)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.key)
def test_has_a_test_of_its_own_and_a_claim(part):
    own = Path(__file__).parent / part.kind / f"test_{part.name}.py"
    assert own.exists(), f"{part.key} has no {own.relative_to(Path(__file__).parent)}"
    assert part.claim, f"{part.key} claims nothing"


def test_names_and_ids_are_unique():
    keys = [part.key for part in PARTS]
    assert len(set(keys)) == len(keys)
    ids = [(part.kind, part.id) for part in PARTS if part.id]
    assert len(set(ids)) == len(ids)


def test_folders_are_kinds():
    home = Path(registry.__file__).parent.parent / "parts"
    odd = [entry.name for entry in home.iterdir() if entry.is_dir() and entry.name not in (*KINDS, "__pycache__")]
    assert not odd, f"{odd} are no kinds of part"


def test_the_literal_stands_after_the_docstring_and_the_imports():
    for part in PARTS:
        body = ast.parse(part.path.read_text(encoding="utf-8")).body
        kinds = [type(node) for node in body]
        assert kinds[0] is ast.Expr, f"{part.key} does not begin with its docstring"
        place = next(i for i, node in enumerate(body) if isinstance(node, ast.Assign) and _name(node) == "PART")
        before = kinds[1:place]
        assert all(kind in (ast.Import, ast.ImportFrom, ast.If) for kind in before), f"{part.key}: PART comes too late"


def _name(node):
    return getattr(node.targets[0], "id", None)
