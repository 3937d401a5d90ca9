"""The stages as they are done: the table of `hiper.runs.stage`, with the functions of `hiper.pipeline.work` bound to it.

The same stages run in a plain Python call, as `hiper` sub-commands and as tasks of the Prefect flow: `STAGES["train"](cfg)`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from hiper.config import RunConfig
from hiper.pipeline import work
from hiper.pipeline.state import begun_under, check_upstream, finished_at, finished_folder, home, up_to_date
from hiper.pipeline.work import StageArguments
from hiper.runs import stage as table
from hiper.runs.plan import left_out, stages_of
from hiper.runs.run_dir import begin_run, save_config
from hiper.runs.stage_folder import (
    CONFIG,
    Begun,
    Fact,
    begun_stage,
    clear_partial,
    continue_finished,
    read_stage,
    read_times,
    recover,
    stage_folder,
    verify_stage,
)
from hiper.runtime.lock import locked, working
from hiper.runtime.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """What a stage hands back."""

    stage: str
    directory: Path
    seconds: float
    reused: bool
    """Whether it had finished before under the same settings, so that nothing was done."""
    facts: dict[str, Fact]
    """A few figures worth a line: counts, success rates."""

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {_figure(value)}" for name, value in self.facts.items() if value is not None)
        took = "already done" if self.reused else f"{self.seconds:.1f} s"
        return f"{self.stage.replace('_', ' ')}: {took}" + (f"; {figures}" if figures else "")


@dataclass(frozen=True, kw_only=True)
class Stage(table.Stage):
    """A stage that can be done, by calling it."""

    work: Callable[[StageArguments], None]
    """Its function."""

    def __call__(self, cfg: RunConfig, progress: Progress | None = None, *, force: bool = False, timestamps: bool = True) -> StageResult:
        """Do it, unless it has finished under the same settings and its files are as they were written.

        Args:
            cfg: everything.
            progress: called with (done, all).
            force: do it even then.
            timestamps: of a `dated` stage: say when, how long and on what machine; without, its files depend on the run's results alone.

        Raises:
            ConfigError: an upstream stage has not finished, or not under these settings; another process is at work in the run.
            DataError: a finished stage's file was damaged.
        """
        run = home(cfg, self.name)
        if run != Path(cfg.paths.run):
            return _result(finished_folder(cfg, self.name).parent, self.name, reused=True)
        with working(run):
            _recover(run)
            check_upstream(cfg, self.name)
            begun = begun_under(cfg, self.name)
            if self._is_done(cfg, begun, force):
                verify_stage(run, self.name)
                return _result(run, self.name, reused=True)
            if self.gpu:
                _set_threads(cfg)
            with stage_folder(run, self.name, begun, resumable=self.resumable, fits=lambda partial: self._fits(partial, cfg)) as folder:
                save_config(cfg, folder.path / CONFIG)
                self.work(StageArguments(cfg, folder, progress, timestamps))
        return _result(run, self.name, reused=False)

    def _is_done(self, cfg: RunConfig, begun: Begun, force: bool) -> bool:
        """Whether there is nothing to do; if there is, unfinished and finished work is where `stage_folder` looks for it."""
        run = home(cfg, self.name)
        if force:
            clear_partial(run, self.name, begun)
        elif up_to_date(cfg, self.name) and not (self.resumable and begun_stage(run, self.name) == begun):
            return True
        elif self.resumable and continue_finished(run, self.name, begun, lambda finished: self._fits(finished, cfg)):
            logger.info("%s: continues where %s ended", self.name, run / self.name)
        return False

    def _fits(self, partial: Path, cfg: RunConfig) -> bool:
        """Whether earlier work of the same lineage can be continued."""
        return not self.extendable or work.not_beyond(partial, cfg)


STAGES: Mapping[str, Stage] = MappingProxyType(
    {name: Stage(**vars(stage), work=getattr(work, name)) for name, stage in table.STAGES.items()}
)
"""The stages in their order."""


@contextmanager
def begun_run(
    run: Path, settings: Callable[[], RunConfig], names: Sequence[str], *, force: bool = False, tokens: str | None = None
) -> Iterator[RunConfig]:
    """Hold a run's directory, over all stages and the pauses between them, with what is asked of it written down.

    Args:
        run: the directory.
        settings: gives its config, asked for once the directory is held: one that is saved there stays as it stands then.
        names: stages that are to be done, of those that the run has.
        force: do finished ones again.
        tokens: see `hiper.runtime.lock.locked`.

    Raises:
        ConfigError: another command holds it, a setting cannot stand, or this machine lacks what these stages need.
        DataError: the record of a finished stage is damaged.
    """
    with locked(run, tokens=tokens):
        cfg = settings()
        recover_run(cfg)
        if tokens is None and (left := left_out(cfg)) is not None:  # a flow works for a command that has said so
            logger.info("%s", left)
        check_needs(cfg, names, force)
        begin_run(cfg)
        yield cfg


def recover_run(cfg: RunConfig) -> None:
    """Finish or take back what a killed process was in the middle of; before anybody asks what has finished.

    Raises:
        ConfigError: a process is still at work there.
    """
    run = Path(cfg.paths.run)
    with working(run):
        _recover(run)


def check_needs(cfg: RunConfig, names: Sequence[str], force: bool = False) -> None:
    """See that this machine has what stages need, of those that are still to be done.

    Raises:
        ConfigError: something is missing; the message lists all of it.
        DataError: the record of a finished stage is damaged.
    """
    from hiper.pipeline.preflight import check

    names = [name for name in names if name in stages_of(cfg)]
    to_do = [name for name in names if force or not up_to_date(cfg, name)]
    if to_do:
        check(cfg, names[names.index(to_do[0]) :])


def finished_result(cfg: RunConfig, stage: str, before: str | None) -> StageResult:
    """What a stage that another process saw to hands back.

    Args:
        cfg: what was asked for.
        stage: its name.
        before: `finished_at` before that process began.

    Raises:
        ConfigError: it has not finished under these settings.
    """
    run = finished_folder(cfg, stage).parent
    return _result(run, stage, reused=finished_at(run, stage) == before)


def _set_threads(cfg: RunConfig) -> None:
    """Threads of this process, which other processes of the stage do not share; said where nobody has chosen them."""
    import torch

    from hiper.runtime.device import cpu_threads, uses_cuda

    torch.set_num_threads(cpu_threads(cfg))
    if not cfg.threads and not uses_cuda(cfg):
        logger.info("CPU threads: %d, by the model's size; threads=N sets another number", torch.get_num_threads())


def _recover(run: Path) -> None:
    for name in STAGES:
        recover(run, name)


def _result(run: Path, stage: str, *, reused: bool) -> StageResult:
    record = read_stage(run, stage)
    assert record is not None, "asked for a stage that has not finished"
    return StageResult(stage, run / stage, read_times(run, stage).get("seconds", 0.0), reused, record.facts)


def _figure(value: Fact) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
