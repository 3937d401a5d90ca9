"""A stage's folder: worked in under another name, durable before it counts, and verified whenever another stage reads it.

    RUN/<stage>/               what the stage made
        stage.json             what it was made from and under, and one digest of its files (`StageRecord`)
        manifest.json          SHA-256 of each file
        seen.json              size and times of each file when it was last hashed, on this machine
    RUN/<stage>.partial/       the stage while it works; begun.json says under which settings
    RUN/<stage>.partial.1/     unfinished work under settings that are no longer asked for, set aside

A stage that fails, is interrupted, killed, or loses its power leaves what was finished before as it was: the folder is forced to the disk
before it takes the finished one's place. "Finished" means all of that, and that the files still are what was written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.runs.fingerprint import Settings, differences, told
from hiper.runtime.files import move, sync, sync_tree, write_json
from hiper.runtime.reading import read_json_object

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
STAGE = "stage.json"
MANIFEST = "manifest.json"
SEEN = "seen.json"
TIMES = "times.json"
BEGUN = "begun.json"
CHECKPOINTS = "checkpoints"
OWN = (STAGE, MANIFEST, SEEN, TIMES, CONFIG, BEGUN)
"""Files of a stage's folder itself; below it the same names are like any others."""
VOLATILE = (ENVIRONMENT, "timings.jsonl", CHECKPOINTS, "wandb", "wandb-id.txt")
"""Files and folders of a stage, at any depth, that no later stage reads: its digest leaves them out, and `OWN`."""

Fact = str | int | float | bool | None
"""What a stage reports about itself: JSON scalars."""


@dataclass(frozen=True)
class StageRecord:
    """`stage.json`: a finished stage."""

    stage: str
    fingerprint: str
    """Of all that decides its files, see `hiper.runs.fingerprint`."""
    lineage: str
    """The fingerprint without the settings that may be extended: work of the same lineage can be continued."""
    settings: Settings
    """Its own settings."""
    facts: dict[str, Fact]
    sources: dict[str, str]
    """Upstream stage -> digest of the files that were read: one that comes out differently leaves those after it out of date."""
    digest: str
    """SHA-256 of its manifest."""


@dataclass(frozen=True)
class Begun:
    """`begun.json`: what a stage was begun under."""

    fingerprint: str
    lineage: str
    settings: Settings = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass
class StageFolder:
    """Where a stage works."""

    path: Path
    """The `.partial` folder."""
    resumed: bool
    """Whether it holds earlier work that fits."""
    facts: dict[str, Fact]
    """To be filled by the stage; they go into its record."""


@contextlib.contextmanager
def stage_folder(
    run: Path, stage: str, begun: Begun, *, resumable: bool = False, fits: Callable[[Path], bool] = lambda partial: True
) -> Iterator[StageFolder]:
    """A folder to work in, which becomes `RUN/<stage>` when the block ends well. One process at a time: see `hiper.runtime.lock`.

    Args:
        run: the run's directory.
        stage: the stage's name.
        begun: what it works under.
        resumable: keep the partial folder when the block fails, and continue in it next time where lineage and sources are the same. Work
            that does not fit is set aside.
        fits: whether the work in a partial folder of the same lineage and sources can be continued.
    """
    recover(run, stage)
    partial = run / f"{stage}.partial"
    earlier = begun_stage(run, stage) if resumable else None
    resumed = earlier is not None and _continues(earlier, begun) and fits(partial)
    if resumed:
        assert earlier is not None
        changed = differences(earlier.settings, begun.settings)
        logger.info("%s: continuing the work in %s%s", stage, partial, f"; {told(changed)}" if changed else "")
    else:
        if resumable:
            clear_partial(run, stage, begun)
        else:
            remove(partial)
        partial.mkdir(parents=True)
    write_json(partial / BEGUN, asdict(begun))
    folder = StageFolder(partial, resumed, {})
    started = time.monotonic()
    try:
        yield folder
        _finish(partial, stage, begun, folder.facts, time.monotonic() - started)
    except BaseException:
        if not resumable:
            remove(partial)
        raise
    _swap(run, stage)


