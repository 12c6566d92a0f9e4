"""Floor 0: architecture as data. Standard library only."""

from archwright.ir.edit import BATCH, Editor
from archwright.ir.graph import INPUT, VERSION, Graph, Node, output, owner
from archwright.ir.match import ANY, REST, Any_, Match, Pattern, find, match
from archwright.ir.types import DTYPES, NO_ATTRS, Attrs, Type
from archwright.ir.walk import alive, ancestors, descendants, last_uses, rename, sort

__all__ = [
    "ANY", "BATCH", "DTYPES", "INPUT", "NO_ATTRS", "REST", "VERSION",
    "Any_", "Attrs", "Editor", "Graph", "Match", "Node", "Pattern", "Type",
    "alive", "ancestors", "descendants", "find", "last_uses", "match", "output", "owner", "rename", "sort",
]  # fmt: skip
