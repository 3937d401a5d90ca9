"""Whether files of a cache are still what was written: noted beside them, and read through again only where size or time differ."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hiper.errors import DataError
from hiper.runtime.files import replacing
from hiper.runtime.reading import open_file, read_json
from hiper.runtime.records import read_value


@dataclass(frozen=True)
class _Note:
    size: int
    mtime_ns: int
    sha256: str


def note(folder: Path, names: Iterable[str], file: str) -> None:
    """Write down, in `folder/file`, what files of the folder are like now."""
    found = {name: asdict(_noted(folder / name)) for name in sorted(names)}
    with replacing(folder / file, shared=True) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def intact(folder: Path, file: str) -> bool:
    """Whether `note` was done and its files are unchanged since."""
    try:
        notes: dict[str, _Note] = read_value(dict[str, _Note], read_json(folder / file), file)
        return all(_same(folder / name, known) for name, known in notes.items())
    except (DataError, OSError):
        return False


def _same(path: Path, known: _Note) -> bool:
    found = path.stat()
    if found.st_size != known.size:
        return False
    return found.st_mtime_ns == known.mtime_ns or _noted(path).sha256 == known.sha256


def _noted(path: Path) -> _Note:
    with open_file(path) as file:
        facts = os.fstat(file.fileno())
        return _Note(facts.st_size, facts.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
