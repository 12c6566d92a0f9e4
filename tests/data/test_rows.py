"""Tables in files: separators, headers, encodings, and files that are no tables."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from archwright.data import rows
from archwright.data.recipe import TableRecipe, Target
from archwright.errors import DataError

PLAIN = "a,b,c\n1,x,2.5\n2,y,3.5\n3,x,4.5\n"


def written(tmp_path, text, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", ", "),
        PLAIN.replace(",", "   "),
        "\n\n" + PLAIN.rstrip(),
        '"a","b","c"\n1,"x",2.5\n2,"y",3.5\n3,"x",4.5\n',
    ],
)
def test_the_same_table_in_many_ways(tmp_path, text):
    table = rows.of_csv(written(tmp_path, text))
    assert table.names == ("a", "b", "c") and table.header and not table.notices
    frame = table.whole()
    assert frame["a"].tolist() == [1, 2, 3] and frame["b"].tolist() == ["x", "y", "x"]
    assert frame["c"].tolist() == [2.5, 3.5, 4.5]
    assert table.whole({"a"}, {"a"})["a"].tolist() == ["1", "2", "3"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    table = rows.of_csv(written(tmp_path, "größe,ort\n1,Köln\n2,Düren\n".encode(encoding)))
    assert table.names == ("größe", "ort") and table.whole()["ort"].tolist() == ["Köln", "Düren"]


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("1,2,x\n3,4,y\n", False),
        ("a,b\nc,d\nc,x\nc,y\n", True),
        ("M,yes\nF,no\nM,no\n", False),
        ("id,2019\nu,3\nv,4\n", False),
        ("?,1,x\n2,2,y\n", False),
        ("name,value\nx,?\ny,3\n", True),
        ("a,b\n1,2\n", True),
    ],
)
def test_whether_there_is_a_header(tmp_path, text, header):
    table = rows.of_csv(written(tmp_path, text))
    assert table.header == header and len(table.whole()) == text.count("\n") - header
    assert header or (table.names[0] == "x0" and "has no header" in table.notices[0])


def test_missing_values_and_packed_files(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n1,?\n,x\nNA,y\nnan, ?\n"))
    frame = rows.of_csv(path).whole()
    np.testing.assert_array_equal(frame["a"], [1, np.nan, np.nan, np.nan])
    assert frame["b"].isna().tolist() == [True, False, False, True]


def test_duplicate_and_empty_names_and_a_column_too_many(tmp_path):
    assert rows.of_csv(written(tmp_path, "a,a,,b\n1,2,3,4\n5,6,7,8\n")).names == ("a", "a.1", "x2", "b")
    late = rows.of_csv(written(tmp_path, "a,b\n1,2,\n3,4,\n"))
    assert late.names == ("a", "b", "x2") and late.whole()["b"].tolist() == [2, 4]
    named = rows.of_csv(written(tmp_path, "a,b\nr1,2,3\nr2,4,5\n"))
    assert named.names == ("x0", "a", "b") and named.whole()["b"].tolist() == [3, 5]


def test_line_breaks_inside_of_cells(tmp_path):
    table = rows.of_csv(written(tmp_path, '"long\nname",b\n"x\ny",2\nz,3\n'))
    assert table.names == ("long\nname", "b") and table.whole()["b"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected a table"),
        (" \n\n", "is empty"),
        ("a,b,c\n", "holds a header and no rows"),
        (b"PK\x03\x04\0\0\0", "is not text, expected a CSV file"),
        (PLAIN + "1,2,3,4,5\n", "cannot be read as a table of 3 columns"),
    ],
)
def test_what_is_no_table_is_said(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        rows.of_csv(written(tmp_path, text)).whole()


def test_a_broken_packed_file_is_said(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        rows.of_csv(written(tmp_path, b"no gzip", "t.csv.gz"))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        rows.of_file(written(tmp_path, b"no parquet", "t.parquet"))


def test_chunks_of_a_large_file_make_the_whole(tmp_path, monkeypatch):
    frame = pd.DataFrame({"a": np.arange(5000), "b": np.where(np.arange(5000) < 4000, "7", "x")})
    for name, write in (("t.csv", frame.to_csv), ("t.parquet", frame.to_parquet)):
        write(tmp_path / name, index=False)
        monkeypatch.setattr(rows, "LARGE", 2**62)
        whole = rows.of_file(tmp_path / name).whole({"b"})
        monkeypatch.setattr(rows, "LARGE", 100)
        monkeypatch.setattr(rows, "CHUNK", 4000)
        table = rows.of_file(tmp_path / name)
        chunks = list(table.read({"b"}, None))
        assert table.large and len(chunks) > 4
        pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), whole)
        assert whole["b"].iloc[0] == "7"


def test_the_names_that_a_header_must_hold(tmp_path):
    path = written(tmp_path, "x,y\nx,y\n")
    recipe = TableRecipe(Target("t", "regression"), ("x", "y"))
    assert len(rows.of_csv(path, recipe).whole()) == 1
    assert len(rows.of_csv(path, replace(recipe, header=False)).whole()) == 2


# ------------------------------------------------------------------------------------------------------------- Parquet
def odd():
    """A frame of types that are not numpy's, with rows left out of it, so that its index is stored."""
    n = 4000
    return pd.DataFrame({
        "sort": pd.Categorical([f"s{i // 1000}" for i in range(n)]), "whole": pd.array([1, None] * (n // 2), "Int64"),
        "when": pd.date_range("2020", periods=n, tz="Europe/Paris"), "text": ["a", "b"] * (n // 2),
        "sure": pd.array([True, None] * (n // 2), "boolean"), "long": pd.to_timedelta(np.arange(n), "s"),
        "x": np.arange(n) / 7,
    }).sample(frac=0.8, random_state=0)  # fmt: skip


@pytest.mark.parametrize("large", [False, True])
def test_an_index_without_a_name_is_no_column(tmp_path, large, monkeypatch):
    frame = odd()
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=500)
    if large:
        monkeypatch.setattr(rows, "LARGE", 100)
        monkeypatch.setattr(rows, "CHUNK", 2000)
    found = rows.of_file(tmp_path / "t.parquet")
    assert found.names == tuple(frame.columns) and found.large == large
    whole = found.whole()
    assert isinstance(whole["sort"].dtype, pd.CategoricalDtype)
    for name in frame.columns:
        expected = frame[name].to_numpy(object, na_value=None)
        assert (whole[name].to_numpy(object, na_value=None) == expected).all()
    assert list(found.whole(wanted={"x", "sort"}).columns) == ["sort", "x"]


def test_columns_of_the_same_name_in_parquet(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([1, 2]), pyarrow.array([3, 4])], names=["a", "a"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    found = rows.of_file(tmp_path / "t.parquet")
    assert found.names == ("a", "a.1") and found.whole(wanted={"a.1"})["a.1"].tolist() == [3, 4]


def test_repetition_does_not_hide_how_large_a_parquet_file_is(tmp_path):
    frame = pd.DataFrame({"text": ["a text of some length"] * 20_000, "number": np.ones(20_000)})
    frame.to_parquet(tmp_path / "t.parquet")
    memory = frame.memory_usage(index=False).sum()
    assert (tmp_path / "t.parquet").stat().st_size < memory / 50
    assert memory / 2 < rows.of_file(tmp_path / "t.parquet").bytes < 2 * memory


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("before", [",,\n", ";;\n", "\n,,\n\n", '"","",""\n'])
def test_lines_without_anything_before_the_header(tmp_path, monkeypatch, before, large):
    if large:
        monkeypatch.setattr(rows, "LARGE", 1)
        monkeypatch.setattr(rows, "CHUNK", 1)
    text = PLAIN.replace(",", ";") if ";" in before else PLAIN
    table = rows.of_csv(written(tmp_path, before + text))
    assert table.names == ("a", "b", "c") and table.whole()["c"].tolist() == [2.5, 3.5, 4.5]
