"""What is proposed: within the limits, soon, nothing twice, and known shapes that do not fit are in nobody's way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archwright import ops
from archwright.core import ledger
from archwright.core.ledger import Ledger
from archwright.core.records import Trace, Trial
from archwright.core.space import Space, Spec
from archwright.data.open import open_data
from archwright.errors import EmitError, FormatError
from archwright.flows import proposals as module
from archwright.flows.loop import Loop
from archwright.flows.objectives import Objective
from archwright.flows.proposals import Proposals
from archwright.flows.search import bound
from archwright.kit.ranks import fronts, undominated
from archwright.kit.trials import name
from archwright.parts.strategy import portfolio
from tests.flows.test_search import found, told

pytestmark = pytest.mark.usefixtures("quick")

IRIS = open_data("iris")
TRAINED = {"train.lr": 1e-2, "train.weight_decay": 1e-3, "train.batch": 16, "train.smoothing": 0.0,
           "train.augment": "none", "train.optimiser": "adamw", "train.length": 1.0}  # fmt: skip


def fixed(choose: Any, spec: Any) -> Any:
    """Linear networks of 7 times so many weights and 3: nothing can be made smaller."""
    g = ops.edit()
    width = int(choose.one_of("how", ("1", "2", "3", "5", "8", "13")))
    y = g.add("linear", g.input("x", spec.inputs[0]), out=width, bias=False, name="hidden")
    return g.finish(g.add("linear", y, out=spec.outputs, name="head"))


def chain(choose: Any, spec: Any) -> Any:
    """Networks of 14 operations times a number."""
    g = ops.edit()
    y = g.add("linear", g.input("x", spec.inputs[0]), out=choose.integer("n", 1, 64), bias=False, name="hidden")
    return g.finish(g.add("linear", y, out=spec.outputs, bias=False, name="head"))


FIXED = Space("fixed", fixed, Spec.of(IRIS))


def hows(text: str) -> list[dict[str, Any]]:
    return [{"how": how, **TRAINED} for how in text.split()]


def wide(*widths: int, **training: Any) -> Trace:
    """A network of the space "small"."""
    choices = {f"width{i}": width for i, width in enumerate(widths)} | ({"act": "relu"} if widths else {})
    return Trace({"depth": len(widths), **choices, **TRAINED, **training})


def proposals(
    strategy: Any, *, space: Any = "small", book: Ledger | None = None, seed: int = 0, **limits: float
) -> Proposals:
    known = limits.pop("known", None)
    return Proposals(
        bound(space, IRIS), strategy, book or begun(), IRIS, limits=limits, cost_names=["params", *limits],
        directions=["min"], siblings=1, seed=seed, known=known,  # type: ignore[arg-type]
    )  # fmt: skip


def begun(url: str | None = None) -> Ledger:
    return ledger.begin(url, "test", ["min"], {}, ["error"])


def trained(which: Proposals, most: int = 1, value: float = 0.5, **more: Any) -> list[Any]:
    """The next candidates; their trials are complete."""
    group = which.next(most, **more)
    for one in group:
        if one.number < 0:
            one.number = which._book.open(one.trace, which.space.decisions(one.trace))
        which._book.complete(one.number, [value])
    return group


def one_after_another(*traces: Trace) -> Callable[..., Sequence[Trace]]:
    """A strategy that proposes these, and then the last again and again."""
    left = list(traces)
    return lambda history, space, rng, n: [left.pop(0) if len(left) > 1 else left[0]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Latencies are a nanosecond for each operation, and take 50 ms to be measured: those that were."""
    measured: list[float] = []
    former = module.costs

    def costs(graph: Any, names: Sequence[str], recipe: Any = None) -> Mapping[str, float]:
        known = former(graph, [n for n in [*names, "flops"] if n != "latency"])
        if "latency" in names:
            time.sleep(0.05)
            measured.append(1e-9 * known["flops"])
            known["latency"] = measured[-1]
        return {n: known[n] for n in names}

    monkeypatch.setattr(module, "costs", costs)
    return measured


# ---------------------------------------------------------------------------------------------------- made smaller
def test_what_is_over_a_computed_limit_is_made_smaller_before_its_latency_is_measured(clock: list[float]) -> None:
    for seed in range(5):
        clock.clear()
        for one in proposals(one_after_another(wide(32, 32)), seed=seed, params=200, latency=1.0).next(1):
            assert one.costs["params"] <= 200 and one.costs["latency"] < 1
        assert 1 <= len(clock) <= 2
    assert found(limit="params=60,latency=20ms", trials=2, strategy=one_after_another(wide(32), wide(16, 8))).run


def test_a_latency_within_the_limit_is_found_with_few_measurements(clock: list[float]) -> None:
    which = proposals(
        one_after_another(*[Trace({"n": n, **TRAINED}) for n in (1, 64)]), space=Space("chain", chain, FIXED.spec),
        latency=37.5 * 14e-9,
    )  # fmt: skip
    assert trained(which)[0].trace["n"] == 1 and len(clock) == 1
    (one,) = trained(which)
    assert one.trace == {"n": 37, **TRAINED}  # the largest
    assert len(clock) <= 8


