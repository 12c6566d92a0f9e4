"""Norms against torch.nn, over random shapes and settings: eval and training, buffers after training included."""

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

some = settings(max_examples=12, deadline=None, derandomize=True)
batches, sizes = st.integers(1, 3), st.integers(1, 5)
eps = st.sampled_from([1e-5, 1e-3])
momentum = st.sampled_from([0.1, 0.5, None])


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 2 + 1


# ------------------------------------------------------------------------------------------------------- batch norm
def batch_norm_of(x: torch.Tensor, **settings) -> nn.Module:
    return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[x.dim() - 2](x.shape[1], **settings)


@some
@given(batches, sizes, st.lists(sizes, max_size=3), eps, momentum, st.booleans(), st.booleans(), st.booleans())
def test_batch_norm(batch, channels, space, eps, momentum, affine, track, train):
    batch += int(train or not track)  # one number for each channel has no variance
    x = numbers(batch, channels, *space)
    module = batch_norm_of(x, eps=eps, momentum=momentum, affine=affine, track_running_stats=track)
    attrs = {"eps": eps, "momentum": momentum, "affine": affine, "track": track}
    check("batch_norm", attrs, [x], reference=module, train=train, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_batch_norm_counts_and_averages_like_torch(momentum):
    module = nn.BatchNorm2d(3, momentum=momentum)
    known = ops.facts("batch_norm", ops.get("batch_norm").normal({"momentum": momentum}), (Type((4, 3, 5, 5)),))
    weights = {name: t.detach().clone() for name, t in module.state_dict().items()}
    for step in range(4):
        x = numbers(4, 3, 5, 5) * (step + 1)
        torch.testing.assert_close(known.op.run(known.a, [x], weights, True), module(x))
    for name, t in module.state_dict().items():
        torch.testing.assert_close(weights[name], t)
    torch.testing.assert_close(known.op.run(known.a, [x], weights, False), module.eval()(x))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shared", [False, True])
def test_batch_norm_trains_under_vmap_with_stacked_buffers(momentum, shared):
    modules = [nn.BatchNorm1d(3, momentum=momentum) for _ in range(2)]
    stacked = {name: torch.stack([m.state_dict()[name].clone() for m in modules]) for name in modules[0].state_dict()}
    known = ops.facts("batch_norm", ops.get("batch_norm").normal({"momentum": momentum}), (Type((4, 3, 5)),))
    run = torch.func.vmap(lambda x, w: known.op.run(known.a, [x], w, True), in_dims=(None if shared else 0, 0))
    for step in range(3):
        x = numbers(2, 4, 3, 5) + step
        got = run(x[0] if shared else x, stacked)
        wanted = torch.stack([m(x[0 if shared else i]) for i, m in enumerate(modules)])
        torch.testing.assert_close(got, wanted)
    for index, m in enumerate(modules):
        for name, t in m.state_dict().items():
            torch.testing.assert_close(stacked[name][index], t)


def test_batch_norm_of_more_than_three_positions_is_written_as_a_function():
    check("batch_norm", {}, [numbers(2, 3, 2, 2, 2, 2)], onnx=False)
    check("batch_norm", {"track": False, "affine": False}, [numbers(2, 3, 2, 2, 2, 2)], onnx=False)
    check("instance_norm", {"track": True, "momentum": None}, [numbers(2, 3, 2, 2, 2, 2)], onnx=False)


# ---------------------------------------------------------------------------------------------------- the other norms
@some
@given(batches, sizes, st.lists(st.integers(2, 4), min_size=1, max_size=3), eps, momentum, st.booleans(), st.booleans(),
       st.booleans())  # fmt: skip
def test_instance_norm(batch, channels, space, eps, momentum, affine, track, train):
    made = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[len(space) - 1]
    module = made(channels, eps=eps, momentum=momentum, affine=affine, track_running_stats=track)
    attrs = {"eps": eps, "momentum": momentum, "affine": affine, "track": track}
    x = numbers(batch, channels, *space)
    check("instance_norm", attrs, [x], reference=module, train=train, rtol=1e-4, atol=1e-5)


@some
@given(batches, st.integers(1, 3), sizes, st.lists(sizes, max_size=3), eps, st.booleans())
def test_group_norm(batch, groups, each, space, eps, affine):
    if each == 1 and not space:
        space = [2]  # torch refuses a single number to normalise over
    check("group_norm", {"groups": groups, "eps": eps, "affine": affine}, [numbers(batch, groups * each, *space)],
          reference=nn.GroupNorm(groups, groups * each, eps=eps, affine=affine), rtol=1e-4, atol=1e-5)  # fmt: skip


def test_weights_as_inputs():
    x, weight, bias = numbers(2, 4, 6), numbers(4), numbers(4) * 2
    check("group_norm", {"groups": 2}, [x, weight, bias], batch_dim=[0, None, None],
          reference=lambda x, w, b: F.group_norm(x, 2, w, b), rtol=1e-4)  # fmt: skip
    weight, bias = numbers(4, 6), numbers(4, 6) * 2
    check("layer_norm", {"dims": 2}, [x, weight, bias], batch_dim=[0, None, None],
          reference=lambda x, w, b: F.layer_norm(x, (4, 6), w, b), rtol=1e-4)  # fmt: skip
    check("rms_norm", {"dims": 2}, [x, weight], batch_dim=[0, None],
          reference=lambda x, w: F.rms_norm(x, (4, 6), w), rtol=1e-4)  # fmt: skip


@some
@given(batches, st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(1, 2), eps, st.booleans(),
       st.booleans())  # fmt: skip
def test_layer_norm(batch, shape, dims, eps, affine, bias):
    dims = min(dims, len(shape))
    module = nn.LayerNorm(shape[-dims:], eps=eps, elementwise_affine=affine, bias=bias)
    check("layer_norm", {"dims": dims, "eps": eps, "affine": affine, "bias": bias}, [numbers(batch, *shape)],
          reference=module, rtol=1e-4, atol=1e-5)  # fmt: skip


@some
@given(batches, st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(1, 2), st.sampled_from([None, 1e-3]),
       st.booleans())  # fmt: skip
def test_rms_norm(batch, shape, dims, eps, affine):
    dims = min(dims, len(shape))
    module = nn.RMSNorm(shape[-dims:], eps=eps, elementwise_affine=affine)
    check("rms_norm", {"dims": dims, "eps": eps, "affine": affine}, [numbers(batch, *shape)], reference=module,
          rtol=1e-4, atol=1e-5)  # fmt: skip


@some
@given(batches, sizes, st.lists(sizes, min_size=1, max_size=3), st.integers(1, 6), st.sampled_from([1e-4, 0.5]),
       st.sampled_from([0.75, 0.5]), st.sampled_from([1.0, 2.0]))  # fmt: skip
def test_local_response_norm(batch, channels, space, size, alpha, beta, k):
    check("local_response_norm", {"size": size, "alpha": alpha, "beta": beta, "k": k},
          [numbers(batch, channels, *space)], reference=nn.LocalResponseNorm(size, alpha, beta, k))  # fmt: skip


@pytest.mark.parametrize("op", ["batch_norm", "group_norm", "layer_norm", "rms_norm"])
def test_double_precision(op):
    attrs = {"groups": 2} if op == "group_norm" else {}
    check(op, attrs, [numbers(3, 4, 5).double()], onnx=False, source=False)


def test_errors_say_what_was_got():
    with pytest.raises(TypeMismatch, match="expected a multiple of groups=3"):
        ops.facts("group_norm", Attrs(groups=3), (Type((2, 4, 5)),))
    with pytest.raises(TypeMismatch, match="floating-point"):
        ops.facts("batch_norm", Attrs(), (Type((2, 4), "int64"),))
    with pytest.raises(TypeMismatch, match=r"expected shape \[5\]"):
        ops.facts("layer_norm", Attrs(), (Type((2, 5)), Type((4,))))
    with pytest.raises(GraphError, match="momentum"):
        ops.get("batch_norm").normal({"momentum": "fast"})
    assert ops.get("batch_norm").normal({"momentum": None}) == Attrs(momentum=None)
    assert ops.get("batch_norm").normal({"momentum": 0.1}) == Attrs()
