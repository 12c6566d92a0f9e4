"""scan: bodies as graphs against plain loops and torch.nn layers."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from archwright import ops
from archwright.errors import FormatError, GraphError, TypeMismatch
from archwright.ir import Attrs, Graph, Type
from archwright.net.net import Net, init
from tests.ops.harness import check

some = settings(max_examples=12, deadline=None, derandomize=True)
sizes, flags = st.integers(1, 5), st.booleans()


def numbers(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def data(graph: Graph) -> dict:
    return json.loads(graph.to_json())


def lstm_body(inside: int, hidden: int) -> dict:
    g = ops.edit()
    x, h, c = g.input("x", (None, inside)), g.input("h", (None, hidden)), g.input("c", (None, hidden))
    h, c = g.add("lstm_cell", x, h, c, hidden=hidden, name="cell")
    return data(g.finish(h, h, c))


def leaky_body(inside: int, out: int) -> dict:
    """s' = s / 2 + W x; y = [tanh(s'), x]."""
    g = ops.edit()
    x, s = g.input("x", (None, inside)), g.input("s", (None, out))
    new = g.add("add", g.add("mul", s, value=0.5), g.add("linear", x, out=out, name="in"))
    return data(g.finish(g.add("concat", g.add("tanh", new), x, dim=1), new))


@some
@given(sizes, st.integers(1, 3), sizes, sizes, flags, flags)
def test_scan_of_a_cell_is_the_layer(steps, batch, inside, hidden, reverse, batch_first):
    dim = 1 if batch_first else 0
    shape = (batch, steps, inside) if batch_first else (steps, batch, inside)

    def reference(x, h, c, **w):
        layer = torch.nn.LSTM(inside, hidden, batch_first=batch_first)
        weights = {f"{name.removeprefix('cell.')}_l0": t for name, t in w.items()}
        x = x.flip(dim) if reverse else x
        out, (h, c) = torch.func.functional_call(layer, weights, (x, (h[None], c[None])))
        return out.flip(dim) if reverse else out, h[0], c[0]

    x = [numbers(*shape), numbers(batch, hidden, seed=4), numbers(batch, hidden, seed=5)]
    attrs = {"body": lstm_body(inside, hidden), "dim": dim, "reverse": reverse}
    check("scan", attrs, x, reference=reference, batch_dim=[1 - dim, 0, 0], rtol=1e-4, atol=1e-5, keeps=False)


@some
@given(sizes, st.integers(1, 3), sizes, sizes, flags, st.sampled_from([1, -2]))
def test_scan_against_a_loop(steps, batch, inside, out, reverse, dim):
    def reference(x, s, **w):
        ys = []
        for t in reversed(range(steps)) if reverse else range(steps):
            s = s / 2 + x[:, t] @ w["in.weight"].T + w["in.bias"]
            ys.append(torch.cat([s.tanh(), x[:, t]], 1))
        return torch.stack(ys[::-1] if reverse else ys, 1), s

    x = [numbers(batch, steps, inside), numbers(batch, out, seed=4)]
    check("scan", {"body": leaky_body(inside, out), "dim": dim, "reverse": reverse}, x, reference=reference, rtol=1e-4)


def test_what_autograd_keeps():
    check("scan", {"body": leaky_body(30, 20)}, [numbers(16, 7, 30), numbers(16, 20)])


def test_without_states():
    g = ops.edit()
    x = g.input("x", (None, 3, 4))
    body = data(g.finish(g.add("relu", g.add("conv", x, out=2, kernel=3, padding=1, name="c"))))

    def reference(x, **w):
        steps = [F.conv1d(step, w["c.weight"], w["c.bias"], padding=1) for step in x.unbind(2)]
        return torch.stack(steps, 2).relu()

    check("scan", {"body": body, "dim": 2}, [numbers(2, 3, 5, 4)], reference=reference, rtol=1e-4)


def test_training_draws_and_counts_at_every_step():
    g = ops.edit()
    x, s = g.input("x", (None, 4)), g.input("s", (None, 4))
    y = g.add("dropout", g.add("batch_norm", x, name="norm"))
    body = data(g.finish(y, g.add("add", s, y)))
    g = ops.edit()
    made = g.add("scan", g.input("x", (None, 3, 4)), g.input("s", (None, 4)), body=body, name="loop")
    net = init(g.finish(*made))
    weights = {name: t.clone() for name, t in net.weights.items()}
    x, s = numbers(5, 3, 4), numbers(5, 4, seed=4)
    norm, ys, total = torch.nn.BatchNorm1d(4), [], s
    torch.manual_seed(0)
    for t in range(3):
        ys.append(torch.nn.functional.dropout(norm(x[:, t])))
        total = total + ys[-1]
    torch.manual_seed(0)
    got = ops.run(net.graph, weights, (x, s), train=True)
    torch.testing.assert_close(got[0], torch.stack(ys, 1))
    torch.testing.assert_close(got[1], total)
    for name, t in norm.state_dict().items():
        torch.testing.assert_close(weights[f"loop.norm.{name}"], t)


def test_scan_within_scan():
    g = ops.edit()
    x, s = g.input("x", (None, 3, 2)), g.input("s", (None, 4))
    made = g.add("scan", x, s, body=leaky_body(2, 4), name="inner")
    body = data(g.finish(*made))
    x = [numbers(2, 5, 3, 2), numbers(2, 4, seed=4)]
    check("scan", {"body": body}, x, keeps=False)
    g = ops.edit()
    g.add("scan", g.input("x", (None, 5, 3, 2)), g.input("s", (None, 4)), body=body, name="outer")
    assert set(ops.params(g.finish("outer"))) == {"outer.inner.in.weight", "outer.inner.in.bias"}


def test_a_net_with_a_scan_is_saved_and_loaded(tmp_path):
    from archwright.net.net import load

    g = ops.edit()
    made = g.add("scan", g.input("x", (None, 5, 3)), g.input("s", (None, 4)), body=leaky_body(3, 4), name="loop")
    net = init(g.finish(*made))
    net.save(tmp_path)
    again = load(tmp_path)
    assert isinstance(again, Net)
    assert again.graph == net.graph
    x = (numbers(2, 5, 3), numbers(2, 4))
    for a, b in zip(ops.run(again.graph, again.weights, x), ops.run(net.graph, net.weights, x), strict=True):
        torch.testing.assert_close(a, b)


def test_errors_say_what_was_got():
    body = leaky_body(3, 4)

    def facts(body, *types):
        return ops.facts("scan", Attrs(body=body), types)

    with pytest.raises(TypeMismatch, match="expected a graph as a mapping"):
        facts("a graph", Type((2, 5, 3)))
    with pytest.raises(FormatError, match="nodes"):
        facts({"version": 1}, Type((2, 5, 3)))
    with pytest.raises(TypeMismatch, match="has 2 inputs, expected 1"):
        facts(body, Type((2, 5, 3)))
    with pytest.raises(TypeMismatch, match="input 'x' is float32"):
        facts(body, Type((2, 5, 2)), Type((2, 4)))
    with pytest.raises(TypeMismatch, match=r"batches of \[2, 3\]"):
        facts(body, Type((2, 5, 3)), Type((3, 4)))
    with pytest.raises(TypeMismatch, match="at least one step"):
        facts(body, Type((2, 0, 3)), Type((2, 4)))
    g = ops.edit()
    x, s = g.input("x", (None, 3)), g.input("s", (None, 4))
    wider = data(g.finish(x, g.add("linear", s, out=5)))
    with pytest.raises(TypeMismatch, match=r"state 0 is .* before the body and .* after"):
        facts(wider, Type((2, 5, 3)), Type((2, 4)))
    with pytest.raises(TypeMismatch, match="has 1 outputs, expected 2"):
        facts({**body, "outputs": body["outputs"][:1]}, Type((2, 5, 3)), Type((2, 4)))
    call = {"target": "aten.relu.default", "args": [{"input": 0}]}
    hidden = {"version": 1, "outputs": ["y"], "nodes": [
        {"name": "x", "op": "input", "attrs": {"shape": [None, 3]}},
        {"name": "y", "op": "opaque", "inputs": ["x"], "attrs": call},
    ]}  # fmt: skip
    with pytest.raises(GraphError, match="opaque"):
        facts(hidden, Type((2, 5, 3)))
