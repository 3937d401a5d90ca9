"""Several processes train together: `trainer.processes`.

`train_in_processes` is `hiper.train.trainer.train` with others doing the work; as a program this module is one of them.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from hiper.config import RunConfig
from hiper.errors import CollapseError
from hiper.runs.ranks import be_rank, run_ranks
from hiper.runtime.distributed import World
from hiper.runtime.progress import Progress
from hiper.suites.tasks import TaskIndex
from hiper.train.trainer import TrainSummary, train


@dataclass(frozen=True)
class Arguments:
    """The arguments of `train`, but for the config."""

    model: Path
    index: TaskIndex
    out: Path
    resume: bool


def train_in_processes(
    cfg: RunConfig, model: Path, index: TaskIndex, out: Path, resume: bool = False, progress: Progress | None = None
) -> TrainSummary:
    """Train with `trainer.processes` processes; arguments and errors as of `hiper.train.trainer.train`, and of `run_ranks`."""
    arguments = Arguments(model, index, out, resume)
    return run_ranks("hiper.train.ranks", cfg.trainer.processes, cfg, arguments, TrainSummary, progress)


def _train(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> TrainSummary:
    held = os.open(arguments.out, os.O_RDONLY)
    try:
        if world.main:
            # The run's lock went with a killed `hiper`; its processes are told to end, and may take a moment.
            fcntl.flock(held, fcntl.LOCK_EX)
        world.barrier()
        return train(cfg, arguments.model, arguments.index, arguments.out, arguments.resume, progress, world)
    except CollapseError:
        world.barrier()  # all raise it, and the main process may still be writing: the first to end ends the others
        raise
    finally:
        os.close(held)


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _train))
