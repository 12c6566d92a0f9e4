"""`Bundle`: a trained network with its preprocessing and the record of its making, as a folder and as a value.

    graph.json, weights.safetensors   the network, which takes what the recipe's scale step gives
    recipe.json                       the preprocessing, as data
    model.onnx                        both as one: what the recipe's encode gives in, probabilities or target units out
    card.md, report.html, front.csv   for people
    run.json                          the record, the format's version, and digests of the first four files

A bundle is written beside its place and renamed, so that what was there before stays until the new one is whole on
disk. A process that is killed between the two renames leaves the former one under the name `.NAME.former`, where `load`
finds it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from archwright.core import registry
from archwright.data.data import Array
from archwright.data.recipe import Recipe, recipe_from
from archwright.errors import ArchwrightError, DataError, EmitError, FormatError
from archwright.exchange.onnx import to_onnx
from archwright.kit.metrics import probabilities
from archwright.kit.prelude import with_recipe
from archwright.net import net as nets
from archwright.net.build import Built, build
from archwright.net.net import GRAPH_FILE, WEIGHTS_FILE, Net
from archwright.report.html import render

VERSION = 1
"""Of the folder's format. A reader takes its own version and all older ones."""

RUN, RECIPE, MODEL, CARD, REPORT, FRONT = "run.json", "recipe.json", "model.onnx", "card.md", "report.html", "front.csv"
FILES = (GRAPH_FILE, WEIGHTS_FILE, RECIPE, MODEL, CARD, REPORT, FRONT, RUN)
_SEALED = (GRAPH_FILE, WEIGHTS_FILE, RECIPE, MODEL)
"""Files that no one is to change by hand; their digests are recorded."""

_MOST_ROWS = 4096
_MOST_BYTES = 128 * 1024 * 1024  # activations of a batch in `predict`
_STALE = 3600.0  # seconds after which a half-written folder belongs to nobody any more


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network that can be used, and all that is known of it.

    net     takes what `recipe.scale` gives; its outputs are logits, or standardised numbers
    recipe  what comes before and after it
    run     the record of its making, plain data; every key may be absent
    """

    net: Net
    recipe: Recipe
    run: Mapping[str, Any]

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels, in the order of the columns of `predict_proba`; none for regression."""
        return self.recipe.target.labels

    def predict(self, X: Any) -> Array:
        """Labels [n] as the user wrote them; or numbers in the target's units, [n] or [n, targets].

        X: a DataFrame, an array, a list of images or waves: whatever `recipe.encode` takes. Works batch by batch.
        Raises `DataError` for what does not fit.
        """
        return self.recipe.target.decode(self.outputs(X))

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes [n, classes], float64. Raises `DataError` for regression."""
        if self.recipe.target.task != "classification":
            raise DataError(f"'{self.recipe.target.name}' is a number and has no probabilities: use predict")
        return probabilities(self.outputs(X))

    @cached_property
    def _module(self) -> Built:
        return build(self.net).eval()

    @torch.no_grad()
    def outputs(self, X: Any) -> Array:
        """What the net gives, [n, outputs] float32."""
        found = [np.zeros((0, self.recipe.target.outputs), np.float32)]
        rows = max(1, min(_MOST_ROWS, _MOST_BYTES // max(1, self.net.cost().peak_bytes)))
        for part in _parts(X, rows):
            arrays = self.recipe.apply(part)
            found.append(self._module(*[torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]).numpy())
        return np.concatenate(found)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the bundle, whole or not at all; a bundle that is there already is replaced.

        Raises `FormatError` if the folder holds anything else than a bundle, `EmitError` if it can't be written
        (a full disk): then what was there is as it was.
        """
        folder = place(folder)
        work = Path()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _tidy(folder)
            work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.saving-", dir=folder.parent))
            self._write(work)
            _swap(work, folder)
        except (OSError, safetensors.SafetensorError) as error:
            told = getattr(error, "strerror", None) or str(error)
            raise EmitError(f"the bundle {folder} could not be written ({told}): what was there is as it was") from None
        finally:
            if work != Path():
                shutil.rmtree(work, ignore_errors=True)
        return folder

    def _write(self, work: Path) -> None:
        """All files into a folder, and onto the disk."""
        run = dict(plain(self.run))
        run.pop("onnx", None)
        for name, write in WRITERS.items():
            try:
                write(self, run, work / name)
            except EmitError as error:
                if name != MODEL:
                    raise
                run["onnx"] = str(error)  # a net that has no form in ONNX is still a net
        run["bundle"] = VERSION
        run["files"] = {name: _digest(work / name) for name in _SEALED if (work / name).exists()}
        _put(work / RUN, json.dumps(run, ensure_ascii=False, allow_nan=False, indent=1) + "\n")
        umask = os.umask(0)
        os.umask(umask)
        for path in work.iterdir():
            os.chmod(path, 0o666 & ~umask)
            _sync(path)
        os.chmod(work, 0o777 & ~umask)
        _sync(work)

    @staticmethod
    def load(folder: str | os.PathLike[str], *, allow_opaque: bool = False) -> Bundle:
        """Read a bundle. Every file is checked before anything is returned, and nothing is executed.

        Raises `FormatError` if a file is missing, truncated, changed or of another version, and what
        `archwright.load` raises for the network.
        """
        folder = _found(Path(os.path.realpath(folder)))
        run = _read(folder / RUN)
        version = run.get("bundle")
        if type(version) is not int or not 1 <= version <= VERSION:
            raise FormatError(f"{folder / RUN} has bundle version {version!r}, expected 1 to {VERSION}: "
                              "try a newer archwright")  # fmt: skip
        digests = run.get("files")
        if not isinstance(digests, dict) or not set(_SEALED) - {MODEL} <= digests.keys() <= set(_SEALED):
            raise FormatError(f"{folder / RUN} lists no files, expected the record that Bundle.save writes")
        for name in FILES:
            if not (folder / name).is_file() and (name != MODEL or MODEL in digests):
                raise FormatError(f"{folder} holds no {name}: expected a whole folder written by Bundle.save")
        for name, digest in digests.items():
            if _digest(folder / name) != digest:
                raise FormatError(f"{folder / name} is truncated or was changed: expected it as Bundle.save wrote it")
        recipe = recipe_from(_read(folder / RECIPE))
        net = nets.load(folder, allow_opaque=allow_opaque)
        try:
            with_recipe(net, recipe)
        except ArchwrightError as error:
            raise FormatError(f"{folder}: network and recipe do not belong together: {error}") from None
        return Bundle(net, recipe, run)

    def __repr__(self) -> str:
        return f"Bundle({self.recipe.kind}, {self.recipe.target.task} of '{self.recipe.target.name}', {self.net!r})"


