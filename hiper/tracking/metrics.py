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

logger = logging.getLogger(__name__)


class MetricsFile:
    """A metrics file open for appending; every line is handed to the operating system before `append` returns.

    A last line cut short by a killed process or a full disk is removed when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        """Open or create.

        Raises:
            DataError: the file holds a line that is not a record of metrics.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _cut_short(path):
            logger.warning("The last line of %s was cut short when its writer stopped; it is removed.", path)
            _rewrite(path, _complete_lines(path))
        lines = _complete_lines(path) if path.exists() else []
        self._last = _parse(lines[-1], path, len(lines))["iteration"] if lines else None
        self._file = path.open("ab", buffering=0)

    def append(self, iteration: int, metrics: Mapping[str, float]) -> dict[str, float | None]:
        """Write one line and return what it says of each metric: not-a-number and infinities become null, with a warning.

        Raises:
            ValueError: the iteration lies before the file's last, or a metric is named `iteration`.
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

    def truncate_after(self, iteration: int) -> None:
        """Drop the lines of later iterations, so that a resumed run continues the file as if it had never stopped."""
        self._file.close()
        lines = [
            line for number, line in enumerate(_complete_lines(self.path), 1) if _parse(line, self.path, number)["iteration"] <= iteration
        ]
        _rewrite(self.path, lines)
        self._last = _parse(lines[-1], self.path, len(lines))["iteration"] if lines else None
        self._file = self.path.open("ab", buffering=0)

    def close(self) -> None:
        """Force the file to the disk and close it; harmless when closed."""
        if not self._file.closed:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise DataError(f"{self.path} could not be written: {error.strerror}.") from error
            finally:
                self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All records of a metrics file, in order; a last line cut short, as of a run still being written, is left out.

    Raises:
        DataError: the file is missing, or a line is not a record of metrics; the message names file and line.
    """
    if not path.is_file():
        raise DataError(f"There are no metrics at {path}.")
    return [_parse(line, path, number) for number, line in enumerate(_complete_lines(path), 1)]


def _parse(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if not (isinstance(record, dict) and isinstance(record.get("iteration"), int)):
            raise ValueError("expected an object with an integer 'iteration'")
    except ValueError as error:
        raise DataError(f"{path}:{number}: not a record of metrics: {line.strip()[:80]!r} ({error}).") from error
    return record


def _number(key: str, value: float, iteration: int) -> float | None:
    number = int(value) if isinstance(value, int) else float(value)
    if math.isfinite(number):
        return number
    logger.warning("Metric %s is %s in iteration %d; it is written as null.", key, number, iteration)
    return None


def _cut_short(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _complete_lines(path: Path) -> list[str]:
    """Lines with their line ends; bytes that are not UTF-8 stay visible to `_parse`, which refuses them by line."""
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] if line]


def _rewrite(path: Path, lines: list[str]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
