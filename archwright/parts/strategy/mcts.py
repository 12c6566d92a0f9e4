"""Monte Carlo tree search: a space is a tree of decisions, and the search returns to the branches that paid.

    at a node seen before   value with the greatest  mean reward + c sqrt(2 ln N / n),   values not tried yet first
    below                   every decision at random (the rollout)

N trials passed through the node, n of them took the value; c is `exploration` times the spread of all rewards, so that
units do not matter. The tree is worked out anew from the history: the node of a decision is what was chosen before it.
Running trials count in N and n with the mean reward of their node, so that a batch does not follow one path.

With several objectives only the first counts. Cost: one walk over all trials for a call. Fails where what matters is
decided late in the order of the program, since early decisions are the roots of the tree.
Differs from the paper: nodes are expanded as soon as they are met; choices are not bisected; a real number is one of
eight parts of its range.

Negrinho and Gordon: DeepArchitect: Automatically Designing and Training Deep Architectures, 2017, arXiv 1704.08792.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from archwright.core.choose import Decide, Options, Picker, Scalar
from archwright.core.records import Claim, Trace, Trial
from archwright.core.space import Space
from archwright.errors import ArchwrightError
from archwright.kit.controller import Question, Tokens, tokens
from archwright.kit.trials import finished, losses

PART = {
    "kind": "strategy",
    "name": "mcts",
    "id": "",
    "title": "DeepArchitect: Automatically Designing and Training Deep Architectures",
    "year": 2017,
    "arxiv": "1704.08792",
    "needs": [],
    "extras": [],
    "example": {"hp": {"exploration": 0.5}, "trials": 120, "batch": 4},
    "exact": "At a node no value is taken twice before every value was taken once.",
    "claim": {
        "text": "NAS-Bench-201 as a tree of six choices, 300 queries, 50 seeds: regret over that of random search.",
        "paper": "better models than random search for the same number of evaluations",
    },
}

Path = tuple[int, ...]
"""Indices of the values taken so far: a node of the tree."""


def propose(
    history: Sequence[Trial],
    space: Space,
    rng: np.random.Generator,
    n: int,
    *,
    directions: Sequence[str] = ("min",),
    exploration: float = 0.5,
) -> list[Trace]:
    """n traces, each by the tree as it is with those before it counted as running."""
    if not exploration >= 0:
        raise ArchwrightError(f"got exploration {exploration}, expected at least 0")
    done = finished(history)
    rewards = dict(zip([t.number for t in done], -losses(done, directions)[:, 0], strict=True))
    tree = Tree(exploration * (float(np.std(list(rewards.values()))) if rewards else 0.0))
    for trial in history:
        tree.add(tokens(space, Trace(trial.trace)), rewards.get(trial.number))
    found = []
    for _ in range(n):
        picker = Picker(tree.walk(rng))
        space.program(picker, space.spec)
        tree.add(tokens(space, picker.trace), None)
        found.append(picker.trace)
    return found


class Tree:
    """How often each node was passed, and the rewards that came of it."""

    def __init__(self, exploration: float) -> None:
        self.exploration = exploration
        self.visits: dict[Path, int] = {}
        self.known: dict[Path, int] = {}
        self.total: dict[Path, float] = {}

    def add(self, trace: Tokens, reward: float | None) -> None:
        """A trial; None if its reward is not known (yet)."""
        answers = tuple([answer for _, answer in trace])
        for node in [answers[:depth] for depth in range(len(answers) + 1)]:
            self.visits[node] = self.visits.get(node, 0) + 1
            if reward is not None:
                self.known[node] = self.known.get(node, 0) + 1
                self.total[node] = self.total.get(node, 0.0) + reward

    def worth(self, parent: Path, child: Path) -> float:
        """The upper bound of a value that was tried: of unknown reward it is as good as its node."""
        at = child if child in self.known else parent
        mean = self.total[at] / self.known[at] if at in self.known else 0.0
        return mean + self.exploration * math.sqrt(2 * math.log(self.visits[parent]) / self.visits[child])

    def walk(self, rng: np.random.Generator) -> Decide:
        """A way to decide, for one reading of the space."""
        path: Path = ()

        def decide(name: str, options: Options) -> Scalar:
            nonlocal path
            question = Question(name, options)
            children = [(*path, i) for i in range(question.size)]
            new = [i for i, child in enumerate(children) if child not in self.visits]
            if new:
                index = new[int(rng.integers(len(new)))]
            else:
                bounds = np.array([self.worth(path, child) for child in children])
                best = np.flatnonzero(bounds == bounds.max())
                index = int(best[int(rng.integers(len(best)))])
            path = children[index]
            return question.value(index, float(rng.random()) if options.kind == "number" else 0.0)

        return decide


def claim(*, seed: int = 0) -> Claim:
    """Regret: the best test accuracy of the table minus that of the cell with the best validation accuracy found."""
    from archwright.core.registry import load
    from archwright.kit.nasbench201 import table
    from archwright.kit.tabular_search import columns, search

    runs, queries = 50, 300
    value, test = columns("c10_valid_200"), columns("c10_test_200")
    top = float(table().column("c10_test_200").max())
    regret: dict[str, list[float]] = {}
    for label, way in {"tree": propose, "random": load("strategy/random")}.items():
        found = [search(way, value, queries=queries, batch=20, seed=seed + run) for run in range(runs)]
        regret[label] = [top - test(max(trials, key=lambda t: t.values[0]).trace)[0] for trials in found]
    means = {label: float(np.mean(values)) for label, values in regret.items()}
    gain = np.array(regret["random"]) - np.array(regret["tree"])
    error = float(gain.std(ddof=1) / np.sqrt(runs))
    return Claim(
        means["tree"] / means["random"],
        "1",
        "below 1, the difference of regrets above two standard errors",
        bool(gain.mean() > 2 * error),
        "better models than random search",
        {"regret": means["tree"], "regret of random": means["random"], "error of the difference": error},
        (f"{runs} searches of {queries} queries in batches of 20; regret in points of accuracy",),
    )
