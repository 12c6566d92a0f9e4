"""A net as readable PyTorch source that runs without archwright, with the same weight names and the same numbers."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import safetensors.torch
from torch import nn

from archwright import ops
from archwright.errors import EmitError
from archwright.exchange.source.forward import RESERVED, Forward, identifier, letters
from archwright.exchange.source.plan import Leaf, Path, Plan, Planner, split
from archwright.exchange.source.text import (
    MODULE_NAMES,
    Box,
    Draft,
    Expr,
    Made,
    Member,
    Text,
    attribute,
    attribute_of,
    class_lines,
    first_free,
    numel,
    plain,
    tensor_line,
    write_classes,
)
from archwright.ir import INPUT, Graph, Node, owner
from archwright.net.net import Net
from archwright.ops.base import Source


@dataclass(frozen=True)
class SourceFile:
    """What was written: the Python file, the weights beside it, and the number of lines."""

    path: File
    weights: File
    lines: int


def to_source(net: Net, path: str | os.PathLike[str]) -> SourceFile:
    """Write a net as a Python file that needs torch only, and its weights beside it as "<stem>.safetensors".

    The file has a class `Net` whose state has the net's weight names, and a function `load` that reads the weights.
    Raises `EmitError` if an op has no form in PyTorch source. Both files appear whole or not at all.
    """
    path = File(path)
    if path.suffix != ".py" or path.is_dir():
        raise EmitError(f"got {path}, expected the name of a file that ends in .py")
    text = source_text(net)
    weights = path.with_suffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = File(tempfile.mkdtemp(prefix=".saving-", dir=path.parent))
    try:
        # clone: safetensors refuses tensors that share memory
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in net.weights.items()}
        safetensors.torch.save_file(tensors, work / weights.name)
        (work / path.name).write_text(text, encoding="utf-8")
        for file in (weights, path):
            os.replace(work / file.name, file)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return SourceFile(path, weights, text.count("\n"))


def source_text(net: Net | Graph) -> str:
    """A net, or a graph, as PyTorch source: classes after the dotted names, `Net` last, then `load`.

    Scopes that are alike share one class; entries named by numbers become nn.Sequential where they are a chain, else
    nn.ModuleList. Raises `EmitError` if an op has no form in PyTorch source.
    """
    graph = net.graph if isinstance(net, Net) else net
    return SourceWriter(graph).text()


def _sources(graph: Graph) -> dict[str, Source]:
    """Node name -> how it is written."""
    found: dict[str, Source] = {}
    without: dict[str, list[str]] = {}
    for name, f in ops.analyse(graph).items():
        if f.op.name == INPUT:
            continue
        if f.op.source is None:
            without.setdefault(f.op.name, []).append(name)
        else:
            found[name] = f.op.source(f.a, f.x, f.y)
    if without:
        raise EmitError(
            "no form in PyTorch source for "
            + "; ".join(f"{op} at '{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                        for op, names in without.items())
        )  # fmt: skip
    return found


class SourceWriter:
    """Turns plans into class drafts and these into text."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.helpers, self.sources = _name_helpers(_sources(graph))
        self.planner = Planner(graph, self.sources)
        self.known = self.planner.known
        self.drafts: dict[Path, Draft] = {}
        self.kinds: dict[Path, str] = {}
        self._below: dict[Path, dict[str, None]] = {}
        first: dict[Path, int] = {}  # what is used first stands first
        for index, node in enumerate(graph.nodes):
            for name in [node.name, *map(owner, node.inputs)]:
                place = self.planner.leaf_of.get(name) or split(graph[name].slot or name)
                if graph[name].op in ("param", "buffer") and name == node.name:
                    continue
                first.setdefault(place, index)
        everything = [*self.planner.leaves, *self.planner.tensors]
        for path in sorted(everything, key=lambda path: first.get(path, len(graph.nodes))):
            for depth in range(len(path)):
                self._below.setdefault(path[:depth], {})[path[depth]] = None
        self.modes = self._modes()

    def _modes(self) -> dict[str, str]:
        """Value -> "self.training" or "not self.training", for what is only computed in one mode."""
        train, evaluate = ops.reads(self.graph, True), ops.reads(self.graph, False)
        return {
            value: "self.training" if name in train else "not self.training"
            for name in ops.reads(self.graph)
            if (name in train) != (name in evaluate) and name not in self.planner.alias
            for value in self.planner.values(self.graph[name])
        }

    def mode(self, item: Node | Plan) -> str:
        """The mode to which an item is bound, if any."""
        modes = {self.modes.get(node.name, "") for node in (item.nodes if isinstance(item, Plan) else [item])}
        return modes.pop() if len(modes) == 1 else ""

    def text(self) -> str:
        """The whole file."""
        root = self._draft(())
        taken = {"Net", "Tensor", "F", "Path"} | set(dir(nn)) | set(self.helpers)
        inner = [draft for draft in self.drafts.values() if draft is not root]
        classes = write_classes(inner, taken)
        classes += write_classes([root], set())
        assert root.written is not None
        root.written.name = "Net"
        blocks = [textwrap.dedent(text).strip("\n").split("\n") for text in self.helpers.values()]
        blocks += [class_lines(one) for one in classes]
        blocks.append(_LOAD.strip("\n").split("\n"))
        body = "\n\n\n".join("\n".join(block) for block in blocks)
        head = ["from __future__ import annotations", ""]
        head += ["import math"] if re.search(r"\bmath\.", body) else []
        head += ["from pathlib import Path", "", "import torch"]
        head += ["import torch.nn.functional as F"] if re.search(r"\bF\.", body) else []
        head += ["from safetensors.torch import load_file", "from torch import Tensor, nn"]
        return self._title() + "\n\n" + "\n".join(head) + "\n\n\n" + body + "\n"

    def _title(self) -> str:
        params = ops.params(self.graph).values()
        count = sum(numel(param) for param in params if not param.buffer)
        given = ", ".join(f"{node.name} {_shape(node)}" for node in self.graph.inputs)
        return "\n".join(
            [
                f'"""A network of {count:,} parameters as plain PyTorch, written by archwright.',
                "",
                *textwrap.wrap(f"Takes {given or 'nothing'}, where N is the batch.", 118),
                "The weights stand in a safetensors file under the same names: see `load`.",
                '"""',
            ]
        )

    # ---------------------------------------------------------------------------------------------------- the tree
    def _draft(self, scope: Path) -> Draft:
        """The class of a scope, with those below it."""
        plan = self.planner.plans.get(scope)
        members: list[Member] = []
        base = "nn.Module"
        if not scope and plan is not None and self.planner.numeric(scope):
            box = self._box(scope)
            base = f"nn.{box.kind}"
            members.append(Member("super", "", Box(box.kind, box.entries, base=True)))
            self.kinds[scope] = box.kind
            forward = [] if plan.chain else self._forward(plan)
        else:
            for name in self._below.get(scope, ()):
                members += self._members((*scope, name), "self")
            forward = self._forward(plan) if plan is not None else []
        if not scope and not forward and not plan.chain:
            forward = ["return " + self.returned(plan, {}, ())]
        draft = Draft(
            ".".join(scope),
            scope,
            base,
            members,
            forward,
            self._arguments(plan) if plan is not None else (),
            len(plan.outputs) if plan is not None else 1,
            "" if plan is not None else "Only holds weights. ",
            height=1 + max([d.height for m in members for d in _drafts_in(m.expr)], default=-1),
        )
        if not scope:
            draft.about = "The whole network."
        self.drafts[scope] = draft
        return draft

    def _members(self, path: Path, owner: str) -> list[Member]:
        """The lines of a constructor that make what stands at a path."""
        if path in self.planner.tensors:
            return [tensor_line(owner, path[-1], self.planner.tensors[path])]
        target, name = attribute(owner, path[-1]), path[-1]
        if plain(name) or name in MODULE_NAMES:
            made = [Member("assign", target, self._module(path))]
        else:
            made = [Member("call", f'{owner}.add_module("{name}"', self._module(path))]
        if path in self.planner.leaves:  # what a module is given beside its own state
            for name in self._below.get(path, ()):
                made += self._members((*path, name), target)
        return made

    def _module(self, path: Path) -> Expr:
        """The expression that makes the module at a path."""
        if path in self.planner.leaves:
            leaf = self.planner.leaves[path]
            return Text(self._constructor(leaf)) if leaf.source.module is not None else Made(self._leaf(leaf))
        if self.planner.numeric(path):
            box = self._box(path)
            self.kinds[path] = box.kind
            return box
        return Made(self._draft(path))

    def _box(self, scope: Path) -> Box:
        plan = self.planner.plans.get(scope)
        if plan is not None and plan.chain:
            entries: list[tuple[str, Expr]] = []
            for index, item in enumerate(self.planner.entries(plan) or ()):
                if item is None:
                    made: Expr = Text("nn.Identity()")
                elif isinstance(item, Plan):
                    made = self._module(item.scope)
                elif item.name in self.planner.leaf_of:
                    made = self._module(self.planner.leaf_of[item.name])
                else:
                    made = Text(self.sources[item.name].module or "")
                entries.append((str(index), made))
            return Box("Sequential", entries)
        names = sorted(self._below[scope], key=int)
        listed = names == [str(i) for i in range(len(names))]
        return Box(
            "ModuleList" if listed and scope else "ModuleDict", [(name, self._module((*scope, name))) for name in names]
        )

    @staticmethod
    def _constructor(leaf: Leaf) -> str:
        """The nn module of a leaf, in the dtype of its weights."""
        module = leaf.source.module or ""
        dtypes = {param.dtype for param in leaf.params.values() if param.dtype.startswith(("float", "bfloat"))}
        return module if dtypes <= {"float32"} else f"{module}.to(torch.{min(dtypes)})"

    def _leaf(self, leaf: Leaf) -> Draft:
        """A class around the weights of an op that torch.nn has no module for."""
        members = []
        holders: dict[Path, None] = {}
        for name, param in leaf.params.items():
            *outer, last = split(name)
            owner = "self"
            for depth, part in enumerate(outer):
                owner = attribute(owner, part)
                if tuple(outer[: depth + 1]) not in holders:
                    holders[tuple(outer[: depth + 1])] = None
                    members.append(Member("assign", owner, Text("nn.Module()")))
            members.append(tensor_line(owner, last, param))
        count = len(leaf.node.inputs)
        arguments = letters(count)
        weights = {name: attribute_of("self", split(name)) for name in leaf.params}
        call = self._call(leaf.node, arguments, "self", weights)
        hint = (*leaf.path[:-1], "".join(part.capitalize() for part in leaf.node.op.split("_")))
        f = self.known[leaf.node.name]
        draft = Draft(".".join(leaf.path), hint, "nn.Module", members, [f"return {call}"], arguments, len(f.y))
        self.drafts[leaf.path] = draft
        return draft

    # ------------------------------------------------------------------------------------------------------ forward
    def _arguments(self, plan: Plan) -> list[str]:
        if not plan.scope:
            names: list[str] = []
            for value in plan.inputs:
                names.append(first_free(identifier(value), {*names, *RESERVED}))
            return names
        return letters(len(plan.inputs))

    def _forward(self, plan: Plan) -> list[str]:
        return Forward(self, plan, self._arguments(plan)).lines()

    def returned(self, plan: Plan, names: Mapping[str, str], scope: Path) -> str:
        found = []
        given = dict(zip(plan.inputs, self._arguments(plan), strict=True))
        for value in plan.outputs:
            if value in self.planner.alias:
                found.append(self.place(scope, self.planner.alias[value]))
            else:
                name, mode = names.get(value) or given[value], self.modes.get(value)
                found.append(f"({name} if {mode} else None)" if mode and scope and not self.bound(plan) else name)
        return ", ".join(found)

    def bound(self, plan: Plan) -> bool:
        """Whether a forward only runs in one mode."""
        return bool(plan.scope) and bool(self.mode(plan))

    def place(self, scope: Path, path: Path) -> str:
        """How the forward of a scope writes what stands at a path."""
        expression = "self"
        for depth in range(len(scope), len(path)):
            holder, name = path[:depth], path[depth]
            kind = self.kinds.get(holder) or (
                self._kind(holder) if self.planner.numeric(holder) and holder not in self.planner.leaves else ""
            )
            if kind in ("ModuleList", "Sequential"):
                expression += f"[{name}]"
            elif kind == "ModuleDict":
                expression += f'["{name}"]'
            else:
                param = self.planner.tensors.get(path[: depth + 1])
                kind = "module" if param is None else "buffer" if param.buffer else "parameter"
                expression = attribute(expression, name, kind)
        return expression

    def _kind(self, scope: Path) -> str:
        """What a scope whose entries are named by numbers is made as."""
        plan = self.planner.plans.get(scope)
        if plan is not None and plan.chain:
            return "Sequential"
        names = sorted(self._below[scope], key=int)
        return "ModuleList" if scope and names == [str(i) for i in range(len(names))] else "ModuleDict"

    def _call(self, node: Node, given: Sequence[str], self_: str, weights: Mapping[str, str]) -> str:
        source = self.sources[node.name]
        fields = {f"x{index}": name for index, name in enumerate(given)}
        fields |= {name.replace(".", "_") or "value": text for name, text in weights.items()}
        return source.call.format(x=", ".join(given), self=self_, training="self.training", **fields)

    def node_call(self, node: Node, given: Sequence[str], scope: Path) -> str:
        """The expression for one node in the forward of a scope."""
        path = self.planner.leaf_of.get(node.name)
        source = self.sources[node.name]
        if path is None:
            own = {"": self.place(scope, split(node.slot))} if node.slot is not None else {}
            return self._call(node, given, "self", own)
        leaf = self.planner.leaves[path]
        place = self.place(scope, path)
        weights = {name: attribute_of(place, split(name)) for name in self.known[node.name].params}
        if leaf.source.module is None:
            if leaf.node is node or leaf.source.call == source.call:
                return f"{place}({', '.join(given)})"
            return self._call(node, given, "self", weights)
        if source.module is not None and source.module != leaf.source.module:
            # the same weights under other settings
            module = f'{source.module[:-1]}, device="meta").train(self.training)'
            state = ", ".join(f'"{name}": {text}' for name, text in weights.items())
            self_ = f"(lambda *args: torch.func.functional_call({module}, {{{state}}}, args))"
            return self._call(node, given, self_, weights)
        return self._call(node, given, place, weights)


