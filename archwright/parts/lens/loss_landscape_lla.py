"""Loss landscapes and the spectrum of the Hessian: how the loss L(w) curves around the weights of a net.

Surface.  L(w + a u + b v) over a grid of a, b in [-distance, distance], along two axes u, v that are

    "random"   normal numbers, each filter (row of a matrix, kernel of an output channel) brought to the length of that
               filter in w; 0 for biases, gains and whatever else has less than two dimensions
    "hessian"  the unit eigenvectors of the two eigenvalues of greatest magnitude, along which L curves by exactly them

Spectrum.  With H = d2L/dw2, products H v by differentiating the gradient twice, and never H itself: `steps` of Lanczos
from a random unit vector, with full reorthogonalisation, give Ritz values theta_i and weights omega_i (squares of the
first components of the eigenvectors of the tridiagonal matrix), for which sum_i omega_i g(theta_i) estimates
tr g(H) / n. The mean over `probes` vectors, broadened by a normal of 1 % of the range, is the spectral density; the
extreme Ritz values are eigenvalues of H, to rounding after a few dozen steps. The trace is by Hutch++ (Meyer et al.,
2020, arXiv 2010.09649): exact on the range of H times a third of `products` random vectors, by random signs on the
rest; exact altogether where `products` is at least n. The paper's criteria of the spectrum, means over probes:

    r_e = |min(0, theta)| / max theta       K_h = sum_{theta < 0} |theta omega|^h / sum_{theta > 0} (theta omega)^h

Both are 0 at a convex minimum and grow with negative curvature; that they grow on data where the net errs is the
paper's claim. n: trained weights. Cost: grid^2 forward passes, and (probes * steps + products) products, about four
passes each, over `samples` samples; memory steps * n. Fails where L is not twice differentiable on the way (of ReLU it
sees the smooth pieces only), and where the graph has operations without second derivatives. Axes of Adam's moments and
normalisations other than by filter are the paper's too, and left out; norms run in eval mode, with their statistics.

Gabdullin: Investigating generalization capabilities of neural networks by means of loss landscapes and Hessian
analysis, 2024, arXiv 2412.10146.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from archwright.core import seeds
from archwright.core.records import Chart, Claim, Figure, Finding
from archwright.data.data import Data
from archwright.errors import ArchwrightError
from archwright.kit.losses import loss_for
from archwright.net.build import build
from archwright.net.net import Net

PART = {
    "kind": "lens",
    "name": "loss_landscape_lla",
    "id": "loss-landscape-lla",
    "title": "Investigating generalization capabilities of neural networks by means of loss landscapes and Hessian "
    "analysis",
    "year": 2024,
    "arxiv": "2412.10146",
    "needs": ["differentiable"],
    "extras": [],
    "example": {
        "hp": {"grid": 5, "steps": 12, "probes": 2, "products": 15, "samples": 64, "axes": "hessian"},
        "trained": True,
    },
    "exact": "In the middle of an odd grid the surface is the loss. With as many Lanczos steps as weights the Ritz "
    "values are the eigenvalues; with as many products the trace is the Hessian's.",
    "claim": {
        "text": "Digits, 20 perceptrons, noise of five strengths: Spearman's correlation of the change in the "
        "criterion K_0.5 with the loss of accuracy; top eigenvalue and trace within 1 % of the dense Hessian's.",
        "paper": "changes of the criteria correlate with changes of accuracy when data change (abstract)",
    },
}

Values = NDArray[np.float64]
Product = Callable[[Tensor], Tensor]


class Landscape:
    """The loss of a net over samples, as a function of its trained weights as one vector of `size` numbers."""

    def __init__(self, net: Net, data: Data, *, split: str = "train", samples: int = 256, seed: int = 0) -> None:
        if not data.size(split):
            raise ArchwrightError(f"split '{split}' of data '{data.name}' is empty, expected samples for the loss")
        self.inputs, self.target = data.take(split, samples, seeds.rng(seed, "samples")).tensors(split)
        self.loss = loss_for(data)
        self.module = build(net).eval()
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self._slopes: Tensor | None = None

    def cut(self, vector: Tensor) -> list[Tensor]:
        """A vector in pieces of the shapes of the weights."""
        pieces = vector.to(self.parameters[0].dtype).split([p.numel() for p in self.parameters])
        return [piece.view_as(p) for piece, p in zip(pieces, self.parameters, strict=True)]

    @torch.no_grad()
    def at(self, away: Tensor) -> float:
        """The loss with the weights moved by a vector."""
        before = [p.detach().clone() for p in self.parameters]
        for p, piece in zip(self.parameters, self.cut(away), strict=True):
            p += piece
        found = float(self.loss(self.module(*self.inputs), self.target))
        for p, old in zip(self.parameters, before, strict=True):
            p.copy_(old)
        return found

    def product(self, vector: Tensor) -> Tensor:
        """The Hessian at the weights, times a vector."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            value = self.loss(self.module(*self.inputs), self.target)
            slopes = torch.autograd.grad(value, self.parameters, create_graph=True, materialize_grads=True)
            along = sum((g * v).sum() for g, v in zip(slopes, self.cut(vector), strict=True))
            if not along.requires_grad:  # the gradient does not depend on the weights
                return torch.zeros(self.size, dtype=torch.float64)
            found = torch.autograd.grad(along, self.parameters, materialize_grads=True)
        return torch.cat([h.flatten() for h in found]).double()

    def filter_axis(self, draw: torch.Generator) -> Tensor:
        """A random direction, each of its filters as long as that of the weights."""
        pieces = []
        for p in self.parameters:
            d = torch.randn(p.shape, generator=draw).to(p)
            if p.dim() < 2:
                d = torch.zeros_like(p)
            else:
                rows, own = d.flatten(1), p.detach().flatten(1)
                d = (rows * (own.norm(dim=1) / rows.norm(dim=1).clamp_min(1e-12))[:, None]).view_as(p)
            pieces.append(d.flatten())
        return torch.cat(pieces).double()


