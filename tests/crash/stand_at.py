"""Run `hiper` up to a place and end there, as by `kill -9`, or stop there until somebody lets it go on.

    python stand_at.py die PLACE ARGUMENT...
    python stand_at.py stop "PLACE and PLACE ..." ARGUMENT...

A place is one step or several with `then` between them; the process ends or stops at the last:

    call MODULE:FUNCTION N               the function's Nth call begins
    file EVENT PATTERN                   a file operation (an audit event of Python, such as os.rename) on a path like this begins
    cut MODULE:FUNCTION N FILE BYTES     the function's Nth call has written BYTES to FILE, beyond what it held, and would write more
                                         (FILE `-`: one that is not there yet); for `die` alone

Nothing is replaced: functions are wrapped, file operations watched, and a write is cut by the kernel's own limit on sizes. `careless`
before the verb makes `fsync` of a file, though not of a folder, do nothing: what a program without it leaves after a power cut.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import resource
import signal
import stat
import sys
import traceback
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NoReturn

NOT_CUT = 99
"""Exit code where the call wrote no more than that."""

STOPPED_AT = "stopped at: "
"""What is said on standard error before a stop, followed by the place."""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("outlived a SIGKILL")


def stop(place: str) -> None:
    print(STOPPED_AT + place, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def stand_at(place: str, end: Callable[[], None]) -> None:
    """Install the steps of a place, each waiting for the one before."""
    arm = end
    for step in reversed(place.split(" then ")):
        kind, target, *rest = step.split()
        if kind == "file":
            arm = functools.partial(_watch, target, rest[0], arm)
        else:
            arm = functools.partial(_wrap, target, int(rest[0]), _cut(rest[1], int(rest[2])) if kind == "cut" else None, arm)
    arm()


def forget_contents() -> None:
    """Let `fsync` of files do nothing."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


def _watch(event: str, pattern: str, reached: Callable[[], None]) -> None:
    waiting = True

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal waiting
        if not waiting or name != event:
            return
        paths = [os.fspath(argument) for argument in arguments if isinstance(argument, (str, os.PathLike))]
        if any(fnmatch(path, pattern) for path in paths):
            waiting = False
            reached()

    sys.addaudithook(hook)


def _wrap(target: str, count: int, cut: Callable[[Callable[[], Any]], NoReturn] | None, reached: Callable[[], None]) -> None:
    module, _, path = target.partition(":")
    *outer, name = path.split(".")
    owner: Any = functools.reduce(getattr, outer, importlib.import_module(module))
    real, calls = getattr(owner, name), 0

    @functools.wraps(real)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            if cut is not None:
                cut(functools.partial(real, *args, **kwargs))
            reached()
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def _cut(file: str, more: int) -> Callable[[Callable[[], Any]], NoReturn]:
    def write(real: Callable[[], Any]) -> NoReturn:
        held = Path(file).stat().st_size if Path(file).exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (held + more, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        try:
            real()
        except BaseException as error:
            if os.strerror(errno.EFBIG) in "".join(traceback.format_exception(error)):
                die()
            raise
        os._exit(NOT_CUT)

    return write


if __name__ == "__main__":
    from hiper.cli.main import main

    verb, place, *arguments = sys.argv[1:]
    if verb == "careless":
        forget_contents()
        verb, place, *arguments = place, *arguments
    if verb == "die":
        stand_at(place, die)
    elif place:
        for one in place.split(" and "):
            stand_at(one, functools.partial(stop, one))
    sys.exit(main(arguments))
