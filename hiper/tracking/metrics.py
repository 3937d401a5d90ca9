"""`metrics.jsonl`: one JSON object a line, `iteration` and numbers, in the order of iterations."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.runtime.files import cut
from hiper.runtime.reading import parse_json, read_lines

logger = logging.getLogger(__name__)


class MetricsFile:
    """A metrics file open for appending; every line is handed to the operating system before `append` returns.

    Whoever goes on with a file that is there says first how much of it counts: `truncate_to` or `truncate_after`.
    """

    def __init__(self, path: Path) -> None:
        """Open or create."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._last: int | None = None
        self._file = path.open("ab", buffering=0)

    def append(self, iteration: int, metrics: Mapping[str, float]) -> dict[str, float | None]:
        """Write one line and return what it says of each metric: not-a-number and infinities become null, with a warning.

        Raises:
            ValueError: the iteration lies before the last one, or a metric is named `iteration`.
            DataError: the disk refused the line.
        """
        if self._last is not None and iteration < self._last:
            raise ValueError(f"iteration {iteration} comes after {self._last} in {self.path}; call truncate_after({iteration}) first.")
        if "iteration" in metrics:
            raise ValueError("a metric is named 'iteration', which every line has already.")
        numbers = {key: _number(key, value, iteration) for key, value in metrics.items()}
        line = json.dumps({"iteration": iteration, **numbers}, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        try:
            # A disk that fills up takes part of a line without an error; the rest then fails with one.
            written = self._file.write(line)
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            raise DataError(f"Metrics of iteration {iteration} could not be written to {self.path}: {error.strerror}.") from error
        self._last = iteration
        return numbers

    def truncate_to(self, size: int) -> None:
        """Drop all after the first `size` bytes, whatever it is."""
        cut(self.path, size)
        self._last = None

    def truncate_after(self, iteration: int) -> None:
        """Drop the lines of later iterations, and all after a line that is not a record."""
        size = 0
        with self.path.open("rb") as file:
            for line in file:
                try:
                    if not line.endswith(b"\n") or _parse(line, str(self.path))["iteration"] > iteration:
                        break
                except DataError as error:
                    logger.warning("%s; the file is cut there.", error)
                    break
                size += len(line)
        self.truncate_to(size)

    def sync(self) -> None:
        """Force the file to the disk.

        Raises:
            DataError: the disk refuses.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(f"{self.path} could not be written: {error.strerror}.") from error

    def close(self) -> None:
        """Force the file to the disk and close it; harmless when closed."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file, in order; a last line cut short, as of a run still being written, is left out.

    Raises:
        DataError: the file is missing, or a line is not a record of metrics; the message names file and line.
    """
    if not path.exists():
        raise DataError(f"There are no metrics at {path}.")
    lines = list(read_lines(path))
    if lines and _cut_short(path):
        lines.pop()
    return [_parse(line, where) for where, line in lines]


def _parse(line: bytes, where: str) -> dict[str, Any]:
    """One record: `iteration`, and numbers or null."""
    record = parse_json(line, where)
    iteration = record.get("iteration") if isinstance(record, dict) else None
    if not isinstance(iteration, int) or isinstance(iteration, bool):
        raise DataError(f"{where}: not a record of metrics: {line[:80]!r} (expected an object with an integer 'iteration').")
    odd = [key for key, value in record.items() if not (value is None or isinstance(value, (int, float))) or isinstance(value, bool)]
    if odd:
        raise DataError(f"{where}: not a record of metrics: {odd[0]!r} is {record[odd[0]]!r:.80}, not a number.")
    return dict(record)


def _number(key: str, value: float, iteration: int) -> float | None:
    number = int(value) if isinstance(value, int) else float(value)
    if math.isfinite(number):
        return number
    logger.warning("Metric %s is %s in iteration %d; it is written as null.", key, number, iteration)
    return None


def _cut_short(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
