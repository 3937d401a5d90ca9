"""A report of a run with damaged files: each is noted on the page by its name, and the page is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hiper.report import write_report
from hiper.report.read import read_run

Harm = Callable[[Path], object]


def text(content: str | bytes) -> Harm:
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def change(key: str, value: Any) -> Harm:
    """Set `a.b.c` in a JSON file, or in the last line of JSON lines."""

    def harm(path: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        record: Any = json.loads(lines[-1])
        *way, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
        inner = record
        for part in way:
            inner = inner[part]
        inner[last] = value
        path.write_text("\n".join([*lines[:-1], json.dumps(record)]) + "\n")

    return harm


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DEEP = "[" * 100_000
EVERYWHERE: dict[str, Harm] = {
    "binary": text(b"\xff\x00\xfe"),
    "deep": text(DEEP + "\n"),
    "another type": text("7\n"),
    "list": text("[[1]]\n"),
    "huge": text('{"iteration": 1e999}\n'),
    "pipe": pipe,
    "directory": lambda path: (path.unlink(), path.mkdir()),
}
FILES = (
    "environment.json",
    "train/metrics.jsonl",
    "train/timings.jsonl",
    "train/samples.jsonl",
    "train/alarms.json",
    "train/times.json",
    "evaluate/trained/evaluation.json",
)
ONE_VALUE = [
    ("config.yaml", text("7\n")),
    ("config.yaml", text("a: [1\n")),
    ("config.yaml", text("algo: {gamma: many}\n")),
    ("train/metrics.jsonl", change("iteration", "60")),
    ("train/metrics.jsonl", change("iteration", 3)),
    ("train/metrics.jsonl", change("iteration", True)),
    ("train/metrics.jsonl", change("rollout/success_rate", "high")),
    ("train/metrics.jsonl", change("eval/success_rate", [1])),
    ("train/metrics.jsonl", change("optim/kl_ref", 1e308)),
    ("train/samples.jsonl", change("turns.0.advantages", {"low": "x", "high": 0.0, "switch": 0.0})),
    ("train/samples.jsonl", change("turns.0.faults", [3])),
    ("train/samples.jsonl", change("turns.0", None)),
    ("train/samples.jsonl", change("stop", "never")),
    ("train/times.json", change("seconds", 1e300)),
    ("train/alarms.json", text('[{"name": "x"}, 7]')),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.success_rate", "all")),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.success_rate", 1e300)),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.turns_won_mean", "few")),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.tasks", 0)),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.macro_success_rate", None)),
    ("evaluate/trained/evaluation.json", change("splits.valid_seen.task_types", [])),
    ("evaluate/trained/evaluation.json", change("splits", {"valid_seen": 3})),
    ("evaluate/trained/evaluation.json", change("meta.splits", [1])),
    ("evaluate/trained/evaluation.json", change("meta.limit", "x")),
]


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(finished_run, copy)
    (copy / "train" / "alarms.json").write_text("[]")
    return copy


def page_of(run: Path) -> str:
    return write_report(run, run / "report" / "report.html").read_text()


@pytest.mark.parametrize("harm", EVERYWHERE)
def test_damaged_files_are_noted_by_name(run: Path, harm: str) -> None:
    for file in FILES:
        EVERYWHERE[harm](run / file)
    notes = page_of(run).split("Before reading on")[1].split("</aside>")[0]
    for file in FILES:
        fits = (harm, file) == ("list", "train/alarms.json")  # a list is what belongs there, but not of lists
        assert Path(file).name in notes or fits, f"{file} is not named: {notes}"


@pytest.mark.parametrize(("file", "harm"), ONE_VALUE)
def test_one_value_of_another_kind_is_noted(run: Path, file: str, harm: Harm) -> None:
    harm(run / file)
    missing = read_run(run).missing
    assert any(Path(file).name in note for note in missing), missing


def test_whatever_the_environment_says_is_shown(run: Path) -> None:
    for value in ([1], {"a": None}, 7, "\x1b[2J"):
        for key in ("git", "versions", "command", "time", "cores", "python", "platform"):
            change(key, value)(run / "environment.json")
        assert "\x1b" not in page_of(run)
