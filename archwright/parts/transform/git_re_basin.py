"""Git Re-Basin: the hidden units of one network are put in the order of another's, so that the two can be averaged.

    weights           max over permutations P of <A, P(B)>: one axis after the other, a linear assignment each, whose
                      gain is the inner product of all that belongs to a unit of A and to a unit of B
    activations       the assignment that maximises the correlation of what units do on training samples
    straight_through  a copy C of A is trained so that the loss of (A + P(B)) / 2 falls, with P found by matching C and
                      the gradient passed through P(B) to C as if it were C; the best P seen is kept

`apply((net, reference), data)` gives the first net permuted, which computes the same as before. `share` above 0 then
goes that far towards the reference: 0.5 is the average of the two. The axes are those of any graph: the classes of
`archwright.net.axes`, with all weights in which they stand (convolutions, norms, residual streams, products of axes).

Cost: for each class and sweep one assignment, O(units^3), and inner products of its weights; "activations" one pass
over `samples` samples and one assignment a class; "straight_through" `steps` of both. Fails for narrow networks and
those trained too little, whose minima are not one up to permutation; averaged batch norms need new statistics.
Differs from the paper: "activations" takes correlations, which scales of units do not sway, and falls back on weights
for units that stand in no value of their own; classes that meet themselves (recurrent weights) move only if nearer.

Ainsworth, Hayase, Srinivasa: Git Re-Basin: Merging Models modulo Permutation Symmetries, 2022, arXiv 2209.04836.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from archwright.core import seeds
from archwright.core.records import Chart, Claim, Figure, Report
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.align import (
    Matcher,
    Orders,
    activations,
    assign,
    barrier,
    correlation,
    identity,
    interpolate,
    need_same_graph,
)
from archwright.kit.losses import loss_for
from archwright.net.axes import axes
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "transform",
    "name": "git_re_basin",
    "id": "git-re-basin",
    "title": "Git Re-Basin: Merging Models modulo Permutation Symmetries",
    "year": 2022,
    "arxiv": "2209.04836",
    "needs": ["two nets"],
    "extras": [],
    "example": {"hp": {"method": "weights"}},
    "exact": "The permuted net computes what it did before; a shuffled copy is put back exactly.",
    "claim": {
        "text": "Two perceptrons, 512 units a layer, on digits: loss barrier before over after weight matching.",
        "paper": "no barrier between wide ResNets on CIFAR-10 (Figure 2)",
    },
}

METHODS = ("weights", "activations", "straight_through")


def apply(
    nets: Sequence[Net],
    data: Data,
    *,
    seed: int = 0,
    method: str = "weights",
    share: float = 0.0,
    samples: int = 512,
    steps: int = 40,
    lr: float = 1e-2,
    sweeps: int = 100,
) -> tuple[Net, Report]:
    """The first of two nets with its units where the second one's are, and `share` of the way to the second.

    samples  training samples for "activations", and for the loss that the report measures
    steps    and lr: of "straight_through"
    sweeps   at most so many rounds over all classes
    Raises `ArchwrightError` for an unknown method, `GraphError` for nets of different graphs.
    """
    if method not in METHODS or not 0 <= share <= 1:
        raise ArchwrightError(f"got method '{method}', share={share}, expected {', '.join(METHODS)}, and 0 to 1")
    net, reference = nets
    need_same_graph(net, reference)
    tied = axes(net)
    matcher, rng = Matcher(tied), seeds.rng(seed, "git_re_basin")
    small = data.take("train", samples, seeds.rng(seed, "git_re_basin", "samples"))
    x, y = small.tensors("train")
    if method == "weights":
        orders = matcher.match(reference.weights, net.weights, rng, sweeps=sweeps)
    elif method == "activations":
        orders = _by_activations(matcher, net, reference, x, rng, sweeps)
    else:
        orders = _straight_through(matcher, net, reference, small, rng, steps, lr, sweeps)
    moved = {number: order for number, order in orders.items() if (order != np.arange(len(order))).any()}
    aligned = tied.permute(net, {number: order.tolist() for number, order in moved.items()})
    loss = loss_for(data)
    before, way = barrier(net, reference, x, y, loss)
    after, path = barrier(aligned, reference, x, y, loss)
    along = np.linspace(0, 1, len(way)).tolist()
    unit = "nats" if data.task == "classification" else "squared error"
    figures = (
        Figure("barrier before", before, unit),
        Figure("barrier after", after, unit),
        Figure("units", float(sum(c.size for c in tied.free)), "units"),
        Figure("units moved", float(sum(int((o != np.arange(len(o))).sum()) for o in moved.values())), "units"),
    )
    chart = Chart(
        "Loss on the way from the net to the reference", "line",
        {"as it was": {"x": along, "y": way}, "permuted": {"x": along, "y": path}}, "share of the reference", unit,
    )  # fmt: skip
    if not share:
        return aligned, Report("git_re_basin", True, figures, (chart,))
    bound = max(before, after)
    measure = Figure("barrier on the way to the reference", after, unit)
    return interpolate(aligned, reference, share), Report(
        "git_re_basin", False, figures, (chart,), measure=measure, bound=bound
    )


def _by_activations(
    matcher: Matcher, net: Net, reference: Net, x: Sequence[torch.Tensor], rng: np.random.Generator, sweeps: int
) -> Orders:
    ours, theirs = [activations(matcher.tied, n, x, matcher.tied.free) for n in (net, reference)]
    orders = identity(matcher.tied)
    for number in ours:
        orders[number] = assign(correlation(theirs[number], ours[number]))
    rest = [c.number for c in matcher.tied.free if c.number not in ours]
    for _ in range(sweeps if rest else 0):
        changed = False
        for number in rng.permutation(rest).tolist():
            now = matcher.permuted(net.weights, orders)
            order = orders[number][assign(matcher.gain(number, reference.weights, now))]
            changed |= bool((order != orders[number]).any())
            orders[number] = order
        if not changed:
            break
    return orders


def _straight_through(
    matcher: Matcher, net: Net, reference: Net, data: Data, rng: np.random.Generator, steps: int, lr: float, sweeps: int
) -> Orders:
    """The best orders seen while a copy of the reference learns where the other net should stand."""
    x, y = data.tensors("train")
    loss, module = loss_for(data), build(reference).eval()
    fixed = dict(reference.weights)
    copy = {n: fixed[n].clone().requires_grad_() for n in sorted(matcher.trained)}
    optimiser = torch.optim.Adam(list(copy.values()), lr=lr)
    orders: Orders | None = None
    best, found = float("inf"), identity(matcher.tied)
    for _ in range(steps):
        orders = matcher.match({**fixed, **{n: c.detach() for n, c in copy.items()}}, net.weights, rng, orders,
                               sweeps=sweeps)  # fmt: skip
        moved = matcher.permuted(net.weights, orders)
        middle = {
            n: 0.5 * (w + (copy[n] + (moved[n] - copy[n]).detach() if n in copy else moved[n]))
            if w.is_floating_point() else w
            for n, w in fixed.items()
        }  # fmt: skip
        with torch.enable_grad():
            value = loss(torch.func.functional_call(module, middle, x), y)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
        if float(value.detach()) < best:
            best, found = float(value.detach()), orders
        optimiser.step()
    return found


def case(seed: int) -> tuple[tuple[Net, Net], Data]:
    """Two nets of one architecture, trained from different starts."""
    from archwright.core.checks import toys

    source = toys.data("image")
    nets = [toys.net("residual", source, 2 * seed + k, trained=True) for k in range(2)]
    return (nets[0], nets[1]), source


def claim(*, seed: int = 0) -> Claim:
    """Barrier between two nets on the test split, before and after each method; and a shuffled copy put back."""
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit.digits import perceptron
    from archwright.kit.train import fit

    data = builtin("digits", seed)
    nets = [
        fit(perceptron(data, (512, 512), seed=2 * seed + k), data, Budget(steps=400), np.random.default_rng((seed, k)),
            lr=1e-3, schedule="cosine", keep="last")[0]
        for k in range(2)
    ]  # fmt: skip
    x, y = data.tensors("test")
    loss = loss_for(data)
    naive = barrier(nets[0], nets[1], x, y, loss)[0]
    found = {}
    for method in METHODS:
        aligned, _ = apply(nets, data, seed=seed, method=method, steps=10)
        found[method] = barrier(aligned, nets[1], x, y, loss)[0]
    tied = axes(nets[0])
    rng = seeds.rng(seed, "shuffle")
    shuffled = tied.permute(nets[0], {c.number: rng.permutation(c.size).tolist() for c in tied.free})
    back, _ = apply((shuffled, nets[0]), data, seed=seed)
    recovered = all(torch.equal(back.weights[n], w) for n, w in nets[0].weights.items())
    ratio = naive / max(found["weights"], 1e-9)
    return Claim(
        ratio, "1", "above 10, and a shuffled copy is put back exactly", ratio > 10 and recovered,
        "no barrier between wide ResNets (Figure 2)",
        {"barrier before": naive, "shuffled copy recovered": float(recovered)}
        | {f"barrier, {method}": value for method, value in found.items()},
        ("barriers in nats on the test split, at 11 places",),
    )  # fmt: skip
