"""Rules for what sums over dimensions: reductions, softmax, products of matrices, Fourier transforms."""

from __future__ import annotations

from typing import Any

from archwright.exchange.capturing.program import Size
from archwright.exchange.capturing.rules_point import binary, dims_of, floating
from archwright.exchange.capturing.table import Unfit, rule
from archwright.exchange.capturing.values import Value


def _typed(c, a: dict[str, Any]) -> Value:
    """The input, cast if the call says in which dtype to compute."""
    x, dtype = a["self"], a.get("dtype")
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    return x if name in (None, x.meta.dtype) else c.cast(x, name)  # type: ignore[no-any-return]


def _reduce(names: str, op: str) -> None:
    def run(c, call, a):
        x = floating(c, _typed(c, a), call.out) if op not in ("any", "all") else a["self"]
        return c.emit(op, x, dim=dims_of(a.get("dim")), keepdim=bool(a.get("keepdim", False)))

    rule(*names.split())(run)


for _name in ("sum", "mean", "prod", "amax", "amin", "logsumexp", "any", "all", "argmax", "argmin"):
    _reduce(_name, _name)


@rule("max", "min")
def _max(c, call, a):
    extreme = call.name
    if "other" in a:
        return binary(c, {"max": "maximum", "min": "minimum"}[extreme], call, a["self"], a["other"])
    if "dim" not in a:
        return c.emit({"max": "amax", "min": "amin"}[extreme], a["self"])
    return c.emit(extreme, a["self"], dim=a["dim"], keepdim=a["keepdim"])


def _correction(a: dict[str, Any]) -> float:
    if "unbiased" in a:
        return float(a["unbiased"])
    return 1.0 if a["correction"] is None else float(a["correction"])


@rule("var", "std")
def _var(c, call, a):
    keepdim = a.get("keepdim", False)
    return c.emit(call.name, a["self"], dim=dims_of(a.get("dim")), correction=_correction(a), keepdim=keepdim)


@rule("var_mean", "std_mean")
def _var_mean(c, call, a):
    dim, keepdim = dims_of(a.get("dim")), a.get("keepdim", False)
    spread = c.emit(call.name.partition("_")[0], a["self"], dim=dim, correction=_correction(a), keepdim=keepdim)
    return spread, c.emit("mean", a["self"], dim=dim, keepdim=keepdim)


@rule("norm", "linalg_vector_norm")
def _norm(c, call, a):
    p = a["ord"] if "ord" in a else a["p"]
    if isinstance(p, str):
        raise Unfit("a matrix norm")
    keepdim = a.get("keepdim", False)
    return c.emit("norm", _typed(c, a), p=2.0 if p is None else p, dim=dims_of(a.get("dim")), keepdim=keepdim)


@rule("count_nonzero")
def _count_nonzero(c, call, a):
    return c.emit("sum", c.emit("ne", a["self"], value=0), dim=dims_of(a.get("dim")))


@rule("softmax", "log_softmax", "_softmax", "_log_softmax", "special_softmax", "special_log_softmax")
def _softmax(c, call, a):
    x = _typed(c, a)
    if a.get("half_to_float"):
        x = c.cast(x, "float32")
    return c.emit("log_softmax" if "log" in call.name else "softmax", x, dim=a["dim"])


@rule("cumsum", "cumprod", "logcumsumexp")
def _cumulate(c, call, a):
    return c.emit(call.name, _typed(c, a), dim=a["dim"])


# ---------------------------------------------------------------------------------------------------------- products
@rule("matmul", "mm", "bmm", "mv", "dot", "linalg_matmul", "vdot")
def _matmul(c, call, a):
    x, y = list(a.values())[:2]
    if call.name == "vdot" and "complex" in x.meta.dtype:
        raise Unfit("of complex numbers")
    return c.emit("matmul", x, y)


@rule("einsum")
def _einsum(c, call, a):
    # the path only says in which order to multiply
    return c.emit("einsum", *a["tensors"], equation=a["equation"].replace(" ", ""))


@rule("tensordot")
def _tensordot(c, call, a):
    x, y = a["self"], a["other"]
    ranks = len(x.meta.shape), len(y.meta.shape)
    over = [[d % rank for d in a[key]] for key, rank in zip(("dims_self", "dims_other"), ranks, strict=True)]
    if ranks[1] == 2 and over == [[ranks[0] - 1], [0]]:
        return c.emit("matmul", x, y)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in range(ranks[0])]
    second = [first[over[0][over[1].index(d)]] if d in over[1] else next(letters) for d in range(ranks[1])]
    kept = [n for d, n in enumerate(first) if d not in over[0]] + [n for d, n in enumerate(second) if d not in over[1]]
    return c.emit("einsum", x, y, equation=f"{''.join(first)},{''.join(second)}->{''.join(kept)}")


@rule("outer", "ger")
def _outer(c, call, a):
    return c.emit("mul", c.emit("unsqueeze", a["self"], dim=1), c.emit("unsqueeze", a["vec2"], dim=0))


