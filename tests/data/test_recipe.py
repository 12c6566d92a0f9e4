"""Recipes: JSON in and out, what they make of odd values, and what they refuse."""

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright.data.open import open_data
from archwright.data.recipe import (
    LIMIT,
    Category,
    ImageRecipe,
    Number,
    SignalRecipe,
    TableRecipe,
    Target,
    recipe_from,
)  # fmt: skip
from archwright.errors import DataError, FormatError

TARGET = Target("y", "classification", ("no", "yes"))
TABLE = TableRecipe(
    TARGET, ("a", "b", "c", "y"), (Number("a", 1.0, True, 0.5, 2.0), Number("c", 0.0, False, 0.0, 1.0, (0.0, 1.0, 9.0),
                                                                           (-1.0, 0.0, 2.0))),
    (Category("b", ("u", "v")),),
)  # fmt: skip
IMAGE = ImageRecipe(TARGET, 3, (4, 5), (1.0, 2.0, 3.0), (1.0, 1.0, 2.0))
SIGNAL = SignalRecipe(Target("y", "regression", (), (3.0, 4.0), (2.0, 1.0)), 2, 6, (0.0, 1.0), (1.0, 2.0), mask=True)
SOUND = SignalRecipe(TARGET, 8, 5, (0.0,) * 8, (1.0,) * 8, 4000, {"samples": 400, "window": 80, "hop": 80, "mels": 8})
RECIPES = {"table": TABLE, "image": IMAGE, "signal": SIGNAL, "sound": SOUND}

floats = st.floats(width=32)
cells = st.one_of(st.none(), floats, st.integers(-(10**25), 10**25), st.text(max_size=3), st.booleans(),
                  st.sampled_from(["u", "v", "?", "1e400", "-1", "inf"]))  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_json_in_and_out(name):
    recipe = RECIPES[name]
    again = recipe_from(json.loads(json.dumps(recipe.to_dict(), allow_nan=False)))
    assert again == recipe and again.to_dict() == recipe.to_dict()


@settings(max_examples=60)
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8))
def test_no_cell_reaches_a_network_as_nan(rows):
    frame = pd.DataFrame(rows, columns=["a", "b", "c"], dtype=object)
    numbers, codes = TABLE.encode(frame)
    assert numbers.dtype == np.float32 and numbers.shape == (len(rows), 2) and not np.isinf(numbers).any()
    assert codes.dtype == np.int64 and codes.min() >= 0 and codes.max() <= 2
    scaled, same = TABLE.apply(frame)
    assert scaled.shape == (len(rows), 3) and scaled.dtype == np.float32
    assert np.isfinite(scaled).all() and np.abs(scaled).max() <= LIMIT
    np.testing.assert_array_equal(same, codes)
    np.testing.assert_array_equal(scaled[:, 2], np.isnan(numbers[:, 0]))


def test_what_a_number_becomes():
    numbers = np.array([[2.5, 5.0], [np.nan, -7.0], [0.5, 1e9], [1e9, np.nan]], np.float32)
    scaled = TABLE.scale((numbers, np.zeros((4, 1), np.int64)))[0]
    np.testing.assert_allclose(scaled, [[1, 1, 0], [0.25, -1, 1], [0, 2, 0], [LIMIT, -1, 0]])


def test_signs_in_numbers_that_are_text():
    frame = pd.DataFrame({"a": ["1.234,5", "?"], "b": "u", "c": ["0,5", "1.5"]})
    assert np.isnan(TABLE.encode(frame)[0]).tolist() == [[True, True], [True, False]]
    european = dataclasses.replace(TABLE, decimal=",", thousands=".")
    np.testing.assert_array_equal(european.encode(frame)[0], np.array([[1234.5, 0.5], [np.nan, 1.5]], np.float32))
    old = {key: value for key, value in TABLE.to_dict().items() if key not in ("decimal", "thousands")}
    assert recipe_from(old) == TABLE and TABLE.signs == (".", "")
    for wrong, message in (({"decimal": ""}, "recipe.decimal is ''"), ({"thousands": "x"}, "expected one of"),
                           ({"thousands": "."}, "are both '.'")):  # fmt: skip
        with pytest.raises(FormatError, match=message):
            recipe_from({**TABLE.to_dict(), **wrong})


def test_values_that_are_written_in_another_way():
    for values, cells, codes in (
        (("False", "True"), ["TRUE", "false", "True", True, "no"], [2, 1, 2, 2, 0]),
        (("1", "2"), ["2.0", 2.0, 2, "1", "3"], [2, 2, 2, 1, 0]),
    ):
        recipe = TableRecipe(TARGET, ("b",), categories=(Category("b", values),))
        assert recipe.encode(pd.DataFrame({"b": pd.Series(cells, dtype=object)}))[0][:, 0].tolist() == codes
    assert Target("y", "classification", (False, True)).codes(["TRUE", "false", None]).tolist() == [1, 0, -1]
    assert Target("y", "classification", (0, 1)).codes(["1.0", "0", "2"]).tolist() == [1, 0, -1]


