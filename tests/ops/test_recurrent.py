"""lstm, gru, rnn and their cells against torch.nn, over random settings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from archwright import ops
from archwright.errors import TypeMismatch
from archwright.ir import Attrs, Type
from archwright.ops.recurrent import recurrent_layers
from tests.ops.harness import _zeroed as zeroed
from tests.ops.harness import check, draw, take

some = settings(max_examples=12, deadline=None, derandomize=True)
sizes, flags = st.integers(1, 5), st.booleans()
MODULES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def numbers(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Layers(nn.Module):
    """A torch.nn layer that takes its states one by one and gives them back so; the weights keep their names."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self._parameters, self.made = made._parameters, [made]

    def forward(self, x, *states):
        made = self.made[0].train(self.training)
        made._flat_weights = [getattr(made, name) for name in made._flat_weights_names]
        out, last = made(x, states if len(states) == 2 else states[0]) if states else made(x)
        return (out, *last) if isinstance(last, tuple) else (out, last)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@some
@given(sizes, st.integers(1, 3), sizes, st.integers(2, 5), st.integers(1, 3), st.tuples(*[flags] * 6))
def test_layers(kind, steps, batch, inside, hidden, layers, switches):
    bias, batch_first, bidirectional, given_states, other, train = switches
    dropout = 0.4 if train and layers > 1 else 0.0
    attrs = {"hidden": hidden, "layers": layers, "bias": bias, "batch_first": batch_first, "dropout": dropout,
             "bidirectional": bidirectional}  # fmt: skip
    options = {"num_layers": layers, "bias": bias, "batch_first": batch_first, "dropout": dropout,
               "bidirectional": bidirectional}  # fmt: skip
    out = hidden
    if other and kind == "rnn":
        attrs["nonlinearity"] = options["nonlinearity"] = "relu"
    if other and kind == "lstm":
        out = attrs["proj"] = options["proj_size"] = hidden - 1
    x = [numbers(batch, steps, inside) if batch_first else numbers(steps, batch, inside)]
    dims = [0 if batch_first else 1]
    if given_states:
        stacked = layers * (2 if bidirectional else 1)
        widths = [out, hidden] if kind == "lstm" else [out]
        x += [numbers(stacked, batch, width, seed=width) for width in widths]
        dims += [1] * len(widths)
    check(kind, attrs, x, reference=Layers(MODULES[kind](inside, hidden, **options)), batch_dim=dims, train=train,
          rtol=1e-4, atol=1e-5, keeps=False)  # fmt: skip


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("attrs", [
    {}, {"batch_first": True}, {"layers": 2}, {"layers": 2, "dropout": 0.5}, {"bidirectional": True, "layers": 2},
    {"bias": False},
])  # fmt: skip
@pytest.mark.parametrize("given_states", [False, True])
def test_what_autograd_keeps(kind, attrs, given_states):
    """In double precision: for single precision torch may use oneDNN, whose workspace is its own affair."""
    x = [numbers(12, 10, 7).double()]
    if given_states:
        stacked = attrs.get("layers", 1) * (2 if attrs.get("bidirectional") else 1)
        batch = 12 if attrs.get("batch_first") else 10
        x += [numbers(stacked, batch, 16).double() for _ in range(2 if kind == "lstm" else 1)]
    check(kind, {"hidden": 16, **attrs}, x, batch_dim=None, axes=False, onnx=False, source=False, vmap=False)


def test_what_autograd_keeps_with_a_projection():
    check("lstm", {"hidden": 16, "proj": 9}, [numbers(12, 10, 7).double()], batch_dim=1, onnx=False, source=False)


@pytest.mark.parametrize("attrs", [{}, {"layers": 2, "bidirectional": True, "batch_first": True}])
def test_projections_as_wide_as_the_state(attrs):
    """Torch has none, but removing units can lead there."""
    check("lstm", {"hidden": 3, "proj": 3, **attrs}, [numbers(2, 4, 5)], batch_dim=0 if attrs else 1, rtol=1e-4)
    check("lstm", {"hidden": 3, "proj": 4, **attrs}, [numbers(2, 4, 5)], batch_dim=0 if attrs else 1, rtol=1e-4)


