"""Two drafts of one module, of its eval and of its train mode, made one graph that is right in both.

Most of the nodes are the same, as dropout and normalisation know the mode by themselves. The two lists are laid side by
side; where one has nodes that the other lacks, they meet again in a `by_mode` node. Known forms of such differences
become what they mean: dropout, stochastic depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from typing import Any

from archwright import ops
from archwright.errors import CaptureError
from archwright.exchange.capturing.lower import Draft, Lowering
from archwright.ir import NO_ATTRS, Attrs

INERT = frozenset(("dropout", "feature_dropout", "alpha_dropout", "stochastic_depth"))
"""Ops that pass their input on in eval mode."""

SOURCES = frozenset(("input", "param", "buffer", "state"))
"""Ops that only hold a value."""


class Merged:
    """Drafts for both modes, in the order of execution.

    eval_, train  the two lowerings; `train` is None where only eval mode is captured
    pairs         the outputs: (place in eval's outputs, place in train's)

    `outputs`, `checks` (value, what it means if it is false) and `updates` (buffer -> its value after training) name
    values; `changed` are the weights that the module changes in eval mode, which a net does not.
    """

    def __init__(self, eval_: Lowering, train: Lowering | None, pairs: Sequence[tuple[int, int]]) -> None:
        self.batches = eval_.batches
        self.drafts: list[Draft] = []
        self.by_name: dict[str, Draft] = {}
        self._known: dict[tuple[str, ...], str] = {}
        self._count = 0
        self.outputs: list[str] = []
        self.updates: dict[str, str] = {}
        self.changed: tuple[str, ...] = tuple(eval_.updates)
        self.checks: list[tuple[str, str]] = []
        if train is None:
            self._alone(eval_, pairs)
        else:
            self._both(eval_, train, pairs)

    def _alone(self, eval_: Lowering, pairs: Sequence[tuple[int, int]]) -> None:
        self._count = eval_.made  # the numbers below are taken
        for draft in eval_.drafts:
            self._append(replace(draft))
        self.outputs = [eval_.outputs[i] for i, _ in pairs]
        self.checks = list(eval_.checks)

    # ------------------------------------------------------------------------------------------------------- both
    def _both(self, e: Lowering, t: Lowering, pairs: Sequence[tuple[int, int]]) -> None:
        maps: tuple[dict[str, str], dict[str, str]] = ({}, {})
        sources: dict[tuple[Any, ...], str] = {}
        for side, mode in enumerate((e, t)):
            for draft in mode.drafts:
                if draft.op in SOURCES:
                    key = (draft.op, draft.attrs.text, draft.weights.get("", draft.scope))
                    if key not in sources:
                        sources[key] = self._append(replace(draft, name=self._fresh()))
                    maps[side][draft.name] = sources[key]
        first, second = ([d for d in mode.drafts if d.op not in SOURCES] for mode in (e, t))
        place = [0, 0]
        for i, j, n in _blocks([_key(d) for d in first], [_key(d) for d in second]):
            for draft in first[place[0] : i]:
                self._only(draft, maps[0], "eval")
            for draft in second[place[1] : j]:
                self._only(draft, maps[1], "train")
            for a, b in zip(first[i : i + n], second[j : j + n], strict=True):
                self._shared(a, b, maps)
            place = [i + n, j + n]
        for i, j in pairs:
            self.outputs.append(self._meet(maps[1][t.outputs[j]], maps[0][e.outputs[i]]))
        if len(e.checks) != len(t.checks):
            raise CaptureError("the module asks other things about its masks in train mode than in eval mode")
        for (a, why), (b, _) in zip(e.checks, t.checks, strict=True):
            self.checks.append((self._meet(maps[1][b], maps[0][a]), why))
        self.updates = {name: maps[1][value] for name, value in t.updates.items()}

    def _only(self, draft: Draft, names: dict[str, str], mode: str) -> None:
        """A draft that one mode has alone."""
        inputs = tuple([names[value] for value in draft.inputs])
        if mode == "eval" and draft.op in INERT:
            names[draft.name] = inputs[0]
            return
        made = replace(draft, name=self._fresh(), inputs=inputs, flags=frozenset((mode,)))
        self._append(made)
        names.update(zip(draft.values(), made.values(), strict=True))

    def _shared(self, e: Draft, t: Draft, maps: Sequence[dict[str, str]]) -> None:
        """A draft that both modes have. Attributes for training only are those of train mode."""
        inputs = tuple([self._meet(maps[1][b], maps[0][a]) for a, b in zip(e.inputs, t.inputs, strict=True)])
        made = replace(t, name=self._fresh(), inputs=inputs)
        self._append(made)
        for side, draft in enumerate((e, t)):
            maps[side].update(zip(draft.values(), made.values(), strict=True))

    def _meet(self, train: str, eval_: str) -> str:
        """A value that is one in train mode and the other in eval mode."""
        if train == eval_:
            return train
        known = self._known.get((train, eval_))
        if known is None:
            known = self._known[train, eval_] = self._join(train, eval_)
        return known

    def _join(self, train: str, eval_: str) -> str:
        if self._passes(train, eval_):
            return train
        depth = self._depth(train, eval_)
        if depth is not None:
            return depth
        types = tuple([(self._type(eval_, index),) for index in range(len(self.batches))])
        if any(self._type(train, index) != made[0] for index, made in enumerate(types)):
            raise CaptureError(
                f"a value in '{self.by_name[train.partition(':')[0]].scope}' has another shape or dtype in train mode "
                f"({self._type(train, 0)}) than in eval mode ({types[0][0]})"
            )
        near = self.by_name[train.partition(":")[0]]
        return self._append(Draft(self._fresh(), "by_mode", (train, eval_), Attrs(), types, scope=near.scope))

    # --------------------------------------------------------------------------------------------------- patterns
    def _passes(self, train: str, eval_: str) -> bool:
        """Whether a value is another one, but for dropout."""
        draft = self.by_name[train.partition(":")[0]]
        while draft.op in INERT:
            if draft.inputs[0] == eval_:
                return True
            draft = self.by_name[draft.inputs[0].partition(":")[0]]
        return False

    def _depth(self, train: str, eval_: str) -> str | None:
        """Stochastic depth written by hand: x noise / keep, with one random number for each sample."""
        found = self._factors(train, eval_)
        if found is None:
            return None
        factor, noises = found
        if len(noises) != 1:
            return None
        keep, draw, shape = noises[0]
        rank = len(self._type(eval_, 0).shape)
        if not 0 < keep <= 1 or not math.isclose(factor * keep, 1.0, rel_tol=1e-6) or len(shape) != rank:
            return None
        if any(n != 1 for n in shape[1:]) or shape[0] not in (0, 1):
            return None
        attrs = {"p": round(1 - keep, 12), "mode": "row" if shape[0] == 0 else "batch", "draw": draw}
        normal = ops.get("stochastic_depth").normal(attrs)
        near = self.by_name[train.partition(":")[0]]
        types = tuple([(self._type(eval_, index),) for index in range(len(self.batches))])
        return self._append(
            Draft(self._fresh(), "stochastic_depth", (eval_,), normal, types, scope=near.scope, source=near.source)
        )

    def _factors(self, value: str, base: str) -> tuple[float, list[tuple[float, str, tuple[int, ...]]]] | None:
        """A value as base * number * noises, if it is such a product with `base` in it once."""
        factor, noises, bases = 1.0, [], 0
        stack = [(value, False)]
        while stack:
            name, below = stack.pop()
            if name == base:
                bases += 1
                continue
            noise = self._noise(name)
            if noise is not None:
                if below:
                    return None
                noises.append(noise)
                continue
            draft = self.by_name[name.partition(":")[0]]
            if draft.op not in ("mul", "div") or "rounding" in draft.attrs:
                return None
            if len(draft.inputs) == 1:
                number = draft.attrs.get("value")
                if not isinstance(number, (int, float)) or not number or draft.attrs.get("reverse"):
                    return None
                factor *= number if draft.op == "mul" else 1 / number
                stack.append((draft.inputs[0], below))
            elif draft.op == "mul":
                stack += [(v, below) for v in draft.inputs]
            else:
                return None
        return (factor, noises) if bases == 1 else None

    def _noise(self, name: str) -> tuple[float, str, tuple[int, ...]] | None:
        """(probability of 1, how it is drawn, shape) of a value that is 0 or 1 at random."""
        draft = self.by_name[name.partition(":")[0]]
        if draft.op == "random" and draft.attrs.get("kind") == "bernoulli":
            return float(draft.attrs.get("p", 0.5)), "bernoulli", draft.attrs["shape"]
        if draft.op == "floor":
            inner = self.by_name[draft.inputs[0].partition(":")[0]]
            if inner.op == "add" and len(inner.inputs) == 1:
                source = self.by_name[inner.inputs[0].partition(":")[0]]
                if source.op == "random" and "kind" not in source.attrs:
                    return float(inner.attrs["value"]), "uniform", source.attrs["shape"]
        return None

    # ---------------------------------------------------------------------------------------------------- helpers
    def _fresh(self) -> str:
        self._count += 1
        return f"%{self._count}"

    def _append(self, draft: Draft) -> str:
        self.drafts.append(draft)
        self.by_name[draft.name] = draft
        return draft.name

    def _type(self, value: str, index: int) -> Any:
        name, _, number = value.partition(":")
        return self.by_name[name].types[index][int(number or 0)]

    def append_op(
        self, op: str, inputs: Sequence[str], weights: Mapping[str, str], types: Any, attrs: Attrs = NO_ATTRS
    ) -> str:
        """A further draft at the end, outside of every module."""
        return self._append(Draft(self._fresh(), op, tuple(inputs), attrs, types, dict(weights)))

    def type_of(self, value: str) -> tuple[Any, ...]:
        """Types of a value, one tuple for each batch size."""
        return tuple([(self._type(value, index),) for index in range(len(self.batches))])


def _key(draft: Draft) -> tuple[Any, ...]:
    """What two drafts must have in common to be the same node in both modes."""
    attrs = draft.attrs
    if draft.op == "attention" and "dropout" in attrs:
        attrs = Attrs({key: value for key, value in attrs.items() if key != "dropout"})
    return draft.op, attrs.text, tuple(draft.weights.items()), draft.scope, len(draft.inputs)


def _blocks(a: list[Any], b: list[Any]) -> list[tuple[int, int, int]]:
    """Runs of equal items (place in a, place in b, length), in order, as many as can be matched; last an empty one."""
    start = 0
    while start < len(a) and start < len(b) and a[start] == b[start]:
        start += 1
    end = 0
    while end < len(a) - start and end < len(b) - start and a[len(a) - 1 - end] == b[len(b) - 1 - end]:
        end += 1
    inner = SequenceMatcher(None, a[start : len(a) - end], b[start : len(b) - end], autojunk=False)
    found = [(0, 0, start)] if start else []
    found += [(i + start, j + start, n) for i, j, n in inner.get_matching_blocks() if n]
    if end:
        found.append((len(a) - end, len(b) - end, end))
    return [*found, (len(a), len(b), 0)]


