import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks import toys
from archwright.core.checks.common import outputs
from archwright.errors import ArchwrightError, GraphError
from archwright.kit.align import Matcher, barrier, correlation, interpolate
from archwright.kit.digits import perceptron
from archwright.net.axes import axes
from archwright.parts.transform.git_re_basin import METHODS, apply

KINDS = [("table", "mlp"), ("image", "conv"), ("image", "residual"), ("tokens", "attention"), ("signal", "recurrent")]


def shuffled(net, seed=0):
    tied, rng = axes(net), np.random.default_rng(seed)
    return tied.permute(net, {c.number: rng.permutation(c.size).tolist() for c in tied.free})


@pytest.mark.parametrize(("data", "kind"), KINDS)
def test_a_shuffled_copy_is_put_back(data, kind):
    source = toys.data(data)
    net = toys.net(kind, source, trained=True)
    other = shuffled(net)
    assert any(not torch.equal(w, other.weights[n]) for n, w in net.weights.items())
    for method in ("weights", "activations") if kind != "recurrent" else ("activations",):
        # in a recurrent net the axis meets itself, and coordinate ascent on weights may stop early
        back, report = apply((other, net), source, method=method)
        assert all(torch.equal(w, back.weights[n]) for n, w in net.weights.items())
        assert report.exact


@pytest.mark.parametrize(("data", "kind"), KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_function_is_kept_and_the_inner_product_does_not_fall(data, kind, method):
    source = toys.data(data)
    one, other = [toys.net(kind, source, s, trained=True) for s in (0, 1)]
    made, _ = apply((one, other), source, method=method, steps=3)
    x = source.tensors("valid")[0]
    torch.testing.assert_close(outputs(made, x)[0], outputs(one, x)[0], rtol=1e-4, atol=1e-5)

    def inner(a):
        trained = {n for n, p in ops.params(a.graph).items() if not p.buffer}
        return sum(float((a.weights[n] * w).sum()) for n, w in other.weights.items() if n in trained)

    if method == "weights":
        assert inner(made) >= inner(one) - 1e-4


def test_the_gain_is_the_papers_and_the_match_is_the_best_of_all():
    source = toys.data("table")
    a, b = perceptron(source, (5,)), perceptron(source, (5,), seed=1)
    matcher = Matcher(axes(a))
    (group,) = matcher.tied.free
    wa, wb = a.weights, b.weights
    expected = (
        wa["hidden0.weight"] @ wb["hidden0.weight"].T
        + wa["hidden0.bias"][:, None] * wb["hidden0.bias"]
        + wa["head.weight"].T @ wb["head.weight"]
    )
    gain = matcher.gain(group.number, wa, wb)
    np.testing.assert_allclose(gain, expected.numpy(), rtol=1e-5, atol=1e-6)
    order = matcher.match(wa, wb, np.random.default_rng(0))[group.number]
    best = max(itertools.permutations(range(5)), key=lambda p: sum(gain[i, j] for i, j in enumerate(p)))
    assert tuple(order) == best


def test_correlation_is_numpys():
    a, b = torch.randn(4, 50).double(), torch.randn(3, 50).double()
    np.testing.assert_allclose(correlation([a], [b]), np.corrcoef(a, b)[:4, 4:], atol=1e-12)


def test_half_way_is_the_average_and_says_its_barrier():
    source = toys.data("image")
    one, other = [toys.net("conv", source, s, trained=True) for s in (0, 1)]
    aligned, _ = apply((one, other), source)
    made, report = apply((one, other), source, share=0.5)
    assert not report.exact and report.measure.value <= report.bound
    for n, w in made.weights.items():
        if w.is_floating_point():
            torch.testing.assert_close(w, (aligned.weights[n] + other.weights[n]) / 2)
    whole, _ = apply((one, other), source, share=1.0)
    assert torch.equal(whole.weights["head.weight"], other.weights["head.weight"])


def test_the_barrier_of_a_net_with_itself_is_zero():
    source = toys.data("table")
    net = toys.net("mlp", source)
    x, y = source.tensors("train")
    height, losses = barrier(net, net, x, y, F.cross_entropy)
    assert abs(height) < 1e-5 and len(losses) == 11
    assert torch.equal(interpolate(net, net, 0.0).weights["head.bias"], net.weights["head.bias"])


def test_what_is_wrong_is_said():
    source = toys.data("table")
    with pytest.raises(ArchwrightError, match="activations"):
        apply((toys.net("mlp", source),) * 2, source, method="magic")
    with pytest.raises(GraphError, match="different graphs"):
        apply((perceptron(source, (5,)), perceptron(source, (6,))), source)
