import cmath
import math
import wave

import numpy as np
import pytest
import torch

from archwright import ops
from archwright.data.home import data_home
from archwright.errors import DataError
from archwright.net.cost import cost
from archwright.parts.task.hello_edge_kws import (
    case,
    claim,
    dnn,
    ds_cnn,
    features,
    fit_length,
    load,
    mel_filters,
    read_wav,
    resample,
    shifted,
)

FRONT = {"rate": 4000, "seconds": 0.05, "window": 48, "hop": 20, "mels": 6, "coefficients": 4}
HP = {"rate": 4000, "seconds": 0.3, "mels": 16, "coefficients": 8}


def mfcc_by_sums(x, f):
    """The formulas of the file's head, number by number."""
    size = 64  # the next power of two
    frames = (len(x) - f["window"]) // f["hop"] + 1
    filters = mel_filters(f["mels"], size, f["rate"])
    out = np.zeros((f["coefficients"], frames))
    for t in range(frames):
        power = []
        for k in range(size // 2 + 1):
            total = 0
            for m in range(f["window"]):
                hann = math.sin(math.pi * m / f["window"]) ** 2
                total += hann * x[t * f["hop"] + m] * cmath.exp(-2j * math.pi * k * m / size)
            power.append(abs(total) ** 2 / size)
        energy = [math.log(sum(filters[b][k] * power[k] for k in range(len(power))) + 1e-6) for b in range(f["mels"])]
        for c in range(f["coefficients"]):
            scale = math.sqrt((1 if c == 0 else 2) / f["mels"])
            out[c, t] = scale * sum(
                e * math.cos(math.pi * c * (2 * b + 1) / (2 * f["mels"])) for b, e in enumerate(energy)
            )
    return out


def write(path, frames, width=2, channels=1, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(frames)


def test_mfcc_is_the_sums():
    x = np.random.default_rng(0).standard_normal(200)
    np.testing.assert_allclose(features(x, FRONT), mfcc_by_sums(x, FRONT), rtol=1e-9, atol=1e-9)
    log_mel = features(x, {**FRONT, "coefficients": 0})
    assert log_mel.shape == (6, 8)
    np.testing.assert_allclose(features(x, FRONT)[0], log_mel.sum(0) / math.sqrt(6))


def test_a_tone_is_loudest_in_the_triangle_around_it():
    t = np.arange(4000) / 4000
    filters = mel_filters(6, 64, 4000)
    for tone in (300.0, 900.0, 1600.0):
        energy = features(np.sin(2 * np.pi * tone * t), {**FRONT, "coefficients": 0}).mean(1)
        assert energy.argmax() == filters[:, round(tone / 4000 * 64)].argmax()
    with pytest.raises(DataError, match="no frequency"):
        mel_filters(60, 64, 4000)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_wav_of_every_width_and_two_channels(tmp_path, width):
    wanted = np.array([[0.5, -0.25], [-1.0, 0.0], [0.0, 0.75]])
    top = 2 ** (8 * width - 1)
    raw = b"".join(
        int(v * top + (128 if width == 1 else 0)).to_bytes(width, "little", signed=width > 1) for v in wanted.ravel()
    )
    write(tmp_path / "a.wav", raw, width, 2, 16000)
    x, rate = read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(x, wanted.mean(1), atol=1e-6)
    assert rate == 16000


def test_resampling_keeps_a_tone_and_lengths_are_centred():
    t = np.arange(6000) / 6000
    x = resample(np.sin(2 * np.pi * 440 * t), 6000, 8000)
    assert len(x) == 8000
    np.testing.assert_allclose(x[500:-500], np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)[500:-500], atol=5e-3)
    assert fit_length(np.arange(5.0), 3).tolist() == [1, 2, 3]
    assert fit_length(np.arange(1.0, 3.0), 5).tolist() == [0, 1, 2, 0, 0]
    assert fit_length(np.arange(3.0), 3).tolist() == [0, 1, 2]


def test_splits_by_speaker_keep_speakers_apart(tmp_path):
    (source,) = case(0, tmp_path)
    for seed in range(3):
        data = load(source, by="speaker", seed=seed, **HP)
        speakers = np.array([path.stem.split("_")[1] for path in sorted(source.iterdir())])
        kept = [set(speakers[data.splits[name]]) for name in ("train", "valid", "test")]
        assert sum(map(len, kept)) == len(set.union(*kept)) == 4
    assert data.classes == ("down", "flat", "up") and data.outputs == 3
    x = data.inputs[0][data.splits["train"]]
    np.testing.assert_allclose(x.mean((0, 2)), 0, atol=1e-5)


def test_splits_by_take_follow_the_numbers(tmp_path):
    rng = np.random.default_rng(0)
    for take in range(8):
        for label in "01":
            noise = (rng.standard_normal(900) * 3000).astype("<i2")
            write(tmp_path / f"{label}_ann_{take}.wav", noise.tobytes(), rate=4000)
    data = load(tmp_path, **HP)
    assert [data.size(name) for name in ("train", "valid", "test")] == [4, 2, 10]
    with pytest.raises(DataError, match="speakers are known"):
        load(tmp_path, by="speaker", **HP)


def test_class_folders(tmp_path):
    rng = np.random.default_rng(1)
    for label in ("no", "yes"):
        (tmp_path / label).mkdir()
        for speaker in ("aa", "bb", "cc", "dd"):
            noise = (rng.standard_normal(900) * 3000).astype("<i2")
            write(tmp_path / label / f"{speaker}_nohash_0.wav", noise.tobytes(), rate=4000)
    (tmp_path / "_background_noise_").mkdir()
    data = load(tmp_path, by="speaker", **HP)
    assert data.classes == ("no", "yes") and data.meta["speakers"] == ["aa", "bb", "cc", "dd"]


def test_bad_sources_are_said(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no WAV"):
        load(tmp_path)
    (tmp_path / "1_ann_0.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(DataError, match="cannot be read as WAV"):
        load(tmp_path)
    (tmp_path / "1_ann_0.wav").rename(tmp_path / "one.wav")
    with pytest.raises(DataError, match="label_speaker_take"):
        load(tmp_path)
    write(tmp_path / "one.wav", b"")
    with pytest.raises(DataError, match="no samples"):
        read_wav(tmp_path / "one.wav")
    with pytest.raises(DataError, match="front end"):
        load(tmp_path, coefficients=50)


def test_cost_of_ds_cnn_is_the_hand_count(tmp_path):
    data = load(case(0, tmp_path)[0], by="speaker", **HP)
    _, height, width = data.inputs[0].shape
    graph = ds_cnn(data, width=8, blocks=2)
    positions = (height // 2 + 1) * (width // 2 + 1)
    macs = positions * (8 * 40 + 2 * (8 * 9 + 8 * 8)) + 8 * 3
    assert cost(graph).flops == 2 * macs
    weights = 8 * 40 + 2 * (8 * 9 + 8 * 8) + 5 * 2 * 8 + 8 * 3 + 3
    assert cost(graph).params == weights
    assert ops.infer(dnn(data, width=5))[dnn(data, width=5).outputs[0]].shape == (1, 3)


def test_shifts_move_whole_recordings():
    x = torch.arange(12.0).reshape(1, 2, 6).repeat(50, 1, 1)
    (moved,) = shifted(2)((x,), np.random.default_rng(0))
    offsets = set()
    for row in moved:
        offset = int(row[0, 2] - 2)
        offsets.add(offset)
        places = (torch.arange(6) + offset).clamp(0, 5)
        assert torch.equal(row, x[0][:, places])
    assert offsets == {-2, -1, 0, 1, 2}


@pytest.mark.data
@pytest.mark.slow
def test_claim_holds():
    if data_home() is None:
        pytest.skip("the data folder is not there: set ARCHWRIGHT_DATA")
    assert claim().held
