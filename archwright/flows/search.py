"""From data and a budget to a better network: `archwright search`, `archwright.search`.

    1. plan      folds, training lengths, and how the budget is divided       archwright.flows.plan
    2. loop      propose, refuse what is over a limit, train together what has equal architectures, give up the
                 hopeless on their learning curves, record                    archwright.flows.proposals, loop, jobs
    3. finish    the best candidate is trained again on all rows but the test split's, for as long as it deserves;
                 its figures on the test split, once; the front; a bundle     archwright.flows.finish

Jobs are done by worker processes of one thread each, or in this process where the search is short
(`archwright.flows.pool`). The ledger is an Optuna study (`archwright.core.ledger`): a search that was killed goes on
with `resume`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.exceptions import StorageInternalError

from archwright.core import ledger, registry
from archwright.core.ledger import Ledger
from archwright.core.space import Space, Spec
from archwright.data.data import SPLITS, Data
from archwright.data.open import open_data
from archwright.data.recipe import recipe_from
from archwright.data.store import store
from archwright.errors import ArchwrightError, DataError, FormatError
from archwright.flows import finish
from archwright.flows.bundle import Bundle
from archwright.flows.interrupts import Interrupts
from archwright.flows.jobs import Judge
from archwright.flows.loop import Ask, Loop, Progress, State
from archwright.flows.objectives import Objective, limits, objectives, seconds
from archwright.flows.plan import plan
from archwright.flows.pool import Here, Pool, memory_for_each
from archwright.flows.proposals import Proposals, sampler
from archwright.flows.start import around
from archwright.kit.settings import with_training
from archwright.net.net import Net

__all__ = ["Result", "State", "search"]

DEFAULT_BUDGET = "5m"
DEFAULT_SPACE = {"table": "tables", "image": "images", "signal": "signals"}
DEFAULT_STRATEGY = "portfolio"
LOCK = ".lock"
"""File of a search's folder that it holds a lock on."""

TRIED = 10_000
"""Samples of a classification with which a metric is tried before the search."""

POOLED = 20
"""Seconds of budget, or trials, from which on worker processes pay: starting them takes some."""


@dataclass(frozen=True, eq=False)
class Result:
    """What a search found.

    best    the winner as a bundle: `best.predict(X)`, `best.save(folder)`, `best.net`
    run     all that is known of the search, as plain data: what run.json holds
    study   the Optuna study, for `optuna.visualization` and the like
    """

    best: Bundle
    run: Mapping[str, Any]
    study: Any

    @property
    def front(self) -> list[Mapping[str, Any]]:
        """The candidates that no other beats in all objectives: trial, values, trace, key."""
        return list(self.run["front"])

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the winner's bundle."""
        return self.best.save(folder)


