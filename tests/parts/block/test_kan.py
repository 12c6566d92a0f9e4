import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import BSpline

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import ArchwrightError
from archwright.net.net import Net, init
from archwright.parts.block import kan


def net(shape=(None, 3), **hp):
    g = ops.edit()
    return rough(init(g.finish(kan.build(g, g.input("x", shape), **hp))), seed=1)


def chain(widths=(4, 1), inputs=2, seed=1, **hp):
    g = ops.edit()
    return rough(init(g.finish(kan.network(g, g.input("x", (None, inputs)), widths=widths, **hp))), seed)


def run(made, x):
    return outputs(made, (x,))[0]


def square(n=300, inputs=2):
    return 2 * torch.rand(n, inputs) - 1


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_edges_are_scipys_splines_plus_silu(degree):
    made, x = net(out=2, grid=4, degree=degree, low=-2.0, high=2.0), 4 * torch.rand(50, 3) - 2
    w = {name: tensor.numpy().astype(float) for name, tensor in made.weights.items()}
    knots = -2 + np.arange(-degree, 4 + degree + 1.0)
    expected = F.silu(x).numpy() @ w["base.weight"].T
    for o in range(2):
        for i in range(3):
            expected[:, o] += w["scale"][o, i, 0] * BSpline(knots, w["coefficients"][o, i], degree)(x[:, i].numpy())
    torch.testing.assert_close(run(made, x), torch.from_numpy(expected).float(), rtol=1e-4, atol=1e-5)


def test_far_outside_the_grid_only_the_base_is_left():
    made, x = net(out=2), 10 + torch.rand(4, 3)
    torch.testing.assert_close(run(made, x), F.silu(x) @ made.weights["base.weight"].T)


def test_parameters_follow_the_formula():
    assert net(out=4, grid=5, degree=3).cost().params == 4 * 3 * (5 + 3 + 2)


def test_as_layers_and_back_it_is_the_same_net():
    made, x = chain(grid=4, degree=2), square()
    back = kan.to_net(kan.layers(made))
    assert back.graph.key() == made.graph.key()
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in made.weights.items())
    values, _ = kan.forward(kan.layers(made), x.double())
    torch.testing.assert_close(values[-1].float(), run(made, x), rtol=1e-4, atol=1e-5)


def test_other_nets_are_refused():
    g = ops.edit()
    other = init(g.finish(g.add("linear", g.input("x", (None, 2)), out=1)))
    with pytest.raises(ArchwrightError, match=r"kan\.network"):
        kan.layers(other)


@pytest.mark.parametrize("grid", [10, 20, 35])
def test_extending_the_grid_keeps_the_functions(grid):
    made, x = kan.update_grid(chain(), square()), square()
    made = kan.update_grid(made, x)
    extended = kan.extend_grid(made, grid)
    assert kan.layers(extended)[1].grid == grid
    torch.testing.assert_close(run(extended, x), run(made, x), rtol=0, atol=1e-4)


def test_updated_grids_cover_what_the_nodes_see():
    x = 5 * square()
    found = kan.layers(kan.update_grid(chain(), x))
    values, _ = kan.forward(found, x.double())
    for layer, seen in zip(found, values, strict=False):
        assert (layer.low < seen.amin(0)).all() and (layer.high > seen.amax(0)).all()


def test_pruning_takes_out_the_node_that_does_nothing():
    made, x = chain(), square()
    w = dict(made.weights)
    for name in ("coefficients", "base.weight"):
        w[f"layer1.{name}"] = w[f"layer1.{name}"].clone()
        w[f"layer1.{name}"][:, 2] = 0
    made = Net(made.graph, w)
    pruned = kan.prune(made, x, threshold=1e-6)
    assert pruned.weights["layer0.coefficients"].shape[0] == 3
    torch.testing.assert_close(run(pruned, x), run(made, x), rtol=1e-5, atol=1e-5)


def test_pruning_leaves_a_node():
    assert kan.prune(chain(), square(), threshold=1e9).weights["layer0.coefficients"].shape[0] == 1


def test_learning_lowers_the_error_and_leaves_the_net_alone():
    g = ops.edit()
    made, x = init(g.finish(kan.network(g, g.input("x", (None, 2)), widths=(4, 1)))), square()
    before = {name: tensor.clone() for name, tensor in made.weights.items()}
    y = (x[:, :1] * x[:, 1:]).contiguous()
    learned = kan.fit(made, x, y, steps=30)
    assert F.mse_loss(run(learned, x), y) < 0.1 * F.mse_loss(run(made, x), y)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.weights.items())
    sparse = kan.fit(made, x, y, steps=15, weight=0.1)
    sizes = [kan.sparsity(kan.forward(kan.layers(n), x.double())[1]) for n in (sparse, learned)]
    assert sizes[0] < sizes[1]


def test_even_magnitudes_have_the_greatest_entropy():
    even, one = torch.ones(5, 2, 3).double(), torch.zeros(5, 2, 3).double()
    one[:, 0, 0] = 6
    assert float(kan.sparsity([even])) == pytest.approx(6 + np.log(6))
    assert float(kan.sparsity([one])) == pytest.approx(6)


@pytest.mark.parametrize(("name", "f"), [
    ("identity", lambda t: 2 * t - 1), ("square", lambda t: 1 - 3 * (t + 0.5) ** 2), ("exp", lambda t: (1.3 * t).exp()),
    ("sin", lambda t: 0.5 * torch.sin(3.14 * t)), ("tanh", lambda t: torch.tanh(4 * t)), ("abs", torch.abs),
])  # fmt: skip
def test_elementary_functions_are_recognised(name, f):
    t = 2 * torch.rand(200) - 1
    found = kan.recognise(t, f(t))
    assert found.name == name and found.r2 > 0.999
    torch.testing.assert_close(
        (found.c * kan.SYMBOLS[name](found.a * t + found.b) + found.d).float(), f(t), rtol=0, atol=0.05
    )


def test_charts_show_every_edge():
    made = chain()
    one, two = kan.charts(made)
    assert len(one.series) == 8 and len(two.series) == 4
    assert len(one.series["3 <- 1"]["x"]) == 101


def test_what_it_refuses():
    with pytest.raises(ArchwrightError, match="degree 0"):
        net(degree=0)
    with pytest.raises(ArchwrightError, match="rising range"):
        net(low=1.0, high=-1.0)
