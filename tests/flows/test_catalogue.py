"""The catalogue: rows, tables and reference pages from PART and docstrings; the committed pages are up to date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archwright import cli
from archwright.core import registry
from archwright.errors import UnknownPart
from archwright.flows import catalogue

RIGHT = Path(__file__).parent.parent / "fixtures" / "parts"
RECORD = {
    "figure": 0.8123456, "unit": "share", "expectation": "above 0.5", "held": True, "paper": "0.9",
    "date": "2025-01-31", "seconds": 1.0, "notes": [],
}  # fmt: skip


@pytest.fixture
def used(tmp_path, monkeypatch):
    """Three parts of the fixtures, of which one claims something, and no others."""
    monkeypatch.setattr(registry, "_HOME", tmp_path / "none")
    monkeypatch.setattr(registry, "_USED", [])
    registry.shipped.cache_clear()
    text = (RIGHT / "lens.py").read_text().replace('"claim": {}', '"claim": {"text": "It is sure.", "paper": "0.9"}')
    (tmp_path / "lens.py").write_text(text.replace("the mean of the greatest", "the mean | of the greatest"))
    for path in (RIGHT / "block.py", RIGHT / "rule.py", tmp_path / "lens.py"):
        registry.use(path)
    claims = tmp_path / "claims.json"
    claims.write_text(json.dumps({"version": 1, "claims": {"lens/lens": RECORD}}))
    yield claims
    monkeypatch.undo()
    registry.shipped.cache_clear()


def test_rows_have_the_status_of_claims(used):
    found = catalogue.rows(claims=used)
    assert [(row["kind"], row["name"], row["claim"]) for row in found] == [
        ("block", "block", "none"), ("rule", "rule", "none"), ("lens", "lens", "held"),
    ]  # fmt: skip
    assert catalogue.rows("lens", claims=used)[0]["title"] == "A lens"
    used.write_text(json.dumps({"version": 1, "claims": {"lens/lens": {**RECORD, "held": False}}}))
    assert catalogue.rows("lens", claims=used)[0]["claim"] == "not held"
    assert catalogue.rows("lens", claims=used.parent / "none.json")[0]["claim"] == "not run"
    with pytest.raises(UnknownPart, match="unknown kind 'blocks'"):
        catalogue.rows("blocks")


def test_a_table_has_a_line_for_each_part(used):
    lines = catalogue.table(catalogue.rows(claims=used)).splitlines()
    assert len(lines) == 4 and lines[0].split() == ["kind", "name", "id", "year", "arxiv", "claim", "title"]
    assert catalogue.table([]) == "no parts"


def test_a_page_is_made_from_the_literal_and_the_docstring(used):
    part = registry.find("lens/lens")
    text = catalogue.page("lens", [part], catalogue.recorded(used))
    assert "| [lens](#lens) | How sure the network is: the mean \\| of the greatest probability. |" in text
    assert "held: 0.8123 share" in text and "above 0.5" in text and "A fixture:" in text
    assert text == catalogue.page("lens", [part], catalogue.recorded(used))
    assert "none yet" in catalogue.page("zoo", [], {})


def test_the_committed_pages_are_up_to_date():
    for name, text in catalogue.pages().items():
        path = catalogue.REFERENCE / name
        known = path.exists() and path.read_text(encoding="utf-8") == text
        assert known, f"{path} is out of date: run python -m archwright.flows.catalogue"
    extra = {path.name for path in catalogue.REFERENCE.glob("*.md")} - set(catalogue.pages())
    assert not extra


def test_pages_are_the_same_in_another_process():
    code = "from archwright.flows import catalogue; import json; print(json.dumps(catalogue.pages()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "7"})
    assert json.loads(done.stdout) == catalogue.pages()


def test_writing_changes_only_what_differs(tmp_path):
    changed = catalogue.write(tmp_path)
    assert {path.name for path in changed} == set(catalogue.pages())
    assert catalogue.write(tmp_path) == []


def test_the_command(used, monkeypatch):
    run = CliRunner().invoke(cli.app, ["parts", "--kind", "block"])
    assert run.exit_code == 0 and "A block" in run.stdout and "A lens" not in run.stdout
    run = CliRunner().invoke(cli.app, ["parts", "--json"])
    assert [part["name"] for part in json.loads(run.stdout)["parts"]] == ["block", "rule", "lens"]
    run = CliRunner().invoke(cli.app, ["parts", "--json", "--use", str(RIGHT / "zoo.py")])
    assert len(json.loads(run.stdout)["parts"]) == 4


def test_the_command_refuses_what_is_unknown(used, capsys, monkeypatch):
    for arguments, message in (
        (["parts", "--kind", "blok"], "unknown kind 'blok': expected one of block"),
        (["claims", "lense"], "unknown part 'lense': did you mean lens?"),
        (["claims"], "expected one of: names of parts, --all, --changed"),
        (["claims", "lens", "--all"], "expected one of: names of parts, --all, --changed"),
        (["parts", "--use", "nothing.py"], "nothing.py cannot be read"),
    ):
        monkeypatch.setattr(sys, "argv", ["archwright", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
