"""Signals as arrays: read from WAV files, resampled, brought to a length, and turned into log mel energies.

    P[t, f] = |sum_m w[m] x[t hop + m] exp(-2 pi i f m / F)|^2 / F      power of frame t; Hann window w, F points
    B[t, b] = sum_f M[b, f] P[t, f]                                     M: triangles, equally wide on the mel scale
    E[t, b] = 10 log10(max(B[t, b] / max(B), 10^(-floor / 10)))         decibels below the recording's loudest

with mel(f) = 2595 log10(1 + f / 700) and F the power of two from the window on. Samples lie in [-1, 1). What is far
below the loudest is room and microphone, not signal, and how loud the whole is says little: both differ from speaker to
speaker. Recipes without a floor are older: theirs is E[t, b] = log(B[t, b] + 1e-6).
"""

from __future__ import annotations

import math
import os
import wave
from functools import lru_cache
from typing import Any

import numpy as np

from archwright.data.data import Array
from archwright.errors import DataError, MissingExtra

SILENT = 1e-20
"""The power of a band below which nothing was recorded: one step of 24 bits is 1e-14."""
HEAD = 44
"""Bytes of a WAV file before its samples, at least."""
SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".aiff", ".aif")


def read(path: str | os.PathLike[str], rate: int | None = None) -> tuple[Array, int]:
    """Samples [T] float32, the mean of the channels, and their rate in Hz; resampled if another `rate` is asked for.

    PCM of 8, 16, 24 and 32 bits is read here, everything else by soundfile. Raises `DataError` for what is no sound.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            channels, width, old = file.getnchannels(), file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
        samples = _pcm(raw, width, channels)
    except (wave.Error, EOFError, OSError) as error:
        if os.path.isfile(path) and os.path.getsize(path) > HEAD:
            samples, old = _soundfile(path)
        else:
            raise DataError(f"{os.fspath(path)} cannot be read as WAV: {str(error) or 'it ends early'}") from None
    if not len(samples) or not old:
        raise DataError(f"{os.fspath(path)} holds no samples")
    if rate is None or rate == old:
        return samples.astype(np.float32), old
    return resample(samples, old, rate).astype(np.float32), rate


def measure(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(samples, rate in Hz) of a file: from its head, where it is PCM. Raises `DataError` for what is no sound."""
    try:
        with wave.open(os.fspath(path), "rb") as file:
            # what was written through a pipe says that it never ends: no more can be there than the file holds
            most = (os.path.getsize(path) - HEAD) // (file.getnchannels() * file.getsampwidth())
            return min(file.getnframes(), most), file.getframerate()
    except (wave.Error, EOFError, OSError):
        samples, rate = read(path)
        return len(samples), rate


