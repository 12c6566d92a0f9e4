"""The Hessian's spectrum against the dense Hessian, and the surface against the loss computed by hand."""

import math

import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.core.registry import find, load, module
from archwright.errors import ArchwrightError
from archwright.kit.losses import loss_for
from archwright.net.build import build

look = load("lens/loss_landscape_lla")
lens = module(find("lens/loss_landscape_lla"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def dense(net, data, split="train"):
    """The Hessian of the loss over a split, by torch.func, in float64, weights in the order of the module."""
    made = build(net).eval().double()
    names = [n for n, _ in made.named_parameters()]
    shapes = [p.shape for p in made.parameters()]
    x, y = data.tensors(split)
    x = tuple([t.double() for t in x])

    def loss(flat):
        pieces = flat.split([s.numel() for s in shapes])
        weights = {n: piece.view(s) for n, piece, s in zip(names, pieces, shapes, strict=True)}
        return loss_for(data)(torch.func.functional_call(made, weights, x), y.double() if y.is_floating_point() else y)

    flat = torch.cat([p.detach().flatten() for p in made.parameters()])
    return torch.func.hessian(loss)(flat)


@pytest.mark.parametrize("kind", ["table", "regression"])
def test_products_spectrum_and_trace_are_those_of_the_dense_hessian(kind):
    data = toys.data(kind)
    net = toys.net("mlp", data, trained=True)
    h = dense(net, data)
    exact = torch.linalg.eigvalsh(h)
    land = lens.Landscape(net, data, samples=10_000)
    assert land.size == len(h)
    v = torch.randn(land.size, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(land.product(v), h @ v, rtol=1e-3, atol=1e-4)
    values, weights, vectors = lens.lanczos(land.product, land.size, 40, generator())
    assert values[-1] == pytest.approx(float(exact[-1]), rel=0.01)
    assert weights.sum() == pytest.approx(1) and torch.allclose(vectors.T @ vectors, torch.eye(len(values)).double())
    assert values[0] >= float(exact[0]) - 1e-3 and values[-1] <= float(exact[-1]) * 1.001
    found = lens.trace(land.product, land.size, 150, generator())
    assert found == pytest.approx(float(exact.sum()), rel=0.01)
    assert lens.trace(land.product, land.size, land.size, generator()) == pytest.approx(float(exact.sum()), rel=1e-3)


def test_with_as_many_steps_as_weights_lanczos_finds_all_eigenvalues():
    a = torch.randn(12, 12, generator=generator(), dtype=torch.float64)
    a = a + a.T
    values, _, vectors = lens.lanczos(lambda v: a @ v, 12, 50, generator(1))
    exact, frame = torch.linalg.eigh(a)
    np.testing.assert_allclose(values, exact.numpy(), atol=1e-9)
    torch.testing.assert_close((vectors * frame).sum(0).abs(), torch.ones(12, dtype=torch.float64))
    assert lens.trace(lambda v: a @ v, 12, 12, generator()) == pytest.approx(float(a.trace()))
    low = torch.ones(30, 1, dtype=torch.float64)  # rank 1: Lanczos ends early, and Hutch++ is exact
    values, *_ = lens.lanczos(lambda v: low @ (low.T @ v), 30, 20, generator())
    assert len(values) <= 3 and values[-1] == pytest.approx(30)
    assert lens.trace(lambda v: low @ (low.T @ v), 30, 9, generator()) == pytest.approx(30)
    assert lens.lanczos(torch.zeros_like, 5, 4, generator())[0].tolist() == [0.0]


def test_the_criteria_are_the_papers():
    values, weights = np.array([-1.0, -0.5, 0.0, 2.0, 4.0]), np.array([0.1, 0.2, 0.3, 0.3, 0.1])
    r_e, k_h = lens.criteria(values, weights, 0.5)
    assert r_e == 0.25
    assert k_h == pytest.approx((0.1**0.5 + 0.1**0.5) / (0.6**0.5 + 0.4**0.5))
    assert lens.criteria(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == (0, 0)
    assert lens.criteria(np.array([-1.0]), np.array([1.0])) == (math.inf, math.inf)
    assert lens.criteria(np.zeros(2), np.full(2, 0.5)) == (0, 0)


def test_the_density_integrates_to_one_and_has_its_mean():
    at, dense_ = lens.density([(np.array([-1.0, 3.0]), np.array([0.25, 0.75]))], 4001)
    assert np.trapezoid(dense_, at) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(at * dense_, at) == pytest.approx(2, abs=1e-2)


@pytest.mark.parametrize("kind", ["conv", "attention", "recurrent"])
def test_random_axes_have_filters_of_the_weights_lengths_and_no_biases(kind):
    data = toys.data("image")
    net = toys.net(kind, data)
    land = lens.Landscape(net, data, samples=20)
    for p, d in zip(land.parameters, land.cut(land.filter_axis(generator())), strict=True):
        if p.dim() < 2:
            assert not d.any()
        else:
            torch.testing.assert_close(d.flatten(1).norm(dim=1), p.detach().flatten(1).norm(dim=1))
    assert torch.isfinite(land.product(land.filter_axis(generator()))).all()  # all of them have second derivatives


def test_the_surface_is_the_loss_of_the_moved_weights():
    data = toys.data("table")
    net = toys.net("mlp", data, trained=True)
    land = lens.Landscape(net, data, samples=10_000)
    x, y = data.tensors("train")
    made = build(net).eval()
    plain = float(loss_for(data)(made(*x), y).detach())
    away = land.filter_axis(generator())
    with torch.no_grad():
        for p, d in zip(made.parameters(), land.cut(away), strict=True):
            p += 0.5 * d
    assert land.at(0.5 * away) == pytest.approx(float(loss_for(data)(made(*x), y).detach()), rel=1e-5)
    assert land.at(torch.zeros(land.size)) == pytest.approx(plain, rel=1e-5)
    found = look(net, data, grid=3, steps=5, probes=1, products=3, samples=10_000)
    assert found.charts[0].series["loss"]["z"][1][1] == found["loss"] == pytest.approx(plain, rel=1e-5)


def test_along_an_eigenvector_the_loss_curves_by_its_eigenvalue():
    data = toys.data("table")
    land = lens.Landscape(toys.net("mlp", data, trained=True), data, samples=10_000)
    values, _, vectors = lens.lanczos(land.product, land.size, 40, generator())
    h, v = 0.03, vectors[:, -1]
    curve = (land.at(h * v) - 2 * land.at(0 * v) + land.at(-h * v)) / h**2
    assert curve == pytest.approx(values[-1], rel=0.1)


def test_what_is_wrong_is_said():
    data = toys.data("table")
    net = toys.net("mlp", data)
    with pytest.raises(ArchwrightError, match="axes"):
        look(net, data, axes="adam")
    with pytest.raises(ArchwrightError, match="grid=1"):
        look(net, data, grid=1)
    with pytest.raises(ArchwrightError, match="empty"):
        look(net, lens.Data(data.inputs, data.target, data.task, {**data.splits, "train": np.arange(0)}))
