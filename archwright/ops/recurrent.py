"""Recurrent layers and cells: lstm, gru and rnn over a sequence; lstm_cell, gru_cell and rnn_cell for one step.

    rnn   h' = tanh(W x + b + U h + c)                                            (or relu)
    gru   r, z = sigmoid(W x + b + U h + c); n = tanh(W x + b + r (U h + c)); h' = (1 - z) n + z h
    lstm  i, f, g, o = W x + b + U h + c; c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c')
          with proj > 0: h' = P sigmoid(o) tanh(c'), of width proj

Shapes: x [T, N, I] (batch_first: [N, T, I]) -> out [T, N, D R], the last h [layers D, N, R] and, for lstm, the last c
[layers D, N, hidden], where D is 2 if bidirectional, else 1, and R is proj or hidden. Initial states are zero where
they are not given. Weights have torch's names and gate orders: weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0,
weight_hr_l0 (proj), then "_reverse" for the way back, then l1 ...

All layers and directions have one size `hidden`, so that they are one axis: a unit is removed from all of them at once.
A unit is read by the others at the next step: the recurrent weights sum over it.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from archwright.errors import TypeMismatch
from archwright.ir import DTYPES, Type
from archwright.ops.base import A, Attr, Axes, Cat, Cost, Dim, Dims, Op, Param, Source, Types, need_float, need_rank


class _Kind(NamedTuple):
    """What tells the three apart.

    order   for each gate of ONNX, its place among torch's
    kept    tensors of width `hidden` that autograd keeps for each step, with torch's plain kernels
    """

    name: str
    gates: int
    states: int
    order: tuple[int, ...]
    kept: int


_LSTM = _Kind("lstm", 4, 2, (0, 3, 1, 2), 7)
_GRU = _Kind("gru", 3, 1, (1, 0, 2), 7)
_RNN = _Kind("rnn", 1, 1, (0,), 1)


def _weights_of(kind: _Kind, a: A, inside: int, suffix: str = "", proj: int = 0) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of one layer in one direction, in torch's order."""
    rows = kind.gates * a["hidden"]
    found: dict[str, tuple[int, ...]] = {
        f"weight_ih{suffix}": (rows, inside),
        f"weight_hh{suffix}": (rows, proj or a["hidden"]),
    }
    if a["bias"]:
        found |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
    if proj:
        found[f"weight_hr{suffix}"] = (proj, a["hidden"])
    return found


def _axes_of(kind: _Kind, name: str, inside: Dims, h: Dim, out: Dim) -> Dims:
    """Terms of a weight, from those of what the layer reads, of `hidden` and of the width of its h."""
    gates = Cat(*[h] * kind.gates) if kind.gates > 1 else h
    if name.startswith("weight_ih"):
        return (gates, *inside)
    if name.startswith("weight_hh"):
        return (gates, out)
    return (out, h) if name.startswith("weight_hr") else (gates,)


# ---------------------------------------------------------------------------------------------------- plain formulas
def recurrent_step(kind, x, u, state):
    """The next (h, c) from W x + b, U h + c, and the state that is carried: c of an lstm, h of the others."""
    if kind == "lstm":
        i, f, g, o = (x + u).chunk(4, -1)
        c = f.sigmoid() * state + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if kind == "gru":
        (xr, xz, xn), (ur, uz, un) = x.chunk(3, -1), u.chunk(3, -1)
        n = (xn + (xr + ur).sigmoid() * un).tanh()
        h = n + (xz + uz).sigmoid() * (state - n)
    else:
        h = (x + u).tanh() if kind == "tanh" else (x + u).relu()
    return h, h


