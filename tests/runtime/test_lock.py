"""Rules of the lock.

1. One command at a time works in a run's directory; who holds it is said to the next.
2. Processes that work for the command that holds it are let in by its token, and by no other.
3. The lock goes with its process, however that ends.
4. A stage waits for a process that a killed command left at work.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hiper.errors import ConfigError
from hiper.runtime import lock
from hiper.runtime.lock import TOKENS, lock_environment, lock_tokens, locked, working

HOLD = """
import sys, time
from pathlib import Path
from hiper.runtime.lock import locked, lock_tokens, working
with locked(Path(sys.argv[1])), working(Path(sys.argv[1])):
    print(lock_tokens(), flush=True)
    time.sleep(60)
"""

ENTER = "import sys; from pathlib import Path; from hiper.runtime.lock import locked\nwith locked(Path(sys.argv[1])): print('in')"


def enter(run: Path, environment: dict[str, str]) -> str:
    found = subprocess.run(
        [sys.executable, "-c", ENTER, str(run)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or found.stderr.strip().splitlines()[-1]


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match=rf"another process works in .*\(process {os.getpid()} on "), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_only_those_who_work_for_the_holder_are_let_in(tmp_path: Path) -> None:
    with locked(tmp_path / "other"):
        elsewhere = lock_environment()
        with locked(tmp_path / "run"):
            assert enter(tmp_path / "run", lock_environment()) == "in"
            assert enter(tmp_path / "other", lock_environment()) == "in", "tokens of all that is held are handed on"
            assert "another process works in" in enter(tmp_path / "run", {TOKENS: elsewhere[TOKENS]})
            assert "another process works in" in enter(tmp_path / "run", {TOKENS: ""})
            with locked(tmp_path / "run", tokens=lock_tokens()):
                pass
            assert "another process works in" in enter(tmp_path / "run", {}), "leaving does not unlock what the other holds"
    assert lock_tokens() == ""


def test_a_token_of_the_past_opens_nothing(tmp_path: Path) -> None:
    with locked(tmp_path):
        old = lock_environment()
    with locked(tmp_path):
        assert "another process works in" in enter(tmp_path, old)
    assert enter(tmp_path, old) == "in", "nobody holds it"


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(ConfigError), locked(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    with locked(tmp_path), working(tmp_path):
        pass


def test_waiting_ends_when_the_other_is_done(tmp_path: Path) -> None:
    held, order = threading.Event(), []

    def other() -> None:
        with locked(tmp_path):
            held.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    with locked(tmp_path, wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_stage_waits_for_what_a_killed_command_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.2)
    with working(tmp_path), pytest.raises(ConfigError, match="a process of an earlier command is still at work"), working(tmp_path):
        pass
    monkeypatch.setattr(lock, "GRACE_SECONDS", 10.0)
    begun = threading.Event()

    def orphan() -> None:
        with working(tmp_path):
            begun.set()
            time.sleep(0.3)

    thread = threading.Thread(target=orphan)
    thread.start()
    begun.wait()
    with working(tmp_path):
        pass
    thread.join()
