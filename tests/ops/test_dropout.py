"""Dropouts against torch.nn with the same seed, and ops that draw fresh numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Attrs, Type
from tests.ops.harness import check

some = settings(max_examples=12, deadline=None, derandomize=True)
shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4)
chances = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])


def numbers(shape: list[int]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def run(op: str, attrs: dict, *inputs: torch.Tensor, train: bool = False, seed: int = 0) -> torch.Tensor:
    known = ops.get(op)
    torch.manual_seed(seed)
    return known.run(known.full(known.normal(attrs)), inputs, {}, train)


@some
@given(shapes, chances, st.booleans())
def test_dropout(shape, p, train):
    check("dropout", {"p": p}, [numbers(shape)], reference=nn.Dropout(p), train=train)


@some
@given(st.lists(st.integers(1, 5), min_size=3, max_size=5), chances, st.booleans())
def test_feature_dropout(shape, p, train):
    module = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)[len(shape) - 3](p)
    check("feature_dropout", {"p": p}, [numbers(shape)], reference=module, train=train)


def test_feature_dropout_of_a_matrix():
    check("feature_dropout", {"p": 0.25}, [numbers([3, 4])], train=True)


@some
@given(shapes, st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.booleans())
def test_alpha_dropout(shape, p, train):
    check("alpha_dropout", {"p": p}, [numbers(shape)], reference=nn.AlphaDropout(p), train=train)


def torchvision_stochastic_depth(x, p, mode):
    """The numbers that torchvision.ops.stochastic_depth makes in training."""
    if p == 0.0:
        return x
    size = [x.shape[0]] + [1] * (x.ndim - 1) if mode == "row" else [1] * x.ndim
    noise = torch.empty(size, dtype=x.dtype, device=x.device).bernoulli_(1.0 - p)
    if p < 1.0:
        noise.div_(1.0 - p)
    return x * noise


@some
@given(shapes, chances, st.sampled_from(["row", "batch"]))
def test_stochastic_depth(shape, p, mode):
    check("stochastic_depth", {"p": p, "mode": mode}, [numbers(shape)], train=True,
          reference=lambda x: torchvision_stochastic_depth(x, p, mode))  # fmt: skip


def test_stochastic_depth_drawn_the_older_way():
    def reference(x):
        mask = (0.7 + torch.rand((x.shape[0], 1, 1))).floor_()
        return x.div(0.7) * mask

    check("stochastic_depth", {"p": 0.3, "draw": "uniform"}, [numbers((5, 3, 2))], train=True, reference=reference)


@pytest.mark.parametrize("op", ["dropout", "feature_dropout", "alpha_dropout", "stochastic_depth"])
def test_nets_in_a_batch_draw_their_own_numbers(op):
    x = torch.ones(2, 64, 3, 2)
    made = torch.func.vmap(lambda x: run(op, {}, x, train=True), randomness="different")(x)
    assert not torch.equal(made[0], made[1])


@pytest.mark.parametrize("kind", ["uniform", "normal", "zeros", "bernoulli"])
def test_random(kind):
    x = torch.zeros(3, 2)
    for shape, wanted, inputs in (((4, 5), (4, 5), []), ((0, 5), (3, 5), [x]), ((), (), [])):
        torch.manual_seed(0)
        reference = {
            "uniform": torch.rand, "normal": torch.randn, "zeros": torch.zeros,
            "bernoulli": lambda s: torch.empty(s).bernoulli_(0.3),
        }[kind](wanted)  # fmt: skip
        attrs = {"shape": shape, "kind": kind} | ({"p": 0.3} if kind == "bernoulli" else {})
        torch.testing.assert_close(run("random", attrs, *inputs), reference, rtol=0, atol=0)
        check("random", attrs, inputs, onnx=kind == "zeros", vmap=kind == "zeros")
    assert run("random", {"shape": (2,), "kind": kind, "dtype": "float64"}).dtype == torch.float64


@pytest.mark.parametrize("kind", ["uniform", "normal", "zeros"])
def test_random_like(kind):
    x = torch.zeros(3, 2)
    torch.manual_seed(0)
    wanted = {"uniform": torch.rand, "normal": torch.randn, "zeros": torch.zeros}[kind]((3, 2))
    torch.testing.assert_close(run("random_like", {"kind": kind}, x), wanted, rtol=0, atol=0)
    check("random_like", {"kind": kind}, [x], onnx=kind == "zeros", vmap=kind == "zeros")


def test_bernoulli():
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    wanted = torch.bernoulli(x)
    torch.testing.assert_close(run("bernoulli", {}, x), wanted, rtol=0, atol=0)
    check("bernoulli", {}, [x], onnx=False, vmap=False)


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("random", {"shape": (0, 500), "kind": kind}) for kind in ("uniform", "normal", "bernoulli")]
    + [("random_like", {"kind": kind}) for kind in ("uniform", "normal")]
    + [("bernoulli", {})],
)
def test_onnx_draws_from_the_same_distribution(op, attrs, tmp_path):
    import onnxruntime

    from archwright.exchange.onnx import to_onnx
    from archwright.net.net import Net
    from tests.ops.harness import one_node

    x = torch.full((1000, 500), 0.5)  # ONNX Runtime's draws have no seed here: the tolerance is 15 standard errors
    to_onnx(Net(one_node(op, attrs, [x], [0]), {}), tmp_path / "model.onnx", check=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    got = torch.as_tensor(session.run(None, {"x0": x.numpy()})[0])
    wanted = run(op, attrs, x)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got.mean(), wanted.mean(), rtol=0, atol=0.03)
    torch.testing.assert_close(got.std(), wanted.std(), rtol=0, atol=0.03)


def test_errors_say_what_was_got():
    with pytest.raises(TypeMismatch, match=r"p=1.5"):
        ops.facts("dropout", Attrs(p=1.5), (Type((2, 4)),))
    with pytest.raises(TypeMismatch, match="there is none"):
        ops.facts("random", Attrs(shape=(0, 2)), ())
    with pytest.raises(GraphError, match="mode"):
        ops.get("stochastic_depth").normal({"mode": "column"})
