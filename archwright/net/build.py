"""`build`: a net as a torch.nn.Module. There is one class, `Built`, for every graph; what differs is its plan.

State names are weight names ("blocks.0.conv1.weight"): for every dotted prefix there is a plain nn.Module that only
holds parameters and buffers. The work is in the plan: the steps to run, in order, each with the registers (places in
a list) that it reads and writes. A register is given to a later value as soon as nobody reads its own any more, so
that memory is free as early as it can be.

The plan knows modules by path only, and every call finds the tensors anew. So copies, replicas of DataParallel,
torch.func.functional_call, parametrisations, and tensors that were moved, cast or replaced all work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from archwright import ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ir import BATCH, INPUT, Graph, Node, output
from archwright.net.net import Net


def build(net: Net) -> Built:
    """The net as a module to run, train, compile or export. Weights are cloned: the net stays as it is.

    Raises `GraphError` if the name of a weight cannot be that of a module's parameter.
    """
    return Built(net)


def to_net(module: Built) -> Net:
    """The net that a built module holds now. Weights are cloned: training the module further does not change it."""
    if not isinstance(module, Built):
        raise TypeError(f"got {type(module).__name__}, expected a module that archwright.build made")
    plan, holders = module._plan, module._holders()
    now = {name: getattr(holders[h], leaf).detach().clone() for name, (h, leaf) in plan.weights.items()}
    return Net(plan.graph, now)


class Built(nn.Module):
    """A net as a module: `built(*inputs)` gives a tensor, or a tuple of tensors where the graph has several outputs.

    Raises `TypeMismatch` for inputs whose number, rank, sizes or kind (floating or not) is not what the graph says.
    What goes wrong within a node says so in a note of the error. The mode of a node that has weights is that of the
    module that holds them, so that `built.norm1.eval()` freezes the statistics of one normalisation; nodes without
    weights follow the whole. All names but torch's own belong to the weights: what else there is, starts with "_".
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        wanted = ops.params(net.graph)
        for name, tensor in net.weights.items():
            holder, leaf = _hold(self, name)
            value = tensor.detach().clone()
            if wanted[name].buffer:
                holder.register_buffer(leaf, value)
            else:
                trains = value.is_floating_point() or value.is_complex()
                holder.register_parameter(leaf, nn.Parameter(value, requires_grad=trains))
        self._plan = _plan(net.graph)

    def _holders(self) -> list[Any]:
        """The modules that hold weights, as the plan numbers them."""
        found: list[Any] = [self]
        for parent, name in self._plan.holders:
            found.append(found[parent]._modules[name])
        return found

    def forward(self, *inputs: Tensor) -> Any:
        """Run the plan. Inputs in the order of the graph's input nodes."""
        holders, training = self._holders(), self.training
        plan = self._plan if self._plan.trained is None or not training else self._plan.trained
        r = _admit(plan, inputs)
        name = ""
        try:
            for name, run, a, sources, weights, targets, dead in plan.steps:  # noqa: B007
                x = [r[source] for source in sources]
                if weights is None:
                    made = run(a, x, _NO_WEIGHTS, training)
                else:
                    home, count, read = weights
                    holder = holders[home]
                    # where they are just what the module holds, its own mapping will do
                    w = holder._parameters
                    if len(w) != count:
                        w = {param: getattr(holders[h], leaf) for param, h, leaf in read}
                    made = run(a, x, w, holder.training)
                if type(made) is tuple:
                    for index, target in enumerate(targets):
                        r[target] = made[index]
                    made = None  # nothing but the registers holds values while the next step runs
                else:
                    r[targets[0]] = made
                for register in dead:
                    r[register] = None
        except Exception as error:
            error.add_note(f"in node '{name}'")
            raise
        found = tuple([r[register] for register in plan.outputs])
        return found[0] if len(found) == 1 else found

    def extra_repr(self) -> str:
        return f"{len(self._plan.steps)} steps"


