"""Each test of a block draws the same numbers, whichever tests ran before it."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_numbers():
    torch.manual_seed(0)
