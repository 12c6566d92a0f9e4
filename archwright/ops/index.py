"""Reading and writing at positions that are data: indexing, gather, scatter.

    index         y = x[..., i, j, ...]                        torch's advanced indexing with whole-number tensors
    gather        y[.., k, ..] = x[.., ids[.., k, ..], ..]     along one dimension, ids of x's rank
    index_put, scatter, index_add                              the same places written, or added to

A dimension that is indexed is pinned (its positions have meaning); the dimensions of the indices themselves, and those
that are only carried along, are axes. Masks (bool indices) are refused: the size of the result would depend on data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Cost, Dim, Dims, Op, Source, Term, Types, axis, broadcast, labels, pin
from archwright.ops.pieces import number, resized, swapped
from archwright.ops.pointwise import by_parts
from archwright.ops.shape import differentiable, free, onnx_dims

_WHOLE = ("int64", "int32")


def _need_whole(t: Type, only: tuple[str, ...] = ("int64",)) -> None:
    if t.dtype not in only:
        raise TypeMismatch(f"indices are {t}, expected {' or '.join(only)}: cast them first (masks are not supported)")


def _need_same_dtype(x: Type, src: Type) -> None:
    if x.dtype != src.dtype:
        raise TypeMismatch(f"values are {src} and the input is {x}, expected one dtype: cast them first")


# ------------------------------------------------------------------------------------------- index and index_put
class _Plan:
    """How torch's advanced indexing lays out its result.

    indexed   the dimensions of x that are indexed
    rest      those that are not
    at        where the common shape of the indices stands in the result
    """

    def __init__(self, a: A, x: Type, ids: Types) -> None:
        spec = a["spec"]
        if not isinstance(spec, tuple) or any(entry not in (None, "i") for entry in spec):
            raise TypeMismatch(f"spec is {spec!r}, expected a list of null (all of a dimension) and 'i' (an index)")
        self.indexed = [d for d, entry in enumerate(spec) if entry == "i"]
        if len(spec) > len(x.shape) or not ids or len(self.indexed) != len(ids):
            raise TypeMismatch(
                f"spec is {list(spec)} for {x} and {len(ids)} indices, expected up to {len(x.shape)} entries "
                "with an 'i' for each index"
            )
        for t in ids:
            _need_whole(t, _WHOLE)
        self.shape = broadcast(ids)
        self.rest = [d for d in range(len(x.shape)) if d not in self.indexed]
        first, last = self.indexed[0], self.indexed[-1]
        # indices that aren't next to each other put their common shape in front
        self.at = first if last - first + 1 == len(self.indexed) else 0

    def lay(self, carried: Sequence, common: Sequence) -> tuple:
        """Entries of the rest of x and of the indices, in the order of the result."""
        return (*carried[: self.at], *common, *carried[self.at :])

    @property
    def perm(self) -> list[int]:
        """The order of the result's dimensions from (common, rest)."""
        common = len(self.shape)
        return list(self.lay(range(common, common + len(self.rest)), range(common)))


