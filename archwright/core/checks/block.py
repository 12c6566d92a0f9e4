"""What a block is held to, at each of its settings (PART["example"] and its "vary").

Types are what runs, at batch 1, 2 and 3 and for every value inside; every weight gets a gradient; weights and FLOPs are
counted as they are built and run; permuting any free axis changes nothing; several nets run at once under vmap; a
sample's output does not depend on its neighbours in the batch; the key sees no names; ONNX Runtime agrees; saving and
loading gives the same net.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from archwright import ops
from archwright.core import registry
from archwright.core.checks import common
from archwright.core.checks.common import Call, Calls, Checks
from archwright.core.part import Part
from archwright.exchange.onnx import to_onnx
from archwright.ir import INPUT, Graph, output, rename
from archwright.net.axes import axes
from archwright.net.batch import batch
from archwright.net.build import build
from archwright.net.net import Net, init, load

MINIMUM = 70
KEYS = frozenset(("inputs", "hp", "vary", "onnx", "batched", "no_gradient"))

_UNCOUNTED = ("lstm", "gru", "rnn", "lstm_cell", "gru_cell", "rnn_cell", "scan", "opaque")
"""Ops whose FLOPs torch's counter may not see: there ours may be more."""


def settings(part: Part) -> list[dict[str, Any]]:
    """The example, and the example with each of its variations."""
    example = part.example
    first = {key: example.get(key, other) for key, other in (("inputs", []), ("hp", {}), ("no_gradient", []))}
    return [first, *[{**first, **{k: v for k, v in other.items() if k in first}} for other in example.get("vary", [])]]


def graph(part: Part, setting: Mapping[str, Any], *scopes: str, **more: Any) -> Graph:
    """The block alone as a graph, with an input for each of its values; once in each scope that is named."""
    g = ops.edit()
    specs = enumerate(setting["inputs"])
    names = [g.input(f"x{i}", spec["shape"], spec.get("dtype", "float32")) for i, spec in specs]
    outputs: list[str] = []
    for scope in scopes or ("",):
        with g.scope(scope) if scope else contextlib.nullcontext():
            made = registry.entry(part)(g, *names, **{**setting["hp"], **more})
        outputs += made if isinstance(made, (tuple, list)) else (made,)
    return g.finish(*outputs)


