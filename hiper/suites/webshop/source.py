"""The official WebShop files, read in place: where they are, their elements one by one, and their digest.

A catalogue directory holds `items_shuffle*.json` (a list of products), `items_ins_v2*.json` (attributes and an instruction by ASIN) and,
for goals written by people, `items_human_ins*.json`. The full product list has some five gigabytes: nothing here holds a whole file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from hiper.errors import DataError
from hiper.runtime.files import replacing
from hiper.runtime.reading import open_file, read_json_object

logger = logging.getLogger(__name__)

_WINDOW = 1 << 22
"""Bytes read at a time."""
_LONGEST = 1 << 26
"""Characters an element may have; what goes on longer has lost its end."""
_SMALL = "_1000"
"""What the names of the small list and of its attributes have."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one catalogue."""

    products: Path
    attributes: Path
    human: Path | None


class Element(NamedTuple):
    """One element of a top-level list or object."""

    key: str | None
    """None in a list."""
    value: Any
    start: int
    """Of the value in the file, in bytes."""
    end: int


def find_files(root: Path) -> Files:
    """The files in a directory laid out as the official download.

    Args:
        root: the directory, where the list of 1,000 products is taken if that is there; or the very product list to take.

    Raises:
        DataError: no such directory, or one of the files is missing.
    """
    folder, named = (root.parent, root) if root.is_file() else (root, None)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a directory. A WebShop catalogue is one with items_shuffle*.json and items_ins_v2*.json.")
    small = named is None or _SMALL in named.name

    def choose(pattern: str) -> Path | None:
        found = sorted(folder.glob(pattern), key=lambda path: ((_SMALL in path.name) is not small, path.name))
        return found[0] if found else None

    products, attributes = named or choose("items_shuffle*.json"), choose("items_ins_v2*.json")
    if products is None or attributes is None:
        missing = " and ".join(
            name for name, path in (("items_shuffle*.json", products), ("items_ins_v2*.json", attributes)) if path is None
        )
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(f"{folder} has no {missing}; it has {there}. Name the folder the official download fills, or generate a catalogue.")
    return Files(products, attributes, choose("items_human_ins*.json"))


def elements(path: Path) -> Iterator[Element]:
    """The elements of a JSON list or object whose elements are lists or objects, in order, with where they stand.

    Raises:
        DataError: the file cannot be read, is no such JSON, or ends too early; elements before the fault have been yielded.
    """
    try:
        with open_file(path) as file:
            yield from _Reader(path, file).elements()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error.reason}. Download it again.") from error
    except RecursionError as error:
        raise DataError(f"{path} holds an element nested too deeply to be a product. Download it again.") from error


class _Reader:
    """Takes a file apart window by window."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._place, self._over = "", 0, False
        self._offset = 0  # of the place in the file, in bytes

    def elements(self) -> Iterator[Element]:
        keyed = self._take("[{") == "{"
        closing = "}" if keyed else "]"
        if self._ahead() == closing:
            return
        while True:
            key = None
            if keyed:
                key = self._value('"')
                self._take(":")
            self._ahead()
            start = self._offset
            value = self._value("{[")
            yield Element(key, value, start, self._offset)
            if self._take("," + closing) == closing:
                return

    def _ahead(self) -> str:
        """The next character that is no blank; empty at the end of the file."""
        while True:
            blank = _BLANK.match(self._text, self._place)
            assert blank is not None
            self._advance(blank.end(), blank.end() - self._place)
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _take(self, expected: str) -> str:
        found = self._ahead()
        if not found or found not in expected:
            raise self._broken(f"expected {' or '.join(expected)}, found {found or 'the end'}")
        self._advance(self._place + 1, 1)
        return found

    def _value(self, opening: str) -> Any:
        found = self._ahead()
        if not found or found not in opening:
            raise self._broken(f"expected {' or '.join(opening)}, found {found or 'the end'}")
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                if len(self._text) - self._place > _LONGEST or not self._more():
                    raise self._broken(error.msg) from error
                continue
            except ValueError as error:  # a number of thousands of digits
                raise self._broken(str(error)) from error
            self._advance(end, len(self._text[self._place : end].encode()))
            return value

    def _advance(self, place: int, size: int) -> None:
        self._place, self._offset = place, self._offset + size

    def _more(self) -> bool:
        """Read on, forgetting what has been passed; whether there was anything."""
        if self._over:
            return False
        raw = self._file.read(_WINDOW)
        self._over = not raw
        self._text, self._place = self._text[self._place :] + self._decode(raw, self._over), 0
        return True

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self._path} is not a whole JSON file: {what} near byte {self._offset}. Download or generate it again.")


def digest(path: Path, known: Path) -> str:
    """SHA-256 of a file's content, hexadecimal.

    Args:
        path: the file.
        known: directory where digests are noted beside size and time of change, so that a large file is not read through each time.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        facts = path.stat()
        note = known / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]}.json"
        seen = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
        try:
            noted = read_json_object(note)
            if {name: noted.get(name) for name in seen} == seen and _DIGEST.fullmatch(str(noted.get("sha256"))):
                return str(noted["sha256"])
        except DataError:
            pass
        with open_file(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with replacing(note, durable=False, shared=True) as temporary:
            temporary.write_text(json.dumps({**seen, "sha256": found, "path": str(path.resolve())}), encoding="utf-8")
    except OSError as error:
        logger.debug("digest of %s not noted: %s", path, error)
    return found
