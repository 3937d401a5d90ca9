"""Real `hiper` processes that are killed at places and moments, or worked on by `tests.crash.power`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
STAND_AT = str(Path(__file__).with_name("stand_at.py"))


def hiper_command(*arguments: str) -> list[str]:
    """The command line of `hiper ARGUMENT...`."""
    return [sys.executable, "-m", "hiper", *arguments]


def hiper_to(verb: str, place: str, *arguments: str, careless: bool = False) -> list[str]:
    """The command line of `hiper ARGUMENT...` that ends (`die`) or stops (`stop`) at a place; see `stand_at.py`."""
    return [sys.executable, STAND_AT, *(["careless"] if careless else []), verb, place, *arguments]


def hiper(run: Path, *arguments: str, place: str | None = None) -> tuple[int, str]:
    """`hiper ARGUMENT...` in a process of its own, killed at a place if one is given: exit code, and what it said on standard error."""
    command = hiper_command(*arguments) if place is None else hiper_to("die", place, *arguments)
    done = subprocess.run(command, cwd=run, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr
