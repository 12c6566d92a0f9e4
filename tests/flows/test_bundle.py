"""Bundles: the same again after a round trip, replaced whole or not at all, and every file looked at."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

from archwright import ops
from archwright.data.recipe import Category, ImageRecipe, Number, Recipe, SignalRecipe, TableRecipe, Target
from archwright.errors import DataError, EmitError, FormatError
from archwright.flows import bundle as module
from archwright.flows.bundle import FILES, WRITERS, Bundle, card_fields, front_csv, place
from archwright.net.net import Net, init
from tests.report.runs import record

SAVED = Path(__file__).parent.parent / "fixtures" / "bundles"


def table_recipe(task: str = "classification") -> TableRecipe:
    numbers = (
        Number("size", 1.5, True, 2.0, 3.0),
        Number("price", 3.0, False, 0.1, 0.9, (-4.0, 0.0, 0.5, 100.0), (-2.0, -1.0, 0.5, 2.5)),
    )
    target = (
        Target("sort", "classification", (3, 7, 12))
        if task == "classification"
        else (Target("sort", "regression", mean=(100.0,), deviation=(20.0,)))
    )
    colours = Category("colour", ("red", "grün", "b<l>ue"))
    return TableRecipe(target, ("size", "sort", "price", "colour"), numbers, (colours,))


def network(recipe: Recipe, seed: int = 0) -> Net:
    """A small net for what the recipe gives."""
    g = ops.edit()
    scaled = recipe.scale([np.zeros((1, *[n or 1 for n in shape[1:]]), dtype) for _, shape, dtype in recipe.inputs])
    flat = []
    for (name, _, _), array in zip(recipe.inputs, scaled, strict=True):
        x = g.input(name, (None, *array.shape[1:]), str(array.dtype))
        if array.dtype == np.int64:
            x = g.add("embedding", x, num=5, dim=2, name="colours")
        flat.append(g.add("flatten", x) if len(g.shape(x)) > 2 else x)
    x = g.add("concat", *flat, dim=1) if len(flat) > 1 else flat[0]
    x = g.add("tanh", g.add("linear", x, out=6, name="hidden"))
    return init(g.finish(g.add("linear", x, out=recipe.target.outputs, name="head")), seed)


def made(recipe: Recipe | None = None, seed: int = 0) -> Bundle:
    recipe = recipe or table_recipe()
    run = record(recipe.target.task, names=tuple(recipe.target.classes) or ("a",), trials=6)
    return Bundle(network(recipe, seed), recipe, run)


FRAME = pd.DataFrame({
    "colour": ["red", None, "grün", "unseen", "b<l>ue"], "price": [1.0, 200, -7, 0.25, 3], "more": range(5),
    "size": [1.0, np.nan, 3, None, 1e30],
})  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 5)).astype(np.uint8)
IMAGE = ImageRecipe(Target("what", "classification", ("cat", "dog")), 1, (4, 5), (120.0,), (60.0,))
SIGNAL = SignalRecipe(Target("how", "regression", mean=(1.0, 2.0), deviation=(3.0, 4.0)), 2, 6, (0.0, 1.0), (1.0, 2.0),
                      mask=True)  # fmt: skip
WAVES = [np.random.default_rng(i).normal(size=(2, 3 + i)) for i in range(5)]


# ------------------------------------------------------------------------------------------------------- round trips
@pytest.mark.parametrize(
    ("recipe", "X"), [(table_recipe(), FRAME), (table_recipe("regression"), FRAME), (IMAGE, IMAGES), (SIGNAL, WAVES)]
)
def test_round_trip(recipe: Recipe, X: Any, tmp_path: Path) -> None:
    bundle = made(recipe)
    folder = bundle.save(tmp_path / "sub" / "bundle")
    assert folder == tmp_path / "sub" / "bundle" and sorted(os.listdir(folder)) == sorted(FILES)
    assert os.listdir(folder.parent) == ["bundle"]
    again = Bundle.load(folder)
    assert again.recipe == recipe and again.net.graph == bundle.net.graph
    np.testing.assert_array_equal(again.predict(X), bundle.predict(X))
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    feeds = {name: x for (name, _, _), x in zip(recipe.inputs, recipe.encode(X), strict=True)}
    wanted = bundle.predict_proba(X) if recipe.target.task == "classification" else bundle.predict(X)
    np.testing.assert_allclose(session.run(None, feeds)[0], wanted.reshape(len(wanted), -1), rtol=1e-4, atol=1e-6)
    run = {k: v for k, v in again.run.items() if k not in ("bundle", "files")}
    assert run == json.loads(json.dumps(bundle.run))
    assert Bundle.load(again.save(tmp_path / "copy")).run == again.run


def test_labels_are_the_users_own() -> None:
    labels = made().predict(FRAME)
    assert labels.dtype.kind == "i" and set(labels.tolist()) <= {3, 7, 12}
    assert made().classes == (3, 7, 12)
    assert made(IMAGE).predict(IMAGES).dtype.kind == "U"
    numbers = made(table_recipe("regression")).predict(FRAME)
    assert numbers.shape == (5,) and abs(numbers.mean() - 100) < 60
    assert made(SIGNAL).predict(WAVES).shape == (5, 2)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle, X in ((made(), pd.concat([FRAME] * 5)), (made(IMAGE), IMAGES), (made(IMAGE), list(IMAGES))):
        whole = bundle.predict_proba(X)
        monkeypatch.setattr(module, "_MOST_ROWS", 3)
        np.testing.assert_allclose(bundle.predict_proba(X), whole, rtol=1e-5)
        np.testing.assert_allclose(whole.sum(1), 1)
        monkeypatch.undo()


def test_what_can_be_predicted() -> None:
    bundle = made()
    whole = bundle.predict(FRAME)
    np.testing.assert_array_equal(bundle.predict(FRAME.to_dict("list")), whole)
    np.testing.assert_array_equal(bundle.predict(FRAME[["size", "price", "colour"]].to_numpy()), whole)
    np.testing.assert_array_equal(bundle.predict(FRAME.set_index("more").iloc[::-1])[::-1], whole)
    assert bundle.predict(FRAME.iloc[:0]).shape == (0,) and bundle.predict_proba(FRAME.iloc[:0]).shape == (0, 3)
    assert bundle.predict(FRAME.iloc[[2]]).shape == (1,)
    np.testing.assert_array_equal(made(IMAGE).predict(iter(IMAGES)), made(IMAGE).predict(IMAGES))
    for wrong in ("table.csv", 3.0, np.float64(3), np.zeros((2, 9)), np.zeros(3), FRAME.drop(columns="price")):
        with pytest.raises(DataError):
            bundle.predict(wrong)
    with pytest.raises(DataError, match="use predict"):
        made(SIGNAL).predict_proba(WAVES)


# ------------------------------------------------------------------------------------------------------------ documents
def test_documents(tmp_path: Path) -> None:
    bundle = made()
    folder = bundle.save(tmp_path / "b")
    card = (folder / "card.md").read_text()
    assert card.startswith("---\n") and "model-index" in card and "## Model details" in card
    assert "Knows 3 classes only: 3, 7, 12" in card and "0.0278" in card and "archwright search table.csv" in card
    rows = list(csv.DictReader((folder / "front.csv").open()))
    won = bundle.run["front"][0]
    assert [r["trial"] for r in rows] == [str(won["trial"])] and rows[0]["act"] == "relu"
    assert float(rows[0]["error"]) == won["values"]["error"]
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    mode = {path.name: path.stat().st_mode & 0o777 for path in [folder, *folder.iterdir()]}
    umask = os.umask(0)
    os.umask(umask)
    assert mode.pop("b") == 0o777 & ~umask and set(mode.values()) == {0o666 & ~umask}


def test_a_front_of_different_choices_is_one_table() -> None:
    front = [{"trial": 1, "values": {"error": 0.5}, "trace": {"a": 1}, "key": "k"}, {"trial": 2, "trace": {"b": "x,y"}}]
    rows = list(csv.reader(io.StringIO(front_csv({"front": front}))))
    assert rows == [["trial", "error", "a", "b", "key"], ["1", "0.5", "1", "", "k"], ["2", "", "", "x,y", ""]]


def test_an_empty_record_will_do(tmp_path: Path) -> None:
    bundle = Bundle(network(IMAGE), IMAGE, {})
    assert Bundle.load(bundle.save(tmp_path / "b")).run.keys() == {"bundle", "files"}
    assert card_fields({}, IMAGE)["limits"] == ["Knows 2 classes only: cat, dog"]


def test_records_may_hold_numpy_and_nan(tmp_path: Path) -> None:
    run = {"test": {"error": np.float32(0.5)}, "detail": {"confusion": np.eye(2, dtype=int)}, "seconds": float("nan")}
    found = Bundle.load(Bundle(network(IMAGE), IMAGE, run).save(tmp_path / "b")).run
    assert found["test"] == {"error": 0.5} and found["detail"]["confusion"] == [[1, 0], [0, 1]]
    assert found["seconds"] == "nan"
    with pytest.raises(FormatError, match="expected plain data"):
        Bundle(network(IMAGE), IMAGE, {"seed": object()}).save(tmp_path / "c")
    assert os.listdir(tmp_path) == ["b"]


def test_a_net_without_onnx_form_is_a_bundle_without_it(tmp_path: Path) -> None:
    recipe = table_recipe()
    net = network(recipe)

    def refuse(*args: Any) -> None:
        raise EmitError("no form in ONNX for opaque")

    saved = dict(WRITERS)
    WRITERS["model.onnx"] = refuse
    try:
        folder = Bundle(net, recipe, {}).save(tmp_path / "b")
    finally:
        WRITERS.update(saved)
    assert not (folder / "model.onnx").exists()
    assert Bundle.load(folder).run["onnx"] == "no form in ONNX for opaque"
    assert "no form in ONNX" in (folder / "report.html").read_text()
    assert "onnx" not in Bundle.load(Bundle.load(folder).save(tmp_path / "c")).run


# ---------------------------------------------------------------------------------------------------- what can go wrong
def test_a_place_that_holds_something_else(tmp_path: Path) -> None:
    bundle = made()
    (tmp_path / "file").write_text("x")
    with pytest.raises(FormatError, match="is a file"):
        bundle.save(tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FormatError, match=r"thesis\.tex"):
        bundle.save(tmp_path / "mine")
    (tmp_path / "net").mkdir()
    bundle.net.save(tmp_path / "net")
    with pytest.raises(FormatError, match="would be lost"):
        place(tmp_path / "net")  # a net, but no bundle
    (tmp_path / "empty").mkdir()
    assert Bundle.load(bundle.save(tmp_path / "empty")).recipe == bundle.recipe
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(FormatError, match=r"notes\.txt"):
        bundle.save(tmp_path / "empty")
    os.symlink(bundle.save(tmp_path / "real"), tmp_path / "link")
    made(seed=1).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and prediction(tmp_path / "real") == prediction_of(made(seed=1))


def prediction(folder: Path) -> list[Any]:
    return prediction_of(Bundle.load(folder))


def prediction_of(bundle: Bundle) -> list[Any]:
    found: list[Any] = bundle.predict_proba(FRAME).round(5).tolist()
    return found


@pytest.mark.parametrize("name", [*WRITERS, "run.json", "fsync", "rename"])
def test_a_full_disk_leaves_the_former_bundle(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(seed=0).save(tmp_path / "b")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(bundle: Bundle, run: Any, path: Path) -> None:
        path.write_bytes(b"{")
        full()

    if name in WRITERS:
        monkeypatch.setitem(WRITERS, name, half)
    elif name == "run.json":
        put = module._put
        monkeypatch.setattr(module, "_put", lambda path, text: full() if path.name == "run.json" else put(path, text))
    elif name == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        rename = os.rename
        monkeypatch.setattr(os, "rename", lambda a, b: full() if ".saving-" in str(a) else rename(a, b))
    for target in (folder, tmp_path / "new"):
        with pytest.raises(EmitError, match=r"No space left on device.*as it was"):
            made(seed=1).save(target)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["b"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert prediction(folder) == prediction_of(made(seed=0))


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """A process of its own that can make the same bundles."""
    text = f"import sys\nfrom tests.flows.test_bundle import *\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    """A real failure of the system's write, at each size of file in turn."""
    resource = pytest.importorskip("resource")
    assert resource
    folder = made(seed=0).save(tmp_path / "b")
    code = """
import resource
for limit in (0, 700, 4000, 8000, 20000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    try:
        made(seed=1).save(sys.argv[1])
    except EmitError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
        print(limit, error)
        assert prediction(Path(sys.argv[1])) == prediction_of(made(seed=0))
        assert os.listdir(Path(sys.argv[1]).parent) == ["b"], os.listdir(Path(sys.argv[1]).parent)
"""
    process = child(code, folder)
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert len(out.splitlines()) == 5, out
    assert prediction(folder) == prediction_of(made(seed=0))


