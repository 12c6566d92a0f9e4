"""Finds the ops: every module of this folder that has a tuple `OPS` adds them. Nothing is registered by hand."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from archwright.errors import UnknownOp
from archwright.ops.base import Op


@cache
def table() -> Mapping[str, Op]:
    """Name -> op, all of them."""
    found: dict[str, Op] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("base", "registry", "engine", "onnx"):
            for op in getattr(importlib.import_module(f"archwright.ops.{module.name}"), "OPS", ()):
                assert op.name not in found, f"two ops are named {op.name}"
                found[op.name] = op
    return found


def get(name: str) -> Op:
    """The op of that name. Raises `UnknownOp` with the nearest names."""
    try:
        return table()[name]
    except KeyError:
        near = difflib.get_close_matches(name, table(), n=3, cutoff=0.5)
        hint = f": did you mean {', '.join(near)}?" if near else f", expected one of {len(table())} known ops"
        raise UnknownOp(f"unknown op '{name}'{hint}") from None
