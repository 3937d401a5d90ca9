"""Rules pinned: files are found under their official names and read element by element, at the bytes where they stand; what is not whole
is refused with the place; digests follow the content."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop import source
from hiper.suites.webshop.source import digest, elements, find_files


@pytest.mark.parametrize("window", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "value", [[], {}, [{"é": 1, "b": [1, 2]}, ["☃ 📱"]], {"a": {}, "ü": {"x": 'quote " brace } bracket ]'}}, [{"long": "x" * 99}]]
)
def test_elements_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: object, window: int) -> None:
    monkeypatch.setattr(source, "_WINDOW", window)
    path = tmp_path / "x.json"
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2) + "\n"):
        path.write_text(text, encoding="utf-8")
        found = list(elements(path))
        if isinstance(value, dict):
            assert {element.key: element.value for element in found} == value
        else:
            assert [element.value for element in found] == value
        assert [json.loads(path.read_bytes()[e.start : e.end]) for e in found] == [e.value for e in found]


@pytest.mark.parametrize("text", ["", "[", '[{"a":1}', '[{"a":1},]', '{"a"}', '{"a":{}', "[1]", '[{"a":1} {}]', '[{"a":"x', "nonsense"])
def test_what_is_not_whole_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json is not a whole JSON file: .* near byte \d+"):
        list(elements(path))


def test_other_encodings_and_bottomless_nesting_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes('[{"a": "é"}]'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        list(elements(path))
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        list(elements(path))


def test_the_small_list_is_taken_unless_the_full_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a directory"):
        find_files(tmp_path / "none")
    (tmp_path / "items_shuffle.json").write_text("[]")
    with pytest.raises(DataError, match=r"has no items_ins_v2\*\.json; it has items_shuffle\.json"):
        find_files(tmp_path)
    (tmp_path / "items_ins_v2.json").write_text("{}")
    assert find_files(tmp_path).products.name == "items_shuffle.json"
    for name in ("items_shuffle_1000.json", "items_ins_v2_1000.json"):
        (tmp_path / name).write_text("[]")
    assert find_files(tmp_path).products.name == "items_shuffle_1000.json"
    full = find_files(tmp_path / "items_shuffle.json")
    assert (full.products.name, full.attributes.name) == ("items_shuffle.json", "items_ins_v2.json")
    assert find_files(tmp_path / "items_shuffle_1000.json").attributes.name == "items_ins_v2_1000.json"
    assert find_files(tmp_path).human is None


def test_a_digest_is_noted_and_follows_the_content(tmp_path: Path) -> None:
    path, known = tmp_path / "x.json", tmp_path / "known"
    path.write_text("one")
    first = digest(path, known)
    assert digest(path, known) == first
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert digest(path, known) != first
    with pytest.raises(DataError, match="cannot be read"):
        digest(tmp_path / "none", known)
