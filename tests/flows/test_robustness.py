"""Whatever happens to a search: what was finished stays, and the user gets a bundle or one clear sentence."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from archwright.flows.bundle import Bundle
from tests.flows.conftest import SMALL
from tests.flows.process import BEGUN, Running, alive

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

STEPS = 12
ENDLESS = 10**7


def small(*more: Any, out: str = "net") -> list[Any]:
    """A search of iris for small networks."""
    return ["search", "iris", "--use", SMALL, "--space", "small", "--out", out, *more]


def study(folder: Path, name: str = "iris") -> optuna.Study | None:
    """The study of the search in a folder, once it is there."""
    path = folder / "net.search" / "study.db"
    try:
        return optuna.load_study(study_name=name, storage=f"sqlite:///{path}") if path.exists() else None
    except (KeyError, optuna.exceptions.StorageInternalError, sqlite3.Error):
        return None
    except Exception:  # half of the tables are there
        return None


def complete(folder: Path) -> dict[int, Any]:
    """What is known of complete trials."""
    found = study(folder)
    trials = found.get_trials(states=(optuna.trial.TrialState.COMPLETE,)) if found is not None else []
    return {t.number: (t.values, t.params, t.user_attrs["result"]) for t in trials}


def rows(folder: Path) -> int:
    """Trials in the study so far, read without Optuna."""
    path = folder / "net.search" / "study.db"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
            return int(db.execute("select count(*) from trials where state = 'COMPLETE'").fetchone()[0])
    except sqlite3.Error:
        return 0


# -------------------------------------------------------------------------------------------------------------- kill -9
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    rng, before, kills = random.Random(7), {}, 0
    while kills < 20:
        # moments from the start on, after a trial was finished, and in the last training or while the bundle is written
        early, late = kills < 7, kills >= 14
        trials = len(before) + 30 if not late else len(study(tmp_path).trials) + 1
        begun = study(tmp_path) is not None
        argv = small("--trials", trials, "--workers", 0, *(["--resume"] if begun else []))
        running, had = Running(tmp_path, *argv, steps=STEPS), len(before)
        if late:
            running.until(lambda running=running: "final training" in running.said())
            time.sleep(rng.uniform(0, 1.0))
        else:
            running.until(lambda running=running: BEGUN in running.said())
            if not early:
                running.until(lambda had=had: rows(tmp_path) > had)
            time.sleep(rng.uniform(0, 2.0 if early else 0.2))
        running.kill()
        kills += 1
        after = complete(tmp_path)
        assert before.items() <= after.items(), running.said()
        before = after
        if (tmp_path / "net").exists():
            Bundle.load(tmp_path / "net")
    assert len(before) >= 5
    trials = len(study(tmp_path).trials) + 2
    last = Running(tmp_path, *small("--trials", trials, "--workers", 0, "--resume"), steps=STEPS)
    assert last.end() == 0, last.said()
    after = complete(tmp_path)
    assert before.items() <= after.items()
    run = Bundle.load(tmp_path / "net").run
    assert run["trials"]["complete"] == len(after)
    states = {t.state.name for t in study(tmp_path).trials}
    assert states <= {"COMPLETE", "PRUNED", "FAIL"}  # what was under way when it was killed is closed
    assert {f["reason"] for f in run["failures"]} <= {"the process that worked on it was stopped"}
    left = sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".net.saving-"))
    assert left == ["net", "net.search", "stderr.txt", "stdout.txt"]


def test_a_typo_after_a_killed_search_costs_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path, *small("--trials", 5000, "--workers", 0), steps=STEPS)
    running.until(lambda: rows(tmp_path) >= 3)
    running.kill()
    before, work = complete(tmp_path), tmp_path / "net.search"
    nets = set(work.glob("nets/*/*"))
    typo = Running(tmp_path, *small("--trials", 5000, "--strategy", "portfolo"))
    assert typo.end() == 2 and "did you mean portfolio" in typo.sentences()[-1], typo.said()
    assert nets and set(work.glob("nets/*/*")) == nets
    trials = len(study(tmp_path).trials) + 1
    again = Running(tmp_path, *small("--trials", trials, "--workers", 0, "--resume"), steps=STEPS)
    assert again.end() == 0, again.said()
    assert before.items() <= complete(tmp_path).items() and nets <= set(work.glob("nets/*/*"))


def test_workers_end_with_their_parent_in_the_middle_of_a_job(tmp_path: Path) -> None:
    running = Running(tmp_path, *small("--trials", 8, "--workers", 2), steps=ENDLESS)
    running.until(lambda: len(running.workers()) == 2)
    workers = running.workers()
    running.until(lambda: (found := study(tmp_path)) is not None and len(found.trials) >= 2)
    time.sleep(2)  # they have begun
    assert all(Path(f"/proc/{pid}").exists() for pid in workers)
    running.kill()
    end = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its parent"
        time.sleep(0.1)


def test_a_killed_search_goes_on_within_its_budget(tmp_path: Path) -> None:
    budget = ["--budget", "12s", "--workers", 0]
    running = Running(tmp_path, *small(*budget), steps=STEPS)
    running.until(lambda: rows(tmp_path) >= 2)
    time.sleep(2)
    running.kill()
    spent = sum(v for k, v in study(tmp_path).user_attrs.items() if k.startswith("seconds "))
    assert spent > 1
    before = complete(tmp_path)
    running = Running(tmp_path, *small(*budget, "--resume"), steps=STEPS)
    assert running.end() == 0, running.said()
    assert before.items() <= complete(tmp_path).items()
    run = Bundle.load(tmp_path / "net").run
    shares = [v for k, v in study(tmp_path).user_attrs.items() if k.startswith("seconds ")]
    assert len(shares) == 2 and run["seconds"] == pytest.approx(sum(shares), abs=3)
    assert run["seconds"] < 3 * 12
    times = [at for at, _ in run["best_so_far"]]
    assert times == sorted(times)


# --------------------------------------------------------------------------------------------------------------- Ctrl-C
def stopped(tmp_path: Path, running: Running) -> bool:
    """Whether a search that was told to stop left a bundle; if not, it said why in one sentence."""
    code = running.end()
    if code == 0:
        run = Bundle.load(tmp_path / "net").run
        assert run["trials"]["complete"] or run["winner"]["trial"] is None
        return True
    assert code in (2, 130) and len(running.sentences()) == 1, (code, running.said())
    assert "stopped" in running.sentences()[0] and not (tmp_path / "net").exists()
    return False


@pytest.mark.parametrize("moment", [0.0, 0.15, 0.4, 1.0, "trial", "trials", "final", "saving"])
def test_ctrl_c(tmp_path: Path, moment: Any) -> None:
    trials = 9 if moment in ("final", "saving") else 5000
    running = Running(tmp_path, *small("--trials", trials, "--workers", 0), steps=STEPS)
    if moment == "trial":
        running.until(lambda: rows(tmp_path) >= 1)
    elif moment == "trials":
        running.until(lambda: rows(tmp_path) >= 6)
    elif moment == "final":
        running.until(lambda: "final training" in running.said())
    elif moment == "saving":
        running.until(lambda: "done ·" in running.said())
    else:
        running.until(lambda: BEGUN in running.said())
        time.sleep(moment)
    running.send(signal.SIGINT)
    trained = rows(tmp_path)
    assert stopped(tmp_path, running) or not trained
    if moment in ("trials", "final", "saving"):
        assert trained
        assert "Traceback" not in running.said() and "bundle: " in running.said()
        again = Running(tmp_path, *small("--trials", trained + 1, "--workers", 0, "--resume"), steps=STEPS)
        assert again.end() == 0, again.said()


@pytest.mark.parametrize("again", ["soon", "in the end"])
def test_ctrl_c_with_workers_and_twice(tmp_path: Path, again: str) -> None:
    running = Running(tmp_path, *small("--trials", 5000, "--workers", 2), steps=STEPS)
    running.until(lambda: rows(tmp_path) >= 3)
    workers = running.workers()
    running.send(signal.SIGINT)
    if again == "soon":
        time.sleep(0.3)
    else:
        running.until(lambda: "done ·" in running.said())
    running.send(signal.SIGINT)
    assert stopped(tmp_path, running)
    assert Bundle.load(tmp_path / "net").run["interrupted"]
    end = time.monotonic() + 60
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ctrl_c_in_a_long_training_is_at_once(tmp_path: Path) -> None:
    running = Running(tmp_path, *small("--trials", 3, "--workers", 0), steps=ENDLESS)
    running.until(lambda: (found := study(tmp_path)) is not None and len(found.trials) >= 1)
    time.sleep(1)
    running.send(signal.SIGINT)
    assert not stopped(tmp_path, running)
    assert running.sentences()[0].startswith("archwright: the search was stopped before any network was trained")


# ----------------------------------------------------------------------------------------------------- two on one study
def test_two_processes_on_one_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    common = ["--trials", 14, "--workers", 0, "--storage", url]
    first = Running(folders[0], *small(*common), steps=200)

    def begun() -> int:
        with sqlite3.connect(tmp_path / "shared.db") as db:
            try:
                return int(db.execute("select count(*) from trials").fetchone()[0])
            except sqlite3.Error:
                return 0

    first.until(lambda: (tmp_path / "shared.db").exists() and begun() >= 1)
    second = Running(folders[1], *small(*common, "--resume"), steps=200)
    assert first.end() == 0, first.said()
    assert second.end() == 0, second.said()
    found = optuna.load_study(study_name="iris", storage=url).trials
    assert {t.state.name for t in found} <= {"COMPLETE", "PRUNED"}, first.said() + second.said()
    assert [t.number for t in found] == list(range(len(found))) and 14 <= len(found) <= 14 + 4
    assert len({t.user_attrs["session"] for t in found}) == 2
    runs = [Bundle.load(folder / "net").run for folder in folders]
    assert {f["reason"] for run in runs for f in run["failures"]} == set()
    values = {t.number: t.value for t in found if t.state.name == "COMPLETE"}
    for run in runs:  # each takes the best that it knows of, whoever found it
        assert run["winner"]["valid"]["error"] == values[run["winner"]["trial"]]
    assert runs[1]["winner"]["valid"]["error"] == min(values.values()) or len(runs[1]["scatter"]) < len(values)


# ------------------------------------------------------------------------------------------ trials that come to nothing
PART = """
from archwright import ops
PART = {
    "kind": "space", "name": "breaking", "id": "", "title": "Breaks now and then", "year": 2026, "arxiv": "",
    "needs": [], "extras": [], "example": {}, "exact": "", "claim": {"text": "", "paper": ""},
}
def draw(choose, spec):
    g = ops.edit()
    x = g.input("x", spec.inputs[0])
    how = choose.one_of("how", ("well", "huge", "wrong"))
    if how == "huge":  # a terabyte of activations
        y = g.add("unsqueeze", g.add("linear", x, out=60_000, bias=False, name="hidden"), dim=2)
        x = g.add("mean", g.add("matmul", y, g.add("permute", y, dims=[0, 2, 1])), dim=[2])
    if how == "wrong":
        x = g.add("log", g.add("neg", g.add("exp", x)))
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))
def known(spec):
    usual = {"train.batch": 16, "train.optimiser": "sgd"}
    return [{"how": how, **usual} for how in ("huge", "wrong", "well")]
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_trials_that_break_are_listed_and_the_search_goes_on(tmp_path: Path, workers: int) -> None:
    part = tmp_path / "breaking.py"
    part.write_text(PART)
    argv = ["search", "iris", "--use", part, "--space", "breaking", "--out", "net", "--trials", 12]
    running = Running(tmp_path, *argv, "--workers", workers, steps=20)
    assert running.end() == 0, running.said()
    run = Bundle.load(tmp_path / "net").run
    reasons = {f["reason"].partition(":")[0] for f in run["failures"]}
    assert any("out of memory" in reason for reason in reasons), run["failures"]
    assert any("diverged" in reason for reason in reasons), run["failures"]
    assert all(reason.startswith(("out of memory", "diverged")) for reason in reasons)
    assert run["trials"]["complete"] >= 1 and run["winner"]["trace"]["how"] == "well"
    assert "failed: trial" in running.said()


