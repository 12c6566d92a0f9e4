"""A net as an ONNX file, written node by node from the `onnx` facts of its ops, and checked against ONNX Runtime.

The file holds what the net computes in eval mode: dropout is the identity, norms use their running statistics.
Complex values are written as real ones with a last dimension of 2 (real and imaginary part), as ONNX's own DFT has
them. Weights have the net's weight names, values the names of the nodes that make them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper
from torch import Tensor

from archwright import ops
from archwright.errors import EmitError
from archwright.ir import BATCH, INPUT, Graph, Type, output
from archwright.net.net import Net, example
from archwright.ops.onnx import ELEMENT, IR_VERSION, OPSET, Writer

RTOL, ATOL = 1e-3, 1e-4
"""Outputs may differ by RTOL x (the greatest magnitude of that output in torch) + ATOL; in half precision by 20 times
that. Whole numbers must be equal."""

BATCHES = (2, 3)
"""The batch sizes of the check: two, so that a batch size written into the file is seen."""

_ONE_FILE = 1_900_000_000  # bytes; a protobuf holds less than 2 GiB, the weights of larger nets stand in a second file


@dataclass(frozen=True)
class OnnxFile:
    """What was written.

    path        the file; weights of nets over 1.9 GB stand beside it in "<name>.data"
    bytes       size of both
    difference  greatest difference between ONNX Runtime and torch over all outputs, relative to the greatest magnitude
                of that output; None where it was not checked
    """

    path: Path
    bytes: int
    difference: float | None


def to_onnx(
    net: Net, path: str | os.PathLike[str], *, check: bool = True, inputs: Sequence[Tensor] | None = None
) -> OnnxFile:
    """Write a net as an ONNX file (opset 20), whole or not at all. Free batch dimensions are named "batch".

    check   validate the model, run it with ONNX Runtime and compare with torch, at two batch sizes
    inputs  arguments to compare on, instead of random ones (for nets that take indices with a meaning of their own)

    Raises `EmitError` if an op has no form in ONNX, or if ONNX Runtime computes something else than torch: then it
    names the first node where they part.
    """
    path = Path(path)
    if path.is_dir():
        raise EmitError(f"{path} is a folder, expected the name of a file")
    model, values = _write(net)
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _ONE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".saving-", dir=path.parent))
    try:
        beside = path.name + ".data"
        if external:
            onnx.save_model(model, work / path.name, save_as_external_data=True, location=beside)
        else:
            (work / path.name).write_bytes(model.SerializeToString())
        difference = _check(net, work / path.name, model, values, inputs) if check else None
        names = [beside, path.name] if external else [path.name]
        size = sum((work / name).stat().st_size for name in names)
        for name in names:
            os.replace(work / name, path.parent / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return OnnxFile(path, size, difference)


def onnx_model(net: Net) -> ModelProto:
    """The net as an ONNX model in memory, not checked. Raises `EmitError` if an op has no form in ONNX."""
    return _write(net)[0]


# --------------------------------------------------------------------------------------------------------- writing
def _write(net: Net) -> tuple[ModelProto, dict[str, str]]:
    """The model, and the names of our values in it."""
    graph = net.graph
    _refuse(graph)
    known, wanted = ops.analyse(graph, BATCH), ops.params(graph)
    o = Writer([*wanted, *(node.name for node in graph.inputs)])
    values = {node.name: node.name for node in graph.inputs}
    read = ops.reads(graph, False)
    for node in graph.nodes:
        if node.op == INPUT or node.name not in read:
            continue
        f = known[node.name]
        start, o.scope = len(o.nodes), node.name
        o.batch_stays = bool(f.x) and _is_batch(graph, node.inputs[0]) and _is_batch(graph, node.name)
        w = {param: ops.weight_name(node.slot or "", param) for param in f.params}
        x = [values[value] if index in read[node.name] else "" for index, value in enumerate(node.inputs)]
        made = f.op.onnx(o, f.a, x, w, f.x, f.y)  # type: ignore[misc]
        made = made if isinstance(made, tuple) else (made,)
        assert len(made) == len(f.y), f"{node.op}: the onnx fact gives {len(made)} values, expected {len(f.y)}"
        for index, name in enumerate(made):
            value = output(node.name, index)
            values[value] = _christen(o, o.nodes[start:], name, value)
    o.scope = ""
    outputs = []
    sources = {node.name for node in graph.inputs} | set(wanted) | set(o.tensors)
    for value in graph.outputs:
        name = values[value]
        if name in sources or name in outputs:  # an output must be made by a node, and by itself
            o.scope = "outputs"
            name = o.node("Identity", [name])
        outputs.append(name)
    nodes = _alive(o.nodes, outputs)
    needed = {name for node in nodes for name in _reads(node)}
    found = helper.make_graph(
        nodes,
        "archwright",
        [_declare(node.name, *_both(graph, node.name)) for node in graph.inputs],
        [_declare(name, *_both(graph, value)) for name, value in zip(outputs, graph.outputs, strict=True)],
        [_weight(name, net.weights[name], param.dtype) for name, param in wanted.items() if name in needed]
        + [tensor for name, tensor in o.tensors.items() if name in needed],
    )
    imports = {"": OPSET} | {node.domain: 1 for node in nodes if node.domain}
    model = helper.make_model(
        found,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        producer_name="archwright",
    )
    helper.set_model_props(model, {"graph_key": graph.key()})
    return model, values


def _refuse(graph: Graph) -> None:
    """Raise if there are nodes that can't be written."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op != INPUT and node.name in ops.reads(graph, False) and ops.get(node.op).onnx is None:
            what = f"opaque ({node.attrs['target']})" if node.op == "opaque" else node.op
            found.setdefault(what, []).append(node.name)
    if found:
        raise EmitError(
            "no form in ONNX for "
            + "; ".join(
                f"{what} at " + ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
                for what, names in found.items()
            )
            + ": replace these nodes, or write the net as PyTorch source instead"
        )


