"""A module through torch.export to a `Program`.

Exported without decompositions, so that convolution, normalisation, attention and recurrence stay single calls. Regions
that torch wraps in calls of their own (no_grad, autocast) are laid open; operators that no rule knows are taken
apart where torch can do that.

nn.MultiheadAttention is written in Python over many operators: while exporting, its forward is a single operator,
`archwright::multihead_attention`, which only exists to be seen in the export. What it means is proven afterwards,
against the module as it is.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from archwright.errors import CaptureError
from archwright.exchange.capturing.program import Call, Leaf, Meta, Program, Ref
from archwright.exchange.capturing.watch import CHECK, Answer, Watch

# ------------------------------------------------------------------------------------------------ multihead attention
_LIBRARY = torch.library.Library("archwright", "DEF")
_LIBRARY.define(
    "multihead_attention(Tensor query, Tensor key, Tensor value, Tensor?[] weights, Tensor? key_padding_mask, "
    "Tensor? attn_mask, int heads, float dropout, bool batch_first, bool zero_attn, bool causal, bool need_weights, "
    "bool average, bool training) -> Tensor[]"
)

ATTENTION_WEIGHTS = (
    "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "out_proj.weight", "out_proj.bias",
)  # fmt: skip
"""The weights of nn.MultiheadAttention, in the order in which the operator takes them."""


@torch.library.register_fake("archwright::multihead_attention", lib=_LIBRARY)
def _attention_shapes(
    query, key, value, weights, key_padding_mask, attn_mask, heads, dropout, batch_first, zero_attn, causal,
    need_weights, average, training,
):  # fmt: skip
    batch, length = (query.shape[0], query.shape[1]) if batch_first else (query.shape[1], query.shape[0])
    source = key.shape[1 if batch_first else 0] + (weights[5] is not None) + zero_attn
    made = [query.new_empty(query.shape)]
    if need_weights:
        made.append(query.new_empty((batch, length, source) if average else (batch, heads, length, source)))
    return made


@torch.library.impl(_LIBRARY, "multihead_attention", "CompositeExplicitAutograd")
def _attention(
    query, key, value, weights, key_padding_mask, attn_mask, heads, dropout, batch_first, zero_attn, causal,
    need_weights, average, training,
):  # fmt: skip
    """What nn.MultiheadAttention does with these arguments: to find the place where a net differs."""
    if batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    both, q_weight, k_weight, v_weight, in_bias, bias_k, bias_v, out_weight, out_bias = weights
    y, shares = F.multi_head_attention_forward(
        query, key, value, query.shape[-1], heads, both, in_bias, bias_k, bias_v, zero_attn, dropout, out_weight,
        out_bias, training, key_padding_mask, need_weights, attn_mask, both is None, q_weight, k_weight, v_weight,
        average_attn_weights=average, is_causal=causal,
    )  # fmt: skip
    y = (y.transpose(0, 1) if batch_first else y).clone()
    return [y, shares] if need_weights else [y]


_python_forward = nn.MultiheadAttention.forward


def _attention_forward(
    self: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Stands in for nn.MultiheadAttention.forward while exporting."""
    if query.dim() != 3 or (is_causal and attn_mask is None):
        return _python_forward(
            self, query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
    weights = [
        self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight, self.in_proj_bias,
        self.bias_k, self.bias_v, self.out_proj.weight, self.out_proj.bias,
    ]  # fmt: skip
    made = torch.ops.archwright.multihead_attention(
        query, key, value, weights, key_padding_mask, attn_mask, self.num_heads, float(self.dropout),
        bool(self.batch_first), bool(self.add_zero_attn), bool(is_causal), bool(need_weights),
        bool(average_attn_weights), bool(self.training),
    )  # fmt: skip
    return made[0], (made[1] if need_weights else None)


def _not_detected(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Stands in for torch's search for causal masks, which reads the mask's numbers: the mask is used as it is."""
    return is_causal is True


@contextlib.contextmanager
def slow_attention() -> Iterator[None]:
    """Without the fused kernels for transformer layers, which take other roads in eval mode than in train mode."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _stay(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """Stands in for nn.Module.to: weights cannot be moved while they are looked at."""
    return self


@contextlib.contextmanager
def _exporting(lift: bool) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(slow_attention())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        log = logging.getLogger("torch.export")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        stack.enter_context(mock.patch("torch.nn.modules.transformer._detect_is_causal_mask", _not_detected))
        stack.enter_context(mock.patch.object(nn.Module, "to", _stay))
        if lift:
            stack.enter_context(mock.patch.object(nn.MultiheadAttention, "forward", _attention_forward))
        yield


# ------------------------------------------------------------------------------------------------------------ export
def export(
    module: nn.Module,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    batch: int,
    known: Callable[[Any], bool],
    lift: bool = True,
    answers: Sequence[Answer] = (),
) -> Program:
    """Export a module in the mode that it is in.

    batch    the batch size of the arguments, which the program remembers
    known    whether there is a rule for an operator; others are taken apart
    lift     keep nn.MultiheadAttention as one call
    answers  what the module was told about masks when it ran on these arguments

    Raises `CaptureError` with the line of the user's code where torch.export gives up.
    """
    with _exporting(lift):
        try:
            with Watch(module, answers):
                exported = torch.export.export(module, tuple(args), dict(kwargs), strict=False)
            return _Reader(module, exported, batch, known).program
        except CaptureError:
            raise
        except Exception as error:
            mode = "train" if module.training else "eval"
            raise CaptureError(
                f"{type(module).__name__} cannot be exported in {mode} mode{_at(user_line(error))}: {_reason(error)}"
            ) from error


def user_line(error: BaseException) -> str:
    """"file:line, in function" of the last frame that is neither torch's nor ours, or nothing."""
    skip = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith((*skip, "<"))]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename}:{last.lineno}, in {last.name}" + (f": {last.line}" if last.line else "")


