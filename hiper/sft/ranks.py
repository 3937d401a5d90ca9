"""Several processes fine-tune together: `sft.processes`.

`fine_tune_in_processes` is `hiper.sft.fine_tune.fine_tune` with others doing the work; as a program this module is one of them. Each reads
the same batches and learns from its share of their rows, see `hiper.sft.sharing`.
"""

from __future__ import annotations

import fcntl
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from hiper.config import RunConfig
from hiper.errors import CollapseError
from hiper.runs.ranks import be_rank, run_ranks
from hiper.runtime.distributed import World
from hiper.runtime.progress import Progress
from hiper.sft.fine_tune import SFTSummary, fine_tune


@dataclass(frozen=True)
class Arguments:
    """The arguments of `fine_tune`, but for the config."""

    demos: Path
    out: Path
    resume: bool


def fine_tune_in_processes(cfg: RunConfig, demos: Path, out: Path, progress: Progress | None = None, resume: bool = False) -> SFTSummary:
    """Fine-tune with `sft.processes` processes; arguments and errors as of `hiper.sft.fine_tune.fine_tune`, and of `run_ranks`."""
    return run_ranks("hiper.sft.ranks", cfg.sft.processes, cfg, Arguments(demos, out, resume), SFTSummary, progress)


def _fine_tune(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> SFTSummary:
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)  # it warns of processes that its own launcher did not start
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(arguments.out.parent, os.O_RDONLY)
    try:
        if world.main:
            fcntl.flock(held, fcntl.LOCK_EX)  # the run's lock went with a killed `hiper`; its processes may take a moment to end
        world.barrier()
        return fine_tune(cfg, arguments.demos, arguments.out, progress, arguments.resume, world)
    except CollapseError:
        world.barrier()  # all raise it: the first to end ends the others
        raise
    finally:
        os.close(held)


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _fine_tune))
