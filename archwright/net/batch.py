"""`batch`: nets of one architecture that run and train together, as one.

Nets with the same graph key differ only in their weights. Those are stacked, w -> W [n, ...], and torch.func.vmap runs
the one graph over the stack: n small products become one large one, which is most of the time of small nets. What
happens to a net is what would happen to it alone: its own data order, statistics, dropout noise, learning rate.

The optimiser sees each net's weights as tensors of their own (views of the stack), those of nets with equal settings
in one parameter group. So any torch optimiser, elementwise or not, does to each net exactly what it does to one alone.

    b = archwright.batch(nets)
    optimizer = b.optimizer(torch.optim.AdamW, lr=[1e-3, 3e-3], weight_decay=0.01)
    for rows in order:                                                  # [n, batch]: each net has its own data order
        losses = b.step(optimizer, F.cross_entropy, x, y, rows=rows)    # [n]
    trained = b.nets()
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from archwright import ops
from archwright.errors import GraphError, TypeMismatch, WeightsError
from archwright.ir import BATCH, Graph
from archwright.net.build import Built
from archwright.net.net import Net, example

Loss = Callable[[Any, Any], Tensor]


def batch(nets: Sequence[Net], *, device: torch.device | str | None = None) -> Batch:
    """Nets whose graphs have the same key, stacked to run and train as one. Names may differ; weights are cloned.

    device   where to run; by default where the first net's weights are

    Raises `GraphError` if the architectures differ, `WeightsError` if their dtypes do. Where torch cannot run an op for
    all nets at once, the nets are run one after another: the same results, slower, and a warning that names the op.
    """
    return Batch(nets, device=device)


class Batch:
    """Several nets of one architecture as one. Made by `archwright.batch`.

    size       number of nets, n
    graph      of the first net, whose names count here
    training   the mode: affects dropout and normalisation; changed by `train` and `eval`
    fallback   why nets are run one after another, or None if they run at once
    """

    def __init__(self, nets: Sequence[Net], *, device: torch.device | str | None = None) -> None:
        if not nets:
            raise GraphError("got no nets, expected at least one")
        self._origin = tuple(nets)
        self.size = len(nets)
        self.graph: Graph = nets[0].graph
        self._names = [_same_weights(self.graph, net.graph) for net in nets]
        wanted = ops.params(self.graph)
        stacks = {name: self._stack(name, device) for name in self._names[0]}
        self._params = {
            name: stack.requires_grad_(stack.is_floating_point() or stack.is_complex())
            for name, stack in stacks.items()
            if not wanted[name].buffer
        }
        self._buffers = {name: stack for name, stack in stacks.items() if wanted[name].buffer}
        self._device = next((stack.device for stack in stacks.values()), torch.device("cpu"))
        # each net's weights as leaves of their own, in the memory of the stack
        self._leaves = [
            {name: stack[i].detach().requires_grad_(stack.requires_grad) for name, stack in self._params.items()}
            for i in range(self.size)
        ]
        self._learning = [name for name, stack in self._params.items() if stack.requires_grad]
        self._grads: dict[str, tuple[Tensor, tuple[Tensor, ...]]] = {}
        self._module = Built(nets[0]).to("meta")  # the tensors come with each call
        self._ranks = [len(node.attrs["shape"]) for node in self.graph.inputs]
        self._loop_loss: Loss | None = None  # the last loss that could not be batched
        self.training = True
        self.fallback = self._why_not()
        if self.fallback is not None:
            warnings.warn(f"nets are run one after another: {self.fallback}", stacklevel=3)

    def _stack(self, name: str, device: torch.device | str | None) -> Tensor:
        tensors = [net.weights[names[name]].detach() for net, names in zip(self._origin, self._names, strict=True)]
        kinds = {tensor.dtype for tensor in tensors}
        if len(kinds) > 1:
            raise WeightsError(f"weight '{name}' has {len(kinds)} dtypes, expected the same in all nets")
        return torch.stack([tensor.to(tensors[0].device if device is None else device) for tensor in tensors])

    # ------------------------------------------------------------------------------------------------------- running
    def train(self, mode: bool = True) -> Batch:
        """Set the mode of all nets."""
        self.training = mode
        self._module.train(mode)
        return self

    def eval(self) -> Batch:
        """`train(False)`."""
        return self.train(False)

    def __call__(self, *inputs: Tensor) -> Any:
        """Outputs of all nets, [n, ...] (a tuple of such if the graph has several outputs).

        An input of the rank that the graph says is given to all nets; one with a further dimension n in front has a
        part for each net.
        """
        shared = [self._is_shared(index, x) for index, x in enumerate(inputs)]
        if self.fallback is None:
            return self._at_once(self._params, self._buffers, inputs, shared)
        found = []
        for i in range(self.size):
            own = [x if same else x[i] for x, same in zip(inputs, shared, strict=True)]
            found.append(self._one(i, own))
        return pytree.tree_map(lambda *parts: torch.stack(parts), *found)

    forward = __call__

    def _is_shared(self, index: int, x: Tensor) -> bool:
        if index < len(self._ranks) and isinstance(x, Tensor) and x.dim() == self._ranks[index] + 1:
            if len(x) != self.size:
                name = self.graph.inputs[index].name
                raise TypeMismatch(f"input '{name}' has {len(x)} parts, expected one for each of {self.size} nets")
            return False
        return True

    def _at_once(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        shared: Sequence[bool],
    ) -> Any:
        def run(params: dict[str, Tensor], buffers: dict[str, Tensor], *x: Tensor) -> Any:
            return functional_call(self._module, (params, buffers), x)

        dims = (0, 0, *[None if same else 0 for same in shared])
        # the CPU's fused attention cannot be batched: torch would loop over it, and warn
        with sdpa_kernel(SDPBackend.MATH) if self._device.type == "cpu" else nullcontext():
            return torch.vmap(run, in_dims=dims, randomness="different")(params, buffers, *inputs)

    def _one(self, i: int, inputs: Sequence[Tensor]) -> Any:
        buffers = {name: stack[i] for name, stack in self._buffers.items()}
        return functional_call(self._module, (self._leaves[i], buffers), tuple(inputs))

    def _why_not(self) -> str | None:
        """Why the graph cannot be run for all nets at once, found by a try with two of them; None if it can."""
        params = {name: stack[:2].detach().requires_grad_(stack.requires_grad) for name, stack in self._params.items()}
        buffers = {name: stack[:2].clone() for name, stack in self._buffers.items()}
        device = self._device
        # a net in another precision takes inputs in that precision
        precision = next((stack.dtype for stack in params.values() if stack.is_floating_point()), torch.float32)
        inputs = [x.to(device, precision if x.is_floating_point() else None) for x in example(self.graph)]
        mode = self.training
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
                for training in (False, True):
                    self.train(training)
                    made = pytree.tree_leaves(self._at_once(params, buffers, inputs, [True] * len(inputs)))
                    smooth = [y.abs().sum() for y in made if y.requires_grad]
                    if smooth:
                        torch.autograd.grad(sum(smooth), [params[name] for name in self._learning], allow_unused=True)
        except Exception as error:
            where = " ".join(getattr(error, "__notes__", ())) or "in the backward pass"
            reason = str(error).strip().split("\n")[0]
            return f"torch.vmap fails {where}: {reason}"
        finally:
            self.train(mode)
        return None

    # ------------------------------------------------------------------------------------------------------ training
    def parameters(self, index: int) -> list[Tensor]:
        """The trainable tensors of one net: leaves whose `grad` is set by `backward`. In the order of their names."""
        return [self._leaves[index][name] for name in self._learning]

    def optimizer(self, kind: Callable[..., torch.optim.Optimizer], **settings: Any) -> torch.optim.Optimizer:
        """A torch optimiser for all nets: `b.optimizer(torch.optim.SGD, lr=[0.1, 0.01, 0.1], momentum=0.9)`.

        A setting given as a list has a value for each net. Nets of equal settings share a parameter group, whose entry
        "nets" lists them; learning rate schedulers take the optimiser like any other. Its fused form is used where the
        class has one and no setting speaks against it: over many small tensors it is several times faster.
        """
        own = {name: values for name, values in settings.items() if isinstance(values, list)}
        for name, values in own.items():
            if len(values) != self.size:
                raise TypeMismatch(f"'{name}' has {len(values)} values, expected one for each of {self.size} nets")
        members: dict[tuple[Any, ...], list[int]] = {}
        for i in range(self.size):
            members.setdefault(tuple([values[i] for values in own.values()]), []).append(i)
        groups = [
            {
                "params": [leaf for i in nets for leaf in self.parameters(i)],
                "nets": tuple(nets),
                **dict(zip(own, values, strict=True)),
            }
            for values, nets in members.items()
        ]
        common = {name: values[0] if name in own else values for name, values in settings.items()}
        plain = all(self._params[name].dtype in (torch.float32, torch.float64) for name in self._learning)
        chosen = {"fused", "foreach", "capturable", "differentiable"} & settings.keys()
        if plain and not chosen and "fused" in inspect.signature(kind).parameters:
            common["fused"] = True
        return kind(groups, **common)

    def backward(self, loss: Loss, x: Tensor | Sequence[Tensor], y: Any, *, rows: Tensor | None = None) -> Tensor:
        """The losses of all nets, [n], and their gradients in the `grad` of each net's parameters.

        loss   loss(outputs, y) -> scalar, for one net
        x      the input, or a sequence of them: shared by all nets, or with a further dimension n in front
        y      what the loss compares with, a tensor or a structure of them: for each net if the first input is
        rows   whole numbers: the rows of x and y to use. [batch] for all nets, or [n, batch] for each its own

        Raises `TypeMismatch` if the sizes don't fit.
        """
        inputs = (x,) if isinstance(x, Tensor) else tuple(x)
        if rows is not None:
            if rows.dim() == 2 and len(rows) != self.size:
                raise TypeMismatch(f"rows is for {len(rows)} nets, expected {self.size}")
            if not all([self._is_shared(index, part) for index, part in enumerate(inputs)]):
                raise TypeMismatch("rows choose from data that all nets share: got an input with a part for each net")
            inputs = tuple([part[rows] for part in inputs])
            y = pytree.tree_map(lambda part: part[rows], y)
        each = not self._is_shared(0, inputs[0]) if inputs else False
        if self.fallback is not None:
            return self._backward_each(loss, inputs, y, each)
        losses = self._losses(loss, self(*inputs), y, each)
        learning = [self._params[name] for name in self._learning]
        found = torch.autograd.grad(losses.sum(), learning, allow_unused=True) if losses.requires_grad else ()
        for name, grad in zip(self._learning, found or [None] * len(learning), strict=True):
            self._put_grad(name, grad)
        return losses.detach()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        x: Tensor | Sequence[Tensor],
        y: Any,
        *,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`backward`, then a step of the optimiser; returns the losses before it, [n]."""
        losses = self.backward(loss, x, y, rows=rows)
        optimizer.step()
        return losses

    def nets(self) -> tuple[Net, ...]:
        """The nets as they are now, each with its own graph and names, on the device that it came from. Copies."""
        stacks = {**self._params, **self._buffers}
        found = []
        for i, (net, names) in enumerate(zip(self._origin, self._names, strict=True)):
            now = {own: stacks[name][i].detach().clone().to(net.weights[own].device) for name, own in names.items()}
            # what no output needs was not stacked, and has not changed
            found.append(Net(net.graph, {**net.weights, **now}))
        return tuple(found)

    def __repr__(self) -> str:
        return f"Batch({self.size} nets of {len(self.graph)} nodes{', one after another' if self.fallback else ''})"

    def _losses(self, loss: Loss, outputs: Any, y: Any, each: bool) -> Tensor:
        """loss(outputs, y) for each net: at once, or net by net if the loss cannot be batched."""
        losses = None
        if loss is not self._loop_loss:
            try:
                losses = torch.vmap(loss, in_dims=(0, 0 if each else None), randomness="different")(outputs, y)
            except RuntimeError:  # if the loss itself is at fault, it will say so below
                self._loop_loss = loss
        if losses is None:
            losses = torch.stack([loss(_part(outputs, i), _part(y, i) if each else y) for i in range(self.size)])
        if losses.dim() != 1:
            raise TypeMismatch(f"the loss of a net has shape {list(losses.shape[1:])}, expected a single number")
        return losses

    def _put_grad(self, name: str, grad: Tensor | None) -> None:
        """Give each net's leaf its part of the gradient, or none: an optimiser leaves alone what has no gradient."""
        if grad is None:
            for leaves in self._leaves:
                leaves[name].grad = None
            return
        if name not in self._grads:
            stack = torch.empty_like(self._params[name])
            self._grads[name] = stack, stack.unbind()
        stack, parts = self._grads[name]
        stack.copy_(grad)
        for leaves, part in zip(self._leaves, parts, strict=True):
            if leaves[name].grad is not part:
                leaves[name].grad = part

    def _backward_each(self, loss: Loss, inputs: Sequence[Tensor], y: Any, each: bool) -> Tensor:
        shared = [self._is_shared(index, x) for index, x in enumerate(inputs)]
        losses = []
        for i, leaves in enumerate(self._leaves):
            for leaf in leaves.values():
                leaf.grad = None
            own = [x if same else x[i] for x, same in zip(inputs, shared, strict=True)]
            value = loss(self._one(i, own), _part(y, i) if each else y)
            if value.requires_grad:
                value.backward()
            losses.append(value.detach())
        return torch.stack(losses)


def _part(tree: Any, index: int) -> Any:
    return pytree.tree_map(lambda tensor: tensor[index], tree)


def _same_weights(one: Graph, other: Graph) -> dict[str, str]:
    """Names of the weights of one graph -> those of the other graph, which has the same key."""
    if one.key() != other.key():
        raise GraphError(
            f"nets of different architecture cannot be one batch: got keys {one.key()} ({len(one)} nodes) and "
            f"{other.key()} ({len(other)} nodes)"
        )
    known = ops.analyse(one, BATCH)
    found = {}
    for name, same in zip(one.order(), other.order(), strict=True):
        slot, other_slot = one[name].slot, other[same].slot
        if slot is not None and other_slot is not None:
            for param in known[name].params:
                found[ops.weight_name(slot, param)] = ops.weight_name(other_slot, param)
    return found
