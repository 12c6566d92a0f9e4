"""What all suites share: counting, comparing results, watching what a call touches, repeating it elsewhere."""

from __future__ import annotations

import ast
import base64
import dataclasses
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from archwright.core import registry
from archwright.core.part import Part
from archwright.core.records import Figure, Log, Record
from archwright.data.data import Data
from archwright.errors import FormatError
from archwright.ir import Attrs, Graph
from archwright.net.net import Net

TIME_UNITS = ("s", "ms", "us", "ns", "min", "h")
"""Units whose numbers differ from run to run."""

LINES = 1000
"""A part longer than this is several parts."""


# --------------------------------------------------------------------------------------------------------- counting
@dataclass
class Checks:
    """Counts the checks of one part. Each failure is an AssertionError that begins with the part's key."""

    part: Part
    count: int = 0

    def that(self, holds: bool, otherwise: str) -> None:
        """One check: `otherwise` says what was got and expected."""
        self.count += 1
        if not holds:
            raise AssertionError(f"{self.part.key}: {otherwise}")

    def same(self, got: Any, expected: Any, what: str, rtol: float = 0.0, atol: float = 0.0) -> None:
        """One check: two results are equal, numbers to a tolerance."""
        found = difference(flatten(got), flatten(expected), rtol, atol)
        self.that(not found, f"{what}: {found}")

    def raises(self, errors: type[BaseException] | tuple[type[BaseException], ...], call: Any, what: str) -> None:
        """One check: a call raises one of these errors."""
        try:
            call()
        except errors:
            self.that(True, "")
            return
        except Exception as error:
            self.that(False, f"{what}: raised {type(error).__name__} ({error})")
        self.that(False, f"{what}: nothing was raised")


# ------------------------------------------------------------------------------------------------ results as values
Item = tuple[str, Any]
"""A label, and a text or an array."""


def flatten(value: Any) -> list[Item]:
    """A result as a list of labelled texts and arrays. What tells the time is left out: it differs from run to run."""
    return list(_items("", value))


def _items(label: str, value: Any) -> Iterator[Item]:
    if isinstance(value, Tensor):
        array = value.detach().cpu()
        array = array.float() if array.dtype in (torch.float16, torch.bfloat16) else array
        yield (
            f"{label} ({value.dtype}, grad {value.requires_grad})",
            array.numpy().copy(),
        )  # later changes in place must not be seen here
    elif isinstance(value, np.ndarray):
        yield (label, value.copy()) if value.dtype.kind in "fciub" else (label, repr(value.tolist()))
    elif isinstance(value, Graph):
        yield f"{label} graph", value.to_json()
    elif isinstance(value, Net):
        yield f"{label} graph", value.graph.to_json()
        for name, tensor in value.weights.items():
            yield from _items(f"{label} weight '{name}'", tensor)
    elif isinstance(value, Data):
        for i, array in enumerate(value.inputs):
            yield f"{label} input {i}", np.array(array)
        yield f"{label} target", np.array(value.target)
        for split, index in value.splits.items():
            yield f"{label} split '{split}'", np.array(index)
        facts = [value.task, value.kind, value.name, list(value.classes), _sorted(value.meta)]
        yield f"{label} facts", repr(facts)
    elif isinstance(value, Log):
        for name, column in value.columns.items():
            if value.units[name] not in TIME_UNITS:
                yield f"{label} column '{name}'", np.asarray(column, float)
        yield f"{label} end", repr((value.stopped, value.notes, sorted(value.units.items())))
    elif isinstance(value, Figure):
        yield (
            f"{label} figure '{value.name}'",
            value.unit if value.unit in TIME_UNITS else np.asarray(value.value, float),
        )
    elif isinstance(value, Record) and dataclasses.is_dataclass(value):
        times = getattr(value, "unit", "") in TIME_UNITS
        for f in dataclasses.fields(value):
            timed = f.name in ("seconds", "peak_bytes") or (times and f.name in ("value", "figure", "details"))
            if not timed:
                yield from _items(f"{label} {f.name}".strip(), getattr(value, f.name))
    elif isinstance(value, Mapping):
        yield f"{label} keys", repr(sorted(map(str, value)))
        for key in sorted(value, key=str):
            yield from _items(f"{label}[{key}]", value[key])
    elif isinstance(value, (list, tuple)):
        if value and all(type(item) in (int, float) for item in value):
            yield label, np.asarray(value, float)
        else:
            yield f"{label} length", str(len(value))
            for i, item in enumerate(value):
                yield from _items(f"{label}[{i}]", item)
    elif type(value) in (float, np.float32, np.float64):
        yield label, np.asarray(value, float)
    elif isinstance(value, (bool, int, str, Path, type(None), np.integer, np.bool_)):
        yield label, repr(value)
    # generators, spaces, editors: what they are shows in what comes out


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value, key=str)}
    return value


