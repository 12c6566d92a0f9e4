"""The harness finds what it is to find: every fact of an op is made wrong once, and `check` has to say so."""

from dataclasses import replace

import pytest
import torch

from archwright.ir import Type
from archwright.ops import engine, registry
from archwright.ops.base import Axes, Cat, Cost, Dim, Prod, Source, labels
from tests.ops.harness import check, index_of


@pytest.fixture
def broken(monkeypatch):
    """broken(name, fact=...) gives an op other facts until the test is over."""
    monkeypatch.setattr(engine, "_MEMO", {})

    def put(name, **facts):
        engine._MEMO.clear()
        monkeypatch.setitem(registry.table(), name, replace(registry.get(name), **facts))

    return put


def _carried(label):
    """Axes of an op that keeps the shape, with dimension 1 under a label and the rest pinned."""

    def axes(a, x, y):
        dims = tuple(Dim(label if i == 1 else None, n) for i, n in enumerate(x[0].shape))
        return Axes((dims,), (dims,))

    return axes


def _changes(x):
    return x.mul_(2)


CASES = {
    "shape": ("relu", {"infer": lambda a, x: (Type((*x[0].shape, 1)),)}, {}, "infer says"),
    "dtype": ("relu", {"infer": lambda a, x: (Type(x[0].shape, "float64"),)}, {}, "infer says"),
    "batch": ("relu", {"infer": lambda a, x: (Type((3, *x[0].shape[1:])),)}, {}, "at batch 4"),
    "in place": ("relu", {"run": lambda a, x, w, train: _changes(x[0])}, {}, "changed its inputs"),
    "numbers": ("relu", {"run": lambda a, x, w, train: x[0].abs()}, {}, "numbers"),
    "gradient": ("relu", {"run": lambda a, x, w, train: x[0].relu() + x[0] - x[0].detach()}, {}, "gradient of x0"),
    "no gradient": ("relu", {"run": lambda a, x, w, train: x[0].detach().relu()}, {}, "missing"),
    "tuple": ("relu", {"run": lambda a, x, w, train: (x[0].relu(),)}, {}, "a tuple exactly where"),
    "keeps nothing": ("relu", {"cost": lambda a, x, y: Cost()}, {}, "autograd keeps 0 bytes"),
    "keeps too much": ("relu", {"cost": lambda a, x, y: Cost(keeps=("x0", "y0"))}, {}, "it keeps"),
    "keeps another": ("relu", {"cost": lambda a, x, y: Cost(keeps=("x7",))}, {}, "does not have"),
    "order": ("cumsum", {"axes": _carried("c")}, {"dim": 1}, "permuting"),
    "coupled": ("softmax", {"axes": _carried("c")}, {"dim": 1}, "leaving unit"),
    "sizes": ("relu", {"axes": lambda a, x, y: Axes((labels((9, 9)),), (labels((9, 9)),))}, {}, "axes of x0"),
    "onnx": ("relu", {"onnx": lambda o, a, x, w, xt, yt: o.node("Sigmoid", [x[0]])}, {}, "ONNX Runtime"),
    "no onnx": ("relu", {"onnx": lambda o, a, x, w, xt, yt: o.node("Rectify", [x[0]])}, {}, "ONNX"),
    "source": ("relu", {"source": lambda a, x, y: Source("torch.sigmoid({x0})")}, {}, "written source"),
    "vmap": ("relu", {"run": lambda a, x, w, train: x[0].relu() if x[0].sum().item() < 1e9 else x[0]}, {}, "vmap"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_fact_is_found(broken, case):
    name, facts, attrs, message = CASES[case]
    torch.manual_seed(0)
    x = torch.randn(3, 200)
    reference = torch.relu if name == "relu" else None
    check(name, attrs, [x], reference=reference)
    broken(name, **facts)
    with pytest.raises(AssertionError, match=message):
        check(name, attrs, [x], reference=reference)


def test_wrong_facts_of_an_op_with_weights_are_found(broken):
    x, attrs = torch.randn(2, 4, 9), {"out": 6, "kernel": 3}
    check("conv", attrs, [x])
    honest = registry.get("conv")
    for facts, message in (
        ({"cost": lambda a, x, y: Cost(1, ("x0",))}, "FlopCounterMode counts"),
        ({"axes": lambda a, x, y: honest.axes(a, x, y)._replace(w={})}, "axes.w has"),
        ({"axes": lambda a, x, y: honest.axes(a, x, y)._replace(attrs={"out": Dim("o", 3)})}, "holds a size of 3"),
        ({"axes": lambda a, x, y: honest.axes(a, x, y)._replace(attrs={})}, "the smaller op wants weights"),
        ({"params": lambda a, x: {"weight": honest.params(a, x)["weight"]}}, "axes.w has"),
    ):
        broken("conv", **facts)
        with pytest.raises(AssertionError, match=message):
            check("conv", attrs, [x])
        broken("conv", **{name: getattr(honest, name) for name in facts})


def test_terms_give_the_positions_of_their_units():
    """Groups of a grouped convolution move as blocks, and units within each group alike."""
    order = {"g": torch.tensor([1, 0]), "i": torch.tensor([2, 0, 1])}
    g, i = Dim("g", 2), Dim("i", 3)
    assert index_of(Prod(g, i), order).tolist() == [5, 3, 4, 2, 0, 1]
    assert index_of(Cat(i, Dim(None, 2), i), order).tolist() == [2, 0, 1, 3, 4, 7, 5, 6]
    assert index_of(Prod(Dim(None, 2), Cat(g, Dim(None, 1))), order).tolist() == [1, 0, 2, 4, 3, 5]