def place(folder: str | os.PathLike[str]) -> Path:
    """The folder as an absolute path, if a bundle can be put there: it is new, empty, or a bundle and nothing else.

    Raises `FormatError` if not. A search asks this before it begins.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not folder.is_dir():
        raise FormatError(f"{folder} is a file, expected a new folder or one with a bundle")
    if folder.is_dir():
        found = sorted(entry.name for entry in folder.iterdir())
        foreign = [name for name in found if name not in FILES]
        if foreign or (found and RUN not in found):
            raise FormatError(f"{folder} holds {(foreign or found)[0]!r}, which would be lost: "
                              "expected a new folder, an empty one, or one with a bundle")  # fmt: skip
    return folder


# -------------------------------------------------------------------------------------------------------------- files
def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _write_model(bundle: Bundle, run: Mapping[str, Any], path: Path) -> None:
    to_onnx(with_recipe(bundle.net, bundle.recipe), path)


def _write_recipe(bundle: Bundle, run: Mapping[str, Any], path: Path) -> None:
    _put(path, json.dumps(bundle.recipe.to_dict(), ensure_ascii=False, allow_nan=False) + "\n")


def _write_card(bundle: Bundle, run: Mapping[str, Any], path: Path) -> None:
    _put(path, registry.load("model_cards", "zoo")(bundle.net, card_fields(run, bundle.recipe)))


def _write_report(bundle: Bundle, run: Mapping[str, Any], path: Path) -> None:
    _put(path, render(run, bundle.net, bundle.recipe.inputs))


def _write_front(bundle: Bundle, run: Mapping[str, Any], path: Path) -> None:
    _put(path, front_csv(run))


Writer = Callable[[Bundle, Mapping[str, Any], Path], object]

WRITERS: dict[str, Writer] = {
    GRAPH_FILE: lambda bundle, run, path: bundle.net.save(path.parent),  # its weights too
    RECIPE: _write_recipe,
    MODEL: _write_model,
    CARD: _write_card,
    REPORT: _write_report,
    FRONT: _write_front,
}
"""What writes each file, in this order; run.json comes last."""


def front_csv(run: Mapping[str, Any]) -> str:
    """The front as a table: trial, objectives, choices, key; one line a network."""
    front = [entry for entry in run.get("front") or () if isinstance(entry, Mapping)]
    values = _keys(entry.get("values") for entry in front)
    choices = _keys(entry.get("trace") for entry in front)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", *values, *choices, "key"])
    for entry in front:
        measured, trace = entry.get("values") or {}, entry.get("trace") or {}
        writer.writerow(
            [entry.get("trial"), *[measured.get(k) for k in values], *[trace.get(k) for k in choices], entry.get("key")]
        )
    return text.getvalue()


def _keys(mappings: Any) -> list[str]:
    return list(dict.fromkeys(key for found in mappings if isinstance(found, Mapping) for key in found))


def card_fields(run: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """A run's record in the fields that a model card reads."""
    data, target = run.get("data") or {}, recipe.target
    samples, winner = data.get("samples") or {}, run.get("winner") or {}
    units = {o.get("name"): o.get("unit") for o in run.get("objectives") or ()}
    metrics = [
        {"name": name, "split": split, "value": value, "unit": units.get(name)}
        for split, found in (("validation", winner.get("valid")), ("test", run.get("test")))
        for name, value in (found or {}).items()
    ]
    named = data.get("name")
    what = "Predicts" if target.task == "regression" else "Classifies by"
    limits = list(data.get("notices") or ())
    if target.task == "classification":
        classes = [str(label) for label in target.labels]
        shown = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
        limits.append(f"Knows {len(classes)} classes only: {shown}")
    else:
        classes = []
    found = {
        "name": named,
        "description": f"{what} '{target.name}' of {recipe.kind} data; found by archwright search.",
        "date": str(run.get("finished") or "")[:10],
        "tags": [recipe.kind, target.task],
        "data": {
            "name": named, "kind": data.get("kind") or recipe.kind, "task": data.get("task") or target.task,
            "classes": classes[:20], **{split: samples.get(split) for split in ("train", "valid", "test")},
        },
        "training": winner.get("training"),
        "metrics": metrics,
        "limits": limits,
        "versions": run.get("versions"),
        "command": run.get("command"),
    }  # fmt: skip
    return {key: value for key, value in found.items() if value}


