"""Images in files, folders and arrays."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from archwright.data import pixels
from archwright.data.image import LARGEST
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError


def folder(home, classes=("cat", "dog"), count=12, size=(20, 30), mode="L", suffix=".png", seed=0):
    rng = np.random.default_rng(seed)
    for c, name in enumerate(classes):
        (home / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            shape = size if mode == "L" else (*size, len(mode))
            image = rng.integers(100 * c, 100 * c + 60, shape, dtype=np.uint8)
            Image.fromarray(image).convert(mode).save(home / name / f"{i}{suffix}")
    return home


@pytest.mark.parametrize(("mode", "suffix", "channels"), [
    ("L", ".png", 1), ("RGB", ".png", 3), ("RGBA", ".png", 3), ("L", ".jpg", 1), ("RGB", ".JPG", 3), ("L", ".bmp", 1),
    ("L", ".gif", 1), ("RGB", ".webp", 3),
])  # fmt: skip
def test_a_folder_of_class_folders(tmp_path, mode, suffix, channels):
    data = open_data(folder(tmp_path / "pets", mode=mode, suffix=suffix))
    assert data.inputs[0].shape == (24, channels, 20, 30) and data.inputs[0].dtype == np.uint8
    assert data.classes == ("cat", "dog") and data.name == "pets" and data.kind == "image"
    (x,), _ = data.tensors("train")
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=0.02)
    raw, y = open_raw(tmp_path / "pets", recipe_from(data.meta["recipe"]))
    np.testing.assert_array_equal(raw, data.inputs[0])
    assert y.tolist() == ["cat"] * 12 + ["dog"] * 12


def test_grey_images_that_are_stored_in_colour(tmp_path):
    for path in folder(tmp_path).rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert open_data(tmp_path).inputs[0].shape[1] == 1


def test_sizes(tmp_path):
    folder(tmp_path, ("a",), size=(200, 100))
    folder(tmp_path, ("b",), size=(200, 140))
    data = open_data(tmp_path)
    assert data.inputs[0].shape[2:] == (64, 38) and LARGEST == 64
    assert "images are brought to 64 x 38 pixels (their median is 200 x 120" in data.meta["notices"][0]
    assert open_data(tmp_path, size=16).inputs[0].shape[2:] == (16, 16)
    assert open_data(tmp_path, size=(8, 12)).inputs[0].shape[2:] == (8, 12)
    for size in (0, (1, 2, 3), (2.5, 1)):
        with pytest.raises(DataError, match="expected pixels: one number, or height and width"):
            open_data(tmp_path, size=size)


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    folder(tmp_path)
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "3.png").read_bytes()
    (tmp_path / "dog" / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "notes.txt").write_text("not an image by name")
    data = open_data(tmp_path)
    assert len(data.target) == 22 and np.bincount(data.target).tolist() == [11, 11]
    assert "2 of 24 files are left out: " in data.meta["notices"][0] and "0.png" in data.meta["notices"][0]
    assert all(data.inputs[0][data.target == 1].mean((1, 2, 3)) > 100)
    with pytest.raises(DataError, match=r"0.png cannot be read as an image"):
        open_raw(tmp_path, recipe_from(data.meta["recipe"]))


def test_train_and_test_folders_are_splits(tmp_path):
    folder(tmp_path / "train", count=20)
    folder(tmp_path / "test", count=5, seed=1)
    data = open_data(tmp_path)
    assert {name: len(index) for name, index in data.splits.items()} == {"train": 34, "valid": 6, "test": 10}
    assert data.meta["split"] == "random"
    raw, y = open_raw(tmp_path, recipe_from(data.meta["recipe"]))
    assert len(raw) == len(y) == 10
    folder(tmp_path / "val", count=3, seed=2)
    data = open_data(tmp_path)
    assert data.meta["split"] == "given" and data.size("valid") == 6 and data.size("train") == 40


def test_images_without_labels_are_predicted(tmp_path):
    recipe = recipe_from(open_data(folder(tmp_path / "pets")).meta["recipe"])
    folder(tmp_path / "new", ("unsorted",), count=3)
    raw, y = open_raw(tmp_path / "new", recipe)
    assert raw.shape == (3, 1, 20, 30) and y is None
    one, y = open_raw(tmp_path / "pets" / "dog" / "1.png", recipe)
    assert one.shape == (1, 1, 20, 30) and y is None


@pytest.mark.parametrize("shape", [(30, 8, 9), (30, 1, 8, 9), (30, 8, 9, 3), (30, 3, 8, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
def test_arrays(shape, dtype):
    x = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    data = open_data((x, np.arange(30) % 3), kind="image")
    channels = {(8, 9): 1, (1, 8, 9): 1}.get(shape[1:], 3)
    assert data.inputs[0].shape == (30, channels, 8, 9) and data.dtypes == ("float32",)
    (train,), _ = data.tensors("train")
    np.testing.assert_allclose(train.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(train.std((0, 2, 3), correction=0), 1, atol=1e-4)
    recipe = recipe_from(data.meta["recipe"])
    assert recipe.dtype == ("float32" if dtype is np.float64 else "uint8")
    np.testing.assert_allclose(recipe.apply(x)[0], data.batch(range(30))[0][0], atol=1e-6)


def test_pixels_that_are_no_numbers_and_channels_that_do_not_vary():
    x = np.random.default_rng(0).normal(size=(20, 2, 5, 5))
    x[0, 0, 0, 0], x[:, 1] = np.nan, 4
    data = open_data((x, np.arange(20) % 2), kind="image")
    assert np.isfinite(data.inputs[0]).all() and not data.inputs[0][:, 1].any()


def test_16_bits_and_transparency_and_turned_photographs(tmp_path):
    Image.fromarray(np.full((4, 4), 256 * 77, np.uint16)).save(tmp_path / "deep.png")
    assert set(pixels.read(tmp_path / "deep.png").ravel()) == {77}
    Image.new("RGBA", (3, 2), (9, 8, 7, 0)).save(tmp_path / "clear.png")
    assert pixels.read(tmp_path / "clear.png").shape == (2, 3, 3)
    turned = Image.new("L", (6, 2))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    assert pixels.read(tmp_path / "turned.jpg").shape == (6, 2) == pixels.measure(tmp_path / "turned.jpg")
    assert pixels.read(tmp_path / "turned.jpg", 3, (5, 4)).shape == (5, 4, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda home: folder(home, ("one",)), "files of one class, 'one', expected a folder for each of two"),
        (lambda home: home.mkdir(exist_ok=True), "holds neither images nor sounds"),
        (lambda home: [f.write_bytes(b"x") for f in folder(home).rglob("*.png")], "can be read as an image"),
    ],
)
def test_what_is_no_folder_of_images_is_said(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 5, 6, 7)), np.arange(4), r"images of shape \(4, 5, 6, 7\)"),
        (np.zeros((4, 3, 6, 7)), np.arange(5), "got 4 images and 5 targets"),
        (np.zeros((4, 3, 6, 7)), np.array([1, 0, np.nan, 1]), "target of 1 of 4 images is missing"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(x, y, message):
    with pytest.raises(DataError, match=message):
        open_data((x, y), kind="image")


def test_infinite_pixels_are_unknown_ones():
    x = np.random.default_rng(0).normal(size=(40, 6, 6)).astype(np.float32)
    x[0, 0, 0], x[1, 2, 3], x[2, 1, 1] = np.inf, -np.inf, np.nan
    data = open_data((x, np.arange(40) % 2))
    assert all(np.isfinite(a).all() and np.abs(a).max() < 10 for a in data.inputs)
    recipe = recipe_from(data.meta["recipe"])
    np.testing.assert_array_equal(recipe.apply(x)[0], data.inputs[0])
    assert np.isnan(recipe.encode(x)[0][[0, 1, 2], 0, [0, 2, 1], [0, 3, 1]]).all()
