"""Frame averaging: any network of point clouds made invariant or equivariant, by an average over poses of its input.

    c = mean_i x_i     C = sum_i (x_i - c)(x_i - c)^T = V diag(l) V^T, l rising     F(x) = {V diag(s): s in {-1, 1}^d}
    invariant    f(x) = 1/|F| sum_{R in F(x)} phi((x - c) R)
    equivariant  f(x) = 1/|F| sum_{R in F(x)} phi((x - c) R) R^T + c

phi the network that is given, on points [N, n, d]; R a frame, d x d. The axes of the cloud turn with it, so all that
phi sees of x is what does not change; the average over signs takes the only freedom that eigenvectors leave.

    group   "E": rotations, reflections, translations; "SE": without reflections (the last axis has the sign that makes
            det R = 1, half as many frames); "O", "SO": without translations; "none": one frame, x as it is
    sort    also permutations of the points: in each frame they are put in the order of their first coordinate (and out
            of it again for an equivariant output), so that phi need not be symmetric

Cost: 2^d passes of phi (2^(d - 1) for "SE", "SO"), in one batch, and one decomposition of a d x d matrix in float64.
phi's weights stay as they are; the graph grows by some fifteen nodes, which ONNX cannot say (eigh).
Fails where axes are not unique: two eigenvalues near each other (balls, rings, regular shapes) make outputs jump. Two
points with one first coordinate do the same to `sort`. Differs from the paper: in nothing for these groups; frames for
graphs (sorted Laplacian eigenvectors) are not covered.

Puny, Atzmon, Ben-Hamu, Misra, Grover, Smith, Lipman: Frame Averaging for Invariant and Equivariant Network Design,
2021, arXiv 2110.03336.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from archwright import ops
from archwright.core import seeds
from archwright.core.records import Claim, Figure, Report
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.ir import INPUT, Editor
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "transform",
    "name": "frame_averaging",
    "id": "frame-averaging",
    "title": "Frame Averaging for Invariant and Equivariant Network Design",
    "year": 2021,
    "arxiv": "2110.03336",
    "needs": ["points"],
    "extras": [],
    "example": {"hp": {"group": "E"}, "data": "points", "net": "attention"},
    "exact": "The output does not change (or turns along) when the cloud is turned, mirrored, moved, up to rounding.",
    "claim": {
        "text": "Generic clouds: greatest change of a trained network's outputs when they are turned, mirrored, moved.",
        "paper": "exact invariance by construction (Theorem 1)",
    },
}

GROUPS = ("E", "SE", "O", "SO", "none")
_SCOPE = "frames"


@dataclass(frozen=True)
class _Framed:
    """Values of the graph: points in all poses [N * F, n, d], and what brings an output back."""

    points: str
    count: int
    frames: str  # [N, F, d, d] float64, "" without
    centre: str  # [N, 1, d], "" without
    order: str  # [N, F, n] int64, "" without


def apply(
    net: Net,
    data: Data,
    *,
    seed: int = 0,
    group: str = "E",
    sort: bool = False,
    output: str = "invariant",
    points: int = 0,
) -> tuple[Net, Report]:
    """The net with frames around it.

    output  "invariant", or "equivariant" for outputs [N, n, d] that are points
    points  which of the net's inputs are the points, float32 [N, n, d]; the others are repeated for each frame
    The report's measure is the greatest change of outputs, over their greatest size, when validation samples (training
    samples where there are none) are turned, mirrored, moved and shuffled at random as the group says.
    Raises `ArchwrightError` for an unknown group, inputs that are no points, outputs that cannot be equivariant.
    """
    if group not in GROUPS or output not in ("invariant", "equivariant"):
        raise ArchwrightError(
            f"got group '{group}', output '{output}', expected {', '.join(GROUPS)}, and 'invariant' or 'equivariant'"
        )
    if group == "none" and not sort:
        raise ArchwrightError("got group 'none' without sort: there is nothing to average over")
    inputs = net.graph.inputs
    if not 0 <= points < len(inputs):
        raise ArchwrightError(f"got points={points}, expected one of {len(inputs)} inputs, from 0")
    shape, dtype = inputs[points].attrs["shape"], inputs[points].attrs.get("dtype", "float32")
    if len(shape) != 3 or dtype != "float32" or (group != "none" and shape[2] > 4):
        raise ArchwrightError(f"input {points} is {dtype} {list(shape)}, expected float32 [batch, n, d], d at most 4")
    if sort and len(inputs) > 1:
        raise ArchwrightError(f"got {len(inputs)} inputs and sort: the others would have to be put in order too")
    weights = dict(net.weights)
    g = ops.edit()
    for node in inputs:
        g.add(INPUT, name=node.name, **node.attrs)
    framed = _frame(g, inputs[points].name, group, sort, weights)
    place = {inputs[points].name: framed.points}
    if framed.count > 1:
        for node in inputs:
            if node.name not in place:
                place[node.name] = g.add("repeat_interleave", node.name, repeats=framed.count, dim=0)
    for node in net.graph.nodes:
        if node.op != INPUT:
            g.add(node.op, *[place.get(v, v) for v in node.inputs], name=node.name, slot=node.slot, **node.attrs)
    outputs = [place.get(value, value) for value in net.graph.outputs]
    graph = g.finish(*[_average(g, value, framed, output, (shape[1], shape[2])) for value in outputs])
    made = Net(graph, {name: weights[name] for name in ops.params(graph)})
    change, flat = _change(made, data, seed, group, sort, output, points)
    before, _ = _change(net, data, seed, group, sort, output, points)
    figures = (
        Figure("frames", float(framed.count), "frames"),
        Figure("change of outputs before", before, "share"),
        Figure("change of outputs", change, "share"),
        Figure("samples with axes that are hardly unique", flat, "share"),
    )
    notes = ("a sample counts as hardly unique if two eigenvalues differ by less than 1e-3 of the greatest",)
    return made, Report("frame_averaging", False, figures, notes=notes, measure=figures[2], bound=1e-2)


# ----------------------------------------------------------------------------------------------------------- the graph
def _constant(g: Editor, name: str, value: Tensor, weights: dict[str, Tensor]) -> str:
    made: str = g.add("buffer", shape=tuple(value.shape), name=f"{_SCOPE}.{name}")
    weights[f"{_SCOPE}.{name}"] = value.float()
    return made


def _frame(g: Editor, x: str, group: str, sort: bool, weights: dict[str, Tensor]) -> _Framed:
    _, n, d = g.shape(x)
    centre = frames = order = ""
    count, posed = 1, x
    with g.scope(_SCOPE):
        if group in ("E", "SE"):
            centre = g.add("mean", x, dim=[1], keepdim=True, name="centre")
            posed = g.add("sub", x, centre)
        if group != "none":
            wide = g.add("cast", posed, dtype="float64")
            spread = g.add("matmul", g.add("transpose", wide, dim0=1, dim1=2), wide, name="spread")
            _, vectors = g.add("eigh", spread, name="axes")
    if group != "none":
        signs = list(itertools.product((1.0, -1.0), repeat=d))
        if group in ("SE", "SO"):
            signs = [s for s in signs if np.prod(s) > 0]
            vectors = _proper(g, vectors, d, weights)
        count = len(signs)
        table = _constant(g, "signs", torch.tensor(signs).reshape(1, count, 1, d), weights)
        with g.scope(_SCOPE):
            frames = g.add("mul", g.add("unsqueeze", vectors, dim=1), table, name="frames")
            posed = g.add("matmul", g.add("unsqueeze", wide, dim=1), frames)
            posed = g.add("cast", posed, dtype="float32")
    else:
        posed = g.add("unsqueeze", posed, dim=1)
    with g.scope(_SCOPE):
        if sort:
            order = g.add("argsort", g.add("select", posed, dim=3, index=0), dim=2, name="order")
            posed = g.add("gather", posed, _as_index(g, order, d), dim=2)
        return _Framed(g.add("reshape", posed, shape=(-1, n, d), name="posed"), count, frames, centre, order)


def _as_index(g: Editor, order: str, d: int) -> str:
    """[N, F, n] -> [N, F, n, d], for gather."""
    made: str = g.add("expand", g.add("unsqueeze", order, dim=3), shape=(-1, -1, -1, d))
    return made


def _proper(g: Editor, vectors: str, d: int, weights: dict[str, Tensor]) -> str:
    """The vectors with the sign of the last one changed where their determinant is -1."""
    sign = torch.zeros((d,) * d)
    for p in itertools.permutations(range(d)):
        sign[p] = float(np.linalg.det(np.eye(d)[list(p)]).round())
    table = _constant(g, "levi_civita", sign, weights)
    last = _constant(g, "last", torch.eye(d)[-1].reshape(1, 1, d), weights)
    rest = _constant(g, "rest", 1 - torch.eye(d)[-1].reshape(1, 1, d), weights)
    with g.scope(_SCOPE):
        columns = [g.add("select", vectors, dim=2, index=j) for j in range(d)]
        table = g.add("cast", table, dtype="float64")
        letters = "abcd"[:d]
        equation = ",".join([letters, *[f"n{letter}" for letter in letters]]) + "->n"
        det = g.add("einsum", table, *columns, equation=equation, name="determinant")
        factor = g.add("add", g.add("mul", g.add("reshape", det, shape=(-1, 1, 1)), last), rest)
        return str(g.add("mul", vectors, factor, name="proper"))


def _average(g: Editor, value: str, framed: _Framed, output: str, points: Sequence[int]) -> str:
    shape = g.shape(value)[1:]
    with g.scope(_SCOPE):
        made = g.add("reshape", value, shape=(-1, framed.count, *shape))
        if output == "equivariant":
            if tuple(shape) != tuple(points):
                raise ArchwrightError(f"output '{value}' is {[None, *shape]}, expected points {[None, *points]}")
            if framed.order:
                back = g.add("argsort", framed.order, dim=2)
                made = g.add("gather", made, _as_index(g, back, shape[1]), dim=2)
            if framed.frames:
                turned = g.add("transpose", framed.frames, dim0=2, dim1=3)
                made = g.add("matmul", g.add("cast", made, dtype="float64"), turned)
                made = g.add("cast", made, dtype="float32")
        made = g.add("mean", made, dim=[1])
        return str(g.add("add", made, framed.centre) if output == "equivariant" and framed.centre else made)


# -------------------------------------------------------------------------------------------------------- measurement
def moved(
    x: Tensor, rng: np.random.Generator, group: str, sort: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x [N, n, d] moved by one random element of the group for each sample; also that rotation, shift and order."""
    count, n, d = x.shape
    turn = np.tile(np.eye(d), (count, 1, 1))
    if group != "none":
        turn = np.linalg.qr(rng.standard_normal((count, d, d)))[0]
        if group in ("SE", "SO"):
            turn[:, :, -1] *= np.linalg.det(turn)[:, None]
    shift = rng.standard_normal((count, 1, d)) if group in ("E", "SE") else np.zeros((count, 1, d))
    order = np.stack([rng.permutation(n) if sort else np.arange(n) for _ in range(count)])
    turned = x.double() @ torch.from_numpy(turn) + torch.from_numpy(shift)
    found = torch.gather(turned, 1, torch.from_numpy(order)[..., None].expand(-1, -1, d))
    return found.to(x.dtype), torch.from_numpy(turn), torch.from_numpy(shift), torch.from_numpy(order)


