"""A space part of a user's own, small and quick: multilayer networks of a few hundred weights."""

from __future__ import annotations

from archwright import ops

PART = {
    "kind": "space",
    "name": "small",
    "id": "",
    "title": "Small multilayer networks",
    "year": 2026,
    "arxiv": "",
    "needs": ["table"],
    "extras": [],
    "example": {},
    "exact": "",
    "claim": {"text": "", "paper": ""},
}

WIDTHS = (2, 4, 8, 16, 32)


def draw(choose, spec):
    """[N, features] -> [N, outputs]: up to two hidden layers."""
    g = ops.edit()
    x = g.input("x", spec.inputs[0], spec.dtype(0))
    for i in range(choose.integer("depth", 0, 2)):
        x = g.add("linear", x, out=choose.one_of(f"width{i}", WIDTHS), name=f"hidden{i}")
        x = g.add(choose.one_of("act", ("relu", "tanh")), x, name=f"act{i}")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


def known(spec):
    """Two shapes to begin with."""
    usual = {"train.batch": 16, "train.optimiser": "adamw", "train.lr": 1e-2}
    return [{"depth": 1, "width0": 8, "act": "relu", **usual}, {"depth": 0, **usual}]
