"""Keyword spotting: which word is spoken in a second of sound, by small networks on cepstral coefficients.

    x           the recording, mono, resampled to `rate` Hz, centred in `seconds` s (cut, or padded with zeros)
    P[t, f]     = |sum_m w[m] x[t hop + m] exp(-2 pi i f m / F)|^2 / F         power of frame t; Hann window w, F points
    E[t, b]     = log(sum_f M[b, f] P[t, f] + 1e-6)                            M: triangles on the mel scale
    mfcc[t, c]  = s_c sum_b E[t, b] cos(pi c (2 b + 1) / (2 B)),  s_0 = sqrt(1/B), else sqrt(2/B)    (DCT-II)

with mel(f) = 2595 log10(1 + f / 700). Data [n, coefficients, frames], each coefficient brought to mean 0 and deviation
1 over the training split. The front end stands in `Data.meta["front_end"]` as plain data, and `features` applies it.

A source is a folder of class folders of WAV files (yes/0a7c2a8d_nohash_0.wav: the speaker is what comes before the
first "_"), or a folder of files named label_speaker_take.wav (7_jackson_32.wav, the Free Spoken Digit Dataset). Split
by speaker (nobody is heard in two splits), by take (takes 0 to 4 test, 5 validates: FSDD's convention), or at random.

The flow trains DS-CNN: a convolution over time and coefficients, then blocks of depthwise and pointwise convolution,
with batch norm, mean, linear. Augmented as in the paper, by shifts in time. Weights with width w and b blocks:
about 40 w + b w (w + 13). `dnn` is the paper's fully connected network, for comparison.

Fails for words longer than a second and for noise that was never heard (the paper mixes in background noise: here
there is none). Differs in window (the paper's frames are 40 ms each 20 ms; so are ours), and in having no classes
"silence" and "unknown".

Zhang, Suda, Lai, Chandra: Hello Edge: Keyword Spotting on Microcontrollers, 2017, arXiv 1711.07128.
"""

from __future__ import annotations

import math
import os
import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from archwright import ops
from archwright.core import seeds
from archwright.core.records import Budget, Claim, Log
from archwright.data.data import SPLITS, Data, split
from archwright.errors import DataError
from archwright.ir import Graph
from archwright.kit import train
from archwright.net.net import Net, init

PART = {
    "kind": "task",
    "name": "hello_edge_kws",
    "id": "hello-edge-kws",
    "title": "Hello Edge: Keyword Spotting on Microcontrollers",
    "year": 2017,
    "arxiv": "1711.07128",
    "needs": ["signal"],
    "extras": [],
    "example": {"hp": {"rate": 4000, "seconds": 0.3, "mels": 16, "coefficients": 8, "by": "speaker"}, "steps": 12},
    "exact": "The coefficients are those of the sums above, to rounding.",
    "claim": {
        "text": "Test accuracy of DS-CNN on spoken digits (other takes of known speakers), beside a DNN of equal size.",
        "paper": "95.4 % on Speech Commands, about 10 points above the DNN of equal size",
    },
}

Signal = NDArray[np.float64]
SHIFT = 0.1
"""Seconds by which the flow shifts recordings at most, as in the paper."""