def test_siblings_are_made_smaller_alike() -> None:
    for seed in range(5):
        siblings = [wide(32, 32, **{"train.lr": lr}) for lr in (1e-3, 1e-2, 1e-1)]
        group = proposals(lambda *_, of=siblings: of, seed=seed, params=200).next(9)
        assert len({one.graph.key() for one in group}) == 1
        assert [one.settings.lr for one in group] == [1e-3, 1e-2, 1e-1]


def test_a_smaller_network_that_cannot_be_made_is_left_out() -> None:
    def even(choose: Any, spec: Any) -> Any:
        g = ops.edit()
        a, b = choose.integer("a", 1, 6), choose.integer("b", 1, 6)
        x = g.add("linear", g.input("x", spec.inputs[0]), out=4 * b, name="hidden")
        y = g.add("linear", x, out=12, name="middle")
        y = g.add("reshape", y, shape=[-1, a, 12 // a * (1 if 12 % a == 0 else 7)], name="turned")
        return g.finish(g.add("linear", g.add("flatten", y, start=1), out=spec.outputs, name="head"))

    space = Space("even", even, Spec.of(IRIS))
    for seed in range(5):
        which = proposals(one_after_another(Trace({"a": 6, "b": 6, **TRAINED})), space=space, seed=seed, params=200)
        assert which.next(1)[0].costs["params"] <= 200


# -------------------------------------------------------------------------------------------------- what leads nowhere
def test_known_shapes_that_lead_nowhere_are_proposed_once() -> None:
    which = proposals(portfolio.propose, space=FIXED, params=30, known=hows("13 8 1 5 2"))
    first, second = trained(which)[0], trained(which)[0]
    assert (first.trace["how"], second.trace["how"]) == ("1", "2")
    assert which._asked == 2 + 2 + 1  # each that leads nowhere takes one
    assert trained(which) and which._asked <= 10


def test_known_shapes_that_become_one_are_proposed_once() -> None:
    known = [wide(16, 32), wide(32, 32), wide(2, **{"train.optimiser": "sgd"})]
    which = proposals(portfolio.propose, params=15, known=known)
    assert trained(which)[0].trace["depth"] == 0
    assert trained(which)[0].trace["train.optimiser"] == "sgd"  # the second would be the first again
    assert which._asked == 3


def test_the_sentence_tells_what_came_nearest() -> None:
    for seed, text in enumerate(("13 8 3 5", "3 5 13 8", "8 3", "3 8")):
        which = proposals(one_after_another(*[Trace(how) for how in hows(text)]), space=FIXED, seed=seed, params=9)
        with pytest.raises(FormatError, match=r"keeps to the limits: the smallest that was found has params 10;"):
            which.next(1)  # at random, "1" is met as well


def test_what_was_measured_comes_nearer_than_what_was_not(clock: list[float]) -> None:
    which = proposals(one_after_another(wide(32)), params=16, latency=1e-9)
    with pytest.raises(FormatError, match=r"the smallest that was found has params 15, latency 2.\de-08 s;"):
        which.next(1)


def test_a_latency_that_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise EmitError("it has no form in ONNX")

    monkeypatch.setattr("archwright.flows.objectives.latency", none)
    for strategy in ("random", "optuna:RandomSampler"):
        with pytest.raises(FormatError, match=r"that was found has a latency that cannot be measured; allow"):
            proposals(strategy, latency=1.0).next(9)


def test_what_was_not_found_in_time_is_not_said_of_all(clock: list[float]) -> None:
    made = proposals("random", latency=1e-9)
    with pytest.raises(FormatError, match=r"no network was found in time that keeps .* or more time"):
        made.next(9, until=0.0)


def test_after_something_fitted_nothing_is_raised() -> None:
    which = proposals(one_after_another(*[Trace(how) for how in hows("1 13")]), space=FIXED, params=10)
    assert which.next(1)  # not entered yet
    assert all(one.trace["how"] == "1" for _ in range(3) for one in which.next(1))


# ---------------------------------------------------------------------------------------------------------- in time
def test_a_latency_that_nothing_reaches_is_told_soon(clock: list[float]) -> None:
    with pytest.raises(FormatError, match=r"has latency 2.\de-08 s"):
        proposals("portfolio", latency=1e-9).next(1)
    assert len(clock) < 5  # the smallest networks


def slow(history: Any, space: Space, rng: np.random.Generator, n: int) -> Sequence[Trace]:
    """Each architecture is another."""
    return [space.random(rng) for _ in range(5)]


def many(choose: Any, spec: Any) -> Any:
    """There are forty that cannot be made smaller."""
    g = ops.edit()
    x = g.input("x", spec.inputs[0])
    width = int(choose.one_of("width", tuple([str(n) for n in range(4, 44)])))
    for i in range(choose.integer("depth", 1, 3)):
        x = g.add("linear", x, out=width, name=f"hidden{i}")
    return g.finish(g.add("linear", x, out=spec.outputs, name="head"))


@pytest.mark.parametrize("strategy", [slow, "optuna:RandomSampler"])
def test_the_clock_is_looked_at(clock: list[float], strategy: Any) -> None:
    which, began = proposals(strategy, space=Space("many", many, Spec.of(IRIS)), latency=1e-9), time.monotonic()
    with pytest.raises(FormatError, match="the smallest that was found has latency"):
        which.next(1, until=began + 0.3)
    assert time.monotonic() - began < 2 and len(clock) < 12


def test_what_is_proposed_first_is_looked_at_however_late_it_is(clock: list[float]) -> None:
    which = proposals("portfolio", latency=1e-6)
    (one,) = trained(which, until=time.monotonic() - 1)
    assert one.costs["latency"] < 1e-6
    assert which.next(1, until=time.monotonic() - 1) == []
    assert which.next(1, until=time.monotonic() + 60)


def test_ctrl_c_is_looked_at(clock: list[float]) -> None:
    which = proposals(slow, space=Space("many", many, Spec.of(IRIS)), latency=1e-9)
    assert which.next(1, stopped=lambda: True) == [] and not clock
    assert which.next(1, stopped=lambda: len(clock) > 3) == [] and len(clock) == 4


# --------------------------------------------------------------------------------------------------------- Optuna's
SAMPLERS = ("optuna:RandomSampler", "optuna:TPESampler", "optuna:NSGAIISampler")


@pytest.mark.parametrize("strategy", SAMPLERS)
def test_a_resumed_sampler_does_not_begin_again(tmp_path: Path, strategy: str) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    book = begun(url)
    which = proposals(strategy, book=book)
    first = [trained(which)[0].trace for _ in range(4)]
    later = proposals(strategy, book=ledger.resume(url, "test", {}, ["error"]))
    second = [trained(later)[0].trace for _ in range(4)]
    assert not {name(t) for t in first} & {name(t) for t in second}
    assert [t.state for t in book.trials()] == ["complete"] * 8  # none was refused
    again = proposals(strategy)
    assert [trained(again)[0].trace for _ in range(4)] == first


def test_two_samplers_that_begin_at_once_train_nothing_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    books = [begun(url), ledger.resume(url, "test", {}, ["error"])]
    both = [proposals(SAMPLERS[0], book=book) for book in books]
    running = both[0].next(1) + both[0].next(1)
    other = both[1].next(1) + trained(both[0]) + trained(both[1])
    assert len({name(one.trace) for one in running + other}) == 5
    refused = [t for t in books[0].trials() if t.extra.get("refused")]
    assert [t.extra["reason"] for t in refused[:2]] == [f"trial {n} has the same choices" for n in (0, 1)]
    assert {t.extra["state"] for t in refused} == {"pruned"}


def test_a_sampler_that_only_repeats_itself_is_left() -> None:
    def two(choose: Any, spec: Any) -> Any:
        choose.one_of("first", (1, 2))
        g = ops.edit()
        return g.finish(g.add("linear", g.input("x", spec.inputs[0]), out=spec.outputs, name="head"))

    which = proposals(SAMPLERS[0])
    which.space = Space("two", two, Spec.of(IRIS))  # without the numbers of training
    assert {trained(which)[0].trace["first"] for _ in range(2)} == {1, 2}
    assert which.next(1) == [] and len(which._book.trials()) < 60


# ------------------------------------------------------------------------------------------------------- the same again
@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_again_within_limits_and_nothing_twice(workers: int) -> None:
    options: dict[str, Any] = {"limit": "params=70,flops=150", "trials": 10, "seed": 2, "workers": workers}
    result = found(**options)
    assert told(found(**options)) == told(result)
    assert len({str(sorted(t.params.items())) for t in result.study.trials}) == 10


# ------------------------------------------------------------------------------------------------------------ the front
@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=20), st.integers(1, 3))
def test_the_first_front(points: list[list[int]], objectives: int) -> None:
    values = np.array(points, float).reshape(-1, 3)[:, :objectives]
    assert undominated(values).tolist() == (fronts(values) == 0).tolist()


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_front_of_many_trials_is_quick(objectives: int) -> None:
    values = np.random.default_rng(0).random((2000, objectives))
    loop: Any = object.__new__(Loop)
    names = [Objective("error", "1", "min"), Objective("params", "1", "min")][:objectives]
    loop.ask = SimpleNamespace(objectives=names)
    ranked = sorted([Trial(i, Trace(), tuple(v)) for i, v in enumerate(values)], key=lambda trial: trial.values)
    loop.ranked = lambda: ranked
    began = time.perf_counter()
    front = loop.front()
    assert time.perf_counter() - began < 0.1
    assert [t.values for t in front] == sorted([tuple(v) for v in values[fronts(values) == 0]])
