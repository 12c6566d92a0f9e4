"""Data on disk: arrays as .npy files that are mapped into memory, the rest as JSON. For large data, and for workers."""

from __future__ import annotations

import atexit
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from archwright.data.data import SPLITS, Array, Data
from archwright.errors import FormatError

VERSION = 1
LARGE = 256 * 2**20
"""Bytes from which on arrays are kept in files."""
RELEASED = 64 * 2**20
"""Bytes that are written between two times at which a file's pages are let go."""


def store(data: Data, folder: str | os.PathLike[str]) -> Path:
    """Write the data into a folder, which is made if need be. Arrays that are mapped files already are linked."""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    arrays = {f"input{i}": array for i, array in enumerate(data.inputs)}
    arrays |= {"target": data.target, **{name: np.asarray(data.splits[name]) for name in SPLITS}}
    if data.groups is not None:
        arrays["groups"] = data.groups
    scales = data.scales or (None,) * len(data.inputs)
    for i, scale in enumerate(scales):
        if scale is not None:
            arrays |= {f"mean{i}": scale[0], f"deviation{i}": scale[1]}
    for name, array in arrays.items():
        _write(array, home / f"{name}.npy")
    rest = {
        "version": VERSION, "inputs": len(data.inputs), "scaled": [scale is not None for scale in scales],
        "task": data.task, "kind": data.kind, "classes": list(data.classes), "name": data.name, "meta": dict(data.meta),
        "grouped": data.groups is not None,
    }  # fmt: skip
    part = home / "data.json.part"  # the last to appear: a folder with data.json is complete
    part.write_text(json.dumps(rest, ensure_ascii=False), encoding="utf-8")
    part.replace(home / "data.json")
    return home


def stored(folder: str | os.PathLike[str]) -> Data:
    """The data that `store` wrote, arrays mapped into memory. Raises `FormatError` for anything else."""
    home = Path(folder)
    try:
        rest = json.loads((home / "data.json").read_text(encoding="utf-8"))
        if rest["version"] != VERSION:
            raise FormatError(f"{home} holds data of version {rest['version']}, this archwright reads {VERSION}")
        scales = [
            (_load(home, f"mean{i}"), _load(home, f"deviation{i}")) if scaled else None
            for i, scaled in enumerate(rest["scaled"])
        ]
        return Data(
            tuple([_load(home, f"input{i}") for i in range(rest["inputs"])]), _load(home, "target"), rest["task"],
            {name: _load(home, name) for name in SPLITS}, rest["kind"], tuple(rest["classes"]), rest["name"],
            rest["meta"], tuple(scales) if any(scale is not None for scale in scales) else (),
            _load(home, "groups") if rest.get("grouped") else None,
        )  # fmt: skip
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise FormatError(f"{home} holds no stored data: {error}") from None


def _load(home: Path, name: str) -> Array:
    path = home / f"{name}.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path} is no stored array: {error}") from None


def _write(array: Array, path: Path) -> None:
    source = _file(array)
    if source is None:
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        part.replace(path)
    elif source != path.resolve():
        path.unlink(missing_ok=True)
        try:
            os.link(source, path)
        except OSError:  # another file system
            shutil.copyfile(source, path)


def _file(array: Array) -> Path | None:
    """The .npy file that is exactly this array, or None."""
    if not isinstance(array, np.memmap) or array.filename is None or Path(array.filename).suffix != ".npy":
        return None
    try:
        whole = np.load(array.filename, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    same = whole.shape == array.shape and whole.dtype == array.dtype and whole.offset == array.offset
    if isinstance(array, np.memmap):
        array.flush()
    return Path(array.filename).resolve() if same and array.flags.c_contiguous else None


def gather(
    batches: Iterable[Sequence[Array]], count: int, folder: str | os.PathLike[str] | None, *, large: bool | None = None
) -> tuple[Array, ...]:
    """The batches one after the other, `count` samples at most, as one array for each input.

    In memory, or from `LARGE` bytes on (or if `large` says so) in .npy files in `folder`: without one, in a folder for
    temporary files that is removed when Python ends. Fewer samples than `count` are no fault.
    """
    found: list[Array] = []
    at = written = 0
    for batch in batches:
        if not found:
            size = sum(a.dtype.itemsize * int(np.prod(a.shape[1:])) for a in batch) * count
            home = _home(folder) if (size >= LARGE if large is None else large) else None
            found = [_room((count, *a.shape[1:]), a.dtype, home, i) for i, a in enumerate(batch)]
        for whole, part in zip(found, batch, strict=True):
            whole[at : at + len(part)] = part
        at += len(batch[0])
        written += sum(part.nbytes for part in batch)
        if written >= RELEASED:
            written = 0
            for whole in found:
                _release(whole)
    return tuple([whole if at == count else whole[:at] for whole in found])


def _room(shape: tuple[int, ...], dtype: Any, home: Path | None, index: int) -> Array:
    if home is None:
        return np.empty(shape, dtype)
    descriptor, path = tempfile.mkstemp(f".input{index}.npy", dir=home)
    os.close(descriptor)
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def _release(array: Array) -> None:
    """Let go of the pages of a mapped file that were written: until then they count as memory of this process. What is
    in them is the system's to keep."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def _home(folder: str | os.PathLike[str] | None) -> Path:
    if folder is None:
        home = Path(tempfile.mkdtemp(prefix="archwright-"))
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        return home
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    return home
