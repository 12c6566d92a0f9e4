"""Text of PyTorch source: expressions whose numbers become arguments, classes that are shared, lines that fit."""

from __future__ import annotations

import ast
import inspect
import itertools
import keyword
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from archwright.exchange.source.plan import Path
from archwright.ops.base import Param

WIDTH = 120
_MOST_ARGUMENTS = 8

_WIDTHS = {
    "channels", "features", "in_channels", "out_channels", "num_features", "in_features", "out_features",
    "normalized_shape", "num_channels", "embed_dim", "embedding_dim", "input_size", "hidden_size", "d_model",
    "groups", "kdim", "vdim", "size",
}  # fmt: skip
"""Arguments that count units: those that are equal wherever a class is used become one argument."""


# ----------------------------------------------------------------------------------------------------- expressions
@dataclass(frozen=True)
class Number:
    """A number within an expression, with the name of the argument that it is given as."""

    text: str
    name: str


@dataclass
class Text:
    """An expression as it stands."""

    text: str


@dataclass
class Made:
    """An instance of a written class."""

    draft: Draft


@dataclass
class Box:
    """nn.Sequential, nn.ModuleList (entries in order) or nn.ModuleDict (by key); or the call of it as a base class."""

    kind: str
    entries: list[tuple[str, Expr]]
    base: bool = False


Expr = Text | Made | Box
Pieces = list[str | Number]


@dataclass
class Member:
    """One line of a constructor: target = expr ("assign"), target, expr) ("call"), or expr alone ("super")."""

    kind: str
    target: str
    expr: Expr


@dataclass
class Draft:
    """A class for one scope; those that are alike become one `Written`."""

    where: str
    hint: Sequence[str]
    base: str
    members: list[Member]
    forward: list[str]
    arguments: Sequence[str]
    returns: int
    about: str = ""
    height: int = 0
    written: Written | None = None
    numbers: list[str] = field(default_factory=list)


@dataclass
class Written:
    """A class as it is written, and the drafts that it stands for. `slots[i]` is the argument of number i, or None."""

    name: str
    drafts: list[Draft]
    slots: list[str | None]
    arguments: list[str]
    values: list[dict[str, str]]

    def call(self, draft: Draft) -> Pieces:
        values = self.values[next(i for i, d in enumerate(self.drafts) if d is draft)]
        pieces: Pieces = [f"{self.name}("]
        for index, argument in enumerate(self.arguments):
            pieces += [", "] if index else []
            pieces.append(Number(values[argument], argument))
        return [*pieces, ")"]


def text_of(expr: Expr, see: Callable[[Number], str]) -> str:
    """An expression as text; `see` is shown each number in turn and gives the text that stands for it."""
    if isinstance(expr, Text):
        return _joined(_numbers(expr.text), see)
    if isinstance(expr, Made):
        assert expr.draft.written is not None
        return _joined(expr.draft.written.call(expr.draft), see)
    made = "super().__init__" if expr.base else f"nn.{expr.kind}"
    if expr.kind == "ModuleDict":
        return f"{made}({{" + ", ".join([f'"{key}": {text_of(entry, see)}' for key, entry in expr.entries]) + "})"
    entries: list[str] = []
    for text, run in itertools.groupby([text_of(entry, see) for _, entry in expr.entries]):
        count = len(list(run))
        if count < 3:
            entries += [text] * count
        elif expr.kind == "ModuleList" and count == len(expr.entries):
            entries.append(f"{text} for _ in range({count})")
        else:
            entries.append(f"*[{text} for _ in range({count})]")
    inner = ", ".join(entries)
    return f"{made}([{inner}])" if expr.kind == "ModuleList" else f"{made}({inner})"


def _joined(pieces: Pieces, see: Callable[[Number], str]) -> str:
    return "".join([piece if isinstance(piece, str) else see(piece) for piece in pieces])


