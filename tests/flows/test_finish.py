"""What a search delivers, and what it says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from archwright.data.open import open_data
from archwright.errors import ArchwrightError, EmitError
from archwright.flows import finish
from archwright.flows.bundle import Bundle
from archwright.flows.pool import Pool
from archwright.flows.search import search
from archwright.kit import latency as measuring
from archwright.kit.latency import Latency
from archwright.kit.metrics import metric
from archwright.live import summary

pytestmark = pytest.mark.usefixtures("quick")


def run_of(**options: Any) -> dict[str, Any]:
    """The record of a short search."""
    return dict(search("iris", **{"space": "small", "trials": 4, "workers": 0, **options}).run)


def test_every_metric_has_its_own_values() -> None:
    names = ["neg_log_loss", "error", "accuracy", "params"]
    run = run_of(objective=names, trials=6, strategy="random")
    assert len(run["scatter"]) >= 3
    for values in [entry["values"] for entry in run["scatter"]]:
        assert values["neg_log_loss"] < 0 and values["accuracy"] == pytest.approx(1 - values["error"])
    assert set(run["winner"]["valid"]) == {"neg_log_loss", "error", "accuracy"}
    alone = {entry["trial"]: entry["values"] for entry in run["scatter"]}
    assert run["winner"]["valid"]["accuracy"] == alone[run["winner"]["trial"]]["accuracy"]  # costs: no mean
    assert {tuple(curve[-1]) for curve in run["curves"].values()} >= {(1.0, v["neg_log_loss"]) for v in alone.values()}


@pytest.mark.parametrize("turned", [True, False])
def test_a_network_that_is_worse_than_the_mean_is_told_of(turned: bool) -> None:
    """The last fifth of the rows, those of the test split, follow the opposite rule."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=200).astype(np.float32)
    sign = np.where((np.arange(200) >= 160) & turned, -1.0, 1.0)
    frame = pd.DataFrame({"x": x, "when": np.arange(200), "y": sign * x})
    run = search(frame, "y", time="when", space="small", trials=4, workers=0, strategy="random").run
    said = [n for n in run["data"]["notices"] if "no better than a predictor that knows nothing but the mean" in n]
    assert len(said) == turned == (run["test"]["error"] >= run["baseline"]["error"])
    assert all("what holds may change with time" in notice for notice in said)


def test_a_metric_that_is_not_defined_fails_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    from archwright.flows import jobs

    def broken(name: str, *more: Any) -> Any:
        return replace(metric(name, *more), function=lambda *_: np.nan) if name == "accuracy" else metric(name, *more)

    monkeypatch.setattr(jobs, "metric", broken)
    run = run_of(objective="error,accuracy", trials=2)
    assert {f["reason"] for f in run["failures"]} == {"its accuracy is nan"} and not run["scatter"]


def test_the_validation_figure_is_that_of_what_is_delivered(tmp_path: Path) -> None:
    """Of the mean, computed here from what each trial's nets said of the rows that they had not seen."""
    run = run_of(trials=9, folder=tmp_path / "work", strategy="random")
    members = run["winner"]["members"]
    assert sum(m["copies"] for m in members) == run["winner"]["training"]["networks"] > 1
    total: Any = 0
    for member in members:
        (path,) = (tmp_path / "work" / "nets").glob(f"*/{member['trial']}/held.npy")
        y = np.exp(np.load(path).astype(np.float64))
        total = total + member["copies"] * y / y.sum(1, keepdims=True)
    data = open_data("iris")
    rows = np.sort(np.concatenate([data.splits["train"], data.splits["valid"]]))
    assert run["winner"]["valid"] == {"error": pytest.approx(np.mean(total.argmax(1) != data.target[rows]))}
    best = min(entry["values"]["error"] for entry in run["scatter"])
    assert members[0]["valid"]["error"] == best and members[0]["trial"] == run["winner"]["trial"]


# --------------------------------------------------------------------------------------------------- latency at the end
def seconds_of(net: Any) -> float:
    """A made-up latency: so much for each weight."""
    return 1e-6 * net.cost().params