# ------------------------------------------------------------------------------------------------------------- sound
def read_wav(path: str | os.PathLike[str]) -> tuple[Signal, int]:
    """Samples in [-1, 1), mono (the mean of the channels), and the rate in Hz. PCM of 8, 16, 24 or 32 bits.

    Raises `DataError` for what is no such file, or holds no samples.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError) as error:
        raise DataError(f"{path} cannot be read as WAV: {error or 'it ends early'}") from None
    raw = raw[: len(raw) // (channels * width) * channels * width]
    if not raw or not rate:
        raise DataError(f"{path} holds no samples")
    if width == 1:  # unsigned
        values = np.frombuffer(raw, np.uint8).astype(np.float64) / 128 - 1
    else:  # the bytes of each number into the high end of 32 bits
        wide = np.zeros((len(raw) // width, 4), np.uint8)
        wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
        values = wide.view("<i4")[:, 0] / 2.0**31
    return values.reshape(-1, channels).mean(1), rate


def resample(x: Signal, old: int, new: int) -> Signal:
    """The signal at another rate, by a polyphase filter."""
    if old == new:
        return x
    from scipy.signal import resample_poly

    common = math.gcd(old, new)
    found: Signal = resample_poly(x, new // common, old // common)
    return found


def fit_length(x: Signal, length: int) -> Signal:
    """The middle of the signal, or the signal in the middle of zeros."""
    spare = length - len(x)
    if spare <= 0:
        return x[-spare // 2 :][:length]
    return np.pad(x, (spare // 2, spare - spare // 2))


def mel_filters(count: int, size: int, rate: int) -> Signal:
    """Triangles [count, size // 2 + 1] on the spectrum of `size` points: their corners are equally far in mel.

    Raises `DataError` if one is so narrow that no frequency falls into it.
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, count + 2) / 2595) - 1)
    f = np.arange(size // 2 + 1) * rate / size
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    found: Signal = np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle)))
    if not found.any(1).all():
        raise DataError(f"got mels={count} for frames of {size} points at {rate} Hz: some have no frequency in them")
    return found


def features(x: Signal, front_end: Mapping[str, Any]) -> Signal:
    """[coefficients, frames] of a signal at the front end's rate and length: MFCC, or log mel energies.

    front_end  rate (Hz), seconds, window and hop (samples), mels, coefficients (0: log mel energies, all of them)
    """
    from scipy.fft import dct

    window, hop = front_end["window"], front_end["hop"]
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop]
    size = 1 << (window - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(frames * hann, size)) ** 2 / size
    energy = np.log(power @ mel_filters(front_end["mels"], size, front_end["rate"]).T + 1e-6)
    if not front_end["coefficients"]:
        return energy.T
    found: Signal = dct(energy, norm="ortho")[:, : front_end["coefficients"]].T
    return found


# -------------------------------------------------------------------------------------------------------------- files
def _recordings(folder: Path) -> list[tuple[Path, str, str, int | None]]:
    """(file, label, speaker, take) of every WAV file, in the order of names. Speaker "" and take None: not known."""
    found: list[tuple[Path, str, str, int | None]] = []
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
    flat = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".wav")
    if flat:
        for path in flat:
            label, *rest = path.stem.split("_")
            if len(rest) != 2 or not rest[1].isdecimal():
                raise DataError(f"{path.name} is not named label_speaker_take.wav: name it so, or use class folders")
            found.append((path, label, rest[0], int(rest[1])))
        return found
    for home in inside:
        for path in sorted(p for p in home.iterdir() if p.suffix.lower() == ".wav"):
            speaker, mark, after = path.stem.partition("_")
            take = after.rpartition("_")[2]
            found.append((path, home.name, speaker if mark else "", int(take) if take.isdecimal() else None))
    if not found:
        raise DataError(f"{folder} holds no WAV files, expected label_speaker_take.wav, or a folder for each class")
    return found


def _splits(
    target: NDArray[np.int64], speakers: Sequence[str], takes: Sequence[int | None], by: str, seed: int
) -> dict[str, NDArray[Any]]:
    rng = seeds.rng(seed, "split", by)
    if by == "random":
        return split(target, "classification", rng)
    if by == "take":
        if None in takes:
            raise DataError("got by='take', but some files have no number of their take: use by='speaker' or 'random'")
        kind = ["test" if t < 5 else "valid" if t == 5 else "train" for t in takes if t is not None]
    elif by == "speaker":
        names = sorted(set(speakers))
        if "" in names or len(names) < 3:
            raise DataError(f"got by='speaker', but {len(names)} speakers are known: expected at least 3")
        order = [names[i] for i in rng.permutation(len(names))]
        few = max(1, round(0.15 * len(order)))
        home = {name: "test" if i < few else "valid" if i < 2 * few else "train" for i, name in enumerate(order)}
        kind = [home[name] for name in speakers]
    else:
        raise DataError(f"got by={by!r}, expected 'take', 'speaker' or 'random'")
    found = {name: np.flatnonzero([k == name for k in kind]) for name in SPLITS}
    empty = [name for name, index in found.items() if not len(index)]
    if empty:
        raise DataError(f"split by {by}, {' and '.join(empty)} would be empty: use by='speaker' or by='random'")
    return found


