"""An evaluation that goes on where it stopped: finished chunks of tasks, kept until all are played.

    OUT/chunks/begun.json     what is evaluated, and how
    OUT/chunks/000.jsonl      trajectories of the first chunk
    OUT/chunks/000.json       their SHA-256; written last, it says that the chunk is whole

Each chunk is sampled with a generator of its own, so that the tasks left play as they would have played.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.rollout.trajectory import Trajectory, read_trajectories, write_trajectories
from hiper.runs.stage_folder import remove
from hiper.runtime.files import write_json
from hiper.runtime.reading import read_json_object
from hiper.suites.tasks import Task

logger = logging.getLogger(__name__)

FOLDER = "chunks"
BEGUN = "begun.json"


class Chunks:
    """The finished chunks of one evaluation."""

    def __init__(self, out: Path, begun: Mapping[str, Any]) -> None:
        """Come back to an evaluation, or begin one.

        Args:
            out: its directory.
            begun: what is evaluated and how, as JSON. Chunks that were played for anything else are deleted.
        """
        self.folder, self._begun = out / FOLDER, begun
        try:
            earlier = read_json_object(self.folder / BEGUN)
        except DataError:
            earlier = None
        if earlier != begun:
            remove(self.folder)

    def read(self, number: int, tasks: Sequence[Task]) -> list[Trajectory] | None:
        """The trajectories of a finished chunk; None where it is not finished, or damaged, which is logged: then it is not finished."""
        mark, file = _paths(self.folder, number)
        if not mark.exists():
            return None
        try:
            expected = read_json_object(mark)["sha256"]
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
                raise DataError(f"{file} is not what was written.")
            trajectories = list(read_trajectories(file))
            if [one.task_id for one in trajectories] != [task.path for task in tasks]:
                raise DataError(f"{file} is of other tasks.")
        except (DataError, KeyError) as error:
            logger.warning("%s Its tasks are played again.", error)
            mark.unlink(missing_ok=True)
            return None
        return trajectories

    def begin(self) -> None:
        """Say what the chunks are of, before the first is written."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            write_json(self.folder / BEGUN, self._begun)

    def delete(self) -> None:
        """All chunks, once the evaluation that they were for is written."""
        remove(self.folder)


def write_chunk(folder: Path, number: int, trajectories: Sequence[Trajectory]) -> None:
    """Keep a finished chunk in the folder of `Chunks` that have begun; durable when this returns."""
    mark, file = _paths(folder, number)
    write_trajectories(file, trajectories)
    write_json(mark, {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()})


def is_finished(folder: Path, number: int) -> bool:
    """Whether a chunk is said to be whole; its files are not read."""
    return _paths(folder, number)[0].exists()


def _paths(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:03d}.json", folder / f"{number:03d}.jsonl"


def chunk_seed(seed: int, number: int) -> int:
    """Seed of a chunk's sampler; the first one's is the evaluation's own."""
    return seed if number == 0 else random.Random(f"evaluate-{seed}-{number}").getrandbits(63)
