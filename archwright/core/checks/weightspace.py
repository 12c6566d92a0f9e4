"""What a weightspace is held to.

`encode` gives one row of finite numbers for each net; where it is said to be invariant, permuting hidden units changes
nothing. `edit` gives nets of the same graphs; where it is said to be equivariant, editing the permuted nets is the same
as permuting the edited ones. `decode` gives a net of the graph asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archwright.core import seeds
from archwright.core.checks import common, toys
from archwright.core.checks.common import TOYS, Call, Calls, Checks
from archwright.core.part import Part
from archwright.core.records import Budget
from archwright.net.axes import axes
from archwright.net.net import Net, example

MINIMUM = 20
KEYS = TOYS | {"nets", "encode", "edit"}
VERBS = ("encode", "edit", "decode")


def nets_of(part: Part, seed: int) -> tuple[Net, ...]:
    """The nets of the example, all different, with rough weights."""
    if common.own(part, "case") is not None:
        found: tuple[Net, ...] = tuple(common.net_and_data(part, seed)[0])
        return found
    source = toys.data(part.example.get("data", "table"))
    count = part.example.get("nets", 4)
    made = [toys.net(part.example.get("net"), source, 10 * seed + i) for i in range(count)]
    return tuple([common.rough(net, 100 * seed + i) for i, net in enumerate(made)])


def _state(part: Part) -> dict[str, Any]:
    fit = common.own(part, "fit")
    if fit is None:
        return {}
    nets = nets_of(part, 5)
    targets = torch.tensor([float(sum(w.abs().float().mean() for w in net.weights.values())) for net in nets])
    known = inspect.signature(fit).parameters
    hp = {k: v for k, v in common.hp(part).items() if k in known}
    return {"state": fit(nets, targets, Budget(steps=5), seeds.rng(0, "fit"), **hp)}


def calls(part: Part) -> Calls:
    """Whichever of encode, edit and decode the part has."""
    state = _state(part)
    found = {}
    for verb in VERBS:
        function = common.own(part, verb)
        if function is None:
            continue
        known = inspect.signature(function).parameters
        hp = {k: v for k, v in common.hp(part).items() if k in known}
        extra = {k: v for k, v in state.items() if k in known}

        def make(seed: int, verb: str = verb) -> tuple[Any, ...]:
            nets = nets_of(part, seed)
            return (_code(part, nets, seed, state), nets[0].graph) if verb == "decode" else (nets,)

        def run(args: tuple[Any, ...], kw: dict[str, Any], function: Any = function, extra: Any = extra) -> Any:
            return function(*args, **{**extra, **kw})

        found[verb] = Call(function, make, hp, run)
    return found


def _code(part: Part, nets: Sequence[Net], seed: int, state: Mapping[str, Any]) -> Tensor | None:
    encode = common.own(part, "encode")
    if encode is None:
        return None
    known = inspect.signature(encode).parameters
    hp = {k: v for k, v in common.hp(part).items() if k in known}
    more = {**({"seed": seed} if "seed" in known else {}), **{k: v for k, v in state.items() if k in known}}
    code: Tensor = encode(nets, **hp, **more)
    return code[0]


def check(part: Part) -> int:
    """Run the suite; returns how many checks ran."""
    c = Checks(part)
    made = calls(part)
    c.that(bool(made), "defines none of encode, edit and decode")
    results = common.every(c, made, KEYS)
    nets = nets_of(part, 0)
    c.that(len(nets) >= 2, f"the example has {len(nets)} nets, expected at least 2")
    if "encode" in made:
        _encode(c, part, made["encode"], nets, results["encode"])
    if "edit" in made:
        _edit(c, part, made["edit"], nets, results["edit"])
    if "decode" in made:
        net = results["decode"]
        c.that(isinstance(net, Net), f"decode returned {type(net).__name__}, expected a Net")
        c.that(net.graph.key() == nets[0].graph.key(), "decode gave a net of another graph")
        c.that(common.finite(common.outputs(net, example(net.graph, 3))), "outputs of the decoded net are not finite")
        c.that(any(bool(w.any()) for w in net.weights.values()), "all weights of the decoded net are zero")
    return c.count


def _permuted(net: Net, seed: int) -> tuple[Net, dict[int, list[int]]]:
    tied = axes(net)
    rng = np.random.default_rng(seed)
    orders = {a.number: rng.permutation(a.size).tolist() for a in tied.free}
    return tied.permute(net, orders), orders


def _claim(c: Checks, part: Part, verb: str, word: str) -> bool:
    said = part.example.get(verb)
    c.that(said in (word, "none"), f"PART['example']['{verb}'] is {said!r}, expected '{word}' or 'none'")
    return said == word


def _encode(c: Checks, part: Part, call: Call, nets: Sequence[Net], code: Any) -> None:
    is_matrix = isinstance(code, Tensor) and code.dim() == 2 and code.shape[0] == len(nets)
    c.that(is_matrix, f"encode has to return a tensor [{len(nets)}, features]")
    c.that(common.finite(code), "the code is not finite")
    c.that(not code.requires_grad, "the code still requires gradients")
    c.that(bool((code[0] != code[1]).any()), "two different nets have the same code")
    backwards = call((tuple(reversed(nets)),))
    c.same(backwards, code.flip(0), "the code of a net depends on the nets beside it, or on their order", 1e-4, 1e-5)
    if _claim(c, part, "encode", "invariant"):
        for seed in (1, 2, 3):
            permuted = call((tuple([_permuted(net, seed)[0] for net in nets]),))
            c.same(permuted, code, "said to be invariant, but permuting hidden units changes the code", 1e-3, 1e-4)


def _edit(c: Checks, part: Part, call: Call, nets: Sequence[Net], edited: Any) -> None:
    is_nets = isinstance(edited, (tuple, list)) and len(edited) == len(nets)
    c.that(is_nets and all(isinstance(net, Net) for net in edited), f"edit has to return {len(nets)} nets")
    keys = all(one.graph.key() == other.graph.key() for one, other in zip(edited, nets, strict=True))
    c.that(keys, "edit gave nets of other graphs")
    c.that(common.finite(list(edited)), "edited weights are not finite")
    c.that(all(not w.requires_grad for net in edited for w in net.weights.values()), "edited weights require gradients")
    if _claim(c, part, "edit", "equivariant"):
        for seed in (1, 2, 3):
            pairs = [_permuted(net, seed) for net in nets]
            first = call((tuple([net for net, _ in pairs]),))
            then = [axes(net).permute(net, orders) for net, (_, orders) in zip(edited, pairs, strict=True)]
            c.same(
                [dict(net.weights) for net in first], [dict(net.weights) for net in then],
                "said to be equivariant, but editing permuted nets is not permuting edited nets", 1e-3, 1e-4,
            )  # fmt: skip
