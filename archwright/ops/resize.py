"""Images at other sizes and places: interpolation, sampling on a grid, affine grids.

    upsample     y[n, c, p] = sum_q k(p, q) x[n, c, q]          k by mode: nearest, linear, bicubic, area
    grid_sample  y[n, c, p] = x[n, c] at position grid[n, p]    positions in [-1, 1], the last coordinate's first
    affine_grid  grid[n, p] = theta[n] (p, 1)

Axes: samples and channels are carried, space is pinned; the grid's own dimensions are carried into the output.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Op, Source, Types, labels, need_float, need_rank, pin, spread
from archwright.ops.shape import free, ref_size

# -------------------------------------------------------------------------------------------------------- upsample
_RANKS = {
    "nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4, 5),
    "linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,),
}  # fmt: skip
_SMOOTH = ("linear", "bilinear", "bicubic", "trilinear")


def _scales(a: A, rank: int) -> tuple[float, ...] | None:
    scale = a["scale"]
    if scale is None:
        return None
    found = scale if isinstance(scale, tuple) else (scale,) * rank
    if len(found) != rank or any(type(s) not in (int, float) or s <= 0 for s in found):
        raise TypeMismatch(f"scale is {scale!r}, expected a positive number, or one for each of {rank} dimensions")
    return tuple(map(float, found))


def _infer_upsample(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3, 5)
    need_float(x[0])
    space, mode = x[0].shape[2:], a["mode"]
    if len(x[0].shape) not in _RANKS[mode]:
        raise TypeMismatch(f"input is {x[0]}, expected rank {' or '.join(map(str, _RANKS[mode]))} for mode '{mode}'")
    if (a["size"] is None) == (a["scale"] is None):
        raise TypeMismatch(f"size is {a['size']} and scale {a['scale']}, expected exactly one of them")
    if a["align_corners"] and mode not in _SMOOTH:
        raise TypeMismatch(f"align_corners has no meaning for mode '{mode}'")
    if a["antialias"] and mode not in ("bilinear", "bicubic"):
        raise TypeMismatch(f"antialias has no meaning for mode '{mode}', only for bilinear and bicubic")
    scales = _scales(a, len(space))
    size = spread(a["size"], len(space), "size") if scales is None else _scaled(space, scales)
    if min(size) < 1 or min(space) < 1:
        raise TypeMismatch(f"{x[0]} would be resized to {list(size)}, expected sizes of at least 1")
    return (Type((*x[0].shape[:2], *size), x[0].dtype),)


def _scaled(space: tuple[int, ...], scales: tuple[float, ...]) -> tuple[int, ...]:
    return tuple([math.floor(n * s) for n, s in zip(space, scales, strict=True)])


def _corners(a: A) -> bool | None:
    """align_corners as torch wants it: only where it has a meaning."""
    return a["align_corners"] if a["mode"] in _SMOOTH else None


def _run_upsample(a: A, x, w, train):
    return F.interpolate(x[0], a["size"], a["scale"], a["mode"], _corners(a), antialias=a["antialias"])


def _cost_upsample(a: A, x: Types, y: Types) -> Cost:
    """Area is adaptive average pooling, which keeps its input unless it is one plain mean."""
    return Cost(keeps=("x0",) if a["mode"] == "area" and max(y[0].shape[2:]) > 1 else ())


def _axes_upsample(a: A, x: Types, y: Types) -> Axes:
    lead = labels(x[0].shape[:2])
    return Axes(((*lead, *pin(x[0].shape[2:])),), ((*lead, *pin(y[0].shape[2:])),))


def _onnx_upsample(o, a, x, w, xt, yt):
    mode, space, rank = a["mode"], yt[0].shape[2:], len(xt[0].shape)
    if mode == "area" or a["antialias"]:
        return _onnx_matrices(o, a, x[0], xt[0], yt[0])
    place = "align_corners" if a["align_corners"] else "asymmetric" if mode == "nearest" else "half_pixel"
    kind = "nearest" if mode.startswith("nearest") else "cubic" if mode == "bicubic" else "linear"
    scales = _scales(a, len(space))
    axes = list(range(2, rank))
    return o.node(
        "Resize",
        [
            x[0],
            None,
            None if scales is None else o.const(list(scales), "float32"),
            o.const(list(space)) if scales is None else None,
        ],
        axes=axes,
        mode=kind,
        coordinate_transformation_mode=place,
        nearest_mode=("floor" if mode == "nearest" else "round_prefer_ceil") if kind == "nearest" else None,
        cubic_coeff_a=-0.75 if kind == "cubic" else None,
    )


def _onnx_matrices(o, a: A, x: str, xt: Type, yt: Type) -> str:
    """What ONNX has no Resize for: one matrix for each dimension, which torch itself gives from unit vectors."""
    rank, scales = len(xt.shape), _scales(a, len(xt.shape) - 2)
    for d in range(2, rank):
        units = torch.eye(xt.shape[d], dtype=torch.float64)[:, None, None, :]
        size = None if scales else (1, yt.shape[d])
        scale = (1.0, scales[d - 2]) if scales else None
        matrix = F.interpolate(units, size, scale, a["mode"], _corners(a), antialias=a["antialias"])[:, 0, 0]
        made = o.node("MatMul", [o.swap(x, rank, d, rank - 1), o.const(matrix.numpy(), xt.dtype)])
        x = o.swap(made, rank, d, rank - 1)
    return x


def _source_upsample(a: A, x: Types, y: Types) -> Source:
    given = f"size={a['size']}" if a["scale"] is None else f"scale_factor={a['scale']}"
    options = "".join(f", {name}=True" for name in ("align_corners", "antialias") if a[name])
    told = f"{given}, mode='{a['mode']}'{options}"
    return Source(f"F.interpolate({{x0}}, {told})", None if a["antialias"] else f"nn.Upsample({told})")


# ----------------------------------------------------------------------------------------------------- grid_sample
_ONNX_GRID = {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}


def _infer_grid_sample(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 4, 5)
    need_float(x[0])
    image, grid = x[0].shape, x[1].shape
    rank = len(image) - 2
    if len(grid) != len(image) or grid[0] != image[0] or grid[-1] != rank or x[1].dtype != x[0].dtype:
        raise TypeMismatch(f"grid is {x[1]}, expected {x[0].dtype}[{image[0]}, {'*, ' * rank}{rank}] for {x[0]}")
    if a["mode"] == "bicubic" and rank == 3:
        raise TypeMismatch(f"input is {x[0]}, expected rank 4 for mode 'bicubic'")
    if 0 in image[1:]:
        raise TypeMismatch(f"input is {x[0]}, expected sizes of at least 1")
    return (Type((*image[:2], *grid[1:-1]), x[0].dtype),)


def _run_grid_sample(a: A, x, w, train):
    return F.grid_sample(x[0], x[1], a["mode"], a["padding"], a["align_corners"])


def _cost_grid_sample(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0", "x1"))


def _axes_grid_sample(a: A, x: Types, y: Types) -> Axes:
    n, c, *space = labels(y[0].shape)
    return Axes(((n, c, *pin(x[0].shape[2:])), (n, *space, Dim(None, len(space)))), ((n, c, *space),))


def _onnx_grid_sample(o, a, x, w, xt, yt):
    return o.node(
        "GridSample", x, mode=_ONNX_GRID[a["mode"]], padding_mode=a["padding"], align_corners=int(a["align_corners"])
    )


def _source_grid_sample(a: A, x: Types, y: Types) -> Source:
    return Source(f"F.grid_sample({{x0}}, {{x1}}, '{a['mode']}', '{a['padding']}', align_corners={a['align_corners']})")


# ----------------------------------------------------------------------------------------------------- affine_grid
def _infer_affine(a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3, 3, "theta")
    need_float(x[0], "theta")
    rank = len(a["size"]) - 2
    batch = ref_size(a["size"], x, "size") if len(x) > 1 or a["size"][:1] != (0,) else x[0].shape[0]
    if rank not in (2, 3) or min(a["size"][1:]) < 1:
        raise TypeMismatch(f"size is {list(a['size'])}, expected samples, channels and 2 or 3 sizes")
    if x[0].shape != (a["size"][0] or batch, rank, rank + 1):
        raise TypeMismatch(f"theta is {x[0]}, expected shape {[a['size'][0] or batch, rank, rank + 1]}")
    return (Type((x[0].shape[0], *a["size"][2:], rank), x[0].dtype),)


def _run_affine(a: A, x, w, train):
    return F.affine_grid(x[0], [x[0].shape[0], *a["size"][1:]], a["align_corners"])


def _axes_affine(a: A, x: Types, y: Types) -> Axes:
    n = Dim("n", x[0].shape[0])
    refs = [(n, *free(t)[1:]) if t.shape[:1] == x[0].shape[:1] else free(t) for t in x[1:]]
    size = (n if a["size"][0] else None, *[None] * (len(a["size"]) - 1))
    return Axes(((n, *pin(x[0].shape[1:])), *refs), ((n, *pin(y[0].shape[1:])),), attrs={"size": size})


def _onnx_affine(o, a, x, w, xt, yt):
    space = a["size"][2:]
    ends = [1.0 if a["align_corners"] else 1 - 1 / n for n in space]
    lines = [np.linspace(-e, e, n) if n > 1 else np.zeros(1) for n, e in zip(space, ends, strict=True)]
    points = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(space)], -1).reshape(-1, len(space) + 1)
    made = o.node("MatMul", [o.const(points, xt[0].dtype), o.transpose(x[0], [0, 2, 1])])
    return o.reshape(made, -1, space, len(space))


def _source_affine(a: A, x: Types, y: Types) -> Source:
    size = f"[{{x0}}.shape[0], {', '.join(map(str, a['size'][1:]))}]"
    return Source(f"F.affine_grid({{x0}}, {size}, align_corners={a['align_corners']})")


_CORNERS = Attr("bool", False)

OPS = (
    Op(
        "upsample", _infer_upsample, _run_upsample,
        {
            "size": Attr("sizes", None), "scale": Attr("any", None), "mode": Attr("str", "nearest", tuple(_RANKS)),
            "align_corners": _CORNERS, "antialias": Attr("bool", False),
        },
        cost=_cost_upsample, axes=_axes_upsample, onnx=_onnx_upsample, source=_source_upsample,
        doc="Interpolation to a size or by a scale, as torch.nn.functional.interpolate.",
    ),
    Op(
        "grid_sample", _infer_grid_sample, _run_grid_sample,
        {
            "mode": Attr("str", "bilinear", tuple(_ONNX_GRID)),
            "padding": Attr("str", "zeros", ("zeros", "border", "reflection")), "align_corners": _CORNERS,
        },
        inputs=(2, 2), cost=_cost_grid_sample, axes=_axes_grid_sample, onnx=_onnx_grid_sample,
        source=_source_grid_sample, doc="An image (or volume) read at positions in [-1, 1].",
    ),
    Op(
        "affine_grid", _infer_affine, _run_affine, {"size": Attr("ints"), "align_corners": _CORNERS}, inputs=(1, 2),
        axes=_axes_affine, onnx=_onnx_affine, source=_source_affine,
        doc="Positions for grid_sample from affine maps. size is the image's; 0 in front is the size of dimension 0.",
    ),
)  # fmt: skip
