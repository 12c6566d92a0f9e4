import pytest
import torch
import torch.nn.functional as F

from archwright import ops
from archwright.core.checks.common import outputs, rough
from archwright.errors import TypeMismatch
from archwright.net.net import init
from archwright.parts.block import entity_embedding

CODES = (3, 9, 4, 20)


def net(codes=CODES, **hp):
    g = ops.edit()
    x = g.input("x", (None, len(codes)), "int64")
    return rough(init(g.finish(entity_embedding.build(g, x, codes=codes, **hp))), seed=1)


def rows(count=50, codes=CODES):
    return torch.stack([torch.randint(0, n, (count,)) for n in codes], 1)


def test_rows_of_tables_stand_beside_each_other():
    made, x = net(width=3), rows()
    expected = torch.cat([made.weights[f"column{i}"][x[:, i]] for i in range(4)], 1)
    torch.testing.assert_close(outputs(made, (x,))[0], expected)
    assert expected.shape[1] == 2 + 3 + 2 + 3


def test_small_columns_are_one_hot():
    made, x = net(width=5, one_hot=4), rows()
    parts = [F.one_hot(x[:, 0], 3), made.weights["column1"][x[:, 1]], F.one_hot(x[:, 2], 4)]
    expected = torch.cat([*parts, made.weights["column3"][x[:, 3]]], 1)
    torch.testing.assert_close(outputs(made, (x,))[0], expected)
    assert made.weights.keys() == {"column1", "column3"}


def test_one_hot_columns_have_no_weights():
    assert net(one_hot=20).cost().params == 0


@pytest.mark.parametrize(("codes", "width", "expected"), [(2, 8, 1), (3, 8, 2), (9, 4, 4), (9, 8, 5), (1, 8, 1)])
def test_a_column_is_no_wider_than_half_its_codes(codes, width, expected):
    assert entity_embedding.dimension(codes, width) == expected


def test_rows_start_near_zero():
    g = ops.edit()
    fresh = init(g.finish(entity_embedding.build(g, g.input("x", (None, 1), "int64"), codes=(30,))))
    assert 0.02 < float(fresh.weights["column0"].abs().max()) <= 0.05


@pytest.mark.parametrize(("shape", "dtype"), [((None, 3), "int64"), ((None, 4), "float32"), ((None, 4, 1), "int64")])
def test_other_inputs_are_refused(shape, dtype):
    g = ops.edit()
    with pytest.raises(TypeMismatch, match="expected whole numbers"):
        entity_embedding.build(g, g.input("x", shape, dtype), codes=CODES)


def test_claim_holds():
    assert entity_embedding.claim().held