def load(
    source: str | os.PathLike[str],
    *,
    rate: int = 8000,
    seconds: float = 1.0,
    window: float = 0.04,
    hop: float = 0.02,
    mels: int = 40,
    coefficients: int = 10,
    by: str = "take",
    seed: int = 0,
) -> Data:
    """Recordings as standardised MFCC, [n, coefficients, frames].

    source          a folder: see the head of the file
    rate            Hz to which all are resampled
    seconds         length of every recording; window, hop: of the frames, in seconds
    mels            triangles; coefficients: how many are kept, 0 for the log mel energies themselves
    by              "take", "speaker" or "random": how splits are made; `seed` decides who is in which

    Raises `DataError` for a folder without recordings, files that are no WAV, splits that would be empty, a front end
    that does not fit the rate.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder, expected one of WAV files")
    front_end = {
        "rate": rate, "seconds": seconds, "window": round(window * rate), "hop": round(hop * rate), "mels": mels,
        "coefficients": coefficients,
    }  # fmt: skip
    length = round(seconds * rate)
    if front_end["hop"] < 1 or not 2 <= front_end["window"] <= length or not 0 <= coefficients <= mels:
        raise DataError(f"got front end {front_end}, expected hop >= 1, window <= {length}, coefficients <= mels")
    files = _recordings(folder)
    classes = sorted({label for _, label, _, _ in files})
    target = np.array([classes.index(label) for _, label, _, _ in files], np.int64)
    x = np.stack([
        features(fit_length(resample(*read_wav(path), rate), length), front_end) for path, *_ in files
    ])  # fmt: skip
    speakers = [speaker for _, _, speaker, _ in files]
    splits = _splits(target, speakers, [take for *_, take in files], by, seed)
    known = x[splits["train"]]
    mean, deviation = known.mean((0, 2), keepdims=True), known.std((0, 2), keepdims=True)
    x = ((x - mean) / np.where(deviation > 1e-8, deviation, 1)).astype(np.float32)
    meta = {
        "standardised": "channel", "front_end": front_end, "by": by, "speakers": sorted(set(speakers)),
        "mean": mean.ravel().tolist(), "deviation": deviation.ravel().tolist(),
    }  # fmt: skip
    return Data((x,), target, "classification", splits, "signal", tuple(classes), folder.name, meta)


# --------------------------------------------------------------------------------------------------------------- nets
def ds_cnn(data: Data, *, width: int = 32, blocks: int = 3) -> Graph:
    """The depthwise separable network: kernels of 4 coefficients by 10 frames, stride 2, then blocks of 3 by 3."""
    g = ops.edit()
    x = g.add("unsqueeze", g.input("x", data.shapes[0]), dim=1)
    x = g.add("conv", x, out=width, kernel=(4, 10), stride=2, padding=(2, 5), bias=False, name="stem.conv")
    x = g.add("relu", g.add("batch_norm", x, name="stem.norm"))
    for i in range(blocks):
        with g.scope(f"block{i}"):
            x = g.add("conv", x, out=width, kernel=3, padding=1, groups=width, bias=False, name="depthwise")
            x = g.add("relu", g.add("batch_norm", x, name="norm1"))
            x = g.add("conv", x, out=width, kernel=1, bias=False, name="pointwise")
            x = g.add("relu", g.add("batch_norm", x, name="norm2"))
    x = g.add("dropout", g.add("mean", x, dim=[2, 3]), p=0.1)
    return g.finish(g.add("linear", x, out=data.outputs, name="head"))


def dnn(data: Data, *, width: int) -> Graph:
    """The fully connected network: three hidden layers."""
    g = ops.edit()
    x = g.add("flatten", g.input("x", data.shapes[0]))
    for i in range(3):
        x = g.add("relu", g.add("batch_norm", g.add("linear", x, out=width, name=f"hidden{i}"), name=f"norm{i}"))
    return g.finish(g.add("linear", x, out=data.outputs, name="head"))


def shifted(most: int) -> Any:
    """Augmentation: each recording is moved in time by up to `most` frames, its ends held."""

    def augment(inputs: tuple[Tensor, ...], rng: np.random.Generator) -> tuple[Tensor, ...]:
        x = inputs[0]
        offset = torch.from_numpy(rng.integers(-most, most + 1, (len(x), 1)))
        places = (torch.arange(x.shape[2]) + offset).clamp(0, x.shape[2] - 1)
        return (x.gather(2, places[:, None].expand_as(x)), *inputs[1:])

    return augment


def _fit(graph: Graph, data: Data, budget: Budget, rng: np.random.Generator, lr: float) -> tuple[Net, Log]:
    front_end = data.meta["front_end"]
    most = round(SHIFT * front_end["rate"] / front_end["hop"])
    return train.fit(
        init(graph, seeds.draw(rng)), data, budget, rng, lr=lr, schedule="one_cycle", batch_size=64, evaluations=10,
        augment=shifted(most), options={"weight_decay": 0.01},
    )  # fmt: skip


def flow(
    data: Data, budget: Budget, rng: np.random.Generator, *, width: int = 32, blocks: int = 3, lr: float = 0.01
) -> tuple[Net, Log]:
    """DS-CNN trained on data that `load` made. One step is one minibatch of 64."""
    return _fit(ds_cnn(data, width=width, blocks=blocks), data, budget, rng, lr)


def case(seed: int, folder: Path) -> tuple[Any, ...]:
    """Rising and falling tones by four speakers, at another rate than is asked for."""
    rng = seeds.rng(seed, "tones")
    rate, home = 6000, folder / f"tones{seed}"
    home.mkdir(parents=True, exist_ok=True)
    for label, slope in (("down", -1), ("flat", 0), ("up", 1)):
        for speaker in range(4):
            for take in range(4):
                t = np.arange(int(rng.integers(1200, 2200))) / rate
                phase = 2 * np.pi * ((600 + 60 * speaker) * t + slope * 700 * t**2)
                sound = 0.4 * np.sin(phase) + 0.02 * rng.standard_normal(len(t))
                with wave.open(str(home / f"{label}_s{speaker}_{take}.wav"), "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(rate)
                    file.writeframes((sound * 32000).astype("<i2").tobytes())
    return (home,)


def claim(*, seed: int = 0) -> Claim:
    """200 steps of each network on the Free Spoken Digit Dataset; once more with a speaker that was never heard."""
    from archwright.data.home import data_file

    source = data_file("fsdd", "recordings")
    data = load(source)
    small = ds_cnn(data)
    size = sum(math.prod(p.shape) for p in ops.params(small).values() if not p.buffer)
    inside = math.prod(data.inputs[0].shape[1:])
    wide = round((-(inside + 16) + math.sqrt((inside + 16) ** 2 + 8 * size)) / 4)  # 2 w^2 + (inside + 16) w = size
    found = {}
    for name, graph in (("ds_cnn", small), ("dnn", dnn(data, width=max(4, wide)))):
        net, _ = _fit(graph, data, Budget(steps=200), seeds.rng(seed, name), 0.01)
        found[name] = 100 * (1 - train.evaluate(net, data))
    strangers = load(source, by="speaker", seed=seed)
    net, _ = flow(strangers, Budget(steps=200), seeds.rng(seed, "strangers"))
    right, other = found["ds_cnn"], found["dnn"]
    return Claim(
        right, "%", "above 90, and above the DNN of equal size", right > 90 and right > other, "95.4, DNN 84.6",
        {
            "DNN of equal size (%)": other, "weights of DS-CNN": float(size),
            "DS-CNN, speaker never heard (%)": 100 * (1 - train.evaluate(net, strangers)),
        },
    )  # fmt: skip
