"""Finds the parts: those of the package by listing its folders, users' own by entry point or `use(path)`.

Nothing is imported until a part is used, and nothing is registered by hand.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from archwright.core.part import KINDS, Part, read
from archwright.errors import FormatError, MissingExtra, UnknownPart

GROUP = "archwright.parts"
"""Entry point group: each entry names a module whose file holds a PART."""

ENTRY: dict[str, tuple[str, ...]] = {
    "block": ("build",), "space": ("draw",), "strategy": ("propose",), "estimator": ("score",),
    "transform": ("apply",), "rule": ("fit",), "lens": ("look",), "weightspace": ("encode", "edit", "decode"),
    "zoo": ("card", "find", "reuse", "put"), "runtime": ("run",), "task": ("load",),
}  # fmt: skip
"""Kind -> the functions of which a part of this kind must define at least one. The first that it has is its entry."""

_HOME = Path(__file__).parent.parent / "parts"
_USED: list[Path] = []


@cache
def shipped() -> tuple[Part, ...]:
    """The parts of the package, in the order of kinds and names."""
    found = []
    for kind in KINDS:
        folder = _HOME / kind
        if folder.is_dir():
            names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".py"))
            found += [read(folder / name) for name in names if not name.startswith("_")]
    return tuple(found)


@cache
def _entry_points() -> tuple[Part, ...]:
    found = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        spec = importlib.util.find_spec(entry.value)
        if spec is not None and spec.origin is not None:
            found.append(read(Path(spec.origin)))
    return tuple(found)


def use(path: str | os.PathLike[str]) -> Part:
    """Make a part of one's own known: the path of its file. Its record is read at once; it is imported when used."""
    part = read(Path(path).resolve())
    if part.path not in _USED:
        _USED.append(part.path)
    return part


def parts(kind: str | None = None) -> tuple[Part, ...]:
    """All known parts, of one kind if given, in the order of kinds and names."""
    if kind is not None and kind not in KINDS:
        raise UnknownPart(f"unknown kind '{kind}': expected one of {', '.join(KINDS)}")
    found = [*shipped(), *_entry_points(), *[read(path) for path in _USED]]
    return tuple([part for part in found if kind is None or part.kind == kind])


def find(name: str, kind: str | None = None) -> Part:
    """The part of that name ("mlp_mixer"), id ("mlp-mixer") or key ("block/mlp_mixer"). Raises `UnknownPart`."""
    wanted = name.partition("/")[2] if "/" in name else name
    kind = name.partition("/")[0] if "/" in name else kind
    known = parts(kind)
    hits = [part for part in known if wanted in (part.name, part.id) or wanted.replace("-", "_") == part.name]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UnknownPart(f"'{name}' is ambiguous: say one of {', '.join(part.key for part in hits)}")
    near = difflib.get_close_matches(wanted, [part.name for part in known], n=3, cutoff=0.5)
    hint = f": did you mean {', '.join(near)}?" if near else f", expected one of {len(known)}: see archwright parts"
    raise UnknownPart(f"unknown {kind or 'part'} '{wanted}'{hint}")


def module(part: Part) -> ModuleType:
    """The imported file of a part. Raises `MissingExtra` with the pip command if an optional dependency is absent."""
    name = _module_name(part)
    if name in sys.modules:
        return sys.modules[name]
    try:
        if part.path.is_relative_to(_HOME):
            made = importlib.import_module(name)
        else:
            spec = importlib.util.spec_from_file_location(name, part.path)
            assert spec is not None and spec.loader is not None
            made = importlib.util.module_from_spec(spec)
            sys.modules[name] = made
            try:
                spec.loader.exec_module(made)
            except BaseException:
                del sys.modules[name]
                raise
    except ModuleNotFoundError as error:
        if part.extras and not (error.name or "").startswith("archwright"):
            extras = ",".join(part.extras)
            raise MissingExtra(
                f"{part.key} needs '{error.name}', which is not installed: pip install 'archwright[{extras}]'"
            ) from None
        raise
    return made


def load(name: str, kind: str | None = None) -> Any:
    """The function of a part: `load("mlp_mixer", "block")` is its `build`. Raises `UnknownPart`."""
    part = find(name, kind)
    return entry(part)


def entry(part: Part) -> Any:
    """The function of a part. Raises `FormatError` if its file defines none of those of its kind."""
    made = module(part)
    for verb in ENTRY[part.kind]:
        if verb in vars(made):
            return vars(made)[verb]
    wanted = " or ".join(f"{verb}()" for verb in ENTRY[part.kind])
    raise FormatError(f"{part.path}: a {part.kind} has to define {wanted}")


def _module_name(part: Part) -> str:
    if part.path.is_relative_to(_HOME):
        return f"archwright.parts.{part.kind}.{part.name}"
    place = hashlib.blake2b(str(part.path).encode(), digest_size=4).hexdigest()  # two files may have one name
    return f"archwright_user_parts.{part.kind}.{part.name}_{place}"
