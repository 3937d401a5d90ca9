"""The evaluate stage."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.config import RunConfig
from hiper.evaluation.chunks import Chunks, chunk_seed
from hiper.evaluation.write import write_evaluation
from hiper.rollout.trajectory import Trajectory
from hiper.runs.run_dir import environment
from hiper.runs.stage_folder import ENVIRONMENT, digest
from hiper.runtime.files import write_json
from hiper.runtime.progress import Progress
from hiper.suites import splits_of, suite_of
from hiper.suites.tasks import Task, TaskIndex

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitResult:
    """Success on one split."""

    tasks: int
    successes: int
    success: float
    """Share of tasks won."""
    low: float
    high: float
    """Wilson's 95 % interval."""
    score: float
    """Mean of what was reached of the goals, 0 to 1."""

    def __str__(self) -> str:
        interval = f"95 % interval {100 * self.low:.1f}-{100 * self.high:.1f}"
        text = f"{self.successes} of {self.tasks} tasks won, {100 * self.success:.1f} % ({interval})"
        return text if self.score == self.success else f"{text}, mean score {self.score:.3f}"


@dataclass(frozen=True)
class EvaluateSummary:
    """What an evaluation found, and where it lies."""

    path: Path
    """The evaluation's directory, holding evaluation.json and trajectories.jsonl."""
    splits: dict[str, SplitResult]

    def __str__(self) -> str:
        return "\n".join(f"{split}: {result}" for split, result in self.splits.items())


def evaluate(
    cfg: RunConfig,
    model: Path | str,
    index: TaskIndex,
    out: Path,
    progress: Progress | None = None,
    planner: Path | str | None = None,
    keep_chunks: bool = False,
) -> EvaluateSummary:
    """Play the configured splits with a model and write what happened; an evaluation that was interrupted goes on with the tasks left.

    `evaluation.json` says what was played, how, and what came of it: the same bytes for the same inputs, on CPU. When, by which
    versions and on what machine is in `environment.json` beside it.

    Args:
        cfg: splits, temperature, limit and seed (`evaluate`), protocol, environment and rollout settings.
        model: directory or hub id.
        index: the tasks.
        out: directory of this evaluation; its name is the evaluation's.
        progress: called with (tasks done, all).
        planner: another model, which writes switch and subgoal of every reply; `model` then writes the action alone.
        keep_chunks: leave the finished chunks beside the evaluation, for a caller who may be interrupted before all of its work is done.

    Raises:
        DataError: a split has no tasks, or the result cannot be written.
    """
    chosen = {split: choose(index.split(split), cfg.evaluate.limit) for split in splits_of(cfg)}
    entries = [entry for tasks in chosen.values() for entry in tasks]
    meta = _meta(cfg, model, planner, index, chosen)
    chunks = Chunks(out, {"meta": meta, "models": [_model_digest(one) for one in (model, planner)], "chunk": cfg.evaluate.chunk})
    trajectories = _play(cfg, model, planner, index, entries, chunks, progress)
    record = write_evaluation(out.parent, out.name, trajectories, meta, suite_of(cfg))
    write_json(out / ENVIRONMENT, environment())
    if not keep_chunks:
        chunks.delete()
    splits = {
        split: SplitResult(*(found[name] for name in ("tasks", "successes", "success_rate", "wilson_low", "wilson_high", "score_mean")))
        for split, found in record["splits"].items()
    }
    for split, result in splits.items():
        logger.info("%s on %s: %s", out.name, split, result)
    return EvaluateSummary(out, splits)


def _play(
    cfg: RunConfig,
    model: Path | str,
    planner: Path | str | None,
    index: TaskIndex,
    entries: Sequence[Task],
    chunks: Chunks,
    progress: Progress | None,
) -> list[Trajectory]:
    """One trajectory a task, in order: those of finished chunks as they were kept, the others played now."""
    import torch  # here, so that reading evaluations loads neither torch nor transformers

    from hiper.rollout.player import TaskPlayer
    from hiper.runtime.device import pick_device

    player: TaskPlayer | None = None
    trajectories: list[Trajectory] = []
    for number, first in enumerate(range(0, len(entries), cfg.evaluate.chunk)):
        tasks = entries[first : first + cfg.evaluate.chunk]
        kept = chunks.read(number, tasks)
        if kept is None:
            player = player or TaskPlayer.start(cfg, model, index.root, planner)
            generator = torch.Generator(pick_device(cfg)).manual_seed(chunk_seed(cfg.evaluate.seed, number))
            report = None if progress is None else _offset(progress, len(trajectories), len(entries))
            kept = [episode.trajectory for episode in player.play(tasks, cfg.evaluate.temperature, generator, report)]
            chunks.write(number, kept)
        else:
            logger.info("%d tasks were played before and are kept", len(tasks))
        trajectories += kept
    if player is not None:
        player.sampler.close()
    return trajectories


def _offset(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _model_digest(model: Path | str | None) -> str | None:
    return digest(Path(model)) if model is not None and Path(model).is_dir() else None if model is None else str(model)


def choose(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """All tasks, or `limit` of them: an arbitrary mix of task types, the same for every model and seed."""
    if limit is None or limit >= len(tasks):
        return list(tasks)
    kept = set(sorted(tasks, key=lambda task: hashlib.sha256(task.path.encode()).digest())[:limit])
    return [task for task in tasks if task in kept]


def _meta(cfg: RunConfig, model: Path | str, planner: Path | str | None, index: TaskIndex, chosen: dict[str, list[Task]]) -> dict[str, Any]:
    trained = {task.digest for task in index.entries if task.split == "train" and task.digest}
    return {
        "model": str(model),
        "planner": None if planner is None else str(planner),
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
