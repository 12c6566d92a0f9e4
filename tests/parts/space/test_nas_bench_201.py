import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core import registry
from archwright.core.space import Space, Spec
from archwright.data.home import data_home
from archwright.errors import ChoiceError, TypeMismatch
from archwright.kit.nasbench201 import EDGES, OPERATIONS, choice, table
from archwright.net.build import build
from archwright.net.net import init

part = registry.find("space/nas_bench_201")
module = registry.module(part)

MIXED = "|nor_conv_3x3~0|+|skip_connect~0|avg_pool_3x3~1|+|none~0|nor_conv_1x1~1|skip_connect~2|"


def space(**hp):
    from functools import partial

    return Space("nas_bench_201", partial(module.draw, **hp), Spec(((None, 3, 8, 8),), 5))


def parameters(graph):
    return sum(math.prod(p.shape) for p in ops.params(graph).values() if not p.buffer)


def reference(w, x, text, cells):
    """The network in plain torch, from weights by name."""
    trace = module.decode(text)

    def norm(x, at):
        return F.batch_norm(x, w[f"{at}.running_mean"], w[f"{at}.running_var"], w[f"{at}.weight"], w[f"{at}.bias"])

    def rcn(x, at, stride=1):
        kernel = w[f"{at}.conv.weight"]
        return norm(F.conv2d(F.relu(x), kernel, stride=stride, padding=kernel.shape[-1] // 2), f"{at}.norm")

    def edge(x, at, op):
        if op == "none":
            return torch.zeros_like(x)
        if op == "skip_connect":
            return x
        if op == "avg_pool_3x3":
            ones = torch.ones(x.shape[1], 1, 3, 3)
            total = F.conv2d(x, ones, padding=1, groups=x.shape[1])
            return total / F.conv2d(torch.ones_like(x), ones, padding=1, groups=x.shape[1])
        return rcn(x, at)

    x = norm(F.conv2d(x, w["stem.conv.weight"], padding=1), "stem.norm")
    for stage in (1, 2, 3):
        if stage > 1:
            at = f"reduce{stage - 1}"
            y = rcn(rcn(x, f"{at}.first", 2), f"{at}.second")
            small = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
            x = y + F.conv2d(small, w[f"{at}.skip.conv.weight"])
        for i in range(cells):
            nodes = [x]
            for target in (1, 2, 3):
                found = torch.zeros_like(x)
                for source in range(target):
                    op = trace[choice((source, target))]
                    at = f"stage{stage}.cell{i}.edge_{source}_{target}.{op}"
                    found = found + edge(nodes[source], at, op)
                nodes.append(found)
            x = nodes[3]
    x = F.relu(norm(x, "head.norm")).mean((2, 3))
    return x @ w["head.linear.weight"].T + w["head.linear.bias"]


@pytest.mark.parametrize("text", [MIXED, MIXED.replace("none", "nor_conv_3x3").replace("avg_pool_3x3", "none")])
def test_computes_what_plain_torch_does(text):
    net = init(space(cells=2, width=4).draw(module.decode(text)), 3)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: 0.5 + torch.rand(w.shape, generator=generator) if w.is_floating_point() and w.dim() == 1 else w
        for name, w in net.weights.items()
    }
    x = torch.randn(2, 3, 8, 8, generator=generator)
    got = build(type(net)(net.graph, weights)).eval()(x)
    torch.testing.assert_close(got, reference(weights, x, text, 2), rtol=1e-4, atol=1e-5)


def test_counts_of_the_paper():
    found = module.claim()
    assert found.held
    assert found.details["cells"] == 15625
    assert found.details["keeping zeros"] == 12751


def test_strings_go_both_ways():
    traces = list(module.every())[::500]
    assert [module.decode(module.encode(trace)) for trace in traces] == traces


@pytest.mark.parametrize(
    "text", ["", "|none~0|", MIXED.replace("none", "conv"), MIXED.replace("~2", "~1"), MIXED + "+|none~0|", "none"]
)
def test_a_wrong_string_is_an_error(text):
    with pytest.raises(ChoiceError, match="expected"):
        module.decode(text)


def test_neighbours_differ_in_one_edge():
    trace = module.decode(MIXED)
    found = list(module.neighbours(trace))
    assert len(set(map(module.encode, found))) == 24
    assert all(sum(other[choice(e)] != trace[choice(e)] for e in EDGES) == 1 for other in found)
    assert {module.encode(t) for t in found} == {module.encode(t) for t in space(cells=1, width=2).neighbours(trace)}


def test_canonical_by_hand():
    def cell(*operations):
        return {choice(edge): op for edge, op in zip(EDGES, operations, strict=True)}

    conv, none, skip = "nor_conv_3x3", "none", "skip_connect"
    direct = cell(none, none, none, conv, none, none)
    through = cell(skip, none, none, none, conv, none)
    assert module.canonical(direct) == module.canonical(through) == "#+#+(0)@nor_conv_3x3"
    assert module.canonical(direct, zeros=True) != module.canonical(through, zeros=True)
    assert module.reduced(direct) == "(0)@nor_conv_3x3"
    assert module.reduced(cell(*[none] * 6)) == "#"


def test_equal_canonical_strings_compute_the_same():
    """Cells of one class agree, whatever the weights, where the class has no weights: identity and pooling alone."""
    rng = np.random.default_rng(0)
    free = [t for t in module.every() if not any("conv" in op for op in t.values())]
    classes = {}
    for trace in free:
        classes.setdefault(module.reduced(trace), []).append(trace)
    where, x = space(cells=1, width=4), torch.randn(2, 3, 8, 8)
    for members in [m for m in classes.values() if len(m) > 1][:12]:
        nets = [init(where.draw(members[i]), 0) for i in rng.permutation(len(members))[:2]]
        torch.testing.assert_close(build(nets[0]).eval()(x), build(nets[1]).eval()(x))


def test_largest_cell_has_the_published_size():
    trace = dict.fromkeys(map(choice, EDGES), "nor_conv_3x3")
    graph = Space("full", module.draw, Spec(((None, 3, 32, 32),), 10)).draw(trace)
    assert parameters(graph) == 1_531_546


def test_errors():
    with pytest.raises(ChoiceError, match="operations"):
        space(operations=("conv",)).random(np.random.default_rng(0))
    with pytest.raises(TypeMismatch, match="multiples of 4"):
        Space("odd", module.draw, Spec(((None, 3, 6, 8),), 5)).random(np.random.default_rng(0))
    assert len(OPERATIONS) == 5


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
def test_parameters_are_those_of_the_table():
    frame = table().frame
    original = frame[frame["in_zero_cost_table"] == 1]
    where = Space("full", module.draw, Spec(((None, 3, 32, 32),), 10))
    for _, row in original.iloc[::250].iterrows():
        assert parameters(where.draw(module.decode(row["arch"]))) == round(row["c10_params"] * 1e6)
