from functools import partial

import numpy as np
import pytest
import torch

from archwright.core import registry
from archwright.core.space import Space, Spec
from archwright.errors import ChoiceError
from archwright.net.build import build
from archwright.net.net import init

module = registry.module(registry.find("space/deeparchitect"))
Layer, Concat, Or, Optional, MaybeSwap = module.Layer, module.Concat, module.Or, module.Optional, module.MaybeSwap
Repeat, Tied, Residual, Dag, Fixed, Empty = (
    module.Repeat, module.Tied, module.Residual, module.Dag, module.Fixed, module.Empty,
)  # fmt: skip

RELU = Layer("relu")
LEAKY = Layer("leaky_relu", slope=(0.1, 0.2, 0.3))  # size 3
LINEAR = Layer("linear", out=(2, 4))  # size 2


def space(program, shape=(None, 4)):
    return Space("expression", partial(module.draw, program=program), Spec((shape,), 3))


def ops_of(graph):
    return [node.op for node in graph.nodes if node.op not in ("input",)]


@pytest.mark.parametrize(
    ("program", "size"),
    [
        (RELU, 1),
        (Empty(), 1),
        (Layer("linear", out=(2, 4), bias=(True, False)), 4),
        (Concat(LEAKY, LINEAR), 6),
        (Or(LEAKY, LINEAR), 5),
        (Optional(LEAKY), 4),
        (MaybeSwap(LEAKY, LINEAR), 12),
        (Repeat(LINEAR, (1, 2, 4)), 2 + 4 + 16),
        (Repeat(LEAKY, (0, 2)), 1 + 9),
        (Tied(LEAKY, (1, 2, 4)), 9),
        (Tied(LEAKY, (0, 3)), 4),
        (Residual(LINEAR), 2),
        (Dag(3, Or(RELU, Empty())), 8),
        (Repeat(Optional(Repeat(LINEAR, (1, 2))), (1, 2)), 7 + 49),
        (Concat(LINEAR, LINEAR), 4),
    ],
)
def test_sizes_by_hand_by_formula_and_by_enumeration(program, size):
    assert program.size() == size
    found = list(space(program).traces())
    assert len({trace.text for trace in found}) == len(found) == size


def test_what_each_form_builds():
    def only(program):
        return [ops_of(space(program).draw(t)) for t in space(program).traces()]

    tanh = Layer("tanh")
    assert only(Concat(RELU, tanh)) == [["relu", "tanh", "linear"]]
    assert only(Or(RELU, tanh)) == [["relu", "linear"], ["tanh", "linear"]]
    assert only(Optional(RELU)) == [["linear"], ["relu", "linear"]]
    assert only(MaybeSwap(RELU, tanh)) == [["relu", "tanh", "linear"], ["tanh", "relu", "linear"]]
    assert only(Repeat(RELU, (1, 3))) == [["relu", "linear"], ["relu"] * 3 + ["linear"]]
    assert only(Tied(RELU, (2,), between=tanh)) == [["relu", "tanh", "relu", "linear"]]
    assert only(Fixed(lambda g, x: g.add("abs", x))) == [["abs", "linear"]]


def test_tied_repeats_share_choices_and_not_weights():
    where = space(Tied(Layer("linear", out=(4, 6)), (3,)))
    traces = list(where.traces())
    assert [len(t) for t in traces] == [1, 1]
    net = init(where.draw(traces[0]))
    assert sum(name.endswith(".weight") for name in net.weights) == 4


def test_what_has_one_value_is_not_asked():
    assert list(space(Concat(Layer("linear", out=3), Or(RELU), Repeat(RELU, (2,)))).traces()) == [{}]


def test_a_residual_pads_what_is_smaller():
    where = space(Residual(Layer("linear", out=6, bias=False)))
    net = init(where.draw({}))
    x = torch.randn(2, 4)
    w, head = net.weights["residual_0.linear_0.weight"], net.weights["head.weight"]
    y = x @ w.T
    y[:, :4] += x
    torch.testing.assert_close(build(net)(x), y @ head.T + net.weights["head.bias"])
    image = space(Residual(Layer("conv", out=2, kernel=3, stride=2)), (None, 3, 6, 6))
    assert build(init(image.draw({})))(torch.randn(2, 3, 6, 6)).shape == (2, 3)
    flat = space(Residual(Layer("linear", out=7)), (None, 3, 2, 2))
    assert build(init(flat.draw({})))(torch.randn(2, 3, 2, 2)).shape == (2, 3)


def test_a_dag_sums_what_comes_in():
    where = space(Dag(3, Or(Layer("mul", value=2.0), Layer("mul", value=3.0))))
    net = init(where.draw({"or_0": "0", "or_1": "1", "or_2": "1"}))
    x = torch.randn(2, 4)
    expected = (3 * x + 3 * (2 * x)) @ net.weights["head.weight"].T + net.weights["head.bias"]
    torch.testing.assert_close(build(net)(x), expected)


def test_nas_bench_201_is_the_same_space():
    assert module.nas_bench_201(16).size() == 15625
    spec = Spec(((None, 3, 8, 8),), 10)
    table = Space("table", partial(registry.load("space/nas_bench_201"), cells=2, width=4), spec)
    written = Space("written", partial(module.draw, program=module.nas_bench_201(4, cells=2)), spec)
    rng = np.random.default_rng(0)
    for _ in range(5):
        trace = table.random(rng)
        assert written.draw(module.as_nas_bench_201(trace)).key() == table.draw(trace).key()


def test_every_named_program_compiles():
    rng = np.random.default_rng(0)
    for name in module.PROGRAMS:
        where = Space(name, partial(module.draw, program=name, width=2), Spec(((None, 3, 8, 8),), 4))
        for _ in range(3):
            net = build(init(where.draw(where.random(rng)))).eval()
            assert net(torch.randn(2, 3, 8, 8)).shape == (2, 4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Or(), "Or of nothing"),
        (lambda: Repeat(RELU, ()), "counts"),
        (lambda: Repeat(RELU, (1, 1)), "counts"),
        (lambda: Tied(RELU, (2,), between=LEAKY), "between has 3 forms"),
        (lambda: Dag(1, RELU), "at least 2"),
        (lambda: Layer("linear", out=()), "no values"),
        (lambda: space("densenet").random(np.random.default_rng(0)), "unknown program"),
    ],
)
def test_errors(make, match):
    with pytest.raises(ChoiceError, match=match):
        make()


def test_claim_holds():
    assert module.claim().held
