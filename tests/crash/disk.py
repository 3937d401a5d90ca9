"""A disk whose power can be cut: ext4 in a file, mounted through a loop device, copied as it is on the disk at that moment.

What a process writes lies in memory until the file system sends it to the disk. Copying the image file takes what was sent and nothing
else, so the copy is what a power cut at that moment leaves behind.

*Lost* are all contents and all names (creations, renames, deletions) that nobody forced to the disk: ext4 writes its journal every
`commit=600` seconds instead of 5, and any `fsync` of any file or folder writes the journal as a whole. Hence the typical damage: a
rename that somebody's later `fsync` made durable leads to a file whose contents were never sent, which is empty after the cut. ext4's
habit of sending contents before a rename over an older file is switched off (`noauto_da_alloc`): POSIX promises no such thing and other
file systems do not do it.

*Not lost* is what was forced, and what the kernel sends by itself: contents older than 30 seconds (`vm.dirty_expire_centisecs`), or all
of it when memory runs short or when any process calls `sync`. Either makes a case milder, never wrong. A disk that loses writes after
it has confirmed them, or reorders them, is not modelled.

Mounting needs root and loop devices; without them `Disk` raises `NoDisks`, with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

MEGABYTES = 256
OPTIONS = "loop,commit=600,data=ordered,noauto_da_alloc,noatime"


class NoDisks(Exception):
    """This machine lets nobody mount a file."""


class Disk:
    """An ext4 file system in a file. It is always mounted at the same place, so that paths in a run and its recovery are the same."""

    def __init__(self, folder: Path) -> None:
        """Make an empty one and mount it at `folder/disk`.

        Raises:
            NoDisks: with the reason.
        """
        self.place = folder / "disk"
        self._folder = folder
        self._copies = 0
        self.place.mkdir(parents=True)
        if os.geteuid() != 0:
            raise NoDisks("mounting a file needs root")
        try:
            self.renew()
        except (OSError, subprocess.CalledProcessError) as error:
            detail = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise NoDisks(f"no file can be mounted here: {detail}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.unmount()

    def renew(self) -> None:
        """Make it empty."""
        self.unmount()
        image = self._folder / "whole.img"
        with image.open("wb") as file:
            file.truncate(MEGABYTES << 20)
        _command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        self.mount(image)

    def mount(self, image: Path) -> None:
        """Put an image where the one before was; a copy's journal is replayed, as after a power cut."""
        self.unmount()
        _command("mount", "-o", OPTIONS, str(image), str(self.place))
        self._image = image

    def unmount(self) -> None:
        """Take the image off; harmless when there is none. The loop device goes with it."""
        for _ in range(50):
            if not os.path.ismount(self.place):
                return
            if subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)  # a process that was killed has not let go of its files yet
        _command("umount", "-l", str(self.place))

    def settle(self) -> None:
        """Force everything to the disk: what was prepared is not what is tested."""
        _command("sync", "-f", str(self.place))

    def copy(self) -> Path:
        """What a power cut now would leave, as an image to mount.

        The writers should be stopped. What the kernel is sending meanwhile would tear the copy, so it is taken again until the device
        wrote nothing from beginning to end.
        """
        self._copies += 1
        target = self._folder / f"cut-{self._copies}.img"
        for _ in range(100):
            before = self._writes()
            _command("cp", "--sparse=always", str(self._image), str(target))
            if before == self._writes() and before[1] == 0:
                return target
            time.sleep(0.02)
        raise RuntimeError(f"{self._image} never stands still: something writes to {self.place} all the time")

    def _writes(self) -> tuple[int, int]:
        """How many writes the device has done, and how many requests it is at."""
        device = os.stat(self.place).st_dev
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(fields[4]), int(fields[8])


def _command(*words: str) -> None:
    if shutil.which(words[0]) is None:
        raise FileNotFoundError(f"there is no {words[0]}")
    subprocess.run(words, check=True, capture_output=True, text=True)