def _christen(o: Writer, nodes: Sequence[NodeProto], name: str, value: str) -> str:
    """Give what a node made the node's own name, where it made something and the name is free."""
    if value in o._taken or any(attribute.HasField("g") for node in nodes for attribute in node.attribute):
        return name
    if not any(name in node.output for node in nodes):
        return name
    for node in nodes:
        for field in (node.input, node.output):
            for index, old in enumerate(field):
                if old == name:
                    field[index] = value
    o._taken.add(value)
    return value


def _reads(node: NodeProto) -> Iterator[str]:
    """Every name that a node reads, those within its bodies included."""
    yield from node.input
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            for inner in attribute.g.node:
                yield from _reads(inner)
            for out in attribute.g.output:
                yield out.name


def _alive(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that the outputs need."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(_reads(node))
    return kept[::-1]


def _is_batch(graph: Graph, value: str) -> bool:
    """Whether dimension 0 of a value is the batch."""
    return tuple([t.shape[0] if t.shape else None for t in _both(graph, value)]) == BATCHES


def _both(graph: Graph, value: str) -> tuple[Type, Type]:
    """A value's type at both batch sizes."""
    return ops.infer(graph, BATCHES[0])[value], ops.infer(graph, BATCHES[1])[value]


def _declare(name: str, low: Type, high: Type) -> Any:
    """An input or output: fixed sizes, "batch" where it is the batch, open where it follows from it."""
    shape: list[int | str | None] = []
    for m, n in zip(low.shape, high.shape, strict=True):
        shape.append(m if m == n else "batch" if (m, n) == BATCHES else None)
    dtype = low.dtype
    if dtype.startswith("complex"):
        shape.append(2)
        dtype = _PARTS[dtype]
    return helper.make_tensor_value_info(name, ELEMENT[dtype], shape)


_PARTS = {"complex64": "float32", "complex128": "float64"}


def _weight(name: str, tensor: Tensor, dtype: str) -> TensorProto:
    tensor = _real(tensor.detach().cpu().to(getattr(torch, dtype))).contiguous()
    return helper.make_tensor(
        name,
        ELEMENT[_PARTS.get(dtype, dtype)],
        tuple(tensor.shape),
        tensor.reshape(-1).view(torch.uint8).numpy().tobytes(),
        raw=True,
    )


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


# -------------------------------------------------------------------------------------------------------- checking
def _check(
    net: Net, path: Path, model: ModelProto, values: Mapping[str, str], inputs: Sequence[Tensor] | None
) -> float:
    """Validate the file and compare with torch; the greatest relative difference."""
    graph = net.graph
    types = ops.infer(graph, BATCH)
    for value in (*(node.name for node in graph.inputs), *graph.outputs):
        if types[value].dtype == "bfloat16":
            raise EmitError(
                f"'{value}' is bfloat16, which ONNX Runtime can't take or give: cast it, or pass check=False"
            )
    try:
        onnx.checker.check_model(os.fspath(path))
        session = _session(os.fspath(path))
    except (onnx.checker.ValidationError, *_RUNTIME_ERRORS) as error:
        raise EmitError(f"ONNX Runtime does not take the model: {_first_line(error)}") from None
    worst = 0.0
    weights = _as_declared(net)
    free = any(None in node.attrs["shape"] for node in graph.inputs)
    runs = [tuple(inputs)] if inputs is not None else [example(graph, n) for n in (BATCHES if free else BATCHES[:1])]
    for args in runs:
        with torch.no_grad():
            wanted = ops.run(graph, weights, args)
        try:
            got = _run(session, graph, args)
        except _RUNTIME_ERRORS as error:
            raise EmitError(f"ONNX Runtime fails on inputs {_shapes(args)}: {_first_line(error)}") from None
        found = [_difference(ours, theirs) for ours, theirs in zip(wanted, got, strict=True)]
        if None in found:
            index = found.index(None)
            told = f"on inputs {_shapes(args)}, output '{graph.outputs[index]}': {_apart(wanted[index], got[index])}"
            found = [_by_node(net, weights, model, values, args, told)]
        worst = max([worst, *(difference for difference in found if difference is not None)])
    return worst


_RUNTIME_ERRORS = tuple(
    getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException", "NoSuchFile",
                 "InvalidProtobuf", "EPFail")
)  # fmt: skip


