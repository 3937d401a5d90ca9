"""Memory of a long training: `python benchmarks/memory.py [--iterations N] [--chart FILE] [OVERRIDE ...]` prints JSON.

Trains `experiment=smoke` for 200 iterations, with an evaluation and a checkpoint after each, and notes after every iteration what memory
the process holds (resident set). Caches fill in the first iterations; the second half should be flat. The bar: a straight line through it
rises by less than 5 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hiper.composition.compose import compose
from hiper.pipeline.stages import STAGES
from hiper.report.charts import Series, line_chart, standalone
from hiper.runs.run_dir import begin_run
from hiper.runs.stage import before

ITERATIONS = 200
BAR_MB = 5.0
"""Most that the fitted line may rise over the second half."""


def main(overrides: Sequence[str], iterations: int) -> dict[str, object]:
    """Train and watch."""
    resident: list[float] = []

    def note(done: int, total: int) -> None:
        resident.append(resident_mb())

    with tempfile.TemporaryDirectory(prefix="hiper-memory-") as folder:
        cfg = compose(["experiment=smoke", f"trainer.iterations={iterations}", *overrides, f"paths.run={folder}/run"])
        begin_run(cfg)
        for name in before("train"):
            STAGES[name](cfg)
        begun = time.perf_counter()
        STAGES["train"](cfg, note)
    half = resident[len(resident) // 2 :]
    rise = statistics.linear_regression(range(len(half)), half).slope * len(half)
    return {
        "overrides": list(overrides),
        "iterations": len(resident),
        "seconds": round(time.perf_counter() - begun, 1),
        "resident_mb": [round(value, 2) for value in resident],
        "first_mb": round(resident[0], 1),
        "last_mb": round(resident[-1], 1),
        "rise_over_second_half_mb": round(rise, 2),
        "allowed_mb": BAR_MB,
        "within": rise < BAR_MB,
    }


def resident_mb() -> float:
    """What this process holds in memory, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def chart(resident: Sequence[float]) -> str:
    """Resident memory by iteration, as an SVG file."""
    points = [(float(number), value) for number, value in enumerate(resident, 1)]
    return standalone(line_chart("resident memory, MB", [Series("resident", "low", points)], zero=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it as SVG, too")
    options, left = parser.parse_known_args()
    found = main(left, options.iterations)
    if options.chart is not None:
        options.chart.write_text(chart(found["resident_mb"]), encoding="utf-8")  # type: ignore[arg-type]
    print(json.dumps(found, indent=1))
