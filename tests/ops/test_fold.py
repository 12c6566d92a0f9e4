"""Windows, pixel shuffle and channel shuffle against torch."""

from __future__ import annotations

import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from archwright.ops.base import Dim, Prod
from tests.ops.harness import check
from tests.ops.test_shape import axes, batches, few, rand, refused, shapes, sizes, some


@some
@given(batches, st.integers(1, 3), st.booleans(), st.data())
def test_unfold_and_fold(batch, channels, single, data):
    kernel, stride, dilation = [[data.draw(st.integers(1, 3)) for _ in range(2)] for _ in range(3)]
    padding = [data.draw(st.integers(0, 1)) for _ in range(2)]
    space = [d * (k - 1) + 1 + data.draw(st.integers(0, 3)) for d, k in zip(dilation, kernel, strict=True)]
    attrs = {"kernel": kernel, "stride": stride, "dilation": dilation, "padding": padding}
    x = rand(channels, *space) if single else rand(batch, channels, *space)
    lead = None if single else 0
    check("unfold", attrs, [x], reference=lambda x: F.unfold(x, kernel, dilation, padding, stride), batch_dim=lead)
    columns = F.unfold(x, kernel, dilation, padding, stride)
    check("fold", {"size": space, **attrs}, [columns], batch_dim=lead,
          reference=lambda x: F.fold(x, space, kernel, dilation, padding, stride))  # fmt: skip


def test_unfold_and_fold_refuse():
    refused("unfold", [(2, 3, 2, 2)], "does not fit", kernel=3)
    refused("unfold", [(2, 3)], "rank", kernel=1)
    refused("fold", [(2, 12, 4)], "and 9 windows", kernel=2, size=(4, 4))
    refused("fold", [(2, 9, 9)], "multiple of 4", kernel=2, size=(4, 4))
    refused("fold", [(2, 8, 9)], "height and width", kernel=2, size=(4,))
    assert axes("unfold", [(2, 3, 4, 4)], kernel=2).y[0][1] == Prod(Dim("d1", 3), Dim(None, 4))


@few
@given(shapes, batches, st.integers(1, 3), st.data())
def test_window(shape, batch, step, data):
    dim = data.draw(st.integers(1, len(shape)))
    size = data.draw(st.integers(1, shape[dim - 1]))
    check("window", {"dim": dim, "size": size, "step": step}, [rand(batch, *shape)],
          reference=lambda x: x.unfold(dim, size, step))  # fmt: skip


def test_window_refuses():
    refused("window", [(2, 3)], "at most 3", dim=1, size=4, step=1)
    check("window", {"dim": 0, "size": 1, "step": 1}, [rand(3, 4)], reference=lambda x: x.unfold(0, 1, 1))


@few
@given(st.lists(sizes, max_size=2), batches, sizes, st.integers(1, 3), sizes, sizes)
def test_pixel_shuffle(lead, batch, channels, factor, height, width):
    deep = rand(batch, *lead, channels * factor * factor, height, width)
    check("pixel_shuffle", {"factor": factor}, [deep], reference=lambda x: F.pixel_shuffle(x, factor))
    wide = rand(batch, *lead, channels, height * factor, width * factor)
    check("pixel_unshuffle", {"factor": factor}, [wide], reference=lambda x: F.pixel_unshuffle(x, factor))


def test_pixel_shuffle_without_batch():
    check("pixel_shuffle", {"factor": 2}, [rand(8, 3, 2)], reference=lambda x: F.pixel_shuffle(x, 2), batch_dim=None)
    check("pixel_unshuffle", {"factor": 2}, [rand(2, 4, 6)], reference=lambda x: F.pixel_unshuffle(x, 2),
          batch_dim=None)  # fmt: skip
    refused("pixel_shuffle", [(2, 6, 3, 3)], "multiples of 4", factor=2)
    refused("pixel_unshuffle", [(2, 6, 3, 4)], "multiples of 2", factor=2)


@few
@given(batches, sizes, sizes, st.lists(sizes, min_size=1, max_size=3))
def test_channel_shuffle(batch, groups, channels, space):
    check("channel_shuffle", {"groups": groups}, [rand(batch, groups * channels, *space)],
          reference=lambda x: F.channel_shuffle(x, groups))  # fmt: skip


def test_channel_shuffle_refuses():
    refused("channel_shuffle", [(2, 6, 3)], "multiples of groups=4", groups=4)
    refused("channel_shuffle", [(2, 6)], "rank", groups=2)