@pytest.fixture
def slower(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Latencies are made up; at the end they are those of the search times `factor`."""
    state = {"factor": 1.0, "measured": 0}

    def measure(net: Any, **_: Any) -> Latency:
        return Latency(seconds_of(net), 0.0, 0.0, 9)

    def at_the_end(net: Any, **_: Any) -> Latency:
        state["measured"] += 1
        return Latency(seconds_of(net) * state["factor"], 0.0, 0.0, 9)

    from archwright.flows import objectives

    monkeypatch.setattr(objectives, "latency", measure)
    monkeypatch.setattr(finish, "latency", at_the_end)
    return state


def test_what_is_delivered_keeps_to_the_latency_and_the_record_says_which(slower: dict[str, float]) -> None:
    run = run_of(limit="latency=600us", trials=6)
    most = run["cost"]["params"]
    assert run["cost"]["latency_s"] == pytest.approx(1e-6 * most) and most <= 600
    slower |= {"factor": 3.0, "measured": 0}
    run = run_of(limit="latency=600us", trials=6)
    assert run["cost"]["latency_s"] == pytest.approx(3e-6 * run["cost"]["params"]) and run["cost"]["params"] <= 200
    assert slower["measured"] <= 12


def test_nothing_is_delivered_that_is_too_slow(slower: dict[str, float], tmp_path: Path) -> None:
    slower["factor"] = 1e4
    with pytest.raises(ArchwrightError, match=r"no trained network keeps to the latency of 0.0006 s .* resume"):
        run_of(limit="latency=600us", folder=tmp_path / "work")
    slower["factor"] = 1.0
    run = run_of(limit="latency=600us", folder=tmp_path / "work", resume=True)  # nothing that was trained is lost
    assert run["trials"]["complete"] >= 2


def test_where_no_time_is_left_the_fastest_is_looked_at(
    slower: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    slower["factor"] = 3.0
    monkeypatch.setattr(finish, "_is_late", lambda _: True)
    run = run_of(limit="latency=600us", trials=6)
    assert run["cost"]["params"] == min(entry["values"]["params"] for entry in run["scatter"]) <= 200
    assert slower["measured"] <= 2


def test_a_latency_just_over_the_limit_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from archwright.flows import objectives

    found = iter([1.2e-3, 1.1e-3, 0.9e-3])
    monkeypatch.setattr(objectives, "latency", lambda *_, **__: Latency(1e-4, 0.0, 0.0, 9))
    monkeypatch.setattr(finish, "latency", lambda *_, **__: Latency(next(found), 0.0, 0.0, 9))
    assert run_of(limit="latency=1ms")["cost"]["latency_s"] == 0.9e-3


def test_a_net_without_a_form_in_onnx_is_delivered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise EmitError("it has no form in ONNX")

    monkeypatch.setattr(measuring, "_measure", none)
    monkeypatch.setattr("archwright.flows.bundle.to_onnx", none)
    result = search("iris", space="small", trials=2, workers=0)
    assert result.run["cost"]["latency_s"] is None
    again = Bundle.load(result.save(tmp_path / "net"))
    assert again.run["onnx"] == "it has no form in ONNX" and len(again.predict(np.ones((3, 4)))) == 3
    summary(again.run, tmp_path / "net")
    assert "a sample" not in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- what cannot be trained
def test_workers_that_cannot_start_are_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not waited for without end."""
    opened = Pool.open
    monkeypatch.setattr(Pool, "open", lambda pool, folder, memory: opened(pool, tmp_path / "nothing", memory))
    for options in ({"trials": 3}, {"budget": "5s"}):
        with pytest.raises(ArchwrightError, match="no worker process could be started"):
            run_of(workers=1, **options)


def test_workers_that_are_lost_in_the_end_cost_nothing_that_was_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> Any:
        raise ArchwrightError("no worker process could be started")

    monkeypatch.setattr(finish, "_trained", lost)
    run = run_of(trials=4)
    assert not run["winner"]["training"]["retrained"] and run["test"]["error"] <= 1


def test_whatever_a_part_raises_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    from archwright.flows import jobs

    begin, calls = jobs._begin, []

    def breaking(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("what a part forgot")
        return begin(*given)

    monkeypatch.setattr(jobs, "_begin", breaking)
    run = run_of(trials=5)
    assert run["trials"]["failed"] >= 1 and run["trials"]["complete"] >= 1
    assert all(f["reason"] == "KeyError: 'what a part forgot'" for f in run["failures"])


def test_what_was_never_trained_is_no_trial_that_was_given_up() -> None:
    run = run_of(strategy="optuna:RandomSampler", limit="params=60", trials=4)
    assert run["refused"] and sum(run["trials"].values()) == 4
