"""Point by point arithmetic against torch: functions of one tensor, of two, and of a tensor and a number."""

import itertools
import operator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import ArchwrightError, GraphError, TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import promote
from archwright.ops.pointwise import scalar_dtype
from tests.ops.harness import FEW, check

ANY = [
    "neg", "abs", "exp", "expm1", "exp2", "square", "sin", "cos", "tan", "atan", "sinh", "cosh", "erf", "floor", "ceil",
    "round", "trunc", "sign", "logical_not", "isnan", "isinf", "detach",
]  # fmt: skip
POSITIVE = ["log", "log2", "log1p", "sqrt", "rsqrt", "reciprocal"]
UNIT = ["asin", "acos"]
UNARY = [*ANY, *POSITIVE, *UNIT]


def _input(name: str, shape, dtype=torch.float32):
    if name in POSITIVE:
        return (torch.rand(shape) * 3 + 0.05).to(dtype)
    if name in UNIT:
        return (torch.rand(shape) * 1.8 - 0.9).to(dtype)
    return torch.randn(shape).to(dtype)


# --------------------------------------------------------------------------------------------------------- one input
@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (1, 1), (2, 1, 40, 9)])
def test_unary(name, shape):
    torch.manual_seed(0)
    check(name, {}, [_input(name, shape)], reference=getattr(torch, name), batch_dim=0 if shape else None)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_unary_in_other_precision(name, dtype):
    torch.manual_seed(0)
    check(name, {}, [_input(name, (2, 5), dtype)], reference=getattr(torch, name), onnx=False)


@pytest.mark.parametrize("name", [*UNARY, "bitwise_not"])
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if "bfloat" not in dtype])
def test_unary_takes_the_dtypes_that_torch_takes(name, dtype):
    x = torch.ones(2, 3, dtype=getattr(torch, dtype))
    try:
        getattr(torch, name)(x)
    except (RuntimeError, NotImplementedError, TypeError):
        g = ops.edit()
        with pytest.raises(TypeMismatch, match="expected"):
            g.add(name, g.input("x", (None, 3), dtype))
    else:
        check(name, {}, [x], onnx=False, source=False, vmap=False, reference=getattr(torch, name), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["neg", "abs", "sign", "floor", "trunc", "exp", "sqrt", "logical_not", "bitwise_not"])
def test_unary_of_whole_numbers(name):
    check(name, {}, [torch.tensor([[4, 0, 3], [7, 1, 2]])], reference=getattr(torch, name))


def test_unary_near_zero_and_far_from_it():
    """expm1 and log1p keep their digits near 0; nothing overflows that need not."""
    x = torch.tensor([[-1e-7, 1e-7, -1e-4, 1e-4, 0.0, 80.0, -80.0]])
    check("expm1", {}, [x], reference=torch.expm1, rtol=1e-6, atol=1e-9)
    check("log1p", {}, [x[:, :6]], reference=torch.log1p, rtol=1e-6, atol=1e-9)
    odd = torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.0, -0.5, 0.5, 1.5, -2.5]])
    for name in ("isnan", "isinf", "round", "abs"):
        check(name, {}, [odd], reference=getattr(torch, name), grad=False)


@pytest.mark.parametrize("name", ["neg", "abs", "exp", "square", "reciprocal", "identity", "detach"])
def test_unary_of_complex_numbers(name):
    torch.manual_seed(0)
    check(name, {}, [torch.randn(2, 5, dtype=torch.complex64)], reference=getattr(torch, name, lambda x: x))


def test_complex_numbers_without_a_form_in_onnx_are_refused():
    with pytest.raises(AssertionError, match="no form in ONNX"):
        check("sin", {}, [torch.randn(2, 5, dtype=torch.complex64)])


@FEW
@given(
    st.sampled_from(["float32", "int64", "int32", "bool", "uint8"]),
    st.sampled_from(["float32", "float64", "float16", "int64", "int32", "bool", "complex64"]),
)
def test_cast(source, target):
    x = torch.tensor([[0, 1, 3], [2, 0, 5]]).to(getattr(torch, source))
    check("cast", {"dtype": target}, [x], reference=lambda x: x.to(getattr(torch, target)))


