"""A whole sweep: the study, its worker processes, and what came out of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from hiper.errors import WorkflowError
from hiper.experiments.sweep.outcome import Tally, best, check_best_file, tally, write_best, write_page
from hiper.experiments.sweep.spec import SweepSpec, load_spec
from hiper.experiments.sweep.study import SweepStudy
from hiper.experiments.sweep.trial import prepare
from hiper.runtime.lock import locked
from hiper.runtime.module import module_command
from hiper.runtime.process import Process, Processes, last_lines
from hiper.runtime.progress import Progress

logger = logging.getLogger("hiper.sweep")

POLL = 1.0
"""Seconds between two looks at the study."""
LAST_LINES = 5
"""Lines of a worker's log that are shown when it ends badly."""


@dataclass(frozen=True)
class SweepSummary:
    """What a sweep leaves."""

    tally: Tally
    value: float | None
    """Objective of the best trial; None: no trial is complete."""
    trial: int | None
    experiment: Path | None
    """The experiment file with the best settings."""
    report: Path

    def __str__(self) -> str:
        lines = [str(self.tally)]
        if self.value is not None:
            lines += [f"best: trial {self.trial}, {self.value:.3f}", f"written: {self.experiment}"]
        return "\n".join([*lines, f"report: {self.report}"])


def sweep(path: Path, overrides: Sequence[str] = (), workers: int = 1, progress: Progress | None = None) -> SweepSummary:
    """Begin a study or go on with it, until each of its trials has ended.

    Args:
        path: a file of `sweeps/`.
        overrides: changes to it.
        workers: processes on this machine.
        progress: called with (trials ended, all).

    Raises:
        ConfigError: a sweep that cannot stand; another process runs it here; its experiment file is somebody else's.
        WorkflowError: the workers ended before the trials did; what they did is kept.
    """
    spec = load_spec(path, overrides)
    check_best_file(spec)
    with locked(spec.place):
        study = SweepStudy.begin(spec)
        if any(not slot.ended for slot in study.slots()):
            prepare(spec)
            _work(spec, study, [str(path), *overrides], workers, progress)
        return conclude(study)


def join(path: Path, overrides: Sequence[str] = (), workers: int = 1, progress: Progress | None = None) -> Tally:
    """Work for a study that was begun elsewhere, on another machine that reaches its storage.

    Raises:
        ConfigError: no such study.
        WorkflowError: the workers ended before the trials did.
    """
    spec = load_spec(path, overrides)
    study = SweepStudy.join(spec)
    _work(spec, study, [str(path), *overrides], workers, progress)
    return tally(study)


def conclude(study: SweepStudy) -> SweepSummary:
    """Write the best settings and the page."""
    found = best(study)
    experiment = write_best(study.spec, found, tally(study)) if found is not None else None
    page = write_page(study)
    return SweepSummary(
        tally(study), found.last.value if found is not None else None, found.number if found is not None else None, experiment, page
    )


def _work(spec: SweepSpec, study: SweepStudy, arguments: list[str], workers: int, progress: Progress | None) -> None:
    said = {slot.number for slot in study.slots() if slot.ended}
    mourned: set[int] = set()
    command = module_command("hiper.experiments.sweep.worker", *arguments)
    with Processes() as work:
        processes = [work.start(command, log=_log(spec, number)) for number in range(workers)]
        logger.info("%d %s at work; logs in %s", workers, "worker" if workers == 1 else "workers", _log(spec, 0).parent)
        while True:
            living = [process for process in processes if process.running]
            slots = study.slots()
            for slot in slots:
                if slot.ended and slot.number not in said:
                    said.add(slot.number)
                    logger.info("%s", _line(slot.number, slot.last.state, slot.last.value, len(said), len(slots)))
            if progress is not None:
                progress(len(said), len(slots))
            if not living:
                break
            for number, process in enumerate(processes):
                if process.failed and number not in mourned:
                    mourned.add(number)
                    _mourn(_log(spec, number), number, process)
            time.sleep(POLL)
    left = tally(study)
    if left.open:
        logs = ", ".join(str(_log(spec, number)) for number in range(workers))
        raise WorkflowError(
            f"all workers ended with {left.open} of {spec.trials} trials open; their logs: {logs}. Mend what stopped them, then give the "
            f"command again: it goes on from there.\n{_last_lines(_log(spec, 0))}"
        )


def _line(number: int, state: TrialState, value: float | None, done: int, total: int) -> str:
    outcome = {
        TrialState.COMPLETE: f"{value:.3f}" if value is not None else "",
        TrialState.PRUNED: "pruned" + (f" at {value:.3f}" if value is not None else ""),
    }.get(state, "failed")
    return f"trial {number}: {outcome} ({done} of {total})"


def _mourn(log: Path, number: int, process: Process) -> None:
    """Say that a worker ended badly."""
    logger.warning("worker %d ended (%s); another takes its trial up. %s\n%s", number, process.how, log, _last_lines(log))


def _log(spec: SweepSpec, number: int) -> Path:
    return spec.place / "logs" / f"worker-{number}.log"


def _last_lines(log: Path) -> str:
    return "\n".join(f"  {line}" for line in last_lines(log, LAST_LINES))
