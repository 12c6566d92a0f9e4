"""`Batch`: what happens to each net is what happens to it alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archwright import batch, build, edit, init
from archwright.errors import GraphError, TypeMismatch, WeightsError
from archwright.ir import Graph, rename
from archwright.net.batch import Batch
from archwright.net.build import to_net
from archwright.net.net import Net, example
from archwright.ops import Op, registry
from archwright.ops.base import same_type
from tests.net import graphs

torch.set_num_threads(1)
CLASSES = {"mlp": 5, "cnn": 5, "transformer": 3}
every = pytest.mark.parametrize("name", CLASSES)
N, ROWS, STEPS, SIZE = 4, 64, 20, 16


def task(graph: Graph, classes: int) -> tuple[Tensor, Tensor]:
    (x,) = example(graph, ROWS, seed=5)
    return x, torch.randint(0, classes, (ROWS,), generator=torch.Generator().manual_seed(6))


def orders(n: int, steps: int = STEPS) -> list[Tensor]:
    """For each step the rows that each net sees, [n, SIZE]."""
    generator = torch.Generator().manual_seed(7)
    return [torch.stack([torch.randperm(ROWS, generator=generator)[:SIZE] for _ in range(n)]) for _ in range(steps)]


def alone(net: Net, kind, settings: dict, loss, x: Tensor, y: Tensor, rows: list[Tensor]) -> tuple[Net, Tensor]:
    """One net trained in the plain way: the trained net, and its losses."""
    module = build(net)
    optimizer = kind(module.parameters(), **settings)
    losses = []
    for chosen in rows:
        optimizer.zero_grad()
        value = loss(module(x[chosen]), y[chosen])
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return to_net(module), torch.stack(losses)


def agree(found: Net, wanted: Net, rtol: float = 1e-3, atol: float = 1e-4) -> None:
    assert list(found.weights) == list(wanted.weights)
    for name, tensor in wanted.weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(found.weights[name], tensor, rtol=rtol, atol=atol)
        else:
            assert torch.equal(found.weights[name], tensor), name


# ------------------------------------------------------------------------------------------------------------- the same
@every
def test_trains_like_one_by_one(name: str) -> None:
    graph = graphs.ALL[name]()
    nets = [init(graph, seed) for seed in range(N)]
    x, y = task(graph, CLASSES[name])
    rows, settings = orders(N), {"lr": 0.02, "momentum": 0.9}
    together = batch(nets)
    assert together.fallback is None
    optimizer = together.optimizer(torch.optim.SGD, **settings)
    losses = torch.stack([together.step(optimizer, F.cross_entropy, x, y, rows=chosen) for chosen in rows])
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        wanted, own = alone(net, torch.optim.SGD, settings, F.cross_entropy, x, y, [chosen[i] for chosen in rows])
        torch.testing.assert_close(losses[:, i], own, rtol=1e-3, atol=1e-5)
        agree(trained, wanted)


@every
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adadelta, torch.optim.NAdam])
def test_trains_like_one_by_one_in_double_precision(name: str, kind) -> None:
    # adaptive optimisers amplify rounding until units switch on and off: in double precision that takes longer
    graph = graphs.ALL[name]()
    nets = [double(init(graph, seed)) for seed in range(N)]
    x, y = task(graph, CLASSES[name])
    x = x.double() if x.is_floating_point() else x
    rows, settings = orders(N), {"lr": 1e-3}
    together = batch(nets)
    assert together.fallback is None
    optimizer = together.optimizer(kind, **settings)
    losses = torch.stack([together.step(optimizer, F.cross_entropy, x, y, rows=chosen) for chosen in rows])
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        wanted, own = alone(net, kind, settings, F.cross_entropy, x, y, [chosen[i] for chosen in rows])
        torch.testing.assert_close(losses[:, i], own, rtol=1e-9, atol=1e-9)
        agree(trained, wanted, rtol=1e-6, atol=1e-7)


def double(net: Net) -> Net:
    return Net(net.graph, {name: t.double() if t.is_floating_point() else t for name, t in net.weights.items()})


def test_settings_of_each_net() -> None:
    graph = graphs.mlp()
    nets = [init(graph, seed) for seed in range(N)]
    x, y = task(graph, 5)
    rows = orders(N)
    rates, decays = [0.1, 0.01, 0.1, 0.03], [0.0, 0.1, 0.0, 0.01]
    together = batch(nets)
    optimizer = together.optimizer(torch.optim.SGD, lr=rates, weight_decay=decays, momentum=0.5, nesterov=True)
    assert [group["nets"] for group in optimizer.param_groups] == [(0, 2), (1,), (3,)]
    for chosen in rows:
        together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        settings = {"lr": rates[i], "weight_decay": decays[i], "momentum": 0.5, "nesterov": True}
        agree(trained, alone(net, torch.optim.SGD, settings, F.cross_entropy, x, y, [c[i] for c in rows])[0])


class Normed(torch.optim.Optimizer):
    """An optimiser that isn't elementwise: every tensor moves by lr, along its normalised gradient."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad / (p.grad.norm() + 1e-6))