def difference(got: Sequence[Item], expected: Sequence[Item], rtol: float = 0.0, atol: float = 0.0) -> str:
    """Where two flattened results part, in words; "" where they agree. A NaN equals a NaN."""
    if [label for label, _ in got] != [label for label, _ in expected]:
        odd = sorted({label for label, _ in got} ^ {label for label, _ in expected})
        return f"different contents ({', '.join(odd[:3]) or 'in another order'})"
    for (label, one), (_, other) in zip(got, expected, strict=True):
        where = label.strip() or "the result"
        if isinstance(one, str) or isinstance(other, str):
            if one != other:
                return f"{where} is {_short(one)}, expected {_short(other)}"
            continue
        if one.shape != other.shape:
            return f"{where} has shape {list(one.shape)}, expected {list(other.shape)}"
        if one.size and not _close(one, other, rtol, atol):
            return f"{where} differs by {_apart(one, other):.3g} at most"
    return ""


def _close(one: Any, other: Any, rtol: float, atol: float) -> bool:
    if one.dtype.kind in "fc" and other.dtype.kind in "fc":
        scale = float(np.abs(other[np.isfinite(other)]).max(initial=0.0))
        return bool(np.allclose(one, other, rtol=0.0, atol=atol + rtol * scale, equal_nan=True))
    return bool(np.array_equal(one, other))


def _apart(one: Any, other: Any) -> float:
    kind = complex if "c" in (one.dtype.kind, other.dtype.kind) else float
    apart = np.abs(one.astype(kind) - other.astype(kind))
    return float(apart[np.isfinite(apart)].max(initial=0.0)) if np.isfinite(apart).all() else float("nan")


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) < 120 else text[:117] + "..."


def pack(items: Sequence[Item]) -> list[Any]:
    """Flattened results as JSON values."""
    return [
        [label, value]
        if isinstance(value, str)
        else [label, value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]
        for label, value in items
    ]


def unpack(packed: Sequence[Any]) -> list[Item]:
    """What `pack` packed."""
    found: list[Item] = []
    for entry in packed:
        if len(entry) == 2:
            found.append((entry[0], entry[1]))
        else:
            label, dtype, shape, text = entry
            found.append((label, np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape)))
    return found


# ------------------------------------------------------------------------------------------------------------ calls
@dataclass(frozen=True)
class Call:
    """How a suite calls one function of a part.

    function  of the part; its signature is checked
    make      seed -> positional arguments, made anew
    hp        keywords; `seed` is added if the function takes one
    run       (positional arguments, keywords) -> result, where that is not simply the function's
    clock     it may read the clock
    writes    it may write files
    """

    function: Callable[..., Any]
    make: Callable[[int], tuple[Any, ...]]
    hp: Mapping[str, Any] = field(default_factory=dict)
    run: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None
    clock: bool = False
    writes: bool = False

    def __call__(self, args: tuple[Any, ...], seed: int = 0, **more: Any) -> Any:
        kw = {**self.hp, **more}
        if "seed" in inspect.signature(self.function).parameters:
            kw.setdefault("seed", seed)
        return self.run(args, kw) if self.run is not None else self.function(*args, **kw)


Calls = Mapping[str, Call]
"""Name of a function of a part -> how to call it."""


def hp(part: Part) -> dict[str, Any]:
    """The keywords of a part's example."""
    return dict(part.example.get("hp", {}))


def own(part: Part, name: str) -> Callable[..., Any] | None:
    """A function that the part's own file defines, or None."""
    found = vars(registry.module(part)).get(name)
    return found if callable(found) and getattr(found, "__module__", None) == registry.module(part).__name__ else None


def net_and_data(part: Part, seed: int) -> tuple[Any, ...]:
    """What `case(seed)` gives, or the toy net and data of the example."""
    case = own(part, "case")
    if case is not None:
        found = case(seed)
        if not isinstance(found, tuple):
            raise AssertionError(f"{part.key}: case(seed) returned {type(found).__name__}, expected a tuple")
        return found
    from archwright.core.checks import toys

    example = part.example
    source = toys.data(example.get("data", "table"))
    return toys.net(example.get("net"), source, seed, trained=example.get("trained", False)), source


TOYS = frozenset(("hp", "data", "net", "trained"))
"""The keys of an example that `net_and_data` reads."""


