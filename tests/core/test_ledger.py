"""The ledger: trials are there whatever happens, studies are Optuna's, strategies serve as samplers."""

from __future__ import annotations

import math
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest

from archwright.core import ledger, registry
from archwright.core.checks import bench
from archwright.core.ledger import Ledger, StrategySampler
from archwright.errors import FormatError

SPACE = bench.space()
NAMES = ["error", "params"]
ABOUT = {"data": "toy", "limits": {"params": 100.0}}


def begun(folder, name="toy", directions=("min", "min")):
    return ledger.begin(f"sqlite:///{folder / 'study.db'}", name, directions, ABOUT, NAMES[: len(directions)])


def entered(book, seed=0, **extra):
    trace = SPACE.random(np.random.default_rng(seed))
    return book.open(trace, SPACE.decisions(trace), **extra), trace


def test_what_is_written_is_read_by_another_process_view(tmp_path):
    book = begun(tmp_path)
    numbers = []
    for seed in range(4):
        number, trace = entered(book, seed, costs={"params": 10.0})
        numbers.append((number, trace))
    book.complete(0, [0.25, 10], curve={8: 0.25, 4: math.inf, 2: 0.3}, seconds=1.5)
    book.fail(1, "it diverged")
    book.prune(2, "hopeless", curve={4: 0.9})
    again = Ledger(optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'study.db'}"))
    found = again.trials()
    assert [(t.number, t.trace) for t in found] == numbers
    assert [t.state for t in found] == ["complete", "failed", "failed", "running"]
    assert [t.extra["state"] for t in found] == ["complete", "fail", "pruned", "running"]
    assert found[0].values == (0.25, 10.0) and found[1].values == found[2].values == ()
    assert found[0].extra["curve"] == [0.3, math.inf, 0.25] and found[0].extra["curve_steps"] == [2, 4, 8]
    assert found[0].extra["costs"] == {"params": 10.0} and found[0].extra["seconds"] == 1.5
    assert found[2].extra["curve"] == [0.9] and "curve" not in found[1].extra
    assert found[1].extra["reason"] == "it diverged" and found[2].extra["reason"] == "hopeless"
    assert again.study.metric_names == ["error", "params"]


def test_values_that_are_no_numbers_are_failures(tmp_path):
    book = begun(tmp_path)
    entered(book)
    book.complete(0, [math.nan, 3.0])
    assert book.trials()[0].state == "failed" and "nan" in book.trials()[0].extra["reason"]


def test_a_name_that_is_taken_gets_a_number_and_the_latest_is_resumed(tmp_path):
    first, second = begun(tmp_path), begun(tmp_path)
    assert (first.name, second.name) == ("toy", "toy-2")
    entered(second)
    found = ledger.resume(f"sqlite:///{tmp_path / 'study.db'}", "toy", ABOUT, NAMES)
    assert found.name == "toy-2" and len(found.trials()) == 1


def test_resuming_something_else_says_what_differs(tmp_path):
    begun(tmp_path)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(FormatError, match="has data 'toy', this one 'other'"):
        ledger.resume(url, "toy", {**ABOUT, "data": "other"}, NAMES)
    with pytest.raises(FormatError, match="no search named 'nothing'"):
        ledger.resume(url, "nothing", ABOUT, NAMES)
    with pytest.raises(FormatError, match="cannot be opened"):
        ledger.resume("nosuch://place", "toy", ABOUT, NAMES)


def test_the_latest_that_is_a_search_for_the_same_is_resumed(tmp_path):
    first = begun(tmp_path)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    ledger.begin(url, "toy", ("min", "min"), {**ABOUT, "limits": {"params": 7.0}}, NAMES)
    optuna.create_study(storage=url, study_name="toy-3", directions=["minimize", "minimize"])  # killed just then
    assert ledger.resume(url, "toy", ABOUT, NAMES).id == first.id
    for _ in range(12):
        last = begun(tmp_path)
    assert last.name == "toy-15" and ledger.resume(url, "toy", ABOUT, NAMES).id == last.id
    ledger.begin(url, "toy", ("min", "min"), {**ABOUT, "data": "third"}, NAMES)
    with pytest.raises(FormatError, match="'toy-16' has data 'third', this one 'other'"):
        ledger.resume(url, "toy", {**ABOUT, "data": "other"}, NAMES)


