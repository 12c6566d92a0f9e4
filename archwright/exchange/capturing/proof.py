"""Proof that a net computes what its module does: in eval and train mode, at two batch sizes, buffers included.

Numbers are compared by their greatest difference against the greatest number. Where float32 differs by more than
rounding usually makes, both are run in float64: deep nets in train mode can blow up what rounding leaves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from archwright import ops
from archwright.errors import CaptureError
from archwright.exchange.capturing.examples import Example
from archwright.exchange.capturing.export import called_at, slow_attention
from archwright.exchange.capturing.finish import Finished
from archwright.exchange.capturing.program import Program, Ref, interpret
from archwright.ir import BATCH, INPUT, output
from archwright.net.net import Net


class Differs(CaptureError):
    """Net and module part. `train` says in which mode, `node` whether at a node of the net.

    Where the export itself parts from the module, the module draws random numbers outside of torch, or looks whether it
    is exported.
    """

    def __init__(self, message: str, train: bool, node: bool) -> None:
        super().__init__(message)
        self.train, self.node = train, node


_NO_PLACE = "no node differs from the export, so the export differs from the module"

_CLOSE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.complex64: 1e-4}
"""Greatest difference allowed, relative to the greatest number."""


def difference(a: Tensor, b: Tensor) -> float:
    """Greatest |a - b| over the greatest |b|; infinite where shapes, or places of NaN and infinity, differ."""
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    if not (b.is_floating_point() or b.is_complex()):
        return 0.0 if torch.equal(a.to(b.dtype), b) else float("inf")
    wide = torch.complex128 if b.is_complex() else torch.float64
    a, b = a.detach().to(wide), b.detach().to(wide)
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)):
        return float("inf")
    if not bool(finite.all()):
        if not torch.equal(a[~finite].nan_to_num(0.5), b[~finite].nan_to_num(0.5)):
            return float("inf")
        a, b = a[finite], b[finite]
        if not a.numel():
            return 0.0
    top = float(b.abs().max())
    gap = float((a - b).abs().max())
    return gap / top if top > 1e-12 else gap


def prove(
    module: nn.Module,
    net: Net,
    example: Example,
    finished: Finished,
    programs: Mapping[bool, Program],
    pairs: Sequence[tuple[int, int]],
    batches: Sequence[int],
    stateful: bool,
    seed: int,
) -> None:
    """Compare net and module in every captured mode. Raises `CaptureError` naming the first node that differs.

    stateful  the module changes more than the statistics of its normalisations: each run takes a copy of it
    """
    sizes = [batches[0], max(batches) + 1] if len(batches) > 1 else list(batches)

    def fresh() -> nn.Module:
        return copy.deepcopy(module) if stateful else module

    for train, program in programs.items():
        for batch in sizes if not train else sizes[-1:]:
            leaves, wanted = _wanted(fresh, example, batch, train, seed)
            why = _compare(net, example, leaves, wanted, train, pairs, seed)
            if why and not _wide(module, net, example, leaves, train, pairs, seed):
                mode = "train" if train else "eval"
                inputs, _ = _wanted(fresh, example, program.batches[0], train, seed)
                place = _locate(net, example.tensors(inputs), finished, program, train, seed)
                raise Differs(
                    f"the net does not compute what {type(module).__name__} does in {mode} mode at batch {batch}: "
                    f"{why}; {place}",
                    train,
                    place != _NO_PLACE,
                )


Result = tuple[list[Any], dict[str, Tensor]]
"""What a module returns, flattened, and its buffers afterwards."""


def _wanted(
    fresh: Callable[[], nn.Module], example: Example, batch: int, train: bool, seed: int
) -> tuple[list[Any], Result]:
    """Random arguments and what the module makes of them; rows of the example where the module fails on random ones, as
    with ids held as floats."""
    leaves = example.random(batch, torch.Generator().manual_seed(seed))
    try:
        return leaves, _run(fresh(), example, leaves, train, seed)
    except Exception:  # whatever the module raises
        leaves = example.rows(batch)
        return leaves, _run(fresh(), example, leaves, train, seed)


def _run(module: nn.Module, example: Example, leaves: list[Any], train: bool, seed: int) -> Result:
    """The module's flat outputs, and its buffers afterwards; the module's own are put back."""
    before = {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    module.train(train)
    torch.manual_seed(seed)
    try:
        with torch.no_grad(), slow_attention():
            outputs = pytree.tree_leaves(example.call(module, leaves))
        outputs = [value.detach().clone() if isinstance(value, Tensor) else value for value in outputs]
        return outputs, {name: buffer.detach().clone() for name, buffer in module.named_buffers()}
    finally:
        for name, buffer in module.named_buffers():
            if name in before and not torch.equal(buffer, before[name]):
                buffer.detach().copy_(before[name])


def _compare(
    net: Net,
    example: Example,
    leaves: list[Any],
    result: Result,
    train: bool,
    pairs: Sequence[tuple[int, int]],
    seed: int,
) -> str:
    """What differs, in words; nothing if nothing does."""
    wanted, buffers = result
    weights = {name: tensor.clone() for name, tensor in net.weights.items()}
    torch.manual_seed(seed)
    try:
        with torch.no_grad():
            found = ops.run(net.graph, weights, [t.clone() for t in example.tensors(leaves)], train)
    except (RuntimeError, IndexError) as error:  # from torch; one of the checks that were captured, perhaps
        return f"it fails: {error}"
    for index, (value, pair) in enumerate(zip(found, pairs, strict=True)):
        target = wanted[pair[1] if train else pair[0]]
        gap = difference(value, target)
        if value.dtype != target.dtype:
            return f"output {index} is {value.dtype}, expected {target.dtype}"
        if not gap <= _CLOSE.get(target.dtype, 1e-8):
            return f"output {index} differs by {gap:.2g} of its greatest number"
    for name, buffer in buffers.items():
        if train and name in weights:
            gap = difference(weights[name], buffer)
            if not gap <= _CLOSE.get(buffer.dtype, 1e-8):
                return f"buffer '{name}' differs by {gap:.2g} afterwards"
    return ""


def _wide(
    module: nn.Module,
    net: Net,
    example: Example,
    leaves: list[Any],
    train: bool,
    pairs: Sequence[tuple[int, int]],
    seed: int,
) -> bool:
    """Whether both agree in float64, so that what differs in float32 is rounding."""

    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    try:
        double = copy.deepcopy(module).double()
        weights = {name: widen(tensor) for name, tensor in net.weights.items()}
        wide = [widen(value) for value in leaves]
        result = _run(double, example, wide, train, seed)
        return not _compare(Net(net.graph, weights), example, wide, result, train, pairs, seed)
    except Exception:  # not every module runs in float64
        return False


def _locate(net: Net, inputs: list[Tensor], finished: Finished, program: Program, train: bool, seed: int) -> str:
    """The first node whose value differs from the export's, in words."""
    leaves = {
        id: leaf if leaf.tensor is None else type(leaf)(leaf.kind, leaf.name, leaf.meta, leaf.tensor.detach().clone())
        for id, leaf in program.leaves.items()
    }
    copied = Program(program.train, program.batches, leaves, program.calls, program.outputs)
    try:
        torch.manual_seed(seed)
        wanted = interpret(copied, inputs)
        torch.manual_seed(seed)
        found = _values(net, inputs, train)
    except Exception as error:  # the search itself must not hide what it was made for
        return f"the place could not be found ({type(error).__name__}: {error})"
    ids = [*program.leaves, *program.calls]
    last = {source: name for name, source in finished.sources.items()}
    for node in net.graph.nodes:
        source = finished.sources.get(node.name, -1)
        if source < 0 or last[source] != node.name or (train is False and "train" in finished.flags.get(node.name, ())):
            continue
        call = program.calls.get(ids[source])
        if call is None:
            continue
        for index in range(len(call.out) if isinstance(call.out, tuple) else 1):
            target = wanted.get(Ref(call.id, index if isinstance(call.out, tuple) else None))
            value = found.get(output(node.name, index))
            if target is None or value is None or target.shape != value.shape or target.dtype != value.dtype:
                continue
            gap = difference(value, target)
            if not gap <= _CLOSE.get(target.dtype, 1e-8):
                where = called_at(call.trace)
                return f"node '{node.name}' ({node.op}) is the first that differs, by {gap:.2g}, from {call.op}" + (
                    f" at {where}" if where else ""
                )
    return _NO_PLACE


def _values(net: Net, inputs: Sequence[Tensor], train: bool) -> dict[str, Tensor]:
    """Every value that the net makes."""
    known = ops.analyse(net.graph, BATCH)
    values: dict[str, Tensor] = dict(zip([node.name for node in net.graph.inputs], inputs, strict=True))
    weights = {name: tensor.clone() for name, tensor in net.weights.items()}
    with torch.no_grad():
        for node in net.graph.nodes:
            if node.op != INPUT:
                f = known[node.name]
                w = {param: weights[ops.weight_name(node.slot or "", param)] for param in f.params}
                made = f.op.run(f.a, [values[value] for value in node.inputs], w, train)
                for index, tensor in enumerate(made if type(made) is tuple else (made,)):
                    values[output(node.name, index)] = tensor
    return values
