"""Where random numbers come from: a seed and a path of names give a generator, and global generators are left alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *path: int | str) -> int:
    """A seed in [0, 2^63) for a purpose: the same seed and path give the same one, in every process."""
    text = "/".join([str(seed), *[f"{type(p).__name__[0]}{p}" for p in path]])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def rng(seed: int, *path: int | str) -> np.random.Generator:
    """A generator for a purpose. A search asks its strategy with `rng(seed, "propose", len(history))`, so that a search
    that was stopped goes on with the same proposals."""
    return np.random.default_rng(derive(seed, *path))


def draw(generator: np.random.Generator) -> int:
    """A seed for something that wants a number, drawn from a generator."""
    return int(generator.integers(2**62))


@contextmanager
def forked(seed: int) -> Iterator[None]:
    """Within the `with` block the global generators of torch, NumPy and Python start from `seed`; afterwards they are
    as they were. For dropout, shuffling in libraries, and all else that takes no generator."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
