"""Drafts put in the form that a person would write: reshapes of reshapes, and moves that undo one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from archwright import ops
from archwright.exchange.capturing.lower import Draft

_RESHAPES = frozenset(("reshape", "flatten"))


def tidy(drafts: Sequence[Draft], outputs: Sequence[str]) -> tuple[list[Draft], list[str]]:
    """The drafts with reshapes merged and left out where they do nothing, and the outputs."""
    users = Counter(value for d in drafts for value in d.inputs)
    users.update(outputs)
    types = {value: [row[i] for row in d.types] for d in drafts for i, value in enumerate(d.values())}
    same: dict[str, str] = {}
    kept: dict[str, Draft] = {}
    for old in drafts:
        d = replace(old, inputs=tuple([same.get(value, value) for value in old.inputs]))
        if d.op in _RESHAPES:
            inner = kept.get(d.inputs[0])
            if inner is not None and inner.op in _RESHAPES and users[inner.name] == 1:
                shape = _shape([row[0].shape for row in d.types])
                if shape is not None:
                    attrs = ops.get("reshape").normal({"shape": shape})
                    d = replace(d, op="reshape", attrs=attrs, inputs=inner.inputs)
                    del kept[inner.name]
            if [row[0].shape for row in d.types] == [t.shape for t in types[d.inputs[0]]]:
                same[d.name] = d.inputs[0]
                users[d.inputs[0]] += users[d.name] - 1
                continue
        elif d.op == "transpose":
            inner = kept.get(d.inputs[0])
            if inner is not None and inner.op == "transpose" and _dims(inner) == _dims(d):
                same[d.name] = inner.inputs[0]
                users[inner.inputs[0]] += users[d.name]
                continue
        kept[d.name] = d
    return list(kept.values()), [same.get(value, value) for value in outputs]


def _dims(d: Draft) -> set[int]:
    rank = len(d.types[0][0].shape)
    return {d.attrs["dim0"] % rank, d.attrs["dim1"] % rank}


def _shape(after: Sequence[tuple[int, ...]]) -> list[int] | None:
    """A shape at all batch sizes as one with -1 where they differ, or None if that takes more than one."""
    shape = [row[0] if len(set(row)) == 1 else -1 for row in zip(*after, strict=True)]
    return shape if shape.count(-1) <= 1 else None