# ---------------------------------------------------------------------------------------------------------- the plan
class _Argument(NamedTuple):
    """An argument: where it goes, its sizes after the first, whether it is of a floating dtype, and its node."""

    register: int
    tail: tuple[int | None, ...]
    floating: bool
    node: Node


class _Weights(NamedTuple):
    """The weights of a step: the number of the module of its slot, how many parameters that holds if those are all the
    step's weights (else -1), and for each weight the parameter, the number of the module and the name there."""

    home: int
    count: int
    read: tuple[tuple[str, int, str], ...]


class _Step(NamedTuple):
    """One node to run: reads registers `sources`, writes `targets`, then empties `dead`."""

    name: str
    run: Callable[..., Any]
    attrs: Mapping[str, Any]
    sources: tuple[int, ...]
    weights: _Weights | None
    targets: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Plan:
    """How to run a graph. Immutable and without tensors, so that all copies of a module share it."""

    graph: Graph
    arguments: tuple[_Argument, ...]
    holders: tuple[tuple[int, str], ...]  # number of the parent and name in it; number 0 is the whole
    weights: Mapping[str, tuple[int, str]]  # weight name -> number of its module and name there
    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]
    registers: int
    trained: _Plan | None = None  # how to run it in train mode, where that takes other nodes

    def __deepcopy__(self, memo: dict[int, Any]) -> _Plan:
        return self


_NO_WEIGHTS: Mapping[str, Tensor] = MappingProxyType({})


def _plan(graph: Graph) -> _Plan:
    if ops.reads(graph, True) == ops.reads(graph, False):  # no op knows modes
        return _road(graph, False)
    return replace(_road(graph, False), trained=_road(graph, True))


def _road(graph: Graph, train: bool) -> _Plan:
    """How to run a graph in one mode."""
    known, reads = ops.analyse(graph, BATCH), ops.reads(graph, train)
    paths, leaves = _layout(graph)
    inside: dict[int, set[str]] = {}  # number of a module -> names of all that it holds
    for home, leaf in leaves.values():
        inside.setdefault(home, set()).add(leaf)
    place: dict[str, int] = {}
    empty: list[int] = []
    size = 1  # register 0 stays empty: it stands for inputs that an op leaves out

    def allocate(value: str) -> int:
        nonlocal size
        if not empty:
            empty.append(size)
            size += 1
        place[value] = empty.pop()
        return place[value]

    arguments = []
    for node in graph.inputs:
        floating = known[node.name].y[0].dtype.startswith(("float", "bfloat"))
        arguments.append(_Argument(allocate(node.name), node.attrs["shape"][1:], floating, node))
    dying = _dying(graph, reads)
    steps = []
    for name, indices in reads.items():
        node, f = graph[name], known[name]
        if node.op == INPUT:
            continue
        sources = tuple([place[value] if i in indices else 0 for i, value in enumerate(node.inputs)])
        made = [output(name, index) for index in range(len(f.y))]
        freed = [place[value] for value in dying.get(name, ()) if value not in made]
        empty.extend(freed)
        targets = tuple([allocate(value) for value in made])
        unread = [place[value] for value in made if value in dying.get(name, ())]
        empty.extend(unread)
        dead = (*[register for register in freed if register not in targets], *unread)
        weights = _weights_of(node, f, paths, leaves, inside)
        steps.append(_Step(name, f.op.run, f.a, sources, weights, targets, dead))
    return _Plan(
        graph=graph,
        arguments=tuple(arguments),
        holders=tuple([(paths[path.rpartition(".")[0]], path.rpartition(".")[2]) for path in paths if path]),
        weights=leaves,
        steps=tuple(steps),
        outputs=tuple([place[value] for value in graph.outputs]),
        registers=size,
    )