def test_a_name_that_looks_numbered_is_no_number_of_another(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    sales = begun(tmp_path, "sales")
    year = begun(tmp_path, "sales-2024")
    assert ledger.resume(url, "sales", ABOUT, NAMES).id == sales.id
    assert ledger.resume(url, "sales-2024", ABOUT, NAMES).id == year.id
    again = begun(tmp_path, "sales-2024")
    assert again.name == "sales-2024-2" and ledger.resume(url, "sales-2024", ABOUT, NAMES).id == again.id
    with pytest.raises(FormatError, match="no search named 'sales-2024-2'"):
        ledger.resume(url, "sales-2024-2", ABOUT, NAMES)


def test_a_study_of_an_older_version_is_resumed(tmp_path):
    """It lacks its name, and what was not compared then."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for name in ("toy", "toy-2"):
        study = optuna.create_study(storage=url, study_name=name, directions=["minimize", "minimize"])
        study.set_user_attr(ledger.ID, f"id of {name}")
        study.set_user_attr(ledger.ATTR, ABOUT)
    assert ledger.resume(url, "toy", {**ABOUT, "target": "price"}, NAMES).id == "id of toy-2"
    with pytest.raises(FormatError, match="'toy-2' has limits"):
        ledger.resume(url, "toy", {**ABOUT, "limits": {}, "target": "price"}, NAMES)


def test_a_study_of_which_nothing_came_is_dropped_and_others_are_not(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    books = [begun(tmp_path) for _ in range(5)]
    for book in books[:4]:
        entered(book)
    books[0].complete(0, [0.5, 3])
    books[1].fail(0, "it diverged")
    books[2].spend(1.0)
    books[2].study.set_user_attr("seconds elsewhere:1:2", 0.0)  # another process has joined
    books[3].spend(1.0)
    books[3].prune(0, "over a limit", refused=True)
    for book in books:
        book.drop()
    assert optuna.study.get_all_study_names(url) == ["toy", "toy-2", "toy-3"]


@pytest.mark.parametrize("last", ["created", "named", "told apart"])
def test_a_study_whose_beginning_was_cut_short_is_resumed(tmp_path, last):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="toy", directions=["minimize", "minimize"])
    if last != "created":
        study.set_metric_names(NAMES)
    if last == "told apart":
        study.set_user_attr(ledger.ID, "abc")
    book = ledger.resume(url, "toy", ABOUT, NAMES)
    assert book.about() == ABOUT and book.study.metric_names == NAMES and book.id != book.name
    again = ledger.resume(url, "toy", ABOUT, NAMES)
    assert (again.id, again.about()) == (book.id, ABOUT)
    entered(again)
    with pytest.raises(FormatError, match="has data 'toy', this one 'other'"):
        ledger.resume(url, "toy", {**ABOUT, "data": "other"}, NAMES)


def test_a_study_of_somebody_else_is_not_taken(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="toy", directions=["minimize", "minimize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=1)
    with pytest.raises(FormatError, match="has data None"):
        ledger.resume(url, "toy", ABOUT, NAMES)


def test_trials_of_a_process_that_died_are_buried_and_those_of_a_living_one_are_not(tmp_path):
    book = begun(tmp_path)
    program = (
        "import sys, numpy as np\n"
        "from archwright.core import ledger\n"
        "from archwright.core.checks import bench\n"
        "book = ledger.resume(sys.argv[1], 'toy', {}, [])\n"
        "space = bench.space(); trace = space.random(np.random.default_rng(5))\n"
        "print(book.open(trace, space.decisions(trace)), flush=True)\n"
        "import os; os.kill(os.getpid(), 9)\n"
    )
    url = f"sqlite:///{tmp_path / 'study.db'}"
    mine, _ = entered(book)
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert done.returncode == -9 and done.stdout.strip() == "1", done.stderr
    assert book.bury() == 1
    states = [t.state for t in book.trials()]
    assert states == ["running", "failed"] and mine == 0
    assert "stopped" in book.trials()[1].extra["reason"]


def test_time_is_summed_over_processes(tmp_path):
    book = begun(tmp_path)
    book.spend(2.0)
    book.spend(3.0)
    other = Ledger(book.study)
    other.session = "elsewhere:1:2"
    other.spend(4.0)
    assert book.spent() == 7.0


def test_a_journal_file_serves_as_well(tmp_path):
    book = ledger.begin(str(tmp_path / "journal.log"), "toy", ("max",), ABOUT, ["accuracy"])
    number, trace = entered(book)
    book.complete(number, [0.5])
    found = ledger.resume(str(tmp_path / "journal.log"), "toy", ABOUT, NAMES)
    assert found.trials()[0].trace == trace and found.directions == ("max",)


def open_at(url, moment):
    while time.monotonic() < moment:
        pass
    ledger.begin(url, "toy", ("min",), ABOUT, ["error"])


def test_processes_that_begin_at_one_moment_all_begin(tmp_path):
    context = multiprocessing.get_context("fork")  # so that they are ready at once
    for repeat in range(5):
        url, moment = f"sqlite:///{tmp_path / str(repeat)}.db", time.monotonic() + 0.1
        with context.Pool(4) as pool:
            pool.starmap(open_at, [(url, moment)] * 4)


def test_a_choice_whose_options_change_is_kept_under_another_name(tmp_path):
    from archwright.core.space import Space, Spec

    def program(choose, spec):
        few = choose.one_of("few", (True, False))
        choose.one_of("width", (1, 2) if few else (3, 4, 5))
        return SPACE.draw(SPACE.random(np.random.default_rng(0)))

    space = Space("own", program, Spec(((None, 1),), 1))
    book = begun(tmp_path)
    for trace in ({"few": True, "width": 2}, {"few": False, "width": 5}, {"few": True, "width": 1}):
        book.complete(book.open(trace, space.decisions(trace)), [0.0, 1.0])
    assert [dict(t.trace) for t in book.trials()] == [
        {"few": True, "width": 2}, {"few": False, "width": 5}, {"few": True, "width": 1},
    ]  # fmt: skip
    assert {name for t in book.study.trials for name in t.params} == {"few", "width", "width#2"}
    trial = book.study.ask()
    asked, _ = space.from_optuna(trial)
    assert asked in space and set(trial.params) <= {"few", "width", "width#2"}


def test_a_strategy_is_an_optuna_sampler():
    propose = registry.load("strategy/regularized_evolution")
    study = optuna.create_study(sampler=StrategySampler(propose, SPACE, seed=3))

    def objective(trial):
        trace, _ = SPACE.from_optuna(trial)
        return bench.objective(trace)[0]

    study.optimize(objective, n_trials=12)
    again = optuna.create_study(sampler=StrategySampler(propose, SPACE, seed=3))
    again.optimize(objective, n_trials=12)
    assert [t.params for t in study.trials] == [t.params for t in again.trials]
    assert len({str(t.params) for t in study.trials}) > 6


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc to know when a process began")
def test_a_session_is_alive_only_with_its_own_start_time():
    session = ledger._session()
    assert ledger._alive(session)
    assert not ledger._alive(session[:-1] + ("0" if session[-1] != "0" else "1"))
    assert not ledger._alive("")


def test_a_transaction_does_not_wait_for_the_disk(tmp_path):
    book = begun(tmp_path)
    entered(book)
    with sqlite3.connect(tmp_path / "study.db") as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("select count(*) from trials").fetchone() == (1,)
    assert book.study._storage._backend.engine.raw_connection().execute("PRAGMA synchronous").fetchone() == (1,)
