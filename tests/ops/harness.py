"""`check`: holds one op, with given attributes and inputs, to every fact that it states about itself.

    check("gelu", {"approximate": "tanh"}, [torch.randn(2, 3)], reference=lambda x: F.gelu(x, approximate="tanh"))

Every fact has a switch, so that a test can leave out what does not apply (a random op has no fixed numbers, float64 has
few kernels in ONNX Runtime). All checks run in eval mode, except that `train=True` compares with the reference in
training mode and that what autograd keeps is always measured in training mode.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from hypothesis import Phase, settings
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from archwright import ops
from archwright.ir import Graph, Type
from archwright.net.net import Net
from archwright.ops.base import Cat, Dim, Param, Prod, Term, size

FEW = settings(max_examples=15, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
"""What tests of ops draw: the same few examples each time. Set max_examples to draw more: `settings(FEW, ...)`."""

NODE = "node"
"""Name of the node under test, in the one-node graph that `one_node` makes."""

_SMALL = 1024
_LOOSE = {"float16": 2e-2, "bfloat16": 8e-2, "float32": 1e-4, "float64": 1e-7, "complex64": 1e-4, "complex128": 1e-7}


def check(
    op_name: str,
    attrs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    *,
    reference: Callable[..., Any] | nn.Module | None = None,
    batch_dim: int | Sequence[int | None] | None = 0,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    grad: bool = True,
    flops: bool = True,
    keeps: bool = True,
    axes: bool = True,
    resize: bool = True,
    onnx: bool = True,
    source: bool = True,
    vmap: bool = True,
    train: bool = False,
    seed: int = 0,
) -> None:
    """Raise AssertionError, saying op, attributes, types and what differs, unless the op is what it says.

    inputs      tensors; gradients are taken for the floating and complex ones
    reference   called as reference(*inputs, **weights by parameter name), or a module, which is given the weights by
                name. The parameter "" is passed as `value`. Without it numbers and gradients are not compared
    batch_dim   the dimension of every input that is the batch, or one entry (None: no batch) for each input
    rtol, atol  for numbers and gradients against the reference
    grad        compare gradients of a random cotangent with the reference's
    flops       cost.flops is what FlopCounterMode counts, if that counts anything
    keeps       cost.keeps and cost.extra are the bytes that autograd saves, to 1 % + 256 bytes. Tensors below 1 KiB
                that are neither input nor output may be left out of `extra`
    axes        permuting a label in inputs and weights permutes it in outputs; terms have the sizes of the shapes, and
                `attrs` terms those of the attributes
    resize      with axes: leaving one unit of an uncoupled label out of inputs, weights and attributes leaves it out of
                the outputs; if it is summed over, it changes nothing where its terms are zero
    onnx        the exported model computes the same in ONNX Runtime, at two batch sizes
    source      the written source computes the same
    vmap        torch.func.vmap over stacked inputs and weights is the same as a loop
    train       compare with the reference in training mode: same seed, same numbers, same buffers afterwards
    """
    case = _Case(op_name, attrs, inputs, batch_dim, seed)
    case.types()
    if reference is not None:
        case.numbers(reference, rtol, atol, grad, train)
    if flops:
        case.flops()
    if keeps:
        case.keeps()
    if axes:
        case.axes()
        if resize:
            case.resize()
    if vmap:
        case.vmap(rtol, atol)
    if onnx and case.f.op.onnx is not None and _exists("archwright.exchange.onnx"):
        case.onnx(max(rtol, 1e-4), max(atol, 1e-5))
    if source and case.f.op.source is not None and _exists("archwright.exchange.source"):
        case.source(rtol, atol)


def one_node(
    op_name: str, attrs: Mapping[str, Any], inputs: Sequence[Tensor], batch_dims: Sequence[int | None]
) -> Graph:
    """The graph that runs one op: inputs x0, x1, ... (None at their batch dimension), all outputs of the node."""
    g = ops.edit()
    names = []
    for index, (x, dim) in enumerate(zip(inputs, batch_dims, strict=True)):
        shape: list[int | None] = list(x.shape)
        if dim is not None:
            shape[dim] = None
        names.append(g.input(f"x{index}", shape, _dtype(x)))
    made = g.add(op_name, *names, name=NODE, **attrs)
    return g.finish(*(made if isinstance(made, tuple) else (made,)))


def draw(params: Mapping[str, Param], generator: torch.Generator) -> dict[str, Tensor]:
    """Random weights: positive variances, other floats normal with deviation 0.5, counters zero, ranges as stated."""
    found = {}
    for name, param in params.items():
        dtype = getattr(torch, param.dtype)
        if param.init == ("range",):
            found[name] = torch.arange(torch.Size(param.shape).numel(), dtype=dtype).reshape(param.shape)
        elif not dtype.is_floating_point and not dtype.is_complex:
            found[name] = torch.zeros(param.shape, dtype=dtype)
        elif name.endswith("var"):
            found[name] = (torch.rand(param.shape, generator=generator) + 0.5).to(dtype)
        else:
            found[name] = (torch.randn(param.shape, generator=generator) * 0.5).to(dtype)
    return found


def index_of(term: Term, permutation: Mapping[str, Tensor]) -> Tensor:
    """The positions of a term, in the order that the labels' permutations (or choices of units) put them in."""
    if isinstance(term, Prod):
        found = torch.zeros(1, dtype=torch.int64)
        for inner in term:
            found = (found[:, None] * size(inner) + index_of(inner, permutation)[None, :]).flatten()
        return found
    if isinstance(term, Cat):
        pieces, start = [], 0
        for inner in term:
            pieces.append(index_of(inner, permutation) + start)
            start += size(inner)
        return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.int64)
    if term.label is None:
        return torch.arange(term.size)
    return permutation.get(term.label, torch.arange(term.size))


