"""Writes into memory, made pure: which tensors share memory, and what a write into one does to the others.

Memory that is written into is a tree of cells: the root holds all of it, every view of it has its parent and the
call that makes it. A write into a view is written into the parent too (`unview`); a cell whose parent has changed is
made anew when it is next read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from archwright.exchange.capturing.program import Call, Meta, Program, Ref, Size, bind, refs
from archwright.exchange.capturing.table import Unfit, plain_name
from archwright.exchange.capturing.values import Known, Value, constant

if TYPE_CHECKING:
    from archwright.exchange.capturing.lower import Lowering


def written(call: Call) -> list[Ref]:
    """The arguments that a call writes into."""
    names = [a.name for a in call.op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [ref for name in names for ref in refs([bind(call)[name]])] if names else []


def written_leaves(program: Program) -> frozenset[str]:
    """Names of the weights whose memory is written into, directly or through views."""
    storages = {program.meta(ref).storage for call in program.calls.values() for ref in written(call)}
    leaves = [leaf for leaf in program.leaves.values() if leaf.kind in ("param", "buffer")]
    return frozenset([leaf.name for leaf in leaves if leaf.meta.storage in storages]) - tracked(program)


def tracked(program: Program) -> frozenset[str]:
    """Names of the running statistics and counters that normalisations look after themselves."""
    found = set()
    for call in program.calls.values():
        if call.name in ("batch_norm", "instance_norm"):
            for ref in refs(list(call.args[3:5])):
                leaf = program.leaves.get(ref.id)
                if leaf is not None and leaf.kind == "buffer":
                    found |= {leaf.name, f"{leaf.name.rpartition('.')[0]}.num_batches_tracked".lstrip(".")}
    return frozenset(found)


@dataclass(eq=False)
class Cell:
    """One tensor in memory that is written into. `seen` is the parent's version that `value` was made from."""

    value: Value
    meta: Meta
    parent: Cell | None = None
    call: Call | None = None
    ref: Ref | None = None
    version: int = 0
    seen: int = 0


class Memory:
    """The cells of one lowering."""

    def __init__(self, c: Lowering) -> None:
        self.c = c
        self.cells: dict[Ref, Cell] = {}
        self.roots: dict[str, Cell] = {}
        self.storages: set[int] = set()
        for call in c.program.calls.values():
            self.storages |= {c.program.meta(ref).storage for ref in written(call)}

    def prepare(self) -> None:
        """Make cells of the leaves that are written into."""
        for id, leaf in self.c.program.leaves.items():
            if leaf.meta.storage in self.storages:
                cell = self.cells[Ref(id)] = Cell(self.c.env[Ref(id)], leaf.meta)
                if leaf.kind in ("param", "buffer"):
                    self.roots[leaf.name] = cell

    def holds(self, ref: Ref) -> bool:
        """Whether a reference is to memory that is written into."""
        return ref in self.cells

    def born(self, call: Call, ref: Ref, value: Value) -> None:
        """A call has made a value: if its memory is written into, it is a root, or a view of an argument."""
        meta = self.c.program.meta(ref)
        if meta.storage not in self.storages:
            return
        for source in refs([*call.args, *call.kwargs.values()]):
            if self.c.program.meta(source).storage == meta.storage and source in self.cells:
                parent = self.cells[source]
                self.current(parent)
                self.cells[ref] = Cell(value, meta, parent, call, ref, seen=parent.version)
                return
        self.cells[ref] = Cell(value, meta)

    def same(self, ref: Ref, target: Ref) -> None:
        """A call returns the very tensor that it has written into."""
        if target in self.cells:
            self.cells[ref] = self.cells[target]
        else:
            self.c.env[ref] = self.c.env[target]

    def read(self, ref: Ref) -> Value:
        """What stands there now."""
        return self.current(self.cells[ref])

    def current(self, cell: Cell) -> Value:
        """The value of a cell, made anew if the memory behind it has changed."""
        if cell.parent is not None:
            self.current(cell.parent)
            if cell.seen != cell.parent.version:
                cell.value = self._view(cell)
                cell.seen = cell.parent.version
                cell.version += 1
        return cell.value

    def _view(self, cell: Cell) -> Value:
        """The view's call once more, over what its parent is now."""
        call, ref = cell.call, cell.ref
        assert call is not None and ref is not None
        a = self.c._resolved(bind(call))
        made = self.c.apply(call, plain_name(call.op), a, call.out)
        return made if ref.index is None else made[ref.index]  # type: ignore[no-any-return]

    def write(self, ref: Ref, value: Value) -> None:
        """Put a value into memory."""
        self._write(self.cells[ref], value)

    def _write(self, cell: Cell, value: Value) -> None:
        if cell.parent is not None:
            whole = self.current(cell.parent)
            self._write(cell.parent, unview(self.c, cell, whole, value))
            cell.seen = cell.parent.version
        cell.value = value
        cell.version += 1

    def state(self) -> Iterator[tuple[str, Value]]:
        """Buffers of the module that were written into, with what they are to be."""
        for name, cell in self.roots.items():
            if cell.version:
                yield name, self.current(cell)


# ------------------------------------------------------------------------------------------------------------ unview
_SAME = frozenset(
    ("alias", "detach", "clone", "contiguous", "to", "dropout", "expand_as", "type_as", "lift_fresh", "lift_fresh_copy",
     "positive")
)  # fmt: skip
"""Operators that may return the very tensor that they are given."""