def recurrent_layers(kind, x, h0, c0, weights, layers, bias, batch_first, dropout, bidirectional, training):
    """What torch.lstm, torch.gru, torch.rnn_tanh ("tanh") and torch.rnn_relu ("relu") compute, step by step."""
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    last_h, last_c = [], []
    for layer in range(layers):
        if layer:
            x = F.dropout(x, dropout, training)
        made = []
        for direction in range(directions):
            place = layer * directions + direction
            w = weights[place * each : (place + 1) * each]
            b, c = (w[2], w[3]) if bias else (None, None)
            projection = w[-1] if len(w) == (5 if bias else 3) else None
            h, state = h0[place], (h0 if c0 is None else c0)[place]
            steps = F.linear(x, w[0], b).unbind(0)
            ys = []
            for step in reversed(steps) if direction else steps:
                h, state = recurrent_step(kind, step, F.linear(h, w[1], c), state)
                h = h if projection is None else F.linear(h, projection)
                ys.append(h)
            made.append(torch.stack(ys[::-1] if direction else ys))
            last_h.append(h)
            last_c.append(state)
        x = torch.cat(made, -1)
    x = x.transpose(0, 1) if batch_first else x
    return (x, torch.stack(last_h)) + (() if c0 is None else (torch.stack(last_c),))


# ----------------------------------------------------------------------------------------------------------- layers
class _Sizes(NamedTuple):
    """steps, batch, input width, width of h, number of directions, number of (layer, direction) pairs."""

    steps: int
    batch: int
    inside: int
    out: int
    directions: int
    stacked: int


def _sizes(a: A, x: Types) -> _Sizes:
    first, second, inside = x[0].shape
    steps, batch = (second, first) if a["batch_first"] else (first, second)
    directions = 2 if a["bidirectional"] else 1
    return _Sizes(steps, batch, inside, a.get("proj", 0) or a["hidden"], directions, directions * a["layers"])


def _suffixes(a: A) -> list[tuple[int, str]]:
    """(layer, suffix of the weights' names) for each layer and direction, in torch's order."""
    ways = ("", "_reverse") if a["bidirectional"] else ("",)
    return [(layer, f"_l{layer}{way}") for layer in range(a["layers"]) for way in ways]


def _infer(kind: _Kind, a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 3, 3)
    need_float(x[0])
    s = _sizes(a, x)
    if len(x) not in (1, 1 + kind.states):
        raise TypeMismatch(f"{len(x)} inputs, expected 1 or {1 + kind.states}: x, or x and all initial states")
    if not 0 <= a["dropout"] <= 1:
        raise TypeMismatch(f"dropout={a['dropout']}, expected a probability from 0 to 1")
    if a.get("proj", 0) < 0:
        raise TypeMismatch(f"proj={a['proj']}, expected 0 (none) or a width")
    if not s.steps:
        raise TypeMismatch(f"input is {x[0]}, expected a sequence of at least one step")
    states = [(s.stacked, s.batch, s.out), (s.stacked, s.batch, a["hidden"])][: kind.states]
    for t, shape, what in zip(x[1:], states, ("h", "c"), strict=False):
        if t.shape != shape:
            raise TypeMismatch(f"initial {what} is {t}, expected shape {list(shape)}")
    out = Type((*x[0].shape[:2], s.directions * s.out), x[0].dtype)
    return (out, *(Type(shape, x[0].dtype) for shape in states))


def _shapes(kind: _Kind, a: A, x: Types) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights, in torch's order."""
    s = _sizes(a, x)
    found: dict[str, tuple[int, ...]] = {}
    for layer, suffix in _suffixes(a):
        found |= _weights_of(kind, a, s.directions * s.out if layer else s.inside, suffix, a.get("proj", 0))
    return found


def _params(kind: _Kind, a: A, x: Types) -> dict[str, Param]:
    init = ("uniform", 1 / math.sqrt(a["hidden"]))
    return {name: Param(shape, init, x[0].dtype) for name, shape in _shapes(kind, a, x).items()}


def _cost(kind: _Kind, a: A, x: Types, y: Types) -> Cost:
    s = _sizes(a, x)
    matrices = sum(math.prod(shape) for shape in _shapes(kind, a, x).values() if len(shape) == 2)
    positions, nbytes = s.steps * s.batch, DTYPES[x[0].dtype]
    # Torch's plain kernels. Those of oneDNN, for float32 lstm on some CPUs, keep a workspace of about twice that
    kept = positions * s.stacked * (kind.kept * a["hidden"] + a.get("proj", 0))
    # what every layer but the first reads, and with dropout its mask
    kept += positions * (a["layers"] - 1) * s.directions * s.out * (2 if a["dropout"] else 1)
    # the initial states count among the steps' tensors, except that rnn keeps what it makes
    if kind is not _RNN:
        kept -= sum(t.numel for t in x[1:])
    elif len(x) == 1:
        kept += s.stacked * s.batch * a["hidden"]
    keeps = () if a["batch_first"] else ("x0",)  # if batch_first, a transposed copy
    extra = kept * nbytes + (x[0].nbytes if a["batch_first"] else 0)
    return Cost(2 * positions * matrices, (*keeps, "x1", "x2")[: len(keeps) + len(x) - 1], extra=extra)


