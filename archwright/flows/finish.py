"""What follows the loop: the last training, the figures on the test split, and the record of the run.

The best candidates, which are averaged (`archwright.flows.team`), are trained again on all rows but those of the test
split. If that fails, or no time is left for it, the nets that the loop trained are taken instead; the record says
which. The test split is looked at here, once, and nothing is decided by it.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from archwright.core.records import Trial
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.errors import ArchwrightError, EmitError
from archwright.flows.bundle import Bundle
from archwright.flows.objectives import costs
from archwright.flows.pool import STOPPED
from archwright.flows.team import Team, outputs_of, seconds_of
from archwright.kit.ensemble import ensemble, mean_outputs
from archwright.kit.latency import latency
from archwright.kit.metrics import metric, probabilities
from archwright.kit.prelude import with_recipe
from archwright.kit.settings import Settings
from archwright.kit.together import LOOKS, Samples
from archwright.net.build import build
from archwright.net.net import Net, load

if TYPE_CHECKING:
    from archwright.flows.loop import Loop
    from archwright.flows.pool import Here, Pool

EXTRA = {
    "classification": ("error", "balanced_accuracy", "neg_log_loss"),
    "regression": ("error", "neg_mean_absolute_error", "r2"),
}
"""Metrics that are reported beside those that were searched for."""

POINTS = 2000
"""Predictions of a regression that the record keeps."""

ENOUGH = 0.75
"""The last training counts if it had at least this share of the steps that the trial had."""

LOOKED = 4
"""Nets that the loop trained, the best and as many of the fastest, which are looked at for one that keeps to a limit of
the latency where the winner does not."""

AGAIN = 1.25
"""A latency that is over its limit by less than this factor is measured again, twice: other work may have disturbed."""

BINS = 10
"""Of the calibration of probabilities."""


def finish(loop: Loop, pool: Pool | Here, *, interrupted: bool, command: str) -> Bundle:
    """The winner as a bundle, with the record of the run. Raises `ArchwrightError` if nothing could be trained."""
    loop.show("final training")
    try:
        net, winner, cost = _winner(loop, pool, interrupted)
    except KeyboardInterrupt:  # no more training: what the loop trained is taken
        interrupted = loop.interrupts.take() or True
        net, winner, cost = _winner(loop, pool, interrupted)
    ask = loop.ask
    data = ask.data
    outputs = predict(net, data, "test")
    tested = _tested(loop, outputs)
    run = {**about(loop, command, interrupted), "winner": winner, **tested, "cost": cost}
    run["data"]["notices"] += _doubts(loop, tested)
    run["seconds"] = ask.at
    loop.book.spend(ask.spent)
    loop.show("done")
    return Bundle(net, recipe_from(data.meta["recipe"]), run)


# ------------------------------------------------------------------------------------------------ the last training
class Member(NamedTuple):
    """A network of the winner. `final`: on all rows, by the last training; else it is as the loop trained it."""

    trial: Trial
    net: Net
    seconds: float
    steps: int
    final: bool


Delivered = tuple[Net, dict[str, Any], dict[str, Any]]
"""The net, what is recorded of it, and what it costs."""


def _winner(loop: Loop, pool: Pool | Here, interrupted: bool) -> Delivered:
    """What is delivered. Raises `ArchwrightError` if nothing is there that keeps to the limits."""
    ranked = loop.within()
    if not ranked:
        if interrupted:
            raise ArchwrightError("the search was stopped before any network was trained: nothing is written")
        return _untried(loop, pool)
    members = _members(loop, pool, loop.team(), interrupted)
    # a resumed search may have lost the nets of the best, and have no time
    members = members or [one for trial in ranked if (one := _kept(loop, trial)) is not None][:1]
    if not members and interrupted:
        raise ArchwrightError("the search was stopped, and the nets that it trained are not here: resume it again")
    if not members:  # the shortest training is better than none
        members = [m for trial in ranked[:3] for m in _trained(loop, pool, [(trial, 1, None)])][:1]
    if not members:
        raise ArchwrightError("the last training failed for each of the best candidates: search again, for longer")
    while True:
        net = ensemble([m.net for m in members], loop.ask.data.task)
        cost, excess = _cost(loop, net, interrupted)
        if excess <= 1:
            return net, _record(loop, members), cost
        if len(members) == 1 or _is_late(loop):
            break
        members = members[: max(1, min(len(members) - 1, int(len(members) / excess)))]
    fastest = sorted(ranked, key=lambda t: t.extra.get("costs", {}).get("latency", math.inf))
    for trial in {t.number: t for t in [*ranked[:LOOKED], *fastest[:LOOKED]]}.values():
        if _is_late(loop) and trial.number != fastest[0].number:
            continue
        one = _kept(loop, trial)
        if one is not None and (found := _cost(loop, one.net, interrupted))[1] <= 1:
            return one.net, _record(loop, [one]), found[0]
    raise _too_slow(loop, cost)


def _members(loop: Loop, pool: Pool | Here, team: Team, interrupted: bool) -> list[Member]:
    """The networks of a team, trained again on all rows if there is time; the others as the loop trained them."""
    left = _time_left(loop)
    made: dict[int, list[Member]] = {}
    if not interrupted and (left is None or left > 0.2):
        jobs = [(trial, copies, seconds_of([(trial, copies)], loop.alone_seconds, 1)) for trial, copies in team.copies]
        with contextlib.suppress(ArchwrightError):  # no worker is left: there is what the loop trained
            for one in _trained(loop, pool, jobs):
                # cut short by other work on the machine, it would be worse than what the loop trained
                if one.steps >= ENOUGH * one.trial.extra.get("steps", 0) or _kept(loop, one.trial) is None:
                    made.setdefault(one.trial.number, []).append(one)
    kept = {t.number: [one] for t, _ in team.copies if t.number not in made and (one := _kept(loop, t)) is not None}
    return [one for trial, _ in team.copies for one in (made | kept).get(trial.number, [])]


def _kept(loop: Loop, trial: Trial) -> Member | None:
    """What the loop trained, if it is here."""
    folder = loop.nets / str(trial.number)
    if not folder.is_dir():
        return None
    return Member(trial, load(folder), trial.extra["seconds"], trial.extra["steps"], final=False)


def _untried(loop: Loop, pool: Pool | Here) -> Delivered:
    """No candidate was finished: the first that keeps to the limits is trained for what is left."""
    failed = [t.extra.get("reason", "") for t in loop.book.trials() if t.extra.get("state") == "fail"]
    for _ in range(3):
        for one in loop.proposals.next(1, stopped=lambda: loop.interrupts.asked):
            for member in _trained(loop, pool, [(Trial(-1, one.trace), 1, None)]):
                cost, excess = _cost(loop, member.net, quick=True)
                if excess > 1:
                    raise _too_slow(loop, cost)
                training = _training(loop, member)
                return member.net, {
                    "trial": None, "trace": dict(one.trace), "key": one.graph.key(), "valid": {}, **training,
                }, cost  # fmt: skip
    why = f": {failed[-1]}" if failed else ""
    raise ArchwrightError(f"none of the {len(failed)} candidates could be trained{why}")


def _is_late(loop: Loop) -> bool:
    """Whether nothing is left of the budget but what writing the bundle takes, or less."""
    return loop.ask.left is not None and loop.ask.left < 0.5 * loop.ask.plan.wrap


def _time_left(loop: Loop) -> float | None:
    """Seconds that the last training may take, None where the clock does not count."""
    left = loop.ask.left
    return None if left is None else left - loop.ask.plan.wrap


def _trained(loop: Loop, pool: Pool | Here, wanted: Sequence[tuple[Trial, int, float | None]]) -> list[Member]:
    """Networks trained on all rows but the test split's: (trial, copies, seconds that it takes about) for each job.
    What fails is left out; where the clock counts, each job gets its share of what is left."""
    waiting = sorted(wanted, key=lambda one: -(one[2] or 0.0))
    found: dict[int, list[Member]] = {}
    sent: dict[str, Trial] = {}
    total = _time_left(loop)
    end = math.inf if total is None else time.monotonic() + 1.05 * max(0.3, total) + 5
    threads = max(1, pool.size) if total is not None and len(waiting) == 1 else None
    while (waiting or sent) and time.monotonic() < end:
        while waiting and (pool.free or not sent):  # without a worker at all, sending says why
            trial, copies, takes = waiting[0]
            left = _time_left(loop)
            if left is not None:
                rest = sum([one[2] or 0.0 for one in waiting])
                share = min(1.0, takes * pool.size / rest) if takes and 0 < rest < math.inf else 1.0
                left = max(0.3, left * share)
            job = loop.final_job(
                trial.trace, trial.number, trial.extra.get("steps"), left, copies=copies, threads=threads
            )  # fmt: skip
            pool.send(job)
            sent[job["save"]] = trial
            waiting.pop(0)
        for job, results in pool.wait(0.25):
            trial = sent.pop(str(job["save"]))
            found[trial.number] = [
                Member(trial, load(Path(job["save"]) / str(r["number"])), r["seconds"], r["steps"], final=True)
                for r in results if r["state"] == "complete"
            ]  # fmt: skip
        if loop.interrupts.asked:
            pool.abandon()
            raise KeyboardInterrupt
        loop.show("final training")
    if sent:
        pool.abandon()
    return [one for trial, *_ in wanted for one in found.get(trial.number, [])]


def _cost(loop: Loop, net: Net, quick: bool) -> tuple[dict[str, Any], float]:
    """What the delivered network costs for one sample; and the greatest share of a limit that it takes, 1 at most if it
    keeps to all. The latency is that of model.onnx, raw inputs included; None for a net that has no form in ONNX."""
    known, limits = net.cost(), loop.ask.limits
    found: dict[str, Any] = {
        "params": known.params, "flops": known.flops, "bytes": known.param_bytes + known.buffer_bytes,
        "activation_bytes": known.peak_bytes, "traffic_bytes": known.traffic_bytes,
        "latency_s": None, "latency_runs": 0,
    }  # fmt: skip
    exact = costs(net.graph, [name for name in limits if name != "latency"])
    excess = max([value / limits[name] for name, value in exact.items()], default=0.0)
    whole = with_recipe(net, recipe_from(loop.ask.data.meta["recipe"]))
    most = limits.get("latency", math.inf)
    for _ in range(3):
        try:
            measured = latency(whole, seconds=0.1 if quick or _is_late(loop) else 0.3)
        except EmitError:
            return found, math.inf if "latency" in limits else excess
        if found["latency_s"] is None or measured.seconds < found["latency_s"]:
            found |= {"latency_s": measured.seconds, "latency_runs": measured.runs}
        if found["latency_s"] <= most or measured.seconds > AGAIN * most:
            break
    return found, max(excess, found["latency_s"] / most)


def _too_slow(loop: Loop, cost: Mapping[str, Any]) -> ArchwrightError:
    """Why nothing is delivered: what keeps to exact limits before its training does so after it."""
    took = "cannot be measured" if cost["latency_s"] is None else f"takes {cost['latency_s']:.3g} s"
    most = loop.ask.limits.get("latency", math.inf)
    again = "resume the search on an idle machine, or " if loop.within() else ""
    return ArchwrightError(
        f"no trained network keeps to the latency of {most:.3g} s when it is measured again (the winner {took}):"
        f" {again}begin one that allows more"
    )


def _curve(trial: Trial) -> list[list[float]]:
    """The metric after shares of the training: [[share, value]]."""
    extra = trial.extra
    return [[s / LOOKS, v] for s, v in zip(extra.get("curve_steps", ()), extra.get("curve", ()), strict=False)]


def _record(loop: Loop, members: Sequence[Member]) -> dict[str, Any]:
    """The best trial among the members; and all of them, if they are several."""
    first = members[0]
    trial = first.trial
    found = {
        "trial": trial.number, "trace": dict(trial.trace), "key": trial.extra.get("key"),
        "valid": _together(loop, members) or _alone(loop, trial), "curve": _curve(trial), **_training(loop, first),
    }  # fmt: skip
    if len(members) > 1:
        found["training"]["networks"] = len(members)
        copies = Counter(m.trial.number for m in members)
        found["members"] = [
            {"trial": t.number, "copies": copies[t.number], "valid": _alone(loop, t), "trace": dict(t.trace)}
            for t in {m.trial.number: m.trial for m in members}.values()
        ]  # fmt: skip
    return found


def _alone(loop: Loop, trial: Trial) -> dict[str, float]:
    """The metrics of a trial."""
    return {o.name: value for o, value in zip(loop.ask.objectives, trial.values, strict=True) if not o.is_cost}


def _together(loop: Loop, members: Sequence[Member]) -> dict[str, float]:
    """The metrics of the mean of what the members' trials said of the held rows; nothing where that is not known."""
    outputs = [outputs_of(loop.nets / str(m.trial.number)) for m in members]
    if any([y is None for y in outputs]):
        return {}
    made = mean_outputs(outputs, loop.ask.data.task)
    return loop.judge.values(made, loop.judge.held_rows(made))


