"""Cases, and what runs them."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Self

from tests.fuzz.damage import damage, damages
from tests.fuzz.judge import SECONDS, Verdict, judge, marked, snapshot
from tests.fuzz.kinds import KINDS, Kind, other_of

ROOT = Path(__file__).resolve().parents[2]
MAKING = 240.0
"""Seconds the ground may take to be made."""


@dataclass(frozen=True)
class Case:
    """One file, damaged in one way, and one command that reads it."""

    kind: Kind
    damage: str
    command: str
    seed: int

    @property
    def shown(self) -> str:
        """The command as one would give it."""
        return f"hiper {self.command}"


def draw(cases: int, seed: int = 0, only: str | None = None) -> Iterator[Case]:
    """So many cases: every kind with every damage before any comes again, the commands in turn; fewer than that: an even choice of them.

    Args:
        cases: how many.
        seed: of all that is drawn.
        only: kinds whose names hold this.
    """
    pairs = [(kind, name) for kind in KINDS if only is None or only in kind.name for name in damages(kind.form)]
    random.Random(seed).shuffle(pairs)
    turns: dict[str, Iterator[int]] = {kind.name: count() for kind in KINDS}
    for number in range(cases):
        kind, name = pairs[number % len(pairs)]
        command = kind.commands[next(turns[kind.name]) % len(kind.commands)]
        yield Case(kind, name, command, seed * 1_000_003 + number)


def light(case: Case) -> bool:
    """Whether a case needs no more than the small ground, and its command computes little even where it is not refused."""
    verb = case.command.split()[0]
    return verb in ("report", "compare", "play", "config", "demos", "sweep", "tasks") and case.damage != "swap"


class Fuzz:
    """The ground, and the process that gives commands."""

    def __init__(self, ground: Path, work: Path, finished: Path | None = None, settings: Sequence[str] = ()) -> None:
        """Make the ground unless it is there.

        Args:
            ground: its folder, empty or made before.
            work: where each case gets a copy of it.
            finished: a finished run, for a ground that does for the cases which `light` lets through; None: for all.
            settings: of that run.
        """
        self._ground, self._work = ground / "ground", work / "case"
        self._said = work
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
        environment.pop("HIPER_DEBUG", None)
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.zygote", "all" if finished is None else "light"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if not (self._ground / "made").exists():
            shutil.rmtree(self._ground, ignore_errors=True)
            self._ground.mkdir(parents=True)
            words = [str(ROOT)] if finished is None else [str(ROOT), str(finished), *settings]
            code, _, _, err = self._do("tests.fuzz.ground", words, self._ground, MAKING)
            if code != 0:
                raise RuntimeError(f"the ground could not be made: {err[-3000:]}")
            (self._ground / "made").touch()
        self._known = {inode: mark for path in self._ground.rglob("*") if path.is_file() for inode, mark in [marked(path)]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait(timeout=30)
        for path in self._ground.rglob("*"):
            if path.is_file() and self._known.get(path.stat().st_ino) != marked(path)[1]:
                raise RuntimeError(f"{path} was written to in place: the cases after that were damaged twice.")
        shutil.rmtree(self._work, ignore_errors=True)

    def run(self, case: Case) -> Verdict:
        """Damage, command, verdict."""
        rng = random.Random(case.seed)
        shutil.rmtree(self._work, ignore_errors=True)
        shutil.copytree(self._ground, self._work, copy_function=_link)
        path = rng.choice(sorted(self._work.glob(case.kind.files)))
        file = path.relative_to(self._work).as_posix()
        other = other_of(case.kind, file, self._work) if case.damage == "swap" else None  # the small ground has no second run
        damage(path, case.damage, _form(path, case.kind), rng, other)
        before = snapshot(self._work, self._known)
        group = f"{path.parent.name}={path.stem}"
        words = shlex.split(case.command.replace("FILE", shlex.quote(file)).replace("GROUP", group))
        code, seconds, out, err = self._do("hiper.cli.main", words, self._work, SECONDS)
        pages = [page for page in self._work.glob("runs/**/report.html") if "report" in words]
        page = "".join(page.read_text(encoding="utf-8") for page in pages)
        after = snapshot(self._work, self._known)
        return judge(code, seconds, out, err, file, before, after, page, case.kind.same and case.damage != "swap")

    def _do(self, module: str, words: list[str], place: Path, seconds: float) -> tuple[int | None, float, str, str]:
        out, err = self._said / "out", self._said / "err"
        for said in (out, err):
            said.unlink(missing_ok=True)
        order: dict[str, Any] = {
            "module": module,
            "arguments": words,
            "cwd": str(place),
            "environment": {
                "HIPER_CONF": str(place / "conf") if (place / "conf").exists() else str(ROOT / "conf"),
                "HIPER_CACHE": str(place / "cache"),
            },
            "seconds": seconds,
            "out": str(out),
            "err": str(err),
        }
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(order) + "\n")
        self._zygote.stdin.flush()
        answer = json.loads(self._zygote.stdout.readline())
        texts = [said.read_text(encoding="utf-8", errors="replace") for said in (out, err)]
        return answer["code"], answer["seconds"], texts[0], texts[1]


def _link(source: str, target: str) -> None:
    """A second name for what is replaced and never written to; a copy of what grows."""
    if source.endswith((".jsonl", ".lock", ".log")):
        shutil.copy2(source, target)
    else:
        os.link(source, target)


def _form(path: Path, kind: Kind) -> str:
    """A model's folder holds files of several forms."""
    return "json" if kind.form == "binary" and path.suffix == ".json" else kind.form