def _at(line: str) -> str:
    return f" at {line}" if line else ""


def _reason(error: BaseException) -> str:
    """The first sentences of an error of torch, in one line."""
    text = str(error).strip() or type(error).__name__
    if "data-dependent" in text or "unbacked" in text:
        text = "what it does next depends on the numbers in a tensor: " + text
    return " ".join(text.split("\n\n")[0].split())[:400]


def called_at(trace: str) -> str:
    """"file:line" of the last frame of a recorded stack that is not torch's."""
    skip = str(Path(torch.__file__).parent)
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
    for line in reversed(lines):
        path, _, rest = line.removeprefix('File "').partition('", line ')
        if not path.startswith(skip):
            return f"{path}:{rest.partition(',')[0]}"
    return ""


# ------------------------------------------------------------------------------------------------------------ reading
_SYMBOLS = (torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class _Unknown:
    """A number that is only known when the module runs. It may go into assertions, which are left out, no further."""

    op: str


class _Reader:
    """Reads an exported program's graph into a `Program`."""

    def __init__(self, module: nn.Module, exported: Any, batch: int, known: Callable[[Any], bool]) -> None:
        self.known = known
        self.program = Program(module.training, (batch,), spec=exported.call_spec.out_spec)
        self.storages: dict[int, int] = {}
        self.keep: list[Any] = []  # values whose memory must not be given to others while storages are compared
        self.scope: tuple[str, bool, str] = ("", False, "")
        env: dict[Any, Any] = {}
        specs = iter(exported.graph_signature.input_specs)
        state = _state(module)
        for node in exported.graph.nodes:
            if node.op == "placeholder":
                env[node] = self._leaf(node, next(specs), exported, state)
        outputs = self._run(exported.graph_module, exported.graph, env)
        kinds = [spec.kind.name for spec in exported.graph_signature.output_specs]
        self.program.outputs = tuple([o for o, kind in zip(outputs, kinds, strict=True) if kind == "USER_OUTPUT"])

    def _leaf(self, node: Any, spec: Any, exported: Any, state: dict[str, tuple[str, str, Tensor]]) -> Any:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        if spec.kind == InputKind.USER_INPUT:
            leaf = Leaf("input", node.name, self._meta(value))
        elif spec.target in state:
            kind, name, tensor = state[spec.target]
            leaf = Leaf(kind, name, self._meta(value), tensor)
        else:
            leaf = Leaf("constant", str(spec.target), self._meta(value), exported.constants[spec.target])
        return self._add_leaf(leaf)

    def _add_leaf(self, leaf: Leaf) -> Ref:
        for id, other in self.program.leaves.items():
            if leaf.kind != "input" and other.tensor is leaf.tensor:
                return Ref(id)
        id = len(self.program.leaves) + len(self.program.calls)
        self.program.leaves[id] = leaf
        return Ref(id)

    def _run(self, root: nn.Module, graph: Any, env: dict[Any, Any]) -> Any:
        """Read the nodes of a graph; returns what its output node names."""

        def read(value: Any) -> Any:
            if isinstance(value, torch.fx.Node):
                return env[value]
            if isinstance(value, (list, tuple)):
                return [read(item) for item in value]
            return value

        for node in graph.nodes:
            if node.op == "output":
                return read(node.args[0])
            if node.op == "get_attr":
                held = operator.attrgetter(node.target)(root)
                if isinstance(held, Tensor):
                    held = self._add_leaf(Leaf("constant", f"constants.{node.target}", self._meta(held), held))
                env[node] = held
            elif node.op == "call_function":
                self._enter(node)
                args, kwargs = read(list(node.args)), {key: read(value) for key, value in node.kwargs.items()}
                env[node] = self._call(node, args, kwargs)
        return ()

    def _enter(self, node: Any) -> None:
        stack = node.meta.get("nn_module_stack")
        if stack:
            key, (path, kind) = next(reversed(stack.items()))
            kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
            again = key.rpartition("@")[2] if "@" in key else ""
            plain = kind.startswith("torch.nn.modules.") and ".container." not in kind and ".transformer." not in kind
            self.scope = (f"{path}@{again}" if again else path, plain, node.meta.get("stack_trace") or "")

    def _call(self, node: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        op = node.target
        if op is operator.getitem:
            source, index = args
            return source[index] if isinstance(source, list) else Ref(source.id, index)
        if isinstance(op, torch._ops.HigherOrderOperator):
            return self._region(str(op), args)
        unknown = next((v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, _Unknown)), None)
        if not isinstance(op, torch._ops.OpOverload):
            if unknown is not None or isinstance(node.meta.get("val"), _SYMBOLS):
                return unknown or _Unknown(str(op))
            raise self._unable(f"it computes with {op} on what is only known when it runs")
        if op.name() == "aten::_assert_async.msg" and str(args[1]).startswith(CHECK) and isinstance(args[0], Ref):
            self.program.checks.append((args[0], args[1].removeprefix(CHECK)))
            return None
        if op.name().partition("::")[2].startswith(("_assert", "sym_constrain_range", "_guards_fn")):
            return None
        if unknown is not None:
            raise self._unable(f"what it does next depends on the numbers in a tensor (through {unknown.op})")
        value = node.meta.get("val")
        if isinstance(value, _SYMBOLS):
            return _Unknown(str(op))
        made = self._decompose(op, node) if not self.known(op) else None
        if made is not None:
            return self._inline(made, args, kwargs)
        return self._add(op, args, kwargs, value)

    def _add(self, op: Any, args: list[Any], kwargs: dict[str, Any], value: Any) -> Any:
        if isinstance(value, Tensor):
            out: Any = self._meta(value)
            if op._schema.name.endswith("dropout") and args[2] is False:
                # the very tensor that it is given, although the export has a new one
                out = replace(out, storage=self.program.meta(args[0]).storage)
        elif isinstance(value, (list, tuple)):
            out = tuple([self._meta(v) if isinstance(v, Tensor) else None for v in value])
        elif value is None:
            out = None
        else:
            raise self._unable(f"{op} makes a {type(value).__name__}, which cannot be captured")
        id = len(self.program.leaves) + len(self.program.calls)
        self.program.calls[id] = Call(id, op, tuple(args), kwargs, out, *self.scope)
        if isinstance(out, tuple):
            return [Ref(id, index) for index in range(len(out))]
        return Ref(id)

    def _region(self, name: str, args: list[Any]) -> Any:
        """Lay open a region that torch wraps into one call."""
        grad = True
        if "set_grad_enabled" in name:
            grad, module, values = args[0], args[1], args[2:]
        elif "wrap_with_autocast" in name:
            module, values = args[4], args[5:]
        else:
            raise self._unable(f"it uses {name}, which cannot be captured")
        places = [node for node in module.graph.nodes if node.op == "placeholder"]
        outputs = self._run(module, module.graph, dict(zip(places, values, strict=True)))
        outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        if not grad:
            outputs = [self._detached(value) for value in outputs]
        return outputs

    def _detached(self, value: Any) -> Any:
        if not isinstance(value, Ref) or not self.program.meta(value).dtype.startswith(("float", "bfloat", "complex")):
            return value
        meta = self.program.meta(value)
        id = len(self.program.leaves) + len(self.program.calls)
        self.program.calls[id] = Call(id, torch.ops.aten.detach.default, (value,), {}, meta, *self.scope)
        return Ref(id)

    def _decompose(self, op: Any, node: Any) -> Any:
        """The operator taken apart, as a graph over its tensor arguments, or None where torch cannot do it."""
        return decompose(op, *_values(node))

    def _inline(self, made: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        tensors = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Ref)]
        places = [node for node in made.graph.nodes if node.op == "placeholder"]
        return self._run(made, made.graph, dict(zip(places, tensors, strict=True)))

    def _meta(self, value: Tensor) -> Meta:
        storage = 0
        if value.layout == torch.strided:
            self.keep.append(value)
            storage = self.storages.setdefault(value.untyped_storage()._cdata, len(self.storages) + 1)
        if not all(isinstance(n, int) for n in value.shape):
            raise self._unable("the size of a tensor depends on the numbers in another")
        return Meta(tuple(value.shape), str(value.dtype).removeprefix("torch."), storage)

    def _unable(self, why: str) -> CaptureError:
        scope, _, trace = self.scope
        return CaptureError(f"module '{scope}' cannot be captured{_at(called_at(trace))}: {why}")


