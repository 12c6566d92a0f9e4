import math
import time

import numpy as np
import pytest
import torch

from archwright.errors import ArchwrightError
from archwright.kit import augment
from archwright.kit.augment import IMAGES, SIGNALS, augmentation

IMAGE, SIGNAL = (16, 2, 12, 10), (16, 3, 40)
CASES = [(name, IMAGE) for name in IMAGES[1:]] + [(name, SIGNAL) for name in SIGNALS[1:]]


def changed(name, x, seed=0):
    return augmentation(name)(x, np.random.default_rng(seed))


def spot(height, width, row, column):
    x = torch.zeros(1, 1, height, width)
    x[0, 0, row, column] = 1
    return x


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_every_augmentation_gives_a_new_batch_like_the_one_given(name, shape):
    x = torch.randn(shape)
    was = x.clone()
    y = changed(name, x)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    assert torch.equal(x, was) and not torch.equal(y, x)
    assert y.data_ptr() != x.data_ptr()


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_the_generator_alone_decides(name, shape):
    x = torch.randn(shape)
    state = torch.get_rng_state()
    assert torch.equal(changed(name, x, 3), changed(name, x, 3))
    assert not torch.equal(changed(name, x, 3), changed(name, x, 4))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_samples_are_changed_apart_from_each_other(name, shape):
    same = torch.randn(1, *shape[1:]).expand(shape)
    assert len({sample.numpy().tobytes() for sample in changed(name, same)}) > 3


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_a_constant_sample_stays_as_it_is(name, shape):
    x = torch.full(shape, 0.7)
    torch.testing.assert_close(changed(name, x), x)


@pytest.mark.parametrize(("name", "shape"), [(name, (2, 1, 1, 1)) for name in IMAGES[1:]]
                         + [(name, (2, 1, 1)) for name in SIGNALS[1:]])  # fmt: skip
def test_a_single_point_stays_as_it_is(name, shape):
    x = torch.randn(shape)
    torch.testing.assert_close(changed(name, x), x)


def test_none_is_nothing():
    assert augmentation("none") is None
    assert IMAGES[0] == SIGNALS[0] == "none"


@pytest.mark.parametrize("name", IMAGES[1:])
def test_images_keep_how_they_lie_in_memory(name):
    x = torch.randn(4, 3, 8, 8)
    y = changed(name, x.to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert changed(name, x).is_contiguous()
    torch.testing.assert_close(y, changed(name, x))


def test_shift_moves_by_up_to_a_twelfth_and_repeats_the_edge():
    x = torch.arange(24.0).expand(500, 1, 30, 24)  # each pixel says its column
    y = changed("shift", x)
    assert (y == y[:, :, :1]).all()
    by = (y[:, 0, 0, 12] - 12).unique()
    assert by.tolist() == [-2, -1, 0, 1, 2]
    left = y[y[:, 0, 0, 12] == 10][0, 0, 0]
    assert left[:4].tolist() == [0, 0, 0, 1] and left[-1] == 21


def test_shift_moves_all_channels_of_an_image_alike():
    x = torch.randn(20, 1, 9, 9).expand(20, 3, 9, 9)
    y = changed("shift", x)
    assert torch.equal(y[:, 0], y[:, 1]) and torch.equal(y[:, 0], y[:, 2])


def test_small_images_move_by_one_pixel():
    places = {changed("shift", spot(8, 8, 4, 4), seed).nonzero()[0, 2:].numpy().tobytes() for seed in range(100)}
    assert len(places) == 9


def test_flip_mirrors_half_of_the_images():
    x = torch.zeros(400, 1, 6, 24)
    x[..., :8] = 1
    mirrored = (changed("flip", x)[:, 0, 0, 20] == 1).float().mean()
    assert 0.4 < mirrored < 0.6
    y = changed("flip", torch.arange(24.0).expand(400, 1, 6, 24))[:, 0, 0]
    steps = (y[:, 12] - y[:, 11]).unique().tolist()
    assert steps == [-1, 1]


def moments(y):
    """Centre and covariance of the light in one image: rows, then columns."""
    light = y[0, 0].double()
    rows, columns = torch.meshgrid(*[torch.arange(float(n)).double() for n in light.shape], indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()])
    weights = light.flatten() / light.sum()
    centre = places @ weights
    return centre, (places - centre[:, None]) * weights @ (places - centre[:, None]).T


def blob(height, width, deviation_rows, deviation_columns):
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    away = ((rows - (height - 1) / 2) / deviation_rows) ** 2 + ((columns - (width - 1) / 2) / deviation_columns) ** 2
    return torch.exp(-away / 2)[None, None]


