"""Whole runs: `hiper run` and `hiper resume`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.cli.parsing import Commands, add_flow_options, add_overrides, say
from hiper.errors import ConfigError

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.pipeline.stages import StageResult

logger = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    """Add `hiper run` and `hiper resume`."""
    whole = commands.add("run", run, "all six stages; finished ones are not done again")
    add_flow_options(whole)
    add_overrides(whole)
    again = commands.add("resume", resume, "continue a run from where it stopped")
    again.add_argument("run", type=Path, metavar="RUN", help="the run's directory")
    add_flow_options(again)
    add_overrides(again)


def run(options: argparse.Namespace) -> int:
    """All stages of the run that the settings name."""
    from hiper.composition.compose import compose

    cfg = compose(options.overrides)  # refused here, before Prefect takes its seconds to start
    options.place = cfg.paths.run
    return _pipeline(cfg, options, lambda: cfg)


def resume(options: argparse.Namespace) -> int:
    """What is left of a run."""
    options.place = str(options.run)
    cfg = saved(options.run, options.overrides)
    return _pipeline(cfg, options, partial(saved, options.run, options.overrides))


def saved(run: Path, overrides: Sequence[str]) -> RunConfig:
    """The config of a run, which may have been moved since."""
    from hiper.composition.compose import override
    from hiper.runs.run_dir import load_config

    cfg = override(load_config(run), overrides)
    cfg.paths.run = str(run)
    return cfg


def _pipeline(cfg: RunConfig, options: argparse.Namespace, settings: Callable[[], RunConfig]) -> int:
    """All stages.

    Args:
        cfg: the config as it is before the run is held.
        options: of the command.
        settings: gives the config once the run is held: one that is saved there counts as it stands then.
    """
    if options.versioned and options.direct:
        raise ConfigError("--versioned runs `dvc repro` as Prefect tasks; without Prefect, call `dvc repro`.")
    from hiper.pipeline.direct import finished, outcome, run_stages

    plain = options.direct or not (options.force or options.versioned or not finished(cfg))  # nothing to do needs no server
    results = run_stages(cfg, options.force, settings) if plain else _through_prefect(Path(cfg.paths.run), settings, options)
    logger.info("all done in %.0f s of work", sum(result.seconds for result in results if not result.reused))
    say(outcome(Path(cfg.paths.run)))
    return 0


def _through_prefect(run: Path, settings: Callable[[], RunConfig], options: argparse.Namespace) -> list[StageResult]:
    """All stages as a flow, which works under this command's hold on the run and finds its config there."""
    from hiper.integrations.prefect.start import start_prefect

    start_prefect()
    from hiper.integrations.prefect.pipeline import pipeline
    from hiper.integrations.prefect.tasks import How
    from hiper.pipeline.stages import STAGES, begun_run
    from hiper.runtime.lock import lock_tokens

    how = How.versioned if options.versioned else How.auto
    with begun_run(run, settings, list(STAGES), force=options.force):
        results: list[StageResult] = pipeline(run=str(run), force=options.force, how=how, lock=lock_tokens())
    return results
