"""SynFlow: how much flows through a network when all weights are positive; a score without data and without training.

    R = sum_k f(1; |w|)_k        score = ln(1 + sum_i |w_i * dR / dw_i|)

f the network in eval mode, without its normalisations, at one input of ones; |w| all weights (biases and buffers too)
made positive; the sum runs over weights of rank 2 or more (linear maps, convolutions). In float64, since R grows or
shrinks exponentially with depth; hence also the logarithm, which keeps the ranking. For a network that is linear with
positive weights, each layer's sum is R itself. Whole-number inputs are ones as well (every token is number 1).

Cost: one forward and one backward pass of a single sample. Says much of connectivity, depth and width, nothing of the
data: it prefers the larger of two networks, and ranks poorly where all are of one size. Differs from the paper: used as
a score as in Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, 2021, arXiv 2101.08134, on a logarithmic scale.

Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic flow, 2020,
arXiv 2006.05467.
"""

from __future__ import annotations

import math

import torch

from archwright import ops
from archwright.core.records import Claim, Score
from archwright.data.data import Data
from archwright.ir import BATCH, Graph, Node
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "estimator",
    "name": "synflow",
    "id": "",
    "title": "Pruning neural networks without any data by iteratively conserving synaptic flow",
    "year": 2020,
    "arxiv": "2006.05467",
    "needs": ["zero-cost", "baseline"],
    "extras": [],
    "example": {"data": "image", "net": "conv", "target": "error", "floor": 0.4},
    "exact": "For a chain of linear layers without biases each layer's sum is R, the product of all absolute weights "
    "applied to ones.",
    "claim": {
        "text": "80 cells of NAS-Bench-201: Spearman correlation with CIFAR-10 test accuracy.",
        "paper": "0.74 on all cells (Abdelfattah et al., Table 1)",
    },
}

_NORMS = frozenset(("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"))


def saliency(net: Net) -> tuple[float, dict[str, torch.Tensor]]:
    """R, and |w * dR/dw| by weight name, for the weights of rank 2 or more (float64)."""
    nodes = [Node(n.name, "identity", n.inputs[:1]) if n.op in _NORMS else n for n in net.graph.nodes]
    graph = Graph(tuple(nodes), net.graph.outputs)
    wanted = ops.params(graph)
    flow = {n: w.abs() if w.is_floating_point() else w for n, w in net.weights.items() if n in wanted}
    module = build(Net(graph, flow)).double().eval()
    known = ops.infer(graph, BATCH)
    x = []
    for node in graph.inputs:
        shape = [1 if n is None else n for n in node.attrs["shape"]]
        dtype = getattr(torch, known[node.name].dtype)
        x.append(torch.ones(shape, dtype=torch.float64 if dtype.is_floating_point else dtype))
    with torch.enable_grad():
        made = module(*x)
        total = sum([t.sum() for t in (made if isinstance(made, tuple) else (made,))])
        weights = {n: p for n, p in module.named_parameters() if p.dim() > 1 and p.requires_grad}
        grads = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    found = {
        name: (p * g).abs().detach() if g is not None else torch.zeros_like(p)
        for (name, p), g in zip(weights.items(), grads, strict=True)
    }
    return float(total.detach()), found


def score(net: Net, data: Data, *, seed: int = 0) -> Score:
    """ln(1 + synaptic flow): the greater the better. Neither data nor seed are used."""
    flow, parts = saliency(net)
    total = float(sum([p.sum() for p in parts.values()]))
    value = math.log1p(total) if math.isfinite(total) else math.log(torch.finfo(torch.float64).max)
    return Score(value, "1", "max", details={"ln(1 + R)": math.log1p(max(flow, 0.0)) if math.isfinite(flow) else value})


def claim(*, seed: int = 0) -> Claim:
    """Own networks of random cells, untrained; what they reached when trained is in the table."""
    import numpy as np

    from archwright.core.registry import load
    from archwright.core.space import Space, Spec
    from archwright.data.builtin import builtin
    from archwright.kit.nasbench201 import table
    from archwright.kit.ranks import spearman
    from archwright.net.net import init

    known, data = table(), builtin("digits")
    traces = known.traces()
    space = Space("nas_bench_201", load("space/nas_bench_201"), Spec(((None, 3, 32, 32),), 10))
    chosen = np.random.default_rng(seed).choice(len(traces), 80, replace=False)
    found, wanted = [], []
    for i in chosen:
        net = init(space.draw(traces[int(i)]), seed)
        found.append(score(net, data).value)
        wanted.append(known.query(traces[int(i)], "c10_test_200"))
    rank = spearman(found, wanted)
    return Claim(
        rank, "1", "above 0.6", rank > 0.6, "0.74 on all cells (Abdelfattah et al., Table 1)",
        {"cells": float(len(found))},
    )  # fmt: skip
