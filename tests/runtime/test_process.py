"""Rules of processes that are started side by side.

1. The first that fails ends the others, the failure that is told is the cause. (`tests/integrations/prefect/test_flow.py` has the rules of
   a single one.)
2. Of those that do not concern one another each is given back once, as it ends; what they write goes to their files, after what is there.
3. They end with the block that started them, whether they heed SIGTERM or not, and with the process that did.
4. Processes that go on beside the one that starts them are started by `hiper.runtime.process` alone.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiper.runtime.process import Process, ProcessError, Processes, last_lines, run_processes, stop
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


def test_each_is_given_back_once_as_it_ends(tmp_path: Path) -> None:
    logs = [tmp_path / "logs" / name for name in ("first", "second")]
    with Processes() as work:
        slow = work.start(python("import time; time.sleep(60)"), log=logs[0])
        fast = work.start(python("print('one'); print('two'); raise SystemExit(3)"), log=logs[1])
        assert work.until_one_ends() is fast
        assert (fast.running, fast.failed, fast.killed, fast.how) == (False, True, False, "exit code 3")
        assert slow.running
        slow.send(9)
        assert work.until_one_ends() is slow
        assert (slow.failed, slow.killed, slow.how) == (True, True, "signal SIGKILL, perhaps for lack of memory")
        again = work.start(python("print('three')"), log=logs[1])
        assert again.wait() == 0 and not again.failed
    assert last_lines(logs[1], 2) == ["two", "three"]
    assert last_lines(logs[0]) == last_lines(tmp_path / "none") == []


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); time.sleep(60)"


@pytest.mark.parametrize("code", [SLEEP, STUBBORN])
def test_all_end_with_the_block(code: str) -> None:
    before = Watch(os.getpid())
    before.look()
    with pytest.raises(KeyboardInterrupt), Processes() as work:
        started = [work.start(python(code), heard=True) for _ in range(2)]
        for process in started:
            while process.hear() != ["begun"]:
                time.sleep(0.02)
        watch = Watch(os.getpid())
        watch.look()
        if code is STUBBORN:
            stop(started, grace=0.5)
        raise KeyboardInterrupt
    assert not any(process.running for process in started)
    assert len(watch.processes - before.processes) == 4, "two, with a guard each"
    assert survivors(watch.processes - before.processes, 1.0) == set()


def test_an_open_file_is_handed_on() -> None:
    reading, writing = os.pipe()
    process = Process(python(f"import os; os.write({writing}, b'heard')"), descriptors=[writing])
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"heard"
    assert process.wait() == 0


def test_nobody_else_starts_what_goes_on(root: Path) -> None:
    """Three modules had a supervisor of their own."""
    found = []
    for path in sorted((root / "hiper").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.Attribute) and node.attr in ("Popen", "fork") for node in ast.walk(tree)):
            found.append(path.relative_to(root / "hiper").as_posix())
    assert found == ["runtime/guard.py", "runtime/process.py"]


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
