"""Open-set measures against scikit-learn and against their definitions over all pairs."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import auc, roc_auc_score

from archwright.core.checks import toys
from archwright.core.registry import find, load, module
from archwright.errors import DataError
from archwright.net.build import build

look = load("lens/osr_max_logit")
lens = module(find("lens/osr_max_logit"))


def scores(seed, ties):
    r = np.random.default_rng(seed)
    known, unknown, right = r.normal(1, 1, 40), r.normal(0, 1, 25), r.random(40) < 0.7
    return (np.round(known, 1), np.round(unknown, 1), right) if ties else (known, unknown, right)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_areas_are_scikit_learns_and_those_of_the_curves(seed, ties):
    known, unknown, right = scores(seed, ties)
    labels = np.r_[np.ones(40), np.zeros(25)]
    assert lens.auroc(known, unknown) == pytest.approx(roc_auc_score(labels, np.r_[known, unknown]), abs=1e-12)
    fpr, ccr = lens.curve(known, unknown, right)
    assert lens.oscr(known, unknown, right) == pytest.approx(auc(fpr, ccr), abs=1e-12)
    assert (fpr[0], ccr[0], fpr[-1]) == (0, 0, 1) and ccr[-1] == pytest.approx(right.mean())
    pairs = [ok * ((a > b) + (a == b) / 2) for a, ok in zip(known, right, strict=True) for b in unknown]
    assert lens.oscr(known, unknown, right) == pytest.approx(np.mean(pairs))


def test_oscr_is_closed_accuracy_where_unknown_ones_score_lowest():
    right = np.array([1, 0, 1, 1])
    assert lens.oscr([5, 6, 7, 8], [1, 2], right) == 0.75
    assert lens.oscr([1, 2, 3, 4], [5, 6], right) == 0
    assert lens.auroc([1, 1], [1, 1, 1]) == 0.5


def test_classes_are_held_out_of_every_split_and_numbered_anew():
    data = toys.data("image")
    inside, outside = lens.held_out(data, [1, 2])
    assert sorted(np.unique(inside.target)) == [0, 1] and sorted(np.unique(outside.target)) == [1, 2]
    assert inside.outputs == 2 and inside.classes == (data.classes[0], data.classes[3])
    assert len(inside.target) + outside.size("test") == len(data.target)
    for split in ("train", "valid", "test"):
        kept = [i for i in data.splits[split] if data.target[i] in (0, 3)]
        x, y = inside.tensors(split)
        assert np.array_equal(x[0].numpy(), data.inputs[0][kept])
        assert np.array_equal(y.numpy() * 3, data.target[kept])
    with pytest.raises(DataError, match="hold out"):
        lens.held_out(data, [0, 1, 2])
    with pytest.raises(DataError, match="classification"):
        lens.held_out(toys.data("regression"), [0])


def test_figures_come_from_logits_and_probabilities():
    net, data, unknown = lens.case(0)
    found = look(net, data, unknown)
    module_ = build(net).eval()
    x, y = data.tensors("test")
    with torch.no_grad():
        a, b = module_(*x), module_(*unknown.tensors("test")[0])
    right = (a.argmax(1) == y).numpy()
    assert found["closed accuracy"] == right.mean()
    for name, of in (("max logit", lambda t: t), ("max softmax", lambda t: t.double().softmax(1))):
        known, strange = of(a).amax(1).numpy(), of(b).amax(1).numpy()
        assert found[f"AUROC, {name}"] == pytest.approx(lens.auroc(known, strange))
        assert found[f"OSCR, {name}"] == pytest.approx(lens.oscr(known, strange, right))
        assert found[f"OSCR, {name}"] <= found["closed accuracy"]
    assert set(found.charts[0].series) == {"max logit", "max softmax"}


def test_candidates_are_compared():
    net, data, unknown = lens.case(0)
    nets = {str(s): lens.case(s)[0] for s in range(3)} | {"fresh": toys.net("mlp", data, 9)}
    found = lens.compare(nets, data, unknown)
    each = [look(n, data, unknown) for n in nets.values()]
    closed, opened = [f["closed accuracy"] for f in each], [f["AUROC, max logit"] for f in each]
    assert found["correlation, max logit"] == pytest.approx(np.corrcoef(closed, opened)[0, 1])
    assert found.charts[0].series["max logit"] == {"x": closed, "y": opened}
    assert math.isnan(lens.compare({"a": net, "b": net}, data, unknown)["correlation, max logit"])


def test_nothing_to_compare_with_is_an_error():
    net, data, unknown = lens.case(0)
    with pytest.raises(DataError, match="held_out"):
        look(net, data, lens.replace(unknown, splits={**unknown.splits, "test": np.arange(0)}))
