"""Indexing, gather and scatter against torch, over random index layouts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import ArchwrightError
from archwright.ir import Type
from archwright.ops.base import Dim
from tests.ops.harness import check
from tests.ops.test_shape import axes, batches, few, rand, refused, shapes, sizes, some

REDUCE = ["sum", "prod", "mean", "amax", "amin"]


def ids(n: int, *shape: int, low: int = 0, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(low, n, shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def typed(name: str, types: list[Type], match: str, **attrs: object) -> None:
    op = ops.get(name)
    with pytest.raises(ArchwrightError, match=match):
        ops.facts(name, op.normal(attrs), tuple(types))


@st.composite
def indexings(draw):
    """A shape, a spec with at least one index, and indices whose shapes broadcast."""
    shape = draw(st.lists(sizes, min_size=1, max_size=3))
    spec = draw(st.lists(st.sampled_from([None, "i"]), min_size=1, max_size=len(shape) + 1))
    spec[draw(st.integers(0, len(spec) - 1))] = "i"
    common = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype = draw(st.sampled_from([torch.int64, torch.int64, torch.int32]))
    made = []
    full = (2, *shape)
    for d in [d for d, entry in enumerate(spec) if entry]:
        own = [1 if draw(st.booleans()) else n for n in common][draw(st.integers(0, len(common))) :]
        made.append(ids(full[d], *own, low=-full[d], dtype=dtype))
    return full, spec, made


def _of(x, spec, made):
    """x[...] where an index without dimensions is a tensor too, not a number."""
    left = iter(made)
    return torch.ops.aten.index(x, [None if entry is None else next(left).long() for entry in spec])


@some
@given(indexings())
def test_index(case):
    shape, spec, made = case
    batched = spec[0] is None
    check("index", {"spec": spec}, [rand(*shape), *made], reference=lambda x, *ids: _of(x, spec, ids),
          batch_dim=[0 if batched else None, *[None] * len(made)])  # fmt: skip


@some
@given(indexings(), st.booleans(), st.data())
def test_index_put(case, accumulate, data):
    shape, spec, made = case
    if not accumulate:  # equal places would be written in no certain order
        made = [torch.arange(1) for _ in made]
    target = _of(rand(*shape), spec, made).shape
    own = [1 if data.draw(st.booleans()) else n for n in target][data.draw(st.integers(0, len(target))) :]

    def reference(x, *rest):
        out = x.clone()
        return out.index_put_(_put(spec, rest[:-1], x), rest[-1].expand(target), accumulate)

    check("index_put", {"spec": spec, "accumulate": accumulate}, [rand(*shape), *made, rand(*own) + 1],
          reference=reference, batch_dim=None)  # fmt: skip


def _put(spec, made, x):
    """All dimensions of x indexed outright, which index_put_ wants: a list of places for ':' too."""
    places = _of(torch.arange(x.numel()).reshape(x.shape), spec, made)
    return [torch.div(places, x.stride(d), rounding_mode="floor") % x.shape[d] for d in range(x.dim())]


def test_index_of_each_sample():
    check("index", {"spec": ["i", "i"]}, [rand(3, 5, 4), torch.arange(3), ids(5, 3)],
          reference=lambda x, i, j: x[i, j], batch_dim=0)  # fmt: skip
    check("index", {"spec": ["i", None, "i"]}, [rand(3, 5, 4), torch.arange(3), ids(4, 3)],
          reference=lambda x, i, j: x[i, :, j], batch_dim=0)  # fmt: skip
    check("index", {"spec": ["i"]}, [torch.arange(5), ids(5, 3)], reference=lambda x, i: x[i], batch_dim=None)


def test_index_without_dimensions():
    """torch's x[number, :, ids] goes another way than x[tensor, :, ids], which is what this op means."""
    check("index", {"spec": ["i", None, "i"]}, [rand(3, 5, 4), torch.tensor(1), ids(4, 6)], batch_dim=None,
          reference=lambda x, i, j: x[i.reshape(1), :, j])  # fmt: skip


def test_index_axes():
    found = axes_of("index", [Type((2, 8, 7, 3)), Type((4, 1), "int64"), Type((5,), "int64")], spec=(None, "i", "i"))
    assert found.x[0] == (Dim("d0", 2), Dim(None, 8), Dim(None, 7), Dim("d3", 3))
    assert found.x[1:] == ((Dim("i0", 4), Dim(None, 1)), (Dim("i1", 5),))
    assert found.y[0] == (Dim("d0", 2), Dim("i0", 4), Dim("i1", 5), Dim("d3", 3))


def axes_of(name: str, types: list[Type], **attrs: object) -> ops.Axes:
    op = ops.get(name)
    f = ops.facts(name, op.normal(attrs), tuple(types))
    return op.axes(f.a, f.x, f.y)


def test_index_refuses():
    x, i = Type((2, 3)), Type((4,), "int64")
    typed("index", [x, Type((2, 3), "bool")], "masks are not supported", spec=("i",))
    typed("index", [x, Type((4,))], "cast them first", spec=("i",))
    typed("index", [x, i], "spec is", spec=("x",))
    typed("index", [x, i], "spec is", spec="i")
    typed("index", [x, i], "an 'i' for each index", spec=("i", "i"))
    typed("index", [x, i], "up to 2 entries", spec=(None, None, "i"))
    typed("index", [x, i, Type((3,), "int64")], "do not broadcast", spec=("i", "i"))
    typed("index_put", [x, i, Type((3, 3))], "do not broadcast", spec=("i",))
    typed("index_put", [x, i, Type((4, 3), "float64")], "one dtype", spec=("i",))


