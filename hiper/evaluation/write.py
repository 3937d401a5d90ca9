"""An evaluation on disk: `evaluation.json` and every trajectory beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.evaluation.statistics import KEYS, summarise
from hiper.rollout.trajectory import Trajectory, write_trajectories
from hiper.runtime.files import replacing, write_json
from hiper.runtime.reading import read_json_object
from hiper.runtime.records import read_value
from hiper.suites.suite import Suite

EVALUATION = "evaluation.json"
TRAJECTORIES = "trajectories.jsonl"


def write_evaluation(
    out: Path, name: str, trajectories: Sequence[Trajectory], meta: Mapping[str, Any], suite: Suite | None = None
) -> dict[str, Any]:
    """Write `out/name/evaluation.json` and `out/name/trajectories.jsonl`, both complete or neither touched.

    Args:
        out: directory of evaluations; created when missing.
        name: of this one, such as `final`.
        trajectories: every episode played.
        meta: how they were played; JSON.
        suite: gives splits and task types their order; None: by name.

    Returns:
        The record written: `{"name", "meta", "overall", "splits"}`, see `hiper.evaluation.statistics.summarise`.

    Raises:
        ValueError: no trajectories.
        DataError: the disk refused the files.
    """
    record = {"name": name, "meta": dict(meta), **summarise(trajectories, *((suite.splits, suite.task_types) if suite is not None else ()))}
    folder = out / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / EVALUATION) as new_record, replacing(folder / TRAJECTORIES) as new_trajectories:
            write_trajectories(new_trajectories, trajectories)
            write_json(new_record, record)  # both are on the disk before either old file goes
    except OSError as error:
        raise DataError(f"Evaluation {name!r} could not be written to {folder}: {error.strerror}. An earlier one is intact.") from error
    return record


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The record in `folder/evaluation.json`.

    Raises:
        DataError: it is missing or not an evaluation.
    """
    path = folder / EVALUATION
    if not path.exists():
        raise DataError(f"There is no evaluation at {path}.")
    try:
        record = read_json_object(path)
        _check(record, f"{path} is not an evaluation of this version")
    except DataError as error:
        raise DataError(f"{error} Evaluate again.") from error
    return record


def _check(record: dict[str, Any], where: str) -> None:
    """Every figure that is shown or compared is there and of its type; `score_mean` is filled in where it is older than WebShop."""
    shape = {"name": str, "meta": dict[str, Any], "overall": dict[str, Any], "splits": dict[str, dict[str, Any]]}
    for key, kind in shape.items():
        read_value(kind, record.get(key), f"{where}: {key}")
    sets = {"overall": record["overall"], **{f"splits.{name}": split for name, split in record["splits"].items()}}
    for name, split in record["splits"].items():
        types = read_value(dict[str, dict[str, Any]], split.get("task_types"), f"{where}: splits.{name}.task_types")
        read_value(float, split.get("macro_success_rate"), f"{where}: splits.{name}.macro_success_rate")
        sets.update({f"splits.{name}.task_types.{kind}": found for kind, found in types.items()})
    for name, found in sets.items():
        found.setdefault("score_mean", found.get("success_rate"))
        for key in KEYS:
            if key not in found:
                raise DataError(f"{where}: {name} lacks {key}.")
            read_value(_FIGURES.get(key, float | None), found[key], f"{where}: {name}.{key}")
        if not 0 <= found["successes"] <= found["tasks"] or not found["tasks"]:
            raise DataError(f"{where}: {name} says that {found['successes']} of {found['tasks']} tasks were won.")
        if not all(0 <= found[key] <= 1 for key in ("success_rate", "wilson_low", "wilson_high")):
            raise DataError(f"{where}: {name} holds a rate outside 0 to 1.")
    for key in ("splits", "temperature", "limit"):
        read_value(_META[key], record["meta"].get(key), f"{where}: meta.{key}")


_FIGURES: dict[str, Any] = {
    "stops": dict[str, int],
    **dict.fromkeys(("tasks", "successes", "truncated"), int),
    **dict.fromkeys(("success_rate", "wilson_low", "wilson_high", "score_mean"), float),
}
"""Types of those that are not numbers or null."""
_META: dict[str, Any] = {"splits": dict[str, dict[str, Any]] | None, "temperature": float | None, "limit": int | None}
"""Types of what pages compute with; the rest is shown as it is."""
