"""Where values come from: the graph's arguments, learned parameters and constants."""

from __future__ import annotations

from archwright.errors import GraphError
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Op, Param, Source, Types, labels


def _infer_input(a: A, x: Types) -> tuple[Type, ...]:
    raise GraphError("the type of an input depends on the batch size: use archwright.ops.infer on the graph")


def _run_input(a: A, x, w, train):
    raise GraphError("an input is given, not run")


def _infer_param(a: A, x: Types) -> tuple[Type, ...]:
    return (Type(a["shape"], a["dtype"]),)


def _params_param(a: A, x: Types) -> dict[str, Param]:
    return {"": Param(a["shape"], tuple(a["init"]), a["dtype"])}


def _params_buffer(a: A, x: Types) -> dict[str, Param]:
    return {"": Param(a["shape"], tuple(a["init"]), a["dtype"], buffer=True)}


def _run_param(a: A, x, w, train):
    return w[""]


def _axes_param(a: A, x: Types, y: Types) -> Axes:
    dims = labels(a["shape"])
    return Axes((), (dims,), {"": dims}, attrs={"shape": dims})


def _onnx_param(o, a, x, w, xt, yt):
    return w[""]


def _source_param(a: A, x: Types, y: Types) -> Source:
    return Source("{value}")


_DTYPE = Attr("str", "float32", tuple(DTYPES))

OPS = (
    Op(
        "input", _infer_input, _run_input, {"shape": Attr("shape"), "dtype": _DTYPE}, inputs=(0, 0),
        doc="An argument of the graph. In shape, null stands for the batch.",
    ),
    Op(
        "param", _infer_param, _run_param,
        {"shape": Attr("ints"), "dtype": _DTYPE, "init": Attr("any", ("zeros",))}, inputs=(0, 0),
        params=_params_param, axes=_axes_param, onnx=_onnx_param, source=_source_param,
        doc="A learned tensor as a value: the weight's name is the slot itself.",
    ),
    Op(
        "buffer", _infer_param, _run_param,
        {"shape": Attr("ints"), "dtype": _DTYPE, "init": Attr("any", ("zeros",))}, inputs=(0, 0),
        params=_params_buffer, axes=_axes_param, onnx=_onnx_param, source=_source_param,
        doc="A constant tensor as a value: the weight's name is the slot itself.",
    ),
)  # fmt: skip
