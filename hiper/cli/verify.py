"""Every file of a run, compared with what its stages wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, say
from hiper.errors import DataError


def add(commands: Commands) -> None:
    """Add `hiper verify`."""
    parser = commands.add("verify", verify, "compare every file of a run with what its stages wrote")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's directory")


def verify(options: argparse.Namespace) -> int:
    """Tell of each stage whether its files are as they were written."""
    from hiper.pipeline.verify import verify_run

    problems = 0
    for line, ok in verify_run(options.run):
        say(line)
        problems += not ok
    if problems:
        raise DataError(f"{problems} of what {options.run} holds is damaged; see above.")
    return 0
