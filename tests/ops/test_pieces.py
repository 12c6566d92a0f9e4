"""Concat, split, slice, pad, shifts and triangles against torch, over random shapes and bounds."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright.ops.base import Cat, Dim, Prod
from tests.ops.harness import check
from tests.ops.test_shape import axes, batches, few, rand, refused, shapes, sizes, some


@some
@given(shapes, batches, st.data())
def test_concat_and_stack(shape, batch, data):
    rank = len(shape) + 1
    dim = data.draw(st.integers(1, len(shape)))
    parts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    xs = [rand(*[n if i == dim else m for i, m in enumerate((batch, *shape))]) for n in parts]
    named = dim - rank if data.draw(st.booleans()) else dim
    check("concat", {"dim": named}, xs, reference=lambda *xs: torch.cat(xs, named))
    at = data.draw(st.integers(-rank - 1, rank))
    xs = [rand(batch, *shape)] * len(parts)
    check("stack", {"dim": at}, xs, reference=lambda *xs: torch.stack(xs, at))


def test_concat_of_the_batch_and_of_mixed_dtypes():
    check("concat", {"dim": 0}, [rand(3, 4), rand(3, 4)], reference=lambda *xs: torch.cat(xs))
    mixed = [rand(3, 4), torch.arange(6).reshape(3, 2)]
    check("concat", {}, mixed, reference=lambda *xs: torch.cat(xs, 1))


@some
@given(shapes, batches, st.data())
def test_split_chunk_and_unbind(shape, batch, data):
    dim = data.draw(st.integers(1, len(shape)))
    n = shape[dim - 1]
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=3)))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    x = rand(batch, *shape)
    check("split", {"sizes": parts, "dim": dim}, [x], reference=lambda x: x.split(parts, dim))
    count = data.draw(st.integers(1, 6))
    check("chunk", {"parts": count, "dim": dim}, [x], reference=lambda x: x.chunk(count, dim))
    check("unbind", {"dim": dim}, [x], reference=lambda x: x.unbind(dim))


def test_axes_of_pieces():
    assert axes("split", [(2, 7)], sizes=(3, 4)).x[0][1] == Cat(Dim("y0", 3), Dim("y1", 4))
    assert axes("chunk", [(2, 6)], parts=3).x[0][1] == Prod(Dim(None, 3), Dim("part", 2))
    assert axes("chunk", [(2, 7)], parts=3).x[0][1] == Dim(None, 7)
    assert axes("slice", [(2, 7)], dim=1, start=2).x[0][1] == Cat(Dim("before", 2), Dim("mid", 5))
    assert axes("slice", [(2, 7)], dim=1, start=2).attrs == {"start": Dim("before", 2)}
    assert axes("slice", [(2, 7)], dim=1, stop=2**63 - 1).attrs == {}
    assert axes("slice", [(2, 7)], dim=1, start=-2).attrs == {"start": Dim("mid", 2)}
    # a bound outside would mean something else once the axis has grown
    for bounds in ({"start": -9}, {"stop": 9}, {"start": 8}, {"stop": -8}, {"start": 5, "stop": 5}, {"step": 2}):
        assert axes("slice", [(2, 7)], dim=1, **bounds).x[0][1] == Dim(None, 7)


def test_pieces_refuse():
    refused("concat", [(2, 3), (2, 3, 1)], "must agree")
    refused("concat", [(2, 3), (3, 3)], "must agree")
    refused("concat", [()], "rank", dim=0)
    refused("stack", [(2, 3), (2, 4)], "one shape")
    refused("split", [(2, 6)], "add up to 6", sizes=(2, 3))
    refused("split", [(2, 6)], "add up to 6", sizes=(-1, 7))
    refused("split", [(2, 0)], "add up to 0", sizes=())
    refused("chunk", [(2, 0)], "nothing to split", parts=2)
    refused("unbind", [(2, 0)], "nothing to take", dim=1)
    refused("slice", [(2, 3)], "'dim' is 2", dim=2)
    refused("slice", [(2, 3)], "at least 1", dim=1, step=-1)
    refused("select", [(2, 3)], "'index' is 3", dim=1, index=3)
    refused("select", [(2, 0)], "'index' is 0", dim=1, index=0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shapes, batches, st.data())
def test_slice_and_select(shape, batch, data):
    dim = data.draw(st.integers(1, len(shape)))
    bounds = st.integers(-7, 7)
    start, stop, step = data.draw(bounds), data.draw(st.none() | bounds), data.draw(st.integers(1, 3))
    index = (*(slice(None),) * dim, slice(start, stop, step))
    x = rand(batch, *shape)
    check("slice", {"dim": dim, "start": start, "stop": stop, "step": step}, [x], reference=lambda x: x[index])
    at = data.draw(st.integers(-shape[dim - 1], shape[dim - 1] - 1))
    check("select", {"dim": dim, "index": at}, [x], reference=lambda x: x.select(dim, at))


def test_slice_of_the_batch():
    check("slice", {"dim": 0, "start": -1}, [rand(3, 4)], reference=lambda x: x[-1:])
    check("slice", {"dim": 0, "stop": -1}, [rand(3, 4)], reference=lambda x: x[:-1])


# ------------------------------------------------------------------------------------------------------------- pad
@some
@given(shapes, batches, st.sampled_from([0.0, 1.5, -math.inf]), st.data())
def test_pad_constant(shape, batch, value, data):
    count = data.draw(st.integers(0, len(shape)))
    pads = []
    for n in shape[::-1][:count]:
        low = data.draw(st.integers(-n, 3))
        pads += [low, data.draw(st.integers(-n - min(low, 0), 3))]
    check("pad", {"pads": pads, "value": value}, [rand(batch, *shape)],
          reference=lambda x: F.pad(x, pads, value=value))  # fmt: skip


@some
@given(st.lists(st.integers(2, 5), min_size=1, max_size=3), batches, st.data())
def test_pad_modes(space, batch, data):
    mode = data.draw(st.sampled_from(["reflect", "replicate", "circular"]))
    pads = [data.draw(st.integers(-1 if mode != "circular" else 0, n - 1)) for n in space[::-1] for _ in range(2)]
    if any(n + a + b < 1 for n, a, b in zip(space[::-1], pads[::2], pads[1::2], strict=True)):
        pads = [max(p, 0) for p in pads]
    lead = data.draw(st.sampled_from([(batch,), (batch, 3)]))
    check("pad", {"pads": pads, "mode": mode}, [rand(*lead, *space)], reference=lambda x: F.pad(x, pads, mode))


def test_pad_of_whole_numbers():
    x = torch.arange(12).reshape(3, 4)
    check("pad", {"pads": (1, 2), "value": -7}, [x], reference=lambda x: F.pad(x, (1, 2), value=-7))


def test_pad_refuses():
    refused("pad", [(2, 3)], "up to 2 pairs", pads=(1,))
    refused("pad", [(2, 3)], "up to 2 pairs", pads=(1,) * 6)
    refused("pad", [(2, 3)], "cuts more", pads=(-2, -2))
    refused("pad", [(2, 3, 4)], "at most 3", pads=(4, 0), mode="reflect")
    refused("pad", [(2, 3, 4)], "at most 4", pads=(5, 0), mode="circular")
    refused("pad", [(2, 3, 0)], "at most 0", pads=(1, 0), mode="replicate")
    refused("pad", [(2, 3, 4, 5)], "all but the first one or two", pads=(1, 0), mode="reflect")


# ------------------------------------------------------------------------------------------------ shifts, triangles
@some
@given(shapes, batches, st.data())
def test_roll_and_flip(shape, batch, data):
    dims = data.draw(st.lists(st.integers(0, len(shape)), min_size=1, unique=True))
    shifts = [data.draw(st.integers(-7, 7)) for _ in dims]
    x = rand(batch, *shape)
    check("roll", {"shifts": shifts, "dims": dims}, [x], reference=lambda x: x.roll(shifts, dims))
    check("flip", {"dims": dims}, [x], reference=lambda x: x.flip(dims))


def test_roll_of_everything():
    check("roll", {"shifts": (5,), "dims": ()}, [rand(3, 4)], reference=lambda x: x.roll(5))
    check("roll", {"shifts": (1, 2), "dims": (1, 1)}, [rand(3, 4)], reference=lambda x: x.roll((1, 2), (1, 1)))
    check("flip", {"dims": ()}, [rand(3, 4)], reference=lambda x: x)
    refused("roll", [(2, 3)], "one shift for each", shifts=(1, 2), dims=(1,))
    refused("flip", [(2, 3)], "each dimension once", dims=(1, -1))


@few
@given(st.lists(sizes, min_size=2, max_size=3), batches, st.integers(-6, 6), st.data())
def test_triangles_and_diagonal(shape, batch, offset, data):
    x = rand(batch, *shape)
    check("tril", {"diagonal": offset}, [x], reference=lambda x: x.tril(offset))
    check("triu", {"diagonal": offset}, [x], reference=lambda x: x.triu(offset))
    one, two = data.draw(st.permutations(range(-1, len(shape))))[:2]
    check("diagonal", {"offset": offset, "dim1": one, "dim2": two}, [x],
          reference=lambda x: x.diagonal(offset, one, two))  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float64])
def test_triangles_of_other_dtypes(dtype):
    x = (rand(2, 3, 4) > 0).to(dtype)
    check("tril", {}, [x], reference=lambda x: x.tril())
    check("triu", {"diagonal": 1}, [x], reference=lambda x: x.triu(1))


def test_diagonal_of_the_batch():
    """Similarities of all pairs of samples: neither the diagonal's length nor its stride may hold the batch size."""
    check("diagonal", {}, [rand(3, 4)], reference=lambda x: x.diagonal())
    refused("diagonal", [(2, 3)], "expected two", dim1=1, dim2=-1)
    refused("tril", [(3,)], "rank")
