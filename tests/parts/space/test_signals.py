import math
import time
from dataclasses import fields

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.choose import Picker, at_random, replay
from archwright.core.records import Budget
from archwright.core.space import Space, Spec
from archwright.data.data import from_arrays
from archwright.errors import ChoiceError, TypeMismatch
from archwright.kit import train
from archwright.kit.settings import USUAL, Settings, ask
from archwright.net.batch import batch
from archwright.net.build import build
from archwright.net.net import init
from archwright.parts.space import signals

SPECS = [Spec(((None, c, t),), k) for c, t, k in ((1, 8, 2), (1, 150, 2), (12, 29, 9), (40, 60, 10), (64, 16000, 3))]


def drawn(spec, trace, seed=0, **hp):
    """A graph of a partial trace, and the whole trace."""
    picker = Picker(replay(trace, at_random(np.random.default_rng(seed))))
    return signals.draw(picker, spec, **hp), picker.trace


def weights(graph):
    return sum(math.prod(p.shape) for p in ops.params(graph).values() if not p.buffer)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_known_shape_is_in_the_space_and_says_how_it_is_trained(spec):
    shapes = signals.known(spec)
    assert 6 <= len(shapes) <= 12
    asked = {"train." + f.name for f in fields(Settings)} - {"train.length", "train.members"}
    assert asked == {n for n in shapes[0] if n.startswith("train.")}
    keys = set()
    for shape in shapes:
        graph, trace = drawn(spec, shape)
        own = {name: value for name, value in shape.items() if not name.startswith("train.")}
        unasked = own.keys() - trace.keys()
        assert (
            unasked <= {"shrink", "grow", "separable", "norm", "act"}
            and trace.items() >= {n: v for n, v in own.items() if n not in unasked}.items()
        )
        keys.add(graph.key())
    assert len(keys) >= 8


def test_known_trainings_are_among_the_training_choices():
    x = np.zeros((400, 1, 20), np.float32)
    data = from_arrays(x, np.arange(400) % 2, kind="signal")
    for shape in signals.known(Spec.of(data)):
        picker = Picker(replay({**USUAL, **shape}))
        ask(picker, data)
        said = {name: value for name, value in shape.items() if name.startswith("train.")}
        assert picker.trace == {**USUAL, **said}


@pytest.mark.parametrize("body", signals.BODIES)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_any_draw_of_any_body_gives_the_outputs(spec, body):
    for seed in range(3):
        graph, _ = drawn(spec, {"body": body}, seed)
        assert ops.infer(graph, 2)[graph.outputs[0]].shape == (2, spec.outputs)


def test_sizes_from_a_few_hundred_to_some_hundred_thousand_weights_are_drawn():
    space = Space("signals", signals.draw, SPECS[1])
    rng = np.random.default_rng(0)
    sizes = np.sort([weights(space.draw(space.random(rng))) for _ in range(300)])
    bins = np.logspace(np.log10(300), np.log10(300_000), 7)
    assert (np.histogram(sizes, bins)[0] >= 10).all()
    small = {"body": "residual", "stem": "patches", "width": 4, "kernel": 3, "depth": 1, "separable": True,
             "input.difference": False, "pool": "mean", "grow": False, "steps": 64}  # fmt: skip
    assert weights(drawn(SPECS[3], small)[0]) < 400


def test_drawing_takes_less_than_ten_milliseconds():
    space = Space("signals", signals.draw, SPECS[3])
    rng = np.random.default_rng(0)
    for _ in range(30):
        space.random(rng)
    start = time.perf_counter()
    for _ in range(100):
        space.random(rng)
    assert (time.perf_counter() - start) / 100 < 0.01


@pytest.mark.parametrize("body", signals.BODIES)
def test_several_copies_run_at_once(body):
    graph, _ = drawn(Spec(((None, 2, 24),), 3), {"body": body, "dropout": 0.1}, widths=(4,), depth=2)
    assert batch([init(graph, seed) for seed in range(2)]).fallback is None


@pytest.mark.parametrize("stem", ["conv", "pool", "patches"])
@pytest.mark.parametrize(("body", "steps", "most"), [("residual", 64, 64), ("recurrent", 512, 64), ("mixer", 512, 128)])
def test_long_signals_are_shortened(stem, body, steps, most):
    trace = {"stem": stem, "body": body, "steps": steps, "shrink": False, "grow": False, "pool": "mean"}
    graph, _ = drawn(SPECS[4], {**trace, "width": 8, "depth": 1, "input.difference": False})
    types = ops.infer(graph, 2)
    first = next(node for node in graph.nodes if ".stem." in node.name and node.op == "conv")
    assert most / 2 < types[first.name].shape[2] <= most


def test_series_are_scaled_and_differenced():
    g = ops.edit()
    picker = Picker(replay({"input.scale": "series", "input.difference": True}))
    net = build(init(g.finish(signals._prepared(picker, g, g.input("x", (None, 2, 30)))))).eval()
    x = 3 + 2 * torch.randn(4, 2, 30)
    y = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    expected = torch.cat([y, y.diff(dim=2, prepend=y[:, :, :1])], 1)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_signal_is_refused():
    choose = Picker(at_random(np.random.default_rng(0)))
    for spec in (Spec(((None, 8),), 2), Spec(((None, 1, 8, 8),), 2), Spec(((None, 1, 8), (None, 3)), 2)):
        with pytest.raises(TypeMismatch, match="channels, time"):
            signals.draw(choose, spec)
    with pytest.raises(ChoiceError, match="'fourier'"):
        signals.draw(choose, SPECS[0], bodies=["fourier"])


def test_the_best_bets_learn_the_frequency_of_a_wave_from_forty_series():
    rng = np.random.default_rng(0)
    target = np.arange(240) % 3
    phase = rng.uniform(0, 6.28, (240, 1))
    t = np.arange(64) / 64
    x = np.sin(2 * np.pi * (3 + 2 * target[:, None]) * t + phase) + 0.5 * rng.standard_normal((240, 64))
    splits = {"train": np.arange(40), "valid": np.arange(0), "test": np.arange(40, 240)}
    data = from_arrays(x[:, None].astype(np.float32), target, kind="signal", splits=splits)
    for shape in signals.known(Spec.of(data))[:2]:
        graph, _ = drawn(Spec.of(data), shape)
        net, _ = train.fit(
            init(graph), data, Budget(steps=60), np.random.default_rng(0), lr=shape["train.lr"], schedule="one_cycle",
            batch_size=shape["train.batch"], options={"weight_decay": shape["train.weight_decay"]},
        )  # fmt: skip
        assert train.evaluate(net, data) < 0.1
