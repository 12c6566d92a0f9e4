"""The literal record of a part: read without importing, and refused with the field that is wrong."""

from __future__ import annotations

import pytest

from archwright.core.part import KINDS, read
from archwright.errors import FormatError

GOOD = {
    "kind": "block", "name": "mine", "id": "mine", "title": "Mine", "year": 2025, "arxiv": "2501.00001",
    "needs": ["image"], "extras": [], "example": {"hp": {"width": 4}}, "exact": "Nothing.", "claim": {},
}  # fmt: skip


def write(tmp_path, record=None, text=None, name="mine.py"):
    lines = [f'    "{key}": {value!r},' for key, value in (record or {}).items()]
    body = text if text is not None else '"""Doc."""\n\nPART = {\n' + "\n".join(lines) + "\n}\n"
    path = tmp_path / name
    path.write_text(body)
    return path


def test_reads_all_fields(tmp_path):
    part = read(write(tmp_path, GOOD))
    assert part.key == "block/mine"
    assert part.needs == ("image",) and part.extras == ()
    assert part.example == {"hp": {"width": 4}}
    assert part.path == tmp_path / "mine.py"


def test_nothing_is_run(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_text("raise SystemExit\n" + path.read_text() + "raise SystemExit\n")
    assert read(path).name == "mine"


def test_the_literal_may_stand_first(tmp_path):
    path = write(tmp_path, GOOD)
    path.write_text(path.read_text().partition("\n\n")[2])
    assert read(path).name == "mine"


def test_the_path_does_not_count_in_comparison(tmp_path):
    one = read(write(tmp_path, GOOD))
    (tmp_path / "sub").mkdir()
    assert one == read(write(tmp_path / "sub", GOOD))


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_is_named(tmp_path, field):
    with pytest.raises(FormatError, match=f"lacks \\['{field}'\\]"):
        read(write(tmp_path, {key: value for key, value in GOOD.items() if key != field}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"unknown \['colour'\]"),
        ({"year": "2025"}, r"PART\['year'\] is '2025', expected int"),
        ({"year": True}, r"PART\['year'\] is True, expected int"),
        ({"needs": ("image",)}, r"PART\['needs'\]"),
        ({"kind": "layer"}, "expected one of block, space"),
        ({"name": "other"}, "expected the file's name, 'mine'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, change, message):
    with pytest.raises(FormatError, match=message):
        read(write(tmp_path, {**GOOD, **change}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no literal"),
        ('"""PART = {}"""', "no literal"),
        ("PART = {\n    'kind': open('/etc/passwd').read(),\n}\n", "not a plain literal"),
        ("PART = {\n    'kind': (,\n}\n", "not a plain literal"),
        ("PART = {'kind': 'block'", "no literal"),
        ("PART = {\n    'a', 'b',\n}\n", "not a plain literal|not a mapping"),
    ],
)
def test_what_is_not_a_part_is_refused(tmp_path, text, message):
    with pytest.raises(FormatError, match=message):
        read(write(tmp_path, text=text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path / "none.py")


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "mine.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="cannot be read"):
        read(tmp_path / "mine.py")


def test_there_are_eleven_kinds():
    assert len(KINDS) == len(set(KINDS)) == 11