_TORCH = {"lstm": torch.lstm, "gru": torch.gru, "tanh": torch.rnn_tanh, "relu": torch.rnn_relu}


def _under_vmap() -> bool:
    """Whether torch.func.vmap is at work: torch's own kernels have no batching rule."""
    if torch.compiler.is_compiling():
        return False
    levels = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Vmap for level in levels)


def _run(kind: _Kind, a: A, x, w, train):
    weights = [w[name] for _, suffix in _suffixes(a) for name in _weights_of(kind, a, 1, suffix, a.get("proj", 0))]
    states, proj, hidden = list(x[1:]), a.get("proj", 0), a["hidden"]
    if not states:
        batch = x[0].shape[0 if a["batch_first"] else 1]
        stacked = a["layers"] * (2 if a["bidirectional"] else 1)
        states = [x[0].new_zeros(stacked, batch, size) for size in (proj or hidden, hidden)[: kind.states]]
    name = a.get("nonlinearity", kind.name)
    if proj >= hidden or _under_vmap():
        return recurrent_layers(
            name, x[0], states[0], states[1] if kind is _LSTM else None, weights, a["layers"], a["bias"],
            a["batch_first"], a["dropout"], a["bidirectional"], train,
        )  # fmt: skip
    return _TORCH[name](
        x[0], states if kind is _LSTM else states[0], weights, a["bias"], a["layers"], a["dropout"], train,
        a["bidirectional"], a["batch_first"],
    )  # fmt: skip


def _axes(kind: _Kind, a: A, x: Types, y: Types) -> Axes:
    s, proj = _sizes(a, x), a.get("proj", 0)
    n, t, i, h = Dim("n", s.batch), Dim(None, s.steps), Dim("i", s.inside), Dim("h", a["hidden"])
    out = Dim("p", proj) if proj else h
    both = Cat(out, out) if s.directions == 2 else out

    def placed(wide: Dim | Cat) -> Dims:
        return (n, t, wide) if a["batch_first"] else (t, n, wide)

    states = [(Dim(None, s.stacked), n, out), (Dim(None, s.stacked), n, h)][: kind.states]
    named = {}
    for layer, suffix in _suffixes(a):
        for name in _weights_of(kind, a, 1, suffix, proj):
            named[name] = _axes_of(kind, name, (both if layer else i,), h, out)
    attrs = {"hidden": h} | ({"proj": out} if proj else {})
    # what reads h or, with proj, makes it from the cells; the first layer's inputs are seen outside
    sums = {name: 1 for name in named if name.startswith(("weight_hh", "weight_hr"))}
    sums |= {name: 1 for name in named if name.startswith("weight_ih") and "_l0" not in name}
    return Axes((placed(i), *states)[: len(x)], (placed(both), *states), named, attrs=attrs, sums=sums)


def _onnx_gates(kind: _Kind, a: A, o, weight: str) -> str:
    """A weight or bias with its gates in ONNX's order, and a first dimension for the direction."""
    if kind.gates > 1:
        parts = o.split(weight, [a["hidden"]] * kind.gates, 0)
        weight = o.concat([parts[place] for place in kind.order], 0)
    return o.unsqueeze(weight, 0)


def _onnx(kind: _Kind, o, a, x, w, xt, yt):
    value = o.transpose(x[0], (1, 0, 2)) if a["batch_first"] else x[0]
    if a.get("proj", 0):
        made = _onnx_projected(o, a, value, x, w, xt)
    else:
        made = _onnx_layers(kind, o, a, value, x, w, xt)
    return (o.transpose(made[0], (1, 0, 2)) if a["batch_first"] else made[0], *made[1:])


