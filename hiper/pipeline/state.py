"""What of a run is finished under which settings, and where: what a stage asks before it begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.runs.fingerprint import differences, stage_fingerprint, stage_lineage, stage_settings, told
from hiper.runs.plan import check_stage, upstream_of
from hiper.runs.stage import INDEX_FILE, STAGES
from hiper.runs.stage_folder import Begun, read_stage, read_times, verify_stage

if TYPE_CHECKING:
    from hiper.suites.tasks import TaskIndex

logger = logging.getLogger(__name__)


def home(cfg: RunConfig, stage: str) -> Path:
    """The run that holds a stage's folder."""
    return Path(cfg.paths.base if cfg.paths.base is not None and STAGES[stage].shared else cfg.paths.run)


def stale(cfg: RunConfig, stage: str) -> str | None:
    """Why a stage's files are not the ones that are asked for; None: they are.

    Raises:
        DataError: its record is damaged.
    """
    run = home(cfg, stage)
    record = read_stage(run, stage)
    if record is None:
        return f"{run} has no finished {stage!r} stage"
    if record.fingerprint != stage_fingerprint(cfg, stage):
        changed = told(differences(record.settings, stage_settings(cfg, stage)))
        return f"{run / stage} was made under other settings ({changed or 'of a stage before it, or another version'})"
    if record.sources != digests(cfg, upstream_of(cfg, stage)):
        return f"{run / stage} was made from files that have changed since"
    return None


def up_to_date(cfg: RunConfig, stage: str) -> bool:
    """Whether a stage has finished under these settings, from files that have not changed since.

    Raises:
        DataError: its record is damaged.
    """
    return stale(cfg, stage) is None


def digests(cfg: RunConfig, names: Sequence[str]) -> dict[str, str]:
    """Digests of stages' files, of those that have finished."""
    records = {name: read_stage(home(cfg, name), name) for name in names}
    return {name: record.digest for name, record in records.items() if record is not None}


def begun_under(cfg: RunConfig, stage: str) -> Begun:
    """What a stage that begins now works under."""
    return Begun(
        stage_fingerprint(cfg, stage), stage_lineage(cfg, stage), stage_settings(cfg, stage), digests(cfg, upstream_of(cfg, stage))
    )


def finished_folder(cfg: RunConfig, stage: str) -> Path:
    """The folder of a finished stage, its files verified.

    Raises:
        ConfigError: it has not finished, or not under these settings.
        DataError: one of its files is damaged.
    """
    problem = stale(cfg, stage)
    if problem is not None and home(cfg, stage) != Path(cfg.paths.run):
        raise ConfigError(
            f"{problem}, and paths.base says to go on from there. Make it with paths.run={cfg.paths.base} and these settings."
        )
    if problem is not None:
        raise ConfigError(
            f"{problem}. Run `hiper {STAGES[stage].command}` with these settings first, or `hiper run` for all stages; "
            "name=... or paths.run=... gives an experiment a directory of its own."
        )
    verify_stage(home(cfg, stage), stage)
    return home(cfg, stage) / stage


def check_upstream(cfg: RunConfig, stage: str) -> None:
    """See that a run has a stage, and that what it reads is there.

    Raises:
        ConfigError: its suite has no use for the stage; or an upstream stage has not finished, or not under these settings.
    """
    check_stage(cfg, stage)
    for upstream in upstream_of(cfg, stage):
        try:
            finished_folder(cfg, upstream)
        except DataError as error:
            if not STAGES[stage].optional:
                raise
            logger.warning("%s The page notes what it must do without.", error)


def finished_at(run: Path, stage: str) -> str | None:
    """When a stage was finished here; None where it has not, or came from another machine."""
    return read_times(run, stage).get("finished")


def task_index(cfg: RunConfig) -> TaskIndex:
    """The tasks of a run whose `tasks` stage has finished."""
    from hiper.suites.tasks import TaskIndex

    return TaskIndex.load(finished_folder(cfg, "tasks") / INDEX_FILE)
