"""Operators of PyTorch by name: decoded, typed, costed, refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.ir import Type
from tests.ops.harness import check
from tests.ops.test_index import typed
from tests.ops.test_shape import batches, few, rand, sizes

X, Y = {"input": 0}, {"input": 1}


@few
@given(batches, sizes, sizes)
def test_one_output(batch, n, m):
    x, y = rand(batch, n, m), rand(batch, n, m) + 1
    check("opaque", {"target": "aten.cosine_similarity.default", "args": [X, Y, 2]}, [x, y],
          reference=lambda x, y: F.cosine_similarity(x, y, 2))  # fmt: skip
    check("opaque", {"target": "aten.view.default", "args": [X, [{"batch": n}, m]]}, [x],
          reference=lambda x: x.view(-1, m))  # fmt: skip


@few
@given(batches, sizes, st.integers(1, 6))
def test_several_outputs(batch, n, size):
    x = rand(batch, n, 4)
    check("opaque", {"target": "aten.split.Tensor", "args": [X, size, 1]}, [x], reference=lambda x: x.split(size, 1))
    check("opaque", {"target": "aten.topk.default", "args": [X, 2]}, [x], reference=lambda x: x.topk(2))


def test_flops_and_what_autograd_keeps():
    check("opaque", {"target": "aten.mm.default", "args": [X, Y]}, [rand(30, 20), rand(20, 40)],
          reference=torch.mm, batch_dim=[0, None])  # fmt: skip
    mm = ops.get("opaque").normal({"target": "aten.mm.default", "args": [X, Y]})
    f = ops.facts("opaque", mm, (Type((30, 20)), Type((20, 40))))
    assert f.cost.flops == 2 * 30 * 20 * 40 and f.cost.keeps == ("x0", "x1")
    check("opaque", {"target": "aten.fft_fft2.default", "args": [X]}, [rand(3, 8, 8)], reference=torch.fft.fft2)
    check("opaque", {"target": "aten.native_layer_norm.default", "args": [X, [64], None, None, 1e-5]}, [rand(3, 64)])


def test_named_arguments_and_constants():
    check("opaque", {"target": "aten.sum.default", "args": [X], "kwargs": {"dtype": {"dtype": "float64"}}},
          [rand(3, 4)], reference=lambda x: x.sum(dtype=torch.float64))  # fmt: skip
    check("opaque", {"target": "aten.full.default", "args": [[{"batch": 2}, 3], float("-inf")]}, [rand(3, 4)],
          reference=lambda x: torch.full((6, 3), -torch.inf))  # fmt: skip
    check("opaque", {"target": "aten.clone.default", "args": [X],
                     "kwargs": {"memory_format": {"memory_format": "contiguous_format"}}},
          [rand(3, 4)], reference=lambda x: x.clone())  # fmt: skip
    check("opaque", {"target": "aten._to_copy.default", "args": [X], "kwargs": {"device": {"device": "cpu"}}},
          [rand(3, 4)], reference=lambda x: x)  # fmt: skip


def test_the_random_numbers_of_the_program_are_left_alone():
    before = torch.get_rng_state()
    ops.facts("opaque", ops.get("opaque").normal({"target": "aten.randn.default", "args": [[3, 17]]}), ())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("target, why", [
    ("aten.no_such_operator.default", "unknown operator"),
    ("aten.relu", "unknown operator"),
    ("aten.relu.no_such_overload", "unknown operator"),
    ("aten.relu.__class__", "unknown operator"),
    ("load_library.default.x", "unknown operator"),
    ("higher_order.cond.default", "unknown operator"),
    ("os.system.default", "unknown operator"),
    ("aten.relu_.default", "writes into its arguments"),
    ("aten.add.out", "writes into its arguments"),
    ("aten.from_file.default", "reads files"),
    ("aten.numel.default", "returns no tensor"),
    ("aten.nonzero.default", "depends on the data"),
    ("aten.mm.default", "cannot take"),
])  # fmt: skip
def test_operators_that_are_refused(target, why):
    typed("opaque", [Type((2, 3))], why, target=target, args=[X])


def test_arguments_that_are_refused():
    x = Type((2, 3))
    for argument in (Y, {"input": -1}, {"dtype": "load"}, {"dtype": "nn"}, {"what": 1}, {"input": 0, "batch": 1}, {}):
        typed("opaque", [x], "has no meaning", target="aten.relu.default", args=[argument])
    typed("opaque", [x], "a list and a mapping", target="aten.relu.default", args="x")
    typed("opaque", [x], "cannot take", target="aten.relu.default", args=[X], kwargs={"nope": 1})
    typed("opaque", [], "has no meaning", target="aten.relu.default", args=[{"batch": 1}])
