"""Seeds: the same in every process, apart for every purpose; global generators are put back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from archwright.core import seeds


def test_seeds_are_those_that_they_always_were():
    """Stored searches resume with them: these numbers must not change."""
    assert seeds.derive(0) == 4761921975702974394
    assert seeds.derive(3, "propose", 12) == 458387894278745301


def test_paths_are_told_apart():
    paths = [(), (0,), ("0",), (0, 0), ("a",), ("a", 0), (0, "a"), (1,), ("ab",), ("a", "b")]
    assert len({seeds.derive(0, *path) for path in paths}) == len(paths)
    assert all(0 <= seeds.derive(s, "x") < 2**63 for s in range(100))


def test_generators_are_equal_for_equal_paths():
    assert seeds.rng(1, "a").random() == seeds.rng(1, "a").random() != seeds.rng(2, "a").random()
    assert seeds.draw(seeds.rng(1)) == seeds.draw(seeds.rng(1))


def test_forked_puts_all_back_and_repeats():
    def all_three():
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with seeds.forked(7):
        first = all_three()
    with pytest.raises(KeyError), seeds.forked(7):
        assert all_three() == first
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1]) and random.getstate() == before[2]
