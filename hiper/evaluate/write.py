"""An evaluation on disk: `evaluation.json` and every trajectory beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.evaluate.statistics import KEYS, summarise
from hiper.rollout.trajectory import Trajectory, write_trajectories

EVALUATION = "evaluation.json"
TRAJECTORIES = "trajectories.jsonl"


def write_evaluation(out: Path, name: str, trajectories: Sequence[Trajectory], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Write `out/name/evaluation.json` and `out/name/trajectories.jsonl`, both complete or neither touched.

    Args:
        out: directory of evaluations; created when missing.
        name: of this one, such as `final`.
        trajectories: every episode played.
        meta: how they were played; JSON.

    Returns:
        The record written: `{"name", "meta", "overall", "splits"}`, see `hiper.evaluate.statistics.summarise`.

    Raises:
        ValueError: no trajectories.
        DataError: the disk refused the files.
    """
    record = {"name": name, "meta": dict(meta), **summarise(trajectories)}
    folder = out / name
    new_record, new_trajectories = folder / f"{EVALUATION}.new", folder / f"{TRAJECTORIES}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_trajectories(new_trajectories, trajectories)
        with new_record.open("w", encoding="utf-8") as file:
            json.dump(record, file, ensure_ascii=False, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        # Both exist in full before either old file goes.
        new_trajectories.replace(folder / TRAJECTORIES)
        new_record.replace(folder / EVALUATION)
    except OSError as error:
        raise DataError(f"Evaluation {name!r} could not be written to {folder}: {error.strerror}. An earlier one is intact.") from error
    finally:
        for left in (new_record, new_trajectories, new_trajectories.with_name(new_trajectories.name + ".tmp")):
            left.unlink(missing_ok=True)
    return record


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The record in `folder/evaluation.json`.

    Raises:
        DataError: it is missing or not an evaluation.
    """
    path = folder / EVALUATION
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no evaluation at {path}.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Evaluate again.") from error
    try:
        sets = [record["overall"], *record["splits"].values()]
        sets += [found for split in record["splits"].values() for found in split["task_types"].values()]
        for found in sets:
            found.setdefault("score_mean", found["success_rate"])  # not kept before WebShop came
        lacking = [key for found in sets for key in KEYS if key not in found]
        if not isinstance(record["meta"], dict) or not isinstance(record["name"], str) or lacking:
            raise KeyError(*lacking[:1])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not an evaluation of this version ({error}). Evaluate again.") from error
    return dict(record)
