"""Progress on the terminal: a bar where somebody watches, a plain line now and then where it goes to a file.

Library functions know nothing of it: they take a `Progress`, call it with what is done and what there is to do, and go on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (done, total); total 0 where it is not known."""

LINE_SECONDS = 15.0
"""Seconds between two lines of a log."""


def start_logging(verbose: bool = False) -> None:
    """Send the log of `hiper` to standard error, past any bar that is being drawn."""
    root = logging.getLogger("hiper")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    root.propagate = False
    if root.handlers:
        return
    if sys.stderr.isatty():
        from rich.logging import RichHandler

        root.addHandler(RichHandler(console=_console(), show_path=False, show_level=False, log_time_format="%H:%M:%S"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)


@contextmanager
def track(label: str, total: int = 0) -> Iterator[Progress]:
    """Show the progress of one piece of work; yields what reports it.

    Args:
        label: what is being done.
        total: how much there is to do, if that is known already.
    """
    if sys.stderr.isatty():
        yield from _bar(label, total)
    else:
        yield _line(label)


def both(first: Progress, second: Progress) -> Progress:
    """Report to two at once."""

    def report(done: int, total: int) -> None:
        first(done, total)
        second(done, total)

    return report


def _bar(label: str, total: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<12}"),
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


@cache
def _console() -> Console:
    """The one console that bars and log share, so that a line of the log does not cut a bar in two."""
    from rich.console import Console

    return Console(stderr=True)
