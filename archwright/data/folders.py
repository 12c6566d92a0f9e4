"""Folders of files: a folder for each class, perhaps inside of train and test folders; or the label in the name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from archwright.data import pixels, sound
from archwright.data.data import Array, Kind
from archwright.errors import DataError

SPLIT_NAMES = {
    "train": "train", "training": "train", "valid": "valid", "val": "valid", "validation": "valid", "dev": "valid",
    "test": "test", "testing": "test",
}  # fmt: skip
BATCH = 256


@dataclass(frozen=True)
class File:
    """A file of a sample, its label ("" where none is known), and the split that its folder says."""

    path: Path
    label: str
    split: str | None = None


def kind_of(folder: Path) -> Kind:
    """Whether a folder holds images or sounds: what there is more of among the first thousands of files."""
    counts: Counter[Kind] = Counter()
    for path in islice(_walk(folder), 20000):
        suffix = path.suffix.lower()
        if suffix in pixels.SUFFIXES:
            counts["image"] += 1
        elif suffix in sound.SUFFIXES:
            counts["signal"] += 1
    if not counts:
        raise DataError(f"{folder} holds neither images nor sounds, expected a folder of files for each class")
    return counts.most_common(1)[0][0]


def labelled(folder: Path, suffixes: Sequence[str]) -> list[File]:
    """The files of a folder of class folders, in the order of their names.

    A folder named train, valid or test with class folders inside says the split. Where files lie flat, their label is
    what stands before the first "_" (7_jackson_32.wav). Raises `DataError` if there are no two classes.
    """
    inside = _folders(folder)
    divided = [home for home in inside if home.name.lower() in SPLIT_NAMES and _folders(home)]
    if any(SPLIT_NAMES[home.name.lower()] == "train" for home in divided):
        found = [
            File(path, home.name, SPLIT_NAMES[part.name.lower()])
            for part in divided for home in _folders(part) for path in _files(home, suffixes)
        ]  # fmt: skip
    else:
        found = [File(path, home.name) for home in inside for path in _files(home, suffixes)]
    if not found:
        found = [File(path, path.stem.partition("_")[0]) for path in _files(folder, suffixes) if "_" in path.stem]
    classes = {file.label for file in found}
    if len(classes) < 2:
        got = f"one class, '{classes.pop()}'" if classes else "none"
        raise DataError(f"{folder} has files of {got}, expected a folder for each of two classes or more")
    return found


def unlabelled(folder: Path, suffixes: Sequence[str]) -> list[File]:
    """All files of a folder, with their labels where they have some, for `predict`."""
    try:
        return labelled(folder, suffixes)
    except DataError:
        found = [File(path, "") for path in sorted(_walk(folder)) if path.suffix.lower() in suffixes]
    if not found:
        raise DataError(f"{folder} holds no file ending in {', '.join(suffixes[:4])}, expected some to predict for")
    return found


def group_of(file: File, name: str) -> str:
    """Who or which take a file is from: label_speaker_take.wav, or in a class folder speaker_anything_take.wav.

    Raises `DataError` if its name does not say it.
    """
    parts = file.path.stem.split("_")
    if parts[0] == file.label and len(parts) >= 3:
        parts = parts[1:]
    if name not in ("speaker", "take"):
        raise DataError(f"group is '{name}', expected 'speaker' or 'take' for a folder of sounds")
    if len(parts) < 2:
        raise DataError(f"{file.path.name} does not say its {name}, expected a name like label_speaker_take.wav")
    return parts[0] if name == "speaker" else parts[-1]


@dataclass(eq=False)
class Reader:
    """Reads files in batches, several at a time. What cannot be read is left out, and counted in `bad`."""

    files: Sequence[File]
    read: Callable[[Path], Array]
    good: list[File] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def batches(self) -> Iterator[list[Array]]:
        """What `read` gives, for the files of `good` in their order."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(self.files), BATCH):
                some = self.files[start : start + BATCH]
                found = []
                for file, value in zip(some, pool.map(self._try, some), strict=True):
                    if isinstance(value, DataError):
                        self.bad.append(str(value))
                    else:
                        self.good.append(file)
                        found.append(value)
                if found:
                    yield found

    def _try(self, file: File) -> Array | DataError:
        try:
            return self.read(file.path)
        except DataError as error:
            return error

    def notices(self) -> list[str]:
        """A sentence about the files that could not be read."""
        if not self.bad:
            return []
        return [f"{len(self.bad)} of {len(self.good) + len(self.bad)} files are left out: {self.bad[0]}"
                + (" (the first of them)" if self.bad[1:] else "")]  # fmt: skip


def _folders(home: Path) -> list[Path]:
    return sorted([path for path in home.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))])


def _files(home: Path, suffixes: Sequence[str]) -> list[Path]:
    found = [path for path in home.iterdir() if path.suffix.lower() in suffixes]
    return sorted([path for path in found if not path.name.startswith(".")])


def _walk(home: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(home):
        yield from [Path(folder) / name for name in names if not name.startswith(".")]
