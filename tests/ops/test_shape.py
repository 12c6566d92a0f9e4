"""Reshape, permute, expand, repeat and their kin against torch, over random shapes and batch sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import ArchwrightError
from archwright.ir import Type
from archwright.ops.base import Dim, Prod
from archwright.ops.shape import regroup
from tests.ops.harness import check

some = settings(max_examples=20, deadline=None, derandomize=True)
few = settings(max_examples=10, deadline=None, derandomize=True)
batches = st.integers(1, 4)
sizes = st.integers(1, 5)
shapes = st.lists(sizes, min_size=1, max_size=4).map(tuple)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def axes(name: str, shapes: list[tuple[int, ...]], **attrs: object) -> ops.Axes:
    op = ops.get(name)
    f = ops.facts(name, op.normal(attrs), tuple([Type(shape) for shape in shapes]))
    return op.axes(f.a, f.x, f.y)


def refused(name: str, shapes: list[tuple[int, ...]], match: str, **attrs: object) -> None:
    with pytest.raises(ArchwrightError, match=match):
        axes(name, shapes, **attrs)


# --------------------------------------------------------------------------------------------------------- reshape
@st.composite
def groupings(draw):
    """Two ways to merge neighbours among some factors; the first factor of the second may be merged with the batch."""
    factors = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))

    def merge(whole: bool) -> tuple[list[int], bool]:
        groups, fused = [1], draw(st.booleans()) if whole else False
        for i, n in enumerate(factors):
            if i and draw(st.booleans()):
                groups.append(1)
            groups[-1] *= n
        return groups, fused

    before, _ = merge(False)
    after, fused = merge(True)
    return before, after[1:] if fused else after


@some
@given(groupings(), batches)
def test_reshape(groups, batch):
    before, after = groups
    shape = (-1, *after)
    check("reshape", {"shape": shape}, [rand(batch, *before)], reference=lambda x: x.reshape(shape))


@pytest.mark.parametrize("before, after, wanted", [
    ((7, 12), (7, 3, 4), "d0 d1*d2 -> d0 d1 d2"),
    ((7, 3, 4, 5), (7, 60), "d0 d1 d2 d3 -> d0 d1*d2*d3"),
    ((7, 6, 4, 5), (7, 2, 3, 20), "d0 d1*d2 d3 d4 -> d0 d1 d2 d3*d4"),
    ((7, 4, 2), (7, 2, 4), "d0 d1*d2 d3 -> d0 d1 d2*d3"),
    ((7, 2, 3), (7, 3, 2), "d0 - - -> d0 - -"),
    ((7, 5, 2, 3), (7, 5, 3, 2), "d0 d1 - - -> d0 d1 - -"),
    ((7, 2, 3, 5), (7, 3, 2, 5), "d0 - - d4 -> d0 - - d4"),
    ((7, 1, 6), (7, 6, 1), "d0 - d1 -> d0 d1 -"),
    ((7, 8, 8, 3), (28, 2, 8, 3), "d0 d1*d2 d3 d4 -> d0*d1 d2 d3 d4"),
    ((7, 0, 3), (7, 0), "- - - -> - -"),
    ((), (1, 1), " -> - -"),
])  # fmt: skip
def test_regroup(before, after, wanted):
    def show(term):
        return "*".join(map(show, term)) if isinstance(term, Prod) else term.label or "-"

    assert " -> ".join(" ".join(map(show, dims)) for dims in regroup(before, after)) == wanted


def test_reshape_axes_have_one_meaning_at_all_batch_sizes():
    """Batch sizes that equal other sizes, or divide them, must not change which factor is which."""

    def labels(term):
        return [t for inner in term for t in labels(inner)] if isinstance(term, Prod) else [term.label]

    def pattern(batch):
        return [
            [labels(t) for t in dims]
            for before, after in [((6, 4), (-1, 2, 3, 4)), ((4, 6), (-1, 8, 3)), ((8, 8, 6), (-1, 4, 2, 4, 6))]
            for dims in (
                *axes("reshape", [(batch, *before)], shape=after).x,
                *axes("reshape", [(batch, *before)], shape=after).y,
            )
        ]

    assert all(pattern(batch) == pattern(7) for batch in (2, 3, 4, 6, 8, 24))


def test_reshape_refuses():
    refused("reshape", [(2, 6)], "12 elements", shape=(-1, 5))
    refused("reshape", [(2, 6)], "12 elements", shape=(3, 3))
    refused("reshape", [(2, 6)], "at most one -1", shape=(-1, -1))
    refused("reshape", [(2, 6)], "at most one -1", shape=(-2, 6))
    refused("reshape", [(0, 6)], "0 elements", shape=(-1, 0))
    assert axes("reshape", [(0, 6)], shape=(0, 2, 3)).y[0] == (Dim(None, 0), Dim(None, 2), Dim(None, 3))


@some
@given(shapes, batches, st.data())
def test_flatten(shape, batch, data):
    start = data.draw(st.integers(0, len(shape)))
    end = data.draw(st.integers(start, len(shape)))
    if data.draw(st.booleans()):
        end -= len(shape) + 1
    check("flatten", {"start": start, "end": end}, [rand(batch, *shape)], reference=lambda x: x.flatten(start, end))


def test_flatten_of_a_scalar_and_of_nothing():
    check("flatten", {"start": 0}, [rand()], reference=lambda x: x.flatten(), batch_dim=None)
    refused("flatten", [(2, 3)], "start=1 comes after", start=1, end=0)
    refused("flatten", [(2, 3)], "'end' is 2", end=2)


# --------------------------------------------------------------------------------------------- order of dimensions
@some
@given(shapes, batches, st.data())
def test_permute_and_transpose(shape, batch, data):
    rank = len(shape) + 1
    dims = data.draw(st.permutations([d - rank if d % 2 else d for d in range(rank)]))
    check("permute", {"dims": dims}, [rand(batch, *shape)], reference=lambda x: x.permute(dims))
    one, two = dims[0], dims[-1]
    check("transpose", {"dim0": one, "dim1": two}, [rand(batch, *shape)], reference=lambda x: x.transpose(one, two))


def test_permute_refuses():
    refused("permute", [(2, 3)], "each of the 2 dimensions", dims=(0, 0))
    refused("permute", [(2, 3)], "each of the 2 dimensions", dims=(1,))
    refused("transpose", [(2, 3)], "'dim1' is 2", dim0=0, dim1=2)


@some
@given(shapes, batches, st.data())
def test_unsqueeze_and_squeeze(shape, batch, data):
    rank = len(shape) + 1
    dim = data.draw(st.integers(-rank - 1, rank))
    check("unsqueeze", {"dim": dim}, [rand(batch, *shape)], reference=lambda x: x.unsqueeze(dim))
    ones = sorted(data.draw(st.sets(st.integers(1, len(shape)), min_size=1)))
    holed = [1 if d in ones else n for d, n in enumerate((batch, *shape))]
    named = [d - rank if d % 2 else d for d in ones]
    check("squeeze", {"dim": named}, [rand(*holed)], reference=lambda x: x.squeeze(tuple(named)))


def test_squeeze_refuses_other_sizes():
    refused("squeeze", [(2, 3, 1)], "size 3, expected 1", dim=(1, 2))
    check("squeeze", {"dim": ()}, [rand(2, 1)], reference=lambda x: x)


# ----------------------------------------------------------------------------------------------- expand and repeat
@some
@given(shapes, batches, st.data())
def test_expand(shape, batch, data):
    lead = data.draw(st.lists(sizes, max_size=2))
    kept = [data.draw(st.booleans()) for _ in shape]
    shape = tuple([n if keep else 1 for n, keep in zip(shape, kept, strict=True)])
    wanted = [data.draw(st.sampled_from([-1, n])) if keep else data.draw(sizes)
              for n, keep in zip(shape, kept, strict=True)]  # fmt: skip
    codes = [*lead, -1, *wanted]
    check("expand", {"shape": codes}, [rand(batch, *shape)], reference=lambda x: x.expand(codes), batch_dim=0)
    check("expand", {"shape": (0, *lead, *wanted)}, [rand(*shape), rand(batch, 3)],
          reference=lambda x, ref: x.expand(batch, *lead, *wanted), batch_dim=[None, 0])  # fmt: skip


@some
@given(shapes, batches, st.data())
def test_repeat(shape, batch, data):
    lead = data.draw(st.lists(st.integers(1, 3), max_size=1))
    counts = [data.draw(st.integers(1, 3)) for _ in shape]
    check("repeat", {"repeats": (*lead, 2, *counts)}, [rand(batch, *shape)],
          reference=lambda x: x.repeat(*lead, 2, *counts))  # fmt: skip
    check("repeat", {"repeats": (0, *counts)}, [rand(*shape), rand(batch, 3)],
          reference=lambda x, ref: x.repeat(batch, *counts), batch_dim=[None, 0])  # fmt: skip


@few
@given(shapes, batches, st.integers(1, 3), st.data())
def test_repeat_interleave(shape, batch, count, data):
    dim = data.draw(st.integers(-len(shape) - 1, len(shape)))
    check("repeat_interleave", {"repeats": count, "dim": dim}, [rand(batch, *shape)],
          reference=lambda x: x.repeat_interleave(count, dim))  # fmt: skip


def test_expand_and_repeat_refuse():
    refused("expand", [(2, 3)], "only dimensions of size 1", shape=(2, 4))
    refused("expand", [(2, 3)], "at least 2 sizes", shape=(3,))
    refused("expand", [(2, 3)], "-1 keeps", shape=(-1, 2, 3))
    refused("expand", [(1, 3)], "which is missing", shape=(0, -1))
    refused("repeat", [(2, 3)], "at least 2 counts", repeats=(1,))
    refused("repeat", [(2, 3)], "which is missing", repeats=(0, 1))
    refused("repeat_interleave", [(2, 3)], "at least 1", repeats=0, dim=1)


def test_channels_of_a_ref_stay_free():
    """Only the batch of `ref` is used, so nothing else of it may be pinned."""
    found = axes("expand", [(1, 5), (2, 8, 3)], shape=(0, -1))
    assert [d.label for d in found.x[1]] == ["d0", "r1", "r2"]
    assert found.y[0][0] == Dim("d0", 2)
