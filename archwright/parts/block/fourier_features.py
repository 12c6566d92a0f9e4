"""Fourier features: a fixed random map of a few numbers to sines and cosines, so that a network sees fine detail.

    y = [cos(2 pi B x), sin(2 pi B x)]               B [m, C] fixed, normal with deviation sigma

x [N, ..., C] -> y [N, ..., 2 m]. No parameters, m C fixed numbers. Cost: 2 m C FLOPs and 2 m sines a sample.

The scalar product of two outputs depends on the difference of the inputs alone: the network on top has a kernel of
width about 1 / sigma. Small sigma: smooth and near to linear; large: it interpolates noise. sigma has to fit the data.

Fails with many inputs (every direction is made equally fine, so most of m is spent on noise) and for extrapolation.
Differs from the paper in nothing; amplitudes are all 1, as in its experiments.

Tancik, Srinivasan, Mildenhall, Fridovich-Keil, Raghavan, Singhal, Ramamoorthi, Barron, Ng: Fourier Features Let
Networks Learn High Frequency Functions in Low Dimensional Domains, 2020, arXiv 2006.10739.
"""

from __future__ import annotations

import math

from archwright.core.records import Claim
from archwright.errors import ArchwrightError
from archwright.ir import Editor

PART = {
    "kind": "block",
    "name": "fourier_features",
    "id": "",
    "title": "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains",
    "year": 2020,
    "arxiv": "2006.10739",
    "needs": ["table", "coordinates"],
    "extras": [],
    "example": {
        "inputs": [{"shape": [None, 3], "dtype": "float32"}],
        "hp": {"features": 8},
        "vary": [
            {"inputs": [{"shape": [None, 5, 2], "dtype": "float32"}], "hp": {"features": 6, "sigma": 0.5}},
            {"inputs": [{"shape": [None, 7], "dtype": "float32"}], "hp": {"features": 4, "sigma": 0.1}},
        ],
    },
    "exact": "The scalar product of two outputs depends on the difference of the inputs only; with itself it is m.",
    "claim": {
        "text": "PSNR on held-out pixels of a 48 x 48 image with fine stripes: an MLP over Fourier features less one "
        "over coordinates.",
        "paper": "25.6 dB against 19.3 dB on natural images (table 1, 2D images), 6.3 dB more",
    },
}


def build(g: Editor, x: str, *, features: int = 64, sigma: float = 1.0) -> str:
    """x [N, ..., C] -> [N, ..., 2 features], between -1 and 1. `sigma`: deviation of the frequencies, 1 / unit of x."""
    if features < 1 or not sigma > 0:
        raise ArchwrightError(f"features {features}, sigma {sigma}: expected at least 1, and above 0")
    inputs = g.shape(x)[-1]
    b = g.add("buffer", shape=(features, inputs), init=("normal", 2 * math.pi * sigma), name="frequencies")
    angle = g.add("linear", x, b, out=features)
    return g.add("concat", g.add("cos", angle), g.add("sin", angle), dim=-1)


def claim(*, seed: int = 0) -> Claim:
    """PSNR of both on the pixels left out, every second one, after 600 steps of Adam on all others."""
    import torch
    import torch.nn.functional as F

    from archwright import ops
    from archwright.net.build import build as module
    from archwright.net.net import init

    side = 48
    line = torch.linspace(0, 1, side)
    x = torch.cartesian_prod(line, line)
    stripes = torch.sin(2 * math.pi * (5 * x[:, 0] + 3 * x[:, 1])) * torch.cos(2 * math.pi * 4 * x[:, 1].square())
    y = 0.5 + 0.5 * stripes[:, None]
    seen = (torch.arange(side)[:, None] + torch.arange(side)).flatten() % 2 == 0
    details = {}
    for name, mapped in (("Fourier features", True), ("coordinates", False)):
        g = ops.edit()
        h = g.input("x", (None, 2))
        h = build(g, h, features=64, sigma=4.0) if mapped else h
        for i in range(3):
            h = g.add("relu", g.add("linear", h, out=64, name=f"hidden{i}"))
        net = module(init(g.finish(g.add("linear", h, out=1, name="head")), seed))
        optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
        with torch.enable_grad():
            for _ in range(600):
                optimiser.zero_grad()
                F.mse_loss(net(x[seen]), y[seen]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        with torch.no_grad():
            details[f"PSNR (dB), {name}"] = float(-10 * F.mse_loss(net(x[~seen]), y[~seen]).log10())
    figure = details["PSNR (dB), Fourier features"] - details["PSNR (dB), coordinates"]
    return Claim(figure, "dB", "above 3", figure > 3, "6.3", details)
