"""Floor 1: what each operation means. One file a family; each op is a record of pure facts (see `base.Op`)."""

from archwright.ops.base import Axes, Cat, Cost, Dim, Op, Param, Prod, Source
from archwright.ops.engine import Facts, analyse, check, edit, facts, infer, params, reads, run, weight_name
from archwright.ops.registry import get, table

__all__ = [
    "Axes", "Cat", "Cost", "Dim", "Facts", "Op", "Param", "Prod", "Source",
    "analyse", "check", "edit", "facts", "get", "infer", "params", "reads", "run", "table", "weight_name",
]  # fmt: skip
