"""Nets as PyTorch source: it imports without archwright, holds the same weights and computes the same numbers."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from archwright import edit, ops
from archwright.errors import EmitError
from archwright.exchange.source import source_text, to_source
from archwright.ir import Graph
from archwright.net.net import Net, example
from tests.net import graphs, nets

NETS = {**graphs.ALL, **nets.ALL}
_numbers = itertools.count()


def read(path: Path) -> ModuleType:
    """Import a written file."""
    spec = importlib.util.spec_from_file_location(f"written_{next(_numbers)}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    spec.loader.exec_module(module)
    assert not [name for name in set(sys.modules) - before if name.startswith("archwright")]
    return module


def same(net: Net, model: nn.Module, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """The model computes what the net does, in eval and train mode, and leaves the same buffers."""
    for train, batch in ((False, 2), (False, 3), (True, 4)):
        model.train(train)
        args = example(net.graph, batch, seed=batch)
        weights = {name: tensor.clone() for name, tensor in net.weights.items()}
        model.load_state_dict(weights)
        torch.manual_seed(3)
        wanted = ops.run(net.graph, weights, args, train)
        torch.manual_seed(3)
        got = model(*args)
        got = got if isinstance(got, tuple) else (got,)
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, weights[name], rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", NETS)
def test_computes_the_same(name: str, tmp_path: Path) -> None:
    net = nets.moved(NETS[name]())
    written = to_source(net, tmp_path / "model.py")
    text = written.path.read_text()
    assert "archwright" not in text.split('"""', 2)[2]
    assert max(map(len, text.splitlines())) <= 120
    model = read(written.path).load()
    assert not model.training
    assert set(model.state_dict()) == set(net.weights)
    same(net, model)


def test_equal_blocks_are_one_class_with_arguments() -> None:
    text = source_text(nets.residual(widths=(8, 16, 24), blocks=3))
    assert text.count("class ") == 3, text
    assert "self.layer2 = nn.Sequential(Layer2Block(8, 16), *[" in text or "nn.Sequential(Layer2Block(8, 16)" in text
    assert "super().__init__()" in text


def test_chains_of_numbers_are_sequential() -> None:
    text = source_text(nets.sequential())
    assert "class Net(nn.Sequential):" in text and "nn.Identity()" in text and "nn.ReLU()" in text
    assert "def forward" not in text


def test_equal_calls_are_a_loop() -> None:
    text = source_text(nets.vision_transformer(blocks=4))
    assert "nn.Sequential(*[Block() for _ in range(4)])" in text
    assert text.count("class ") == 5


def test_names_cannot_clash() -> None:
    g = edit()
    x = g.input("input", (None, 4))
    for name in ("class", "train", "a-b", "_", "self", "torch", "F"):
        x = g.add("linear", x, out=4, name=name)
    x = g.add("relu", g.add("linear", x, out=4, name="outer"), name="outer.inner")
    x = g.add("linear", x, out=4, name="outer.deep.fc")
    _same_text(g.finish(x))


def test_one_slot_under_two_ops(tmp_path: Path) -> None:
    g = edit()
    ids = g.input("ids", (None, 3), "int64")
    x = g.add("embedding", ids, num=8, dim=5, name="embed")
    x = g.add("linear", x, out=8, bias=False, name="out", slot="embed")
    _same_text(g.finish(x))


def _same_text(graph: Graph) -> None:
    with tempfile.TemporaryDirectory() as folder:
        net = nets.moved(graph)
        same(net, read(to_source(net, Path(folder) / "model.py").path).load())


def test_refuses_a_weight_that_is_also_a_scope() -> None:
    g = edit()
    x = g.input("x", (None, 4))
    x = g.add("linear", x, out=4, name="a")
    x = g.add("add", x, g.add("param", shape=(4,), name="p", slot="a"))
    with pytest.raises(EmitError, match="weight 'a'"):
        source_text(g.finish(x))


def test_refuses_an_op_without_source(monkeypatch: pytest.MonkeyPatch) -> None:
    relu = ops.get("relu")
    table = {**ops.table(), "relu": dataclasses.replace(relu, source=None)}
    monkeypatch.setattr(ops.registry, "table", lambda: table)
    ops.engine._MEMO.clear()
    try:
        with pytest.raises(EmitError, match=r"no form in PyTorch source for relu at 'stem\.act' and 4 more"):
            source_text(graphs.cnn())
    finally:
        ops.engine._MEMO.clear()


def test_wants_a_python_file(tmp_path: Path) -> None:
    with pytest.raises(EmitError, match=r"ends in \.py"):
        to_source(nets.moved(graphs.mlp()), tmp_path / "model.safetensors")


def test_what_runs_in_one_mode_only(tmp_path: Path) -> None:
    g = edit()
    x = g.input("x", (None, 4))
    noise = g.add("random_like", x, kind="normal", name="block.noise")
    noisy = g.add("linear", g.add("add", x, noise, name="block.add"), out=4, name="block.fc")
    plain = g.add("tanh", x, name="plain")
    y = g.add("by_mode", noisy, plain, name="choice")
    net = nets.moved(g.finish(g.add("dropout", y, p=0.5)))
    written = to_source(net, tmp_path / "model.py")
    assert "if self.training:" in written.path.read_text()
    same(net, read(written.path).load())


def test_inner_numbers_that_differ_are_arguments() -> None:
    text = source_text(nets.residual(widths=(8, 16), blocks=2))
    assert "def __init__(self, channels: int) -> None:" in text
    assert "self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)" in text
