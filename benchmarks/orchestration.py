"""What Prefect costs: `python benchmarks/orchestration.py [--runs N] [OVERRIDE ...]` prints JSON; with --runs 1 it takes some minutes.

Whole `hiper run` commands, from the start of the process to its end, in turn: `--direct` (the stages called plainly), through a Prefect
server that is running, and through the embedded one. Each does all stages in a directory of its own. The bar: with a server running, at
most 3 s and 2 % of the direct run more. Seconds of other programs on the machine are in the figures; processor seconds are given beside
them. What the embedded server adds to that, its start, is `embedded` less `server`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.request import urlopen

SECONDS, SHARE = 3.0, 0.02
"""The bar."""
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


def main(overrides: Sequence[str], runs: int) -> dict[str, object]:
    """Time all ways `runs` times, in turn, and compare their medians."""
    with tempfile.TemporaryDirectory(prefix="hiper-bench-") as folder:
        environment = {**os.environ, **QUIET, "PREFECT_HOME": f"{folder}/prefect"}
        environment.pop("PREFECT_API_URL", None)
        with _server(environment) as url:
            ways: dict[str, tuple[list[str], dict[str, str]]] = {
                "direct": (["--direct"], environment),
                "server": ([], {**environment, "PREFECT_API_URL": url}),
                "embedded": ([], environment),
            }
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
            for number in range(runs):
                for name, (options, where) in ways.items():
                    found[name].append(_timed([*options, *overrides, f"paths.run={folder}/{name}-{number}"], where))
    wall, work = ({name: statistics.median(one[which] for one in times) for name, times in found.items()} for which in (0, 1))
    allowed = SECONDS + SHARE * wall["direct"]
    return {
        "overrides": list(overrides),
        "seconds": {name: [round(seconds, 2) for seconds, _ in times] for name, times in found.items()},
        "processor_seconds": {name: [round(seconds, 2) for _, seconds in times] for name, times in found.items()},
        "added_by_a_running_server": round(wall["server"] - wall["direct"], 2),
        "allowed": round(allowed, 2),
        "within": wall["server"] - wall["direct"] <= allowed,
        "processor_seconds_added": round(work["server"] - work["direct"], 2),
        "start_of_the_embedded_server": round(wall["embedded"] - wall["server"], 2),
    }


@contextmanager
def _server(environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hiper.integrations.prefect", "server", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    try:
        over = time.monotonic() + 300
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > over:
                raise RuntimeError("the Prefect server did not come up")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _timed(arguments: Sequence[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and processor seconds of the process and its children, of one `hiper run`."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "hiper", "run", *arguments]
    ran = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {ran.returncode}:\n{ran.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="of each way (3)")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", default=["experiment=smoke"])
    given = parser.parse_args()
    print(json.dumps(main(given.overrides, given.runs), indent=2))
