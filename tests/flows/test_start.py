"""What can be made of a network: as it is, wider and deeper without a change of its function, and smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from archwright import live, ops
from archwright.core.space import Space, Spec
from archwright.data.data import Data, from_arrays
from archwright.errors import FormatError, TypeMismatch
from archwright.flows.start import ACTIVATIONS, WIDTHS, Begin, Variants, around
from archwright.net.build import build
from archwright.net.net import Net, example, init, load


def mlp(outputs: int = 3) -> Net:
    """A residual network for tables, with batch statistics that are not those of a fresh one."""
    g = ops.edit()
    x = g.add("linear", g.input("x", (None, 6)), out=8, name="stem")
    y = g.add("batch_norm", x, name="norm")
    y = g.add("linear", g.add("relu", y, name="act0"), out=16, name="up")
    y = g.add("linear", g.add("gelu", y, name="act1"), out=8, name="down")
    x = g.add("add", y, x, name="sum")
    x = g.add("silu", g.add("linear", x, out=8, name="same"), name="act2")
    return seeded(g.finish(g.add("linear", x, out=outputs, name="head")))


def cnn() -> Net:
    """A residual network for images."""
    g = ops.edit()
    x = g.add("relu", g.add("conv", g.input("x", (None, 1, 8, 8)), out=6, kernel=3, padding=1, name="stem"), name="a0")
    y = g.add("conv", x, out=6, kernel=3, padding=1, name="c1")
    y = g.add("relu", g.add("batch_norm", y, name="n1"), name="a1")
    x = g.add("add", g.add("conv", y, out=6, kernel=3, padding=1, name="c2"), x, name="sum")
    x = g.add("mean", g.add("relu", x, name="a2"), dim=[2, 3])
    return seeded(g.finish(g.add("linear", x, out=4, name="head")))


def seeded(graph: Any) -> Net:
    net = init(graph, 3)
    generator = torch.Generator().manual_seed(4)
    return Net(graph, {
        name: w + 0.3 * torch.rand(w.shape, generator=generator) if w.is_floating_point() else w
        for name, w in net.weights.items()
    })  # fmt: skip


NETS = {"mlp": mlp, "cnn": cnn}


def run(net: Net, count: int = 7) -> torch.Tensor:
    with torch.no_grad():
        return build(net).eval()(*example(net.graph, count))


def as_it_is(variants: Variants) -> dict[str, Any]:
    spec = Spec(tuple([tuple(n.attrs["shape"]) for n in variants.origin.graph.inputs]), 1)
    plain = Space("start", variants.draw, spec)
    rng = np.random.default_rng(0)
    trace = plain.random(rng)
    return {name: options.values[0] for name, options in plain.decisions(trace).items()}


@pytest.mark.parametrize("name", NETS)
def test_as_it_is(name: str) -> None:
    net = NETS[name]()
    variants = Variants(net)
    same = variants.net(as_it_is(variants))
    assert same.graph == net.graph
    assert same.weights.keys() == net.weights.keys()
    assert all(torch.equal(same.weights[n], w) for n, w in net.weights.items())
    assert variants.blocks and variants.widths and variants.places and variants.acts


@pytest.mark.parametrize("share", [w for w in WIDTHS if w > 1])
@pytest.mark.parametrize("name", NETS)
def test_growing_keeps_the_function(name: str, share: float) -> None:
    net = NETS[name]()
    variants = Variants(net)
    for width in variants.widths:
        grown = variants.net({**as_it_is(variants), f"width.{width}": share})
        assert grown.cost().params > net.cost().params
        torch.testing.assert_close(run(grown), run(net), rtol=1e-4, atol=1e-4)
    every = {f"width.{width}": share for width in variants.widths}
    torch.testing.assert_close(run(variants.net({**as_it_is(variants), **every})), run(net), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETS)
def test_inserting_keeps_the_function_and_can_be_trained(name: str) -> None:
    net = NETS[name]()
    variants = Variants(net)
    for place in variants.places:
        longer = variants.net({**as_it_is(variants), f"insert.{place}": True})
        assert len(longer.graph.nodes) > len(net.graph.nodes)
        torch.testing.assert_close(run(longer), run(net), rtol=1e-5, atol=1e-5)
        module = build(longer).train()
        module(*example(longer.graph, 7)).square().sum().backward()
        inserted = [p for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(inserted) > len(net.weights) // 2
        weights = {n: w for n, w in longer.weights.items() if n.startswith("inserted") and "second.weight" in n}
        assert weights and not any(w.any() for w in weights.values())


@pytest.mark.parametrize("name", NETS)
def test_narrowing_and_leaving_out(name: str) -> None:
    net = NETS[name]()
    variants = Variants(net)
    for choice in [f"drop.{n}" for n in variants.blocks]:
        smaller = variants.net({**as_it_is(variants), choice: True})
        assert smaller.cost().params <= net.cost().params and run(smaller).shape == run(net).shape
        kept = [n for n in smaller.weights if n in net.weights]
        assert kept and all(torch.equal(smaller.weights[n], net.weights[n]) for n in kept)
    for width in variants.widths:
        narrow = variants.net({**as_it_is(variants), f"width.{width}": 0.5})
        assert narrow.cost().params < net.cost().params and run(narrow).isfinite().all()


def test_the_strongest_units_stay() -> None:
    net = mlp()
    weights = {name: w.clone() for name, w in net.weights.items()}
    weights["up.weight"][::2] *= 1e-6
    weights["up.bias"][::2] = 0
    weights["down.weight"][:, ::2] *= 1e-6
    net = Net(net.graph, weights)
    half = Variants(net).net({"width.up.weight.0": 0.5})
    assert torch.equal(half.weights["up.weight"], weights["up.weight"][1::2])
    torch.testing.assert_close(run(half), run(net), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_other_activations(act: str) -> None:
    net = mlp()
    other = Variants(net).net({"act": act})
    assert [n.op for n in other.graph.nodes if n.op in ACTIVATIONS] == [act] * 3
    assert all(torch.equal(other.weights[n], w) for n, w in net.weights.items())


@pytest.mark.parametrize("name", NETS)
def test_whatever_is_drawn_runs_in_both_directions(name: str) -> None:
    net = NETS[name]()
    variants = Variants(net)
    spec = Spec(tuple([tuple(n.attrs["shape"]) for n in net.graph.inputs]), run(net).shape[1])
    space = Space("start", variants.draw, spec)
    rng = np.random.default_rng(1)
    trace = space.random(rng)
    for _ in range(12):
        trace = space.mutate(trace, rng)
        made = variants.net(trace)
        assert made.graph == space.draw(trace)
        out = build(made).train()(*example(made.graph, 5))
        assert out.shape == (5, spec.outputs) and out.isfinite().all()
        out.sum().backward()


# ------------------------------------------------------------------------------------------------------ around it
def table() -> Data:
    rng = np.random.default_rng(0)
    return from_arrays(rng.normal(size=(40, 6)).astype(np.float32), np.arange(40) % 3)


def test_around_a_net_and_its_folder(tmp_path: Path) -> None:
    net, data = mlp(), table()
    begin = around(net, data, tmp_path / "start")
    assert isinstance(begin, Begin) and begin.space.spec == Spec.of(data)
    assert around(net.save(tmp_path / "net"), data, tmp_path / "x").variants.origin.graph == net.graph
    rng = np.random.default_rng(0)
    for shape in begin.known:
        full = {**begin.space.random(rng), **shape}
        folder = begin.folder(full)
        assert folder == begin.folder(full)  # written once
        assert Path(folder).parent == tmp_path / "start" and not list(Path(folder).parent.glob(".*"))
    assert len(list((tmp_path / "start").iterdir())) == 1  # training choices make no other net
    assert all(torch.equal(w, net.weights[n]) for n, w in load(folder).weights.items())


def test_weights_of_an_earlier_start_are_not_taken(tmp_path: Path) -> None:
    """The folder of a search outlives it: the user's network may have been trained further, or be another one."""
    net, data = mlp(), table()
    other = Net(net.graph, {name: 2 * w if w.is_floating_point() else w for name, w in net.weights.items()})
    begun = [around(one, data, tmp_path / "start") for one in (net, other)]
    assert begun[0].key == begun[1].key and begun[0].weights != begun[1].weights
    trace = {**begun[0].space.random(np.random.default_rng(0)), **begun[0].known[0]}
    for begin, made in zip(begun, (net, other), strict=True):
        found = load(begin.folder(trace)).weights
        assert all(torch.equal(w, made.weights[n]) for n, w in found.items())
    assert around(net, data, tmp_path / "start").folder(trace) == begun[0].folder(trace)
    live.clean(tmp_path)
    assert not (tmp_path / "start").exists()


def test_nets_for_other_data_and_no_nets(tmp_path: Path) -> None:
    with pytest.raises(TypeMismatch, match=r"gives \[\[2\]\] numbers for a sample, expected \[3\]"):
        around(mlp(2), table(), tmp_path)
    with pytest.raises(TypeMismatch, match="takes inputs"):
        around(cnn(), table(), tmp_path)
    with pytest.raises(FormatError, match=r"holds no graph.json"):
        around(tmp_path, table(), tmp_path)
