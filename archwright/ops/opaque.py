"""Any operator of PyTorch, called by name: what is left of a captured module where no op of ours says what it does.

    target  "namespace.operator.overload", as in "aten.cosine_similarity.default"
    args    its arguments, and `kwargs` those by name. Beside JSON values:
            {"input": i}          input i of the node
            {"batch": k}          k times the size of dimension 0 of input 0
            {"dtype": "float32"}  and "memory_format", "layout" and "device" likewise: torch's own names

The outputs are the tensors that the operator returns, in order. What they are and what they cost is found by running
the operator on tensors without data. All axes are pinned. Operators that write into their arguments, that read files or
that return no tensor are refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Attrs, Type
from archwright.ops.base import A, Attr, Cost, Op, Source, Types

_NAMED = {"dtype": torch.dtype, "memory_format": torch.memory_format, "layout": torch.layout}
"""Tags of arguments that are constants of torch -> what they have to be."""


@lru_cache(maxsize=4096)
def operator(target: str) -> torch._ops.OpOverload:
    """The operator of that name. Raises `TypeMismatch` if there is none, or if it isn't a pure function of tensors."""
    names = target.split(".")
    found: Any = None
    if len(names) == 3 and all(name.isidentifier() and not name.startswith("__") for name in names):
        found = getattr(torch.ops, names[0], None)
        if isinstance(found, torch._ops._OpNamespace):
            found = getattr(found, names[1], None)
        if isinstance(found, torch._ops.OpOverloadPacket) and names[2] in found.overloads():
            found = getattr(found, names[2])
    if not isinstance(found, torch._ops.OpOverload):
        raise TypeMismatch(
            f"unknown operator '{target}': expected a name like 'aten.relu.default' that this PyTorch has; "
            "if another package registers it, import that first"
        )
    schema = found._schema
    if schema.is_mutable:
        raise TypeMismatch(f"operator '{target}' writes into its arguments: expected one that only computes")
    if any(argument.name == "filename" for argument in schema.arguments):
        raise TypeMismatch(f"operator '{target}' reads files: expected one that only computes")
    return found


def _decode(value: Any, x: Sequence[torch.Tensor], device: Any) -> Any:
    """An argument as the operator takes it."""
    if isinstance(value, (tuple, list)):
        return [_decode(item, x, device) for item in value]
    if isinstance(value, Mapping):
        if len(value) == 1:
            [(tag, item)] = value.items()
            if tag == "input" and type(item) is int and 0 <= item < len(x):
                return x[item]
            if tag == "batch" and type(item) is int and x and x[0].dim():
                return item * x[0].shape[0]
            if tag == "device" and isinstance(item, str):
                return device
            if tag in _NAMED and isinstance(item, str) and isinstance(getattr(torch, item, None), _NAMED[tag]):
                return getattr(torch, item)
        raise TypeMismatch(
            f"argument {dict(value)} has no meaning with {len(x)} inputs: expected one of input (a number below that), "
            f"batch, device, {', '.join(_NAMED)}"
        )
    return float(value) if value in ("inf", "-inf") else value


def _call(target: str, args: Any, kwargs: Any, x: Sequence[torch.Tensor], device: Any) -> tuple[torch.Tensor, ...]:
    """Call the operator, which makes new tensors on that device, and gather the tensors that it returns."""
    op = operator(target)
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, Mapping):
        raise TypeMismatch(f"args is {args!r} and kwargs {kwargs!r}, expected a list and a mapping")
    given = {name: _decode(value, x, device) for name, value in kwargs.items()}
    if any(argument.name == "device" and argument.kwarg_only for argument in op._schema.arguments):
        given["device"] = device
    return tensors(op(*[_decode(value, x, device) for value in args], **given))


def tensors(made):
    """The tensors in what an operator returns: one tensor, or tuples and lists of tensors and other things."""
    if isinstance(made, torch.Tensor):
        return (made,)
    return tuple([t for item in made for t in tensors(item)]) if isinstance(made, (tuple, list)) else ()