def test_a_killed_process_leaves_one_or_the_other(tmp_path: Path) -> None:
    made(seed=0).save(tmp_path / "b")
    code = """
import signal, time
folder = Path(sys.argv[1])
allowed = [prediction_of(made(seed=s)) for s in (0, 1)]
for k in range(8):
    pid = os.fork()
    if not pid:
        while True:
            made(seed=1).save(folder)
            made(seed=0).save(folder)
    time.sleep(0.02 + 0.053 * k)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert prediction(folder) in allowed
    print(sorted(os.listdir(folder.parent)))
"""
    process = child(code, tmp_path / "b")
    out, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert len(out.splitlines()) == 8 and ".saving-" in out  # killed in the middle


def test_killed_between_the_renames(tmp_path: Path) -> None:
    folder = made(seed=0).save(tmp_path / "b")
    code = """
rename = os.rename
def stop(a, b):
    if ".saving-" in str(a): os._exit(9)
    rename(a, b)
os.rename = stop
made(seed=1).save(sys.argv[1])
"""
    assert child(code, folder).wait(60) == 9
    assert not folder.exists()
    assert prediction(folder) == prediction_of(made(seed=0))  # found where it was moved
    made(seed=2).save(folder)
    assert prediction(folder) == prediction_of(made(seed=2))
    left = [name for name in os.listdir(tmp_path) if name != "b"]
    assert len(left) == 1 and ".saving-" in left[0]  # it may be another process's: it goes when it is old
    os.utime(tmp_path / left[0], (0, 0))
    made(seed=1).save(folder)
    assert os.listdir(tmp_path) == ["b"]


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(name: str, tmp_path: Path) -> None:
    folder = made().save(tmp_path / "b")
    (folder / name).unlink()
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["graph.json", "weights.safetensors", "recipe.json", "model.onnx", "run.json"])
@pytest.mark.parametrize("how", ["truncated", "empty", "changed"])
def test_a_damaged_file(name: str, how: str, tmp_path: Path) -> None:
    folder = made().save(tmp_path / "b")
    path = folder / name
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = whole[:middle] + b"\xff" + whole[middle + 1 :]
    path.write_bytes({"truncated": whole[:middle], "empty": b"", "changed": changed}[how])
    with pytest.raises(FormatError, match=name.replace(".", r"\.")):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"bundle": 1', '"bundle": 99', "newer archwright"),
        ('"bundle": 1', '"bundle": "1"', "expected 1 to 1"),
        ('"files": {', '"fils": {', "lists no files"),
    ],
)
def test_another_version(old: str, new: str, said: str, tmp_path: Path) -> None:
    folder = made().save(tmp_path / "b")
    rewrite(folder / "run.json", old, new)
    with pytest.raises(FormatError, match=said):
        Bundle.load(folder)


