"""matmul and einsum against torch: all ranks, broadcasting, random equations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ops.matmul import parse
from tests.ops.harness import FEW, check

SIZES = st.integers(1, 6)


@st.composite
def products(draw):
    """Two shapes that torch.matmul takes."""
    n, k, m = draw(st.tuples(SIZES, st.integers(1, 24), SIZES))
    batch = draw(st.lists(st.integers(1, 4), max_size=2))
    left, right = ([1 if draw(st.integers(0, 3)) == 0 else b for b in batch] for _ in range(2))
    left, right = left[draw(st.integers(0, len(left))) :], right[draw(st.integers(0, len(right))) :]
    if not left and draw(st.integers(0, 2)) == 0:
        return (k,), (*right, k, m) if draw(st.booleans()) or right else (k,)
    if not right and draw(st.integers(0, 2)) == 0:
        return (*left, n, k), (k,)
    return (*left, n, k), (*right, k, m)


@settings(FEW, max_examples=40)
@given(products(), st.integers(0, 99))
def test_matmul(shapes, seed):
    torch.manual_seed(seed)
    check("matmul", {}, [torch.randn(s) for s in shapes], reference=torch.matmul, batch_dim=None, atol=1e-5)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((5, 7), (7, 3)), ((4, 5, 7), (7, 30)), ((4, 8, 9), (4, 9, 8)), ((2, 3, 20, 8), (2, 3, 8, 20)),
        ((30,), (2, 30, 7)), ((6, 30), (5, 30, 7)), ((2, 3, 8, 9), (3, 9, 40)), ((2, 1, 8, 9), (2, 3, 9, 40)),
        ((3, 1, 8, 9), (1, 5, 9, 40)),
    ],
)  # fmt: skip
def test_what_autograd_keeps_of_matmul(left, right):
    check("matmul", {}, [torch.randn(left), torch.randn(right)], reference=torch.matmul, batch_dim=None, atol=1e-5)


def test_the_batch_of_matmul():
    x, y = torch.randn(3, 4, 5), torch.randn(3, 5, 2)
    check("matmul", {}, [x, y], reference=torch.matmul)
    check("matmul", {}, [x, y[0]], reference=torch.matmul, batch_dim=[0, None])
    check("matmul", {}, [x[0], y], reference=torch.matmul, batch_dim=[None, 0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_matmul_in_other_dtypes(dtype):
    x, y = (3 * torch.randn(2, 4, 5)).to(dtype), (3 * torch.randn(5, 2)).to(dtype)
    onnx = dtype != torch.float16
    check("matmul", {}, [x, y], reference=torch.matmul, batch_dim=[0, None], onnx=onnx, atol=1e-2, rtol=1e-2)


def test_complex_products():
    x, y = torch.randn(2, 4, 5, dtype=torch.complex64), torch.randn(5, 3, dtype=torch.complex64)
    check("matmul", {}, [x, y], reference=torch.matmul, batch_dim=[0, None], atol=1e-5)
    check(
        "einsum", {"equation": "bik,kj->bij"}, [x, y], reference=lambda *x: torch.einsum("bik,kj->bij", *x),
        batch_dim=[0, None], atol=1e-5,
    )  # fmt: skip


EQUATIONS = [
    ("bi,ij->bj", (3, 4), (4, 5)), ("bqd,bkd->bqk", (2, 5, 8), (2, 6, 8)),
    ("bhqd,bhkd->bhqk", (2, 3, 5, 8), (2, 3, 7, 8)), ("bqhd,bkhd->bhqk", (2, 5, 3, 8), (2, 7, 3, 8)),
    ("bixy,ioxy->boxy", (2, 3, 4, 5), (3, 6, 4, 5)), ("bi,bj->bij", (3, 4), (3, 5)), ("i,j->ij", (4,), (5,)),
    ("i,i->", (40,), (40,)), ("ij,ij->ij", (3, 4), (3, 4)), ("bi,oij,bj->bo", (3, 4), (5, 4, 6), (3, 6)),
    ("a,b,c->abc", (3,), (4,), (5,)), ("ab,bc,cd->ad", (3, 4), (4, 5), (5, 2)),
    ("ab,bc,cd,de->ae", (3, 9), (9, 5), (5, 8), (8, 2)), ("bij->bji", (2, 3, 4),), ("bij->b", (2, 3, 4),),
    ("bii->bi", (2, 4, 4),), ("ii->", (5, 5),), ("bii,i->b", (2, 4, 4), (4,)), ("bij->", (2, 3, 4)),
    ("...ij,...jk->...ik", (2, 3, 4, 5), (3, 5, 6)), ("...i->...", (2, 3, 4)), ("i...,j...->ij...", (2, 3), (4, 3)),
    ("b...d,d->b...", (2, 3, 4, 5), (5,)), ("...,...->...", (2, 3), (3,)), ("bij,bjk", (2, 3, 4), (2, 4, 5)),
    ("ba", (2, 3)), ("ij,kj->ik", (4, 1), (5, 7)), ("bi , ij -> bj", (3, 4), (4, 5)),
    ("abc,adc->ab", (2, 3, 4), (2, 5, 4)), ("abc,bd->ad", (2, 3, 4), (3, 5)), ("nctv,vw->nctw", (2, 3, 4, 5), (5, 5)),
    ("ijk,ilm,jln->kmn", (3, 4, 5), (3, 6, 7), (4, 6, 8)),
]  # fmt: skip


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_einsum(case):
    torch.manual_seed(0)
    equation, *shapes = case
    shapes = shapes if type(shapes[0]) is tuple else [tuple(shapes)]
    check(
        "einsum", {"equation": equation}, [torch.randn(shape) for shape in shapes],
        reference=lambda *x: torch.einsum(equation, *x), batch_dim=None, atol=1e-5, rtol=1e-4,
    )  # fmt: skip


@st.composite
def equations(draw):
    """A random equation of 1 to 3 operands over 5 letters, with a size for each letter."""
    sizes = {letter: draw(st.integers(1, 5)) for letter in "abcde"}
    letters = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)
    operands = draw(st.lists(letters, min_size=1, max_size=3))
    there = sorted({letter for operand in operands for letter in operand})
    result = draw(st.lists(st.sampled_from(there), max_size=4, unique=True))
    text = ",".join(map("".join, operands)) + "->" + "".join(result)
    return text, [tuple(sizes[letter] for letter in operand) for operand in operands]


@settings(FEW, max_examples=60)
@given(equations(), st.integers(0, 99))
def test_random_einsum(case, seed):
    torch.manual_seed(seed)
    equation, shapes = case
    check(
        "einsum", {"equation": equation}, [torch.randn(shape) for shape in shapes],
        reference=lambda *x: torch.einsum(equation, *x), batch_dim=None, atol=1e-4, rtol=1e-4,
    )  # fmt: skip


def test_the_batch_of_einsum():
    x, y = torch.randn(3, 4, 5), torch.randn(5, 2)
    check(
        "einsum", {"equation": "bik,kj->bij"}, [x, y], reference=lambda *x: torch.einsum("bik,kj->bij", *x),
        batch_dim=[0, None],
    )  # fmt: skip


def test_letters_are_labels():
    g = ops.edit()
    x, y = g.input("x", (None, 4, 5)), g.input("y", (5, 6))
    g.add("einsum", x, y, equation="bik,kj->bij", name="e")
    f = ops.analyse(g.finish("e"), 2)["e"]
    axes = f.op.axes(f.a, f.x, f.y)
    assert [[d.label for d in dims] for dims in (*axes.x, *axes.y)] == [list("bik"), list("kj"), list("bij")]
    assert not axes.coupled


def test_wrong_operands_are_refused():
    g = ops.edit()
    x, y = g.input("x", (None, 4, 5)), g.input("y", (6, 5))
    for op, attrs, error, message in (
        ("matmul", {}, TypeMismatch, "as many columns"),
        ("einsum", {"equation": "bik,kj->bij"}, TypeMismatch, "'k' stands for sizes 5 and 6"),
        ("einsum", {"equation": "bi,kj->bij"}, GraphError, "letters, its operand is of rank 3"),
        ("einsum", {"equation": "bik->bi"}, GraphError, "1 operands"),
        ("einsum", {"equation": "bik,jk->bz"}, GraphError, "letters of its operands"),
        ("einsum", {"equation": "bik,jk->bb"}, GraphError, "each once"),
        ("einsum", {"equation": "b1k,jk->b"}, GraphError, "expected letters"),
    ):
        with pytest.raises(error, match=message):
            g.add(op, x, y, **attrs)
    with pytest.raises(TypeMismatch, match="one dtype"):
        g.add("matmul", x, g.input("z", (5, 6), "float64"))


def test_equations_without_an_arrow():
    assert parse("bij, bjk", (3, 3)).result == ("i", "k")
    assert parse("ba", (2,)).result == ("a", "b")
    assert parse("...i,i", (3, 1)).result == ("...2", "...1")
