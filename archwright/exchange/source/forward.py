"""The statements of a forward: calls in order, with names for the values that read well."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archwright import ops
from archwright.exchange.source.plan import Plan, split
from archwright.exchange.source.text import first_free
from archwright.ir import Node

if TYPE_CHECKING:
    from archwright.exchange.source.writer import SourceWriter


class Forward:
    """The statements of one forward, with names for its values."""

    def __init__(self, writer: SourceWriter, plan: Plan, arguments: Sequence[str]) -> None:
        self.w = writer
        self.plan = plan
        self.names = dict(zip(plan.inputs, arguments, strict=True))
        self.ever = set(arguments)
        self.left: dict[str, int] = {}
        for item in plan.items:
            for value in {*writer.planner.reads(item)}:
                self.left[value] = self.left.get(value, 0) + 1
        for value in plan.outputs:
            self.left[value] = self.left.get(value, 0) + 1
        self.total = dict(self.left)

    def lines(self) -> list[str]:
        """The statements, `return` last."""
        found: list[tuple[str, str, str, str]] = []  # targets, call, comment, mode
        for item in self.plan.items:
            mode = "" if self.w.bound(self.plan) else self.w.mode(item)
            given = [self._given(value, item, mode) for value in self._inputs(item)]
            if isinstance(item, Plan):
                call = f"{self.w.place(self.plan.scope, item.scope)}({', '.join(given)})"
            else:
                call = self.w.node_call(item, given, self.plan.scope)
            targets = self._targets(item)
            if len(targets) > 6 and sum(target != "_" for target in targets) == 1:
                index = next(i for i, target in enumerate(targets) if target != "_")
                found.append((targets[index], f"{call}[{index}]", self._note(item), mode))
            else:
                found.append((", ".join(targets), call, self._note(item), mode))
        lines = _loops(found, set(self.ever))
        result = self.w.returned(self.plan, self.names, self.plan.scope)
        if lines and found and lines[-1].startswith(f"{found[-1][0]} = ") and result == found[-1][0]:
            lines[-1] = "return " + lines[-1].split(" = ", 1)[1]
        else:
            many = len(self.plan.outputs) > 1 and len(result) > 100
            lines.append(f"return ({result})" if many else f"return {result}")
        return lines

    def _note(self, item: Node | Plan) -> str:
        """The shape of what comes out, in the outermost forward."""
        if self.plan.scope:
            return ""
        low, high = (ops.infer(self.w.graph, n) for n in (2, 3))
        values = self.w.planner.makes(item)
        if len(values) != 1:
            return ""
        sizes = []
        for m, n in zip(low[values[0]].shape, high[values[0]].shape, strict=True):
            step, rest = n - m, m - 2 * (n - m)
            sizes.append(str(m) if not step else ("" if step == 1 else f"{step}") + "N" + (f"+{rest}" if rest else ""))
        return f"  # [{', '.join(sizes)}]"

    def _inputs(self, item: Node | Plan) -> Sequence[str | None]:
        return item.inputs if isinstance(item, Plan) else self.w.planner.inputs(item)

    def _given(self, value: str | None, item: Node | Plan, mode: str) -> str:
        """A value as an argument; None in the mode in which it is not computed."""
        if value is None:
            return "None"
        own = self.w.modes.get(value, "")
        if not own or own == mode or self.w.bound(self.plan) or (isinstance(item, Node) and item.op == "by_mode"):
            return self._name(value)
        return f"({self._name(value)} if {own} else None)"

    def _name(self, value: str) -> str:
        path = self.w.planner.alias.get(value)
        if path is not None and value not in self.names:
            return self.w.place(self.plan.scope, path)
        return self.names[value]

    def _targets(self, item: Node | Plan) -> list[str]:
        """Names for what an item makes; a value that is read no more gives its name on where that reads well."""
        read = list(dict.fromkeys(value for value in self.w.planner.reads(item) if value in self.names))
        for value in read:
            self.left[value] -= 1
        free = [value for value in read if not self.left[value]]
        live = {name for value, name in self.names.items() if self.left.get(value)}
        made = self.w.planner.makes(item)
        stem = _stem(item)
        targets: list[str] = []
        for index, value in enumerate(made):
            if not self.left.get(value):
                targets.append("_")
                continue
            name = None
            if index == 0:
                for candidate in free:
                    if self.total[candidate] == 1 or len(read) > 1:
                        name = self.names[candidate]
                        if not self.plan.scope and candidate in self.plan.inputs:  # arguments keep their names
                            name = "x" if len(self.plan.inputs) == 1 else name if name == "x" else None
                        break
                name = None if name in live else name
            if name is None:
                name = self._fresh(stem, index if len(made) > 1 else None, live)
            live.add(name)
            self.ever.add(name)
            self.names[value] = name
            targets.append(name)
        return targets

    def _fresh(self, stem: str, index: int | None, live: set[str]) -> str:
        if stem and index is not None:
            return first_free(f"{stem}{index}", live | RESERVED)
        if stem:
            return first_free(stem, live | RESERVED)
        for letter in "yzuvwst":
            if letter not in live:
                return letter
        return first_free("y2", live)


# ------------------------------------------------------------------------------------------------------------ names
RESERVED = {"self", "torch", "nn", "F", "math", "Tensor", "Path", "load", "load_file", "Net", "_"}
_WORDS = {"mean", "std", "var"}
_DULL = {"fc", "bn", "ln", "dense", "layer", "block", "act", "activation", "drop", "lin", "module", "net", "seq",
         "proj", "getitem", "mat", "x"}  # fmt: skip


def identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"x_{name}"


def _stem(item: Node | Plan) -> str:
    """What a new variable is called after an item; nothing if its name only says which op it is."""
    parts = list(item.scope if isinstance(item, Plan) else split(item.name))
    stem = re.sub(r"_?\d+$", "", parts[-1])
    if not stem or stem.lower() in _DULL or not stem.isidentifier() or keyword.iskeyword(stem):
        return ""
    if re.sub(r"\d", "", stem) in ops.table() and stem not in _WORDS:
        return ""
    return stem.lower()


def letters(count: int) -> list[str]:
    return ["x", "y", "z", "u", "v", "w"][:count] + [f"x{index}" for index in range(6, count)]


# ------------------------------------------------------------------------------------------------------------ loops
_ENTRY = re.compile(r"^(.*)\[(\d+)\]\((.*)\)$")


def _loops(found: Sequence[tuple[str, str, str, str]], names: set[str]) -> list[str]:
    """Statements as lines; calls of one list's entries in turn become a loop, what is bound to a mode a condition."""
    lines: list[str] = []
    index, before = 0, ""
    while index < len(found):
        targets, call, note, mode = found[index]
        if mode and mode != before:
            lines.append(f"if {mode}:")
        before, pad = mode, "    " if mode else ""
        entry = _ENTRY.match(call)
        count = 1
        if entry:
            owner, first, given = entry[1], int(entry[2]), entry[3]
            while index + count < len(found):
                after = found[index + count]
                if (after[0], after[3]) != (targets, mode) or after[1] != f"{owner}[{first + count}]({given})":
                    break
                count += 1
        count = count if count > 2 else 1
        if entry and count > 1:
            last = owner.rsplit(".", 1)[-1]
            one = first_free(last[:-1] if last.endswith("s") and last.isidentifier() else "module", names | RESERVED)
            lines.append(f"{pad}for {one} in {owner}[{first}:{first + count}]:")
            lines.append(f"{pad}    {targets} = {one}({given}){found[index + count - 1][2]}")
        else:
            lines.append(f"{pad}{targets} = {call}{note}")
        index += count
    return lines
