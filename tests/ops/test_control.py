"""mix and switch."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.ir import Type
from tests.ops.harness import check
from tests.ops.test_index import typed
from tests.ops.test_shape import batches, few, rand, shapes

WEIGHTING = {"softmax": lambda alpha: alpha.softmax(0), "sigmoid": torch.sigmoid, "none": lambda alpha: alpha}


@few
@given(shapes, batches, st.integers(1, 4), st.sampled_from(sorted(WEIGHTING)))
def test_mix(shape, batch, count, weighting):
    def reference(*xs, alpha):
        return (WEIGHTING[weighting](alpha).reshape(-1, *[1] * xs[0].dim()) * torch.stack(xs)).sum(0)

    xs = [rand(batch, *shape) + i for i in range(count)]
    check("mix", {"weighting": weighting}, xs, reference=reference, rtol=1e-4, atol=1e-5)


def test_mix_starts_even():
    """Fresh weights treat all branches alike; "none" starts as the mean."""
    for weighting in WEIGHTING:
        f = ops.facts("mix", ops.get("mix").normal({"weighting": weighting}), (Type((2, 3)),) * 4)
        assert f.params["alpha"].init == (("constant", 0.25) if weighting == "none" else ("zeros",))


@few
@given(shapes, batches, st.integers(1, 4), st.data())
def test_switch(shape, batch, count, data):
    index = data.draw(st.integers(0, count - 1))
    xs = [rand(batch, *shape) + i for i in range(count)]
    check("switch", {"index": index}, xs, reference=lambda *xs: xs[index])
    op = ops.get("switch")
    assert op.needs is not None and list(op.needs(op.full({"index": index}), count)) == [index]


def test_switch_does_not_touch_the_others():
    op = ops.get("switch")
    x = rand(2, 3)
    assert op.run(op.full({"index": 1}), [None, x, None], {}, True) is x


def test_control_refuses():
    x = Type((2, 3))
    typed("switch", [x, x], "expected 0 to 1", index=2)
    typed("switch", [x, x], "expected 0 to 1", index=-1)
    typed("switch", [x, Type((2, 4))], "one type")
    typed("mix", [x, Type((2, 3), "float64")], "one type")
    typed("mix", [Type((2, 3), "int64")], "floating-point")