def _training(loop: Loop, one: Member) -> dict[str, Any]:
    settings, data = Settings.of(one.trial.trace), loop.ask.data
    rows = data.size("train") + data.size("valid") if one.final else loop.ask.plan.rows
    samples = one.steps * min(settings.batch, rows)
    return {"training": {
        "epochs": samples / max(1, rows), "steps": one.steps, "seconds": one.seconds, "samples": rows,
        "retrained": one.final, **settings.as_dict(),
    }}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- figures
@torch.no_grad()
def predict(net: Net, data: Data, split: str) -> np.ndarray[Any, Any]:
    """Outputs of a net on a split, [n, k], read batch by batch."""
    module, samples = build(net).eval(), Samples(data)
    rows = np.asarray(data.splits[split], np.int64)
    pieces = [module(*samples(torch.from_numpy(rows[i : i + 1024]))[0]) for i in range(0, len(rows), 1024)]
    return torch.cat(pieces).float().numpy() if pieces else np.zeros((0, data.outputs), np.float32)


def _tested(loop: Loop, outputs: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Figures on the test split, with those of the trivial predictor beside them."""
    data = loop.ask.data
    target = recipe_from(data.meta["recipe"]).target
    truth = data.target[data.splits["test"]]
    seen = data.target[np.concatenate([data.splits["train"], data.splits["valid"]])]
    if not len(truth):
        return {"test": {}, "detail": {}, "baseline": {}}
    if data.task == "classification":
        share = np.bincount(seen, minlength=data.outputs) / max(1, len(seen))
        trivial = np.tile(np.log(share + 1e-9), (len(truth), 1))
        detail = _classes(truth, outputs, data.classes)
    else:
        trivial = np.tile(seen.mean(0), (len(truth), 1))
        truth, outputs, trivial = [np.asarray(target.decode(v)).reshape(len(v), -1) for v in (truth, outputs, trivial)]
        some = slice(None, None, max(1, -(-len(truth) // POINTS)))
        detail = {"predicted": outputs[some, 0].tolist(), "true": truth[some, 0].tolist()}
    names = dict.fromkeys([o.name for o in loop.ask.objectives if not o.is_cost] + list(EXTRA[data.task]))
    scores = {n: metric(n, data.task, data.outputs) for n in names}
    return {
        "test": {n: m(truth, outputs) for n, m in scores.items()}, "detail": detail,
        "baseline": {n: m(truth, trivial) for n, m in scores.items()},
    }  # fmt: skip


def _doubts(loop: Loop, tested: Mapping[str, Any]) -> list[str]:
    """What has to be said of the figures on the test split: that nothing was learned which holds there."""
    name = loop.ask.metric.name
    test, trivial = [tested[part].get(name, math.nan) for part in ("test", "baseline")]
    if not loop.ask.sign * test >= loop.ask.sign * trivial:
        return []
    always = "class shares" if loop.ask.data.task == "classification" else "the mean"
    why = "the inputs may say little about the target"
    if "temporal" in str(loop.ask.data.meta.get("split")):
        why += ", or what holds may change with time"
    return [
        f"on the test split the network is no better than a predictor that knows nothing but {always} ({name}"
        f" {test:.4g}, that one {trivial:.4g}): {why}"
    ]


def _classes(truth: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Confusion [true][predicted], calibration in bins of confidence, and figures for each class."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    chance, guess = probabilities(outputs).max(1), outputs.argmax(1)
    right = guess == truth
    bins = np.minimum((chance * BINS).astype(int), BINS - 1)
    calibration = [
        {"confidence": float(chance[bins == b].mean()), "accuracy": float(right[bins == b].mean()),
         "count": int((bins == b).sum())}
        for b in range(BINS) if (bins == b).any()
    ]  # fmt: skip
    labels = list(range(outputs.shape[1]))
    precision, recall, _, count = precision_recall_fscore_support(truth, guess, labels=labels, zero_division=0.0)
    per_class = [
        {"class": classes[c] if classes else str(c), "precision": float(precision[c]), "recall": float(recall[c]),
         "count": int(count[c])}
        for c in labels
    ]  # fmt: skip
    matrix = confusion_matrix(truth, guess, labels=labels).tolist() if len(labels) <= 100 else []
    return {"confusion": matrix, "calibration": calibration, "per_class": per_class}


# ------------------------------------------------------------------------------------------------- the run as a record
def _end(trial: Trial) -> str:
    """What became of a trial: "complete", "pruned" as hopeless, "stopped" since the search ended, "failed", "refused"
    untrained, or "running" still."""
    if trial.extra.get("refused"):
        return "refused"
    if trial.extra.get("state") == "pruned":
        return "stopped" if trial.extra.get("reason") == STOPPED else "pruned"
    return {"fail": "failed"}.get(state := str(trial.extra.get("state")), state)


def about(loop: Loop, command: str, interrupted: bool) -> dict[str, Any]:
    """What is known of the search, whatever won."""
    from importlib import metadata

    ask = loop.ask
    data = ask.data
    trials = loop.book.trials()
    names = [o.name for o in ask.objectives]

    def values(trial: Trial) -> dict[str, float]:
        return {**trial.extra.get("costs", {}), **dict(zip(names, trial.values, strict=True))}

    libraries = ("torch", "numpy", "optuna", "onnxruntime")
    now = datetime.datetime.now(datetime.UTC)
    states = [t.extra.get("state") for t in trials]
    ends = Counter([_end(t) for t in trials])
    recipe = recipe_from(data.meta["recipe"])
    best, timeline = math.inf, []
    for t in sorted([t for t in trials if t.values], key=lambda t: t.extra.get("at", 0.0)):
        if ask.sign * ask.value(t) < best:
            best = ask.sign * ask.value(t)
            timeline.append([t.extra.get("at", 0.0), ask.value(t)])
    return {
        "archwright": metadata.version("archwright"),
        "versions": {"python": platform.python_version(), **{n: metadata.version(n) for n in libraries}},
        "machine": {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()},
        "command": command, "seed": ask.seed, "interrupted": interrupted,
        "started": (now - datetime.timedelta(seconds=ask.spent)).isoformat(timespec="seconds"),
        "finished": now.isoformat(timespec="seconds"), "budget_s": ask.plan.budget,
        "data": {
            "name": data.name, "kind": data.kind, "task": data.task,
            "samples": {s: data.size(s) for s in ("train", "valid", "test")},
            "inputs": [list(shape) for _, shape, _ in recipe.inputs], "features": list(getattr(recipe, "features", ())),
            "classes": list(data.classes), "target": recipe.target.name, "split": data.meta.get("split", "random"),
            "notices": list(data.meta.get("notices", ())), "digest": data.meta.get("digest"),
        },
        "space": loop.space.name, "strategy": loop.label, "plan": ask.plan.as_dict(),
        "objectives": [o.as_dict() for o in ask.objectives], "limits": dict(ask.limits),
        "trials": {word: ends[word] for word in ("complete", "pruned", "stopped", "failed")},
        "refused": ends["refused"],
        "failures": [{"trial": t.number, "reason": t.extra.get("reason", "")} for t in trials
                     if t.extra.get("state") == "fail"],
        "scatter": [
            {"trial": t.number, "state": s, "seconds": t.extra.get("seconds"),
             "values": values(t)}
            for t, s in zip(trials, states, strict=True) if t.values
        ],
        "curves": {str(t.number): curve for t in trials if (curve := _curve(t))},
        "front": [
            {"trial": t.number, "values": values(t), "trace": dict(t.trace),
             "key": t.extra.get("key")}
            for t in loop.front()
        ],
        "best_so_far": timeline,
    }  # fmt: skip
