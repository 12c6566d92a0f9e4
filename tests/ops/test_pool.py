"""Pooling against torch, over random windows in one, two and three dimensions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from tests.ops.harness import FEW, check


@st.composite
def windows(draw, *, padding=True, dilation=False):
    """(shape of the input, attributes): windows that fit, of one size for all dimensions or one for each."""
    rank = draw(st.integers(1, 3))
    sizes = st.lists(st.integers(1, 4), min_size=rank, max_size=rank)
    kernel = draw(st.one_of(st.integers(1, 4), sizes) if rank > 1 else st.integers(1, 4))
    attrs = {"kernel": kernel, "ceil": draw(st.booleans())}
    if draw(st.booleans()):
        attrs["stride"] = draw(st.one_of(st.integers(1, 4), sizes))
    each = kernel if isinstance(kernel, list) else [kernel] * rank
    if dilation:
        attrs["dilation"] = draw(st.integers(1, 3))
    if padding and draw(st.booleans()):
        attrs["padding"] = [draw(st.integers(0, k // 2)) for k in each]
    extent = [attrs.get("dilation", 1) * (k - 1) + 1 for k in each]
    spatial = [e + draw(st.integers(0, 5)) for e in extent]
    return (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *spatial), attrs


def _of(name, x):
    return getattr(F, f"{name}{x.dim() - 2}d")


def _given(attrs):
    """The attributes as torch's keywords."""
    names = {"kernel": "kernel_size", "ceil": "ceil_mode", "divisor": "divisor_override"}
    return {names.get(key, key): value for key, value in attrs.items()}


@settings(FEW, max_examples=40)
@given(windows(dilation=True), st.integers(0, 99))
def test_max_pool(case, seed):
    torch.manual_seed(seed)
    shape, attrs = case
    check("max_pool", attrs, [torch.randn(shape)], reference=lambda x: _of("max_pool", x)(x, **_given(attrs)))


@settings(FEW, max_examples=40)
@given(windows(), st.booleans(), st.sampled_from([None, 1, 3]), st.integers(0, 99))
def test_avg_pool(case, count, divisor, seed):
    torch.manual_seed(seed)
    shape, attrs = case
    attrs = {**attrs, "count_include_pad": count}
    if len(shape) > 3:
        attrs["divisor"] = divisor
    check("avg_pool", attrs, [torch.randn(shape)], reference=lambda x: _of("avg_pool", x)(x, **_given(attrs)))


@FEW
@given(windows(padding=False), st.sampled_from([1, 2, 3.5]), st.integers(0, 99))
def test_lp_pool(case, p, seed):
    torch.manual_seed(seed)
    shape, attrs = case
    x = torch.rand(shape) + 0.1
    check("lp_pool", {**attrs, "p": p}, [x], reference=lambda x: _of("lp_pool", x)(x, p, **_given(attrs)))


@st.composite
def targets(draw):
    """(shape of the input, size): an integer for all dimensions, or an integer or None for each."""
    rank = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), *(draw(st.integers(1, 9)) for _ in range(rank)))
    if draw(st.booleans()):
        return shape, draw(st.integers(1, 5))
    return shape, [draw(st.one_of(st.integers(1, 5), st.none())) for _ in range(rank)]


@pytest.mark.parametrize("name", ["adaptive_avg_pool", "adaptive_max_pool"])
def test_adaptive(name):
    @FEW
    @given(targets(), st.integers(0, 99))
    def hold(case, seed):
        torch.manual_seed(seed)
        shape, size = case
        whole = [n if wanted is None else wanted for n, wanted in zip(shape[2:], size, strict=True)] \
            if isinstance(size, list) else size  # fmt: skip
        check(name, {"size": size}, [torch.randn(shape)], reference=lambda x: _of(name, x)(x, whole))

    hold()


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 17, 16), (1, 2, 8, 9, 7)])
def test_larger_ones(shape):
    """What autograd keeps weighs more than the slack of the check."""
    x = torch.rand(shape)
    check("max_pool", {"kernel": 2}, [x], reference=lambda x: _of("max_pool", x)(x, 2))
    check("avg_pool", {"kernel": 3, "stride": 2}, [x], reference=lambda x: _of("avg_pool", x)(x, 3, 2))
    check("lp_pool", {"kernel": 2, "p": 2}, [x], reference=lambda x: _of("lp_pool", x)(x, 2, 2))
    for size in (1, 4):
        for name in ("adaptive_avg_pool", "adaptive_max_pool"):
            check(name, {"size": size}, [x], reference=lambda x, n=name, s=size: _of(n, x)(x, s))


def test_other_precision():
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    check("max_pool", {"kernel": 2}, [x], reference=lambda x: F.max_pool2d(x, 2), onnx=False)
    check("avg_pool", {"kernel": 2}, [x.half()], reference=lambda x: F.avg_pool2d(x, 2), onnx=False)


def test_wrong_windows_are_refused():
    g = ops.edit()
    x = g.input("x", (None, 3, 8, 8))
    for op, attrs, error, message in (
        ("max_pool", {"kernel": 9}, TypeMismatch, "does not fit"),
        ("max_pool", {"kernel": 3, "padding": 2}, TypeMismatch, "half"),
        ("avg_pool", {"kernel": (2, 2, 3)}, GraphError, "one for each of 2"),
        ("avg_pool", {"kernel": 2, "stride": 0}, TypeMismatch, "at least 1"),
        ("avg_pool", {"kernel": 2, "divisor": 0}, GraphError, "'divisor' is 0"),
        ("lp_pool", {"kernel": 2, "p": 0}, GraphError, "above 0"),
        ("adaptive_avg_pool", {"size": (2, 2, 2)}, GraphError, "one for each of 2"),
        ("adaptive_avg_pool", {"size": 0}, TypeMismatch, "at least 1"),
        ("adaptive_avg_pool", {"size": "all"}, GraphError, "expected an integer"),
    ):
        with pytest.raises(error, match=message):
            g.add(op, x, **attrs)
    with pytest.raises(TypeMismatch, match="rank 3 to 5"):
        g.add("max_pool", g.input("y", (None, 3)), kernel=2)
    with pytest.raises(TypeMismatch, match="floating-point"):
        g.add("max_pool", g.input("z", (None, 3, 8), "int64"), kernel=2)
    with pytest.raises(TypeMismatch, match="has none"):
        g.add("avg_pool", g.input("v", (None, 3, 8)), kernel=2, divisor=3)
