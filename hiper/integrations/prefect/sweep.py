"""A sweep as a Prefect flow: one task that runs the study, its result as artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

import hiper.experiments.sweep.sweep
from hiper.experiments.sweep.sweep import SweepSummary
from hiper.integrations.prefect.artifacts import progress_artifact, show_charts
from hiper.runtime.progress import both, track


@task(name="trials", cache_policy=NO_CACHE, persist_result=False)
def trials(file: str, changes: list[str], workers: int) -> SweepSummary:
    """See `hiper.experiments.sweep.sweep.sweep`; given again after a failure it goes on where it stopped."""
    with track("trials") as bar, progress_artifact("trials") as artifact:
        summary = hiper.experiments.sweep.sweep.sweep(Path(file), changes, workers, both(bar, artifact))
    create_markdown_artifact(_markdown(summary), key="sweep", description=f"What came of {file}")
    show_charts(summary.report.parent / "charts", "sweep")
    return summary


def _run_name() -> str:
    given: Mapping[str, Any] = flow_run.parameters
    return f"sweep-{Path(given['file']).stem}"


@flow(name="sweep", flow_run_name=_run_name, persist_result=False, validate_parameters=True)
def sweep(file: str, changes: list[str] | None = None, workers: int = 1) -> SweepSummary:
    """Search settings of the training with Optuna.

    Args:
        file: a file of `sweeps/`.
        changes: to the file: trials=8, sampler.seed=1.
        workers: processes on this machine.

    Returns:
        What became of the trials, and where the best settings and the page lie.
    """
    return trials(file, changes or [], workers)


def _markdown(summary: SweepSummary) -> str:
    return "\n".join(f"* `{line}`" for line in str(summary).splitlines())
