"""Graph metanetworks: a network that reads (or edits) the weights of any other network, as a graph of its parameters.

The parameter graph comes from the tied axes of the network, whatever its architecture. A class of tied axes with n
units gives n nodes (a neuron, a channel, a head: one node however many layers it passes through, residuals included).
Every number of a weight is an edge that touches the nodes of the units in whose position it stands: two for a matrix,
more where a dimension is a product (groups, heads), one for a bias or a norm. With h_u [F] of nodes, e_i [F] of edges:

    e_i <- A(value of i, op and parameter that it is of, depth, place within kernels)       h_u <- B(place, if pinned)
    m_u  = mean over (weights, dimensions) with u of  M_side mean of e_i over the edges i that touch u there
    h_u <- h_u + U2 relu(U1 h_u + m_u + S (m_u - mean m) / std m)           mean and std over the class of u
    e_i <- e_i + E2 relu(E1 e_i + sum_{u touches i} N_side h_u + G mean over all nodes of h)

for some rounds; then all edges of a weight are pooled (mean and mean square), mapped, and averaged over the weights,
with the mean over all nodes beside it: the code [2 F]. Side is the dimension: outputs, inputs, or further ones. Units
that can be permuted freely have no place, so the code does not change when they are, and edits permute with them.
Kernel positions, inputs and outputs of the network do have one.

    encode  codes of nets;  fit  trains code and a regression head on a number for each net, which `predict` gives
    edit    w + size * spread of w * O e: nets of the same graphs with other weights (statistics are left alone)

Cost: about 4 F^2 multiply-adds for each weight, node and round. Nets of one architecture run as one batch. Fails for
nets with so many weights that F numbers for each do not fit in memory, and where axes are pinned though a symmetry is
there. Differs from the paper in edges that keep states of their own, in means instead of attention, and in size.

Lim, Maron, Law, Lorraine, Lucas: Graph Metanetworks for Processing Diverse Neural Architectures, 2023,
arXiv 2312.04501.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archwright import ops
from archwright.core import seeds
from archwright.core.records import Budget, Claim
from archwright.errors import ArchwrightError
from archwright.ir import Graph
from archwright.net.axes import axes
from archwright.net.net import Net, init

PART = {
    "kind": "weightspace",
    "name": "gmn",
    "id": "gmn",
    "title": "Graph Metanetworks for Processing Diverse Neural Architectures",
    "year": 2023,
    "arxiv": "2312.04501",
    "needs": [],
    "extras": [],
    "example": {
        "hp": {"width": 8, "rounds": 2}, "data": "image", "net": "residual", "nets": 4,
        "encode": "invariant", "edit": "equivariant",
    },
    "exact": "Permuting units of free axes leaves codes as they are and permutes edits, to rounding.",
    "claim": {
        "text": "Kendall's tau of predicted and real accuracy on held-out nets: 384 small ones of two architectures.",
        "paper": "above all metanetworks compared with, on CIFAR-10 networks of several kinds",
    },
}  # fmt: skip

ROLE, PLACE, VALUE, SIDES = 8, 8, 4, 3


# --------------------------------------------------------------------------------------------------- parameter graphs
class Touch(NamedTuple):
    """Along dimension `dim` of a weight, position p touches node `nodes[p]`; only positions `at` touch any (None: all).

    side  0 outputs, 1 inputs, 2 further dimensions
    """

    dim: int
    nodes: Tensor
    at: Tensor | None
    side: int


class Edges(NamedTuple):
    """The edges of one weight: name, shape, what it is [ROLE], places [*shape, PLACE], what its dimensions touch."""

    name: str
    shape: tuple[int, ...]
    role: Tensor
    place: Tensor
    touches: tuple[Touch, ...]
    trained: bool
    scale: float


class ParameterGraph(NamedTuple):
    """The parameter graph of an architecture: edges by weight; of each node its place [nodes, PLACE], how many weights
    touch it, and its class; and the sizes of the classes."""

    edges: tuple[Edges, ...]
    place: Tensor
    touched: Tensor
    kind: Tensor
    sizes: Tensor


def _code(size: int, *path: int | str) -> Tensor:
    """A fixed vector for a name."""
    return torch.from_numpy(seeds.rng(0, "gmn", *path).standard_normal(size).astype(np.float32))


def _places(count: int, *path: int | str) -> Tensor:
    """[count, PLACE]: a smooth code of each position, different for each path."""
    rng = seeds.rng(0, "gmn", "place", *path)
    frequency, phase = rng.uniform(0.5, 4, PLACE), rng.uniform(0, 2 * np.pi, PLACE)
    at = (np.arange(count) + 0.5) / count
    return torch.from_numpy(np.sin(np.pi * at[:, None] * frequency + phase).astype(np.float32))


def parameter_graph(graph: Graph) -> ParameterGraph:
    """The parameter graph of an architecture, from its tied axes. Whole-number weights (counters) are left out.

    Raises `ArchwrightError` if there are no weights.
    """
    tied, wanted = axes(graph), ops.params(graph)
    start = np.cumsum([0, *[c.size for c in tied.classes]])
    place = torch.zeros(int(start[-1]), PLACE)
    touches: dict[str, list[Touch]] = {name: [] for name in wanted}
    free: set[tuple[str, int]] = set()  # dimensions in which units can be permuted
    for c in tied.classes:
        first = int(start[c.number])
        if not c.permute:
            place[first : first + c.size] = _places(c.size, "node")
        for member in c.members:
            index = member.index
            unit = np.full(wanted[member.weight].shape[member.dim], -1)
            unit[index] = np.arange(c.size)[:, None]
            at = np.flatnonzero(unit >= 0)
            whole = len(at) == len(unit)
            nodes = torch.from_numpy(unit[at] + first)
            side = min(member.dim, SIDES - 1)
            touches[member.weight].append(
                Touch(member.dim, nodes, None if whole else torch.from_numpy(at), side)
            )  # fmt: skip
            if c.permute and c.size > 1:
                free.add((member.weight, member.dim))
    edges: list[Edges] = []
    order = graph.order()
    for depth, name in enumerate(order):
        node = graph[name]
        if node.slot is None:
            continue
        for param in ops.analyse(graph)[name].params:
            weight = ops.weight_name(node.slot, param)
            found = wanted[weight]
            if weight in {e.name for e in edges} or not found.dtype.startswith(("float", "bfloat")):
                continue
            at = (depth + 0.5) / len(order)
            role = 0.5 * _code(ROLE, "role", node.op, param) + torch.tensor(
                [math.sin(math.pi * at * (k + 1) / 2) for k in range(ROLE)]
            )
            where = torch.zeros(*found.shape, PLACE)
            for dim, n in enumerate(found.shape):
                if n > 1 and (weight, dim) not in free:
                    shape = [1] * len(found.shape) + [PLACE]
                    shape[dim] = n
                    where = where + _places(n, dim).reshape(shape)
            fan = math.prod(found.shape[1:]) if len(found.shape) > 1 else 1
            edges.append(
                Edges(
                    weight, found.shape, role.float(), where, tuple(touches[weight]), not found.buffer, math.sqrt(fan)
                )
            )
    if not edges:
        raise ArchwrightError("the network has no weights: there is nothing to read")
    touched = torch.zeros(int(start[-1]))
    for e in edges:
        for touch in e.touches:
            touched.index_add_(0, touch.nodes.unique(), torch.ones(len(touch.nodes.unique())))
    sizes = torch.tensor([c.size for c in tied.classes])
    kind = torch.arange(len(sizes)).repeat_interleave(sizes)
    return ParameterGraph(tuple(edges), place, touched, kind, sizes)


# ---------------------------------------------------------------------------------------------------- the metanetwork
class Metanetwork(nn.Module):
    """Message passing over a parameter graph, for a batch of nets of one architecture. See the head of the file."""

    def __init__(self, width: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.edge_in = nn.Sequential(nn.Linear(VALUE + ROLE + PLACE, width), nn.ReLU(), nn.Linear(width, width))
        self.node_in = nn.Linear(PLACE, width)

        def each(fan: int, out: int, count: int = 1) -> nn.ModuleList:
            return nn.ModuleList([nn.Linear(fan, out) for _ in range(rounds * count)])

        self.to_node, self.to_edge = each(width, width, SIDES), each(width, width, SIDES)
        self.node1, self.node2, self.edge1, self.edge2 = [each(width, width) for _ in range(4)]
        self.all, self.spread = each(width, width), each(width, width)
        self.pool = nn.Sequential(nn.Linear(2 * width + ROLE, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.head = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))
        self.out = nn.Linear(width, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # torch's own start shrinks what passes through a chain of layers
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    def forward(self, graph: ParameterGraph, weights: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """weights: [nets, *shape] each. Codes [nets, 2 F] and edge states [nets, *shape, F]."""
        count = len(weights[0])
        states = [self.edge_in(_features(w, e)) for w, e in zip(weights, graph.edges, strict=True)]
        nodes = self.node_in(graph.place).expand(count, -1, -1)
        for r in range(self.rounds):
            heard = self._messages(graph, states, nodes, r)
            apart = self.spread[r](_standardised(graph, heard))
            nodes = nodes + self.node2[r](F.relu(self.node1[r](nodes) + heard + apart))
            everywhere = self.all[r](nodes.mean(1))
            states = [
                state + self.edge2[r](F.relu(self.edge1[r](state) + self._context(e, nodes, everywhere, r)))
                for state, e in zip(states, graph.edges, strict=True)
            ]
        pooled = []
        for state, e in zip(states, graph.edges, strict=True):
            flat = state.reshape(count, -1, state.shape[-1])
            seen = torch.cat([flat.mean(1), flat.square().mean(1).add(1e-6).sqrt(), e.role.expand(count, -1)], 1)
            pooled.append(self.pool(seen))
        return torch.cat([torch.stack(pooled).mean(0), nodes.mean(1)], 1), states

    def _messages(self, graph: ParameterGraph, states: Sequence[Tensor], nodes: Tensor, r: int) -> Tensor:
        """Mean over the weights and dimensions that touch a node, each the mean over its edges there."""
        found = torch.zeros_like(nodes)
        for state, e in zip(states, graph.edges, strict=True):
            for touch in e.touches:
                others = [d + 1 for d in range(len(e.shape)) if d != touch.dim]
                along = state.mean(others) if others else state
                along = along if touch.at is None else along[:, touch.at]
                number = torch.bincount(touch.nodes, minlength=nodes.shape[1])[touch.nodes].to(along)
                sent = self.to_node[r * SIDES + touch.side](along) / number[:, None]
                found = found.index_add(1, touch.nodes, sent)
        return found / graph.touched.clamp(min=1)[:, None]

    def _context(self, e: Edges, nodes: Tensor, everywhere: Tensor, r: int) -> Tensor:
        """What the nodes that an edge touches, and all nodes together, tell it."""
        rank = len(e.shape)
        found = everywhere.reshape(len(nodes), *[1] * rank, -1)
        for touch in e.touches:
            told = self.to_edge[r * SIDES + touch.side](nodes[:, touch.nodes])
            if touch.at is not None:
                told = told.new_zeros(len(nodes), e.shape[touch.dim], told.shape[-1]).index_copy(1, touch.at, told)
            shape = [len(nodes), *[1] * rank, told.shape[-1]]
            shape[touch.dim + 1] = e.shape[touch.dim]
            found = found + told.reshape(shape)
        return found


def _standardised(graph: ParameterGraph, x: Tensor) -> Tensor:
    """[nets, nodes, F] with mean 0 and deviation 1 within each class of nodes: means over many edges differ little."""

    def mean(of: Tensor) -> Tensor:
        total = of.new_zeros(len(of), len(graph.sizes), of.shape[-1]).index_add(1, graph.kind, of)
        return (total / graph.sizes[:, None])[:, graph.kind]

    x = x - mean(x)
    return x / (mean(x.square()) + 1e-6).sqrt()


def _features(w: Tensor, e: Edges) -> Tensor:
    """What an edge knows at first: its value on several scales, times the root of the fan-in; its role; its place."""
    v = w.float() * e.scale
    values = torch.stack([v, v.tanh(), v.sign() * v.abs().sqrt(), (v.abs() + 1e-3).log() / 4], -1)
    shape = (*w.shape, -1)
    return torch.cat([values, e.role.expand(shape), e.place.expand(shape)], -1)


@dataclass(frozen=True, eq=False)
class State:
    """A trained metanetwork: its size, its weights, and mean and deviation of the targets."""

    width: int
    rounds: int
    weights: Mapping[str, Tensor]
    mean: float
    deviation: float


def _module(state: State | None, width: int, rounds: int, seed: int) -> Metanetwork:
    if width < 1 or rounds < 1:
        raise ArchwrightError(f"got width={width} and rounds={rounds}, expected at least 1 of each")
    with seeds.forked(seeds.derive(seed, "gmn")):
        module = Metanetwork(state.width, state.rounds) if state is not None else Metanetwork(width, rounds)
    if state is not None:
        module.load_state_dict(dict(state.weights))
    return module


class _Group(NamedTuple):
    """Nets of one architecture: where they stand in the sequence, their parameter graph, their weights stacked."""

    places: list[int]
    graph: ParameterGraph
    names: list[list[str]]
    weights: list[Tensor]


def _groups(nets: Sequence[Net]) -> list[_Group]:
    """The nets by architecture. Those of one key may differ in names: weights go by the order of the walk."""
    by_key: dict[str, list[int]] = {}
    for place, net in enumerate(nets):
        by_key.setdefault(net.graph.key(), []).append(place)
    found = []
    for places in by_key.values():
        graph = parameter_graph(nets[places[0]].graph)
        names = []
        for place in places:
            own = nets[place].graph
            same = own is nets[places[0]].graph
            names.append([e.name for e in graph.edges] if same else [e.name for e in parameter_graph(own).edges])
        stacks = [
            torch.stack([nets[place].weights[mine[i]].detach() for place, mine in zip(places, names, strict=True)])
            for i in range(len(graph.edges))
        ]
        found.append(_Group(places, graph, names, stacks))
    return found


BATCH = 64
"""Nets that are read at once."""


def _codes(module: Metanetwork, nets: Sequence[Net]) -> Tensor:
    rows: dict[int, Tensor] = {}
    with torch.no_grad():
        for group in _groups(nets):
            for low in range(0, len(group.places), BATCH):
                codes, _ = module(group.graph, [w[low : low + BATCH] for w in group.weights])
                rows.update(zip(group.places[low : low + BATCH], codes, strict=True))
    return torch.stack([rows[place] for place in range(len(nets))])


# ------------------------------------------------------------------------------------------------------------ the part
def encode(
    nets: Sequence[Net], *, state: State | None = None, width: int = 16, rounds: int = 2, seed: int = 0
) -> Tensor:
    """Codes [nets, 2 width]: of a trained metanetwork, or of one with fresh weights drawn from `seed`.

    Raises `ArchwrightError` for a net without weights.
    """
    return _codes(_module(state, width, rounds, seed), nets)


def predict(nets: Sequence[Net], *, state: State) -> Tensor:
    """What a trained metanetwork says of nets, [nets], in the units of the targets."""
    module = _module(state, state.width, state.rounds, 0)
    with torch.no_grad():
        said: Tensor = module.head(_codes(module, nets))[:, 0]
    return said * state.deviation + state.mean


def edit(
    nets: Sequence[Net],
    *,
    state: State | None = None,
    size: float = 0.1,
    width: int = 16,
    rounds: int = 2,
    seed: int = 0,
) -> tuple[Net, ...]:
    """Nets of the same graphs, weights moved by what their edges say, times `size` and their root mean square."""
    module = _module(state, width, rounds, seed)
    made: dict[int, Net] = {}
    with torch.no_grad():
        for group in _groups(nets):
            _, states = module(group.graph, group.weights)
            moves = [module.out(s)[..., 0] for s in states]
            for row, (place, names) in enumerate(zip(group.places, group.names, strict=True)):
                weights = dict(nets[place].weights)
                for e, name, move in zip(group.graph.edges, names, moves, strict=True):
                    if e.trained:
                        old = weights[name].detach()
                        weights[name] = old + size * float(old.square().mean().sqrt()) * move[row].to(old)
                made[place] = Net(nets[place].graph, weights)
    return tuple([made[place] for place in range(len(nets))])


def fit(
    nets: Sequence[Net],
    targets: Tensor,
    budget: Budget,
    rng: np.random.Generator,
    *,
    width: int = 16,
    rounds: int = 2,
    lr: float = 5e-3,
    batch_size: int = 32,
) -> State:
    """A metanetwork trained to give a number for each net, by squared error. One step is one minibatch of one
    architecture. Raises `ArchwrightError` if there are not as many targets as nets, or one is not finite."""
    targets = torch.as_tensor(targets).detach().float().reshape(-1)
    if len(targets) != len(nets) or not bool(torch.isfinite(targets).all()):
        raise ArchwrightError(f"got {len(targets)} targets for {len(nets)} nets, expected a finite number for each")
    mean, deviation = float(targets.mean()), max(float(targets.std(correction=0)), 1e-8)
    wanted = (targets - mean) / deviation
    module = _module(None, width, rounds, seeds.draw(rng))
    optimiser = torch.optim.AdamW(module.parameters(), lr=lr, weight_decay=1e-3)
    groups = _groups(nets)
    turns: list[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]] = []
    clock, step = budget.start(), 0
    per_epoch = sum(-(-len(group.places) // batch_size) for group in groups)
    with torch.enable_grad():
        while not clock.spent(step, step / per_epoch):
            if not turns:
                for number, group in enumerate(groups):
                    order = rng.permutation(len(group.places))
                    turns += [(number, order[low : low + batch_size]) for low in range(0, len(order), batch_size)]
                turns = [turns[i] for i in rng.permutation(len(turns))]
            number, rows = turns.pop()
            group, index = groups[number], torch.from_numpy(rows)
            rate = 0.5 * (1 + math.cos(math.pi * clock.share(step, step / per_epoch)))
            for entry in optimiser.param_groups:
                entry["lr"] = lr * rate
            codes, _ = module(group.graph, [w[index] for w in group.weights])
            y = wanted[torch.tensor(group.places)[index]]
            loss = F.smooth_l1_loss(module.head(codes)[:, 0], y)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            step += 1
    return State(width, rounds, {k: v.detach().clone() for k, v in module.state_dict().items()}, mean, deviation)


# --------------------------------------------------------------------------------------------------------------- claim
def small_nets() -> tuple[Graph, ...]:
    """A convolutional network with a residual and batch norm, and a perceptron, for 8 x 8 images of ten classes."""
    g = ops.edit()
    x = g.add("conv", g.input("x", (None, 1, 8, 8)), out=6, kernel=3, stride=2, padding=1, name="stem")
    x = g.add("relu", g.add("batch_norm", x, name="norm"))
    y = g.add("relu", g.add("conv", x, out=6, kernel=3, padding=1, name="inner"))
    x = g.add("mean", g.add("relu", g.add("add", x, y)), dim=[2, 3])
    one = g.finish(g.add("linear", x, out=10, name="head"))
    g = ops.edit()
    x = g.add("flatten", g.input("x", (None, 1, 8, 8)))
    for i, width in enumerate((8, 8)):
        x = g.add("relu", g.add("linear", x, out=width, name=f"hidden{i}"))
    return one, g.finish(g.add("linear", x, out=10, name="head"))


def collection(each: int, steps: int, seed: int) -> tuple[list[Net], list[float]]:
    """Nets trained on digits and their test accuracy in percent: rate, start, decay and share of the data drawn for
    each. All nets of an architecture train at once."""
    from archwright.data.builtin import builtin
    from archwright.net.batch import batch

    data = builtin("digits", seed)
    (x,), y = data.tensors("train")
    (held,), truth = data.tensors("test")
    nets: list[Net] = []
    accuracy: list[float] = []
    for number, graph in enumerate(small_nets()):
        rng = seeds.rng(seed, "collection", number)
        made = []
        for i in range(each):
            net, scale = init(graph, seeds.derive(seed, number, i)), float(np.exp(rng.uniform(-1.0, 1.0)))
            made.append(Net(graph, {k: w * scale if w.dim() > 1 else w for k, w in net.weights.items()}))
        stack = batch(made)
        optimiser = stack.optimizer(
            torch.optim.AdamW,
            lr=[float(10 ** rng.uniform(-3, -1)) for _ in made],
            weight_decay=[float(10 ** rng.uniform(-4, 0)) for _ in made],
        )
        pools = [rng.permutation(len(y))[: int(len(y) * 10 ** rng.uniform(-1.5, 0))] for _ in made]
        with seeds.forked(seeds.derive(seed, "noise", number)):
            for _ in range(steps):
                rows = np.stack([pool[rng.integers(0, len(pool), 16)] for pool in pools])
                stack.step(optimiser, F.cross_entropy, x, y, rows=torch.from_numpy(rows))
            with torch.no_grad():
                right = (stack.eval()(held).argmax(-1) == truth).float().mean(1)
        nets += stack.nets()
        accuracy += (100 * right).tolist()
    return nets, accuracy


def _statistics(net: Net) -> list[float]:
    """Mean, deviation and extremes of each weight: what is compared with."""
    found: list[float] = []
    for w in net.weights.values():
        if w.is_floating_point():
            found += [float(w.mean()), float(w.std(correction=0)), float(w.min()), float(w.max())]
    return found


def claim(*, seed: int = 0) -> Claim:
    """192 nets of each architecture, a quarter held out; beside it, ridge regression on statistics of the weights."""
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import StandardScaler

    from archwright.kit.ranks import kendall

    each = 192
    nets, accuracy = collection(each, 120, seed)
    order = seeds.rng(seed, "held out").permutation(len(nets))
    test, train = order[: len(nets) // 4], order[len(nets) // 4 :]
    state = fit(
        [nets[i] for i in train], torch.tensor([accuracy[i] for i in train]), Budget(steps=300), seeds.rng(seed, "fit")
    )
    said, truth = predict([nets[i] for i in test], state=state).numpy(), np.asarray(accuracy)[test]
    taus, plain, guess = [kendall(said, truth)], [], np.zeros(len(test))
    for low in (0, each):
        mine = (test >= low) & (test < low + each)
        taus.append(kendall(said[mine], truth[mine]))
        rows = np.array([_statistics(nets[i]) for i in range(low, low + each)])
        known = train[(train >= low) & (train < low + each)]
        scaler = StandardScaler().fit(rows[known - low])
        ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(scaler.transform(rows[known - low]), np.asarray(accuracy)[known])
        guess[mine] = ridge.predict(scaler.transform(rows[test[mine] - low]))
        plain.append(kendall(guess[mine], truth[mine]))
    tied = axes(nets[0])
    rng = seeds.rng(seed, "orders")
    turned = tied.permute(nets[0], {a.number: rng.permutation(a.size).tolist() for a in tied.free})
    code = encode([nets[0], turned], state=state)
    moved = float((code[0] - code[1]).abs().max() / code.abs().max())
    return Claim(
        taus[0], "tau", "above 0.6, codes invariant to 1e-5", taus[0] > 0.6 and moved < 1e-5,
        "above all that it is compared with",
        {
            "tau, convolutional": taus[1], "tau, perceptrons": taus[2], "tau of statistics, convolutional": plain[0],
            "tau of statistics, perceptrons": plain[1], "tau of statistics, both": kendall(guess, truth),
            "deviation of accuracy (points)": float(truth.std()),
            "change of the code when units are permuted (relative)": moved,
        },
        (
            "Ridge regression on statistics of the weights, one for each architecture, does about as well on nets so "
            "small; one metanetwork reads both architectures.",
            "Without the standardised messages and with torch's own start of linear layers: tau 0.700.",
        ),
    )  # fmt: skip
