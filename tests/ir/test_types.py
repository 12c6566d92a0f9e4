import copy
import math

import pytest
from hypothesis import given

from archwright.errors import GraphError
from archwright.ir import Attrs, Type
from tests.ir.strategies import attributes


@given(attributes)
def test_attributes_are_canonical(values):
    one, other = Attrs(values), Attrs(reversed(list(values.items())))
    assert one == other and hash(one) == hash(other) and one.text == other.text
    assert Attrs(one) == one and copy.deepcopy(one) == one


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, True), (0, False), (0, None), ("1", 1), ((1,), 1), ("", None)]
)
def test_values_that_python_confuses_differ(one, other):
    assert Attrs(a=one) != Attrs(a=other)
    assert Attrs(a=one).text != Attrs(a=other).text


def test_attributes_cannot_be_changed():
    attrs = Attrs(a=[1, {"b": [2]}])
    assert attrs["a"] == (1, Attrs(b=(2,)))
    for change in (lambda: attrs.__setitem__("a", 2), lambda: attrs.update(a=2), attrs.clear, lambda: attrs.pop("a")):
        with pytest.raises(TypeError, match="immutable"):
            change()
    with pytest.raises(TypeError, match="immutable"):
        del attrs["a"]


def test_infinities_become_strings_that_float_reads():
    assert float(Attrs(a=-math.inf)["a"]) == -math.inf
    assert Attrs(a=math.inf) == Attrs(a="inf")


@pytest.mark.parametrize("value", [math.nan, [1, math.nan], {"b": math.nan}])
def test_nan_is_refused(value):
    with pytest.raises(GraphError, match="NaN"):
        Attrs(a=value)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, 1j, {1: 2}])
def test_what_is_not_json_is_refused(value):
    with pytest.raises(GraphError):
        Attrs(a=value)


def test_type_counts_bytes():
    assert Type((2, 3), "float16").nbytes == 12
    assert Type((), "int64").nbytes == 8
    assert Type((4, 0)).numel == 0
    assert str(Type((2, 3))) == "float32[2, 3]"
