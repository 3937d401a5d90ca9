"""Several processes train together: `trainer.processes`.

`train_in_processes` is `hiper.train.trainer.train` with others doing the work. The process that calls it holds the run's lock and finishes
the stage; it starts those that train, `hiper.train.ranks`, and raises an error when one of them fails. They end when it ends, however that
happens. All are on this machine: they find each other by a file in a folder that only this user can write in, see
`hiper.runtime.distributed.joined`.
"""

from __future__ import annotations

import logging
import os
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TypeVar

from hiper import errors
from hiper.config import RunConfig
from hiper.errors import HiperError, WorkflowError
from hiper.runs.run_dir import load_config, save_config
from hiper.runs.stage_folder import CONFIG
from hiper.runtime.files import replacing
from hiper.runtime.message import decode, encode
from hiper.runtime.module import module_command
from hiper.runtime.process import ProcessError, run_processes
from hiper.runtime.progress import Progress
from hiper.runtime.reading import read_bytes
from hiper.suites.tasks import TaskIndex
from hiper.train.trainer import TrainSummary

logger = logging.getLogger(__name__)

T = TypeVar("T")

MEETING = "meeting"
"""File by which the processes find each other."""
_ARGUMENTS = "arguments.json"
_SUMMARY = "summary.json"


@dataclass(frozen=True)
class Arguments:
    """What the processes are to do: the arguments of `train`, but for the config, which is beside it as in a run."""

    model: Path
    index: TaskIndex
    out: Path
    resume: bool


@dataclass(frozen=True)
class Failure:
    """Why a process ended."""

    time: float
    """Seconds since the epoch."""
    error: str
    """Name of the exception's class."""
    text: str
    """Its message, or its traceback where it is not the user's to mend."""


def train_in_processes(
    cfg: RunConfig, model: Path, index: TaskIndex, out: Path, resume: bool = False, progress: Progress | None = None
) -> TrainSummary:
    """Train with `trainer.processes` processes; arguments and errors as of `hiper.train.trainer.train`.

    Raises:
        WorkflowError: a process failed for no reason that is the user's to mend; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="hiper-") as name:  # for this user alone, as `joined` asks
        work_dir = Path(name)
        write_arguments(work_dir, cfg, Arguments(model, index, out, resume))
        commands = [module_command("hiper.train.ranks", name, str(rank)) for rank in range(cfg.trainer.processes)]
        # Torch sets its own number of threads; what other libraries start would be as many in each process.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        try:
            run_processes(commands, environment, logger.info, progress or (lambda done, total: None))
        except ProcessError as error:
            raise _failure(work_dir, cfg.trainer.processes, error) from error
        summary: TrainSummary = _get(work_dir / _SUMMARY, TrainSummary)
        return summary


def write_arguments(work_dir: Path, cfg: RunConfig, arguments: Arguments) -> None:
    """Write what the processes are to do."""
    save_config(cfg, work_dir / CONFIG)
    _put(work_dir / _ARGUMENTS, arguments)


def read_arguments(work_dir: Path) -> tuple[RunConfig, Arguments]:
    """What this process is to do.

    Raises:
        ConfigError, DataError: a file in the folder is not what `write_arguments` writes.
    """
    return load_config(work_dir / CONFIG), _get(work_dir / _ARGUMENTS, Arguments)


def report_summary(work_dir: Path, summary: TrainSummary) -> None:
    """Hand the result to the process that started this one."""
    _put(work_dir / _SUMMARY, summary)


def report_failure(work_dir: Path, rank: int, error: Exception) -> None:
    """Say why this process ends, where the others cannot talk in between."""
    text = str(error) if isinstance(error, HiperError) else "".join(traceback.format_exception(error))
    _put(work_dir / f"failure-{rank}.json", Failure(time(), type(error).__name__, text))


def _failure(work_dir: Path, processes: int, error: ProcessError) -> HiperError:
    """What came first: the other processes' errors are that they miss one."""
    found = ((rank, work_dir / f"failure-{rank}.json") for rank in range(processes))
    failures: list[tuple[int, Failure]] = [(rank, _get(path, Failure)) for rank, path in found if path.exists()]
    failures.sort(key=lambda entry: entry[1].time)
    for _, failure in failures:
        kind = getattr(errors, failure.error, None)
        if isinstance(kind, type) and issubclass(kind, HiperError):
            return kind(failure.text)
    kept = "What the training had finished is kept."
    if error.killed or not failures:
        who = f"process {error.number} of the training's {processes}"
        said = "" if error.killed else " Its last lines:\n" + "\n".join(error.last)
        return WorkflowError(f"{who} ended with {error.how}; the others were stopped. {kept}{said}")
    rank, failure = failures[0]
    return WorkflowError(f"process {rank} of the training's {processes} failed. {kept} Its error:\n{failure.text.rstrip()}")


def _put(path: Path, value: object) -> None:
    """Write a message that is there whole or not at all."""
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(encode(value))


def _get(path: Path, kind: type[T]) -> T:
    value: T = decode(read_bytes(path), kind, str(path))
    return value