def _onnx_layers(kind: _Kind, o, a, value: str, x, w, xt) -> tuple[str, ...]:
    s = _sizes(a, xt)
    settings = {"hidden_size": a["hidden"], "direction": "bidirectional" if a["bidirectional"] else "forward"}
    if kind is _GRU:
        settings["linear_before_reset"] = 1
    if kind is _RNN:
        settings["activations"] = [a["nonlinearity"].capitalize()] * s.directions
    lasts: list[list[str]] = []
    for layer in range(a["layers"]):
        ways = [suffix for at, suffix in _suffixes(a) if at == layer]

        def gathered(stem: str, ways=ways) -> str:
            return o.concat([_onnx_gates(kind, a, o, w[stem + way]) for way in ways], 0)

        bias = o.concat([gathered("bias_ih"), gathered("bias_hh")], 1) if a["bias"] else None
        first = layer * s.directions
        states = [o.slice(given, 0, first, first + s.directions) for given in x[1:]]
        operands = [value, gathered("weight_ih"), gathered("weight_hh"), bias, None, *states]
        y, *last = o.node(kind.name.upper(), operands, outputs=1 + kind.states, **settings)
        lasts.append(last)
        value = o.reshape(o.transpose(y, (0, 2, 1, 3)), 0, 0, -1)  # [T, D, N, H] -> [T, N, D H]
    return (value, *(o.concat(list(parts), 0) for parts in zip(*lasts, strict=True)))


def _onnx_projected(o, a, value: str, x, w, xt) -> tuple[str, ...]:
    """An lstm with projection, which ONNX does not have, as scans."""
    s, dtype = _sizes(a, xt), xt[0].dtype
    batch = o.dim(value, 1)
    lasts: list[tuple[str, str]] = []
    layers: list[list[str]] = [[] for _ in range(a["layers"])]
    for place, (layer, suffix) in enumerate(_suffixes(a)):
        if layer and place % s.directions == 0:
            value = o.concat(layers[layer - 1], -1)
        widths = (s.out, a["hidden"])
        if len(x) > 1:
            states = [o.squeeze(o.slice(given, 0, place, place + 1), 0) for given in x[1:]]
        else:
            states = [o.full(o.concat_ints(batch, width), 0.0, dtype) for width in widths]
        gates = o.node("MatMul", [value, o.transpose(w[f"weight_ih{suffix}"], (1, 0))])
        for name in ("bias_ih", "bias_hh") if a["bias"] else ():
            gates = o.node("Add", [gates, w[name + suffix]])
        body = o.body()
        h, c, step = (body.fresh(stem) for stem in ("h", "c", "x"))
        four = body.node("Add", [step, body.node("Gemm", [h, w[f"weight_hh{suffix}"]], transB=1)])
        i, f, g, out = body.node("Split", [four], outputs=4, axis=-1, num_outputs=4)
        kept = body.node("Mul", [body.node("Sigmoid", [f]), c])
        added = body.node("Mul", [body.node("Sigmoid", [i]), body.node("Tanh", [g])])
        next_c = body.node("Add", [kept, added])
        wide = body.node("Mul", [body.node("Sigmoid", [out]), body.node("Tanh", [next_c])])
        next_h = body.node("Gemm", [wide, w[f"weight_hr{suffix}"]], transB=1)
        y = body.node("Identity", [next_h])
        t = [Type((s.batch, width), dtype) for width in (s.out, a["hidden"], 4 * a["hidden"], s.out)]
        back = int(suffix.endswith("_reverse"))
        last_h, last_c, ys = o.node(
            "Scan", [*states, gates], outputs=3, num_scan_inputs=1, scan_input_directions=[back],
            scan_output_directions=[back],
            body=body.graph([(h, t[0]), (c, t[1]), (step, t[2])], [(next_h, t[0]), (next_c, t[1]), (y, t[3])]),
        )  # fmt: skip
        layers[layer].append(ys)
        lasts.append((last_h, last_c))
    stacked = [o.concat([o.unsqueeze(last, 0) for last in parts], 0) for parts in zip(*lasts, strict=True)]
    return (o.concat(layers[-1], -1), *stacked)


def unpack_lstm(result):
    """out, h and c out of what torch.nn.LSTM returns."""
    out, (h, c) = result
    return out, h, c


