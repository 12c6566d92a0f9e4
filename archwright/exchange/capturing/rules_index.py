"""Rules for picking and placing by index, sorting, and for random numbers."""

from __future__ import annotations

import math
from typing import Any

import torch

from archwright.exchange.capturing.program import Meta, Size
from archwright.exchange.capturing.table import Unfit, rule
from archwright.exchange.capturing.values import Known, Value, constant, scalar


# ------------------------------------------------------------------------------------------------------------- index
def _indices(c, x: Value, given: Any) -> tuple[list[Value], list[str | None]]:
    """Index values, and which dimensions they pick from. A known mask becomes the places where it is true."""
    ids: list[Value] = []
    spec: list[str | None] = []
    for index in given:
        if index is None:
            spec.append(None)
        elif index.meta.dtype in ("bool", "uint8"):
            if not isinstance(index, Known) or index.sized:
                raise Unfit("a mask that is not known")
            places = index.at(0).nonzero(as_tuple=True)
            ids += [constant(p) for p in places]
            spec += ["i"] * len(places)
        else:
            ids.append(_counted(x, index, len(spec)))
            spec.append("i")
    while spec and spec[-1] is None:
        spec.pop()
    return ids, spec


def _counted(x: Value, index: Value, dim: int) -> Value:
    """Known indices, counted from the start."""
    n = x.meta.shape[dim]
    if not isinstance(index, Known) or not isinstance(n, int) or not bool((index.tensor < 0).any()):
        return index
    return Known(torch.where(index.tensor < 0, index.tensor + n, index.tensor), index.meta)


@rule("index", "_unsafe_index")
def _index(c, call, a):
    x = a["self"]
    ids, spec = _indices(c, x, a["indices"])
    one = spec.index("i") if spec.count("i") == 1 else None
    if one is not None and len(ids[0].meta.shape) == 1 and isinstance(ids[0], Known):
        # any other may be negative, which index_select does not take
        return c.emit("index_select", x, ids[0], dim=one)
    return c.emit("index", x, *ids, spec=spec)


@rule("index_select")
def _index_select(c, call, a):
    return c.emit("index_select", a["self"], a["index"], dim=a["dim"])


@rule("index_put", "_unsafe_index_put", "_index_put_impl")
def _index_put(c, call, a):
    x, given, values = a["self"], a["indices"], a["values"]
    masks = [i for i in given if i is not None and i.meta.dtype == "bool" and not isinstance(i, Known)]
    if masks:
        number = scalar(values)
        lead = len(given) - 1
        if len(masks) != 1 or given[-1] is not masks[0] or number is None or a["accumulate"] or any(given[:-1]):
            raise Unfit("a mask that is not known")
        # x[mask] = number
        mask = masks[0]
        rank, over = len(x.meta.shape), len(mask.meta.shape)
        shape = (1,) * lead + mask.meta.shape + (1,) * (rank - lead - over)
        return c.emit("masked_fill", x, c.reshape(mask, shape), value=number)
    ids, spec = _indices(c, x, given)
    if values.meta.dtype != x.meta.dtype:
        values = c.cast(values, x.meta.dtype)
    return c.emit("index_put", x, *ids, values, spec=spec, accumulate=a["accumulate"])


@rule("gather")
def _gather(c, call, a):
    return c.emit("gather", a["self"], a["index"], dim=a["dim"])


@rule("take_along_dim")
def _take_along_dim(c, call, a):
    if a["dim"] is None:
        raise Unfit("over the flat tensor")
    x, index = a["self"], a["indices"]
    dim = a["dim"] % len(x.meta.shape)
    full = c.broadcast(index, Meta((*x.meta.shape[:dim], index.meta.shape[dim], *x.meta.shape[dim + 1 :]), "int64"))
    return c.emit("gather", x, full, dim=dim)


@rule("scatter")
def _scatter(c, call, a):
    reduce = {None: None, "add": "sum", "multiply": "prod"}[a.get("reduce")]
    number = scalar(a.get("value"))
    if number is not None and reduce is None:
        return c.emit("scatter_value", a["self"], a["index"], dim=a["dim"], value=number)
    if number is not None:
        raise Unfit("a number to reduce with")
    return c.emit("scatter", a["self"], a["index"], a["src"], dim=a["dim"], reduce=reduce)


@rule("scatter_add")
def _scatter_add(c, call, a):
    return c.emit("scatter", a["self"], a["index"], a["src"], dim=a["dim"], reduce="sum")


@rule("scatter_reduce")
def _scatter_reduce(c, call, a):
    return c.emit(
        "scatter", a["self"], a["index"], a["src"], dim=a["dim"], reduce=a["reduce"], include_self=a["include_self"]
    )


@rule("index_add")
def _index_add(c, call, a):
    return c.emit("index_add", a["self"], a["index"], a["source"], dim=a["dim"], alpha=a["alpha"])


@rule("index_reduce")
def _index_reduce(c, call, a):
    x, source = a["self"], a["source"]
    dim, rank = a["dim"] % len(x.meta.shape), len(x.meta.shape)
    index = c.reshape(a["index"], tuple([a["index"].meta.shape[0] if i == dim else 1 for i in range(rank)]))
    index = c.broadcast(index, Meta(source.meta.shape, "int64"))
    return c.emit("scatter", x, index, source, dim=dim, reduce=a["reduce"], include_self=a["include_self"])