_HOME: ContextVar[Path | None] = ContextVar("_HOME", default=None)


@contextmanager
def workshop() -> Iterator[None]:
    """Within it, each `scratch` folder is made in one place, which is removed with all that is in it at the end."""
    with tempfile.TemporaryDirectory(prefix="archwright-checks-") as home:
        token = _HOME.set(Path(home))
        try:
            yield
        finally:
            _HOME.reset(token)


def scratch() -> Path:
    """A new empty folder for a part to write to; outside a `workshop` it is the caller's to remove."""
    return Path(tempfile.mkdtemp(prefix="archwright-", dir=_HOME.get()))


# ------------------------------------------------------------------------------------------------ what all must hold
def every(c: Checks, calls: Calls, keys: frozenset[str]) -> dict[str, Any]:
    """The checks that every part has to pass. Returns the result of each call with seed 0."""
    record(c, keys)
    results: dict[str, Any] = {}
    for verb, call in calls.items():
        signature(c, verb, call)
        results[verb] = repeated(c, verb, call)
    if c.part.claim:
        claim = own(c.part, "claim")
        c.that(claim is not None, "PART['claim'] says something, but the file defines no claim()")
        assert claim is not None
        known = inspect.signature(claim).parameters
        c.that(
            list(known) == ["seed"] and known["seed"].default == 0, "claim has to be `def claim(*, seed=0) -> Claim`"
        )
    elsewhere(c, results)
    return results


