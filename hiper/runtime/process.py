"""Work in a process of its own: a crash, or memory that runs out, ends that one and not this."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from hiper.errors import WorkflowError
from hiper.runtime.parent_death import guarded
from hiper.runtime.progress import RELAY, Progress, read_relay

LINES = 20
"""Last lines of a process that its failure shows."""
GRACE = 25.0
"""Seconds a process has to end after SIGTERM; Prefect kills the flow's own process after 30."""
POLL = 0.5
"""Seconds between two looks at a process."""


class ProcessError(WorkflowError):
    """A process ended with a failure. The message has its command and its last lines."""

    def __init__(self, message: str, number: int = 0, how: str = "", last: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.number = number
        """Of those that were started together, from 0."""
        self.how = how
        """Exit code or signal."""
        self.last = list(last)
        """Its last lines."""

    @property
    def killed(self) -> bool:
        """A signal ended it."""
        return self.how.startswith("signal")


def run_process(command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None], progress: Progress) -> None:
    """Run a command to its end, with all it started; whatever stops this process stops it, too.

    Args:
        command: program and arguments.
        environment: for the command.
        say: takes each line the command writes.
        progress: follows a `hiper` stage in it.

    Raises:
        ProcessError: it ended with a failure.
    """
    run_processes([command], environment, say, progress)


def run_processes(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], say: Callable[[str], None], progress: Progress
) -> None:
    """Run commands side by side to their end, with all they start; one that fails ends the others, and what stops this process ends all.

    Args:
        commands: programs and their arguments.
        environment: for each command.
        say: takes each line a command writes.
        progress: follows a `hiper` stage in one of them.

    Raises:
        ProcessError: one ended with a failure. Of several that did at once it is one that a signal ended, if there is one: the others may
            have failed for lack of it.
    """
    with tempfile.TemporaryDirectory(prefix="hiper-") as folder:
        relay = Path(folder) / "progress"
        started: list[_Process] = []

        def look() -> None:
            for process in started:
                process.pass_on(say)
            done, total = read_relay(relay)
            if total:
                progress(done, total)

        try:
            for command in commands:
                started.append(_Process(command, {**environment, RELAY: str(relay), "PYTHONUNBUFFERED": "1"}))
            while not any(process.failed for process in started) and any(process.running for process in started):
                time.sleep(POLL)
                look()
            if any(process.running for process in started):
                time.sleep(POLL)  # the one that was seen first may have failed for lack of another
            failed = [process for process in started if process.failed]
        finally:
            _stop([process for process in started if process.running])
        for process in started:
            process.reader.join(timeout=GRACE)
        look()
    if failed:
        first = min(failed, key=lambda process: process.popen.returncode > 0)
        command, last = " ".join(first.command), "\n".join(first.last)
        message = f"{command} ended with {first.how}. What it had finished is kept. Its last lines:\n{last}"
        raise ProcessError(message, started.index(first), first.how, first.last)


class _Process:
    """A process that was started in a session of its own, and what it writes."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.command = command
        self.popen = subprocess.Popen(
            guarded(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        self.last: deque[str] = deque(maxlen=LINES)
        self._lines: SimpleQueue[str] = SimpleQueue()
        self.reader = threading.Thread(target=_read, args=(self.popen.stdout, self._lines), daemon=True)
        self.reader.start()

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    @property
    def failed(self) -> bool:
        """It has ended, and not well."""
        return self.popen.poll() not in (None, 0)

    @property
    def how(self) -> str:
        """It ended."""
        code = self.popen.returncode
        if code >= 0:
            return f"exit code {code}"
        return f"signal {signal.Signals(-code).name}" + (", perhaps for lack of memory" if code == -signal.SIGKILL else "")

    def pass_on(self, say: Callable[[str], None]) -> None:
        """What it has written since."""
        while not self._lines.empty():
            self.last.append(self._lines.get())
            say(self.last[-1])


def _read(stream: IO[str], lines: SimpleQueue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line.rstrip())


def _stop(processes: Sequence[_Process]) -> None:
    """SIGTERM to all that they have started, SIGKILL to what does not heed it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        running = [process for process in processes if process.running]
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.popen.pid, number)
        deadline = time.monotonic() + GRACE
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(timeout=max(0.0, deadline - time.monotonic()))
