"""Signals: folders of recordings, and arrays or lists of series. Sounds become log mel energies, by the recipe."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data import folders, sound
from archwright.data.data import Array, Data, Task
from archwright.data.moments import moments
from archwright.data.recipe import SignalRecipe
from archwright.data.splits import divide, numbered
from archwright.data.store import gather
from archwright.data.table import lonely, scaled_target, target_of
from archwright.errors import DataError

RATE = 16000
"""Hz to which recordings are brought at most, unless a rate is asked for."""
ENOUGH = 0.98
"""The share of recordings that fit whole into the common length; longer ones are cut to their middle."""
LOOKED_AT = 5000


def open_folder(
    folder: Path, *, rate: int | None = None, group: str | None = None, seed: int = 0, valid: float = 0.15,
    test: float = 0.2, home: Any = None,
) -> Data:  # fmt: skip
    """Recordings at one rate (the most frequent, at most `RATE`, or the one asked for) and of one length.

    group   "speaker" or "take": who or which take is in which split is drawn as a whole, see `folders.group_of`
    Raises `DataError` if fewer than two classes can be read.
    """
    files = folders.labelled(folder, sound.SUFFIXES)
    measured, bad = [], []
    for file in files:
        try:
            measured.append((file, *sound.measure(file.path)))
        except DataError as error:
            bad.append(str(error))
    if not measured:
        raise DataError(f"{folder} holds no recording that can be read: {bad[0]}")
    rates = Counter([old for _, _, old in measured])
    common = rate or min(RATE, rates.most_common(1)[0][0])
    lengths = np.sort([round(count * common / old) for _, count, old in measured])
    samples = max(2, int(lengths[min(len(lengths) - 1, round(ENOUGH * len(lengths)))]))
    front = sound.settings(common, samples)
    target, _, _ = target_of([file.label for file in files], "class", "classification")
    shape = (front["mels"], sound.frames(samples, front["window"], front["hop"]))
    recipe = SignalRecipe(target, *shape, (0.0,) * shape[0], (1.0,) * shape[0], common, front)
    reader = folders.Reader([file for file, _, _ in measured], lambda path: _features(path, recipe))
    reader.bad += bad
    arrays = gather(((np.stack(batch),) for batch in reader.batches()), len(measured), home)
    if not arrays:
        raise DataError(f"{folder} holds no recording that can be read: {reader.bad[0]}")
    given = [file.split for file in reader.good]
    data = _finish(
        arrays[0], np.array([file.label for file in reader.good]), recipe, seed=seed, valid=valid, test=test, home=home,
        given=given if any(given) else None, name=folder.name, task="classification",
        groups=np.array([folders.group_of(file, group) for file in reader.good]) if group else None,
    )  # fmt: skip
    notices = reader.notices()
    if len(rates) > 1 or common not in rates:
        notices.append(f"recordings are resampled to {common} Hz")
    if lengths[0] != lengths[-1]:
        notices.append(f"recordings are brought to {samples / common:.2f} s: shorter ones with silence around them,"
                       f" {int((lengths > samples).sum())} longer ones cut to their middle")  # fmt: skip
    return dataclasses.replace(data, meta={**data.meta, "notices": [*notices, *data.meta["notices"]]})


def open_series(
    raw: Sequence[Array], y: Any, *, task: Task | None = None, seed: int = 0, valid: float = 0.15, test: float = 0.2,
    given: Sequence[str | None] | None = None, home: Any = None, name: str = "data", groups: Array | None = None,
    target: str = "target",
) -> Data:  # fmt: skip
    """Series [T] or [C, T] of any length: an array [n, T] or [n, C, T], or a list. NaN is missing.

    Series of unequal length are filled up, and the network sees one more channel that says where the signal is; the
    length is that of the longest outside of the test split. Raises `DataError` for unequal numbers of channels.
    """
    shapes = [np.shape(series) for series in raw]
    channels = shapes[0][0] if len(shapes[0]) == 2 else 1
    what, codes, known = target_of(y, target, task)
    if len(codes) != len(raw):
        raise DataError(f"got {len(raw)} signals and {len(codes)} targets, expected as many")
    if not known.all():
        raise DataError(f"the target of {int((~known).sum())} of {len(known)} signals is missing, expected all")
    fitting = [shape[-1] for i, shape in enumerate(shapes) if given is None or given[i] != "test"]
    length = max(fitting)
    if not length:
        raise DataError("the signals have no samples, expected at least one each")
    recipe = SignalRecipe(
        what, channels, length, (0.0,) * channels, (1.0,) * channels, mask=len({shape[-1] for shape in shapes}) > 1
    )
    parts = (recipe.encode(raw[start : start + folders.BATCH]) for start in range(0, len(raw), folders.BATCH))
    x = gather(parts, len(raw), home)[0]
    return _finish(x, y, recipe, task=task, seed=seed, valid=valid, test=test, given=given, home=home, name=name,
                   groups=groups)  # fmt: skip


def _finish(
    x: Array, y: Any, recipe: SignalRecipe, *, task: Task | None, seed: int, valid: float, test: float, home: Any,
    name: str, given: Sequence[str | None] | None, groups: Array | None,
) -> Data:  # fmt: skip
    """Data of encoded signals [n, C, T]: split, the recipe's mean and deviation, scaled."""
    what, codes, _ = target_of(y, recipe.target.name, task)
    split, how = divide(
        codes, what.task, np.random.default_rng(seed), valid=valid, test=test, given=given, groups=groups
    )
    what, encoded = scaled_target(what, codes, split["train"])
    mean, deviation = moments(x, split["train"], LOOKED_AT)
    recipe = dataclasses.replace(recipe, target=what, mean=mean, deviation=deviation)
    batches = (recipe.scale((x[start : start + folders.BATCH],)) for start in range(0, len(x), folders.BATCH))
    inputs = gather(batches, len(x), home)
    meta = {
        "recipe": recipe.to_dict(), "codes": [], "split": how, "notices": lonely(what, codes), "features": [],
        "target": what.name,
    }  # fmt: skip
    return Data(inputs, encoded, what.task, split, "signal", what.classes, name, meta, groups=numbered(groups))


def raw_folder(folder: Path, recipe: SignalRecipe) -> tuple[list[Array], list[str]]:
    """Recordings [T] at the recipe's rate, and their labels ("" where none is known)."""
    files = [folders.File(folder, "")] if folder.is_file() else folders.unlabelled(folder, sound.SUFFIXES)
    tested = [file for file in files if file.split == "test"]
    files = tested or files
    return [sound.read(file.path, recipe.rate)[0] for file in files], [file.label for file in files]


def _features(path: Path, recipe: SignalRecipe) -> Array:
    return recipe.encode([sound.read(path, recipe.rate)[0]])[0][0]