@FEW
@given(
    st.sampled_from([torch.float32, torch.int64, torch.float64]),
    st.one_of(st.none(), st.integers(-3, 0), st.floats(-1, 0)),
    st.one_of(st.integers(1, 3), st.floats(0.1, 2)),
    st.booleans(),
)
def test_clamp(dtype, low, high, swapped):
    torch.manual_seed(0)
    low, high = (None if low is None else -high, None if low is None else -low) if swapped else (low, high)
    if high is None:
        low = 0.5
    attrs = {key: value for key, value in (("min", low), ("max", high)) if value is not None}
    x = (3 * torch.randn(3, 7)).to(dtype)
    check("clamp", attrs, [x], reference=lambda x: torch.clamp(x, low, high), onnx=dtype != torch.float64)


def test_clamp_needs_a_bound():
    g = ops.edit()
    with pytest.raises(GraphError, match="neither 'min' nor 'max'"):
        g.add("clamp", g.input("x", (None, 3)))


# --------------------------------------------------------------------------------------------------------- two inputs
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
    "minimum": torch.minimum, "remainder": torch.remainder, "atan2": torch.atan2, "eq": torch.eq, "ne": torch.ne,
    "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge, "logical_and": torch.logical_and,
    "logical_or": torch.logical_or, "logical_xor": torch.logical_xor, "pow": torch.pow,
}  # fmt: skip
BITS = {"bitwise_and": torch.bitwise_and, "bitwise_or": torch.bitwise_or}
SYMBOLS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "pow": operator.pow,
    "remainder": operator.mod, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
    "gt": operator.gt, "ge": operator.ge, "bitwise_and": operator.and_, "bitwise_or": operator.or_,
}  # fmt: skip

PAIRS = st.sampled_from([
    ((2, 3), (2, 3)), ((2, 3), (3,)), ((4, 1, 5), (3, 1)), ((3, 40), (1, 1)), ((2, 3, 4), (1, 3, 1)), ((2, 1), (1, 5)),
    ((2, 5), ()), ((), (2, 5)), ((1, 1), (1, 1)), ((7,), (3, 1)),
])  # fmt: skip


def _operand(shape, positive):
    x = torch.randn(shape).round(decimals=1) + 0.0  # no -0.0
    return x.abs() + 0.5 if positive else x


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    @FEW
    @given(PAIRS, st.integers(0, 99))
    def hold(shapes, seed):
        torch.manual_seed(seed)
        x = [_operand(shape, name in ("pow", "remainder", "div")) for shape in shapes]
        if name == "remainder":
            x = [x[0] * torch.randn(x[0].shape).sign(), x[1] * torch.randn(x[1].shape).sign()]
        check(name, {}, x, reference=BINARY[name], batch_dim=None)

    hold()


@pytest.mark.parametrize("name", ["add", "mul", "pow"])
def test_the_batch_of_one_operand_is_broadcast(name):
    x = [torch.rand(3, 4), torch.rand(4)]
    check(name, {}, x, reference=BINARY[name], batch_dim=[0, None])
    check(name, {}, [x[1], x[0]], reference=BINARY[name], batch_dim=[None, 0])


@pytest.mark.parametrize("name", [*BINARY, *BITS])
def test_binary_of_whole_numbers(name):
    x = torch.tensor([[7, -7, 0, 4], [5, 3, 1, -8]])
    y = torch.tensor([[2, 2, 3, -3], [5, 1, -2, 4]])
    reference = {**BINARY, **BITS}[name]
    check(name, {}, [x, y.abs() if name == "pow" else y], reference=reference)
    check(name, {}, [x.int(), (y.abs() if name == "pow" else y).int()], reference=reference)


@pytest.mark.parametrize("name", ["add", "mul", "maximum", "minimum", "logical_xor", "eq", "lt", "ge", *BITS])
def test_binary_of_bools(name):
    x, y = torch.tensor([[True, False, True, False]]), torch.tensor([[True, True, False, False]])
    check(name, {}, [x, y], reference={**BINARY, **BITS}[name])


