"""Several processes train together: `trainer.processes`.

`train_in_processes` is `hiper.train.trainer.train` with others doing the work; as a program this module is one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiper.config import RunConfig
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
    return run_ranks("hiper.train.ranks", cfg.trainer.processes, cfg, arguments, TrainSummary, progress, what="training")


def _train(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> TrainSummary:
    return train(cfg, arguments.model, arguments.index, arguments.out, arguments.resume, progress, world)


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _train, lambda arguments: arguments.out))
