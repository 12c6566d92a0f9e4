"""Modern Hopfield layer: a state is moved to what it is most like among stored patterns, by softmax, repeatedly.

    xi <- K^T softmax(beta K xi)             one update; K [M, d] stored patterns, xi [d] a state, beta > 0
    y   = W0 V^T softmax(beta K xi)          the last one reads values V in the place of K

and the energy E(xi) = -lse(beta, K xi) + xi.xi / 2 + log(M) / beta + max|k|^2 / 2 never rises. One update is attention.
Three forms, all with heads that have their own projections:

    association  states x [N, S, C], stored [N, M, D] (x itself by default): xi = Wq x, K = Wk stored, V = Wv stored
    pooling      stored x [N, M, C]; the states [Q, d] are learned: y [N, Q, out]
    lookup       states x [N, S, C]; K and V [M, d] are learned

Small beta averages over all patterns, large beta picks one, and in between are fixed points that average over a few:
`averaged` counts how many in each head. Parameters: (2 C + 2 D) h d for association, h heads of width d.
Cost: 4 S M h d FLOPs for each update, and the projections.

Fails to retrieve patterns that lie close to each other: the separation max_j (k_i.k_i - k_i.k_j) decides.
Differs from the paper's code: no dropout, no masks, and keys are not normalised again between updates.

Ramsauer, Schaefl, Lehner, Seidl, Widrich, Adler, Gruber, Holzleitner, Pavlovic, Sandve, Greiff, Kreil, Kopp, Klambauer,
Brandstetter, Hochreiter: Hopfield Networks is All You Need, 2020, arXiv 2008.02217.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor, Graph
from archwright.kit.tokens import need_tokens
from archwright.net.net import Net

PART = {
    "kind": "block",
    "name": "modern_hopfield",
    "id": "modern-hopfield",
    "title": "Hopfield Networks is All You Need",
    "year": 2020,
    "arxiv": "2008.02217",
    "needs": ["tokens", "memory"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 4, 8], "dtype": "float32"}, {"shape": [None, 6, 10], "dtype": "float32"}],
        "hp": {"heads": 2, "width": 3, "steps": 2},
        "vary": [
            {"inputs": [{"shape": [None, 7, 12], "dtype": "float32"}], "hp": {"form": "pooling", "queries": 2}},
            {
                "inputs": [{"shape": [None, 5, 6], "dtype": "float32"}],
                "hp": {"form": "lookup", "memories": 9, "out": 4},
            },
            {"inputs": [{"shape": [None, 5, 8], "dtype": "float32"}], "hp": {"heads": 4, "norm": False, "beta": 0.7}},
        ],
    },
    "exact": "With one update the layer is scaled dot-product attention.",
    "claim": {
        "text": "10,000 random patterns in 64 dimensions are stored, and one update recovers them from noisy versions.",
        "paper": "exponentially many patterns are stored and retrieved with one update (theorems 3 and 4)",
    },
}

FORMS = ("association", "pooling", "lookup")


def build(
    g: Editor, x: str, stored: str | None = None, *, form: str = "association", heads: int = 1,
    width: int | None = None, steps: int = 1, beta: float | None = None, out: int | None = None, queries: int = 1,
    memories: int = 64, norm: bool = True,
) -> str:  # fmt: skip
    """x [N, S, C] -> [N, S, out]; in the form "pooling" [N, queries, out].

    stored    [N, M, D], for the form "association" only; x where it isn't given
    form      one of `FORMS`
    width     d, of a head; C / heads where it isn't given
    steps     updates, the last one included
    beta      1 / sqrt(d) where it isn't given
    out       C where it isn't given
    queries   learned states, for "pooling"
    memories  learned patterns, for "lookup"
    norm      layer norms on what is projected: then beta has the same meaning for all data
    """
    _, channels = need_tokens(g, x)
    if form not in FORMS or steps < 1 or (stored is not None and form != "association"):
        raise ArchwrightError(
            f"form is '{form}', steps {steps}, stored {stored}: expected one of {FORMS}, at least one step, "
            "and stored patterns for association only"
        )
    if width is None and channels % heads:
        raise ArchwrightError(f"{channels} channels cannot be divided among {heads} heads: give their width")
    d = width or channels // heads
    source = x if stored is None else stored
    if form == "lookup":
        keys, values = [
            g.add("param", shape=(heads, memories, d), init=("normal", 1.0), name=name) for name in ("keys", "values")
        ]
    else:
        need_tokens(g, source)
        source = g.add("layer_norm", source, name="norm_stored") if norm else source
        keys, values = [_heads(g, source, heads, d, name) for name in ("keys", "values")]
    if form == "pooling":
        state = g.add("param", shape=(heads, queries, d), init=("normal", 1.0), name="states")
    else:
        state = _heads(g, g.add("layer_norm", x, name="norm") if norm else x, heads, d, "states")
    state = associate(g, state, keys, values, steps, 1 / math.sqrt(d) if beta is None else beta)
    states = g.shape(state)[2]
    y = g.add("reshape", g.add("transpose", state, dim0=1, dim1=2), shape=(-1, states, heads * d))
    return g.add("linear", y, out=channels if out is None else out, name="out")


def associate(g: Editor, state: str, keys: str, values: str, steps: int, beta: float) -> str:
    """`steps` updates: state [..., S, d], keys and values [..., M, d] -> [..., S, d]."""
    across = g.add("transpose", keys, dim0=-2, dim1=-1)
    for step in range(steps):
        like = g.add("mul", g.add("matmul", state, across), value=beta)
        weights = g.add("softmax", like, dim=-1, name=f"association{step}")
        state = g.add("matmul", weights, values if step == steps - 1 else keys)
    return state


def _heads(g: Editor, x: str, heads: int, width: int, name: str) -> str:
    """x [N, T, C] -> [N, heads, T, width]."""
    y = g.add("linear", x, out=heads * width, bias=False, name=name)
    return g.add("transpose", g.add("reshape", y, shape=(-1, g.shape(x)[1], heads, width)), dim0=1, dim1=2)


# ------------------------------------------------------------------------------------------- looking at what it does
def energy(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """E of states [..., d] among patterns [M, d]: [...]."""
    like = (beta * state @ patterns.T).logsumexp(-1) / beta
    size = patterns.square().sum(1).max()
    return -like + 0.5 * state.square().sum(-1) + math.log(len(patterns)) / beta + 0.5 * size


def update(state: Tensor, patterns: Tensor, beta: float) -> Tensor:
    """One update of states [..., d] among patterns [M, d]."""
    return (beta * state @ patterns.T).softmax(-1) @ patterns


def averaged(net: Net, x: Sequence[Tensor], share: float = 0.9) -> dict[str, Tensor]:
    """For each association in a net and each head: how many patterns hold that share of the weight, the median over
    samples and states. 1: a single pattern is retrieved; a good part of all: an average. Node -> [heads]."""
    from archwright import ops

    names = [node.name for node in net.graph.nodes if node.op == "softmax" and "association" in node.name]
    inner = Graph(net.graph.nodes, tuple(names))
    found = ops.run(inner, net.weights, x) if names else ()
    counts = {}
    for name, weights in zip(names, found, strict=True):
        held = weights.sort(-1, descending=True).values.cumsum(-1)
        count = ((held < share).sum(-1) + 1).clamp(max=held.shape[-1])
        counts[name] = count.transpose(0, 1).flatten(1).median(-1).values
    return counts


def claim(*, seed: int = 0) -> Claim:
    """Share of patterns that one update recovers, to 1 % of their length, from versions displaced by half of it."""
    import torch

    from archwright import ops
    from archwright.net.build import build as module

    generator = torch.Generator().manual_seed(seed)
    details = {}
    for d, many in ((8, 10_000), (16, 10_000), (32, 10_000), (64, 10_000)):
        patterns = torch.randn(many, d, generator=generator)
        patterns *= math.sqrt(d) / patterns.norm(dim=1, keepdim=True)
        asked = torch.randperm(many, generator=generator)[:500]
        noise = torch.randn(500, d, generator=generator)
        noisy = patterns[asked] + 0.5 * math.sqrt(d) * noise / noise.norm(dim=1, keepdim=True)
        g = ops.edit()
        y = build(g, g.input("x", (None, 500, d)), form="lookup", memories=many, beta=1.0, norm=False)
        identity = torch.eye(d)
        weights = {
            "states.weight": identity, "out.weight": identity, "out.bias": torch.zeros(d),
            "keys": patterns[None], "values": patterns[None],
        }  # fmt: skip
        with torch.no_grad():
            found = module(Net(g.finish(y), weights)).eval()(noisy[None])[0]
        near = torch.cdist(found, patterns).argmin(1) == asked
        close = (found - patterns[asked]).norm(dim=1) < 0.01 * math.sqrt(d)
        details[f"recovered, {d} dimensions"] = 100 * float((near & close).double().mean())
        risen = energy(found, patterns, 1.0) - energy(noisy, patterns, 1.0)
        details[f"greatest rise of energy, {d} dimensions"] = float(risen.max())
    figure = details["recovered, 64 dimensions"]
    notes = ("A classical Hopfield net of 64 units holds about 0.138 x 64 = 9 patterns.",)
    return Claim(figure, "%", "at least 99", figure >= 99, "all", details, notes)
