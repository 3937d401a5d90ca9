"""Indexing game files: split, task type and scene, without reading any PDDL."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.runtime.reading import open_file, read_bytes, read_json_object
from hiper.runtime.records import read_value
from hiper.suites.alfworld.settings import SPLITS, TASK_TYPES
from hiper.suites.alfworld.world import GAME_BYTES
from hiper.suites.tasks import Task, TaskIndex

logger = logging.getLogger(__name__)

GAME_FILE = "game.tw-pddl"
RELEASE = "json_2.1.1"
"""Folder of the splits under $ALFWORLD_DATA."""

_PROBLEM = re.compile(rb"\(problem [^()\s]+\)")
_TAIL = 16384
"""Bytes at a game file's end in which `solvable` is looked for; only a walkthrough follows it."""


def index_games(
    root: Path, splits: Iterable[str] | None = None, task_types: Sequence[str] = TASK_TYPES, limit: int | None = None
) -> TaskIndex:
    """Find the games of a directory in the official layout, `SPLIT/TASK-Obj-Mrecep-Recep-SCENE/TRIAL/game.tw-pddl`.

    As the `alfworld` package does, tasks with movable receptacles or sliced objects, other task types and games not known to be
    solvable are left out; how many, and why, is in `left_out`.

    Args:
        root: holds the split folders, or a `json_2.1.1` folder that does, as $ALFWORLD_DATA.
        splits: which to index; None: those of train, valid_seen, valid_unseen that exist.
        task_types: which to keep.
        limit: keep at most this many games a split, spread evenly over the sorted list.

    Raises:
        DataError: no such directory, or it has none of the splits.
    """
    base = root / RELEASE if (root / RELEASE).is_dir() else root
    present = sorted(child.name for child in base.iterdir() if child.is_dir()) if base.is_dir() else []
    wanted = [name for name in SPLITS if name in present] if splits is None else list(splits)
    missing = [name for name in wanted if name not in present]
    if not wanted or missing:
        raise DataError(
            f"{base} has no {' or '.join(missing or SPLITS)} folder; it has {', '.join(present[:8]) or 'no folders'}. "
            f"Expected the official layout, SPLIT/TASK/TRIAL/{GAME_FILE}, here or under {RELEASE}/."
        )
    left_out: Counter[str] = Counter()
    entries: list[Task] = []
    for split in wanted:
        games = []
        for file in sorted((base / split).glob(f"*/*/{GAME_FILE}")):
            found = _entry(file, root, split, task_types)
            if isinstance(found, Task):
                games.append(found)
            else:
                left_out[found] += 1
        if limit is not None and len(games) > limit:
            left_out["beyond tasks.limit"] += len(games) - limit
            games = [games[number * len(games) // limit] for number in range(limit)]
        entries += games
    index = TaskIndex(root, tuple(entries), dict(left_out))
    found = ", ".join(f"{sum(counts.values())} {split}" for split, counts in index.counts().items())
    without = "".join(f"; {count} left out, {reason}" for reason, count in left_out.items())
    logger.info("%d games under %s: %s%s", len(entries), root, found or "none", without)
    return index


def _entry(file: Path, root: Path, split: str, task_types: Sequence[str]) -> Task | str:
    """The entry, or the reason for leaving the game out."""
    folder = file.parent.parent.name
    if "movable" in folder or "Sliced" in folder:
        return "movable receptacle or sliced object"
    task_type, scene = _described(file, folder)
    if task_type not in task_types:
        return "other task type"
    if not _solvable(file):
        return "not known to be solvable"
    return Task(file.relative_to(root).as_posix(), split, task_type, scene)


def _described(file: Path, folder: str) -> tuple[str, int]:
    """Task type and scene from the folder's name, or from `traj_data.json` where the name does not say."""
    parts = folder.split("-")
    if len(parts) == 5 and parts[0] in TASK_TYPES and parts[4].isdigit():
        return parts[0], int(parts[4])
    trajectory = file.with_name("traj_data.json")
    try:
        record = read_json_object(trajectory, GAME_BYTES)
        scene = read_value(dict[str, Any], record.get("scene"), f"{trajectory}: scene").get("scene_num")
        where = str(trajectory)
        return read_value(str, record.get("task_type"), f"{where}: task_type"), read_value(int, scene, f"{where}: scene.scene_num")
    except DataError as error:
        raise DataError(
            f"{file.parent}: neither the folder name {folder!r} nor traj_data.json says the task type and scene ({error}). "
            "Expected TASK-Object-Mrecep-Receptacle-SCENE."
        ) from error


def game_digest(file: Path) -> str:
    """SHA-256 of a game file without the name of its PDDL problem: games that differ in that alone are the same."""
    return hashlib.sha256(_PROBLEM.sub(b"(problem)", read_bytes(file), count=1)).hexdigest()


def _solvable(file: Path) -> bool:
    """The file's `solvable` flag, read from its end: parsing thousands of whole games would take most of a minute."""
    with open_file(file) as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - _TAIL))
        flags = re.findall(rb'"solvable": (true|false|null)', stream.read())
    if flags:
        return bool(flags[-1] == b"true")
    try:
        return read_json_object(file, GAME_BYTES).get("solvable") is True
    except DataError as error:
        raise DataError(f"{file} is not a game file ({error}) Unpack or generate it again.") from error
