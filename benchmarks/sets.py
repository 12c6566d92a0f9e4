"""The data sets of benchmarks/search.py, read from their files without archwright's own readers."""

from __future__ import annotations

import gzip
import json
import wave
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from archwright.data.home import data_file
from archwright.errors import DataError

Array = NDArray[Any]

# -------------------------------------------------------------------------------------------------------------- tables
# Chosen before any figure was known, for unlike sizes, kinds of columns and kinds of noise. Left out: sets on which
# everything is right (iris, wine, wheat_seeds), and auto_insurance, which has 63 rows.
TEN = {
    "adult": "48,842 rows, 14 mixed columns with gaps, unbalanced: large and categorical, where trees are at home",
    "titanic": "891 rows, mixed columns, many gaps",
    "phoneme": "5,404 rows, five numbers, a ragged boundary",
    "ionosphere": "351 rows, 34 numbers: wide and small",
    "pima_diabetes": "768 rows, eight numbers, gaps written as zeros: noise",
    "glass": "214 rows, nine numbers, six classes of 9 to 76: small and unbalanced",
    "california_housing": "20,640 rows, eight numbers with heavy tails, one category: large regression",
    "abalone": "4,177 rows, seven numbers, one category: noisy counts",
    "concrete": "1,030 rows, eight numbers: a smooth law with thresholds",
    "wine_quality_white": "4,898 rows, eleven numbers: marks from 3 to 9, noise",
}
MORE = ("banknote", "horse_colic", "breast_cancer_yugoslavia", "auto_imports", "power_plant", "energy", "yacht")
SMOKE = ("iris",)

IDENTIFIERS = {"titanic": ["PassengerId", "Name", "Ticket"]}
"""Columns that nobody is given: a number, a name and a ticket of its own for almost every row."""


class Table(NamedTuple):
    """A table with its target as the column `target`. Columns of strings are categories; NaN is missing."""

    name: str
    frame: pd.DataFrame
    task: str


def read_table(name: str) -> Table:
    """One of TEN, MORE or SMOKE, by the manifest beside the files."""
    if name not in {*TEN, *MORE, *SMOKE}:
        raise DataError(f"no set is named '{name}': expected one of {', '.join([*TEN, *MORE])}")
    manifest = {entry["name"]: entry for entry in json.loads(data_file("tabular", "manifest.json").read_text())}
    entries = [manifest[part] for part in (("adult_train", "adult_test") if name == "adult" else (name,))]
    frames = [
        pd.read_csv(
            data_file("tabular", entry["file"]),
            header=0 if entry["header"] else None,
            na_values=["?"],
            skipinitialspace=True,
            quotechar="'" if name == "breast_cancer_yugoslavia" else '"',
        )
        for entry in entries
    ]
    first, frame = entries[0], pd.concat(frames, ignore_index=True)
    if not first["header"]:
        frame.columns = [f"column{i}" for i in range(frame.shape[1])]
    frame = frame.rename(columns={frame.columns[first["target_column"]]: "target"})
    frame = frame.drop(columns=IDENTIFIERS.get(name, [])).dropna(subset=["target"]).reset_index(drop=True)
    if first["task"] == "classification":
        frame["target"] = frame["target"].astype(str).str.removesuffix(".0").str.removesuffix(".")
    return Table(name, frame, first["task"])


# -------------------------------------------------------------------------------------------------------------- images
FASHION = Path("/usr/share/datasets/fashion-mnist")


def read_idx(path: Path) -> Array:
    """The bytes of an IDX file, in their shape."""
    raw = gzip.decompress(path.read_bytes())
    dimensions = raw[3]
    shape = np.frombuffer(raw, ">i4", dimensions, 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def image_folder(name: str) -> Path:
    """The folder with the four IDX files of "mnist" or "fashion"."""
    if name == "mnist":
        return data_file("mnist")
    if not FASHION.is_dir():
        raise DataError(f"{FASHION} is not there: Fashion-MNIST is Debian's package dataset-fashion-mnist")
    return FASHION


def read_images(name: str) -> tuple[Array, Array, Array, Array]:
    """Training images [60000, 28, 28] and labels, test images [10000, 28, 28] and labels, all bytes."""
    folder = image_folder(name)
    parts = [(s, k) for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    images, labels, test_images, test_labels = [read_idx(folder / f"{s}-{k}-ubyte.gz") for s, k in parts]
    return images, labels, test_images, test_labels


# ------------------------------------------------------------------------------------------------------------- signals
class Signals(NamedTuple):
    """Cases as float32 [channels, time] of any length, their labels, and which are for the test; of recordings also the
    rate in hertz and the files."""

    name: str
    cases: list[Array]
    labels: Array
    test: Array
    rate: int = 0
    paths: tuple[Path, ...] = ()


def read_digits(by: str, seed: int) -> Signals:
    """Spoken digits. by "take": takes 0 to 4 of every digit and speaker are for the test. by "speaker": two of the six
    speakers are, which two the seed decides."""
    paths = sorted(data_file("fsdd", "recordings").glob("*.wav"))
    names = np.array([path.stem.split("_") for path in paths])
    if by == "take":
        test = names[:, 2].astype(int) <= 4
    else:
        speakers = np.random.default_rng(seed).permutation(np.unique(names[:, 1]))
        test = np.isin(names[:, 1], speakers[:2])
    cases = []
    for path in paths:
        with wave.open(str(path)) as file:
            rate, raw = file.getframerate(), file.readframes(file.getnframes())
        cases.append(np.frombuffer(raw, "<i2").astype(np.float32)[None] / 32768)
    return Signals(f"digits by {by}", cases, names[:, 0], test, rate, tuple(paths))


def read_ts(name: str) -> Signals:
    """A set of the UCR/UEA archive with its own training and test cases."""
    cases, labels, test = [], [], []
    for part in ("TRAIN", "TEST"):
        text = gzip.decompress(data_file("ucr_uea", f"{name}_{part}.ts.gz").read_bytes()).decode()
        for line in text[text.lower().index("@data") + 5 :].split():
            *channels, label = line.split(":")
            cases.append(np.array([channel.split(",") for channel in channels], np.float32))
            labels.append(label)
            test.append(part == "TEST")
    return Signals(name, cases, np.array(labels), np.array(test))


def log_mel(case: Array, rate: int, bands: int = 24, window: float = 0.025, hop: float = 0.010) -> Array:
    """Log energies [bands, frames] of a recording [1, time] in mel bands up to half the rate, nothing more than 40 dB
    below the loudest, less each band's mean over the recording, which takes away what microphone and voice add.

    Bands and floor were chosen for the peers' sake: DTW names 15 in 100 digits of unknown speakers more with them than
    with 40 bands and no floor.
    """
    size, step = round(window * rate), round(hop * rate)
    length = 2 << (size - 1).bit_length()
    padded = np.pad(case[0].astype(np.float64), (size // 2, size // 2 + step))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::step] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, length)) ** 2
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    grid = np.fft.rfftfreq(length, 1 / rate)
    rise = (grid - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - grid) / (edges[2:] - edges[1:-1])[:, None]
    energy = power @ np.clip(np.minimum(rise, fall), 0, None).T
    levels = np.log(np.maximum(energy, 1e-4 * energy.max() + 1e-12))
    return (levels - levels.mean(0)).T.astype(np.float32)
