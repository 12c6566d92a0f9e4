"""Toys and benches: well formed, learnable, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.checks import bench, common, toys
from archwright.core.checks.estimator import spearman
from archwright.core.checks.task import _standardised, _well_formed
from archwright.errors import DataError
from archwright.net.net import example

PAIRS = [(d, n) for d in toys.DATA for n in toys.NETS if (n == "gnn") == (d == "graph")]


@pytest.mark.parametrize("name", toys.DATA)
def test_data_are_what_tasks_have_to_give(name):
    data = toys.data(name)
    checks = common.Checks(type("Toy", (), {"key": name})())
    _well_formed(checks, data)
    _standardised(checks, data)
    again = toys.DATA[name](bench.seeds.rng(0, "toys", name))
    assert all(np.array_equal(a, b) for a, b in zip(data.inputs, again.inputs, strict=True))


@pytest.mark.parametrize(("data", "net"), PAIRS)
def test_nets_run_on_their_data(data, net):
    source = toys.data(data)
    made = toys.net(net, source, 0)
    x, _ = source.batch(source.splits["train"][:3])
    (out,) = common.outputs(made, x)
    assert out.shape == (3, source.outputs) and torch.isfinite(out).all()
    assert ops.infer(made.graph, 3)[made.graph.outputs[0]].shape == (3, source.outputs)
    assert len(example(made.graph, 2)) == len(source.inputs)


@pytest.mark.parametrize("data", toys.DATA)
def test_the_net_that_suits_the_data_learns_them(data):
    source = toys.data(data)
    fresh, trained = toys.net(None, source, 0), toys.net(None, source, 0, trained=True)
    assert toys.error(trained, source, "train") < 0.8 * toys.error(fresh, source, "train")
    before = torch.get_rng_state()
    again = toys.net(None, source, 0, trained=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(again.weights[name], w) for name, w in trained.weights.items())


def test_unknown_names_are_errors():
    with pytest.raises(DataError, match="'tables': expected one of table"):
        toys.data("tables")
    with pytest.raises(DataError, match="'cnn': expected one of mlp"):
        toys.net("cnn", toys.data("table"))


def test_the_made_up_bench_is_a_bench():
    space = bench.space()
    rng = np.random.default_rng(0)
    errors = [bench.error(space.random(rng)) for _ in range(300)]
    assert min(errors) > 0 and max(errors) < 1 and np.std(errors) > 0.05
    mean, noise = bench.random_quality(60, 1)
    assert 0.25 < mean < 0.45 and noise < 0.02
    assert bench.random_quality(20, 1)[0] > mean


def test_quality_of_two_objectives_is_the_area_of_the_front():
    from archwright.core.records import Trial

    points = [(0.5, 2.0), (0.25, 4.0), (0.6, 3.0), (0.1, 20.0)]
    history = [Trial(i, {}, p) for i, p in enumerate(points)]
    assert bench.quality(history) == pytest.approx(-(0.5 * 8 + 0.25 * 6) / 10)


def test_the_stored_bench_is_whole_and_tells_nets_apart():
    entries = bench.stored()
    assert len(entries) == 40 == len({bench.real_space().draw(e["trace"]).key() for e in entries})
    errors = np.array([bench.target(e, "error") for e in entries])
    assert errors.min() < 0.1 and errors.max() > 0.5 and np.std(errors) > 0.1
    assert all(len(e["curve"]) == 8 and e["curve"][-1] == e["error"] for e in entries)
    for name in ("loss", "params", "flops", "peak_bytes", "train_bytes", "traffic_bytes", "curve_area"):
        assert all(np.isfinite(bench.target(e, name)) for e in entries)


def test_spearman_is_scipys():
    from scipy import stats

    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 8, 30).astype(float), rng.standard_normal(30)
        assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert spearman(np.ones(5), np.arange(5.0)) == 0.0
