"""The six stages of an experiment, each one function: a config in, files under the run directory out, a small summary back.

    games -> demos -> warm_start -> train -> evaluate -> report

The same functions run in a plain Python call, as `hiper` sub-commands and as tasks of the Prefect flow. What they need is
imported where they use it, so that a stage asks only for the packages it needs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiper.config import RunConfig
from hiper.errors import CheckpointError, ConfigError, DataError
from hiper.pipeline.preflight import SHARED
from hiper.runs.fingerprint import EXTENDABLE, SETTINGS, UPSTREAM, differences, stage_fingerprint, stage_settings, told
from hiper.runs.run_dir import save_config
from hiper.runs.stage_folder import (
    CONFIG,
    Begun,
    Fact,
    StageFolder,
    begun_stage,
    clear_partial,
    continue_finished,
    read_stage,
    read_times,
    recover,
    remove,
    stage_folder,
    verify_stage,
)
from hiper.runtime.files import write_json
from hiper.runtime.lock import working
from hiper.runtime.progress import Progress
from hiper.suites import suite_of

if TYPE_CHECKING:
    from hiper.suites.tasks import GameIndex

__all__ = ["SETTINGS", "STAGES", "UPSTREAM", "StageResult", "stage_fingerprint"]

logger = logging.getLogger(__name__)

INDEX_FILE = "index.json"
DEMOS_FILE = "demos.jsonl"
MODEL_FOLDER = "model"
METRICS_FILE = "metrics.json"
"""Success by model and split, and the number of games, for tools that compare runs."""
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class StageResult:
    """What a stage hands back."""

    stage: str
    directory: Path
    seconds: float
    reused: bool
    """Whether it had finished before under the same settings, so that nothing was done."""
    facts: dict[str, Fact]
    """A few figures worth a line: counts, success rates."""

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {_figure(value)}" for name, value in self.facts.items() if value is not None)
        took = "already done" if self.reused else f"{self.seconds:.1f} s"
        return f"{self.stage.replace('_', ' ')}: {took}" + (f"; {figures}" if figures else "")


def games(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Generate the games, or find (and fetch, when missing) the official ones, and index them.

    Raises:
        DataError: an official directory without games, or a game file that cannot be played.
    """

    def work(folder: StageFolder) -> None:
        suite = suite_of(cfg)
        index = suite.index(suite.data(folder.path / "data", cfg, progress), cfg)
        index.save(folder.path / INDEX_FILE)
        folder.facts.update({split: sum(counts.values()) for split, counts in index.counts().items()})

    return _stage("games", cfg, work, force)


