"""Signals: recordings in folders, and series in memory."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from archwright.data import sound
from archwright.data.home import data_file, data_home
from archwright.data.open import open_data, open_raw
from archwright.data.recipe import recipe_from
from archwright.errors import DataError, MissingExtra


def recording(path, samples, rate=8000, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = np.round(np.clip(samples, -1, 1) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        raw = (whole + 128).astype(np.uint8).tobytes()
    else:
        raw = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)


def tone(hertz, rate=8000, seconds=0.3):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def folder(home, flat=False, rate=8000):
    rng = np.random.default_rng(0)
    for label, hertz in (("low", 300), ("high", 1500)):
        for speaker in "abcd":
            for take in range(4):
                name = f"{label}_{speaker}_{take}.wav" if flat else f"{label}/{speaker}_nohash_{take}.wav"
                recording(home / name, tone(hertz, rate, rng.uniform(0.2, 0.4)), rate)
    return home


@pytest.mark.parametrize("flat", [False, True])
def test_a_folder_of_recordings(tmp_path, flat):
    data = open_data(folder(tmp_path / "tones", flat))
    recipe = recipe_from(data.meta["recipe"])
    assert data.classes == ("high", "low") and data.kind == "signal" and len(data.target) == 32
    assert data.inputs[0].shape == (32, recipe.channels, recipe.length) and recipe.rate == 8000
    (x,), _ = data.tensors("train")
    np.testing.assert_allclose(x.mean((0, 2)), 0, atol=1e-4)
    raw, y = open_raw(tmp_path / "tones", recipe)
    np.testing.assert_array_equal(recipe.apply(raw)[0], data.inputs[0])
    assert sorted(set(y)) == ["high", "low"] and len(raw) == 32
    assert "recordings are brought to" in data.meta["notices"][-1]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("group", ["speaker", "take"])
def test_splits_by_speaker_and_by_take(tmp_path, flat, group):
    data = open_data(folder(tmp_path, flat), group=group)
    _, y = open_raw(tmp_path, recipe_from(data.meta["recipe"]))
    names = sorted(path.stem for path in tmp_path.rglob("*.wav")) if flat else [
        path.stem for label in ("high", "low") for path in sorted((tmp_path / label).glob("*.wav"))
    ]  # fmt: skip
    parts = [name.split("_")[flat if group == "speaker" else -1] for name in names]
    homes = [{parts[i] for i in data.splits[split]} for split in data.splits]
    assert data.meta["split"] == "group" and all(homes) and sum(map(len, homes)) == 4 and len(y) == 32


def test_what_a_name_does_not_say(tmp_path):
    for i in range(8):
        recording(tmp_path / "ab"[i % 2] / f"{i}.wav", tone(300))
    with pytest.raises(DataError, match=r"0.wav does not say its speaker"):
        open_data(tmp_path, group="speaker")
    with pytest.raises(DataError, match="group is 'city', expected 'speaker' or 'take'"):
        open_data(tmp_path, group="city")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_widths_of_samples(tmp_path, width):
    recording(tmp_path / "a.wav", tone(200), width=width)
    samples, rate = sound.read(tmp_path / "a.wav")
    assert rate == 8000 and samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(200), atol=2.0 / 2 ** (8 * min(width, 3) - 1))
    assert sound.measure(tmp_path / "a.wav") == (2400, 8000)


def test_channels_are_averaged(tmp_path):
    both = np.stack([tone(200), np.zeros(2400)], 1)
    recording(tmp_path / "a.wav", both.ravel(), channels=2)
    np.testing.assert_allclose(sound.read(tmp_path / "a.wav")[0], tone(200) / 2, atol=1e-3)


@pytest.mark.parametrize("new", [4000, 11025, 16000])
def test_a_tone_stays_a_tone_at_another_rate(new):
    x = sound.resample(tone(200, seconds=0.5), 8000, new)
    inside = slice(200, len(x) - 200)  # beyond the ends there is nothing, which the ends feel
    assert len(x) == round(new / 2)
    np.testing.assert_allclose(x[inside], tone(200, new, 0.5)[: len(x)][inside], atol=2e-3)


def test_rates_that_differ(tmp_path):
    folder(tmp_path)
    recording(tmp_path / "low" / "e_nohash_0.wav", tone(300, 16000), 16000)
    data = open_data(tmp_path)
    assert "recordings are resampled to 8000 Hz" in data.meta["notices"]
    assert recipe_from(open_data(tmp_path, rate=4000).meta["recipe"]).rate == 4000


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    folder(tmp_path)
    (tmp_path / "low" / "a_nohash_0.wav").write_bytes(b"RIFF")
    data = open_data(tmp_path)
    assert len(data.target) == 31
    assert "1 of 32 files are left out: " in data.meta["notices"][0]
    assert "a_nohash_0.wav cannot be read as WAV: it ends early" in data.meta["notices"][0]


def test_files_written_through_a_pipe(tmp_path):
    """Their heads say that they never end, since nobody could go back to write the true size."""
    home = folder(tmp_path / "tones")
    before = open_data(home)
    for path in home.glob("*/*.wav"):
        raw = bytearray(path.read_bytes())
        raw[4:8] = raw[40:44] = b"\xff" * 4
        path.write_bytes(raw)
    assert max(sound.measure(path)[0] for path in home.glob("*/*.wav")) <= 0.41 * 8000
    after = open_data(home)
    assert after.inputs[0].shape == before.inputs[0].shape
    x, _ = sound.read(next(home.glob("*/*.wav")))
    assert np.abs(x).max() > 0.4


def test_what_is_no_pcm_needs_soundfile(tmp_path):
    try:
        import soundfile
    except ImportError:
        (tmp_path / "a.flac").write_bytes(b"fLaC" + bytes(100))
        with pytest.raises(MissingExtra, match=r"archwright\[audio\]"):
            sound.read(tmp_path / "a.flac")
        return
    soundfile.write(tmp_path / "a.flac", tone(200), 8000)
    np.testing.assert_allclose(sound.read(tmp_path / "a.flac")[0], tone(200), atol=1e-3)


FRONT = {"samples": 2400, "window": 320, "hop": 160, "mels": 10}


def energies(x, rate):
    """[mels, frames] by the formula."""
    found, size = np.empty((10, sound.frames(2400, 320, 160))), 512
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(320)) / size)
    for t in range(found.shape[1]):
        part = x[t * 160 : t * 160 + 320] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320))
        found[:, t] = sound.filters(10, 320, rate) @ (abs(waves @ part) ** 2 / size)
    return found


def test_the_mel_energies_are_those_of_the_formula():
    x = tone(700) * np.linspace(0.01, 1, 2400)
    power = energies(x, 8000)
    old = sound.log_mel(x, 8000, **FRONT)
    np.testing.assert_allclose(old, np.log(power + 1e-6), rtol=1e-8)
    assert old.mean(1).argmax() in (3, 4)
    new = sound.log_mel(x, 8000, **FRONT, floor=40)
    np.testing.assert_allclose(new, 10 * np.log10(np.maximum(power / power.max(), 1e-4)), atol=1e-8)
    assert new.max() == 0 and new.min() == -40


def test_energies_below_the_loudest_do_not_change_with_the_volume():
    x, front = tone(700) + 0.2 * tone(1900), {**FRONT, "floor": 30}
    found = sound.log_mel(x, 8000, **front)
    for volume in (0.001, 1 / 3, 40):
        np.testing.assert_allclose(sound.log_mel(volume * x, 8000, **front), found, atol=1e-8)
    np.testing.assert_array_equal(sound.log_mel(np.zeros(7), 8000, **front), -30)
    broken = np.where(np.arange(len(x)) == 900, np.inf, np.where(np.arange(len(x)) == 901, np.nan, x))
    silent = np.where((np.arange(len(x)) == 900) | (np.arange(len(x)) == 901), 0, x)
    np.testing.assert_array_equal(sound.log_mel(broken, 8000, **front), sound.log_mel(silent, 8000, **front))


@pytest.mark.parametrize("rate", [100, 1000, 8000, 16000, 44100, 192000])
def test_there_is_a_front_end_for_every_rate(rate):
    front = sound.settings(rate, rate)
    assert sound.filters(front["mels"], front["window"], rate).any(1).all()
    found = sound.log_mel(np.zeros(rate), rate, **front)
    assert found.shape[0] == front["mels"] and (found == -front["floor"]).all()
    assert sound.settings(rate, 1)["window"] == 2


def test_bands_are_as_wide_as_a_voice_needs():
    assert [sound.settings(rate, rate)["mels"] for rate in (8000, 16000, 44100)] == [24, 32, 40]


# -------------------------------------------------------------------------------------------------------------- series
def test_series_of_equal_length():
    x = np.random.default_rng(0).normal(3, 2, (40, 2, 25))
    data = open_data((x, np.arange(40) % 2))
    assert data.kind == "signal" and data.inputs[0].shape == (40, 2, 25)
    train = data.inputs[0][data.splits["train"]]
    np.testing.assert_allclose(train.mean((0, 2)), 0, atol=1e-5)
    plain = open_data((x[:, 0], np.arange(40) % 2), kind="signal")
    assert plain.inputs[0].shape == (40, 1, 25) and open_data((x[:, 0], np.arange(40) % 2)).kind == "table"


def test_series_of_unequal_length_have_a_mask():
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(2, int(n))) for n in rng.integers(3, 20, 40)]
    x[0][0, 1] = np.nan
    data = open_data((x, rng.normal(size=40)))
    length = max(part.shape[1] for part in x)
    assert data.kind == "signal" and data.inputs[0].shape == (40, 3, length) and data.task == "regression"
    assert data.inputs[0][:, 2].sum(1).tolist() == [part.shape[1] for part in x]
    assert np.isfinite(data.inputs[0]).all()
    recipe = recipe_from(data.meta["recipe"])
    np.testing.assert_array_equal(recipe.apply(x)[0], data.inputs[0])
    assert recipe.apply([np.ones((2, 99))])[0].shape == (1, 3, length)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((5, 2, 9)), np.arange(4), "got 5 signals and 4 targets"),
        (np.zeros((5, 2, 9)), None, "got signals without targets"),
        ([np.zeros((2, 5)), np.zeros((3, 6))], [0, 1], "signal 1 has shape"),
        (np.zeros((5, 2, 0)), np.arange(5), "have no samples"),
        (np.zeros((4, 2, 9)), np.array([0, 1, np.nan, 1]), "target of 1 of 4 signals is missing"),
    ],
)
def test_what_is_wrong_with_series_is_said(x, y, message):
    with pytest.raises(DataError, match=message):
        open_data((x, y) if y is not None else x, kind="signal")


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
@pytest.mark.parametrize("group", [None, "speaker", "take"])
def test_spoken_digits(group):
    data = open_data(data_file("fsdd", "recordings"), group=group)
    assert data.outputs == 10 and data.inputs[0].shape == (720, 24, 40) and np.isfinite(data.inputs[0]).all()
    assert data.meta["split"] == ("group" if group else "random") and all(data.size(s) > 50 for s in data.splits)