@rule("index_copy")
def _index_copy(c, call, a):
    spec = [None] * (a["dim"] % len(a["self"].meta.shape)) + ["i"]
    return c.emit("index_put", a["self"], a["index"], a["source"], spec=spec)


@rule("index_fill")
def _index_fill(c, call, a):
    number = scalar(a["value"])
    if number is None:
        raise Unfit("a value that is computed")
    spec = [None] * (a["dim"] % len(a["self"].meta.shape)) + ["i"]
    value = constant(torch.tensor(number, dtype=getattr(torch, a["self"].meta.dtype)))
    return c.emit("index_put", a["self"], a["index"], value, spec=spec)


@rule("masked_scatter", "masked_select", "nonzero")
def _masked(c, call, a):
    raise Unfit("its size is only known when it runs")


@rule("topk")
def _topk(c, call, a):
    return c.emit("topk", a["self"], k=a["k"], dim=a["dim"], largest=a["largest"], sorted=a["sorted"])


@rule("sort")
def _sort(c, call, a):
    if a.get("stable"):
        raise Unfit("a stable order")
    return c.emit("sort", a["self"], dim=a["dim"], descending=a["descending"])


@rule("argsort")
def _argsort(c, call, a):
    if a.get("stable"):
        raise Unfit("a stable order")
    return c.emit("argsort", a["self"], dim=a["dim"], descending=a["descending"])


@rule("one_hot")
def _one_hot(c, call, a):
    if a["num_classes"] < 1:
        raise Unfit("its size is only known when it runs")
    return c.emit("one_hot", a["self"], num=a["num_classes"])


@rule("as_strided")
def _as_strided(c, call, a):
    """Numbers picked by their places in memory, which is taken to be in row-major order; the proof sees to that."""
    x, shape, steps = a["self"], call.out.shape, list(a["stride"])
    fixed = math.prod(n for n in x.meta.shape if not isinstance(n, Size))
    moving = [n for n in x.meta.shape if isinstance(n, Size)]
    rows: Any = 1
    if moving:
        if len(moving) > 1 or moving[0].c or not isinstance(shape[0], Size) or shape[0].c or a["storage_offset"]:
            raise Unfit("it reaches over the batch")
        rows = shape[0]
        fixed, rest = divmod(fixed * moving[0].k, rows.k)
        if rest or steps[0] != fixed or any(isinstance(n, Size) for n in (*shape[1:], *steps)):
            raise Unfit("it reaches over the batch")
        shape, steps = shape[1:], steps[1:]
    places = torch.full(shape, a["storage_offset"] or 0)
    for dim, (n, step) in enumerate(zip(shape, steps, strict=True)):
        places += (torch.arange(n) * step).reshape([-1 if i == dim else 1 for i in range(len(shape))])
    if places.numel() and int(places.max()) >= fixed:
        raise Unfit("it reaches beyond its input")
    picked = c.emit("index_select", c.reshape(x, (rows, fixed)), constant(places.reshape(-1)), dim=1)
    return c.reshape(picked, call.out.shape)


# ------------------------------------------------------------------------------------------------------------ random
def draw(c, meta: Meta, kind: str, **attrs: Any) -> Value:
    """Fresh random numbers of a shape."""
    codes = c.codes(meta.shape)
    inputs = (c.ref(),) if 0 in codes else ()
    return c.emit("random", *inputs, shape=codes, kind=kind, dtype=meta.dtype, **attrs)  # type: ignore[no-any-return]


@rule("rand", "rand_like")
def _rand(c, call, a):
    return _like(c, a, call.out, "uniform")


@rule("randn", "randn_like")
def _randn(c, call, a):
    return _like(c, a, call.out, "normal")


def _like(c, a: dict[str, Any], meta: Meta, kind: str) -> Value:
    x = a.get("self")
    if x is not None and not isinstance(x, Known) and x.meta.dtype == meta.dtype:
        return c.emit("random_like", x, kind=kind)  # type: ignore[no-any-return]
    return draw(c, meta, kind)


@rule("uniform")
def _uniform(c, call, a):
    made = _like(c, a, call.out, "uniform")
    low, high = a["from"], a["to"]
    made = made if high - low == 1 else c.emit("mul", made, value=high - low)
    return made if low == 0 else c.emit("add", made, value=low)


@rule("normal")
def _normal(c, call, a):
    mean, std = a.get("mean", 0.0), a.get("std", 1.0)
    if not isinstance(mean, (int, float)) or not isinstance(std, (int, float)):
        raise Unfit("a mean or deviation for each element")
    made = _like(c, a, call.out, "normal")
    made = made if std == 1 else c.emit("mul", made, value=std)
    return made if mean == 0 else c.emit("add", made, value=mean)


@rule("bernoulli")
def _bernoulli(c, call, a):
    p = a.get("p")
    if p is None:
        return c.emit("bernoulli", a["self"])
    if isinstance(p, Value):
        return c.emit("bernoulli", c.broadcast(p, call.out))
    return draw(c, call.out, "bernoulli", p=float(p))
