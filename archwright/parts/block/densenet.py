"""DenseNet: every layer of a block reads the maps of all layers before it, and adds a few of its own.

    x_l = H_l([x_0, x_1, ..., x_(l-1)])          [...] is concatenation of channels, H_l makes k maps (growth rate)
    H   = conv3(relu(BN(conv1(relu(BN(.))))))    conv1 to 4 k channels is the bottleneck; without: conv3(relu(BN(.)))
    y   = [x_0, ..., x_L]                        and, with compression: pool2(conv1(relu(BN(y)))), the transition

x [N, C, *spatial] -> y [N, C + L k, *spatial], or [N, compression (C + L k), *spatial / 2]. A block of L layers has
L (L + 1) / 2 links between its input and layers, where a chain has L.
Parameters without transition (in two dimensions, b = 4): sum over l of 2 c + b c k + 2 b k + 9 b k^2, c = C + l k.
Cost: 2 (b c k + 9 b k^2) FLOPs a position and layer.

Fails on memory: the concatenations make the training memory quadratic in L, unless they are recomputed in the backward
pass (the paper's follow-up, arXiv 1707.06990), which is a matter of how a graph is run, not of the graph.
Differs from the paper in nothing.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, 2016, arXiv 1608.06993.
"""

from __future__ import annotations

from collections.abc import Sequence

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor, Graph

PART = {
    "kind": "block",
    "name": "densenet",
    "id": "densenet",
    "title": "Densely Connected Convolutional Networks",
    "year": 2016,
    "arxiv": "1608.06993",
    "needs": ["image", "channels"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 6, 6, 6], "dtype": "float32"}],
        "hp": {"layers": 3, "growth": 4},
        "vary": [
            {"inputs": [{"shape": [None, 8, 5, 7], "dtype": "float32"}], "hp": {"layers": 2, "bottleneck": 0}},
            {"inputs": [{"shape": [None, 7, 8, 8], "dtype": "float32"}], "hp": {"layers": 2, "compression": 0.5}},
            {"inputs": [{"shape": [None, 5, 12], "dtype": "float32"}], "hp": {"layers": 4, "growth": 3}},
        ],
    },
    "exact": "A block of L layers has L (L + 1) / 2 links; DenseNet-121 has 7,978,856 parameters.",
    "claim": {
        "text": "DenseNet-121 for ImageNet has exactly 7,978,856 parameters, and L (L + 1) / 2 links in each block.",
        "paper": "7,978,856 (published weights), 8.0 M (table 1 of arXiv 1707.06990)",
    },
}


def build(
    g: Editor, x: str, *, layers: int = 6, growth: int = 32, bottleneck: int = 4, compression: float | None = None,
    dropout: float = 0.0,
) -> str:  # fmt: skip
    """A dense block: x [N, C, *spatial] -> [N, C + layers growth, *spatial], and a transition after it if wanted.

    growth       k, maps that a layer adds
    bottleneck   channels of the 1x1 convolution before the 3x3 one, in units of growth; 0 leaves it out
    compression  share of the channels that the transition keeps; it halves the size. None: no transition
    dropout      after each layer
    """
    if layers < 1:
        raise ArchwrightError(f"layers is {layers}, expected at least 1")
    maps = [x]
    for i in range(layers):
        with g.scope(f"layer{i}"):
            maps.append(layer(g, join(g, maps), growth, bottleneck, dropout))
    y = join(g, maps)
    return y if compression is None else transition(g, y, compression)


def join(g: Editor, maps: Sequence[str]) -> str:
    """Maps one after the other along the channels."""
    return g.add("concat", *maps, dim=1, name="join") if len(maps) > 1 else maps[0]


def layer(g: Editor, x: str, growth: int, bottleneck: int, dropout: float = 0.0) -> str:
    """H: x [N, C, *spatial] -> [N, growth, *spatial]."""
    ones = [1] * (len(g.shape(x)) - 2)
    x = g.add("relu", g.add("batch_norm", x, name="norm1"))
    if bottleneck:
        x = g.add("conv", x, out=bottleneck * growth, kernel=ones, bias=False, name="conv1")
        x = g.add("relu", g.add("batch_norm", x, name="norm2"))
    x = g.add("conv", x, out=growth, kernel=[3 * one for one in ones], padding=1, bias=False, name="conv2")
    return g.add("dropout", x, p=dropout) if dropout else x


def transition(g: Editor, x: str, compression: float) -> str:
    """x [N, C, *spatial] -> [N, compression C, *spatial / 2]."""
    if not 0 < compression <= 1:
        raise ArchwrightError(f"compression is {compression}, expected a share of the channels, above 0 and at most 1")
    _, channels, *spatial = g.shape(x)
    with g.scope("transition"):
        x = g.add("relu", g.add("batch_norm", x, name="norm"))
        out = max(1, int(compression * channels))
        x = g.add("conv", x, out=out, kernel=[1] * len(spatial), bias=False, name="conv")
        return g.add("avg_pool", x, kernel=[2] * len(spatial))


def network(
    g: Editor, x: str, *, classes: int = 1000, blocks: Sequence[int] = (6, 12, 24, 16), growth: int = 32,
    bottleneck: int = 4, compression: float = 0.5, stem: int | None = None, small: bool = False,
) -> str:  # fmt: skip
    """DenseNet, DenseNet-121 for ImageNet by default: x [N, C, height, width] -> [N, classes].

    stem   channels of the first convolution: 2 growth if not given
    small  a 3x3 convolution in front, for images of 32 x 32, in the place of a 7x7 one with stride and max pooling
    """
    out = stem or 2 * growth
    if small:
        x = g.add("conv", x, out=out, kernel=3, padding=1, bias=False, name="stem")
    else:
        x = g.add("conv", x, out=out, kernel=7, stride=2, padding=3, bias=False, name="stem")
        x = g.add("relu", g.add("batch_norm", x, name="stem_norm"))
        x = g.add("max_pool", x, kernel=3, stride=2, padding=1)
    for i, layers in enumerate(blocks):
        with g.scope(f"block{i}"):
            last = i == len(blocks) - 1
            x = build(
                g, x, layers=layers, growth=growth, bottleneck=bottleneck, compression=None if last else compression
            )
    x = g.add("relu", g.add("batch_norm", x, name="norm"))
    return g.add("linear", g.add("mean", x, dim=(2, 3)), out=classes, name="head")


def links(graph: Graph, scope: str = "") -> int:
    """Links that the layers of a block in a scope read: from the block's input, and from each other."""
    found, i = 0, 0
    while f"{scope}layer{i}.norm1" in graph.by_name:
        source = graph.by_name.get(graph.by_name[f"{scope}layer{i}.norm1"].inputs[0])
        own = source is not None and source.name == f"{scope}layer{i}.join"
        found += len(source.inputs) if own and source is not None else 1
        i += 1
    return found


def claim(*, seed: int = 0) -> Claim:
    """Parameters of DenseNet-121, and the links of its blocks."""
    from archwright import ops
    from archwright.net.cost import cost

    g = ops.edit()
    graph = g.finish(network(g, g.input("image", (None, 3, 224, 224))))
    found = cost(graph)
    blocks = (6, 12, 24, 16)
    counted = {f"links of block {i} ({n} layers)": float(links(graph, f"block{i}.")) for i, n in enumerate(blocks)}
    held = found.params == 7_978_856 and list(counted.values()) == [n * (n + 1) / 2 for n in blocks]
    details = {**counted, "GFLOPs": found.flops / 1e9}
    return Claim(float(found.params), "parameters", "exactly 7978856", held, "7,978,856", details)