def _numbers(text: str) -> Pieces:
    """Text cut at its numbers, each with the name of the argument that it stands for."""
    spots: list[tuple[int, int, str]] = []

    def visit(found: ast.AST, name: str) -> None:
        if isinstance(found, ast.UnaryOp) and isinstance(found.operand, ast.Constant):
            spots.append((found.col_offset, found.end_col_offset or 0, name))
        elif isinstance(found, ast.Constant):
            if type(found.value) in (int, float):
                spots.append((found.col_offset, found.end_col_offset or 0, name))
        elif isinstance(found, ast.Call):
            visit(found.func, name)
            names = _argument_names(found.func)
            for index, given in enumerate(found.args):
                visit(given, names[index] if index < len(names) else name)
            for given_by_name in found.keywords:
                visit(given_by_name.value, given_by_name.arg or name)
        else:
            for child in ast.iter_child_nodes(found):
                visit(child, name)

    if "\n" in text or not text.isascii():
        return [text]
    visit(ast.parse(text, mode="eval"), "size")
    pieces: Pieces = []
    end = 0
    for start, stop, name in sorted(spots):
        pieces += [text[end:start], Number(text[start:stop], name)]
        end = stop
    return [*pieces, text[end:]]


def _argument_names(called: ast.AST) -> list[str]:
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "nn":
        made = getattr(nn, called.attr, None)
        if called.attr == "Parameter":
            return ["size"]
        if made is not None:
            return list(inspect.signature(made).parameters)
    if isinstance(called, ast.Attribute) and called.attr in ("normal_", "uniform_"):
        return ["low", "spread"]
    return []


def _cut(text: str, mark: str) -> list[str]:
    """Text cut at the marks that stand outside of all brackets."""
    found, depth, start, i = [], 0, 0, 0
    while i < len(text):
        if text[i] in "\"'":
            i = _string_end(text, i)
            continue
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if not depth and text.startswith(mark, i):
            found.append(text[start:i])
            i = start = i + len(mark)
            continue
        i += 1
    return [*found, text[start:]]


def _string_end(text: str, start: int) -> int:
    """The position after the string literal that begins at `start`."""
    quote, i = text[start], start + 1
    while i < len(text) and text[i] != quote:
        i += 2 if text[i] == "\\" else 1
    return i + 1


def _closing(text: str, open_: int) -> int:
    """The position of the bracket that closes the one at `open_`."""
    depth, i = 0, open_
    while i < len(text):
        if text[i] in "\"'":
            i = _string_end(text, i)
            continue
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if not depth:
            return i
        i += 1
    return len(text) - 1


# --------------------------------------------------------------------------------------------------------- classes
def write_classes(drafts: Iterable[Draft], taken: set[str]) -> list[Written]:
    """One class for all drafts that are alike but for numbers in their constructors; inner ones first."""
    written: list[Written] = []
    ordered = sorted(drafts, key=lambda draft: draft.height)
    for _, level in itertools.groupby(ordered, key=lambda draft: draft.height):
        alike: dict[tuple[object, ...], list[Draft]] = {}
        for draft in level:
            seen: list[Number] = []
            text = "\n".join([f"{m.kind} {m.target} {text_of(m.expr, _hide(seen))}" for m in draft.members])
            draft.numbers = [number.text for number in seen]
            names = tuple([number.name for number in seen])
            key = (draft.base, text, names, tuple(draft.forward), tuple(draft.arguments))
            alike.setdefault(key, []).append(draft)
        for key, group in alike.items():
            names = key[2]
            assert isinstance(names, tuple)
            for same in _split(group, names):
                one = _with_arguments(same, names, _class_name(same, taken))
                for draft in same:
                    draft.written = one
                written.append(one)
    return written


def _hide(seen: list[Number]) -> Callable[[Number], str]:
    def see(number: Number) -> str:
        seen.append(number)
        return "#"

    return see


def _split(group: list[Draft], names: Sequence[str]) -> list[list[Draft]]:
    """The group itself, unless it would need too many arguments: then those with equal numbers."""
    if len(_arguments(group, names)[1]) <= _MOST_ARGUMENTS:
        return [group]
    equal: dict[tuple[str, ...], list[Draft]] = {}
    for draft in group:
        equal.setdefault(tuple(draft.numbers), []).append(draft)
    return list(equal.values())


