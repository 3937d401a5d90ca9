"""A whole sweep on a Postgres server that crashes, restarts, and whose worker is killed while it is away; slow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiper.config.places import config_dir
from tests.experiments.sweep.conftest import SETTINGS
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

TRIALS, HEARTBEAT = 24, 3
PATIENCE = 1800.0
"""Seconds; the machine may be busy."""

Attempts = list[tuple[object, ...]]
ATTEMPTS = """
    SELECT number, state::text, coalesce(failed.value_json::int, number), error.value_json, worker.value_json
    FROM trials
    LEFT JOIN trial_system_attributes failed ON failed.trial_id = trials.trial_id AND failed.key = 'failed_trial'
    LEFT JOIN trial_user_attributes error ON error.trial_id = trials.trial_id AND error.key = 'error'
    LEFT JOIN trial_user_attributes worker ON worker.trial_id = trials.trial_id AND worker.key = 'worker'
    ORDER BY number
"""
"""Number, state, slot, error and worker of each attempt, as the database has them."""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Path:
    """A sweep on the server, in a place of its own."""
    monkeypatch.setenv("HIPER_CONF", str(shutil.copytree(config_dir(), tmp_path / "conf")))
    monkeypatch.setenv("STUDY_DB", database)
    spec = {
        "name": "served",
        "base": [*SETTINGS, "trainer.iterations=6", "trainer.save_every=1", "threads=1"],
        "space": {"algo.kl_coef": {"low": 0.001, "high": 1.0, "log": True}, "trainer.lr_actor": {"low": 3e-5, "high": 3e-3, "log": True}},
        "trials": TRIALS,
        "last": 3,
        "pruner": {"name": "median", "startup": 4, "warmup": 2},
        "storage": "${oc.env:STUDY_DB}",
        "directory": str(tmp_path / "sweep"),
        "heartbeat": HEARTBEAT,
    }
    OmegaConf.save(OmegaConf.create(spec), tmp_path / "served.yaml")
    return tmp_path / "served.yaml"


def test_a_sweep_outlives_its_server_and_a_worker(file: Path, postgres: Postgres, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hiper", "sweep", str(file), "--direct", "--workers", "2"]
    with (tmp_path / "out").open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _until(process, postgres, lambda attempts: _ended(attempts) >= 8)
            postgres.restart("immediate", away=3)
            attempts = _until(process, postgres, lambda attempts: _ended(attempts) >= 12 and len(_running(attempts)) == 2)
            victim, host_and_process = _running(attempts)[0]
            postgres.stop("fast")
            os.kill(int(host_and_process.strip('"').rpartition(":")[2]), signal.SIGKILL)
            time.sleep(6)
            postgres.start()
            assert process.wait(timeout=PATIENCE) == 0, (tmp_path / "out").read_text()
        finally:
            process.terminate()
            if not postgres.running:
                postgres.start()

    attempts = postgres.ask(ATTEMPTS, "test")
    ends = [(slot, state) for _, state, slot, error, _ in attempts if state != "FAIL" or error is not None]
    assert sorted(slot for slot, _ in ends) == list(range(TRIALS)), "each trial ended once"
    assert {state for _, state in ends} <= {"COMPLETE", "PRUNED"}
    repeated = [number for number, state, _, error, _ in attempts if state == "FAIL" and error is None]
    assert repeated == [victim], "nobody but the killed worker was taken for dead"
    logs = "".join(log.read_text(encoding="utf-8") for log in (tmp_path / "sweep" / "logs").iterdir())
    said = Counter(line.split("trial ")[1].split(":")[0] for line in logs.splitlines() if ": begins" in line)
    assert sum(said.values()) == TRIALS + 1
    assert "is back after" in logs

    shown = (tmp_path / "out").read_text()
    assert f"{TRIALS} trials: " in shown
    assert (tmp_path / "conf" / "experiment" / "served_best.yaml").is_file()
    page = (tmp_path / "sweep" / "report" / "report.html").read_text(encoding="utf-8")
    assert "taken up again" in page
    assert not any(postgres.password in text for text in (logs, shown, page))
    print(f"\n{Counter(state for _, state in ends)}; repeated: {repeated}; log:\n{shown}")


def _until(process: subprocess.Popen[bytes], postgres: Postgres, condition: Callable[[Attempts], bool]) -> Attempts:
    over = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < over:
        time.sleep(0.3)
        if postgres.ask("SELECT 1 FROM pg_tables WHERE tablename = 'trial_system_attributes'", "test"):
            attempts = postgres.ask(ATTEMPTS, "test")
            if condition(attempts):
                return attempts
    raise AssertionError("the sweep ended, or went on for too long")


def _ended(attempts: Attempts) -> int:
    return sum(state in ("COMPLETE", "PRUNED") for _, state, *_ in attempts)


def _running(attempts: Attempts) -> list[tuple[object, str]]:
    """Number and worker of those at work."""
    return [(number, str(worker)) for number, state, _, _, worker in attempts if state == "RUNNING" and worker is not None]