def search(
    data: Any,
    target: str | None = None,
    *,
    y: Any = None,
    budget: float | str | None = None,
    objective: str | Sequence[str] = "error",
    limit: str | Mapping[str, float | str] | None = None,
    space: str | Space | None = None,
    strategy: str | Callable[..., Any] = DEFAULT_STRATEGY,
    start: Net | str | os.PathLike[str] | None = None,
    trials: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    storage: str | None = None,
    name: str | None = None,
    resume: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
    command: str = "archwright.search(...)",
    began: float | None = None,
    interrupts: Interrupts | None = None,
    **opening: Any,
) -> Result:
    """Search a network for data.

    data       whatever `archwright.data.open.open_data` takes: a path, a built-in name, a DataFrame, arrays with `y`
    target     name of the column to predict; `y` are the targets themselves, for arrays and DataFrames
    budget     wall time in all, in seconds or as text ("5m"). Five minutes where neither it nor `trials` is given
    objective  "error", any metric of scikit-learn, and costs: "error,params"; see `archwright.flows.objectives`
    limit      costs that may not be exceeded: "params=20k,latency=1ms", or a mapping
    space      name of a space part, or a `Space`; by default what suits the kind of data
    strategy   name of a strategy part, "optuna:TPESampler" for any sampler of Optuna, or a function as strategies are
    start      a net, or the folder of one, to begin from: then the space is what can be made of it
    trials     how many candidates to train; without a budget the same seed, with as many workers, gives the same
               result, unless a latency is asked for
    folder     where the ledger, copies of the data and the trained nets are kept; by default a temporary folder
    storage    an Optuna storage URL for the ledger; by default study.db in that folder, or memory without one
    name       of the study; by default that of the data
    resume     go on with the latest study of that name in the storage for the same, with what is left of its budget
    workers    processes; 0 to train in this one. By default one a core, or none for short searches
    progress   called with a `State` now and then
    command    how the search was asked for, for the record
    began      `time.monotonic()` when the budget began to be spent; by default now
    interrupts takes Ctrl-C for the caller, who goes on to note it when the search has ended; by default for the search
    opening    further options of `open_data`: task, time, group, valid, test, kind, size, rate

    Raises `ArchwrightError` and its kin for anything that is wrong with what was given, before anything is trained.
    Ctrl-C ends the search with what was found so far.
    """
    began = time.monotonic() if began is None else began
    _check_strategy(strategy, seed)
    total = None if budget is None and trials is not None else seconds(DEFAULT_BUDGET if budget is None else budget)
    if trials is not None and trials < 1:
        raise FormatError(f"got trials={trials}, expected at least 1")
    most = limits(limit)
    with ExitStack() as stack:
        # first, and so the last to go: what was found is not lost while workers and folders are put away
        interrupts = interrupts or stack.enter_context(Interrupts())
        stack.enter_context(interrupts.open())
        stack.enter_context(_storage_errors())
        work = stack.enter_context(_workspace(folder))
        if workers is None:
            workers = _cores() if (total or 0) >= POOLED or (total is None and (trials or 0) >= POOLED) else 0
        pool = Pool(workers) if workers else None  # they start while the data are opened
        if pool is not None:
            stack.callback(pool.stop)
        opened = open_data(data, target=target if y is None else y, seed=seed, folder=work / "opened", **opening)
        if "recipe" not in opened.meta:
            raise DataError(f"the data '{opened.name}' have no recipe: expected what archwright.open_data gives")
        wanted = objectives(objective, opened.task, opened.outputs)
        _check_metrics(wanted, opened)
        begin = around(start, opened, work / "start") if start is not None else None
        where = begin.space if begin is not None else bound(space, opened)
        digest = fingerprint(opened)
        about = {
            "data": opened.name, "target": recipe_from(opened.meta["recipe"]).target.name, "task": opened.task,
            "split": opened.meta.get("split", "random"), "samples": [opened.size(s) for s in SPLITS],
            "space": where.name, "objectives": [o.name for o in wanted], "limits": most, "seed": seed,
            "start": begin.key if begin is not None else None,
            "start weights": begin.weights if begin is not None else None, "rows and splits": digest,
        }  # fmt: skip
        notices = [*opened.meta.get("notices", ()), *(begin.notices(digest) if begin is not None else ())]
        opened = replace(opened, meta={**opened.meta, "notices": notices, "digest": digest})
        course = plan(opened, total, max(1, workers))
        # without a folder the ledger is in memory: a file would be gone when the result is looked at
        url, label = storage or (f"sqlite:///{work / 'study.db'}" if folder is not None else None), name or opened.name
        if not resume:
            book = ledger.begin(url, label, [o.direction for o in wanted], about, [o.name for o in wanted])
            stack.enter_context(_dropped(book))
            shutil.rmtree(work / "start", ignore_errors=True)
        elif url is not None:
            book = ledger.resume(url, label, about, [o.name for o in wanted])
            book.spend(0.0)  # whoever began it knows by this that it is not alone
        else:
            raise FormatError("got resume without a folder or a storage: expected one, where the search was begun")
        before = min(book.spent(), 0.95 * (total or math.inf)) if resume else 0.0
        ask = Ask(opened, wanted, most, course, trials, seed, began, before)
        proposals = Proposals(
            where, strategy, book, opened, limits=most, cost_names=ask.cost_names,
            directions=[o.direction for o in wanted], siblings=ask.plan.siblings, seed=seed,
            known=begin.known if begin is not None else None,
        )  # fmt: skip
        interrupts.shut()
        loop = Loop(
            ask, where, proposals, book, work, label=_label(strategy), progress=progress, interrupts=interrupts,
            start=begin.folder if begin is not None else None,
        )  # fmt: skip
        if pool is not None:
            pool.open(store(opened, work / "data"), memory_for_each(workers))
        doer = pool or Here(opened, interrupts)
        interrupted = loop.run(doer)
        best = finish.finish(loop, doer, interrupted=interrupted, command=command)
        if begin is not None:
            best = replace(best, run={**best.run, "start": begin.about(digest)})
        if not resume:  # until here an earlier search could be resumed with its nets
            for nets in (work / "nets").glob("*"):
                if nets.name != book.id:
                    shutil.rmtree(nets, ignore_errors=True)
    return Result(best, best.run, book.study)


