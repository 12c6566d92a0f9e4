"""Periodic embeddings of numbers: each column of a table becomes a vector of its own before the columns are mixed.

    v_f = [sin(2 pi c_f x_f), cos(2 pi c_f x_f)]     c_f [k] learned, normal with deviation sigma at the start
    y_f = relu(W v_f + b)                            W [d, 2 k]: the same for all columns ("lite"), or one for each
    y   = [y_1, ..., y_F]                            beside each other

x [N, F] -> y [N, F d]. Parameters: F k + 2 k d + d (lite), F k + F (2 k d + d) (not lite). Cost: 4 F k d FLOPs and
2 F k sines a sample.

sigma is what matters most: the paper searches 0.01 to 100 for columns of deviation 1; small tables want 0.01 to 0.3.
`plain` also hands the columns themselves on, so that a layer on top can be linear in them: [N, F d + F].

Fails for very many columns (F d inputs of the next layer), and on small tables with a large sigma: it learns them by
heart. Differs from the paper: `plain`.

Gorishniy, Rubachev, Babenko: On Embeddings for Numerical Features in Tabular Deep Learning, 2022, arXiv 2203.05556; the
lite form is from the authors' later code (rtdl_num_embeddings) and TabR, 2023, arXiv 2307.14338.
"""

from __future__ import annotations

import math

from archwright.core.records import Claim
from archwright.errors import ArchwrightError, TypeMismatch
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "periodic_embedding",
    "id": "",
    "title": "On Embeddings for Numerical Features in Tabular Deep Learning",
    "year": 2022,
    "arxiv": "2203.05556",
    "needs": ["table"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 4], "dtype": "float32"}],
        "hp": {"frequencies": 6, "out": 5},
        "vary": [
            {"inputs": [{"shape": [None, 3], "dtype": "float32"}], "hp": {"frequencies": 4, "out": 3, "lite": False}},
            {"inputs": [{"shape": [None, 7], "dtype": "float32"}], "hp": {"frequencies": 3, "out": 2, "plain": True}},
        ],
    },
    "exact": "An output of a column depends on that column alone; a column of frequencies 0 gives a constant.",
    "claim": {
        "text": "Test RMSE of an MLP over periodic embeddings over that of an MLP over the numbers, on a sum of eight "
        "step-like functions of one column each (4,000 rows, 3 nets each).",
        "paper": "embeddings of numbers bring an MLP level with attention-based networks (abstract)",
    },
}


def build(
    g: Editor, x: str, *, frequencies: int = 16, out: int = 8, sigma: float = 0.1, lite: bool = True,
    plain: bool = False, act: str = "relu",
) -> str:  # fmt: skip
    """x [N, F] -> [N, F out], or [N, F out + F] if the columns are kept beside it.

    frequencies  k, for each column
    out          d, for each column
    sigma        deviation of the first frequencies, in 1 / unit of x
    lite         one linear map for all columns
    plain        the columns themselves too
    act          name of the activation
    """
    shape = g.shape(x)
    if len(shape) != 2:
        raise TypeMismatch(f"'{x}' is {g.type(x)}, expected [N, columns]")
    if min(frequencies, out) < 1 or not sigma > 0:
        raise ArchwrightError(f"frequencies {frequencies}, out {out}, sigma {sigma}: expected at least 1, 1, above 0")
    columns = shape[1]
    c = g.add("param", shape=(columns, frequencies), init=("normal", 2 * math.pi * sigma), name="frequencies")
    angle = g.add("mul", g.add("unsqueeze", x, dim=-1), c)
    v = g.add("concat", g.add("sin", angle), g.add("cos", angle), dim=-1)
    if lite:
        y = g.add("linear", v, out=out, name="linear")
    else:
        bound = ("uniform", 1 / math.sqrt(2 * frequencies))
        w = g.add("param", shape=(columns, 2 * frequencies, out), init=bound, name="weight")
        b = g.add("param", shape=(columns, out), init=bound, name="bias")
        y = g.add("add", g.add("einsum", v, w, equation="nfk,fkd->nfd"), b)
    y = g.add("flatten", g.add(act, y), start=1)
    return g.add("concat", x, y, dim=1) if plain else y


def claim(*, seed: int = 0) -> Claim:
    """Both networks, two hidden layers of 64, trained alike; three nets each, at once."""
    import torch
    import torch.nn.functional as F

    from archwright import ops
    from archwright.net.batch import batch
    from archwright.net.net import init

    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(6000, 8, generator=generator)
    edges = torch.randn(8, 6, generator=generator)
    heights = torch.randn(8, 6, generator=generator)
    y = ((x[..., None] > edges) * heights).sum((1, 2))[:, None] + 0.1 * torch.randn(6000, 1, generator=generator)
    y = (y - y.mean()) / y.std()
    steps, details = 500, {}
    for name, embedded in (("periodic", True), ("numbers", False)):
        g = ops.edit()
        h = g.input("x", (None, 8))
        h = build(g, h, sigma=0.3) if embedded else h
        for i in range(2):
            h = g.add("relu", g.add("linear", h, out=64, name=f"hidden{i}"))
        graph = g.finish(g.add("linear", h, out=1, name="head"))
        nets = batch([init(graph, seed + n) for n in range(3)])
        optimiser = nets.optimizer(torch.optim.AdamW, lr=5e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        with torch.enable_grad():
            for _ in range(steps):
                nets.step(optimiser, F.mse_loss, x, y, rows=torch.randint(4000, (3, 128), generator=generator))
                rate.step()
        with torch.no_grad():
            found = nets.eval()(x[4000:])
        details[f"test RMSE, {name}"] = float((found - y[4000:]).square().mean((1, 2)).sqrt().mean())
    figure = details["test RMSE, periodic"] / details["test RMSE, numbers"]
    return Claim(figure, "1", "below 0.9", figure < 0.9, "below 1", details)
