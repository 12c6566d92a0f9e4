"""What the graph, its module and its batches cost, against stated targets: python benchmarks/graph.py [--json]

Everything runs on one thread; what is measured is its own time (that of the processes started, in the last two rows),
which on an idle machine is the time that passes. A figure is a median. Where two things are compared they take turns,
so that what else the machine does hits both alike, and the figure is the ratio of their medians. "cold" means that
nothing is remembered: a fresh graph, and no facts of ops known from before.

glibc gives large freed blocks back to the system and has to fetch them again page by page, which for activations of a
megabyte takes longer than computing them, and strikes one module or the other as their blocks happen to lie. So the
script starts itself anew with glibc told to keep them.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import archwright as aw
from archwright import ops
from archwright.ir import Attrs, Graph, Node
from archwright.net import cost as costs
from archwright.net.net import example
from archwright.ops import engine

SETTINGS = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": str(1 << 32), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
"""Of the environment, read when a process starts."""

clock = time.thread_time


class Row(NamedTuple):
    """A figure and what it should be: at most `target` if `most`, else at least."""

    name: str
    figure: float
    unit: str
    target: float
    most: bool = True

    @property
    def held(self) -> bool:
        return self.figure <= self.target if self.most else self.figure >= self.target


def median(run: Callable[[], Any], times: int) -> float:
    """Median seconds of a call. The garbage collector runs between the calls, not within them."""
    run()
    found = []
    gc.collect()
    gc.disable()
    for _ in range(times):
        start = clock()
        run()
        found.append(clock() - start)
    gc.enable()
    return statistics.median(found)


def against(one: Callable[[], Any], other: Callable[[], Any], seconds: float, block: int = 1) -> tuple[float, float]:
    """Median seconds of both, taking turns in blocks of calls for so many seconds in all."""
    for _ in range(3):
        one(), other()
    found: tuple[list[float], list[float]] = ([], [])
    gc.collect()
    gc.disable()
    end = time.perf_counter() + seconds
    turn = 0
    while time.perf_counter() < end or len(found[0]) < 5:
        pair = (0, 1) if turn % 2 == 0 else (1, 0)  # neither always comes first
        for which in pair:
            run = one if which == 0 else other
            start = clock()
            for _ in range(block):
                run()
            found[which].append((clock() - start) / block)
        turn += 1
    gc.enable()
    return statistics.median(found[0]), statistics.median(found[1])


# -------------------------------------------------------------------------------------------------------------- graphs
def forget() -> None:
    """Nothing is remembered of any op."""
    engine._MEMO.clear()
    costs._TRIED.clear()


def thousand() -> Graph:
    """A residual convolutional network of 1,000 nodes: widths, kernels and branches vary from block to block."""
    rng = random.Random(0)
    g = aw.edit()
    x = g.input("image", (None, 3, 32, 32))
    x = g.add("conv", x, out=64, kernel=3, padding=1, bias=False, name="stem.conv")
    x = g.add("relu", g.add("batch_norm", x, name="stem.norm"), name="stem.act")
    for i in range(82):
        with g.scope(f"blocks.{i}"):
            kernel, width = rng.choice((1, 3, 5)), rng.choice((16, 32, 64))
            y = g.add("conv", x, out=width, kernel=1, bias=False, name="reduce")
            y = g.add("relu", g.add("batch_norm", y, name="norm1"), name="act1")
            left = g.add("conv", y, out=width, kernel=kernel, padding=kernel // 2, bias=False, name="left")
            right = g.add("max_pool", y, kernel=3, stride=1, padding=1, name="right")
            y = g.add("concat", left, right, dim=1, name="join")
            y = g.add("silu", g.add("batch_norm", y, name="norm2"), name="act2")
            y = g.add("conv", y, out=64, kernel=1, bias=False, name="expand")
            x = g.add("relu", g.add("add", x, g.add("batch_norm", y, name="norm3"), name="sum"), name="act3")
    for i in range(6):
        x = g.add("gelu", x, name=f"tail.{i}")
    x = g.add("flatten", g.add("adaptive_avg_pool", x, size=1, name="pool"), name="flat")
    graph = g.finish(g.add("linear", x, out=10, name="head"))
    assert 990 <= len(graph) <= 1010, len(graph)
    return graph


def fresh(graph: Graph) -> Graph:
    """The same graph with nothing remembered, down to the text of its attributes."""
    nodes = [Node(n.name, n.op, n.inputs, Attrs(dict(n.attrs)), n.slot) for n in graph.nodes]
    return Graph(tuple(nodes), graph.outputs)


def drawn(rng: random.Random) -> Graph:
    """A random image classifier of 10 to 25 nodes."""
    while True:
        g = aw.edit()
        x = g.input("x", (None, 3, 16, 16))
        values = [x]
        for _ in range(rng.randint(8, 22)):
            if rng.random() < 0.1:
                x = rng.choice(values[-3:])
            shape = g.shape(x)
            kind = rng.choice(("conv", "conv", "norm", "act", "act", "add", "concat", "pool"))
            if kind == "conv":
                kernel = rng.choice((1, 3, 5))
                x = g.add("conv", x, out=rng.choice((8, 16, 24, 32)), kernel=kernel, padding=kernel // 2)
            elif kind == "norm":
                x = g.add("batch_norm", x)
            elif kind == "act":
                x = g.add(rng.choice(("relu", "gelu", "silu", "tanh")), x)
            elif kind == "add":
                x = g.add("add", x, rng.choice([value for value in values if g.shape(value) == shape]))
            elif kind == "concat":
                x = g.add("concat", x, rng.choice([v for v in values if g.shape(v)[2:] == shape[2:]]), dim=1)
            elif shape[2] >= 4:
                x = g.add("max_pool", x, kernel=2)
            values.append(x)
        x = g.add("flatten", g.add("adaptive_avg_pool", x, size=1))
        graph = g.finish(g.add("linear", x, out=10))
        if 10 <= len(graph) <= 25:
            return graph


def graph_rows() -> Iterator[Row]:
    graph = thousand()
    copies = iter([fresh(graph) for _ in range(22)])
    yield Row("key of 1,000 nodes, cold", 1e3 * median(lambda: next(copies).key(), 21), "ms", 3)

    def analysed() -> None:
        forget()
        ops.analyse(cold := Graph(graph.nodes, graph.outputs))
        costs.cost(cold)

    yield Row("types and cost of 1,000 nodes, cold", 1e3 * median(analysed, 21), "ms", 10)
    warm = 1e3 * median(lambda: costs.cost(Graph(graph.nodes, graph.outputs)), 21)
    yield Row("types and cost of 1,000 nodes, warm", warm, "ms", 10)
    yield Row("JSON there and back, 1,000 nodes", 1e3 * median(lambda: Graph.from_json(graph.to_json()), 21), "ms", 20)
    if importlib.util.find_spec("archwright.net.axes") is not None:
        from archwright.net.axes import axes

        yield Row("tied axes of 1,000 nodes", 1e3 * median(lambda: axes(fresh(graph)), 7), "ms", 100)
    forget()
    rng, count = random.Random(0), 10_000
    start = clock()
    for _ in range(count):
        small = drawn(rng)
        small.key()
        costs.cost(small)
    rate = count / (clock() - start)
    yield Row("small graphs drawn, keyed, typed and costed", rate, "/s", 1000, most=False)


# ------------------------------------------------------------------------------------------------- the module, by hand
class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class ResNet(nn.Module):
    def __init__(self, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*[Residual(width) for _ in range(blocks)])
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


def resnet(width: int = 16, blocks: int = 3) -> Graph:
    g = aw.edit()
    x = g.input("x", (None, 3, 16, 16))
    x = g.add("conv", x, out=width, kernel=3, padding=1, bias=False, name="stem")
    x = g.add("relu", g.add("batch_norm", x, name="norm"))
    for i in range(blocks):
        with g.scope(f"blocks.{i}"):
            y = g.add("conv", x, out=width, kernel=3, padding=1, bias=False, name="conv1")
            y = g.add("relu", g.add("batch_norm", y, name="norm1"))
            y = g.add("conv", y, out=width, kernel=3, padding=1, bias=False, name="conv2")
            x = g.add("relu", g.add("add", x, g.add("batch_norm", y, name="norm2")))
    return g.finish(g.add("linear", g.add("mean", x, dim=(2, 3)), out=10, name="head"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self, tokens: int = 16, width: int = 64, heads: int = 4, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(12, width)
        self.position = nn.Parameter(torch.zeros(tokens, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.embed(x) + self.position)
        return self.head(self.norm(x).mean(1))


def transformer(tokens: int = 16, width: int = 64, heads: int = 4, blocks: int = 2) -> Graph:
    g = aw.edit()
    x = g.add("linear", g.input("x", (None, tokens, 12)), out=width, name="embed")
    x = g.add("add", x, g.add("param", shape=(tokens, width), name="position"))
    for i in range(blocks):
        with g.scope(f"blocks.{i}"):
            y = g.add("linear", g.add("layer_norm", x, name="norm1"), out=3 * width, name="qkv")
            y = g.add("reshape", y, shape=(-1, tokens, 3, heads, width // heads))
            q, k, v = g.add("unbind", g.add("permute", y, dims=(2, 0, 3, 1, 4)), dim=0)
            y = g.add("transpose", g.add("attention", q, k, v), dim0=1, dim1=2)
            x = g.add("add", x, g.add("linear", g.add("reshape", y, shape=(-1, tokens, width)), out=width, name="out"))
            y = g.add("linear", g.add("layer_norm", x, name="norm2"), out=4 * width, name="up")
            x = g.add("add", x, g.add("linear", g.add("gelu", y), out=width, name="down"))
    x = g.add("mean", g.add("layer_norm", x, name="norm"), dim=(1,))
    return g.finish(g.add("linear", x, out=10, name="head"))


class MLP(nn.Module):
    def __init__(self, inputs: int = 64, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width) for i in range(layers))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x)


def mlp(inputs: int = 64, width: int = 128, layers: int = 3) -> Graph:
    g = aw.edit()
    x = g.input("x", (None, inputs))
    for i in range(layers):
        x = g.add("relu", g.add("linear", x, out=width, name=f"layers.{i}"))
    return g.finish(g.add("linear", x, out=10, name="head"))


def module_rows(seconds: float) -> Iterator[Row]:
    cases = (("MLP", MLP(), mlp()), ("ResNet", ResNet(), resnet()), ("transformer", Transformer(), transformer()))
    for name, hand, graph in cases:
        built = aw.build(aw.init(graph))
        built.load_state_dict(hand.state_dict())
        for batch, target in ((64, 1.05), (1, 1.3)):
            (x,) = example(graph, batch)
            y = torch.randint(0, 10, (batch,))
            for module in (built, hand):
                module.eval()
            with torch.no_grad():
                assert torch.allclose(built(x), hand(x), atol=1e-5)
                mine, theirs = against(lambda: built(x), lambda: hand(x), seconds)  # noqa: B023
            yield Row(f"{name} built / by hand, batch {batch}, forward", mine / theirs, "x", target)
            if batch == 1 and name == "ResNet":
                x, y = x.repeat(2, 1, 1, 1), y.repeat(2)  # batch norm wants two in training
            steps = [trainer(module.train(), x, y) for module in (built, hand)]
            mine, theirs = against(*steps, seconds)
            yield Row(f"{name} built / by hand, batch {batch}, training step", mine / theirs, "x", target)


def trainer(module: nn.Module, x: Tensor, y: Tensor, kind: Any = torch.optim.SGD) -> Callable[[], None]:
    optimizer = kind(module.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()

    return step


# ------------------------------------------------------------------------------------------------------------- batches
def small_cnn() -> Graph:
    g = aw.edit()
    x = g.input("x", (None, 1, 8, 8))
    for i, (width, stride) in enumerate(((8, 1), (16, 2), (16, 1))):
        x = g.add("conv", x, out=width, kernel=3, padding=1, stride=stride, bias=False, name=f"conv{i}")
        x = g.add("relu", g.add("batch_norm", x, name=f"norm{i}"))
    return g.finish(g.add("linear", g.add("mean", x, dim=(2, 3)), out=10, name="head"))


def batch_rows(seconds: float, nets: int = 64, size: int = 32) -> Iterator[Row]:
    for name, graph, target in (("MLPs", mlp(width=32, layers=2), 4), ("CNNs", small_cnn(), 2)):
        made = [aw.init(graph, seed) for seed in range(nets)]
        (x,) = example(graph, 1000)
        y = torch.randint(0, 10, (1000,))
        rows = torch.stack([torch.randperm(1000)[:size] for _ in range(nets)])
        together = aw.batch(made)
        optimizer = together.optimizer(torch.optim.AdamW, lr=1e-3)
        alone = [trainer(aw.build(net), x[rows[i]], y[rows[i]], torch.optim.AdamW) for i, net in enumerate(made)]

        def at_once(b: Any = together, o: Any = optimizer, x: Tensor = x, y: Tensor = y, r: Tensor = rows) -> None:
            b.step(o, F.cross_entropy, x, y, rows=r)

        def one_by_one(steps: Any = alone) -> None:
            for step in steps:
                step()

        # in blocks: a step of training follows a step of the same training
        mine, theirs = against(at_once, one_by_one, seconds, block=5)
        yield Row(f"{nets} small {name}, batch {size}: one by one / at once", theirs / mine, "x", target, most=False)


# -------------------------------------------------------------------------------------------------------------- starts
def start_rows() -> Iterator[Row]:
    script = "import sys, time; t = time.process_time(); import archwright; print(time.process_time() - t); "
    script += "assert 'torch' not in sys.modules, 'torch was imported'"
    took = [float(subprocess.check_output([sys.executable, "-c", script])) for _ in range(5)]
    yield Row("import archwright (and not torch)", 1e3 * statistics.median(took), "ms", 50)
    if importlib.util.find_spec("archwright.cli") is not None:
        call = [sys.executable, "-c", "from archwright.cli import main; main()", "--help"]
        took = []
        for _ in range(5):
            before = os.times()
            subprocess.run(call, check=False, stdout=subprocess.DEVNULL)
            after = os.times()
            took.append(after.children_user + after.children_system - before.children_user - before.children_system)
        yield Row("archwright --help", 1e3 * statistics.median(took), "ms", 300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each comparison (default 2)")
    parser.add_argument("--only", choices=("graph", "module", "batch", "start"), help="one part alone")
    options = parser.parse_args()
    if any([os.environ.get(name) != value for name, value in SETTINGS.items()]):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **SETTINGS})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "graph": graph_rows,
        "module": lambda: module_rows(options.seconds),
        "batch": lambda: batch_rows(2 * options.seconds),
        "start": start_rows,
    }
    rows = []
    for name, part in parts.items():
        if options.only in (None, name):
            for row in part():
                rows.append(row)
                if not options.json:
                    sign = "<=" if row.most else ">="
                    held = "yes" if row.held else "NO"
                    figure = f"{row.figure:10.0f}" if row.figure >= 1000 else f"{row.figure:10.3g}"
                    print(f"{row.name:<58} {figure} {row.unit:<3} {sign} {row.target:<6g} {held}", flush=True)
    if options.json:
        found = [{**row._asdict(), "held": row.held} for row in rows]
        print(json.dumps({"torch": torch.__version__, "threads": 1, "rows": found}))


if __name__ == "__main__":
    main()
