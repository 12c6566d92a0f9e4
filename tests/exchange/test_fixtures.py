"""Every captured fixture as ONNX, as PyTorch source and as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from archwright import draw
from archwright.exchange.onnx import to_onnx
from archwright.exchange.source import to_source
from tests.exchange.test_source import read, same
from tests.fixtures.models import NAMES
from tests.fixtures.nets import captured


@pytest.mark.parametrize("name", NAMES)
def test_written(name: str, tmp_path: Path) -> None:
    net = captured(name)
    written = to_onnx(net, tmp_path / "net.onnx")  # compares with ONNX Runtime at two batch sizes
    assert written.difference is not None and written.difference < 1e-3
    source = to_source(net, tmp_path / "net.py")
    assert max(map(len, source.path.read_text().splitlines())) <= 120
    model = read(source.path).load()
    assert set(model.state_dict()) == set(net.weights)
    same(net, model)
    ElementTree.fromstring(draw(net))
