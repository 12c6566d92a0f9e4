"""Neural persistence: how structured the weights of each layer are, read from the weights alone.

A layer with weight matrix W [m, n] is a bipartite graph of m + n neurons whose edge (i, j) weighs

    a_ij = |W_ij| / max |W|           the maximum over all layers

Edges are added from the heaviest to the lightest, and neurons, all there from the start (at 1), merge into components.
The merge over an edge of weight a leaves the pair (1, a) of the zero-dimensional persistence diagram, so the m + n - 1
finite pairs are the edges e of the maximum spanning tree, and

    NP(layer) = (sum_e (1 - a_e)^p / (m + n - 1))^(1 / p)      in [0, 1];      NP(net) = mean of NP(layer)

0: as many edges as it takes to connect all neurons are as heavy as the heaviest; near 1: few strong edges, the rest
weak. It rises while a net trains. The stopping rule needs no labels and no validation data: stop once NP(net) has not
risen by more than `least` over `patience` evaluations, and not before `burn_in` of them.

Kernels [out, in, *size] are matrices [out, in * prod size]. Cost: O((m + n)^2) a layer (Prim's algorithm; the graph is
complete), and as many numbers of memory. `data` is not looked at. Fails to compare nets of different widths or depths;
is driven by the single greatest weight, which one outlier raises; with weights that grow for ever (no decay, separable
classes) it never stops rising, and the stopping rule only acts where it levels off. Differs from the paper: the pair
(1, 0) of the component that never dies is left out, which is what keeps the normalised norm below 1; kernels are not
unrolled over positions.

Rieck, Togninalli, Bock, Moor, Horn, Gumbsch, Borgwardt: Neural Persistence: A Complexity Measure for Deep Neural
Networks Using Algebraic Topology, 2018, arXiv 1812.09764.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archwright.core.records import Chart, Claim, Figure, Finding
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.layers import kernels
from archwright.net.build import Built, to_net
from archwright.net.net import Net

PART = {
    "kind": "lens",
    "name": "neural_persistence",
    "id": "neural-persistence",
    "title": "Neural Persistence: A Complexity Measure for Deep Neural Networks Using Algebraic Topology",
    "year": 2018,
    "arxiv": "1812.09764",
    "needs": ["weights"],
    "extras": [],
    "example": {"data": "image", "net": "conv", "trained": True},
    "exact": "The pairs are the edges of a maximum spanning tree, bit for bit; 0 where all weights are equal in "
    "magnitude; scaling all weights changes nothing; in [0, 1].",
    "claim": {
        "text": "Digits, perceptrons, 3 runs: steps until the stopping rule ends training, as a share of those until "
        "early stopping on validation loss with the same patience does, if test accuracy is within a point.",
        "paper": "shortens training, with accuracies comparable to early stopping on validation loss (abstract)",
    },
}


def merges(weights: NDArray[Any]) -> NDArray[np.float64]:
    """Weights [m, n] of a complete bipartite graph -> those [m + n - 1] over which components merge, heaviest first.

    They are the edges of a maximum spanning tree, grown from one neuron by its heaviest edge to a new one.
    """
    down = np.ascontiguousarray(weights, np.float64)
    up = np.ascontiguousarray(down.T)
    rows, columns = down.shape
    outside = np.ones(rows + columns, bool)
    outside[0] = False
    reach = np.concatenate([np.full(rows, -np.inf), down[0]])  # heaviest edge from the tree to each neuron
    found = np.empty(rows + columns - 1)
    for step in range(len(found)):
        new = int(np.where(outside, reach, -np.inf).argmax())
        found[step] = reach[new]
        outside[new] = False
        side, edges = (slice(rows, None), down[new]) if new < rows else (slice(0, rows), up[new - rows])
        np.maximum(reach[side], edges, out=reach[side])
    return np.sort(found)[::-1]


def diagrams(net: Net) -> dict[str, NDArray[np.float64]]:
    """The persistence diagram of each layer: name of its weight -> pairs [m + n - 1, 2] of (birth 1, death a)."""
    found = {name: w.abs().double().reshape(len(w), -1).numpy() for name, w in kernels(net).items()}
    heaviest = max(float(a.max()) for a in found.values()) or 1.0
    deaths = {name: merges(a) / heaviest for name, a in found.items()}
    return {name: np.stack([np.ones_like(d), d], 1) for name, d in deaths.items()}


def persistence(net: Net, *, p: float = 2.0) -> dict[str, float]:
    """Normalised neural persistence of each layer, by its weight's name. Raises `ArchwrightError` for p below 1."""
    if not p >= 1:
        raise ArchwrightError(f"got p={p}, expected the exponent of a norm: at least 1, or infinity")
    found = {}
    for name, pairs in diagrams(net).items():
        length = pairs[:, 0] - pairs[:, 1]
        found[name] = float(length.max() if p == np.inf else np.mean(length**p) ** (1 / p))
    return found


def stopping(values: Sequence[float], *, patience: int = 8, least: float = 0.0, burn_in: int = 0) -> int | None:
    """The index of the evaluation at which training ends, or None: the first, from `burn_in` on, by which the greatest
    value has not risen by more than `least` for `patience` evaluations."""
    if patience < 1:
        raise ArchwrightError(f"got patience={patience}, expected at least one evaluation")
    best, since = -np.inf, 0
    for index, value in enumerate(values):
        if value > best + least:
            best, since = value, 0
        else:
            since += 1
        if since >= patience and index >= burn_in:
            return index
    return None


