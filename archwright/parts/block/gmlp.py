"""gMLP: a perceptron over channels in the middle of which one half gates the other, mixed over the tokens.

    z = gelu(W1 LN(x))                       W1 [E, C]; z is cut in two, z1 and z2 [N, T, E / 2]
    s = z1 * (S LN(z2) + b + a)              the spatial gating unit: S [T, T], b [T], the same for all channels
    y = x + W2 s                             W2 [C, E / 2]

with a = 0, or the output of a tiny single-head attention over LN(x) (then it is the paper's aMLP):

    a = V0 softmax(q k^T / sqrt(d)) v        q, k, v [N, T, d] = W0 LN(x)

x [N, T, C] -> y [N, T, C], T tokens, C channels. At the start S is near 0 and b = 1, so the gate is near 1 and the
block is an ordinary feed-forward layer. Parameters: 1.5 C E + T^2 and lower terms. Cost: 3 T C E + T^2 E FLOPs.

Needs no positions. Fails where the number of tokens changes, and where tokens should be matched by content rather than
place: that is what the tiny attention is for. Differs from the paper in nothing.

Liu, Dai, So, Le: Pay Attention to MLPs, 2021, arXiv 2105.08050.
"""

from __future__ import annotations

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor
from archwright.kit.tokens import across_tokens, need_tokens, patches, residual

PART = {
    "kind": "block",
    "name": "gmlp",
    "id": "gmlp",
    "title": "Pay Attention to MLPs",
    "year": 2021,
    "arxiv": "2105.08050",
    "needs": ["tokens", "image"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 9, 12], "dtype": "float32"}],
        "hp": {"hidden": 20},
        "vary": [
            {"inputs": [{"shape": [None, 6, 16], "dtype": "float32"}], "hp": {}},
            {"inputs": [{"shape": [None, 12, 8], "dtype": "float32"}], "hp": {"hidden": 12, "attention": 6}},
        ],
    },
    "exact": "With S = 0 and b = 1 the gate is exactly 1: tokens do not see each other.",
    "claim": {
        "text": "gMLP-Ti, S and B have the published parameters and FLOPs at 224 x 224, to 2 %.",
        "paper": "5.9, 19.5, 73.4 M parameters and 2.7, 8.9, 31.6 GFLOPs (table 1)",
    },
}


def build(g: Editor, x: str, *, hidden: int | None = None, attention: int = 0, drop: float = 0.0) -> str:
    """x [N, T, C] -> [N, T, C].

    hidden     E, even; 6 C as in the paper's image models
    attention  width d of the tiny attention; 0 for none (the paper has 64 or 128)
    drop       probability that the branch is left out in training
    """
    _, channels = need_tokens(g, x)
    hidden = 6 * channels if hidden is None else hidden
    if hidden < 2 or hidden % 2:
        raise ArchwrightError(f"hidden is {hidden}, expected an even number: one half gates the other")
    norm = g.add("layer_norm", x, name="norm")
    extra = tiny_attention(g, norm, hidden // 2, attention) if attention else None
    z = g.add("gelu", g.add("linear", norm, out=hidden, name="up"))
    y = g.add("linear", gating(g, z, extra), out=channels, name="down")
    return residual(g, x, y, drop)


def gating(g: Editor, z: str, extra: str | None = None) -> str:
    """The spatial gating unit: z [N, T, E] -> [N, T, E / 2]. `extra` [N, T, E / 2] is added to the gate."""
    tokens = g.shape(z)[1]
    with g.scope("gate"):
        z1, z2 = g.add("chunk", z, parts=2, dim=-1)
        z2 = g.add("layer_norm", z2, name="norm")
        weight = g.add("param", shape=(tokens, tokens), init=("uniform", 1e-3 / tokens), name="spatial")
        bias = g.add("param", shape=(tokens,), init=("ones",), name="bias")
        gate = across_tokens(g, z2, lambda t: g.add("linear", t, weight, bias, out=tokens))
        if extra is not None:
            gate = g.add("add", gate, extra)
        return g.add("mul", z1, gate)


def tiny_attention(g: Editor, x: str, out: int, width: int) -> str:
    """One head of attention over x [N, T, C] -> [N, T, out], with queries, keys and values of the given width."""
    with g.scope("attention"):
        q, k, v = g.add("chunk", g.add("linear", x, out=3 * width, name="qkv"), parts=3, dim=-1)
        return g.add("linear", g.add("attention", q, k, v), out=out, name="out")


def network(
    g: Editor, x: str, *, classes: int = 1000, patch: int = 16, dim: int = 256, depth: int = 30,
    hidden: int | None = None, attention: int = 0,
) -> str:  # fmt: skip
    """gMLP for images, gMLP-S by default: x [N, C, *spatial] -> [N, classes]. Ti: dim=128, B: dim=512."""
    x = patches(g, x, patch, dim)
    for i in range(depth):
        with g.scope(f"block{i}"):
            x = build(g, x, hidden=hidden, attention=attention)
    x = g.add("mean", g.add("layer_norm", x, name="norm"), dim=1)
    return g.add("linear", x, out=classes, name="head")


def claim(*, seed: int = 0) -> Claim:
    """The greatest distance to the paper's table, relative, over parameters and FLOPs of its three image models."""
    from archwright import ops
    from archwright.net.cost import cost

    table = {"Ti": (128, 5.9, 2.7), "S": (256, 19.5, 8.9), "B": (512, 73.4, 31.6)}
    details: dict[str, float] = {}
    worst = 0.0
    for name, (dim, params, flops) in table.items():
        g = ops.edit()
        made = cost(g.finish(network(g, g.input("image", (None, 3, 224, 224)), dim=dim)))
        details |= {f"{name} parameters (M)": made.params / 1e6, f"{name} GFLOPs": made.flops / 1e9}
        worst = max(worst, abs(made.params / 1e6 / params - 1), abs(made.flops / 1e9 / flops - 1))
    return Claim(100 * worst, "%", "at most 2", worst <= 0.02, "0", details)
