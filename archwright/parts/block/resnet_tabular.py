"""ResNet for tables: residual blocks of two linear layers, normalised in front, for rows of numbers.

    block(x) = x + Dropout(W2 Dropout(relu(W1 BN(x) + b1)) + b2)          W1 [h, C], W2 [C, h]
    network  = linear -> block ... block -> linear(relu(BN(x)))

x [N, ..., C] -> y of the same shape. Parameters: 2 h C + h + 3 C. Cost: 4 h C FLOPs a sample.

With batch normalisation a network in training needs batches of more than a few rows. Fails to help where one or two
layers are enough, as on most small tables. Differs from the paper: other norms and activations can be had.

Gorishniy, Rubachev, Khrulkov, Babenko: Revisiting Deep Learning Models for Tabular Data, 2021, arXiv 2106.11959.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "resnet_tabular",
    "id": "",
    "title": "Revisiting Deep Learning Models for Tabular Data",
    "year": 2021,
    "arxiv": "2106.11959",
    "needs": ["table"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 6], "dtype": "float32"}],
        "hp": {"hidden": 8},
        "vary": [
            {"inputs": [{"shape": [None, 9], "dtype": "float32"}], "hp": {"norm": "layer", "act": "silu"}},
            {"inputs": [{"shape": [None, 4], "dtype": "float32"}], "hp": {"norm": "none", "hidden": 5}},
        ],
    },
    "exact": "With W2 = 0 and b2 = 0 the block is the identity.",
    "claim": {
        "text": "Test error on digits: six residual blocks less a plain MLP of as many layers and the same width.",
        "paper": "a ResNet-like network is a strong baseline for tables (abstract)",
    },
}

NORMS = {"batch": "batch_norm", "layer": "layer_norm"}


def build(
    g: Editor, x: str, *, hidden: int | None = None, norm: str = "batch", act: str = "relu", dropout: float = 0.0,
    drop: float = 0.0,
) -> str:  # fmt: skip
    """x [N, C] -> [N, C].

    hidden   h; 2 C by default
    norm     "batch", "layer" or "none"
    act      name of the activation
    dropout  share of hidden units set to zero in training
    drop     likewise of what the branch adds
    """
    if norm not in (*NORMS, "none"):
        raise ArchwrightError(f"norm is '{norm}', expected 'batch', 'layer' or 'none'")
    width = g.shape(x)[-1]
    y = x if norm == "none" else g.add(NORMS[norm], x, name="norm")
    y = g.add(act, g.add("linear", y, out=2 * width if hidden is None else hidden, name="up"))
    y = g.add("linear", g.add("dropout", y, p=dropout) if dropout else y, out=width, name="down")
    return g.add("add", x, g.add("dropout", y, p=drop) if drop else y)


def network(
    g: Editor, x: str, *, outputs: int, width: int = 128, depth: int = 2, hidden: int | None = None,
    norm: str = "batch", act: str = "relu", dropout: float = 0.0, drop: float = 0.0,
) -> str:  # fmt: skip
    """The whole network: x [N, C] -> [N, outputs]."""
    x = g.add("linear", x, out=width, name="stem")
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, hidden=hidden, norm=norm, act=act, dropout=dropout, drop=drop)
    if norm != "none":
        x = g.add(NORMS[norm], x, name="norm")
    return g.add("linear", g.add(act, x), out=outputs, name="head")


def claim(*, seed: int = 0) -> Claim:
    """Test error on digits, 12 hidden layers of 64 either way, after 200 steps; three nets each, at once."""
    import torch
    import torch.nn.functional as F

    from archwright import ops
    from archwright.data.builtin import builtin
    from archwright.net.batch import batch
    from archwright.net.net import init

    data = builtin("digits")
    (x,), y = data.tensors("train")
    (held,), wanted = data.tensors("test")
    x, held = x.flatten(1), held.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(len(x), (3, 64), generator=generator) for _ in range(200)]
    details = {}
    for name, residual in (("residual", True), ("plain", False)):
        g = ops.edit()
        h = g.input("x", (None, x.shape[1]))
        if residual:
            made = network(g, h, outputs=data.outputs, width=64, depth=6, hidden=64)
        else:
            for i in range(13):
                h = g.add("relu", g.add("linear", h, out=64, name=f"hidden{i}"))
            made = g.add("linear", h, out=data.outputs, name="head")
        nets = batch([init(g.finish(made), seed + n) for n in range(3)])
        optimiser = nets.optimizer(torch.optim.AdamW, lr=2e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(rows))
        with torch.enable_grad():
            for taken in rows:
                nets.step(optimiser, F.cross_entropy, x, y, rows=taken)
                rate.step()
        with torch.no_grad():
            found = nets.eval()(held).argmax(-1)
        details[f"test error (%), {name}"] = 100 * float((found != wanted).double().mean())
    figure = details["test error (%), residual"] - details["test error (%), plain"]
    return Claim(figure, "% points", "below 0", figure < 0, "below 0", details)
