"""What is shown of a search: no number and no record stops it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from archwright import cli, live
from archwright.errors import EmitError
from archwright.flows.loop import State


def state(**changes: Any) -> State:
    usual = {"phase": "search", "left": 75.4, "trials": 12, "wanted": None, "failed": 1, "best": 0.0321,
             "metric": "error", "unit": "share", "front": 3}  # fmt: skip
    return State(**{**usual, **changes})


def plain(text: str) -> str:
    """Without the spaces that keep a number and its unit on one line."""
    return text.replace("\u00a0", " ")


def test_the_line() -> None:
    assert plain(live.line(state())) == "search · 1:15 left · 12 trials (1 failed) · best error 3.21 % · 3 on the front"
    assert live.line(state(left=None, wanted=40, failed=0, best=None)) == "search · 12 of 40 trials"
    assert "0:00 left" in live.line(state(left=-3.0)) and "61:40 left" in live.line(state(left=3700.0))
    assert "best error – ·" in live.line(state(best=math.nan))


RUN: dict[str, Any] = {
    "objectives": [
        {"name": "error", "unit": "share", "direction": "min"}, {"name": "latency", "unit": "s", "direction": "min"},
    ],
    "winner": {"trial": 3},
    "front": [{"trial": 3, "values": {"error": 0.1, "latency": 1e-5}, "trace": {"width": 8, "train.lr": 0.1}}],
    "trials": {"complete": 9, "pruned": 2, "failed": 8},
    "failures": [{"trial": i, "reason": "it [bold]diverged[/bold]"} for i in range(8)],
    "data": {"notices": ["column 'ü' is [red]ignored"], "task": "classification"},
    "cost": {"params": 123, "flops": 20_000, "bytes": 492, "latency_s": 1e-5},
    "test": {"error": 0.1, "neg_log_loss": math.nan},
    "baseline": {"error": 0.5, "neg_log_loss": -1.0},
}  # fmt: skip


def told(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    live.summary(run, Path("/some/net"))
    return plain(capsys.readouterr().err)


def test_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(RUN, capsys)
    assert "front of 19 trials" in text and "*3" in text and "width=8" in text and "train.lr" not in text
    assert "failed: trial 0, 1, 2, 3, 4, 5 and 2 more: it [bold]diverged[/bold]" in text
    assert "note: column 'ü' is [red]ignored" in text
    assert "test error: 10 % (trivial predictor: 50 %)" in text and "neg_log_loss: – (" in text
    assert text.rstrip().endswith("report: /some/net/report.html")


@pytest.mark.parametrize(
    "changes",
    [
        {"front": []}, {"test": {}, "baseline": {}}, {"winner": {"trial": None}}, {"failures": []},
        {"data": {"notices": [], "task": "regression"}}, {"test": {"r2": math.nan}, "baseline": {"r2": -math.inf}},
        {"front": [{"trial": 1, "values": {"error": math.nan, "latency": math.inf}, "trace": {}}]},
        {"front": [{"trial": 7, "values": {"error": 0.1, "latency": 1.0}, "trace": {"x" * 500: "y" * 500}}] * 50},
    ],
)  # fmt: skip
def test_odd_records(changes: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert "bundle: /some/net" in told({**RUN, **changes}, capsys)


def test_progress_in_a_file_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with live.shown() as progress:
        for trials in range(200):
            progress(state(trials=trials))
        progress(state(phase="final training"))
        progress(state(phase="done"))
    phases = [line.split(" ·")[0] for line in capsys.readouterr().err.splitlines()]
    assert phases == ["search", "final training", "done"]


def test_names() -> None:
    names = ["data/titanic.csv.gz", "iris", "a/b/digits/", "x.tar.csv", ".", "größe 尺.parquet"]
    assert [live.name_of(n) for n in names] == ["titanic", "iris", "digits", "x.tar", "data", "größe 尺"]


def test_small_things(tmp_path: Path) -> None:
    live.write(tmp_path / "a.csv", "é\n")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "é\n" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(EmitError, match="could not be written"):
        live.write(tmp_path / "nowhere" / "a.csv", "")
    for name in ("data", "opened", "final", "nets"):
        (tmp_path / "work" / name).mkdir(parents=True)
    live.clean(tmp_path / "work")
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["nets"]


def test_ctrl_c_before_anything_could_take_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed() -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "monotonic", pressed)
    monkeypatch.setattr("sys.argv", ["archwright", "search", "iris"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130 and capsys.readouterr().err == "archwright: stopped\n"