@pytest.mark.parametrize("name", ["add", "mul", "div", "atan2", "lt", "maximum"])
def test_binary_of_mixed_dtypes(name):
    x, y = torch.tensor([[1, 2, -3]]), torch.tensor([[0.5, -2.0, 4.0]])
    check(name, {}, [x, y], reference=BINARY[name])
    check(name, {}, [y, x], reference=BINARY[name])
    check(name, {}, [y.double(), y], reference=BINARY[name], onnx=False)
    check(name, {}, [y.half(), y], reference=BINARY[name], onnx=False)


@pytest.mark.parametrize("name", [*BINARY, *BITS])
def test_with_a_number(name):
    whole = name in BITS
    function = {**BINARY, **BITS}[name]
    symbol = SYMBOLS.get(name)

    @FEW
    @given(
        st.sampled_from(["float32", "int64", "float64"] if not whole else ["int64", "int32"]),
        st.one_of(st.integers(1, 4), st.floats(0.5, 3)) if not whole else st.integers(1, 9),
        st.booleans(),
        st.integers(0, 99),
    )
    def hold(dtype, value, reverse, seed):
        torch.manual_seed(seed)
        x = (torch.rand(3, 5) * 4 + 1).to(getattr(torch, dtype))

        def reference(x):
            if symbol is not None and not (name in ("div", "remainder") and reverse):
                return symbol(value, x) if reverse else symbol(x, value)
            number = torch.full((), value, dtype=getattr(torch, scalar_dtype(dtype, value)))
            return function(number, x) if reverse else function(x, number)

        check(name, {"value": value, "reverse": reverse}, [x], reference=reference, onnx=dtype != "float64", atol=1e-5)

    hold()


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_div_rounds(rounding):
    def reference(x, y):
        return torch.div(x, y, rounding_mode=rounding)

    x, y = torch.tensor([[7, -7, 0, 4, -4]]), torch.tensor([[2, 2, 3, -3, -4]])
    check("div", {"rounding": rounding}, [x, y], reference=reference)
    check("div", {"rounding": rounding}, [x.float(), y * 0.7], reference=reference)
    check("div", {"rounding": rounding, "value": 2}, [x], reference=lambda x: reference(x, 2))
    check("div", {"rounding": rounding, "value": 2.5}, [x.float()], reference=lambda x: reference(x, 2.5))
    check(
        "div", {"rounding": rounding, "value": 2.5, "reverse": True}, [y * 0.7],
        reference=lambda y: reference(torch.tensor(2.5), y),
    )  # fmt: skip


def test_atan2_in_all_quadrants():
    y, x = torch.tensor([[0.0, 0, 1, 1, 1, -1, -1, -1]]), torch.tensor([[0.0, 2, 0, 2, -2, 0, 2, -2]])
    check("atan2", {}, [y, x], reference=torch.atan2, grad=False)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_binary_of_complex_numbers(name):
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 5, dtype=torch.complex64), torch.randn(3, 1, dtype=torch.complex64)
    check(name, {}, [x, y], reference=BINARY[name], batch_dim=[0, None])
    check(name, {}, [x, y.real], reference=BINARY[name], batch_dim=[0, None])
    check(name, {"value": 2.5}, [x], reference=lambda x: BINARY[name](x, 2.5))


def test_infinity_as_a_number():
    x = torch.tensor([[1.0, float("inf"), -2.0]])
    check("lt", {"value": float("inf")}, [x], reference=lambda x: x < float("inf"))
    check("minimum", {"value": float("inf")}, [x], reference=lambda x: x.minimum(torch.tensor(float("inf"))))


def test_binary_takes_the_dtypes_that_torch_takes():
    """Every op with every pair of dtypes: the same dtype, or an error in both."""
    some = ("bool", "uint8", "int32", "int64", "float16", "float32", "float64", "complex64")
    for name, function in {**BINARY, **BITS}.items():
        for left, right in itertools.product(some, some):
            x = [torch.ones(2, dtype=getattr(torch, dtype)) for dtype in (left, right)]
            try:
                wanted = str(function(*x).dtype).removeprefix("torch.")
            except (RuntimeError, NotImplementedError):
                wanted = None
            try:
                got = ops.facts(name, ops.get(name).normal({}), tuple(Type((2,), d) for d in (left, right))).y[0].dtype
            except TypeMismatch:
                got = None
            assert got == wanted, f"{name} of {left} and {right} gives {got}, torch gives {wanted}"


