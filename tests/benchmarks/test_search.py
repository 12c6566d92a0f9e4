"""benchmarks/search.py: its peers learn, its figures are computed rightly. A minute of comparison is not run here."""

import dataclasses
import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from archwright.data.home import data_home
from archwright.errors import DataError

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def modules():
    """The scripts, which find each other because they lie in one folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = ("sets", "search", "peers_tables", "peers_images", "peers_signals")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def job(modules, task, rows=160, seed=0):
    """A number with gaps, a category that matters, a second number; and the truth about the test rows."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"a": rng.normal(size=rows), "b": rng.normal(size=rows), "c": rng.choice(["u", "v", "w"], rows)})
    value = 2 * x["b"] + 3 * (x["c"] == "u")
    x.loc[rng.random(rows) < 0.1, "a"] = np.nan
    y = (value > 1).to_numpy().astype(int) if task == "classification" else (100 + 10 * value).to_numpy()
    cut = 3 * rows // 4
    x.loc[cut, "c"] = "unseen"
    test = x.iloc[cut:].reset_index(drop=True)
    return modules.peers_tables.Job(x.iloc[:cut], y[:cut], test, task, 1.0, seed), y[cut:]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("method", ["boosting", "random_search_mlp"])
def test_peers_learn_a_table_with_gaps_and_an_unseen_category(modules, method, task):
    given, truth = job(modules, task)
    answer = getattr(modules.peers_tables, method)(given)
    trivial = min(truth.mean(), 1 - truth.mean()) if task == "classification" else truth.std()
    assert answer.output.shape == truth.shape
    assert answer.tried >= 1 and answer.seconds > 0
    assert modules.search.score(task, truth, answer.output) < 0.6 * trivial


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("one_hot", [False, True])
def test_the_plain_mlp_learns_and_stops_where_it_should(modules, task, one_hot):
    peers = modules.peers_tables
    given, truth = job(modules, task)
    config = {"one_hot": one_hot, "smooth": 0.0} | peers.defaults(given) | {"one_hot": one_hot, "norm": "batch"}
    rows, judged = given.folds()[0]
    predict, curve, params = peers.fit_mlp(given, config, rows, judged=judged)
    trivial = min(truth.mean(), 1 - truth.mean()) if task == "classification" else truth.std()
    assert len(curve) == peers.CHECKS and params > 0
    assert curve[-1] == peers.wrong(given, given.y[judged], predict(given.x.iloc[judged]))
    assert modules.search.score(task, truth, predict(given.test)) < 0.6 * trivial
    assert len(peers.fit_mlp(given, config, rows, judged=judged, stop=3)[1]) == 3


def test_folds_are_several_where_rows_are_few(modules):
    few, _ = job(modules, "classification")
    many = dataclasses.replace(few, x=pd.concat([few.x] * 20), y=np.tile(few.y, 20))
    assert len(few.folds()) == 4
    ((fit, held),) = many.folds()
    assert sorted([*fit, *held]) == list(range(len(many.y))) and len(held) == len(many.y) // 5


def test_ranks_share_places_and_put_failures_last(modules):
    run = modules.search.Run
    values = {0: {"x": 0.1, "y": 0.1, "z": 0.2}, 1: {"x": 0.3, "y": None, "z": 0.2}}
    runs = [run("tables", "s", seed, m, 1.0, v, 1.0) for seed, found in values.items() for m, v in found.items()]
    assert modules.search.mean_ranks(runs, ("x", "y", "z")) == {"x": 1.75, "y": 2.25, "z": 2.0}


def test_a_record_keeps_what_was_run_and_what_failed(modules, tmp_path):
    search, path = modules.search, tmp_path / "found.json"
    truth = np.array([1, 2, 3, 4])
    calls = []

    def works():
        calls.append(1)
        return (np.array(["1", "2", "0", "0"]),)

    def breaks():
        raise RuntimeError("no")

    first = search.Record(path)
    assert first.run("tables", "s", 0, "x", 1.0, truth, "classification", works).value == 0.5
    failed = first.run("tables", "s", 0, "y", 1.0, truth, "classification", breaks)
    assert failed.value is None and failed.error == "RuntimeError: no"
    again = search.Record(path, keep=True)
    assert again.run("tables", "s", 0, "x", 1.0, truth, "classification", works).value == 0.5
    assert len(calls) == 1
    assert again.run("tables", "s", 0, "y", 1.0, truth, "classification", works).value == 0.5
    assert [r["method"] for r in json.loads(path.read_text())["runs"]] == ["x", "y"]


def test_fronts_change_speed_alone(modules):
    steps, differ = modules.search.front_steps(0.2)
    assert list(steps) == ["computed once", "in each step"] and min(steps.values()) > 0 and 0 <= differ < 1e-2


def test_score_refuses_another_number_of_answers(modules):
    assert modules.search.score("regression", [0.0, 0.0], [3.0, 4.0]) == pytest.approx(np.sqrt(12.5))
    with pytest.raises(ValueError, match="got 1 answers for 2 rows"):
        modules.search.score("regression", [0.0, 0.0], [3.0])


def test_the_cnn_is_as_large_as_it_may_be_and_learns(modules):
    peers = modules.peers_images
    assert 40_000 < peers.count(peers.largest(50_000)) < 50_000 < peers.count(peers.largest(60_000)) < 60_000
    rng = np.random.default_rng(0)
    y = np.arange(600) % 2
    x = (rng.random((600, 12, 12)) * 100 + 100 * y[:, None, None]).astype(np.uint8)
    found, params = peers.fixed_cnn(x[:400], y[:400], x[400:], limit=4000, seconds=2.0, seed=0, mirror=True, batch=32)
    assert params < 4000 and np.mean(found != y[400:]) < 0.1


def test_shifted_pictures_keep_what_stays_inside(modules):
    import torch

    x = torch.zeros(50, 1, 9, 9)
    x[:, 0, 4, 4] = 1.0
    found = modules.peers_images.shifted(x, torch.Generator().manual_seed(0), mirror=True)
    places = found[:, 0].nonzero()
    assert len(places) == 50 and places[:, 1:].min() == 2 and places[:, 1:].max() == 6


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="ARCHWRIGHT_DATA names no folder")
def test_sets_are_read(modules):
    sets = modules.sets
    titanic = sets.read_table("titanic")
    assert titanic.frame.shape == (891, 9) and sorted(titanic.frame["target"].unique()) == ["0", "1"]
    _, frame, task = sets.read_table("glass")
    fit, test = modules.search.halves(frame["target"].to_numpy(), task, 0)
    assert sorted([*fit, *test]) == list(range(214)) and frame["target"].iloc[test].nunique() == 6
    vowels = sets.read_ts("JapaneseVowels")
    assert len(vowels.cases) == 640 and vowels.test.sum() == 370 and {len(case) for case in vowels.cases} == {12}
    with pytest.raises(DataError, match="no set is named 'boston'"):
        sets.read_table("boston")


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="ARCHWRIGHT_DATA names no folder")
def test_spoken_digits_are_divided_by_take_or_by_speaker(modules):
    digits = modules.sets.read_digits("speaker", 0)
    speakers = np.array([path.stem.split("_")[1] for path in digits.paths])
    assert len(set(speakers[digits.test])) == 2 and not set(speakers[digits.test]) & set(speakers[~digits.test])
    assert modules.sets.read_digits("take", 0).test.sum() == 300
    mel = modules.sets.log_mel(digits.cases[0], digits.rate)
    assert mel.shape[0] == 24 and np.isfinite(mel).all() and np.abs(mel.mean(1)).max() < 1e-4
