"""Claims are run, printed beside the paper's figure, and recorded whole and merged, held or not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archwright import cli
from archwright.core import registry
from archwright.errors import FormatError
from archwright.flows import claims as flow

RIGHT = Path(__file__).parent.parent / "fixtures" / "parts" / "lens.py"
CLAIM = '''

def claim(*, seed: int = 0):
    """Claims a number."""
    from archwright.core.records import Claim

    {body}
'''


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes a part known whose claim has this body."""
    monkeypatch.setattr(registry, "_HOME", tmp_path / "none")
    monkeypatch.setattr(registry, "_USED", [])
    registry.shipped.cache_clear()

    def make(name, body, claim='{"text": "It is sure.", "paper": "0.9 (Table 1)"}'):
        text = (
            RIGHT.read_text().replace('"claim": {}', f'"claim": {claim}').replace('"name": "lens"', f'"name": "{name}"')
        )
        (tmp_path / f"{name}.py").write_text(text + (CLAIM.format(body=body) if body else ""))
        return registry.use(tmp_path / f"{name}.py")

    yield make
    monkeypatch.undo()
    registry.shipped.cache_clear()


def test_a_claim_is_recorded_with_figure_date_and_machine(make, tmp_path):
    make("sure", 'return Claim(0.75 + seed, "share", "above 0.5", True, "0.8", {"n": 3}, ("fine",))')
    out = tmp_path / "docs" / "claims.json"
    found = flow.claims(["sure"], out=out)["lens/sure"]
    assert (found["figure"], found["unit"], found["expectation"], found["held"]) == (0.75, "share", "above 0.5", True)
    assert found["paper"] == "0.9 (Table 1)" and found["text"] == "It is sure." and found["details"] == {"n": 3}
    assert found["seed"] == 0 and found["seconds"] >= 0 and len(found["date"]) == 10
    assert found["machine"]["cores"] >= 1 and found["machine"]["torch"] and found["machine"]["cpu"]
    assert flow.read(out) == {"lens/sure": found}
    assert flow.claims(["sure"], seed=1, out=None)["lens/sure"]["figure"] == 1.75
    assert flow.read(out)["lens/sure"]["seed"] == 0


def test_records_merge_by_part_and_stay_sorted(make, tmp_path):
    make("b", 'return Claim(1.0, "1", "above 0", True)')
    make("a", 'return Claim(2.0, "1", "above 3", False, notes=("tried twice",))')
    out = tmp_path / "claims.json"
    flow.claims(["b"], out=out)
    flow.claims(["a"], out=out)
    assert list(flow.read(out)) == ["lens/a", "lens/b"]
    lines = out.read_text().splitlines()
    assert len(lines) == 4 and json.loads(out.read_text())["version"] == 1
    flow.claims(["b"], seed=5, out=out)
    assert out.read_text().splitlines()[1] == lines[1]
    assert not list(tmp_path.glob(".claims-*"))


def test_a_claim_that_raises_is_recorded_as_not_held(make, tmp_path):
    make("bad", "raise RuntimeError('no convergence')")
    found = flow.claims(["bad"], out=tmp_path / "c.json")["lens/bad"]
    assert not found["held"] and found["figure"] == "nan"
    assert found["notes"] == ["raised RuntimeError: no convergence"]
    assert flow.read(tmp_path / "c.json")["lens/bad"]["held"] is False


def test_all_runs_those_that_claim(make):
    make("one", 'return Claim(1.0, "1", "above 0", True)')
    make("none", "", claim="{}")
    seen = []
    assert list(flow.claims(out=None, progress=lambda part, record: seen.append(part.name))) == ["lens/one"]
    assert seen == ["one"]
    with pytest.raises(FormatError, match="lens/none: claims nothing"):
        flow.claims(["none"], out=None)


def test_what_is_not_a_claim_is_refused(make):
    make("wrong", "return 0.5")
    make("absent", "")
    with pytest.raises(FormatError, match=r"claim\(\) returned float, expected a Claim"):
        flow.claims(["wrong"], out=None)
    with pytest.raises(FormatError, match=r"defines no claim\(\)"):
        flow.claims(["absent"], out=None)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "claims": {}}', '{"version": 1}'])
def test_a_file_that_holds_no_claims_is_refused_and_kept(make, tmp_path, text):
    make("one", 'return Claim(1.0, "1", "above 0", True)')
    out = tmp_path / "claims.json"
    out.write_text(text)
    with pytest.raises(FormatError, match="claims"):
        flow.claims(["one"], out=out)
    assert out.read_text() == text


def test_the_command_prints_the_figure_beside_the_papers(make, tmp_path):
    make("sure", 'return Claim(0.25, "share", "above 0.5", False, notes=("tried three rates",))')
    out = tmp_path / "c.json"
    run = CliRunner().invoke(cli.app, ["claims", "sure", "--out", str(out)])
    assert run.exit_code == 0, run.output
    for text in ("lens/sure: NOT HELD", "0.25 share", "above 0.5", "0.9 (Table 1)", "tried three rates"):
        assert text in run.output
    assert flow.read(out)["lens/sure"]["held"] is False
    run = CliRunner().invoke(cli.app, ["claims", "--all", "--json", "--no-record"])
    assert json.loads(run.stdout)["claims"]["lens/sure"]["figure"] == 0.25


def test_changed_parts_are_those_whose_file_is_another_than_when_recorded(tmp_path):
    from archwright.core import registry
    from archwright.flows import claims as flow

    out = tmp_path / "claims.json"
    claiming = [part for part in registry.parts() if part.claim]
    assert flow.changed(out) == claiming
    flow.record({part.key: {"code": flow.fingerprint(part)} for part in claiming[1:]}, out)
    assert flow.changed(out) == claiming[:1]
    flow.record({claiming[-1].key: {"code": "of an older file"}}, out)
    assert flow.changed(out) == [claiming[0], claiming[-1]]
