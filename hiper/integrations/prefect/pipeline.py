"""The whole experiment as a Prefect flow, and its two halves that need a GPU as flows of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from hiper.config import RunConfig
from hiper.config.compose import compose, override
from hiper.errors import WorkflowError
from hiper.integrations.dvc import versioned_settings
from hiper.integrations.prefect.tasks import How, do_stages
from hiper.pipeline.stages import STAGES, StageResult, check_needs, finished_at, finished_result, recover_run
from hiper.runs.run_dir import begin_run, load_config
from hiper.runtime.lock import lock_tokens, locked

TO_MODEL = ("games", "demos", "warm_start", "train")
FROM_MODEL = ("evaluate", "report")


def settings(overrides: list[str], *, experiment: str | None = None, seed: int | None = None, run: str | None = None) -> RunConfig:
    """The config of a flow: composed, or loaded from a run directory, which may have moved since."""
    shorthands = ([f"experiment={experiment}"] if experiment else []) + ([f"seed={seed}"] if seed is not None else [])
    if run is None:
        return compose([*shorthands, *overrides])
    return override(load_config(Path(run)), [*shorthands, *overrides, f"paths.run={run}"])


@flow(name="pipeline", persist_result=False, validate_parameters=True)
def pipeline(
    overrides: list[str] | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    run: str | None = None,
    force: bool = False,
    how: How = How.auto,
    gpu: str | None = None,
) -> list[StageResult]:
    """Games, demos, warm start, training, evaluation and report.

    Args:
        overrides: Hydra overrides, as on the command line.
        experiment: a file of `conf/experiment/`; shorthand for `experiment=...`.
        seed: shorthand for `seed=...`.
        run: continue the run saved in this directory instead of composing one.
        force: do finished stages again.
        how: in which process stages are done; `versioned`: by DVC.
        gpu: name of the deployments of `train` and `evaluate` that do the work on a GPU worker, which shares this file system.

    Returns:
        What each stage reported, in order.
    """
    here = list(STAGES) if gpu is None else ["games", "demos"]
    with _run_of(overrides, experiment, seed, run, here, force, how) as cfg:
        if gpu is None:
            return do_stages(cfg, list(STAGES), how, force)
        first = do_stages(cfg, ["games", "demos"], how, force)
        before = {name: finished_at(Path(cfg.paths.run), name) for name in STAGES}
        for name in ("train", "evaluate"):
            parameters = {"run": str(Path(cfg.paths.run).resolve()), "how": how, "force": force, "lock": lock_tokens()}
            _deployed(f"{name}/{gpu}", parameters)
        return [*first, *(finished_result(cfg, name, before[name]) for name in list(STAGES)[2:])]


@flow(name="train", persist_result=False, validate_parameters=True)
def train(
    overrides: list[str] | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    run: str | None = None,
    force: bool = False,
    how: How = How.auto,
    lock: str | None = None,
) -> list[StageResult]:
    """The training, and what it needs that has not finished.

    Parameters are those of `pipeline`, and `lock`: the tokens of a flow that holds the run and has this one work for it.
    """
    with _run_of(overrides, experiment, seed, run, TO_MODEL, force, how, lock) as cfg:
        return [*do_stages(cfg, TO_MODEL[:2], how), *do_stages(cfg, TO_MODEL[2:], how, force)]


@flow(name="evaluate", persist_result=False, validate_parameters=True)
def evaluate(
    overrides: list[str] | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    run: str | None = None,
    force: bool = False,
    how: How = How.auto,
    lock: str | None = None,
) -> list[StageResult]:
    """Evaluation and report of a run that was trained; parameters as of `train`."""
    with _run_of(overrides, experiment, seed, run, FROM_MODEL, force, how, lock) as cfg:
        return do_stages(cfg, FROM_MODEL, how, force)


@contextmanager
def _run_of(
    overrides: list[str] | None,
    experiment: str | None,
    seed: int | None,
    run: str | None,
    names: Sequence[str],
    force: bool,
    how: How,
    lock: str | None = None,
) -> Iterator[RunConfig]:
    """The run a flow works on, held and begun, on a machine that has what these stages need; the flow run is named after it and tagged."""
    cfg = settings(overrides or [], experiment=experiment, seed=seed, run=run)
    _label(f"{cfg.name}-seed-{cfg.seed}", [f"experiment:{cfg.name}", f"seed:{cfg.seed}", f"algo:{cfg.algo.name}"])
    with locked(Path(cfg.paths.run), tokens=lock):  # over all stages: nobody changes what is asked for between two of them
        if run is not None:
            cfg = settings(overrides or [], experiment=experiment, seed=seed, run=run)  # as it stands now that it stays so
        recover_run(cfg)
        check_needs(cfg, names, force)
        begin_run(cfg)
        with versioned_settings(Path.cwd(), cfg) if how is How.versioned else nullcontext():
            yield cfg


def _label(name: str, tags: Sequence[str]) -> None:
    """Name and tag the flow run. Prefect's `flow_run_name` would have to compose the config a second time, for that name alone."""
    if flow_run.id is not None:
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, name=name, tags=sorted({*flow_run.tags, *tags}))


def _deployed(name: str, parameters: dict[str, Any]) -> None:
    """Have a deployment's worker do it, and wait.

    Raises:
        WorkflowError: it did not complete.
    """
    done: Any = run_deployment(name, parameters=parameters)
    if done.state is None or not done.state.is_completed():
        raise WorkflowError(f"{name} ended as {done.state_name}, flow run {done.name!r}: its log says why. Run this flow again to go on.")
