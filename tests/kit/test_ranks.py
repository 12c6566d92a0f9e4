import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from archwright.kit.encodings import Encoding
from archwright.kit.ranks import crowding, fronts, hypervolume, kendall, signed, spearman

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=15).map(
    lambda p: np.array(p, float)
)


@given(points)
def test_fronts_are_peeled_one_by_one(values):
    rank = fronts(values)

    def beats(a, b):
        return (a <= b).all() and (a < b).any()

    for level in range(rank.max() + 1):
        rest = values[rank >= level]
        for value, r in zip(values, rank, strict=True):
            if r >= level:
                assert (r == level) == (not any(beats(other, value) for other in rest))


@given(points)
def test_hypervolume_counts_unit_squares(values):
    cells = {(x, y) for x in range(7) for y in range(7) for a, b in values if a <= x and b <= y}
    assert hypervolume(values, (7, 7)) == len(cells)


def test_crowding_is_infinite_at_the_ends():
    found = crowding(np.array([[0.0, 4], [1, 2], [2, 1], [4, 0]]))
    assert np.isinf(found[[0, 3]]).all() and np.allclose(found[1:3], [2 / 4 + 3 / 4, 3 / 4 + 2 / 4])


def test_ranks_agree_with_their_definitions():
    assert np.isclose(kendall([1, 2, 3, 4], [1, 2, 4, 3]), 4 / 6)
    assert np.isclose(spearman([1, 2, 3], [1, 4, 9]), 1)
    assert signed([[1.0, 2.0]], ("min", "max")).tolist() == [[1.0, -2.0]]


def test_encoding_of_traces():
    traces = [{"op": "a", "n": 1, "lr": 0.5}, {"op": "b", "lr": 0.25, "deep": True}]
    encoding = Encoding.of(traces)
    found = encoding([*traces, {"op": "c", "n": 2}])
    assert encoding.names == ("op=a", "n=1", "lr", "op=b", "deep=True")
    assert found.tolist() == [[1, 1, 0.5, 0, 0], [0, 0, 0.25, 1, 1], [0, 0, 0, 0, 0]]
