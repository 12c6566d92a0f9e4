"""What follows the loop: the last training, the figures on the test split, and the record of the run.

The best candidate is trained again, from the same seed, on all rows but those of the test split. If that fails, or no
time is left for it, the net that the loop trained is taken instead; the record says which. The test split is looked at
here, once, and nothing is decided by it.
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from archwright.core.records import Trial
from archwright.data.data import Data
from archwright.data.recipe import recipe_from
from archwright.errors import ArchwrightError
from archwright.flows.bundle import Bundle
from archwright.flows.objectives import costs, over
from archwright.kit.latency import latency
from archwright.kit.metrics import metric, probabilities
from archwright.kit.prelude import with_recipe
from archwright.kit.settings import Settings
from archwright.kit.together import Samples
from archwright.net.build import build
from archwright.net.net import Net, load

if TYPE_CHECKING:
    from archwright.flows.loop import Loop
    from archwright.flows.pool import Done, Here, Pool

EXTRA = {
    "classification": ("error", "balanced_accuracy", "neg_log_loss"),
    "regression": ("error", "neg_mean_absolute_error", "r2"),
}
"""Metrics that are reported beside those that were searched for."""

POINTS = 2000
"""Predictions of a regression that the record keeps."""

ENOUGH = 0.75
"""The last training counts if it had at least this share of the steps that the trial had."""

BINS = 10
"""Of the calibration of probabilities."""


def finish(loop: Loop, pool: Pool | Here, *, interrupted: bool, command: str) -> Bundle:
    """The winner as a bundle, with the record of the run. Raises `ArchwrightError` if nothing could be trained."""
    loop.show("final training")
    try:
        net, winner = _winner(loop, pool, interrupted)
    except KeyboardInterrupt:  # no more training: what the loop trained is taken
        interrupted = loop.interrupts.take() or True
        net, winner = _winner(loop, pool, interrupted)
    ask = loop.ask
    data = ask.data
    recipe = recipe_from(data.meta["recipe"])
    outputs = predict(net, data, "test")
    run = {
        **about(loop, command, interrupted), "winner": winner,
        **_tested(loop, outputs), "cost": _cost(net, recipe, interrupted),
    }  # fmt: skip
    run["seconds"] = ask.at
    loop.book.spend(ask.spent)
    loop.show("done")
    return Bundle(net, recipe, run)


# ------------------------------------------------------------------------------------------------ the last training
def _winner(loop: Loop, pool: Pool | Here, interrupted: bool) -> tuple[Net, dict[str, Any]]:
    """The net, and what is recorded of it."""
    ranked = [t for t in loop.ranked() if over(t.extra.get("costs", {}), loop.ask.limits) is None]
    if not ranked:
        if interrupted:
            raise ArchwrightError("the search was stopped before any network was trained: nothing is written")
        return _untried(loop, pool)
    for trial in ranked[:3]:
        left = _time_left(loop)
        if not interrupted and (left is None or left > 0.2):
            copies, _ = loop.copies(trial)
            net, seconds, steps = _train(loop, pool, trial.trace, trial.extra.get("steps"), copies)
            # cut short by other work on the machine, it would be worse than what the loop trained
            enough = steps >= ENOUGH * trial.extra.get("steps", 0) or not (loop.nets / str(trial.number)).is_dir()
            if net is not None and enough and _keeps(loop, net):
                return net, _record(loop, trial, steps, seconds, copies, final=True)
        kept = loop.nets / str(trial.number)
        if kept.is_dir():
            net = load(kept)
            if _keeps(loop, net):
                return net, _record(loop, trial, trial.extra["steps"], trial.extra["seconds"], 1, final=False)
    # a resumed search may have lost the nets, and have no time: the shortest training is better than none
    if interrupted:
        for trial in ranked[3:]:
            if (loop.nets / str(trial.number)).is_dir():
                net = load(loop.nets / str(trial.number))
                return net, _record(loop, trial, trial.extra["steps"], trial.extra["seconds"], 1, final=False)
        raise ArchwrightError("the search was stopped, and the nets that it trained are not here: resume it again")
    net, seconds, steps = _train(loop, pool, ranked[0].trace, ranked[0].extra.get("steps"))
    if net is None:
        raise ArchwrightError("the last training failed for each of the best candidates: search again, for longer")
    return net, _record(loop, ranked[0], steps, seconds, 1, final=True)


def _untried(loop: Loop, pool: Pool | Here) -> tuple[Net, dict[str, Any]]:
    """No candidate was finished: the first that keeps to the limits is trained for what is left."""
    failed = [t.extra.get("reason", "") for t in loop.book.trials() if t.extra.get("state") == "fail"]
    for _ in range(3):
        for one in loop.proposals.next(1):
            net, seconds, steps = _train(loop, pool, one.trace)
            if net is not None:
                training = _training(loop, one.trace, steps, seconds, 1, final=True)
                return net, {"trial": None, "trace": dict(one.trace), "key": one.graph.key(), "valid": {}, **training}
    why = f": {failed[-1]}" if failed else ""
    raise ArchwrightError(f"none of the {len(failed)} candidates could be trained{why}")


def _time_left(loop: Loop) -> float | None:
    """Seconds that the last training may take, None where the clock does not count."""
    left = loop.ask.left
    return None if left is None else left - loop.ask.plan.wrap


def _train(
    loop: Loop, pool: Pool | Here, trace: Mapping[str, Any], taken: int | None = None, copies: int = 1
) -> tuple[Net | None, float, int]:
    """Train a trace on all rows but the test split's: (net, seconds, steps), no net if it fails."""
    left = _time_left(loop)
    seconds = None if left is None else max(0.3, left)
    threads = None if seconds is None else max(1, pool.size)
    pool.send(loop.final_job(trace, taken, seconds, threads, copies))
    began = time.monotonic()
    done: list[Done] = []
    while not done and (seconds is None or time.monotonic() - began < 1.05 * seconds + 5):
        done = pool.wait(0.25)
        if loop.interrupts.asked:
            pool.abandon()
            raise KeyboardInterrupt
        loop.show("final training")
    if not done:
        pool.abandon()
        return None, 0.0, 0
    result = done[0][1][0]
    if result["state"] != "complete":
        return None, 0.0, 0
    return load(loop.work / "final" / "0"), result["seconds"], result["steps"]


