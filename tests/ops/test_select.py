"""topk, sort and one_hot against torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import TypeMismatch
from tests.ops.harness import FEW, check

SHAPES = st.sampled_from([(1,), (5,), (1, 1), (3, 7), (2, 1, 5), (2, 9, 4)])


def _distinct(shape, seed):
    """Numbers of which no two are equal: among equal ones any order is right."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(torch.Size(shape).numel(), generator=generator).reshape(shape) - 3.5


@FEW
@given(SHAPES, st.integers(0, 9), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_topk(shape, dim, k, largest, seed):
    dim = dim % len(shape) - (len(shape) if dim > 4 else 0)
    k = min(k, shape[dim])
    batch = None if dim % len(shape) == 0 and k > 1 else 0
    check(
        "topk", {"k": k, "dim": dim, "largest": largest}, [_distinct(shape, seed)],
        reference=lambda x: tuple(torch.topk(x, k, dim, largest)), batch_dim=batch,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["sort", "argsort"])
def test_sort(name):
    @FEW
    @given(SHAPES, st.integers(0, 9), st.booleans(), st.sampled_from(["float32", "int64", "int32"]), st.integers(0, 99))
    def hold(shape, dim, descending, dtype, seed):
        dim = dim % len(shape) - (len(shape) if dim > 4 else 0)
        x = _distinct(shape, seed).to(getattr(torch, dtype))

        def reference(x):
            made = getattr(torch, name)(x, dim=dim, descending=descending)
            return tuple(made) if name == "sort" else made

        # a second sample equal to the first has no order of its own
        batch = None if dim % len(shape) == 0 else 0
        check(name, {"dim": dim, "descending": descending}, [x], reference=reference, batch_dim=batch)

    hold()


def test_what_autograd_keeps_is_seen():
    x = _distinct((3, 200), 0)
    check("topk", {"k": 150}, [x], reference=lambda x: tuple(torch.topk(x, 150)))
    check("sort", {}, [x], reference=lambda x: tuple(torch.sort(x)))
    check("argsort", {}, [x], reference=torch.argsort)
    check("topk", {"k": 3}, [x.double()], reference=lambda x: tuple(torch.topk(x, 3)), onnx=False)


def test_topk_without_order():
    x = _distinct((3, 20), 0)
    check("topk", {"k": 20, "sorted": False}, [x], onnx=False, vmap=False, axes=False, source=False)


@FEW
@given(SHAPES, st.integers(1, 7), st.sampled_from(["int64", "int32", "uint8"]), st.integers(0, 99))
def test_one_hot(shape, num, dtype, seed):
    ids = torch.randint(0, num, shape, generator=torch.Generator().manual_seed(seed)).to(getattr(torch, dtype))
    check("one_hot", {"num": num}, [ids], reference=lambda x: F.one_hot(x.long(), num))


def test_one_hot_of_a_single_number():
    check("one_hot", {"num": 4}, [torch.tensor(2)], reference=lambda x: F.one_hot(x, 4), batch_dim=None)


def test_wrong_inputs_are_refused():
    g = ops.edit()
    x = g.input("x", (None, 3))
    with pytest.raises(TypeMismatch, match="at most the size"):
        g.add("topk", x, k=4)
    with pytest.raises(TypeMismatch, match="expected -2 to 1"):
        g.add("sort", x, dim=2)
    with pytest.raises(TypeMismatch, match="whole numbers"):
        g.add("one_hot", x, num=3)
    with pytest.raises(TypeMismatch, match="expected"):
        g.add("topk", g.input("b", (None, 3), "bool"), k=1)
