"""What happens beside the numbers: values of one mode only, buffers that training changes, and assertions.

    by_mode  y = x0 in training, x1 in evaluation; the other one is not computed
    state    what a buffer holds when the net starts to run, though training changes it then
    update   in training, the buffer becomes x; y = x
    after    y = x0; in training, the further inputs are computed too
    check    y = x0, if all elements of the further inputs are true; else an error

A module that asks `if self.training` is two graphs with most nodes in common: they meet in `by_mode`. A buffer that
training changes, beside those of normalisations, is read by `state` and set by `update`, which `after` ties to an
output.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from archwright.errors import TypeMismatch
from archwright.ir import Type
from archwright.ops import source
from archwright.ops.base import A, Attr, Axes, Dims, Op, Param, Source, Types, labels, pin

_BUFFER = next(op for op in source.OPS if op.name == "buffer")


def _infer_by_mode(a: A, x: Types) -> tuple[Type, ...]:
    if x[0] != x[1]:
        raise TypeMismatch(f"inputs are {x[0]} in training and {x[1]} in evaluation, expected one type")
    return (x[0],)


def _run_by_mode(a: A, x, w, train):
    return x[0] if train else x[1]


def _modes_by_mode(a: A, n: int, train: bool) -> Sequence[int]:
    return (0,) if train else (1,)


def _axes_by_mode(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    return Axes((dims, dims), (dims,))


def _onnx_by_mode(o, a, x, w, xt, yt):
    return x[1]


def _source_by_mode(a: A, x: Types, y: Types) -> Source:
    return Source("{x0} if {training} else {x1}")


def _infer_state(a: A, x: Types) -> tuple[Type, ...]:
    return (Type(a["shape"], a["dtype"]),)


def _params_state(a: A, x: Types) -> dict[str, Param]:
    return {"": Param(a["shape"], tuple(a["init"]), a["dtype"], buffer=True)}


def _run_state(a: A, x, w, train):
    # a copy, as what comes after may be kept for the backward pass
    return w[""].clone() if train else w[""]


def _axes_state(a: A, x: Types, y: Types) -> Axes:
    dims = labels(a["shape"])
    return Axes((), (dims,), {"": dims}, attrs={"shape": dims})


def _onnx_state(o, a, x, w, xt, yt):
    return w[""]


def _source_state(a: A, x: Types, y: Types) -> Source:
    return Source("({value}.clone() if {training} else {value})")


def update(x, buffer, training):
    """Let the buffer become x, in training."""
    if training:
        buffer.copy_(x.detach())
    return x


def _params_update(a: A, x: Types) -> dict[str, Param]:
    return {"": Param(x[0].shape, ("zeros",), x[0].dtype, buffer=True)}


def _run_update(a: A, x, w, train):
    return update(x[0], w[""], train)


def _axes_update(a: A, x: Types, y: Types) -> Axes:
    dims: Dims = labels(x[0].shape)
    return Axes((dims,), (dims,), {"": dims})


def _onnx_first(o, a, x, w, xt, yt):
    return x[0]


def _source_update(a: A, x: Types, y: Types) -> Source:
    return Source("update({x0}, {value}, {training})", helpers=(update,))


def _infer_after(a: A, x: Types) -> tuple[Type, ...]:
    return (x[0],)


def _run_after(a: A, x, w, train):
    return x[0]


def _modes_after(a: A, n: int, train: bool) -> Sequence[int]:
    return range(n) if train else (0,)


def _axes_after(a: A, x: Types, y: Types) -> Axes:
    dims = labels(x[0].shape)
    return Axes((dims, *[pin(t.shape) for t in x[1:]]), (dims,))


def after(x, *others):
    """x, once the others are computed."""
    return x


def _source_after(a: A, x: Types, y: Types) -> Source:
    return Source("after({x})", helpers=(after,))


def check(message, x, *conditions):
    """x, if all the conditions hold."""
    for condition in conditions:
        torch._assert_async(condition.all(), message)
    return x


def _infer_check(a: A, x: Types) -> tuple[Type, ...]:
    if any(t.dtype != "bool" for t in x[1:]):
        raise TypeMismatch(f"conditions are {', '.join(map(str, x[1:]))}, expected bool")
    return (x[0],)


def _run_check(a: A, x, w, train):
    return check(a["message"], *x)


def _source_check(a: A, x: Types, y: Types) -> Source:
    message = repr(a["message"]).replace("{", "{{").replace("}", "}}")
    return Source(f"check({message}, {{x}})", helpers=(check,))


OPS = (
    Op(
        "by_mode", _infer_by_mode, _run_by_mode, {}, inputs=(2, 2), axes=_axes_by_mode, onnx=_onnx_by_mode,
        source=_source_by_mode, modes=_modes_by_mode, doc="The first input in training, the second in evaluation.",
    ),
    Op(
        "state", _infer_state, _run_state, _BUFFER.attrs, inputs=(0, 0), params=_params_state, axes=_axes_state,
        onnx=_onnx_state, source=_source_state,
        doc="A buffer that training changes, as it is when the net starts to run.",
    ),
    Op(
        "update", _infer_after, _run_update, {}, params=_params_update, axes=_axes_update, onnx=_onnx_first,
        source=_source_update, stateful=True, doc="In training, the buffer becomes the input.",
    ),
    Op(
        "after", _infer_after, _run_after, {}, inputs=(1, None), axes=_axes_after, onnx=_onnx_first,
        source=_source_after, modes=_modes_after, doc="The first input; in training the others are computed too.",
    ),
    Op(
        "check", _infer_check, _run_check, {"message": Attr("str", "a condition does not hold")}, inputs=(1, None),
        axes=_axes_after, onnx=_onnx_first, source=_source_check,
        doc="The first input, if all elements of the others are true; else an error with the message.",
    ),
)  # fmt: skip
