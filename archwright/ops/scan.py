"""Recurrence with any body: a graph that is run once for each step of a sequence.

    y_t, s_t = body(x_t, s_{t-1});   scan(x, s_0) = stack(y_1 ... y_T), s_T

The body is a graph as JSON data. Its inputs are x_t (x without dimension `dim`) and the states, its outputs are y_t and
the new states, of the types that the states had. Where the body's inputs have null for the batch, it is the batch of
x_t. The ys are stacked along the same `dim`. The body's weights are those of the node, under their own names, and the
same at every step; buffers that it changes in training are changed at every step.

Nothing is known of the body's axes from outside: all axes are pinned. There is no form in PyTorch source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch

from archwright.errors import EmitError, GraphError, TypeMismatch
from archwright.ir import BATCH, INPUT, Attrs, Graph, Type, output
from archwright.ops import engine
from archwright.ops.base import A, Attr, Axes, Cost, Op, Param, Types, axis, need_rank, pin


def _plain(value: Any) -> Any:
    """Attributes as parsed JSON: lists and dictionaries instead of tuples and `Attrs`."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


@lru_cache(maxsize=1024)
def _body(data: Attrs) -> Graph:
    """The graph that is run at each step."""
    graph = Graph.from_data(_plain(data))
    if any(node.op == "opaque" for node in graph.nodes):
        # consent to run opaque operations is asked for by looking at a net's own nodes
        raise GraphError("the body holds an opaque operation: only ops of archwright can be scanned")
    return engine.check(graph)


def _steps(a: A, x: Types) -> tuple[Type, ...]:
    """The types that the body gets: x_t and the states."""
    need_rank(x[0], 1)
    dim = axis(a["dim"], len(x[0].shape))
    return (Type(x[0].shape[:dim] + x[0].shape[dim + 1 :], x[0].dtype), *x[1:])


def _known(a: A, x: Types) -> tuple[Graph, int]:
    """The body, and the batch size that it runs at. Checks that it fits the inputs."""
    if not isinstance(a["body"], Attrs):
        got = str(a["body"])[:60]
        raise TypeMismatch(f"body is {got!r}, expected a graph as a mapping: json.loads(graph.to_json())")
    body, given = _body(a["body"]), _steps(a, x)
    if len(body.inputs) != len(given):
        raise TypeMismatch(f"the body has {len(body.inputs)} inputs, expected {len(given)}: x_t and the states")
    batches = set()
    for node, t in zip(body.inputs, given, strict=True):
        shape, dtype = node.attrs["shape"], node.attrs.get("dtype", "float32")
        fits = len(shape) == len(t.shape) and all(m in (None, n) for m, n in zip(shape, t.shape, strict=True))
        if not fits or dtype != t.dtype:
            raise TypeMismatch(f"the body's input '{node.name}' is {dtype}{list(shape)}, but gets {t}")
        batches |= {n for m, n in zip(shape, t.shape, strict=True) if m is None}
    if len(batches) > 1:
        raise TypeMismatch(f"the body's inputs get batches of {sorted(batches)}, expected one size")
    return body, batches.pop() if batches else BATCH


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    body, batch = _known(a, x)
    dim = axis(a["dim"], len(x[0].shape))
    steps = x[0].shape[dim]
    if not steps:
        raise TypeMismatch(f"input is {x[0]}, expected at least one step along dimension {dim}")
    types = engine.infer(body, batch)
    y, *states = [types[value] for value in body.outputs]
    if len(states) != len(x) - 1:
        raise TypeMismatch(f"the body has {len(body.outputs)} outputs, expected {len(x)}: y_t and the new states")
    for index, (new, old) in enumerate(zip(states, x[1:], strict=True)):
        if new != old:
            raise TypeMismatch(f"state {index} is {old} before the body and {new} after it, expected one type")
    dim = axis(a["dim"], len(y.shape) + 1)
    return (Type((*y.shape[:dim], steps, *y.shape[dim:]), y.dtype), *states)


def _params(a: A, x: Types) -> dict[str, Param]:
    return dict(engine.params(_known(a, x)[0]))