def test_any_optimiser_sees_each_net_alone() -> None:
    graph = graphs.mlp()
    nets = [init(graph, seed) for seed in range(N)]
    x, y = task(graph, 5)
    rows = orders(N)
    together = batch(nets)
    optimizer = together.optimizer(Normed, lr=[0.02, 0.01, 0.02, 0.05])
    for chosen in rows:
        together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        settings = {"lr": [0.02, 0.01, 0.02, 0.05][i]}
        agree(trained, alone(net, Normed, settings, F.cross_entropy, x, y, [c[i] for c in rows])[0])


def test_gradients_can_be_clipped_for_each_net() -> None:
    graph = graphs.mlp()
    nets = [init(graph, seed) for seed in range(2)]
    x, y = task(graph, 5)
    together = batch(nets)
    together.backward(F.cross_entropy, x, y)
    before = [torch.nn.utils.get_total_norm([p.grad for p in together.parameters(i)]) for i in range(2)]
    torch.nn.utils.clip_grad_norm_(together.parameters(0), 0.01)
    after = [torch.nn.utils.get_total_norm([p.grad for p in together.parameters(i)]) for i in range(2)]
    assert float(after[0]) == pytest.approx(0.01, rel=1e-3) and after[1] == before[1]


def test_a_net_that_diverges_does_not_touch_the_others() -> None:
    graph = graphs.mlp()
    nets = [init(graph, seed) for seed in range(3)]
    x, y = task(graph, 5)
    rows = orders(3)
    together = batch(nets)
    optimizer = together.optimizer(torch.optim.SGD, lr=[0.05, math.inf, 0.05])
    for chosen in rows:
        losses = together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    assert torch.isfinite(losses).tolist() == [True, False, True]
    for i in (0, 2):
        wanted, _ = alone(nets[i], torch.optim.SGD, {"lr": 0.05}, F.cross_entropy, x, y, [c[i] for c in rows])
        agree(together.nets()[i], wanted)


def test_learning_rate_schedulers_take_the_optimiser() -> None:
    together = batch([init(graphs.mlp(), seed) for seed in range(2)])
    optimizer = together.optimizer(torch.optim.AdamW, lr=[0.1, 0.2])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    together.step(optimizer, F.cross_entropy, *task(together.graph, 5))
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]


# -------------------------------------------------------------------------------------------------------------- running
@every
@pytest.mark.parametrize("train", [False, True])
def test_forward_shared_and_for_each(name: str, train: bool) -> None:
    graph = graphs.ALL[name]()
    nets = [init(graph, seed) for seed in range(N)]
    modules = [build(net).train(train) for net in nets]
    together = batch(nets).train(train)
    parts = torch.stack([example(graph, 6, seed)[0] for seed in range(N)])
    for shared, x in ((True, parts[0]), (False, parts)):
        found = together(x)
        wanted = torch.stack([module(x if shared else x[i]) for i, module in enumerate(modules)])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for trained, module in zip(together.nets(), modules, strict=True):
        agree(trained, to_net(module))


def test_several_inputs_and_outputs() -> None:
    graph = graphs.several()
    nets = [init(graph, seed) for seed in range(3)]
    together = batch(nets)
    x, y = torch.randn(3, 5, 8), torch.randn(5, 8)
    found = together(x, y)
    assert [tuple(part.shape) for part in found] == [(3, 5, 2), (3, 5, 2), (3, 5, 2), (3, 5, 8)]
    for i, net in enumerate(nets):
        for part, wanted in zip(found, build(net)(x[i], y), strict=True):
            torch.testing.assert_close(part[i], wanted)

    def loss(outputs: tuple[Tensor, ...], target: dict[str, Tensor]) -> Tensor:
        return F.mse_loss(outputs[1], target["product"])

    target = {"product": torch.randn(5, 2)}
    optimizer = together.optimizer(torch.optim.SGD, lr=0.1)
    shared = torch.randn(5, 8)
    losses = together.step(optimizer, loss, (shared, y), target)
    wanted = torch.stack([loss(build(net)(shared, y), target) for net in nets])
    torch.testing.assert_close(losses, wanted.detach())


def test_dropout_differs_between_nets() -> None:
    net = init(graphs.mlp(dropout=0.5))
    together = batch([net, net])
    x = example(net.graph, 8)[0]
    first, second = together.eval()(x)
    assert torch.allclose(first, second)
    first, second = together.train()(x)
    assert not torch.allclose(first, second)
    torch.manual_seed(1)
    one = together(x)
    torch.manual_seed(1)
    assert torch.equal(together(x), one)


