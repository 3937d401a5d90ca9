"""CSV tables hold the numbers of the run's files; a page without timestamps says nothing of when and where."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from hiper.evaluation import read_evaluation
from hiper.report import write_report
from hiper.runs.stage_folder import ENVIRONMENT
from hiper.tracking import read_metrics


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_the_numbers_of_the_files(finished_run: Path, tmp_path: Path) -> None:
    write_report(finished_run, tmp_path / "report.html")
    metrics = read_metrics(finished_run / "train" / "metrics.jsonl")
    curves = rows(tmp_path / "curves.csv")
    assert [(int(row["iteration"]), float(row["success"])) for row in curves] == [
        (record["iteration"], record["rollout/success_rate"]) for record in metrics
    ]
    evaluated = [(str(record["iteration"]), str(record["eval/success_rate"])) for record in metrics if "eval/success_rate" in record]
    assert [(row["iteration"], row["success"]) for row in rows(tmp_path / "evaluations.csv")] == evaluated
    trained = read_evaluation(finished_run / "evaluate" / "trained")["splits"]["valid_unseen"]
    tasks = {row["tasks"]: row for row in rows(tmp_path / "tasks.csv")}
    assert float(tasks["valid_unseen: all"]["trained"]) == trained["success_rate"]
    assert len(tasks) == 2 * (1 + len(trained["task_types"]))


def test_a_page_without_timestamps_does_not_say_when_or_where(finished_run: Path, tmp_path: Path) -> None:
    here = json.loads((finished_run / ENVIRONMENT).read_text(encoding="utf-8"))
    full = write_report(finished_run, tmp_path / "full" / "report.html").read_text(encoding="utf-8")
    plain = write_report(finished_run, tmp_path / "plain" / "report.html", timestamps=False).read_text(encoding="utf-8")
    for text in (here["platform"], "<dt>Date</dt>"):
        assert text in full
        assert text not in plain
    assert "Before reading on" not in plain
