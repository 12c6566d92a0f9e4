"""Searches that take a second: trainings of a few steps, on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from archwright.core import registry
from archwright.flows.plan import Plan

SMALL = Path(__file__).with_name("small.py")
STEPS = 12


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every training takes a dozen steps, and the space "small" is known."""
    monkeypatch.setattr(Plan, "steps", lambda *_, **__: STEPS)
    monkeypatch.setattr(registry, "_USED", list(registry._USED))
    registry.use(SMALL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
