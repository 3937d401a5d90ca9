"""Several processes play the chunks of evaluations: `evaluate.processes`.

`play_in_processes` leaves the chunks on disk, where `hiper.evaluation.evaluate` finds them; as a program this module is one of the
processes. A chunk is played as one process alone would play it, so their number changes no result.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from hiper.config import RunConfig
from hiper.evaluation.chunks import is_finished, write_chunk
from hiper.evaluation.plan import ChunkPlayer, Job, Plan
from hiper.runs.ranks import be_rank, run_ranks
from hiper.runtime.device import cpu_threads, uses_cuda
from hiper.runtime.distributed import World, check_cpu
from hiper.runtime.progress import Progress
from hiper.suites.tasks import Task

POLL = 0.2
"""Seconds between two looks at the chunks of the others."""


@dataclass(frozen=True)
class Chunk:
    """A chunk to be played."""

    model: str
    planner: str | None
    folder: Path
    """Of the evaluation's chunks."""
    number: int
    tasks: list[Task]

    @property
    def job(self) -> Job:
        """Who plays, and where to."""
        return Job(self.model, self.folder.parent, self.planner)


@dataclass(frozen=True)
class Arguments:
    """What the processes share."""

    chunks: list[Chunk]
    """In the order of the evaluations."""
    root: Path
    """Of the tasks."""
    folder: Path
    """What they write lies in it or beneath it."""
    kept: int
    """Tasks of chunks that were finished before."""

    @property
    def total(self) -> int:
        """Tasks of all chunks."""
        return self.kept + sum(len(chunk.tasks) for chunk in self.chunks)

    @property
    def done(self) -> int:
        """Tasks of the chunks that are finished by now, whoever played them."""
        return self.kept + sum(len(chunk.tasks) for chunk in self.chunks if is_finished(chunk.folder, chunk.number))


def play_in_processes(cfg: RunConfig, plans: Sequence[Plan], folder: Path, progress: Progress | None = None) -> None:
    """Play what is missing of evaluations with `evaluate.processes` processes; not where it is a single chunk, which they cannot share.

    Args:
        cfg: as of `hiper.evaluation.evaluate`.
        plans: the evaluations.
        folder: they lie in it or beneath it.
        progress: called with (tasks done, all), of all evaluations together.

    Raises:
        ConfigError: there is a GPU.
        HiperError: what a process raised, see `run_ranks`.
    """
    check_cpu("evaluate.processes", cfg.evaluate.processes, uses_cuda(cfg))
    chunks = [chunk for planned in plans for chunk in _missing(planned)]
    if len(chunks) < 2:
        return
    for planned in plans:
        planned.chunks.begin()
    tasks = sum(len(part) for planned in plans for part in planned.parts)
    arguments = Arguments(chunks, plans[0].root, folder, tasks - sum(len(chunk.tasks) for chunk in chunks))
    if progress is not None:
        progress(arguments.kept, arguments.total)
    run_ranks("hiper.evaluation.ranks", min(cfg.evaluate.processes, len(chunks)), cfg, arguments, int, progress, what="evaluation")


def _missing(planned: Plan) -> list[Chunk]:
    job = planned.job
    planner = None if job.planner is None else str(job.planner)
    return [Chunk(str(job.model), planner, planned.chunks.folder, number, planned.parts[number]) for number in planned.missing]


def _play(cfg: RunConfig, arguments: Arguments, world: World, progress: Progress | None) -> int:
    """Play this process's share; the main process stays until all have, with the folder held, and tells how far they are."""
    cfg = replace(cfg, threads=cpu_threads(cfg, world))
    for job, chunks in groupby(world.shard(arguments.chunks), key=lambda chunk: chunk.job):
        player = ChunkPlayer(cfg, job, arguments.root)
        for chunk in chunks:
            played = player.play(chunk.number, chunk.tasks, None if progress is None else _beside(progress, arguments))
            write_chunk(chunk.folder, chunk.number, played)
        player.close()
    while progress is not None and (done := arguments.done) < arguments.total:
        progress(done, arguments.total)
        time.sleep(POLL)
    if progress is not None:
        progress(arguments.total, arguments.total)
    return arguments.total


def _beside(progress: Progress, arguments: Arguments) -> Progress:
    """Reports a chunk that is being played beside what all have finished."""
    return lambda done, _: progress(arguments.done + done, arguments.total)


if __name__ == "__main__":
    raise SystemExit(be_rank(Arguments, _play, lambda arguments: arguments.folder))