def test_nothing_can_be_trained(tmp_path: Path) -> None:
    part = tmp_path / "breaking.py"
    part.write_text(PART.replace('("well", "huge", "wrong")', '("wrong",)').replace('("huge", "wrong", "well")', "()"))
    argv = ["search", "iris", "--use", part, "--space", "breaking", "--out", "net", "--trials", 2, "--workers", 0]
    running = Running(tmp_path, *argv, steps=20)
    assert running.end() == 2
    assert len(running.sentences()) == 1 and "could be trained: diverged" in running.sentences()[0]
    assert not (tmp_path / "net").exists()


# ---------------------------------------------------------------------------------------------------- budget and limits
def test_a_budget_of_two_seconds(tmp_path: Path) -> None:
    began = time.monotonic()
    running = Running(tmp_path, *small("--budget", "2s"))
    assert running.end() == 0, running.said()
    assert time.monotonic() - began < 3 * (1.1 * 2 + 5)  # three times what is promised: other work may go on
    bundle = Bundle.load(tmp_path / "net")
    assert bundle.run["budget_s"] == 2 and bundle.run["test"]["error"] <= 1


def test_a_limit_that_no_network_meets(tmp_path: Path) -> None:
    running = Running(tmp_path, "search", "iris", "--max", "params=2", "--budget", "60s", "--workers", 0)
    assert running.end() == 2
    assert len(running.sentences()) == 1 and "no network of space tables keeps to the limits" in running.sentences()[0]
    assert sorted(os.listdir(tmp_path)) == ["stderr.txt", "stdout.txt"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nothing.csv"], "does not exist"),
        (["iris", "--space", "tabels"], "did you mean tables"),
        (["iris", "--max", "params=lots"], "expected a number"),
        (["iris", "--resume"], "holds no search named 'iris'"),
        (["iris", "--from", "nowhere"], "holds no graph.json"),
        (["iris", "--out", "."], "would be lost"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(tmp_path: Path, argv: list[str], words: str) -> None:
    running = Running(tmp_path, "search", *argv)
    assert running.end() == 2
    assert len(running.sentences()) == 1 and words in running.sentences()[0], running.said()
    assert sorted(os.listdir(tmp_path)) == ["stderr.txt", "stdout.txt"]


def test_a_full_disk_leaves_the_former_bundle(tmp_path: Path) -> None:
    """It is full when the report is written."""
    first = Running(tmp_path, *small("--trials", 1, "--workers", 0), steps=STEPS)
    assert first.end() == 0
    before = Bundle.load(tmp_path / "net").run
    full = Running(tmp_path, *small("--trials", 1, "--workers", 0, "--seed", 1), steps=STEPS, full="report.html")
    assert full.end() == 2
    assert "the bundle" in full.sentences()[-1] and "No space left" in full.sentences()[-1], full.said()
    assert Bundle.load(tmp_path / "net").run == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net", "net.search", "stderr.txt", "stdout.txt"]


# ----------------------------------------------------------------------------------------------------------- odd tables
def table(n: int, **columns: Any) -> str:
    """A CSV of n rows with a column x and those given, which are functions of the row."""
    rng = random.Random(0)
    made = {"x": lambda i: f"{rng.gauss(0, 1):.3f}", **columns}
    return "\n".join([",".join(made), *[",".join(str(made[c](i)) for c in made) for i in range(n)]]) + "\n"


TABLES = {
    "one sample in a class": (table(60, y=lambda i: "rare" if i == 7 else "ab"[i % 2]), ""),
    "gaps in the target": (table(60, y=lambda i: "" if i % 4 == 0 else i % 3), ""),
    "gaps in a number": (table(60, y=lambda i: "" if i % 4 == 0 else i / 7), ""),
    "ten thousand categories": (table(10_000, c=lambda i: f"c{i * 7919 % 10_000}", y=lambda i: "ab"[i % 2]), ""),
    "unicode": (table(60, **{"größe 尺": lambda i: i, "цвет": lambda i: "зк"[i % 2], "y": lambda i: "äß"[i % 2]}), ""),
    "one value": (table(60, k=lambda i: 3, e=lambda i: "", y=lambda i: i % 2), ""),
    "few rows": (table(6, y=lambda i: i % 2), ""),
    "twins": (table(60, a=lambda i: i, y=lambda i: i % 2).replace("x,a,y", "a,a,y", 1), ""),
    "nothing": ("", "empty"),
    "a header": ("a,y\n", "no rows"),
    "one class": (table(30, y=lambda i: "same"), "one class"),
    "no target": (table(30, y=lambda i: ""), "target"),
}


@pytest.mark.parametrize("name", TABLES)
def test_odd_tables(tmp_path: Path, name: str) -> None:
    text, words = TABLES[name]
    (tmp_path / "data.csv").write_text(text, encoding="utf-8")
    running = Running(tmp_path, "search", "data.csv", "--target", "y", "--trials", 1, "--workers", 0, steps=3)
    code = running.end()
    if words:
        assert code == 2 and len(running.sentences()) == 1 and words in running.sentences()[0], running.said()
        assert not (tmp_path / "data-net").exists() and not (tmp_path / "data-net.search").exists()
        return
    assert code == 0, running.said()
    assert "Traceback" not in running.said() and "Warning" not in running.said(), running.said()
    said = Running(tmp_path, "predict", "data-net", "data.csv", "--json")
    assert said.end() == 0, said.said()
    found = json.loads(said.out.read_text())
    rows_ = len(text.splitlines()) - 1
    assert len(found["predicted"]) == rows_ and found["scores"]