def take(tensor: Tensor, dims: Sequence[Term], permutation: Mapping[str, Tensor]) -> Tensor:
    """The tensor with every dimension indexed as `index_of` says."""
    for dim, term in enumerate(dims):
        tensor = tensor.index_select(dim, index_of(term, permutation))
    return tensor


class _Case:
    """One op with attributes, inputs and weights, and the checks on it."""

    def __init__(
        self,
        op_name: str,
        attrs: Mapping[str, Any],
        inputs: Sequence[Tensor],
        batch_dim: int | Sequence[int | None] | None,
        seed: int,
    ) -> None:
        self.inputs = [x.detach().clone(memory_format=torch.contiguous_format) for x in inputs]
        shared = batch_dim is None or isinstance(batch_dim, int)
        self.batch_dims = [batch_dim] * len(inputs) if shared else list(batch_dim)  # type: ignore[arg-type]
        sizes = {x.shape[d] for x, d in zip(self.inputs, self.batch_dims, strict=True) if d is not None}
        assert len(sizes) <= 1, f"the test itself is wrong: inputs have batches {sorted(sizes)}, expected one"
        self.batch = sizes.pop() if sizes else None
        self.title = f"{op_name}({dict(attrs)}) on {', '.join(str(_type(x)) for x in self.inputs)}"
        self.seed = seed
        self.graph = one_node(op_name, attrs, self.inputs, self.batch_dims)
        self.f = ops.analyse(self.graph, self.batch or 1)[NODE]
        self.weights = draw(self.f.params, torch.Generator().manual_seed(seed + 1))

    # ------------------------------------------------------------------------------------------------- running
    def run(self, inputs: Sequence[Tensor], weights: Mapping[str, Tensor], train: bool = False) -> tuple[Tensor, ...]:
        torch.manual_seed(self.seed)
        made = self.f.op.run(self.f.a, list(inputs), weights, train)
        assert isinstance(made, tuple) == (len(self.f.y) > 1), (
            f"{self.title}: run returns a {type(made).__name__}, but infer gives {len(self.f.y)} outputs "
            "(a tuple exactly where there are several)"
        )
        return made if isinstance(made, tuple) else (made,)

    def wider(self) -> list[Tensor]:
        """The inputs with the first sample repeated at the end: another batch size with numbers just as valid."""
        return [
            x if d is None else torch.cat([x, x.narrow(d, 0, 1)], d)
            for x, d in zip(self.inputs, self.batch_dims, strict=True)
        ]

    def net(self) -> Net:
        return Net(self.graph, {ops.weight_name(NODE, name): t for name, t in self.weights.items()})

    def close(self, what: str, got: Any, wanted: Any, rtol: float, atol: float, names: Sequence[str] = ()) -> None:
        assert len(got) == len(wanted), f"{self.title}: {what}: got {len(got)} tensors, expected {len(wanted)}"
        for index, (g, w) in enumerate(zip(got, wanted, strict=True)):
            label = names[index] if names else f"y{index}"
            try:
                torch.testing.assert_close(g, w, rtol=rtol, atol=atol, equal_nan=True)
            except AssertionError as error:
                raise AssertionError(f"{self.title}: {what}: {label} differs: {error}") from None

    # -------------------------------------------------------------------------------------------------- checks
    def types(self) -> None:
        again = Graph.from_json(self.graph.to_json())
        assert ops.check(again) == self.graph, f"{self.title}: the graph changes when written and read as JSON"
        before, kept = [x.clone() for x in self.inputs], {name: t.clone() for name, t in self.weights.items()}
        got = tuple(_type(y) for y in self.run(self.inputs, self.weights))
        assert got == self.f.y, f"{self.title}: run gives {_show(got)}, infer says {_show(self.f.y)}"
        self.close("run changed its inputs", self.inputs, before, 0, 0)
        self.close("run changed its weights in eval mode", [*self.weights.values()], [*kept.values()], 0, 0)
        if self.batch is not None:
            inputs = self.wider()
            known = ops.analyse(self.graph, self.batch + 1)[NODE]
            assert known.params == self.f.params, f"{self.title}: parameters change with the batch size"
            made = known.op.run(known.a, inputs, self.weights, False)
            got = tuple(_type(y) for y in (made if isinstance(made, tuple) else (made,)))
            assert got == known.y, (
                f"{self.title}: at batch {self.batch + 1} run gives {_show(got)}, infer says {_show(known.y)}"
            )

    def numbers(self, reference: Callable[..., Any], rtol: float, atol: float, grad: bool, train: bool) -> None:
        if isinstance(reference, nn.Module):
            module = reference.train(train)

            def call(*inputs: Tensor, **weights: Tensor) -> Any:
                return torch.func.functional_call(module, weights, inputs)
        else:
            call = reference

        def leaves() -> tuple[list[Tensor], dict[str, Tensor]]:
            return (
                [_leaf(x, grad) for x in self.inputs],
                {name: _leaf(t, grad and not self.f.params[name].buffer) for name, t in self.weights.items()},
            )

        x, w = leaves()
        got = self.run(x, w, train)
        rx, rw = leaves()
        torch.manual_seed(self.seed)
        made = call(*rx, **{name or "value": t for name, t in rw.items()})
        wanted = made if isinstance(made, (tuple, list)) else (made,)
        self.close("numbers", [y.detach() for y in got], [y.detach() for y in wanted], rtol, atol)
        if train:
            names = [name for name, param in self.f.params.items() if param.buffer]
            self.close("buffers after training", [w[n] for n in names], [rw[n] for n in names], rtol, atol, names)
        if not grad:
            return
        generator = torch.Generator().manual_seed(self.seed + 2)
        cotangents = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in got]
        names = [f"gradient of x{i}" for i in range(len(x))] + [f"gradient of {n}" for n in w]
        mine = _gradients(got, [*x, *w.values()], cotangents)
        theirs = _gradients(wanted, [*rx, *rw.values()], cotangents)
        for name, a, b in zip(names, mine, theirs, strict=True):
            if a is None or b is None:
                assert a is b or not (b if a is None else a).any(), (
                    f"{self.title}: {name} is {'missing' if a is None else 'there'}, "
                    f"but {'missing' if b is None else 'there'} in the reference"
                )
            else:
                scale = max(1.0, float(torch.nan_to_num(b.abs(), posinf=1.0).max()) if b.numel() else 1.0)
                self.close("gradients", [a], [b], 10 * rtol, 10 * atol * scale, [name])

    def flops(self) -> None:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.run(self.inputs, self.weights)
        counted = counter.get_total_flops()
        assert not counted or counted == self.f.cost.flops, (
            f"{self.title}: cost.flops is {self.f.cost.flops}, FlopCounterMode counts {counted}"
        )

    def keeps(self) -> None:
        x = [_leaf(t, True) for t in self.inputs]
        w = {name: _leaf(t, not self.f.params[name].buffer) for name, t in self.weights.items()}
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.detach()) or t, lambda t: t):
            y = self.run(x, w, train=True)
        owners = {_storage(t): f"weight {name}" for name, t in w.items() if t.numel()}
        owners |= {_storage(t): f"y{i}" for i, t in reversed([*enumerate(y)])}
        owners |= {_storage(t): f"x{i}" for i, t in reversed([*enumerate(x)])}
        found: dict[str, int] = {}
        for t in saved:
            pointer = _storage(t)
            name = owners.setdefault(pointer, f"other {_type(t)} at {pointer:x}")
            if pointer and not name.startswith("weight"):
                found[name] = t.untyped_storage().nbytes()
        small = sum(n for name, n in found.items() if name.startswith("other") and n < _SMALL)
        total = sum(found.values())
        cost = self.f.cost
        known = {f"x{i}": t.nbytes for i, t in enumerate(self.f.x)} | {
            f"y{i}": t.nbytes for i, t in enumerate(self.f.y)
        }
        unknown = set(cost.keeps) - known.keys()
        assert not unknown, f"{self.title}: cost.keeps names {sorted(unknown)}, which the node does not have"
        stated = sum(known[name] for name in set(cost.keeps)) + cost.extra
        slack = 256 + 0.01 * max(total, stated)
        assert total - small - slack <= stated <= total + slack, (
            f"{self.title}: cost says that autograd keeps {stated} bytes (keeps={cost.keeps}, extra={cost.extra}), "
            f"it keeps {total}: {found}"
        )

    def _axes(self) -> tuple[Any, dict[str, int]]:
        """The op's axes, after checking that they fit the shapes; and the size of every label."""
        found = self.f.op.axes(self.f.a, self.f.x, self.f.y)
        sides = [
            *((f"x{i}", dims, t.shape) for i, (dims, t) in enumerate(zip(found.x, self.f.x, strict=True))),
            *((f"y{i}", dims, t.shape) for i, (dims, t) in enumerate(zip(found.y, self.f.y, strict=True))),
        ]
        assert set(found.w) == set(self.f.params), (
            f"{self.title}: axes.w has {sorted(found.w)}, the parameters are {sorted(self.f.params)}"
        )
        sides += [(name, dims, self.f.params[name].shape) for name, dims in found.w.items()]
        sizes: dict[str, int] = {}
        for name, dims, shape in sides:
            got = tuple(size(term) for term in dims)
            assert got == tuple(shape), f"{self.title}: axes of {name} have sizes {got}, its shape is {tuple(shape)}"
            for term in dims:
                for label, n in _labels(term):
                    known = sizes.setdefault(label, n)
                    assert known == n, f"{self.title}: label '{label}' has sizes {known} and {n} (in {name})"
        assert found.coupled <= set(sizes), (
            f"{self.title}: coupled has {sorted(found.coupled - set(sizes))}, no such label"
        )
        return found, sizes

    def axes(self) -> None:
        found, sizes = self._axes()
        for name, term in found.attrs.items():
            value = self.f.a[name]
            for t, v in zip(term, value, strict=True) if _several(term) else [(term, value)]:
                assert t is None or v is None or size(t) == abs(v), (
                    f"{self.title}: axes.attrs says that '{name}' holds a size of {size(t)} ({t}), it is {value!r}"
                )
        generator = torch.Generator().manual_seed(self.seed + 3)
        before = self.run(self.inputs, self.weights)
        order = {label: torch.randperm(n, generator=generator) for label, n in sizes.items()}
        inputs, weights = self._taken(found, order, self.inputs, self.weights)
        after = self.run(inputs, weights)
        wanted = [take(y, dims, order) for y, dims in zip(before, found.y, strict=True)]
        self._axes_close(f"permuting the labels {_show_axes(found)} of inputs and weights", after, wanted)

    def resize(self) -> None:
        found, sizes = self._axes()
        generator = torch.Generator().manual_seed(self.seed + 4)
        shown = {label for dims in found.y for term in dims for label, _ in _labels(term)}
        for label, n in sizes.items():
            if label in found.coupled or n < 2:
                continue
            gone = int(torch.randint(n, (1,), generator=generator))
            kept = {label: torch.tensor([i for i in range(n) if i != gone])}
            inputs, weights = self._taken(found, kept, self.inputs, self.weights)
            what = f"leaving unit {gone} of label '{label}' out of {_show_axes(found)}"
            full_x, full_w = self.inputs, self.weights
            if label not in shown:
                mask = {label: torch.arange(n) == gone}
                full_x = [_zeroed(t, dims, mask) for t, dims in zip(self.inputs, found.x, strict=True)]
                full_w = {name: _zeroed(t, found.w[name], mask) for name, t in self.weights.items()}
            elif found.sums:  # the unit stands in y, but other units read it through weights of the node
                mask = {label: torch.arange(n) == gone}
                full_w = dict(self.weights)
                for name, dim in found.sums.items():
                    alone = [term if d == dim else Dim(None, size(term)) for d, term in enumerate(found.w[name])]
                    full_w[name] = _zeroed(full_w[name], alone, mask)
            before = self.run(full_x, full_w)
            attrs = {**self.f.a, **found.freeze}
            for name, term in found.attrs.items():
                if any(label == inner for t in (term if _several(term) else (term,)) if t for inner, _ in _labels(t)):
                    value = self.f.a[name]
                    attrs[name] = (
                        tuple(v if t is None else _stored(t, v, kept) for t, v in zip(term, value, strict=True))
                        if _several(term)
                        else _stored(term, value, kept)
                    )
            try:
                f = ops.facts(self.f.op.name, self.f.op.normal(attrs), tuple(_type(x) for x in inputs))
                params = {name: tuple(param.shape) for name, param in f.params.items()}
                shapes = {name: tuple(t.shape) for name, t in weights.items()}
                assert params == shapes, f"the smaller op wants weights {params}, the axes give {shapes}"
                torch.manual_seed(self.seed)
                made = f.op.run(f.a, inputs, weights, False)
            except (ValueError, RuntimeError, AssertionError) as error:
                raise AssertionError(f"{self.title}: {what}: {error}") from error
            after = made if isinstance(made, tuple) else (made,)
            wanted = [take(y, dims, kept) for y, dims in zip(before, found.y, strict=True)]
            self._axes_close(what, after, wanted)

    def _taken(self, found: Any, order: Any, inputs: Any, weights: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
        return (
            [take(t, dims, order) for t, dims in zip(inputs, found.x, strict=True)],
            {name: take(t, found.w[name], order) for name, t in weights.items()},
        )

    def _axes_close(self, what: str, got: Sequence[Tensor], wanted: Sequence[Tensor]) -> None:
        for index, (g, w) in enumerate(zip(got, wanted, strict=True)):
            loose = _LOOSE.get(_dtype(w), 0.0)
            if loose:
                finite = torch.nan_to_num(w.abs().double(), 0.0, 0.0, 0.0)
                scale = max(1.0, float(finite.max())) if w.numel() else 1.0
                self.close(what, [g], [w], loose, loose * 0.1 * scale, [f"y{index}"])
            else:
                self.close(what, [g], [w], 0, 0, [f"y{index}"])

    def vmap(self, rtol: float, atol: float) -> None:
        other = draw(self.f.params, torch.Generator().manual_seed(self.seed + 5))
        sets = [
            (self.inputs, self.weights),
            ([x.flip(0) if x.dim() else x for x in self.inputs], other),
        ]
        if not self.inputs and not self.weights:
            return
        stacked_x = [torch.stack(pair) for pair in zip(*(s[0] for s in sets), strict=True)]
        stacked_w = {name: torch.stack([s[1][name] for s in sets]) for name in self.weights}
        wanted = [self.run(x, w) for x, w in sets]
        try:
            got = torch.func.vmap(lambda x, w: self.run(x, w))(stacked_x, stacked_w)
        except Exception as error:
            raise AssertionError(f"{self.title}: does not run under torch.func.vmap: {error}") from error
        for index in range(len(sets)):
            self._axes_close(f"vmap, set {index}", [y[index] for y in got], wanted[index])

    def onnx(self, rtol: float, atol: float) -> None:
        import onnx
        import onnxruntime

        from archwright.exchange.onnx import onnx_model

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            model = onnx_model(self.net())
            onnx.checker.check_model(model)
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            names = {i.name for i in session.get_inputs()}
            for inputs in (self.inputs, self.wider()) if self.batch is not None else (self.inputs,):
                fed = {f"x{i}": _real(x).numpy() for i, x in enumerate(inputs) if f"x{i}" in names}
                got = [torch.as_tensor(y) for y in session.run(None, fed)]
                wanted = [_real(y) for y in self.run(inputs, self.weights)]
                self.close("ONNX Runtime", got, wanted, rtol, atol)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{self.title}: ONNX: {type(error).__name__}: {error}") from error

    def source(self, rtol: float, atol: float) -> None:
        from archwright.exchange.source import source_text

        text = source_text(self.net())
        imported = [line for line in text.splitlines() if "import" in line and "archwright" in line]
        assert not imported, f"{self.title}: the written source needs archwright: {imported}"
        space: dict[str, Any] = {"__name__": "written"}
        try:
            exec(compile(text, "<written source>", "exec"), space)
            module = space["Net"]().eval()
            module.load_state_dict(dict(self.net().weights), strict=True)
            for inputs in (self.inputs, self.wider()) if self.batch is not None else (self.inputs,):
                torch.manual_seed(self.seed)
                with torch.no_grad():
                    made = module(*inputs)
                wanted = self.run(inputs, self.weights)
                self.close("written source", made if isinstance(made, tuple) else (made,), wanted, rtol, atol)
        except Exception as error:
            raise AssertionError(f"{self.title}: the written source fails: {error}\n{text}") from error


# ------------------------------------------------------------------------------------------------------ small helpers
def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _dtype(t: Tensor) -> str:
    return str(t.dtype).removeprefix("torch.")


def _type(t: Tensor) -> Type:
    return Type(tuple(t.shape), _dtype(t))


def _show(types: Sequence[Type]) -> str:
    return ", ".join(map(str, types)) or "nothing"


def _show_axes(axes: Any) -> str:
    def text(term: Term) -> str:
        if isinstance(term, (Prod, Cat)):
            return "(" + ("*" if isinstance(term, Prod) else "+").join(map(text, term)) + ")"
        return f"{term.label or '-'}:{term.size}"

    def side(dims: Sequence[Term]) -> str:
        return "[" + ", ".join(map(text, dims)) + "]"

    weights = "".join(f", {name}{side(dims)}" for name, dims in axes.w.items())
    return f"{', '.join(map(side, axes.x))}{weights} -> {', '.join(map(side, axes.y))}"


def _stored(term: Term, old: Any, kept: Mapping[str, Tensor]) -> int:
    """What an attribute becomes that holds the size of a term: a negative one holds minus the size."""
    n = index_of(term, kept).numel()
    return -n if isinstance(old, int) and old < 0 else n


def _several(term: Any) -> bool:
    return type(term) is tuple or type(term) is list


def _labels(term: Term) -> list[tuple[str, int]]:
    """The labels in a term, with their sizes."""
    if isinstance(term, (Prod, Cat)):
        return [found for inner in term for found in _labels(inner)]
    assert isinstance(term, Dim), f"a term is a Dim, a Prod or a Cat, got {term!r}"
    return [] if term.label is None else [(term.label, term.size)]


def _hits(term: Term, mask: Mapping[str, Tensor]) -> Tensor:
    """Positions of a term that belong to a marked unit of a label."""
    if isinstance(term, Prod):
        found = torch.zeros(1, dtype=torch.bool)
        for inner in term:
            found = (found[:, None] | _hits(inner, mask)[None, :]).flatten()
        return found
    if isinstance(term, Cat):
        return torch.cat([_hits(inner, mask) for inner in term]) if term else torch.zeros(0, dtype=torch.bool)
    if term.label in mask:
        return mask[term.label]
    return torch.zeros(term.size, dtype=torch.bool)


def _zeroed(t: Tensor, dims: Sequence[Term], mask: Mapping[str, Tensor]) -> Tensor:
    t = t.clone()
    for dim, term in enumerate(dims):
        t.index_fill_(dim, _hits(term, mask).nonzero().flatten(), 0)
    return t


def _real(t: Tensor) -> Tensor:
    """A complex tensor as ONNX has it: real, with a last dimension of 2."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _leaf(t: Tensor, grad: bool) -> Tensor:
    return t.clone().requires_grad_(grad and (t.is_floating_point() or t.is_complex()))


def _gradients(y: Sequence[Tensor], leaves: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor | None]:
    pairs = [(a, b) for a, b in zip(y, cotangents, strict=True) if a.requires_grad]
    wanted = [t for t in leaves if t.requires_grad]
    if not pairs or not wanted:
        return [None] * len(leaves)
    found = iter(torch.autograd.grad([a for a, _ in pairs], wanted, [b for _, b in pairs], allow_unused=True))
    return [next(found) if t.requires_grad else None for t in leaves]
