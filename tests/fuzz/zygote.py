"""Runs commands of `hiper`, each in a fork of a process that has imported everything: an import takes seconds, a fork milliseconds.

python -m tests.fuzz.zygote     one JSON order a line on standard input, one JSON answer a line on standard output
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

LIGHT = (
    "hiper.cli.main",
    "hiper.runtime.parent_death",
    "hiper.pipeline.stages",
    "hiper.cli.play",
    "hiper.suites.alfworld.suite",
    "hiper.suites.webshop.suite",
    "hiper.sft.demos",
    "hiper.report",
    "hiper.experiments.comparison.results",
    "hydra",
)
HEAVY = (
    "hiper.integrations.dvc",
    "hiper.suites.webshop.conformance",
    "hiper.benchmarks.hae",
    "hiper.rollout.collect",
    "hiper.train.trainer",
    "hiper.sft.fine_tune",
    "hiper.experiments.reevaluate",
    "hiper.experiments.sweep.sweep",
    "datasets",
    "trl",
    "accelerate",
    "transformers.models.seed_oss.modeling_seed_oss",
    "transformers.trainer",
)
"""What trains or plays with models needs besides."""
MEMORY = 12 << 30
"""Bytes of address space: what grows without end is ended."""


def main() -> None:
    """Serve until standard input ends."""
    for name in (*LIGHT, *HEAVY) if sys.argv[1] == "all" else LIGHT:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(_serve(json.loads(line))), flush=True)


def _serve(order: dict[str, Any]) -> dict[str, Any]:
    """Run one command: `arguments`, in the folder `cwd`.

    It may take `seconds` of a processor, and be idle for so long; on a busy machine a clock on the wall would say nothing. The answer: exit
    `code` (None: it was ended), `seconds` of processor time.
    """
    child = os.fork()
    if child == 0:
        _become(order)
    code: int | None = None
    used, since = 0.0, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        now = _used(child)
        if now != used:
            used, since = now, time.monotonic()
        if used > order["seconds"] or time.monotonic() - since > order["seconds"]:
            break
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
    return {"code": code, "seconds": used}


def _used(child: int) -> float:
    """Seconds of processor time of a process, and of those it has waited for."""
    fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _become(order: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.update(order["environment"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for descriptor, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, order["out"], os.O_WRONLY | os.O_CREAT),
        (2, order["err"], os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags, 0o600), descriptor)
    code = 70
    try:
        called: Any = importlib.import_module(order["module"])
        code = called.main(order["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 2
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
