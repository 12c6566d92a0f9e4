"""How CSV files are written: separators, signs in numbers, encodings, lines of any length."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from archwright.data import dialect, rows
from archwright.data.recipe import Number, TableRecipe, Target
from archwright.errors import DataError


def written(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(("width", "texts"), [(1, 2), (2, 1), (4, 1), (4, 0), (7, 1)])
def test_a_decimal_comma_is_no_separator(tmp_path, header, width, texts):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(30, width)).round(2) + 0.5)
    frame = frame.assign(**{f"t{i}": "x" for i in range(texts)})
    frame.columns = [f"column {i}" for i in range(frame.shape[1])]
    frame.to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False, header=header)
    found = rows.of_csv(tmp_path / "t.csv")
    assert found.header == header and len(found.names) == width + texts and found.signs == (",", ".")
    np.testing.assert_allclose(found.whole().iloc[:, :width], frame.iloc[:, :width])


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a;b\n1,5;2,5\n", ";"),
        ("a|b|c\n1,5|2,5|3,5\n", "|"),
        ("a\tb\n1,005\t2,005\n", "\t"),
        ("a,b\n1;2,x;y\n3;4,x\n", ","),
        ("a b\n1 2\n", dialect.WHITESPACE),
        ("a\n1\n", ","),
    ],
)
def test_separators(text, separator):
    assert dialect.separator(text.splitlines(True)) == separator


def test_known_names_decide_the_separator():
    lines = ["a;b;c,d;e;f\n", "1;2;3,4;5;6\n"]
    assert dialect.separator(lines) == ";" and dialect.separator(lines, {"a;b;c", "d;e;f"}) == ","


@pytest.mark.parametrize(
    ("columns", "separator", "signs"),
    [
        ([["1.5", "2.25"]], ",", (".", ",")),
        ([["1,5", "2,25"]], ";", (",", ".")),
        ([["1,5", "2,25"]], ",", (",", ".")),
        ([["1.234,50", "7"]], ";", (",", ".")),
        ([["1,234.50", "7"]], ";", (".", ",")),
        ([["1,234,567", "7"]], ";", (".", ",")),
        ([["1.234.567", "7"]], ";", (",", ".")),
        ([["22,125", "9,369", "950"]], "\t", (".", ",")),
        ([["22,125", "9,369", "950"]], ";", (".", ",")),
        ([["22.125", "9.369", "950"]], ";", (",", ".")),
        ([["22.125", "9.369", "950"]], ",", (".", ",")),
        ([["22,125", "9,369"]], "\t", (".", ",")),
        ([["22,125", "9,369"]], ",", (".", ",")),
        ([["22,125", "9,369"]], ";", (",", ".")),
        ([["22,125", "9500"]], ";", (",", ".")),
        ([["22,125", "0,369"]], "\t", (",", ".")),
        ([["22,125", "9,369"], ["0.5", "1.5"]], ";", (".", ",")),
        ([["22.125", "9.369"]], ";", (".", ",")),
        ([["1,5", "2,5"], ["3,5", "4,5"], ["1.2", "1.2"]], ";", (",", "")),
        ([["1.5", "2.5"], ["x", "1,5"]], ",", (".", ",")),
        ([["1", "2"]], ",", (".", ",")),
        ([["1", "2"]], ";", (",", "")),
        ([["x"], []], ",", (".", ",")),
    ],
)
def test_signs_in_numbers(columns, separator, signs):
    assert dialect.signs(columns, separator) == signs
    assert dialect.signs([["", "?", *column] for column in columns], separator) == signs


def test_what_is_not_sure_is_as_it_was():
    for column in (["22,125"], ["22,125", "9"], ["1", "2"]):
        for former in ((",", "."), (".", ","), (",", "")):
            assert dialect.signs([column], ";", former) == former
    assert dialect.signs([["1,5"]], ",", (".", ",")) == (",", ".")
    assert dialect.signs([["1,234,567"]], ";", (",", ".")) == (".", ",")


def test_only_columns_that_are_needed_decide_about_signs(tmp_path):
    path = written(tmp_path, "more;a\n1.2;0,5\n3.4;1,5\n")
    recipe = TableRecipe(Target("y", "regression"), ("a", "y"), (Number("a", 0.0, False, 0.0, 1.0),))
    assert rows.of_csv(path, recipe).whole()["a"].tolist() == [0.5, 1.5]


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "Köln"), ("cp1252", "Köln"), ("cp1252", "5 €")])
def test_the_first_character_that_is_not_ascii_may_come_late(tmp_path, encoding, name, monkeypatch):
    text = "a,b\n" + "1,x\n" * 100_000 + f"2,{name}\n"
    path = written(tmp_path, text.encode(encoding))
    assert rows.of_csv(path).whole()["b"].iloc[-1] == name
    monkeypatch.setattr(rows, "LARGE", 100)
    monkeypatch.setattr(rows, "CHUNK", 2**17)
    monkeypatch.setattr(dialect, "BLOCK", 99)
    *_, last = rows.of_csv(path).read((), None)
    assert last["b"].iloc[-1] == name


def test_bytes_that_are_nothing_in_cp1252_and_a_character_cut_in_two(tmp_path):
    assert rows.of_csv(written(tmp_path, b"a,b\n1,\x81\n")).whole()["b"].tolist() == ["\x81"]
    assert rows.of_csv(written(tmp_path, b"a,b\n1,x\xc3")).whole()["b"].tolist() == ["xÃ"]
    with pytest.raises(DataError, match="cannot be read"):
        rows.of_csv(written(tmp_path, b"\xff\xfea\0,\0b\0\n\0\x00\xd8"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lines_longer_than_the_beginning(tmp_path, separator):
    names = [f"a column with quite a long name {i}" for i in range(20_000)]
    line = separator.join([str(i) for i in range(20_000)])
    found = rows.of_csv(written(tmp_path, "\n".join([separator.join(names), line, line])))
    assert len("".join(names)) > dialect.HEAD and found.names == tuple(names)
    assert found.header and found.whole().shape == (2, 20_000)


def test_cells_longer_than_the_limit_of_the_csv_module(tmp_path):
    limit = csv.field_size_limit()
    found = rows.of_csv(written(tmp_path, "a,b\n" + 3 * f'1,"{"long, " * 30_000}"\n'))
    assert found.names == ("a", "b") and found.whole().shape == (3, 2)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("text", [",,\n,,\n", "\n\n", ";\n;\n", '""\n'])
def test_cells_of_which_all_are_empty(tmp_path, text):
    with pytest.raises(DataError, match="is empty, expected a table"):
        rows.of_csv(written(tmp_path, text))