def monitor(*, p: float = 2.0) -> Callable[[Built, int], dict[str, float]]:
    """For `watch` of `archwright.kit.train`: the mean over layers, in a column "neural_persistence" of unit "share"."""
    return lambda module, step: {"neural_persistence": float(np.mean(list(persistence(to_net(module), p=p).values())))}


def halt(*, patience: int = 8, least: float = 0.0, burn_in: int = 0) -> Callable[[Mapping[str, float]], bool]:
    """For `halt` of `archwright.kit.train`, beside `monitor`: the stopping rule, for one training."""
    seen: list[float] = []

    def ask(row: Mapping[str, float]) -> bool:
        seen.append(row["neural_persistence"])
        return stopping(seen, patience=patience, least=least, burn_in=burn_in) is not None

    return ask


def look(
    net: Net,
    data: Data,
    snapshots: Sequence[Net] = (),
    *,
    p: float = 2.0,
    patience: int = 8,
    least: float = 0.0,
    burn_in: int = 0,
) -> Finding:
    """Neural persistence of each layer and of the net; over snapshots of its training also the course of both, and
    where the stopping rule ends it."""
    layers = persistence(net, p=p)
    mean = float(np.mean(list(layers.values())))
    figures = [Figure("neural persistence", mean, "share"), *[Figure(n, v, "share") for n, v in layers.items()]]
    axis = "normalised persistence, in [0, 1]"
    bars = {"net": {"x": list(layers), "y": list(layers.values())}}
    charts = [Chart("Neural persistence", "bar", bars, "layer", axis)]
    text = f"On average {mean:.2f}: at 0 layers are held together by edges of equal weight, near 1 by few strong ones."
    if snapshots:
        course = [persistence(snapshot, p=p) for snapshot in snapshots]
        lines = {name: [c[name] for c in course] for name in layers}
        lines["mean"] = [float(np.mean(list(c.values()))) for c in course]
        number = list(range(len(course)))
        series = {name: {"x": number, "y": values} for name, values in lines.items()}
        charts.append(Chart("Neural persistence in training", "line", series, "snapshot", axis))
        figures.append(Figure("rise", lines["mean"][-1] - lines["mean"][0], "1"))
        end = stopping(lines["mean"], patience=patience, least=least, burn_in=burn_in)
        if end is not None:
            figures.append(Figure("stop", float(end), "snapshots"))
        text += " It was still rising." if end is None else f" It levelled off: training could end at snapshot {end}."
    return Finding("Neural persistence", tuple(figures), tuple(charts), text)


def claim(*, seed: int = 0) -> Claim:
    """Both rules on the same trainings, evaluated every quarter of an epoch, with the same patience."""
    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.kit.digits import perceptron
    from archwright.kit.losses import error, loss_for, predict

    data, patience = builtin("digits", seed), 16
    loss, valid, test = loss_for(data), data.tensors("valid"), data.tensors("test")
    watch_persistence = monitor()

    def watch(module: Built, step: int) -> dict[str, float]:
        found = watch_persistence(module, step)
        found["valid_loss"] = float(loss(predict(module, valid[0]), valid[1]))
        return found | {"test_error": error(predict(module, test[0]), test[1], data.task)}

    rows = []
    for run in range(3):
        units = {"neural_persistence": "share", "valid_loss": "nats", "test_error": "share"}
        start = perceptron(data, (50, 50, 20), seed=seed + run)
        _, log = train.fit(
            start, data, Budget(steps=2000), np.random.default_rng((seed, run)),
            optimiser="Adam", lr=3e-3, evaluations=400, keep="last", watch=watch, watch_units=units,
        )  # fmt: skip
        columns, last = log.columns, len(log.columns["step"]) - 1
        ours = stopping(columns["neural_persistence"], patience=patience)
        theirs = stopping([-value for value in columns["valid_loss"]], patience=patience)
        ends = [last if end is None else end for end in (ours, theirs)]
        accuracy = [100 * (1 - columns["test_error"][end]) for end in ends]
        course, steps = columns["neural_persistence"], [columns["step"][end] for end in ends]
        rows.append([*steps, *accuracy, course[0], course[last], float(ours is not None)])
    ours, theirs, accuracy, usual, first, final, stopped = np.mean(rows, 0).tolist()
    share = ours / theirs
    return Claim(
        share,
        "share",
        "below 1, with a loss of at most one point, and persistence higher at the end than at the start",
        share < 1 and usual - accuracy <= 1 and final > first,
        "shorter, at accuracies comparable to early stopping on validation loss (abstract)",
        {
            "steps, persistence": ours,
            "steps, validation loss": theirs,
            "test accuracy, persistence": accuracy,
            "test accuracy, validation loss": usual,
            "persistence after five steps": first,
            "persistence after 2000 steps": final,
            "share of runs in which the rule fired": stopped,
        },
        (
            f"perceptrons of 50, 50 and 20 hidden units, Adam at 0.003, patience {patience} evaluations, 3 runs",
            "tried first: SGD at 0.5 and patience 8, where the rule fires in the noise of early training: at 47 % "
            "of the steps, with 85.0 % right against 96.7 %; with SGD it lost 2 to 5 points at patience 16 and 32 too",
        ),
    )
