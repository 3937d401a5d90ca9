"""Who may change a run's directory: one command at a time, from its first look at the directory to its end.

Two locks stand in a directory. `locked` is the command's: a whole flow holds it, over all stages and the pauses between them. Its other
processes, also those on another machine, work under it by a token that they are handed. `working` is that of the process that does a stage
at this moment: what a killed command left running lets go of it within seconds, and the next command waits for that.

Both are released by the operating system when their process ends, however it ends.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hiper.errors import ConfigError, DataError
from hiper.runtime.files import replacing
from hiper.runtime.reading import read_json_object

logger = logging.getLogger(__name__)

TOKENS = "HIPER_LOCK"
"""Environment variable: the tokens under which a command's processes work in the directories that it holds."""

LOCK = ".lock"
WORK_LOCK = ".lock.work"
HOLDER = ".lock.json"
"""Who holds `LOCK`, for the message to others, and the token."""

GRACE_SECONDS = 30.0
"""How long `working` waits for a process that a killed command left behind; such a one is told to end at once."""


_held: ContextVar[tuple[str, ...]] = ContextVar("held", default=())


@contextmanager
def locked(run: Path, *, wait: bool = False, tokens: str | None = None) -> Iterator[None]:
    """Hold a directory against other commands. This command's other processes are handed `lock_tokens()` to work in it, too.

    Args:
        run: the directory; made if missing.
        wait: until the other command is done with it, instead of giving up.
        tokens: of the command that this process works for; unset: $HIPER_LOCK. Where that command holds the directory, so does this one.

    Raises:
        ConfigError: another command holds it, or it cannot be made.
    """
    make_directory(run)
    handed = (tokens or os.environ.get(TOKENS, "")).split(",")
    lock = FileLock(run / LOCK, thread_local=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            holder = _holder(run)
            if holder.get("token") in handed:
                with _holding(*handed):
                    yield
                return
            if not wait:
                raise ConfigError(
                    f"another process works in {run}{_who(holder)}. Wait for it, or name another directory with paths.run=..."
                ) from None
            lock.acquire()
    except OSError as error:
        raise ConfigError(f"{run} cannot be locked ({error.strerror}). Name another directory with paths.run=...") from error
    own = secrets.token_hex(16)
    try:
        _write_holder(run, own)
        with _holding(own):
            yield
    finally:
        with suppress(OSError):
            (run / HOLDER).unlink(missing_ok=True)
        lock.release()


@contextmanager
def working(run: Path) -> Iterator[None]:
    """Be the one process that does a stage in a directory.

    Raises:
        ConfigError: a process of an earlier command is still at work, or the directory cannot be made.
    """
    make_directory(run)
    lock = FileLock(run / WORK_LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for a process that is still at work in %s", run)
        try:
            lock.acquire(timeout=GRACE_SECONDS)
        except Timeout:
            raise ConfigError(f"a process of an earlier command is still at work in {run}. Wait for it, or end it.") from None
    try:
        yield
    finally:
        lock.release()


def lock_tokens() -> str:
    """What a process needs that works for this one in the directories that it holds: the `tokens` of `locked`."""
    return ",".join(_held.get())


def lock_environment() -> dict[str, str]:
    """`lock_tokens` as an environment variable for a process that this one starts."""
    return {TOKENS: lock_tokens()}


def make_directory(run: Path) -> None:
    """Make a run's directory.

    Raises:
        ConfigError: it cannot be made.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{str(run)!r} is a file; it must name a directory. Name another with paths.run=...")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {str(run)!r} ({error.strerror}). Name another with paths.run=...") from error


@contextmanager
def _holding(*tokens: str) -> Iterator[None]:
    before = _held.set((*_held.get(), *filter(None, tokens)))
    try:
        yield
    finally:
        _held.reset(before)


def _write_holder(run: Path, token: str) -> None:
    """Not durable on purpose: it means nothing once the lock is free. The token keeps accidents out, not people."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    holder = {"token": token, "pid": os.getpid(), "host": platform.node(), "command": command[:200]}
    with replacing(run / HOLDER, durable=False) as temporary:
        temporary.write_text(json.dumps(holder), encoding="utf-8")


def _holder(run: Path) -> Mapping[str, Any]:
    try:
        return read_json_object(run / HOLDER)
    except DataError:
        return {}


def _who(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return ""
    return f" (process {holder['pid']} on {holder.get('host')}: {holder.get('command')})"