def test_counts_of_batch_norm() -> None:
    together = batch([init(graphs.mlp(), seed) for seed in range(3)])
    x = example(together.graph, 8)[0]
    for _ in range(4):
        together(x)
    together.eval()(x)
    counts = [int(net.weights["layers.1.norm.num_batches_tracked"]) for net in together.nets()]
    assert counts == [4, 4, 4]


def test_making_a_batch_changes_nothing() -> None:
    nets = [init(graphs.cnn(), seed) for seed in range(2)]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    together = batch(nets)
    assert torch.equal(torch.get_rng_state(), state)
    for net, same in zip(nets, together.nets(), strict=True):
        agree(same, net, rtol=0, atol=0)
        assert all(same.weights[name].data_ptr() != tensor.data_ptr() for name, tensor in net.weights.items())


def test_names_may_differ() -> None:
    graph = graphs.transformer()
    other = rename(graph, {node.name: f"{index}.other" for index, node in enumerate(graph.nodes)})
    # and the order of nodes that don't depend on one another
    nodes = list(other.nodes)
    place = next(i for i, node in enumerate(nodes) if node.op == "param")
    other = Graph((nodes[place], *nodes[:place], *nodes[place + 1 :]), other.outputs)
    nets = [init(graph, 0), init(other, 1)]
    x, y = task(graph, 3)
    rows = orders(2, steps=3)
    together = batch(nets)
    optimizer = together.optimizer(torch.optim.SGD, lr=0.05)
    for chosen in rows:
        together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        assert trained.graph is net.graph
        agree(trained, alone(net, torch.optim.SGD, {"lr": 0.05}, F.cross_entropy, x, y, [c[i] for c in rows])[0])


def test_branches_not_taken_stay_as_they_are() -> None:
    graph = graphs.branches()
    nets = [init(graph, seed) for seed in range(2)]
    together = batch(nets)
    optimizer = together.optimizer(torch.optim.AdamW, lr=0.1, weight_decay=0.5)
    together.step(optimizer, F.mse_loss, torch.randn(5, 4), torch.randn(5, 4))
    for net, trained in zip(nets, together.nets(), strict=True):
        changed = {name.split(".")[0] for name, t in trained.weights.items() if not torch.equal(t, net.weights[name])}
        assert changed == {"way1"}


def test_one_net() -> None:
    graph = graphs.mlp()
    net = init(graph)
    x, y = task(graph, 5)
    rows = orders(1, steps=3)
    together = batch([net])
    optimizer = together.optimizer(torch.optim.SGD, lr=[0.1])
    for chosen in rows:
        together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    agree(together.nets()[0], alone(net, torch.optim.SGD, {"lr": 0.1}, F.cross_entropy, x, y, [c[0] for c in rows])[0])


# ------------------------------------------------------------------------------------------------------------- fallback
def forced(nets: list[Net], monkeypatch: pytest.MonkeyPatch) -> Batch:
    """A batch that believes that it cannot run at once."""
    monkeypatch.setattr(Batch, "_why_not", lambda self: "for the test")
    with pytest.warns(UserWarning, match="one after another: for the test"):
        return batch(nets)


@every
def test_one_after_another_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graphs.ALL[name]()
    nets = [init(graph, seed) for seed in range(N)]
    x, y = task(graph, CLASSES[name])
    rows = orders(N, steps=5)
    together = forced(nets, monkeypatch)
    assert together.fallback == "for the test" and "one after another" in repr(together)
    settings = {"lr": [0.1, 0.01, 0.05, 0.1], "momentum": 0.9}
    optimizer = together.optimizer(torch.optim.SGD, **settings)
    losses = torch.stack([together.step(optimizer, F.cross_entropy, x, y, rows=chosen) for chosen in rows])
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        own = {"lr": settings["lr"][i], "momentum": 0.9}
        wanted, values = alone(net, torch.optim.SGD, own, F.cross_entropy, x, y, [c[i] for c in rows])
        torch.testing.assert_close(losses[:, i], values)
        agree(trained, wanted)
    found = together.eval()(x)
    torch.testing.assert_close(found[1], build(together.nets()[1]).eval()(x))