def _cost(a: A, x: Types, y: Types) -> Cost:
    body, batch = _known(a, x)
    known, read, types = engine.analyse(body, batch), engine.reads(body), engine.infer(body, batch)
    steps = x[0].shape[axis(a["dim"], len(x[0].shape))]
    # a state is an input of the body at one step and an output of it at the step before: one tensor
    same = {node.name: value for node, value in zip(body.inputs[1:], body.outputs[1:], strict=True)}
    kept: set[str] = set()
    flops = extra = moved = scratch = 0
    for node in body.nodes:
        if node.op == INPUT or node.name not in read:
            continue
        f = known[node.name]
        weights = sum(Type(p.shape, p.dtype).nbytes for p in f.params.values())
        flops, extra = flops + f.cost.flops, extra + f.cost.extra
        moved += f.cost.moved if f.cost.moved is not None else sum(t.nbytes for t in (*f.x, *f.y)) + weights
        scratch = max(scratch, f.cost.scratch)
        for name in f.cost.keeps:
            index = int(name[1:])
            kept.add(node.inputs[index] if name[0] == "x" else output(node.name, index))
    first = body.inputs[0].name
    keeps = ["x0"] if first in kept else []
    keeps += [f"x{i}" for i, node in enumerate(body.inputs) if i and node.name in kept]
    each = sum(types[value].nbytes for value in {same.get(value, value) for value in kept - {first}})
    return Cost(steps * flops, tuple(keeps), steps * (each + extra), steps * moved, scratch)


def _run(a: A, x: Sequence[torch.Tensor], w: Mapping[str, torch.Tensor], train: bool) -> Any:
    body, dim = _body(a["body"]), a["dim"]
    steps, states = x[0].unbind(dim), tuple(x[1:])
    ys = []
    for step in reversed(steps) if a["reverse"] else steps:
        y, *states = engine.run(body, w, (step, *states), train)  # type: ignore[assignment]
        ys.append(y)
    stacked = torch.stack(ys[::-1] if a["reverse"] else ys, dim)
    return (stacked, *states) if states else stacked


def _axes(a: A, x: Types, y: Types) -> Axes:
    inputs, outputs = (tuple([pin(t.shape) for t in types]) for types in (x, y))
    return Axes(inputs, outputs, {name: pin(param.shape) for name, param in _params(a, x).items()})


def _onnx(o, a, x, w, xt, yt):
    body, batch = _known(a, xt)
    known, read, types = engine.analyse(body, batch), engine.reads(body), engine.infer(body, batch)
    inner = o.body()
    values = {node.name: inner.fresh(node.name) for node in body.inputs}
    arguments = [(values[node.name], types[node.name]) for node in body.inputs]
    for node in body.nodes:
        if node.op == INPUT or node.name not in read:
            continue
        f = known[node.name]
        if f.op.onnx is None:
            raise EmitError(f"scan: node '{node.name}' of the body is {node.op}, which has no form in ONNX")
        weights = {param: w[engine.weight_name(node.slot or "", param)] for param in f.params}
        made = f.op.onnx(inner, f.a, [values.get(value) for value in node.inputs], weights, f.x, f.y)
        for index, name in enumerate(made if isinstance(made, tuple) else (made,)):
            values[output(node.name, index)] = name
    # an output of a body must be made by a node of its own
    results = [(inner.node("Identity", [values[value]]), types[value]) for value in body.outputs]
    back = int(a["reverse"])
    made = o.node(
        "Scan", [*x[1:], x[0]], outputs=len(x), num_scan_inputs=1,
        scan_input_axes=[axis(a["dim"], len(xt[0].shape))], scan_output_axes=[axis(a["dim"], len(yt[0].shape))],
        scan_input_directions=[back], scan_output_directions=[back],
        body=inner.graph([*arguments[1:], arguments[0]], [*results[1:], results[0]]),
    )  # fmt: skip
    return (made[-1], *made[:-1]) if len(x) > 1 else made


OPS = (
    Op(
        "scan", _infer, _run, {"body": Attr("any"), "dim": Attr("int", 1), "reverse": Attr("bool", False)},
        inputs=(1, None), params=_params, cost=_cost, axes=_axes, onnx=_onnx, random=True, stateful=True,
        doc="Runs a graph once for each step along a dimension, handing states on: (x, *states) -> (ys, *states).",
    ),
)  # fmt: skip
