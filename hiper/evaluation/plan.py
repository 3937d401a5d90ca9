"""What an evaluation is to play, in chunks of tasks, and playing one of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.config import RunConfig
from hiper.evaluation.chunks import Chunks, chunk_seed
from hiper.rollout.trajectory import Trajectory
from hiper.runs.stage_folder import digest
from hiper.runtime.progress import Progress
from hiper.suites import splits_of, suite_of
from hiper.suites.tasks import Task, TaskIndex

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Who plays, and where to."""

    model: Path | str
    """Directory or hub id."""
    out: Path
    """Directory of the evaluation; its name is the evaluation's."""
    planner: Path | str | None = None
    """Another model, which writes switch and subgoal of every reply; `model` then writes the action alone."""


@dataclass(frozen=True)
class Plan:
    """One evaluation, begun or not."""

    job: Job
    root: Path
    """Of the tasks."""
    meta: dict[str, Any]
    """What is played, and how; JSON."""
    parts: list[list[Task]]
    """The tasks of each chunk."""
    chunks: Chunks
    """Those that are finished."""
    missing: list[int]
    """Numbers of those that were not when this was planned."""


def plan(cfg: RunConfig, job: Job, index: TaskIndex) -> Plan:
    """What is to be played of an evaluation; what was played before is kept, and told of.

    Raises:
        DataError: a split has no tasks.
    """
    chosen = {split: choose(index.split(split), cfg.evaluate.limit) for split in splits_of(cfg)}
    entries = [entry for tasks in chosen.values() for entry in tasks]
    meta = _meta(cfg, job, index, chosen)
    begun = {"meta": meta, "models": [_model_digest(one) for one in (job.model, job.planner)], "chunk": cfg.evaluate.chunk}
    chunks = Chunks(job.out, begun)
    parts = [entries[first : first + cfg.evaluate.chunk] for first in range(0, len(entries), cfg.evaluate.chunk)]
    missing = [number for number, tasks in enumerate(parts) if chunks.read(number, tasks) is None]
    kept = len(entries) - sum(len(parts[number]) for number in missing)
    if kept:
        logger.info("%s: %d tasks were played before and are kept", job.out.name, kept)
    return Plan(job, index.root, meta, parts, chunks, missing)


class ChunkPlayer:
    """Plays chunks with a job's model."""

    def __init__(self, cfg: RunConfig, job: Job, root: Path) -> None:
        """Load the model.

        Args:
            cfg: temperature and seed (`evaluate`), protocol, environment and rollout settings.
            job: who plays.
            root: of the tasks.

        Raises:
            ModelError: the model does not load.
        """
        from hiper.rollout.player import TaskPlayer  # here, so that reading evaluations loads neither torch nor transformers

        self._cfg = cfg
        self._player = TaskPlayer.start(cfg, job.model, root, job.planner)

    def play(self, number: int, tasks: Sequence[Task], progress: Progress | None = None) -> list[Trajectory]:
        """Play a chunk, the same whatever was played before.

        Args:
            number: of the chunk; it decides the draws.
            tasks: its tasks.
            progress: called with (tasks done, all of the chunk).
        """
        import torch

        from hiper.runtime.device import pick_device

        generator = torch.Generator(pick_device(self._cfg)).manual_seed(chunk_seed(self._cfg.evaluate.seed, number))
        episodes = self._player.play(tasks, self._cfg.evaluate.temperature, generator, progress)
        return [episode.trajectory for episode in episodes]

    def close(self) -> None:
        """Let the model go."""
        self._player.sampler.close()


def _model_digest(model: Path | str | None) -> str | None:
    return digest(Path(model)) if model is not None and Path(model).is_dir() else None if model is None else str(model)


def choose(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """All tasks, or `limit` of them: an arbitrary mix of task types, the same for every model and seed."""
    if limit is None or limit >= len(tasks):
        return list(tasks)
    kept = set(sorted(tasks, key=lambda task: hashlib.sha256(task.path.encode()).digest())[:limit])
    return [task for task in tasks if task in kept]


def _meta(cfg: RunConfig, job: Job, index: TaskIndex, chosen: dict[str, list[Task]]) -> dict[str, Any]:
    trained = {task.digest for task in index.entries if task.split == "train" and task.digest}
    return {
        "model": str(job.model),
        "planner": None if job.planner is None else str(job.planner),
        "splits": {
            split: {
                "tasks": len(tasks),
                "available": len(index.split(split)),
                "in_train": sum(task.digest in trained for task in tasks) if trained else None,
                "sha256": hashlib.sha256("\n".join(task.path for task in tasks).encode()).hexdigest(),
            }
            for split, tasks in chosen.items()
        },
        "limit": cfg.evaluate.limit,
        "suite": cfg.env.name,
        **suite_of(cfg).judged_by(cfg),
        "source": cfg.tasks.source.value,
        "temperature": cfg.evaluate.temperature,
        "seed": cfg.evaluate.seed,
        "constrain": cfg.rollout.constrain.value,
        "max_turns": cfg.env.max_turns,
        "max_tokens": cfg.rollout.max_tokens,
        "context": cfg.protocol.context.value,
        "dialect": cfg.protocol.dialect.value,
        "style": cfg.protocol.style.value,
        "run_seed": cfg.seed,
    }
