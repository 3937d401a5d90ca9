"""The six stages of an experiment, each one function: a config in, files under the run directory out, a small summary back.

    games -> demos -> warm_start -> train -> evaluate -> report

The same functions run in a plain Python call, as `hiper` sub-commands and as tasks of the Prefect flow. What they need is
imported where they use it, so that a stage asks only for the packages it needs.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiper import __version__
from hiper.config import RunConfig
from hiper.envs import benchmark_of
from hiper.errors import ConfigError
from hiper.files import write_text
from hiper.progress import Progress
from hiper.runs import CONFIG, Fact, StageFolder, begun_stage, fingerprint, read_stage, read_times, save_config, stage_folder

if TYPE_CHECKING:
    from hiper.envs.index import GameIndex

logger = logging.getLogger(__name__)

UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "games": (),
    "demos": ("games",),
    "warm_start": ("demos",),
    "train": ("games", "warm_start"),
    "evaluate": ("games", "warm_start", "train"),
    "report": ("train", "evaluate"),
}
"""Every stage, in order, and the stages whose files it reads."""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "games": ("games",),
    "demos": ("demos", "env", "protocol"),
    "warm_start": ("warm_start", "model", "protocol", "rollout", "seed"),
    "train": ("algo", "trainer", "rollout", "env", "protocol", "model", "seed"),
    "evaluate": ("evaluate", "rollout", "env", "protocol", "model"),
    "report": ("name", "seed"),
}
"""The settings each stage's files depend on; device, threads, tracking and paths change no result that is meant to be one. Nor do
alarms, so that a run which one has stopped can be resumed under others."""

ADDED: tuple[tuple[str, str, Fact], ...] = (("trainer", "processes", 1), ("algo", "lam_end", 0.0))
"""Settings that came after trainings had been made, and the value under which a training from before is not another one."""

SHARED = ("games", "demos", "warm_start")
"""Stages that `paths.base` takes from another run."""

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
        benchmark = benchmark_of(cfg)
        index = benchmark.index(benchmark.data(folder.path / "data", cfg, progress), cfg)
        index.save(folder.path / INDEX_FILE)
        folder.facts.update({split: sum(counts.values()) for split, counts in index.counts().items()})

    return _stage("games", cfg, work, force)


def demos(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Let the expert play training games and write what it did as plan-execute conversations."""

    def work(folder: StageFolder) -> None:
        from hiper.rollout.demos import write_demos

        summary = write_demos(game_index(cfg), cfg, folder.path / DEMOS_FILE, progress)
        folder.facts.update(_facts(summary))

    return _stage("demos", cfg, work, force)


