"""`Net`: a graph with weights, as a value. Saved as graph.json and weights.safetensors, never as a pickle."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from archwright import ops
from archwright.errors import ConsentError, FormatError, WeightsError
from archwright.ir import BATCH, INPUT, Graph, owner

if TYPE_CHECKING:
    from archwright.net.cost import NetCost

GRAPH_FILE = "graph.json"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, eq=False)
class Net:
    """A graph and its weights.

    graph    the architecture
    weights  weight name ("slot.param") -> tensor; exactly those that `archwright.ops.params(graph)` asks for.
             Floating-point weights may be of any floating dtype (a net in half precision is the same graph)

    Raises `WeightsError` if graph and weights disagree. A net does not copy the tensors that it is given, and no tool
    changes them in place: tools return new nets.
    """

    graph: Graph
    weights: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        wanted = ops.params(self.graph)
        missing, extra = wanted.keys() - self.weights.keys(), self.weights.keys() - wanted.keys()
        if missing or extra:
            raise WeightsError(
                "weights and graph disagree: "
                + "; ".join(
                    f"{what} {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
                    for what, names in (("missing", missing), ("not in the graph", extra))
                    if names
                )
            )
        for name, param in wanted.items():
            tensor = self.weights[name]
            if tuple(tensor.shape) != param.shape:
                got, expected = list(tensor.shape), list(param.shape)
                raise WeightsError(f"weight '{name}' has shape {got}, the graph expects {expected}")
            dtype = str(tensor.dtype).removeprefix("torch.")
            both_floating = tensor.is_floating_point() and param.dtype.startswith(("float", "bfloat"))
            if dtype != param.dtype and not both_floating:
                raise WeightsError(f"weight '{name}' is {dtype}, the graph expects {param.dtype}")
        object.__setattr__(self, "weights", MappingProxyType({name: self.weights[name] for name in wanted}))

    @property
    def opaque_share(self) -> float:
        """Share of the nodes (inputs apart) that are opaque: torch operators that no op of ours covers."""
        nodes = [node for node in self.graph.nodes if node.op != INPUT]
        return sum(node.op == "opaque" for node in nodes) / max(1, len(nodes))

    def cost(self, batch: int = 1) -> NetCost:
        """Parameters, FLOPs and bytes at a batch size, in all and for each node, without running anything."""
        from archwright.net.cost import cost

        return cost(self.graph, batch)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write graph.json and weights.safetensors into a folder, made if needed. Each appears whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # clone: safetensors refuses tensors that share memory
        weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.weights.items()}
        work = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            (work / GRAPH_FILE).write_text(self.graph.to_json(), encoding="utf-8")
            safetensors.torch.save_file(weights, work / WEIGHTS_FILE, metadata={"archwright": str(self.graph.version)})
            for name in (WEIGHTS_FILE, GRAPH_FILE):
                os.replace(work / name, folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return folder

    def __repr__(self) -> str:
        return f"Net({len(self.graph)} nodes, {sum(t.numel() for t in self.weights.values()):,} weights)"

    def __reduce__(self) -> Any:
        return Net, (self.graph, dict(self.weights))


def load(folder: str | os.PathLike[str], *, allow_opaque: bool = False) -> Net:
    """Read a net that `Net.save` wrote. Everything is checked before anything is returned, and nothing is executed.

    Raises `FormatError` (a file is missing, truncated, of another version), `GraphError` and its kin (the graph is
    wrong), `WeightsError` (graph and weights disagree), `ConsentError` (the net calls torch operators by name, and
    `allow_opaque` is not given).
    """
    folder = Path(folder)
    try:
        text = (folder / GRAPH_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FormatError(f"{folder} holds no {GRAPH_FILE}: expected a folder written by Net.save") from None
    except (UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{folder / GRAPH_FILE} cannot be read: {error}") from None
    graph = Graph.from_json(text)
    opaque = sorted({node.attrs.get("target", "?") for node in graph.nodes if node.op == "opaque"})
    if opaque and not allow_opaque:
        raise ConsentError(
            f"{folder} calls torch operators by name ({', '.join(map(str, opaque[:5]))}): "
            "load it with allow_opaque=True if you trust its origin"
        )
    graph = ops.check(graph)
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise FormatError(f"{folder} holds no {WEIGHTS_FILE}: expected a folder written by Net.save") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise FormatError(f"{folder / WEIGHTS_FILE} is not a whole safetensors file: {error}") from None
    return Net(graph, weights)


def init(graph: Graph, seed: int = 0) -> Net:
    """A net with fresh weights, drawn as each op says. The same graph and seed give the same weights."""
    generator = torch.Generator().manual_seed(seed)
    return Net(graph, {name: _draw(param, generator) for name, param in ops.params(graph).items()})


def _draw(param: ops.Param, generator: torch.Generator) -> Tensor:
    shape, dtype = param.shape, getattr(torch, param.dtype)
    match param.init:
        case ("zeros",):
            return torch.zeros(shape, dtype=dtype)
        case ("ones",):
            return torch.ones(shape, dtype=dtype)
        case ("constant", value):
            return torch.full(shape, float(value), dtype=dtype)
        case ("uniform", bound):
            return torch.empty(shape, dtype=dtype).uniform_(-float(bound), float(bound), generator=generator)
        case ("normal", std):
            return torch.empty(shape, dtype=dtype).normal_(0.0, float(std), generator=generator)
        case ("range",):
            return torch.arange(torch.Size(shape).numel(), dtype=dtype).reshape(shape)
    raise WeightsError(f"unknown init {param.init!r}: expected zeros, ones, constant, uniform, normal or range")


def example(graph: Graph, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, ...]:
    """Random arguments for a graph: standard normal numbers; whole numbers below the smallest table that they index."""
    generator = torch.Generator().manual_seed(seed)
    known = ops.analyse(graph, batch)
    found = []
    for node in graph.inputs:
        t = known[node.name].y[0]
        dtype = getattr(torch, t.dtype)
        if dtype.is_floating_point:
            found.append(torch.randn(t.shape, generator=generator).to(dtype))
        elif dtype.is_complex:
            found.append(torch.randn(t.shape, generator=generator, dtype=dtype))
        else:
            high = 2 if dtype == torch.bool else _bound(graph, node.name, known)
            found.append(torch.randint(0, high, t.shape, generator=generator).to(dtype))
    return tuple(found)


def _bound(graph: Graph, source: str, known: Mapping[str, ops.Facts]) -> int:
    """Least size of what a whole-number argument indexes, directly or through ops that only move values; else 2."""
    high, seen, stack = [], {source}, [source]
    while stack:
        value = stack.pop()
        for user in graph.users[owner(value)]:
            f = known[user.name]
            if user.op in ("embedding", "one_hot"):
                high.append(f.a["num"])
            elif user.op in ("gather", "index_select", "index_add", "scatter") and owner(user.inputs[1]) == value:
                high.append(f.x[0].shape[f.a["dim"]])
            elif user.op == "index":
                high.append(min(f.x[0].shape))
            elif (f.op.view or user.op in ("concat", "stack", "roll", "pad")) and user.name not in seen:
                seen.add(user.name)
                stack.append(user.name)
    return min(high, default=2)
