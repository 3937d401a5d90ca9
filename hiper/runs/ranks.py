"""Several processes of this machine do one stage's work together.

`run_ranks` is called by the process that holds the run's lock and finishes the stage. It starts a module once for each rank, which calls
`be_rank`, and raises an error when one of them fails. They end when the process that started them ends, however that happens. They find
each other by a file in a folder that only this user can write in, see `hiper.runtime.distributed.joined`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TypeVar

from hiper import errors
from hiper.config import RunConfig
from hiper.errors import CollapseError, HiperError, WorkflowError
from hiper.runs.run_dir import load_config, save_config
from hiper.runs.stage_folder import CONFIG
from hiper.runtime.device import uses_cuda
from hiper.runtime.distributed import World, joined
from hiper.runtime.files import replacing
from hiper.runtime.message import decode, encode
from hiper.runtime.module import module_command
from hiper.runtime.process import ProcessError, run_processes
from hiper.runtime.progress import Progress, relay
from hiper.runtime.reading import read_bytes

logger = logging.getLogger(__name__)

A = TypeVar("A")
T = TypeVar("T")

_MEETING = "meeting"
_ARGUMENTS = "arguments.json"
_RESULT = "result.json"


@dataclass(frozen=True)
class Failure:
    """Why a process ended."""

    time: float
    """Seconds since the epoch."""
    error: str
    """Name of the exception's class."""
    text: str
    """Its message, or its traceback where it is not the user's to mend."""


def run_ranks(
    module: str,
    size: int,
    cfg: RunConfig,
    arguments: object,
    kind: type[T],
    progress: Progress | None = None,
    *,
    what: str,
    resumable: bool = True,
) -> T:
    """Run a module's ranks to their end.

    Args:
        module: its `__main__` calls `be_rank`.
        size: processes.
        cfg: for each.
        arguments: for each, of a type that messages can hold.
        kind: of the main rank's result.
        progress: follows the main rank.
        what: they do, for errors: "training".
        resumable: what they have finished is kept when one fails.

    Raises:
        HiperError: the first that a rank raised.
        WorkflowError: a process failed for no reason that is the user's to mend; its last lines are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="hiper-") as name:  # for this user alone, as `joined` asks
        work_dir = Path(name)
        write_arguments(work_dir, cfg, arguments)
        commands = [module_command(module, name, str(rank), str(size)) for rank in range(size)]
        # Torch sets its own number of threads; what other libraries start would be as many in each process.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        try:
            run_processes(commands, environment, logger.info, progress or (lambda done, total: None))
        except ProcessError as error:
            raise _failure(work_dir, size, what, resumable, error) from error
        return _get(work_dir / _RESULT, kind)


def be_rank(kind: type[A], work: Callable[[RunConfig, A, World, Progress | None], T], folder: Callable[[A], Path]) -> int:
    """Be one of the processes: the command line names the folder, the rank and the size.

    Args:
        kind: of the arguments.
        work: takes config, arguments, place, and in the main rank what reports progress; gives the result.
        folder: gives the folder that they write in, which those of one command alone may hold.

    Returns:
        The exit code. A failure is written to the folder.
    """
    work_dir, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _start_logging(rank)
    try:
        cfg, arguments = read_arguments(work_dir, kind)
        with joined(World(rank, size), work_dir / _MEETING, uses_cuda(cfg)) as world, _holding(folder(arguments), world):
            result = work(cfg, arguments, world, relay() if world.main else None)
    except Exception as error:
        text = str(error) if isinstance(error, HiperError) else "".join(traceback.format_exception(error))
        _put(work_dir / f"failure-{rank}.json", Failure(time(), type(error).__name__, text))
        return 1  # the one that started all ends the others, who may be waiting for this one
    if rank == 0:
        _put(work_dir / _RESULT, result)
    return 0


@contextmanager
def _holding(folder: Path, world: World) -> Iterator[None]:
    """Inside, no ranks of another command write in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        if world.main:
            # The run's lock went with a killed `hiper`; its ranks are told to end, and may take a moment.
            fcntl.flock(held, fcntl.LOCK_EX)
        world.barrier()
        yield
    except CollapseError:
        world.barrier()  # all raise it, and the main one may still be writing: the first to end ends the others
        raise
    finally:
        os.close(held)


def write_arguments(work_dir: Path, cfg: RunConfig, arguments: object) -> None:
    """Write what the processes are to do: the config, as it is beside a run, and their arguments."""
    save_config(cfg, work_dir / CONFIG)
    _put(work_dir / _ARGUMENTS, arguments)


def read_arguments(work_dir: Path, kind: type[A]) -> tuple[RunConfig, A]:
    """What this process is to do.

    Raises:
        ConfigError, DataError: a file in the folder is not what `write_arguments` writes.
    """
    return load_config(work_dir / CONFIG), _get(work_dir / _ARGUMENTS, kind)


def _failure(work_dir: Path, size: int, what: str, resumable: bool, error: ProcessError) -> HiperError:
    """What came first: the other processes' errors are that they miss one."""
    found = ((rank, work_dir / f"failure-{rank}.json") for rank in range(size))
    failures: list[tuple[int, Failure]] = [(rank, _get(path, Failure)) for rank, path in found if path.exists()]
    failures.sort(key=lambda entry: entry[1].time)
    for _, failure in failures:
        kind = getattr(errors, failure.error, None)
        if isinstance(kind, type) and issubclass(kind, HiperError):
            return kind(failure.text)
    kept = f" What the {what} had finished is kept." if resumable else ""
    if error.killed or not failures:
        who = f"process {error.number} of the {what}'s {size}"
        said = "" if error.killed else " Its last lines:\n" + "\n".join(error.last)
        return WorkflowError(f"{who} ended with {error.how}; the others were stopped.{kept}{said}")
    rank, failure = failures[0]
    return WorkflowError(f"process {rank} of the {what}'s {size} failed.{kept} Its error:\n{failure.text.rstrip()}")


def _put(path: Path, value: object) -> None:
    """Write a message that is there whole or not at all."""
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(encode(value))


def _get(path: Path, kind: type[T]) -> T:
    value: T = decode(read_bytes(path), kind, str(path))
    return value


def _start_logging(rank: int) -> None:
    """Only the main process tells the story, in bare lines: the one that started all says when."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("hiper")
    root.addHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    root.propagate = False