def arguments(setting: Mapping[str, Any], size: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random inputs: normal numbers; whole ones below "high" (2 by default)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for spec in setting["inputs"]:
        shape = [size if n is None else n for n in spec["shape"]]
        dtype = getattr(torch, spec.get("dtype", "float32"))
        if dtype.is_floating_point:
            found.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            found.append(torch.randint(0, spec.get("high", 2), shape, generator=generator).to(dtype))
    return tuple(found)


def calls(part: Part) -> Calls:
    """The block built, given random weights, and run."""
    setting = settings(part)[0]

    def run(args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        made = init(graph(part, setting, **{k: v for k, v in kw.items() if k not in setting["hp"]}))
        return made, common.outputs(made, arguments(setting, 3))

    return {"build": Call(registry.entry(part), lambda seed: (), setting["hp"], run)}


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    c.that(len(part.example.get("vary", [])) >= 2, "PART['example']['vary'] needs two settings: another width and size")
    common.every(c, calls(part), KEYS)
    for number, setting in enumerate(settings(part)):
        where = f"setting {number}"
        made = graph(part, setting)
        net = common.rough(init(made, seed=number), seed=number)
        _types(c, where, setting, net)
        _gradients(c, where, setting, net)
        _counts(c, where, setting, net)
        _axes(c, where, setting, net)
        _vmap(c, where, setting, net)
        _names(c, where, part, setting, made)
        _stored(c, where, part, setting, net)
    return c.count


def _types(c: Checks, where: str, setting: Mapping[str, Any], net: Net) -> None:
    known = ops.analyse(net.graph, 2)
    values = [
        output(node.name, i) for node in net.graph.nodes if node.op != INPUT for i in range(len(known[node.name].y))
    ]
    inner = Net(Graph(net.graph.nodes, tuple(values)), net.weights)
    results = {}
    for size in (1, 2, 3):
        x = arguments(setting, size)
        found = common.outputs(inner, x)
        types = ops.infer(net.graph, size)
        wrong = [
            f"'{value}' is {list(t.shape)}, inferred {types[value]}"
            for value, t in zip(values, found, strict=True)
            if tuple(t.shape) != types[value].shape or str(t.dtype) != f"torch.{types[value].dtype}"
        ]
        c.that(not wrong, f"{where}, batch {size}: types are not what runs: {'; '.join(wrong[:3])}")
        results[size] = common.outputs(net, x)
        c.that(common.finite(results[size]), f"{where}, batch {size}: outputs are not finite")
        again = ops.run(net.graph, net.weights, x)
        c.same(results[size], again, f"{where}, batch {size}: the built module computes something else", 1e-4, 1e-6)
    if c.part.example.get("batched", True):
        x = arguments(setting, 3)
        one = [t[1:2] if None in spec["shape"] else t for t, spec in zip(x, setting["inputs"], strict=True)]
        alone = common.outputs(net, one)
        c.same(
            alone, [t[1:2] for t in results[3]],
            f"{where}: a sample's output depends on the batch that it is in (say \"batched\": False if it has to)",
            1e-4, 1e-6,
        )  # fmt: skip


def _gradients(c: Checks, where: str, setting: Mapping[str, Any], net: Net) -> None:
    module = build(net).train()
    from archwright.core import seeds

    with seeds.forked(0), torch.enable_grad():
        found = module(*arguments(setting, 8))
        found = found if isinstance(found, tuple) else (found,)
        generator = torch.Generator().manual_seed(1)
        total = sum((t * torch.randn(t.shape, generator=generator)).sum() for t in found if t.is_floating_point())
        c.that(isinstance(total, Tensor) and (total.requires_grad or not len(list(module.parameters()))),
               f"{where}: no output depends on the weights")  # fmt: skip
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    odd = sorted(set(setting["no_gradient"]) - {name for name, _ in trained})
    c.that(not odd, f"{where}: 'no_gradient' names {odd}, which are no weights")
    dead = [name for name, p in trained if p.grad is None or not p.grad.any()]
    dead = [name for name in dead if name not in setting["no_gradient"]]
    c.that(not dead, f"{where}: no gradient reaches {', '.join(dead[:5])}")
    wild = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    c.that(not wild, f"{where}: gradients of {', '.join(wild[:5])} are not finite")


def _counts(c: Checks, where: str, setting: Mapping[str, Any], net: Net) -> None:
    module = build(net).eval()
    built = sum(p.numel() for p in module.parameters())
    for size in (1, 3):
        cost = net.cost(size)
        c.that(cost.params == built, f"{where}: {cost.params} weights are counted, {built} built")
        # the fused attention of the CPU is none of the operators that torch's counter knows; what it stands for is
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            module(*arguments(setting, size))
        torchs = counter.get_total_flops()
        loose = any(node.op in _UNCOUNTED for node in net.graph.nodes)
        agrees = cost.flops >= torchs if loose else cost.flops == torchs
        c.that(agrees, f"{where}, batch {size}: {cost.flops} FLOPs, torch counts {torchs}")


def _axes(c: Checks, where: str, setting: Mapping[str, Any], net: Net) -> None:
    tied = axes(net)
    x = arguments(setting, 3)
    expected = common.outputs(net, x)
    generator = torch.Generator().manual_seed(2)
    orders = {a.number: torch.randperm(a.size, generator=generator).tolist() for a in tied.free}
    for number, order in list(orders.items())[:12]:
        member = tied.classes[number].members[0]
        found = common.outputs(tied.permute(net, {number: order}), x)
        c.same(found, expected, f"{where}: axes lie: permuting axis {member.weight}[{member.dim}] is seen", 1e-4, 1e-5)
    c.same(common.outputs(tied.permute(net, orders), x), expected, f"{where}: permuting all free axes", 1e-4, 1e-5)


def _vmap(c: Checks, where: str, setting: Mapping[str, Any], net: Net) -> None:
    nets = [net, *[common.rough(net, seed) for seed in (11, 12)]]
    together = batch(nets)
    together.eval()
    x = arguments(setting, 3)
    with torch.no_grad():
        found = together(*x)
    found = found if isinstance(found, tuple) else (found,)
    expected = [torch.stack(ts) for ts in zip(*[common.outputs(n, x) for n in nets], strict=True)]
    at_once = together.fallback is None or not net.weights
    c.that(at_once, f"{where}: does not run under vmap: {together.fallback}")
    c.same(list(found), expected, f"{where}: three nets at once compute something else", 1e-4, 1e-5)


def _names(c: Checks, where: str, part: Part, setting: Mapping[str, Any], made: Graph) -> None:
    c.that(made.key() == graph(part, setting).key(), f"{where}: built twice, the keys differ")
    c.that(made.key() == graph(part, setting, "a").key(), f"{where}: built within a scope, the key differs")
    names = {node.name: f"node{i}" for i, node in enumerate(made.nodes)}
    c.that(made.key() == rename(made, names).key(), f"{where}: the key depends on names")
    twice = graph(part, setting, "a", "b")
    one, two = [sum(math.prod(p.shape) for p in ops.params(g).values()) for g in (made, twice)]
    c.that(two == 2 * one, f"{where}: used twice in one graph, in two scopes, it has {two} weights, expected 2 x {one}")
    c.that(made.key() == Graph.from_json(made.to_json()).key(), f"{where}: JSON gives another graph")


def _stored(c: Checks, where: str, part: Part, setting: Mapping[str, Any], net: Net) -> None:
    with tempfile.TemporaryDirectory() as folder:
        net.save(folder)
        back = load(folder, allow_opaque=True)
        c.same(back, net, f"{where}: saved and loaded, the net differs")
        if part.example.get("onnx", True):
            x: Sequence[Tensor] = arguments(setting, 3)
            try:
                to_onnx(net, Path(folder) / "net.onnx", inputs=x)
            except Exception as error:
                c.that(False, f"{where}: ONNX: {error}")
            c.that((Path(folder) / "net.onnx").exists(), f"{where}: no ONNX file was written")
