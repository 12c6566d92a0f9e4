"""What a bundle's network says of data: `archwright predict`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from archwright.core.records import Record
from archwright.data.data import Array
from archwright.data.open import open_parts
from archwright.data.recipe import Target
from archwright.errors import DataError
from archwright.flows.bundle import Bundle
from archwright.kit.metrics import metric, probabilities


@dataclass(frozen=True)
class Predictions(Record):
    """What was predicted, a sample each.

    predicted  labels, or numbers (lists of them where there are several targets)
    classes    what the columns of `proba` are; empty without probabilities
    proba      probabilities, a row for each sample
    scores     metric -> value, where the data have targets
    """

    target: str
    predicted: tuple[Any, ...]
    classes: tuple[str, ...] = ()
    proba: tuple[tuple[float, ...], ...] = ()
    scores: Mapping[str, float] = ()  # type: ignore[assignment]

    def csv(self) -> str:
        """A table with a header: the prediction, and the probabilities if there are any."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        several = bool(self.predicted) and isinstance(self.predicted[0], (list, tuple))
        names = [f"{self.target}.{i}" for i in range(len(self.predicted[0]))] if several else [self.target]
        writer.writerow([*names, *[f"p({c})" for c in self.classes]])
        for i, value in enumerate(self.predicted):
            values = list(value) if several else [value]
            writer.writerow([*values, *[f"{p:.6g}" for p in (self.proba[i] if self.proba else ())]])
        return text.getvalue()


def predict(bundle: Bundle | str | os.PathLike[str], data: Any, *, proba: bool = False) -> Predictions:
    """Predictions of a bundle for data of the kind that it was trained on, with or without targets.

    Raises `FormatError` for a folder that is no bundle, `DataError` for data that do not fit it.
    """
    made = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    target = made.recipe.target
    if proba and target.task != "classification":
        raise DataError(f"'{target.name}' is a number and has no probabilities: leave out --proba")
    parts = []
    for raw, y in open_parts(data, made.recipe):
        outputs = made.outputs(raw)
        chances = probabilities(outputs) if proba else np.zeros((0, 0))
        parts.append((outputs, chances, _truth(target, y, len(outputs))))
    outputs, chances, truth = [np.concatenate(found) for found in zip(*parts, strict=True)]
    return Predictions(
        target.name or "prediction", tuple(target.decode(outputs).tolist()), target.classes if proba else (),
        tuple([tuple(row) for row in chances.tolist()]), _scores(made, truth, outputs),
    )  # fmt: skip


def _truth(target: Target, y: Any, count: int) -> Array:
    """What is known of the targets: classes [n], -1 where there is none, or numbers [n, k], NaN where there is none."""
    if target.task == "classification":
        return np.full(count, -1) if y is None else target.codes(y)
    numbers = np.full((count, target.outputs), np.nan) if y is None else np.asarray(y, float)
    return numbers.reshape(count, target.outputs)


def _scores(bundle: Bundle, truth: Array, outputs: Array) -> dict[str, float]:
    """The metrics of the bundle's search, on the samples whose targets are known."""
    target = bundle.recipe.target
    names = list(bundle.run.get("test") or ("error",))
    if target.task == "classification":
        known = truth >= 0
    else:
        known = np.isfinite(truth).all(1)
        outputs = np.asarray(target.decode(outputs)).reshape(len(outputs), target.outputs)
    if not known.any():
        return {}
    return {n: metric(n, target.task, target.outputs)(truth[known], outputs[known]) for n in names}