def warm_start(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Fine-tune the base model on the demonstrations."""

    def work(folder: StageFolder) -> None:
        from hiper.train.sft import warm_start as fine_tune

        summary = fine_tune(cfg, _directory(cfg, "demos") / DEMOS_FILE, folder.path / MODEL_FOLDER, progress)
        folder.facts.update(_facts(summary))

    return _stage("warm_start", cfg, work, force)


def train(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Train with Hierarchical Advantage Estimation; continues from the newest good checkpoint of an unfinished attempt."""

    def work(folder: StageFolder) -> None:
        from hiper.device import uses_cuda
        from hiper.parallel import check_processes
        from hiper.train.launch import train_in_processes
        from hiper.train.trainer import train as train_here

        check_processes(cfg.trainer.processes, uses_cuda(cfg))
        optimise = train_here if cfg.trainer.processes == 1 else train_in_processes
        model = _directory(cfg, "warm_start") / MODEL_FOLDER
        summary = optimise(cfg, model, game_index(cfg), folder.path, resume=folder.resumed, progress=progress)
        folder.facts.update(_facts(summary))

    return _stage("train", cfg, work, force, resumable=True)


def evaluate(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False) -> StageResult:
    """Play the full splits with the trained model, and with the warm start it came from."""

    def work(folder: StageFolder) -> None:
        from hiper.evaluate import evaluate as play

        index = game_index(cfg)
        models = {"trained": _directory(cfg, "train") / MODEL_FOLDER}
        if cfg.evaluate.baseline:
            models = {"warm_start": _directory(cfg, "warm_start") / MODEL_FOLDER, **models}
        found: dict[str, dict[str, float]] = {}
        for name, model in models.items():
            summary = play(cfg, model, index, folder.path / name, progress)
            found[name] = _success(summary)
            found["games"] = {split: result.games for split, result in summary.splits.items()}
            folder.facts.update({f"{name} {split}": value for split, value in _success(summary).items()})
        write_text(folder.path / METRICS_FILE, json.dumps(found, indent=1) + "\n")

    return _stage("evaluate", cfg, work, force)


def report(cfg: RunConfig, progress: Progress | None = None, *, force: bool = False, timeless: bool = False) -> StageResult:
    """Write one self-contained page about the run, and its curves as SVG and CSV files.

    Args:
        cfg: everything.
        progress: called with (0 or 1, 1).
        force: write it even if it was written under these settings.
        timeless: leave out when, how long and on what machine: the page then depends on the run's results alone.
    """

    def work(folder: StageFolder) -> None:
        from hiper.report import write_report

        if progress is not None:
            progress(0, 1)
        write_report(Path(cfg.paths.run), folder.path / REPORT_FILE, timeless=timeless)
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


def stage_fingerprint(cfg: RunConfig, stage: str) -> str:
    """Hash of all that decides a stage's files: its settings, this version, and the fingerprints of its upstream stages."""
    settings = dataclasses.asdict(cfg)
    parts: dict[str, Any] = {name: settings[name] for name in SETTINGS[stage]}
    if stage == "warm_start":
        parts["seed"], parts["rollout"] = cfg.warm_start_seed, settings["rollout"]["constrain"]
        parts["warm_start"] = {key: value for key, value in parts["warm_start"].items() if key != "seed"}
    if stage == "train":
        for group, key, neutral in ADDED:
            if parts[group][key] == neutral:
                del parts[group][key]
    parts["upstream"] = [stage_fingerprint(cfg, name) for name in UPSTREAM[stage]]
    parts["version"] = __version__
    parts |= benchmark_of(cfg).settings(cfg, stage)
    return fingerprint(parts)


def check_upstream(cfg: RunConfig, stage: str) -> None:
    """See that what a stage reads is there.

    Raises:
        ConfigError: an upstream stage has not finished, or not under these settings.
    """
    for upstream in UPSTREAM[stage]:
        _directory(cfg, upstream)


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
    from hiper.envs.index import GameIndex

    return GameIndex.load(_directory(cfg, "games") / INDEX_FILE)


def home(cfg: RunConfig, stage: str) -> Path:
    """The run that holds a stage's folder."""
    return Path(cfg.paths.base if cfg.paths.base is not None and stage in SHARED else cfg.paths.run)


def _stage(name: str, cfg: RunConfig, work: Callable[[StageFolder], None], force: bool, *, resumable: bool = False) -> StageResult:
    """Do a stage, unless it has finished under the same settings.

    Raises:
        ConfigError: an upstream stage has not finished, or not under these settings.
    """
    run = home(cfg, name)
    check_upstream(cfg, name)
    if run != Path(cfg.paths.run):
        return _result(_directory(cfg, name).parent, name, reused=True)
    wanted, sources = stage_fingerprint(cfg, name), _finished(cfg, UPSTREAM[name])
    if force:
        shutil.rmtree(run / f"{name}.partial", ignore_errors=True)
    elif _stale(cfg, name) is None and not (resumable and begun_stage(run, name) == {"fingerprint": wanted, "sources": sources}):
        return _result(run, name, reused=True)
    if cfg.threads and name in ("warm_start", "train", "evaluate"):
        import torch

        torch.set_num_threads(cfg.threads)
    with stage_folder(run, name, wanted, sources, resumable=resumable) as folder:
        if folder.resumed:
            logger.info("%s: continuing the work in %s", name, folder.path)
        save_config(cfg, folder.path / CONFIG)
        work(folder)
    return _result(run, name, reused=False)


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
        return f"{run / stage} was made under other settings (see its {CONFIG})"
    if record.sources != _finished(cfg, UPSTREAM[stage]):
        return f"{run / stage} was made from files that have changed since"
    return None


def _finished(cfg: RunConfig, names: Sequence[str]) -> dict[str, str]:
    """Digests of stages' files, of those that have finished."""
    records = {name: read_stage(home(cfg, name), name) for name in names}
    return {name: record.digest for name, record in records.items() if record is not None}


def _directory(cfg: RunConfig, stage: str) -> Path:
    """The folder of a finished upstream stage."""
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
    return home(cfg, stage) / stage


def _facts(summary: Any) -> dict[str, Fact]:
    """The figures of a library summary; its paths are no facts, they move with the run."""
    return {name: value for name, value in dataclasses.asdict(summary).items() if isinstance(value, (int, float))}


def _success(summary: Any) -> dict[str, float]:
    return {split: result.success for split, result in summary.splits.items()}


def _figure(value: Fact) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
