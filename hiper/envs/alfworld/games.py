"""An index of games: which file, split, task type and scene, without reading any PDDL."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hiper.config import SPLITS, TASK_TYPES
from hiper.errors import DataError

logger = logging.getLogger(__name__)

GAME_FILE = "game.tw-pddl"
RELEASE = "json_2.1.1"
"""Folder of the splits under $ALFWORLD_DATA."""

_TAIL = 16384
"""Bytes at a game file's end in which `solvable` is looked for; only a walkthrough follows it."""


@dataclass(frozen=True, slots=True)
class GameEntry:
    """One game."""

    path: str
    """Of the game file, relative to the index's root, with forward slashes."""
    split: str
    task_type: str
    scene: int
    """ALFRED's number of the room."""


@dataclass(frozen=True, slots=True)
class GameIndex:
    """Games under one directory, ordered by split, then path."""

    root: Path
    entries: tuple[GameEntry, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> games found under the splits asked for and not indexed."""

    def split(self, name: str) -> list[GameEntry]:
        """Games of a split.

        Raises:
            DataError: there are none.
        """
        games = [entry for entry in self.entries if entry.split == name]
        if not games:
            there = ", ".join(f"{split} ({sum(counts.values())})" for split, counts in self.counts().items()) or "no games at all"
            reasons = "; ".join(f"{count} left out: {reason}" for reason, count in self.left_out.items())
            raise DataError(f"split {name!r} has no games under {self.root}; it has {there}." + (f" {reasons}." if reasons else ""))
        return games

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> task type -> number of games."""
        found: dict[str, Counter[str]] = {}
        for entry in self.entries:
            found.setdefault(entry.split, Counter())[entry.task_type] += 1
        return {split: {task: counts[task] for task in TASK_TYPES if counts[task]} for split, counts in found.items()}

    def resolve(self, entry: GameEntry) -> Path:
        """The game file on this machine."""
        return self.root / entry.path

    def save(self, path: Path) -> None:
        """Write the index as JSON, replacing the file in one move. The root is stored relative to the file where it can be."""
        try:
            root = self.root.resolve().relative_to(path.resolve().parent).as_posix()
        except ValueError:
            root = self.root.resolve().as_posix()
        record = {"root": root, "left_out": self.left_out, "games": [asdict(entry) for entry in self.entries]}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> GameIndex:
        """The inverse of `save`.

        Raises:
            DataError: the file is missing or is not an index.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            entries = tuple(GameEntry(**{**game, "scene": int(game["scene"])}) for game in record["games"])
            return cls(path.resolve().parent / record["root"], entries, dict(record["left_out"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a game index ({error}). Write it again with `hiper games`.") from error


def index_games(
    root: Path, splits: Iterable[str] | None = None, task_types: Sequence[str] = TASK_TYPES, limit: int | None = None
) -> GameIndex:
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
    entries: list[GameEntry] = []
    for split in wanted:
        games = []
        for file in sorted((base / split).glob(f"*/*/{GAME_FILE}")):
            found = _entry(file, root, split, task_types)
            if isinstance(found, GameEntry):
                games.append(found)
            else:
                left_out[found] += 1
        if limit is not None and len(games) > limit:
            left_out["beyond games.limit"] += len(games) - limit
            games = [games[number * len(games) // limit] for number in range(limit)]
        entries += games
    index = GameIndex(root, tuple(entries), dict(left_out))
    logger.info("%d games under %s: %s; left out: %s", len(entries), root, index.counts(), dict(left_out) or "none")
    return index


def _entry(file: Path, root: Path, split: str, task_types: Sequence[str]) -> GameEntry | str:
    """The entry, or the reason for leaving the game out."""
    folder = file.parent.parent.name
    if "movable" in folder or "Sliced" in folder:
        return "movable receptacle or sliced object"
    task_type, scene = _described(file, folder)
    if task_type not in task_types:
        return "other task type"
    if not _solvable(file):
        return "not known to be solvable"
    return GameEntry(file.relative_to(root).as_posix(), split, task_type, scene)


def _described(file: Path, folder: str) -> tuple[str, int]:
    """Task type and scene from the folder's name, or from `traj_data.json` where the name does not say."""
    parts = folder.split("-")
    if len(parts) == 5 and parts[0] in TASK_TYPES and parts[4].isdigit():
        return parts[0], int(parts[4])
    trajectory = file.with_name("traj_data.json")
    try:
        record = json.loads(trajectory.read_text(encoding="utf-8"))
        return str(record["task_type"]), int(record["scene"]["scene_num"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file.parent}: neither the folder name {folder!r} nor traj_data.json says the task type and scene ({error}). "
            "Expected TASK-Object-Mrecep-Receptacle-SCENE."
        ) from error


def _solvable(file: Path) -> bool:
    """The file's `solvable` flag, read from its end: parsing thousands of whole games would take most of a minute."""
    with file.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - _TAIL))
        flags = re.findall(rb'"solvable": (true|false|null)', stream.read())
    if flags:
        return bool(flags[-1] == b"true")
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("solvable") is True
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file} is not a game file ({error}). Unpack or generate it again.") from error