def _keeps(loop: Loop, net: Net) -> bool:
    """Whether the net keeps to the limits. A latency is measured up to three times: other work may disturb it."""
    limit = loop.ask.limits
    recipe = recipe_from(loop.ask.data.meta["recipe"])
    return any(over(costs(net.graph, list(limit), recipe, net), limit) is None for _ in range(3))


def _record(loop: Loop, trial: Trial, steps: int, seconds: float, copies: int, final: bool) -> dict[str, Any]:
    return {
        "trial": trial.number, "trace": dict(trial.trace), "key": trial.extra.get("key"),
        "valid": {loop.ask.metric.name: loop.ask.value(trial)}, "curve": trial.extra.get("curve", []),
        **_training(loop, trial.trace, steps, seconds, copies, final),
    }  # fmt: skip


def _training(
    loop: Loop, trace: Mapping[str, Any], steps: int, seconds: float, copies: int, final: bool
) -> dict[str, Any]:
    settings, data = replace(Settings.of(trace), members=copies), loop.ask.data
    rows = data.size("train") + data.size("valid") if final else loop.ask.plan.rows
    samples = steps * min(settings.batch, rows)
    return {"training": {
        "epochs": samples / max(1, rows), "steps": steps, "seconds": seconds, "samples": rows,
        "retrained": final, **settings.as_dict(),
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


def _cost(net: Net, recipe: Any, quick: bool) -> dict[str, Any]:
    """What the delivered network costs for one sample; the latency is that of model.onnx, raw inputs included."""
    known = net.cost()
    measured = latency(with_recipe(net, recipe), seconds=0.1 if quick else 0.3)
    return {
        "params": known.params, "flops": known.flops, "bytes": known.param_bytes + known.buffer_bytes,
        "activation_bytes": known.peak_bytes, "traffic_bytes": known.traffic_bytes,
        "latency_s": measured.seconds, "latency_runs": measured.runs,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------- the run as a record
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
            "notices": list(data.meta.get("notices", ())),
        },
        "space": loop.space.name, "strategy": loop.label, "plan": ask.plan.as_dict(),
        "objectives": [o.as_dict() for o in ask.objectives], "limits": dict(ask.limits),
        "trials": {word: states.count(state) for word, state in
                   (("complete", "complete"), ("pruned", "pruned"), ("failed", "fail"))},
        "failures": [{"trial": t.number, "reason": t.extra.get("reason", "")} for t in trials
                     if t.extra.get("state") == "fail"],
        "scatter": [
            {"trial": t.number, "state": s, "seconds": t.extra.get("seconds"),
             "values": values(t)}
            for t, s in zip(trials, states, strict=True) if t.values
        ],
        "curves": {str(t.number): t.extra["curve"] for t in trials if t.extra.get("curve")},
        "front": [
            {"trial": t.number, "values": values(t), "trace": dict(t.trace),
             "key": t.extra.get("key")}
            for t in loop.front()
        ],
        "best_so_far": timeline,
    }  # fmt: skip
