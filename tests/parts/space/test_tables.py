"""The space alone: shapes of data, sizes, speed, and that its known traces are of the space. How well they do is in
benchmarks/search.py."""

import math
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core import choose, registry
from archwright.core.checks.common import outputs, rough
from archwright.core.space import Space, Spec
from archwright.data.data import Data
from archwright.errors import ChoiceError, TypeMismatch
from archwright.kit.settings import with_training
from archwright.net.batch import batch
from archwright.net.net import example, init

part = registry.find("space/tables")
module = registry.module(part)

NUMBERS = Spec(((None, 8),), 1)
CATEGORIES = Spec(((None, 3),), 4, ("int64",), (2, 7, 40))
BOTH = Spec(((None, 8), (None, 3)), 2, ("float32", "int64"), (2, 7, 40))
SPECS = pytest.mark.parametrize("spec", [NUMBERS, CATEGORIES, BOTH], ids=["numbers", "categories", "both"])

PLAIN = {"numbers": "plain", "depth": 1, "backbone": "mlp", "width": 4, "dropout": 0.0, "norm": "none"}
PLAIN |= {"activation": "relu", "shortcut": False}


def space(spec):
    return Space("tables", module.draw, spec)


def weights(graph):
    return sum(math.prod(p.shape) for p in ops.params(graph).values() if not p.buffer)


def whole(spec, trace, seed=0):
    """The trace with what it lacks drawn at random, and its graph."""
    picker = choose.Picker(choose.replay(trace, choose.at_random(np.random.default_rng(seed))))
    graph = module.draw(picker, spec)
    return picker.trace, graph


@SPECS
def test_random_draws_replay_and_run(spec):
    rng = np.random.default_rng(0)
    for _ in range(10):
        trace = space(spec).random(rng)
        graph = space(spec).draw(trace)
        assert graph.key() == whole(spec, trace)[1].key()
        found = outputs(init(graph), example(graph, 3))[0]
        assert found.shape == (3, spec.outputs)
        assert found.isfinite().all()


def test_depth_zero_with_plain_numbers_is_a_linear_model():
    graph = space(NUMBERS).draw({"numbers": "plain", "depth": 0})
    assert [node.op for node in graph.nodes] == ["input", "linear"]
    assert weights(graph) == 8 + 1


def test_plain_mlp_is_the_formula():
    made, x = rough(init(space(NUMBERS).draw({**PLAIN, "shortcut": True})), 1), torch.randn(20, 8)
    w = {name.removeprefix("backbone."): t for name, t in made.weights.items()}
    hidden = F.relu(F.linear(x, w["layer0.linear.weight"], w["layer0.linear.bias"]))
    expected = F.linear(hidden, w["head.weight"], w["head.bias"]) + x @ w["shortcut.weight"].T
    torch.testing.assert_close(outputs(made, (x,))[0], expected, rtol=1e-5, atol=1e-5)


def test_every_size_is_reachable():
    small = weights(space(NUMBERS).draw(PLAIN))
    large = weights(space(NUMBERS).draw({**PLAIN, "depth": 2, "width": 512}))
    assert small < 50
    assert large > 250_000
    steps = [b / a for a, b in zip(module.WIDTHS, module.WIDTHS[1:], strict=False)]
    assert max(steps) <= 1.5


def test_categories_are_one_hot_up_to_a_size():
    graph = space(CATEGORIES).draw({"categories.one_hot": 8, "categories.width": 4, "depth": 0})
    tables = {name: p.shape for name, p in ops.params(graph).items() if name.startswith("categories")}
    assert tables == {"categories.column2": (40, 4)}


def test_flags_alone_need_no_choice():
    spec = Spec(((None, 2),), 2, ("int64",), (2, 2))
    assert set(space(spec).random(np.random.default_rng(0))) >= {"depth"}
    assert not [name for name in space(spec).random(np.random.default_rng(0)) if name.startswith("categories")]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Spec(((None, 3, 8, 8),), 2), "expected float32"),
        (Spec(((None, 3), (None, 3)), 2), "expected float32"),
        (Spec(((None, 3),), 2, ("int64",)), "codes"),
        (Spec(((None, 2),), 2, ("int64",), (3,)), "codes"),
    ],
)
def test_other_data_are_refused(spec, reason):
    with pytest.raises(TypeMismatch, match=reason):
        space(spec).random(np.random.default_rng(0))


def test_a_choice_too_many_is_an_error():
    with pytest.raises(ChoiceError, match="does not ask"):
        space(NUMBERS).draw({"numbers": "plain", "depth": 0, "width": 4})


@SPECS
def test_known_traces_are_of_the_space(spec):
    known = module.known(spec)
    assert 8 <= len(known) <= 13
    rows = np.arange(2000)  # enough for every batch size in use
    splits = {"train": rows, "valid": rows[:0], "test": rows[:0]}
    data = Data((np.zeros((2000, 1), np.float32),), rows % 2, "classification", splits)
    asked = with_training(module.draw, data)
    for trace in known:
        picker = choose.Picker(choose.replay(trace, choose.at_random(np.random.default_rng(0))))
        graph = asked(picker, spec)
        odd = {name: value for name, value in trace.items() if picker.taken.get(name, value) != value}
        assert not odd, f"not among the options: {odd}"
        assert trace.keys() <= picker.taken.keys(), f"never asked: {sorted(trace.keys() - picker.taken.keys())}"
        lacking = [name for name in picker.taken if name not in trace and name != "train.augment"]
        assert not lacking, f"left to chance: {lacking}"
        assert weights(graph) < 25_000
    assert weights(whole(spec, known[0])[1]) * 8 < 100_000
    assert len({tuple(sorted(map(str, trace.items()))) for trace in known}) == len(known)


@pytest.mark.parametrize("columns", [1, 8, 60, 400])
def test_known_traces_are_small_enough_to_be_averaged(columns):
    spec = Spec(((None, columns), (None, 2)), 3, ("float32", "int64"), (5, 1000))
    for trace in module.known(spec):
        assert weights(whole(spec, trace)[1]) <= module.MOST // 4


def test_drawing_is_quick():
    rng = np.random.default_rng(0)
    traces = [space(BOTH).random(rng) for _ in range(30)]
    best = math.inf
    for _ in range(3):  # the best of three: other programs may be running
        start = time.perf_counter()
        for trace in traces:
            space(BOTH).draw(trace)
        best = min(best, (time.perf_counter() - start) / len(traces))
    assert best < 3e-3


@pytest.mark.parametrize("backbone", module.BACKBONES)
@pytest.mark.parametrize("entry", module.ENTRIES)
def test_nets_train_at_once(backbone, entry):
    trace, graph = whole(BOTH, {"depth": 2, "backbone": backbone, "numbers": entry, "width": 8, "dropout": 0.1,
                                "norm": "batch", "categories.one_hot": 2})  # fmt: skip
    nets = batch([init(graph, seed) for seed in range(3)])
    assert nets.fallback is None, trace
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    codes = torch.stack([torch.randint(0, n, (64,), generator=generator) for n in BOTH.codes], 1)
    y = (x[:, 0] > 0).long()
    optimiser = nets.optimizer(torch.optim.AdamW, lr=1e-2)
    rows = torch.stack([torch.randperm(64, generator=generator) for _ in range(3)])
    losses = [nets.step(optimiser, F.cross_entropy, (x, codes), y, rows=rows).mean() for _ in range(25)]
    assert losses[-1] < 0.8 * losses[0]


def test_claim_holds():
    assert module.claim().held
