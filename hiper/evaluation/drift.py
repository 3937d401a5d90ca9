"""Whether an accepted model still does what it did: two entries of a history, compared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.evaluation.statistics import fell
from hiper.runtime.reading import read_json_lines
from hiper.runtime.records import read_record


@dataclass(frozen=True)
class Entry:
    """One evaluation of a model, one line of its history."""

    time: str
    """UTC, ISO 8601."""
    accepted: bool
    """Whether later evaluations are compared with this one; the last accepted one counts."""
    model: str
    """SHA-256 of the model's files; of a hub model its id."""
    tasks: Mapping[str, str]
    """Split -> SHA-256 of the task files."""
    settings: Mapping[str, Any]
    """What the evaluation was played under."""
    versions: Mapping[str, str | None]
    """Package -> version, Python and hiper among them."""
    successes: Mapping[str, tuple[int, int]]
    """Split -> (tasks won, tasks played)."""
    evaluation: str
    """SHA-256 of evaluation.json."""


@dataclass(frozen=True)
class Drift:
    """What differs from the accepted evaluation."""

    changed: list[str] = field(default_factory=list)
    """Inputs that are not the same, in words."""
    fallen: list[str] = field(default_factory=list)
    """Splits whose success fell significantly, in words."""
    unsteady: bool = False
    """The same inputs gave other numbers; on CPU they never should."""

    @property
    def bad(self) -> bool:
        """Whether somebody must look."""
        return bool(self.fallen)

    def __str__(self) -> str:
        parts = [*self.fallen, *self.changed]
        if self.unsteady:
            parts.append("the same inputs gave other numbers")
        return "; ".join(parts) or "nothing differs"


def compare(accepted: Entry, now: Entry, alpha: float) -> Drift:
    """Compare an evaluation with the accepted one.

    Args:
        accepted: what the model did when it was accepted.
        now: what it did this time.
        alpha: a fall counts where chance alone makes one so large with less than this probability, by `statistics.fell`.
    """
    changed = []
    if accepted.model != now.model:
        changed.append(f"the model's files changed ({accepted.model[:12]} to {now.model[:12]})")
    changed += [f"the task files of {split} changed" for split in now.tasks if now.tasks[split] != accepted.tasks.get(split)]
    changed += _differences("package", accepted.versions, now.versions) + _differences("setting", accepted.settings, now.settings)
    fallen = []
    for split, after in now.successes.items():
        before = accepted.successes.get(split)
        if before is not None and fell(before, after) < alpha:
            fallen.append(f"success on {split} fell from {_share(before)} to {_share(after)} (p = {fell(before, after):.2g})")
    return Drift(changed, fallen, unsteady=not changed and accepted.evaluation != now.evaluation)


def read_history(path: Path) -> list[Entry]:
    """All entries, in order; none where there is no file.

    Raises:
        DataError: the file cannot be read, or a line is not an entry; the message names file and line.
    """
    if not os.path.lexists(path):
        return []
    try:
        entries = []
        for where, record in read_json_lines(path):
            entries.append(read_record(Entry, record, f"{where} is not an entry of a history"))
            if any(not 0 <= won <= played or not played for won, played in entries[-1].successes.values()):
                raise DataError(f"{where} is not an entry of a history: successes must be [won, played] with 0 <= won <= played.")
        return entries
    except DataError as error:
        raise DataError(f"{error} Restore the file from git.") from error


def append_history(path: Path, entry: Entry) -> None:
    """Add a line, on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(entry), ensure_ascii=True, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _differences(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [f"{what} {name} changed ({before.get(name)} to {after.get(name)})" for name in names]


def _share(counts: tuple[int, int]) -> str:
    return f"{100 * counts[0] / counts[1]:.1f} % ({counts[0]} of {counts[1]})"
