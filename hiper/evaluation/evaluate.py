"""The evaluate stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hiper.config import RunConfig
from hiper.evaluation.chunks import write_chunk
from hiper.evaluation.plan import ChunkPlayer, Job, Plan, plan
from hiper.evaluation.write import write_evaluation
from hiper.rollout.trajectory import Trajectory
from hiper.runs.run_dir import environment
from hiper.runs.stage_folder import ENVIRONMENT
from hiper.runtime.files import write_json
from hiper.runtime.progress import Progress
from hiper.suites import suite_of
from hiper.suites.tasks import TaskIndex

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
    cfg: RunConfig, model: Path | str, index: TaskIndex, out: Path, progress: Progress | None = None, planner: Path | str | None = None
) -> EvaluateSummary:
    """Play the configured splits with a model and write what happened; an evaluation that was interrupted goes on with the tasks left.

    `evaluation.json` says what was played, how, and what came of it: the same bytes for the same inputs, on CPU. When, by which
    versions and on what machine is in `environment.json` beside it.

    Args:
        cfg: splits, temperature, limit, seed and processes (`evaluate`), protocol, environment and rollout settings.
        model: directory or hub id.
        index: the tasks.
        out: directory of this evaluation; its name is the evaluation's.
        progress: called with (tasks done, all).
        planner: another model, which writes switch and subgoal of every reply; `model` then writes the action alone.

    Raises:
        ConfigError: `evaluate.processes` on a GPU.
        DataError: a split has no tasks, or the result cannot be written.
    """
    (summary,) = evaluate_all(cfg, [Job(model, out, planner)], index, out, progress)
    return summary


def evaluate_all(
    cfg: RunConfig, jobs: Sequence[Job], index: TaskIndex, folder: Path, progress: Progress | None = None
) -> list[EvaluateSummary]:
    """As `evaluate`, several models, whose tasks the processes share as one lot. Finished chunks are kept until all is written.

    Args:
        cfg: as of `evaluate`, and so are `index` and the errors.
        jobs: who plays, and where the evaluations go.
        index: the tasks.
        folder: what they write lies in it or beneath it.
        progress: called with (tasks done, all): with one process of one model after the other, with several of all together.
    """
    plans = [plan(cfg, job, index) for job in jobs]
    if cfg.evaluate.processes > 1:
        from hiper.evaluation.ranks import play_in_processes

        play_in_processes(cfg, plans, folder, progress)
    summaries = [_write(cfg, planned, progress) for planned in plans]
    for planned in plans:
        planned.chunks.delete()
    return summaries


def _write(cfg: RunConfig, planned: Plan, progress: Progress | None) -> EvaluateSummary:
    """Play what is left of an evaluation, and write it."""
    out = planned.job.out
    trajectories = _play(cfg, planned, progress)
    record = write_evaluation(out.parent, out.name, trajectories, planned.meta, suite_of(cfg))
    write_json(out / ENVIRONMENT, environment())
    splits = {
        split: SplitResult(*(found[name] for name in ("tasks", "successes", "success_rate", "wilson_low", "wilson_high", "score_mean")))
        for split, found in record["splits"].items()
    }
    for split, result in splits.items():
        logger.info("%s on %s: %s", out.name, split, result)
    return EvaluateSummary(out, splits)


def _play(cfg: RunConfig, planned: Plan, progress: Progress | None) -> list[Trajectory]:
    """One trajectory a task, in order: those of finished chunks as they were kept, the others played now."""
    player: ChunkPlayer | None = None
    trajectories: list[Trajectory] = []
    total = sum(map(len, planned.parts))
    for number, tasks in enumerate(planned.parts):
        kept = planned.chunks.read(number, tasks)
        if kept is None:
            player = player or ChunkPlayer(cfg, planned.job, planned.root)
            report = None if progress is None else _offset(progress, len(trajectories), total)
            kept = player.play(number, tasks, report)
            planned.chunks.begin()
            write_chunk(planned.chunks.folder, number, kept)
        trajectories += kept
    if player is not None:
        player.close()
    return trajectories


def _offset(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)
