"""Every benchmark of speed, one table: `python benchmarks/all.py [FILE] [--only NAME ...]`, or `make bench`.

Each runs in a process of its own with one thread, one after another. The table goes to standard output; it and what each benchmark printed
are kept in FILE, runs/bench/COMMIT.json unless named, and `python benchmarks/compare.py FILE FILE` shows what changed. Some five minutes
on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hiper.benchmarks.table import rows, show, to_json
from hiper.runtime.files import write_json

HERE = Path(__file__).resolve().parent
HIPER = ("-m", "hiper", "benchmark")
PARTS: dict[str, tuple[str, ...]] = {
    "train": (*HIPER, "train", "threads=1", "rollout.trajectories=16", "--repeats", "2"),
    "sft": (*HIPER, "sft", "threads=1"),
    "alfworld": (*HIPER, "alfworld", "--games", "5"),
    "webshop": (*HIPER, "webshop"),
    "hae": (*HIPER, "hae"),
    "startup": (str(HERE / "cli_startup.py"),),
}
"""Arguments of Python; each prints JSON."""


def measure(name: str) -> tuple[dict[str, Any] | None, float]:
    """What one benchmark prints, None where it failed, whose last words are then shown; and how long it took, in seconds."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, *PARTS[name]], env=environment, capture_output=True, text=True, check=False)
    seconds = round(time.perf_counter() - begun, 1)
    if ran.returncode != 0:
        print(f"{name} ended with exit code {ran.returncode}:\n{ran.stderr[-2000:]}", file=sys.stderr)
        return None, seconds
    return json.loads(ran.stdout), seconds


def commit() -> str:
    """The checkout's commit, and whether files differ from it."""
    words = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=-changed"]
    ran = subprocess.run(words, cwd=HERE, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unversioned"


def main(out: Path | None, names: list[str]) -> int:
    """Measure, show and keep; exit code 1 where a benchmark failed."""
    at = commit()
    measured = {name: measure(name) for name in names}
    results = {name: result for name, (result, _) in measured.items() if result is not None}
    table = rows(results)
    kept = {
        "commit": at,
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "seconds": {name: seconds for name, (_, seconds) in measured.items()},
        "rows": to_json(table),
        "results": results,
    }
    out = out or Path("runs/bench") / f"{at}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, kept)
    print(show(table))
    print(f"\n{out}")
    return 0 if len(results) == len(names) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", metavar="FILE", help="where it is kept; runs/bench/COMMIT.json, if not given")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    options = parser.parse_args()
    sys.exit(main(options.out, options.only))
