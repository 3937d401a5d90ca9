"""What `hiper` offers to programs, where that is more than one call: whole runs, evaluations, environments, recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.composition.compose import compose, override
from hiper.config import RunConfig
from hiper.errors import DataError, ModelError
from hiper.runs.run_dir import config_beside
from hiper.runtime.progress import Progress
from hiper.suites import splits_of, suite_of

if TYPE_CHECKING:
    from hiper.evaluation import EvaluateSummary
    from hiper.pipeline.stages import StageResult
    from hiper.rollout.trajectory import Trajectory
    from hiper.suites.base import TextEnv

TRAJECTORIES = "evaluate/trained/trajectories.jsonl"
"""Where a run keeps the episodes of its trained model."""


def run(config: RunConfig | Sequence[str], *, force: bool = False) -> list[StageResult]:
    """All stages of an experiment, in this process; what has finished under the same settings is not done again.

    Args:
        config: a composed config, or overrides as `hiper run` takes them: `["experiment=quickstart", "seed=1"]`.
        force: do finished stages again.

    Returns:
        What each stage reports, in order.

    Raises:
        HiperError: settings, data or this machine are not as they must be; the message says what to do.
    """
    from hiper.pipeline.direct import run_stages

    return run_stages(config if isinstance(config, RunConfig) else compose(config), force)


def evaluate(
    model: Path | str,
    data: Path | str,
    out: Path | str,
    overrides: Sequence[str] = (),
    *,
    planner: Path | str | None = None,
    progress: Progress | None = None,
) -> EvaluateSummary:
    """Play full splits with a model directory, under the settings that its run saved beside it, where it did.

    Args:
        model: a directory that `AutoModelForCausalLM` loads.
        data: tasks as their suite lays them out: the folder `tasks/data` of a run, or official data.
        out: where evaluation.json and the trajectories go.
        overrides: changes: `["evaluate.splits=[valid_seen]", "evaluate.limit=20"]`.
        planner: another model, which writes switch and subgoal of every reply; `model` then writes the action alone.
        progress: called with (tasks done, all).

    Raises:
        ModelError: no such directory, or no model.
        DataError: a split that is not there, or damaged data.
    """
    from hiper.evaluation import evaluate as play

    model, data = Path(model), Path(data)
    for path in (model, *([] if planner is None else [Path(planner)])):
        check_model_folder(path)
    saved = config_beside(model)
    cfg = override(saved, overrides) if saved is not None else compose(overrides)
    suite = suite_of(cfg)
    index = suite.index(data, suite.whole(cfg), splits_of(cfg))
    for split in splits_of(cfg):
        index.split(split)  # an empty one is refused before the model is loaded
    return play(cfg, model, index, Path(out), progress, planner)


def check_model_folder(path: Path, flag: str = "") -> None:
    """See that a path is a directory, before it is taken for the id of a model on a hub; `flag` is the option that named it.

    Raises:
        ModelError: it is not.
    """
    if not path.is_dir():
        raise ModelError(
            f"{f'{flag} {path}'.strip()} is not a directory. Name one that AutoModelForCausalLM loads, such as RUN/train/model."
        )


def make_env(task: Path | str, overrides: Sequence[str] = ()) -> TextEnv:
    """An environment for one task.

    Args:
        task: its path as the suite names it, such as a file that `hiper play` takes.
        overrides: which suite, and its settings: `["env=webshop"]`.
    """
    cfg = compose(overrides)
    return suite_of(cfg).make_env(cfg, Path(task))


def load_episodes(path: Path | str) -> list[Trajectory]:
    """Recorded episodes: those of a run's trained model, or of a file such as `train/samples.jsonl`, whose turns carry their credit.

    Raises:
        DataError: there is no such file, or a line is damaged.
    """
    from hiper.rollout.trajectory import read_trajectories

    file = Path(path) / TRAJECTORIES if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(f"there is no {file}. Name a run whose evaluation has finished, or a file of trajectories.")
    return list(read_trajectories(file))
