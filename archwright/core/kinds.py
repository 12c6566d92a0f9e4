"""One Protocol for each kind of part: the function that its file defines, by the name in `registry.ENTRY`.

What holds for every kind:
- The values come first and by position; all else is a keyword with a default. An unknown keyword is an error: no **hp.
- Nothing is changed in place: nets, graphs, data and histories are values.
- Randomness comes from `seed` or `rng` only. What can only draw from global generators (dropout in training) runs
  within `archwright.core.seeds.forked(seed)`. The same seed gives the same result, in every process.
- Global state (generators, gradient mode, default dtype, threads, environment, working directory) is left as it was,
  and no file is written, except where a kind is about just that.
- The clock is read only through `Budget.start()`, and by runtimes and latency estimators, which measure it.

PART["example"] says how the conformance checks call the part. Its keys differ between kinds; an unknown one is an
error. Those that take a net and data share these:

    "hp"       keyword arguments of the function; {} by default
    "data"     toy data: "table" (default), "regression", "image", "signal", "tokens", "points", "graph"
    "net"      toy net: "mlp", "conv", "residual", "attention", "recurrent", "gnn"; default: what suits the data
    "trained"  True: the net is trained for a moment first

(see `archwright.core.checks.toys`). A part that needs something else defines `case(seed)` in its file, which returns
the positional arguments of its function as a tuple; `"net"` and `"data"` are then left out.

Some free words in PART["needs"] are read by the checks: "baseline" (a strategy that need not beat random search),
"finite" (a strategy for spaces without real numbers only), "clock" (an estimator that measures time).

Every part may define `claim(*, seed=0) -> Claim`: what its paper promises, measured in under a minute on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from archwright.core.choose import Choose
from archwright.core.records import Budget, Finding, Log, Measured, Report, Score, Trace, Trial
from archwright.core.space import Space, Spec
from archwright.data.data import Data
from archwright.ir import Editor, Graph
from archwright.net.net import Net


class Block(Protocol):
    """`build(g, *values, **hp) -> y`: adds operations to a graph; values are names. A tuple where there are several.

    PART["example"] = {
        "inputs": [{"shape": [None, 16, 32], "dtype": "float32"}],     # None: the batch. int64 also has "high": the
        "hp": {"hidden": 64},                                          # numbers are below it
        "vary": [{"inputs": [...]}, {"hp": {...}}],                    # at least two: another width, another size
        "onnx": True,                                                  # False where ONNX has no such operation
        "batched": True,                                               # False: inputs have no batch (one whole graph)
        "no_gradient": [],                                             # weights whose gradient is 0 (in "vary" too)
    }

    Sizes that a block can read off its input (`g.shape(x)`) are no keywords. The batch is never read: -1 stands for it.
    Weights get names from `g.add(..., name=...)`; a block used twice in a graph is used in two scopes.
    """

    def __call__(self, g: Editor, x: str) -> Any: ...


class SpaceProgram(Protocol):
    """`draw(choose, spec, **hp) -> Graph`: a program that asks while it builds. See `archwright.core.choose`.

    PART["example"] = {
        "spec": {"inputs": [[None, 3, 16, 16]], "outputs": 10},        # and "dtypes" where not all are float32
        "hp": {"cells": 1},
        "small": {"hp": {...}, "spec": {...}, "count": 120},           # a setting of at most 5,000 traces (1,000 is
                                                                       # quick), and how many they are: counted by hand
                                                                       # or by formula. "unique": of them, distinct keys
        "supernet": {"fixed": {...}, "join": "switch"},                # None where it cannot be one
        "draws": 8,                                                    # graphs that are built and run
    }

    The graph's one output is [batch, spec.outputs] unless the docstring and "output": [None, ...] say another shape.
    """

    def __call__(self, choose: Choose, spec: Spec) -> Graph: ...


class Strategy(Protocol):
    """`propose(history, space, rng, n, *, directions, **hp) -> traces`: what to try next, from the history alone.

    history     all trials so far, in order of their numbers, which may have gaps. Failed and running ones have no
                values; values may be NaN
    rng         the only source of randomness: the same history and generator state give the same proposals
    n           how many are wanted. Fewer may come; none at all ends the search
    directions  "min" or "max" for each objective

    No clock, no state between calls: what a strategy knows it works out from the history, every time.
    A strategy that first trains something (a supernet, a pretrained predictor) also has
    `learn(space, data, budget, rng, **hp) -> state`; `propose` then takes `state=None`.

    PART["example"] = {
        "hp": {...},
        "trials": 60,               # of the toy bench; the best of random search after as many is what has to be beaten
        "batch": 4,                 # proposals asked for at a time
        "objectives": 1,            # 2: compared by hypervolume
    }

    "baseline" in PART["needs"]: it need only not be worse than random search by more than noise.
    `case(seed)`, if defined, returns (space, objective) where objective(trace) gives a tuple of values to be minimised.
    """

    def __call__(
        self,
        history: Sequence[Trial],
        space: Space,
        rng: np.random.Generator,
        n: int,
        *,
        directions: Sequence[str] = ("min",),
    ) -> Sequence[Trace]: ...


class Estimator(Protocol):
    """`score(net, data, *, seed, **hp) -> Score`: a number with unit and direction, without full training.

    An estimator that learns from what was tried also has `fit(history, space, *, seed, **hp) -> state`, where `history`
    are trials (`Trial.extra` may hold learning curves: "curve": [...]); `score` then takes `state=None, trace=None`.

    PART["example"] = {
        "hp": {...}, "data": "image", "net": "conv",
        "target": "error",          # what it ranks, in the stored bench: "error", "loss", "curve_area", "params",
                                    # "flops", "peak_bytes", "train_bytes", "traffic_bytes"; None where nothing fits
        "floor": 0.5,               # Spearman's rank correlation with it (good with good) is at least this
    }
    """

    def __call__(self, net: Net, data: Data, *, seed: int = 0) -> Score: ...


class Transform(Protocol):
    """`apply(net, data, *, seed=0, **hp) -> (Net, Report)`: network in, network out, weights carried along.

    An exact one (`Report.exact`) computes the same, to rtol 1e-4, whatever the norms' statistics and biases. Any other
    one says what it changed: `Report.measure`, a figure, and `Report.bound`, which that stays below. Only the train and
    valid splits may be looked at. `seed` is for those that draw random numbers.

    PART["example"] = {"hp": {...}, "data": "image", "net": "residual", "trained": True}
    `case(seed)` returns (net, data), or (nets, data) where several nets are joined: then the first argument is a tuple.
    """

    def __call__(self, net: Net, data: Data) -> tuple[Net, Report]: ...


class Rule(Protocol):
    """`fit(net, data, budget, rng, **hp) -> (Net, Log)`: how weights are found.

    One step is one update of the weights (or one visit of a layer, a tree, a pattern: the docstring says which).
    The log has a column "step" with unit "steps", rising; its last entry is the number of steps taken, exactly
    `budget.steps` if that is what ended it. Columns of time have unit "s".

    PART["example"] = {
        "hp": {...}, "data": "table", "net": "mlp",
        "steps": 60,                # enough to learn something on the toy data
        "falls": "train_loss",      # the column that is lower at the end than at the start; or "rises"
        "same_graph": True,         # False where the rule grows or assembles networks
    }
    """

    def __call__(self, net: Net, data: Data, budget: Budget, rng: np.random.Generator) -> tuple[Net, Log]: ...


class Lens(Protocol):
    """`look(net, data, *, seed=0, **hp) -> Finding`: network and data in, insight out. Every figure has a unit.

    PART["example"] = {"hp": {...}, "data": "table", "net": "mlp", "trained": True}
    `case(seed)` returns (net, data); a lens on training takes its snapshots in `case` as further keyword "hp" cannot
    hold tensors: (net, data, snapshots) with `look(net, data, snapshots, ...)`.
    """

    def __call__(self, net: Net, data: Data) -> Finding: ...


class Weightspace(Protocol):
    """Networks that read or write other networks' weights. At least one of

        encode(nets, *, seed=0, **hp) -> Tensor [nets, features]
        edit(nets, *, seed=0, **hp) -> tuple[Net, ...]                nets of the same graphs, with other weights
        decode(code, graph, *, seed=0, **hp) -> Net                   code: Tensor [features], or None

    and for those that are trained `fit(nets, targets, budget, rng, **hp) -> state`, passed on as `state=None`.

    PART["example"] = {
        "hp": {...}, "data": "table", "net": "mlp", "nets": 4,
        "encode": "invariant",      # what permuting hidden units does: "invariant", or "none" where nothing is claimed
        "edit": "equivariant",      # edit(permuted) = permuted(edit): "equivariant" or "none"
    }
    `case(seed)` returns (nets,).
    """

    def __call__(self, nets: Sequence[Net]) -> Tensor: ...


class Zoo(Protocol):
    """Keep, document, find and reuse networks. At least one of

        card(net, run, **hp) -> str                                   Markdown; a section without content says MISSING
        find(query, nets, *, seed=0, **hp) -> [(name, score), ...]    best first; nets: name -> Net; query: str or Net
        reuse(nets, data, *, seed=0, **hp) -> (Net, Report)           one network from several
        put(folder, net, run, **hp) -> Path                           writes below the folder only

    `run` is what is recorded of the network's making, as plain data; every field may be absent. See
    `archwright.core.checks.zoo.RUN` for its fields. No clock: dates come from `run`.

    PART["example"] = {"hp": {...}, "data": "table", "net": "mlp", "query": "a small network"}
    """

    def __call__(self, net: Net, run: Mapping[str, Any]) -> str: ...


class Runtime(Protocol):
    """`run(net, x, *, seed=0, **hp) -> Measured`: execute small or fast. `x` is the tuple of the net's inputs.

    `Measured.outputs` are the network's outputs: equal to what the graph computes in eval mode, to rtol 1e-4, or within
    "bound" (greatest difference over greatest magnitude) where the method is approximate.

    PART["example"] = {"hp": {...}, "data": "image", "net": "conv", "bound": None}
    `case(seed)` returns (net, x).
    """

    def __call__(self, net: Net, x: Sequence[Tensor]) -> Measured: ...


class Task(Protocol):
    """`load(source, *, seed=0, **hp) -> Data`: a kind of data and its pipeline. `source` is a path, or arrays.

    What is fitted to data (means, vocabularies, codebooks) is fitted to the train split. `Data.meta["standardised"]` is
    "feature" or "channel" where inputs were brought to mean 0 and deviation 1 (over the train split, so there exactly).
    A task may also have `flow(data, budget, rng, **hp) -> (Net, Log)`: what suits it, as a rule does it.

    PART["example"] = {"hp": {...}, "steps": 20}
    `case(seed, folder)` writes a tiny source below the folder (or makes arrays) and returns (source,). Required, unless
    "source" in the example names built-in data.
    """

    def __call__(self, source: Any) -> Data: ...
