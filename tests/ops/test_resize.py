"""Interpolation, grid sampling and affine grids against torch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright.ir import Type
from tests.ops.harness import check
from tests.ops.test_index import typed
from tests.ops.test_shape import batches, few, rand, refused

SMOOTH = {1: "linear", 2: "bilinear", 3: "trilinear"}
close = {"rtol": 1e-4, "atol": 1e-5}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(batches, st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_upsample(batch, space, data):
    rank = len(space)
    modes = ["nearest", "nearest-exact", "area", SMOOTH[rank], *(["bicubic"] if rank == 2 else [])]
    mode = data.draw(st.sampled_from(modes))
    smooth = mode not in ("nearest", "nearest-exact", "area")
    attrs = {"mode": mode, "align_corners": smooth and data.draw(st.booleans())}
    if data.draw(st.booleans()):
        attrs["size"] = data.draw(st.sampled_from([4, [data.draw(st.integers(1, 7)) for _ in space]]))
        # torch's own filter is wrong where it makes a narrow image lower
        if mode in ("bilinear", "bicubic") and min(space) > 1:
            attrs["antialias"] = data.draw(st.booleans())
    else:
        attrs["scale"] = data.draw(st.sampled_from([2, 1.7, [data.draw(st.sampled_from([1, 1.5, 3])) for _ in space]]))

    def reference(x):
        return F.interpolate(x, attrs.get("size"), attrs.get("scale"), mode, attrs["align_corners"] if smooth else None,
                             antialias=attrs.get("antialias", False))  # fmt: skip

    check("upsample", attrs, [rand(batch, 2, *space)], reference=reference, **close)


@pytest.mark.parametrize("size", [1, 7])
def test_upsample_by_area_keeps_its_input(size):
    check("upsample", {"size": size, "mode": "area"}, [rand(3, 8, 9, 9)], **close,
          reference=lambda x: F.interpolate(x, size, mode="area"))  # fmt: skip


def test_upsample_refuses():
    refused("upsample", [(2, 3, 4)], "exactly one of them")
    refused("upsample", [(2, 3, 4)], "exactly one of them", size=3, scale=2)
    refused("upsample", [(2, 3, 4)], "rank 4 for mode 'bilinear'", size=3, mode="bilinear")
    refused("upsample", [(2, 3, 4)], "align_corners has no meaning", size=3, align_corners=True)
    refused("upsample", [(2, 3, 4)], "antialias has no meaning", size=3, antialias=True)
    refused("upsample", [(2, 3, 4)], "at least 1", scale=0.1)
    refused("upsample", [(2, 3, 4)], "a positive number", scale=-1)
    refused("upsample", [(2, 3, 4)], "a positive number", scale="2")
    refused("upsample", [(2, 3, 4)], "one for each of 1", size=(3, 4))
    refused("upsample", [(2, 3)], "rank", size=3)
    typed("upsample", [Type((2, 3, 4), "int64")], "floating-point", size=3)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(batches, st.lists(st.integers(1, 4), min_size=2, max_size=3), st.booleans(), st.data())
def test_grid_sample(batch, space, corners, data):
    mode = data.draw(st.sampled_from(["bilinear", "nearest", *(["bicubic"] if len(space) == 2 else [])]))
    padding = data.draw(st.sampled_from(["zeros", "border", "reflection"]))
    out = [data.draw(st.integers(1, 4)) for _ in space]
    grid = rand(batch, *out, len(space)) * 0.7
    attrs = {"mode": mode, "padding": padding, "align_corners": corners}
    check("grid_sample", attrs, [rand(batch, 3, *space), grid], **close,
          reference=lambda x, grid: F.grid_sample(x, grid, mode, padding, corners))  # fmt: skip


def test_grid_sample_refuses():
    refused("grid_sample", [(2, 3, 4, 4), (2, 5, 5, 3)], "expected float32")
    refused("grid_sample", [(2, 3, 4, 4), (3, 5, 5, 2)], "expected float32")
    refused("grid_sample", [(2, 3, 4, 4, 4), (2, 5, 5, 5, 3)], "rank 4 for mode", mode="bicubic")
    refused("grid_sample", [(2, 3, 0, 4), (2, 5, 5, 2)], "at least 1")
    typed("grid_sample", [Type((2, 3, 4, 4)), Type((2, 5, 5, 2), "float64")], "expected float32")


@pytest.mark.filterwarnings("ignore:Since version 1.3.0")
@few
@given(batches, st.lists(st.integers(1, 4), min_size=2, max_size=3), st.booleans(), st.booleans())
def test_affine_grid(batch, space, corners, referred):
    rank = len(space)
    inputs = [rand(batch, rank, rank + 1), torch.zeros(batch, 5)][: 1 + referred]
    check("affine_grid", {"size": (0, 3, *space), "align_corners": corners}, inputs,
          reference=lambda theta, *_: F.affine_grid(theta, [batch, 3, *space], corners))  # fmt: skip


def test_affine_grid_of_fixed_samples():
    check("affine_grid", {"size": (3, 1, 4, 5)}, [rand(3, 2, 3)], batch_dim=None,
          reference=lambda theta: F.affine_grid(theta, [3, 1, 4, 5], False))  # fmt: skip
    refused("affine_grid", [(3, 2, 3)], "expected shape", size=(2, 1, 4, 5))
    refused("affine_grid", [(3, 2, 3)], "expected shape", size=(0, 1, 4, 5, 6))
    refused("affine_grid", [(3, 2, 3)], "2 or 3 sizes", size=(0, 1, 4))
    refused("affine_grid", [(3, 2, 3)], "2 or 3 sizes", size=(0, 1, 4, 0))
