"""A search in this process: the same for the same seed, within its limits, blind to the test split."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np
import optuna
import optuna_dashboard
import pandas as pd
import pytest

from archwright import ops
from archwright.core import registry
from archwright.core.space import Space, Spec
from archwright.data.data import Data
from archwright.data.open import open_data
from archwright.errors import ArchwrightError, DataError, FormatError, TypeMismatch, UnknownPart
from archwright.flows import pool as pools
from archwright.flows import search as module
from archwright.flows.bundle import Bundle
from archwright.flows.interrupts import Interrupts
from archwright.flows.objectives import objectives
from archwright.flows.search import Result, search
from archwright.net.net import Net, init

pytestmark = pytest.mark.usefixtures("quick")


def found(data: Any = "iris", **options: Any) -> Result:
    """A short search."""
    options = {"space": "small", "trials": 4, "workers": 0, **options}
    return search(data, **options)


def told(result: Result) -> str:
    """All that has to be the same again, as text."""
    run = result.run
    history = [(t.number, t.params, t.values, t.intermediate_values) for t in result.study.trials]
    weights = {name: tensor.tolist() for name, tensor in sorted(result.best.net.weights.items())}
    return json.dumps([run["winner"]["trial"], run["winner"]["trace"], run["test"], run["front"], history, weights])


# ------------------------------------------------------------------------------------------------------- the same again
AGAIN = """
import sys
import torch
from archwright.core import registry
from archwright.flows.plan import Plan
from tests.flows.conftest import SMALL, STEPS
from tests.flows.test_search import found, told
Plan.steps = lambda *_, **__: STEPS
registry.use(SMALL)
torch.set_num_threads(1)
print(told(found(trials=6, seed=3)))
"""


def test_the_same_seed_gives_the_same_here_and_in_another_process() -> None:
    first = told(found(trials=6, seed=3))
    assert told(found(trials=6, seed=3)) == first
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", AGAIN], cwd=root, capture_output=True, text=True, check=True)
    assert there.stdout.strip().splitlines()[-1] == first
    assert told(found(trials=6, seed=4)) != first


def test_worker_processes_give_what_this_process_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(data: Data, *more: Any) -> pools.Here:
        made = pools.Here(data, *more)
        made.size = 2
        return made

    monkeypatch.setattr(module, "Here", two)
    options: dict[str, Any] = {"trials": 6, "strategy": "random", "seed": 5}
    assert told(found(workers=2, **options)) == told(found(workers=0, **options))


def test_what_comes_back(tmp_path: Path) -> None:
    states: list[Any] = []
    result = found(trials=5, folder=tmp_path / "work", progress=states.append, command="typed")
    run = result.run
    assert sum(run["trials"].values()) == 5 and run["trials"]["failed"] == 0
    assert run["command"] == "typed" and run["space"] == "small" and run["strategy"] == "portfolio"
    assert run["winner"]["training"]["retrained"] and run["winner"]["training"]["samples"] == 120
    assert run["baseline"]["error"] == pytest.approx(2 / 3, abs=0.1)
    assert states[-1].phase == "done" and states[-1].trials == 5 and states[-1].best is not None
    assert len(result.study.trials) == 5  # still readable
    again = Bundle.load(result.save(tmp_path / "net"))
    raw = open_data("iris")
    assert again.run["winner"]["trace"] == run["winner"]["trace"]
    assert result.front == run["front"] and raw.size("test") == run["data"]["samples"]["test"]
    study = optuna.load_study(study_name="iris", storage=f"sqlite:///{tmp_path / 'work' / 'study.db'}")
    assert [t.state.name for t in study.trials] == [t.state.name for t in result.study.trials]
    best = min(t.value for t in study.trials if t.value is not None)
    assert run["winner"]["valid"]["error"] == best == run["best_so_far"][-1][1]


def test_ctrl_c_while_all_is_put_away_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    former = module._workspace

    @contextmanager
    def pressed(folder: Any) -> Iterator[Path]:
        with former(folder) as work:
            yield work
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    monkeypatch.setattr(module, "_workspace", pressed)
    assert found().run["winner"]["trial"] is not None
    with Interrupts() as interrupts:  # the caller's, such as the command line's
        assert found(interrupts=interrupts).run["winner"]["trial"] is not None
        assert interrupts.take()


def test_without_a_folder_the_study_outlives_the_search() -> None:
    study = found(trials=2).study
    study.set_user_attr("seen", True)
    assert len(study.get_trials()) == 2 and study.user_attrs["seen"]


# --------------------------------------------------------------------------------------------------- limits, objectives
def test_the_winner_is_a_mean_of_several_unless_costs_are_objectives() -> None:
    result = found(trials=8, strategy="random", seed=2)
    run, net = result.run, result.best.net
    members = run["winner"]["members"]
    assert members[0]["trial"] == run["winner"]["trial"] and sum(m["copies"] for m in members) == 8
    assert len(members) > 1 and run["winner"]["training"]["networks"] == 8
    alone = {e["trial"]: e["values"]["params"] for e in run["scatter"]}
    assert run["cost"]["params"] == sum(m["copies"] * alone[m["trial"]] for m in members)
    copies = [{n: t for n, t in net.weights.items() if n.startswith(f"member{i}.")} for i in range(8)]
    assert sum(map(len, copies)) == len(net.weights)
    flat = [str([t.flatten().tolist() for t in own.values()]) for own in copies]
    assert len(set(flat)) == 8  # no two begin with the same weights
    small = found(trials=8, strategy="random", seed=2, limit={"params": 3 * min(alone.values())}).run
    assert small["cost"]["params"] <= 3 * min(alone.values())
    alone_best = found(trials=8, strategy="random", seed=2, objective="error,params").run
    assert "members" not in alone_best["winner"] and alone_best["cost"]["params"] in alone.values()


@pytest.mark.parametrize(
    ("limit", "strategy"),
    [
        ("params=60", "portfolio"), ("flops=150", "random"), ("bytes=200", "portfolio"),
        ("params=60,flops=150", "optuna:TPESampler"), ({"params": 43, "memory": 200}, "regularized_evolution"),
    ],
)  # fmt: skip
def test_limits_are_never_exceeded(limit: Any, strategy: str) -> None:
    result = found(limit=limit, strategy=strategy, trials=5)
    limits = result.run["limits"]
    costs = result.best.net.cost()
    real = {"params": costs.params, "flops": costs.flops, "bytes": costs.param_bytes + costs.buffer_bytes,
            "memory": costs.peak_bytes}  # fmt: skip
    assert limits and all(real[name] <= most for name, most in limits.items())
    tried = [t for t in result.study.trials if "seconds" in t.user_attrs.get("result", {})]
    assert len(tried) == 5
    for trial in tried:
        assert all(trial.user_attrs["costs"][name] <= most for name, most in limits.items())
    for trial in result.study.trials:
        if trial not in tried:  # an Optuna sampler's, refused
            assert trial.state.name == "PRUNED" and "over the limit" in trial.user_attrs["reason"]


def test_a_latency_limit_is_kept() -> None:
    result = found(limit="latency=20ms", trials=2)
    assert result.run["cost"]["latency_s"] < 0.02 and result.run["limits"] == {"latency": 0.02}


def test_a_limit_that_no_network_meets(tmp_path: Path) -> None:
    for strategy in ("portfolio", "optuna:RandomSampler"):
        with pytest.raises(FormatError, match=r"no network of space small keeps to the limits.* params 1"):
            found(limit="params=14", folder=tmp_path / "work", strategy=strategy)  # 4 x 3 + 3
        assert not (tmp_path / "work").exists()
    assert found(limit="params=15", trials=1).run["cost"]["params"] == 15


METRICS = ("accuracy", "roc_auc_ovr", "neg_log_loss", "f1_macro", "balanced_accuracy")


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_classes(name: str) -> None:
    run = found(objective=name, trials=3).run
    values = {entry["trial"]: entry["values"][name] for entry in run["scatter"]}
    assert run["objectives"][0]["direction"] == "max" and set(run["winner"]["valid"]) == {name}
    assert values[run["winner"]["trial"]] == max(values.values()) and math.isfinite(run["test"][name])


@pytest.mark.parametrize(("name", "better"), [("error", min), ("r2", max), ("neg_median_absolute_error", max)])
def test_metrics_of_numbers(name: str, better: Any) -> None:
    run = found("diabetes", objective=name, trials=3).run
    values = {entry["trial"]: entry["values"][name] for entry in run["scatter"]}
    assert values[run["winner"]["trial"]] == better(values.values())
    if name == "error":  # in the units of the target, not standardised
        assert 20 < run["winner"]["valid"]["error"] < 500 and 20 < run["baseline"]["error"] < 200
    assert len(run["detail"]["predicted"]) == run["data"]["samples"]["test"]


def test_several_objectives_give_one_front() -> None:
    names = ["params", "error", "flops", "bytes", "memory", "energy", "latency", "neg_log_loss"]
    run = found(objective=names, trials=6, strategy="random").run
    assert [o["name"] for o in run["objectives"]] == names
    signs = np.array([1 if o["direction"] == "min" else -1 for o in run["objectives"]])
    values = {e["trial"]: signs * [e["values"][n] for n in names] for e in run["scatter"]}
    dominated = {
        i for i, v in values.items() if any((w <= v).all() and (w < v).any() for j, w in values.items() if j != i)
    }
    assert {e["trial"] for e in run["front"]} == values.keys() - dominated
    best = min(values.values(), key=lambda v: v[1])[1]
    assert values[run["winner"]["trial"]][1] == best  # compared by the first metric


def test_the_tools_of_optuna_read_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run = found(objective="error", trials=6, storage=url, name="error").run
    found(objective="error,params", trials=6, storage=url, name="error,params")
    plots = optuna.visualization
    alone, both = [optuna.load_study(study_name=name, storage=url) for name in ("error", "error,params")]
    history = plots.plot_optimization_history(alone).data[0]
    done = alone.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    assert list(history.x) == [t.number for t in done] and list(history.y) == [t.value for t in done]
    curves = {tuple(d.y) for d in plots.plot_intermediate_values(alone).data}
    assert curves == {tuple([v for _, v in curve]) for curve in run["curves"].values()} and len(done) <= len(curves)
    named = plots.plot_pareto_front(both)
    assert (named.layout.xaxis.title.text, named.layout.yaxis.title.text) == ("error", "params")
    for study in (alone, both):
        first = {"target": lambda trial: trial.values[0], "target_name": "error"}
        for plot in (plots.plot_slice, plots.plot_parallel_coordinate, plots.plot_param_importances):
            assert plot(study, **first).data
        assert plots.plot_timeline(study).data
    application = optuna_dashboard.wsgi(url)

    def answer(path: str) -> Any:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        status: list[str] = []
        body = b"".join(application(environ, lambda said, *_: status.append(said)))
        assert status == ["200 OK"], body
        return json.loads(body)

    listed = {s["study_name"]: s["study_id"] for s in answer("/api/studies")["study_summaries"]}
    assert set(listed) == {"error", "error,params"}
    shown = answer(f"/api/studies/{listed['error,params']}")
    assert shown["directions"] == ["minimize", "minimize"]
    assert len(shown["trials"]) == len(both.trials)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"objective": "params"}, FormatError, "expected a metric among them"),
        ({"objective": "error,error"}, FormatError, "different names"),
        ({"objective": "r2"}, DataError, "metric 'r2' is for numbers"),
        ({"objective": "eror"}, DataError, "did you mean error"),
        ({"limit": "parms=3"}, FormatError, "did you mean params"),
        ({"limit": "params"}, FormatError, "got params="),
        ({"trials": 0}, FormatError, "trials=0"),
        ({"budget": "soon"}, FormatError, "budget=soon"),
        ({"budget": -1}, FormatError, "budget of -1"),
        ({"space": "smal"}, UnknownPart, "did you mean small"),
        ({"strategy": "portfolo"}, UnknownPart, "did you mean portfolio"),
        ({"strategy": 3}, FormatError, "a name or a function"),
        ({"strategy": "optuna:Nope"}, FormatError, "expected one of .*TPESampler"),
        ({"strategy": "optuna:GridSampler"}, FormatError, "needs search_space"),
        ({"strategy": "optuna:PartialFixedSampler"}, FormatError, "needs fixed_params"),
        ({"strategy": "optuna:BruteForceSampler"}, FormatError, "cannot search this space"),
        ({"resume": True}, FormatError, "folder or a storage"),
        ({"storage": "mongo://x"}, FormatError, "cannot be opened"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_training(options: Any, error: Any, words: str, tmp_path: Path) -> None:
    folder = None if "resume" in options else tmp_path / "work"
    with pytest.raises(error, match=words):
        found(folder=folder, **options)
    assert not (tmp_path / "work").exists()


def wrong_strategy(history: Any, space: Space, rng: Any, n: int) -> Any:
    """Proposes nothing."""
    return []


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "portfolo"}, {"strategy": "optuna:Nope"}, {"limit": "parms=3"}, {"limit": "params=5"},
        {"space": "smal"}, {"objective": "eror"}, {"strategy": "optuna:BruteForceSampler"}, {"target": "nothing"},
        {"strategy": wrong_strategy},
    ],
    ids=lambda options: ", ".join([f"{k} {getattr(v, '__name__', v)}" for k, v in options.items()]),
)  # fmt: skip
def test_what_is_wrong_costs_no_earlier_search(options: Any, tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("a,y\n" + "".join([f"{i % 7},{'uvw'[i % 3]}\n" for i in range(60)]))
    common = {"data": tmp_path / "few.csv", "folder": tmp_path / "work"}
    assert len(found(**common).study.trials) == 4
    nets = sorted((tmp_path / "work" / "nets").rglob("*"))
    with pytest.raises(ArchwrightError):
        found(**{**common, **options})
    assert sorted((tmp_path / "work" / "nets").rglob("*")) == nets
    assert optuna.study.get_all_study_names(f"sqlite:///{tmp_path / 'work' / 'study.db'}") == ["few"]
    again = found(**common, trials=6, resume=True)
    assert again.study.study_name == "few" and len(again.study.trials) == 6


def test_nets_of_an_earlier_search_go_when_there_are_new_ones(tmp_path: Path) -> None:
    def stopped(history: Any, space: Space, rng: np.random.Generator, n: int) -> Any:
        if any(trial.values for trial in history):
            raise ArchwrightError("it was stopped")
        return [space.random(rng)]

    found(folder=tmp_path)
    (before,) = (tmp_path / "nets").iterdir()
    with pytest.raises(ArchwrightError, match="it was stopped"):
        found(folder=tmp_path, strategy=stopped, seed=1)
    assert before.is_dir() and len(list((tmp_path / "nets").iterdir())) == 2  # either can be resumed
    assert found(folder=tmp_path, resume=True).study.study_name == "iris"
    assert found(folder=tmp_path, resume=True, seed=1).study.study_name == "iris-2"
    assert before.is_dir()
    assert found(folder=tmp_path).study.study_name == "iris-3"
    assert len(list((tmp_path / "nets").iterdir())) == 1 and not before.exists()


@pytest.mark.parametrize("name", ["neg_mean_squared_log_error", "neg_mean_poisson_deviance"])
def test_a_metric_that_the_targets_do_not_allow_is_refused(name: str, tmp_path: Path) -> None:
    x = np.arange(60.0)
    trained: list[Any] = []
    with pytest.raises(DataError, match=f"metric '{name}' does not fit the target"):
        found(x, y=np.where(x == 7, -3, x), objective=["error", name], folder=tmp_path / "work",
              progress=trained.append)  # fmt: skip
    assert not trained and not (tmp_path / "work").exists()
    counts = open_data(x, target=np.where(x < 30, 0.0, x))
    module._check_metrics(objectives(name, counts.task, 1), counts)  # zeros it does


# ------------------------------------------------------------------------------------------------------------- resuming
def houses(folder: Path, **changes: Any) -> Path:
    """A table with two things to predict, and a column of times."""
    rng = np.random.default_rng(0)
    a, price, rent = rng.normal(size=(3, 60))
    frame = pd.DataFrame({"when": pd.date_range("2020", periods=60), "a": a, "rent": rent, "price": price})
    frame.assign(**changes).to_csv(folder / "houses.csv", index=False)
    return folder / "houses.csv"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "rent"}, "has target 'price', this one 'rent'"),
        ({"time": None}, "has split 'temporal', this one 'random'"),
        ({"task": "classification", "target": "a"}, "has target 'price', this one 'a'"),
        ({"valid": 0.3, "test": 0.1}, "has samples"),
        ({"time": "a"}, "has rows and splits '[0-9a-f]{32}', this one"),
        ({"seed": 1}, "has seed 0, this one 1"),
    ],
    ids=str,
)
def test_another_search_is_not_resumed(options: Any, words: str, tmp_path: Path) -> None:
    given = {"data": houses(tmp_path), "target": "price", "time": "when", "folder": tmp_path / "work"}
    first = found(**given, trials=2)
    if "task" in options:
        options = {**options, "data": houses(tmp_path, a=["u", "v"] * 30)}
    with pytest.raises(FormatError, match=words):
        found(**{**given, **options}, resume=True)
    assert len(found(**{**given, "data": houses(tmp_path)}, trials=3, resume=True).study.trials) == 3
    assert first.run["data"]["digest"] == module.fingerprint(open_data(given["data"], target="price", time="when"))


def test_other_rows_are_not_resumed(tmp_path: Path) -> None:
    given = {"data": houses(tmp_path), "target": "price", "folder": tmp_path / "work"}
    found(**given, trials=1)
    for changes in ({"price": np.arange(60.0)}, {"a": np.arange(60.0) ** 2}):  # of what goes in, by the recipe
        houses(tmp_path, **changes)
        with pytest.raises(FormatError, match="has rows and splits"):
            found(**given, resume=True)


def test_a_search_from_another_network_is_not_resumed(tmp_path: Path) -> None:
    data = open_data("iris")
    start = net_for(data)
    given: dict[str, Any] = {"data": data, "space": None, "folder": tmp_path}
    found(**given, start=start, trials=1)
    with pytest.raises(FormatError, match=r"has start '[0-9a-f]{32}', this one None"):
        found(data, folder=tmp_path, space=Space("start", wide, Spec.of(data)), resume=True)
    doubled = Net(start.graph, {name: 2 * w for name, w in start.weights.items()})
    with pytest.raises(FormatError, match="has start weights"):
        found(**given, start=doubled, resume=True)
    assert len(found(**given, start=start, trials=2, resume=True).study.trials) == 2
    assert found(**given, start=doubled, trials=1).study.study_name == "iris-2"
    assert len(list((tmp_path / "start").iterdir())) == 1  # those of the earlier search are gone


def test_a_search_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    study = found(folder=tmp_path, trials=2).study
    known = study.user_attrs["archwright"]
    old = ("data", "samples", "space", "objectives", "limits", "seed")
    study.set_user_attr("archwright", {key: known[key] for key in old})
    assert len(found(folder=tmp_path, trials=3, resume=True).study.trials) == 3


def test_data_without_a_recipe_are_refused() -> None:
    data = replace(open_data("iris"), meta={})
    with pytest.raises(DataError, match="no recipe"):
        found(data)


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    def inner(history: Any, space: Space, rng: Any, n: int) -> Any:
        with pytest.raises(FormatError, match="another search works in"):
            found(folder=tmp_path)
        return [space.random(rng)]

    assert found(folder=tmp_path, strategy=inner, trials=1).run["trials"]["complete"] == 1
    assert found(folder=tmp_path, trials=1).study.study_name == "iris-2"  # nothing is overwritten


# ------------------------------------------------------------------------------------------------ spaces and strategies
@pytest.mark.parametrize("name", ["TPESampler", "NSGAIISampler", "RandomSampler"])
def test_samplers_of_optuna(name: str) -> None:
    options: dict[str, Any] = {"strategy": f"optuna:{name}", "objective": "error,params", "trials": 4, "seed": 1}
    result = found(**options)
    assert sum(result.run["trials"].values()) == 4 and result.run["strategy"] == f"optuna:{name}"
    assert result.study.sampler.__class__.__name__ == name
    if name != "TPESampler":
        assert told(found(**options)) == told(result)


def test_a_function_as_strategy() -> None:
    asked = []

    def mine(history: Any, space: Space, rng: np.random.Generator, n: int) -> Any:
        asked.append(len(history))
        return [space.random(rng)] if len(history) < 3 else []

    run = found(strategy=mine, trials=9).run
    assert run["strategy"] == "mine" and sum(run["trials"].values()) == 3 and asked == [0, 1, 2, 3]
    assert found(strategy=partial(mine), trials=1).run["strategy"] == "partial"
    with pytest.raises(ArchwrightError, match="proposed nothing"):
        found(strategy=lambda *given: [])


def test_a_strategy_that_repeats_itself_does_not_go_on_for_ever() -> None:
    def stubborn(history: Any, space: Space, rng: np.random.Generator, n: int) -> Any:
        return [space.random(np.random.default_rng(0))]

    run = found(strategy=stubborn, trials=3).run
    assert sum(run["trials"].values()) == 3  # then others are tried at random


def wide(choose: Any, spec: Any) -> Any:
    g = ops.edit()
    width = choose.one_of("width", (2, 3, 5))
    if width == 3:
        raise TypeMismatch("three is no width")
    y = g.add("linear", g.input("x", spec.inputs[0]), out=width, name="hidden")
    return g.finish(g.add("linear", g.add("relu", y), out=spec.outputs, name="head"))


def test_a_space_of_ones_own() -> None:
    spec = Spec.of(open_data("iris"))
    run = found(space=Space("mine", wide, spec), trials=6, strategy="random").run
    assert run["space"] == "mine" and sum(run["trials"].values()) == 6
    assert {entry["trace"]["width"] for entry in run["front"]} <= {2, 5}

    def none(choose: Any, spec: Any) -> Any:
        choose.one_of("width", (1, 2))
        raise TypeMismatch("there is no such network")

    with pytest.raises(FormatError, match="makes no network for these data: there is no such network"):
        found(space=Space("none", none, spec))


def test_a_shipped_space_by_its_kind() -> None:
    assert module.DEFAULT_SPACE.keys() == {"table", "image", "signal"}
    for name in module.DEFAULT_SPACE.values():
        assert registry.find(name, "space").name == name
    with pytest.raises(FormatError, match="no default space for points data"):
        module.bound(None, replace(open_data("iris"), kind="points"))


# ----------------------------------------------------------------------------------------------------------- the splits
def changed_test(data: Data, *, inputs: bool) -> Data:
    """The same data with other test rows."""
    rows = data.splits["test"]
    target, x = data.target.copy(), data.inputs[0].copy()
    if inputs:
        x[rows] = 100 + 7 * x[rows]
    else:
        target[rows] = (target[rows] + 1) % 3 if data.task == "classification" else target[rows] * -3 + 5
    return replace(data, target=target, inputs=(x,))


@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_the_test_split_decides_nothing(name: str) -> None:
    data = open_data(name, seed=2)
    first = found(data, trials=4, objective="error,params")
    for inputs in (False, True):
        other = found(changed_test(data, inputs=inputs), trials=4, objective="error,params")
        kept = [json.loads(told(r)) for r in (first, other)]
        assert kept[0][2] != kept[1][2]  # the test figures, and nothing else
        assert kept[0][:2] + kept[0][3:] == kept[1][:2] + kept[1][3:]
        assert other.run["curves"] == first.run["curves"]
        assert other.run["winner"]["valid"] == first.run["winner"]["valid"]


def test_given_and_temporal_splits_are_not_drawn_anew() -> None:
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(2, 60))
    frame = pd.DataFrame({"when": pd.date_range("2020", periods=60), "a": a, "y": y})
    run = found(frame, target="y", time="when", trials=1).run
    assert run["plan"]["folds"] == 0 and run["data"]["split"] == "temporal"
    assert found(frame.drop(columns="when"), target="y", trials=1).run["plan"]["folds"] == 5


# ------------------------------------------------------------------------------------------------------- from a network
def net_for(data: Data, **changes: Any) -> Net:
    """A network for a table."""
    g = ops.edit()
    x = g.input("x", (None, changes.get("inputs", data.inputs[0].shape[1])))
    y = g.add("relu", g.add("linear", x, out=12, name="first"), name="act")
    return init(g.finish(g.add("linear", y, out=changes.get("outputs", data.outputs), name="last")), seed=9)


def test_a_search_begins_at_the_users_network(tmp_path: Path) -> None:
    data = open_data("iris")
    start = net_for(data)
    result = found(data, start=start, space=None, trials=6)
    assert result.run["space"] == "start"
    first: Mapping[str, Any] = result.study.trials[0].params
    assert first["act"] == "keep" and first["width.first.weight.0"] == 1.0 and not first["insert.act"]
    assert result.study.trials[0].user_attrs["key"] == start.graph.key()
    again = found(data, start=start.save(tmp_path / "net"), space=None, trials=6)
    assert told(again) == told(result)
    bundle = result.save(tmp_path / "bundle")
    assert sum(found(data, start=bundle, space=None, trials=2).run["trials"].values()) == 2


def told_of(result: Result, folder: Path) -> tuple[str, bool, bool]:
    """What is said of a start: of the validation's rows, of those of the test, and whether it saw none of these."""
    report = (result.save(folder) / "report.html").read_text()
    card = (folder / "card.md").read_text()
    (valid,) = [n for n in result.run["data"]["notices"] if "held back for validation" in n]
    test = [n for n in result.run["data"]["notices"] if "rows of the test split: the test figure may be" in n]
    assert all([notice in card for notice in [valid, *test]]) and report.count(valid) == 1
    return valid.partition(" trained on ")[0].partition("begun from ")[2], bool(test), "never saw" in report


