"""Rules of files that replace others.

1. A reader finds the old file or the whole new one; where the writing fails, the old one, and nothing is left beside it.
2. Processes that write one file of a cache at once do not write into each other's.
3. Files are replaced by `hiper.runtime.files` alone.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from hiper.runtime.files import replacing, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "file"
    write_text(file, "old")
    with replacing(file, durable=durable) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    with pytest.raises(KeyboardInterrupt), replacing(file, durable=durable) as temporary:
        temporary.write_text("newer")
        raise KeyboardInterrupt
    assert file.read_text() == "new"
    with pytest.raises(FileNotFoundError), replacing(file, durable=durable):
        pass
    assert file.read_text() == "new"
    assert names(tmp_path) == ["file"]


def test_what_is_no_number_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "file", {"ü": [1, 0.5]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", float("nan"))
    assert (tmp_path / "file").read_bytes() == '{\n "ü": [\n  1,\n  0.5\n ]\n}\n'.encode()


def test_writers_of_a_cache_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second found its temporary file gone, and failed."""
    file = tmp_path / "file"
    with replacing(file, shared=True) as first:
        first.write_text("first")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with replacing(file, shared=True) as second:
            second.write_text("second")
        assert file.read_text() == "second"
    assert file.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_nobody_else_replaces_files(root: Path) -> None:
    """Ten modules had a temporary file and a rename of their own."""
    found = {
        path.relative_to(root / "hiper").as_posix()
        for path in (root / "hiper").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace"
        if len(node.args) == 1 and not node.keywords  # `str.replace` takes two arguments
    }
    assert found == {"runtime/files.py"}
