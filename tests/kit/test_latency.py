"""Measured latency: larger is slower, nets and files agree, and the collector is as it was."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from archwright import ops
from archwright.errors import FormatError
from archwright.exchange.onnx import to_onnx
from archwright.kit.latency import latency
from archwright.net.net import Net, init


def perceptron(width: int) -> Net:
    g = ops.edit()
    x = g.input("x", (None, width))
    for _ in range(3):
        x = g.add("relu", g.add("linear", x, out=width))
    return init(g.finish(x))


def test_more_work_takes_longer() -> None:
    small, large = latency(perceptron(8), seconds=0.05), latency(perceptron(1024), seconds=0.05)
    assert 0 < small.seconds < large.seconds < 1
    assert small.low <= small.seconds <= small.high and small.runs > 20
    assert latency(perceptron(1024), batch=64, seconds=0.05).seconds > 2 * large.seconds
    assert small.as_dict()["batch"] == 1


def test_a_file_is_measured_too(tmp_path: Path) -> None:
    g = ops.edit()
    x, codes = g.input("numbers", (None, 3)), g.input("categories", (None, 2), "int64")
    picked = g.add("flatten", g.add("embedding", codes, num=4, dim=2))
    path = to_onnx(init(g.finish(g.add("linear", g.add("concat", x, picked, dim=1), out=2))), tmp_path / "a.onnx").path
    assert latency(path, seconds=0.02).runs >= 3
    assert latency(str(path), seconds=0.02, batch=5).batch == 5


def test_slow_networks_run_a_few_times_and_the_collector_comes_back() -> None:
    assert gc.isenabled()
    assert latency(perceptron(16), seconds=1e-9).runs == 3
    assert gc.isenabled()


def test_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not there"):
        latency(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(FormatError, match="no model that ONNX Runtime takes"):
        latency(tmp_path / "bad.onnx")
    with pytest.raises(FormatError, match="above 0"):
        latency(perceptron(2), batch=0)
