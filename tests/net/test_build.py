"""`Built`: the same as the plain interpreter, and all that one does with a torch.nn.Module."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations

from archwright import build, edit, init, ops
from archwright.errors import GraphError, TypeMismatch
from archwright.ir import Graph
from archwright.net.build import Built, to_net
from archwright.net.net import Net, example
from tests.net import graphs
from tests.net.test_cost import Alive

torch.set_num_threads(1)
every = pytest.mark.parametrize("name", graphs.ALL)


def made(name: str, seed: int = 0) -> tuple[Net, tuple[Tensor, ...]]:
    graph = graphs.ALL[name]()
    return init(graph, seed), example(graph, 4)


def listed(outputs) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def same(left, right) -> bool:
    left, right = listed(left), listed(right)
    return len(left) == len(right) and all(map(torch.equal, left, right))


# ------------------------------------------------------------------------------------------------------------ the same
@every
@pytest.mark.parametrize("train", [False, True])
def test_like_the_interpreter(name: str, train: bool) -> None:
    net, inputs = made(name)
    module = build(net).train(train)
    weights = {name: tensor.clone() for name, tensor in net.weights.items()}
    assert same(module(*inputs), ops.run(net.graph, weights, inputs, train))
    # and the same buffers afterwards
    assert all(torch.equal(tensor, weights[key]) for key, tensor in module.state_dict().items())


def test_random_ops_draw_the_same_numbers() -> None:
    net = init(graphs.mlp(dropout=0.5))
    inputs = example(net.graph, 4)
    module = build(net)
    torch.manual_seed(3)
    first = module(*inputs)
    torch.manual_seed(3)
    weights = {name: tensor.clone() for name, tensor in net.weights.items()}
    assert same(first, ops.run(net.graph, weights, inputs, train=True))


@every
def test_state_names_are_weight_names(name: str) -> None:
    net, _ = made(name)
    module = build(net)
    assert set(module.state_dict()) == set(net.weights)
    buffers = {name for name, param in ops.params(net.graph).items() if param.buffer}
    assert {name for name, _ in module.named_buffers()} == buffers
    assert {name for name, t in module.named_parameters() if t.requires_grad} == set(net.weights) - buffers


def test_state_of_a_hand_written_module_fits() -> None:
    class Hand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                nn.ModuleDict({"fc": nn.Linear(inside, 16, bias=False), "norm": nn.BatchNorm1d(16)})
                for inside in (12, 16)
            )
            self.head = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = F.relu(layer["norm"](layer["fc"](x)))
            return self.head(x)

    hand, (net, inputs) = Hand(), made("mlp")
    module = build(net)
    module.load_state_dict(hand.state_dict(), strict=True)
    for train in (True, False):
        assert torch.allclose(module.train(train)(*inputs), hand.train(train)(*inputs))
    assert {name: tuple(t.shape) for name, t in hand.state_dict().items()} == {
        name: tuple(t.shape) for name, t in module.state_dict().items()
    }


# ------------------------------------------------------------------------------------------------------------- weights
def test_weights_are_cloned_both_ways() -> None:
    net, inputs = made("mlp")
    module = build(net)
    before = {name: tensor.clone() for name, tensor in net.weights.items()}
    module(*inputs).sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.weights.items())
    after = to_net(module)
    assert after.graph is net.graph
    assert not torch.equal(after.weights["head.weight"], before["head.weight"])
    assert after.weights["layers.0.norm.num_batches_tracked"] == 1
    held = after.weights["head.weight"].clone()
    with torch.no_grad():
        module.head.weight.zero_()
    assert torch.equal(after.weights["head.weight"], held)


def test_shared_slots_are_one_tensor() -> None:
    net, (x, y) = made("several")
    module = build(net)
    module(x, y)[1].sum().backward()
    weights = {name: tensor.clone().requires_grad_() for name, tensor in net.weights.items()}
    ops.run(net.graph, weights, (x, y))[1].sum().backward()
    assert len(list(module.parameters())) == 2
    assert torch.allclose(module.fc.weight.grad, weights["fc.weight"].grad)


def test_one_slot_two_sets_of_parameters() -> None:
    """A node without bias beside one with: each reads what it has to, though the module holds both."""
    g = edit()
    x = g.input("x", (None, 4))
    y = g.add("linear", x, out=4, name="a")
    net = init(g.finish(g.add("linear", y, out=4, bias=False, name="b", slot="a")))
    x = torch.randn(3, 4)
    assert torch.equal(build(net)(x), ops.run(net.graph, net.weights, (x,))[0])


def test_frozen_normalisation() -> None:
    net, inputs = made("mlp")
    module = build(net)
    module.layers.get_submodule("0").norm.eval()
    module(*inputs)
    counts = [int(module.state_dict()[f"layers.{i}.norm.num_batches_tracked"]) for i in range(2)]
    assert counts == [0, 1]


def test_parametrised_weights_are_used() -> None:
    net, inputs = made("mlp")
    module = build(net).eval()
    before = module(*inputs)
    parametrizations.weight_norm(module.head, "weight")
    assert torch.allclose(module(*inputs), before, atol=1e-6)
    with torch.no_grad():
        module.head.parametrizations.weight.original0.mul_(2)
    assert torch.allclose(to_net(module).weights["head.weight"], 2 * net.weights["head.weight"], atol=1e-6)
    assert not torch.allclose(module(*inputs), before)


@pytest.mark.parametrize("slot", ["type", "encoder.forward", "a..b", "half"])
def test_names_that_torch_uses(slot: str) -> None:
    g = edit()
    x = g.input("x", (None, 4))
    graph = g.finish(g.add("linear", x, out=4, slot=slot))
    with pytest.raises(GraphError, match="rename the slot"):
        build(init(graph))


def test_weight_and_prefix_of_one_name() -> None:
    g = edit()
    x = g.input("x", (None, 4))
    x = g.add("mul", x, g.add("param", shape=(4,), name="scale"))
    with pytest.raises(GraphError, match="rename the slot"):
        build(init(g.finish(g.add("linear", x, out=4, slot="scale.fc"))))


@pytest.mark.parametrize("slot", ["net", "graph", "plan", "run", "weights", "registers", "0"])
def test_names_that_are_free(slot: str) -> None:
    g = edit()
    x = g.input("x", (None, 4))
    net = init(g.finish(g.add("linear", x, out=4, slot=slot)))
    assert f"{slot}.weight" in build(net).state_dict()


# ---------------------------------------------------------------------------------------------------------------- plan
def test_branches_not_taken_are_not_run() -> None:
    net, inputs = made("branches")
    broken = {name: t if name.startswith("way1") else torch.full_like(t, torch.nan) for name, t in net.weights.items()}
    module = build(Net(net.graph, broken))
    assert torch.isfinite(module(*inputs)).all()
    assert "3 steps" in repr(module)


def test_memory_is_freed_after_the_last_use() -> None:
    g = edit()
    x = g.input("x", (None, 1000))
    for _ in range(10):
        x = g.add("exp", x)
        x = g.add("chunk", x, parts=2, dim=1)[1]
        x = g.add("concat", x, g.add("neg", x), dim=1)
    graph = g.finish(x)
    module, x = build(init(graph)), torch.ones(1, 1000)
    with torch.no_grad(), Alive() as seen:
        module(x)
    # exp, the negative of a half, and what joins them
    assert seen.peak == 4000 + 2000 + 4000


def test_outputs_come_in_order() -> None:
    net, (x, y) = made("several")
    right, product, again, argument = build(net)(x, y)
    assert right is again and argument is y
    assert product.shape == right.shape == (4, 2)


# --------------------------------------------------------------------------------------------------- what torch does
@every
def test_deep_copies_are_apart(name: str) -> None:
    net, inputs = made(name)
    module = build(net).eval()
    before = module(*inputs)
    other = copy.deepcopy(module)
    assert same(other(*inputs), before)
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.zero_()
    assert same(module(*inputs), before) and not same(other(*inputs), before)
    assert other._plan is module._plan


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(name: str, dtype: torch.dtype) -> None:
    net, inputs = made(name)
    module = build(net).eval()
    before = listed(module(*inputs))
    cast = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
    after = listed(module.to(dtype)(*cast))
    assert all(y.dtype == dtype for y in after)
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    assert all(torch.allclose(a.float(), b, rtol=tolerance, atol=tolerance) for a, b in zip(after, before, strict=True))
    assert all(t.dtype == dtype for t in to_net(module).weights.values() if t.is_floating_point())


@every
@pytest.mark.parametrize("train", [False, True])
def test_compiles_as_one_graph(name: str, train: bool) -> None:
    net, inputs = made(name)
    module, plain = build(net).train(train), build(net).train(train)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    outputs, expected = listed(compiled(*inputs)), listed(plain(*inputs))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs, expected, strict=True))
    sum(y.sum() for y in outputs).backward()
    sum(y.sum() for y in expected).backward()
    for (key, a), (_, b) in zip(module.named_parameters(), plain.named_parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), key
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-4), key
    for a, b in zip(module.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    net, inputs = made("mlp")
    module = build(net).eval()
    torch._dynamo.reset()
    with torch.no_grad():
        assert torch.allclose(torch.compile(module, fullgraph=True)(*inputs), module(*inputs), atol=1e-5)


@every
def test_exports_for_any_batch(name: str) -> None:
    net, inputs = made(name)
    module = build(net).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    sizes = (tuple({0: batch} for _ in inputs),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, inputs, dynamic_shapes=sizes)
    other = example(net.graph, 7, seed=1)
    outputs, expected = listed(program.module()(*other)), listed(module(*other))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs, expected, strict=True))
    assert set(program.state_dict) == set(net.weights)


@every
def test_functional_call_and_gradients(name: str) -> None:
    net, inputs = made(name)
    module = build(net)
    params = {name: t.detach() for name, t in module.named_parameters()}
    buffers = {name: t.clone() for name, t in module.named_buffers()}

    def total(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return sum(y.square().sum() for y in listed(functional_call(module, (params, buffers), inputs)))

    found = grad(total)(params, buffers)
    plain = build(net)
    sum(y.square().sum() for y in listed(plain(*inputs))).backward()
    for key, tensor in plain.named_parameters():
        wanted = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        assert torch.allclose(found[key], wanted, rtol=1e-4, atol=1e-4), key
    # the module's own tensors were left alone
    assert all(torch.equal(t, net.weights[key]) for key, t in module.state_dict().items())


@every
def test_stacked_under_vmap(name: str) -> None:
    graph = graphs.ALL[name]()
    inputs = example(graph, 4)
    modules = [build(init(graph, seed)).eval() for seed in range(3)]
    params, buffers = stack_module_state(modules)
    base = copy.deepcopy(modules[0]).to("meta")
    with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention has no batching rule
        outputs = vmap(lambda p, b: functional_call(base, (p, b), inputs))(params, buffers)
    for index, module in enumerate(modules):
        for stacked, own in zip(listed(outputs), listed(module(*inputs)), strict=True):
            assert torch.allclose(stacked[index], own, atol=1e-5)


@every
def test_replicas_of_data_parallel(name: str) -> None:
    """As torch.nn.parallel.replicate wires them: shallow copies whose tensors are plain attributes of other devices."""
    net, inputs = made(name)
    module = build(net).eval()
    expected = module(*inputs)
    replica = replicate(module, scale=0.0)
    assert same(module(*inputs), expected)
    assert not same(replica(*inputs), expected)
    faithful = replicate(module, scale=1.0)
    assert same(faithful(*inputs), expected)
    if list(module.parameters()):
        sum(y.sum() for y in listed(faithful(*inputs)) if y.requires_grad).backward()
        assert any(t.grad is not None for t in module.parameters())


def replicate(network: nn.Module, scale: float) -> nn.Module:
    modules = list(network.modules())
    numbers = {module: index for index, module in enumerate(modules)}
    copies = [module._replicate_for_data_parallel() for module in modules]
    for module, new in zip(modules, copies, strict=True):
        new._former_parameters = {}
        for key, child in module._modules.items():
            setattr(new, key, copies[numbers[child]])
        for key, tensor in module._parameters.items():
            moved = tensor * scale  # stands for the copy on another device: not a leaf
            setattr(new, key, moved)
            new._former_parameters[key] = moved
        for key, tensor in module._buffers.items():
            setattr(new, key, tensor.clone())
    return copies[0]


@every
def test_moves_to_another_device(name: str) -> None:
    net, inputs = made(name)
    outputs = build(net).to("meta")(*[x.to("meta") for x in inputs])
    types = ops.infer(net.graph, 4)
    assert [tuple(y.shape) for y in listed(outputs)] == [types[value].shape for value in net.graph.outputs]


def test_two_modules_of_one_class() -> None:
    assert type(build(made("mlp")[0])) is type(build(made("cnn")[0])) is Built


# ----------------------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "got 0 inputs, expected 1: image"),
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2)), "got 2 inputs, expected 1"),
        ((torch.zeros(2, 3, 8, 9),), r"input 'image' is float32\[2, 3, 8, 9\], expected float32\[batch, 3, 8, 8\]"),
        ((torch.zeros(3, 8, 8),), r"input 'image' is float32\[3, 8, 8\]"),
        ((torch.zeros(2, 3, 8, 8, dtype=torch.int64),), r"input 'image' is int64\[2, 3, 8, 8\]"),
        (([[1.0]],), "input 'image' is of type list"),
    ],
)
def test_wrong_inputs(inputs: tuple, message: str) -> None:
    with pytest.raises(TypeMismatch, match=message):
        build(init(graphs.cnn()))(*inputs)


def test_batch_may_stand_anywhere() -> None:
    g = edit()
    x = g.input("x", (3, None, 4))
    module = build(init(g.finish(g.add("linear", x, out=2))))
    assert module(torch.zeros(3, 7, 4)).shape == (3, 7, 2)
    with pytest.raises(TypeMismatch, match="input 'x'"):
        module(torch.zeros(2, 7, 4))


def test_errors_name_the_node() -> None:
    module = build(init(graphs.mlp()))
    with pytest.raises(RuntimeError) as caught:
        module(torch.zeros(2, 12, dtype=torch.float64))
    assert caught.value.__notes__ == ["in node 'layers.0.fc'"]


def test_to_net_takes_built_modules_only() -> None:
    with pytest.raises(TypeError, match="expected a module"):
        to_net(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_graph_without_weights() -> None:
    g = edit()
    net = init(g.finish(g.add("relu", g.input("x", (None, 2)))))
    assert torch.equal(build(net)(torch.tensor([[-1.0, 2.0]])), torch.tensor([[0.0, 2.0]]))
    assert isinstance(net.graph, Graph)