def unview(c: Lowering, cell: Cell, whole: Value, part: Value) -> Value:
    """The whole with one view of it replaced. Raises `CaptureError` for views that cannot be written into."""
    call, ref = cell.call, cell.ref
    assert call is not None and ref is not None
    a = bind(call)
    name, shape = plain_name(call.op), whole.meta.shape
    rank = len(shape)
    if name in _SAME and whole.meta.shape == part.meta.shape:
        return part
    if name in ("view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze", "view_as", "ravel"):
        return _call(c, "reshape", call, whole.meta, self=part, shape=list(shape))
    if name in ("expand", "broadcast_to") and whole.meta.shape == part.meta.shape:
        return part
    if name in ("transpose", "swapaxes", "swapdims"):
        first, second = [a[k] for k in a if k not in ("self",)][:2]
        return _call(c, "transpose", call, whole.meta, self=part, dim0=first, dim1=second)
    if name in ("t", "numpy_T", "mT"):
        return _call(c, "transpose", call, whole.meta, self=part, dim0=-2, dim1=-1)
    if name == "permute":
        dims = [d % rank for d in a["dims"]]
        return _call(c, "permute", call, whole.meta, self=part, dims=[dims.index(i) for i in range(rank)])
    if name in ("select", "slice", "narrow", "split", "split_with_sizes", "chunk", "unbind"):
        dim, start, stop, step = _range(a, name, shape, ref, cell.meta)
        if name in ("select", "unbind"):
            part = _call(c, "unsqueeze", call, None, self=part, dim=dim)
        return _put(c, whole, part, dim, start, stop, step)
    raise c.unable(f"it writes into a part of a tensor that {call.op} has picked, which cannot be captured")


def _call(c: Lowering, name: str, call: Call, meta: Meta | None, **a: Any) -> Value:
    """A view operator by name, on constants or on values."""
    part = a.pop("self")
    if isinstance(part, Known):
        if name == "reshape" and part.tensor.numel() == 1:
            assert meta is not None
            return Known(part.tensor.reshape([1] * len(a["shape"])), meta)
        if name == "reshape" and not part.sized:
            return constant(part.at(0).reshape(a["shape"]))
        if name == "unsqueeze":
            dim = a["dim"]
            shape = (*part.meta.shape[:dim], 1, *part.meta.shape[dim:])
            return Known(part.tensor.unsqueeze(dim), Meta(shape, part.meta.dtype))
        if name in ("permute", "transpose"):
            assert meta is not None
            tensor = part.tensor
            moved = tensor.permute(a["dims"]) if name == "permute" else tensor.transpose(a["dim0"], a["dim1"])
            return Known(moved, meta)
    if name == "reshape":
        return c.reshape(part, a["shape"])
    return c.emit(name, part, **a)  # type: ignore[no-any-return]


def _range(a: dict[str, Any], name: str, shape: Any, ref: Ref, meta: Meta) -> tuple[int, int, int, int]:
    """(dim, start, stop, step) of the part of a dimension that a view shows."""
    dim = a["dim"] % len(shape)
    n = shape[dim]
    if isinstance(n, Size):
        if name == "slice" and a["start"] in (None, 0) and a["end"] is not None and a["end"] > 1 << 40:
            return dim, 0, -1, a["step"]
        raise Unfit("it writes into a part of the batch")
    if name == "select":
        start = a["index"] % n
        return dim, start, start + 1, 1
    if name == "unbind":
        assert ref.index is not None
        return dim, ref.index, ref.index + 1, 1
    if name == "slice":
        start, stop, _ = slice(a["start"], a["end"]).indices(n)
        return dim, start, max(start, stop), a["step"]
    if name == "narrow":
        start = a["start"] % n if a["start"] < 0 else a["start"]
        return dim, start, start + a["length"], 1
    assert ref.index is not None
    if name == "split_with_sizes":
        sizes = a["split_sizes"]
    elif name == "split":
        step = a["split_size"] if "split_size" in a else a["split_sizes"]
        sizes = step if isinstance(step, (list, tuple)) else [min(step, n - i) for i in range(0, n, step)]
    else:
        step = -(-n // a["chunks"])
        sizes = [min(step, n - i) for i in range(0, n, step)]
    start = sum(sizes[: ref.index])
    return dim, start, start + sizes[ref.index], 1


def _put(c: Lowering, whole: Value, part: Value, dim: int, start: int, stop: int, step: int) -> Value:
    """The whole with [start, stop) of a dimension replaced."""
    n = whole.meta.shape[dim]
    if step == 1 and (stop == -1 or (start == 0 and stop == n)):
        return part
    if isinstance(whole, Known) and isinstance(part, Known) and not whole.sized:
        made = whole.at(0).clone()
        made[(slice(None),) * dim + (slice(start, stop, step),)] = part.at(0)
        return constant(made)
    if step != 1:
        index = constant(torch.arange(start, stop, step))
        spec = [None] * dim + ["i"]
        return c.emit("index_put", whole, index, part, spec=spec)  # type: ignore[no-any-return]
    pieces = [piece(c, whole, dim, 0, start), part, piece(c, whole, dim, stop, n)]
    return c.emit("concat", *[p for p in pieces if p is not None], dim=dim)  # type: ignore[no-any-return]


def piece(c: Lowering, whole: Value, dim: int, start: int, stop: int) -> Value | None:
    """[start, stop) of a dimension of a value, or None if that is nothing."""
    if start == stop:
        return None
    if isinstance(whole, Known):
        meta = Meta((*whole.meta.shape[:dim], stop - start, *whole.meta.shape[dim + 1 :]), whole.meta.dtype)
        tensor = whole.tensor
        return Known(tensor if tensor.shape[dim] == 1 else tensor.narrow(dim, start, stop - start), meta)
    attrs = {"dim": dim, "start": start} | ({} if stop == whole.meta.shape[dim] else {"stop": stop})
    return c.emit("slice", whole, **attrs)  # type: ignore[no-any-return]