def _arguments(group: Sequence[Draft], names: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """For each number the argument that it becomes, or None; and the arguments."""
    keys: list[tuple[object, ...] | None] = []
    meanings: dict[tuple[object, ...], dict[str, None]] = {}
    for index, name in enumerate(names):
        column = tuple([draft.numbers[index] for draft in group])
        key = None if len(set(column)) == 1 else (column, "width" if name in _WIDTHS else name)
        keys.append(key)
        if key is not None:
            meanings.setdefault(key, {})[name] = None
    known: dict[tuple[object, ...], str] = {}
    for key, meant in meanings.items():
        known[key] = first_free(_meaning(list(meant)), known.values())
    return [None if key is None else known[key] for key in keys], list(known.values())


def _meaning(names: Sequence[str]) -> str:
    """One name for an argument that is used as all of these."""
    if len(names) == 1:
        return names[0] if names[0].isidentifier() and not keyword.iskeyword(names[0]) else "size"
    return "channels" if any("channels" in name for name in names) else "features"


def _with_arguments(group: list[Draft], names: Sequence[str], name: str) -> Written:
    slots, arguments = _arguments(group, names)
    values = [
        {slot: number for slot, number in zip(slots, draft.numbers, strict=True) if slot is not None} for draft in group
    ]
    return Written(name, group, slots, arguments, values)


_PLURALS = {"layers": "Layer", "blocks": "Block", "stages": "Stage", "cells": "Cell", "heads": "Head"}


def _camel(text: str) -> str:
    words = re.findall(r"[A-Za-z]+|\d+", text)
    return "".join(word[0].upper() + word[1:] for word in words)


def _class_name(group: Sequence[Draft], taken: set[str]) -> str:
    """A name from the path of the first draft: blocks.0.attn -> Attn, layer1.0 -> Layer1Block."""
    parts = list(group[0].hint)
    name = ""
    while parts:
        part = parts.pop()
        if part.isdecimal() and parts:
            owner = parts.pop()
            plural = owner.lower().rsplit("_", 1)[-1] in _PLURALS or (owner.endswith("s") and not owner.endswith("ss"))
            part = owner[:-1] if plural else owner + "_block"
        name = _camel(part) + name
        if name and not name[0].isdigit() and name not in taken:
            break
    if not name or name[0].isdigit():
        name = "Block" + name
    name = first_free(name, taken)
    taken.add(name)
    return name


def first_free(stem: str, taken: Container[str]) -> str:
    """The stem, or the stem with the first number from 2 that makes it new."""
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}{count}", count + 1
    return name


def class_lines(one: Written) -> list[str]:
    """The text of a class."""
    draft = one.drafts[0]
    numbers = iter(one.slots)
    lines = [f"class {one.name}({draft.base}):", f'    """{_where(one)}"""', ""]
    texts = []
    for member in draft.members:
        text = text_of(member.expr, lambda number: next(numbers) or number.text)
        if member.kind == "call":
            texts.append(f"{member.target}, {text})")
        elif member.kind == "super":
            texts.append(text)
        else:
            texts.append(f"{member.target} = {text}")
    if texts:
        kinds = {argument: _kind(one.values, argument) for argument in one.arguments}
        given = "".join(f", {argument}: {kind}" for argument, kind in kinds.items())
        lines += fit(f"def __init__(self{given}) -> None:", 4)
        if draft.base == "nn.Module":
            lines.append("        super().__init__()")
        for text in texts:
            lines += fit(text, 8)
    if draft.forward:
        result = "Tensor" if draft.returns == 1 else "tuple[Tensor, ...]"
        given = "".join(f", {argument}: Tensor" for argument in draft.arguments)
        lines += [""] if texts else []
        lines += fit(f"def forward(self{given}) -> {result}:", 4)
        for line in draft.forward:
            indent = len(line) - len(line.lstrip(" "))
            lines += fit(line.lstrip(" "), 8 + indent)
    elif not texts:
        lines += ["    pass"]
    return lines


def _kind(values: Sequence[Mapping[str, str]], argument: str) -> str:
    return "int" if all(re.fullmatch(r"-?\d+", given[argument]) for given in values) else "float"


def _where(one: Written) -> str:
    places = [draft.where for draft in one.drafts]
    shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
    about = one.drafts[0].about
    return about if not places[0] else f"{about}At {shown}." if len(shown) < 100 else f"{about}At {places[0]}, ..."


