"""Pooling over windows in 1, 2 and 3 dimensions, and adaptive pooling to a given size; the input's rank says which.

Shapes: x [N, C, *spatial] -> y [N, C, *spatial'], with

    spatial' = floor((n + 2 padding - dilation (kernel - 1) - 1) / stride) + 1

or ceil where `ceil` is set, less windows that would start beyond the input and its padding before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch.nn.functional as F

from archwright.errors import GraphError, TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Source, Types, need_float, need_rank, pin, spread

_MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_LP = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)
_ADAPTIVE_AVG = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
_ADAPTIVE_MAX = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)


def _avg_1d(x, kernel, stride, padding, ceil, count_include_pad, divisor):
    return F.avg_pool1d(x, kernel, stride, padding, ceil, count_include_pad)


_AVG = (_avg_1d, F.avg_pool2d, F.avg_pool3d)


# --------------------------------------------------------------------------------------------------------- geometry
class _Window:
    """Kernel, stride, padding, dilation and output size of each spatial dimension."""

    def __init__(self, a: A, t: Type) -> None:
        need_rank(t, 3, 5)
        need_float(t)
        rank = len(t.shape) - 2
        self.sizes = t.shape[2:]
        self.kernel = spread(a["kernel"], rank, "kernel")
        self.stride = self.kernel if a["stride"] is None else spread(a["stride"], rank, "stride")
        self.padding = spread(a.get("padding", 0), rank, "padding")
        self.dilation = spread(a.get("dilation", 1), rank, "dilation")
        out = []
        for n, k, s, p, d in zip(self.sizes, self.kernel, self.stride, self.padding, self.dilation, strict=True):
            if min(k, s, d) < 1:
                raise TypeMismatch(f"kernel {k}, stride {s} and dilation {d}, expected at least 1 of each")
            extent = d * (k - 1) + 1
            if not 0 <= p <= extent // 2:
                raise TypeMismatch(f"padding {p}, expected 0 to half of the kernel's extent of {extent}")
            room = n + 2 * p - extent
            windows = (-(-room // s) if a["ceil"] else room // s) + 1
            if a["ceil"] and (windows - 1) * s >= n + p:
                windows -= 1
            if n < 1 or windows < 1:
                raise TypeMismatch(f"a window of {extent} does not fit into size {n} padded by {p} on both sides")
            out.append(windows)
        self.out = tuple(out)

    def ends(self) -> tuple[int, ...]:
        """The padding behind that lets the windows, rounded down, be as many as `out`."""
        given = zip(self.sizes, self.kernel, self.stride, self.padding, self.dilation, self.out, strict=True)
        return tuple([max(p, (m - 1) * s + d * (k - 1) + 1 - n - p) for n, k, s, p, d, m in given])

    def spans(self) -> list[list[tuple[int, int]]]:
        """For each dimension and window: elements of the input, and elements of the input and its padding."""
        found = []
        for n, k, s, p, m in zip(self.sizes, self.kernel, self.stride, self.padding, self.out, strict=True):
            starts = [i * s - p for i in range(m)]
            found.append([(min(i + k, n) - max(i, 0), min(i + k, n + p) - i) for i in starts])
        return found


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    return (Type((*x[0].shape[:2], *_Window(a, x[0]).out), x[0].dtype),)


def _axes(a: A, x: Types, y: Types) -> Axes:
    lead = Dim("n", x[0].shape[0]), Dim("c", x[0].shape[1])
    return Axes(((*lead, *pin(x[0].shape[2:])),), ((*lead, *pin(y[0].shape[2:])),))


def _cost_indexed(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0",), extra=y[0].numel * DTYPES["int64"])


def _text(function: str, x: Types, *given: object) -> Source:
    rank = len(x[0].shape) - 2
    options = ", ".join(map(str, given))
    return Source(f"F.{function}{rank}d({{x0}}, {options})", f"nn.{_MODULES[function]}{rank}d({options})")


_MODULES = {
    "max_pool": "MaxPool", "avg_pool": "AvgPool", "lp_pool": "LPPool",
    "adaptive_avg_pool": "AdaptiveAvgPool", "adaptive_max_pool": "AdaptiveMaxPool",
}  # fmt: skip


def _options(a: A, **names: str) -> list[str]:
    """Keywords for the attributes that differ from torch's defaults."""
    defaults = {"padding": 0, "dilation": 1, "ceil": False, "count_include_pad": True, "divisor": None}
    return [f"{names.get(key, key)}={a[key]}" for key, default in defaults.items() if key in a and a[key] != default]