@lru_cache(maxsize=4096)
def _traced(target: str, text: str, x: Types) -> tuple[tuple[Type, ...], Cost]:
    """Output types and cost, by running the operator without data. `text` is [args, kwargs] as JSON."""
    args, kwargs = json.loads(text)
    operator(target)

    def on_meta() -> tuple[tuple[Type, ...], Cost]:
        return _measure(target, args, kwargs, x, "meta")

    def on_fake() -> tuple[tuple[Type, ...], Cost]:
        with FakeTensorMode():
            return _measure(target, args, kwargs, x, "cpu")

    try:
        try:
            return on_meta()
        except NotImplementedError:  # no kernel for meta tensors, but perhaps a decomposition
            return on_fake()
    except TypeMismatch:
        raise
    except Exception as error:  # operators raise whatever they like
        given = ", ".join(map(str, x)) or "no inputs"
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, DynamicOutputShapeException | DataDependentOutputException):
            reason = "the size of its output depends on the data"
        raise TypeMismatch(f"operator '{target}' cannot take {given}: {reason}") from error


def _measure(target: str, args: Any, kwargs: Any, x: Types, device: str) -> tuple[tuple[Type, ...], Cost]:
    inputs = [torch.empty(t.shape, dtype=getattr(torch, t.dtype), device=device) for t in x]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made = _call(target, args, kwargs, inputs, device)
    if not made:
        raise TypeMismatch(f"operator '{target}' returns no tensor: expected one that does")
    types = tuple([Type(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in made])
    for t in types:
        if t.dtype not in DTYPES:
            raise TypeMismatch(f"operator '{target}' returns {t}, expected one of the dtypes {', '.join(DTYPES)}")
    keeps, extra = _kept(lambda: _call(target, args, kwargs, inputs, device), inputs)
    return types, Cost(counter.get_total_flops(), keeps, extra)


def _kept(run: Callable[[], Sequence[torch.Tensor]], inputs: Sequence[torch.Tensor]) -> tuple[tuple[str, ...], int]:
    """Which inputs and outputs autograd keeps, and the bytes that it keeps beside them; nothing if it has no rule."""
    saved: list[torch.Tensor] = []

    def keep(t: torch.Tensor) -> torch.Tensor:
        saved.append(t)
        return t

    for t in inputs:
        t.requires_grad_(t.is_floating_point() or t.is_complex())
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            made = run()
    except Exception:  # no formula for the gradient, or none without data
        return (), 0
    named = {t.untyped_storage()._cdata: f"y{i}" for i, t in reversed([*enumerate(made)])}
    named |= {t.untyped_storage()._cdata: f"x{i}" for i, t in reversed([*enumerate(inputs)])}
    found = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in saved}
    keeps = tuple(sorted({named[key] for key in found if key in named}))
    return keeps, sum(n for key, n in found.items() if key not in named)


def _facts(a: A, x: Types) -> tuple[tuple[Type, ...], Cost]:
    return _traced(a["target"], json.dumps([a["args"], a["kwargs"]]), tuple(x))


def _infer(a: A, x: Types) -> tuple[Type, ...]:
    return _facts(a, x)[0]


def _cost(a: A, x: Types, y: Types) -> Cost:
    return _facts(a, x)[1]


def _run(a: A, x, w, train):
    made = _call(a["target"], a["args"], a["kwargs"], x, x[0].device if x else "cpu")
    return made[0] if len(made) == 1 else made


def _text(value: Any) -> str:
    """An argument as source text."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        [(tag, item)] = value.items()
        return {
            "input": f"{{x{item}}}", "batch": f"{item} * {{x0}}.shape[0]", "device": "{x0}.device",
        }.get(tag, f"torch.{item}")  # fmt: skip
    if value in ("inf", "-inf"):
        return f"float('{value}')"
    return repr(value).replace("{", "{{").replace("}", "}}")


def _source(a: A, x: Types, y: Types) -> Source:
    op = operator(a["target"])
    args = [_text(value) for value in a["args"]]
    named = {name: _text(value) for name, value in a["kwargs"].items()}
    if x and any(argument.name == "device" and argument.kwarg_only for argument in op._schema.arguments):
        named["device"] = "{x0}.device"
    args += [f"{name}={text}" for name, text in named.items()]
    call = f"torch.ops.{a['target']}({', '.join(args)})"
    if [str(value.type) for value in op._schema.returns] == ["Tensor"] * len(y):
        return Source(call)
    call = f"tensors({call})"
    return Source(call if len(y) > 1 else f"{call}[0]", helpers=(tensors,))


OPS = (
    Op(
        "opaque", _infer, _run,
        {"target": Attr("str"), "args": Attr("any", ()), "kwargs": Attr("any", Attrs())}, inputs=(0, None), cost=_cost,
        source=_source, doc="A PyTorch operator by name. Nothing is known of its axes, and ONNX has no form of it.",
    ),
)  # fmt: skip