def test_columns_in_any_order_with_others_beside_them():
    frame = pd.DataFrame({"more": ["?"], "c": [1], "b": ["v"], "a": [3]})
    numbers, codes = TABLE.encode(frame)
    assert numbers.tolist() == [[3, 1]] and codes.tolist() == [[2]]
    by_place, _ = TABLE.encode(np.array([[3, "v", 1]], object))
    np.testing.assert_array_equal(by_place, numbers)
    assert TABLE.inputs == (("numbers", (None, 2), "float32"), ("categories", (None, 1), "int64"))
    assert TABLE.codes == (3,) and TABLE.features == ("a", "c", "a is missing", "b")


def test_a_missing_column_is_named():
    with pytest.raises(DataError, match="lacks columns 'a', 'c' that the network was trained with: got 'b'"):
        TABLE.encode(pd.DataFrame({"b": ["u"]}))
    with pytest.raises(DataError, match=r"has 2 columns, expected the 3 that"):
        TABLE.encode(np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"shape \(4,\), expected \[rows, 3 columns\]"):
        TABLE.encode(np.zeros(4))


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.integers(0, 3))
def test_images_of_any_layout(count, kind, height, width, seed):
    rng = np.random.default_rng(seed)
    shape = [(height, width), (height, width, 3), (3, height, width), (height, width, 4)][kind]
    raw = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]
    (encoded,) = IMAGE.encode(raw)
    assert encoded.shape == (count, 3, 4, 5) and encoded.dtype == np.uint8
    (scaled,) = IMAGE.scale((encoded,))
    np.testing.assert_allclose(scaled[:, 2], (encoded[:, 2] - 3.0) / 2)


def test_signals_of_any_length():
    raw = [np.ones((2, 3)), np.full((2, 8), 5.0), np.array([[np.nan, 1], [np.inf, np.nan]])]
    (encoded,) = SIGNAL.encode(raw)
    assert encoded.shape == (3, 2, 6) and np.isnan(encoded[0, :, 3:]).all() and np.isnan(encoded[2, 1]).all()
    (scaled,) = SIGNAL.scale((encoded,))
    assert scaled.shape == (3, 3, 6) and np.isfinite(scaled).all()
    np.testing.assert_array_equal(scaled[:, 2].sum(1), [3, 6, 1])
    np.testing.assert_array_equal(scaled[1, 1], 2)
    with pytest.raises(DataError, match=r"signal 1 has shape \(3, 4\), expected 2 channels"):
        SIGNAL.encode([np.zeros((2, 4)), np.zeros((3, 4))])


def test_recordings_become_log_mel_energies():
    tone = np.sin(2 * np.pi * 500 * np.arange(400) / 4000)
    (x,) = SOUND.encode([tone, tone[:100], np.zeros(400)])
    assert x.shape == (3, 8, 5) and np.isfinite(x).all()
    np.testing.assert_allclose(x[2], np.log(1e-6), rtol=1e-6)
    assert x[0].mean() > x[1].mean() > x[2].mean()
    high = SOUND.encode([np.sin(2 * np.pi * 1500 * np.arange(400) / 4000)])[0]
    assert high[0].mean(1).argmax() > x[0].mean(1).argmax()


def test_energies_below_the_loudest():
    tone = np.sin(2 * np.pi * 500 * np.arange(400) / 4000)
    recipe = recipe_from(json.loads(json.dumps({**SOUND.to_dict(), "front": {**SOUND.front, "floor": 40}})))
    (x,) = recipe.encode([tone, tone / 9, np.zeros(400)])
    np.testing.assert_allclose(x[0], x[1], atol=1e-4)
    assert x[0].max() == 0 and (x[2] == -40).all() and recipe_from(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("labels", "raw"),
    [((1, 3), [3, 1]), (("a", "b"), ["b", "a"]), ((False, True), [True, False]), ((0.5, 1.0), [1.0, 0.5])],
)
def test_labels_keep_their_type(labels, raw):
    target = Target("y", "classification", labels)
    assert target.encode(raw).tolist() == [1, 0]
    decoded = target.decode(np.eye(2)[[1, 0]])
    assert decoded.tolist() == raw and type(decoded.tolist()[0]) is type(raw[0])
    again = recipe_from(json.loads(json.dumps(TableRecipe(target, ("y",)).to_dict()))).target.labels
    assert again == labels and [type(label) for label in again] == [type(label) for label in labels]


