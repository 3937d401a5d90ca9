"""What came of one case: was it answered as it should be, and is everything still there that nobody damaged?"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0
"""No command on so little takes longer, of a processor's time or idle."""
LONGEST = 1500
"""Characters of a message that somebody still reads."""
STAGES = ("tasks", "demos", "sft", "train", "evaluate", "report")
WRITTEN = (
    "*/.lock",
    "*/seen.json",  # what was verified last, written anew at every look
    ".lock",
    "runs/*/config.yaml",
    "runs/*/environment.json",
    "runs/*/report/*",
    "runs/reevaluations/*",
    "reevaluations/*",
    "runs/new/*",
    "runs/shop/*",
    "runs/sweep/*",
    "cache/*",
    "out/*",
    "results*",
    "dvc.yaml",
    "*.partial/*.jsonl",  # a resumed training cuts off what lies beyond its checkpoint
)
"""Files that a command may write anew, whatever becomes of it."""

TIMED = ("times.json", "stage.json", "seen.json", "environment.json", "config.yaml")
"""Files of a stage that say when and where, too."""

Snapshot = Mapping[str, str]
"""Path of every file -> SHA-256 of its contents."""


@dataclass(frozen=True)
class Verdict:
    """What came of a case."""

    outcome: str
    """refused, noted, redone or accepted; or what is wrong: traceback, hang, crash, unclear, lost, other results."""
    detail: str

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.outcome in ("refused", "noted", "redone", "accepted")


Mark = tuple[int, int, str]
"""Size, time of change and SHA-256 of a file."""


def marked(path: Path) -> tuple[int, Mark]:
    """A file's inode, and its mark."""
    facts = path.stat()
    return facts.st_ino, (facts.st_size, facts.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())


def snapshot(place: Path, known: Mapping[int, Mark]) -> dict[str, str]:
    """The regular files of a folder.

    Args:
        place: the folder.
        known: marks by inode; files that are the same are not read again.
    """
    found = {}
    for path in place.rglob("*"):
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode):
            size, changed, digest = known.get(facts.st_ino, (-1, -1, ""))
            same = (size, changed) == (facts.st_size, facts.st_mtime_ns)
            found[path.relative_to(place).as_posix()] = digest if same else marked(path)[1][2]
    return found


def judge(
    code: int | None, seconds: float, out: str, err: str, file: str, before: Snapshot, after: Snapshot, page: str, same: bool
) -> Verdict:
    """Judge a case.

    Args:
        code: the command's exit code; None: it was ended after `SECONDS`.
        seconds: of a processor that it took.
        out: what it said.
        err: what it said on standard error.
        file: the damaged one, relative.
        before: the files when it was damaged.
        after: the files when the command had ended.
        page: the report's text where the command wrote one, else empty.
        same: whether a stage done again must come out as it was.
    """
    if code is None or seconds > SECONDS:
        return Verdict("hang", f"ended after {seconds:.1f} s of work")
    if "Traceback (most recent call last)" in err:
        return Verdict("traceback", err.strip().splitlines()[-1][:300])
    if code not in (0, 1, 2, 3, 4):
        return Verdict("crash", f"exit code {code}: {err.strip()[-200:]}")
    if escape := re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", (out + err).replace("\r\n", "\n")):
        return Verdict("unclear", f"{escape.group()!r} reached the terminal")
    redone = _redone(before, after)
    if lost := _lost(file, before, after, redone):
        return Verdict("lost", f"{len(lost)} files, such as {lost[0]}")
    said = [line for line in err.splitlines() if line.startswith("hiper: ")]
    message = err[err.find("hiper: ") :].strip() if said else ""
    if code != 0:
        if len(said) != 1 or len(message) > LONGEST:
            return Verdict("unclear", f"exit code {code} and {len(said)} messages of {len(message)} characters: {err[-200:]!r}")
        path = Path(file)
        if not any(name in out + err for name in (path.name, path.parent.name, path.stem)):
            return Verdict("unclear", f"nothing that was said names the file: {message[:300]}")
        return Verdict("refused", message[:300])
    if redone:
        changed = [stage for stage in redone if same and redone[stage]]
        return Verdict("other results", ", ".join(changed)) if changed else Verdict("redone", ", ".join(sorted(redone)))
    path = Path(file)
    noted = any(name in page + err for name in (file, f"{path.parent.name}/{path.name}"))
    return Verdict("noted" if noted else "accepted", "")


def _redone(before: Snapshot, after: Snapshot) -> dict[str, bool]:
    """Stages done again, all but the report, and whether their files came out otherwise."""
    found = {}
    for mark in {path for path in {*before, *after} if path.endswith("/times.json")}:
        folder = mark.removesuffix("times.json")
        if Path(folder).name != "report" and mark in before and mark in after and before[mark] != after[mark]:
            found[folder] = any(
                after.get(path) != known and Path(path).name not in TIMED
                for path, known in before.items()
                if path.startswith(folder) and "/checkpoints/" not in path and not path.endswith("timings.jsonl")
            )
    return found


def _lost(file: str, before: Snapshot, after: Snapshot, redone: Mapping[str, bool]) -> list[str]:
    """Files that were neither damaged nor the command's to write, and whose contents are nowhere any more."""
    kept = set(after.values())
    return [
        path
        for path, known in before.items()
        if path != file
        and known not in kept
        and not any(fnmatch.fnmatch(path, pattern) for pattern in WRITTEN)
        and not any(path.startswith(folder) for folder in redone)
        and not (path.endswith(".partial/begun.json") or "/train.partial/" in path and any(_finished(path, after)))
    ]


def _finished(path: str, after: Snapshot) -> list[bool]:
    """Whether the training a file belonged to has become a finished one."""
    return [True] if path.split(".partial/")[0] + "/stage.json" in after else []


def table(rows: list[tuple[str, str, str, Verdict]]) -> str:
    """Kind by damage, in Markdown: the outcome of each, and each that is wrong below.

    Args:
        rows: (kind, damage, command, verdict).
    """
    harms = list(dict.fromkeys(damage for _, damage, _, _ in rows))
    cells: dict[tuple[str, str], list[str]] = {}
    for kind, damage, _, verdict in rows:
        cells.setdefault((kind, damage), []).append(verdict.outcome if verdict.good else f"**{verdict.outcome}**")
    lines = ["| file | " + " | ".join(harms) + " |", "|---|" + "---|" * len(harms)]
    for kind in dict.fromkeys(kind for kind, _, _, _ in rows):
        lines.append(f"| {kind} | " + " | ".join(", ".join(dict.fromkeys(cells.get((kind, harm), ["-"]))) for harm in harms) + " |")
    wrong = [(kind, damage, command, verdict) for kind, damage, command, verdict in rows if not verdict.good]
    good = len(rows) - len(wrong)
    lines += ["", f"{good} of {len(rows)} as they should be."]
    lines += [
        f"* {kind}, {damage}, `{command}`: {verdict.outcome}: {json.dumps(verdict.detail, ensure_ascii=True)}"
        for kind, damage, command, verdict in wrong
    ]
    return "\n".join(lines) + "\n"
