"""The whole experiment as a Prefect flow, and its two halves that need a GPU as flows of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.runtime import flow_run

from hiper.composition.compose import compose, override
from hiper.config import RunConfig
from hiper.errors import WorkflowError
from hiper.integrations.dvc import versioned_settings
from hiper.integrations.prefect.tasks import How, do_stages
from hiper.pipeline.stages import STAGES, StageResult, begun_run, finished_result
from hiper.pipeline.state import finished_at
from hiper.runs.plan import stages_of
from hiper.runs.run_dir import load_config
from hiper.runs.stage import before, split_at_gpu
from hiper.runtime.lock import lock_tokens

EVERY = list(STAGES)
TO_MODEL = list(before("evaluate"))
FROM_MODEL = EVERY[len(TO_MODEL) :]
"""What the flows `train` and `evaluate` do."""


def settings(overrides: list[str], *, experiment: str | None = None, seed: int | None = None, run: str | None = None) -> RunConfig:
    """The config of a flow: composed, or loaded from a run directory, which may have moved since.

    A run has its experiment: `experiment` is then not read, because deployments give one that stands where nobody names another.
    """
    changes = ([f"seed={seed}"] if seed is not None else []) + overrides
    if run is None:
        return compose([*([f"experiment={experiment}"] if experiment else []), *changes])
    return override(load_config(Path(run)), [*changes, f"paths.run={run}"])


@flow(name="pipeline", persist_result=False, validate_parameters=True)
def pipeline(
    overrides: list[str] | None = None,
    experiment: str | None = None,
    seed: int | None = None,
    run: str | None = None,
    force: bool = False,
    how: How = How.auto,
    gpu: str | None = None,
    lock: str | None = None,
) -> list[StageResult]:
    """Tasks, demos, warm start, training, evaluation and report.

    Args:
        overrides: Hydra overrides, as on the command line.
        experiment: a file of `conf/experiment/`; shorthand for `experiment=...`. Not read with `run`.
        seed: shorthand for `seed=...`.
        run: continue the run saved in this directory instead of composing one.
        force: do finished stages again.
        how: in which process stages are done; `versioned`: by DVC.
        gpu: name of the deployments of `train` and `evaluate` that do the work on a GPU worker, which shares this file system.
        lock: the tokens of a command that holds `run` and has this flow work for it.

    Returns:
        What each stage reported, in order.
    """
    first, rest = split_at_gpu(EVERY)
    asked = partial(settings, overrides or [], experiment=experiment, seed=seed, run=run)
    with _run_of(asked, run is not None, EVERY if gpu is None else first, force, how, lock) as cfg:
        done = do_stages(cfg, first, how, force)
        return done + (do_stages(cfg, rest, how, force) if gpu is None else _do_elsewhere(cfg, rest, how, force, gpu))


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

    Parameters are those of `pipeline`; `lock` is of a flow that holds the run and has this one work for it.
    """
    first, rest = split_at_gpu(TO_MODEL)
    asked = partial(settings, overrides or [], experiment=experiment, seed=seed, run=run)
    with _run_of(asked, run is not None, TO_MODEL, force, how, lock) as cfg:
        return [*do_stages(cfg, first, how), *do_stages(cfg, rest, how, force)]


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
    asked = partial(settings, overrides or [], experiment=experiment, seed=seed, run=run)
    with _run_of(asked, run is not None, FROM_MODEL, force, how, lock) as cfg:
        return do_stages(cfg, FROM_MODEL, how, force)


@contextmanager
def _run_of(
    asked: Callable[[], RunConfig], saved: bool, names: Sequence[str], force: bool, how: How, lock: str | None
) -> Iterator[RunConfig]:
    """The run a flow works on, held and begun, on a machine that has what these stages need; the flow run is named after it and tagged.

    Args:
        asked: gives its config.
        saved: whether that lies in its directory, and so is asked for again once the directory is held; else it is composed once.
        names: stages that are to be done.
        force: do finished ones again.
        how: in which process stages are done.
        lock: the tokens of a command that holds the run.
    """
    composed = asked()
    _label(
        f"{composed.name}-seed-{composed.seed}",
        [f"experiment:{composed.name}", f"seed:{composed.seed}", f"algo:{composed.algo.name}"],
    )
    held = begun_run(Path(composed.paths.run), asked if saved else lambda: composed, names, force=force, tokens=lock)
    with held as cfg, versioned_settings(Path.cwd(), cfg) if how is How.versioned else nullcontext():
        yield cfg


def _do_elsewhere(cfg: RunConfig, names: Sequence[str], how: How, force: bool, place: str) -> list[StageResult]:
    """Have the deployments of `train` and `evaluate` at a place do stages, under this flow's hold on the run."""
    run = Path(cfg.paths.run)
    earlier = {name: finished_at(run, name) for name in names if name in stages_of(cfg)}
    for half in (train, evaluate):
        _deployed(f"{half.name}/{place}", {"run": str(run.resolve()), "how": how, "force": force, "lock": lock_tokens()})
    return [finished_result(cfg, name, before) for name, before in earlier.items()]


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