def test_numbers_come_back_in_their_own_units():
    y = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_allclose(SIGNAL.target.decode(SIGNAL.target.encode(y)), y, rtol=1e-6, atol=1e-6)
    one = Target("y", "regression", (), (5.0,), (2.0,))
    assert one.decode(np.ones((3, 1))).tolist() == [7, 7, 7] and one.encode([5, 7]).tolist() == [[0], [1]]
    assert TARGET.outputs == 2 and one.outputs == 1 and one.classes == ()


def test_what_is_no_target_is_said():
    with pytest.raises(DataError, match="target 'y' holds 'maybe', expected one of 'no', 'yes'"):
        TARGET.encode(["no", "maybe"])
    with pytest.raises(DataError, match="holds None"):
        TARGET.encode(["no", None])
    with pytest.raises(DataError, match="1 values that are no numbers"):
        SIGNAL.target.encode([[1, np.nan]])
    with pytest.raises(DataError, match="has 1 numbers, expected 2"):
        SIGNAL.target.encode([1, 2])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("table", {"kind": "tables"}, "kind 'tables', expected one of table, image, signal"),
        ("table", {"version": 9}, "version 9, this archwright reads 1"),
        ("table", {"more": 1}, "recipe has the entries .*more"),
        ("table", {"columns": None}, "recipe.columns is 'None', expected a list"),
        ("table", {"header": "yes"}, "recipe.header is 'yes', expected bool"),
        ("table", {"target": {"name": "y"}}, "recipe.target has the entries name, expected .*task"),
        ("table", {"target": {"name": "y", "task": "rank"}}, "recipe.target.task is 'rank'"),
        ("table", {"target": {"name": "y", "task": "classification", "labels": ["1", 1]}}, "expected different ones"),
        ("table", {"target": {"name": "y", "task": "classification"}}, "no labels"),
        ("table", {"numbers": [{"name": "a"}]}, r"recipe.numbers\[0\] has the entries name"),
        ("image", {"size": [4]}, "recipe.size"),
        ("image", {"size": [4, -1]}, r"recipe.size\[1\] is '-1', expected int"),
        ("image", {"mean": [1.0]}, "recipe.mean has 1 entries for 3 channels"),
        ("image", {"deviation": [1.0, 0.0, 1.0]}, "expected numbers above 0"),
        ("image", {"dtype": "int7"}, "recipe.dtype is 'int7'"),
        ("image", {"mean": [1.0, "nan", 3.0]}, r"recipe.mean\[1\]"),
        ("signal", {"mean": [1.0, float("nan")]}, r"recipe.mean\[1\]"),
        ("sound", {"front": {"hop": 2}}, "recipe.front"),
        ("sound", {"front": {**SOUND.front, "floor": -1}}, "recipe.front.floor is '-1', expected int"),
        ("sound", {"rate": None}, "front end but no rate"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said(name, change, message):
    values = {**copy.deepcopy(RECIPES[name].to_dict()), **change}
    with pytest.raises(FormatError, match=message):
        recipe_from(values)


@pytest.mark.parametrize("values", [None, [], "table", {}, 3])
def test_what_is_no_recipe_is_said(values):
    with pytest.raises(FormatError, match="expected an object with a kind"):
        recipe_from(values)


def test_knots_ascend():
    values = TABLE.to_dict()
    values["numbers"][1]["knots"] = [0.0, 0.0, 1.0]
    with pytest.raises(FormatError, match="number 'c' has 3 knots, expected ascending"):
        recipe_from(values)


odd_numbers = st.one_of(st.just(np.nan), st.integers(-3, 3).map(float), st.floats(-1e30, 1e30))


@settings(max_examples=40)
@given(st.lists(st.tuples(odd_numbers, st.sampled_from(["a", "b", None, "ü"])), min_size=12, max_size=40))
def test_a_fitted_recipe_bears_what_it_was_fitted_to(rows):
    labels = [("no", "yes", "yes")[i % 3] for i in range(len(rows))]
    frame = pd.DataFrame(rows, columns=["number", "value"]).assign(y=labels)
    try:
        data = open_data(frame, target="y")
    except DataError as error:
        assert "no column is left" in str(error)
        return
    recipe = recipe_from(json.loads(json.dumps(data.meta["recipe"], allow_nan=False)))
    for stored, made in zip(data.inputs, recipe.apply(frame), strict=True):
        np.testing.assert_array_equal(stored, made)
        assert np.isfinite(made).all()
    arrays = recipe.encode(frame)
    assert [(a.shape[1:], str(a.dtype)) for a in arrays] == [(shape[1:], dtype) for _, shape, dtype in recipe.inputs]