def _shape(node: Node) -> str:
    return "[" + ", ".join("N" if n is None else str(n) for n in node.attrs["shape"]) + "]"


def _drafts_in(expr: Expr) -> list[Draft]:
    if isinstance(expr, Made):
        return [expr.draft]
    if isinstance(expr, Box):
        return [draft for _, entry in expr.entries for draft in _drafts_in(entry)]
    return []


# ---------------------------------------------------------------------------------------------------------- helpers
def _name_helpers(sources: Mapping[str, Source]) -> tuple[dict[str, str], dict[str, Source]]:
    """The helper functions' texts by name, and the sources with their calls changed where two shared a name."""
    texts: dict[str, str] = {}
    names: dict[Callable[..., Any], str] = {}
    found: dict[str, Source] = {}
    for node, source in sources.items():
        call = source.call
        for helper in source.helpers:
            if helper not in names:
                text = inspect.getsource(helper)
                name = first_free(helper.__name__.lstrip("_"), set(texts) | RESERVED)
                names[helper] = name
                texts[name] = text
            call = re.sub(rf"(?<![\w.{{]){helper.__name__}(?=\()", names[helper], call)
        found[node] = source if call == source.call else Source(call, source.module, source.helpers)
    renames = {helper.__name__: name for helper, name in names.items()}
    for name, text in texts.items():
        for old, new in renames.items():
            if old != new:
                text = re.sub(rf"(?<![\w.]){old}(?=\()", new, text)
        texts[name] = text
    return texts, found


_LOAD = '''
def load(path: str | Path | None = None) -> Net:
    """The network in eval mode with its weights: those of a safetensors file, by default the one beside this file."""
    model = Net()
    model.load_state_dict(load_file(path or Path(__file__).with_suffix(".safetensors")))
    return model.eval()
'''