def _change(
    net: Net, data: Data, seed: int, group: str, sort: bool, output: str, points: int
) -> tuple[float, float]:
    x, _ = data.tensors("valid" if data.size("valid") else "train")
    x = tuple([t[:64] for t in x])
    other, turn, shift, order = moved(x[points], seeds.rng(seed, "frame_averaging"), group, sort)
    centred = (x[points] - x[points].mean(1, keepdim=True)).double()
    values = torch.linalg.eigvalsh(centred.mT @ centred)
    gap = values.diff().amin(1) / values[:, -1].clamp(min=1e-300) if values.shape[1] > 1 else torch.ones(len(values))
    with torch.no_grad():
        module = build(net).eval()
        first, second = [module(*x[:points], t, *x[points + 1 :]) for t in (x[points], other)]
    worst = 0.0
    pairs = zip(first, second, strict=True) if isinstance(first, tuple) else [(first, second)]
    for one, two in pairs:
        if output == "equivariant":
            one = one.double() @ turn + shift
            one = torch.gather(one, 1, order[..., None].expand(-1, -1, one.shape[2]))
        worst = max(worst, float((one - two).abs().max() / one.abs().max().clamp(min=1e-12)))
    return worst, float((gap < 1e-3).double().mean())


def claim(*, seed: int = 0) -> Claim:
    """Ellipsoids of three shapes in random poses: the net is trained within its frames, then everything is moved."""
    from archwright.core.records import Budget
    from archwright.data.data import from_arrays
    from archwright.kit.digits import perceptron
    from archwright.kit.train import fit

    rng = seeds.rng(seed, "clouds")
    target = np.arange(600) % 3
    axes = np.array([[1.0, 0.6, 0.3], [1.0, 0.85, 0.3], [1.0, 0.6, 0.5]])[target]
    x = rng.standard_normal((600, 32, 3))
    x = axes[:, None] * x / np.linalg.norm(x, axis=2, keepdims=True)
    data = from_arrays(x.astype(np.float32), target, kind="points", name="ellipsoids", seed=seed)
    plain = perceptron(data, (64, 64), seed=seed)
    framed, report = apply(plain, data, seed=seed, group="E", sort=True)
    results = {}
    points, y = data.tensors("test")
    other, *_ = moved(points[0], seeds.rng(seed, "moved"), "E", True)
    for label, start in (("plain", plain), ("framed", framed)):
        net, _ = fit(start, data, Budget(steps=200), np.random.default_rng(seed))
        with torch.no_grad():
            here, there = [build(net).eval()(t) for t in (points[0], other)]
        accuracy = [100 * float((o.argmax(1) == y).double().mean()) for o in (here, there)]
        results[label] = float((here - there).abs().max()), *accuracy
    change, still, turned = results["framed"]
    return Claim(
        change, "output units", "below 1e-5, and the same test accuracy", change < 1e-5 and still == turned,
        "exact by construction",
        {"accuracy, framed": still, "accuracy on moved clouds, framed": turned,
         "accuracy, plain": results["plain"][1], "accuracy on moved clouds, plain": results["plain"][2],
         "change of outputs, plain": results["plain"][0], "frames": report.figures[0].value},
        ("ellipsoids of 32 points; turned, mirrored, moved, and points shuffled; outputs are logits",),
    )  # fmt: skip
