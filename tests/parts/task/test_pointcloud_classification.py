import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.data.home import data_home
from archwright.errors import DataError
from archwright.net.cost import cost
from archwright.net.net import init
from archwright.parts.task.pointcloud_classification import (
    augmentation,
    case,
    claim,
    load,
    normalised,
    pointnet,
    sampled,
    turned,
)


@pytest.fixture
def data(tmp_path):
    return load(case(0, tmp_path)[0], points=32)


def test_order_of_points_does_not_matter(data):
    net = rough(init(pointnet(data)))
    x = torch.from_numpy(data.inputs[0][:5])
    order = torch.from_numpy(np.random.default_rng(0).permutation(x.shape[1]))
    torch.testing.assert_close(outputs(net, (x[:, order],)), outputs(net, (x,)), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(outputs(net, (x.flip(2),))[0], outputs(net, (x,))[0])


def test_network_is_the_formula(data):
    net = rough(init(pointnet(data, widths=(4, 6), head=5)))
    w = net.weights
    x = torch.from_numpy(data.inputs[0][:3])

    def norm(v, name):
        scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
        return torch.relu((v - w[f"{name}.running_mean"]) * scale + w[f"{name}.bias"])

    h = x
    for i in range(2):
        h = norm(h @ w[f"point{i}.conv.weight"][:, :, 0].T, f"point{i}.norm")
    h = h.max(1).values
    h = norm(h @ w["head.linear.weight"].T + w["head.linear.bias"], "head.norm")
    expected = h @ w["head.out.weight"].T + w["head.out.bias"]
    torch.testing.assert_close(outputs(net, (x,))[0], expected, rtol=1e-4, atol=1e-5)


def test_cost_is_the_hand_count(data):
    graph = pointnet(data, widths=(4, 6), head=5)
    assert cost(graph).flops == 2 * (32 * (3 * 4 + 4 * 6) + 6 * 5 + 5 * 3)
    assert ops.infer(graph)[graph.outputs[0]].shape == (1, 3)


def test_clouds_are_centred_and_in_the_unit_sphere(data):
    x = data.inputs[0]
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(x, axis=2).max(1), 1, rtol=1e-6)
    moved = normalised(3 * x + np.float32([1, 2, 3]))
    np.testing.assert_allclose(moved, x, atol=1e-5)
    assert np.isfinite(normalised(np.ones((2, 4, 3), np.float32))).all()


@pytest.mark.parametrize("up", [0, 1, 2])
def test_turning_is_a_rotation_about_the_vertical(up):
    x = torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(0))
    angles = torch.tensor([0.0, np.pi / 2, np.pi, 1.0])
    y = turned(x, angles, up)
    torch.testing.assert_close(y[0], x[0])
    torch.testing.assert_close(y[..., up], x[..., up])
    torch.testing.assert_close(torch.cdist(y, y), torch.cdist(x, x), rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(turned(y, -angles, up), x, rtol=1e-5, atol=1e-6)
    one, other = [axis for axis in range(3) if axis != up]
    torch.testing.assert_close(y[1, :, one], -x[1, :, other], atol=1e-6, rtol=1e-5)


def test_augmentation_draws_from_the_generator_and_changes_nothing_in_place():
    x = torch.randn(6, 9, 3, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    (one,) = augmentation(2, 0.01)((x,), np.random.default_rng(3))
    (same,) = augmentation(2, 0.01)((x,), np.random.default_rng(3))
    assert torch.equal(one, same) and torch.equal(x, before)
    (still,) = augmentation(2, 0.0, turn=False)((x,), np.random.default_rng(3))
    assert torch.equal(still, x)
    (noisy,) = augmentation(2, 0.1, turn=False)((x,), np.random.default_rng(3))
    assert 0 < float((noisy - x).abs().max()) <= 0.25 + 1e-6


def test_sampling_takes_all_different_points_where_it_can():
    cloud = np.arange(30.0).reshape(10, 3)
    rng = np.random.default_rng(0)
    assert len(np.unique(sampled(cloud, 10, rng), axis=0)) == 10
    assert len(np.unique(sampled(cloud, 25, rng), axis=0)) == 10
    assert sampled(cloud, 4, rng).shape == (4, 3)


def test_npz_keeps_its_split(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 16, 3)).astype(np.float16)
    y = np.arange(30) % 2
    path = tmp_path / "shapes.npz"
    np.savez(path, train_x=x[:20], train_y=y[:20], test_x=x[20:], test_y=y[20:], classes=["cup", "jug"])
    data = load(path, points=8)
    assert data.classes == ("cup", "jug") and data.splits["test"].tolist() == list(range(20, 30))
    assert data.size("valid") == 4 and data.size("train") == 16
    np.savez(path, train_x=x, train_y=y)
    with pytest.raises(DataError, match="lacks test_x, test_y"):
        load(path)


def test_arrays_and_text_files(tmp_path):
    rng = np.random.default_rng(0)
    clouds = [rng.standard_normal((n, 3)) for n in range(5, 25)]
    labels = ["b", "a"] * 10
    data = load((clouds, labels), points=8)
    assert data.classes == ("a", "b") and data.inputs[0].shape == (20, 8, 3)
    assert data.target[:2].tolist() == [1, 0]
    for i, (cloud, label) in enumerate(zip(clouds, labels, strict=True)):
        (tmp_path / label).mkdir(exist_ok=True)
        np.savetxt(tmp_path / label / f"{i:02}.xyz", cloud, delimiter="," if i % 2 else " ")
    assert load(tmp_path, points=8).classes == ("a", "b")


def test_bad_clouds_are_said(tmp_path):
    good = np.zeros((4, 3))
    with pytest.raises(DataError, match="rows of three numbers"):
        load(([np.zeros((4, 2))] * 20, [0, 1] * 10))
    with pytest.raises(DataError, match="not finite"):
        load(([np.full((4, 3), np.nan)] * 20, [0, 1] * 10))
    with pytest.raises(DataError, match="as many"):
        load(([good] * 3, [0, 1]))
    with pytest.raises(DataError, match="would be empty"):
        load(([good, good], [0, 1]))
    with pytest.raises(DataError, match="2 or more"):
        load(([good] * 10, [0] * 10))
    with pytest.raises(DataError, match="holds no point clouds"):
        load(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match="axis 0, 1 or 2"):
        load(([good], [0]), up=3)


@pytest.mark.data
@pytest.mark.slow
def test_claim_measures_that_turning_in_training_helps():
    if data_home() is None:
        pytest.skip("the data folder is not there: set ARCHWRIGHT_DATA")
    found = claim()
    assert found.figure > found.details["trained without turning (%)"] + 20
