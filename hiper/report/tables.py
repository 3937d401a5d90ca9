"""A run's curves and success rates as CSV, for tools that draw several runs into one chart."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from hiper.report.curves import evaluations
from hiper.report.read import RunRecord

CURVES = {
    "success": "rollout/success_rate",
    "switch_rate": "switch/rate",
    "segment_turns": "switch/segment_length",
    "kl": "optim/kl_ref",
    "entropy": "optim/entropy",
}
"""Column -> metric of each iteration."""


def tables(run: RunRecord) -> dict[str, str]:
    """CSV text by name: `curves` (by iteration), `evaluations` (those in training), `tasks` (success by split and task type)."""
    rows = [[record["iteration"], *(record.get(key) for key in CURVES.values())] for record in run.metrics]
    return {
        "curves": _csv(["iteration", *CURVES], rows),
        "evaluations": _csv(["iteration", "success"], evaluations(run.metrics)),
        "tasks": _csv(["tasks", "trained", run.start], _tasks(run)),
    }


def _tasks(run: RunRecord) -> Iterable[Sequence[Any]]:
    models = [(evaluation or {"splits": {}})["splits"] for evaluation in (run.trained, run.before)]
    for split in dict.fromkeys(name for splits in models for name in splits):
        whole = [splits.get(split) for splits in models]
        kinds = dict.fromkeys(kind for found in whole if found is not None for kind in ("all", *found["task_types"]))
        for kind in kinds:
            parts = [None if found is None else found if kind == "all" else found["task_types"].get(kind) for found in whole]
            yield f"{split}: {kind}", *(part and part["success_rate"] for part in parts)


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
