"""linear, embedding and bilinear against torch.nn, over random sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Attrs, Type
from tests.ops.harness import check

some = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.integers(1, 6)


@some
@given(st.lists(sizes, min_size=1, max_size=4), sizes, st.booleans())
def test_linear(shape, out, bias):
    check("linear", {"out": out, "bias": bias}, [torch.randn(shape, generator=torch.Generator().manual_seed(0))],
          reference=nn.Linear(shape[-1], out, bias=bias), batch_dim=0 if len(shape) > 1 else None)  # fmt: skip


@some
@given(sizes, sizes, sizes, st.booleans())
def test_linear_with_weights_as_inputs(batch, inside, out, bias):
    torch.manual_seed(0)
    inputs = [torch.randn(batch, 3, inside), torch.randn(out, inside), torch.randn(out)][: 2 + bias]
    check("linear", {"out": out}, inputs, reference=F.linear, batch_dim=[0, None, None][: 2 + bias])


@some
@given(st.lists(sizes, min_size=1, max_size=3), sizes, sizes, st.booleans(),
       st.sampled_from([torch.int64, torch.int32]))  # fmt: skip
def test_embedding(shape, num, dim, padding, dtype):
    torch.manual_seed(0)
    ids = torch.randint(0, num, shape).to(dtype)
    padding_idx = num - 1 if padding else None
    module = nn.Embedding(num, dim, padding_idx=padding_idx)
    check("embedding", {"num": num, "dim": dim, "padding_idx": padding_idx}, [ids], reference=module)


def test_embedding_with_the_table_as_an_input():
    ids = torch.tensor([[0, 2, 2], [1, 0, 4]])
    check("embedding", {"num": 5, "dim": 3}, [ids, torch.randn(5, 3)], reference=F.embedding, batch_dim=[0, None])


@some
@given(st.lists(sizes, min_size=1, max_size=3), sizes, sizes, sizes, st.booleans())
def test_bilinear(lead, first, second, out, bias):
    torch.manual_seed(0)
    check("bilinear", {"out": out, "bias": bias}, [torch.randn(*lead, first), torch.randn(*lead, second)],
          reference=nn.Bilinear(first, second, out, bias=bias), atol=1e-5)  # fmt: skip


def test_errors_say_what_was_got():
    with pytest.raises(TypeMismatch, match="floating-point"):
        ops.facts("linear", Attrs(out=3), (Type((2, 4), "int64"),))
    with pytest.raises(TypeMismatch, match=r"weight is float32\[3, 5\], expected shape \[3, 4\]"):
        ops.facts("linear", Attrs(out=3), (Type((2, 4)), Type((3, 5))))
    with pytest.raises(TypeMismatch, match="ids are"):
        ops.facts("embedding", Attrs(num=3, dim=2), (Type((2, 4)),))
    with pytest.raises(TypeMismatch, match="padding_idx=3"):
        ops.facts("embedding", Attrs(num=3, dim=2, padding_idx=3), (Type((2, 4), "int64"),))
    with pytest.raises(TypeMismatch, match="equal shapes"):
        ops.facts("bilinear", Attrs(out=3), (Type((2, 4)), Type((3, 4))))
    with pytest.raises(GraphError, match="'out' is missing"):
        ops.get("linear").normal({})
