"""Records: frozen, plain, JSON with units; budgets are spent as said."""

from __future__ import annotations

import dataclasses
import json
import math
import time

import numpy as np
import pytest

from archwright.core.records import (
    Budget,
    Chart,
    Claim,
    Figure,
    Finding,
    Log,
    Measured,
    Report,
    Score,
    Trace,
    Trial,
)
from archwright.errors import FormatError

FIGURE = Figure("error", 0.25, "share")
CHART = Chart("Loss", "line", {"train": {"x": [0, 1], "y": [1.0, 0.5]}}, x="step", y="nats")
RECORDS = [
    FIGURE,
    CHART,
    Score(0.5, "share", "min", details={"a": 1.0}),
    Report("fold", True, (FIGURE,), (CHART,), ("note",)),
    Report("prune", False, measure=FIGURE, bound=0.3),
    Log({"step": (1.0, 2.0), "loss": (3.0, 2.0)}, {"step": "steps", "loss": "nats"}, "steps"),
    Finding("Calibration", (FIGURE,), (CHART,), "It is sure of itself."),
    Claim(0.5, "1", "above 0.4", True, "0.6"),
    Trial(3, Trace({"act": "relu", "width": 8}), (0.5,), extra={"curve": [0.9, 0.5]}),
    Budget(seconds=2.0),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen_and_json(record):
    text = record.to_json()
    assert json.loads(text) == json.loads(json.dumps(record.as_dict()))
    assert text == dataclasses.replace(record).to_json()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, None)


def test_numbers_that_json_lacks_become_strings():
    text = Figure("x", float("nan"), "1").to_json(), Figure("x", -math.inf, "1").to_json()
    assert json.loads(text[0])["value"] == "nan" and json.loads(text[1])["value"] == "-inf"


def test_numpy_floats_are_numbers_and_tensors_are_refused():
    assert json.loads(Figure("x", np.float64(0.5), "1").to_json())["value"] == 0.5
    for bad in (np.zeros(2), object(), {1, 2}, np.float32(1)):
        with pytest.raises(FormatError, match="expected plain data"):
            Figure("x", bad, "1").to_json()


def test_outputs_stay_out_of_the_json_of_measured():
    measured = Measured(0.5, 100, (FIGURE,), outputs=(object(),))
    assert "outputs" not in measured.as_dict()
    assert measured == Measured(0.5, 100, (FIGURE,))


def test_a_log_has_equal_columns_with_units():
    with pytest.raises(FormatError, match=r"lengths \[1, 2\]"):
        Log({"step": (1.0,), "loss": (1.0, 2.0)}, {"step": "steps", "loss": "nats"}, "steps")
    with pytest.raises(FormatError, match="units"):
        Log({"step": (1.0,)}, {}, "steps")
    assert Log({"step": (1.0, 5.0)}, {"step": "steps"}, "steps").last("step") == 5.0


def test_a_report_that_is_not_exact_has_measure_and_bound():
    with pytest.raises(FormatError, match="needs the measure"):
        Report("prune", exact=False)


def test_a_finding_gives_figures_by_name():
    finding = Finding("x", (FIGURE,))
    assert finding["error"] == 0.25
    with pytest.raises(KeyError):
        finding["accuracy"]


@pytest.mark.parametrize("limits", [{}, {"seconds": 0}, {"steps": -1}, {"epochs": 0.0}, {"seconds": float("nan")}])
def test_a_budget_needs_a_limit_above_zero(limits):
    with pytest.raises(FormatError, match="budget"):
        Budget(**limits)


def test_a_budget_is_spent_by_whichever_limit_comes_first():
    clock = Budget(steps=10, epochs=2).start()
    assert not clock.spent(9, 1.9)
    assert clock.spent(10, 0) and clock.spent(0, 2)
    assert clock.share(5, 0.5) == 0.5 and clock.share(0, 1.5) == 0.75 and clock.share(99, 0) == 1.0


def test_a_budget_of_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Budget(seconds=4).start()
    assert not clock.spent(10**9)
    now[0] += 3
    assert clock.elapsed() == 3 and clock.share(0) == 0.75
    now[0] += 1
    assert clock.spent(0)