def read_stage(run: Path, stage: str) -> StageRecord | None:
    """The record of a finished stage; None where it has not finished. Reads `stage.json` alone; see `verify_stage`.

    Raises:
        DataError: `stage.json` is damaged.
    """
    file = run / stage / STAGE
    if not file.exists():
        return None
    known = read_json_object(file)
    try:
        record = StageRecord(**known)
        if any(not isinstance(getattr(record, one.name), (str, dict)) for one in fields(record)):
            raise TypeError("a field has the wrong type")
    except TypeError as error:
        raise DataError(f"{file} is not the record of a stage ({error}). {redo(run, stage)}") from error
    return record


def verify_stage(run: Path, stage: str, *, full: bool = False) -> StageRecord:
    """See that a finished stage's files are those that it wrote.

    A file whose size and times are as when it was last hashed is taken to be the same; others are hashed.

    Args:
        run: the run's directory.
        stage: the stage's name.
        full: hash every file.

    Raises:
        DataError: a file is missing or differs; the message names it and the command that makes it anew.
    """
    record = read_stage(run, stage)
    folder = run / stage
    if record is None:
        raise DataError(f"{run} has no finished {stage!r} stage. {redo(run, stage)}")
    try:
        manifest = read_json_object(folder / MANIFEST)
    except DataError as error:
        raise DataError(f"{error} {redo(run, stage)}") from error
    if digest_of(manifest) != record.digest:
        raise DataError(f"{folder / MANIFEST} and {folder / STAGE} do not belong together: one of them was altered. {redo(run, stage)}")
    seen = {} if full else _read_seen(folder)
    found: dict[str, list[int]] = {}
    for name, expected in manifest.items():
        file = folder / name
        try:
            found[name] = _stat(file)
            if seen.get(name) == found[name]:
                continue
            actual = _sha256(file)
        except OSError as error:
            raise DataError(f"{file}, which the {stage} stage wrote, cannot be read: {error.strerror}. {redo(run, stage)}") from error
        if actual != expected:
            raise DataError(f"{file} is not what the {stage} stage wrote: its SHA-256 differs from {folder / MANIFEST}. {redo(run, stage)}")
    if found != seen:
        with contextlib.suppress(OSError):  # a folder that cannot be written to is hashed each time
            write_json(folder / SEEN, found, indent=None)
    return record


def redo(run: Path, stage: str) -> str:
    """What to do about a damaged stage, as the end of a message."""
    return f"Restore it, or have the stage done again: hiper {stage.replace('_', '-')} --config {run} --force"


def begun_stage(run: Path, stage: str) -> Begun | None:
    """What unfinished work was begun under; None where there is none, or its mark is unreadable."""
    try:
        known = read_json_object(run / f"{stage}.partial" / BEGUN)
        return Begun(str(known["fingerprint"]), str(known["lineage"]), dict(known["settings"]), dict(known["sources"]))
    except (DataError, KeyError, TypeError, ValueError):
        return None


def continue_finished(run: Path, stage: str, begun: Begun, fits: Callable[[Path], bool] = lambda finished: True) -> bool:
    """Begin a stage where its finished folder ended, if that is of the same lineage and sources, and `fits`: whether it was so.

    The finished folder stays until the longer one takes its place.
    """
    record = read_stage(run, stage)
    if record is None or record.lineage != begun.lineage or record.sources != dict(begun.sources):
        return False
    partial, copy = run / f"{stage}.partial", run / f".{stage}.copy"
    if os.path.lexists(partial) or not (run / stage / CHECKPOINTS).is_dir() or not fits(run / stage):
        return False
    remove(copy)
    shutil.copytree(run / stage, copy)
    for name in (STAGE, MANIFEST, SEEN, TIMES):
        remove(copy / name)
    write_json(copy / BEGUN, asdict(Begun(record.fingerprint, record.lineage, record.settings, record.sources)))
    sync_tree(copy)
    move(copy, partial)
    return True


