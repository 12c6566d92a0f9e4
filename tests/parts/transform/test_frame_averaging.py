import itertools

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.checks import toys
from archwright.core.checks.common import outputs
from archwright.data.data import from_arrays
from archwright.errors import ArchwrightError
from archwright.kit.digits import perceptron
from archwright.net.net import init
from archwright.parts.transform.frame_averaging import GROUPS, apply, moved


def clouds(d=3, n=9, count=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, n, d)) * np.linspace(0.5, 2, d) + 1
    return from_arrays(x.astype(np.float32), np.arange(count) % 2, kind="points")


def pointwise(data):
    """[N, n, d] -> [N, n, d], each point with what its neighbour in the list is."""
    _, n, d = data.shapes[0]
    g = ops.edit()
    x = g.input("x", (None, n, d))
    y = g.add("tanh", g.add("linear", g.add("reshape", x, shape=(-1, n * d)), out=20, name="a"))
    y = g.add("reshape", g.add("linear", y, out=n * d, name="b"), shape=(-1, n, d))
    return init(g.finish(g.add("add", y, x)))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("output", ["invariant", "equivariant"])
def test_the_group_changes_nothing_or_turns_along(group, sort, d, output):
    if group == "none" and not sort:
        return
    data = clouds(d)
    net = perceptron(data, (16,)) if output == "invariant" else pointwise(data)
    made, report = apply(net, data, group=group, sort=sort, output=output)
    x = data.tensors("test")[0][0]
    other, turn, shift, order = moved(x, np.random.default_rng(1), group, sort)
    here, there = outputs(made, (x,))[0], outputs(made, (other,))[0]
    if output == "equivariant":
        here = torch.gather((here.double() @ turn + shift).float(), 1, order[..., None].expand(-1, -1, d))
    torch.testing.assert_close(here, there, rtol=1e-4, atol=2e-5)
    assert report.measure.value < 1e-4
    assert all(torch.equal(made.weights[n], w) for n, w in net.weights.items())
    assert (report.figures[1].value > 0.01) or group == "none"


def test_it_is_the_papers_average():
    data = clouds()
    net = perceptron(data, (16,))
    made, report = apply(net, data, group="E")
    (x,), _ = data.tensors("test")
    expected = []
    for cloud in x.double():
        centred = cloud - cloud.mean(0)
        _, v = torch.linalg.eigh(centred.T @ centred)
        poses = [centred @ v @ torch.diag(torch.tensor(s).double()) for s in itertools.product((1.0, -1.0), repeat=3)]
        expected.append(outputs(net, (torch.stack(poses).float(),))[0].mean(0))
    torch.testing.assert_close(outputs(made, (x,))[0], torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert report.figures[0].value == 8


def test_without_reflections_mirror_images_differ():
    data = clouds()
    net = perceptron(data, (16,))
    (x,), _ = data.tensors("test")
    mirrored = x * torch.tensor([-1.0, 1, 1])
    proper, report = apply(net, data, group="SE")
    both, _ = apply(net, data, group="E")
    assert report.figures[0].value == 4
    assert (outputs(proper, (x,))[0] - outputs(proper, (mirrored,))[0]).abs().max() > 1e-3
    assert (outputs(both, (x,))[0] - outputs(both, (mirrored,))[0]).abs().max() < 1e-4


def test_further_inputs_are_repeated_for_each_frame():
    data = clouds()
    g = ops.edit()
    x, w = g.input("x", (None, 9, 3)), g.input("w", (None, 9))
    y = g.add("relu", g.add("linear", x, out=5, name="a"))
    net = init(g.finish(g.add("einsum", y, w, equation="nic,ni->nc")))
    both = from_arrays([data.inputs[0], np.random.default_rng(0).random((60, 9)).astype(np.float32)], data.target)
    made, report = apply(net, both)
    assert report.measure.value < 1e-4
    x, _ = both.tensors("test")
    assert outputs(made, x)[0].shape == (len(x[0]), 5)


def test_what_is_wrong_is_said():
    data = clouds()
    with pytest.raises(ArchwrightError, match="SE"):
        apply(perceptron(data, (4,)), data, group="U")
    with pytest.raises(ArchwrightError, match="nothing"):
        apply(perceptron(data, (4,)), data, group="none")
    with pytest.raises(ArchwrightError, match="expected points"):
        apply(perceptron(data, (4,)), data, output="equivariant")
    table = toys.data("table")
    with pytest.raises(ArchwrightError, match="points=1"):
        apply(perceptron(data, (4,)), data, points=1)
    with pytest.raises(ArchwrightError, match=r"expected float32 \[batch, n, d\]"):
        apply(perceptron(table, (4,)), table)
