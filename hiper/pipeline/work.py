"""What each stage does: a function of its name, typed config in, files in the stage's folder out, a few facts back.

What they need is imported where they use it, so that a stage asks only for the packages it needs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.config import RunConfig
from hiper.errors import CheckpointError
from hiper.pipeline.state import finished_folder, task_index
from hiper.runs.plan import has_sft, start_of
from hiper.runs.stage import BASE_FOLDER, DEMOS_FILE, INDEX_FILE, METRICS_FILE, MODEL_FOLDER, REPORT_FILE
from hiper.runs.stage_folder import CHECKPOINTS, Fact, StageFolder
from hiper.runtime.files import write_json
from hiper.runtime.progress import Progress
from hiper.suites import suite_of


@dataclass(frozen=True)
class StageArguments:
    """What the function of a stage takes."""

    cfg: RunConfig
    folder: StageFolder
    """Where it works; it puts its facts there."""
    progress: Progress | None
    timestamps: bool
    """Say when, how long and on what machine, in a stage whose files have room for it."""


def tasks(arguments: StageArguments) -> None:
    """Generate the tasks, or find (and fetch, when missing) the official ones, and index them.

    Raises:
        DataError: an official directory without tasks, or a task file that cannot be played.
    """
    cfg, folder = arguments.cfg, arguments.folder
    suite = suite_of(cfg)
    index = suite.index_with_digests(suite.data(folder.path / "data", cfg, arguments.progress), cfg)
    index.save(folder.path / INDEX_FILE)
    folder.facts.update({split: sum(counts.values()) for split, counts in index.counts().items()})
    folder.facts.update({f"{split} in train, too": count for split, count in index.repeated().items()})


def demos(arguments: StageArguments) -> None:
    """Let the expert play training tasks and write what it did as plan-execute conversations."""
    from hiper.sft.demo_ranks import write_demos_in_processes
    from hiper.sft.demos import write_demos as write_demos_here

    cfg, folder = arguments.cfg, arguments.folder
    write_demos = write_demos_here if cfg.demos.processes == 1 else write_demos_in_processes
    summary = write_demos(task_index(cfg), cfg, folder.path / DEMOS_FILE, arguments.progress)
    folder.facts.update(_facts(summary))


def sft(arguments: StageArguments) -> None:
    """Fine-tune the base model on the demonstrations."""
    from hiper.runtime.device import uses_cuda
    from hiper.runtime.distributed import check_cpu
    from hiper.sft.fine_tune import fine_tune as fine_tune_here
    from hiper.sft.ranks import fine_tune_in_processes

    cfg, folder = arguments.cfg, arguments.folder
    check_cpu("sft.processes", cfg.sft.processes, uses_cuda(cfg))
    fine_tune = fine_tune_here if cfg.sft.processes == 1 else fine_tune_in_processes
    demos = finished_folder(cfg, "demos") / DEMOS_FILE
    summary = fine_tune(cfg, demos, folder.path / MODEL_FOLDER, arguments.progress, resume=folder.resumed)
    folder.facts.update(_facts(summary))


def train(arguments: StageArguments) -> None:
    """Train with the chosen estimator; continues from the newest good checkpoint of an unfinished attempt."""
    from hiper.runtime.device import uses_cuda
    from hiper.runtime.distributed import check_processes
    from hiper.train.ranks import train_in_processes
    from hiper.train.trainer import train as train_here

    cfg, folder = arguments.cfg, arguments.folder
    check_processes("trainer.processes", cfg.trainer.processes, uses_cuda(cfg))
    optimise = train_here if cfg.trainer.processes == 1 else train_in_processes
    if has_sft(cfg):
        model = finished_folder(cfg, "sft") / MODEL_FOLDER
    else:
        from hiper.sft.base_model import write_base_model

        model = folder.path / BASE_FOLDER
        write_base_model(cfg, task_index(cfg), model)
    summary = optimise(cfg, model, task_index(cfg), folder.path, resume=folder.resumed, progress=arguments.progress)
    folder.facts.update(_facts(summary))


def evaluate(arguments: StageArguments) -> None:
    """Play the full splits with the trained model, and with the model it came from: `sft`, or `base` where the suite has no expert."""
    from hiper.evaluation.evaluate import evaluate_all
    from hiper.evaluation.plan import Job

    cfg, folder = arguments.cfg, arguments.folder
    index = task_index(cfg)
    train = finished_folder(cfg, "train")
    models = {"trained": train / MODEL_FOLDER}
    if cfg.evaluate.baseline:
        start = finished_folder(cfg, "sft") / MODEL_FOLDER if has_sft(cfg) else train / BASE_FOLDER
        models = {start_of(cfg): start, **models}
    jobs = [Job(model, folder.path / name) for name, model in models.items()]
    found: dict[str, dict[str, float]] = {}
    for summary in evaluate_all(cfg, jobs, index, folder.path, arguments.progress):
        name = summary.path.name
        found[name] = _success(summary)
        found["tasks"] = {split: result.tasks for split, result in summary.splits.items()}
        folder.facts.update({f"{name} {split}": value for split, value in _success(summary).items()})
    write_json(folder.path / METRICS_FILE, found)


def report(arguments: StageArguments) -> None:
    """Write one self-contained page about the run, and its curves as SVG and CSV files."""
    from hiper.report import write_report

    if arguments.progress is not None:
        arguments.progress(0, 1)
    write_report(Path(arguments.cfg.paths.run), arguments.folder.path / REPORT_FILE, timestamps=arguments.timestamps)
    arguments.folder.facts["page"] = f"report/{REPORT_FILE}"
    if arguments.progress is not None:
        arguments.progress(1, 1)


def not_beyond(partial: Path, cfg: RunConfig) -> bool:
    """Whether a training has not gone further than it is asked to go."""
    from hiper.runs.checkpoint import latest_checkpoint, load_state

    try:
        newest = latest_checkpoint(partial / CHECKPOINTS)
        state = load_state(newest) if newest is not None else {"iteration": 0, "env_turns": 0}
    except CheckpointError:
        return True  # the training itself says what is wrong with them
    turns = cfg.trainer.env_turns
    return bool(state["iteration"] <= cfg.trainer.iterations and (turns is None or state["env_turns"] <= turns))


def _facts(summary: Any) -> dict[str, Fact]:
    """The figures of a library summary; its paths are no facts, they move with the run."""
    return {name: value for name, value in dataclasses.asdict(summary).items() if isinstance(value, (int, float))}


def _success(summary: Any) -> dict[str, float]:
    return {split: result.success for split, result in summary.splits.items()}