def clear_partial(run: Path, stage: str, begun: Begun | None = None) -> None:
    """Make room for a stage to begin: unfinished work is set aside, for `hiper clean` to remove; what holds none is deleted.

    Args:
        run: the run's directory.
        stage: the stage's name.
        begun: what is to begin, so that the log can say what differs.
    """
    partial = run / f"{stage}.partial"
    if not partial.is_symlink() and not partial.exists():
        return
    if partial.is_dir() and any(path.name not in (BEGUN, CONFIG) for path in partial.iterdir()):
        earlier = begun_stage(run, stage)
        changed = differences(earlier.settings, begun.settings) if earlier is not None and begun is not None else {}
        number = next(number for number in range(1, 10**6) if not os.path.lexists(run / f"{stage}.partial.{number}"))
        move(partial, run / f"{stage}.partial.{number}")
        why = f"it does not fit: {told(changed)}" if changed else "it does not fit what is asked for now"
        logger.warning("%s: unfinished work is set aside in %s (%s). `hiper clean %s` removes it.", stage, f"{partial}.{number}", why, run)
    else:
        remove(partial)


def set_aside(run: Path) -> list[Path]:
    """Folders of a run that nothing reads any more: unfinished work that was set aside, and what killed processes left."""
    pattern = re.compile(r"[a-z_]+\.partial\.\d+|\.[a-z_]+\.(replaced|copy)")
    return sorted(path for path in run.iterdir() if pattern.fullmatch(path.name))


def recover(run: Path, stage: str) -> None:
    """Finish or take back a swap during which the process was killed."""
    final, replaced, partial = run / stage, _replaced(run, stage), run / f"{stage}.partial"
    if (partial / STAGE).is_file() and not (partial / BEGUN).exists():
        _swap(run, stage)
    elif os.path.lexists(replaced) and not os.path.lexists(final):
        move(replaced, final)
    else:
        remove(replaced)


def read_times(run: Path, stage: str) -> dict[str, Any]:
    """`seconds` a finished stage took and when it was `finished` (UTC, ISO 8601); empty in a run that came from another machine."""
    try:
        times = read_json_object(run / stage / TIMES)
        return {"seconds": float(times["seconds"]), "finished": str(times["finished"])}
    except (DataError, ValueError, KeyError, TypeError):
        return {}


def manifest_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each of a folder's files by relative name, `OWN` and `VOLATILE` ones left out."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    kept = (name for name in paths if name.as_posix() not in OWN and not any(part in VOLATILE for part in name.parts))
    names = sorted(kept, key=lambda name: name.parts)
    return {name.as_posix(): _sha256(paths[name]) for name in names}


def digest_of(manifest: Mapping[str, Any]) -> str:
    """One SHA-256 of a folder's files and their names."""
    return hashlib.sha256("".join(f"{name}\0{sha256}\n" for name, sha256 in manifest.items()).encode()).hexdigest()


def digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names, `OWN` and `VOLATILE` ones left out."""
    return digest_of(manifest_of(folder))


def now() -> str:
    """UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def remove(path: Path) -> None:
    """Delete a folder, or whatever else has the name, of a symbolic link the link alone; harmless where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _continues(earlier: Begun, begun: Begun) -> bool:
    return earlier.lineage == begun.lineage and dict(earlier.sources) == dict(begun.sources)


def _finish(partial: Path, stage: str, begun: Begun, facts: dict[str, Fact], seconds: float) -> None:
    """Write the record, last of all: where there is one and no mark of work, everything beneath is on the disk."""
    for name in (TIMES, MANIFEST, SEEN, STAGE):  # a process killed in what follows left one half-written; it is no file of the stage
        (partial / f"{name}.tmp").unlink(missing_ok=True)
    manifest = manifest_of(partial)
    record = StageRecord(stage, begun.fingerprint, begun.lineage, begun.settings, facts, dict(begun.sources), digest_of(manifest))
    sync_tree(partial)
    write_json(partial / TIMES, {"seconds": round(seconds, 3), "finished": now()})
    write_json(partial / MANIFEST, manifest)
    write_json(partial / SEEN, {name: _stat(partial / name) for name in manifest}, indent=None)
    write_json(partial / STAGE, asdict(record))
    (partial / BEGUN).unlink()
    sync(partial)


def _swap(run: Path, stage: str) -> None:
    final, replaced = run / stage, _replaced(run, stage)
    remove(replaced)
    if os.path.lexists(final):
        move(final, replaced)
    move(run / f"{stage}.partial", final)
    remove(replaced)


def _replaced(run: Path, stage: str) -> Path:
    return run / f".{stage}.replaced"


def _stat(file: Path) -> list[int]:
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _read_seen(folder: Path) -> Mapping[str, Any]:
    try:
        return read_json_object(folder / SEEN)
    except DataError:
        return {}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
