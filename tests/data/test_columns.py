"""Columns as numbers, values and dates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from archwright.data import columns


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([True, False], [1, 0]),
        (["1.5", " 2 ", "x", "?", None], [1.5, 2, np.nan, np.nan, np.nan]),
        ([1.0, np.inf, -np.inf, np.nan], [1, np.nan, np.nan, np.nan]),
        (pd.array([1, None], dtype="Int64"), [1, np.nan]),
        (pd.Categorical([3, 5, 3]), [3, 5, 3]),
        (pd.Categorical([1, 2, None]), [1, 2, np.nan]),
        (pd.to_timedelta(["1min", None]), [60, np.nan]),
        ([1 + 2j], [np.nan]),
        ([[1], [2]], [np.nan, np.nan]),
        ([10**30, "7"], [1e30, 7]),
        ([], []),
    ],
)
def test_numbers(given, expected):
    np.testing.assert_array_equal(columns.numbers(pd.Series(given)), expected)


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ((".", ""), [np.nan, np.nan, np.nan, 1.5, 1.234, np.nan, 7, np.nan]),
        ((".", ","), [np.nan, 1234, 1234567.5, 1.5, 1.234, np.nan, 7, np.nan]),
        ((",", ""), [1.5, 1.234, np.nan, 1.5, 1.234, np.nan, 7, np.nan]),
        ((",", "."), [1.5, 1.234, np.nan, 1.5, 1234, -1234.5, 7, np.nan]),
    ],
)
def test_numbers_in_texts_with_other_signs(signs, expected, monkeypatch):
    texts = pd.Series(["1,5", " 1,234", "1,234,567.5", "1.5", "1.234", "-1.234,5", "7", "x"])
    np.testing.assert_array_equal(columns.numbers(texts, signs), expected)
    np.testing.assert_array_equal(columns.numbers(texts.astype("category"), signs), expected)
    np.testing.assert_array_equal(columns.numbers(pd.Series([1.5, 2]), signs), [1.5, 2])
    monkeypatch.setattr(columns, "BLOCK", 3)
    np.testing.assert_array_equal(columns.numbers(texts, signs), expected)


@pytest.mark.parametrize(
    ("texts", "known", "expected"),
    [
        (["a", "b", "A"], ["b", "a"], [1, 0, -1]),
        (["TRUE", "true", "False", "yes"], ["False", "True"], [1, 1, 0, -1]),
        (["True", "true"], ["True", "true"], [0, 1]),
        (["True", "true"], ["TRUE", "maybe"], [-1, -1]),
        (["2.0", "2", "-3.", "2.5", "02"], ["2", "-3"], [0, 0, 1, -1, -1]),
        (["2", "1"], ["2.0", "001"], [0, -1]),
        (["2.0", "2"], ["2", "2.0"], [1, 0]),
        ([], ["a"], []),
        (["a"], [], [-1]),
    ],
)
def test_codes_of_values_that_are_written_in_another_way(texts, known, expected):
    found = columns.codes(texts, known)
    assert found.tolist() == expected and found.dtype == np.int64


@pytest.mark.parametrize(
    "given", [[1.0, np.nan, np.inf], ["a", "?", " x "], [True, None, False], pd.Categorical(["a", None, "b"])]
)
def test_which_cells_are_filled(given):
    expected = columns.values(pd.Series(given))[0] >= 0
    np.testing.assert_array_equal(columns.filled(pd.Series(given)), expected)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", " a ", "b", "?", "", None, "NA"], ["a", "a", "b", None, None, None, None]),
        ([1.0, 7.0, np.nan, 2.5], ["1", "7", None, "2.5"]),
        ([1, "1", "x"], ["1", "1", "x"]),
        ([True, False, True], ["True", "False", "True"]),
        (pd.Categorical(["x", None]), ["x", None]),
        (["Zürich", "東京"], ["Zürich", "東京"]),
        ([], []),
    ],
)
def test_values(given, expected):
    index, texts = columns.values(pd.Series(given))
    assert [None if i < 0 else texts[i] for i in index] == expected
    assert len(set(texts)) == len(texts)


def test_cells_that_are_no_values():
    with pytest.raises(TypeError):
        columns.values(pd.Series([[1], [2]]))


def test_dates_count_days_since_2000():
    days = columns.dates(pd.Series(["2000-01-02", "1999-12-31 12:00", "no date", None]))
    np.testing.assert_allclose(days, [1, -0.5, np.nan, np.nan])
    typed = pd.Series(pd.to_datetime(["2000-01-02 01:00"]).tz_localize("Europe/Paris"))
    np.testing.assert_allclose(columns.dates(typed), 1)


@pytest.mark.parametrize(
    ("texts", "format"),
    [
        (["2020-01-31", "2021-02-01T10:00:00"], columns.ISO),
        (["31.01.2020", "01.02.2020"], "%d.%m.%Y"),
        (["01/31/2020", "02/01/2020"], "%m/%d/%Y"),
        (["31/01/2020", "01/02/2020"], "%d/%m/%Y"),
        (["3 Jan 2020"], "%d %b %Y"),
        (["40-49", "50-59"], None),
        (["2020", "2021"], None),
        (["A/5 21171", "PC 17599"], None),
        ([], None),
    ],
)
def test_the_format_of_dates(texts, format):
    assert columns.date_format(texts) == format


def test_parts_of_dates_go_round():
    days = np.arange(0, 700.0)
    assert np.abs(columns.date_part(days, "week.sin") - columns.date_part(days + 7, "week.sin")).max() < 1e-6
    assert set(columns.PARTS) >= {"days", "year.cos"} and columns.date_part(days, "days") is days


def test_names_are_made_different():
    frame = pd.DataFrame(np.zeros((1, 6)), columns=["a", "a", "", 3, ("b", "c"), "a.1"])
    assert list(columns.named(frame).columns) == ["a", "a.1", "x2", "3", "b.c", "a.1.1"]
