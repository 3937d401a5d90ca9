"""Everything a report shows, read from a run's directory. What is missing or damaged is noted, never fatal.

Model replies and task text are untrusted. The page's template escapes markup; here, characters that would act on the page
unseen (controls, direction overrides, lone surrogates) are made visible, in every string that is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from hiper.config import RunConfig
from hiper.errors import DataError, HiperError
from hiper.evaluation.write import TRAJECTORIES, read_evaluation
from hiper.rollout.trajectory import Trajectory, read_trajectories
from hiper.runs.plan import start_of
from hiper.runs.run_dir import load_config
from hiper.runs.stage import before
from hiper.runs.stage_folder import ENVIRONMENT, TIMES
from hiper.runtime.reading import open_file, parse_json, read_json, read_json_object, read_lines
from hiper.runtime.records import read_value
from hiper.runtime.text import visible

LARGEST = 1e100
"""Numbers from here on are damage, and no chart could show them."""
TRAINED = "trained"
STARTED = {"sft": "warm start", "base": "base model"}
"""What training started from: its evaluation's name -> in words."""

T = TypeVar("T")


@dataclass
class Sample:
    """A trajectory picked for the page, and why."""

    reason: str
    trajectory: Trajectory
    source: str
    """File it comes from, relative to the run."""


@dataclass
class RunRecord:
    """What was found in a run's directory."""

    path: Path
    config: RunConfig | None
    environment: dict[str, Any]
    """Versions, git state, machine, command; empty when not recorded."""
    seconds: dict[str, float]
    """Stage -> seconds it took, of finished stages."""
    metrics: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    start: str
    """What training started from: a key of `STARTED`."""
    before: dict[str, Any] | None
    trained: dict[str, Any] | None
    """Evaluations as written by `hiper.evaluation`."""
    alarms: list[dict[str, Any]]
    """What went off during training; see `hiper.train.alarms`."""
    samples: list[Sample]
    missing: list[str]
    """What the page must do without, in words."""


def read_run(run: Path) -> RunRecord:
    """Read what there is in a run's directory."""
    missing: list[str] = []

    def attempt(what: str, reading: Callable[[], T]) -> T | None:
        try:
            return reading()
        except (HiperError, OSError) as error:
            missing.append(f"{what}: {visible(str(error))}")
            return None

    train = run / "train"
    if not train.is_dir() and (run / "train.partial").is_dir():
        train = run / "train.partial"
        missing.append("Training has not finished: the curves end where it stands now.")
    else:
        missing += [f"{path} ends in the middle of a line, which is left out." for path in _unfinished(run, train)]
    config = attempt("Configuration", lambda: load_config(run))
    start = start_of(config) if config is not None else "sft"
    record = RunRecord(
        path=run,
        config=config,
        environment=attempt("Versions and git state", lambda: read_json_object(run / ENVIRONMENT)) or {},
        seconds=_seconds(run, missing),
        metrics=attempt("Training curves", lambda: _metrics(train / "metrics.jsonl")) or [],
        timings=attempt("Timings", lambda: _metrics(train / "timings.jsonl")) or [],
        start=start,
        before=attempt(f"Evaluation of the {STARTED[start]}", lambda: read_evaluation(run / "evaluate" / start)),
        trained=attempt("Evaluation after training", lambda: read_evaluation(run / "evaluate" / TRAINED)),
        alarms=attempt("Alarms", lambda: _read_alarms(train / "alarms.json")) or [],
        samples=attempt("Sample trajectories", lambda: _samples(run, train)) or [],
        missing=missing,
    )
    return _visible_in(record)


