"""A search over settings, with Optuna."""

from __future__ import annotations

import argparse
from pathlib import Path

from hiper.cli.parsing import Commands, count, say
from hiper.runtime.packages import missing


def add(commands: Commands) -> None:
    """Add `hiper sweep`."""
    parser = commands.add("sweep", sweep, "search settings of the training with Optuna; goes on with a study that was begun")
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of sweeps/")
    parser.add_argument("--workers", type=count, default=1, metavar="N", help="processes on this machine (1)")
    parser.add_argument("--join", action="store_true", help="only work for the study, which was begun elsewhere")
    parser.add_argument("--direct", "--no-prefect", action="store_true", help="without Prefect")
    parser.add_argument("overrides", nargs="*", metavar="CHANGE", help="changes to the file: trials=8 sampler.seed=1")


def sweep(options: argparse.Namespace) -> int:
    """Run or join a search."""
    try:
        from hiper.experiments.sweep.spec import load_spec
        from hiper.experiments.sweep.sweep import join
        from hiper.experiments.sweep.sweep import sweep as search
    except ImportError as error:
        raise missing("a sweep", "optuna", error) from error
    from hiper.runtime.progress import track

    spec = load_spec(options.file, options.overrides)  # refused here, before Prefect takes its seconds to start
    options.place = str(spec.place)
    if options.join or options.direct:
        with track("trials", spec.trials) as progress:
            say((join if options.join else search)(options.file, options.overrides, options.workers, progress))
        return 0
    from hiper.integrations.prefect.start import start_prefect

    start_prefect()
    from hiper.integrations.prefect.sweep import sweep as flow

    say(flow(str(options.file), options.overrides, options.workers))
    return 0
