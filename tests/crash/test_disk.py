"""The disk whose power can be cut loses what nobody forced to it, and nothing else.

1. A file that was written and renamed without `fsync` is empty after a cut, once anything else has written the journal; absent if not.
2. What `hiper.runtime.files` has written is whole, and so are a folder and its move.
3. A command's own stops and moments are met, in any order; one that never comes fails the test instead of waiting.
4. A run whose files are not forced is found out: damaged, though its stages say that they are done.
5. Nothing stays mounted, and no loop device is kept.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiper.runtime.files import move, sync_tree, write_text
from tests.crash.disk import Disk, NoDisks
from tests.crash.power import Done, Place, work
from tests.crash.stand_at import STOPPED_AT

TEXT = "It was done.\n" * 1000


def carelessly(path: Path) -> None:
    temporary = path.with_name("temporary")
    temporary.write_text(TEXT)
    temporary.rename(path)


def force_something_else(folder: Path) -> None:
    other = folder / "other"
    other.write_text(TEXT)
    descriptor = os.open(other, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def test_a_file_that_was_not_forced_is_absent_or_empty(disk: Disk) -> None:
    file = disk.place / "file"
    carelessly(file)
    absent = disk.copy()
    force_something_else(disk.place)
    empty = disk.copy()
    assert file.read_text() == TEXT
    disk.mount(absent)
    assert not file.exists()
    disk.mount(empty)
    assert file.read_bytes() == b""
    assert (disk.place / "other").read_text() == TEXT


def test_a_file_that_replaces_another_is_not_forced_by_that(disk: Disk) -> None:
    file = disk.place / "file"
    write_text(file, "old")
    carelessly(file)
    force_something_else(disk.place)
    disk.mount(disk.copy())
    assert file.read_bytes() == b""


def test_what_was_written_durably_is_there(disk: Disk) -> None:
    write_text(disk.place / "file", TEXT)
    working = disk.place / "working" / "deep"
    working.mkdir(parents=True)
    (working / "inside").write_text(TEXT)
    sync_tree(disk.place / "working")
    before = disk.copy()
    move(disk.place / "working", disk.place / "finished")
    disk.mount(disk.copy())
    assert (disk.place / "file").read_text() == TEXT
    assert (disk.place / "finished" / "deep" / "inside").read_text() == TEXT
    assert not (disk.place / "working").exists()
    disk.mount(before)
    assert not (disk.place / "finished").exists()


PROGRAM = f"""
import os, signal, sys
from pathlib import Path
from hiper.runtime.files import write_text
write_text(Path("{{place}}/first"), "1")
for place in ("here", "there"):
    print("{STOPPED_AT}" + place, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    write_text(Path("{{place}}", place), "2")
print(" tasks: 0.5 s", file=sys.stderr, flush=True)
"""


def test_a_command_is_stopped_at_its_places_and_moments(disk: Disk) -> None:
    command = [sys.executable, "-c", PROGRAM.format(place=disk.place)]
    moments = [Done("tasks", 0.3), Place("there"), Place("here")]
    cuts, watch = work(disk, disk.place, command, moments, [])
    assert [cut.moment for cut in cuts] == moments
    found = []
    for cut in cuts:
        disk.mount(cut.image)
        found.append({path.name for path in disk.place.iterdir()} - {"lost+found"})
    assert found == [{"first", "here", "there"}, {"first", "here"}, {"first"}]
    said = Done("tasks", 0).said(watch)
    assert said is not None and watch.now() >= said + 0.3


def test_a_moment_that_never_comes_fails_the_test(disk: Disk) -> None:
    with pytest.raises(AssertionError, match="1.0 s after train was done: never came"):
        work(disk, disk.place, [sys.executable, "-c", ""], [Done("train", 1.0)], [])
    with pytest.raises(AssertionError, match="ended with 3"):
        work(disk, disk.place, [sys.executable, "-c", "raise SystemExit(3)"], [], [])


def test_nothing_stays_mounted(tmp_path: Path) -> None:
    try:
        disk = Disk(tmp_path)
    except NoDisks as reason:  # only root can mount one; the reason says what this machine lacks
        pytest.skip(str(reason))
    with pytest.raises(KeyError), disk, (disk.place / "open").open("w"):
        raise KeyError
    assert not os.path.ismount(disk.place)
    attached = subprocess.run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in attached.stdout
