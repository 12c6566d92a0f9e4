"""The third reading of a space: keep everything. Every trace of the space is inside one network.

Branches and depths become inputs of a `switch` (or of a `mix`, to be weighed by learned numbers), and numbers take
their greatest option, so that smaller ones are slices: leading channels, the middle of a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from archwright import ops
from archwright.core.choose import Body, Draw, Options, Picker, Piece, Scalar, integers, replay
from archwright.core.records import Trace
from archwright.errors import ChoiceError
from archwright.ir import Editor, Graph, Node, alive, sort
from archwright.net.net import Net, init


@dataclass
class Keeper:
    """A chooser that keeps all pieces of graph, except for choices that are fixed. Made for `Supernet`."""

    join: Literal["switch", "mix"] = "switch"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    switches: dict[str, dict[str, list[Scalar]]] = field(default_factory=dict)  # choice -> join node -> options
    numbers: dict[str, Options] = field(default_factory=dict)

    def one_of(self, name: str, options: Sequence[Scalar], weights: Sequence[float] = ()) -> Any:
        """The greatest number. Other values have no greatest: fix them, or use `branch`."""
        if name not in self.fixed and not all(type(option) in (int, float) for option in options):
            raise ChoiceError(
                f"choice '{name}' is among {list(options)}: a supernet keeps numbers and branches; "
                "make it a branch or give its value in `fixed`"
            )
        return self._size(name, Options("one_of", tuple(options)))

    def integer(self, name: str, low: int, high: int, step: int = 1) -> int:
        """The greatest number."""
        found = self._size(name, integers(name, "integer", low, high, step))
        assert type(found) is int
        return found

    def number(self, name: str, low: float, high: float, log: bool = False) -> float:
        """A real number is not a size: it has to be fixed."""
        if name not in self.fixed:
            raise ChoiceError(f"choice '{name}' is a real number: a supernet needs its value in `fixed`")
        value = self._fixed(name, Options("number", (), float(low), float(high), log))
        return float(value)  # type: ignore[arg-type]

    def branch(self, name: str, g: Editor, x: str, pieces: Mapping[str, Piece]) -> str:
        """All pieces, joined; one alone if it is fixed."""
        kept = list(pieces) if name not in self.fixed else [self._fixed(name, Options("branch", tuple(pieces)))]
        made = []
        for option in map(str, kept):
            with g.scope(f"{name}.{option}"):
                made.append(pieces[option](g, x))
        return self._join(name, g, kept, made)

    def repeat(self, name: str, g: Editor, x: str, low: int, high: int, body: Body) -> str:
        """The greatest depth, with a way out at every depth allowed; one depth if it is fixed."""
        depths = list(integers(name, "repeat", low, high, 1).values)
        if name in self.fixed:
            depths = [self._fixed(name, Options("repeat", tuple(depths)))]
        made = [x] if 0 in depths else []
        for i in range(max(depths)):  # type: ignore[arg-type, type-var]
            with g.scope(f"{name}.{i}"):
                x = body(g, x, i)
            if i + 1 in depths:
                made.append(x)
        return self._join(name, g, depths, made)

    def _size(self, name: str, options: Options) -> Scalar:
        if name in self.fixed:
            return self._fixed(name, options)
        self.numbers[name] = options
        return max(options.values)  # type: ignore[type-var]

    def _fixed(self, name: str, options: Options) -> Scalar:
        value: Scalar = self.fixed[name]
        if value not in options:
            raise ChoiceError(f"choice '{name}' is {value!r}, expected one of {options}")
        return value

    def _join(self, name: str, g: Editor, options: Sequence[Scalar], made: Sequence[str]) -> str:
        if name in self.fixed:
            return made[0]
        shapes = {g.type(value) for value in made}
        if len(shapes) > 1:
            found = ", ".join(sorted(map(str, shapes)))
            raise ChoiceError(f"the options of '{name}' end in {found}: a supernet needs one type")
        node = g.fresh(f"{g.prefix}{name}.{self.join}").removeprefix(g.prefix)
        value: str = g.add(self.join, *made, name=node)
        self.switches.setdefault(name, {})[value] = list(options)
        return value


@dataclass(frozen=True)
class Supernet:
    """A space's program read with every branch kept. Its weights serve every trace.

    graph     the whole, with `switch` or `mix` nodes
    numbers   the elastic choices and their options
    """

    draw: Draw
    spec: Any
    graph: Graph
    switches: Mapping[str, Mapping[str, Sequence[Scalar]]]
    numbers: Mapping[str, Options]
    fixed: Mapping[str, Any]

    @staticmethod
    def of(
        draw: Draw, spec: Any, *, join: Literal["switch", "mix"] = "switch", fixed: Mapping[str, Any] | None = None
    ) -> Supernet:
        """The supernet of a space. `fixed` gives values for choices that are neither pieces nor sizes, and for any
        other that is to be made beforehand."""
        keeper = Keeper(join, dict(fixed or {}))
        graph = draw(keeper, spec)
        return Supernet(draw, spec, graph, keeper.switches, keeper.numbers, dict(fixed or {}))

    def init(self, seed: int = 0) -> Net:
        """The supernet with fresh weights."""
        return init(self.graph, seed)

    def restrict(self, net: Net, trace: Mapping[str, Any]) -> Net:
        """The network of a trace with the supernet's weights.

        Its wiring is the supernet's: joins give way to the branch taken and what is no longer needed is dropped. Sizes
        are the trace's, and weights are cut to them. Raises `ChoiceError` if the trace is not of this space.
        """
        for name, value in self.fixed.items():
            if trace.get(name, value) != value:
                raise ChoiceError(f"the trace has {trace[name]!r} for '{name}', which is fixed at {value!r}")
        graph = self._wired(trace)
        picker = Picker(replay({**self.fixed, **trace}))
        drawn = self.draw(picker, self.spec)
        extra = trace.keys() - picker.taken.keys()
        if extra:
            raise ChoiceError(f"the trace has choices that the space does not ask: {', '.join(sorted(extra))}")
        sized = {node.name: node.attrs for node in drawn.nodes}
        if sized.keys() != {node.name for node in graph.nodes}:
            odd = sorted(sized.keys() ^ {node.name for node in graph.nodes})[:5]
            raise ChoiceError(f"names of nodes depend on more than the choices' names: {', '.join(odd)}")
        graph = Graph(tuple([node.with_(attrs=sized[node.name]) for node in graph.nodes]), graph.outputs)
        wanted = ops.params(graph)
        return Net(graph, {name: _slice(net.weights[name], param.shape, name) for name, param in wanted.items()})

    def _wired(self, trace: Mapping[str, Any]) -> Graph:
        """The supernet's graph with each join replaced by the branch that the trace takes."""
        instead: dict[str, str] = {}
        for name, joins in self.switches.items():
            for join, options in joins.items():
                if name in trace:
                    taken = trace[name]
                    if taken not in options:
                        raise ChoiceError(f"the trace has {taken!r} for '{name}', expected one of {list(options)}")
                    instead[join] = self.graph[join].inputs[list(options).index(taken)]

        def value(old: str) -> str:
            while old in instead:
                old = instead[old]
            return old

        nodes: list[Node] = [
            node.with_(inputs=tuple(map(value, node.inputs))) for node in self.graph.nodes if node.name not in instead
        ]
        return alive(Graph(sort(nodes), tuple(map(value, self.graph.outputs))))


def _slice(weight: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """The leading part along channels, the middle along kernel dimensions (those after the first two)."""
    if tuple(weight.shape) == shape:
        return weight
    if weight.dim() != len(shape) or any(n > m for n, m in zip(shape, weight.shape, strict=True)):
        raise ChoiceError(f"weight '{name}' has shape {list(weight.shape)}: no slice of it has shape {list(shape)}")
    for dim, (wanted, has) in enumerate(zip(shape, weight.shape, strict=True)):
        if wanted < has:
            weight = weight.narrow(dim, (has - wanted) // 2 if dim >= 2 else 0, wanted)
    return weight


def supernet_trace(supernet: Supernet, trace: Mapping[str, Any]) -> Trace:
    """The choices of a trace that the supernet makes: without those that were fixed."""
    return Trace({name: value for name, value in trace.items() if name not in supernet.fixed})