def fingerprint(data: Data) -> str:
    """A digest that tells data and their splits from others. Inputs may be large: of them it has what the recipe says,
    means and categories."""
    found = hashlib.blake2b(json.dumps(data.meta["recipe"], sort_keys=True).encode(), digest_size=16)
    for array in (data.target, *[np.asarray(data.splits[name], np.int64) for name in SPLITS]):
        found.update(f"{array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def bound(space: str | Space | None, data: Data) -> Space:
    """A space, by name or the default one, for some data, that also asks how its networks are trained.

    Raises `FormatError` where there is no default space for the kind of data, `UnknownPart` for an unknown name.
    """
    spec = Spec.of(data)
    if isinstance(space, Space):
        return Space(space.name, with_training(space.program, data), spec)
    chosen = space or DEFAULT_SPACE.get(data.kind)
    if chosen is None:
        raise FormatError(f"there is no default space for {data.kind} data: give the name of one")
    part = registry.find(chosen, "space")
    return Space(part.name, with_training(registry.entry(part), data), spec)


def _check_strategy(strategy: str | Callable[..., Any], seed: int) -> None:
    """Raise what is wrong with a strategy."""
    if not isinstance(strategy, str):
        if not callable(strategy):
            raise FormatError(f"got strategy {strategy!r}, expected a name or a function")
    elif strategy.startswith("optuna:"):
        sampler(strategy.removeprefix("optuna:"), seed)
    else:
        registry.load(strategy, "strategy")


def _check_metrics(wanted: Sequence[Objective], data: Data) -> None:
    """Raise `DataError` for a metric that the targets do not allow: all trials would fail with it, or the figures of
    the end. Tried on the right classes, or on the mean of the numbers: where targets may be 0, some metrics allow no
    prediction of 0."""
    rows = np.concatenate([np.asarray(data.splits[name], np.int64) for name in SPLITS])
    if data.task == "classification":
        rows = rows[:: max(1, len(rows) // TRIED)]
        outputs = np.eye(data.outputs, dtype=np.float32)[data.target[rows]]
    else:
        outputs = np.zeros_like(data.target[rows])
    Judge(data, [one.name for one in wanted if not one.is_cost]).values(outputs, rows)


@contextmanager
def _dropped(book: Ledger) -> Iterator[None]:
    """A study of which nothing comes is removed again: `resume` takes the latest."""
    try:
        yield
    except (ArchwrightError, KeyboardInterrupt):
        book.drop()
        raise


@contextmanager
def _workspace(folder: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder of a search, or a temporary one, locked: two searches in one would overwrite each other's nets.

    If the search comes to nothing, a folder that was not there before is removed again. Raises `FormatError` if
    another search has it, or if it cannot be made.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="archwright-search-") as place:
            yield Path(place)
        return
    work = Path(folder)
    new = not work.exists()
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / LOCK, "w")  # noqa: SIM115 closed below
    except OSError as error:
        raise FormatError(f"{work} cannot be written ({error.strerror}): expected a folder for the search") from None
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # a system without such locks
            pass
        except OSError:
            raise FormatError(f"another search works in {work}: wait for it, or give another folder") from None
        try:
            yield work
        except (ArchwrightError, KeyboardInterrupt):
            if new and not any(work.glob("nets/*/*")):
                shutil.rmtree(work, ignore_errors=True)
            raise


@contextmanager
def _storage_errors() -> Iterator[None]:
    """What goes wrong with the ledger, a full disk or a lost connection, is an `ArchwrightError`."""
    try:
        yield
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ArchwrightError(f"the ledger cannot be read or written ({reason}): resume the search later") from None


def _label(strategy: str | Callable[..., Any]) -> str:
    return strategy if isinstance(strategy, str) else getattr(strategy, "__name__", type(strategy).__name__)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