def test_affine_turns_stretches_and_moves_within_its_limits():
    x = blob(48, 96, 6, 3)
    turned, moved, grown = [], [], []
    for seed in range(60):
        centre, spread = moments(changed("affine", x, seed))
        moved.append((centre - torch.tensor([23.5, 47.5])).abs())
        grown.append(spread.diagonal().sqrt() / torch.tensor([6.0, 3.0]))
        turned.append(0.5 * math.degrees(math.atan2(2 * float(spread[0, 1]), float(spread[0, 0] - spread[1, 1]))))
    assert 8 < max(turned) < 13 and -13 < min(turned) < -8  # 10 degrees, and what stretching adds to them
    rows, columns = torch.stack(moved).max(0).values.tolist()
    assert 3 < rows < 4.5 and 6 < columns < 9  # a twelfth: 4 and 8
    grown = torch.stack(grown)
    assert 0.87 < grown.min() < 0.95 and 1.05 < grown.max() < 1.16


def test_affine_without_change_is_the_identity(monkeypatch):
    monkeypatch.setattr(augment, "TURN", 0.0)
    monkeypatch.setattr(augment, "STRETCH", 0.0)
    monkeypatch.setattr(augment, "_most", lambda size, part: 0)
    x = torch.randn(3, 2, 7, 9)
    torch.testing.assert_close(changed("affine", x), x, rtol=1e-5, atol=1e-5)


def test_a_turn_does_not_distort_images_that_are_not_square(monkeypatch):
    monkeypatch.setattr(augment, "STRETCH", 0.0)
    monkeypatch.setattr(augment, "TURN", math.radians(40))
    for seed in range(5):
        _, spread = moments(changed("affine", blob(48, 96, 4, 4), seed))
        torch.testing.assert_close(spread, 16 * torch.eye(2).double(), rtol=0.05, atol=0.8)


def test_cutout_sets_a_square_of_a_third_to_the_mean():
    x = torch.randn(300, 2, 24, 24) + 5
    y = changed("cutout", x)
    filled = (y == x.mean((1, 2, 3), keepdim=True)).all(1)
    sides = filled.any(2).sum(1), filled.any(1).sum(1)
    assert all(side.max() == 8 and side.min() >= 4 for side in sides)
    assert torch.equal(filled.sum((1, 2)), sides[0] * sides[1])


def test_shift_moves_signals_by_up_to_a_tenth():
    y = changed("shift", torch.arange(40.0).expand(500, 2, 40))
    assert (y[:, 0, 20] - 20).unique().tolist() == list(range(-4, 5))
    assert torch.equal(y[:, 0], y[:, 1])


def test_noise_is_a_tenth_of_what_each_channel_varies():
    x = torch.stack([10 * torch.randn(20, 4000), 0.1 * torch.randn(20, 4000), torch.full((20, 4000), 3.0)], 1)
    noise = changed("noise", x) - x
    torch.testing.assert_close(noise.std((0, 2)), torch.tensor([1.0, 0.01, 0.0]), rtol=0.05, atol=1e-6)


def test_mask_sets_a_stretch_of_a_fifth_to_the_mean():
    x = torch.randn(300, 2, 40)
    filled = changed("mask", x) == x.mean(2, keepdim=True)
    assert torch.equal(filled[:, 0], filled[:, 1])
    count = filled[:, 0].sum(1)
    assert count.max() == 8 and count.min() >= 4
    assert (filled[:, 0].float().diff(dim=1).abs().sum(1) <= 2).all()


def test_double_precision_stays():
    for name, shape in CASES:
        assert changed(name, torch.randn(shape).double()).dtype == torch.float64


def test_wrong_names_and_batches_are_refused_in_a_sentence():
    with pytest.raises(ArchwrightError, match=r"unknown augmentation 'flop'.*did you mean flip"):
        augmentation("flop")
    with pytest.raises(ArchwrightError, match="'flip' is not for signals, expected one of none, shift"):
        changed("flip", torch.randn(SIGNAL))
    with pytest.raises(ArchwrightError, match="'noise' is not for images"):
        changed("noise", torch.randn(IMAGE))
    with pytest.raises(ArchwrightError, match="expected real numbers"):
        changed("shift", torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ArchwrightError, match=r"\[3, 4\], expected"):
        changed("shift", torch.zeros(3, 4))


@pytest.mark.parametrize("name", IMAGES[1:])
def test_it_costs_far_less_than_a_step_of_training(name):
    x = torch.randn(128, 1, 28, 28)
    conv = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2))

    def seconds(call):
        took = []
        for _ in range(7):
            began = time.process_time()
            call()
            took.append(time.process_time() - began)
        return min(took)

    step = seconds(lambda: conv(x).sum().backward())
    assert seconds(lambda: changed(name, x)) < step  # one layer's step; a network has many