def test_dtypes_promote_as_in_torch():
    for (left, a), (right, b) in itertools.product(itertools.product(DTYPES, ((), (2,))), repeat=2):
        x, y = torch.ones(a, dtype=getattr(torch, left)), torch.ones(b, dtype=getattr(torch, right))
        wanted = torch.result_type(x, y)
        if wanted == torch.complex32:  # not a dtype of ours
            continue
        assert promote((Type(a, left), Type(b, right))) == str(wanted).removeprefix("torch."), (left, a, right, b)
    for dtype, value in itertools.product(DTYPES, (True, 2, 2.5)):
        wanted = torch.result_type(torch.ones(2, dtype=getattr(torch, dtype)), value)
        assert scalar_dtype(dtype, value) == str(wanted).removeprefix("torch."), (dtype, value)


def test_wrong_operands_are_refused():
    g = ops.edit()
    x, y = g.input("x", (None, 3)), g.input("y", (None, 4))
    with pytest.raises(TypeMismatch, match="do not broadcast"):
        g.add("add", x, y)
    with pytest.raises(GraphError, match="give a second input"):
        g.add("add", x)
    with pytest.raises(GraphError, match="got two inputs"):
        g.add("add", x, x, value=2)
    with pytest.raises(ArchwrightError, match="expected a number"):
        g.add("add", x, value="two")


# ----------------------------------------------------------------------------------------- where, masked_fill, lerp
@FEW
@given(PAIRS, st.sampled_from(["float32", "int64", "bool"]), st.integers(0, 99))
def test_where(shapes, dtype, seed):
    torch.manual_seed(seed)
    x = [(3 * torch.randn(shape)).to(getattr(torch, dtype)) for shape in shapes]
    condition = torch.rand(torch.broadcast_shapes(*shapes)[-1:]) > 0.5
    check("where", {}, [condition, *x], reference=torch.where, batch_dim=None)


def test_where_of_mixed_and_complex_dtypes():
    condition = torch.tensor([[True, False, True]])
    x = [condition, torch.ones(1, 3), torch.tensor([1, 2, 3])]
    check("where", {}, x, reference=torch.where, batch_dim=[0, 0, None])
    x = [condition, torch.randn(1, 3, dtype=torch.complex64), torch.ones(1, 3)]
    check("where", {}, x, reference=torch.where, grad=False)  # torch has no gradient here


@FEW
@given(PAIRS, st.sampled_from(["float32", "int64", "bool"]), st.sampled_from([0, 2, -1.5, -float("inf")]))
def test_masked_fill(shapes, dtype, value):
    torch.manual_seed(0)
    if dtype != "float32":
        value = bool(value) if dtype == "bool" else 7
    x, mask = torch.randn(shapes[0]).to(getattr(torch, dtype)), torch.rand(shapes[1]) > 0.5
    check("masked_fill", {"value": value}, [x, mask], reference=lambda x, m: x.masked_fill(m, value), batch_dim=None)


@FEW
@given(PAIRS, st.one_of(st.none(), st.floats(-0.5, 1.5)))
def test_lerp(shapes, weight):
    torch.manual_seed(0)
    x = [torch.randn(shape) for shape in shapes]
    if weight is None:
        check("lerp", {}, [*x, torch.rand(shapes[1])], reference=torch.lerp, batch_dim=None)
    else:
        check("lerp", {"weight": weight}, x, reference=lambda x, y: torch.lerp(x, y, weight), batch_dim=None)


def test_masks_and_weights_are_checked():
    g = ops.edit()
    x = g.input("x", (None, 3))
    for op, given_, attrs in (("where", (x, x, x), {}), ("masked_fill", (x, x), {"value": 1})):
        with pytest.raises(TypeMismatch, match="expected bool"):
            g.add(op, *given_, **attrs)
    with pytest.raises(GraphError, match="third input"):
        g.add("lerp", x, x)