# --------------------------------------------------------------------------------------------------------- the folder
def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")


def _found(folder: Path) -> Path:
    """The folder, or the one that a killed process had moved away."""
    if not folder.is_dir():
        if (_former(folder) / RUN).is_file():
            return _former(folder)
        raise FormatError(f"{folder} is no folder, expected one written by Bundle.save")
    if not (folder / RUN).is_file():
        raise FormatError(f"{folder} holds no {RUN}: expected a folder written by Bundle.save")
    return folder


def _tidy(folder: Path) -> None:
    """Put right what a killed process left: its half-written folders go, a bundle that it had moved away comes back."""
    former = _former(folder)
    if former.is_dir():
        if folder.is_dir() and any(folder.iterdir()):
            shutil.rmtree(former)
        else:
            if folder.is_dir():
                folder.rmdir()
            os.rename(former, folder)
    for left in folder.parent.glob(f".{folder.name}.saving-*"):
        if time.time() - left.stat().st_mtime > _STALE:
            shutil.rmtree(left, ignore_errors=True)


def _swap(work: Path, folder: Path) -> None:
    """Let the new folder take the place of what is there."""
    former = _former(folder)
    if folder.is_dir():
        os.rename(folder, former)
    try:
        os.rename(work, folder)
    except BaseException:
        if former.is_dir():
            os.rename(former, folder)
        raise
    _sync(folder.parent)
    shutil.rmtree(former, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until it is on the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # folders cannot be opened everywhere
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path.parent} holds no {path.name}: expected a folder written by Bundle.save") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not whole JSON ({error}): the file may be truncated") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds {type(found).__name__}, expected an object")
    return found


def plain(value: Any) -> Any:
    """A record as JSON values: NaN and infinities as strings, numbers of numpy as numbers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise FormatError(f"the record holds {type(value).__name__} {str(value)[:40]!r}, expected plain data")


def _parts(X: Any, rows: int) -> Iterator[Any]:
    """The samples, so many at a time. Anything without a length or slices is listed first."""
    if isinstance(X, Mapping):
        import pandas as pd

        X = pd.DataFrame(X)
    if isinstance(X, (str, bytes, os.PathLike)):
        raise DataError(f"got the text {str(X)[:60]!r}, expected samples: a DataFrame, an array or a list")
    if getattr(X, "shape", None) == () or not hasattr(X, "__iter__"):
        raise DataError(f"got {type(X).__name__} {str(X)[:60]}, expected samples: a DataFrame, an array or a list")
    X = X if hasattr(X, "__len__") and hasattr(X, "__getitem__") else list(X)
    by_place = X.iloc if hasattr(X, "iloc") else X
    for start in range(0, len(X), rows):
        yield by_place[start : start + rows]
