"""A process between a command and the one that wants it done: the command does not outlive that one.

See `hiper.runtime.parent_death.guarded`.

    python -m hiper.runtime.guard PARENT COMMAND [ARGUMENT ...]

The command may be anything (Prefect's server, `dvc repro`), so the watching is not left to it. It runs in a session of its own. When
process PARENT has ended, however that came, the command and all that it started are sent SIGTERM, and SIGKILL after `GRACE` seconds. What
the command leaves running when it ends by itself is ended in the same way. SIGINT, SIGTERM and SIGHUP are passed on to the command and its
process group once; the exit code, or the signal that ended it, is the command's.

On Linux, processes that the command started are found even where they left its session or lost their parent: orphans become children
of the nearest ancestor that asked for them (PR_SET_CHILD_SUBREAPER), which is this process. A guard that is killed itself takes the command
along (PR_SET_PDEATHSIG). Elsewhere the command's process group is what is ended, and guards further down end theirs.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL, for a command whose parent has ended."""
POLL = 0.25
"""Seconds between two looks at the parent."""
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CANNOT_RUN = 127
"""Exit code where the command cannot be started, as a shell's."""

_LINUX = sys.platform.startswith("linux")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Guard:
    """The command, and what is left of it."""

    def __init__(self, command: list[str]) -> None:
        """Start it.

        Raises:
            OSError: there is no such program.
        """
        libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None
        if libc is not None:
            libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        guard = os.getpid()

        def end_with_guard() -> None:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != guard:
                    os._exit(CANNOT_RUN)

        # This process has one thread, so code between fork and exec is safe. Descriptors meant for the command are passed on.
        self._process = subprocess.Popen(command, start_new_session=True, close_fds=False, preexec_fn=end_with_guard if _LINUX else None)
        self.pid = self._process.pid
        self._told: set[int] = set()

    def reap(self) -> None:
        """Take note of children that have ended, the command among them; `code` then has its exit code."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self._process.returncode = os.waitstatus_to_exitcode(status)

    @property
    def code(self) -> int | None:
        """Exit code of the command, negative for a signal; None while it runs."""
        return self._process.returncode

    def send(self, number: int) -> None:
        """Send a signal to the command's process group."""
        if number == signal.SIGTERM:
            self._told |= {-self.pid, *(pid for pid in self._living() if self._in_group(pid))}
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self) -> None:
        """SIGTERM to what still runs, once each, and SIGKILL after `GRACE` seconds."""
        if self.code is None and self.pid not in self._told:
            self.send(signal.SIGTERM)
        if not self._until_gone(GRACE, kill=False):
            self._until_gone(GRACE, kill=True)  # bounded: a process in the middle of a system call may not go at once

    def _until_gone(self, seconds: float, kill: bool) -> bool:
        over = time.monotonic() + seconds
        while left := self._living():
            if time.monotonic() > over:
                return False
            for pid, parent in left.items():
                with suppress(ProcessLookupError, PermissionError):
                    if kill:
                        os.kill(pid, signal.SIGKILL)
                    elif parent == os.getpid() and pid not in self._told:  # an orphan now; what has a parent is the parent's to end
                        self._told.add(pid)
                        os.kill(pid, signal.SIGTERM)
            if kill:
                self.send(signal.SIGKILL)
            time.sleep(0.02)
            self.reap()
        return True

    def _living(self) -> dict[int, int]:
        """Process ids of all that the command started and the command itself, each with its parent's."""
        if _LINUX:
            return descendants(os.getpid())
        with suppress(ProcessLookupError):
            os.killpg(self.pid, 0)
            return {-self.pid: os.getpid()}  # the group, as `kill` takes it
        return {}

    def _in_group(self, pid: int) -> bool:
        with suppress(ProcessLookupError):
            return pid < 0 or os.getpgid(pid) == self.pid
        return False


def descendants(root: int) -> dict[int, int]:
    """Process ids of the children of a process, of theirs, and so on, each with its parent's; zombies are left out (Linux)."""
    parents: dict[int, int] = {}
    states: dict[int, str] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with suppress(OSError):
                # "pid (name) state parent ...": a name may hold anything, parentheses, too
                state, parent = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                parents[int(place.name)], states[int(place.name)] = int(parent), state
    found: dict[int, int] = {}
    new = {root}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= {pid: parents[pid] for pid in new}
    return {pid: parent for pid, parent in found.items() if states[pid] not in "ZX"}


def main(arguments: list[str]) -> int:
    """Guard a command to its end; its exit code."""
    parent, command = int(arguments[0]), arguments[1:]
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # a handler, so that it wakes the loop
    if os.getppid() != parent:
        return CANNOT_RUN
    asked: list[int] = []
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: asked.append(number))
    try:
        guard = Guard(command)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return CANNOT_RUN
    while guard.code is None and os.getppid() == parent:
        while asked:
            guard.send(asked.pop(0))
        select.select([awake], [], [], POLL)
        with suppress(BlockingIOError):
            os.read(awake, 4096)
        guard.reap()
    guard.end()
    return _as(guard.code)


def _as(code: int | None) -> int:
    """An exit code like the command's; where a signal ended that, this process ends by the same one."""
    if code is None:
        return CANNOT_RUN
    if code >= 0:
        return code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has left a core file if one was wanted
    with suppress(OSError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    return 128 - code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