def test_an_op_that_cannot_be_batched_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(a, x, w, train):
        return x[0] / x[0].detach().abs().max().item()  # reads a number, which vmap forbids

    monkeypatch.setitem(registry.table(), "rescale", Op("rescale", same_type, run, {}))
    g = edit()
    x = g.input("x", (None, 12))
    x = g.add("rescale", g.add("linear", x, out=8, name="fc"), name="scaled")
    graph = g.finish(g.add("linear", x, out=5, name="head"))
    nets = [init(graph, seed) for seed in range(2)]
    with pytest.warns(UserWarning, match=r"one after another: .* in node 'scaled'"):
        together = batch(nets)
    assert together.fallback is not None and "'scaled'" in together.fallback
    x, y = task(together.graph, 5)
    rows = orders(2, steps=3)
    optimizer = together.optimizer(torch.optim.SGD, lr=0.1)
    for chosen in rows:
        together.step(optimizer, F.cross_entropy, x, y, rows=chosen)
    wanted, _ = alone(nets[1], torch.optim.SGD, {"lr": 0.1}, F.cross_entropy, x, y, [c[1] for c in rows])
    agree(together.nets()[1], wanted)


def test_a_loss_that_cannot_be_batched() -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target) * (2.0 if output.sum().item() > -1e9 else 1.0)

    graph = graphs.mlp()
    nets = [init(graph, seed) for seed in range(2)]
    x, y = task(graph, 5)
    rows = orders(2, steps=3)
    together = batch(nets)
    optimizer = together.optimizer(torch.optim.SGD, lr=0.1)
    for chosen in rows:
        together.step(optimizer, loss, x, y, rows=chosen)
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        agree(trained, alone(net, torch.optim.SGD, {"lr": 0.1}, loss, x, y, [c[i] for c in rows])[0])


# ------------------------------------------------------------------------------------------------------------ bad input
def test_nets_of_different_architecture() -> None:
    with pytest.raises(GraphError, match="different architecture"):
        batch([init(graphs.mlp()), init(graphs.mlp(width=8))])
    with pytest.raises(GraphError, match="no nets"):
        batch([])


def test_nets_of_different_dtype() -> None:
    net = init(graphs.mlp())
    half = Net(net.graph, {n: t.half() if t.is_floating_point() else t for n, t in net.weights.items()})
    with pytest.raises(WeightsError, match="same in all nets"):
        batch([net, half])


def test_wrong_sizes() -> None:
    together = batch([init(graphs.mlp(), seed) for seed in range(3)])
    x, y = task(together.graph, 5)
    with pytest.raises(TypeMismatch, match="each of 3 nets"):
        together(torch.randn(2, 8, 12))
    with pytest.raises(TypeMismatch, match="input 'x'"):
        together(torch.randn(8, 13))
    with pytest.raises(TypeMismatch, match="each of 3 nets"):
        together.optimizer(torch.optim.SGD, lr=[0.1, 0.2])
    with pytest.raises(TypeMismatch, match="expected 3"):
        together.backward(F.cross_entropy, x, y, rows=torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(TypeMismatch, match="that all nets share"):
        together.backward(F.cross_entropy, torch.randn(3, 8, 12), y, rows=torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(TypeMismatch, match="expected a single number"):
        together.backward(lambda output, target: output, x, y)
    with pytest.raises(TypeError):
        together.optimizer(torch.optim.SGD, lr=0.1, unknown=3)


def test_settings_are_the_class_own() -> None:
    together = batch([init(graphs.mlp(), seed) for seed in range(2)])
    assert together.optimizer(torch.optim.Adam, betas=(0.5, 0.9)).param_groups[0]["betas"] == (0.5, 0.9)
    assert together.optimizer(torch.optim.Adam).param_groups[0]["fused"] is True
    assert together.optimizer(torch.optim.Adam, fused=False).param_groups[0]["fused"] is False
    assert not together.optimizer(torch.optim.Adam, foreach=True).param_groups[0]["fused"]
    assert "fused" not in together.optimizer(torch.optim.RMSprop).param_groups[0]
    assert copy.copy(together.parameters(0))[0].is_leaf


def test_modes_and_buffers_that_training_changes() -> None:
    graph = graphs.modes()
    nets = [init(graph, seed) for seed in range(3)]
    x, y = torch.randn(ROWS, 8), torch.rand(ROWS, 8)
    rows = orders(3, steps=5)
    together = batch(nets)
    assert together.fallback is None
    optimizer = together.optimizer(torch.optim.AdamW, lr=0.01, weight_decay=0.5)
    for chosen in rows:
        together.step(optimizer, F.mse_loss, x, y, rows=chosen)
    settings = {"lr": 0.01, "weight_decay": 0.5}
    for i, (net, trained) in enumerate(zip(nets, together.nets(), strict=True)):
        wanted, _ = alone(net, torch.optim.AdamW, settings, F.mse_loss, x, y, [chosen[i] for chosen in rows])
        agree(trained, wanted)
        assert torch.equal(trained.weights["cold.weight"], net.weights["cold.weight"])  # training does not run it
        assert not torch.equal(trained.weights["state"], net.weights["state"])
