"""A command works on a disk, and at chosen moments the power is cut: the disk is copied as it is and the command goes on, undisturbed.

Each copy is what the machine would have started with after a power cut at that moment. One command serves for many moments; that it was
stopped for a few hundredths of a second at each changes nothing of what it does.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.crash.disk import Disk
from tests.crash.processes import ENVIRONMENT
from tests.crash.stand_at import STOPPED_AT

POLL_SECONDS = 0.005
LIMIT_SECONDS = 600.0


class Moment(Protocol):
    """When to cut the power."""

    def due(self, watch: Watch) -> bool: ...


@dataclass(frozen=True)
class Place:
    """Where `stand_at.py` stops the command; it has to be started so."""

    place: str

    def due(self, watch: Watch) -> bool:
        return watch.stopped_at() == self.place

    def __str__(self) -> str:
        return self.place


@dataclass(frozen=True)
class Done:
    """Some seconds after a stage was said to be done. That may be after the command's end: a disk forgets nothing then."""

    stage: str
    seconds: float

    def said(self, watch: Watch) -> float | None:
        return watch.said(rf" {self.stage.replace('_', ' ')}: [\d.]+ s\b")

    def due(self, watch: Watch) -> bool:
        said = self.said(watch)
        return said is not None and watch.now() >= said + self.seconds

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s after {self.stage} was done"


@dataclass(frozen=True)
class During:
    """Some seconds after a stage began."""

    stage: str
    seconds: float

    def due(self, watch: Watch) -> bool:
        begun = watch.begun.get(self.stage)
        return begun is not None and watch.now() >= begun + self.seconds

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s into {self.stage}"


@dataclass(frozen=True)
class Cut:
    """A power cut that came about."""

    moment: Moment
    image: Path
    """What it leaves; `Disk.mount` starts the machine again."""
    working: str
    """The stage that was at work; empty between two stages."""


@dataclass
class Watch:
    """What is known of a command at work: what it has said on standard error and when each stage began. Times are seconds since it was
    started, those in which it was stopped left out."""

    process: subprocess.Popen[str]
    run: Path
    begun: dict[str, float] = field(default_factory=dict)
    """Stage -> when its folder was first seen."""
    ended: dict[str, float] = field(default_factory=dict)
    """Stage -> when its folder had gone."""
    lines: list[tuple[float, str]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    """Moved on by every stop."""

    def look(self, stages: Sequence[str]) -> None:
        for stage in stages:
            if self.works_at(stage):
                self.begun.setdefault(stage, self.now())
            elif stage in self.begun:
                self.ended.setdefault(stage, self.now())

    def works_at(self, stage: str) -> bool:
        return (self.run / f"{stage}.partial").exists()

    def now(self) -> float:
        return time.monotonic() - self._started

    def said(self, pattern: str) -> float | None:
        """When a line like this was said."""
        return next((when for when, line in list(self.lines) if re.search(pattern, line)), None)

    def text(self) -> str:
        return "".join(line for _, line in self.lines)

    def stopped_at(self) -> str | None:
        """The place at which the command has stopped itself."""
        if _state(self.process.pid) != "T":
            return None
        places = [line[len(STOPPED_AT) :].rstrip("\n") for _, line in list(self.lines) if line.startswith(STOPPED_AT)]
        return places[-1] if places else None

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """The command and its children stopped, for the time of the block."""
        stopped = time.monotonic()
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(self.process.pid, signal.SIGSTOP)
        while _state(self.process.pid) not in ("T", "Z", None):
            time.sleep(POLL_SECONDS / 5)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)
            self._started += time.monotonic() - stopped


def work(disk: Disk, run: Path, command: Sequence[str], moments: Sequence[Moment], stages: Sequence[str]) -> tuple[list[Cut], Watch]:
    """Let a command work on a disk to its end, with a power cut at each moment; the cuts, in the order of the moments.

    Raises:
        AssertionError: the command failed, or a moment never came.
    """
    cuts: dict[int, Cut] = {}
    process = subprocess.Popen(
        command,
        cwd=disk.place.parent,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    watch = Watch(process, run)
    reader = threading.Thread(target=_listen, args=(watch,), daemon=True)
    reader.start()
    latest = time.monotonic() + LIMIT_SECONDS
    try:
        while True:
            over = process.poll() is not None
            watch.look(stages)
            for number, moment in enumerate(moments):
                if number not in cuts and moment.due(watch):
                    with watch.standing():
                        cuts[number] = Cut(moment, disk.copy(), next((stage for stage in stages if watch.works_at(stage)), ""))
            if over:
                reader.join(10)
                waiting = [moment for number, moment in enumerate(moments) if number not in cuts]
                if not any(isinstance(moment, Done) and moment.said(watch) is not None for moment in waiting):
                    break
            assert time.monotonic() < latest, f"{command} takes more than {LIMIT_SECONDS} s\n{watch.text()}"
            assert not over or process.returncode == 0, f"{command} ended with {process.returncode}\n{watch.text()}"
            time.sleep(POLL_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(10)
    assert process.returncode == 0, f"{command} ended with {process.returncode}\n{watch.text()}"
    assert not waiting, f"{', '.join(map(str, waiting))}: never came\n{watch.text()}"
    return [cuts[number] for number in range(len(moments))], watch


def _listen(watch: Watch) -> None:
    assert watch.process.stderr is not None
    for line in watch.process.stderr:
        watch.lines.append((watch.now(), line))


def _state(pid: int) -> str | None:
    """`T` where a process is stopped, `Z` where it has ended and nobody has asked; None where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None
