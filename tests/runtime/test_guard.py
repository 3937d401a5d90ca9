"""Rules of a guarded command.

1. It ends as it would alone: exit code, signal, output.
2. A signal to the guard reaches the command and its process group once.
3. When the process that wanted it is killed, it ends, with all it started: what heeds SIGTERM in peace, what does not by SIGKILL within
   five seconds, also what has left its session or lost its parent.
4. What it leaves running when it ends by itself is ended, too.
5. A guard that is killed takes the command along.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiper.runtime.parent_death import guarded
from tests.processes import living, marked, orphans
from tests.sockets import Watch

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
SLEEP = "import time; time.sleep(60)"
DEAF = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'deaf\\n'); " + SLEEP


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("print('said')", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 11)", -11),
    ],
)
def test_it_ends_as_the_command_ends(code: str, left: int) -> None:
    ran = subprocess.run(guarded(python(code)), capture_output=True, text=True)
    assert ran.returncode == left
    assert ran.stdout == ("said\n" if left == 0 else "")
    assert ran.stderr == ""


def test_a_program_that_is_missing_is_named() -> None:
    ran = subprocess.run(guarded(["/no/such/program"]), capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (127, "cannot run /no/such/program: No such file or directory\n")


def test_descriptors_meant_for_the_command_reach_it() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as said:
        subprocess.run(guarded(python(f"import os; os.write({writer}, b'here')")), pass_fds=[writer], check=True)
        os.close(writer)
        assert said.read() == "here"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once(number: signal.Signals) -> None:
    code = f"""
import signal, time
heard = []
signal.signal({int(number)}, lambda number, frame: heard.append(number))
print("ready", flush=True)
while not heard:
    time.sleep(0.05)
time.sleep(1)
print(len(heard))
"""
    with subprocess.Popen(guarded(python(code)), stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, number)
        assert process.communicate(timeout=30)[0] == "1\n"
    assert process.returncode == 0


def starts(*commands: str) -> str:
    """Code that starts Python programs, each in a session of its own, and waits."""
    return f"""
import os, subprocess, sys, time
for code in {list(commands)!r}:
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
os.write(1, b"begun\\n")  # one write: several have this pipe
time.sleep(60)
"""


@linux
def test_a_killed_command_takes_all_it_started_along() -> None:
    """SIGKILL leaves no time to stop anything. Its children ignore SIGTERM, and theirs have sessions of their own."""
    environment, mark = marked()
    parent = f"""
import subprocess
from hiper.runtime.parent_death import guarded
subprocess.run(guarded({python(starts(DEAF, starts(SLEEP, DEAF)))!r}), start_new_session=True)
"""
    with subprocess.Popen(python(parent), env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = sorted(process.stdout.readline() for _ in range(4))
        assert said == ["begun\n", "begun\n", "deaf\n", "deaf\n"]
        watch = Watch(process.pid)
        watch.look()
        assert len(watch.processes) == 7
        process.kill()
        process.wait()
        assert orphans(mark, watch.processes) == {}


@linux
def test_a_command_that_heeds_sigterm_ends_in_peace(tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, time
def end(*_):
    time.sleep(1)
    pathlib.Path({str(tmp_path / "ended")!r}).write_text("in peace")
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print("begun", flush=True)
time.sleep(60)
"""
    environment, mark = marked()
    parent = f"import subprocess; from hiper.runtime.parent_death import guarded; subprocess.run(guarded({python(code)!r}))"
    with subprocess.Popen(python(parent), env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        assert orphans(mark) == {}
    assert (tmp_path / "ended").read_text() == "in peace"


@linux
def test_what_a_command_leaves_running_is_ended() -> None:
    """A daemon, in the way daemons are made: two forks, with a session of its own in between."""
    code = f"""
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.close(1)
        {SLEEP}
    os._exit(0)
os.wait()
print("done")
"""
    environment, mark = marked()
    began = time.monotonic()
    ran = subprocess.run(guarded(python(code)), env=environment, stdout=subprocess.PIPE, text=True, timeout=30)
    assert (ran.returncode, ran.stdout) == (0, "done\n")
    assert living(mark) == {}
    assert time.monotonic() - began < 5


@linux
def test_a_killed_guard_takes_its_command_along() -> None:
    environment, mark = marked()
    with subprocess.Popen(guarded(python(DEAF)), env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait()
        assert orphans(mark) == {}


@linux
def test_a_command_whose_starter_is_gone_does_not_begin() -> None:
    nobody = subprocess.Popen(python("pass"))
    nobody.wait()
    ran = subprocess.run(
        [sys.executable, "-m", "hiper.runtime.guard", str(nobody.pid), *python("print('begun')")], capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout) == (127, "")


@linux
def test_a_folder_of_our_name_in_the_working_directory_disturbs_nothing(tmp_path: Path) -> None:
    (tmp_path / "hiper").mkdir()
    (tmp_path / "hiper" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    ran = subprocess.run(guarded(python("print('said')")), cwd=tmp_path, capture_output=True, text=True, start_new_session=True)
    assert (ran.returncode, ran.stdout) == (0, "said\n"), ran.stderr
