"""Several processes fine-tune together: `sft.processes`.

`fine_tune_in_processes` is `hiper.sft.fine_tune.fine_tune` with others doing the work; as a program this module is one of them. Each reads
the same batches and learns from its share of their rows, see `hiper.sft.sharing`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from hiper.config import RunConfig
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
    arguments = Arguments(demos, out, resume)
    return run_ranks("hiper.sft.ranks", cfg.sft.processes, cfg, arguments, SFTSummary, progress, what="warm start")


def _fine_tune(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> SFTSummary:
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)  # it warns of processes that its own launcher did not start
    return fine_tune(cfg, arguments.demos, arguments.out, progress, arguments.resume, world)


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _fine_tune, lambda arguments: arguments.out.parent))