def _entries(a: A, ids: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
    """An index or None for each leading dimension. int32 is widened, which torch.func.vmap wants."""
    left = iter(ids)
    return [None if entry is None else next(left).long() for entry in a["spec"]]


def _infer_index(a: A, x: Types) -> tuple[Type, ...]:
    plan = _Plan(a, x[0], x[1:])
    return (Type(plan.lay([x[0].shape[d] for d in plan.rest], plan.shape), x[0].dtype),)


def _run_index(a: A, x, w, train):
    # not x[...], where an index without dimensions is a number, after which the result may be laid out otherwise
    return torch.ops.aten.index(x[0], _entries(a, x[1:]))


def _kept_ids(x: Types, end: int) -> tuple[tuple[str, ...], int]:
    """What autograd keeps of the indices x[1:end]: those of int64, and the bytes of those that were widened."""
    if not differentiable(x[0]):
        return (), 0
    keeps = tuple([f"x{i}" for i in range(1, end) if x[i].dtype == "int64"])
    return keeps, sum(2 * t.nbytes for t in x[1:end] if t.dtype == "int32")


def _cost_index(a: A, x: Types, y: Types) -> Cost:
    keeps, extra = _kept_ids(x, len(x))
    return Cost(keeps=keeps, extra=extra, moved=2 * y[0].nbytes + sum(t.nbytes for t in x[1:]))


def _common(shape: Sequence[int], ids: Types) -> tuple[Dims, list[Dims]]:
    """Labels of the indices' common shape, and those dimensions in each of them."""
    common = labels(shape, "i")
    found = []
    for t in ids:
        tail = common[len(common) - len(t.shape) :]
        found.append(tuple([dim if n == dim.size else Dim(None, n) for n, dim in zip(t.shape, tail, strict=True)]))
    return common, found


def _axes_index(a: A, x: Types, y: Types) -> Axes:
    plan = _Plan(a, x[0], x[1:])
    dims = labels(x[0].shape)
    common, ids = _common(plan.shape, x[1:])
    before = swapped(dims, {d: Dim(None, x[0].shape[d]) for d in plan.indexed})
    return Axes((before, *ids), (plan.lay([dims[d] for d in plan.rest], common),))


def _onnx_places(o, plan: _Plan, ids: Sequence[str], types: Types) -> str:
    """The indices as one tensor [*common, number of indices], as GatherND and ScatterND take them."""
    wide = [v if t.dtype == "int64" else o.cast(v, "int64") for v, t in zip(ids, types, strict=True)]
    if len(wide) > 1:
        total = wide[0]
        for v in wide[1:]:  # the sum has the common shape
            total = o.node("Add", [total, v])
        shape = o.shape_of(total)
        wide = [o.node("Expand", [v, shape]) for v in wide]
    return o.concat([o.unsqueeze(v, len(plan.shape)) for v in wide], len(plan.shape))


def _onnx_index(o, a, x, w, xt, yt):
    plan = _Plan(a, xt[0], xt[1:])
    if len(plan.indexed) == 1:
        return o.node("Gather", x, axis=plan.indexed[0])
    value = o.transpose(x[0], [*plan.indexed, *plan.rest])
    return o.transpose(o.node("GatherND", [value, _onnx_places(o, plan, x[1:], xt[1:])]), plan.perm)


def _texts(a: A, ids: Types) -> list[str | None]:
    """The entries as source text."""
    left = iter([f"{{x{i}}}" + ("" if t.dtype == "int64" else ".long()") for i, t in enumerate(ids, 1)])
    return [None if entry is None else next(left) for entry in a["spec"]]


def _source_index(a: A, x: Types, y: Types) -> Source:
    texts = _texts(a, x[1:])
    if all(t.shape for t in x[1:]):
        return Source(f"{{x0}}[{', '.join([text or ':' for text in texts])}]")
    return Source(f"torch.ops.aten.index({{x0}}, [{', '.join([str(text) for text in texts])}])")


def _infer_put(a: A, x: Types) -> tuple[Type, ...]:
    plan = _Plan(a, x[0], x[1:-1])
    _need_same_dtype(x[0], x[-1])
    target = plan.lay([x[0].shape[d] for d in plan.rest], plan.shape)
    if len(x[-1].shape) > len(target) or broadcast([Type(target), x[-1]]) != target:
        raise TypeMismatch(f"values are {x[-1]}, which do not broadcast to the indexed shape {list(target)}")
    return (x[0],)


def _run_put(a: A, x, w, train):
    return torch.ops.aten.index_put(x[0], _entries(a, x[1:-1]), x[-1], a["accumulate"])


def _cost_put(a: A, x: Types, y: Types) -> Cost:
    keeps, extra = _kept_ids(x, len(x) - 1)
    return Cost(keeps=keeps, extra=extra)


def _axes_put(a: A, x: Types, y: Types) -> Axes:
    plan = _Plan(a, x[0], x[1:-1])
    dims = labels(x[0].shape)
    common, ids = _common(plan.shape, x[1:-1])
    target = plan.lay([dims[d] for d in plan.rest], common)
    tail = target[len(target) - len(x[-1].shape) :]
    values: Dims = tuple([d if n == d.size else Dim(None, n) for n, d in zip(x[-1].shape, tail, strict=True)])
    whole = swapped(dims, {d: Dim(None, x[0].shape[d]) for d in plan.indexed})
    return Axes((whole, *ids, values), (whole,), coupled=frozenset([d.label for d in common]))


def _onnx_put(o, a, x, w, xt, yt):
    plan = _Plan(a, xt[0], xt[1:-1])
    order = [*plan.indexed, *plan.rest]
    value = o.transpose(x[0], order)
    places = _onnx_places(o, plan, x[1:-1], xt[1:-1])
    common, rank = len(plan.shape), len(xt[0].shape)
    wanted = o.concat_ints(onnx_dims(o, places, 0, common), onnx_dims(o, value, len(plan.indexed), rank))
    # the values in the order of the result, then (common, rest)
    lead = common + len(plan.rest) - len(xt[-1].shape)
    values = o.unsqueeze(x[-1], *range(lead)) if lead else x[-1]
    values = o.transpose(values, [plan.perm.index(i) for i in range(len(plan.perm))])
    values = o.node("Expand", [values, wanted])
    made = o.node("ScatterND", [value, places, values], reduction="add" if a["accumulate"] else "none")
    return o.transpose(made, [order.index(i) for i in range(rank)])


def _source_put(a: A, x: Types, y: Types) -> Source:
    ids, more = ", ".join([str(text) for text in _texts(a, x[1:-1])]), ", True" if a["accumulate"] else ""
    return Source(f"torch.ops.aten.index_put({{x0}}, [{ids}], {{x{len(x) - 1}}}{more})")


# --------------------------------------------------------------------------------------- index_select, index_add
def _infer_select(a: A, x: Types) -> tuple[Type, ...]:
    dim = axis(a["dim"], len(x[0].shape))
    _need_whole(x[1], _WHOLE)
    if len(x[1].shape) != 1:
        raise TypeMismatch(f"indices are {x[1]}, expected rank 1")
    return (resized(x[0], dim, x[1].shape[0]),)


def _run_select(a: A, x, w, train):
    return x[0].index_select(a["dim"], x[1])


def _cost_select(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x1",) if differentiable(x[0]) else (), moved=2 * y[0].nbytes + x[1].nbytes)


def _axes_select(a: A, x: Types, y: Types) -> Axes:
    dim, dims, ids = axis(a["dim"], len(x[0].shape)), labels(x[0].shape), labels(x[1].shape, "i")
    return Axes((swapped(dims, {dim: Dim(None, dims[dim].size)}), ids), (swapped(dims, {dim: ids[0]}),))


def _onnx_select(o, a, x, w, xt, yt):
    return o.node("Gather", x, axis=a["dim"])


def _source_select(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.index_select({a['dim']}, {{x1}})")


def _infer_add(a: A, x: Types) -> tuple[Type, ...]:
    dim = axis(a["dim"], len(x[0].shape))
    _need_whole(x[1], _WHOLE)
    _need_same_dtype(x[0], x[2])
    if len(x[1].shape) != 1 or x[2].shape != resized(x[0], dim, x[1].shape[0]).shape:
        raise TypeMismatch(
            f"indices are {x[1]} and values {x[2]}, expected rank 1 and values like {x[0]} with dimension {dim} as long"
        )
    return (x[0],)


def _run_add(a: A, x, w, train):
    return x[0].index_add(a["dim"], x[1], x[2], alpha=_alpha(a, x[0].is_floating_point() or x[0].is_complex()))


def _alpha(a: A, floating: bool) -> float | int:
    return a["alpha"] if floating else int(a["alpha"])


def _cost_add(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x1", "x2") if differentiable(x[0]) else ())


def _axes_add(a: A, x: Types, y: Types) -> Axes:
    dim, dims, ids = axis(a["dim"], len(x[0].shape)), labels(x[0].shape), labels(x[1].shape, "e")
    whole = swapped(dims, {dim: Dim(None, dims[dim].size)})
    return Axes((whole, ids, swapped(dims, {dim: ids[0]})), (whole,))


def _onnx_add(o, a, x, w, xt, yt):
    rank = len(xt[0].shape)
    perm = list(range(rank))
    dim = axis(a["dim"], rank)
    perm.insert(0, perm.pop(dim))
    source = x[2] if a["alpha"] == 1 else o.node("Mul", [x[2], o.scalar(a["alpha"], xt[2].dtype)])
    places = o.unsqueeze(x[1] if xt[1].dtype == "int64" else o.cast(x[1], "int64"), 1)
    made = o.node("ScatterND", [o.transpose(x[0], perm), places, o.transpose(source, perm)], reduction="add")
    return o.transpose(made, [perm.index(i) for i in range(rank)])


def _source_add(a: A, x: Types, y: Types) -> Source:
    alpha = _alpha(a, x[0].dtype.startswith(("float", "bfloat", "complex")))
    more = "" if alpha == 1 else f", alpha={alpha!r}"
    return Source(f"{{x0}}.index_add({a['dim']}, {{x1}}, {{x2}}{more})")


# --------------------------------------------------------------------------------------------- gather and scatter
def _check_ids(a: A, x: Types) -> int:
    """The dimension, after checking that the indices fit the input."""
    dim = axis(a["dim"], len(x[0].shape))
    _need_whole(x[1])
    fits = len(x[1].shape) == len(x[0].shape)
    if not fits or any(i != dim and n > m for i, (n, m) in enumerate(zip(x[1].shape, x[0].shape, strict=True))):
        raise TypeMismatch(f"indices are {x[1]} for {x[0]}, expected its rank and nowhere more than dimension {dim}")
    return dim


def _infer_gather(a: A, x: Types) -> tuple[Type, ...]:
    _check_ids(a, x)
    return (Type(x[1].shape, x[0].dtype),)


def _run_gather(a: A, x, w, train):
    return x[0].gather(a["dim"], x[1])


def _cost_gather(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x0", "x1") if differentiable(x[0]) else (), moved=2 * y[0].nbytes + x[1].nbytes)


def _aligned(dim: int, *types: Type) -> list[list[Term]]:
    """Dimensions of tensors of one rank: shared labels where all sizes agree, pinned elsewhere and at `dim`."""
    found: list[list[Term]] = [list(pin(t.shape)) for t in types]
    for i, sizes in enumerate(zip(*[t.shape for t in types], strict=True)):
        if i != dim and len(set(sizes)) == 1:
            for dims in found:
                dims[i] = Dim(f"d{i}", sizes[0])
    return found


def _axes_gather(a: A, x: Types, y: Types) -> Axes:
    dim = axis(a["dim"], len(x[0].shape))
    source, ids = _aligned(dim, x[0], x[1])
    ids[dim] = Dim("i", x[1].shape[dim])
    return Axes((tuple(source), tuple(ids)), (tuple(ids),))


def _onnx_gather(o, a, x, w, xt, yt):
    return o.node("GatherElements", x, axis=a["dim"])


def _source_gather(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.gather({a['dim']}, {{x1}})")


_REDUCE = ("sum", "prod", "mean", "amax", "amin")


def _infer_scatter(a: A, x: Types) -> tuple[Type, ...]:
    _check_ids(a, x)
    _need_same_dtype(x[0], x[2])
    if len(x[2].shape) != len(x[1].shape) or any(n > m for n, m in zip(x[1].shape, x[2].shape, strict=True)):
        raise TypeMismatch(f"values are {x[2]}, expected at least the size of the indices {x[1]}")
    return (x[0],)


def crop(x, shape):
    """The leading part of x of that shape. (torch scatters from larger values, but has no gradient for it.)"""
    return x[tuple([slice(n) for n in shape])]


def _run_scatter(a: A, x, w, train):
    values = x[2] if x[2].shape == x[1].shape else crop(x[2], x[1].shape)
    if a["reduce"] is None:
        return x[0].scatter(a["dim"], x[1], values)
    if a["reduce"] == "sum" and a["include_self"]:
        return x[0].scatter_add(a["dim"], x[1], values)
    return x[0].scatter_reduce(a["dim"], x[1], values, a["reduce"], include_self=a["include_self"])


def _cost_scatter(a: A, x: Types, y: Types) -> Cost:
    if not differentiable(x[0]):
        return Cost()
    plain = a["reduce"] is None or (a["reduce"] == "sum" and a["include_self"])
    return Cost(keeps=("x1",) if plain else ("x0", "x1", "x2", "y0"))


def _axes_scatter(a: A, x: Types, y: Types) -> Axes:
    dim = axis(a["dim"], len(x[0].shape))
    source, ids, *values = _aligned(dim, *x)
    n = x[1].shape[dim]
    if all(t.shape[dim] == n for t in x[1:]):
        for dims in (ids, *values):
            dims[dim] = Dim("e", n)
    else:
        n = 0
    # a unit of e may write zeros, which is not the same as not writing
    return Axes(
        (tuple(source), tuple(ids), *map(tuple, values)), (tuple(source),), coupled=frozenset(["e"] if n else [])
    )


def _onnx_lowest(dtype: str, high: bool) -> float | int:
    """The number that a maximum (or minimum, where `high`) never takes over."""
    if dtype.startswith("int") or dtype == "uint8":
        limits = torch.iinfo(getattr(torch, dtype))
        return limits.max if high else limits.min
    return float("inf" if high else "-inf")


def _onnx_scatter(o, a, x, w, xt, yt):
    reduce, dtype, rank = a["reduce"], xt[0].dtype, len(xt[0].shape)
    shape = o.shape_of(x[1])
    values = x[2]
    if xt[1].shape != xt[2].shape:
        axes = list(range(rank))
        values = o.node("Slice", [values, o.const([0] * rank), shape, o.const(axes)])
    base = x[0]
    if reduce is not None and not a["include_self"]:
        neutral = {"sum": 0, "mean": 0, "prod": 1}.get(reduce)
        empty = o.full(shape, _onnx_lowest(dtype, reduce == "amin") if neutral is None else neutral, dtype)
        base = o.node("ScatterElements", [base, x[1], empty], axis=a["dim"])
    how = {None: "none", "sum": "add", "mean": "add", "prod": "mul", "amax": "max", "amin": "min"}[reduce]
    made = o.node("ScatterElements", [base, x[1], values], axis=a["dim"], reduction=how)
    if reduce != "mean":
        return made
    count = o.full(o.shape_of(x[0]), int(a["include_self"]), dtype)
    count = o.node("ScatterElements", [count, x[1], o.full(shape, 1, dtype)], axis=a["dim"], reduction="add")
    return o.node("Div", [made, o.node("Max", [count, o.scalar(1, dtype)])])


def _source_scatter(a: A, x: Types, y: Types) -> Source:
    whole = x[1].shape == x[2].shape
    values, helpers = ("{x2}", ()) if whole else ("crop({x2}, {x1}.shape)", (crop,))
    name, more = ("scatter", "") if a["reduce"] is None else ("scatter_reduce", f", '{a['reduce']}'")
    if a["reduce"] == "sum" and a["include_self"]:
        name, more = "scatter_add", ""
    if a["reduce"] is not None and not a["include_self"]:
        more += ", include_self=False"
    return Source(f"{{x0}}.{name}({a['dim']}, {{x1}}, {values}{more})", helpers=helpers)


def _cost_value(a: A, x: Types, y: Types) -> Cost:
    return Cost(keeps=("x1",) if differentiable(x[0]) else ())


def _infer_value(a: A, x: Types) -> tuple[Type, ...]:
    _check_ids(a, x)
    return (x[0],)


def _run_value(a: A, x, w, train):
    return x[0].scatter(a["dim"], x[1], float(a["value"]))


def _onnx_value(o, a, x, w, xt, yt):
    values = o.full(o.shape_of(x[1]), a["value"], xt[0].dtype)
    return o.node("ScatterElements", [x[0], x[1], values], axis=a["dim"])


def _source_value(a: A, x: Types, y: Types) -> Source:
    return Source(f"{{x0}}.scatter({a['dim']}, {{x1}}, {number(a['value'])})")


# ---------------------------------------------------------------------------------------------------------- arange
def _infer_arange(a: A, x: Types) -> tuple[Type, ...]:
    return (Type((x[0].shape[axis(a["dim"], len(x[0].shape))],), a["dtype"]),)


def _run_arange(a: A, x, w, train):
    return torch.arange(x[0].shape[a["dim"]], dtype=getattr(torch, a["dtype"]), device=x[0].device)


def _cost_arange(a: A, x: Types, y: Types) -> Cost:
    return Cost(moved=y[0].nbytes)


def _axes_arange(a: A, x: Types, y: Types) -> Axes:
    dim = axis(a["dim"], len(x[0].shape))
    return Axes((swapped(free(x[0]), {dim: Dim(None, x[0].shape[dim])}),), (pin(y[0].shape),))


def _onnx_arange(o, a, x, w, xt, yt):
    n = o.squeeze(o.dim(x[0], axis(a["dim"], len(xt[0].shape))), 0)
    made = o.node("Range", [o.scalar(0, "int64"), n, o.scalar(1, "int64")])
    return made if a["dtype"] == "int64" else o.cast(made, a["dtype"])


def _source_arange(a: A, x: Types, y: Types) -> Source:
    return Source(f"torch.arange({{x0}}.shape[{a['dim']}], dtype=torch.{a['dtype']}, device={{x0}}.device)")


_SPEC = Attr("any")
_DIM = {"dim": Attr("int")}

_OPS = (
    Op(
        "index", _infer_index, _run_index, {"spec": _SPEC}, inputs=(2, None), cost=_cost_index, axes=_axes_index,
        onnx=_onnx_index, source=_source_index,
        doc="x[...] with index tensors. spec has an entry for each leading dimension: null for ':', 'i' for an index.",
    ),
    Op(
        "index_put", _infer_put, _run_put, {"spec": _SPEC, "accumulate": Attr("bool", False)}, inputs=(3, None),
        cost=_cost_put, axes=_axes_put, onnx=_onnx_put, source=_source_put,
        doc="A copy of x with x[...] set to, or increased by, the last input.",
    ),
    Op(
        "index_select", _infer_select, _run_select, _DIM, inputs=(2, 2), cost=_cost_select, axes=_axes_select,
        onnx=_onnx_select, source=_source_select, doc="Positions of one dimension, by a vector of indices.",
    ),
    Op(
        "index_add", _infer_add, _run_add, {**_DIM, "alpha": Attr("number", 1.0)}, inputs=(3, 3), cost=_cost_add,
        axes=_axes_add, onnx=_onnx_add, source=_source_add,
        doc="A copy of x with alpha * src added at positions of one dimension; equal positions add up.",
    ),
    Op(
        "gather", _infer_gather, _run_gather, _DIM, inputs=(2, 2), cost=_cost_gather, axes=_axes_gather,
        onnx=_onnx_gather, source=_source_gather, doc="Elements along a dimension, by indices of the same rank.",
    ),
    Op(
        "scatter", _infer_scatter, _run_scatter,
        {**_DIM, "reduce": Attr("str", None, _REDUCE), "include_self": Attr("bool", True)}, inputs=(3, 3),
        cost=_cost_scatter, axes=_axes_scatter, onnx=_onnx_scatter, source=_source_scatter,
        doc="A copy of x with values written along a dimension, or combined with what is there.",
    ),
    Op(
        "scatter_value", _infer_value, _run_value, {**_DIM, "value": Attr("number")}, inputs=(2, 2),
        cost=_cost_value, axes=_axes_scatter, onnx=_onnx_value, source=_source_value,
        doc="A copy of x with one number written along a dimension.",
    ),
    Op(
        "arange", _infer_arange, _run_arange,
        {"dim": Attr("int", 0), "dtype": Attr("str", "int64", tuple(DTYPES))}, cost=_cost_arange, axes=_axes_arange,
        onnx=_onnx_arange, source=_source_arange, doc="0, 1, ... up to the size of a dimension of the input.",
    ),
)  # fmt: skip

OPS = tuple([by_parts(op) for op in _OPS])
