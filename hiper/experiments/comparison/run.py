"""Running a comparison: the warm start once, where all share it, then every cell as a process of its own, some at a time.

A cell is an ordinary run: what finished is not done again, what was interrupted resumes, and `hiper resume` works on its folder. A cell
that fails is named, and the others go on.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Self

from hiper.config import RunConfig
from hiper.errors import ConfigError, WorkflowError
from hiper.evaluation.write import EVALUATION
from hiper.experiments.comparison.spec import Cell, Comparison
from hiper.pipeline.state import task_index
from hiper.runs.plan import start_of
from hiper.runs.stage import MODEL_FOLDER, STAGES
from hiper.runs.stage_folder import STAGE
from hiper.runtime.lock import locked
from hiper.runtime.module import module_command
from hiper.runtime.parent_death import guarded
from hiper.suites import splits_of

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

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
        ConfigError: an arm's settings do not compose; nothing was begun.
        WorkflowError: the warm start, or cells, failed; the last lines they said are in the message, all of them in the logs it names.
    """
    cells = comparison.cells()
    _wait_until_free([Path(comparison.base_cfg.paths.run), *(Path(cell.cfg.paths.run) for cell in cells)])
    failed: list[str] = []
    with _Processes() as work:
        if comparison.one_start:
            _sft(comparison, work)
        with ThreadPoolExecutor(jobs) as pool:
            try:
                running = {pool.submit(work.hiper, ["run", "--direct", *cell.overrides], _log(cell)): cell for cell in cells}
                for count, future in enumerate(as_completed(running), 1):
                    cell, said = running[future], future.result()
                    logger.info("%s, seed %d: %s", cell.arm, cell.seed, "done" if said is None else "failed")
                    if said is not None:
                        failed.append(f"{cell.arm}, seed {cell.seed} ({_log(cell)}):\n{said}")
                    if progress is not None:
                        progress(count, len(cells))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                work.terminate()  # before the pool is waited for
                raise
    if failed:
        raise WorkflowError(f"{len(failed)} of {len(cells)} cells failed; give the command again to resume them.\n" + "\n".join(failed))


def run_base(comparison: Comparison) -> None:
    """Do the warm start that the cells go on from, and its evaluation, whatever of them is not done yet.

    Raises:
        WorkflowError: it failed; as of `run_comparison`.
    """
    _wait_until_free([Path(comparison.base_cfg.paths.run)])
    with _Processes() as work:
        _sft(comparison, work)


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


def _sft(comparison: Comparison, work: _Processes) -> None:
    """Tasks, demonstrations and warm start, and that evaluated as every cell's policy will be."""
    cfg, log = comparison.base_cfg, comparison.folder / "base.log"
    run, out = Path(cfg.paths.run), start_evaluation(cfg)
    commands = [[stage.command, *comparison.base, f"paths.run={run}"] for stage in STAGES.values() if stage.shared]
    for command in commands:
        logger.info("%s of comparison %s", command[0], comparison.name)
        _succeed(work.hiper(command, log), comparison, log)
    evaluated, made = out / EVALUATION, run / "sft" / STAGE
    if not evaluated.is_file() or evaluated.stat().st_mtime < made.stat().st_mtime:
        model = ["--model", str(run / "sft" / MODEL_FOLDER), "--data", str(task_index(cfg).root), "--out", str(out)]
        splits = [word for split in splits_of(cfg) for word in ("--split", split)]
        settings = [f"evaluate.temperature={cfg.evaluate.temperature}", f"evaluate.seed={cfg.evaluate.seed}"]
        _succeed(work.hiper(["evaluate", *model, *splits, *settings], log), comparison, log)


def _succeed(said: str | None, comparison: Comparison, log: Path) -> None:
    if said is not None:
        raise WorkflowError(f"the warm start of comparison {comparison.name!r} failed; all it said is in {log}:\n{said}")


def _log(cell: Cell) -> Path:
    run = Path(cell.cfg.paths.run)
    return run.with_name(run.name + ".log")


class _Processes:
    """Runs `hiper` commands in processes of their own, which end with this one."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.terminate()

    def hiper(self, arguments: list[str], log: Path) -> str | None:
        """None when it succeeded, or the last lines it said."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            command = guarded(module_command("hiper", *arguments))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        self._running.add(process)
        code = process.wait()
        self._running.discard(process)
        return None if code == 0 else "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])

    def terminate(self) -> None:
        """Let what runs save itself and end."""
        for process in list(self._running):
            process.terminate()
