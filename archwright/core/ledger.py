"""`Ledger`: the record of a search, which is an Optuna study. Whatever reads Optuna studies reads it.

    trial parameters    the trace (names that Optuna cannot hold twice get a number: see `choose.parameter`)
    trial values        the objectives, in the order of the study
    intermediate values the learning curve of the first metric: Optuna's plots and its dashboard draw it
    user attributes     "session" (which process works on it), "reason" (why it failed or was refused), "result":
                        whatever else the search adds as plain data, in one attribute since each costs a transaction

A trial is in the storage from the moment at which its training begins, so that two processes on one storage see each
other's, and what is finished stays whatever happens to the process. Trials that a dead process left running are marked
as failed by `bury`, and asked for again by no one: their seeds are their numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import sqlite3
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from archwright.core import choose, seeds
from archwright.core.choose import Options
from archwright.core.records import Direction, Trace, Trial
from archwright.core.space import Space
from archwright.errors import ArchwrightError, FormatError

ATTR = "archwright"
"""The study's attribute that says what is searched: a ledger is resumed only with the same."""

NAME = "archwright name"
"""The study's attribute with the name that was asked for: where that was taken, the study's own has a number more."""

ID = "archwright id"
"""The study's attribute with a name that no other study has: numbers and names are used again, in other storages."""

Curve = Mapping[int, float]
_NONE: Curve = MappingProxyType({})

_STATES = {TrialState.COMPLETE: "complete", TrialState.RUNNING: "running", TrialState.WAITING: "running"}