def record(c: Checks, keys: frozenset[str]) -> None:
    """PART is complete and true, and the file is as files of parts are."""
    part = c.part
    c.that(bool(part.title), "PART['title'] is empty")
    c.that(1940 <= part.year <= 2100, f"PART['year'] is {part.year}, expected the year of the paper")
    c.that(
        part.arxiv == "" or bool(re.fullmatch(r"\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7}", part.arxiv)),
        f"PART['arxiv'] is {part.arxiv!r}, expected an identifier such as 2105.01601, or ''",
    )
    c.that(len(part.exact) > 0, "PART['exact'] is empty: say what holds exactly, or that nothing does")
    odd = sorted(part.example.keys() - keys)
    c.that(not odd, f"PART['example'] has unknown keys {odd}: a {part.kind} takes {', '.join(sorted(keys))}")
    fields = sorted(part.claim)
    c.that(fields in ([], ["paper", "text"]), f"PART['claim'] has {fields}, expected 'text' and 'paper'")
    text = part.path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    doc = ast.get_docstring(tree) or ""
    c.that(len(doc) >= 100, f"the docstring has {len(doc)} characters, expected the paper in miniature")
    c.that(text.count("\n") <= LINES, f"the file has {text.count(chr(10))} lines, expected at most {LINES}")
    names = [n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    banned = [name for name in names if re.match(r"archwright\.(parts|flows|cli|report|ui|sklearn)\b", name)]
    c.that(not banned, f"the file imports {', '.join(banned)}: a part imports floors below it only")


def signature(c: Checks, verb: str, call: Call) -> None:
    """Keywords have defaults, none is swallowed unread, and the function says what it does."""
    known = inspect.signature(call.function).parameters.values()
    loose = [p.name for p in known if p.kind is p.VAR_KEYWORD]
    c.that(not loose, f"{verb} takes **{''.join(loose)}: name every keyword, so that an unknown one is an error")
    bare = [p.name for p in known if p.kind is p.KEYWORD_ONLY and p.default is p.empty and p.name != "seed"]
    c.that(not bare, f"{verb}: keywords {bare} have no default")
    c.that(bool(inspect.getdoc(call.function)), f"{verb} has no docstring")
    c.raises(
        (TypeError, FormatError),
        lambda: call(call.make(0), nobody_knows_this=1),
        f"{verb} with an unknown keyword is no error",
    )


def repeated(c: Checks, verb: str, call: Call) -> Any:
    """The same seed gives the same result; inputs, global state, files and clock are left alone."""
    from archwright.core.checks import watch

    # the first call imports what is imported late, which may write caches and set variables of the environment
    args = call.make(0)
    early = watch.Watch(c.part)
    with early:
        first = call(args)
    state = [name for name in early.state if name not in watch.IMPORTED]
    c.that(not state, f"{verb} touched global state: {', '.join(state)}")
    args = call.make(0)
    before = flatten(args)
    saw = watch.Watch(c.part)
    with saw:
        result = call(args)
    touched = difference(flatten(args), before)
    c.that(not touched, f"{verb} changed its input: {touched}")
    c.that(not saw.state, f"{verb} touched global state: {', '.join(saw.state)}")
    c.that(call.writes or not saw.files, f"{verb} wrote files: {', '.join(saw.files[:3])}")
    c.that(call.clock or not saw.clock, f"{verb} read the clock: {', '.join(saw.clock[:3])}")
    c.that(not saw.network, f"{verb} used the network: {', '.join(saw.network[:3])}")
    c.same(result, first, f"{verb} called twice with the same seed gave different results", 1e-5, 1e-7)
    return result


def elsewhere(c: Checks, results: Mapping[str, Any]) -> None:
    """Another process, with another order of hashes, gets the same results."""
    from archwright.core.checks.elsewhere import ask

    found = ask(c.part)
    for verb, result in results.items():
        theirs = difference(unpack(found[verb]), flatten(result), 1e-4, 1e-6)
        c.that(not theirs, f"{verb} gave another result in another process with the same seed: {theirs}")


# ---------------------------------------------------------------------------------------------------- small helpers
def jsonable(c: Checks, value: Record, what: str) -> None:
    """A record can be written as JSON."""
    try:
        text = value.to_json()
    except (FormatError, TypeError, ValueError) as error:
        c.that(False, f"{what} cannot be written as JSON: {error}")
        return
    c.that(bool(text), f"{what} is empty")


def figures(c: Checks, found: Sequence[Figure], what: str) -> None:
    """Figures have names, each once, and units."""
    names = [f.name for f in found]
    c.that(all(names) and len(set(names)) == len(names), f"{what}: names of figures are {names}, expected each once")
    bare = [f.name for f in found if not f.unit]
    c.that(not bare, f"{what}: figures {bare} have no unit: write '1' for a pure number, 'share' for one in [0, 1]")


def charts(c: Checks, found: Sequence[Any], what: str) -> None:
    """Charts have series of equal length, numbers in them, and titles on their axes."""
    for chart in found:
        where = f"{what}: chart '{chart.title}'"
        c.that(bool(chart.title) and bool(chart.series), f"{where} has no title or no series")
        c.that(chart.kind in ("line", "scatter", "bar", "heatmap", "histogram"), f"{where} is of kind {chart.kind!r}")
        c.that(bool(chart.x) and (bool(chart.y) or chart.kind == "histogram"), f"{where} lacks titles on its axes")
        for name, series in chart.series.items():
            need = {"heatmap": {"x", "y", "z"}, "histogram": {"x"}}.get(chart.kind, {"x", "y"})
            c.that(need <= set(series), f"{where}: series '{name}' has {sorted(series)}, expected {sorted(need)}")
            if chart.kind == "heatmap":
                rows, columns = len(series["y"]), len(series["x"])
                fits = len(series["z"]) == rows and all(len(row) == columns for row in series["z"])
                c.that(fits, f"{where}: series '{name}': z is not {rows} rows of {columns}")
            elif chart.kind != "histogram":
                lengths = len(series["x"]), len(series["y"])
                c.that(lengths[0] == lengths[1] > 0, f"{where}: series '{name}' has {lengths} values of x and y")


def finite(tensors: Any) -> bool:
    """Whether all numbers of a result are finite."""
    return all(
        isinstance(v, str) or v.dtype.kind not in "fc" or bool(np.isfinite(v).all()) for _, v in flatten(tensors)
    )


def rough(net: Net, seed: int = 0) -> Net:
    """The net with weights that hide nothing: no zero biases, no gains of 1, random statistics of the norms."""
    from archwright import ops

    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, param in ops.params(net.graph).items():
        tensor = net.weights[name]
        if not tensor.is_floating_point() or (param.buffer and not name.endswith(("running_mean", "running_var"))):
            found[name] = tensor
            continue
        noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        if name.endswith("running_var"):
            found[name] = 0.5 + noise.abs()
        elif tensor.dim() < 2:
            found[name] = (tensor if param.init == ("ones",) else torch.zeros_like(tensor)) + 0.3 * noise
        else:
            spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
            found[name] = noise * (spread if spread > 1e-3 else 0.2)
    return Net(net.graph, found)


def outputs(net: Net, x: Sequence[Tensor], *, train: bool = False) -> tuple[Tensor, ...]:
    """What the net computes, without gradients."""
    from archwright.net.build import build

    with torch.no_grad():
        found = build(net).train(train)(*x)
    return found if isinstance(found, tuple) else (found,)


def plain(value: Any) -> Any:
    """`Attrs` and tuples as dictionaries and lists, as JSON would give them back."""
    if isinstance(value, (Attrs, dict)):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
