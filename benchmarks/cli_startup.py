"""Seconds that short commands take: `python benchmarks/cli_startup.py [--runs N]` prints JSON.

A finished run is looked at with Prefect out of the way; beside it stands what its embedded server takes to start, which it was before.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

BAR_SECONDS = 3.0
"""Most that a finished run may take to answer."""


def main(runs: int) -> dict[str, object]:
    """Time them."""
    with tempfile.TemporaryDirectory(prefix="hiper-startup-") as folder:
        run = ["run", "experiment=smoke", f"paths.run={folder}/run"]
        seconds([*run, "--direct"], 1)
        found = {
            "help": seconds(["--help"], runs),
            "config": seconds(["config", "experiment=smoke"], runs),
            "finished run": seconds(run, runs),
        }
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", _SERVER], check=True, capture_output=True)
    return {
        "seconds": found,
        "prefect_server_seconds": round(time.perf_counter() - begun, 2),
        "allowed_seconds": BAR_SECONDS,
        "within": found["finished run"] < BAR_SECONDS,
    }


_SERVER = "from hiper.integrations.prefect.server import start_embedded_server; start_embedded_server().stop()"


def seconds(arguments: Sequence[str], runs: int) -> float:
    """The median of several calls."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "hiper", *arguments], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        times.append(time.perf_counter() - begun)
    return round(statistics.median(times), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="calls of each; the median counts")
    print(json.dumps(main(parser.parse_args().runs), indent=2))
