"""Gated linear units and their variants: one linear map of the input, times an activation of another.

    GLU(x)   = act(W x + b) * (V x + c)              act: sigmoid (GLU), identity (bilinear), relu (ReGLU),
                                                     gelu (GEGLU), silu (SwiGLU)
    FFN(x)   = W2 GLU(x)                             the transformer's feed-forward layer

x [N, ..., C] -> GLU(x) [N, ..., out]; W, V [out, C]. Parameters: 2 out (C + 1). Cost: 4 C out FLOPs a position.
W and V are the two halves of one linear map, so it is one product of matrices.

To compare with a feed-forward layer of E hidden units, use 2 E / 3: then both have as many weights.

Fails nowhere in particular, but an output is a product, so large inputs give far larger outputs: use it with a norm.
Differs from the paper: biases by default, which T5 has not.

Shazeer: GLU Variants Improve Transformer, 2020, arXiv 2002.05202.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "glu_variants",
    "id": "",
    "title": "GLU Variants Improve Transformer",
    "year": 2020,
    "arxiv": "2002.05202",
    "needs": ["table", "tokens"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 6], "dtype": "float32"}],
        "hp": {"out": 5},
        "vary": [
            {"inputs": [{"shape": [None, 3, 4], "dtype": "float32"}], "hp": {"out": 7, "act": "gelu", "bias": False}},
            {"inputs": [{"shape": [None, 9], "dtype": "float32"}], "hp": {"out": 4, "act": "identity"}},
        ],
    },
    "exact": "With act identity it is bilinear: twice the input gives four times the output, without biases.",
    "claim": {
        "text": "Held-out loss of the GEGLU feed-forward layer over that of the ReLU one of as many weights, digits.",
        "paper": "1.633 against 1.677 (GEGLU and ReLU, table 1: heldout log-perplexity), a ratio of 0.974",
    },
}

ACTS = ("sigmoid", "identity", "relu", "gelu", "silu")


def build(g: Editor, x: str, *, out: int = 64, act: str = "silu", bias: bool = True) -> str:
    """x [N, ..., C] -> [N, ..., out]: act(W x + b) * (V x + c), where `act` is one of sigmoid, identity, relu, gelu and
    silu, or any other activation."""
    if out < 1:
        raise ArchwrightError(f"out is {out}, expected at least 1")
    gate, value = g.add("chunk", g.add("linear", x, out=2 * out, bias=bias, name="linear"), parts=2, dim=-1)
    return g.add("mul", gate if act == "identity" else g.add(act, gate), value)


def feed_forward(g: Editor, x: str, *, hidden: int, act: str = "silu", bias: bool = False) -> str:
    """x [N, ..., C] -> [N, ..., C]: the feed-forward layer of the paper, with `hidden` gated units."""
    y = build(g, x, out=hidden, act=act, bias=bias)
    return g.add("linear", y, out=g.shape(x)[-1], bias=bias, name="down")


def claim(*, seed: int = 0) -> Claim:
    """Cross-entropy on held-out digits of x + FFN(x) with 48 hidden units (ReLU) or 32 gated ones; four nets each."""
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
    rows = [torch.randint(len(x), (4, 64), generator=generator) for _ in range(300)]
    details = {}
    for act in ("none", *ACTS):
        g = ops.edit()
        h = g.add("linear", g.input("x", (None, x.shape[1])), out=32, name="stem")
        if act == "none":
            up = g.add("relu", g.add("linear", h, out=48, bias=False, name="up"))
            z = g.add("linear", up, out=32, bias=False, name="down")
        else:
            z = feed_forward(g, h, hidden=32, act=act)
        graph = g.finish(g.add("linear", g.add("add", h, z), out=data.outputs, name="head"))
        nets = batch([init(graph, seed + n) for n in range(4)])
        optimiser = nets.optimizer(torch.optim.AdamW, lr=3e-3)
        rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(rows))
        with torch.enable_grad():
            for taken in rows:
                nets.step(optimiser, F.cross_entropy, x, y, rows=taken)
                rate.step()
        with torch.no_grad():
            found = nets.eval()(held)
        loss = torch.stack([F.cross_entropy(out, wanted) for out in found]).mean()
        details["held-out nats, ReLU" if act == "none" else f"held-out nats, gate {act}"] = float(loss)
    figure = details["held-out nats, gate gelu"] / details["held-out nats, ReLU"]
    return Claim(figure, "1", "below 1", figure < 1, "0.974", details)
