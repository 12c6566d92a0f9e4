"""Fourier and cosine transforms against torch.fft and scipy.fft, and the parts of complex numbers."""

import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from tests.ops.harness import FEW, check

NORMS = st.sampled_from(["backward", "forward", "ortho"])


def _signal(shape, is_complex, seed):
    torch.manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex64 if is_complex else torch.float32)


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft"])
def test_along_one_dimension(name):
    @FEW
    @given(
        st.sampled_from([(2, 8), (1, 7), (2, 3, 5), (2, 2, 3, 16)]), st.integers(-1, 3),
        st.one_of(st.none(), st.integers(1, 20)), NORMS, st.booleans(), st.integers(0, 99),
    )  # fmt: skip
    def hold(shape, dim, n, norm, is_complex, seed):
        dim = -1 if dim < 1 else max(1, dim % len(shape))
        x = _signal(shape, name == "irfft" or (is_complex and name != "rfft"), seed)
        attrs = {"dim": dim, "norm": norm} | ({} if n is None else {"n": n})
        # the first and, of an even number, the last entry of a spectrum are real: what torch does with their imaginary
        # parts is not defined
        check(name, attrs, [x], reference=lambda x: getattr(torch.fft, name)(x, n, dim, norm), atol=1e-5)

    hold()


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_along_several_dimensions(name):
    @FEW
    @given(
        st.sampled_from([
            ((2, 4, 6), (1, 2)), ((2, 5, 13), (-1, -2)), ((1, 3, 4, 5), (2, 3)), ((2, 3, 2, 4), (1, 2, 3)),
            ((2, 7), (1,)),
        ]),
        st.booleans(), NORMS, st.integers(0, 99),
    )  # fmt: skip
    def hold(case, sized, norm, seed):
        shape, dims = case
        size = tuple(shape[d] + step for d, step in zip(dims, (1, -1, 2), strict=False)) if sized else None
        x = _signal(shape, name in ("fftn", "ifftn", "irfftn"), seed)
        attrs = {"dims": dims, "norm": norm} | ({} if size is None else {"size": size})
        check(name, attrs, [x], reference=lambda x: getattr(torch.fft, name)(x, size, dims, norm), atol=1e-4)

    hold()


def test_transforms_of_real_and_double_numbers():
    x = torch.randn(2, 3, 8)
    check("fft", {}, [x], reference=torch.fft.fft, atol=1e-5)
    check("fftn", {"dims": (1, 2)}, [x], reference=lambda x: torch.fft.fftn(x, dim=(1, 2)), atol=1e-5)
    check("irfft", {}, [x], reference=torch.fft.irfft, atol=1e-5)
    check("rfft", {}, [x.double()], reference=torch.fft.rfft, onnx=False)
    check("fft", {"dim": 1}, [x.to(torch.complex128)], reference=lambda x: torch.fft.fft(x, dim=1), onnx=False)


@pytest.mark.parametrize("name", ["real", "imag", "angle", "conj", "view_as_real"])
def test_parts_of_complex_numbers(name):
    x = _signal((2, 3, 40), True, 0)
    check(name, {}, [x], reference=lambda x: getattr(torch, name)(x))
    check(name, {}, [x[0, 0, 0]], reference=lambda x: getattr(torch, name)(x), batch_dim=None, onnx=False)


@pytest.mark.parametrize("name", ["real", "angle", "conj"])
def test_parts_of_real_numbers(name):
    check(name, {}, [torch.randn(2, 3)], reference=lambda x: getattr(torch, name)(x))


def test_pairs_as_complex_numbers():
    check("view_as_complex", {}, [torch.randn(2, 5, 2)], reference=torch.view_as_complex)


@pytest.mark.parametrize("inverse", [False, True])
def test_cosine_transforms(inverse):
    name = "idct" if inverse else "dct"

    @settings(FEW, max_examples=30)
    @given(
        st.sampled_from([(8,), (2, 7), (2, 3, 4), (1, 2, 9, 2)]), st.integers(-1, 3), st.integers(1, 4),
        st.sampled_from(["ortho", None]), st.integers(0, 99),
    )  # fmt: skip
    def hold(shape, dim, kind, norm, seed):
        dim = max(-1, dim % len(shape)) if dim > 0 else -1
        x = _signal(shape, False, seed)
        wanted = getattr(scipy.fft, name)(x.double().numpy(), kind, axis=dim, norm=norm)
        got = ops.get(name).run({"dim": dim, "kind": kind, "norm": norm}, [x.double()], {}, False)
        torch.testing.assert_close(got, torch.as_tensor(wanted), rtol=1e-9, atol=1e-9)
        batch = None if dim % len(shape) == 0 else 0
        check(name, {"dim": dim, "kind": kind, "norm": norm}, [x], batch_dim=batch, atol=1e-5)

    hold()


def test_cosine_transform_and_back():
    x = torch.randn(2, 40)
    y = ops.get("dct").run(ops.get("dct").full({}), [x], {}, False)
    torch.testing.assert_close(ops.get("idct").run(ops.get("idct").full({}), [y], {}, False), x)


def test_wrong_signals_are_refused():
    g = ops.edit()
    x, z = g.input("x", (None, 1)), g.input("z", (None, 4), "complex64")
    for op, value, attrs, error, message in (
        ("rfft", z, {}, TypeMismatch, "expected a real one"),
        ("irfft", x, {}, TypeMismatch, "at least 1"),
        ("fftn", z, {"dims": (1, -1)}, TypeMismatch, "twice"),
        ("fftn", z, {"dims": ()}, GraphError, "empty"),
        ("fftn", z, {"dims": (1,), "size": (2, 3)}, GraphError, "2 entries"),
        ("fft", g.input("h", (None, 4), "float16"), {}, TypeMismatch, "cast it first"),
        ("imag", x, {}, TypeMismatch, "expected complex"),
        ("view_as_complex", x, {}, TypeMismatch, "last dimension of 2"),
        ("view_as_real", x, {}, TypeMismatch, "expected a complex one"),
        ("dct", x, {"kind": 1}, TypeMismatch, "expected more"),
        ("dct", z, {}, TypeMismatch, "floating-point"),
    ):
        with pytest.raises(error, match=message):
            g.add(op, value, **attrs)
