"""Reductions, softmax and cumulative sums against torch, over random shapes and dimensions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from tests.ops.harness import FEW, check


@st.composite
def reductions(draw, *, single=False):
    """(shape, dims or None, keepdim): dims counted from either end, without duplicates."""
    shape = draw(st.sampled_from([(1,), (5,), (1, 1), (3, 4), (2, 1, 5), (2, 3, 4, 5), (4, 1, 17, 9)]))
    rank = len(shape)
    if draw(st.booleans()) and draw(st.booleans()):
        return shape, None, draw(st.booleans())
    most = 1 if single else rank
    dims = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=most, unique=True))
    return shape, tuple(d - rank if draw(st.booleans()) else d for d in dims), draw(st.booleans())


def _norm(p):
    return lambda x, dim, keepdim: torch.linalg.vector_norm(x, p, dim, keepdim)


MANY = {"sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin, "logsumexp": torch.logsumexp}


def _attrs(dims, keepdim):
    return {"keepdim": keepdim} if dims is None else {"dim": dims, "keepdim": keepdim}


@pytest.mark.parametrize("name", MANY)
def test_reductions(name):
    @FEW
    @given(reductions(), st.integers(0, 99))
    def hold(case, seed):
        shape, dims, keepdim = case
        torch.manual_seed(seed)
        over = tuple(range(len(shape))) if dims is None else dims
        check(name, _attrs(dims, keepdim), [torch.randn(shape)], reference=lambda x: MANY[name](x, over, keepdim))

    hold()


@pytest.mark.parametrize("name", ["var", "std"])
def test_spread(name):
    @FEW
    @given(reductions(), st.sampled_from([0, 1, 0.5]), st.integers(0, 99))
    def hold(case, correction, seed):
        shape, dims, keepdim = case
        torch.manual_seed(seed)
        function, over = getattr(torch, name), tuple(range(len(shape))) if dims is None else dims
        x = torch.randn(shape)
        count = x.numel() // max(1, function(x, over, correction=0).numel())
        if count < 2 and (correction == 1 or name == "std"):
            return  # 0 / 0 of one element, and the root of 0 has no gradient
        check(
            name, {**_attrs(dims, keepdim), "correction": correction}, [x],
            reference=lambda x: function(x, over, correction=correction, keepdim=keepdim),
        )  # fmt: skip

    hold()


@FEW
@given(reductions(), st.sampled_from([0, 0.5, 1, 2, 3, float("inf"), -float("inf"), -1]), st.integers(0, 99))
def test_norm(case, p, seed):
    shape, dims, keepdim = case
    torch.manual_seed(seed)
    x = torch.randn(shape)
    x = x + 0.1 * x.sign()
    check("norm", {**_attrs(dims, keepdim), "p": p}, [x], reference=lambda x: _norm(p)(x, dims, keepdim), rtol=1e-4)


@pytest.mark.parametrize("name", ["prod", "argmax", "argmin"])
def test_reductions_of_one_dimension(name):
    @FEW
    @given(reductions(single=True), st.integers(0, 99))
    def hold(case, seed):
        shape, dims, keepdim = case
        torch.manual_seed(seed)

        def reference(x):
            if dims is not None:
                return getattr(torch, name)(x, dims[0], keepdim)
            made = getattr(torch, name)(x)
            return made.reshape((1,) * x.dim()) if keepdim else made

        check(name, _attrs(dims, keepdim), [torch.randn(shape)], reference=reference, rtol=1e-4)

    hold()


@pytest.mark.parametrize("name", ["any", "all"])
def test_logic(name):
    @FEW
    @given(reductions(), st.sampled_from(["bool", "float32", "int64", "uint8"]), st.integers(0, 99))
    def hold(case, dtype, seed):
        shape, dims, keepdim = case
        torch.manual_seed(seed)
        x = (torch.rand(shape) > 0.5).to(getattr(torch, dtype))
        over = tuple(range(len(shape))) if dims is None else dims
        check(name, _attrs(dims, keepdim), [x], reference=lambda x: getattr(torch, name)(x.bool(), over, keepdim))

    hold()


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_with_indices(name):
    @FEW
    @given(reductions(single=True), st.integers(0, 99))
    def hold(case, seed):
        shape, dims, keepdim = case
        torch.manual_seed(seed)
        dim = dims[0] if dims else -1
        check(
            name, {"dim": dim, "keepdim": keepdim}, [torch.randn(shape)],
            reference=lambda x: tuple(getattr(torch, name)(x, dim, keepdim)),
        )  # fmt: skip

    hold()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "cumsum", "cumprod", "logcumsumexp"])
def test_along_a_dimension(name):
    @FEW
    @given(reductions(single=True), st.integers(0, 99))
    def hold(case, seed):
        shape, dims, _ = case
        torch.manual_seed(seed)
        dim = dims[0] if dims else -1
        check(name, {"dim": dim}, [torch.randn(shape)], reference=lambda x: getattr(torch, name)(x, dim), rtol=1e-4)

    hold()


@pytest.mark.parametrize("name", ["sum", "prod", "amax", "any", "argmax", "cumsum", "cumprod", "max"])
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_whole_numbers(name, dtype):
    x = torch.tensor([[3, 0, -2], [5, 7, 1]]).to(getattr(torch, dtype))
    check(name, {"dim": 1}, [x], reference=lambda x: getattr(torch, name)(x, dim=1))


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "logsumexp", "softmax", "var", "max"])
def test_other_precision(name):
    for dtype in (torch.float64, torch.float16):
        x = torch.randn(3, 40).to(dtype)
        check(name, {"dim": 1}, [x], reference=lambda x: getattr(torch, name)(x, dim=1), onnx=False)


@pytest.mark.parametrize("name", ["sum", "mean", "amin", "any", "argmax", "prod", "var", "norm", "logsumexp"])
def test_of_a_single_number(name):
    function = {"norm": torch.linalg.vector_norm, "logsumexp": lambda x: torch.logsumexp(x, ())}
    attrs = {"correction": 0} if name == "var" else {}
    reference = function.get(name) or getattr(torch, name)
    check(name, attrs, [torch.tensor(1.5)], reference=lambda x: reference(x, **attrs), batch_dim=None)


def test_bool_extremes():
    x = torch.tensor([[True, False], [False, False]])
    check("amax", {"dim": 1}, [x], reference=lambda x: x.amax(1))
    check("sum", {"dim": 1}, [x], reference=lambda x: x.sum(1))
    check("max", {"dim": 1}, [x], reference=lambda x: tuple(x.max(1)))


def test_softmax_of_a_masked_row_stays_exact():
    x = torch.tensor([[0.0, -float("inf"), 1.0]])
    check("softmax", {"dim": -1}, [x], reference=lambda x: torch.softmax(x, -1), vmap=False)


def test_summed_dimensions_are_not_coupled_and_averaged_ones_are():
    g = ops.edit()
    x = g.input("x", (None, 6, 5))
    g.add("sum", x, dim=1, name="s")
    g.add("mean", x, dim=1, name="m")
    known = ops.analyse(g.finish("s", "m"), 2)
    s, m = (known[name].op.axes(known[name].a, known[name].x, known[name].y) for name in "sm")
    assert not s.coupled
    assert m.coupled == {m.x[0][1].label}


def test_bad_dimensions_are_refused():
    g = ops.edit()
    x = g.input("x", (None, 3, 4))
    with pytest.raises(TypeMismatch, match="expected -3 to 2"):
        g.add("sum", x, dim=3)
    with pytest.raises(TypeMismatch, match="twice"):
        g.add("sum", x, dim=(1, -2))
    with pytest.raises(TypeMismatch, match="expected one dimension"):
        g.add("prod", x, dim=(1, 2))
    with pytest.raises(GraphError, match="empty"):
        g.add("sum", x, dim=())
    with pytest.raises(TypeMismatch, match="floating point"):
        g.add("mean", g.input("ids", (None, 3), "int64"))
