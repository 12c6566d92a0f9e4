"""ONNX files of nets: what ONNX Runtime computes from them, what they declare, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from archwright import edit, ops
from archwright.errors import EmitError
from archwright.exchange import onnx as emit
from archwright.exchange.onnx import onnx_model, to_onnx
from archwright.net.net import Net, example, init
from tests.net import graphs, nets

NETS = {**graphs.ALL, **nets.ALL}


def _run(path: Path, net: Net, batch: int) -> tuple[list[np.ndarray], list[torch.Tensor]]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    args = example(net.graph, batch, seed=batch)
    taken = {given.name for given in session.get_inputs()}
    feeds = {n.name: a.numpy() for n, a in zip(net.graph.inputs, args, strict=True) if n.name in taken}
    return session.run(None, feeds), list(ops.run(net.graph, net.weights, args))


@pytest.mark.parametrize("name", NETS)
def test_same_numbers_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    net = nets.moved(NETS[name]())
    written = to_onnx(net, tmp_path / "net.onnx")
    assert written.path == tmp_path / "net.onnx" and written.bytes == written.path.stat().st_size
    assert written.difference is not None and written.difference < 1e-4
    for batch in (1, 5):
        for got, wanted in zip(*_run(written.path, net, batch), strict=True):
            scale = max(1e-3, float(wanted.abs().max()))
            np.testing.assert_allclose(got / scale, wanted.numpy() / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_declares_what_it_is(name: str) -> None:
    net = nets.moved(NETS[name]())
    model = onnx_model(net)
    assert [o.version for o in model.opset_import if o.domain == ""] == [20] and model.ir_version == 10
    types = ops.infer(net.graph, 7)
    for node, given in zip(net.graph.inputs, model.graph.input, strict=True):
        sizes = [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim]
        assert given.name == node.name and sizes == ["batch" if n is None else n for n in node.attrs["shape"]]
    for value, made in zip(net.graph.outputs, model.graph.output, strict=True):
        sizes = [d.dim_param or d.dim_value for d in made.type.tensor_type.shape.dim]
        assert [7 if n == "batch" else n for n in sizes] == list(types[value].shape)
    written = {tensor.name for tensor in model.graph.initializer}
    for node in ops.reads(net.graph, False):
        for param, wanted in ops.analyse(net.graph)[node].params.items():
            assert wanted.buffer or ops.weight_name(net.graph[node].slot or "", param) in written
    values = [name for node in model.graph.node for name in node.output]
    assert len(values) == len(set(values))


def test_weights_in_half_precision_are_written_in_the_graph_s_dtype(tmp_path: Path) -> None:
    net = nets.moved(graphs.mlp())
    half = Net(net.graph, {k: t.half() if t.is_floating_point() else t for k, t in net.weights.items()})
    model = onnx.load(to_onnx(half, tmp_path / "half.onnx").path)
    assert {t.data_type for t in model.graph.initializer if "weight" in t.name} == {onnx.TensorProto.FLOAT}


def test_weights_of_large_nets_stand_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emit, "_ONE_FILE", 1000)
    net = nets.moved(graphs.cnn(channels=32))
    written = to_onnx(net, tmp_path / "net.onnx")
    data = tmp_path / "net.onnx.data"
    assert data.exists() and written.bytes == data.stat().st_size + written.path.stat().st_size
    for got, wanted in zip(*_run(written.path, net, 3), strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_given_inputs_are_used_for_the_check(tmp_path: Path) -> None:
    net = nets.moved(graphs.mlp())
    assert to_onnx(net, tmp_path / "a.onnx", inputs=example(net.graph, 4)).difference is not None
    assert to_onnx(net, tmp_path / "b.onnx", check=False).difference is None


def test_refuses_what_has_no_form_and_writes_nothing(tmp_path: Path) -> None:
    g = edit()
    x = g.input("x", (None, 4))
    x = g.add("opaque", x, target="aten.sinc.default", args=({"input": 0},), kwargs={}, name="odd")
    net = init(g.finish(x))
    with pytest.raises(EmitError, match=r"opaque \(aten\.sinc\.default\) at 'odd'"):
        to_onnx(net, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_says_where_torch_and_onnx_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = nets.moved(graphs.cnn())
    relu = ops.get("relu")
    monkeypatch.setattr(emit.ops.registry, "get", lambda name: _lying(relu) if name == "relu" else ops.table()[name])
    net.graph.derived.clear()
    ops.engine._MEMO.clear()
    try:
        with pytest.raises(EmitError, match=r"part at node 'stem\.act' \(relu"):
            to_onnx(net, tmp_path / "net.onnx")
    finally:
        ops.engine._MEMO.clear()
    assert not list(tmp_path.iterdir())


def _lying(op: ops.Op) -> ops.Op:
    import dataclasses

    return dataclasses.replace(op, onnx=lambda o, a, x, w, xt, yt: o.node("Sigmoid", x))


def test_half_precision_and_bfloat16(tmp_path: Path) -> None:
    g = edit()
    x = g.input("x", (None, 8), "float16")
    assert to_onnx(init(g.finish(g.add("linear", x, out=4))), tmp_path / "half.onnx").difference is not None
    g = edit()
    net = init(g.finish(g.add("relu", g.input("x", (None, 8), "bfloat16"))))
    with pytest.raises(EmitError, match="'x' is bfloat16"):
        to_onnx(net, tmp_path / "b.onnx")
    assert to_onnx(net, tmp_path / "b.onnx", check=False).bytes > 0


def test_equal_numbers_may_stand_in_any_order(tmp_path: Path) -> None:
    g = edit()
    x = g.add("relu", g.input("x", (None, 40)))  # half of them 0
    _, places = g.add("topk", x, k=30, dim=1)
    net = init(g.finish(g.add("cumsum", g.add("gather", x, g.add("sort", places, dim=1)[0], dim=1), dim=1)))
    assert to_onnx(net, tmp_path / "net.onnx").difference < 1e-4


def test_complex_values_are_pairs_of_real_ones(tmp_path: Path) -> None:
    g = edit()
    x = g.input("x", (None, 6, 10))
    y = g.add("transpose", g.add("rfft", x), dim0=1, dim1=-1)
    y = g.add("mul", y, g.add("param", shape=(6, 6), dtype="complex64", init=("ones",), name="filter"))
    y = g.add("concat", g.add("flip", y, dims=(-1,)), g.add("unsqueeze", g.add("sum", y, dim=(1,)), dim=1), dim=1)
    net = init(g.finish(y, g.add("abs", y)))
    model = onnx.load(to_onnx(net, tmp_path / "net.onnx").path)
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim][1:] == [7, 6, 2]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(EmitError, match="is a folder"):
        to_onnx(init(graphs.mlp()), tmp_path)
