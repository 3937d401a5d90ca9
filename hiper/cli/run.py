"""Whole runs: `hiper run` and `hiper resume`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from hiper.config.compose import compose

    cfg = compose(options.overrides)  # refused here, before Prefect takes its seconds to start
    options.place = cfg.paths.run
    return _pipeline(cfg, options, {"overrides": options.overrides})


def resume(options: argparse.Namespace) -> int:
    """What is left of a run."""
    options.place = str(options.run)
    cfg = saved(options.run, options.overrides)
    return _pipeline(cfg, options, {"overrides": options.overrides, "run": str(options.run)})


def saved(run: Path, overrides: Sequence[str]) -> RunConfig:
    """The config of a run, which may have been moved since."""
    from hiper.config.compose import override
    from hiper.runs.run_dir import load_config

    cfg = override(load_config(run), overrides)
    cfg.paths.run = str(run)
    return cfg


def _pipeline(cfg: RunConfig, options: argparse.Namespace, parameters: dict[str, Any]) -> int:
    if options.versioned and options.direct:
        raise ConfigError("--versioned runs `dvc repro` as Prefect tasks; without Prefect, call `dvc repro`.")
    if options.versioned:
        parameters["how"] = "versioned"
    from hiper.pipeline.direct import finished, outcome, run_stages

    compose_again = partial(saved, options.run, options.overrides) if options.verb == "resume" else None
    plain = options.direct or not (options.force or options.versioned or not finished(cfg))  # nothing to do needs no server
    results = run_stages(cfg, options.force, compose_again) if plain else _through_prefect(parameters, options.force)
    logger.info("all done in %.0f s of work", sum(result.seconds for result in results if not result.reused))
    say(outcome(Path(cfg.paths.run)))
    return 0


def _through_prefect(parameters: dict[str, Any], force: bool) -> list[StageResult]:
    """Run the pipeline flow."""
    from hiper.integrations.prefect.start import start_prefect

    start_prefect()
    from hiper.integrations.prefect.pipeline import pipeline

    results: list[StageResult] = pipeline(**parameters, force=force)
    return results
