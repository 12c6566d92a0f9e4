"""How good a search is beside its peers, with the same seconds and cores for each: python benchmarks/search.py SECTION

tables     ten sets, three splits each: scikit-learn's MLP tuned at random, a PyTorch MLP tuned by TPE, boosted trees
images     MNIST and Fashion-MNIST: a fixed convolutional network of the same size trained for the same time
signals    spoken digits and four sets of time series: 1-nearest-neighbour DTW, and ROCKET with a ridge classifier
overhead   what a search does besides training, and how long it takes to propose the next trial
fronts     training random kernels, whose features are computed once, beside computing them in each step

One method runs at a time and may use both cores. All of them are given the same rows, which each divides into those to
learn from and those to choose by as it likes, and are scored here, by one function, on the rows of a test split, which
none of them is given before it has to predict them. With --out FILE the figures are written as JSON after each run;
with --keep what FILE already holds is not run again.
The data sets are in the folder that ARCHWRIGHT_DATA names. `signals` needs aeon, which is best installed in an
environment of its own, since it holds pandas and numba back: pip install 'archwright[bench]'.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import sets
from numpy.typing import NDArray

from archwright.errors import ArchwrightError, DataError, MissingExtra

Array = NDArray[Any]

CORES = 2


class Answer(NamedTuple):
    """What a method gives: its output for the test rows, its size in weights, how many candidates it tried, and the
    seconds from when its budget began, where starting its processes is not counted."""

    output: Array
    params: int | None = None
    tried: int | None = None
    seconds: float | None = None


class Run(NamedTuple):
    """One method on one split of one set. `value` is a share of wrong answers, or an RMSE in the target's unit; None if
    the method failed, and then `error` says how."""

    section: str
    set: str
    seed: int
    method: str
    budget: float
    value: float | None
    seconds: float
    params: int | None = None
    tried: int | None = None
    error: str | None = None


class Record:
    """The runs so far, and their file."""

    def __init__(self, path: Path | None = None, keep: bool = False) -> None:
        self.path, self.runs = path, list[Run]()
        if keep and path is not None and path.exists():
            self.runs = [Run(**run) for run in json.loads(path.read_text())["runs"]]

    def run(
        self, section: str, name: str, seed: int, method: str, budget: float, truth: Array, task: str,
        call: Callable[[], Any],
    ) -> Run:  # fmt: skip
        """Call a method and score its answer, unless the file has its figure."""
        key = (section, name, seed, method, budget)
        for run in self.runs:
            if run[: len(key)] == key and run.error is None:
                return run
        start = time.perf_counter()
        try:
            answer = Answer(*call())
            value = score(task, truth, answer.output)
            seconds = answer.seconds or time.perf_counter() - start
            run = Run(*key, value, seconds, answer.params, answer.tried)
        except Exception as error:  # an hour of other figures is not to be lost
            traceback.print_exc()
            run = Run(*key, None, time.perf_counter() - start, error=f"{type(error).__name__}: {error}")
        self.runs = [r for r in self.runs if r[: len(key)] != key] + [run]
        self.write()
        shown = "failed" if run.value is None else figure(task, run.value)
        print(f"  {name}, seed {seed}, {method}: {shown} ({run.seconds:.0f} s)", file=sys.stderr, flush=True)
        return run

    def write(self) -> None:
        if self.path is not None:
            found = {**machine(), "runs": [run._asdict() for run in self.runs]}
            beside = self.path.with_name(self.path.name + ".part")
            beside.write_text(json.dumps(found, indent=1))
            beside.replace(self.path)


def machine() -> dict[str, Any]:
    libraries = ("archwright", "torch", "scikit-learn", "optuna", "numpy")
    versions = {"python": platform.python_version(), **{name: version(name) for name in libraries}}
    return {"machine": platform.machine(), "cores": CORES, "versions": versions, "command": " ".join(sys.argv)}


def score(task: str, truth: Array, output: Array) -> float:
    """Share of wrong labels, compared as text, or RMSE."""
    if len(truth) != len(output):
        raise ValueError(f"got {len(output)} answers for {len(truth)} rows")
    if task == "classification":
        return float(np.mean(np.asarray(truth).astype(str) != np.asarray(output).astype(str)))
    return float(np.sqrt(np.mean((np.asarray(truth, float) - np.asarray(output, float)) ** 2)))


def figure(task: str, value: float) -> str:
    return f"{100 * value:.2f} %" if task == "classification" else f"{value:.4g}"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print columns, the first to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max([len(row[i]) for row in cells]) for i in range(len(header))]
    for row in cells:
        first, *others = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    print(flush=True)


def verdict(text: str, held: bool) -> None:
    print(f"{'held     ' if held else 'NOT HELD '} {text}", flush=True)


def searched(raw: Any, test: Any, seconds: float, seed: int, **options: Any) -> Answer:
    """Our own method: search for so many seconds, all of them counted, with defaults, then predict the test rows."""
    from archwright.flows.search import search

    start = time.perf_counter()
    result = search(raw, budget=seconds, seed=seed, test=0.0, **options)
    took = time.perf_counter() - start
    params, tried = result.run["cost"]["params"], sum(result.run["trials"].values())
    return Answer(result.best.predict(test), params, tried, took)


class Case(NamedTuple):
    """One split of a set: the truth about its test rows, and what each method does with it."""

    truth: Array
    task: str
    calls: Mapping[str, Callable[[], Any]]


def all_runs(
    record: Record, section: str, names: Iterable[str], seeds: int, methods: Sequence[str], seconds: float,
    case: Callable[[str, int, float], Case],
) -> list[Run]:  # fmt: skip
    """Every method on every split of every set, one after the other."""
    found = []
    for name in names:
        for seed in range(seeds):
            truth, task, calls = case(name, seed, seconds)
            unknown = [method for method in methods if method not in calls]
            if unknown:
                raise DataError(f"got method '{unknown[0]}' for {section}: expected some of {', '.join(calls)}")
            found += [record.run(section, name, seed, m, seconds, truth, task, calls[m]) for m in methods]
    return found


def mean(runs: Iterable[Run]) -> float:
    """Mean value; infinite if a method failed."""
    return statistics.fmean([math.inf if run.value is None else run.value for run in runs])


# -------------------------------------------------------------------------------------------------------------- tables
OURS = "archwright"
TABLE_METHODS = (OURS, "sklearn MLP", "TPE MLP", "boosting")
TABLE_PARAMS = 100_000


def tables(record: Record, options: argparse.Namespace) -> None:
    names, methods = options.sets or list(sets.TEN), options.methods or TABLE_METHODS
    runs = all_runs(record, "tables", names, options.seeds or 3, methods, options.seconds or 60.0, table_case)
    show_tables(runs, {name: sets.read_table(name).task for name in names}, methods)


def table_case(name: str, seed: int, seconds: float) -> Case:
    import peers_tables as peers

    _, frame, task = sets.read_table(name)
    truth = frame["target"].to_numpy()
    fit, test = halves(truth, task, seed)
    rows, asked = frame.iloc[fit].reset_index(drop=True), frame.iloc[test].drop(columns="target").reset_index(drop=True)
    classes, codes = np.unique(truth, return_inverse=True) if task == "classification" else (None, truth.astype(float))
    job = peers.Job(rows.drop(columns="target"), codes[fit], asked, task, seconds, seed)

    def peer(method: Callable[[Any], Any]) -> Answer:
        answer = method(job)
        return Answer(answer.output if classes is None else classes[answer.output], *answer[1:])

    most = {"params": TABLE_PARAMS - 1}
    calls = {
        OURS: lambda: searched(rows, asked, seconds, seed, limit=most, target="target", task=task),
        "sklearn MLP": lambda: peer(peers.random_search_mlp),
        "TPE MLP": lambda: peer(peers.tpe_mlp),
        "boosting": lambda: peer(peers.boosting),
    }
    return Case(truth[test], task, calls)


def halves(truth: Array, task: str, seed: int) -> tuple[Array, Array]:
    """Rows to be given, and a fifth for the test, with each class divided alike."""
    from sklearn.model_selection import train_test_split

    alike = truth if task == "classification" else None
    fit, test = train_test_split(np.arange(len(truth)), test_size=0.2, random_state=seed, stratify=alike)
    return fit, test


def mean_ranks(runs: Sequence[Run], methods: Sequence[str]) -> dict[str, float]:
    """Of each method, its mean place over sets and seeds; equal ones share theirs, and one that failed is last."""
    from scipy.stats import rankdata

    places = []
    for case in dict.fromkeys([(run.set, run.seed) for run in runs]):
        found = {run.method: run.value for run in runs if (run.set, run.seed) == case}
        places.append(rankdata([math.inf if found[m] is None else found[m] for m in methods]))
    return dict(zip(methods, np.mean(places, axis=0).tolist(), strict=True))


def show_tables(runs: Sequence[Run], kinds: dict[str, str], methods: Sequence[str]) -> None:
    """The table, and what it says."""
    of = {(n, m): [r for r in runs if (r.set, r.method) == (n, m)] for n in kinds for m in methods}

    def cell(name: str, method: str) -> str:
        values = [r.value for r in of[name, method] if r.value is not None]
        if len(values) < len(of[name, method]):
            return "failed"
        spread = figure(kinds[name], statistics.pstdev(values)).removesuffix(" %")
        return f"{figure(kinds[name], statistics.fmean(values))} ± {spread}"

    table(["share wrong or RMSE", *methods], [[n, *[cell(n, m) for m in methods]] for n in kinds])
    params = [(m, [r.params for r in runs if r.method == m and r.params]) for m in methods]
    longest = [(m, [r.seconds for r in runs if r.method == m]) for m in methods]
    ranks = mean_ranks(runs, methods)
    table(
        ["", *methods],
        [
            ["mean rank", *[f"{ranks[m]:.2f}" for m in methods]],
            ["most weights", *[f"{max(p):,}" if p else "-" for _, p in params]],
            ["most seconds", *[f"{max(s):.1f}" for _, s in longest]],
        ],
    )
    if OURS not in methods:
        return
    for method in [m for m in methods if m not in (OURS, "boosting")]:
        better = ranks[OURS] < ranks[method]
        verdict(f"mean rank {ranks[OURS]:.2f} is better than that of {method}, {ranks[method]:.2f}", better)
    sizes, wanted = dict(params)[OURS], sum([r.method == OURS for r in runs])
    within = sum([size < TABLE_PARAMS for size in sizes])
    verdict(f"{within} of {wanted} winners are below {TABLE_PARAMS:,} weights", within == wanted)
    if "boosting" in methods:
        lost = [n for n in kinds if mean(of[n, OURS]) > mean(of[n, "boosting"])]
        kept = len(kinds) - len(lost)
        verdict(f"not below boosting on {kept} of {len(kinds)} sets, by the mean over seeds", 2 * kept > len(kinds))
        print(where_trees_win([(n, kinds[n], mean(of[n, OURS]), mean(of[n, "boosting"])) for n in lost]))


def where_trees_win(lost: Sequence[tuple[str, str, float, float]]) -> str:
    if not lost:
        return "Trees win nowhere here."
    return "Trees win on " + ", ".join([f"{n} ({figure(t, b)} against {figure(t, a)})" for n, t, a, b in lost]) + "."


# -------------------------------------------------------------------------------------------------------------- images
class Pictures(NamedTuple):
    """What is asked of a search: a share of at least `target` right with fewer weights than `params` in `seconds`."""

    params: int
    target: float
    seconds: float
    mirror: bool


PICTURES = {"mnist": Pictures(50_000, 0.992, 600.0, False), "fashion": Pictures(60_000, 0.915, 900.0, True)}
CNN = "fixed CNN"


def images(record: Record, options: argparse.Namespace) -> None:
    runs = list[Run]()
    for name in options.sets or PICTURES:
        seconds, methods = options.seconds or PICTURES[name].seconds, options.methods or (OURS, CNN)
        runs += all_runs(record, "images", [name], options.seeds or 1, methods, seconds, image_case)
    rows = [[r.set, r.seed, r.method, right(r), f"{r.params or 0:,}", f"{r.seconds:.0f}"] for r in runs]
    table(["set", "seed", "method", "right", "weights", "seconds"], rows)
    for run in [run for run in runs if run.method == OURS]:
        asked = PICTURES[run.set]
        text = f"{run.set}: {right(run)} right with {run.params or 0:,} weights in {run.seconds:.0f} s"
        enough = run.value is not None and 1 - run.value >= asked.target and (run.params or 0) < asked.params
        verdict(f"{text}; asked for {asked.target:.1%} below {asked.params:,}", enough)


def image_case(name: str, seed: int, seconds: float) -> Case:
    import peers_images as peers

    asked, (x, y, test, truth) = PICTURES[name], sets.read_images(name)
    most = {"params": asked.params - 1}
    calls = {
        OURS: lambda: searched(x, test, seconds, seed, y=y, limit=most),
        CNN: lambda: peers.fixed_cnn(x, y, test, limit=asked.params, seconds=seconds, seed=seed, mirror=asked.mirror),
    }
    return Case(truth, "classification", calls)


def right(run: Run) -> str:
    return "failed" if run.value is None else f"{100 * (1 - run.value):.2f} %"


# ------------------------------------------------------------------------------------------------------------- signals
# Of the seven sets of the archive that are there, the four for classification with at least a hundred test cases: on
# fewer, two points are one case.
SERIES = ("ItalyPowerDemand", "JapaneseVowels", "GunPoint", "ACSF1")
SPOKEN = ("digits by take", "digits by speaker")
SIGNAL_METHODS = (OURS, "DTW", "ROCKET")


def signals(record: Record, options: argparse.Namespace) -> None:
    names, methods = options.sets or (*SPOKEN, *SERIES), options.methods or SIGNAL_METHODS
    if {*methods} - {OURS} and importlib.util.find_spec("aeon") is None:
        raise MissingExtra("the peers need aeon: in an environment of its own, pip install 'archwright[bench]'")
    runs = all_runs(record, "signals", names, options.seeds or 3, methods, options.seconds or 120.0, signal_case)
    show_signals(runs, methods)


def signal_case(name: str, seed: int, seconds: float) -> Case:
    import peers_signals as peers

    data = sets.read_digits(name.removeprefix("digits by "), seed) if name in SPOKEN else sets.read_ts(name)
    fit, test = np.flatnonzero(~data.test), np.flatnonzero(data.test)
    labels, features = data.labels[fit], [sets.log_mel(c, data.rate) for c in data.cases] if data.rate else data.cases
    known, asked = [[features[i] for i in part] for part in (fit, test)]

    def ours() -> Answer:
        if data.rate:
            return spoken(data, fit, test, seconds, seed)
        return searched(known, asked, seconds, seed, y=labels, kind="signal")

    calls = {
        OURS: ours,
        "DTW": lambda: (peers.nearest_by_dtw(known, labels, asked),),
        "ROCKET": lambda: (peers.rocket_ridge(known, labels, asked, seed),),
    }
    return Case(data.labels[test], "classification", calls)


def spoken(data: sets.Signals, fit: Array, test: Array, seconds: float, seed: int) -> Answer:
    """Search over a folder of the recordings that are given. Their names say who speaks: for unknown speakers a search
    is told to choose by speakers that it did not learn from."""
    with tempfile.TemporaryDirectory() as folder:
        for i in fit:
            shutil.copy(data.paths[i], folder)
        group = {"group": "speaker"} if data.name == "digits by speaker" else {}
        return searched(folder, [data.cases[i][0] for i in test], seconds, seed, **group)


def show_signals(runs: Sequence[Run], methods: Sequence[str]) -> None:
    names = list(dict.fromkeys([run.set for run in runs]))
    of = {(n, m): [r for r in runs if (r.set, r.method) == (n, m)] for n in names for m in methods}

    def share(name: str, method: str) -> float:
        return 1 - mean(of[name, method])

    rows = [[n, *[f"{100 * share(n, m):.1f} % ({of[n, m][-1].seconds:.0f} s)" for m in methods]] for n in names]
    table(["right, mean over seeds", *methods], rows)
    if OURS not in methods or len(methods) == 1:
        return
    for name in names:
        best = max([m for m in methods if m != OURS], key=lambda m: share(name, m))
        ours, theirs = share(name, OURS), share(name, best)
        verdict(f"{name}: {ours:.1%} right, {best} {theirs:.1%}; at most two points below", ours >= theirs - 0.02)


# ------------------------------------------------------------------------------------------------------------ overhead
def overhead(record: Record, options: argparse.Namespace) -> None:
    share, parts = share_outside_training(100, options.seconds or 1.0)
    table(["100 trials of 1 s on digits", "seconds"], [[name, f"{value:.1f}"] for name, value in parts.items()])
    verdict(f"{share:.1%} of the time is spent on other things than training, asked for less than 5 %", share < 0.05)
    times = proposing(1000)
    last = times[-100:]
    middle, high = statistics.median(last), statistics.quantiles(last, n=20)[-1]
    rows = [[str(at), f"{1e3 * statistics.median(times[max(0, at - 50) : at]):.1f}"] for at in (100, 250, 500, 1000)]
    table(["proposals made", "ms for the next, median of 50"], rows)
    text = f"proposing the next trial takes {1e3 * middle:.1f} ms after 1,000 (95 of 100 below {1e3 * high:.1f} ms)"
    verdict(f"{text}, asked for less than 50 ms", middle < 0.05)
    for name, value in (("share outside training", share), ("seconds to propose after 1,000 trials", middle)):
        record.runs.append(Run("overhead", "digits", 0, name, 0.0, value, 0.0))
    record.write()


def share_outside_training(trials: int, seconds: float) -> tuple[float, dict[str, float]]:
    """Search with trials that train for so long each and are not given up. Of the wall time, the share in which workers
    do not train, start and end included; the last training, which is training, is left out."""
    from archwright.flows import loop
    from archwright.flows import plan as plans
    from archwright.flows import search as flow

    class Even(plans.Plan):
        def job_seconds(self, left: float | None) -> float | None:
            return seconds

        def final_seconds(self, full: float | None) -> float:
            return seconds

    def even(*given: Any) -> plans.Plan:
        found = dataclasses.asdict(plans.plan(*given))
        return Even(**{**found, "siblings": 1, "samples": 10**10})

    patches = mock.patch.object(flow, "plan", even), mock.patch.object(loop, "KEEP", {})
    with tempfile.TemporaryDirectory() as folder, patches[0], patches[1]:
        start = time.perf_counter()
        result = flow.search("digits", budget=trials * seconds, trials=trials, workers=CORES, folder=folder)
        total = time.perf_counter() - start
        results = [t.user_attrs.get("result", {}) for t in result.study.get_trials()]
    trained = sum([r.get("seconds", 0.0) for r in results]) / CORES
    last = result.run["winner"]["training"]["seconds"]
    parts = {"in all": total, f"trials, {len(results)} in {CORES} workers": trained, "last training": last}
    parts["everything else"] = total - trained - last
    return parts["everything else"] / (total - last), parts


def proposing(trials: int) -> list[float]:
    """Seconds of each proposal in a study of so many trials, whose training is left out: their errors are drawn."""
    from archwright.flows import jobs, proposals
    from archwright.flows import plan as plans
    from archwright.flows import search as flow

    took: list[float] = []
    rng = np.random.default_rng(0)
    propose, work = proposals.Proposals.next, jobs.Worker.run

    def short(*given: Any) -> plans.Plan:
        return dataclasses.replace(plans.plan(*given), samples=1, folds=0, siblings=1)

    def timed(self: Any, *given: Any, **more: Any) -> Any:
        start = time.perf_counter()
        found = propose(self, *given, **more)
        took.append(time.perf_counter() - start)
        return found

    def drawn(self: Any, job: Any) -> Any:
        if job.get("final"):
            return work(self, job)
        made = {"state": "complete", "reason": "", "curve": [], "seconds": 0.01, "steps": 20, "loss": 0.5}
        (name,) = job["metrics"]
        return [{**made, "number": c["number"], "values": {name: rng.random()}} for c in job["candidates"]]

    patches = [(flow, "plan", short), (proposals.Proposals, "next", timed), (jobs.Worker, "run", drawn)]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(mock.patch.object(*patch))
        flow.search("iris", trials=trials, workers=0)
    return took


# -------------------------------------------------------------------------------------------------------------- fronts
def fronts(record: Record, options: argparse.Namespace) -> None:
    seconds = options.seconds or 10.0
    steps, differ = front_steps(seconds)
    rows = [[name, f"{count:,}", f"{count / seconds:,.0f}"] for name, count in steps.items()]
    table([f"512 random kernels, 5 folds of mnist1d, {seconds:g} s", "steps", "a second"], rows)
    print(f"After 50 steps on 100 series the outputs differ by {differ:.1e} at most.\n")
    for name, count in steps.items():
        record.runs.append(Run("fronts", "mnist1d", 0, name, seconds, count / seconds, seconds))
    record.write()


def front_steps(seconds: float) -> tuple[dict[str, int], float]:
    """Steps of a training of so many seconds on one thread, with features that are computed once and without; and by
    how much the outputs of two short trainings differ."""
    import torch

    from archwright import ops
    from archwright.core import registry
    from archwright.data.builtin import builtin
    from archwright.kit import frozen
    from archwright.kit.settings import Settings
    from archwright.kit.together import Limits, Trained, train_together
    from archwright.net.net import init

    torch.set_num_threads(1)
    data = builtin("mnist1d")
    g = ops.edit()
    x = registry.load("rocket", "block")(g, g.input("x", data.shapes[0]), kernels=512)
    graph = g.finish(g.add("linear", x, out=data.outputs))
    nets, train, valid = [init(graph, seed) for seed in range(5)], data.splits["train"], data.splits["valid"]

    def trained(limits: Limits, rows: int) -> Trained:
        rng, settings = np.random.default_rng(0), [Settings(batch=32)] * 5
        return train_together(nets, settings, data, [train[:rows]] * 5, [valid[:rows]] * 5, limits, rng)

    found, outputs = dict[str, int](), []
    for name, patch in {
        "computed once": ExitStack(), "in each step": mock.patch.object(frozen, "divide", lambda graph: None)
    }.items():  # fmt: skip
        with patch:
            found[name] = trained(Limits(10**9, seconds), len(train)).steps
            outputs.append(trained(Limits(50), 100).outputs)
    pairs = zip(*outputs, strict=True)
    return found, max([float(np.abs(a - b).max()) for a, b in pairs if a is not None and b is not None])


# ---------------------------------------------------------------------------------------------------------------- main
SECTIONS = {"tables": tables, "images": images, "signals": signals, "overhead": overhead, "fronts": fronts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=SECTIONS, nargs="+")
    parser.add_argument("--seconds", type=float, help="budget of each method (default 60, 600 and 900, 120)")
    parser.add_argument("--seeds", type=int, help="number of splits or of runs (default 3; images 1)")
    parser.add_argument("--sets", type=lambda text: text.split(","), help="names, divided by commas")
    parser.add_argument("--methods", type=lambda text: text.split(","), help=f"{OURS} or peers, divided by commas")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--keep", action="store_true", help="do not run what the file holds already")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    record = Record(options.out, options.keep)
    try:
        for section in options.section:
            SECTIONS[section](record, options)
    except ArchwrightError as error:
        sys.exit(f"error: {error}")
    if any([run.error for run in record.runs]):
        sys.exit("some runs failed: see above")


if __name__ == "__main__":
    main()
