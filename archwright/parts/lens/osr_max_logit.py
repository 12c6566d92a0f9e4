"""Open-set recognition by the greatest logit: how well a classifier tells samples of classes it has never seen.

    s(x) = max_k f_k(x)                  f(x) [classes] the logits: the greater s, the surer that x is of a known class

and beside it, the usual score max_k softmax(f(x))_k, which forgets how long f(x) is. Figures, over the samples of known
classes and samples of unknown ones:

    closed accuracy  share of the known ones that are classified right, without rejecting any
    AUROC            P(s(known) > s(unknown)) + P(s(known) = s(unknown)) / 2
    OSCR             area under the curve, over thresholds t, of CCR(t) = share of the known ones with s >= t that are
                     also classified right, over FPR(t) = share of the unknown ones with s >= t
                     = P(s(known) > s(unknown) and known is right), ties counted half

So OSCR <= closed accuracy, with equality iff every unknown one scores below every known one that is right. The paper's
finding is that AUROC follows closed accuracy over architectures, losses and training, so that a better classifier is
the better detector: `compare` shows both for all candidates, with their correlation.

Cost: one forward pass over the samples, and sorting their scores. Fails where logits say nothing of novelty: far from
all data f can grow without bound; scores of differently regularised nets are not on one scale (compare AUROCs, never
thresholds). Differs from the paper: its training recipe (augmentation, label smoothing, long schedules) belongs to
rules, not to this lens.

Vaze, Han, Vedaldi, Zisserman: Open-Set Recognition: a Good Closed-Set Classifier is All You Need?, 2021,
arXiv 2110.06207.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from archwright.core.records import Chart, Claim, Figure, Finding
from archwright.data.data import SPLITS, Data
from archwright.errors import ArchwrightError, DataError
from archwright.kit.losses import predict
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "lens",
    "name": "osr_max_logit",
    "id": "osr-max-logit",
    "title": "Open-Set Recognition: a Good Closed-Set Classifier is All You Need?",
    "year": 2021,
    "arxiv": "2110.06207",
    "needs": ["classification"],
    "extras": [],
    "example": {},
    "exact": "AUROC is that of scikit-learn; OSCR is the mean over all pairs of a known and an unknown sample of "
    "whether the known one scores higher (half for a tie) and is right.",
    "claim": {
        "text": "Digits, four classes held out, twelve networks, three splits: Pearson's correlation of closed "
        "accuracy with the AUROC of the greatest logit, mean over splits.",
        "paper": "highly correlated, across loss objectives and architectures (abstract)",
    },
}

Values = NDArray[np.float64]


def held_out(data: Data, classes: Sequence[int]) -> tuple[Data, Data]:
    """Data of the other classes, numbered anew from 0, and the samples of these classes, all in the split "test" and
    with their old numbers. Raises `DataError` where fewer than two classes are left."""
    if data.task != "classification":
        raise DataError(f"data '{data.name}' are for {data.task}, expected classification: classes are held out")
    gone = sorted(set(classes))
    if not set(gone) <= set(range(data.outputs)) or not gone or data.outputs - len(gone) < 2:
        raise DataError(f"got classes {list(classes)} to hold out of {data.outputs}: expected some, with two left")
    kept = [c for c in range(data.outputs) if c not in gone]
    number = np.full(data.outputs, -1)
    number[kept] = np.arange(len(kept))
    known = number[data.target] >= 0
    place = np.cumsum(known) - 1
    splits = {name: place[index[known[index]]] for name, index in ((n, np.asarray(data.splits[n])) for n in SPLITS)}
    names = tuple([data.classes[c] for c in kept]) if data.classes else ()
    inside = replace(
        data, inputs=tuple([a[known] for a in data.inputs]), target=number[data.target[known]], splits=splits,
        classes=names,
    )  # fmt: skip
    none = np.arange(0)
    outside = replace(
        data, inputs=tuple([a[~known] for a in data.inputs]), target=data.target[~known],
        splits={"train": none, "valid": none, "test": np.arange(int((~known).sum()))},
    )  # fmt: skip
    return inside, outside


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """P(known > unknown) + P(equal) / 2, over all pairs of scores."""
    return oscr(known, unknown, np.ones(len(np.asarray(known))))


def oscr(known: ArrayLike, unknown: ArrayLike, right: ArrayLike) -> float:
    """Area under the curve of correct classification over false positives; `right` [known] says which are right."""
    a, b, ok = np.asarray(known, float), np.sort(np.asarray(unknown, float)), np.asarray(right, float)
    below = (np.searchsorted(b, a, "left") + np.searchsorted(b, a, "right")) / 2
    return float((ok * below).sum() / (len(a) * len(b)))


def curve(known: ArrayLike, unknown: ArrayLike, right: ArrayLike) -> tuple[Values, Values]:
    """(FPR, CCR) at every threshold, from the strictest, which lets nothing in, to none."""
    a, b, ok = np.asarray(known, float), np.asarray(unknown, float), np.asarray(right, bool)
    levels = np.unique(np.concatenate([a, b]))[::-1]
    let_in = np.searchsorted(np.sort(b), levels, "left")
    taken = np.searchsorted(np.sort(a[ok]), levels, "left")
    fpr = np.concatenate([[0.0], 1 - let_in / len(b)])
    return fpr, np.concatenate([[0.0], (ok.sum() - taken) / len(a)])


def _scores(net: Net, data: Data, split: str) -> tuple[dict[str, Values], Values]:
    """Both scores of a split's samples, and the classes that they are taken for."""
    x, _ = data.tensors(split)
    logits = predict(build(net), x).double()
    if logits.dim() != 2:
        raise ArchwrightError(f"the net gives {list(logits.shape)}, expected logits [samples, classes]")
    shares = logits.softmax(-1)
    found = {"max logit": logits.amax(-1).numpy(), "max softmax": shares.amax(-1).numpy()}
    return found, logits.argmax(-1).numpy()