def _source(kind: _Kind, a: A, x: Types, y: Types) -> Source:
    hidden, inside = a["hidden"], x[0].shape[-1]
    if a.get("proj", 0) >= hidden:
        return _source_layers(kind, a, x)
    options = ""
    for name, option, default in (
        ("layers", "num_layers", 1), ("nonlinearity", "nonlinearity", "tanh"), ("bias", "bias", True),
        ("batch_first", "batch_first", False), ("dropout", "dropout", 0.0), ("bidirectional", "bidirectional", False),
        ("proj", "proj_size", 0),
    ):  # fmt: skip
        # with one layer there is nothing between layers, and torch warns if there is a dropout
        if a.get(name, default) != default and not (name == "dropout" and a["layers"] == 1):
            options += f", {option}={a[name]!r}"
    module = f"nn.{kind.name.upper()}({inside}, {hidden}{options})"
    if kind is _LSTM:
        states = ", ({x1}, {x2})" if len(x) > 1 else ""
        return Source(f"unpack_lstm({{self}}({{x0}}{states}))", module, (unpack_lstm,))
    return Source("{self}({x})", module)


def _source_layers(kind: _Kind, a: A, x: Types) -> Source:
    s = _sizes(a, x)
    batch = f"{{x0}}.shape[{0 if a['batch_first'] else 1}]"
    zeros = [f"{{x0}}.new_zeros({s.stacked}, {batch}, {width})" for width in (s.out, a["hidden"])]
    h, c = ("{x1}", "{x2}") if len(x) > 1 else zeros
    weights = ", ".join("{" + name + "}" for name in _shapes(kind, a, x))
    rest = ", ".join(repr(a[name]) for name in ("layers", "bias", "batch_first", "dropout", "bidirectional"))
    return Source(
        f"recurrent_layers({kind.name!r}, {{x0}}, {h}, {c}, [{weights}], {rest}, {{training}})",
        helpers=(recurrent_step, recurrent_layers),
    )


# ------------------------------------------------------------------------------------------------------------ cells
def _cell_infer(kind: _Kind, a: A, x: Types) -> tuple[Type, ...]:
    need_rank(x[0], 2, 2)
    need_float(x[0])
    state = Type((x[0].shape[0], a["hidden"]), x[0].dtype)
    for t, what in zip(x[1:], ("h", "c"), strict=False):
        if t.shape != state.shape:
            raise TypeMismatch(f"{what} is {t}, expected shape {list(state.shape)}")
    return (state,) * kind.states


def _cell_params(kind: _Kind, a: A, x: Types) -> dict[str, Param]:
    init = ("uniform", 1 / math.sqrt(a["hidden"]))
    return {name: Param(s, init, x[0].dtype) for name, s in _weights_of(kind, a, x[0].shape[1]).items()}


def _cell_cost(kind: _Kind, a: A, x: Types, y: Types) -> Cost:
    batch, inside = x[0].shape
    flops = 2 * batch * kind.gates * a["hidden"] * (inside + a["hidden"])
    if kind is _RNN:
        return Cost(flops, ("x0", "x1", "y0"))
    # the given states are among what is kept; an lstm keeps its gates and c, a gru its gates and three more
    kept = batch * a["hidden"] * DTYPES[x[0].dtype] * (4 if kind is _LSTM else 6)
    return Cost(flops, ("x0", "x1", "x2", "y1") if kind is _LSTM else ("x0", "x1"), extra=kept)