@rule("addmm", "baddbmm", "addmv", "addbmm")
def _addmm(c, call, a):
    added, x, y = list(a.values())[:3]
    product = c.emit("matmul", x, y)
    if call.name == "addbmm":
        product = c.emit("sum", product, dim=[0])
    if a["alpha"] != 1:
        product = c.emit("mul", product, value=a["alpha"])
    if a["beta"] == 0:
        return product
    if a["beta"] != 1:
        added = c.emit("mul", added, value=a["beta"])
    return binary(c, "add", call, added, product)


# ----------------------------------------------------------------------------------------------------------- Fourier
@rule("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft")
def _fft(c, call, a):
    return c.emit(call.name[4:], a["self"], n=a["n"], dim=a["dim"], norm=a["norm"] or "backward")


@rule(*[f"fft_{kind}{rank}" for kind in ("fft", "ifft", "rfft", "irfft") for rank in ("2", "n")])
def _fftn(c, call, a):
    dims, sizes = a["dim"], a["s"]
    if dims is None:
        rank = len(a["self"].meta.shape)
        dims = list(range(rank)) if sizes is None else list(range(rank - len(sizes), rank))
    if sizes is not None and any(isinstance(n, Size) for n in sizes):
        raise Unfit("a size depends on the batch")
    return c.emit(f"{call.name[4:-1]}n", a["self"], dims=list(dims), size=sizes, norm=a["norm"] or "backward")


def _fft_norm(number: int, forward: bool) -> str:
    """torch.fft's name of a normalisation, which torch inside numbers: 0 none, 1 by the root of n, 2 by n."""
    if number == 1:
        return "ortho"
    return "backward" if (number == 0) == forward else "forward"


@rule("_fft_r2c")
def _fft_r2c(c, call, a):
    if not a["onesided"]:
        raise Unfit("both sides of a spectrum of real numbers")
    return c.emit("rfftn", a["self"], dims=list(a["dim"]), norm=_fft_norm(a["normalization"], True))


@rule("_fft_c2r")
def _fft_c2r(c, call, a):
    sizes = [call.out.shape[d] for d in a["dim"]]
    norm = _fft_norm(a["normalization"], False)
    return c.emit("irfftn", a["self"], dims=list(a["dim"]), size=sizes, norm=norm)


@rule("_fft_c2c")
def _fft_c2c(c, call, a):
    forward = a["forward"]
    norm = _fft_norm(a["normalization"], forward)
    return c.emit("fftn" if forward else "ifftn", a["self"], dims=list(a["dim"]), norm=norm)


@rule("stft")
def _stft(c, call, a):
    """Frames of the signal, each times the window, transformed."""
    x, n_fft, window = a["self"], a["n_fft"], a["window"]
    if a.get("align_to_window") or a.get("center"):
        raise Unfit("frames that are aligned otherwise")
    hop = a["hop_length"] or n_fft // 4
    if len(x.meta.shape) == 1:
        raise Unfit("a signal without a batch")
    frames = c.emit("window", x, dim=-1, size=n_fft, step=hop)
    if window is not None:
        missing = n_fft - window.meta.shape[0]
        if missing:
            window = c.emit("pad", window, pads=[missing // 2, missing - missing // 2])
        frames = c.emit("mul", frames, window)
    norm = "ortho" if a["normalized"] else "backward"
    if a["onesided"] is not False and "complex" not in x.meta.dtype:
        made = c.emit("rfft", frames, dim=-1, norm=norm)
    else:
        made = c.emit("fft", frames, dim=-1, norm=norm)
    made = c.emit("transpose", made, dim0=-1, dim1=-2)
    return c.emit("view_as_real", made) if a["return_complex"] is False else made


@rule("_weight_norm")
def _weight_norm(c, call, a):
    """g v / |v|, the norm over all dimensions but one."""
    v, dim = a["v"], a["dim"]
    rank = len(v.meta.shape)
    over = [i for i in range(rank) if i != dim % rank] if dim != -1 else None
    length = c.emit("norm", v, dim=over, keepdim=over is not None)
    return c.emit("mul", v, c.emit("div", a["g"], length))


@rule("norm_except_dim")
def _norm_except_dim(c, call, a):
    v, dim = a["v"], a["dim"]
    rank = len(v.meta.shape)
    over = [i for i in range(rank) if i != dim % rank] if dim != -1 else None
    return c.emit("norm", v, p=a["pow"], dim=over, keepdim=over is not None)


@rule("_euclidean_dist", "cdist", "_cdist_forward")
def _cdist(c, call, a):
    """|x1_i - x2_j|: through the differences, which is exact, unlike what torch does for many points."""
    x, y = a["x1"], a["x2"]
    rank = len(x.meta.shape)
    difference = c.emit("sub", c.emit("unsqueeze", x, dim=rank - 1), c.emit("unsqueeze", y, dim=rank - 2))
    return c.emit("norm", difference, p=a.get("p", 2.0), dim=[rank])
