from collections import Counter

import numpy as np

from archwright.core import registry
from archwright.core.checks import bench
from archwright.core.records import Trial
from archwright.kit.tabular_search import cells
from archwright.kit.trials import name

module = registry.module(registry.find("strategy/random"))


def test_every_operation_is_as_likely():
    found = module.propose((), cells(), np.random.default_rng(0), 2000)
    counts = Counter(trace["edge_0_1"] for trace in found)
    assert all(330 < count < 470 for count in counts.values())


def test_values_do_not_matter():
    where, rng = bench.space(), np.random.default_rng(0)
    traces = [where.random(rng) for _ in range(5)]
    good = tuple([Trial(i, t, (0.0,)) for i, t in enumerate(traces)])
    bad = tuple([Trial(i, t, (1.0,)) for i, t in enumerate(traces)])
    assert module.propose(good, where, np.random.default_rng(1), 3) == module.propose(
        bad, where, np.random.default_rng(1), 3
    )


def test_distinct_never_repeats_and_ends():
    where = bench.space()
    history, seen = [], set()
    for i in range(30):
        for trace in module.propose(tuple(history), where, np.random.default_rng(i), 4, distinct=True):
            assert name(trace) not in seen
            seen.add(name(trace))
            history.append(Trial(len(history), trace, (0.0,)))
    one = cells()
    all_of_them = tuple([Trial(i, t, (0.0,)) for i, t in enumerate(one.traces())])
    assert module.propose(all_of_them, one, np.random.default_rng(0), 2, distinct=True) == []


def test_claim_holds():
    assert module.claim().held
