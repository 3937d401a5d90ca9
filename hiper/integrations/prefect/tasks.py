"""The stages as Prefect tasks, all made in one way from the table: a body is a call of the stage, or the command that makes it.

Stages decide themselves (or DVC does, in versioned mode) what is up to date, so Prefect caches nothing and keeps no result. Only a
download of tasks is retried; a stage that failed resumes from what it wrote when its flow is run again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.tasks import Task

from hiper.config import RunConfig, Source
from hiper.errors import ConfigError, MissingDependencyError, TaskError
from hiper.integrations.dvc import dvc_command, dvc_environment
from hiper.integrations.prefect.artifacts import progress_artifact, show_charts
from hiper.pipeline.stages import STAGES, Stage, StageResult, finished_result
from hiper.pipeline.state import finished_at
from hiper.runs.plan import stages_of
from hiper.runs.stage import REPORT_FILE
from hiper.runtime.lock import lock_environment
from hiper.runtime.module import module_command
from hiper.runtime.process import run_process
from hiper.runtime.progress import Progress, both, track

logger = logging.getLogger("hiper.pipeline")


class How(StrEnum):
    """How stages are done."""

    auto = "auto"
    """A stage that computes with a model, on a GPU, in a process of its own, everything else in this process."""
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
        names: of `hiper.runs.stage.STAGES`; those that the run has not are left out.
        how: in which process, and who decides what is up to date.
        force: do finished stages again.
    """
    results = []
    for name in (name for name in names if name in stages_of(cfg)):
        one = TASKS[name]
        if STAGES[name].downloads and may_download(cfg):
            one = one.with_options(retries=2, retry_delay_seconds=[5, 30])
        results.append(one(cfg, how, force))
    return results


def may_download(cfg: RunConfig) -> bool:
    """Whether the tasks may have to come over a network: only then is a download worth trying again."""
    return cfg.tasks.source is Source.official and cfg.tasks.data is None


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
                        "task type": name,
                        "tasks": found["tasks"],
                        "success %": round(100 * found["success_rate"], 1),
                        "95 % from": round(100 * found["wilson_low"], 1),
                        "95 % to": round(100 * found["wilson_high"], 1),
                        "score": round(found["score_mean"], 3),
                        "turns": round(found["turns_mean"], 1),
                    }
                )
    return rows


def _do(stage: Stage, cfg: RunConfig, how: How, force: bool) -> StageResult:
    """Do a stage, with a bar on the terminal and a progress artifact in Prefect."""
    with track(stage.command) as bar, progress_artifact(stage.command) as artifact:
        result = _by(stage, cfg, how, force, both(bar, artifact))
    logger.info("%s", result)
    return result


def _by(stage: Stage, cfg: RunConfig, how: How, force: bool, progress: Progress) -> StageResult:
    if how is How.auto:
        how = How.process if stage.gpu and _has_gpu(cfg) else How.here
    if how is How.here:
        return stage(cfg, progress, force=force)
    run = Path(cfg.paths.run)
    before = finished_at(run, stage.name)
    again = ["--force"] if force else []
    if how is How.process:
        command = module_command("hiper", stage.command, "--config", str(run), *again)
        environment = dict(os.environ)
    else:
        command, environment = [dvc_command(), "repro", "--single-item", stage.name, *again], dvc_environment()
    run_process(command, environment | lock_environment(), logger.info, progress)
    return finished_result(cfg, stage.name, before)


def _show_evaluation(cfg: RunConfig, result: StageResult) -> None:
    """The result table as an artifact."""
    create_table_artifact(
        table=result_table(result.directory), key="evaluation", description=f"Success by split and task type, {cfg.name}, seed {cfg.seed}"
    )


def _show_page(result: StageResult) -> None:
    """The page's place and the curve of success as artifacts."""
    page = (result.directory / REPORT_FILE).resolve()
    create_markdown_artifact(f"[{page}]({page.as_uri()})", key="report", description="Where the page lies")
    show_charts(result.directory / "curves", "curve", ["success"])


def _has_gpu(cfg: RunConfig) -> bool:
    from hiper.runtime.device import uses_cuda

    return uses_cuda(cfg)


def _worth_retrying(task: Any, task_run: Any, state: Any) -> bool:
    """A network may recover; a mistake in the settings or a missing program will not."""
    return not isinstance(state.result(raise_on_failure=False), (ConfigError, TaskError, MissingDependencyError))


def _task(stage: Stage) -> Task[..., StageResult]:
    """A stage as a task, which shows what it did."""

    def do(cfg: RunConfig, how: How = How.auto, force: bool = False) -> StageResult:
        result = _do(stage, cfg, how, force)
        if stage.metrics:
            _show_evaluation(cfg, result)
        if stage.plots:
            _show_page(result)
        return result

    do.__name__, do.__qualname__, do.__doc__ = stage.name, stage.name, stage.summary
    again = _worth_retrying if stage.downloads else None
    return task(name=stage.command, retry_condition_fn=again, cache_policy=NO_CACHE, persist_result=False)(do)


TASKS: Mapping[str, Task[..., StageResult]] = {name: _task(stage) for name, stage in STAGES.items()}
"""The stages in their order."""
