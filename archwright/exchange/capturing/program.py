"""`Program`: what torch.export gives, as a plain list of calls that two exports can be compared by.

An export has concrete sizes. Two exports at different batch sizes, laid side by side (`align`), say which numbers
come from the batch: those become `Size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Unaligned(Exception):
    """Two exports differ in more than numbers. The message says where."""


class Size(NamedTuple):
    """A number that depends on the batch: k * batch + c."""

    k: int
    c: int

    def at(self, batch: int) -> int:
        """The number at a batch size."""
        return self.k * batch + self.c


Dim = int | Size


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that call number `id` makes; of several, the one at `index`."""

    id: int
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Meta:
    """Shape and dtype of a value. `storage` is the same number for values that share memory."""

    shape: tuple[Dim, ...]
    dtype: str
    storage: int = 0

    def at(self, batch: int) -> tuple[int, ...]:
        """The shape at a batch size."""
        return tuple([n.at(batch) if isinstance(n, Size) else n for n in self.shape])

    def __str__(self) -> str:
        shown = [f"{n.k} * batch + {n.c}" if isinstance(n, Size) else str(n) for n in self.shape]
        return f"{self.dtype}[{', '.join(shown)}]"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that no call makes.

    kind  "input", "param", "buffer" (of the module's state), "constant" (any other tensor that the module holds)
    name  argument, or dotted name in the module
    """

    kind: str
    name: str
    meta: Meta
    tensor: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a torch operator.

    op     an OpOverload
    out    what it makes: a Meta, or a tuple of them (None for what isn't a tensor)
    scope  dotted path of the module that makes the call; "@1" follows a module that is called for the second time
    plain  that module is one of torch.nn's own, which does little else
    trace  the stack at the call, as text
    """

    id: int
    op: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any
    scope: str = ""
    plain: bool = False
    trace: str = ""

    @property
    def name(self) -> str:
        """The operator's name without the overload: "add" of aten.add.Tensor."""
        return self.op._schema.name.rpartition("::")[2]

    def meta(self, index: int | None = None) -> Meta:
        """What a Ref to this call is."""
        return self.out if index is None else self.out[index]  # type: ignore[no-any-return]


@dataclass
class Program:
    """Leaves and calls by number, in the order of execution.

    outputs   the module's results, flattened: Ref, number or None
    spec      how torch's pytree puts them together
    batches   the batch sizes that it holds for: two after `align`
    checks    values that must be true for the outputs to be right, and what it means if they aren't
    """

    train: bool
    batches: tuple[int, ...]
    leaves: dict[int, Leaf] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    outputs: tuple[Any, ...] = ()
    spec: Any = None
    checks: list[tuple[Ref, str]] = field(default_factory=list)

    def meta(self, ref: Ref) -> Meta:
        """Shape and dtype of a value."""
        leaf = self.leaves.get(ref.id)
        return leaf.meta if leaf is not None else self.calls[ref.id].meta(ref.index)

    @property
    def inputs(self) -> list[int]:
        """Numbers of the leaves that are arguments."""
        return [id for id, leaf in self.leaves.items() if leaf.kind == "input"]


def refs(value: Any) -> Iterator[Ref]:
    """All values that an argument names."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (list, tuple)) and not isinstance(value, Size):
        for item in value:
            yield from refs(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from refs(item)


def swap(value: Any, change: Callable[[Any], Any]) -> Any:
    """An argument with every Ref and Size in it changed."""
    if isinstance(value, (Ref, Size)):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([swap(item, change) for item in value])
    return value


def bind(call: Call) -> dict[str, Any]:
    """The arguments by their names in the operator's schema, defaults filled in."""
    found = {}
    for index, argument in enumerate(call.op._schema.arguments):
        if index < len(call.args):
            found[argument.name] = call.args[index]
        elif argument.name in call.kwargs:
            found[argument.name] = call.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found


# ------------------------------------------------------------------------------------------------------------- align
def align(one: Program, two: Program) -> Program:
    """One program for both batch sizes. Raises `Unaligned` where the two differ in more than numbers."""
    batches = (*one.batches, *two.batches)
    if len(one.calls) != len(two.calls):
        raise Unaligned(f"{len(one.calls)} calls at batch {batches[0]} and {len(two.calls)} at batch {batches[1]}")
    for what in ("leaves", "outputs", "checks"):
        counts = [len(getattr(program, what)) for program in (one, two)]
        if counts[0] != counts[1]:
            raise Unaligned(f"{counts[0]} {what} at batch {batches[0]} and {counts[1]} at batch {batches[1]}")
    made = Program(one.train, batches, spec=one.spec)
    for a, b in zip(one.leaves.values(), two.leaves.values(), strict=True):
        meta = _meta(a.meta, b.meta, batches)
        if a.kind == "constant" and (a.meta.shape != b.meta.shape or not equal(a.tensor, b.tensor)):
            raise Unaligned(f"the constant '{a.name}' depends on the batch")
        made.leaves[len(made.leaves)] = replace(a, meta=meta)
    numbers = [dict(zip((*p.leaves, *p.calls), range(len(p.leaves) + len(p.calls)), strict=True)) for p in (one, two)]
    for c, d in zip(one.calls.values(), two.calls.values(), strict=True):
        if c.op != d.op or c.scope != d.scope:
            raise Unaligned(f"{c.op} in '{c.scope}' at batch {batches[0]} is {d.op} in '{d.scope}' at {batches[1]}")
        try:
            args = _both(c.args, d.args, batches, numbers)
            kwargs = {key: _both(c.kwargs[key], d.kwargs[key], batches, numbers) for key in c.kwargs}
            out = _outs(c.out, d.out, batches)
        except (Unaligned, KeyError) as error:
            raise Unaligned(f"{c.op} in '{c.scope}': {error}") from None
        id = numbers[0][c.id]
        made.calls[id] = replace(c, id=id, args=args, kwargs=kwargs, out=out)
    made.outputs = tuple([_both(a, b, batches, numbers) for a, b in zip(one.outputs, two.outputs, strict=True)])
    checks = zip(one.checks, two.checks, strict=True)
    made.checks = [(_both(a, b, batches, numbers), why) for (a, why), (b, _) in checks]
    return made


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two tensors hold the same numbers, NaN being equal to NaN."""
    if a is None or b is None:
        return a is b
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    same = a == b
    if a.is_floating_point():
        same = same | (a.isnan() & b.isnan())
    return bool(same.all())


def _number(a: int, b: int, batches: Sequence[int]) -> Dim:
    if a == b:
        return a
    k, rest = divmod(b - a, batches[1] - batches[0])
    if rest:
        raise Unaligned(f"{a} at batch {batches[0]} and {b} at batch {batches[1]}")
    return Size(k, a - k * batches[0])


def _meta(a: Meta, b: Meta, batches: Sequence[int]) -> Meta:
    if a.dtype != b.dtype or len(a.shape) != len(b.shape):
        raise Unaligned(f"a value is {a} at batch {batches[0]} and {b} at batch {batches[1]}")
    return Meta(tuple([_number(n, m, batches) for n, m in zip(a.shape, b.shape, strict=True)]), a.dtype, a.storage)


def _outs(a: Any, b: Any, batches: Sequence[int]) -> Any:
    if isinstance(a, Meta) and isinstance(b, Meta):
        return _meta(a, b, batches)
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple([_outs(m, n, batches) for m, n in zip(a, b, strict=True)])
    if a is None and b is None:
        return None
    raise Unaligned("different numbers of outputs")


def _both(a: Any, b: Any, batches: Sequence[int], numbers: Sequence[dict[int, int]]) -> Any:
    if isinstance(a, Ref) and isinstance(b, Ref):
        made = Ref(numbers[0][a.id], a.index)
        if made != Ref(numbers[1][b.id], b.index):
            raise Unaligned("an argument comes from different calls")
        return made
    if type(a) is not type(b):
        raise Unaligned(f"an argument is {a!r} at batch {batches[0]} and {b!r} at batch {batches[1]}")
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            raise Unaligned(f"an argument has {len(a)} entries at batch {batches[0]} and {len(b)} at {batches[1]}")
        return type(a)([_both(m, n, batches, numbers) for m, n in zip(a, b, strict=True)])
    if type(a) is int:
        return _number(a, b, batches)
    if a != b and not (a != a and b != b):  # NaN differs from itself
        raise Unaligned(f"an argument is {a!r} at batch {batches[0]} and {b!r} at batch {batches[1]}")
    return a


# --------------------------------------------------------------------------------------------------------- interpret
def interpret(program: Program, inputs: Sequence[Tensor]) -> dict[Ref, Tensor]:
    """Run a program as exported (before `align`) on tensors; returns every tensor that it makes, as it was made."""
    values: dict[int, Any] = {id: leaf.tensor for id, leaf in program.leaves.items()}
    values.update(zip(program.inputs, [x.clone() for x in inputs], strict=True))
    seen: dict[Ref, Tensor] = {}

    def read(item: Any) -> Any:
        return values[item.id] if item.index is None else values[item.id][item.index]

    with torch.no_grad():
        for call in program.calls.values():
            args = swap(call.args, read)
            kwargs = {key: swap(value, read) for key, value in call.kwargs.items()}
            made = values[call.id] = call.op(*args, **kwargs)
            for index, tensor in enumerate(made if isinstance(made, (list, tuple)) else [made]):
                if isinstance(tensor, Tensor):
                    # a copy: a later call may write into it
                    seen[Ref(call.id, index if isinstance(made, (list, tuple)) else None)] = tensor.clone()
    return seen