# ----------------------------------------------------------------------------------------------------------- lines
def fit(text: str, indent: int, tail: str = "") -> list[str]:
    """A statement as lines of at most `WIDTH` columns, broken within brackets; a comment that doesn't fit goes."""
    comment = ""
    if "  # " in text:
        text, comment = text.rsplit("  # ", 1)
    pad = " " * indent
    line = pad + text + tail
    if len(line) <= WIDTH:
        noted = f"{line}  # {comment}"
        return [noted if comment and len(noted) <= WIDTH else line]
    spans = [(o, c) for o, c in _brackets(text) if c - o > 1]
    if not spans:
        head, equals, value = text.partition(" = ")
        if equals and " " in value:
            return [f"{pad}{head} = (", *_wrapped(value, indent + 4), f"{pad}){tail}"]
        return [line]
    open_, close = max(spans, key=lambda span: span[1] - span[0])
    parts = [part.strip() for part in _cut(text[open_ + 1 : close], ",") if part.strip()]
    lines = [pad + text[: open_ + 1]]
    if len(parts) > 1 and all(len(part) < 24 and "(" not in part for part in parts):
        lines += _wrapped(" ".join(f"{part}," for part in parts), indent + 4)
    else:
        for part in parts:
            lines += fit(part, indent + 4, "," if len(parts) > 1 else "")
    return [*lines, pad + text[close:] + tail]


def _brackets(text: str) -> list[tuple[int, int]]:
    """The outermost pairs of brackets."""
    found, i = [], 0
    while i < len(text):
        if text[i] in "\"'":
            i = _string_end(text, i)
        elif text[i] in "([{":
            close = _closing(text, i)
            found.append((i, close))
            i = close + 1
        else:
            i += 1
    return found


def _wrapped(text: str, indent: int) -> list[str]:
    lines, line = [], " " * indent
    for word in text.split(" "):
        if line.strip() and len(line) + len(word) + 1 > WIDTH:
            lines.append(line)
            line = " " * indent
        line += word if not line.strip() else f" {word}"
    return [*lines, line]


# --------------------------------------------------------------------------------------------------------- entries
def plain(name: str) -> bool:
    """Whether a name can be written as an attribute of a module."""
    return name.isidentifier() and not keyword.iskeyword(name) and name not in MODULE_NAMES


def attribute(owner: str, name: str, kind: str = "module") -> str:
    """owner.name, or how a module is asked for an entry ("module", "parameter" or "buffer") of no such name."""
    if plain(name):
        return f"{owner}.{name}"
    if name in MODULE_NAMES:  # these find the method of that name
        return f'{owner}._{kind}s["{name}"]'
    return f'{owner}.get_{"submodule" if kind == "module" else kind}("{name}")'


MODULE_NAMES = set(dir(nn.Module))


def attribute_of(owner: str, path: Path) -> str:
    for name in path:
        owner = attribute(owner, name)
    return owner


def tensor_line(owner: str, name: str, param: Param) -> Member:
    """The line that makes a parameter or buffer."""
    text = _initial(param)
    if param.buffer:
        return Member("call", f'{owner}.register_buffer("{name}"', Text(text))
    whole = not param.dtype.startswith(("float", "bfloat", "complex"))
    made = Text(f"nn.Parameter({text}{', requires_grad=False' if whole else ''})")
    if not plain(name):
        return Member("call", f'{owner}.register_parameter("{name}"', made)
    return Member("assign", f"{owner}.{name}", made)


def _initial(param: Param) -> str:
    """A tensor with the initial values that a parameter is drawn with; the file's values replace them."""
    shape = ", ".join(map(str, param.shape)) if param.shape else "()"
    dtype = "" if param.dtype == "float32" else f", dtype=torch.{param.dtype}"
    match param.init:
        case ("ones",):
            return f"torch.ones({shape}{dtype})"
        case ("constant", value):
            return f"torch.full({tuple(param.shape)}, {float(value)}{dtype})"
        case ("uniform", bound):
            return f"torch.empty({shape}{dtype}).uniform_(-{float(bound):.6g}, {float(bound):.6g})"
        case ("normal", std):
            return f"torch.empty({shape}{dtype}).normal_(0.0, {float(std):.6g})"
        case ("range",):
            one = f"torch.arange({numel(param)}{dtype or ', dtype=torch.float32'})"
            return one if len(param.shape) == 1 else f"{one}.reshape({shape})"
    return f"torch.zeros({shape}{dtype})"


def numel(param: Param) -> int:
    count = 1
    for n in param.shape:
        count *= n
    return count
