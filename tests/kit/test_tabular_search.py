import pytest

from archwright.core import registry
from archwright.data.home import data_home
from archwright.kit.nasbench201 import to_string
from archwright.kit.tabular_search import cells, columns, search
from archwright.kit.trials import finished, losses, name

random = registry.load("strategy/random")


def test_all_cells():
    assert cells().count() == 15625


def test_a_search_counts_its_queries():
    found = search(random, lambda trace: (float(len(to_string(trace))),), queries=23, batch=5, seed=1)
    assert [t.number for t in found] == list(range(23))
    again = search(random, lambda trace: (float(len(to_string(trace))),), queries=23, batch=5, seed=1)
    assert [name(t.trace) for t in again] == [name(t.trace) for t in found]
    assert len(finished(found)) == 23
    assert losses(found, ("max",))[0, 0] == -found[0].values[0]


def test_a_strategy_that_ends_the_search():
    assert search(lambda *args, **kw: [], lambda trace: (0.0,), queries=5) == []


@pytest.mark.data
@pytest.mark.skipif(data_home() is None, reason="the data folder is not there")
def test_columns_are_those_of_the_table():
    from archwright.kit.nasbench201 import table

    trace = table().traces()[7]
    assert columns("c10_valid_200", "c10_flops")(trace) == (
        table().query(trace, "c10_valid_200"), table().query(trace, "c10_flops"),
    )  # fmt: skip