@some
@given(st.sampled_from(["lstm", "gru", "tanh", "relu"]), st.integers(1, 2), flags, flags, flags)
def test_plain_formulas(kind, layers, bias, batch_first, bidirectional):
    """The step-by-step form, which serves under vmap and in written source."""
    name = kind if kind in MODULES else "rnn"
    options = {} if kind in MODULES else {"nonlinearity": kind}
    module = MODULES[name](4, 3, layers, bias=bias, batch_first=batch_first, bidirectional=bidirectional, **options)
    x, h, c = numbers(2, 5, 4), numbers(layers * (1 + bidirectional), 2 if batch_first else 5, 3), None
    if kind == "lstm":
        c = h * 2
    weights = list(module.parameters())
    got = recurrent_layers(kind, x, h, c, weights, layers, bias, batch_first, 0.0, bidirectional, False)
    out, last = module(x, h if c is None else (h, c))
    for a, b in zip(got, (out, *last) if c is not None else (out, last), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_nets_in_a_batch_train(kind):
    """Gradients under vmap are those of each net."""
    known = ops.facts(kind, Attrs(hidden=4, layers=2, dropout=0.5), (Type((3, 2, 5)),))
    sets = [draw(known.params, torch.Generator().manual_seed(seed)) for seed in range(2)]
    x = numbers(3, 2, 5)

    def loss(w, train):
        return known.op.run(known.a, [x], w, train)[0].square().sum()

    stacked = {name: torch.stack([w[name] for w in sets]) for name in sets[0]}
    got = torch.func.vmap(torch.func.grad(lambda w: loss(w, False)))(stacked)
    for index, w in enumerate(sets):
        leaves = {name: t.requires_grad_() for name, t in w.items()}
        wanted = torch.autograd.grad(loss(leaves, False), list(leaves.values()))
        for name, g in zip(leaves, wanted, strict=True):
            torch.testing.assert_close(got[name][index], g, rtol=1e-4, atol=1e-5)
    drawn = torch.func.vmap(lambda w: known.op.run(known.a, [x], w, True)[0], randomness="different")(stacked)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize(
    ("op", "attrs", "shapes"),
    [
        ("lstm", {"layers": 2, "bidirectional": True}, [(4, 2, 5)]),
        ("lstm", {"proj": 3}, [(4, 2, 5)]),
        ("gru", {"batch_first": True, "layers": 2}, [(4, 2, 5)]),
        ("rnn", {"bidirectional": True, "nonlinearity": "relu"}, [(4, 2, 5)]),
        ("lstm_cell", {}, [(2, 5), (2, 6), (2, 6)]),
        ("gru_cell", {}, [(2, 5), (2, 6)]),
        ("rnn_cell", {}, [(2, 5), (2, 6)]),
    ],
)
def test_a_unit_without_weights_can_be_left_out(op, attrs, shapes):
    known = ops.facts(op, Attrs(hidden=6, **attrs), tuple(Type(shape) for shape in shapes))
    axes = known.op.axes(known.a, known.x, known.y)
    keep = {"h": torch.tensor([0, 1, 3, 4, 5])}
    gone = {"h": torch.arange(6) == 2}
    weights = draw(known.params, torch.Generator().manual_seed(0))
    x = [zeroed(numbers(*shape, seed=len(shape)), dims, gone) for shape, dims in zip(shapes, axes.x, strict=True)]
    full = {name: zeroed(t, axes.w[name], gone) for name, t in weights.items()}
    wanted = known.op.run(known.a, x, full, False)
    small = ops.facts(op, Attrs(hidden=5, **attrs), tuple(
        Type(tuple(take(t, dims, keep).shape)) for t, dims in zip(x, axes.x, strict=True)
    ))  # fmt: skip
    got = small.op.run(
        small.a,
        [take(t, dims, keep) for t, dims in zip(x, axes.x, strict=True)],
        {name: take(t, axes.w[name], keep) for name, t in full.items()},
        False,
    )
    for a, b, dims in zip(*(v if isinstance(v, tuple) else (v,) for v in (got, wanted)), axes.y, strict=True):
        torch.testing.assert_close(a, take(b, dims, keep))


# ------------------------------------------------------------------------------------------------------------ cells
class Cell(nn.Module):
    """A torch.nn cell that takes its states one by one."""

    def __init__(self, made: nn.Module) -> None:
        super().__init__()
        self._parameters, self.made = made._parameters, [made]

    def forward(self, x, *states):
        return self.made[0](x, states if len(states) == 2 else states[0])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@some
@given(st.integers(1, 3), sizes, sizes, flags, flags)
def test_cells(kind, batch, inside, hidden, bias, relu):
    attrs, options = {"hidden": hidden, "bias": bias}, {"bias": bias}
    if kind == "rnn" and relu:
        attrs["nonlinearity"] = options["nonlinearity"] = "relu"
    made = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[kind](inside, hidden, **options)
    x = [numbers(batch, inside), numbers(batch, hidden, seed=4), numbers(batch, hidden, seed=5)]
    check(f"{kind}_cell", attrs, x if kind == "lstm" else x[:2], reference=Cell(made), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("bias", [False, True])
def test_what_autograd_keeps_in_cells(kind, bias):
    x = [numbers(40, 30), numbers(40, 50, seed=4), numbers(40, 50, seed=5)]
    check(f"{kind}_cell", {"hidden": 50, "bias": bias}, x if kind == "lstm" else x[:2], onnx=False, source=False)


def test_errors_say_what_was_got():
    with pytest.raises(TypeMismatch, match="expected 1 or 3"):
        ops.facts("lstm", Attrs(hidden=3), (Type((4, 2, 5)), Type((1, 2, 3))))
    with pytest.raises(TypeMismatch, match=r"initial h is .* expected shape \[1, 2, 3\]"):
        ops.facts("gru", Attrs(hidden=3), (Type((4, 2, 5)), Type((2, 2, 3))))
    with pytest.raises(TypeMismatch, match="expected rank 3"):
        ops.facts("rnn", Attrs(hidden=3), (Type((4, 2)),))
    with pytest.raises(TypeMismatch, match=r"c is .* expected shape \[4, 3\]"):
        ops.facts("lstm_cell", Attrs(hidden=3), (Type((4, 2)), Type((4, 3)), Type((4, 2))))
