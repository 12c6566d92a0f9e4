"""Objectives, limits and durations as a user writes them, and the costs of a network."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.data.open import open_data
from archwright.data.recipe import recipe_from
from archwright.errors import DataError, EmitError, FormatError
from archwright.flows.objectives import UNITS, costs, limits, objectives, over, quantity, seconds
from archwright.ir import Graph


def graph() -> Graph:
    """4 -> 10 -> 3."""
    g = ops.edit()
    y = g.add("relu", g.add("linear", g.input("x", (None, 4)), out=10, name="hidden"))
    return g.finish(g.add("linear", y, out=3, name="head"))


def test_objectives_by_name() -> None:
    found = objectives("error, params,neg_log_loss", "classification", 3)
    assert [(o.name, o.unit, o.direction) for o in found] == [
        ("error", "share", "min"), ("params", "1", "min"), ("neg_log_loss", "nats", "max"),
    ]  # fmt: skip
    assert [o.is_cost for o in found] == [False, True, False]
    assert objectives(["r2"], "regression", 1)[0].direction == "max"
    for name in UNITS:
        assert objectives(f"{name},error", "regression", 1)[0].is_cost


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", FormatError), (",", FormatError), ("error,error", FormatError), ("params,flops", FormatError),
        ("eror", DataError), ("r2", DataError), ([], FormatError),
    ],
)  # fmt: skip
def test_objectives_that_are_none(text: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        objectives(text, "classification", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("params=20k", {"params": 20_000}), ("params=1.5M, flops=2G", {"params": 1.5e6, "flops": 2e9}),
        ("bytes=100kB", {"bytes": 1e5}), ("bytes=100KiB,memory=1MiB", {"bytes": 102_400, "memory": 2**20}),
        ("latency=1ms", {"latency": 1e-3}), ("latency=250us", {"latency": 2.5e-4}),
        ("latency=0.002", {"latency": 0.002}),
        ("energy=3e4", {"energy": 3e4}), ({"params": 7, "latency": "2 ms"}, {"params": 7, "latency": 2e-3}),
        (None, {}), ("", {}),
    ],
)  # fmt: skip
def test_limits(text: object, found: dict[str, float]) -> None:
    assert limits(text) == pytest.approx(found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parms=3", "did you mean params"), ("weight=3", "expected one of params, flops"), ("params=", "such as 20k"),
        ("params", "such as 20k"), ("params=0", "above 0"), ("params=-3", "such as 20k"), ("params=3q", "such as 20k"),
        ("params=nan", "such as 20k"), ({"params": float("nan")}, "above 0"), ("latency=3kB", "such as 1ms"),
        ("bytes=3ms", "such as 100kB"), ("error=0.1", "unknown limit 'error'"),
    ],
)  # fmt: skip
def test_limits_that_are_none(text: object, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        limits(text)  # type: ignore[arg-type]


def test_durations() -> None:
    assert [seconds(t) for t in ("60s", "5m", "1h", "90", 90, 1.5, "2 min", "500ms")] == [
        60, 300, 3600, 90, 90, 1.5, 120, 0.5,
    ]  # fmt: skip
    for wrong in ("soon", "0", 0, -1, float("inf"), float("nan"), "5 days", ""):
        with pytest.raises(FormatError):
            seconds(wrong)


@given(st.floats(1e-3, 1e6), st.sampled_from(["", "k", "M", "G"]))
def test_numbers_and_scales(value: float, scale: str) -> None:
    text = f"{value:.6f}{scale}"
    wanted = float(f"{value:.6f}") * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[scale]
    assert quantity(text, "1", "params") == pytest.approx(wanted)


def test_costs_are_those_of_the_net() -> None:
    found = costs(graph(), list(UNITS))
    assert found["params"] == 4 * 10 + 10 + 10 * 3 + 3 and found["bytes"] == 4 * found["params"]
    assert set(found) == set(UNITS) and all(v > 0 for v in found.values())
    assert list(costs(graph(), ["flops"])) == ["flops"]
    recipe = recipe_from(open_data("iris").meta["recipe"])
    assert 0 < costs(graph(), ["latency"], recipe)["latency"] < 1


def test_what_is_over() -> None:
    assert over({"params": 5, "bytes": 20}, {"params": 5}) is None
    assert over({"params": 6}, {"params": 5}) == "params 6 is over the limit of 5"
    assert over({"bytes": 6e4}, {"bytes": 5e4}) == "bytes 60000 B is over the limit of 50000"
    assert over({}, {}) is None


def test_a_net_without_a_form_in_onnx_has_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise EmitError("it has no form in ONNX")

    monkeypatch.setattr("archwright.flows.objectives.latency", none)
    assert costs(graph(), ["params", "latency"]) == {"params": 83, "latency": math.inf}
