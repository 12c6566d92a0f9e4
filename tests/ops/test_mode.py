"""What happens in one mode only: by_mode, state, update, after and check, each op alone and in a net."""

import pytest
import torch

import archwright as aw
from archwright import ops
from archwright.errors import TypeMismatch
from tests.ops.harness import check

X, Y = torch.randn(2, 3), torch.randn(2, 3)


def test_by_mode():
    check("by_mode", {}, [X, Y], reference=lambda x, y: y)
    check("by_mode", {}, [X, Y], reference=lambda x, y: x, train=True)
    with pytest.raises(TypeMismatch, match="expected one type"):
        check("by_mode", {}, [X, torch.randn(2, 4)])


def test_update():
    def run(x, value):
        value.copy_(x.detach())
        return x

    check("update", {}, [X], batch_dim=None, reference=lambda x, value: x)
    check("update", {}, [X], batch_dim=None, reference=run, train=True)


def test_after():
    check("after", {}, [X, Y], reference=lambda x, y: x)


def test_check():
    yes = torch.ones(2, 3, dtype=torch.bool)
    check("check", {"message": "{no}"}, [X, yes], reference=lambda x, y: x, vmap=False)
    with pytest.raises(RuntimeError, match="no"):
        check("check", {"message": "no"}, [X, yes.logical_not()], vmap=False)
    with pytest.raises(TypeMismatch, match="expected bool"):
        check("check", {}, [X, Y])


def test_state():
    check("state", {"shape": (2, 3)}, [], reference=lambda value: value)
    check("state", {"shape": (2, 3)}, [], reference=lambda value: value.clone(), train=True)


def counting():
    """x + count, with a buffer that counts runs in training, and noise in training only."""
    g = ops.edit()
    x = g.input("x", (None, 3))
    count = g.add("state", shape=(1,), name="read", slot="count")
    more = g.add("update", g.add("add", count, value=1.0), name="write", slot="count")
    noisy = g.add("add", x, g.add("random_like", x, kind="normal"))
    return g.finish(g.add("after", g.add("add", g.add("by_mode", noisy, x), count), more))


def test_only_what_a_mode_needs_is_run():
    graph = counting()
    train, evaluation = ops.reads(graph, True), ops.reads(graph, False)
    assert "random_like" in train and "random_like" not in evaluation
    assert "write" in train and "write" not in evaluation
    assert set(ops.reads(graph)) == set(train) | set(evaluation)


@pytest.mark.parametrize("how", ["build", "run"])
def test_a_buffer_that_training_changes(how):
    net = aw.init(counting())
    weights = {name: tensor.clone() for name, tensor in net.weights.items()}
    built = aw.build(net)

    def call(train):
        if how == "build":
            return built.train(train)(X)
        return ops.run(net.graph, weights, [X], train)[0]

    def count():
        return float(built.count if how == "build" else weights["count"])

    assert torch.equal(call(False), X)
    assert count() == 0
    torch.manual_seed(0)
    noise = torch.randn(2, 3)
    for step in range(3):
        torch.manual_seed(0)
        torch.testing.assert_close(call(True), X + noise + step)
        assert count() == step + 1
    torch.manual_seed(0)
    call(False)
    assert torch.equal(torch.randn(2, 3), noise)  # nothing was drawn
