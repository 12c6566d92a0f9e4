"""The conformance suites: what a part of each kind is held to. They run on anyone's parts, in pytest or without.

    from archwright.core.checks import check_part
    check_part("block/mlp_mixer")               a name, a key, or what `archwright.use(path)` returned

Each kind has a module here with `check(part) -> int`, the number of checks that ran. A failure is an AssertionError
that begins with the part's key and says what was got and expected. A suite that ran fewer checks than its `MINIMUM`
has skipped what it should not have, and fails.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from archwright.core import registry
from archwright.core.checks.common import workshop
from archwright.core.part import Part
from archwright.errors import MissingExtra

__all__ = ["check_part", "suite"]


def suite(kind: str) -> ModuleType:
    """The module that checks parts of a kind: `check`, `calls`, `MINIMUM`."""
    return importlib.import_module(f"archwright.core.checks.{kind}")


def check_part(part: Part | str) -> int:
    """Run the suite of the part's kind. Prints and returns how many checks it ran; raises AssertionError, or
    `MissingExtra` where the part's optional dependencies are not installed."""
    part = registry.find(part) if isinstance(part, str) else part
    module = suite(part.kind)
    try:
        with workshop():
            count: int = module.check(part)
    except (AssertionError, MissingExtra):
        raise
    except Exception as error:
        raise AssertionError(f"{part.key}: raised {type(error).__name__}: {error}") from error
    print(f"{part.key}: {count} checks")
    if count < module.MINIMUM:
        raise AssertionError(f"{part.key}: {count} checks ran, expected at least {module.MINIMUM}")
    return count
