"""`Writer`: what the `onnx` fact of an op writes with. Opset 20, IR version 10.

A value is known by its name. The names that a writer makes up are fresh, and say which node of the graph they come
from; `None` stands for an optional input that is left out. Types are given to a fact at batch size 2 so that it knows
ranks and fixed sizes; the batch itself must come from the values: `o.dim(x[0], 0)`, or -1 and 0 in a Reshape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from archwright.ir import Type

OPSET = 20
IR_VERSION = 10

ELEMENT: dict[str, int] = {
    "float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16, "int64": TensorProto.INT64, "int32": TensorProto.INT32,
    "int16": TensorProto.INT16, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "bool": TensorProto.BOOL,
    "complex64": TensorProto.COMPLEX64, "complex128": TensorProto.COMPLEX128,
}  # fmt: skip
"""Our dtype name -> ONNX element type."""

LAST = np.iinfo(np.int64).max
"""The stop of a slice that goes to the end."""


class Writer:
    """Gathers ONNX nodes and constants.

    y = o.node("Conv", [x[0], w["weight"], None], kernel_shape=(3, 3))
    shape = o.concat_ints(o.dim(x[0], 0), 8, 16)              # [batch, 8, 16], known when the model runs
    y = o.node("Reshape", [y, shape])
    first, second = o.node("Split", [y], outputs=2, axis=1, num_outputs=2)
    """

    def __init__(self, taken: Iterable[str] = (), *, outer: Writer | None = None) -> None:
        self.nodes: list[NodeProto] = []
        self.scope = ""
        # whether dimension 0 is the batch, in the first input and in the first output of the node being written: a
        # Reshape should keep it with 0, not -1, as ONNX Runtime loads slowly where it has lost track of sizes
        self.batch_stays = False
        # constants made within a body stand in the outermost graph, where all bodies see them
        self.tensors: dict[str, TensorProto] = {} if outer is None else outer.tensors
        self._taken: set[str] = set(taken) if outer is None else outer._taken
        self._counts: dict[str, int] = {} if outer is None else outer._counts
        self._constants: dict[Any, str] = {} if outer is None else outer._constants

    # ------------------------------------------------------------------------------------------------ the essentials
    def fresh(self, stem: str) -> str:
        """A name that no value has: the stem within the current scope, with a number if that is taken."""
        stem = f"{self.scope}/{stem}" if self.scope else stem
        count = self._counts.get(stem, 0)
        name = f"{stem}_{count}" if count else stem
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._counts[stem] = count + 1
        self._taken.add(name)
        return name

    def node(self, op_type: str, inputs: Sequence[str | None], outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
        """Add a node; the name of its output, or a tuple of names where `outputs` is more than 1.

        inputs  value names; None for an optional input that is left out
        attrs   the node's attributes; tuples are lists, booleans are 0 and 1, and None leaves an attribute out
        """
        given = ["" if value is None else value for value in inputs]
        while given and not given[-1]:
            given.pop()
        made = tuple([self.fresh(op_type) for _ in range(outputs)])
        proto = helper.make_node(op_type, given, made, name=made[0], domain=domain)
        proto.attribute.extend([_attribute(key, attrs[key]) for key in sorted(attrs) if attrs[key] is not None])
        self.nodes.append(proto)
        return made[0] if outputs == 1 else made

    def const(self, value: Any, dtype: str = "int64") -> str:
        """Name of a constant: a number gives a 0-dimensional one, a list (or array) one of its shape."""
        if isinstance(value, str):  # "inf" and "-inf", as attributes hold them
            value = float(value)
        if dtype == "bfloat16":
            flat = np.asarray(value, dtype=np.float32)
            tensor = helper.make_tensor("", ELEMENT[dtype], flat.shape, flat.ravel())
        else:
            tensor = numpy_helper.from_array(np.asarray(value, dtype=dtype))
        key = tensor.SerializeToString()
        if key not in self._constants:
            scope, self.scope = self.scope, ""
            tensor.name = self._constants[key] = self.fresh("constant")
            self.scope = scope
            self.tensors[tensor.name] = tensor
        return self._constants[key]

    def scalar(self, value: Any, dtype: str = "float32") -> str:
        """Name of a 0-dimensional constant."""
        return self.const(float(value) if isinstance(value, str) else np.asarray(value).reshape(()), dtype)

    # ------------------------------------------------------------------------------------------------------ shapes
    def shape_of(self, x: str) -> str:
        """The shape of a value when the model runs: int64 [rank]."""
        return self.node("Shape", [x])

    def dim(self, x: str, index: int) -> str:
        """The size of one dimension (counted from either end) when the model runs: int64 [1]."""
        return self.node("Shape", [x], start=index, end=None if index == -1 else index + 1)

    def concat_ints(self, *parts: int | str | Sequence[int]) -> str:
        """One int64 vector of numbers, lists of numbers, and names of int64 vectors."""
        pieces: list[str | list[int]] = []
        for part in parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            numbers = [int(n) for n in part] if isinstance(part, Sequence) else [int(part)]
            if pieces and isinstance(pieces[-1], list):
                pieces[-1] += numbers
            else:
                pieces.append(numbers)
        names = [piece if isinstance(piece, str) else self.const(piece) for piece in pieces]
        if not names:
            return self.const(np.zeros((0,)))
        return names[0] if len(names) == 1 else self.node("Concat", names, axis=0)

    def reshape(self, x: str, *shape: int | str | Sequence[int]) -> str:
        """Reshape to parts as `concat_ints` takes them; one number may be -1. 0 keeps the input's size there."""
        return self.node("Reshape", [x, self.concat_ints(*shape)])

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Reorder all dimensions: output dimension i is input dimension perm[i]."""
        return x if list(perm) == list(range(len(perm))) else self.node("Transpose", [x], perm=list(perm))

    def swap(self, x: str, rank: int, dim0: int, dim1: int) -> str:
        """Exchange two dimensions."""
        perm = list(range(rank))
        perm[dim0], perm[dim1] = perm[dim1], perm[dim0]
        return self.transpose(x, perm)

    def unsqueeze(self, x: str, *dims: int) -> str:
        """New dimensions of size 1, at these places of the output."""
        return self.node("Unsqueeze", [x, self.const(list(dims))])

    def squeeze(self, x: str, *dims: int) -> str:
        """Drop these dimensions of size 1."""
        return self.node("Squeeze", [x, self.const(list(dims))])

    def slice(self, x: str, dim: int, start: int | str, stop: int | str | None = None, step: int = 1) -> str:
        """x[start:stop:step] along one dimension; bounds are numbers or names of int64 [1]. None: to the end."""
        if stop is None:
            stop = LAST if step > 0 else -LAST
        bounds = [bound if isinstance(bound, str) else self.const([bound]) for bound in (start, stop)]
        return self.node("Slice", [x, *bounds, self.const([dim]), self.const([step])])

    def split(self, x: str, sizes: Sequence[int], dim: int) -> tuple[str, ...]:
        """Pieces of these sizes along one dimension."""
        made = self.node("Split", [x, self.const(list(sizes))], outputs=len(sizes), axis=dim)
        return (made,) if len(sizes) == 1 else made

    def concat(self, xs: Sequence[str], dim: int) -> str:
        """Values one after the other along one dimension."""
        return xs[0] if len(xs) == 1 else self.node("Concat", list(xs), axis=dim)

    def expand(self, x: str, *shape: int | str | Sequence[int]) -> str:
        """Broadcast to parts as `concat_ints` takes them; 1 keeps the input's size there."""
        return self.node("Expand", [x, self.concat_ints(*shape)])

    # ------------------------------------------------------------------------------------------------------ values
    def cast(self, x: str, dtype: str) -> str:
        """The value in another dtype, by our dtype name."""
        return self.node("Cast", [x], to=ELEMENT[dtype])

    def full(self, shape: str, value: Any, dtype: str = "float32") -> str:
        """A tensor of one number; `shape` is the name of an int64 vector."""
        if isinstance(value, str):
            value = float(value)
        tensor = helper.make_tensor("value", ELEMENT[dtype], [1], [value])
        return self.node("ConstantOfShape", [shape], value=tensor)

    # ------------------------------------------------------------------------------------------------------ bodies
    def body(self) -> Writer:
        """A writer for the body of a Loop, Scan or If. It sees all values of this one; constants are shared."""
        inner = Writer(outer=self)
        inner.scope = self.scope
        return inner

    def graph(self, inputs: Sequence[tuple[str, Type]], outputs: Sequence[tuple[str, Type]]) -> GraphProto:
        """What this writer gathered as a graph: an attribute of a Loop, Scan or If. Sizes are left open, ranks kept."""
        ends = [[open_value(name, t) for name, t in pairs] for pairs in (inputs, outputs)]
        return helper.make_graph(self.nodes, self.fresh("body"), *ends)


def _attribute(key: str, value: Any) -> AttributeProto:
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, list):
        value = [int(v) if isinstance(v, bool | np.integer) else v for v in value]
        if not value:
            return helper.make_attribute(key, value, attr_type=AttributeProto.INTS)
    if isinstance(value, bool | np.integer):
        value = int(value)
    return helper.make_attribute(key, value)


def open_value(name: str, t: Type) -> Any:
    """A value's dtype and rank, every size left open."""
    return helper.make_tensor_value_info(name, ELEMENT[t.dtype], [None] * len(t.shape))