def _cell_run(kind: _Kind, a: A, x, w, train):
    weights = (w["weight_ih"], w["weight_hh"], w.get("bias_ih"), w.get("bias_hh"))
    name = a.get("nonlinearity", kind.name)
    if _under_vmap():
        projected = F.linear(x[0], weights[0], weights[2]), F.linear(x[1], weights[1], weights[3])
        h, c = recurrent_step(name, *projected, x[-1])
        return (h, c) if kind is _LSTM else h
    if kind is _LSTM:
        return torch.lstm_cell(x[0], (x[1], x[2]), *weights)
    cell = {"gru": torch.gru_cell, "tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[name]
    return cell(x[0], x[1], *weights)


def _cell_axes(kind: _Kind, a: A, x: Types, y: Types) -> Axes:
    n, i, h = Dim("n", x[0].shape[0]), Dim("i", x[0].shape[1]), Dim("h", a["hidden"])
    named = {name: _axes_of(kind, name, (i,), h, h) for name in _weights_of(kind, a, 1)}
    states = ((n, h),) * kind.states
    return Axes(((n, i), *states), states, named, attrs={"hidden": h}, sums={"weight_hh": 1})


def _cell_onnx(kind: _Kind, o, a, x, w, xt, yt):
    wx, uh = (o.node("Gemm", [x[k], w[f"weight_{n}"], w.get(f"bias_{n}")], transB=1) for k, n in ((0, "ih"), (1, "hh")))
    if kind is _RNN:
        return o.node(a["nonlinearity"].capitalize(), [o.node("Add", [wx, uh])])
    parts = [a["hidden"]] * kind.gates
    if kind is _GRU:
        (xr, xz, xn), (ur, uz, un) = o.split(wx, parts, 1), o.split(uh, parts, 1)
        r, z = (o.node("Sigmoid", [o.node("Add", pair)]) for pair in ((xr, ur), (xz, uz)))
        n = o.node("Tanh", [o.node("Add", [xn, o.node("Mul", [r, un])])])
        return o.node("Add", [n, o.node("Mul", [z, o.node("Sub", [x[1], n])])])
    i, f, g, out = o.split(o.node("Add", [wx, uh]), parts, 1)
    kept = o.node("Mul", [o.node("Sigmoid", [f]), x[2]])
    c = o.node("Add", [kept, o.node("Mul", [o.node("Sigmoid", [i]), o.node("Tanh", [g])])])
    return o.node("Mul", [o.node("Sigmoid", [out]), o.node("Tanh", [c])]), c


def _cell_source(kind: _Kind, a: A, x: Types, y: Types) -> Source:
    options = "" if a["bias"] else ", bias=False"
    if a.get("nonlinearity", "tanh") != "tanh":
        options += f", nonlinearity={a['nonlinearity']!r}"
    module = f"nn.{kind.name.upper()}Cell({x[0].shape[1]}, {a['hidden']}{options})"
    return Source("{self}({x0}, ({x1}, {x2}))" if kind is _LSTM else "{self}({x})", module)


# -------------------------------------------------------------------------------------------------------------- ops
_HIDDEN = {"hidden": Attr("size"), "bias": Attr("bool", True)}
_LAYERS = {
    **_HIDDEN, "layers": Attr("size", 1), "batch_first": Attr("bool", False), "dropout": Attr("number", 0.0),
    "bidirectional": Attr("bool", False),
}  # fmt: skip
_SHAPE = {"nonlinearity": Attr("str", "tanh", ("tanh", "relu"))}


def _layer_op(kind: _Kind, extra: dict[str, Attr], doc: str) -> Op:
    return Op(
        kind.name, partial(_infer, kind), partial(_run, kind), {**_LAYERS, **extra}, inputs=(1, 1 + kind.states),
        params=partial(_params, kind), cost=partial(_cost, kind), axes=partial(_axes, kind), onnx=partial(_onnx, kind),
        source=partial(_source, kind), random=True, doc=doc,
    )  # fmt: skip


def _cell_op(kind: _Kind, extra: dict[str, Attr], doc: str) -> Op:
    return Op(
        f"{kind.name}_cell", partial(_cell_infer, kind), partial(_cell_run, kind), {**_HIDDEN, **extra},
        inputs=(1 + kind.states,) * 2, params=partial(_cell_params, kind), cost=partial(_cell_cost, kind),
        axes=partial(_cell_axes, kind), onnx=partial(_cell_onnx, kind), source=partial(_cell_source, kind), doc=doc,
    )  # fmt: skip


OPS = (
    _layer_op(_LSTM, {"proj": Attr("int", 0)}, "Long short-term memory over a sequence: out, last h, last c."),
    _layer_op(_GRU, {}, "Gated recurrent units over a sequence: out, last h."),
    _layer_op(_RNN, _SHAPE, "Plain recurrence over a sequence: out, last h."),
    _cell_op(_LSTM, {}, "One step of an lstm: (x, h, c) -> (h, c)."),
    _cell_op(_GRU, {}, "One step of a gru: (x, h) -> h."),
    _cell_op(_RNN, _SHAPE, "One step of a plain recurrence: (x, h) -> h."),
)