def lanczos(product: Product, size: int, steps: int, draw: torch.Generator) -> tuple[Values, Values, Tensor]:
    """Ritz values (rising), their weights (which sum to 1) and Ritz vectors [size, values] of a symmetric matrix."""
    q = torch.randn(size, generator=draw, dtype=torch.float64)
    basis: list[Tensor] = [q / q.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, size)):
        w = product(basis[-1])
        diagonal.append(float(w @ basis[-1]))
        known = torch.stack(basis)
        for _ in range(2):  # once is not enough: rounding brings converged directions back
            w = w - known.T @ (known @ w)
        length = float(w.norm())
        scale = max(map(abs, [*diagonal, *beside]))
        if len(basis) == min(steps, size) or length <= 1e-7 * scale:
            break
        beside.append(length)
        basis.append(w / length)
    t = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(t)
    return values, vectors[0] ** 2, torch.stack(basis).T @ torch.from_numpy(vectors)


def trace(product: Product, size: int, products: int, draw: torch.Generator) -> float:
    """The trace of a symmetric matrix, by Hutch++; exact with at least `size` products."""
    if products >= size:
        return sum(float(product(e)[i]) for i, e in enumerate(torch.eye(size, dtype=torch.float64)))
    third = max(1, products // 3)

    def signs() -> Tensor:
        return torch.randint(0, 2, (size, third), generator=draw).double() * 2 - 1

    def times(matrix: Tensor) -> Tensor:
        return torch.stack([product(column) for column in matrix.T], 1)

    q = torch.linalg.qr(times(signs()))[0]
    rest = signs()
    rest = rest - q @ (q.T @ rest)
    return float((q * times(q)).sum() + (rest * times(rest)).sum() / third)


def criteria(values: Values, weights: Values, power: float = 0.5) -> tuple[float, float]:
    """r_e and K_h of a spectrum: see the head of the file. Infinite where no value is above 0, 0 where all are 0."""
    parts = np.abs(values * weights) ** power
    below, above = float(parts[values < 0].sum()), float(parts[values > 0].sum())
    if not above:
        worst = math.inf if below else 0.0
        return worst, worst
    return abs(min(0.0, float(values.min()))) / float(values.max()), below / above


def density(spectra: list[tuple[Values, Values]], points: int = 201) -> tuple[Values, Values]:
    """Eigenvalues on a grid and the spectral density there, which integrates to 1."""
    low, high = min(float(v.min()) for v, _ in spectra), max(float(v.max()) for v, _ in spectra)
    width = 0.01 * max(high - low, 1e-12)
    at = np.linspace(low - 5 * width, high + 5 * width, points)
    bells = [np.exp(-0.5 * ((at[:, None] - v) / width) ** 2) @ w / (width * math.sqrt(2 * math.pi)) for v, w in spectra]
    return at, np.mean(bells, 0)


def look(
    net: Net,
    data: Data,
    *,
    axes: str = "random",
    grid: int = 21,
    distance: float = 1.0,
    steps: int = 40,
    probes: int = 3,
    products: int = 90,
    power: float = 0.5,
    split: str = "train",
    samples: int = 256,
    seed: int = 0,
) -> Finding:
    """The surface, the spectrum and its criteria. `power` is h of K_h; see the head of the file for the others."""
    if axes not in ("random", "hessian"):
        raise ArchwrightError(f"got axes={axes!r}, expected 'random' or 'hessian'")
    if min(grid, steps) < 2 or min(probes, products) < 1:
        got = f"grid={grid}, steps={steps}, probes={probes}, products={products}"
        raise ArchwrightError(f"got {got}, expected at least 2, 2, 1 and 1")
    land = Landscape(net, data, split=split, samples=samples, seed=seed)
    draw = torch.Generator().manual_seed(seeds.derive(seed, "landscape"))
    runs = [lanczos(land.product, land.size, steps, draw) for _ in range(probes)]
    top, least = max(float(v[-1]) for v, _, _ in runs), min(float(v[0]) for v, _, _ in runs)
    r_e, k_h = np.mean([criteria(v, w, power) for v, w, _ in runs], 0).tolist()
    if axes == "hessian":
        values, _, vectors = runs[0]
        first, *more = np.argsort(-np.abs(values), kind="stable").tolist()
        u, v = vectors[:, first], vectors[:, more[0] if more else first]
    else:
        u, v = land.filter_axis(draw), land.filter_axis(draw)
    steps_of = np.linspace(-distance, distance, grid).tolist()
    surface = [[land.at(a * u + b * v) for a in steps_of] for b in steps_of]
    here = land.at(torch.zeros(land.size))
    unit = "nats" if data.task == "classification" else "target units^2"
    curving = f"{unit} / weight^2"
    figures = (
        Figure("loss", here, unit),
        Figure("greatest loss on the surface", max(map(max, surface)), unit),
        Figure("top eigenvalue", top, curving),
        Figure("least eigenvalue", least, curving),
        Figure("trace", trace(land.product, land.size, products, draw), curving),
        Figure("r_e", r_e, "1"),
        Figure("K_h", k_h, "1"),
    )
    at, dense = density([(v, w) for v, w, _ in runs])
    titles = ("random direction", "another") if axes == "random" else ("first eigenvector", "second eigenvector")
    charts = (
        Chart("Loss surface", "heatmap", {"loss": {"x": steps_of, "y": steps_of, "z": surface}}, *titles),
        Chart("Spectral density", "line", {"Hessian": {"x": at.tolist(), "y": dense.tolist()}}, "eigenvalue",
              "density", log_y=True),
    )  # fmt: skip
    text = (
        f"The loss is {here:.3g}; it curves by up to {top:.3g} upwards and {min(0.0, least):.3g} downwards. Criteria "
        f"near 0 (here r_e {r_e:.2g}, K_h {k_h:.2g}) go with a minimum for these data; where they are greater than on "
        "the data of training, the net has likely lost accuracy."
    )
    return Finding("Loss landscape", figures, charts, text)


def claim(*, seed: int = 0) -> Claim:
    """Each net on the test split as it is and with noise; and one small net's Hessian in full."""
    from dataclasses import replace

    from archwright.core.records import Budget
    from archwright.data.builtin import builtin
    from archwright.kit import train
    from archwright.kit.digits import perceptron
    from archwright.kit.ranks import spearman

    data, strengths = builtin("digits", seed), (0.05, 0.1, 0.2, 0.3, 0.4)
    noise = seeds.rng(seed, "noise").standard_normal(data.inputs[0].shape).astype(np.float32)
    drops, changes = [], []
    errors: list[float] = []
    for index in range(20):
        rng = np.random.default_rng((seed, index))
        start = perceptron(data, ((8, 16, 24, 32)[index // 5],), act="tanh", seed=seed + index)
        net, _ = train.fit(start, data, Budget(steps=400), rng, lr=0.01, evaluations=1, keep="last")
        shifted = replace(data, inputs=(data.inputs[0] + strengths[index % 5] * noise,))
        drops.append(100 * (train.evaluate(net, shifted) - train.evaluate(net, data)))
        found = []
        for source in (data, shifted):
            land = Landscape(net, source, split="test", samples=270, seed=seed)
            draw = torch.Generator().manual_seed(seed + index)
            found.append(np.mean([criteria(*lanczos(land.product, land.size, 30, draw)[:2]) for _ in range(2)], 0))
        changes.append(found[1] - found[0])
        if not errors:
            land = Landscape(net, data, samples=256, seed=seed)
            matrix = torch.stack([land.product(e) for e in torch.eye(land.size, dtype=torch.float64)])
            exact = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
            top = lanczos(land.product, land.size, 40, draw)[0][-1]
            whole = trace(land.product, land.size, 180, draw)
            errors = [100 * abs(float(top) / float(exact[-1]) - 1), 100 * abs(whole / float(exact.sum()) - 1)]
    change = np.stack(changes)
    agreement, other = spearman(change[:, 1], drops), spearman(change[:, 0], drops)
    return Claim(
        agreement,
        "1",
        "above 0.5, with top eigenvalue and trace within 1 % of the dense Hessian's",
        agreement > 0.5 and max(errors) < 1,
        "changes of the criteria correlate with changes of accuracy (abstract)",
        {
            "correlation, r_e": other,
            "top eigenvalue, error in %": errors[0],
            "trace, error in %": errors[1],
            "greatest loss of accuracy": max(drops),
        },
        (
            "perceptrons of 8 to 32 tanh units; noise of deviation 0.05 to 0.4 on the pixels, which reach over 1",
            "the strength of the noise, five for each width, is what moves both the criterion and accuracy",
        ),
    )