def _session(source: str | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, graph: Graph, args: Sequence[Tensor]) -> list[np.ndarray]:
    taken = {spec.name for spec in session.get_inputs()}
    feeds = {node.name: _real(arg).numpy() for node, arg in zip(graph.inputs, args, strict=True) if node.name in taken}
    return session.run(None, feeds)  # type: ignore[no-any-return]


def _as_declared(net: Net) -> dict[str, Tensor]:
    """Weights in the dtypes of the graph, as they are written."""
    wanted = ops.params(net.graph)
    return {name: t.detach().cpu().to(getattr(torch, wanted[name].dtype)) for name, t in net.weights.items()}


def _difference(ours: Tensor, theirs: np.ndarray) -> float | None:
    """Greatest difference relative to the greatest magnitude in torch; None if it is over the tolerance."""
    wanted = _real(ours).numpy()
    if wanted.shape != theirs.shape or wanted.dtype != theirs.dtype:
        return None
    if wanted.size == 0:
        return 0.0
    if not np.issubdtype(wanted.dtype, np.floating):
        return 0.0 if np.array_equal(wanted, theirs) else None
    odd = ~np.isfinite(wanted)
    if not np.array_equal(wanted[odd], theirs[odd], equal_nan=True):
        return None
    a, b = np.where(odd, 0, wanted).astype(np.float64), np.where(odd, 0, theirs).astype(np.float64)
    scale, gap = float(np.abs(a).max()), float(np.abs(a - b).max())
    if not gap <= (RTOL * scale + ATOL) * (20 if wanted.dtype == np.float16 else 1):  # also where theirs alone is NaN
        return None
    return gap / max(scale, ATOL)


