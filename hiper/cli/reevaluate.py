"""Accepted models, evaluated again."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, say


def add(commands: Commands) -> None:
    """Add `hiper reevaluate`."""
    parser = commands.add("reevaluate", reevaluate, "evaluate accepted models again; exit code 4 where one does worse")
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of conf/reevaluate/")
    parser.add_argument("--accept", action="store_true", help="compare later evaluations with this one")


def reevaluate(options: argparse.Namespace) -> int:
    """Each model of the plan; those that do worse end it with exit code 4."""
    from hiper.errors import DriftError
    from hiper.experiments.reevaluate import load_plan
    from hiper.experiments.reevaluate import reevaluate as evaluate_again
    from hiper.runtime.progress import track

    plan = load_plan(options.file)
    options.place = plan.work
    outcomes = []
    for one in plan.models:
        with track(one.name) as progress:
            outcomes.append(evaluate_again(plan, one, options.accept, progress))
        say(outcomes[-1])
    bad = [outcome.name for outcome in outcomes if outcome.bad]
    if bad:
        raise DriftError(f"{', '.join(bad)}: see above. `--accept` makes a new evaluation the one to compare with.")
    return 0
