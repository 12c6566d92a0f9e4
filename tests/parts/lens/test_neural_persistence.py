"""Neural persistence against union-find over the filtration, SciPy's spanning tree and GUDHI's persistent homology."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree

from archwright.core.checks import toys
from archwright.core.records import Budget
from archwright.core.registry import find, load, module
from archwright.errors import ArchwrightError
from archwright.kit import train
from archwright.net.net import Net

look = load("lens/neural_persistence")
lens = module(find("lens/neural_persistence"))
SHAPES = [(1, 1), (1, 5), (6, 1), (4, 7), (13, 9)]


def matrix(shape, seed=0, levels=None):
    a = np.random.default_rng(seed).uniform(0, 1, shape)
    return a if levels is None else np.round(a * levels) / levels


def by_filtration(a):
    """The definition: edges from the heaviest on; a merge of two components ends one of them."""
    parent = list(range(sum(a.shape)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    found = []
    for i, j in sorted(np.ndindex(a.shape), key=lambda e: -a[e]):
        one, other = root(i), root(a.shape[0] + j)
        if one != other:
            parent[one] = other
            found.append(a[i, j])
    return np.array(found)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("levels", [None, 3])
def test_merges_are_those_of_the_filtration_and_the_maximum_spanning_tree_bit_for_bit(shape, levels):
    for seed in range(5):
        a = matrix(shape, seed, levels)
        found = lens.merges(a)
        assert np.array_equal(found, by_filtration(a))
        rows, count = shape[0], sum(shape)
        cost = np.zeros((count, count))
        cost[:rows, rows:] = -a - 1  # negative, and no edge is a zero, which SciPy leaves out
        tree = -minimum_spanning_tree(cost).data - 1
        np.testing.assert_allclose(np.sort(tree)[::-1], found, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pairs_are_those_of_gudhi(shape):
    gudhi = pytest.importorskip("gudhi")
    a = matrix(shape, 3)
    tree = gudhi.SimplexTree()
    for vertex in range(sum(shape)):
        tree.insert([vertex], -1.0)
    for i, j in np.ndindex(shape):
        tree.insert([i, shape[0] + j], -a[i, j])
    tree.compute_persistence(persistence_dim_max=True)
    pairs = -tree.persistence_intervals_in_dimension(0)
    finite = pairs[np.isfinite(pairs[:, 1])]
    assert (finite[:, 0] == 1).all() and len(pairs) == len(finite) + 1
    assert np.array_equal(np.sort(finite[:, 1])[::-1], lens.merges(a))


@pytest.mark.parametrize("p", [1, 2, 3.5, np.inf])
def test_the_norm_is_the_papers_and_normalised_by_its_bound(p):
    net = toys.net("mlp", toys.data("table"))
    names = [n for n, w in net.weights.items() if w.dim() == 2]
    heaviest = max(float(net.weights[n].abs().max()) for n in names)
    found = lens.persistence(net, p=p)
    assert list(found) == names
    for name in names:
        deaths = by_filtration(np.abs(net.weights[name].double().numpy())) / heaviest
        bound = len(deaths) ** (0 if p == np.inf else 1 / p)
        assert found[name] == pytest.approx(np.linalg.norm(1 - deaths, p) / bound, rel=1e-12)
        assert 0 <= found[name] <= 1


def test_equal_weights_have_none_a_spike_has_most_and_scale_does_not_matter():
    net = toys.net("mlp", toys.data("table"))
    ones = Net(net.graph, {n: torch.full_like(w, -0.3) for n, w in net.weights.items()})
    assert set(lens.persistence(ones).values()) == {0.0}
    spiked = {n: 1e-9 * torch.ones_like(w) for n, w in net.weights.items()}
    spiked["head.weight"] = torch.ones_like(spiked["head.weight"])
    found = lens.persistence(Net(net.graph, spiked))
    assert found["head.weight"] == 0 and found["hidden0.weight"] == pytest.approx(1)
    scaled = lens.persistence(Net(net.graph, {n: 4 * w for n, w in net.weights.items()}))
    assert scaled == lens.persistence(net)


def test_biases_norms_and_positions_are_no_layers():
    data = toys.data("tokens")
    names = list(lens.persistence(toys.net("attention", data)))
    assert "embed.weight" in names and not [n for n in names if "bias" in n or "norm" in n]
    assert lens.diagrams(toys.net("conv", toys.data("image")))["stem.conv.weight"].shape == (8 + 9 - 1, 2)


def test_the_stopping_rule():
    assert lens.stopping([1, 2, 3, 4], patience=1) is None
    assert lens.stopping([1, 2, 2, 2, 5], patience=2) == 3
    assert lens.stopping([1, 2, 2, 2, 2, 2], patience=2, burn_in=4) == 4
    assert lens.stopping([1.0, 1.1, 1.2, 1.3], patience=2, least=0.15) is None
    assert lens.stopping([1.0, 1.1, 1.14, 1.3], patience=2, least=0.15) == 2
    with pytest.raises(ArchwrightError, match="patience"):
        lens.stopping([1], patience=0)


def test_it_watches_and_ends_training_without_labels_to_validate_on():
    data = toys.data("table")
    asked = lens.halt(patience=2, least=1.0)  # never rises by as much: ends at the third evaluation
    _, log = train.fit(
        toys.net("mlp", data), data, Budget(steps=40), np.random.default_rng(0), evaluations=20,
        watch=lens.monitor(), watch_units={"neural_persistence": "share"}, halt=asked,
    )  # fmt: skip
    assert log.stopped == "early" and log.columns["step"] == (2, 4, 6)
    assert all(0 < v < 1 for v in log.columns["neural_persistence"])


def test_over_snapshots_there_is_a_course_and_an_end():
    data = toys.data("table")
    nets = [toys.net("mlp", data, s) for s in (0, 1)]
    finding = look(nets[0], data, [nets[0]] * 3, patience=2)
    assert finding["stop"] == 2 and finding["rise"] == 0
    assert set(finding.charts[1].series) == {*lens.persistence(nets[0]), "mean"}
    assert "still rising" in look(nets[0], data, [nets[0]] * 2, patience=2).text


def test_what_is_wrong_is_said():
    data = toys.data("table")
    net = toys.net("mlp", data)
    with pytest.raises(ArchwrightError, match="norm"):
        look(net, data, p=0.5)
    with pytest.raises(ArchwrightError, match="not finite"):
        look(Net(net.graph, {n: w / 0 for n, w in net.weights.items()}), data)
