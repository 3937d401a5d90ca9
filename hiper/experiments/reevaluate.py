"""Accepted models played again, on full splits with fixed seeds: do they still do what they did?"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from hiper.composition.compose import compose, override, read_settings
from hiper.config import RunConfig
from hiper.errors import ConfigError, HiperError
from hiper.evaluation.drift import Drift, Entry, append_history, compare, read_history
from hiper.evaluation.evaluate import evaluate
from hiper.evaluation.plan import choose
from hiper.evaluation.write import EVALUATION, read_evaluation
from hiper.integrations.dvc import fetch
from hiper.runs.run_dir import config_beside, environment
from hiper.runs.stage import MODEL_FOLDER
from hiper.runs.stage_folder import digest
from hiper.runtime.lock import locked
from hiper.runtime.progress import Progress
from hiper.runtime.reading import read_bytes
from hiper.suites import splits_of, suite_of
from hiper.suites.tasks import TaskIndex

logger = logging.getLogger(__name__)


@dataclass
class Watched:
    """One model to evaluate again."""

    name: str = "???"
    """Of its history."""
    run: str | None = None
    """A run's directory: its trained model and its tasks."""
    rev: str | None = None
    """Git revision whose dvc.lock names the run's files; unset: the files as they are."""
    model: str | None = None
    """Instead of `run`: a model's directory or hub id."""
    tasks: str | None = None
    """With `model`: a folder of tasks in the official layout, or one that `hiper tasks` wrote."""
    overrides: list[str] = field(default_factory=list)
    """Changes to the settings saved beside the model."""


@dataclass
class Plan:
    """What is evaluated again, and when that is alarming: the files of `conf/reevaluate/`."""

    models: list[Watched] = field(default_factory=list)
    alpha: float = 0.01
    """A fall in success counts where chance makes one so large with less than this probability."""
    history: str = "reevaluations"
    """Where NAME.jsonl lies: a line an evaluation, to be committed."""
    work: str = "runs/reevaluations"
    """Where evaluations are written, one folder a model."""


@dataclass(frozen=True)
class Outcome:
    """What came of one model."""

    name: str
    drift: Drift | None
    """None: this is its first evaluation, or it could not be evaluated."""
    problem: str | None = None
    """Why it could not be evaluated."""
    entry: Entry | None = None

    @property
    def bad(self) -> bool:
        """Whether somebody must look."""
        return self.problem is not None or (self.drift is not None and self.drift.bad)

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.name}: NOT EVALUATED, {self.problem}"
        assert self.entry is not None
        rates = ", ".join(f"{split} {100 * won / played:.1f} %" for split, (won, played) in self.entry.successes.items())
        verdict = "accepted" if self.entry.accepted else str(self.drift)
        return f"{self.name}: {'FELL, ' if self.bad else ''}{rates}; {verdict}"


def load_plan(path: Path) -> Plan:
    """Read a file of `conf/reevaluate/`.

    Raises:
        ConfigError: no such file, or settings that cannot stand.
    """
    if not path.exists():
        raise ConfigError(f"there is no {path}. Name a file such as conf/reevaluate/nightly.yaml.")
    try:
        plan = read_settings(Plan, path)
    except ConfigError as error:
        raise ConfigError(f"{error} It does not say what to evaluate; conf/reevaluate/nightly.yaml does.") from error
    names = [one.name for one in plan.models]
    if not names or len(set(names)) != len(names) or any(not name.replace("-", "").replace("_", "").isalnum() for name in names):
        raise ConfigError(f"{path}: models={names} need different names of letters, digits, - and _, at least one: they name files.")
    for one in plan.models:
        if (one.run is None) == (one.model is None) or (one.model is None) != (one.tasks is None) or (one.rev and not one.run):
            raise ConfigError(f"{path}, {one.name}: name a run (with rev, if DVC is to fetch it), or a model and its tasks.")
    if not 0 < plan.alpha < 1:
        raise ConfigError(f"{path}: alpha={plan.alpha} must lie between 0 and 1.")
    return plan


def reevaluate(plan: Plan, one: Watched, accept: bool = False, progress: Progress | None = None) -> Outcome:
    """Evaluate one model again, add that to its history, and compare it with the accepted evaluation.

    A model that cannot be evaluated is an outcome, too: it leaves no line in the history.

    Args:
        plan: where things lie, and what is alarming.
        one: the model.
        accept: later evaluations are compared with this one; the first always is accepted.
        progress: called with (tasks done, all).
    """
    work = Path(plan.work) / one.name
    history = Path(plan.history) / f"{one.name}.jsonl"
    try:
        with locked(work):
            earlier = read_history(history)
            entry = _evaluate(one, work, progress)
            before = next((old for old in reversed(earlier) if old.accepted), None)
            entry = replace(entry, accepted=accept or before is None)
            append_history(history, entry)
    except HiperError as error:
        return Outcome(one.name, None, problem=str(error))
    outcome = Outcome(one.name, compare(before, entry, plan.alpha) if before is not None else None, entry=entry)
    logger.info("%s", outcome)
    return outcome


def _evaluate(one: Watched, work: Path, progress: Progress | None) -> Entry:
    model, tasks = _files(one, work)
    saved = config_beside(Path(model)) if Path(model).is_dir() else None
    cfg = override(saved, one.overrides) if saved is not None else compose(one.overrides)
    cfg = override(cfg, ["evaluate.limit=null"])
    index = _index(tasks, cfg)
    evaluate(cfg, model, index, work / "evaluation", progress)
    record = read_evaluation(work / "evaluation")
    here = environment()
    settings = {name: value for name, value in record["meta"].items() if name not in ("model", "splits")}
    return Entry(
        time=here["time"],
        accepted=False,
        model=digest(Path(model)) if Path(model).is_dir() else str(model),
        tasks={split: _tasks_digest(cfg, index, split) for split in splits_of(cfg)},
        settings=settings,
        versions={**here["versions"], "python": here["python"]},
        successes={split: (found["successes"], found["tasks"]) for split, found in record["splits"].items()},
        evaluation=hashlib.sha256(read_bytes(work / "evaluation" / EVALUATION)).hexdigest(),
    )


def _files(one: Watched, work: Path) -> tuple[str, Path]:
    """The model and the folder of its tasks."""
    if one.run is None:
        assert one.model is not None and one.tasks is not None, "checked when the plan was read"
        return one.model, Path(one.tasks)
    run = Path(one.run) if one.rev is None else work / "fetched"
    model, tasks = run / "train" / MODEL_FOLDER, run / "tasks"
    if one.rev is not None:
        for folder in (model.parent, tasks):
            fetch(Path.cwd(), f"{one.run}/{folder.name}", one.rev, folder)
    for folder in (model, tasks):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is missing: {one.run} holds no trained model with its tasks. `dvc pull` may bring it.")
    return str(model), tasks


def _index(tasks: Path, cfg: RunConfig) -> TaskIndex:
    file = tasks / "index.json"
    if file.exists():
        return TaskIndex.load(file)
    suite = suite_of(cfg)
    return suite.index(tasks, suite.whole(cfg), splits_of(cfg))


def _tasks_digest(cfg: RunConfig, index: TaskIndex, split: str) -> str:
    """Of what the tasks are now, whatever they were when they were indexed."""
    suite, whole = suite_of(cfg), hashlib.sha256()
    for task in choose(index.split(split), None):
        whole.update(f"{task.path}\0{suite.digest(cfg, index.resolve(task))}\n".encode())
    return whole.hexdigest()
