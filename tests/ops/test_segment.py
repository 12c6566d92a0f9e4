"""Segment reductions and softmax against a loop over segments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright.ir import Type
from tests.ops.harness import check
from tests.ops.test_index import axes_of, ids, typed
from tests.ops.test_shape import rand, some


def loop(x: torch.Tensor, places: torch.Tensor, num: int, reduce: str) -> torch.Tensor:
    rows = [x[places == s] for s in range(num)]
    if reduce == "softmax":
        made = torch.cat([row.softmax(0) for row in rows])
        order = torch.cat([(places == s).nonzero().flatten() for s in range(num)])
        return made[order.argsort()]
    name = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    return torch.stack([getattr(row, name)(0) if len(row) else x.new_zeros(x.shape[1:]) for row in rows])


@some
@given(st.lists(st.integers(1, 4), max_size=2), st.integers(1, 12), st.integers(1, 5),
       st.sampled_from(["sum", "mean", "max", "min", "softmax"]), st.booleans())  # fmt: skip
def test_segment(shape, rows, num, reduce, referred):
    inputs = [rand(rows, *shape), ids(num, rows)]
    attrs = {"reduce": reduce}
    if referred:
        inputs.append(rand(num, 2))
    else:
        attrs["num"] = num
    check("segment", attrs, inputs, reference=lambda x, i, *_: loop(x, i, num, reduce), batch_dim=0 if not referred
          else [0, 0, None], rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "softmax"])
def test_segment_of_large_numbers(reduce):
    """Large enough for what autograd keeps to be measured; numbers that overflow in a plain exp."""
    x, i = rand(200, 8) * 200, ids(30, 200)
    check("segment", {"reduce": reduce, "num": 40}, [x, i], batch_dim=None, rtol=1e-4, atol=1e-3,
          reference=lambda x, i: loop(x, i, 40, reduce))  # fmt: skip
    check("segment", {"reduce": reduce}, [x, i, rand(40, 3)], batch_dim=[None, None, 0], rtol=1e-4, atol=1e-3,
          reference=lambda x, i, ref: loop(x, i, 40, reduce))  # fmt: skip


def test_segment_axes():
    types = [Type((9, 4)), Type((9,), "int64"), Type((5, 3))]
    labels = lambda dims: [d.label for d in dims]  # noqa: E731
    found = axes_of("segment", types, reduce="sum")
    assert [labels(dims) for dims in found.x] == [["e0", "e1"], ["e0"], [None, "r1"]]
    assert labels(found.y[0]) == [None, "e1"] and not found.coupled
    found = axes_of("segment", types, reduce="softmax")
    assert labels(found.y[0]) == ["e0", "e1"] and found.coupled == {"e0"}


def test_segment_of_no_rows():
    for reduce in ("sum", "mean", "max", "softmax"):
        check("segment", {"reduce": reduce, "num": 3}, [rand(0, 2), ids(3, 0)], batch_dim=None,
              reference=lambda x, i: x if reduce == "softmax" else torch.zeros(3, 2), vmap=False)  # noqa: B023  # fmt: skip


def test_segment_refuses():
    x, i = Type((9, 4)), Type((9,), "int64")
    typed("segment", [x, Type((8,), "int64")], "segment indices are", num=3)
    typed("segment", [x, Type((9,), "int32")], "segment indices are", num=3)
    typed("segment", [x, i], "either num or a third input")
    typed("segment", [x, i, x], "either num or a third input", num=3)
    typed("segment", [x, i, Type(())], "rank")
    typed("segment", [Type((9, 4), "int64"), i], "floating-point", num=3)
    typed("segment", [x, i], "one of", num=3, reduce="prod")
