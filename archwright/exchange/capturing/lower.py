"""A `Program` said in our ops, call by call: the drafts of nodes, with values that are known at capture folded away.

A value is `Made` (by a draft), `Known` (a constant), or a `Weight` (of the module's state). Calls that write into
memory become pure ones: whoever reads a tensor afterwards, directly or through a view, reads the new value.

Every draft is checked against the export: same shape at both batch sizes, same dtype. A call that no rule can
say exactly becomes `opaque`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from archwright import ops
from archwright.errors import ArchwrightError, CaptureError
from archwright.exchange.capturing import views
from archwright.exchange.capturing.export import called_at
from archwright.exchange.capturing.program import Call, Leaf, Meta, Program, Ref, Size, bind, equal, refs, swap
from archwright.exchange.capturing.table import RULES, Unfit, plain_name
from archwright.exchange.capturing.values import (
    Known,
    Made,
    Value,
    Weight,
    compact,
    dtype_name,
    shrunk,
    sizes,
    stretched,
    values,
)
from archwright.ir import Attrs, Type, output


@dataclass
class Draft:
    """A node to be. `weights` says for each parameter of the op which weight it is; `source` is what it stands for."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attrs: Attrs
    types: tuple[tuple[Type, ...], ...]
    weights: dict[str, str] = field(default_factory=dict)
    scope: str = ""
    plain: bool = False
    source: int = -1
    flags: frozenset[str] = frozenset()

    def values(self) -> list[str]:
        """Names of the values that it makes."""
        return [output(self.name, index) for index in range(len(self.types[0]))]


