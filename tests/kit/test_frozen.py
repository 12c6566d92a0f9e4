"""What training never changes is split off, computes the same, and is computed once."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.core import registry, seeds
from archwright.core.choose import Picker, at_random
from archwright.core.space import Spec
from archwright.data.data import from_arrays
from archwright.kit import frozen
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS, Limits, Samples, train_together
from archwright.net.build import build
from archwright.net.net import Net, example, init


def rocket(dropout=0.0, outputs=3):
    g = ops.edit()
    x = registry.load("rocket", "block")(g, g.input("x", (None, 2, 30)), kernels=40)
    x = g.add("dropout", x, p=dropout) if dropout else x
    return g.finish(g.add("linear", x, out=outputs, name="head"))


def same(net, divided, inputs):
    whole = build(net).eval()(*inputs)
    made = build(frozen._part(net, divided.front)).eval()(*inputs)
    made = made if isinstance(made, tuple) else (made,)
    torch.testing.assert_close(build(frozen._part(net, divided.rest)).eval()(*made), whole)


def test_random_kernels_are_a_front():
    graph = rocket()
    divided = frozen.divide(graph)
    assert [node.op for node in divided.rest.nodes] == ["input", "batch_norm", "linear"]
    assert len(divided.front) + 2 == len(graph)
    same(init(graph, 3), divided, example(graph, 5))


@settings(max_examples=60)
@given(st.sampled_from(["signals", "tables", "images"]), st.integers(0, 10_000))
def test_front_and_rest_compute_what_the_net_does(name, seed):
    shape = {"signals": (None, 2, 40), "tables": (None, 7), "images": (None, 3, 16, 16)}[name]
    draw = registry.load(name, "space")
    graph = draw(Picker(at_random(seeds.rng(seed, "draw"))), Spec((shape,), 4))
    frozen_worth, frozen.WORTH = frozen.WORTH, 0.0
    try:
        divided = frozen.divide(graph)
    finally:
        frozen.WORTH = frozen_worth
    if divided is None:
        return
    net = init(graph, seed)
    rng = torch.Generator().manual_seed(seed)
    net = Net(graph, {n: torch.rand(w.shape, generator=rng) + 0.1 if w.is_floating_point() else w
                      for n, w in net.weights.items()})  # fmt: skip
    same(net, divided, example(graph, 3))
    trainable = {n for n, p in ops.params(graph).items() if not p.buffer}
    assert not trainable & set(ops.params(divided.front)) and trainable <= set(ops.params(divided.rest))


def drawn(*steps):
    """A graph x [N, 8] -> constant map -> what the steps add -> linear."""
    g = ops.edit()
    x = g.add("matmul", g.input("x", (None, 8)), g.add("buffer", shape=(8, 500), init=("normal", 1.0)))
    for step in steps:
        x = step(g, x)
    return g.finish(g.add("linear", x, out=2, name="head"))


@pytest.mark.parametrize(
    ("steps", "ops_of_rest"),
    [
        ([lambda g, x: g.add("relu", x)], ["input", "linear"]),
        ([lambda g, x: g.add("dropout", x), lambda g, x: g.add("relu", x)], ["input", "dropout", "relu", "linear"]),
        ([lambda g, x: g.add("mul", x, g.add("linear", x, out=1))], ["input", "linear", "mul", "linear"]),
        ([lambda g, x: g.add("concat", *g.add("chunk", x, parts=2)[::-1], dim=1)], ["input", "linear"]),
    ],
)
def test_where_the_front_ends(steps, ops_of_rest):
    graph = drawn(*steps)
    divided = frozen.divide(graph)
    assert [node.op for node in divided.rest.nodes] == ops_of_rest
    same(init(graph, 1), divided, example(graph, 4))


def test_a_border_of_several_values_and_the_input_itself():
    g = ops.edit()
    x = g.input("x", (None, 8))
    wide = g.add("matmul", x, g.add("buffer", shape=(8, 500), init=("normal", 1.0)))
    one, other = g.add("chunk", wide, parts=2, name="pair")
    a, b = g.add("linear", one, out=8, name="a"), g.add("linear", other, out=8, name="b")
    graph = g.finish(g.add("add", g.add("add", a, b), x), other)
    divided = frozen.divide(graph)
    assert len(divided.rest.inputs) == 3 and len(divided.rest.outputs) == 2
    net = init(graph, 1)
    made = build(frozen._part(net, divided.front)).eval()(*example(graph, 4))
    for mine, whole in zip(build(frozen._part(net, divided.rest))(*made), build(net)(*example(graph, 4)), strict=True):
        torch.testing.assert_close(mine, whole)


def test_there_is_no_front():
    g = ops.edit()
    plain = g.finish(g.add("linear", g.add("relu", g.input("x", (None, 8))), out=2))
    assert frozen.divide(plain) is None  # nothing that costs much stands before what is trained
    g = ops.edit()
    x = g.add("linear", g.input("x", (None, 8)), out=8)
    x = g.add("matmul", x, g.add("buffer", shape=(8, 500), init=("normal", 1.0)))
    assert frozen.divide(g.finish(g.add("linear", x, out=2))) is None


def data(count=60):
    rng = np.random.default_rng(0)
    y = np.arange(count) % 3
    x = rng.normal(size=(count, 2, 30)).astype(np.float32) + np.sin(np.arange(30) * (1 + y[:, None, None]) / 3)
    return from_arrays(x.astype(np.float32), y, kind="signal")


def both(monkeypatch, graph, source, nets=None, **more):
    """The same training with a front that is computed once, and without."""
    nets = nets or [init(graph, i % 2) for i in range(3)]
    parts = [source.splits["train"], source.splits["train"][::2], source.splits["train"][1:]]
    found = []
    for off in (False, True):
        if off:
            monkeypatch.setattr(frozen, "divide", lambda graph: None)
        found.append(train_together(
            nets, [Settings(lr=3e-3, batch=8)] * len(nets), source, parts[: len(nets)],
            [source.splits["valid"]] * len(nets), Limits(60), np.random.default_rng(1),
            look=lambda share, alive, outputs: [i for i in alive if share < 0.5 or i != 1], **more,
        ))  # fmt: skip
    return found


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("count", [1, 3])
def test_training_comes_to_the_same(monkeypatch, dropout, count):
    graph, source, calls = rocket(dropout), data(), []
    run = frozen._run
    monkeypatch.setattr(frozen, "_run", lambda front, x: calls.append(len(x[0])) or run(front, x))
    once, often = both(monkeypatch, graph, source, [init(graph, i % 2) for i in range(count)])
    fronts = min(count, 2)
    rows = len(source.splits["train"]) + len(source.splits["valid"])
    assert sum(calls) <= fronts * rows + 2 and len(calls) > fronts  # each sample once for each front
    for mine, other in zip(once.nets, often.nets, strict=True):
        assert mine.graph == other.graph == graph and mine.weights.keys() == other.weights.keys()
        for name in mine.weights:
            torch.testing.assert_close(mine.weights[name], other.weights[name], rtol=1e-3, atol=1e-4)
    for mine, other in zip(once.outputs, often.outputs, strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)


def test_time_for_the_features_is_no_training(monkeypatch):
    """Computing them takes half of it: looks come as early in the training as ever, and all ends in time."""
    graph, source, seen = rocket(), data(), []
    run = frozen._run
    monkeypatch.setattr(frozen, "_run", lambda front, x: time.sleep(0.2) or run(front, x))
    began = time.monotonic()
    trained = train_together(
        [init(graph, 0)], [Settings(batch=8)], source, [source.splits["train"]], [source.splits["valid"]],
        Limits(10**9, 1.6), np.random.default_rng(0), look=lambda share, *_: seen.append(share) or [0],
    )  # fmt: skip
    assert len(seen) > 3 and seen[0] <= 2 / LOOKS
    assert 1.6 <= trained.seconds <= time.monotonic() - began < 10


def features(graph, source, **more):
    rows = [np.arange(20), np.arange(10, 40)]
    more = {"passes": 10**6, "seconds": None, **more}
    return frozen.features([init(graph, 0), init(graph, 1)], Samples(source), rows, source, **more)


def test_when_it_does_not_pay(monkeypatch):
    graph, source = rocket(), data()
    assert features(graph, source).data.inputs[0].shape == (50, 80)
    assert features(graph, source, passes=99) is None
    assert features(graph, source, seconds=0.0) is None
    monkeypatch.setattr(frozen, "ROOM", 50 * 80 * 4 - 1)
    assert features(graph, source) is None


def test_what_depends_on_the_samples_beside_it_is_no_front():
    graph = drawn(lambda g, x: g.add("sub", x, g.add("mean", x, dim=0, keepdim=True)))
    source = from_arrays(np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32), np.arange(60) % 2)
    assert frozen.divide(graph) is not None and features(graph, source) is None


def test_no_front_where_inputs_are_augmented(monkeypatch):
    graph, source = rocket(), data()
    monkeypatch.setattr(frozen, "features", lambda *a, **k: pytest.fail("each epoch has inputs of its own"))
    train_together(
        [init(graph, 0)], [replace(Settings(batch=8), augment="shift")], source, [source.splits["train"]],
        [source.splits["valid"]], Limits(3), np.random.default_rng(0),
    )  # fmt: skip
