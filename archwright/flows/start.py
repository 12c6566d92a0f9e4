"""Begin at a network that is there: a space of what can be made of it, with its weights carried along.

    width.<weight>   units of a class of tied axes: a share of what it has (the units of least norm go), or more
                     (units are doubled and what sums over them is rescaled: the function stays)
    drop.<node>      leave a block out: the branch of a residual sum, or a layer whose input and output are alike
    insert.<node>    a residual block y = x + W2 relu(W1 x) after an activation, W2 zero at first: the function stays
    act              other activations, all at once

The choice of everything as it is gives the network itself, which is the first that is tried. Growing and inserting are
exact; what is dropped, narrowed or given other activations is an approximation that training makes good.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archwright import ops
from archwright.core.choose import Choose
from archwright.core.space import Space, Spec
from archwright.data.data import Data
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.flows.bundle import Bundle
from archwright.ir import BATCH, INPUT, Graph, ancestors, owner
from archwright.kit.settings import PREFIX, with_training
from archwright.net.axes import AxisClass, TiedAxes, axes
from archwright.net.net import Net, init, load

WIDTHS = (1.0, 0.25, 0.35, 0.5, 0.7, 1.4, 2.0)
ACTIVATIONS = ("relu", "gelu", "silu", "hardswish", "elu", "tanh")
MOST = 10
"""Classes, blocks and places of each sort that are asked about: the largest, the first."""

KEEP = "keep"


@dataclass(frozen=True, eq=False)
class Begin:
    """What a search around a network needs.

    space    of its variants, with their training
    known    the first traces to try: the network as it is
    source   where it was read from
    weights  a digest of its weights
    run      the record of its making, if it is a bundle's
    folder   (trace) -> folder of the net that the trace begins with
    """

    space: Space
    known: tuple[Mapping[str, Any], ...]
    variants: Variants
    work: Path
    source: str
    weights: str
    run: Mapping[str, Any]

    @property
    def key(self) -> str:
        """That of its graph."""
        return self.variants.origin.graph.key()

    def about(self, digest: str) -> dict[str, Any]:
        """What a run records of it. `clean`: whether it is known that no row of the test split of the data of that
        digest has trained it, nor what it was begun from."""
        before = self.run.get("start") or {"clean": True}
        clean = self._knows(digest) and before.get("clean") is True
        return {"from": self.source, "key": self.key, "weights": self.weights, "clean": clean}

    def notices(self, digest: str) -> list[str]:
        """What has to be said of figures on the data of that digest: it may have been trained on any of their rows."""
        found = []
        if not self.about(digest)["clean"]:
            found.append("the network that was begun from may have been trained on rows of the test split: the test"
                         " figure may be too good")  # fmt: skip
        was = "was" if self._knows(digest) else "may have been"
        return [*found, f"the network that was begun from {was} trained on rows that are held back for validation: the"
                        " validation figures of candidates that keep its weights may be too good"]  # fmt: skip

    def _knows(self, digest: str) -> bool:
        """Whether it was made of the same data with the same splits."""
        return bool((self.run.get("data") or {}).get("digest") == digest)

    def folder(self, trace: Mapping[str, Any]) -> str:
        """The net of a trace, with the weights that it inherits, written once."""
        choices = {name: value for name, value in trace.items() if not name.startswith(PREFIX)}
        told = repr((self.key, self.weights, sorted(choices.items())))  # the next search may begin at another net
        digest = hashlib.blake2b(told.encode(), digest_size=12).hexdigest()
        place = self.work / digest
        if not place.is_dir():
            beside = self.work / f".{digest}.{os.getpid()}"  # whole or not there, whenever the process ends
            self.variants.net(choices).save(beside)
            os.replace(beside, place)
        return str(place)


def around(start: Net | str | os.PathLike[str], data: Data, work: Path) -> Begin:
    """The space around a net, or the net of a folder, for some data.

    Raises `TypeMismatch` if the net does not take the data's inputs or give what is to be predicted.
    """
    net = start if isinstance(start, Net) else load(start)
    source, run = ("memory", {}) if isinstance(start, Net) else (os.fspath(start), _record(start))
    spec = Spec.of(data)
    _check(net.graph, spec)
    variants = Variants(net)
    plain = Space("start", variants.draw, spec)
    same = {name: options.values[0] for name, options in plain.decisions(_first(variants)).items()}
    space = Space("start", with_training(variants.draw, data), spec)
    known = tuple([{**same, f"{PREFIX}lr": lr, f"{PREFIX}optimiser": "adamw"} for lr in (1e-3, 3e-3)])
    return Begin(space, known, variants, work, source, _digest(net.weights), run)


def _record(folder: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The record of a bundle; nothing of a net that was only saved, or of a bundle that was changed since."""
    try:
        return Bundle.load(folder).run
    except ArchwrightError:
        return {}


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name, w in sorted(weights.items()):
        found.update(repr((name, w.dtype, tuple(w.shape))).encode())
        found.update(w.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def _first(variants: Variants) -> dict[str, Any]:
    first: dict[str, Any] = {f"width.{name}": WIDTHS[0] for name in variants.widths}
    first |= {f"drop.{name}": False for name in variants.blocks}
    first |= {f"insert.{name}": False for name in variants.places}
    return {**first, "act": KEEP} if variants.acts else first


def _check(graph: Graph, spec: Spec) -> None:
    shapes = tuple([tuple(node.attrs["shape"]) for node in graph.inputs])
    if [s[1:] for s in shapes] != [s[1:] for s in spec.inputs]:
        raise TypeMismatch(f"the network takes inputs {list(shapes)}, the data are {list(spec.inputs)}")
    given = [ops.infer(graph, BATCH)[value].shape for value in graph.outputs]
    if given != [(BATCH, spec.outputs)]:
        raise TypeMismatch(
            f"the network gives {[list(shape[1:]) for shape in given]} numbers for a sample, expected [{spec.outputs}]"
        )


class Variants:
    """What can be made of a net.

    widths  first member's weight -> class of tied axes, largest first
    blocks  node that may be left out -> the value that takes its place
    places  values after which a block may be inserted
    acts    nodes with an activation
    """

    def __init__(self, net: Net) -> None:
        self.origin = net
        tied = axes(net)
        free = sorted([c for c in tied if c.remove and c.grow and c.size > 1 and c.members], key=lambda c: -c.size)
        self.widths = {_name(c): c for c in free[:MOST]}
        self.blocks = dict(list(_blocks(net.graph).items())[:MOST])
        self.acts = [n.name for n in net.graph.nodes if n.op in ACTIVATIONS]
        types = ops.infer(net.graph, BATCH)
        self.places = [v for v in self.acts if len(types[v].shape) in (2, 4)][-MOST:]
        self._made = lru_cache(maxsize=256)(self._make)

    def draw(self, choose: Choose, spec: Spec) -> Graph:
        """The space's program."""
        choices: dict[str, Any] = {name: choose.one_of(f"width.{name}", WIDTHS) for name in self.widths}
        choices = {f"width.{name}": value for name, value in choices.items()}
        for name in self.blocks:
            choices[f"drop.{name}"] = choose.one_of(f"drop.{name}", (False, True), weights=(3, 1))
        for name in self.places:
            choices[f"insert.{name}"] = choose.one_of(f"insert.{name}", (False, True), weights=(3, 1))
        if self.acts:
            choices["act"] = choose.one_of("act", (KEEP, *ACTIVATIONS), weights=(4, *[1] * len(ACTIVATIONS)))
        return self.net(choices).graph

    def net(self, choices: Mapping[str, Any]) -> Net:
        """The net of some choices, with weights."""
        return self._made(tuple(sorted(choices.items())))

    def _make(self, chosen: tuple[tuple[str, Any], ...]) -> Net:
        choices = dict(chosen)
        net = self.origin
        if choices.get("act", KEEP) != KEEP:
            net = _other_activations(net, self.acts, choices["act"])
        dropped = {n: self.blocks[n] for n in self.blocks if choices.get(f"drop.{n}")}
        net = _without(net, dropped)
        for value in self.places:
            if choices.get(f"insert.{value}") and owner(value) in net.graph.by_name:
                net = _inserted(net, value)
        tied = axes(net)
        units = {}
        for name, origin in self.widths.items():
            share = choices.get(f"width.{name}", 1.0)
            member = origin.members[0]
            found = tied.of(member.weight, member.dim) if share != 1.0 and member.weight in net.weights else ()
            for c in found[:1]:
                if c.remove and c.grow and c.size == origin.size:
                    units[c.number] = _units(net, tied, c, share)
        return tied.take(net, units, rescale=True) if units else net


def _name(c: AxisClass) -> str:
    return f"{c.members[0].weight}.{c.members[0].dim}"


def _units(net: Net, tied: TiedAxes, c: AxisClass, share: float) -> list[int]:
    """Units of a class after its width changed: the strongest, in their order; or all, and the strongest again."""
    wanted = max(1, round(share * c.size))
    norm = np.zeros(c.size)
    for member in c.members:
        w = net.weights[member.weight]
        if w.is_floating_point() and w.dim() > 1 and w.shape[member.dim] == c.size:
            norm += w.detach().double().movedim(member.dim, 0).flatten(1).square().sum(1).numpy()
    strongest = np.argsort(-norm, kind="stable")
    if wanted <= c.size:
        return sorted(strongest[:wanted].tolist())
    return [*range(c.size), *strongest[: wanted - c.size].tolist()]


def _blocks(graph: Graph) -> dict[str, str]:
    """Nodes that may be left out -> the value that takes their place."""
    types = ops.infer(graph, BATCH)
    found = {}
    for node in graph.nodes:
        if node.op == INPUT or not node.inputs or node.name in graph.outputs:
            continue
        if node.op == "add" and len(node.inputs) == 2:
            for value, other in (node.inputs, node.inputs[::-1]):
                if types[value] == types[node.name] and _feeds(graph, value, other):
                    found[node.name] = value
        elif node.op in ("linear", "conv") and len(node.inputs) == 1 and types[node.inputs[0]] == types[node.name]:
            found[node.name] = node.inputs[0]
    return found


def _feeds(graph: Graph, value: str, other: str) -> bool:
    """Whether a value is computed from another."""
    return owner(value) in ancestors(graph, [other])


def _without(net: Net, dropped: Mapping[str, str]) -> Net:
    if not dropped:
        return net
    editor = ops.edit(net.graph)
    for node, value in dropped.items():
        while value in dropped:  # what takes its place is left out as well
            value = dropped[value]
        editor.redirect(node, value)
    return _carried(editor.finish(), net)


def _other_activations(net: Net, acts: list[str], act: str) -> Net:
    chosen = set(acts)
    nodes = [replace(n, op=act, attrs=ops.get(act).normal({})) if n.name in chosen else n for n in net.graph.nodes]
    return Net(Graph(tuple(nodes), net.graph.outputs), net.weights)


def _inserted(net: Net, value: str) -> Net:
    """A residual block after a value, zero at first."""
    editor = ops.edit(net.graph)
    shape = editor.shape(value)
    with editor.scope(f"inserted.{value}"):
        if len(shape) == 2:
            y = editor.add("linear", value, out=shape[1], name="first")
            y = editor.add("linear", editor.add("relu", y, name="act"), out=shape[1], name="second")
        else:
            y = editor.add("conv", value, out=shape[1], kernel=3, padding=1, name="first")
            y = editor.add("conv", editor.add("relu", y, name="act"), out=shape[1], kernel=1, name="second")
        total = editor.add("add", y, value, name="sum")
    editor.redirect(value, total)
    made = editor.finish()
    carried = _carried(made, net)
    zero = {n: torch.zeros_like(w) for n, w in carried.weights.items() if n.startswith(f"inserted.{value}.second.")}
    return Net(made, {**carried.weights, **zero})


def _carried(graph: Graph, net: Net) -> Net:
    """A graph with the weights of a net where they have the same name and shape, fresh ones elsewhere."""
    fresh = init(graph).weights
    return Net(graph, {n: net.weights[n] if n in net.weights and net.weights[n].shape == w.shape else w
                       for n, w in fresh.items()})  # fmt: skip
