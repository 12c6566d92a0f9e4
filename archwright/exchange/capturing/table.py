"""The table of rules: how a call of a torch operator is said in our ops. Rules are found by the operator's name.

A rule is a function (c, call, a): `c` the `Lowering`, `a` the arguments by schema name, with values in the place of
references. It returns a value, or a tuple of values, and raises `Unfit` where it cannot say the call exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

RULES: dict[str, Callable[..., Any]] = {}

CREATED = frozenset(
    [
    "arange", "empty", "empty_like", "empty_strided", "eye", "full", "full_like", "linspace", "logspace",
    "new_empty", "new_full", "new_ones", "new_zeros", "ones", "ones_like", "scalar_tensor", "tril_indices",
    "triu_indices", "zeros", "zeros_like", "hann_window", "hamming_window", "blackman_window", "bartlett_window",
    "kaiser_window", "randint", "randint_like", "randperm", "multinomial", "exponential", "geometric", "log_normal",
    "cauchy", "meshgrid",
]
)
"""Operators without a rule that are nevertheless kept whole: constants, and random numbers."""


class Unfit(Exception):
    """A rule does not cover this call, which then stays as it is: opaque."""


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter a function as the rule of these operators."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            assert name not in RULES, f"two rules for {name}"
            RULES[name] = function
        return function

    return enter


def plain_name(op: Any) -> str:
    """The operator's name, that of the functional form for operators that write into their first argument."""
    name = op._schema.name.rpartition("::")[2]
    if op._schema.is_mutable and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    elif name.startswith("__i") and name.endswith("__"):  # __iadd__ and its kin
        name = f"__{name[3:]}"
    return name


def known(op: Any) -> bool:
    """Whether there is a rule for an operator, or it is to be kept whole."""
    name = plain_name(op)
    return name in RULES or name in CREATED or op._schema.is_mutable or op.namespace == "archwright"


def attrs_of(a: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Attributes taken from arguments: attrs_of(a, slope="negative_slope")."""
    return {attr: a[argument] for attr, argument in names.items()}