def pick(trajectories: Iterable[Trajectory], source: str) -> list[Sample]:
    """Up to three episodes, by rule: the latest won, the latest lost, and the one with most segments of the last iteration.

    "Latest" is the first of its kind in the last iteration that has one. Trajectories of an evaluation have no iteration and
    count as one.
    """
    won: Trajectory | None = None
    lost: Trajectory | None = None
    last: list[Trajectory] = []
    for _, group in groupby(trajectories, key=lambda trajectory: trajectory.iteration):
        last = list(group)
        won = next((one for one in last if one.won), won)
        lost = next((one for one in last if not one.won), lost)
    others = [one for one in last if one is not won and one is not lost and one.turns]
    busiest = max(others, key=lambda one: one.segments, default=None)
    chosen = (("Won", won), ("Lost", lost), ("Most segments", busiest))
    return [Sample(reason, one, source) for reason, one in chosen if one is not None and one.turns]


def _visible_in(value: T) -> T:
    """The same structure with `visible` strings; paths are left alone."""
    result: Any = value
    if isinstance(value, str):
        result = visible(value) if type(value) is str else value  # enums keep their identity
    elif isinstance(value, dict):
        result = {_visible_in(key): _visible_in(item) for key, item in value.items()}
    elif isinstance(value, list):
        result = [_visible_in(item) for item in value]
    elif is_dataclass(value) and not isinstance(value, type) and not isinstance(value, RunConfig):
        result = replace(value, **{entry.name: _visible_in(getattr(value, entry.name)) for entry in fields(value)})
    return result  # type: ignore[no-any-return]


def _metrics(path: Path) -> list[dict[str, Any]]:
    """Records whose iterations rise and whose values can be drawn; a line in the writing is left out."""
    if not os.path.lexists(path):
        raise DataError(f"There are no metrics at {path}.")
    lines = list(read_lines(path))
    if lines and not _ended(path):
        lines.pop()
    records: list[dict[str, Any]] = []
    last = -1
    for where, line in lines:
        record = read_value(dict[str, float | None], parse_json(line, where), where)
        for key, value in record.items():
            if value is not None and not abs(value) < LARGEST:
                raise DataError(f"{where}: {key} is {value:.3g}, which cannot be drawn.")
        if not last < read_value(int, record.get("iteration"), f"{where}: iteration"):
            raise DataError(f"{where}: iteration {record['iteration']} comes after {last}.")
        last = record["iteration"]
        records.append(record)
    return records


def _read_alarms(path: Path) -> list[dict[str, Any]]:
    if not os.path.lexists(path):
        return []  # written from the first iteration on; a run that has none is older
    events: list[dict[str, Any]] = read_value(list[dict[str, Any]], read_json(path), str(path))
    return events


def _seconds(run: Path, missing: list[str]) -> dict[str, float]:
    found = {}
    for stage in before("report"):
        path = run / stage / TIMES
        if not os.path.lexists(path):
            continue
        try:
            seconds = read_value(float, read_json_object(path).get("seconds"), f"{path}: seconds")
            if not 0 <= seconds < LARGEST:
                raise DataError(f"{path}: {seconds:.3g} seconds are no time.")
            found[stage] = float(seconds)
        except DataError as error:
            missing.append(f"Stage times: {visible(str(error))}")
    return found


def _samples(run: Path, train: Path) -> list[Sample]:
    path = train / "samples.jsonl"
    if not os.path.lexists(path):
        path = run / "evaluate" / TRAINED / TRAJECTORIES
    return pick(_complete(path), path.relative_to(run).as_posix())


def _unfinished(run: Path, train: Path) -> Iterator[Path]:
    """Files of lines whose last has no end, though nobody writes them any more."""
    for path in (
        *(train / name for name in ("metrics.jsonl", "timings.jsonl", "samples.jsonl")),
        run / "evaluate" / TRAINED / TRAJECTORIES,
    ):
        with suppress(DataError):
            if not _ended(path):
                yield path


def _ended(path: Path) -> bool:
    """Whether a file is empty or its last line has an end."""
    with open_file(path) as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _complete(path: Path) -> Iterator[Trajectory]:
    """Trajectories up to a line cut short at the end of a file still being written."""
    trajectories = read_trajectories(path)
    while True:
        try:
            yield next(trajectories)
        except StopIteration:
            return
        except HiperError:
            if _ended(path):
                raise
            return
