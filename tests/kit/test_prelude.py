"""A net with its recipe inside: the same as recipe.scale, then the net, in torch and in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from archwright import ops
from archwright.data.recipe import Category, ImageRecipe, Number, Recipe, SignalRecipe, TableRecipe, Target
from archwright.errors import TypeMismatch
from archwright.exchange.onnx import to_onnx
from archwright.kit.prelude import with_recipe
from archwright.net.build import build
from archwright.net.net import Net, init

CLASSES = Target("y", "classification", ("a", "b", "c"))
PRICE = Target("price", "regression", mean=(1000.0, -3.0), deviation=(50.0, 0.5))
PLAIN = Number("plain", 0.5, False, 2.0, 3.0)
GAPPY = Number("gappy", -1.0, True, 0.0, 1.0)
LARGE = Number("when", 1.7e9, True, 1.7e9, 1000.0)
TAILED = Number("tailed", 3.0, False, 0.1, 0.9, (-4.0, 0.0, 0.5, 100.0), (-2.0, -1.0, 0.5, 2.5))
SHORT = Number("short", 0.0, True, 0.0, 1.0, (0.0, 1.0), (-1.0, 1.0))
POINT = Number("point", 0.0, False, 0.0, 1.0, (0.0,), (0.25,))


def table(*numbers: Number, target: Target = CLASSES, categories: tuple[Category, ...] = ()) -> TableRecipe:
    names = [n.name for n in numbers] + [c.name for c in categories]
    return TableRecipe(target, tuple(names), numbers, categories)


def network(recipe: Recipe, seed: int = 0) -> Net:
    """A net for what the recipe gives; its nodes are named as those that the prelude adds would like to be."""
    g = ops.edit()
    scaled = recipe.scale([np.zeros((1, *[n or 1 for n in shape[1:]]), dtype) for _, shape, dtype in recipe.inputs])
    flat = []
    for (name, _, _), array in zip(recipe.inputs, scaled, strict=True):
        x = g.input(name, (None, *array.shape[1:]), str(array.dtype))
        if array.dtype == np.int64:
            x = g.add("embedding", x, num=5, dim=2, name="scale.mean")
        flat.append(g.add("flatten", x) if len(g.shape(x)) > 2 else x)
    x = g.add("concat", *flat, dim=1) if len(flat) > 1 else flat[0]
    x = g.add("tanh", g.add("linear", x, out=4, name="scale.fill"))
    return init(g.finish(g.add("linear", x, out=recipe.target.outputs, name="probabilities")), seed)


def encoded(recipe: Recipe, seed: int = 0, count: int = 40) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for name, shape, dtype in recipe.inputs:
        size = (count, *[n or 1 for n in shape[1:]])
        if dtype == "uint8":
            found.append(rng.integers(0, 256, size).astype(np.uint8))
        elif dtype == "int64":
            found.append(rng.integers(0, 5, size))
        else:
            x = (5 * rng.normal(size=size)).astype(np.float32)
            if name == "numbers":
                columns = [n.mean for n in recipe.numbers]  # type: ignore[union-attr]
                x = (x * (1 + np.abs(columns) * 1e-6) + columns).astype(np.float32)
                x[0] = 3.4e38
                x[1] = -3.4e38
                x[2] = 0
            x[rng.random(size) < 0.2] = np.nan
            found.append(x)
    return found


IMAGE = ImageRecipe(CLASSES, 3, (4, 5), (120.0, 100.0, 90.0), (60.0, 50.0, 0.5))
CASES: dict[str, Recipe] = {
    "plain": table(PLAIN),
    "gaps": table(PLAIN, GAPPY, categories=(Category("c", ("x", "y", "z", "w")),)),
    "tails": table(TAILED, PLAIN, SHORT, GAPPY, LARGE, target=PRICE),
    "all tails": table(TAILED, SHORT, TAILED),
    "one knot": table(POINT, GAPPY),
    "all flagged": table(GAPPY, LARGE),
    "categories": table(categories=(Category("c", ("x",)), Category("d", ("x", "y", "z", "w")))),
    "bytes": IMAGE,
    "pixels": ImageRecipe(PRICE, 1, (3, 3), (0.5,), (0.25,), dtype="float32"),
    "signal": SignalRecipe(CLASSES, 2, 7, (0.5, -1.0), (2.0, 3.0)),
    "masked": SignalRecipe(PRICE, 2, 7, (0.5, -1.0), (2.0, 3.0), mask=True),
}


@pytest.mark.parametrize("name", CASES)
def test_the_same_in_torch_and_onnx(name: str, tmp_path: Path) -> None:
    recipe, net = CASES[name], network(CASES[name])
    whole = with_recipe(net, recipe)
    raw = encoded(recipe)
    with torch.no_grad():
        inner = build(net).eval()(*map(torch.from_numpy, recipe.scale(raw)))
        if recipe.target.task == "classification":
            wanted = inner.softmax(1).numpy()
        else:
            wanted = recipe.target.decode(inner.numpy())
            wanted = wanted.reshape(len(wanted), -1)
        got = build(whole).eval()(*map(torch.from_numpy, raw)).numpy()
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    path = to_onnx(whole, tmp_path / "model.onnx", inputs=[torch.from_numpy(x) for x in raw]).path
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [(n, list(s[1:])) for n, s, _ in recipe.inputs]
    for rows in (slice(0, 1), slice(0, 40)):
        feeds = {name: x[rows] for (name, _, _), x in zip(recipe.inputs, raw, strict=True)}
        np.testing.assert_allclose(session.run(None, feeds)[0], wanted[rows], rtol=2e-5, atol=2e-6)


def test_the_net_is_as_it_was_and_its_weights_are_inside() -> None:
    net = network(CASES["tails"])
    whole = with_recipe(net, CASES["tails"])
    assert all(whole.weights[f"net.{name}"] is tensor for name, tensor in net.weights.items())
    assert whole.cost().params == net.cost().params  # what is added is constant


def test_what_does_not_fit() -> None:
    net = network(CASES["plain"])
    with pytest.raises(TypeMismatch, match="the recipe gives float32"):
        with_recipe(net, CASES["gaps"].__class__(CLASSES, ("a",), (GAPPY,)))
    with pytest.raises(TypeMismatch, match="takes 1 inputs, the recipe gives 2"):
        with_recipe(net, CASES["gaps"])
    with pytest.raises(TypeMismatch, match=r"expected \[None, 2\]"):
        with_recipe(net, table(PLAIN, target=PRICE))
