"""Every source by one door, and the same sources again for predictions."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from archwright.data import rows
from archwright.data.builtin import BUILTIN, raw
from archwright.data.data import SPLITS
from archwright.data.home import data_file, data_home
from archwright.data.open import open_data, open_parts, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError

N = 120
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)), np.arange(N) % 3


def table():
    return pd.DataFrame(X, columns=["a", "b", "c"]).assign(d=np.where(np.arange(N) % 2, "u", "v"), y=Y * 1.5 + 0.1)


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_built_in_data(name):
    data = open_data(name)
    assert data.name == name and min(data.size(split) for split in SPLITS) >= 20
    recipe = recipe_from(json.loads(json.dumps(data.meta["recipe"])))
    inputs, y = open_raw(name, recipe)
    expected = data.batch(range(len(y)))[0][0]
    np.testing.assert_allclose(recipe.apply(inputs)[0], expected, atol=1e-5)
    outputs = np.eye(data.outputs)[data.target] if data.task == "classification" else data.target
    decoded = recipe.target.decode(outputs)
    assert np.allclose(decoded, y) if name == "diabetes" else (decoded == y).all()
    (x,), _ = data.tensors("train")
    np.testing.assert_allclose([x.mean(), x.std()], [0, 1], atol=0.01)


def test_built_in_data_are_what_a_user_would_have():
    assert list(raw("iris")[0].columns)[:1] == ["sepal length (cm)"] and set(raw("iris")[1]) == {
        "setosa", "versicolor", "virginica"
    }  # fmt: skip
    assert raw("digits")[0].max() == 16 and raw("digits")[0].dtype == np.uint8
    assert recipe_from(open_data("digits").meta["recipe"]).target.labels == tuple(range(10))
    with pytest.raises(DataError, match="'irys': expected one of"):
        raw("irys")


@pytest.mark.parametrize("form", ["pair", "target", "frame", "series", "list", "fortran", "named"])
def test_arrays_and_frames(form):
    source, hp = {
        "pair": ((X, Y), {}), "target": (X, {"target": Y}), "frame": (pd.DataFrame(X), {"target": Y}),
        "series": (pd.DataFrame(X), {"target": pd.Series(Y, name="kind")}), "list": ((X.tolist(), Y.tolist()), {}),
        "fortran": ((np.asfortranarray(X), Y), {}), "named": (pd.DataFrame(X).assign(y=Y), {"target": "y"}),
    }[form]  # fmt: skip
    data = open_data(source, **hp)
    recipe = recipe_from(data.meta["recipe"])
    assert data.inputs[0].shape == (N, 3) and data.task == "classification" and recipe.target.labels == (0, 1, 2)
    if form != "named":
        np.testing.assert_array_equal(recipe.apply(X)[0], data.inputs[0])


def test_many_targets_and_columns_of_text_in_an_array():
    data = open_data((X, X[:, :2] * 3 + 1))
    assert data.task == "regression" and data.outputs == 2
    recipe = recipe_from(data.meta["recipe"])
    np.testing.assert_allclose(recipe.target.decode(data.target), X[:, :2] * 3 + 1, atol=1e-5)
    mixed = np.column_stack([X.astype(object), np.where(np.arange(N) % 2, "u", "v")])
    assert [a.shape for a in open_data((mixed, Y)).inputs] == [(N, 3), (N, 1)]


def test_columns_of_an_array_are_never_taken_for_names_of_rows():
    data = open_data((np.arange(N, dtype=float)[:, None], Y))
    assert data.inputs[0].shape == (N, 1)


def test_groups_of_an_array_and_no_test_split():
    data = open_data((X, Y), group=np.arange(N) // 10, test=0.0)
    assert data.meta["split"] == "group" and data.size("test") == 0 and data.size("valid") % 10 == 0
    np.testing.assert_array_equal(data.groups, np.arange(N) // 10)


def test_data_are_returned_as_they_are():
    data = open_data("iris")
    assert open_data(data) is data
    with pytest.raises(DataError, match="encoded already"):
        open_raw(data, recipe_from(data.meta["recipe"]))


@pytest.mark.parametrize(
    ("source", "hp", "message"),
    [
        ("nowhere.csv", {}, "nowhere.csv does not exist: expected a CSV or Parquet file"),
        (__file__, {}, "ends in '.py', expected a CSV"),
        (3, {}, "got int '3': expected"),
        ((X, Y[:5]), {}, "got 120 rows and 5 targets"),
        ((X[:0], Y[:0]), {}, "got no samples"),
        ((X, Y), {"kind": "graph"}, "kind='graph'"),
        ((np.zeros((4, 2, 2, 2, 2)), Y[:4]), {}, "got an array of shape"),
        ((pd.DataFrame(X), Y), {"kind": "image"}, "got a DataFrame and kind='image'"),
        ((X, Y), {"group": [1, 2]}, "one for each of the 120"),
    ],
)
def test_what_cannot_be_opened_is_said(source, hp, message):
    with pytest.raises(DataError, match=message):
        open_data(source, **hp)


# ------------------------------------------------------------------------------------------------------------- predict
@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet", "frame"])
def test_a_table_to_predict_for(tmp_path, form):
    data = open_data(table())
    recipe = recipe_from(data.meta["recipe"])
    new = table()[["d", "c", "a", "b"]].assign(more=1).head(7)
    new.loc[2, "d"], new.loc[3, "a"] = "never seen", np.nan
    path = tmp_path / f"new.{form}"
    if form == "parquet":
        new.to_parquet(path)
    elif form != "frame":
        new.to_csv(path, index=False)
    frame, y = open_raw(new if form == "frame" else path, recipe)
    assert y is None and len(frame) == 7
    numbers, codes = recipe.apply(frame)
    expected = [a[:7].copy() for a in data.inputs]
    expected[1][2] = 0
    expected[0][3, 0] = (recipe.numbers[0].fill - recipe.numbers[0].mean) / recipe.numbers[0].deviation
    np.testing.assert_allclose(numbers, expected[0], atol=1e-5)
    np.testing.assert_array_equal(codes, expected[1])


def coded(kind, count, rng):
    """A column, and how it may be written."""
    numbers = rng.integers(1, 39, count)
    if kind == "codes":
        return [*[f"{i:03d}" for i in numbers[: count // 2]], *[f"V{i % 9:02d}" for i in numbers[count // 2 :]]]
    if kind == "floats":
        return [*[f"{i % 9}.0" for i in numbers[: count // 2]], *["none at all"] * (count - count // 2)]
    truth = rng.choice(["TRUE", "FALSE"] if "upper" in kind else ["true", "false"], count)
    if "gaps" in kind:
        truth[count // 2 : count // 2 + 9] = ""
    if "more" in kind:
        truth[-9:] = "maybe"
    return truth


@pytest.mark.parametrize("chunk", [None, 500, 3000])
@pytest.mark.parametrize(
    "kind", ["codes", "floats", "upper", "lower", "upper gaps", "lower gaps", "upper more", "lower more gaps"]
)
def test_a_cell_is_the_same_for_training_and_for_predicting(tmp_path, monkeypatch, kind, chunk):
    if chunk:
        monkeypatch.setattr(rows, "LARGE", 10)
        monkeypatch.setattr(rows, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    path = tmp_path / "t.csv"
    frame = pd.DataFrame({"a": rng.normal(size=800).round(3), "c": coded(kind, 800, rng), "y": coded(kind, 800, rng)})
    frame.to_csv(path, index=False)
    data = open_data(path, target="y", folder=tmp_path)
    recipe = recipe_from(json.loads(json.dumps(data.meta["recipe"])))
    raw, truth = open_raw(path, recipe)
    known = np.array([label is not None for label in truth])
    for made, stored in zip(recipe.apply(raw), data.inputs, strict=True):
        np.testing.assert_array_equal(made[known], stored)
    filled = (frame["c"] != "").to_numpy()
    assert (data.inputs[1][filled[known], 0] > 0).all() and (data.inputs[1][~filled[known], 0] == 0).all()
    np.testing.assert_array_equal(recipe.target.codes(truth)[known], data.target)
    parts = list(open_parts(path, recipe))
    assert (len(parts) > 1) == bool(chunk) and sum(len(part) for part, _ in parts) == len(raw)
    np.testing.assert_array_equal(np.concatenate([recipe.apply(part)[1] for part, _ in parts]), recipe.apply(raw)[1])
    read = pd.read_csv(path)
    assert (recipe.apply(read)[1][filled] > 0).all()


def test_whole_numbers_as_categories_with_a_gap_in_the_file(tmp_path):
    codes = np.arange(N) % 4
    data = open_data(table().assign(c=pd.Categorical(codes), y=codes % 2))
    recipe = recipe_from(data.meta["recipe"])
    path = tmp_path / "t.csv"
    gap = pd.Series(codes).where(codes != 3)
    table().assign(c=gap, y=codes % 2).to_csv(path)
    raw, _ = open_raw(path, recipe)
    assert "2.0" in raw["c"].tolist() and ((recipe.apply(raw)[1][:, 0] > 0) == (codes != 3)).all()
    raw.assign(y=(gap % 2)).to_csv(path)
    assert open_raw(path, recipe)[1].tolist() == [None if c == 3 else c % 2 for c in codes]


def test_signs_of_the_file_that_is_predicted_for(tmp_path):
    whole = table().round(2)
    path = tmp_path / "t.csv"
    whole.to_csv(path, sep=";", decimal=",", index=False)
    data = open_data(path, target="y")
    recipe = recipe_from(data.meta["recipe"])
    assert recipe.signs == (",", ".")

    def encoded(frame, **hp):
        frame.to_csv(path, index=False, **hp)
        raw, y = open_raw(path, recipe)
        np.testing.assert_allclose(y, whole["y"])
        return recipe.apply(raw)[0]

    european = {"sep": ";", "decimal": ","}
    for frame, hp in ((whole.assign(version="1.2"), european), (whole, {}), (whole, {"sep": "\t", "decimal": ","})):
        np.testing.assert_allclose(encoded(frame, **hp), data.inputs[0])
    stray = whole.astype({"a": object})
    stray.loc[0, "a"] = "unknown"
    stray.loc[1:, "a"] = [str(a).replace(".", ",") for a in stray["a"][1:]]
    np.testing.assert_allclose(encoded(stray, **european)[1:], data.inputs[0][1:])
    np.testing.assert_allclose(recipe.apply(stray)[0][1:], data.inputs[0][1:])


def test_a_table_of_no_rows_to_predict_for():
    recipe = recipe_from(open_data(table()).meta["recipe"])
    raw, y = open_raw(table().head(0), recipe)
    assert len(raw) == 0 and y is None


def test_only_what_is_needed_is_kept_of_a_file_and_rows_that_are_too_long_are_said(tmp_path):
    data = open_data(table().assign(note=[f"note number {i} of all" for i in range(N)]), target="y")
    path = tmp_path / "t.csv"
    table().assign(note="x").to_csv(path, index=False)
    assert set(open_raw(path, recipe_from(data.meta["recipe"]))[0].columns) == {"a", "b", "c", "d", "y"}
    path.write_text(path.read_text() + "1,2,3,4,5,6,7\n")
    with pytest.raises(DataError, match="cannot be read as a table of 6 columns"):
        open_raw(path, recipe_from(data.meta["recipe"]))


def test_a_column_that_is_missing(tmp_path):
    recipe = recipe_from(open_data(table()).meta["recipe"])
    table().drop(columns="b").to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError, match="the table lacks column 'b' that the network was trained with: got 'a'"):
        open_raw(tmp_path / "new.csv", recipe)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_tables_without_a_header(tmp_path, place):
    columns = ["a", "b", "c", "d"]
    columns.insert(place, "y")
    table()[columns].to_csv(tmp_path / "train.csv", index=False, header=False)
    data = open_data(tmp_path / "train.csv", target=place)
    recipe = recipe_from(data.meta["recipe"])
    with_target, y = open_raw(tmp_path / "train.csv", recipe)
    np.testing.assert_allclose(y, table()["y"])
    table()[["a", "b", "c", "d"]].to_csv(tmp_path / "new.csv", index=False, header=False)
    without, nothing = open_raw(tmp_path / "new.csv", recipe)
    assert nothing is None
    for one, other, stored in zip(recipe.apply(with_target), recipe.apply(without), data.inputs, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, stored)
    table()[["a", "b", "c", "d"]].head(1).to_csv(tmp_path / "one.csv", index=False, header=False)
    assert len(open_raw(tmp_path / "one.csv", recipe)[0]) == 1


def test_truths_that_are_missing_or_new(tmp_path):
    frame = table().assign(y=np.where(Y == 0, "no", "yes"))
    recipe = recipe_from(open_data(frame).meta["recipe"])
    new = frame.head(4).assign(y=["no", "maybe", None, "yes"])
    assert open_raw(new, recipe)[1].tolist() == ["no", "maybe", None, "yes"]
    assert open_raw(new.assign(y=None), recipe)[1] is None
    assert open_raw(frame.head(2), recipe)[1].dtype.kind == "U"


def test_options_that_are_for_tables(tmp_path):
    np.savez(tmp_path / "a.npz", X=X, y=Y)
    for option in ("target", "time"):
        with pytest.raises(DataError, match=f"got {option}='when', which names a column of a table"):
            open_data(tmp_path / "a.npz", **{option: "when"})


def test_a_source_of_another_kind(tmp_path):
    recipe = recipe_from(open_data("digits").meta["recipe"])
    table().to_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="holds table, expected images: the network was trained with them"):
        open_raw(tmp_path / "t.csv", recipe)
    with pytest.raises(DataError, match="got a table, expected images"):
        open_raw(table(), recipe)


def test_a_test_table_beside_a_train_table(tmp_path):
    whole = table().assign(y=np.where(Y == 0, "no", "yes"))
    whole.head(90).to_csv(tmp_path / "my_train.csv", index=False)
    whole.tail(30).to_csv(tmp_path / "my_test.csv", index=False)
    data = open_data(tmp_path / "my_train.csv")
    assert data.splits["test"].tolist() == list(range(90, 120)) and data.meta["split"] == "random"
    assert "the test split is my_test.csv" in data.meta["notices"]
    alone = open_data(tmp_path / "my_test.csv")
    assert len(alone.target) == 30
    for change, message in (({"columns": {"a": "z"}}, "other columns"), ({"columns": {}}, "holds 'maybe'")):
        other = whole.tail(30).rename(**change)
        other.loc[100, "y"] = "maybe"
        other.to_csv(tmp_path / "my_test.csv", index=False)
        data = open_data(tmp_path / "my_train.csv")
        assert len(data.target) == 90 and any(message in notice for notice in data.meta["notices"])


def test_a_parquet_file_with_an_index(tmp_path):
    table().sample(frac=0.8, random_state=0).to_parquet(tmp_path / "t.parquet")
    data = open_data(tmp_path / "t.parquet")
    recipe = recipe_from(data.meta["recipe"])
    raw, y = open_raw(tmp_path / "t.parquet", recipe)
    assert recipe.columns == ("a", "b", "c", "d", "y") and len(y) == 96
    for made, stored in zip(recipe.apply(raw), data.inputs, strict=True):
        np.testing.assert_array_equal(made, stored)


def test_a_parquet_file(tmp_path):
    frame = table().assign(when=pd.date_range("2020-01-01", periods=N, freq="D", tz="UTC"), y=Y)
    frame.to_parquet(tmp_path / "t.parquet")
    data = open_data(tmp_path / "t.parquet", target="y")
    same = open_data(frame, target="y")
    assert data.meta["recipe"] == same.meta["recipe"] and recipe_from(data.meta["recipe"]).dates


# ----------------------------------------------------------------------------------------------------------- real data
def manifest():
    if data_home() is None:
        return []
    return json.loads(data_file("tabular", "manifest.json").read_text())


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry["name"])
def test_classic_tables(entry):
    # whole grades from 3 to 9 could be either: nothing in the file says that they are not classes
    task = "regression" if entry["name"] == "wine_quality_white" else None
    source = data_file("tabular", entry["file"])
    data = open_data(source, target=entry["target_column"], task=task)
    recipe = recipe_from(json.loads(json.dumps(data.meta["recipe"], allow_nan=False)))
    assert data.task == entry["task"] and recipe.header == entry["header"] and len(recipe.columns) == entry["columns"]
    lost = entry.get("classes", {}).get("?", 0)
    assert len(data.target) == entry["rows"] - lost
    if entry["task"] == "classification":
        counts = {label: int(count) for label, count in zip(data.classes, np.bincount(data.target), strict=True)}
        assert counts == {label: count for label, count in entry["classes"].items() if label != "?"}
    text = {recipe.columns.index(c.name) for c in recipe.categories}
    left = {recipe.columns.index(name) for name, _ in recipe.ignored}
    quoted = {5} if entry["name"] == "breast_cancer_yugoslavia" else set()  # '1', '2', '3' in quotes
    assert set(entry["categorical_columns"]) - left == text - quoted
    assert all(np.isfinite(array).all() for array in data.inputs)
    frame, y = open_raw(source, recipe)
    assert len(frame) == len(y) == entry["rows"]
    if not lost:
        for made, stored in zip(recipe.apply(frame), data.inputs, strict=True):
            np.testing.assert_array_equal(made, stored)


@pytest.mark.parametrize(("decimal", "separator"), [(".", ","), (",", ";")])
def test_targets_of_a_frame_whose_numbers_are_text(tmp_path, decimal, separator):
    """As pandas reads a file with thousands, without being told of them."""
    x = np.arange(60.0) * 37.5 + 0.5
    made = [f"{value:,.1f}" for value in x]
    if decimal == ",":
        made = [text.translate(str.maketrans(",.", ".,")) for text in made]
    pd.DataFrame({"x": np.arange(60) % 7, "y": made}).to_csv(tmp_path / "t.csv", sep=separator, index=False)
    recipe = recipe_from(open_data(tmp_path / "t.csv").meta["recipe"])
    frame = pd.read_csv(tmp_path / "t.csv", sep=separator)
    assert not pd.api.types.is_numeric_dtype(frame["y"])
    np.testing.assert_allclose(open_raw(frame, recipe)[1], x)
    np.testing.assert_allclose(open_raw(tmp_path / "t.csv", recipe)[1], x)