def _dying(graph: Graph, reads: Mapping[str, tuple[int, ...]]) -> Mapping[str, list[str]]:
    """Node name -> the values that nobody reads after it (its own outputs among them if nobody reads them at all)."""
    last: dict[str, str] = {}
    for name, indices in reads.items():
        node = graph[name]
        for index in range(len(ops.analyse(graph, BATCH)[name].y)):
            last[output(name, index)] = name
        for index in indices:
            last[node.inputs[index]] = name
    dying: dict[str, list[str]] = {}
    for value, name in last.items():
        if value not in graph.outputs:
            dying.setdefault(name, []).append(value)
    return dying


def _layout(graph: Graph) -> tuple[dict[str, int], dict[str, tuple[int, str]]]:
    """Where weights live: the number of each module by path, parents first, and weight name -> (module, name there)."""
    paths = {"": 0}
    leaves = {}
    for weight in ops.params(graph):
        path, _, leaf = weight.rpartition(".")
        parts = path.split(".") if path else []
        for depth in range(len(parts)):
            paths.setdefault(".".join(parts[: depth + 1]), len(paths))
        leaves[weight] = (paths[path], leaf)
    return paths, leaves


def _weights_of(
    node: Node,
    f: ops.Facts,
    paths: Mapping[str, int],
    leaves: Mapping[str, tuple[int, str]],
    inside: Mapping[int, set[str]],
) -> _Weights | None:
    if node.slot is None:
        return None
    read = tuple([(param, *leaves[ops.weight_name(node.slot, param)]) for param in f.params])
    home = paths.get(node.slot, read[0][1])
    plain = all([h == home and param == leaf for param, h, leaf in read])
    plain = plain and not any([param.buffer for param in f.params.values()]) and inside[home] == set(f.params)
    return _Weights(home, len(read) if plain else -1, read)


# ----------------------------------------------------------------------------------------------------- modules, errors
def _hold(root: nn.Module, weight: str) -> tuple[nn.Module, str]:
    """The module that holds a weight, made if needed, and the weight's name in it."""
    *path, leaf = weight.split(".")
    module = root
    for part in path:
        if part not in module._modules:
            _claim(module, part, weight)
            module.add_module(part, nn.Module())
        module = module._modules[part]  # type: ignore[assignment]
    _claim(module, leaf, weight)
    return module, leaf


def _claim(module: nn.Module, name: str, weight: str) -> None:
    if name in module._modules or name in module._parameters or name in module._buffers:
        raise GraphError(f"weight '{weight}': '{name}' is the name of another weight or prefix too: rename the slot")
    if not name or hasattr(module, name):
        raise GraphError(f"weight '{weight}': torch allows no parameter or module named {name!r}: rename the slot")


def _admit(plan: _Plan, inputs: tuple[Any, ...]) -> list[Any]:
    """The registers with the inputs in their places, checked."""
    arguments = plan.arguments
    if len(inputs) != len(arguments):
        names = ", ".join([argument.node.name for argument in arguments])
        raise TypeMismatch(f"got {len(inputs)} inputs, expected {len(arguments)}: {names}")
    registers: list[Any] = [None] * plan.registers
    for x, (register, tail, floating, node) in zip(inputs, arguments):  # noqa: B905  compared above
        # the usual case fast: only the first dimension is free
        if not isinstance(x, Tensor) or x.shape[1:] != tail or x.is_floating_point() is not floating:
            _check_argument(node, floating, x)
        registers[register] = x
    return registers


def _check_argument(node: Node, floating: bool, x: Any) -> None:
    shape, dtype = node.attrs["shape"], node.attrs.get("dtype", "float32")
    wanted = f"{dtype}[{', '.join(['batch' if n is None else str(n) for n in shape])}]"
    if not isinstance(x, Tensor):
        raise TypeMismatch(f"input '{node.name}' is of type {type(x).__name__}, expected a tensor {wanted}")
    fits = x.dim() == len(shape) and all(n is None or n == m for n, m in zip(shape, x.shape, strict=True))
    if not fits or x.is_floating_point() is not floating:
        got = f"{str(x.dtype).removeprefix('torch.')}[{', '.join(map(str, x.shape))}]"
        raise TypeMismatch(f"input '{node.name}' is {got}, expected {wanted}")