def _by_node(
    net: Net, weights: Mapping[str, Tensor], model: ModelProto, values: Mapping[str, str], args: Sequence[Tensor],
    told: str,
) -> float:  # fmt: skip
    """Compare node by node, each on what ONNX Runtime gives it; the greatest relative difference.

    Raises `EmitError` with the first node that differs. Where the order of equal numbers is open (sort, topk, argmax),
    any order is right: torch and ONNX Runtime may go on with other numbers, though every node agrees.
    """
    graph = net.graph
    known, types, read = ops.analyse(graph, BATCH), ops.infer(graph, BATCH), ops.reads(graph, False)
    shown = ModelProto()
    shown.CopyFrom(model)
    made = {name for node in shown.graph.node for name in node.output}
    have = {out.name for out in shown.graph.output}
    for value, name in values.items():
        if name in made and name not in have:
            have.add(name)
            dtype = _PARTS.get(types[value].dtype, types[value].dtype)
            shown.graph.output.append(helper.make_tensor_value_info(name, ELEMENT[dtype], None))
    try:
        session = _session(shown.SerializeToString())
        theirs = dict(zip([out.name for out in session.get_outputs()], _run(session, graph, args), strict=True))
    except (*_RUNTIME_ERRORS, ValueError):
        raise EmitError(f"ONNX Runtime and torch differ {told}") from None
    given = dict(zip([node.name for node in graph.inputs], args, strict=True))
    worst, tied = 0.0, False
    for node in graph.nodes:
        if node.op == INPUT or node.name not in read:
            continue
        f = known[node.name]
        x = [given[value] if index in read[node.name] else None for index, value in enumerate(node.inputs)]
        w = {param: weights[ops.weight_name(node.slot or "", param)] for param in f.params}
        with torch.no_grad():
            ours = f.op.run(f.a, x, w, False)
        for index, tensor in enumerate(ours if isinstance(ours, tuple) else (ours,)):
            value = output(node.name, index)
            got = theirs.get(values[value])
            if got is None:  # an argument or a weight handed on
                given[value] = tensor
                continue
            given[value] = _as_torch(got, tensor)
            difference = _difference(tensor, got)
            if difference is None and not _tie(f, x, tensor, got):
                raise EmitError(
                    f"ONNX Runtime and torch differ {told}. They part at node '{node.name}' ({node.op}, value "
                    f"'{value}'): {_apart(tensor, got)}"
                )
            tied = tied or difference is None
            worst = max(worst, difference or 0.0)
    if not tied:
        raise EmitError(f"ONNX Runtime and torch differ {told}. Every node by itself agrees: rounding grows on the way")
    return worst


def _as_torch(array: np.ndarray, like: Tensor) -> Tensor:
    found = torch.from_numpy(np.array(array))
    return torch.view_as_complex(found) if like.is_complex() else found


def _tie(f: ops.Facts, given: Sequence[Tensor | None], ours: Tensor, theirs: np.ndarray) -> bool:
    """Whether indices differ only among equal numbers."""
    x = given[0] if f.op.name in _ORDERS else None
    if x is None or ours.dtype != torch.int64 or ours.shape != theirs.shape:
        return False
    dim = f.a["dim"]
    dim = dim[0] if isinstance(dim, tuple) and len(dim) == 1 else dim
    indices = ours, torch.from_numpy(np.array(theirs))
    if dim is None:
        x, dim = x.flatten(), 0
        indices = indices[0].reshape(1), indices[1].reshape(1)
    elif indices[0].dim() < x.dim():
        indices = indices[0].unsqueeze(dim), indices[1].unsqueeze(dim)
    if not isinstance(dim, int) or not 0 <= int(indices[1].min()) <= int(indices[1].max()) < x.shape[dim]:
        return False
    return bool(torch.equal(*[x.gather(dim, found) for found in indices]))


_ORDERS = {"topk", "sort", "argsort", "max", "min", "argmax", "argmin"}


def _apart(ours: Tensor, theirs: np.ndarray) -> str:
    wanted = _real(ours).numpy()
    if wanted.shape != theirs.shape or wanted.dtype != theirs.dtype:
        return f"got {theirs.dtype}{list(theirs.shape)}, expected {wanted.dtype}{list(wanted.shape)}"
    if not np.issubdtype(wanted.dtype, np.floating):
        return f"{int((wanted != theirs).sum())} of {wanted.size} whole numbers differ"
    gap = np.abs(wanted.astype(np.float64) - theirs.astype(np.float64))
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0)
    worst = np.nanmax(gap, initial=0)
    return f"greatest difference {worst:.3g} at magnitude {scale:.3g} (NaN in {np.isnan(gap).sum()})"


def _shapes(args: Sequence[Tensor]) -> str:
    return ", ".join(str(list(arg.shape)) for arg in args)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
