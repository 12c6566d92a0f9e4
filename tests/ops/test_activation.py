"""Activations against torch.nn.functional, over random attributes, shapes and dtypes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import TypeMismatch
from tests.ops.harness import FEW, check

PLAIN = {
    "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "mish": F.mish,
    "selu": F.selu, "softsign": F.softsign, "tanhshrink": F.tanhshrink, "log_sigmoid": F.logsigmoid,
    "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish,
}  # fmt: skip

SLOPES = st.floats(0.01, 3.0)
WITH_ATTRS = {
    "gelu": (F.gelu, {"approximate": st.sampled_from(["none", "tanh"])}, {}),
    "leaky_relu": (F.leaky_relu, {"slope": SLOPES}, {"slope": "negative_slope"}),
    "elu": (F.elu, {"alpha": SLOPES}, {}),
    "celu": (F.celu, {"alpha": SLOPES}, {}),
    "hardtanh": (F.hardtanh, {"min": st.floats(-2, 0), "max": st.floats(0.5, 2)}, {"min": "min_val", "max": "max_val"}),
    "softplus": (F.softplus, {"beta": SLOPES, "threshold": st.floats(0.5, 30)}, {}),
    "softshrink": (F.softshrink, {"lambd": SLOPES}, {}),
    "hardshrink": (F.hardshrink, {"lambd": SLOPES}, {}),
    "threshold": (F.threshold, {"threshold": st.floats(-1, 1), "value": st.floats(-5, 5)}, {}),
}

SHAPES = st.sampled_from([(1,), (3,), (1, 1), (2, 7), (3, 4, 1), (2, 3, 5, 5), (2, 1, 3, 2, 2)])


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("shape", [(), (1,), (3, 7), (2, 1, 5, 16, 9)])
def test_plain(name, shape):
    torch.manual_seed(0)
    check(name, {}, [3 * torch.randn(shape)], reference=PLAIN[name], batch_dim=0 if shape else None)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(name, dtype):
    torch.manual_seed(1)
    check(name, {}, [3 * torch.randn(2, 5).to(dtype)], reference=PLAIN[name], onnx=False)


@pytest.mark.parametrize("name", WITH_ATTRS)
def test_with_attributes(name):
    function, drawn, renamed = WITH_ATTRS[name]

    @FEW
    @given(st.fixed_dictionaries({}, optional=drawn), SHAPES, st.integers(0, 99))
    def hold(attrs, shape, seed):
        if name == "threshold" and len(attrs) < 2:
            attrs = {"threshold": 0.1, "value": -1.0, **attrs}
        torch.manual_seed(seed)
        options = {renamed.get(key, key): value for key, value in attrs.items()}
        check(name, attrs, [3 * torch.randn(shape)], reference=lambda x: function(x, **options))

    hold()


@FEW
@given(SHAPES, st.booleans(), st.integers(0, 99))
def test_prelu(shape, many, seed):
    torch.manual_seed(seed)
    num = shape[1] if many and len(shape) > 1 else 1
    x = torch.randn(shape)
    check("prelu", {"num": num}, [x], reference=torch.nn.PReLU(num))
    # with the slopes as a value of the graph; in vmap both are batched, which torch's prelu takes too
    check("prelu", {}, [x, torch.randn(num)], reference=F.prelu, batch_dim=[0, None])


@FEW
@given(SHAPES, st.integers(-5, 4), st.integers(0, 99))
def test_glu(shape, dim, seed):
    torch.manual_seed(seed)
    dim = dim % len(shape) - (len(shape) if dim < 0 else 0)
    shape = tuple(2 * n if i == dim % len(shape) else n for i, n in enumerate(shape))
    check(
        "glu", {"dim": dim}, [torch.randn(shape)], reference=lambda x: F.glu(x, dim),
        batch_dim=None if dim % len(shape) == 0 else 0,
    )  # fmt: skip


@pytest.mark.parametrize("train", [False, True])
def test_rrelu(train):
    torch.manual_seed(0)
    x = torch.randn(3, 40)
    check("rrelu", {}, [x], reference=lambda x: F.rrelu(x, training=train), train=train)
    check("rrelu", {"lower": 0.2, "upper": 0.9}, [x], reference=lambda x: F.rrelu(x, 0.2, 0.9, train), train=train)


@pytest.mark.parametrize("name", [*PLAIN, "gelu", "elu", "softplus"])
def test_dtypes_are_refused_as_by_torch(name):
    function = PLAIN.get(name) or WITH_ATTRS[name][0]
    for dtype in ("bool", "uint8", "int32", "int64", "complex64"):
        if (name, dtype) in (("relu6", "uint8"), ("silu", "complex64")):
            continue  # bounds that don't fit; no gradient
        x = torch.ones(2, 3, dtype=getattr(torch, dtype))
        try:
            function(x)
        except (RuntimeError, NotImplementedError):
            g = ops.edit()
            with pytest.raises(TypeMismatch, match="expected"):
                g.add(name, g.input("x", (None, 3), dtype))
        else:
            check(name, {}, [x], onnx=False, reference=function)


def test_bad_inputs_are_refused():
    g = ops.edit()
    x = g.input("x", (None, 3))
    with pytest.raises(TypeMismatch, match="odd"):
        g.add("glu", x)
    with pytest.raises(TypeMismatch, match="3 channels"):
        g.add("prelu", x, num=2)