def _measure(net: Net, data: Data, unknown: Data, split: str) -> tuple[dict[str, float], dict[str, tuple[Values, ...]]]:
    """Figures by name, and what they were computed from: (known, unknown, right) for each score."""
    if data.task != "classification":
        raise DataError(f"data '{data.name}' are for {data.task}, expected classification")
    if not data.size(split) or not unknown.size("test"):
        sizes = f"{data.size(split)} known samples in '{split}' and {unknown.size('test')} unknown ones in 'test'"
        raise DataError(f"got {sizes}, expected some of each: see held_out")
    known, taken = _scores(net, data, split)
    strange, _ = _scores(net, unknown, "test")
    right = (taken == data.target[np.asarray(data.splits[split])]).astype(float)
    figures = {"closed accuracy": float(right.mean())}
    raw = {}
    for name, values in known.items():
        figures[f"AUROC, {name}"] = auroc(values, strange[name])
        figures[f"OSCR, {name}"] = oscr(values, strange[name], right)
        raw[name] = (values, strange[name], right)
    return figures, raw


def look(net: Net, data: Data, unknown: Data, *, split: str = "test") -> Finding:
    """How well the net tells the samples of `unknown` (its test split) from those of the split of `data`.

    Raises `DataError` where either is empty, or data are not for classification.
    """
    found, raw = _measure(net, data, unknown, split)
    series = {}
    for name, (known, strange, right) in raw.items():
        fpr, ccr = curve(known, strange, right)
        series[name] = {"x": fpr.tolist(), "y": ccr.tolist()}
    known, strange, _ = raw["max logit"]
    bars = {"known": {"x": known.tolist()}, "unknown": {"x": strange.tolist()}}
    charts = (
        Chart("Open-set classification", "line", series, "share of unknown let in", "share of known let in and right"),
        Chart("Greatest logit", "histogram", bars, "greatest logit"),
    )
    text = (
        f"{100 * found['closed accuracy']:.1f} % of known samples are classified right. A known sample scores above an "
        f"unknown one in {100 * found['AUROC, max logit']:.1f} % of pairs by the greatest logit, in "
        f"{100 * found['AUROC, max softmax']:.1f} % by the greatest probability."
    )
    return Finding("Open-set recognition", tuple([Figure(n, v, "share") for n, v in found.items()]), charts, text)


def compare(nets: Mapping[str, Net], data: Data, unknown: Data, *, split: str = "test") -> Finding:
    """Closed accuracy against AUROC, for all candidates, with Pearson's correlation (NaN where one of them is constant
    or there are fewer than three)."""
    found = {name: _measure(net, data, unknown, split)[0] for name, net in nets.items()}
    closed = [f["closed accuracy"] for f in found.values()]
    figures, series = [], {}
    for score in ("max logit", "max softmax"):
        opened = [f[f"AUROC, {score}"] for f in found.values()]
        varies = len(found) > 2 and np.std(closed) > 0 and np.std(opened) > 0
        value = float(np.corrcoef(closed, opened)[0, 1]) if varies else float("nan")
        figures.append(Figure(f"correlation, {score}", value, "1"))
        series[score] = {"x": closed, "y": opened}
    best = max(found, key=lambda name: (found[name]["AUROC, max logit"], name))
    chart = Chart("Closed accuracy and open-set AUROC", "scatter", series, "closed accuracy, share", "AUROC, share")
    text = f"Of {len(found)} candidates '{best}' tells unknown samples best, by the greatest logit."
    return Finding("Open-set recognition of candidates", tuple(figures), (chart,), text)


def case(seed: int) -> tuple[Net, Data, Data]:
    """A net trained on three of the four classes of the toy images, their data, and the fourth class."""
    from archwright.core.checks import toys

    data, unknown = held_out(toys.data("image"), [3])
    return toys.net("mlp", data, seed, trained=True), data, unknown


def claim(*, seed: int = 0) -> Claim:
    """Twelve perceptrons, of four widths, trained for three lengths of time, on each of three splits of the classes."""
    from archwright.core.records import Budget
    from archwright.core.seeds import rng as stream
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.kit.digits import perceptron

    whole = builtin("digits", seed)
    rows: list[list[float]] = []
    scores: list[list[float]] = []
    for split in range(3):
        classes = stream(seed, "held out", split).permutation(10)[:4].tolist()
        data, unknown = held_out(whole, classes)
        nets = {}
        for width in (4, 8, 16, 64):
            for steps in (50, 150, 450):
                net, _ = train.fit(
                    perceptron(data, (width,), seed=seed + split), data, Budget(steps=steps),
                    np.random.default_rng((seed, split, width, steps)), evaluations=1, keep="last",
                )  # fmt: skip
                nets[f"{width} units, {steps} steps"] = net
        finding = compare(nets, data, unknown)
        rows.append([figure.value for figure in finding.figures])
        both = finding.charts[0].series
        scores.append([float(np.mean(both[score]["y"])) for score in ("max logit", "max softmax")])
    logit, softmax = np.mean(rows, 0).tolist()
    levels = np.mean(scores, 0).tolist()
    return Claim(
        logit,
        "1",
        "above 0.5",
        logit > 0.5,
        "highly correlated, across loss objectives and architectures (abstract)",
        {
            "least over splits": min(row[0] for row in rows),
            "greatest over splits": max(row[0] for row in rows),
            "correlation, max softmax": softmax,
            "mean AUROC, max logit": levels[0],
            "mean AUROC, max softmax": levels[1],
        },
        ("perceptrons of 4 to 64 hidden units, 50 to 450 steps of AdamW: accuracies from far too little training on",),
    )
