"""One stage of a run: tasks, demos, sft, train, report; `evaluate` without a model is one, too."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.cli.parsing import Commands, add_overrides, add_stage_options, say, settings
from hiper.errors import ConfigError
from hiper.runs.stage import STAGES

if TYPE_CHECKING:
    from hiper.config import RunConfig


def add(commands: Commands) -> None:
    """Add the stages' commands, but for that of `hiper.cli.evaluate`, which can do more."""
    for stage in STAGES.values():
        if stage.name == "evaluate":
            continue
        parser = commands.add(stage.command, run_stage, stage.summary)
        add_stage_options(parser)
        if stage.dated:
            parser.add_argument("--no-timestamps", action="store_true", help="leave out when, how long and on what machine")
        if stage.name == "report":
            parser.set_defaults(command=report)
        add_overrides(parser, "RUN | OVERRIDE" if stage.name == "report" else "OVERRIDE")


def report(options: argparse.Namespace) -> int:
    """The page of the run whose directory is named, or of the one that the settings name."""
    runs = [word for word in options.overrides if "=" not in word]
    if not runs:
        return run_stage(options)
    if len(runs) > 1 or options.config is not None:
        raise ConfigError(f"{', '.join([*runs, *map(str, filter(None, [options.config]))])}: name one run.")
    from hiper.cli.run import saved

    return do_stage(saved(Path(runs[0]), [word for word in options.overrides if "=" in word]), options)


def run_stage(options: argparse.Namespace) -> int:
    """One stage of the run that the settings name."""
    return do_stage(settings(options), options)


def do_stage(cfg: RunConfig, options: argparse.Namespace) -> int:
    """The stage that the command is called after.

    Raises:
        ConfigError: a stage it reads has not finished, or another process is at work in the run.
    """
    from hiper.pipeline.stages import STAGES, check_needs, recover_run
    from hiper.pipeline.state import check_upstream
    from hiper.runs.run_dir import begin_run
    from hiper.runtime.lock import locked
    from hiper.runtime.progress import track

    stage = options.verb.replace("-", "_")
    options.place = cfg.paths.run
    if not Path(cfg.paths.run).exists():
        check_upstream(cfg, stage)  # what cannot be done leaves no directory
    with locked(Path(cfg.paths.run)):
        recover_run(cfg)
        check_upstream(cfg, stage)  # before the run's config says what was asked for
        check_needs(cfg, [stage], options.force)
        begin_run(cfg)
        more = {"timestamps": False} if getattr(options, "no_timestamps", False) else {}
        with track(options.verb) as progress:
            say(STAGES[stage](cfg, progress, force=options.force, **more))
    return 0
