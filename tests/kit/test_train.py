import numpy as np
import pytest
import torch

from archwright import ops
from archwright.core.records import Budget
from archwright.data.builtin import builtin
from archwright.errors import ArchwrightError
from archwright.kit.losses import error
from archwright.kit.schedules import SCHEDULES, schedule
from archwright.kit.train import evaluate, fit, minibatches
from archwright.net.net import init

torch.set_num_threads(1)


def mlp(data, width: int = 24, dropout: float = 0.0):
    g = ops.edit()
    x = g.input("x", data.shapes[0])
    x = g.add("flatten", x) if len(data.shapes[0]) > 2 else x
    x = g.add("batch_norm", g.add("linear", x, out=width))
    x = g.add("dropout", g.add("relu", x), p=dropout)
    return init(g.finish(g.add("linear", x, out=data.outputs)))


@pytest.mark.parametrize(("name", "worst"), [("digits", 0.1), ("wine", 0.12), ("diabetes", 0.85)])
def test_training_learns(name, worst):
    data = builtin(name)
    net = mlp(data)
    trained, log = fit(net, data, Budget(steps=300), np.random.default_rng(0), lr=1e-2, schedule="cosine")
    assert evaluate(trained, data) < min(worst, evaluate(net, data))
    assert log.stopped == "budget" and log.last("step") == 300
    assert min(log.columns["valid_error"]) <= evaluate(trained, data, "valid") + 1e-9


def test_the_same_seed_gives_the_same_weights_and_no_other_state_is_touched():
    data = builtin("iris")
    net = mlp(data, dropout=0.5)
    before, state = {n: t.clone() for n, t in net.weights.items()}, torch.random.get_rng_state()
    runs = [fit(net, data, Budget(steps=20), np.random.default_rng(seed))[0] for seed in (1, 1, 2)]
    assert all(torch.equal(runs[0].weights[n], runs[1].weights[n]) for n in before)
    assert any(not torch.equal(runs[0].weights[n], runs[2].weights[n]) for n in before)
    assert all(torch.equal(net.weights[n], t) for n, t in before.items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_budgets_end_training_exactly():
    data = builtin("iris")
    for budget, steps in ((Budget(steps=7), 7), (Budget(epochs=2), 2 * -(-data.size() // 16)), (Budget(5, steps=3), 3)):
        _, log = fit(mlp(data), data, budget, np.random.default_rng(0), batch_size=16)
        assert log.last("step") == steps
    _, log = fit(mlp(data), data, Budget(seconds=0.2), np.random.default_rng(0))
    assert 0.2 <= log.last("seconds") < 2


def test_divergence_stops_and_keeps_the_best():
    data = builtin("iris")
    trained, log = fit(mlp(data), data, Budget(steps=500), np.random.default_rng(0), lr=1e30, optimiser=torch.optim.SGD)
    assert log.stopped == "diverged" and log.last("step") < 500
    assert trained.graph == mlp(data).graph


def test_patience_stops_early():
    data = builtin("wine")
    _, log = fit(mlp(data), data, Budget(steps=5000), np.random.default_rng(0), lr=3e-2, patience=3, evaluations=100)
    assert log.stopped == "early" and log.last("step") < 5000


def test_minibatches_cover_every_sample_once_an_epoch():
    rng = np.random.default_rng(0)
    batches = minibatches(10, 4, rng)
    epoch = np.concatenate([next(batches) for _ in range(3)])
    assert sorted(epoch.tolist()) == list(range(10))
    batches = minibatches(9, 4, rng)
    assert [len(next(batches)) for _ in range(4)] == [4, 4, 4, 4]  # a lone ninth sample is left out of the epoch


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_schedules_stay_within_0_and_1_and_warm_up(name):
    shape = schedule(name, warmup=0.2)
    values = [shape(s) for s in np.linspace(0, 1, 101)]
    assert values[0] == 0 and max(values) <= 1 + 1e-12 and min(values) >= -1e-12
    with pytest.raises(ArchwrightError, match="expected one of"):
        schedule("sawtooth")


def test_errors():
    assert error(torch.tensor([[2.0, 1], [0, 1]]), torch.tensor([0, 0]), "classification") == 0.5
    assert error(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]), "regression") == pytest.approx(2**0.5)
