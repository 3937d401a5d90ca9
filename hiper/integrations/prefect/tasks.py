"""The stages as Prefect tasks: a body is a call into `hiper.pipeline.stages`, or the command that makes it.

Stages decide themselves (or DVC does, in versioned mode) what is up to date, so Prefect caches nothing and keeps no result. Only a
download of games is retried; a stage that failed resumes from what it wrote when its flow is run again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import Task

from hiper.config import RunConfig, Source
from hiper.errors import ConfigError, GameError, MissingDependencyError
from hiper.integrations.dvc import dvc_command, dvc_environment
from hiper.integrations.prefect.artifacts import progress_artifact, show_charts
from hiper.pipeline import stages
from hiper.pipeline.stages import StageResult
from hiper.runtime.lock import lock_environment
from hiper.runtime.module import module_command
from hiper.runtime.process import run_process
from hiper.runtime.progress import Progress, both, track

logger = logging.getLogger("hiper.pipeline")

GPU_STAGES = ("warm_start", "train", "evaluate")
"""Stages that compute on a GPU where there is one."""


class How(StrEnum):
    """How stages are done."""

    auto = "auto"
    """A GPU stage on a GPU in a process of its own, everything else in this process."""
    here = "here"
    """In this process."""
    process = "process"
    """Each in a process of its own."""
    versioned = "versioned"
    """By `dvc repro`, each in a process of its own."""


def do_stages(cfg: RunConfig, names: Sequence[str], how: How = How.auto, force: bool = False) -> list[StageResult]:
    """Do stages in order, each as a task.

    Args:
        cfg: of a run that was begun, and whose directory this flow holds.
        names: of `hiper.pipeline.stages.STAGES`.
        how: in which process, and who decides what is up to date.
        force: do finished stages again.
    """
    results = []
    for name in names:
        one = TASKS[name]
        if name == "games" and may_download(cfg):
            one = one.with_options(retries=2, retry_delay_seconds=[5, 30])
        results.append(one(cfg, how, force))
    return results


def may_download(cfg: RunConfig) -> bool:
    """Whether `games` may reach over a network: only then is it worth trying again."""
    return cfg.games.source is Source.official and cfg.games.data is None


def result_table(directory: Path) -> list[dict[str, str | int | float]]:
    """Rows of the evaluations under a directory: one a model, split and task type, and one for each whole split."""
    from hiper.evaluation import read_evaluation

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


def _do(name: str, cfg: RunConfig, how: How, force: bool) -> StageResult:
    """Do a stage, with a bar on the terminal and a progress artifact in Prefect."""
    label = name.replace("_", "-")
    with track(label) as bar, progress_artifact(label) as artifact:
        result = _by(name, cfg, how, force, both(bar, artifact))
    logger.info("%s", result)
    return result


def _by(name: str, cfg: RunConfig, how: How, force: bool, progress: Progress) -> StageResult:
    run = Path(cfg.paths.run)
    if how is How.auto:
        how = How.process if name in GPU_STAGES and _has_gpu(cfg) else How.here
    if how is How.here:
        return stages.STAGES[name](cfg, progress, force=force)
    before = stages.finished_at(run, name)
    again = ["--force"] if force else []
    if how is How.process:
        command = module_command("hiper", name.replace("_", "-"), "--config", str(run), *again)
        environment = dict(os.environ)
    else:
        command, environment = [dvc_command(), "repro", "--single-item", name, *again], dvc_environment()
    environment |= lock_environment()
    run_process(command, environment, logger.info, progress)
    return stages.finished_result(cfg, name, before)


def _has_gpu(cfg: RunConfig) -> bool:
    from hiper.runtime.device import uses_cuda

    return uses_cuda(cfg)


def _worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """A network may recover; a mistake in the settings or a missing program will not."""
    return not isinstance(state.result(raise_on_failure=False), (ConfigError, GameError, MissingDependencyError))


@task(name="games", retry_condition_fn=_worth_retrying, cache_policy=NO_CACHE, persist_result=False)
def games(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.games`."""
    return _do("games", cfg, how, force)


@task(name="demos", cache_policy=NO_CACHE, persist_result=False)
def demos(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.demos`."""
    return _do("demos", cfg, how, force)


@task(name="warm-start", cache_policy=NO_CACHE, persist_result=False)
def warm_start(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.warm_start`."""
    return _do("warm_start", cfg, how, force)


@task(name="train", cache_policy=NO_CACHE, persist_result=False)
def train(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.train`."""
    return _do("train", cfg, how, force)


@task(name="evaluate", cache_policy=NO_CACHE, persist_result=False)
def evaluate(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.evaluate`; the result table becomes an artifact."""
    result = _do("evaluate", cfg, how, force)
    create_table_artifact(
        table=result_table(result.directory), key="evaluation", description=f"Success by split and task type, {cfg.name}, seed {cfg.seed}"
    )
    return result


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
    """See `hiper.pipeline.stages.report`; the curve of success and the page's place become artifacts."""
    result = _do("report", cfg, how, force)
    page = (result.directory / stages.REPORT_FILE).resolve()
    create_markdown_artifact(f"[{page}]({page.as_uri()})", key="report", description="Where the page lies")
    show_charts(result.directory / "curves", "curve", ["success"])
    return result


TASKS: dict[str, Task[..., StageResult]] = {
    "games": games,
    "demos": demos,
    "warm_start": warm_start,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}
"""The stages in their order."""
