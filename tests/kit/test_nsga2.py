import numpy as np

from archwright.core.records import Trial
from archwright.kit import nsga2
from archwright.kit.tabular_search import cells


def test_order_is_by_front_then_by_distance():
    values = np.array([[1, 4], [2, 2], [4, 1], [5, 5], [2.2, 1.9], [3, 3.0]])
    found = nsga2.order(values).tolist()
    assert set(found[:2]) == {0, 2}  # the ends of the first front
    assert set(found[2:4]) == {1, 4}
    assert found[4:] == [5, 3]


def test_equal_points_count_once():
    values = np.array([[1, 2], [1, 2], [2, 1], [1.5, 1.5]])
    found = nsga2.order(values).tolist()
    assert found[-1] == 1


def test_order_of_nothing():
    assert nsga2.order(np.zeros((0, 2))).tolist() == []


def test_children_without_crossover_differ_in_one_choice():
    space, rng = cells(), np.random.default_rng(0)
    parents = [space.random(rng) for _ in range(5)]
    for child in nsga2.children(parents, space, rng, 20, crossover=0.0):
        assert min(sum(child[k] != p[k] for k in p) for p in parents) <= 1


def test_plain_search_closes_in_on_two_ends():
    space = cells()

    def value(trace):
        ops = list(trace.values())
        return float(ops.count("none")), float(ops.count("skip_connect"))

    history = []
    while len(history) < 300:
        rng = np.random.default_rng(len(history))
        for trace in nsga2.propose(tuple(history), space, rng, 10, directions=("max", "max"), population=20):
            history.append(Trial(len(history), trace, value(trace)))
    points = {t.values for t in history}
    assert {(6.0, 0.0), (0.0, 6.0), (3.0, 3.0)} <= points
