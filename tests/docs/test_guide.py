"""The code blocks of the guide's pages run: those that begin with `# file: NAME` are files, the others run in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guide"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """(file name or None, code) of each Python block of a page."""
    found = []
    for code in BLOCK.findall((GUIDE / page).read_text(encoding="utf-8")):
        first = re.match(r"# file: (\S+)\n", code)
        found.append((first[1], code[first.end() :]) if first else (None, code))
    return found


def run(folder, *command):
    """Run in the folder with the package in reach; fails with what was printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the page about parts, written out."""
    folder = tmp_path_factory.mktemp("guide")
    for name, code in blocks("add-your-own-part.md"):
        if name is not None:
            (folder / name).write_text(code, encoding="utf-8")
    return folder


def test_the_page_has_a_part_its_test_and_its_use():
    names = [name for name, _ in blocks("add-your-own-part.md")]
    assert names == ["squeeze_excite.py", "test_squeeze_excite.py", None]


def test_the_parts_own_test_passes(folder):
    assert "3 passed" in run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_squeeze_excite.py")


def test_the_part_is_used_as_said(folder):
    code = "\n".join(code for name, code in blocks("add-your-own-part.md") if name is None)
    assert "gate" in run(folder, "-c", code)


def test_the_command_line_takes_it(folder):
    listed = run(folder, "-m", "archwright.cli", "parts", "--kind", "block", "--use", "squeeze_excite.py")
    assert "squeeze_excite" in listed and "1709.01507" in listed
    claimed = run(
        folder, "-m", "archwright.cli", "claims", "squeeze_excite", "--use", "squeeze_excite.py", "--out", "claims.json"
    )
    assert "held" in claimed and "0.26" in claimed
    assert (folder / "claims.json").exists()