def _pcm(raw: bytes, width: int, channels: int) -> Array:
    raw = raw[: len(raw) // (channels * width) * channels * width]
    if width == 1:  # the only width without a sign
        values = np.frombuffer(raw, np.uint8).astype(np.float64) / 128 - 1
    else:  # the bytes of each number into the high end of 32 bits
        wide = np.zeros((len(raw) // width, 4), np.uint8)
        wide[:, 4 - width :] = np.frombuffer(raw, np.uint8).reshape(-1, width)
        values = wide.view("<i4")[:, 0] / 2.0**31
    return values.reshape(-1, channels).mean(1)


def _soundfile(path: str | os.PathLike[str]) -> tuple[Array, int]:
    try:
        import soundfile
    except ImportError:
        raise MissingExtra(f"{os.fspath(path)} is no PCM WAV file: run pip install 'archwright[audio]'") from None
    try:
        samples, rate = soundfile.read(os.fspath(path), always_2d=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{os.fspath(path)} cannot be read as a recording: {error}") from None
    return samples.mean(1), int(rate)


def resample(x: Array, old: int, new: int) -> Array:
    """The signal [T] at another rate, in Hz: its spectrum cut, or filled up with zeros."""
    step = old // math.gcd(old, new)  # so many samples become a whole number of others
    padded = np.pad(x, (0, -len(x) % step))
    count = len(padded) * new // old
    found = np.fft.irfft(np.fft.rfft(padded)[: count // 2 + 1], count) * (new / old)
    return found[: max(1, round(len(x) * new / old))]


def mono(signal: Any) -> Array:
    """[T] of [T] or [channels, T]."""
    x = np.asarray(signal, np.float64)
    if x.ndim > 2 or not x.size:
        raise DataError(f"got a recording of shape {x.shape}, expected [samples] or [channels, samples]")
    return x if x.ndim == 1 else x.mean(0)


def settings(rate: int, samples: int) -> dict[str, int]:
    """The front end for recordings of so many samples: frames of 40 ms each 20 ms, 40 dB, up to 40 mel bands.

    There is a band for each 90 mel (24 of them at 8 kHz, 32 at 16 kHz): narrower ones show the harmonics of a high
    voice one by one. Where a rate is so low that even these are narrower than the spectrum is fine, there are fewer.
    """
    window = max(2, min(round(0.04 * rate), samples))
    mels = max(1, min(40, round(_mel(rate / 2) / 90)))
    while mels > 1 and not filters(mels, window, rate).any(1).all():
        mels -= 1
    return {"samples": samples, "window": window, "hop": max(1, round(0.02 * rate)), "mels": mels, "floor": 40}


def frames(samples: int, window: int, hop: int) -> int:
    """How many frames `log_mel` makes."""
    return (samples - window) // hop + 1


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


@lru_cache(8)
def filters(mels: int, window: int, rate: int) -> Array:
    """Triangles [mels, F // 2 + 1]: their corners are equally far in mel."""
    size = 1 << (window - 1).bit_length()
    corners = 700 * (10 ** (np.linspace(0, _mel(rate / 2), mels + 2) / 2595) - 1)
    f = np.arange(size // 2 + 1) * rate / size
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    return np.maximum(0, np.minimum((f - left) / (middle - left), (right - f) / (right - middle)))


def log_mel(
    x: Array, rate: int, *, samples: int, window: int, hop: int, mels: int, floor: int | None = None
) -> Array:
    """[mels, frames] of a recording [T], brought to `samples` first: its middle, or itself amid silence.

    Decibels from -floor to 0, the loudest; without a floor natural logarithms, never below log(1e-6). A recording
    without any sound is at the floor throughout.
    """
    spare = samples - len(x)
    x = np.pad(x, (spare // 2, spare - spare // 2)) if spare > 0 else x[-spare // 2 :][:samples]
    parts = np.lib.stride_tricks.sliding_window_view(np.nan_to_num(x, posinf=0.0, neginf=0.0), window)[::hop]
    size = 1 << (window - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(parts * hann, size)) ** 2 / size
    bands = power @ filters(mels, window, rate).T
    if floor is None:
        return np.log(bands + 1e-6).T
    least = 10 ** (-floor / 10)
    return 10 * np.log10(np.maximum(bands / max(bands.max(), SILENT), least)).T


def pad(raw: Any, channels: int, length: int) -> Array:
    """[n, channels, length] float32 of signals [T] or [channels, T] of any length: cut, or NaN after their end."""
    if isinstance(raw, np.ndarray) and raw.shape[1:] == (channels, length):
        return np.where(np.isfinite(raw), raw, np.nan).astype(np.float32)
    found = np.full((len(raw), channels, length), np.nan, np.float32)
    for i, signal in enumerate(raw):
        x = np.atleast_2d(np.asarray(signal, np.float32))
        if x.ndim != 2 or x.shape[0] != channels:
            raise DataError(f"signal {i} has shape {np.shape(signal)}, expected {channels} channels: [channels, time]")
        found[i, :, : x.shape[1]] = x[:, :length]
    found[~np.isfinite(found)] = np.nan
    return found
