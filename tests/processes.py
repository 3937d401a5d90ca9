"""Processes found again by a mark in their environment, whoever their parent is by now (Linux). `tests.sockets` goes by parents."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from tests.sockets import Process, alive

MARK = "HIPER_TEST_MARK"
SECONDS = 5.0
"""What a command started may outlive it by at most so long."""


def marked() -> tuple[dict[str, str], str]:
    """An environment for a command whose processes are to be found again, and the mark."""
    mark = uuid4().hex
    return {**os.environ, MARK: mark}, mark


def living(mark: str) -> dict[int, str]:
    """Process ids and command lines of all that live under a mark."""
    found = {}
    for place in Path("/proc").iterdir():
        with suppress(OSError):
            if place.name.isdecimal() and f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def orphans(mark: str, seen: Iterable[Process] = ()) -> dict[int, str]:
    """What lives `SECONDS` later under a mark, and of the processes that were seen; comes back as soon as it is nothing."""
    known, over = set(seen), time.monotonic() + SECONDS
    while (found := dict.fromkeys(alive(known), "") | living(mark)) and time.monotonic() < over:
        time.sleep(0.1)
    return found
