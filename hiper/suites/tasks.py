"""An index of tasks: which split and kind of task each belongs to, and where it is."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hiper.errors import DataError
from hiper.runtime.files import write_text
from hiper.runtime.reading import read_json
from hiper.runtime.records import read_record


@dataclass(frozen=True, slots=True)
class Task:
    """One task."""

    path: str
    """Of the task file, relative to the index's root, with forward slashes; WebShop's tasks have names of that form and no files."""
    split: str
    task_type: str
    scene: int = 0
    """ALFRED's number of the room; 0 elsewhere."""
    digest: str = ""
    """SHA-256 of its content, of what its environment is made of: the same in two tasks that differ in name alone. Empty: not known."""


@dataclass(frozen=True, slots=True)
class TaskIndex:
    """Tasks under one directory, ordered by split, then path."""

    root: Path
    entries: tuple[Task, ...]
    left_out: dict[str, int] = field(default_factory=dict)
    """Reason -> tasks found under the splits asked for and not indexed."""

    def split(self, name: str) -> list[Task]:
        """Tasks of a split.

        Raises:
            DataError: there are none.
        """
        tasks = [entry for entry in self.entries if entry.split == name]
        if not tasks:
            there = ", ".join(f"{split} ({sum(counts.values())})" for split, counts in self.counts().items()) or "no tasks at all"
            reasons = "; ".join(f"{count} left out: {reason}" for reason, count in self.left_out.items())
            raise DataError(f"split {name!r} has no tasks under {self.root}; it has {there}." + (f" {reasons}." if reasons else ""))
        return tasks

    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> task type -> number of tasks."""
        found: dict[str, Counter[str]] = {}
        for entry in self.entries:
            found.setdefault(entry.split, Counter())[entry.task_type] += 1
        return {split: dict(sorted(counts.items())) for split, counts in found.items()}

    def repeated(self, seen: str = "train") -> dict[str, int]:
        """Split -> how many of its tasks are in another split, too, by their content; splits with none are not in it.

        Args:
            seen: the other split.
        """
        known = {entry.digest for entry in self.entries if entry.split == seen and entry.digest}
        return dict(Counter(entry.split for entry in self.entries if entry.split != seen and entry.digest in known))

    def resolve(self, entry: Task) -> Path:
        """The task on this machine, as `make_env` takes it."""
        return self.root / entry.path

    def save(self, path: Path) -> None:
        """Write the index as JSON, replacing the file in one move. The root is stored relative to the file where it can be."""
        try:
            root = self.root.resolve().relative_to(path.resolve().parent).as_posix()
        except ValueError:
            root = self.root.resolve().as_posix()
        record = {"root": root, "left_out": self.left_out, "tasks": [asdict(entry) for entry in self.entries]}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> TaskIndex:
        """The inverse of `save`.

        Raises:
            DataError: the file is missing or is not an index, or names tasks outside its root.
        """
        try:
            record = read_record(_Saved, read_json(path), f"{path} is not a task index")
            for entry in record.tasks:
                if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts or "\0" in entry.path:
                    raise DataError(f"{path} is not a task index: the task {entry.path!r} lies outside its root.")
        except DataError as error:
            raise DataError(f"{error} Write it again with `hiper tasks`.") from error
        return cls(path.resolve().parent / record.root, tuple(record.tasks), record.left_out)


@dataclass(frozen=True, slots=True)
class _Saved:
    """What an index file holds."""

    root: str
    left_out: dict[str, int]
    tasks: list[Task]
