"""Every captured fixture as ONNX, as PyTorch source and as a picture."""

from __future__ import annotations

import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from archwright import capture, draw
from archwright.net.onnx import to_onnx
from archwright.net.source import to_source
from tests.fixtures import models
from tests.net.test_source import read, same

QUICK = set(models.NAMES[::4])
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in models.NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_written(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = capture(*models.make(name), prove=False)
    written = to_onnx(net, tmp_path / "net.onnx")  # compares with ONNX Runtime at two batch sizes
    assert written.difference is not None and written.difference < 1e-3
    source = to_source(net, tmp_path / "net.py")
    assert max(map(len, source.path.read_text().splitlines())) <= 120
    model = read(source.path).load()
    assert set(model.state_dict()) == set(net.weights)
    same(net, model)
    ElementTree.fromstring(draw(net))
