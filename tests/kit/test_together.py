"""Nets trained side by side become what each becomes alone; who is let go stays as it was then; limits hold."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from archwright.core.checks import toys
from archwright.data.builtin import builtin
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS, Limits, Orders, Samples, Together, _kind, train_together
from archwright.net.net import example


def nets(count, kind="mlp", data="table"):
    source = builtin("wine") if data == "wine" else toys.data(data)
    return source, [toys.net(kind, source, seed) for seed in range(count)]


# a bias before a batch norm has a gradient of rounding errors alone, which AdamW blows up: not there
@pytest.mark.parametrize("kind, data, optimiser", [
    ("mlp", "table", "adamw"), ("mlp", "table", "sgd"), ("mlp", "regression", "adamw"), ("conv", "image", "sgd"),
])  # fmt: skip
def test_side_by_side_is_as_alone(kind, data, optimiser, monkeypatch):
    monkeypatch.setattr("archwright.kit.together._gains_by_bfloat16", lambda net: False)
    source, found = nets(3, kind, data)
    rates = ((1e-3, 0.1), (1e-2, 0.0), (3e-3, 1e-3))
    settings = [Settings(lr=lr, weight_decay=decay, optimiser=optimiser) for lr, decay in rates]
    samples = Samples(source)
    orders = [np.random.default_rng(i).permutation(source.splits["train"])[:16] for i in range(3)]
    rows = torch.from_numpy(np.stack(orders))
    together = Together(found, settings, source.task)
    alone = [Together([net], [s], source.task) for net, s in zip(found, settings, strict=True)]
    for factor in (1.0, 0.5, 0.1):
        inputs, target = samples(rows)
        losses = together.step(inputs, target, factor)
        for i, one in enumerate(alone):
            loss = one.step([x[i : i + 1] for x in inputs], target[i : i + 1], factor)
            torch.testing.assert_close(loss[0], losses[i], rtol=1e-4, atol=1e-5)
    held = source.splits["valid"]
    for one, y in zip(alone, together.predict(samples, [held] * 3), strict=True):
        np.testing.assert_allclose(one.predict(samples, [held])[0], y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimisers_are_those_of_torch(name):
    eager, settings = _kind(Settings(optimiser=name))
    weights = [torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0))) for _ in range(2)]
    kinds = (eager, {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name])
    both = [kind([w], lr=0.05, weight_decay=0.1, **settings) for kind, w in zip(kinds, weights, strict=True)]
    for _ in range(5):
        for weight, optimiser in zip(weights, both, strict=True):
            optimiser.zero_grad()
            assert weight.grad is None
            ((weight - 1) ** 2).sum().backward()
            optimiser.step()
    assert torch.equal(*weights) and isinstance(both[0], kinds[1])


def test_no_compiler_is_imported():
    """It would be by torch's own optimisers, for more than a second in each worker."""
    program = (
        "import sys, numpy as np\n"
        "from archwright.core.checks import toys\n"
        "from archwright.kit.settings import Settings\n"
        "from archwright.kit.together import Limits, train_together\n"
        "data = toys.data('table')\n"
        "rows = [data.splits['train']] * 2\n"
        "nets = [toys.net('mlp', data, seed) for seed in range(2)]\n"
        "for n in (1, 2):\n"
        "    for name in ('adamw', 'sgd'):\n"
        "        settings = [Settings(optimiser=name)] * n\n"
        "        train_together(nets[:n], settings, data, rows[:n], rows[:n], Limits(5), np.random.default_rng(0))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_letting_nets_go_changes_nothing_for_those_that_stay():
    source, found = nets(3)
    settings = [Settings(lr=lr) for lr in (1e-3, 1e-2, 3e-3)]
    samples = Samples(source)
    rows = torch.from_numpy(np.stack([source.splits["train"][:16]] * 3))
    all_three, two = Together(found, settings, source.task), Together(found, settings, source.task)
    for step in range(6):
        inputs, target = samples(rows)
        all_three.step(inputs, target, 1.0)
        if step == 3:
            two.keep([0, 2])
        keep = [0, 2] if step >= 3 else [0, 1, 2]
        two.step([x[keep] for x in inputs], target[keep], 1.0)
    for mine, other in zip(two.nets(), [all_three.nets()[i] for i in (0, 2)], strict=True):
        for name in mine.weights:
            torch.testing.assert_close(mine.weights[name], other.weights[name], rtol=1e-4, atol=1e-6)


def test_orders_visit_every_row_once_an_epoch_and_are_as_long_for_all():
    rows = [np.arange(10), np.arange(10, 23)]
    orders = Orders(rows, 5, np.random.default_rng(0))
    drawn = torch.stack([orders.next() for _ in range(26)], 1)
    assert drawn.shape == (2, 26, 5)
    for i, own in enumerate(rows):
        seen = drawn[i].flatten().numpy()
        epochs = len(seen) // len(own)
        for epoch in range(epochs):
            assert sorted(seen[epoch * len(own) : (epoch + 1) * len(own)]) == sorted(own)
    assert Orders([np.arange(3)], 64, np.random.default_rng(0)).next().shape == (1, 3)


def test_a_training_learns_looks_and_lets_go():
    source, found = nets(4, data="wine")
    settings = [Settings(lr=1e-2, batch=32)] * 4
    train, valid = source.splits["train"], source.splits["valid"]
    seen = []

    def look(share, alive, outputs):
        seen.append((share, tuple(alive)))
        assert [len(y) for y in outputs] == [len(valid)] * len(alive)
        return alive if share < 0.5 else [i for i in alive if i != 1]

    trained = train_together(found, settings, source, [train] * 4, [valid] * 4, Limits(80), np.random.default_rng(0),
                             look=look)  # fmt: skip
    assert [share for share, _ in seen] == [k / LOOKS for k in range(1, LOOKS)]
    assert seen[3][1] == (0, 1, 2, 3) and seen[4][1] == (0, 2, 3)
    assert trained.steps == 80 and trained.outputs[1] is None
    errors = [float((y.argmax(1) != source.target[valid]).mean()) for y in trained.outputs if y is not None]
    assert max(errors) < 0.1  # three classes: 0.6 by chance


def test_one_that_diverges_goes_and_the_others_go_on():
    source, found = nets(3)
    broken = replace(found[1], weights={n: w * 1e30 for n, w in found[1].weights.items()})
    train = source.splits["train"]
    trained = train_together(
        [found[0], broken, found[2]], [Settings(lr=1e-2)] * 3, source, [train] * 3, [train] * 3, Limits(40),
        np.random.default_rng(0),
    )  # fmt: skip
    assert [y is None for y in trained.outputs] == [False, True, False]
    assert trained.steps == 40


def test_time_is_kept_and_the_same_seed_gives_the_same_weights():
    source, found = nets(2)
    train = source.splits["train"]
    began = time.monotonic()
    trained = train_together(found, [Settings()] * 2, source, [train] * 2, [train] * 2, Limits(10**9, 0.5),
                             np.random.default_rng(0))  # fmt: skip
    assert 0.5 <= trained.seconds <= time.monotonic() - began < 30 and trained.steps > 3
    runs = [
        train_together(found, [Settings()] * 2, source, [train] * 2, [train] * 2, Limits(15), np.random.default_rng(4))
        for _ in range(2)
    ]
    for one, other in zip(runs[0].nets, runs[1].nets, strict=True):
        assert all(torch.equal(one.weights[n], other.weights[n]) for n in one.weights)


def test_bytes_become_numbers_batch_by_batch():
    source = toys.data("image")
    raw = np.random.default_rng(0).integers(0, 256, source.inputs[0].shape).astype(np.uint8)
    mean, deviation = np.full((raw.shape[1], 1, 1), 100.0), np.full((raw.shape[1], 1, 1), 50.0)
    scaled = replace(source, inputs=(raw,), scales=((mean, deviation),))
    assert scaled.dtypes == ("float32",)
    (x,), _ = Samples(scaled)(torch.tensor([[3, 1], [0, 2]]))
    np.testing.assert_allclose(x.numpy(), (raw[[[3, 1], [0, 2]]] - 100.0) / 50.0, rtol=1e-6)
    (y,), _ = scaled.batch([3, 1])
    torch.testing.assert_close(y, x[0])
    assert example(toys.net("conv", source, 0).graph, 2)[0].shape[1:] == x.shape[2:]


def test_alone_a_net_of_convolutions_may_run_in_bfloat16_and_comes_back_in_float32(monkeypatch):
    source, found = nets(1, "conv", "image")
    samples, held = Samples(source), source.splits["valid"]
    rows = torch.from_numpy(source.splits["train"][None, :16])
    made = []
    for bfloat16 in (False, True):
        monkeypatch.setattr("archwright.kit.together._gains_by_bfloat16", lambda net, b=bfloat16: b)
        one = Together(found, [Settings(lr=1e-2, optimiser="sgd")], source.task)
        for _ in range(5):
            one.step(*samples(rows), 1.0)
        made.append(one.predict(samples, [held])[0])
        assert all(w.dtype == torch.float32 for w in one.nets()[0].weights.values() if w.is_floating_point())
    np.testing.assert_allclose(made[0], made[1], atol=0.05 * np.abs(made[0]).max())
    assert not np.array_equal(made[0], made[1])
