"""Graphs that the tests of floor 2 share: small, but with everything that has to be dealt with.

No bias stands where its gradient is zero but for rounding (before a norm, in the keys of attention): adaptive
optimisers would blow that noise up, and no two ways to train would agree.
"""

from __future__ import annotations

from archwright import edit
from archwright.ir import Graph


def mlp(inputs: int = 12, width: int = 16, outputs: int = 5, dropout: float = 0.0) -> Graph:
    """Linear layers with batch norm."""
    g = edit()
    x = g.input("x", (None, inputs))
    for i in range(2):
        with g.scope(f"layers.{i}"):
            x = g.add("linear", x, out=width, bias=False, name="fc")
            x = g.add("batch_norm", x, name="norm")
            x = g.add("relu", x, name="act")
            if dropout:
                x = g.add("dropout", x, p=dropout, name="drop")
    return g.finish(g.add("linear", x, out=outputs, name="head"))


def cnn(channels: int = 8, size: int = 8, outputs: int = 5) -> Graph:
    """Residual blocks of convolutions with batch norm, a branch joined by concat, pooling."""
    g = edit()
    x = g.input("image", (None, 3, size, size))
    x = g.add("conv", x, out=channels, kernel=3, padding=1, bias=False, name="stem.conv")
    x = g.add("relu", g.add("batch_norm", x, name="stem.norm"), name="stem.act")
    for i in range(2):
        with g.scope(f"blocks.{i}"):
            y = g.add("conv", x, out=channels, kernel=3, padding=1, bias=False, name="conv1")
            y = g.add("relu", g.add("batch_norm", y, name="norm1"), name="act1")
            y = g.add("conv", y, out=channels, kernel=3, padding=1, bias=False, name="conv2")
            y = g.add("batch_norm", y, name="norm2")
            x = g.add("relu", g.add("add", x, y, name="sum"), name="act2")
    pooled = g.add("max_pool", x, kernel=2, name="pool")
    wide = g.add("conv", pooled, out=channels, kernel=1, name="wide")
    x = g.add("concat", pooled, wide, dim=1, name="join")
    x = g.add("mean", x, dim=(2, 3), name="average")
    return g.finish(g.add("linear", x, out=outputs, name="head"))


def transformer(tokens: int = 6, width: int = 16, heads: int = 2, vocabulary: int = 20, blocks: int = 2) -> Graph:
    """Pre-norm blocks over embedded tokens, with a learned position and the first position as summary."""
    g = edit()
    ids = g.input("ids", (None, tokens), "int64")
    x = g.add("embedding", ids, num=vocabulary, dim=width, name="token")
    x = g.add("add", x, g.add("param", shape=(tokens, width), init=("normal", 0.02), name="position"))
    for i in range(blocks):
        with g.scope(f"blocks.{i}"):
            y = g.add("layer_norm", x, name="norm1")
            y = g.add("linear", y, out=3 * width, bias=False, name="attn.qkv")
            y = g.add("reshape", y, shape=(-1, tokens, 3, heads, width // heads))
            q, k, v = g.add("unbind", g.add("permute", y, dims=(2, 0, 3, 1, 4)), dim=0)
            y = g.add("attention", q, k, v)
            y = g.add("reshape", g.add("transpose", y, dim0=1, dim1=2), shape=(-1, tokens, width))
            x = g.add("add", x, g.add("linear", y, out=width, name="attn.out"))
            y = g.add("layer_norm", x, name="norm2")
            y = g.add("gelu", g.add("linear", y, out=2 * width, name="mlp.up"))
            x = g.add("add", x, g.add("linear", y, out=width, name="mlp.down"))
    x = g.add("select", g.add("layer_norm", x, name="norm"), dim=1, index=0)
    return g.finish(g.add("linear", x, out=3, name="head"))


def several() -> Graph:
    """Two arguments, several outputs (one of them twice, one an argument), a shared slot, a part that nobody reads."""
    g = edit()
    x, y = g.input("x", (None, 8)), g.input("y", (None, 8))
    a = g.add("linear", x, out=8, name="fc")
    b = g.add("linear", y, out=8, name="again", slot="fc")
    left, _, right = g.add("split", g.add("add", a, b), sizes=(2, 4, 2), dim=1)
    return g.finish(right, g.add("mul", left, right), right, y)


def branches(index: int = 1) -> Graph:
    """A switch of which one branch is taken."""
    g = edit()
    x = g.input("x", (None, 4))
    ways = [g.add("linear", g.add("linear", x, out=9, name=f"way{i}.up"), out=4, name=f"way{i}.down") for i in range(3)]
    return g.finish(g.add("switch", *ways, index=index, name="choice"))


def modes() -> Graph:
    """Other nodes in training than in evaluation, and a buffer that training changes."""
    g = edit()
    x = g.add("neg", g.input("x", (None, 8)))
    hot = g.add("relu", g.add("linear", x, out=8, name="hot"))
    x = g.add("by_mode", hot, g.add("linear", x, out=8, name="cold"), name="choice")
    seen = g.add("update", g.add("mean", x, dim=(0,)), name="state")
    return g.finish(g.add("exp", g.add("after", x, seen)))


ALL = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "several": several, "branches": branches,
       "modes": modes}  # fmt: skip
