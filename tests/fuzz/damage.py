"""Ways in which a file comes to harm, each a function of the file's bytes; which of them apply depends on the file's form."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

Harm = Callable[[bytes, random.Random, str], bytes]
"""Old contents, a source of chance, and the file's form (json, jsonl, yaml, text, binary) to new contents."""

DEEP = 100_000
"""Lists within one another; Python's readers give up at a thousand or so."""
ODD: tuple[Any, ...] = (None, [], {}, -1, 2.5, True, "x", "", [[1, "a"]], {"a": {"b": [None]}}, "\x1b[2J\u202e\x00", "../../../etc/passwd")
"""Values of every type, to stand where another is expected."""

_GONE = object()


def _empty(data: bytes, rng: random.Random, form: str) -> bytes:
    return b""


def _truncate(data: bytes, rng: random.Random, form: str) -> bytes:
    return data[: rng.randrange(1, max(2, len(data)))]


def _flip(data: bytes, rng: random.Random, form: str) -> bytes:
    return _flipped(data, rng, 1)


def _flip_many(data: bytes, rng: random.Random, form: str) -> bytes:
    return _flipped(data, rng, max(4, len(data) // 50))


def _flipped(data: bytes, rng: random.Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zeros(data: bytes, rng: random.Random, form: str) -> bytes:
    """What a file system leaves of blocks that were never written."""
    start = rng.randrange(max(1, len(data) // 2))
    return data[:start] + bytes(len(data) - start)


def _garbage(data: bytes, rng: random.Random, form: str) -> bytes:
    return rng.randbytes(max(64, len(data)))


def _appended(data: bytes, rng: random.Random, form: str) -> bytes:
    return data + rng.choice([b"\xff\xfe\x00garbage\n", b'{"half": \n', b"[1, 2\n", b"\x1b]0;title\x07\n"])


def _wrong_type(data: bytes, rng: random.Random, form: str) -> bytes:
    """A value, or a whole branch, of another type."""
    return _rewritten(data, rng, form, lambda value: rng.choice([odd for odd in ODD if type(odd) is not type(value)]))


def _wrong_whole(data: bytes, rng: random.Random, form: str) -> bytes:
    """Well-formed, and no more what it should be."""
    return json.dumps(rng.choice(ODD)).encode() + b"\n"


def _lacking(data: bytes, rng: random.Random, form: str) -> bytes:
    """A key, or an item of a list, that is gone."""
    return _rewritten(data, rng, form, lambda value: _GONE)


def _deep(data: bytes, rng: random.Random, form: str) -> bytes:
    if form == "jsonl":
        return data + b"[" * DEEP + b"]" * DEEP + b"\n"
    if form == "json":
        return data.rstrip()[:-1] + b', "deep": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}\n"
    return b"deep: " + b"[" * 20_000 + b"]" * 20_000 + b"\n" + data


def _huge(data: bytes, rng: random.Random, form: str) -> bytes:
    """A number no machine holds."""
    mark = 123454321
    number = rng.choice(["1e999", "-1e999", "1" + "0" * 5000, "NaN", "9" * 400, "1e308"])
    text = _rewritten(data, rng, form, lambda value: mark, numbers=True).decode(errors="surrogateescape")
    return text.replace(str(mark), ".inf" if form == "yaml" and number == "NaN" else number).encode(errors="surrogateescape")


def _bomb(data: bytes, rng: random.Random, form: str) -> bytes:
    """A few lines of YAML that stand for gigabytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 10)]
    return "\n".join(lines).encode() + b"\n" + data


def _tagged(data: bytes, rng: random.Random, form: str) -> bytes:
    """YAML that asks for a program."""
    return data + b'zz: !!python/object/apply:os.system ["touch was-run"]\n'


def _escapes(data: bytes, rng: random.Random, form: str) -> bytes:
    """Characters that a terminal obeys, in a text."""
    return _rewritten(data, rng, form, lambda value: "\x1b[2J\x1b]0;owned\x07\u202e[red]x[/red]", texts=True)


CONTENT: dict[str, tuple[Harm, tuple[str, ...]]] = {
    "empty": (_empty, ()),
    "truncate": (_truncate, ()),
    "flip": (_flip, ()),
    "flip many": (_flip_many, ()),
    "zeros": (_zeros, ()),
    "garbage": (_garbage, ()),
    "append": (_appended, ()),
    "wrong type": (_wrong_type, ("json", "jsonl", "yaml")),
    "wrong whole": (_wrong_whole, ("json", "jsonl", "yaml", "text")),
    "lacking": (_lacking, ("json", "jsonl", "yaml")),
    "deep": (_deep, ("json", "jsonl", "yaml")),
    "huge": (_huge, ("json", "jsonl", "yaml")),
    "escapes": (_escapes, ("json", "jsonl", "yaml")),
    "bomb": (_bomb, ("yaml",)),
    "tag": (_tagged, ("yaml",)),
}
"""Name -> how, and the forms it is for; none named: all."""

PLACES = ("gone", "directory", "pipe", "device", "loop", "swap")
"""Harm to the file as a whole: it is not there, or something else is."""


def damages(form: str) -> list[str]:
    """The names of all that can happen to a file of a form."""
    return [name for name, (_, forms) in CONTENT.items() if not forms or form in forms] + list(PLACES)


def damage(path: Path, name: str, form: str, rng: random.Random, other: Path | None) -> None:
    """Do it.

    Args:
        path: the file.
        name: of the damage.
        form: of the file.
        rng: source of every choice.
        other: the file of the same name in another run, for `swap`; no other damage needs it.
    """
    if name in CONTENT:
        data = CONTENT[name][0](path.read_bytes(), rng, form)
        path.unlink()  # the file may have another name, of which it is to stay whole
        path.write_bytes(data)
        return
    replacement = b""
    if name == "swap":
        assert other is not None
        replacement = other.read_bytes()
    path.unlink()
    if name == "directory":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "device":
        path.symlink_to("/dev/zero")
    elif name == "loop":
        path.symlink_to(path.name)
    elif name == "swap":
        path.write_bytes(replacement)


def _rewritten(
    data: bytes, rng: random.Random, form: str, change: Callable[[Any], Any], numbers: bool = False, texts: bool = False
) -> bytes:
    """Change one value of a well-formed file."""
    lines = data.decode().splitlines(keepends=True)
    if form == "jsonl" and lines:
        number = rng.randrange(len(lines))
        lines[number] = json.dumps(_changed(json.loads(lines[number]), rng, change, numbers, texts)) + "\n"
        return "".join(lines).encode()
    if form == "yaml":
        return yaml.safe_dump(_changed(yaml.safe_load(data), rng, change, numbers, texts), sort_keys=False).encode()
    return json.dumps(_changed(json.loads(data), rng, change, numbers, texts)).encode()


def _changed(whole: Any, rng: random.Random, change: Callable[[Any], Any], numbers: bool, texts: bool) -> Any:
    """Change one value, anywhere; a number or a text where that is asked for and there is one."""
    places: list[tuple[Any, Any]] = []
    waiting = [whole]
    while waiting:
        branch = waiting.pop()
        for key in branch if isinstance(branch, dict) else range(len(branch)):
            places.append((branch, key))
            if isinstance(branch[key], (dict, list)):
                waiting.append(branch[key])
    wanted = (int, float) if numbers else str if texts else object
    fitting = [(branch, key) for branch, key in places if isinstance(branch[key], wanted) and not isinstance(branch[key], bool)]
    if not fitting and not places:
        changed = change(whole)
        return None if changed is _GONE else changed
    branch, key = rng.choice(fitting or places)
    branch[key] = change(branch[key])
    if branch[key] is _GONE:
        del branch[key]
    return whole
