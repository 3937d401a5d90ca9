"""Rules of processes that are started side by side: the first that fails ends the others, the failure that is told is the cause, and they
end with the one that started them. (`tests/integrations/prefect/test_flow.py` has those of a single one.)"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiper.runtime.process import ProcessError, run_processes
from tests.sockets import Watch, survivors

SLEEP = "import time; print('begun', flush=True); time.sleep(60)"
DIE = "import os; open('dead', 'w').close(); os.kill(os.getpid(), 9)"
MISS = "import os, time\nwhile not os.path.exists('dead'): time.sleep(0.01)\nraise SystemExit(1)"
"""Fails as one does that was waiting for `DIE`."""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_all_are_heard() -> None:
    said: list[str] = []
    run_processes([python(f"print({number})") for number in range(3)], os.environ, said.append, lambda *done: None)
    assert sorted(said) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("codes", "number", "how"),
    [
        ([SLEEP, "print('no'); raise SystemExit(3)"], 1, "exit code 3"),
        ([DIE, SLEEP, SLEEP], 0, "signal SIGKILL, perhaps for lack of memory"),
        ([MISS, DIE], 1, "signal SIGKILL, perhaps for lack of memory"),
        (["pass", "raise SystemExit(4)"], 1, "exit code 4"),
    ],
)
def test_one_that_fails_ends_the_others(codes: list[str], number: int, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    before = Watch(os.getpid())
    before.look()
    with Watch(os.getpid(), 0.02) as watch, pytest.raises(ProcessError) as caught:
        run_processes([python(code) for code in codes], os.environ, lambda line: None, lambda *done: None)
    assert time.monotonic() - begun < 30
    assert (caught.value.number, caught.value.how, caught.value.killed) == (number, how, how.startswith("signal"))
    assert len(watch.processes - before.processes) >= 1
    assert survivors(watch.processes - before.processes, 0.0) == set()


def test_all_end_with_the_one_that_started_them() -> None:
    """By `kill -9`, which leaves it no time to tell them."""
    parent = f"""
import os, sys
from hiper.runtime.process import run_processes
run_processes([[sys.executable, "-c", {SLEEP!r}]] * 3, os.environ, lambda line: print(line, flush=True), print)
"""
    with subprocess.Popen(python(parent), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["begun\n"] * 3
        watch = Watch(process.pid)
        watch.look()
        assert len(watch.processes) == 7, "itself, and three with a guard each"
        process.kill()
        assert survivors(watch.processes, 5.0) == set()
