"""Rules of a long command.

1. Killed with SIGKILL, it leaves no process of its tree alive five seconds later, nor any that it once started.
2. While it works, nothing of it listens but on loopback.
3. Given again, it goes on.

Each command is a real one, killed in the middle of its training.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiper.integrations.prefect.server import EmbeddedServer
from tests.processes import living, marked, orphans
from tests.sockets import Watch, beyond_loopback, tree

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")

PATIENCE = 600.0
"""Seconds until a command is at its training; the machine may be busy."""
LONG = "trainer.iterations=500"
HIPER = [sys.executable, "-m", "hiper"]
STUDY = "name: small\nbase: [{settings}]\narms:\n  hae: []\n  grpo: [algo=grpo, algo.group_size=4]\nseeds: [0]\nown_start: true\n"


class Killable:
    """A command at work in a directory of its own."""

    def __init__(self, folder: Path, command: list[str], **environment: str) -> None:
        self.folder, self.log = folder, folder / "command.log"
        inherited, self.mark = marked()
        inherited.pop("PREFECT_API_URL", None)
        known = {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**inherited, **known, **environment}, stdout=log, stderr=log, start_new_session=True
            )
        self.watch = Watch(self.process.pid, pause=0.5)

    def until(self, done: Callable[[], bool]) -> None:
        over = time.monotonic() + PATIENCE
        while not done():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < over, self.said()
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until_training(self, *runs: str) -> None:
        """Until the training of each run has its first line of metrics."""
        self.until(lambda: all(lines(self.folder / run) for run in runs))

    def kill(self) -> None:
        """SIGKILL for the command alone."""
        self.watch.look()
        assert len(self.watch.processes) > 1, "there is somebody who could stay"
        self.process.kill()
        self.process.wait()

    def check(self, servers: int) -> None:
        """See that of all that was ever seen nothing is left, and that nothing listened but so many servers, on loopback."""
        assert orphans(self.mark, self.watch.processes) == {}
        assert len({listener.port for listener in self.watch.listeners if listener.protocol.startswith("tcp")}) == servers
        assert beyond_loopback(self.watch.listeners) == set()


def lines(run: Path) -> int:
    """Lines of metrics of a training that has not finished."""
    file = run / "train.partial" / "metrics.jsonl"
    return len(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else 0


@contextmanager
def working(folder: Path, command: list[str], **environment: str) -> Iterator[Killable]:
    one = Killable(folder, command, **environment)
    try:
        with one.watch:
            yield one
    finally:
        one.process.kill()
        one.process.wait()
        for pid in orphans(one.mark):  # only where the test has failed
            os.kill(pid, signal.SIGKILL)


def test_a_killed_run_leaves_nothing(tmp_path: Path, small_settings: list[str]) -> None:
    """Prefect's embedded server lived on, with 231 MB and an open port."""
    with working(tmp_path, [*HIPER, "run", *small_settings, LONG, "paths.run=run"]) as run:
        run.until_training("run")
        run.kill()
        run.check(servers=1)


def test_a_killed_study_leaves_nothing_and_goes_on(tmp_path: Path, small_settings: list[str]) -> None:
    """Its cells went on training, and the next call found their runs in use and reported them as failed."""
    (tmp_path / "study.yaml").write_text(STUDY.format(settings=", ".join([*small_settings, LONG])))
    command = [*HIPER, "compare", "study.yaml", "--jobs", "2", "--out", "results.md"]
    cells = [f"runs/small/{arm}/seed-0" for arm in ("hae", "grpo")]
    with working(tmp_path, command) as study:
        study.until_training(*cells)
        assert len(tree(study.process.pid)) >= 5, "itself, and two cells with their guards"
        study.kill()
        reached = [lines(tmp_path / cell) for cell in cells]
        with working(tmp_path, command) as again:  # at once, with the cells still ending
            again.until(lambda: all(lines(tmp_path / cell) > reach for cell, reach in zip(cells, reached, strict=True)))
            study.check(servers=0)
            again.process.send_signal(signal.SIGINT)
            assert again.process.wait(timeout=60) == 130
            assert living(again.mark) == {}
            assert "failed" not in again.said()
            assert "another process" not in again.said()


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, small_settings: list[str]) -> None:
    """A terminal sends Ctrl-C to the whole foreground group. Were the server in it, the run would try in vain to report to it."""
    with working(tmp_path, [*HIPER, "run", *small_settings, LONG, "paths.run=run"]) as run:
        run.until_training("run")
        os.killpg(run.process.pid, signal.SIGINT)
        assert run.process.wait(timeout=60) == 130
        assert living(run.mark) == {}
        assert run.said().splitlines()[-1].startswith("hiper: interrupted; finished work is kept in run.")
        assert "Traceback" not in run.said()


@pytest.mark.slow
def test_a_killed_flow_leaves_nothing(tmp_path: Path, small_settings: list[str], embedded_server: EmbeddedServer) -> None:
    """Under a server that runs, with each stage in a process of its own."""
    overrides = [*small_settings, LONG, "paths.run=run"]
    flow = f"from hiper.integrations.prefect.pipeline import pipeline; pipeline(overrides={overrides!r}, how='process')"
    with working(tmp_path, [sys.executable, "-c", flow], **embedded_server.environment()) as run:
        run.until_training("run")
        assert len(tree(run.process.pid)) == 3, "the flow, a guard and the stage"
        run.kill()
        run.check(servers=0)


@pytest.mark.slow
def test_a_killed_training_of_two_processes_leaves_nothing(tmp_path: Path, small_settings: list[str]) -> None:
    with working(tmp_path, [*HIPER, "run", "--direct", *small_settings, LONG, "paths.run=run", "trainer.processes=2"]) as run:
        run.until_training("run")
        assert len(tree(run.process.pid)) == 5, "itself, and two processes with their guards"
        run.kill()
        run.check(servers=2)


@pytest.mark.slow
def test_a_killed_sweep_leaves_nothing(tmp_path: Path, small_settings: list[str]) -> None:
    """With Prefect's embedded server, and two workers at their trials."""
    spec = {
        "name": "small",
        "base": [*small_settings, LONG, "trainer.eval_tasks=2", "trainer.eval_every=1"],
        "space": {"algo.kl_coef": {"low": 0.001, "high": 1.0, "log": True}},
        "trials": 4,
        "directory": "sweep",
    }
    (tmp_path / "sweep.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(spec)))
    with working(tmp_path, [*HIPER, "sweep", "sweep.yaml", "--workers", "2"]) as sweep:
        sweep.until(lambda: len(list(tmp_path.glob("sweep/trials/*/seed-0/train.partial/metrics.jsonl"))) == 2)
        sweep.kill()
        sweep.check(servers=1)