def _window_text(a: A) -> list[str]:
    return [str(a["kernel"]), *([] if a["stride"] is None else [str(a["stride"])])]


# -------------------------------------------------------------------------------------------------------------- max
def _run_max(a: A, x, w, train):
    pool = _MAX[x[0].dim() - 3]
    return pool(x[0], a["kernel"], a["stride"], a["padding"], a["dilation"], a["ceil"])


def _onnx_max(o, a, x, w, xt, yt):
    window = _Window(a, xt[0])
    value, pads = x[0], [*window.padding, *window.ends()]
    if any(p >= k for p, k in zip(pads, 2 * window.kernel, strict=True)):  # more than ONNX Runtime takes
        rank = len(window.kernel)
        full = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
        value = o.node("Pad", [value, o.const(full), o.scalar(-math.inf, xt[0].dtype)])
        pads = None
    return o.node(
        "MaxPool", [value], kernel_shape=window.kernel, strides=window.stride, dilations=window.dilation, pads=pads
    )


def _source_max(a: A, x: Types, y: Types) -> Source:
    return _text("max_pool", x, *_window_text(a), *_options(a, ceil="ceil_mode"))


# ---------------------------------------------------------------------------------------------------------- average
def _infer_avg(a: A, x: Types) -> tuple[Type, ...]:
    if a["divisor"] is not None and len(x[0].shape) == 3:
        raise TypeMismatch(f"'divisor' is {a['divisor']}, but pooling in one dimension has none")
    if a["divisor"] == 0:
        raise GraphError("'divisor' is 0, expected another number, or none for the number of elements")
    return _infer(a, x)


def _run_avg(a: A, x, w, train):
    pool = _AVG[x[0].dim() - 3]
    return pool(x[0], a["kernel"], a["stride"], a["padding"], a["ceil"], a["count_include_pad"], a["divisor"])


