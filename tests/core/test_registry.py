"""Parts are found by listing folders; nothing is imported before it is used, torch least of all."""

from __future__ import annotations

import importlib.metadata
import json
import resource
import subprocess
import sys

import pytest

from archwright.core import registry
from archwright.core.part import KINDS
from archwright.errors import FormatError, MissingExtra, UnknownPart

TEXT = '''"""A part of the tests."""

{imports}

PART = {{
    "kind": "{kind}",
    "name": "{name}",
    "id": "{id}",
    "title": "A Title: Of {name}",
    "year": 2024,
    "arxiv": "2401.00001",
    "needs": [],
    "extras": {extras},
    "example": {{}},
    "exact": "Nothing.",
    "claim": {{}},
}}


def {verb}():
    """Says its name."""
    return "{name} says hello"
'''


def write(folder, kind="block", name="mine", id="", imports="", extras=(), verb=None):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    verb = verb or registry.ENTRY[kind][0]
    path.write_text(TEXT.format(kind=kind, name=name, id=id, imports=imports, extras=list(extras), verb=verb))
    return path


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """No parts but those that a test writes."""
    monkeypatch.setattr(registry, "_HOME", tmp_path / "parts")
    monkeypatch.setattr(registry, "_USED", [])
    registry.shipped.cache_clear()
    registry._entry_points.cache_clear()
    yield
    monkeypatch.undo()
    registry.shipped.cache_clear()
    registry._entry_points.cache_clear()


def test_folders_are_listed_in_order(tmp_path):
    for kind, name in (("strategy", "b"), ("strategy", "a"), ("block", "z"), ("task", "t")):
        write(tmp_path / "parts" / kind, kind, name)
    (tmp_path / "parts" / "block" / "_helper.py").write_text("")
    assert [part.key for part in registry.parts()] == ["block/z", "strategy/a", "strategy/b", "task/t"]
    assert [part.key for part in registry.parts("strategy")] == ["strategy/a", "strategy/b"]
    with pytest.raises(UnknownPart, match="unknown kind 'blok': expected one of block"):
        registry.parts("blok")


def test_use_makes_a_file_known_and_load_gives_its_function(tmp_path):
    part = registry.use(write(tmp_path / "mine"))
    assert registry.use(part.path) == part
    assert [p.key for p in registry.parts()] == ["block/mine"]
    assert registry.load("mine")() == registry.load("block/mine")() == "mine says hello"
    assert registry.load("mine", "block") is registry.entry(part)
    assert registry.module(part) is registry.module(part)


def test_two_files_of_one_name_are_two_modules(tmp_path):
    one, other = [registry.use(write(tmp_path / folder)) for folder in "ab"]
    assert registry.module(one) is not registry.module(other)
    with pytest.raises(UnknownPart, match="ambiguous"):
        registry.find("mine")


def test_find_by_name_id_and_key(tmp_path):
    part = registry.use(write(tmp_path, name="mlp_mixer", id="mlp-mixer"))
    for name in ("mlp_mixer", "mlp-mixer", "block/mlp_mixer", "block/mlp-mixer"):
        assert registry.find(name) == part
    assert registry.find("mlp-mixer", "block") == part


def test_one_name_in_two_kinds_is_ambiguous_until_the_kind_is_said(tmp_path):
    for kind in ("block", "lens"):
        registry.use(write(tmp_path / kind, kind))
    with pytest.raises(UnknownPart, match="ambiguous: say one of block/mine, lens/mine"):
        registry.find("mine")
    assert registry.find("lens/mine").kind == registry.find("mine", "lens").kind == "lens"


def test_unknown_names_suggest_near_ones(tmp_path):
    for name in ("mlp_mixer", "resmlp", "gmlp"):
        registry.use(write(tmp_path, name=name))
    with pytest.raises(UnknownPart, match="unknown part 'mlp_mixr': did you mean mlp_mixer"):
        registry.find("mlp_mixr")
    with pytest.raises(UnknownPart, match="unknown block 'mlpmixer': did you mean mlp_mixer"):
        registry.find("mlpmixer", "block")
    with pytest.raises(UnknownPart, match="expected one of 3: see archwright parts"):
        registry.find("qqqqqqqqqq")


def test_a_missing_extra_is_said_with_the_command(tmp_path):
    path = write(tmp_path, imports="import surely_not_installed", extras=("audio", "ray"))
    part = registry.use(path)
    with pytest.raises(MissingExtra, match=r"needs 'surely_not_installed'.*pip install 'archwright\[audio,ray\]'"):
        registry.module(part)
    with pytest.raises(MissingExtra):  # and again: the failed import leaves nothing behind
        registry.module(part)


def test_a_missing_module_without_extras_is_a_plain_import_error(tmp_path):
    part = registry.use(write(tmp_path, imports="import surely_not_installed"))
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        registry.module(part)


def test_an_error_in_the_file_leaves_no_half_module(tmp_path):
    path = write(tmp_path, imports="1 / 0")
    part = registry.use(path)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            registry.module(part)


def test_a_part_without_its_function_is_refused(tmp_path):
    part = registry.use(write(tmp_path, verb="something_else"))
    with pytest.raises(FormatError, match=r"a block has to define build\(\)"):
        registry.entry(part)


def test_kinds_with_several_functions_take_the_first_that_is_there(tmp_path):
    part = registry.use(write(tmp_path, "weightspace", verb="decode"))
    assert registry.entry(part).__name__ == "decode"
    assert set(registry.ENTRY) == set(KINDS)


def test_entry_points_bring_parts_of_other_packages(tmp_path, monkeypatch):
    write(tmp_path / "site", name="theirs")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = importlib.metadata.EntryPoint("theirs", "theirs", registry.GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry] if group == registry.GROUP else [])
    assert [part.key for part in registry.parts()] == ["block/theirs"]
    assert "theirs" not in sys.modules
    assert registry.load("theirs")() == "theirs says hello"


def test_shipped_parts_have_their_package_names(tmp_path):
    part = registry.Part(
        "block", "x", "", "", 2020, "", (), (), {}, "", {}, registry._HOME / "block" / "x.py"
    )  # fmt: skip
    assert registry._module_name(part) == "archwright.parts.block.x"


def test_listing_imports_neither_torch_nor_numpy():
    code = (
        "import sys, archwright.core.registry as r, archwright.flows.catalogue as c; r.parts(); c.rows(); "
        "print([m for m in ('torch', 'numpy', 'rich', 'optuna') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_five_hundred_parts_are_listed_in_under_300_ms(tmp_path):
    doc = "\n".join(f"line {i} of a docstring as long as those of real parts" for i in range(150))
    for i in range(500):
        path = write(tmp_path / "parts" / KINDS[i % 11], KINDS[i % 11], f"part_{i}", f"part-{i}")
        path.write_text(path.read_text().replace("A part of the tests.", doc))
    code = (
        "import sys; from pathlib import Path; from archwright.core import registry; import archwright.cli; "
        f"registry._HOME = Path({str(tmp_path / 'parts')!r}); sys.argv = ['archwright', 'parts', '--json']; "
        "archwright.cli.main()"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert len(json.loads(done.stdout)["parts"]) == 500, done.stderr
    # time on the processor: what else the machine does is not counted
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert seconds < 0.3, f"{seconds:.3f} s"
