"""One of several processes that train together: `python -m hiper.train.ranks FOLDER RANK`. `hiper.train.launch` starts it."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from pathlib import Path

from hiper.config import RunConfig
from hiper.errors import CollapseError
from hiper.runtime.device import uses_cuda
from hiper.runtime.distributed import World, joined
from hiper.runtime.progress import relay
from hiper.train.launch import MEETING, Arguments, read_arguments, report_failure, report_summary
from hiper.train.trainer import TrainSummary, train


def main() -> int:
    """Train with the arguments in the folder that the command line names; the exit code."""
    work_dir, rank = Path(sys.argv[1]), int(sys.argv[2])
    _start_logging(rank)
    try:
        cfg, arguments = read_arguments(work_dir)
        with joined(World(rank, cfg.trainer.processes), work_dir / MEETING, uses_cuda(cfg)) as world:
            summary = _train(cfg, arguments, world)
    except Exception as error:
        report_failure(work_dir, rank, error)
        return 1  # the one that started all ends the others, who may be waiting for this one
    if world.main:
        report_summary(work_dir, summary)
    return 0


def _train(cfg: RunConfig, arguments: Arguments, world: World) -> TrainSummary:
    held = os.open(arguments.out, os.O_RDONLY)
    try:
        if world.main:
            # The run's lock went with a killed `hiper`; its processes are told to end, and may take a moment.
            fcntl.flock(held, fcntl.LOCK_EX)
        world.barrier()
        return train(cfg, arguments.model, arguments.index, arguments.out, arguments.resume, relay() if world.main else None, world)
    except CollapseError:
        world.barrier()  # all raise it, and the main process may still be writing: the first to end ends the others
        raise
    finally:
        os.close(held)


def _start_logging(rank: int) -> None:
    """Only the main process tells the story, in bare lines: the one that started all says when."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root = logging.getLogger("hiper")
    root.addHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    root.propagate = False


if __name__ == "__main__":
    raise SystemExit(main())
