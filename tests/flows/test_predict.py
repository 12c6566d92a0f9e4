"""What a bundle says of data, as values and as a table."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from archwright.data import rows
from archwright.errors import DataError, FormatError
from archwright.flows.bundle import Bundle
from archwright.flows.predict import predict
from archwright.flows.search import search

pytestmark = pytest.mark.usefixtures("quick")


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "label, odd": np.where(x[:, 0] > 0, 'is "big"', "small")})


@pytest.fixture
def bundle() -> Bundle:
    return search(frame(), target="label, odd", space="small", trials=2, workers=0).best


def test_labels_probabilities_and_scores(bundle: Bundle, tmp_path: Path) -> None:
    table = frame()
    found = predict(bundle, table, proba=True)
    assert found.target == "label, odd" and set(found.predicted) <= {'is "big"', "small"}
    assert np.allclose(np.sum(found.proba, 1), 1) and found.classes == ('is "big"', "small")
    right = np.mean(np.array(found.predicted) == table["label, odd"])
    assert found.scores["error"] == pytest.approx(1 - right)
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert [r["label, odd"] for r in rows] == list(found.predicted) and float(rows[0]['p(is "big")']) <= 1
    assert found.as_dict()["scores"] == found.scores

    path = tmp_path / "new.csv"
    table.drop(columns="label, odd").to_csv(path, index=False)
    folder = bundle.save(tmp_path / "net")
    alone = predict(folder, path)
    assert alone.predicted == found.predicted and alone.scores == {} and alone.proba == ()
    assert alone.csv().splitlines()[0] == '"label, odd"'


def test_a_large_file_is_predicted_for_in_chunks(bundle: Bundle, tmp_path: Path, monkeypatch) -> None:
    table = frame()
    table.loc[:29, "label, odd"] = None  # a whole chunk without targets
    table.to_csv(tmp_path / "new.csv", index=False)
    whole = predict(bundle, tmp_path / "new.csv", proba=True)
    monkeypatch.setattr(rows, "LARGE", 10)
    monkeypatch.setattr(rows, "CHUNK", 500)
    calls = []
    monkeypatch.setattr(Bundle, "outputs", lambda self, X, f=Bundle.outputs: calls.append(len(X)) or f(self, X))
    parts = predict(bundle, tmp_path / "new.csv", proba=True)
    assert len(calls) > 2 and sum(calls) == 60 and parts.predicted == whole.predicted  # each row once
    np.testing.assert_allclose(parts.proba, whole.proba, rtol=1e-5)
    assert parts.scores == whole.scores and parts.scores


def test_targets_with_gaps_and_unknown_classes(bundle: Bundle) -> None:
    table = frame()
    table.loc[:9, "label, odd"] = None
    table.loc[10:19, "label, odd"] = "medium"
    found = predict(bundle, table)
    rest = table["label, odd"][20:]
    assert len(found.predicted) == 60
    assert found.scores["error"] == pytest.approx(np.mean(np.array(found.predicted[20:]) != rest))
    assert predict(bundle, table[:20]).scores == {}
    assert predict(bundle, table[:0]).predicted == ()
    assert predict(bundle, table[:0], proba=True).csv().count("\n") == 1


def test_numbers() -> None:
    table = frame().assign(y=lambda t: 100 + 7 * t["a"]).drop(columns="label, odd")
    bundle = search(table, target="y", space="small", trials=2, workers=0).best
    found = predict(bundle, table)
    wrong = np.array(found.predicted) - table["y"]
    assert predict(bundle, table[:0]).predicted == ()
    assert found.scores["error"] == pytest.approx(np.sqrt(np.mean(wrong**2)), rel=1e-4)
    assert set(found.scores) == {"error", "neg_mean_absolute_error", "r2"}
    with pytest.raises(DataError, match="no probabilities"):
        predict(bundle, table, proba=True)
    both = search(table[["a", "b"]], y=np.stack([table["y"], table["a"]], 1), space="small", trials=1, workers=0).best
    lines = predict(both, table[["a", "b"]]).csv().splitlines()
    assert len(lines) == 61 and lines[0].count(",") == 1 and lines[0].endswith(".1")


def test_data_that_do_not_fit(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        predict(bundle, frame().drop(columns="a"))
    with pytest.raises(DataError, match="does not exist"):
        predict(bundle, tmp_path / "nothing.csv")
    with pytest.raises(FormatError):
        predict(tmp_path, frame())