def test_what_a_start_may_know_of_the_test_split_is_said(tmp_path: Path) -> None:
    first = found(trials=1)
    fresh = first.save(tmp_path / "first")
    assert "start" not in first.run and "never saw" in (fresh / "report.html").read_text()
    given: dict[str, Any] = {"space": None, "trials": 1}
    same = found(start=fresh, **given)
    start = same.run["start"]
    assert start["from"] == str(fresh) and start["key"] == first.best.net.graph.key() and start["clean"]
    assert told_of(same, tmp_path / "same") == ("was", False, True)
    other = found(start=fresh, seed=1, **given)  # other rows are the test split
    assert other.run["start"]["weights"] == start["weights"] and not other.run["start"]["clean"]
    assert told_of(other, tmp_path / "other") == ("may have been", True, False)
    # what it was begun from counts as well, and a net that is not a bundle may have seen everything
    assert told_of(found(start=tmp_path / "same", **given), tmp_path / "third") == ("was", False, True)
    assert told_of(found(start=tmp_path / "other", seed=1, **given), tmp_path / "fourth") == ("was", True, False)
    plain = first.best.net.save(tmp_path / "plain")
    assert told_of(found(start=plain, **given), tmp_path / "fifth") == ("may have been", True, False)
    from_memory = found(start=first.best.net, **given)
    assert from_memory.run["start"]["from"] == "memory" and not from_memory.run["start"]["clean"]
    other.best.net.save(fresh)  # its record is that of other weights now
    assert told_of(found(start=fresh, **given), tmp_path / "sixth") == ("may have been", True, False)


def test_a_start_of_an_older_version_may_know_the_test_split(tmp_path: Path) -> None:
    first = found(trials=1)
    data = {key: value for key, value in first.run["data"].items() if key != "digest"}
    old = replace(first.best, run={**first.run, "data": data}).save(tmp_path / "old")
    result = found(start=old, space=None, trials=1)
    assert told_of(result, tmp_path / "net") == ("may have been", True, False)


@pytest.mark.parametrize("changes", [{"inputs": 5}, {"outputs": 2}])
def test_a_network_for_other_data_is_refused(changes: Any) -> None:
    data = open_data("iris")
    with pytest.raises(TypeMismatch, match=r"the network (takes|gives)"):
        found(data, start=net_for(data, **changes), space=None)
