"""Training as choices of the space: what is asked depends on the data, and a trace says it again."""

from __future__ import annotations

import numpy as np
import pytest

from archwright.core.choose import Picker, at_random, replay
from archwright.core.space import Space, Spec
from archwright.data.builtin import builtin
from archwright.data.data import from_arrays
from archwright.kit.augment import IMAGES, SIGNALS
from archwright.kit.settings import BATCHES, LENGTHS, Settings, ask, with_training


def asked(data):
    picker = Picker(at_random(np.random.default_rng(0)))
    return ask(picker, data), picker


@pytest.mark.parametrize("name, augment, smoothing", [
    ("iris", ("none",), 3), ("diabetes", ("none",), 1), ("digits", IMAGES, 3), ("mnist1d", SIGNALS, 3),
])  # fmt: skip
def test_what_is_asked_suits_the_data(name, augment, smoothing):
    data = builtin(name)
    settings, picker = asked(data)
    assert picker.asked["train.augment"].values == augment
    assert len(picker.asked["train.smoothing"].values) == smoothing
    assert picker.asked["train.length"].values == ((1.0,) if name == "digits" else LENGTHS)
    assert all(b <= max(BATCHES[0], data.size() // 4) for b in picker.asked["train.batch"].values)
    assert Settings.of(picker.trace) == settings


def test_few_rows_leave_the_smallest_batch():
    data = from_arrays(np.zeros((10, 2), np.float32), np.arange(10) % 2)
    assert asked(data)[1].asked["train.batch"].values == (16,)


def test_a_trace_without_training_is_the_usual_and_unknown_choices_are_no_settings():
    assert Settings.of({"width": 3}) == Settings()
    assert Settings.of({"train.lr": 0.5, "train.length": 0.3, "train.strange": 1}) == Settings(lr=0.5, length=0.3)


def test_a_program_with_training_asks_both():
    from archwright.core.checks import bench

    data = builtin("iris")
    toy = bench.space()
    space = Space("toy", with_training(toy.program, data), Spec.of(data))
    trace = space.random(np.random.default_rng(1))
    shape = {n: v for n, v in trace.items() if not n.startswith("train.")}
    assert len(trace) == len(shape) + 7
    assert space.draw(trace).key() == toy.program(Picker(replay(shape)), space.spec).key()