def demos(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Let the expert play training games and write what it did as plan-execute conversations."""

    def work(folder: StageFolder) -> None:
        from hiper.sft.demos import write_demos

        summary = write_demos(game_index(cfg), cfg, folder.path / DEMOS_FILE, progress)
        folder.facts.update(_facts(summary))

    return _stage("demos", cfg, work, force)


def warm_start(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Fine-tune the base model on the demonstrations."""

    def work(folder: StageFolder) -> None:
        from hiper.sft.fine_tune import warm_start as fine_tune

        demos = _directory(cfg, "demos") / DEMOS_FILE
        summary = fine_tune(cfg, demos, folder.path / MODEL_FOLDER, progress, resume=folder.resumed)
        folder.facts.update(_facts(summary))

    return _stage("warm_start", cfg, work, force, resumable=True)


def train(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Train with Hierarchical Advantage Estimation; continues from the newest good checkpoint of an unfinished attempt."""

    def work(folder: StageFolder) -> None:
        from hiper.runtime.device import uses_cuda
        from hiper.runtime.distributed import check_processes
        from hiper.train.launch import train_in_processes
        from hiper.train.trainer import train as train_here

        check_processes(cfg.trainer.processes, uses_cuda(cfg))
        optimise = train_here if cfg.trainer.processes == 1 else train_in_processes
        model = _directory(cfg, "warm_start") / MODEL_FOLDER
        summary = optimise(cfg, model, game_index(cfg), folder.path, resume=folder.resumed, progress=progress)
        folder.facts.update(_facts(summary))

    return _stage("train", cfg, work, force, resumable=True, fits=lambda partial: _not_beyond(partial, cfg))


def evaluate(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Play the full splits with the trained model, and with the warm start it came from."""

    def work(folder: StageFolder) -> None:
        from hiper.evaluation import evaluate as play
        from hiper.evaluation.chunks import FOLDER as CHUNKS

        index = game_index(cfg)
        models = {"trained": _directory(cfg, "train") / MODEL_FOLDER}
        if cfg.evaluate.baseline:
            models = {"warm_start": _directory(cfg, "warm_start") / MODEL_FOLDER, **models}
        found: dict[str, dict[str, float]] = {}
        made: list[Path] = []
        for name, model in models.items():
            summary = play(cfg, model, index, folder.path / name, progress, keep_chunks=True)
            found[name] = _success(summary)
            found["games"] = {split: result.games for split, result in summary.splits.items()}
            folder.facts.update({f"{name} {split}": value for split, value in _success(summary).items()})
            made.append(folder.path / name / CHUNKS)
        write_json(folder.path / METRICS_FILE, found)
        for chunks in made:
            remove(chunks)

    return _stage("evaluate", cfg, work, force, resumable=True)


def report(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False, timestamps: bool = True) -> StageResult:
    """Write one self-contained page about the run, and its curves as SVG and CSV files.

    Args:
        cfg: everything.
        progress: called with (0 or 1, 1).
        force: write it even if it was written under these settings.
        timestamps: say when, how long and on what machine; without, the page depends on the run's results alone.
    """

    def work(folder: StageFolder) -> None:
        from hiper.report import write_report

        if progress is not None:
            progress(0, 1)
        write_report(Path(cfg.paths.run), folder.path / REPORT_FILE, timestamps=timestamps)
        folder.facts["page"] = f"report/{REPORT_FILE}"
        if progress is not None:
            progress(1, 1)

    return _stage("report", cfg, work, force)


StageFunction = Callable[..., StageResult]

STAGES: Mapping[str, StageFunction] = {
    "games": games,
    "demos": demos,
    "warm_start": warm_start,
    "train": train,
    "evaluate": evaluate,
    "report": report,
}
"""The stages in their order."""


def recover_run(cfg: RunConfig) -> None:
    """Finish or take back what a killed process was in the middle of; before anybody asks what has finished.

    Raises:
        ConfigError: a process is still at work there.
    """
    run = Path(cfg.paths.run)
    with working(run):
        _recover(run)


def check_needs(cfg: RunConfig, names: Sequence[str], force: bool = False) -> None:
    """See that this machine has what stages need, of those that are still to be done.

    Raises:
        ConfigError: something is missing; the message lists all of it.
        DataError: the record of a finished stage is damaged.
    """
    from hiper.pipeline.preflight import check

    stale = [name for name in names if force or _stale(cfg, name) is not None]
    if stale:
        check(cfg, names[list(names).index(stale[0]) :])


def up_to_date(cfg: RunConfig, stage: str) -> bool:
    """Whether a stage has finished under these settings, from files that have not changed since.

    Raises:
        DataError: its record is damaged.
    """
    return _stale(cfg, stage) is None


def check_upstream(cfg: RunConfig, stage: str) -> None:
    """See that what a stage reads is there.

    Raises:
        ConfigError: an upstream stage has not finished, or not under these settings.
    """
    for upstream in UPSTREAM[stage]:
        try:
            _directory(cfg, upstream)
        except DataError as error:
            if stage != "report":
                raise
            logger.warning("%s The page notes what it must do without.", error)


def finished_at(run: Path, stage: str) -> str | None:
    """When a stage was finished here; None where it has not, or came from another machine."""
    return read_times(run, stage).get("finished")


def finished_result(cfg: RunConfig, stage: str, before: str | None) -> StageResult:
    """What a stage that another process saw to hands back.

    Args:
        cfg: what was asked for.
        stage: its name.
        before: `finished_at` before that process began.

    Raises:
        ConfigError: it has not finished under these settings.
    """
    run = _directory(cfg, stage).parent
    return _result(run, stage, reused=finished_at(run, stage) == before)


def game_index(cfg: RunConfig) -> GameIndex:
    """The games of a run whose `games` stage has finished."""
    from hiper.suites.tasks import GameIndex

    return GameIndex.load(_directory(cfg, "games") / INDEX_FILE)


def home(cfg: RunConfig, stage: str) -> Path:
    """The run that holds a stage's folder."""
    return Path(cfg.paths.base if cfg.paths.base is not None and stage in SHARED else cfg.paths.run)


def _stage(
    name: str,
    cfg: RunConfig,
    work: Callable[[StageFolder], None],
    force: bool,
    *,
    resumable: bool = False,
    fits: Callable[[Path], bool] = lambda partial: True,
) -> StageResult:
    """Do a stage, unless it has finished under the same settings and its files are as they were written.

    Raises:
        ConfigError: an upstream stage has not finished, or not under these settings; another process is at work in the run.
        DataError: a finished stage's file was damaged.
    """
    run = home(cfg, name)
    if run != Path(cfg.paths.run):
        return _result(_directory(cfg, name).parent, name, reused=True)
    with working(run):
        _recover(run)
        check_upstream(cfg, name)
        begun = _begun(cfg, name)
        if force:
            clear_partial(run, name, begun)
        elif _stale(cfg, name) is None and not (resumable and begun_stage(run, name) == begun):
            verify_stage(run, name)
            return _result(run, name, reused=True)
        elif resumable and continue_finished(run, name, begun, fits):
            logger.info("%s: continues where %s ended", name, run / name)
        if cfg.threads and name in ("warm_start", "train", "evaluate"):
            import torch

            torch.set_num_threads(cfg.threads)
        with stage_folder(run, name, begun, resumable=resumable, fits=fits) as folder:
            save_config(cfg, folder.path / CONFIG)
            work(folder)
    return _result(run, name, reused=False)


def _recover(run: Path) -> None:
    for name in UPSTREAM:
        recover(run, name)


def _begun(cfg: RunConfig, stage: str) -> Begun:
    """What a stage that begins now works under."""
    return Begun(
        stage_fingerprint(cfg, stage),
        stage_fingerprint(cfg, stage, but=EXTENDABLE),
        stage_settings(cfg, stage),
        _finished(cfg, UPSTREAM[stage]),
    )


def _not_beyond(partial: Path, cfg: RunConfig) -> bool:
    """Whether a training has not gone further than it is asked to go."""
    from hiper.train.checkpoint import latest_checkpoint, load_state

    try:
        newest = latest_checkpoint(partial / "checkpoints")
        state = load_state(newest) if newest is not None else {"iteration": 0, "env_turns": 0}
    except CheckpointError:
        return True  # the training itself says what is wrong with them
    turns = cfg.trainer.env_turns
    return bool(state["iteration"] <= cfg.trainer.iterations and (turns is None or state["env_turns"] <= turns))


def _result(run: Path, stage: str, *, reused: bool) -> StageResult:
    record = read_stage(run, stage)
    assert record is not None, "asked for a stage that has not finished"
    return StageResult(stage, run / stage, read_times(run, stage).get("seconds", 0.0), reused, record.facts)


def _stale(cfg: RunConfig, stage: str) -> str | None:
    """Why a stage's files are not the ones that are asked for; None: they are."""
    run = home(cfg, stage)
    record = read_stage(run, stage)
    if record is None:
        return f"{run} has no finished {stage!r} stage"
    if record.fingerprint != stage_fingerprint(cfg, stage):
        changed = told(differences(record.settings, stage_settings(cfg, stage)))
        return f"{run / stage} was made under other settings ({changed or 'of a stage before it, or another version'})"
    if record.sources != _finished(cfg, UPSTREAM[stage]):
        return f"{run / stage} was made from files that have changed since"
    return None


def _finished(cfg: RunConfig, names: Sequence[str]) -> dict[str, str]:
    """Digests of stages' files, of those that have finished."""
    records = {name: read_stage(home(cfg, name), name) for name in names}
    return {name: record.digest for name, record in records.items() if record is not None}


def _directory(cfg: RunConfig, stage: str) -> Path:
    """The folder of a finished upstream stage, its files verified."""
    problem = _stale(cfg, stage)
    if problem is not None and home(cfg, stage) != Path(cfg.paths.run):
        raise ConfigError(
            f"{problem}, and paths.base says to go on from there. Make it with paths.run={cfg.paths.base} and these settings."
        )
    if problem is not None:
        raise ConfigError(
            f"{problem}. Run `hiper {stage.replace('_', '-')}` with these settings first, or `hiper run` for all stages; "
            "name=... or paths.run=... gives an experiment a directory of its own."
        )
    verify_stage(home(cfg, stage), stage)
    return home(cfg, stage) / stage


def _facts(summary: Any) -> dict[str, Fact]:
    """The figures of a library summary; its paths are no facts, they move with the run."""
    return {name: value for name, value in dataclasses.asdict(summary).items() if isinstance(value, (int, float))}


def _success(summary: Any) -> dict[str, float]:
    return {split: result.success for split, result in summary.splits.items()}


def _figure(value: Fact) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
