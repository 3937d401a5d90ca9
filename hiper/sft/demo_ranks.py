"""Several processes write demonstrations together: `demos.processes`.

`write_demos_in_processes` is `hiper.sft.demos.write_demos` with others doing the work; as a program this module is one of them. Each plays
its share of the tasks and writes a file of its own, which are joined in the order of the processes.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from hiper.config import RunConfig
from hiper.runs.ranks import be_rank, run_ranks
from hiper.runtime.distributed import World
from hiper.runtime.files import replacing
from hiper.runtime.progress import Progress
from hiper.sft.demos import DemosSummary, Share, summarise, write_share
from hiper.suites.tasks import TaskIndex


@dataclass(frozen=True)
class Arguments:
    """What the processes share."""

    index: TaskIndex
    parts: Path
    """Folder of the files that they write."""


def write_demos_in_processes(index: TaskIndex, cfg: RunConfig, out: Path, progress: Progress | None = None) -> DemosSummary:
    """Write with `demos.processes` processes; arguments and errors as of `hiper.sft.demos.write_demos`, and errors of `run_ranks`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    cpu = replace(cfg, device="cpu")  # they compute nothing: none takes a GPU
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as name:
        arguments = Arguments(index, Path(name))
        size = cfg.demos.processes
        shares = run_ranks("hiper.sft.demo_ranks", size, cpu, arguments, list[Share], progress, what="demos stage", resumable=False)
        with replacing(out) as temporary, temporary.open("wb") as whole:
            for rank in range(size):
                with _part(arguments, rank).open("rb") as part:
                    shutil.copyfileobj(part, whole, 2**20)
    return summarise(out, shares)


def _write(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> list[Share]:
    share = write_share(arguments.index, cfg, _part(arguments, world.rank), world.rank, world.size, progress)
    return world.gather([share], Share)


def _part(arguments: Arguments, rank: int) -> Path:
    return arguments.parts / f"{rank}.jsonl"


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _write, lambda arguments: arguments.parts))
