"""The whole experiment as a Prefect flow: one task a stage.

Each task's body is a call into `hiper.stages`. Only a download of games is retried; the others resume from what they wrote, and
stages decide themselves what is up to date, so Prefect caches nothing and keeps no result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from flows.shared import progress_artifact
from hiper import stages
from hiper.compose import compose, override
from hiper.config import RunConfig, Source
from hiper.errors import ConfigError, GameError, MissingDependencyError
from hiper.progress import both, track
from hiper.runs import begin_run, load_config, locked
from hiper.stages import StageFunction, StageResult

logger = logging.getLogger("hiper.pipeline")


def _worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """A network may recover; a mistake in the settings or a missing program will not."""
    return not isinstance(state.result(raise_on_failure=False), (ConfigError, GameError, MissingDependencyError))


@task(name="games", retry_condition_fn=_worth_retrying, cache_policy=NO_CACHE, persist_result=False)
def games(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.games`."""
    return _show(stages.games, cfg, force)


@task(name="demos", cache_policy=NO_CACHE, persist_result=False)
def demos(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.demos`."""
    return _show(stages.demos, cfg, force)


@task(name="warm-start", cache_policy=NO_CACHE, persist_result=False)
def warm_start(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.warm_start`."""
    return _show(stages.warm_start, cfg, force)


@task(name="train", cache_policy=NO_CACHE, persist_result=False)
def train(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.train`."""
    return _show(stages.train, cfg, force)


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.evaluate`; the result table becomes an artifact."""
    result = _show(stages.evaluate, cfg, force)
    create_table_artifact(
        table=result_table(result.directory), key="evaluation", description=f"Success by split and task type, {cfg.name}, seed {cfg.seed}"
    )
    return result


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(cfg: RunConfig, force: bool = False) -> StageResult:
    """See `hiper.stages.report`; the page's place becomes an artifact."""
    result = _show(stages.report, cfg, force)
    create_markdown_artifact(f"`{(result.directory / stages.REPORT_FILE).resolve()}`", key="report", description="Where the page lies")
    return result


def _run_name() -> str:
    """Name of a flow run: what it runs, and its seed."""
    given: Mapping[str, Any] = flow_run.parameters
    cfg = settings(given["overrides"] or [], experiment=given["experiment"], seed=given["seed"], run=given["run"])
    return f"{cfg.name}-seed-{cfg.seed}"


@flow(name="pipeline", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
def pipeline(
    overrides: list[str] | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    run: str | None = None,
    force: bool = False,
) -> list[StageResult]:
    """Games, demos, warm start, training, evaluation and report.

    Args:
        overrides: Hydra overrides, as on the command line.
        experiment: a file of `conf/experiment/`; shorthand for `experiment=...`.
        seed: shorthand for `seed=...`.
        run: continue the run saved in this directory instead of composing one.
        force: do finished stages again.

    Returns:
        What each stage reported, in order.
    """
    cfg = settings(overrides or [], experiment=experiment, seed=seed, run=run)
    with locked(Path(cfg.paths.run)):
        begin_run(cfg)
        fetch = games.with_options(retries=2, retry_delay_seconds=[5, 30]) if _may_download(cfg) else games
        return [stage(cfg, force) for stage in (fetch, demos, warm_start, train, evaluate, report)]


def _may_download(cfg: RunConfig) -> bool:
    """Whether `games` may reach over a network: only then is it worth trying again."""
    return cfg.games.source is Source.official and cfg.games.data is None


def settings(overrides: list[str], *, experiment: str | None = None, seed: int | None = None, run: str | None = None) -> RunConfig:
    """The config a pipeline runs: composed, or loaded from a run directory, which may have moved since."""
    shorthands = ([f"experiment={experiment}"] if experiment else []) + ([f"seed={seed}"] if seed is not None else [])
    if run is None:
        return compose([*shorthands, *overrides])
    return override(load_config(Path(run)), [*shorthands, *overrides, f"paths.run={run}"])


def result_table(directory: Path) -> list[dict[str, str | int | float]]:
    """Rows of the evaluations under a directory: one a model, split and task type, and one for each whole split."""
    from hiper.evaluate import read_evaluation

    rows: list[dict[str, str | int | float]] = []
    for folder in sorted(path.parent for path in directory.glob("*/evaluation.json")):
        for split, whole in read_evaluation(folder)["splits"].items():
            for name, found in {"all": whole, **whole["task_types"]}.items():
                rows.append(
                    {
                        "model": folder.name,
                        "split": split,
                        "tasks": name,
                        "games": found["games"],
                        "success %": round(100 * found["success_rate"], 1),
                        "95 % from": round(100 * found["wilson_low"], 1),
                        "95 % to": round(100 * found["wilson_high"], 1),
                        "score": round(found["score_mean"], 3),
                        "turns": round(found["turns_mean"], 1),
                    }
                )
    return rows


def _show(stage: StageFunction, cfg: RunConfig, force: bool) -> StageResult:
    """Run a stage with a bar on the terminal and a progress artifact in Prefect."""
    name = stage.__name__.replace("_", "-")
    with track(name) as bar, progress_artifact(name) as artifact:
        result = stage(cfg, both(bar, artifact), force=force)
    logger.info("%s", result)
    return result
