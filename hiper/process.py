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
from hiper.progress import RELAY, Progress, read_relay

LINES = 20
"""Last lines of a process that its failure shows."""
GRACE = 25.0
"""Seconds a process has to end after SIGTERM; Prefect kills the flow's own process after 30."""
POLL = 0.5
"""Seconds between two looks at a process."""


def run_process(command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None], progress: Progress) -> None:
    """Run a command to its end, with all it started; whatever stops this process stops it, too.

    Args:
        command: program and arguments.
        environment: for the command.
        say: takes each line the command writes.
        progress: follows a `hiper` stage in it.

    Raises:
        WorkflowError: it ended with a failure; the message has its last lines.
    """
    with tempfile.TemporaryDirectory(prefix="hiper-") as folder:
        relay = Path(folder) / "progress"
        lines: SimpleQueue[str] = SimpleQueue()
        last: deque[str] = deque(maxlen=LINES)
        process = subprocess.Popen(
            command,
            env={**environment, RELAY: str(relay), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()

        def look() -> None:
            while not lines.empty():
                last.append(lines.get())
                say(last[-1])
            done, total = read_relay(relay)
            if total:
                progress(done, total)

        try:
            while process.poll() is None:
                time.sleep(POLL)
                look()
        except BaseException:
            _stop(process)
            raise
        reader.join(timeout=GRACE)
        look()
    if process.returncode != 0:
        how = f"exit code {process.returncode}"
        if process.returncode < 0:
            how = f"signal {signal.Signals(-process.returncode).name}"
            how += ", perhaps for lack of memory" if process.returncode == -signal.SIGKILL else ""
        raise WorkflowError(f"{' '.join(command)} ended with {how}. What it had finished is kept. Its last lines:\n" + "\n".join(last))


def _read(stream: IO[str], lines: SimpleQueue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line.rstrip())


def _stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM to all that was started, SIGKILL to what does not heed it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
            return
