"""The default space for tables: how numbers and categories enter, and what kind of multilayer network stands on them.

    h = [numbers(x), categories(c)]                  beside each other
    y = head(backbone(h)) + W h                      W where there is a shortcut: a linear model plus a network

numbers      plain; periodic embeddings of each column (and the columns); Fourier features of all (and the columns)
categories   columns of at most `categories.one_hot` codes one-hot, others embedded with at most `categories.width`
backbone     mlp     depth x [linear, norm, activation, dropout]
             resnet  linear, then depth residual blocks of a hidden layer each, norm and activation
             glu     depth x [norm, activation(linear) * linear, dropout]
             kan     depth x [splines on the edges], and one more as the head
depth 0      a linear model on h: none of the choices of a backbone is asked then

Inputs: numbers float32 [N, F], about mean 0 and deviation 1, and categories int64 [N, C], codes 0 .. codes_c - 1 as
`spec.codes` says; either may be absent. Output: [N, spec.outputs], logits or numbers. Sizes: from F + 1 weights.

`known` lists what is good without a search, training settings included, best bets first: see its docstring.

Fails for very many columns with periodic embeddings (the first layer grows with columns times width), and where rows
are not independent. Not a paper: a collection, with a citation in each block that it uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archwright import ops
from archwright.core import registry
from archwright.core.choose import Choose, Picker, replay
from archwright.core.records import Claim
from archwright.core.seeds import forked
from archwright.core.space import Spec
from archwright.errors import TypeMismatch
from archwright.ir import Editor, Graph

PART = {
    "kind": "space",
    "name": "tables",
    "id": "",
    "title": "The default space for tables",
    "year": 2026,
    "arxiv": "",
    "needs": ["table"],
    "extras": [],
    "example": {
        "spec": {"inputs": [[None, 5]], "outputs": 3},
        "hp": {"widths": [4, 8, 16], "deepest": 3},
        "small": {
            "spec": {"inputs": [[None, 2]], "outputs": 1},
            "hp": {"widths": [4], "deepest": 1, "entries": ["plain"], "dropouts": [0.0]},
            "count": 93,  # 1 without hidden layers; mlp 3 x 4 x 2, resnet as many, glu 3 x 5 x 2, kan 7 x 2
        },
        "supernet": None,
        "draws": 16,
    },
    "exact": "With depth 0 and plain numbers the graph is one linear layer.",
    "claim": {
        "text": "Test error of the first known network, not searched, over that of scikit-learn's default MLP: "
        "geometric mean of share wrong (breast_cancer, digits) and RMSE (diabetes, friedman1).",
        "paper": "none",
    },
}

WIDTHS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
FREQUENCIES = (4, 8, 16, 32)
FEATURES = (8, 16, 32, 64, 128)
PERIODIC_WIDTHS = (1, 2, 4, 8, 16)
CATEGORY_WIDTHS = (1, 2, 4, 8, 16, 32)
DROPOUTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
ENTRIES = {"plain": 2, "periodic": 3, "fourier": 1}
"""Name -> how likely in a random draw."""
BACKBONES = {"mlp": 4, "resnet": 2, "glu": 2, "kan": 1}
"""Likewise."""
NORMS = ("none", "batch", "layer")
ACTIVATIONS = ("relu", "gelu", "silu", "selu")


def draw(
    choose: Choose,
    spec: Spec,
    *,
    widths: Sequence[int] = WIDTHS,
    deepest: int = 6,
    entries: Sequence[str] = tuple(ENTRIES),
    backbones: Sequence[str] = tuple(BACKBONES),
    dropouts: Sequence[float] = DROPOUTS,
) -> Graph:
    """A network for rows of a table.

    widths     of hidden layers
    deepest    most hidden layers
    entries    how numbers may enter: some of plain, periodic, fourier
    backbones  some of mlp, resnet, glu, kan
    dropouts   shares that may be dropped

    Raises `TypeMismatch` where the inputs are not those of a table, or `spec.codes` does not fit them.
    """
    g = ops.edit()
    h = _enter(choose, g, spec, entries)
    depth = choose.integer("depth", 0, deepest)
    if depth == 0:
        return g.finish(g.add("linear", h, out=spec.outputs, name="linear"))
    backbone = choose.one_of("backbone", backbones, [BACKBONES[name] for name in backbones])
    width = choose.one_of("width", widths)
    dropout = choose.one_of("dropout", dropouts)
    with g.scope("backbone"):
        y = _BACKBONES[backbone](choose, g, h, depth, width, dropout, spec.outputs)
    if choose.one_of("shortcut", (False, True)):
        y = g.add("add", y, g.add("linear", h, out=spec.outputs, bias=False, name="shortcut"))
    return g.finish(y)


# ------------------------------------------------------------------------------------------------------------ inputs
def _enter(choose: Choose, g: Editor, spec: Spec, entries: Sequence[str]) -> str:
    """All columns as numbers beside each other, [N, features]."""
    kinds = ["number" if spec.dtype(i).startswith("float") else "category" for i in range(len(spec.inputs))]
    if kinds not in (["number"], ["category"], ["number", "category"]) or any(len(s) != 2 for s in spec.inputs):
        found = ", ".join(f"{spec.dtype(i)} {list(shape)}" for i, shape in enumerate(spec.inputs))
        raise TypeMismatch(f"inputs are {found}: expected float32 [N, numbers], int64 [N, categories], or both")
    columns = spec.inputs[-1][1] if kinds[-1] == "category" else 0
    if len(spec.codes) != columns:
        raise TypeMismatch(f"codes are {list(spec.codes)}, expected a number of codes for each of {columns} categories")
    made = []
    for i, kind in enumerate(kinds):
        if kind == "number":
            made.append(_numbers(choose, g, g.input("numbers", spec.inputs[i], spec.dtype(i)), entries))
        else:
            made.append(_categories(choose, g, g.input("categories", spec.inputs[i], spec.dtype(i)), spec.codes))
    return g.add("concat", *made, dim=1) if len(made) > 1 else made[0]


def _numbers(choose: Choose, g: Editor, x: str, entries: Sequence[str]) -> str:
    entry = choose.one_of("numbers", entries, [ENTRIES[name] for name in entries])
    if entry == "plain":
        return x
    with g.scope("numbers"):
        if entry == "fourier":
            features = choose.one_of("fourier.features", FEATURES)
            sigma = choose.one_of("fourier.sigma", (0.02, 0.05, 0.1, 0.2, 0.5))
            y = registry.load("block/fourier_features")(g, x, features=features, sigma=sigma)
            return g.add("concat", x, y, dim=1)
        return registry.load("block/periodic_embedding")(
            g, x,
            frequencies=choose.one_of("periodic.frequencies", FREQUENCIES),
            out=choose.one_of("periodic.width", PERIODIC_WIDTHS),
            sigma=choose.one_of("periodic.sigma", (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)),
            lite=choose.one_of("periodic.lite", (True, False)),
            plain=True,
        )  # fmt: skip


def _categories(choose: Choose, g: Editor, x: str, codes: Sequence[int]) -> str:
    one_hot, width = 2, 1  # a flag is a number as it is
    if max(codes) > 2:
        one_hot = choose.one_of("categories.one_hot", (2, 4, 8, 16, 32))
    if max(codes) > one_hot:
        width = choose.one_of("categories.width", CATEGORY_WIDTHS)
    with g.scope("categories"):
        return registry.load("block/entity_embedding")(g, x, codes=codes, width=width, one_hot=one_hot)


# --------------------------------------------------------------------------------------------------------- backbones
def _norm(g: Editor, x: str, norm: str) -> str:
    return x if norm == "none" else g.add(f"{norm}_norm", x, name="norm")


def _drop(g: Editor, x: str, dropout: float) -> str:
    return g.add("dropout", x, p=dropout) if dropout else x


def _mlp(choose: Choose, g: Editor, x: str, depth: int, width: int, dropout: float, outputs: int) -> str:
    norm, act = choose.one_of("norm", NORMS), choose.one_of("activation", ACTIVATIONS)
    for i in range(depth):
        with g.scope(f"layer{i}"):
            x = _norm(g, g.add("linear", x, out=width, name="linear"), norm)
            x = _drop(g, g.add(act, x), dropout)
    return g.add("linear", x, out=outputs, name="head")


def _resnet(choose: Choose, g: Editor, x: str, depth: int, width: int, dropout: float, outputs: int) -> str:
    norm, act = choose.one_of("norm", NORMS), choose.one_of("activation", ACTIVATIONS)
    block = registry.load("block/resnet_tabular")
    x = g.add("linear", x, out=width, name="stem")
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = block(g, x, hidden=width, norm=norm, act=act, dropout=dropout)
    return g.add("linear", g.add(act, _norm(g, x, norm)), out=outputs, name="head")


def _glu(choose: Choose, g: Editor, x: str, depth: int, width: int, dropout: float, outputs: int) -> str:
    norm, act = choose.one_of("norm", NORMS), choose.one_of("gate", ("sigmoid", "identity", "relu", "gelu", "silu"))
    layer = registry.load("block/glu_variants")
    for i in range(depth):
        with g.scope(f"layer{i}"):
            x = _drop(g, _norm(g, layer(g, x, out=width, act=act), norm), dropout)
    return g.add("linear", x, out=outputs, name="head")


def _kan(choose: Choose, g: Editor, x: str, depth: int, width: int, dropout: float, outputs: int) -> str:
    grid = choose.integer("kan.grid", 2, 8)
    layer = registry.load("block/kan")
    for i in range(depth):
        with g.scope(f"layer{i}"):
            # inputs have deviation 1: most of them are within 3; hidden values start within the same range
            x = _drop(g, layer(g, x, out=width, grid=grid, degree=2, low=-3.0, high=3.0), dropout)
    with g.scope("head"):
        return layer(g, x, out=outputs, grid=grid, degree=2, low=-3.0, high=3.0)


Backbone = Callable[[Choose, Editor, str, int, int, float, int], str]
_BACKBONES: Mapping[str, Backbone] = {"mlp": _mlp, "resnet": _resnet, "glu": _glu, "kan": _kan}


# ------------------------------------------------------------------------------------------------------------- known
MOST = 96_000
"""Weights of a known network, with as many copies of it as are meant to be averaged."""

_USUAL: Mapping[str, Any] = {
    "numbers": "periodic", "periodic.frequencies": 16, "periodic.width": 8, "periodic.sigma": 0.5,
    "periodic.lite": True, "categories.one_hot": 8, "categories.width": 8,
    "depth": 1, "backbone": "mlp", "width": 128, "dropout": 0.1, "norm": "none", "activation": "relu", "shortcut": True,
    "train.lr": 1e-2, "train.weight_decay": 1e-2, "train.batch": 64, "train.smoothing": 0.0,
    "train.optimiser": "adamw", "train.length": 0.3,
}  # fmt: skip
"""On eight tables one wide layer over periodic embeddings was better than two or three layers."""

_TWO: Mapping[str, Any] = {"depth": 2, "width": 64, "shortcut": False}

_BETS: Sequence[tuple[int, Mapping[str, Any]]] = (
    (8, {"train.length": 1.0}),
    # smooth functions, few rows: low frequencies and more noise
    (8, {**_TWO, "periodic.sigma": 0.1, "activation": "silu", "dropout": 0.2, "train.weight_decay": 0.1}),
    (8, {"dropout": 0.3, "train.weight_decay": 0.1, "train.smoothing": 0.05}),
    (8, {"backbone": "resnet", "norm": "layer", "width": 64, "train.length": 1.0}),
    # gates multiply, so that one far row can upset them: never without a norm
    (8, {**_TWO, "backbone": "glu", "norm": "layer", "gate": "silu", "train.lr": 5e-3, "train.smoothing": 0.05}),
    # very few rows, or little to be known: next to a linear model
    (8, {"numbers": "plain", "width": 32, "dropout": 0.3, "train.weight_decay": 0.1, "train.batch": 32}),
    # many rows
    (4, {"width": 256, "train.batch": 256, "train.length": 1.0}),
    # steep steps, such as those of prices on a map: high frequencies, and a map of its own for each column
    (8, {**_TWO, "periodic.sigma": 1.0, "periodic.lite": False}),
    (8, {**_TWO, "periodic.sigma": 2.0, "periodic.lite": False, "train.batch": 128, "train.lr": 2e-2}),
    # many columns that mean something only together, such as the pixels of an image
    (4, {**_TWO, "numbers": "plain", "width": 128, "norm": "batch", "dropout": 0.3, "train.lr": 5e-3}),
    (8, {**_TWO, "numbers": "fourier", "fourier.features": 64, "fourier.sigma": 0.1, "norm": "batch"}),
    (8, {"numbers": "plain", "backbone": "kan", "width": 16, "kan.grid": 4, "dropout": 0.0, "shortcut": False}),
    (1, {"numbers": "plain", "depth": 0}),
)
"""Copies that are meant to be averaged, and what differs from `_USUAL`."""

_SIZES: Mapping[str, tuple[int, Sequence[int]]] = {
    "categories.width": (2, CATEGORY_WIDTHS), "periodic.width": (2, PERIODIC_WIDTHS),
    "periodic.frequencies": (4, FREQUENCIES), "fourier.features": (8, FEATURES), "width": (32, WIDTHS),
}  # fmt: skip
"""What is lowered where a network is too large: a size that is still comfortable, and the options."""


def known(spec: Spec) -> list[dict[str, Any]]:
    """Good networks with the settings of their training, the best bet first.

    Each trace says all that the space asks, and lr, weight_decay, batch, smoothing, optimiser and length of the
    training. Sizes are lowered where there are many columns: eight copies of most of them, averaged, have less than
    100,000 weights together.
    """
    found: dict[str, dict[str, Any]] = {}
    for copies, bet in _BETS:
        trace = _within({**_USUAL, **bet}, spec, MOST // copies)
        found.setdefault(str(sorted(trace.items())), trace)
    return list(found.values())


def _within(bet: Mapping[str, Any], spec: Spec, most: int) -> dict[str, Any]:
    """What the space asks of a bet, with sizes lowered until it is small enough or nothing is left to lower."""
    trace = dict(bet)
    while True:
        picker = Picker(replay(trace))
        graph = draw(picker, spec)
        asked = {name: trace[name] for name in trace if name in picker.taken or name.startswith("train.")}
        names = [name for name, (_, options) in _SIZES.items() if asked.get(name, 0) > min(options)]
        if sum(math.prod(p.shape) for p in ops.params(graph).values() if not p.buffer) <= most or not names:
            return asked
        name = max(names, key=lambda name: asked[name] / _SIZES[name][0])  # so they are lowered in turn
        trace[name] = max(option for option in _SIZES[name][1] if option < asked[name])


def claim(*, seed: int = 0) -> Claim:
    """Test errors of the best bet, eight copies, 300 steps, over those of scikit-learn's MLP as it comes."""
    import warnings

    import numpy as np
    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from archwright.kit.schedules import one_cycle
    from archwright.net.batch import batch
    from archwright.net.net import init

    sets = {
        "breast_cancer": load_breast_cancer(return_X_y=True), "digits": load_digits(return_X_y=True),
        "diabetes": load_diabetes(return_X_y=True), "friedman1": make_friedman1(1500, noise=1.0, random_state=seed),
    }  # fmt: skip
    details, steps, copies = {}, 300, 8
    for name, (x, y) in sets.items():
        classes = len(set(y)) if name in ("breast_cancer", "digits") else 0
        x = ((x - x.mean(0)) / (x.std(0) + 1e-9)).astype(np.float32)
        y = y.astype(np.int64) if classes else ((y - y.mean()) / y.std()).astype(np.float32)
        test = np.random.default_rng(seed).random(len(x)) < 0.3

        bet = known(Spec(((None, x.shape[1]),), classes or 1))[0]
        graph = draw(Picker(replay(bet)), Spec(((None, x.shape[1]),), classes or 1))
        nets = batch([init(graph, seed + n) for n in range(copies)])
        optimiser = nets.optimizer(torch.optim.AdamW, lr=bet["train.lr"], weight_decay=bet["train.weight_decay"])
        seen, wanted = torch.from_numpy(x[~test]), torch.from_numpy(y[~test] if classes else y[~test, None])
        generator = torch.Generator().manual_seed(seed)
        with forked(seed), torch.enable_grad():
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = bet["train.lr"] * one_cycle(step / steps)
                rows = torch.randint(len(seen), (copies, bet["train.batch"]), generator=generator)
                nets.step(optimiser, F.cross_entropy if classes else F.mse_loss, seen, wanted, rows=rows)
        with torch.no_grad():
            out = nets.eval()(torch.from_numpy(x[test]))
        ours = out.softmax(-1).mean(0).argmax(-1).numpy() if classes else out.mean(0)[:, 0].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it has not converged
            other = (MLPClassifier if classes else MLPRegressor)(random_state=seed).fit(x[~test], y[~test])
        for kind, found in (("tables", ours), ("MLP", other.predict(x[test]))):
            wrong = np.mean(found != y[test]) if classes else np.sqrt(np.mean((found - y[test]) ** 2))
            details[f"{name}, {kind}"] = float(wrong)
    ratios = [max(details[f"{name}, tables"], 1e-3) / max(details[f"{name}, MLP"], 1e-3) for name in sets]
    figure = float(np.exp(np.mean(np.log(ratios))))
    return Claim(figure, "1", "below 1", figure < 1, "", details)
