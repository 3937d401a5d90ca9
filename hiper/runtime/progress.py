"""Progress on the terminal: a bar where somebody watches, a plain line now and then where it goes to a file.

Library functions know nothing of it: they take a `Progress`, call it with what is done and what there is to do, and go on.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiper.runtime.files import replacing
from hiper.runtime.text import visible

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (done, total); total 0 where it is not known."""

LINE_SECONDS = 15.0
"""Seconds between two lines of a log."""
RELAY_SECONDS = 1.0
"""Seconds between two writings of a relay."""

_STYLE = re.compile("\x1b\\[[0-9;]*m")

RELAY = "HIPER_PROGRESS"
"""Environment variable: a file that `track` keeps up to date, for the process that started this one."""


def start_logging(verbose: bool = False) -> None:
    """Send the log of `hiper` to standard error, past any bar that is being drawn."""
    root = logging.getLogger("hiper")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    if root.handlers:
        return
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=_console(), show_path=False, show_level=False, log_time_format="%H:%M:%S", markup=False)
        handler.setFormatter(_Visible("%(message)s"))
    else:
        handler = _ToStandardError()
        handler.setFormatter(_Visible("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root.addHandler(handler)
    logging.setLogRecordFactory(_plain)


def _plain(*arguments: Any, **named: Any) -> logging.LogRecord:
    """A record that does not act on the terminal, whoever makes it: transformers colours its words and quotes a model's own."""
    record = logging.LogRecord(*arguments, **named)
    if record.levelno >= logging.INFO:
        with suppress(TypeError, ValueError):  # arguments that do not fit are the handlers' to tell
            record.msg, record.args = visible(_STYLE.sub("", record.getMessage())), ()
    return record


class _ToStandardError(logging.StreamHandler[Any]):
    """To what is standard error when a line is written: a program that calls commands may have put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Visible(logging.Formatter):
    """Messages quote files and models: nothing in them acts on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextmanager
def track(label: str, total: int = 0) -> Iterator[Progress]:
    """Show the progress of one piece of work; yields what reports it.

    Args:
        label: what is being done.
        total: how much there is to do, if that is known already.
    """
    relayed = relay()
    with _bar(label, total) if sys.stderr.isatty() else nullcontext(_line(label)) as shown:
        yield shown if relayed is None else both(shown, relayed)


def relay() -> Progress | None:
    """What reports to the process that started this one; None where that does not listen."""
    path = os.environ.get(RELAY)
    return None if path is None else _relay(Path(path))


def read_relay(path: Path) -> tuple[int, int]:
    """What a process reported last in its relay: (done, total); (0, 0) before it reports."""
    try:
        done, total = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0, 0
    return int(done), int(total)


def both(first: Progress, second: Progress) -> Progress:
    """Report to two at once."""

    def report(done: int, total: int) -> None:
        first(done, total)
        second(done, total)

    return report


@contextmanager
def _bar(label: str, total: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=_console(), transient=True) as bars:
        task = bars.add_task(label, total=total or None)

        def report(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total or None)

        yield report


def _line(label: str) -> Progress:
    said = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= LINE_SECONDS:
            said = time.monotonic()
            logger.info("%s: %d%s", label, done, f" of {total}" if total else "")

    return report


def _relay(path: Path) -> Progress:
    written = 0.0

    def report(done: int, total: int) -> None:
        nonlocal written
        if time.monotonic() - written >= RELAY_SECONDS or done == total:
            written = time.monotonic()
            with replacing(path, durable=False) as temporary:
                temporary.write_text(f"{done} {total}", encoding="ascii")

    return report


@cache
def _console() -> Console:
    """The one console that bars and log share, so that a line of the log does not cut a bar in two."""
    from rich.console import Console

    return Console(stderr=True)