def seal(folder: Path) -> None:
    """Write the digests anew, as someone who means harm would."""
    run = json.loads((folder / "run.json").read_text())
    run["files"] = {name: module._digest(folder / name) for name in run["files"]}
    (folder / "run.json").write_text(json.dumps(run))


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    folder = made().save(tmp_path / "b")
    (folder / "recipe.json").write_text(json.dumps(IMAGE.to_dict()))
    seal(folder)
    with pytest.raises(FormatError, match="do not belong together"):
        Bundle.load(folder)
    shutil.rmtree(folder)
    made().save(folder)
    rewrite(folder / "recipe.json", '"version": 1', '"version": 7')
    seal(folder)
    with pytest.raises(FormatError, match="version"):
        Bundle.load(folder)
    for text in ("[]", '{"bundle": 1, "files": {"../../x": "0"}}', "[" * 100_000):
        (folder / "run.json").write_text(text)
        with pytest.raises(FormatError):
            Bundle.load(folder)
    with pytest.raises(FormatError, match="no folder"):
        Bundle.load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"no run\.json"):
        Bundle.load(tmp_path / "empty")


# ------------------------------------------------------------------------------------------------------ old bundles
TABLE_ROWS = {"size": [1.0, None, 3.0], "price": [1.0, 200.0, -7.0], "colour": ["red", None, "unseen"]}


def test_old_bundles_load_for_ever() -> None:
    found = Bundle.load(SAVED / "v1-table")
    wanted = json.loads((SAVED / "v1-table.json").read_text())
    np.testing.assert_allclose(found.predict_proba(pd.DataFrame(TABLE_ROWS)), wanted, atol=1e-5)
    assert found.classes == (3, 7, 12)
    found = Bundle.load(SAVED / "v1-image")
    wanted = json.loads((SAVED / "v1-image.json").read_text())
    ramp = np.arange(40, dtype=np.uint8).reshape(2, 4, 5) * 6
    np.testing.assert_allclose(found.predict_proba(ramp), wanted, atol=1e-5)
    assert set(found.predict(ramp)) <= {"cat", "dog"}
