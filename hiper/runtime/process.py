"""Commands in processes of their own: a crash, or memory that runs out, ends that one and not this.

Here alone processes are started that go on beside this one. Each has a session of its own, so that Ctrl-C in a terminal reaches it once,
through this process, and a guard (`hiper.runtime.guard`), so that it ends when this process does, however that ends.
"""

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
from typing import IO, Self

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


class Process:
    """A command at work."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        log: Path | None = None,
        heard: bool = False,
        reads: bool = False,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            command: program and arguments.
            environment: for the command; None: this process's.
            log: file that what it writes goes to, after what is there; made with its folder. None: it writes where this process does.
            heard: what it writes is for `hear` instead.
            reads: it reads what this process does; else its input is empty.
            descriptors: open files that it inherits.
        """
        self.command = command
        self._lines: SimpleQueue[str] = SimpleQueue()
        output: int | IO[bytes] | None = subprocess.PIPE if heard else None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            output = log.open("ab")
        try:
            self._popen = subprocess.Popen(
                guarded(command),
                env=environment,
                stdin=None if reads else subprocess.DEVNULL,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
                text=True,
                errors="replace",
            )
        finally:
            if output is not None and not isinstance(output, int):
                output.close()
        self.pid = self._popen.pid
        """Of the guard, which ends as the command does."""
        self._reader = None if self._popen.stdout is None else threading.Thread(target=self._read, args=[self._popen.stdout], daemon=True)
        if self._reader is not None:
            self._reader.start()

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._popen.poll() is None

    @property
    def failed(self) -> bool:
        """It has ended, and not well."""
        return self._popen.poll() not in (None, 0)

    @property
    def killed(self) -> bool:
        """A signal has ended it."""
        return self._popen.returncode is not None and self._popen.returncode < 0

    @property
    def how(self) -> str:
        """Exit code or signal that it has ended with."""
        code = self.wait()
        if code >= 0:
            return f"exit code {code}"
        return f"signal {signal.Signals(-code).name}" + (", perhaps for lack of memory" if code == -signal.SIGKILL else "")

    def wait(self) -> int:
        """Until it has ended, and all it wrote can be heard; its exit code, negative for a signal."""
        code = self._popen.wait()
        if self._reader is not None:
            self._reader.join(timeout=GRACE)
        return code

    def send(self, number: int) -> None:
        """Send it a signal: SIGINT, SIGTERM and SIGHUP are passed on to all of its process group, SIGKILL ends it at once."""
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def hear(self) -> list[str]:
        """The lines it has written since the last call."""
        return [self._lines.get() for _ in range(self._lines.qsize())]

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines.put(line.rstrip())


class Processes:
    """The processes of a piece of work: none is left when its `with` block ends, whatever ends that."""

    def __init__(self) -> None:
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        stop(self._started)

    def start(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, *, log: Path | None = None, heard: bool = False
    ) -> Process:
        """Start one; arguments as of `Process`."""
        self._started.append(Process(command, environment, log=log, heard=heard))
        return self._started[-1]

    def until_one_ends(self) -> Process:
        """Wait for one that has ended and was not given back before; there must be one."""
        while True:
            for process in self._started:
                if not process.running:
                    self._started.remove(process)
                    return process
            time.sleep(POLL)


def stop(processes: Sequence[Process], grace: float = GRACE) -> None:
    """End processes with all that they have started: SIGTERM, and SIGKILL to what has not heeded it after so many seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            process.send(number)
        deadline = time.monotonic() + grace
        while any(process.running for process in processes) and time.monotonic() < deadline:
            time.sleep(0.05)


def last_lines(log: Path, count: int = LINES) -> list[str]:
    """The last lines of what processes have written to a file; none where there is no file."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if log.is_file() else []


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
        last: list[deque[str]] = [deque(maxlen=LINES) for _ in commands]

        def look() -> None:
            for process, lines in zip(started, last, strict=True):
                for line in process.hear():
                    lines.append(line)
                    say(line)
            done, total = read_relay(relay)
            if total:
                progress(done, total)

        with Processes() as work:
            told = {**environment, RELAY: str(relay), "PYTHONUNBUFFERED": "1"}
            started = [work.start(command, told, heard=True) for command in commands]
            while not any(process.failed for process in started) and any(process.running for process in started):
                time.sleep(POLL)
                look()
            if any(process.running for process in started):
                time.sleep(POLL)  # the one that was seen first may have failed for lack of another
            failed = [process for process in started if process.failed]
        for process in started:
            process.wait()
        look()
    if failed:
        first = min(failed, key=lambda process: not process.killed)
        number = started.index(first)
        message = f"{' '.join(first.command)} ended with {first.how}. What it had finished is kept. Its last lines:\n"
        raise ProcessError(message + "\n".join(last[number]), number, first.how, last[number])
