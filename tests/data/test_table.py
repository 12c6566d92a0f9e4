"""Tables: what columns are taken for, targets, and everything that can be wrong with a table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archwright.data import rows, table
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import LIMIT, recipe_from
from archwright.data.table import VALUES
from archwright.errors import DataError

N = 400


def frame(**columns):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"plain": rng.normal(5, 2, N), **columns, "y": rng.choice(["a", "b"], N)})


def recipe(data):
    return recipe_from(data.meta["recipe"])


def ignored(data):
    return dict(recipe(data).ignored)


def test_numbers_are_standardised_by_the_train_split():
    data = open_data(frame(), target="y")
    x, train = data.inputs[0], data.splits["train"]
    np.testing.assert_allclose([x[train].mean(), x[train].std()], [0, 1], atol=1e-5)
    assert abs(x.mean()) > 1e-4
    changed = frame()
    changed.loc[data.splits["test"], "plain"] += 1000
    assert open_data(changed, target="y").meta["recipe"] == data.meta["recipe"]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (np.ones(N), "constant"),
        (["same"] * N, "constant"),
        (np.full(N, np.nan), "all values are missing"),
        ([None] * N, "all values are missing"),
        (np.random.default_rng(0).normal(size=N) + 1e10, "constant to the seven digits of float32"),
        (np.arange(N) + 17, "numbers the rows"),
        (np.arange(N)[::-1], "numbers the rows"),
        (2**60 + 3 * np.arange(N), "names of the rows"),
        ([f"id-{i:05d}" for i in range(N)], "nearly every row has its own value"),
        ([f"a long story about number {i}" for i in range(N)], "free text"),
        ([[i] for i in range(N)], "its cells are no single values"),
    ],
)
def test_columns_that_teach_nothing_are_left_out(column, why):
    data = open_data(frame(odd=column), target="y")
    assert why in ignored(data)["odd"]
    assert any("'odd'" in notice for notice in data.meta["notices"])
    assert data.inputs[0].shape == (N, 1)


def test_columns_with_one_value_and_gaps_say_where_the_gaps_are():
    data = open_data(frame(a=np.where(np.arange(N) % 3, 7.0, np.nan), b=["x" if i % 3 else None for i in range(N)]),
                     target="y")  # fmt: skip
    assert recipe(data).features == ("plain", "a", "a is missing", "b")
    assert set(data.inputs[0][:, 1]) == {0} and set(data.inputs[0][:, 2]) == {0, 1}


def test_flags_only_for_what_is_missing_in_train():
    full = open_data(frame(a=np.random.default_rng(1).normal(size=N)), target="y")
    gap = frame(a=np.random.default_rng(1).normal(size=N))
    gap.loc[full.splits["test"][:5], "a"] = np.nan
    assert recipe(open_data(gap, target="y")).features == ("plain", "a")
    gap.loc[full.splits["train"][:5], "a"] = np.nan
    assert recipe(open_data(gap, target="y")).features == ("plain", "a", "a is missing")


def test_ten_thousand_values():
    rng = np.random.default_rng(0)
    many = rng.zipf(1.3, 30000) % 10000
    table = pd.DataFrame({"many": [f"v{i}" for i in many], "x": rng.normal(size=30000), "y": many % 2})
    data = open_data(table, target="y")
    (category,) = recipe(data).categories
    assert len(category.values) == VALUES and data.meta["codes"] == [VALUES + 1]
    assert category.values[0] == "v1" and data.inputs[1].max() == VALUES and (data.inputs[1] == 0).mean() < 0.5


def test_rare_values_are_unknown():
    column = ["often"] * (N - 3) + ["once", "seldom", "seldom"]
    (category,) = recipe(open_data(frame(c=column), target="y")).categories
    assert category.values == ("often",)


@pytest.mark.parametrize("dtype", ["typed", "text", "period"])
def test_dates_become_numbers(dtype):
    when = pd.date_range("2019-03-01", periods=N, freq="7h")
    column = {"typed": when, "text": when.strftime("%d.%m.%Y %H:%M"), "period": when.to_period("h")}[dtype]
    data = open_data(frame(when=column), target="y")
    (date,) = recipe(data).dates
    assert date.parts == ("days", "year.sin", "year.cos", "week.sin", "week.cos", "day.sin", "day.cos")
    assert data.inputs[0].shape == (N, 8) and np.abs(data.inputs[0][:, 1:]).max() < 2.6
    late = recipe(data).apply(frame(when=["2500-01-01"] * N).drop(columns="y"))[0]
    assert late.max() <= LIMIT


def test_parts_of_dates_that_do_not_vary_are_left_out():
    (date,) = recipe(open_data(frame(when=pd.date_range("2019-03-01", periods=N)), target="y")).dates
    assert "day.sin" not in date.parts and "week.sin" in date.parts


def test_numbers_that_are_written_as_text_with_some_that_are_not():
    column = [str(i / 7) for i in range(N - 9)] + ["unknown"] * 9
    data = open_data(frame(c=column), target="y")
    assert recipe(data).features == ("plain", "c", "c is missing")


def test_cells_that_could_not_be_read_are_counted(tmp_path):
    column = [str(i / 7) for i in range(N - 9)] + ["unknown"] * 8 + [None]
    frame(c=column).assign(y=["n/k"] * 3 + [str(i / 3) for i in range(N - 3)]).to_csv(tmp_path / "t.csv", index=False)
    data = open_data(tmp_path / "t.csv")
    assert "cells that could not be read as numbers count as missing: 8 in 'c', 3 in 'y'" in data.meta["notices"]
    assert not any("could not be read" in notice for notice in open_data(frame()).meta["notices"])


def test_a_first_column_without_a_name_that_counts(tmp_path):
    table = frame().sample(frac=0.5, random_state=0)
    path = tmp_path / "t.csv"
    table.to_csv(path)
    table.to_csv(tmp_path / "named.csv", index_label="id")
    for source in (path, pd.read_csv(path)):
        data = open_data(source)
        assert data.meta["features"] == ["plain"] and list(ignored(data).values()) == ["numbers the rows"]
    assert open_data(tmp_path / "named.csv").meta["features"] == ["id", "plain"]
    table.set_axis(np.random.default_rng(0).permutation(N)[: N // 2] / 3).to_csv(path)
    assert open_data(path).meta["features"] == ["x0", "plain"]
    table[["y", "plain"]].set_axis(np.arange(N // 2) * 3).to_csv(path)
    assert open_data(path, target=0).task == "regression"


def test_a_stray_text_among_numbers_with_a_decimal_comma(tmp_path):
    column = [f"{i / 7:.2f}".replace(".", ",") for i in range(N - 9)] + ["unknown"] * 9
    frame(c=column).to_csv(tmp_path / "t.csv", sep=";", decimal=",", index=False)
    data = open_data(tmp_path / "t.csv")
    assert recipe(data).features == ("plain", "c", "c is missing") and recipe(data).signs == (",", ".")
    assert np.unique(data.inputs[0][:, 1]).size > N / 2


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_thousands(tmp_path, separator):
    rng = np.random.default_rng(0)
    price = np.concatenate([rng.integers(10, 999, N - 10), rng.integers(10**4, 10**6, 10)])
    grouped = [f"{p:,}" for p in price]
    decimal = "," if separator == ";" else "."
    if decimal == ",":
        grouped = [text.replace(",", ".") + ",5" for text in grouped]
    frame(price=grouped).to_csv(tmp_path / "t.csv", sep=separator, decimal=decimal, index=False)
    data = open_data(tmp_path / "t.csv", target="price")
    assert data.task == "regression" and len(data.target) == N
    decoded = recipe(data).target.decode(data.target)
    np.testing.assert_allclose(decoded, price + (0.5 if decimal == "," else 0), rtol=1e-3)
    _, y = open_raw(tmp_path / "t.csv", recipe(data))
    np.testing.assert_allclose(y, decoded, rtol=1e-3)


def test_heavy_tails_are_straightened():
    rng = np.random.default_rng(0)
    heavy = np.where(rng.random(N) < 0.5, 0, np.exp(3 * rng.normal(size=N)))
    data = open_data(frame(heavy=heavy), target="y")
    plain, number = recipe(data).numbers
    assert not plain.knots and 2 < len(number.knots) <= 32 and list(number.scores) == sorted(number.scores)
    assert np.abs(data.inputs[0][:, 1]).max() < 4
    train = data.inputs[0][data.splits["train"], 1]
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-4)


def test_names_of_all_sorts():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 5)), columns=["größe", "größe", "日本", "a b", ""])
    data = open_data(table.assign(y=np.arange(N) % 2), target="y")
    assert data.meta["features"] == ["größe", "größe.1", "日本", "a b", "x4"]


# -------------------------------------------------------------------------------------------------------------- targets
@pytest.mark.parametrize(
    ("y", "task", "labels"),
    [
        (np.arange(N) % 3, "classification", (0, 1, 2)),
        (np.arange(N) % 2 == 0, "classification", (False, True)),
        (np.where(np.arange(N) % 2, "no", "yes"), "classification", ("no", "yes")),
        (np.where(np.arange(N) % 2, 10.0, 2.0), "classification", (2, 10)),
        (np.array(["10", "2"])[np.arange(N) % 2], "classification", ("2", "10")),
        (pd.Categorical(np.arange(N) % 2), "classification", (0, 1)),
        (np.arange(N) % 50, "regression", ()),
        (np.arange(N) / 7, "regression", ()),
        (np.arange(N) * 10**15, "regression", ()),
    ],
)
def test_the_task_is_seen_in_the_target(y, task, labels):
    data = open_data(frame().assign(y=y), target="y")
    target = recipe(data).target
    assert data.task == task and target.labels == labels
    assert [type(a) for a in target.labels] == [type(b) for b in labels]
    truth = y.to_numpy() if hasattr(y, "to_numpy") else np.asarray(y)
    outputs = np.eye(len(labels))[data.target] if labels else data.target
    if labels:
        np.testing.assert_array_equal(target.decode(outputs), truth)
    else:
        np.testing.assert_allclose(target.decode(outputs), truth, rtol=1e-5, atol=1e-6 * truth.max())


def test_the_task_that_is_asked_for():
    data = open_data(frame().assign(y=np.arange(N) % 7), target="y", task="regression")
    assert data.task == "regression" and data.outputs == 1 and abs(data.target[data.splits["train"]].mean()) < 1e-5
    classes = open_data(frame().assign(y=np.arange(N) % 7 / 2), target="y", task="classification")
    assert recipe(classes).target.labels == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


def test_the_target_is_the_last_column_or_the_one_that_is_named():
    data = open_data(frame())
    assert data.meta["target"] == "y" and "the target is the last column, 'y'" in data.meta["notices"]
    for target in ("plain", 0, "0", -2):
        assert open_data(frame(), target=target).meta["target"] == "plain"
    with pytest.raises(DataError, match=r"no column is named 'plane', .* the target: the nearest are 'plain'"):
        open_data(frame(), target="plane")


def test_rows_without_a_target_are_left_out():
    y = np.arange(N).astype(float) / 3
    y[:12] = np.nan
    data = open_data(frame().assign(y=y), target="y")
    assert len(data.target) == N - 12
    assert "12 of 400 rows are left out: their target 'y' is missing" in data.meta["notices"]


def test_rows_without_a_category_as_target():
    for empty in (np.nan, None):
        y = pd.Series(pd.Categorical([1, 2, empty] * 50))
        data = open_data((frame().head(150)[["plain"]], y))
        assert len(data.target) == 100 and recipe(data).target.labels == (1, 2)


def test_a_class_of_one_sample_is_for_training():
    labels = ["a", "b"] * (N // 2)
    labels[7] = "rare"
    data = open_data(frame().assign(y=labels), target="y")
    assert data.classes == ("a", "b", "rare") and 7 in data.splits["train"]
    assert any("one sample only has the class 'rare'" in notice for notice in data.meta["notices"])


@pytest.mark.parametrize(
    ("given", "hp", "message"),
    [
        (frame().assign(y=1), {}, "has one class, 1, in all rows"),
        (frame().assign(y=1.5), {}, "is 1.5 in all rows of the train split"),
        (frame().assign(y=None), {}, "has no values: all 400 are missing"),
        (frame().assign(y=[f"n{i}" for i in range(N)]), {}, "400 different values in 400 rows"),
        (frame(), {"task": "regression"}, "holds '[ab]', expected numbers for regression"),
        (frame(), {"task": "ranking"}, "task is 'ranking'"),
        (frame()[["y"]], {}, "has one column, 'y'"),
        (frame().iloc[:0], {}, "has no rows"),
        (frame().iloc[:1], {}, "one class|got 1 sample"),
        (frame().assign(plain=1), {}, r"no column is left to learn from: left out: 'plain' \(constant\)"),
        (frame(), {"time": "y", "target": "y"}, "both the target and the time"),
        (frame(), {"group": "grup"}, "no column is named 'grup', which was given as the group"),
        (frame(t="x"), {"time": "t"}, "the time 't' holds 'x', expected numbers or dates"),
        (pd.DataFrame(), {}, "has no columns"),
    ],
)
def test_what_nothing_can_be_learned_from_is_said(given, hp, message):
    with pytest.raises(DataError, match=message):
        open_data(given, **hp)


def test_splits_by_time_and_by_group():
    table = frame(when=pd.date_range("2019-03-01", periods=N)[::-1], who=np.repeat([f"p{i}" for i in range(20)], 20))
    data = open_data(table, target="y", time="when")
    assert data.meta["split"] == "temporal" and data.splits["test"].tolist() == list(range(80))
    assert "splits are made by its time" in ignored(data)["when"]
    data = open_data(table, target="y", group="who")
    assert data.meta["split"] == "group" and "who" in ignored(data)
    assert len(np.unique(data.groups)) == 20
    assert all(len(np.unique(data.groups[rows])) == 1 for rows in table.groupby("who").indices.values())
    homes = [set(table["who"].iloc[data.splits[name]]) for name in data.splits]
    assert sum(map(len, homes)) == 20


def test_splits_by_time_keep_groups_together():
    who = np.repeat([f"p{i}" for i in range(40)], 10)
    table = frame(when=np.random.default_rng(0).permutation(N), who=who)
    data = open_data(table, target="y", time="when", group="who")
    homes = [set(who[data.splits[name]]) for name in data.splits]
    assert data.meta["split"] == "temporal" and sum(map(len, homes)) == 40
    newest = table.groupby("who")["when"].max()
    assert newest[list(homes[0])].max() < newest[list(homes[2])].min()


def test_the_seed_decides_the_split():
    one, same, other = [open_data(frame(), seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(one.splits["test"], same.splits["test"])
    assert not np.array_equal(one.splits["test"], other.splits["test"])


# ---------------------------------------------------------------------------------------------------------------- large
def big(path, size):
    """A CSV file of about `size` bytes, with everything that a column can be."""
    rng, n = np.random.default_rng(0), 20000
    block = pd.DataFrame({
        **{f"n{i}": rng.normal(size=n).round(5) for i in range(18)}, "amount": rng.lognormal(3, 2, n).round(2),
        "city": [f"city {i}" for i in rng.zipf(1.5, n) % 1000], "colour": rng.choice(["red", "green", ""], n),
        "day": pd.date_range("2020-01-01", periods=n, freq="h").strftime("%Y-%m-%d %H:%M"),
        "y": rng.choice(["yes", "no", "maybe"], n),
    }).to_csv(index=False)  # fmt: skip
    head, _, body = block.partition("\n")
    with path.open("w") as file:
        file.write(head + "\n")
        for _ in range(max(1, round(size / len(body)))):
            file.write(body)


def test_a_file_in_chunks_gives_what_it_gives_as_a_whole(tmp_path, monkeypatch):
    big(tmp_path / "t.csv", 2**20)
    whole = open_data(tmp_path / "t.csv")
    monkeypatch.setattr(rows, "LARGE", 2**10)
    monkeypatch.setattr(rows, "CHUNK", 2**19)
    parts = open_data(tmp_path / "t.csv", folder=tmp_path / "arrays")
    assert isinstance(parts.inputs[0], np.memmap) and len(list((tmp_path / "arrays").glob("*.npy"))) == 2
    assert parts.meta == whole.meta
    for one, other in zip((*whole.inputs, whole.target), (*parts.inputs, parts.target), strict=True):
        np.testing.assert_array_equal(one, other)


def test_codes_that_look_like_numbers_in_the_test_file(tmp_path):
    codes = np.array([f"{i:03d}" for i in np.arange(N) % 4] + ["V01"] * N)
    table = pd.concat([frame(), frame()], ignore_index=True).assign(code=codes)
    table.to_csv(tmp_path / "train.csv", index=False)
    table.head(90).to_csv(tmp_path / "test.csv", index=False)
    data = open_data(tmp_path / "train.csv", target="y")
    (category,) = recipe(data).categories
    assert set(category.values) == {"000", "001", "002", "003", "V01"} and len(data.splits["test"]) == 90
    np.testing.assert_array_equal(data.inputs[1][data.splits["test"]], data.inputs[1][:90])


LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs /proc to measure memory")
_OPEN = """
import sys
from archwright.data import rows, table
rows.LARGE, rows.CHUNK, table.SAMPLE = map(int, sys.argv[3:])
import pandas, pyarrow, torch
from archwright.data.open import open_data, open_raw

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
before = peak()
data = open_data(sys.argv[1], folder=sys.argv[2])
print(len(data.target), before, peak())
"""


def opened(path, folder, *limits):
    """(rows, peak memory in bytes before, after) of opening a file in a fresh process."""
    found = subprocess.run([sys.executable, "-c", _OPEN, str(path), str(folder), *map(str, limits)],
                           capture_output=True, text=True, check=True)  # fmt: skip
    count, before, after = map(int, found.stdout.split())
    return count, before * 1024, after * 1024


@LINUX
def test_memory_stays_below_the_size_of_a_file(tmp_path):
    path = tmp_path / "t.csv"
    big(path, 32 * 2**20)
    count, before, after = opened(path, tmp_path / "arrays", 2**20, 2 * 2**20, 2 * 2**20)
    assert count % 20000 == 0 and after - before < 3 * path.stat().st_size


def narrow(path, size):
    """A CSV file of about `size` bytes: two columns of numbers that are all different."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("a,y\n")
        while file.tell() < size:
            pd.DataFrame(rng.normal(size=(50_000, 2)).round(6)).to_csv(file, index=False, header=False)


@LINUX
def test_targets_that_are_all_different_are_no_texts(tmp_path):
    path = tmp_path / "t.csv"
    narrow(path, 16 * 2**20)
    count, before, after = opened(path, tmp_path / "arrays", 2**20, 2**20, 2**20)
    assert after - before < 100 * count


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("big", [big, narrow])
def test_a_file_of_a_gigabyte_needs_less_than_three_of_memory(tmp_path, big):
    path = tmp_path / "t.csv"
    big(path, 2**30)
    count, _, after = opened(path, tmp_path / "arrays", rows.LARGE, rows.CHUNK, table.SAMPLE)
    assert path.stat().st_size > 0.99 * 2**30 and count > 4_000_000 and after < 3 * 2**30
