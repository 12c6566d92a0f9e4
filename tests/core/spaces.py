"""Random small spaces for hypothesis: programs of nested branches, repeats, sizes and values, as plain trees.

A program is a tuple of statements:

    ("branch", (program, program, ...))      one of several pieces
    ("repeat", low, high, program)           a piece applied so many times; its choices are shared by all rounds
    ("each", low, high, program)             the same with choices of its own in each round
    ("size", (4, 6, ...))                    a linear layer of elastic width, back to the common width
    ("act", ("relu", ...))                   an activation by name
    ("kernel", (1, 3, 5))                    a convolution of elastic kernel, over the width as a signal
    ("layer",)                               a linear layer
"""

from __future__ import annotations

from math import prod

from hypothesis import strategies as st

from archwright import ops
from archwright.core.space import Space, Spec

SPEC = Spec(((None, 6),), 3)
WIDTH = 6


def space(program, name="random"):
    """The space of a program."""

    def draw(choose, spec):
        g = ops.edit()
        x = g.add("linear", g.input("x", spec.inputs[0]), out=WIDTH, name="stem")
        x = _run(choose, g, x, program, "p")
        return g.finish(g.add("linear", x, out=spec.outputs, name="head"))

    return Space(name, draw, SPEC)


def _run(choose, g, x, program, path):
    for i, statement in enumerate(program):
        name = f"{path}{i}"
        match statement:
            case ("branch", options):
                pieces = {f"o{k}": _piece(choose, option, f"{name}o{k}_") for k, option in enumerate(options)}
                x = choose.branch(name, g, x, pieces)
            case ("repeat", low, high, body):
                x = choose.repeat(name, g, x, low, high, lambda g, x, i, body=body, name=name: _run(
                    choose, g, x, body, f"{name}r_"))  # fmt: skip
            case ("each", low, high, body):
                x = choose.repeat(name, g, x, low, high, lambda g, x, i, body=body, name=name: _run(
                    choose, g, x, body, f"{name}e{i}_"))  # fmt: skip
            case ("size", sizes):
                y = g.add("linear", x, out=choose.one_of(name, sizes), name=f"{name}_in")
                x = g.add("linear", g.add("relu", y, name=f"{name}_act"), out=WIDTH, name=f"{name}_out")
            case ("kernel", sizes):
                kernel = choose.one_of(name, sizes)
                y = g.add("unsqueeze", x, dim=1, name=f"{name}_wide")
                y = g.add("conv", y, out=1, kernel=kernel, padding=kernel // 2, name=f"{name}_conv")
                x = g.add("squeeze", y, dim=[1], name=f"{name}_flat")
            case ("act", names):
                x = g.add("tanh", x, name=f"{name}_a") if choose.one_of(name, names) == "tanh" else x
            case ("layer",):
                x = g.add("linear", x, out=WIDTH, name=name)
    return x


def _piece(choose, program, path):
    return lambda g, x: _run(choose, g, x, program, path)


def count(program):
    """The number of traces, by the rules of counting: sums over branches, products over independent statements."""
    return prod(_ways(statement) for statement in program)


def _ways(statement):
    match statement:
        case ("branch", options):
            return sum(count(option) for option in options)
        case ("repeat", low, high, body):  # choices of the body are asked only if it is applied at all
            return sum(count(body) if times else 1 for times in range(low, high + 1))
        case ("each", low, high, body):
            return sum(count(body) ** times for times in range(low, high + 1))
        case ("size" | "act" | "kernel", options):
            return len(options)
        case ("layer",):
            return 1


def elastic(program):
    """Whether any statement is an elastic size."""
    return any(
        s[0] in ("size", "kernel")
        or (s[0] == "branch" and any(map(elastic, s[1])))
        or (s[0] in ("repeat", "each") and elastic(s[3]))
        for s in program
    )


def _extend(inner, supernet):
    bodies = st.lists(inner, min_size=0, max_size=2).map(tuple)
    lows = st.integers(0, 1)
    branch = st.lists(bodies, min_size=1, max_size=3).map(lambda options: ("branch", tuple(options)))
    each = st.tuples(st.just("each"), lows, st.integers(1, 2), bodies)
    if supernet:
        return branch | each
    return branch | each | st.tuples(st.just("repeat"), lows, st.integers(1, 3), bodies)


def programs(supernet=False, sizes=True):
    """Programs of at most two thousand traces. With `supernet` only what a supernet can keep."""
    leaves = st.just(("layer",))
    if sizes:
        leaves |= st.sampled_from([("size", (4, 6)), ("size", (2, 8, 5)), ("kernel", (1, 3, 5))])
    if not supernet:
        leaves |= st.just(("act", ("tanh", "none")))
    inner = st.recursive(leaves, lambda inner: _extend(inner, supernet), max_leaves=5)
    return st.lists(inner, min_size=1, max_size=3).map(tuple).filter(lambda program: count(program) <= 600)
