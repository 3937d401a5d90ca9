"""What is in a run's directory and no part of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, say
from hiper.errors import ConfigError


def add(commands: Commands) -> None:
    """Add `hiper clean`."""
    parser = commands.add("clean", clean, "delete unfinished work that was set aside, and what killed processes left")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deleted")


def clean(options: argparse.Namespace) -> int:
    """Delete it, or say what would be deleted."""
    from hiper.runs.stage_folder import remove, set_aside
    from hiper.runtime.lock import locked

    if not options.run.is_dir():
        raise ConfigError(f"{options.run} is not a directory. Name a run, such as runs/quickstart/seed-0.")
    with locked(options.run):
        found = set_aside(options.run)
        for path in found:
            size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
            say(f"{'would delete' if options.dry_run else 'deleted'} {path} ({size / 1e6:.1f} MB)")
            if not options.dry_run:
                remove(path)
    if not found:
        say(f"{options.run} holds nothing that was set aside.")
    return 0