def _values(node: Any) -> tuple[Any, Any]:
    """A node's arguments with the (fake) tensors that stand there."""
    found: Any = torch.fx.map_arg((list(node.args), dict(node.kwargs)), lambda n: n.meta.get("val"))
    return found


def decompose(op: Any, args: Any, kwargs: Any) -> Any:
    """An operator as a graph of simpler ones over its tensor arguments, or None where torch has no such form."""
    if op.namespace != "aten" or op._schema.is_mutable:
        return None
    table = torch._decomp.decomposition_table
    if torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), torch._C.DispatchKey.CompositeImplicitAutograd):
        run: Callable[..., Any] = op.decompose
    elif op in table:
        run = table[op]
    else:
        return None
    flat, spec = pytree.tree_flatten((args, kwargs))
    places = [i for i, value in enumerate(flat) if isinstance(value, Tensor)]

    def call(*tensors: Tensor) -> Any:
        values = list(flat)
        for place, tensor in zip(places, tensors, strict=True):
            values[place] = tensor
        inner, named = pytree.tree_unflatten(values, spec)
        return run(*inner, **named)

    try:
        mode = torch._guards.detect_fake_mode([flat[i] for i in places])
        with mode if mode is not None else contextlib.nullcontext():
            made = torch.fx.experimental.proxy_tensor.make_fx(call)(*[flat[i] for i in places])
    except Exception:  # whatever it is, the operator stays whole
        return None
    inside = [n.target for n in made.graph.nodes if n.op == "call_function" and n.target is not operator.getitem]
    bad = any(not isinstance(t, torch._ops.OpOverload) or t.namespace != "aten" or t is op for t in inside)
    return None if bad else made


def _state(module: nn.Module) -> dict[str, tuple[str, str, Tensor]]:
    """Every name of a parameter or buffer -> its kind, its first name, and the tensor."""
    first: dict[int, str] = {}
    found = {}
    for kind, named in (("param", module.named_parameters), ("buffer", module.named_buffers)):
        for name, tensor in named(remove_duplicate=False):
            found[name] = (kind, first.setdefault(id(tensor), name), tensor)
    return found