class Ledger:
    """The trials of one search. Made by `begin` or `resume`.

    study     the Optuna study
    session   a name for this process, which stands in the trials that it works on
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.session = _session()
        self._began = time.monotonic()
        self._read: dict[int, Trial] = {}
        self._ids: dict[int, int] = {}
        self._latest: tuple[float, list[Trial]] = -math.inf, []
        self._known: dict[str, BaseDistribution] = {}

    # ------------------------------------------------------------------------------------------------------- reading
    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study.study_name)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """ "min" or "max" for each objective."""
        return tuple(["min" if d == optuna.study.StudyDirection.MINIMIZE else "max" for d in self.study.directions])

    @property
    def id(self) -> str:
        """What tells the study from all others, wherever they are stored."""
        return str(self.study.user_attrs.get(ID, self.name))

    def trials(self, age: float = 0.0) -> list[Trial]:
        """All trials in the order of their numbers. Those that were refused or stopped early are "failed": they have
        no values; `extra["state"]` has Optuna's word.

        age  seconds: what was read so long ago serves, unless this process has written since. Others may have
        """
        now = time.monotonic()
        if now - self._latest[0] < age:
            return list(self._latest[1])
        found = []
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.number not in self._read:
                self._known.update(frozen.distributions)
                trial = _trial(frozen)
                if frozen.state.is_finished():
                    self._read[frozen.number] = trial
                else:
                    found.append(trial)
                    continue
            found.append(self._read[frozen.number])
        self._latest = now, found
        return list(found)

    def about(self) -> Mapping[str, Any]:
        """What was given to `begin` as `about`."""
        found: Mapping[str, Any] = self.study.user_attrs.get(ATTR, {})
        return found

    # ------------------------------------------------------------------------------------------------------- writing
    def open(self, trace: Mapping[str, Any], asked: Mapping[str, Options], **extra: Any) -> int:
        """Enter a trial that begins now; its number. `asked`: as `Space.decisions` gives."""
        params, distributions = {}, {}
        for name, options in asked.items():
            wanted = choose.distribution(options)
            place = choose.parameter(name, wanted, self._known)
            params[place], distributions[place] = trace[name], wanted
        self._known.update(distributions)
        attrs = {"session": self.session, **extra}
        # as study.add_trial does, which does not tell the number
        storage, study = self.study._storage, self.study._study_id
        own = storage.create_new_trial(study, create_trial(
            state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attrs,
        ))  # fmt: skip
        number = storage.get_trial(own).number
        self._ids[number], self._latest = own, (-math.inf, [])
        return number

    def note(self, number: int, **attrs: Any) -> None:
        """Attributes of a trial that an Optuna sampler has begun: those that `open` would have given it."""
        for name, value in attrs.items():
            self.study._storage.set_trial_user_attr(self._id(number), name, value)
        self._latest = -math.inf, []

    def complete(self, number: int, values: Sequence[float], *, curve: Curve = _NONE, **result: Any) -> None:
        """Close a trial with its values. Not-a-number is a failure: Optuna holds none. `curve`: the metric by steps."""
        if any(np.isnan(values)):
            self.fail(number, f"its values are {', '.join([f'{v:g}' for v in values])}", curve=curve, **result)
            return
        self._add(number, None, curve, result)
        self._tell(number, TrialState.COMPLETE, [float(v) for v in values])

    def fail(self, number: int, reason: str, *, curve: Curve = _NONE, **result: Any) -> None:
        """Close a trial that broke: it diverged, raised, ran out of memory."""
        self._add(number, reason, curve, result)
        self._tell(number, TrialState.FAIL)

    def prune(self, number: int, reason: str, *, curve: Curve = _NONE, **result: Any) -> None:
        """Close a trial that was stopped as hopeless, or refused since it is over a limit."""
        self._add(number, reason, curve, result)
        self._tell(number, TrialState.PRUNED)

    def _tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        self.study.tell(number, values, state=state)
        self._latest = -math.inf, []

    def _add(self, number: int, reason: str | None, curve: Curve, result: Mapping[str, Any]) -> None:
        for step, metric in curve.items():
            self.study._storage.set_trial_intermediate_value(self._id(number), step, float(metric))
        for name, value in (("reason", reason), ("result", dict(result))):
            if value:
                self.study._storage.set_trial_user_attr(self._id(number), name, value)

    def _id(self, number: int) -> int:
        """What the storage calls a trial."""
        if number not in self._ids:
            storage = self.study._storage
            self._ids[number] = storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        return self._ids[number]

    # ---------------------------------------------------------------------------------------------------- the budget
    def spend(self, seconds: float) -> None:
        """Record how long this process has worked so far."""
        self.study.set_user_attr(f"seconds {self.session}", float(seconds))

    def spent(self) -> float:
        """Seconds that all processes together have worked so far; those that worked side by side count once each."""
        return sum([v for k, v in self.study.user_attrs.items() if k.startswith("seconds ")])

    def bury(self) -> int:
        """Mark as failed the trials that processes of this machine left running when they died; their number."""
        count = 0
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            session = str(trial.user_attrs.get("session", ""))
            if session != self.session and not _alive(session):
                self.fail(trial.number, "the process that worked on it was stopped")
                count += 1
        return count

    def drop(self) -> None:
        """Remove the study, unless something was trained in it, or another process has said that it works on it."""
        others = [k for k in self.study.user_attrs if k.startswith("seconds ") and k != f"seconds {self.session}"]
        trained = [t for t in self.trials() if t.state != "running" and not t.extra.get("refused")]
        if not others and not trained:
            optuna.delete_study(study_name=self.name, storage=self.study._storage)


# ------------------------------------------------------------------------------------------------ beginning, resuming
def begin(
    url: str | None, name: str, directions: Sequence[Direction], about: Mapping[str, Any], names: Sequence[str]
) -> Ledger:
    """A new study in a storage. If the name is taken, name-2, name-3 ... is used: nothing is ever overwritten.

    url     any Optuna storage URL (sqlite:///file.db, postgresql://...), or the path of a journal file ending in .log;
            None keeps it in memory
    about   plain data that say what is searched
    names   of the objectives
    """
    storage = _storage(url)
    study, number = None, 1
    while study is None:
        place = name if number == 1 else f"{name}-{number}"
        number += 1
        try:
            study = optuna.create_study(
                storage=storage, study_name=place,
                directions=["minimize" if d == "min" else "maximize" for d in directions],
            )  # fmt: skip
        except optuna.exceptions.DuplicatedStudyError:
            continue
    _describe(study, name, about, names)
    return Ledger(study)


def _describe(study: optuna.Study, name: str, about: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write what a study is for: what is searched comes last, so that a study that has it has all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(names))
    study.set_user_attr(NAME, name)
    study.set_user_attr(ID, uuid.uuid4().hex)
    study.set_user_attr(ATTR, json.loads(json.dumps(about)))


def resume(url: str, name: str, about: Mapping[str, Any], names: Sequence[str]) -> Ledger:
    """The latest study of that name (name, name-2, ...) in a storage that is a search for the same. `about`, `names`:
    as for `begin`.

    Raises `FormatError` if there is none: then it says in what the latest of that name differs.
    """
    storage = _storage(url)
    numbers = {n: number for n in optuna.study.get_all_study_names(storage) if (number := _number(n, name))}
    latest_first = sorted(numbers, key=lambda n: -numbers[n])
    found = [Ledger(optuna.load_study(study_name=n, storage=storage)) for n in latest_first]
    # by its name alone, sales-2024 may be the 2024th of sales; of older studies nothing else is known
    found = [book for book in found if book.study.user_attrs.get(NAME, name) == name]
    if not found:
        raise FormatError(f"{url} holds no search named '{name}' to resume: leave out --resume to begin one")
    wanted = json.loads(json.dumps(about))
    differences = [_difference(book, wanted) for book in found]
    same = [book for book, what in zip(found, differences, strict=True) if not what and ATTR in book.study.user_attrs]
    chosen = same[0] if same else found[0]
    if not same:
        if ATTR in chosen.study.user_attrs or chosen.trials() or len(names) != len(chosen.directions):
            raise FormatError(f"{differences[0]}: give the same to resume it, or leave out --resume to begin anew")
        _describe(chosen.study, name, about, names)  # whoever began it was killed just then
    chosen.bury()
    return chosen


def _number(found: str, name: str) -> int:
    """Which of its name a study is, by what it is called: 2 for name-2; 0 if it is of another name."""
    if found == name:
        return 1
    number = found.removeprefix(f"{name}-")
    return int(number) if number != found and number.isdecimal() else 0


def _difference(book: Ledger, wanted: Mapping[str, Any]) -> str:
    """In what a study is a search for something else, in words; "" if in nothing. What an older archwright did not
    write of its searches is not compared."""
    known = book.about()
    for key, value in wanted.items():
        if known.get(key) != value and (key in known or not known):
            return f"the search '{book.name}' has {key} {known.get(key)!r}, this one {value!r}"
    return ""


def _storage(url: str | None) -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if url is None:
        return optuna.storages.InMemoryStorage()
    try:
        if url.endswith(".log"):
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            return JournalStorage(JournalFileBackend(url))
        if url.startswith("sqlite"):
            Path(url.partition("///")[2]).parent.mkdir(parents=True, exist_ok=True)
            return _sqlite(url)
        return optuna.storages.get_storage(url)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise FormatError(f"the storage {url} cannot be opened ({reason}): expected a URL that Optuna takes") from None


def _sqlite(url: str, tries: int = 5) -> Any:
    """Two processes may write at once: the second waits. Both may even find no tables and make them: the second, which
    is told that they exist, looks again."""
    from sqlalchemy.exc import IntegrityError, OperationalError

    while True:
        tries -= 1
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60, "factory": _Logged}})
        except (IntegrityError, OperationalError) as error:
            if not tries or not any(told in str(error) for told in ("already exists", "UNIQUE constraint")):
                raise
            time.sleep(0.2)


class _Logged(sqlite3.Connection):
    """A connection to a file with a write-ahead log: a transaction does not wait for the disk, where a dozen for each
    trial take a quarter of a second. A process that is killed loses nothing by it. A machine that loses its power may
    lose the last trials, but not the file."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        # another process may hold the file just now, and a network's file system has no such logs: all works without
        with contextlib.suppress(sqlite3.OperationalError):
            (mode,) = self.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode == "wal":
                self.execute("PRAGMA synchronous=NORMAL")


# ------------------------------------------------------------------------------------------------- ours and Optuna's
def _trial(frozen: FrozenTrial) -> Trial:
    trace = Trace({choose.choice(name): value for name, value in frozen.params.items()})
    attrs = dict(frozen.user_attrs)
    curve = sorted(frozen.intermediate_values.items())
    looks = {"curve": [value for _, value in curve], "curve_steps": [step for step, _ in curve]} if curve else {}
    extra = {**attrs.pop("result", {}), **attrs, **looks, "state": frozen.state.name.lower()}
    values = tuple(frozen.values) if frozen.state == TrialState.COMPLETE and frozen.values else ()
    return Trial(frozen.number, trace, values, _STATES.get(frozen.state, "failed"), extra)  # type: ignore[arg-type]


class StrategySampler(BaseSampler):
    """A strategy of ours as an Optuna sampler, for `study.optimize` with `space.from_optuna(trial)` in the objective.

    propose  the strategy's function, such as `registry.load("strategy/random")`
    """

    def __init__(self, propose: Any, space: Space, seed: int = 0) -> None:
        self._propose, self._space, self._seed = propose, space, seed
        self._trace: Mapping[str, Any] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Asks the strategy for one trace."""
        ledger = Ledger(study)
        history = [t for t in ledger.trials() if t.number != trial.number]
        generator = seeds.rng(self._seed, "propose", len(history))
        found = self._propose(tuple(history), self._space, generator, 1, directions=ledger.directions)
        self._trace = found[0] if found else self._space.random(generator)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is looked up in the trace."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The trace's choice."""
        name = choose.choice(param_name)
        if name not in self._trace:
            raise ArchwrightError(f"parameter '{param_name}' is no choice of space '{self._space.name}'")
        return self._trace[name]


def _session() -> str:
    return f"{platform.node()}:{os.getpid()}:{_started(os.getpid())}"


def _started(pid: int) -> str:
    """When a process began, so that a later one of the same number is not taken for it; "" where that is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(session: str) -> bool:
    """Whether the process of a session runs. One of another machine is taken to."""
    host, _, rest = session.partition(":")
    pid, _, started = rest.partition(":")
    if host != platform.node() or not pid.isdigit():
        return bool(host) and host != platform.node()
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _started(int(pid)) == started
