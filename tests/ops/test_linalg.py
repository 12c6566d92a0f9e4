"""eigh against torch, and against what an eigen decomposition is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import TypeMismatch
from tests.ops.harness import FEW, check, one_node


def symmetric(shape, seed=0, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return x + x.mT


@FEW
@given(st.sampled_from([(1, 1), (3, 3), (2, 1, 1), (4, 3, 3), (2, 3, 5, 5)]), st.integers(0, 99))
def test_eigh(shape, seed):
    batch = 0 if len(shape) > 2 else None
    # gradients flow to the lower triangle only, in torch as here
    check("eigh", {}, [symmetric(shape, seed)], reference=lambda x: tuple(torch.linalg.eigh(x)), batch_dim=batch,
          rtol=1e-4, atol=1e-5)  # fmt: skip


def test_double_precision_and_what_autograd_keeps():
    x = symmetric((8, 20, 20), dtype=torch.float64)
    check("eigh", {}, [x], reference=lambda x: tuple(torch.linalg.eigh(x)), onnx=False)


def test_it_decomposes():
    x = symmetric((5, 4, 4))
    values, vectors = ops.get("eigh").run({}, (x,), {}, False)
    torch.testing.assert_close(vectors @ torch.diag_embed(values) @ vectors.mT, x, rtol=1e-5, atol=1e-5)
    assert (values.diff() >= 0).all()


@pytest.mark.parametrize(("shape", "dtype"), [((3, 4), "float32"), ((3,), "float32"), ((2, 3, 3), "float16")])
def test_what_is_not_a_square_matrix_is_refused(shape, dtype):
    with pytest.raises(TypeMismatch):
        one_node("eigh", {}, [torch.zeros(shape, dtype=getattr(torch, dtype))], [None])
