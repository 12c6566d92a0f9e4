"""From drafts to a graph with weights: which weights stand in slots, what nodes are called, what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from archwright import ops
from archwright.errors import CaptureError
from archwright.exchange.capturing.lower import Constants, Draft
from archwright.exchange.capturing.merge import SOURCES, Merged
from archwright.exchange.capturing.tidy import tidy
from archwright.ir import Graph, Node, alive, output, owner

_OPERANDS = frozenset(
    ("conv", "conv_transpose", "linear", "embedding", "layer_norm", "rms_norm", "group_norm", "prelu")
)
"""Ops that take their weights as inputs, too."""


_HOLDERS = frozenset(("param", "buffer", "state", "update"))
"""Ops whose slot is the name of the weight itself."""


class Finished:
    """The graph, its weights, and for every node the number of the call that it stands for (-1: none)."""

    def __init__(self, merged: Merged, state: Mapping[str, Tensor], constants: Constants) -> None:
        self.state = state
        self.constants = constants
        self.drafts = list(merged.drafts)
        self.outputs = list(merged.outputs)
        self._update(merged)
        self._drop_dead()
        self.drafts, self.outputs = tidy(self.drafts, self.outputs)
        self._drop_dead()
        self.slots: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self._settle()
        self.names = self._call()
        self.graph = self._graph()
        self.weights = self._weights()
        self.flags = {self.names[d.name]: d.flags for d in self.drafts if d.flags}
        self.sources = {self.names[d.name]: d.source for d in self.drafts if self.names[d.name] in self.graph.by_name}

    # --------------------------------------------------------------------------------------------------- liveness
    def _update(self, merged: Merged) -> None:
        """Buffers that training changes beside those of norms: their new values must be computed with the output.
        And what must be true for the output to be right."""
        for why in dict.fromkeys(why for _, why in merged.checks):
            conditions = dict.fromkeys(value for value, other in merged.checks if other == why)
            first = self.outputs[0]
            attrs = ops.get("check").normal({"message": why})
            self.outputs[0] = merged.append_op("check", [first, *conditions], {}, merged.type_of(first), attrs)
        self.drafts = list(merged.drafts)
        if not merged.updates:
            return
        done = []
        for name, value in merged.updates.items():
            made = merged.append_op("update", [value], {"": name}, merged.type_of(value))
            done.append(made)
        first = self.outputs[0]
        self.outputs[0] = merged.append_op("after", [first, *done], {}, merged.type_of(first))
        self.drafts = list(merged.drafts)

    def _drop_dead(self) -> None:
        by_name = {d.name: d for d in self.drafts}
        found: set[str] = set()
        stack = [owner(value) for value in self.outputs]
        while stack:
            name = stack.pop()
            if name not in found:
                found.add(name)
                stack.extend(owner(value) for value in by_name[name].inputs)
        self.drafts = [d for d in self.drafts if d.name in found or d.op == "input"]

    # ------------------------------------------------------------------------------------------------------ slots
    def _settle(self) -> None:
        """Give every draft with weights a slot, or its weights as inputs.

        A slot can hold them if their names are the slot's name and the op's own ("fc.weight", "fc.bias"), and nobody
        uses one of them in another way.
        """
        uses: dict[str, set[tuple[Any, ...]]] = {}
        for d in self.drafts:
            for param, weight in d.weights.items():
                uses.setdefault(weight, set()).add((d.op, d.attrs.text, param, tuple(d.weights.items())))
        sources = {d.weights[""]: d.name for d in self.drafts if d.op in ("param", "buffer", "state")}
        settled: list[Draft] = []
        for d in self.drafts:
            if not d.weights:
                settled.append(d)
                continue
            alone = all(len(uses[weight]) == 1 for weight in d.weights.values())
            slot = _slot(d.weights)
            # beside an op that must have its weights in a slot, nodes that only hold one of them may stand
            others = {use[0] for weight in d.weights.values() for use in uses[weight]} - {d.op, *_HOLDERS}
            if d.op in _HOLDERS or (slot is not None and (alone or (d.op not in _OPERANDS and not others))):
                self.slots[d.name] = slot or ""
                settled.append(d)
            elif d.op in _OPERANDS:
                for weight in d.weights.values():
                    if weight not in sources:
                        settled.append(self._source(weight))
                        sources[weight] = settled[-1].name
                        self.slots[settled[-1].name] = weight
                inputs = (*d.inputs, *[sources[weight] for weight in d.weights.values()])
                attrs = d.attrs
                settled.append(Draft(d.name, d.op, inputs, attrs, d.types, {}, d.scope, d.plain, d.source, d.flags))
            elif alone:
                self._rename(d)
                settled.append(d)
            else:
                shared = next(weight for weight in d.weights.values() if len(uses[weight]) > 1)
                raise CaptureError(
                    f"module '{d.scope}' cannot be captured: its {d.op} shares the weight '{shared}' with another use"
                )
        self.drafts = settled

    def _source(self, weight: str) -> Draft:
        """A node that only holds a weight."""
        tensor = self._tensor(weight)
        dtype = str(tensor.dtype).removeprefix("torch.")
        shape = tuple(tensor.shape)
        attrs = ops.get("param").normal({"shape": shape, "dtype": dtype})
        types = ((ops.facts("param", attrs, ()).y[0],),) * len(self.drafts[0].types)
        return Draft(f"%{weight}", "param", (), attrs, types, {"": weight})

    def _rename(self, d: Draft) -> None:
        """Weights whose names do not fit their op get the op's: in a slot named after the module that calls it."""
        key = "|".join(d.weights.values())
        if key not in self.renamed:
            base = f"{d.scope.replace('@', '_')}.{d.op}".lstrip(".")
            taken = set(self.renamed.values()) | set(self.slots.values())
            slot, count = base, 0
            while slot in taken or any(name.startswith(f"{slot}.") for name in self.state):
                count += 1
                slot = f"{base}_{count}"
            self.renamed[key] = slot
        self.slots[d.name] = self.renamed[key]

    # ------------------------------------------------------------------------------------------------------ names
    def _call(self) -> dict[str, str]:
        """A name for every draft: its slot, or the module that makes the call."""
        taken: set[str] = set()
        names: dict[str, str] = {}

        def claim(d: Draft, stem: str) -> None:
            stem = stem.replace(":", "_")
            name, count = stem, 0
            while name in taken:
                count += 1
                name = f"{stem}_{count}"
            taken.add(name)
            names[d.name] = name

        # slots first, so that a node that uses one can have its name
        slots = set(self.slots.values())
        constants = 0
        for d in self.drafts:
            slot = self.slots.get(d.name)
            if slot is not None and not slot.startswith("const:"):
                claim(d, slot)
        for d in self.drafts:
            slot = self.slots.get(d.name)
            if slot is not None and slot.startswith("const:"):
                known = self.constants.found[slot][1]
                if not known or known in taken or known in slots or known.startswith("lifted_tensor"):
                    while f"constants.{constants}" in taken:
                        constants += 1
                    known = f"constants.{constants}"
                claim(d, known)
                self.slots[d.name] = names[d.name]
                self.renamed[slot] = names[d.name]
        calls = Counter(d.scope for d in self.drafts if d.op not in SOURCES)
        for d in self.drafts:
            if d.name not in names:
                path = d.scope.partition("@")[0]
                # a module that comes to one node gives it its name
                if d.op == "input" or (path and (d.plain or calls[d.scope] == 1)):
                    stem = path
                else:
                    stem = f"{path}.{d.op}" if path else d.op
                claim(d, stem)
        return names

    # ------------------------------------------------------------------------------------------------------ graph
    def _graph(self) -> Graph:
        def value(old: str) -> str:
            name, _, index = old.partition(":")
            return output(self.names[name], int(index or 0))

        nodes = [
            Node(self.names[d.name], self._op(d), tuple(map(value, d.inputs)), d.attrs, self.slots.get(d.name))
            for d in self.drafts
        ]
        return ops.check(alive(Graph(tuple(nodes), tuple(map(value, self.outputs)))))

    def _op(self, draft: Draft) -> str:
        """A parameter that the module holds still beside others that it trains (a fixed embedding) is a buffer."""
        still = draft.op == "param" and not self._tensor(draft.weights[""]).requires_grad
        if still and any(isinstance(t, Parameter) and t.requires_grad for t in self.state.values()):
            return "buffer"
        return draft.op

    def _weights(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        by_name = {self.names[d.name]: d for d in self.drafts}
        for node in self.graph.nodes:
            for param, weight in by_name[node.name].weights.items():
                if node.slot is not None:
                    found[ops.weight_name(node.slot, param)] = self._tensor(weight).detach().clone()
        return found

    def _tensor(self, weight: str) -> Tensor:
        if weight.startswith("const:"):
            return self.constants.found[weight][0].contiguous()
        tensor = self.state.get(weight)
        # a normalisation may do without the counter that the op has
        return tensor if tensor is not None else torch.zeros((), dtype=torch.int64)


def _slot(weights: Mapping[str, str]) -> str | None:
    """The slot whose parameters these weights are, by their names; None if there is no such slot."""
    slots = {w if not p else w.removesuffix(f".{p}") if w.endswith(f".{p}") else None for p, w in weights.items()}
    return slots.pop() if len(slots) == 1 else None  # None where any of them does not fit