# --------------------------------------------------------------------------------------- index_select and index_add
@some
@given(shapes, batches, sizes, st.sampled_from([torch.int64, torch.int32]), st.data())
def test_index_select_and_add(shape, batch, count, dtype, data):
    dim = data.draw(st.integers(1, len(shape)))
    named = dim - len(shape) - 1 if data.draw(st.booleans()) else dim
    i = ids(shape[dim - 1], count, dtype=dtype)
    x = rand(batch, *shape)
    check("index_select", {"dim": named}, [x, i], reference=lambda x, i: x.index_select(named, i), batch_dim=[0, None])
    alpha = data.draw(st.sampled_from([1.0, -0.5]))
    source = rand(*[count if d == dim else n for d, n in enumerate((batch, *shape))])
    check("index_add", {"dim": named, "alpha": alpha}, [x, i, source], batch_dim=[0, None, 0],
          reference=lambda x, i, s: x.index_add(named, i, s, alpha=alpha))  # fmt: skip


def test_index_select_of_nothing_and_index_add_of_whole_numbers():
    check("index_select", {"dim": 1}, [rand(2, 3), ids(3, 0)], reference=lambda x, i: x[:, i], batch_dim=[0, None])
    x = torch.arange(6).reshape(2, 3)
    check("index_add", {"dim": 1, "alpha": 2}, [x, ids(3, 4), torch.arange(8).reshape(2, 4)], batch_dim=[0, None, 0],
          reference=lambda x, i, s: x.index_add(1, i, s, alpha=2))  # fmt: skip
    typed("index_select", [Type((2, 3)), Type((), "int64")], "rank 1", dim=1)
    typed("index_add", [Type((2, 3)), Type((4,), "int64"), Type((2, 3))], "as long", dim=1)


# --------------------------------------------------------------------------------------------- gather and scatter
@some
@given(shapes, batches, st.data())
def test_gather(shape, batch, data):
    dim = data.draw(st.integers(1, len(shape)))
    own = [data.draw(sizes) if d == dim else data.draw(st.integers(1, n)) for d, n in enumerate(shape, 1)]
    i = ids(shape[dim - 1], batch, *own)
    check("gather", {"dim": dim}, [rand(batch, *shape), i], reference=lambda x, i: x.gather(dim, i))


@some
@given(shapes, batches, st.booleans(), st.booleans(), st.data())
def test_scatter(shape, batch, larger, include, data):
    dim = data.draw(st.integers(1, len(shape)))
    n = shape[dim - 1]
    count = data.draw(st.integers(1, n))
    own = [count if d == dim else data.draw(st.integers(1, m)) for d, m in enumerate(shape, 1)]
    once = rand(batch, *[n if d == dim else m for d, m in enumerate(own, 1)]).argsort(dim).narrow(dim, 0, count)
    source = rand(batch, *[m + larger for m in own]) + 0.5
    reduce = data.draw(st.sampled_from([None, *REDUCE]))
    i = once if reduce is None else ids(n, batch, *own)

    def reference(x, i, s):
        s = s[tuple([slice(m) for m in i.shape])]
        if reduce is None:
            return x.scatter(dim, i, s)
        return x.scatter_reduce(dim, i, s, reduce, include_self=include)

    attrs = {"dim": dim, "include_self": include} | ({"reduce": reduce} if reduce else {})
    check("scatter", attrs, [rand(batch, *shape), i, source], reference=reference)
    value = data.draw(st.sampled_from([2.5, 0.0, float("-inf")]))
    check("scatter_value", {"dim": dim, "value": value}, [rand(batch, *shape), i],
          reference=lambda x, i: x.scatter(dim, i, value))  # fmt: skip


@pytest.mark.parametrize("reduce", [None, *REDUCE])
def test_scatter_into_larger_sizes(reduce):
    """Large enough that what autograd keeps is measured, not lost in the slack."""
    x, i, source = rand(3, 40, 5), ids(40, 3, 60, 5), rand(3, 60, 5)
    if reduce is None:
        i = rand(3, 40, 5).argsort(1)[:, :30]
        source = source[:, :30]

    def reference(x, i, s):
        return x.scatter(1, i, s) if reduce is None else x.scatter_reduce(1, i, s, reduce)

    check(
        "scatter", {"dim": 1} | ({"reduce": reduce} if reduce else {}), [x, i, source], rtol=1e-4, reference=reference
    )


def test_gather_and_scatter_refuse():
    x, i = Type((2, 3)), Type((2, 5), "int64")
    typed("gather", [x, Type((3, 3), "int64")], "nowhere more", dim=1)
    typed("gather", [x, Type((5,), "int64")], "its rank", dim=1)
    typed("gather", [x, Type((2, 5), "int32")], "expected int64", dim=1)
    typed("scatter", [x, i, Type((2, 4))], "at least the size", dim=1)
    typed("scatter", [x, i, Type((2, 5), "float64")], "one dtype", dim=1)
    typed("scatter", [x, i, Type((2, 5))], "one of", dim=1, reduce="max")


# ---------------------------------------------------------------------------------------------------------- arange
@few
@given(shapes, batches, st.sampled_from(["int64", "int32", "float32"]), st.data())
def test_arange(shape, batch, dtype, data):
    dim = data.draw(st.integers(-len(shape) - 1, len(shape)))
    check("arange", {"dim": dim, "dtype": dtype}, [rand(batch, *shape)],
          reference=lambda x: torch.arange(x.shape[dim], dtype=getattr(torch, dtype)))  # fmt: skip


def test_arange_pins_only_the_dimension_that_it_counts():
    assert axes("arange", [(2, 8)], dim=0).x[0] == (Dim(None, 2), Dim("r1", 8))
    refused("arange", [(2, 8)], "'dim' is 2", dim=2)
