"""Made-up records of searches."""

from __future__ import annotations

import random
from typing import Any

from archwright import ops
from archwright.net.net import Net, init


def network(features: int = 8, outputs: int = 3) -> Net:
    """Two layers."""
    g = ops.edit()
    x = g.input("numbers", (None, features))
    x = g.add("relu", g.add("linear", x, out=16, name="hidden"))
    return init(g.finish(g.add("linear", x, out=outputs, name="head")))


def record(
    task: str = "classification", *, trials: int = 30, objectives: tuple[str, ...] = ("error", "params"),
    names: tuple[str, ...] = ("a", "b", "c"), seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The record of a search as it stands in run.json."""
    r = random.Random(seed)
    unit = "share" if task == "classification" else "target units"
    units = {"error": unit, "params": "1", "latency": "s"}
    scatter, curves, best = [], {}, []
    for i in range(trials):
        known = {"error": r.uniform(0.02, 0.6), "params": r.randint(100, 90000), "latency": r.uniform(1e-5, 1e-3)}
        scatter.append({"trial": i, "state": r.choice(["complete", "pruned"]), "seconds": r.uniform(0.1, 2),
                        "values": {name: known[name] for name in objectives}})  # fmt: skip
        curves[str(i)] = [[k / 10, known["error"] + 1 / k] for k in range(1, 11)]
        if not best or known["error"] < best[-1][1]:
            best.append([float(i), known["error"]])
    won = min(scatter, key=lambda t: t["values"]["error"])
    k = len(names)
    detail: dict[str, Any] = {"true": [1.0, 2, 3], "predicted": [1.5, 2, 2.5]}
    if task == "classification":
        detail = {
            "confusion": [[9 if i == j else int(i + 1 == j) for j in range(k)] for i in range(k)],
            "calibration": [{"confidence": c, "accuracy": a, "count": n} for c, a, n in ((0.7, 0.6, 5), (0.95, 1, 20))],
            "per_class": [{"class": n, "precision": 0.9, "recall": 0.8, "count": 10} for n in names],
        }  # fmt: skip
    return {
        "archwright": "0.1.0", "versions": {"torch": "2.13.0"}, "machine": {"cores": 2}, "seed": 0,
        "command": "archwright search table.csv", "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:05+00:00", "budget_s": 60.0, "seconds": 61.2,
        "data": {
            "name": "flowers", "kind": "table", "task": task, "samples": {"train": 100, "valid": 20, "test": 36},
            "inputs": [[None, 8]], "features": ["petal", "sepal"], "target": "species",
            "classes": list(names) if task == "classification" else [],
            "split": "random", "notices": ["column 'notes' is text and is left out"],
        },
        "space": "tables", "strategy": "default", "limits": {"params": 20000.0},
        "objectives": [{"name": n, "unit": units[n], "direction": "min"} for n in objectives],
        "trials": {"complete": trials - 2, "pruned": 1, "failed": 1},
        "failures": [{"trial": i, "reason": "the loss is not finite"} for i in (3, 5)],
        "scatter": scatter, "curves": curves, "best_so_far": best,
        "front": [{"trial": won["trial"], "values": won["values"], "trace": {"depth": 2, "act": "relu"}, "key": "ab"}],
        "winner": {"trial": won["trial"], "trace": {"depth": 2, "act": "relu"}, "key": "ab" * 16,
                   "valid": {"error": won["values"]["error"]}, "curve": curves[str(won["trial"])],
                   "training": {"epochs": 12.5, "seconds": 3.2, "samples": 120, "networks": 3},
                   "members": [{"trial": won["trial"], "copies": 2, "valid": {"error": won["values"]["error"]},
                                "trace": {"depth": 2, "act": "relu"}},
                               {"trial": 4, "copies": 1, "valid": {"error": 0.05}, "trace": {"depth": 1}}]},
        "test": {"error": 0.0278, "r2": 0.5} if task == "regression" else {"error": 0.0278, "neg_log_loss": -0.12},
        "detail": detail, "baseline": {"error": 0.66},
        "cost": {"params": 195, "flops": 352, "bytes": 780, "activation_bytes": 96, "traffic_bytes": 1000,
                 "latency_s": 1.2e-5, "latency_runs": 2000},
    }  # fmt: skip
