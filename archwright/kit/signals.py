"""Pieces of graph that architectures for signals share: convolution over time, norms, pooling of time into features."""

from __future__ import annotations

from archwright.errors import ArchwrightError, TypeMismatch
from archwright.ir import Editor

NORMS = ("batch", "group", "none")


def need_signal(g: Editor, x: str) -> tuple[int, int]:
    """Channels and steps of x [N, channels, time]. Raises `TypeMismatch` for anything else."""
    if len(g.shape(x)) != 3 or g.type(x).dtype != "float32":
        raise TypeMismatch(f"'{x}' is {g.type(x)}, expected float32 [N, channels, time]")
    return g.shape(x)[1], g.shape(x)[2]


def normalise(g: Editor, x: str, norm: str = "batch", name: str = "norm") -> str:
    """x [N, C, T] normalised: "batch" by channel, "group" over channels and time of each sample, "none" as it is."""
    if norm not in NORMS:
        raise ArchwrightError(f"got norm='{norm}', expected one of {', '.join(NORMS)}")
    if norm == "none":
        return x
    return g.add("batch_norm", x, name=name) if norm == "batch" else g.add("group_norm", x, groups=1, name=name)


def convolve(
    g: Editor, x: str, width: int, kernel: int, *, dilation: int = 1, separable: bool = False, norm: str = "batch",
    name: str = "conv",
) -> str:  # fmt: skip
    """x [N, C, T] -> [N, width, T]: convolution of the same length, then the norm (a bias only where there is none).

    separable  a kernel for each channel, and then a map of the channels, in the place of a full convolution
    """
    channels, bias = g.shape(x)[1], norm == "none"
    with g.scope(name):
        if separable and kernel > 1:
            x = g.add(
                "conv", x, out=channels, kernel=kernel, dilation=dilation, padding="same", groups=channels, bias=False,
                name="depthwise",
            )  # fmt: skip
            kernel = dilation = 1
        x = g.add("conv", x, out=width, kernel=kernel, dilation=dilation, padding="same", bias=bias, name="full")
        return normalise(g, x, norm)