class Constants:
    """Constants by content, shared by the drafts of both modes: key -> (tensor, the name to give it)."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Tensor, str]] = {}
        self._buckets: dict[str, list[str]] = {}

    def key(self, tensor: Tensor, name: str) -> str:
        """A key for the tensor: the same for equal ones."""
        shape = ",".join(map(str, tensor.shape))
        data = tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
        flat = data.view(torch.uint8).numpy().tobytes() if data.numel() else b""
        digest = hashlib.blake2b(flat, digest_size=12).hexdigest()
        bucket = f"{tensor.dtype}|{shape}|{digest}"
        for key in self._buckets.get(bucket, ()):
            if equal(self.found[key][0], tensor):
                return key
        key = f"const:{len(self.found)}"
        self._buckets.setdefault(bucket, []).append(key)
        self.found[key] = (tensor.detach(), name)
        return key


# ---------------------------------------------------------------------------------------------------------- lowering
class Lowering:
    """Drafts for one program. `run` makes them; rules use the other methods.

    frozen   names of running statistics that stand still in train mode (a normalisation kept in eval mode)
    written  names of weights that some mode writes into
    layout   keep calls that only change the order of numbers in memory
    """

    def __init__(
        self,
        program: Program,
        constants: Constants,
        frozen: frozenset[str] = frozenset(),
        written: frozenset[str] = frozenset(),
        layout: bool = False,
    ) -> None:
        self.program = program
        self.train = program.train
        self.batches = program.batches
        self.constants = constants
        self.frozen = frozen
        self.written = written
        self.layout = layout
        self.drafts: list[Draft] = []
        self.types: dict[str, tuple[Type, ...]] = {}
        self.env: dict[Ref, Value] = {}
        self.memory = views.Memory(self)
        self.used = {ref for call in program.calls.values() for ref in refs([*call.args, *call.kwargs.values()])}
        self.used |= set(refs(list(program.outputs)))
        self._sources: dict[str, str] = {}
        self._call: Call | None = None
        self.made = 0
        self.failures: list[str] = []
        self.tracked = views.tracked(program)
        self.outputs: list[Any] = []
        self.updates: dict[str, str] = {}
        self.checks: list[tuple[str, str]] = []

    def run(self) -> Lowering:
        """Lower all calls and outputs."""
        for id, leaf in self.program.leaves.items():
            self.env[Ref(id)] = self._leaf(leaf)
        self.memory.prepare()
        for call in self.program.calls.values():
            self._call = call
            self._lower(call)
        self._call = None
        for value in self.program.outputs:
            self.outputs.append(self.name(self.read(value)) if isinstance(value, Ref) else value)
        self.checks = [(self.name(self.read(ref)), why) for ref, why in self.program.checks]
        for name, value in self.memory.state():
            self.updates[name] = self.name(value)
        return self

    # ---------------------------------------------------------------------------------------------------- leaves
    def _leaf(self, leaf: Leaf) -> Value:
        if leaf.kind == "input":
            shape = tuple([None if isinstance(n, Size) else n for n in leaf.meta.shape])
            attrs = {"shape": shape, "dtype": leaf.meta.dtype}
            types = tuple([(Type(leaf.meta.at(b), leaf.meta.dtype),) for b in self.batches])
            made = self._add("input", (), ops.get("input").normal(attrs), types, {})
            made.scope = leaf.name
            return Made(made.name, leaf.meta)
        buffer = leaf.kind == "buffer" or leaf.name in self.written
        if leaf.kind == "param" or (buffer and (leaf.name in self.tracked or leaf.name in self.written)):
            return Weight(leaf.name, leaf.meta, buffer)
        assert leaf.tensor is not None
        return Known(leaf.tensor.detach(), leaf.meta, leaf.name)

    # ----------------------------------------------------------------------------------------------------- calls
    def read(self, ref: Ref) -> Value:
        """The value that a reference stands for now."""
        return self.memory.read(ref) if self.memory.holds(ref) else self.env[ref]

    def _lower(self, call: Call) -> None:
        schema = call.op._schema
        written = [arg.name for arg in schema.arguments if arg.alias_info is not None and arg.alias_info.is_write]
        bound = bind(call)
        if written:
            self._write(call, bound, written)
        else:
            self.keep(call, self.apply(call, plain_name(call.op), self._resolved(bound), call.out))

    def _resolved(self, bound: Mapping[str, Any]) -> dict[str, Any]:
        def one(item: Any) -> Any:
            return self.read(item) if isinstance(item, Ref) else item

        return {name: swap(value, one) for name, value in bound.items()}

    def keep(self, call: Call, made: Any) -> None:
        """Remember what a call has made."""
        if call.out is None:
            return
        if isinstance(call.out, tuple):
            for index, value in enumerate(made):
                if call.out[index] is not None and value is not None:
                    self._set(call, Ref(call.id, index), value)
        else:
            self._set(call, Ref(call.id), made)

    def _set(self, call: Call, ref: Ref, value: Value) -> None:
        self.env[ref] = value
        self.memory.born(call, ref, value)

    def _write(self, call: Call, bound: dict[str, Any], written: list[str]) -> None:
        """A call that writes into its arguments: make the new value, then let it take the old one's place."""
        if len(written) != 1 or not isinstance(bound[written[0]], Ref):
            raise self.unable(f"{call.op} writes into several tensors, which cannot be captured")
        target: Ref = bound[written[0]]
        leaf = self.program.leaves.get(target.id)
        if leaf is not None and leaf.name in self.tracked and call.name == "add_":
            self.memory.same(Ref(call.id), target)  # the counter of a normalisation, which counts by itself
            return
        meta = self.program.meta(target)
        name = plain_name(call.op)
        if name in ("transpose", "squeeze", "unsqueeze", "t", "swapaxes", "swapdims"):
            # the numbers stay, the tensor sees them in another way
            self.keep(call, self.apply(call, name, self._resolved(bound), call.out))
            self.memory.same(target, Ref(call.id))
            return
        made = self.apply(call, name, self._resolved(bound), meta)
        self.memory.write(target, self.broadcast(made, meta))
        self.memory.same(Ref(call.id), target)

    def apply(self, call: Call, name: str, a: dict[str, Any], out: Any) -> Any:
        """What a call makes: a constant if its arguments are, else what its rule says, else opaque."""
        folded = self._fold(call, a, out)
        if folded is not None:
            return folded
        found = RULES.get(name)
        mark = len(self.drafts)
        if found is not None:
            try:
                made = found(self, call, a)
                return self._checked(made, out)
            except (Unfit, ArchwrightError) as error:
                if isinstance(error, CaptureError):
                    raise
                self._rollback(mark)
                self.failures.append(f"aten.{name}: {error}")
        try:
            return self._checked(self._opaque(call, a), out)
        except (Unfit, ArchwrightError) as error:
            raise self.unable(f"{call.op}: {error}") from None

    def is_read(self, call: Call, index: int) -> bool:
        """Whether anybody reads one of a call's values."""
        return Ref(call.id, index) in self.used


    def unable(self, why: str) -> CaptureError:
        """An error at the present call."""
        call = self._call
        where = called_at(call.trace) if call is not None else ""
        scope = call.scope if call is not None else ""
        return CaptureError(f"module '{scope}' cannot be captured{f' at {where}' if where else ''}: {why}")

    # -------------------------------------------------------------------------------------------------- constants
    def _fold(self, call: Call, a: dict[str, Any], out: Any) -> Any:
        """The call's result if it is a constant up to the batch, else None."""
        leaves = values(list(a.values()))
        if any(not isinstance(v, Known) for v in leaves) or torch.Tag.nondeterministic_seeded in call.op.tags:
            return None
        outs = out if isinstance(out, tuple) else (out,)
        if any(meta is None for meta in outs) or call.op.namespace != "aten":
            return None
        sized = any(isinstance(n, Size) for meta in outs for n in meta.shape) or bool(sizes(a))
        sized = sized or any(v.sized for v in leaves)
        if call.name in ("repeat", "tile", "repeat_interleave") and _grows(leaves, outs[0], self.batches[0]):
            return None
        results = []
        try:
            for batch in self.batches if sized else self.batches[:1]:
                results.append(self._evaluate(call, a, batch))
        except Exception:  # a constant that cannot be computed alone, whatever the reason, stays a call
            return None
        made = []
        for index, meta in enumerate(outs):
            tensors = [result[index] for result in results]
            fits = all(tuple(t.shape) == meta.at(b) for t, b in zip(tensors, self.batches, strict=False))
            if not fits or str(tensors[0].dtype) != f"torch.{meta.dtype}":
                return None
            small = [compact(t, meta) for t in tensors]
            if any(t is None for t in small) or not all(equal(t, small[0]) for t in small[1:]):
                return None
            made.append(Known(shrunk(small[0]), meta))  # type: ignore[arg-type]
        return tuple(made) if isinstance(out, tuple) else made[0]

    def _evaluate(self, call: Call, a: dict[str, Any], batch: int) -> list[Tensor]:
        written = {g.name for g in call.op._schema.arguments if g.alias_info is not None and g.alias_info.is_write}

        def tensor(item: Any) -> Any:
            if isinstance(item, Size):
                return item.at(batch)
            if isinstance(item, Known):
                return item.at(batch)
            if isinstance(item, (list, tuple)):
                return type(item)([tensor(i) for i in item])
            return item

        args = {name: tensor(value) for name, value in a.items()}
        for name in written:
            args[name] = args[name].clone()
        with torch.no_grad():
            made = call.op(**{("self" if k == "self" else k): v for k, v in args.items()})
        found = list(made) if isinstance(made, (list, tuple)) else [made]
        if call.name in ("empty", "new_empty", "empty_like", "empty_strided"):
            found = [torch.zeros_like(t) for t in found]
        return found

    # ---------------------------------------------------------------------------------------------------- drafts
    def _add(
        self,
        op: str,
        inputs: tuple[str, ...],
        attrs: Attrs,
        types: tuple[tuple[Type, ...], ...],
        weights: dict[str, str],
    ) -> Draft:
        call = self._call
        draft = Draft(f"%{self.made}", op, inputs, attrs, types, weights)
        if call is not None:
            draft.scope, draft.plain, draft.source = call.scope, call.plain, call.id
        self.made += 1
        self.drafts.append(draft)
        for index, value in enumerate(draft.values()):
            self.types[value] = tuple([made[index] for made in types])
        return draft

    def _rollback(self, mark: int) -> None:
        gone = {draft.name for draft in self.drafts[mark:]}
        del self.drafts[mark:]
        self._sources = {key: name for key, name in self._sources.items() if name.partition(":")[0] not in gone}

    def emit(self, op: str, *inputs: Value | str, held: Mapping[str, Value] | None = None, **attrs: Any) -> Any:
        """A draft; returns its value, or a tuple of them.

        held  for each parameter of the op a `Weight`. Raises `Unfit` or an error of the op where that can't be.
        """
        if sizes(attrs):
            raise Unfit(f"{op}: an attribute depends on the batch")
        names = tuple([value if isinstance(value, str) else self.name(value) for value in inputs])
        normal = ops.get(op).normal({key: _plain(value) for key, value in attrs.items()})
        named = {}
        for param, value in (held or {}).items():
            if not isinstance(value, Weight):
                raise Unfit(f"{op}: {param} is computed")
            named[param] = value.name
        types = []
        for index in range(len(self.batches)):
            f = ops.facts(op, normal, tuple([self.types[name][index] for name in names]))
            if set(f.params) != set(named):
                raise Unfit(f"{op}: it has weights {sorted(f.params)}, here are {sorted(named)}")
            for param, value in (held or {}).items():
                if value.meta.shape != f.params[param].shape:
                    raise Unfit(f"{op}: {param} is {value.meta}, expected shape {list(f.params[param].shape)}")
            types.append(f.y)
        draft = self._add(op, names, normal, tuple(types), named)
        made = tuple([Made(value, self._meta(value)) for value in draft.values()])
        return made if len(made) > 1 else made[0]

    def _meta(self, name: str) -> Meta:
        """Shape of a value, with the sizes that depend on the batch."""
        types = self.types[name]
        if len(types) == 1:
            return Meta(types[0].shape, types[0].dtype)
        one, two = types
        step = self.batches[1] - self.batches[0]
        shape: list[Any] = []
        for a, b in zip(one.shape, two.shape, strict=True):
            k = (b - a) // step
            shape.append(a if a == b else Size(k, a - k * self.batches[0]))
        return Meta(tuple(shape), one.dtype)

    def name(self, value: Value) -> str:
        """The name of a value, as a node: constants and weights become nodes of their own, once each."""
        if isinstance(value, Made):
            return value.name
        if isinstance(value, Weight):
            op = "state" if value.name in self.written else "buffer" if value.buffer else "param"
            return self._source(op, value.name, value.meta.shape, value.meta.dtype)
        return self.broadcast(self.whole(value), value.meta).name  # type: ignore[union-attr]

    def whole(self, value: Known) -> Made:
        """A constant as a node, with size 1 where it is the same along a dimension that the batch sets."""
        tensor = value.tensor
        for dim, stride in enumerate(tensor.stride()):
            if stride == 0 and tensor.shape[dim] > 1:
                tensor = tensor.narrow(dim, 0, 1)
        key = self.constants.key(tensor, value.name)
        name = self._source("buffer", key, tuple(tensor.shape), dtype_name(tensor.dtype))
        return Made(name, self._meta(name))

    def _source(self, op: str, key: str, shape: Any, dtype: str) -> str:
        name = self._sources.get(key)
        if name is None:
            attrs = ops.get(op).normal({"shape": tuple(shape), "dtype": dtype})
            types = ((Type(tuple(shape), dtype),),) * len(self.batches)
            before, self._call = self._call, None
            name = self._sources[key] = self._add(op, (), attrs, types, {"": key}).name
            self._call = before
        return name

    # --------------------------------------------------------------------------------------------- batch and shape
    def ref(self) -> Made:
        """A value whose first dimension is the batch."""
        for id in self.program.inputs:
            meta = self.program.leaves[id].meta
            if Size(1, 0) in meta.shape:
                value = self.env[Ref(id)]
                dim = meta.shape.index(Size(1, 0))
                return value if dim == 0 else self.emit("transpose", value, dim0=0, dim1=dim)  # type: ignore[return-value]
        raise Unfit("no input has the batch as a dimension of its own")

    def codes(self, shape: Sequence[Any]) -> list[int]:
        """A shape with 0 for the batch. Raises `Unfit` for other sizes that depend on the batch, and for real zeros."""
        for n in shape:
            if n == 0 or (isinstance(n, Size) and n != Size(1, 0)):
                raise Unfit(f"size {n} cannot be said")
        return [0 if isinstance(n, Size) else n for n in shape]

    def reshape(self, value: Value, shape: Sequence[Any]) -> Made:
        """A value in another shape."""
        moving = [n for n in shape if isinstance(n, Size)]
        if len(moving) > 1:
            raise Unfit("two sizes depend on the batch")
        if tuple(shape) == value.meta.shape and isinstance(value, Made):
            return value
        return self.emit("reshape", value, shape=[-1 if isinstance(n, Size) else n for n in shape])  # type: ignore[no-any-return]

    def broadcast(self, value: Value, meta: Meta) -> Value:
        """A value expanded to a shape, as broadcasting does; constants stay constants."""
        if value.meta.shape == meta.shape:
            return value
        if isinstance(value, Known):
            return stretched(value, meta.shape)
        lead = len(meta.shape) - len(value.meta.shape)
        inner = (1,) * lead + value.meta.shape
        for dim, (n, m) in enumerate(zip(meta.shape, inner, strict=True)):
            if isinstance(n, Size) and n != m and n.c > 0 and m == 1:
                # k * batch + c is k * batch and c, one after the other
                parts = [k for k in (Size(n.k, 0) if n.k else 0, n.c) if k]
                shapes = [(*meta.shape[:dim], part, *meta.shape[dim + 1 :]) for part in parts]
                pieces = [self.broadcast(value, Meta(shape, meta.dtype)) for shape in shapes]
                return self.emit("concat", *pieces, dim=dim)  # type: ignore[no-any-return]
        codes: list[int] = []
        wide: list[Any] = []
        for i, (n, m) in enumerate(zip(meta.shape, inner, strict=True)):
            if i >= lead and n == m:
                codes.append(-1)
            elif isinstance(n, Size) and n.c == 0 and n.k > 1:
                codes += [0, n.k]  # k * batch: (batch, k), then merged
                wide.append(1)
            else:
                codes += self.codes([n])
            wide.append(m)
        split = len(codes) > len(meta.shape)
        source = self.reshape(value, wide) if split else value
        made = self.emit("expand", source, *([self.ref()] if 0 in codes else []), shape=codes)
        return self.reshape(made, meta.shape) if split else made  # type: ignore[no-any-return]

    def cast(self, value: Value, dtype: str) -> Value:
        """A value in another dtype."""
        if isinstance(value, Known):
            return Known(value.tensor.to(getattr(torch, dtype)), Meta(value.meta.shape, dtype))
        return self.emit("cast", value, dtype=dtype)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------------------ checks
    def _checked(self, made: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            made = made if isinstance(made, (tuple, list)) else (made,)
            return tuple([v if m is None or v is None else self._check(v, m) for v, m in zip(made, out, strict=False)])
        return self._check(made, out)

    def _check(self, value: Value, meta: Meta) -> Value:
        if value.meta.shape != meta.shape:
            raise Unfit(f"a rule makes {value.meta}, the export says {meta}")
        if value.meta.dtype == meta.dtype:
            return value
        if isinstance(value, Made):
            floats = all("float" in d for d in (value.meta.dtype, meta.dtype))
            if floats and self._drifts(value):
                # a net in another precision is the same graph: what an op infers is not what it will have then
                self.types[value.name] = tuple([Type(t.shape, meta.dtype) for t in self.types[value.name]])
                return Made(value.name, meta)
        return self.cast(value, meta.dtype)

    def _drifts(self, value: Made) -> bool:
        """Whether the value's dtype is that of weights which its op cannot know."""
        draft = next(d for d in reversed(self.drafts) if d.name == value.name.partition(":")[0])
        return draft.op in ("embedding", "lstm", "gru", "rnn")

    # ------------------------------------------------------------------------------------------------------ opaque
    def _opaque(self, call: Call, a: dict[str, Any]) -> Any:
        """The call as it is."""
        op = call.op
        if op._schema.is_mutable:
            name = plain_name(op)
            packet = getattr(torch.ops.aten, name, None)
            if packet is None or op._overloadname not in packet.overloads():
                raise Unfit("it writes into its arguments, and has no form that does not")
            op = getattr(packet, op._overloadname)
        inputs: list[str] = []

        def encode(item: Any) -> Any:
            if isinstance(item, (Made, Known, Weight)):
                name = self.name(item)
                if name not in inputs:
                    inputs.append(name)
                return {"input": inputs.index(name)}
            if isinstance(item, Size):
                if item.c:
                    raise Unfit(f"an argument is {item.k} * batch + {item.c}")
                return {"batch": item.k}
            if isinstance(item, (list, tuple)):
                return [encode(i) for i in item]
            if isinstance(item, torch.dtype):
                return {"dtype": str(item).removeprefix("torch.")}
            if isinstance(item, torch.layout):
                return {"layout": str(item).removeprefix("torch.")}
            if isinstance(item, torch.memory_format):
                return {"memory_format": str(item).removeprefix("torch.")}
            if isinstance(item, torch.device):
                return {"device": item.type}
            return item

        sized = bool(sizes(a))
        if sized:
            inputs.append(self.ref().name)  # the batch is that of input 0
        args, kwargs = [], {}
        for argument in op._schema.arguments:
            value = a.get(argument.name)
            if argument.kwarg_only:
                if value is not None and argument.name not in ("device", "pin_memory", "layout", "generator"):
                    kwargs[argument.name] = encode(value)
            else:
                args.append(encode(value))
        while args and args[-1] is None and op._schema.arguments[len(args) - 1].has_default_value():
            args.pop()
        target = f"{op.namespace}.{op._schema.name.rpartition('::')[2]}.{op._overloadname or 'default'}"
        return self.emit("opaque", *inputs, target=target, args=args, kwargs=kwargs)


# ----------------------------------------------------------------------------------------------------------- helpers
def _plain(value: Any) -> Any:
    """An attribute as a JSON value."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _grows(leaves: Sequence[Known], out: Meta, batch: int) -> bool:
    """Whether a constant would become much larger than what it is made of."""
    return torch.Size(out.at(batch)).numel() > max(4 * sum(v.tensor.numel() for v in leaves), 1 << 16)
