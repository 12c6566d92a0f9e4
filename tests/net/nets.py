"""Small nets in the shapes that people write them in, for the tests of what is written from a net."""

from __future__ import annotations

from collections.abc import Callable

import torch

from archwright import edit
from archwright.ir import Editor, Graph
from archwright.net.net import Net, init


def _conv_norm(g: Editor, x: str, n: int, out: int, kernel: int, stride: int = 1, act: bool = True) -> str:
    x = g.add("conv", x, out=out, kernel=kernel, stride=stride, padding=kernel // 2, bias=False, name=f"conv{n}")
    x = g.add("batch_norm", x, name=f"bn{n}")
    return g.add("relu", x, name=f"relu{n}") if act else x


def residual(widths: tuple[int, ...] = (8, 16, 24), blocks: int = 2, size: int = 16, bottleneck: bool = False) -> Graph:
    """A ResNet: stages of blocks, the first of a stage with a shortcut of its own."""
    g = edit()
    x = g.input("x", (None, 3, size, size))
    x = _conv_norm(g, x, 1, widths[0], 3)
    x = g.add("max_pool", x, kernel=3, stride=2, padding=1, name="maxpool")
    for stage, width in enumerate(widths, 1):
        for block in range(blocks):
            with g.scope(f"layer{stage}.{block}"):
                stride = 2 if stage > 1 and block == 0 else 1
                out = width * 4 if bottleneck else width
                y = _conv_norm(g, x, 1, width, 1 if bottleneck else 3, 1 if bottleneck else stride)
                y = _conv_norm(g, y, 2, width, 3, stride if bottleneck else 1, act=bottleneck)
                if bottleneck:
                    y = _conv_norm(g, y, 3, out, 1, act=False)
                if g.shape(x) != g.shape(y):
                    x = g.add("conv", x, out=out, kernel=1, stride=stride, bias=False, name="downsample.0")
                    x = g.add("batch_norm", x, name="downsample.1")
                x = g.add("relu", g.add("add", y, x, name="add"), name="relu")
    x = g.add("adaptive_avg_pool", x, size=(1, 1), name="avgpool")
    return g.finish(g.add("linear", g.add("flatten", x, name="flatten"), out=10, name="fc"))


def unet(widths: tuple[int, ...] = (4, 8, 12), size: int = 16) -> Graph:
    """An encoder, a decoder, and a connection across at every scale."""
    g = edit()
    x = g.input("image", (None, 3, size, size))

    def double(x: str, width: int) -> str:
        return _conv_norm(g, _conv_norm(g, x, 1, width, 3), 2, width, 3)

    across = []
    for i, width in enumerate(widths):
        with g.scope(f"down.{i}"):
            x = double(x, width)
        across.append(x)
        x = g.add("max_pool", x, kernel=2, name=f"pool.{i}")
    with g.scope("middle"):
        x = double(x, 2 * widths[-1])
    for i, width in enumerate(widths[::-1]):
        with g.scope(f"up.{i}"):
            x = g.add("conv_transpose", x, out=width, kernel=2, stride=2, name="grow")
            x = double(g.add("concat", across.pop(), x, name="join"), width)
    return g.finish(g.add("conv", x, out=2, kernel=1, name="head"))


def vision_transformer(blocks: int = 3, width: int = 24, heads: int = 3, size: int = 16, dropout: float = 0.1) -> Graph:
    """Patches, a class token, pre-norm blocks with fused query, key and value."""
    g = edit()
    x = g.input("image", (None, 3, size, size))
    x = g.add("conv", x, out=width, kernel=4, stride=4, name="patch_embed.proj")
    x = g.add("flatten", x, start=2, name="patch_embed.flatten")
    x = g.add("transpose", x, dim0=1, dim1=2, name="patch_embed.transpose")
    token = g.add("param", shape=(1, 1, width), init=("normal", 0.02), name="cls_token")
    x = g.add("concat", g.add("expand", token, x, shape=(0, 1, width), name="expand"), x, dim=1, name="tokens")
    n = g.shape(x)[1]
    x = g.add("add", x, g.add("param", shape=(1, n, width), init=("normal", 0.02), name="pos_embed"), name="add")
    x = g.add("dropout", x, p=dropout, name="drop")
    for i in range(blocks):
        with g.scope(f"blocks.{i}"):
            y = g.add("layer_norm", x, name="norm1")
            with g.scope("attn"):
                y = g.add("linear", y, out=3 * width, name="qkv")
                y = g.add("reshape", y, shape=(-1, n, 3, heads, width // heads), name="split_heads")
                q, k, v = g.add("unbind", g.add("permute", y, dims=(2, 0, 3, 1, 4), name="permute"), name="unbind")
                y = g.add("transpose", g.add("attention", q, k, v, name="attention"), dim0=1, dim1=2, name="transpose")
                y = g.add("linear", g.add("reshape", y, shape=(-1, n, width), name="merge"), out=width, name="proj")
                y = g.add("dropout", y, p=dropout, name="proj_drop")
            x = g.add("add", x, y, name="add1")
            y = g.add("layer_norm", x, name="norm2")
            with g.scope("mlp"):
                y = g.add("gelu", g.add("linear", y, out=2 * width, name="fc1"), name="act")
                y = g.add("dropout", g.add("linear", y, out=width, name="fc2"), p=dropout, name="drop")
            x = g.add("add", x, y, name="add2")
    x = g.add("select", g.add("layer_norm", x, name="norm"), dim=1, index=0, name="first")
    return g.finish(g.add("linear", x, out=10, name="head"))


def language_model(tokens: int = 7, width: int = 16, vocabulary: int = 21) -> Graph:
    """Causal blocks from torch's own attention; the embedding is also the output layer."""
    g = edit()
    ids = g.input("ids", (None, tokens), "int64")
    x = g.add("embedding", ids, num=vocabulary, dim=width, name="embed.tokens")
    for i in range(2):
        with g.scope(f"layers.{i}"):
            y = g.add("rms_norm", x, name="norm")
            y = g.add("multihead_attention", y, y, y, heads=2, batch_first=True, weights=False, name="attn")
            x = g.add("add", x, y, name="add")
            y = g.add("rms_norm", x, name="norm2")
            gate = g.add("silu", g.add("linear", y, out=2 * width, bias=False, name="mlp.gate"), name="mlp.act")
            y = g.add("mul", gate, g.add("linear", y, out=2 * width, bias=False, name="mlp.up"), name="mlp.mul")
            x = g.add("add", x, g.add("linear", y, out=width, bias=False, name="mlp.down"), name="add2")
    shape, slot = (vocabulary, width), "embed.tokens.weight"
    table = g.add("param", shape=shape, init=("normal", 1.0), name="head.table", slot=slot)
    return g.finish(g.add("linear", x, table, out=vocabulary, bias=False, name="head.linear"))


def recurrent() -> Graph:
    """A bidirectional LSTM of two layers with dropout, a GRU, the last state."""
    g = edit()
    x = g.input("signal", (None, 9, 5))
    options = {"batch_first": True, "bidirectional": True, "dropout": 0.2}
    x, h, _ = g.add("lstm", x, hidden=6, layers=2, name="encoder.lstm", **options)
    y, last = g.add("gru", x, hidden=7, batch_first=True, name="decoder.gru")
    x = g.add("select", y, dim=1, index=-1, name="last")
    z = g.add("select", h, dim=0, index=0, name="state")
    x = g.add("concat", x, z, g.add("select", last, dim=0, index=0, name="same"), dim=1, name="all")
    return g.finish(g.add("linear", x, out=3, name="head"))


def sequential() -> Graph:
    """What nn.Sequential gives: names are numbers."""
    g = edit()
    x = g.input("x", (None, 1, 8, 8))
    x = g.add("relu", g.add("conv", x, out=4, kernel=3, name="0.0"), name="0.1")
    x = g.add("batch_norm", x, name="0.2")
    x = g.add("flatten", g.add("max_pool", x, kernel=2, name="1"), name="2")
    x = g.add("dropout", g.add("relu", g.add("linear", x, out=12, name="3"), name="4"), p=0.3, name="5")
    return g.finish(g.add("linear", x, out=10, name="7"))


def shared() -> Graph:
    """One linear layer used three times, once from another scope; a scale that two blocks read."""
    g = edit()
    x = g.input("x", (None, 6))
    scale = g.add("param", shape=(6,), init=("ones",), name="tools.scale")
    for i in range(3):
        x = g.add("tanh", g.add("linear", x, out=6, name=f"step{i}.fc", slot="tools.fc"), name=f"step{i}.act")
        x = g.add("mul", x, scale, name=f"step{i}.mul")
    return g.finish(x)


def interleaved() -> Graph:
    """Two towers that read each other at every level: no tower can be called on its own."""
    g = edit()
    a, b = g.input("a", (None, 5)), g.input("b", (None, 5))
    for i in range(2):
        a1 = g.add("linear", g.add("add", a, b, name=f"left.{i}.add"), out=5, name=f"left.{i}.fc")
        b1 = g.add("linear", g.add("mul", a1, b, name=f"right.{i}.mul"), out=5, name=f"right.{i}.fc")
        a, b = g.add("sigmoid", a1, name=f"left.{i}.act"), g.add("dropout", b1, p=0.5, name=f"right.{i}.drop")
    return g.finish(a, b, a)


def flat(depth: int = 12) -> Graph:
    """No scopes at all: a chain of convolutions with made-up names and a sum over all of them."""
    g = edit()
    x = g.input("x", (None, 4, 6, 6))
    found = [x]
    for _ in range(depth):
        found.append(g.add("relu", g.add("conv", found[-1], out=4, kernel=3, padding=1)))
    while len(found) > 1:
        found = [g.add("add", found[0], found[1]), *found[2:]]
    return g.finish(found[0])


def loose() -> Graph:
    """Weights as values: a buffer table, a kernel of its own, mixed branches, several outputs, an unused one."""
    g = edit()
    x = g.input("x", (None, 4, 8))
    kernel = g.add("param", shape=(6, 4, 3), init=("uniform", 0.3), name="stem.kernel")
    kernel = g.add("tanh", kernel, name="stem.tanh")
    y = g.add("conv", x, kernel, out=6, kernel=3, padding=1, bias=False, name="stem.conv")
    ways = [g.add("conv", y, out=6, kernel=k, padding=k // 2, name=f"mixed.ways.{i}") for i, k in enumerate((1, 3, 5))]
    y = g.add("mix", *ways, name="mixed.mix")
    y = g.add("add", y, g.add("buffer", shape=(6, 1), init=("range",), name="tables.shift"), name="shift")
    values, places = g.add("max", y, dim=2, name="max")
    left, _, right = g.add("split", values, sizes=(2, 3, 1), dim=1, name="pieces")
    return g.finish(right, left, places, x)


ALL: dict[str, Callable[[], Graph]] = {
    "residual": residual,
    "bottleneck": lambda: residual((4, 8), 3, bottleneck=True),
    "unet": unet,
    "vision_transformer": vision_transformer,
    "language_model": language_model,
    "recurrent": recurrent,
    "sequential": sequential,
    "shared": shared,
    "interleaved": interleaved,
    "flat": flat,
    "loose": loose,
}


def moved(graph: Graph, seed: int = 0) -> Net:
    """A net whose norm statistics, biases and scales are off their initial values."""
    net = init(graph, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in net.weights.items():
        if tensor.is_floating_point():
            tensor = tensor + 0.2 * torch.rand(tensor.shape, generator=generator)
        weights[name] = tensor
    return Net(graph, weights)
