"""Writing that survives: files that are whole whatever happens, and moves that a power cut does not undo.

A write is *durable* when it is on the disk and so is the directory entry that leads to it. The order is always the same: contents
first, then the rename that makes them count, then the directory. Nothing is said to be finished before that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, *, durable: bool = True, shared: bool = False) -> Iterator[Path]:
    """Where to write a file that is either the old one or the whole new one, whatever happens.

    What is written there takes the place of `path` when the block ends; where the block fails, it is deleted.

    Args:
        path: the file.
        durable: it is when the block has ended. False for what means nothing after a power cut.
        shared: several processes may write this file at once, as in a cache.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp" if shared else f"{path.name}.tmp")
    try:
        yield temporary
        if durable:
            sync(temporary)
            move(temporary, path)
        else:
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file that is either the old one or the whole new one, whatever happens; durable when this returns."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """`write_text` of JSON. NaN and infinities are refused: no reader of ours takes them.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n")


def move(source: Path, target: Path) -> None:
    """Rename within one file system, replacing a file that is there; durable when this returns."""
    source.replace(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def sync(path: Path) -> None:
    """Force a file's contents, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force everything in a folder to the disk: contents, then the entries that lead to them, the folder's own last.

    Whoever renames the folder afterwards (`move`) has a folder that a power cut leaves either absent or whole.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(place) / name
            if not file.is_symlink():
                sync(file)
        sync(Path(place))


def cut(path: Path, size: int) -> None:
    """Drop all of a file after its first `size` bytes; durable when this returns."""
    with path.open("rb+") as file:
        file.truncate(size)
        os.fsync(file.fileno())
