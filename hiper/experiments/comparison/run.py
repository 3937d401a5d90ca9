"""Running a comparison: the warm start once, where all share it, then every cell as a process of its own, some at a time.

A cell is an ordinary run: its directory holds the config that the comparison has composed, and its process is `hiper resume` on that. What
finished is not done again, what was interrupted resumes. A cell that fails is named, and the others go on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from hiper.config import RunConfig
from hiper.errors import ConfigError, WorkflowError
from hiper.evaluation.write import EVALUATION
from hiper.experiments.comparison.spec import Cell, Comparison
from hiper.pipeline.state import task_index
from hiper.runs.plan import start_of
from hiper.runs.run_dir import begin_run
from hiper.runs.stage import MODEL_FOLDER, STAGES
from hiper.runs.stage_folder import STAGE
from hiper.runtime.lock import locked
from hiper.runtime.module import module_command
from hiper.runtime.process import Process, Processes, last_lines
from hiper.runtime.progress import Progress
from hiper.suites import splits_of

logger = logging.getLogger(__name__)

LEFT = 10.0
"""Seconds that runs may still be in use: where this command was killed, its processes notice and end, which takes some four."""
TAIL_LINES = 12
"""Of a failed process's output, shown in the error."""


def run_comparison(comparison: Comparison, jobs: int, progress: Progress | None = None) -> None:
    """Do whatever of a comparison is not done yet.

    Args:
        comparison: what to compare.
        jobs: cells at a time; give each its share of the cores with `threads`.
        progress: called with (cells done, all).

    Raises:
        ConfigError: an arm's settings do not compose, and nothing was begun; or another process is at work in the warm start's run.
        WorkflowError: the warm start, or cells, failed; the last lines they said are in the message, all of them in the logs it names.
    """
    cells = comparison.cells()
    _wait_until_free([Path(comparison.base_cfg.paths.run), *(Path(cell.cfg.paths.run) for cell in cells)])
    if comparison.one_start:
        _sft(comparison)
    failed: list[str] = []
    with Processes() as work:
        for count, (cell, said) in enumerate(_each(cells, jobs, work), 1):
            logger.info("%s, seed %d: %s", cell.arm, cell.seed, "done" if said is None else "failed")
            if said is not None:
                failed.append(f"{cell.arm}, seed {cell.seed}: {said}")
            if progress is not None:
                progress(count, len(cells))
    if failed:
        raise WorkflowError(f"{len(failed)} of {len(cells)} cells failed; give the command again to resume them.\n" + "\n".join(failed))


def run_base(comparison: Comparison) -> None:
    """Do the warm start that the cells go on from, and its evaluation, whatever of them is not done yet.

    Raises:
        ConfigError, WorkflowError: as of `run_comparison`.
    """
    _wait_until_free([Path(comparison.base_cfg.paths.run)])
    _sft(comparison)


def _wait_until_free(runs: list[Path]) -> None:
    """Wait for what a killed comparison has left at work, so that its cells do not seem failed. One that works on fails its cell alone."""
    over = time.monotonic() + LEFT
    for run in runs:
        while run.is_dir() and time.monotonic() < over:
            try:
                with locked(run):
                    break
            except ConfigError:
                time.sleep(0.2)


def start_evaluation(cfg: RunConfig) -> Path:
    """Folder of the evaluation of the model that a run's training starts from."""
    return Path(cfg.paths.run) / "evaluate" / start_of(cfg)


def _sft(comparison: Comparison) -> None:
    """Tasks, demonstrations and warm start, and that evaluated as every cell's policy will be."""
    cfg, log = comparison.base_cfg, comparison.folder / "base.log"
    run, out = Path(cfg.paths.run), start_evaluation(cfg)
    _begin(cfg)
    for stage in STAGES.values():
        if stage.shared:
            logger.info("%s of comparison %s", stage.command, comparison.name)
            _succeed([stage.command, "--config", str(run)], comparison, log)
    evaluated, made = out / EVALUATION, run / "sft" / STAGE
    if not evaluated.is_file() or evaluated.stat().st_mtime < made.stat().st_mtime:
        model = ["--model", str(run / "sft" / MODEL_FOLDER), "--data", str(task_index(cfg).root), "--out", str(out)]
        splits = [word for split in splits_of(cfg) for word in ("--split", split)]
        settings = [f"evaluate.temperature={cfg.evaluate.temperature}", f"evaluate.seed={cfg.evaluate.seed}"]
        _succeed(["evaluate", *model, *splits, *settings], comparison, log)


def _succeed(arguments: list[str], comparison: Comparison, log: Path) -> None:
    """Run a `hiper` command of the warm start to its end."""
    with Processes() as work:
        process = work.start(module_command("hiper", *arguments), log=log)
        process.wait()
    if process.failed:
        raise WorkflowError(f"the warm start of comparison {comparison.name!r} {_failure(process, log)}")


def _each(cells: Sequence[Cell], jobs: int, work: Processes) -> Iterator[tuple[Cell, str | None]]:
    """Run cells, so many at a time, each to its end; gives each back as it ends: None, or what became of it."""
    waiting, running = deque(cells), dict[Process, Cell]()
    while waiting or running:
        if waiting and len(running) < jobs:
            cell = waiting.popleft()
            try:
                run = _begin(cell.cfg)
            except ConfigError as error:
                yield cell, str(error)
                continue
            running[work.start(module_command("hiper", "resume", "--direct", str(run)), log=_log(cell))] = cell
        else:
            process = work.until_one_ends()
            cell = running.pop(process)
            yield cell, _failure(process, _log(cell)) if process.failed else None


def _begin(cfg: RunConfig) -> Path:
    """Write down what is asked of a run, for the process that does it; the run's directory.

    Raises:
        ConfigError: the directory cannot be made, or another process works in it.
    """
    with locked(Path(cfg.paths.run)):
        return begin_run(cfg)


def _failure(process: Process, log: Path) -> str:
    return "\n".join([f"ended with {process.how}; all it said is in {log}:", *last_lines(log, TAIL_LINES)])


def _log(cell: Cell) -> Path:
    run = Path(cell.cfg.paths.run)
    return run.with_name(run.name + ".log")