def _cost_kept(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0",))


def _onnx_sums(o, x: str, window: _Window, dtype: str) -> str:
    """Sums over the windows, as averages over windows that never leave the padded input, times their size."""
    pads = [0, 0, *window.padding, 0, 0, *window.ends()]
    value = o.node("Pad", [x, o.const(pads)]) if any(pads) else x
    made = o.node("AveragePool", [value], kernel_shape=window.kernel, strides=window.stride)
    return o.node("Mul", [made, o.scalar(math.prod(window.kernel), dtype)])


def _onnx_avg(o, a, x, w, xt, yt):
    window, dtype = _Window(a, xt[0]), xt[0].dtype
    if a["divisor"] is None and not a["ceil"]:
        return o.node(
            "AveragePool", [x[0]], kernel_shape=window.kernel, strides=window.stride,
            pads=[*window.padding, *window.padding], count_include_pad=a["count_include_pad"],
        )  # fmt: skip
    sums = _onnx_sums(o, x[0], window, dtype)
    if a["divisor"] is not None:
        return o.node("Div", [sums, o.scalar(a["divisor"], dtype)])
    counts = np.ones((), dtype=np.float64)
    for spans in window.spans():
        counts = counts[..., None] * [padded if a["count_include_pad"] else inside for inside, padded in spans]
    return o.node("Div", [sums, o.const(counts, dtype)])


def _source_avg(a: A, x: Types, y: Types) -> Source:
    return _text("avg_pool", x, *_window_text(a), *_options(a, ceil="ceil_mode", divisor="divisor_override"))


# --------------------------------------------------------------------------------------------------------------- lp
def _infer_lp(a: A, x: Types) -> tuple[Type, ...]:
    if not 0 < a["p"] < math.inf:
        raise GraphError(f"'p' is {a['p']}, expected a finite number above 0")
    return _infer(a, x)


def _run_lp(a: A, x, w, train):
    return _LP[x[0].dim() - 3](x[0], a["p"], a["kernel"], a["stride"], a["ceil"])


def _cost_lp(a: A, x: Types, y: Types) -> Cost:
    """x and x^p, and of the sums s: s, sign(s), max(|s|, 0) and the number under the root."""
    return Cost(keeps=("x0",), extra=x[0].nbytes + 4 * y[0].nbytes)


def _onnx_lp(o, a, x, w, xt, yt):
    """(relu(mean of x^p) * number of elements)^(1 / p), with the sign of the mean, as torch computes it."""
    window, dtype = _Window(a, xt[0]), xt[0].dtype
    power = o.node("Pow", [x[0], o.scalar(a["p"], dtype)])
    mean = _onnx_avg(o, {**a, "padding": 0, "count_include_pad": True, "divisor": None}, [power], w, xt, yt)
    made = o.node("Mul", [o.node("Sign", [mean]), o.node("Relu", [o.node("Abs", [mean])])])
    made = o.node("Mul", [made, o.scalar(math.prod(window.kernel), dtype)])
    return o.node("Pow", [made, o.scalar(1 / a["p"], dtype)])


def _source_lp(a: A, x: Types, y: Types) -> Source:
    return _text("lp_pool", x, a["p"], *_window_text(a), *_options(a, ceil="ceil_mode"))


# --------------------------------------------------------------------------------------------------------- adaptive
def _target(a: A, t: Type) -> tuple[int, ...]:
    """The output size; None in `size` keeps the input's."""
    need_rank(t, 3, 5)
    need_float(t)
    rank, given = len(t.shape) - 2, a["size"]
    if type(given) is int or given is None:
        given = (given,) * rank
    if type(given) is not tuple or any(type(n) not in (int, type(None)) for n in given):
        raise GraphError(f"'size' is {given!r}, expected an integer, or a list of integers and nulls")
    if len(given) != rank:
        raise GraphError(f"'size' has {len(given)} entries, expected one for each of {rank} dimensions")
    size = tuple([n if wanted is None else wanted for n, wanted in zip(t.shape[2:], given, strict=True)])
    if min(size) < 1 or min(t.shape[2:]) < 1:
        raise TypeMismatch(f"{t} is pooled to {list(size)}, expected at least 1 element in each dimension")
    return size


def _infer_adaptive(a: A, x: Types) -> tuple[Type, ...]:
    return (Type((*x[0].shape[:2], *_target(a, x[0])), x[0].dtype),)


def _run_adaptive(functions: Sequence[Callable]) -> Callable:
    def run(a: A, x, w, train):
        rank, size = x[0].dim() - 2, a["size"]
        if rank == 1:
            size = size[0] if type(size) is tuple else size
            return functions[0](x[0], x[0].shape[2] if size is None else size)
        return functions[rank - 1](x[0], (None,) * rank if size is None else size)

    return run


def _cost_adaptive_avg(a: A, x: Types, y: Types) -> Cost:
    """An average over everything is a mean, which keeps nothing."""
    return Cost() if math.prod(y[0].shape[2:]) == 1 else Cost(keeps=("x0",))


def _cells(n: int, m: int) -> list[tuple[int, int]]:
    """Start and stop of the m cells that n elements are pooled to; they may overlap."""
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _onnx_adaptive_avg(o, a, x, w, xt, yt):
    sizes, out = xt[0].shape[2:], yt[0].shape[2:]
    rank, value = len(sizes), x[0]
    if all(n % m == 0 for n, m in zip(sizes, out, strict=True)):
        if math.prod(out) == 1:
            return o.node("GlobalAveragePool", [value])
        kernel = [n // m for n, m in zip(sizes, out, strict=True)]
        return o.node("AveragePool", [value], kernel_shape=kernel, strides=kernel)
    for i, (n, m) in enumerate(zip(sizes, out, strict=True)):
        if n != m:
            means = np.zeros((n, m))
            for j, (start, stop) in enumerate(_cells(n, m)):
                means[start:stop, j] = 1 / (stop - start)
            value = o.swap(value, rank + 2, i + 2, rank + 1)
            value = o.node("MatMul", [value, o.const(means, xt[0].dtype)])
            value = o.swap(value, rank + 2, i + 2, rank + 1)
    return value


def _onnx_adaptive_max(o, a, x, w, xt, yt):
    value = x[0]
    for i, (n, m) in enumerate(zip(xt[0].shape[2:], yt[0].shape[2:], strict=True), 2):
        if n != m:
            cells = _cells(n, m)
            widest = max(stop - start for start, stop in cells)
            found = [[min(start + j, stop - 1) for j in range(widest)] for start, stop in cells]
            value = o.node("Gather", [value, o.const(found)], axis=i)
            value = o.node("ReduceMax", [value, o.const([i + 1])], keepdims=0)
    return value


def _source_adaptive(function: str) -> Callable[[A, Types, Types], Source]:
    def source(a: A, x: Types, y: Types) -> Source:
        size, rank = a["size"], len(x[0].shape) - 2
        if rank == 1:
            size = y[0].shape[2]
        elif size is None:
            size = (None,) * rank
        return _text(function, x, size)

    return source


_WINDOW = {"kernel": Attr("sizes"), "stride": Attr("sizes", None)}
_CEIL = Attr("bool", False)

OPS = (
    Op(
        "max_pool", _infer, _run_max,
        {**_WINDOW, "padding": Attr("sizes", 0), "dilation": Attr("sizes", 1), "ceil": _CEIL},
        cost=_cost_indexed, axes=_axes, onnx=_onnx_max, source=_source_max, doc="The greatest value of each window.",
    ),
    Op(
        "avg_pool", _infer_avg, _run_avg,
        {
            **_WINDOW, "padding": Attr("sizes", 0), "ceil": _CEIL, "count_include_pad": Attr("bool", True),
            "divisor": Attr("int", None),
        },
        cost=_cost_kept, axes=_axes, onnx=_onnx_avg, source=_source_avg,
        doc="The mean of each window, or its sum divided by 'divisor'.",
    ),
    Op(
        "lp_pool", _infer_lp, _run_lp, {"p": Attr("number"), **_WINDOW, "ceil": _CEIL}, cost=_cost_lp, axes=_axes,
        onnx=_onnx_lp, source=_source_lp, doc="(sum of x^p)^(1 / p) over each window.",
    ),
    Op(
        "adaptive_avg_pool", _infer_adaptive, _run_adaptive(_ADAPTIVE_AVG), {"size": Attr("any")},
        cost=_cost_adaptive_avg, axes=_axes, onnx=_onnx_adaptive_avg, source=_source_adaptive("adaptive_avg_pool"),
        doc="The mean of each of `size` cells; null keeps a dimension as it is.",
    ),
    Op(
        "adaptive_max_pool", _infer_adaptive, _run_adaptive(_ADAPTIVE_MAX), {"size": Attr("any")},
        cost=_cost_indexed, axes=_axes, onnx=_onnx_adaptive_max, source=_source_adaptive("adaptive_max_pool"),
        doc="The greatest value of each of `size` cells; null keeps a dimension as it is.",
    ),
)  # fmt: skip
