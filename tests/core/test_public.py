"""Every public name resolves, whatever was imported before; importing the package loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import archwright


@pytest.mark.parametrize("name", [name for name in archwright.__all__ if name != "__version__"])
def test_every_exported_name_resolves(name):
    assert getattr(archwright, name) is not None
    assert name in dir(archwright)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        archwright.serch  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import archwright as aw; aw.parts.known(); aw.use; import archwright.parts; print(aw.parts.__name__)",
        "import archwright.parts; import archwright as aw; aw.parts.known(); print(aw.parts.__name__)",
        "import importlib, archwright as aw; importlib.import_module('archwright.parts'); aw.parts.known(); "
        "print(aw.parts.__name__)",
    ],
)
def test_parts_is_the_package_in_any_order(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "archwright.parts", done.stderr


def test_importing_loads_nothing_heavy():
    code = "import archwright, sys; print([m for m in ('torch', 'numpy', 'typer', 'optuna') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
