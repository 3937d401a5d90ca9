"""From errors to exit codes: what the user can mend is said in a sentence, without a traceback (HIPER_DEBUG=1 shows it)."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from pathlib import Path

from hiper.errors import WorkflowError
from hiper.runtime.text import visible

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Errors of writing that are the machine's, not the program's."""
IN_THE_WAY = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""A folder or a link stands where a file of ours belongs."""


def foreseen(error: Exception, options: argparse.Namespace) -> int | None:
    """Answer an error that is nobody's mistake in the program; None: it is one."""
    if _after_interrupt(error):
        return fail(interrupted(options), INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; nothing more can be said to it
        return 1
    if isinstance(error, OSError) and error.errno in IN_THE_WAY and not debug():
        return fail(f"something is in the way: {error}. Move it away and give the command again; what was finished is intact.", 1)
    if _unreachable(error) and not debug():
        where, why = os.environ.get("PREFECT_API_URL", "its address"), str(error) or type(error).__name__
        return fail(
            f"the Prefect server at {where} cannot be reached ({why}). "
            "Start it, or unset PREFECT_API_URL, or add --direct. What was finished before is kept: give the command again.",
            WorkflowError.exit_code,
        )
    if isinstance(error, OSError) and error.errno in NO_ROOM and not debug():
        return fail(
            f"cannot write: {error}. What was finished before is intact; make room (or allow writing) and give the command again.", 1
        )
    return None


def _unreachable(error: BaseException) -> bool:
    """Whether a server did not answer; Prefect's client is the only one of ours that asks one."""
    return any(f"{kind.__module__.split('.')[0]}.{kind.__name__}" == "httpx.TransportError" for kind in type(error).__mro__)


def _after_interrupt(error: BaseException) -> bool:
    """Whether an error only happened on the way out, say because Prefect's server was stopped by the same signal."""
    context: BaseException | None = error
    while context is not None:
        if isinstance(context, KeyboardInterrupt) or type(context).__name__ == "TerminationSignal":
            return True
        context = context.__context__
    return False


def interrupted(options: argparse.Namespace) -> str:
    """What Ctrl-C left, and the command that goes on from there."""
    place = getattr(options, "place", None)
    if place is None:
        return "interrupted."
    if options.verb == "reevaluate":
        return "interrupted; models that were evaluated have their line in the history."
    if options.verb == "sweep":
        return f"interrupted; trials so far are kept in {place}. Give the command again to go on."
    if not Path(place).exists():
        return f"interrupted before {place} was begun."
    if options.verb == "evaluate" and (options.model is not None or options.executor is not None):
        return f"interrupted; finished chunks of tasks are kept in {place}. Give the command again to go on."
    if options.verb == "compare":
        return f"interrupted; finished work is kept in {place}. Give the command again to go on."
    return f"interrupted; finished work is kept in {place}. Continue with `hiper resume {place}`."


def fail(message: str, code: int) -> int:
    """Say what is wrong; the exit code."""
    print(f"hiper: {visible(message)}", file=sys.stderr)
    return code


def debug() -> bool:
    """Whether tracebacks are wanted: HIPER_DEBUG."""
    return os.environ.get("HIPER_DEBUG", "") not in ("", "0")
