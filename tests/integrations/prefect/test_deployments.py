"""The round trip, with a real server and real workers on loopback, started as `make server`, `make deploy` and `make worker` do; slow.

Rules: what prefect.yaml says deploys; a deployment run of the pipeline completes; a schedule's run appears by itself and completes; a
cancelled run and one whose worker was killed are finished by the next deployment run, to the bytes of an undisturbed one; whatever ends a
flow, no process of it stays. All of it goes through the protected server, whose auth string the commands find by themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hiper.integrations.prefect.access import auth_file, read_auth_string
from tests.processes import SECONDS
from tests.sockets import Watch, survivors

pytestmark = pytest.mark.slow

ITERATIONS = 8
PATIENCE = 900.0
"""Seconds; the machine may be busy."""


@dataclass
class Site:
    """A server, its database, and a checkout for its workers."""

    home: Path
    environment: dict[str, str]

    def prefect(self, *arguments: str) -> str:
        """The output of a Prefect command that must succeed."""
        return self.flows("prefect", *arguments)

    def flows(self, *arguments: str) -> str:
        """The output of a command of `python -m hiper.integrations.prefect` that must succeed."""
        ran = subprocess.run(self.command(*arguments), env=self.environment, cwd=self.home, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "hiper.integrations.prefect", *arguments]

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A command in a session of its own, its output in a log."""
        with (self.home / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                self.command(*arguments), env=self.environment, cwd=self.home, stdout=log, stderr=log, start_new_session=True
            )

    def begin(self, run: str, *more: str) -> str:
        """A deployment run of the pipeline; its id."""
        settings = [*SMALL, f"trainer.iterations={ITERATIONS}", f"paths.run=runs/{run}"]
        parameters = (f"overrides={json.dumps(settings)}", "experiment=smoke", "how=process", *more)
        said = self.prefect("deployment", "run", "pipeline/cpu", *(word for one in parameters for word in ("--param", one)))
        found = re.search(r"UUID: ([0-9a-f-]{36})", said)
        assert found is not None, said
        return found[1]

    def state(self, flow_run: str) -> str:
        return str(self.ask(f"flow_runs/{flow_run}")["state_name"])

    def ask(self, path: str, body: object = None) -> dict[str, object]:
        """What the server's API answers."""
        import httpx

        user, _, password = read_auth_string(auth_file(self.environment)).partition(":")
        with httpx.Client(base_url=self.environment["PREFECT_API_URL"], auth=(user, password), timeout=60) as client:
            token = client.get("/csrf-token", params={"client": "test"}).json()["token"]
            client.headers.update({"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "test"})
            answer = client.get(path) if body is None else client.post(path, json=body)
        answer.raise_for_status()
        found = answer.json()
        return found if isinstance(found, dict) else {"all": found}

    def until(self, flow_run: str, wanted: str) -> None:
        wait_for(lambda: self.state(flow_run) == wanted, lambda: f"flow run is {self.state(flow_run)}, not {wanted}; {self.log(flow_run)}")

    def log(self, flow_run: str) -> str:
        """What the flow's log says."""
        found = self.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [flow_run]}}, "limit": 200})["all"]
        assert isinstance(found, list)
        return "\n".join(str(one["message"]) for one in found)

    def metrics(self, run: str, stage: str = "train") -> Path:
        return self.home / "runs" / run / stage / "metrics.jsonl"


SMALL = ["alfworld.train=12", "demos.count=16", "env.max_turns=6", "sft.max_steps=2", "rollout.trajectories=4", "trainer.save_every=1"]


def wait_for(done: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    over = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < over, otherwise()
        time.sleep(0.3)


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with everything deployed, and a checkout whose nightly re-evaluation watches the run `first`."""
    home = tmp_path_factory.mktemp("site")
    for name in ("flows", "hiper", "sweeps", "prefect.yaml"):
        (home / name).symlink_to(root / name)
    shutil.copytree(root / "conf", home / "conf")
    plan = OmegaConf.create({"models": [{"name": "first", "run": "runs/first"}]})
    (home / "conf" / "reevaluate" / "nightly.yaml").write_text(OmegaConf.to_yaml(plan), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "HIPER_HOME": str(home),
        "OMP_NUM_THREADS": "1",
    }
    made = Site(home, environment)
    server = made.start("server", "server", "--port", str(port))
    try:
        wait_for(lambda: _answers(made), lambda: (home / "server.log").read_text(encoding="utf-8"))
        made.flows("deploy")
        yield made
    finally:
        end(server)


def _answers(site: Site) -> bool:
    import httpx

    try:
        return httpx.get(f"{site.environment['PREFECT_API_URL']}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def worker(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    process = site.start("worker", "worker", "--pool", "cpu")
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=30)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def processes_of(site: Site, *words: str) -> list[int]:
    """Processes that a worker of this site started, whose command line has all the words."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            environment, command = ((place / name).read_bytes().decode(errors="replace") for name in ("environ", "cmdline"))
        except (OSError, ValueError):
            continue
        if f"PREFECT_HOME={site.environment['PREFECT_HOME']}" in environment and all(word in command for word in words):
            found.append(int(place.name))
    return found


def test_all_of_it_is_deployed(site: Site) -> None:
    written = OmegaConf.load(site.home / "prefect.yaml").deployments
    found = site.ask("deployments/filter", {})["all"]
    assert isinstance(found, list)
    assert len(found) == len(written)
    (nightly,) = [one for one in found if one["name"] == "nightly"]
    assert [one["schedule"]["cron"] for one in nightly["schedules"]] == ["30 2 * * *"]


def test_the_pipeline_completes_and_its_schedule_follows(site: Site, worker: subprocess.Popen[bytes]) -> None:
    first = site.begin("first")
    site.until(first, "Completed")
    assert site.ask(f"flow_runs/{first}")["name"] == "smoke-seed-0"
    log = site.log(first)
    assert f"iteration {ITERATIONS}/{ITERATIONS}" in log, "what the stage's process says is in the flow's log"
    assert len(site.metrics("first").read_text(encoding="utf-8").splitlines()) == ITERATIONS

    site.prefect("deployment", "schedule", "create", "reevaluate/nightly", "--cron", "* * * * *")
    history = site.home / "reevaluations" / "first.jsonl"
    wait_for(lambda: history.is_file() and len(history.read_text().splitlines()) >= 2, lambda: (site.home / "worker.log").read_text())
    site.prefect("deployment", "schedule", "pause", "--all")
    first_entry, second_entry = (json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()[:2])
    assert first_entry["evaluation"] == second_entry["evaluation"], "the same inputs, the same bytes"
    found = site.ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "tags": {"all_": ["auto-scheduled"]}}})
    assert found["all"], "Prefect itself made the run"


def test_a_gpu_worker_does_what_needs_a_gpu(site: Site, worker: subprocess.Popen[bytes]) -> None:
    """Needs `first`: on its copy, deployments of the pool `gpu` find nothing left to do but the evaluation."""
    shutil.copytree(site.home / "runs" / "first", site.home / "runs" / "shared")
    shutil.rmtree(site.home / "runs" / "shared" / "evaluate")
    other = site.start("gpu-worker", "worker", "--pool", "gpu")
    try:
        whole = site.begin("shared", "gpu=gpu")
        site.until(whole, "Completed")
    finally:
        end(other)
    parts = site.ask("flow_runs/filter", {"flow_runs": {"parent_task_run_id": {"is_null_": False}}})["all"]
    assert isinstance(parts, list)
    assert sorted((part["work_pool_name"], part["work_queue_name"]) for part in parts) == [("gpu", "one-at-a-time")] * 2
    assert (site.home / "runs" / "shared" / "report" / "report.html").is_file()


def _training(site: Site, run: str, flow_run: str) -> None:
    """Wait until the training of a run has a few checkpoints and is not near its end."""
    metrics = site.metrics(run, "train.partial")
    wait_for(
        lambda: metrics.is_file() and len(metrics.read_text(encoding="utf-8").splitlines()) >= 2,
        lambda: f"{site.state(flow_run)}; {site.log(flow_run)}",
    )


def test_a_cancelled_run_is_finished_by_the_next(site: Site, worker: subprocess.Popen[bytes]) -> None:
    """Needs `first`, the undisturbed run."""
    cancelled = site.begin("cancelled")
    _training(site, "cancelled", cancelled)
    site.prefect("flow-run", "cancel", cancelled)
    site.until(cancelled, "Cancelled")
    wait_for(lambda: not processes_of(site, "runs/cancelled"), lambda: str(processes_of(site, "runs/cancelled")))
    assert not site.metrics("cancelled").exists()
    _finish(site, "cancelled")


def test_a_run_whose_worker_was_killed_is_finished_by_the_next(site: Site) -> None:
    """SIGKILL for what was started as worker: Prefect's worker, its flow and the flow's stage end with it."""
    worker = site.start("worker", "worker", "--pool", "cpu")
    lost = site.begin("lost")
    _training(site, "lost", lost)
    watch = Watch(worker.pid)
    watch.look()
    assert set(processes_of(site, "runs/lost")) <= {process.pid for process in watch.processes}
    worker.kill()
    worker.wait(timeout=30)
    assert survivors(watch.processes, SECONDS) == set()
    assert processes_of(site, "runs/lost") == []
    assert not site.metrics("lost").exists()
    worker = site.start("worker", "worker", "--pool", "cpu")
    try:
        _finish(site, "lost")
    finally:
        end(worker)


def _finish(site: Site, run: str) -> None:
    again = site.begin(run)
    site.until(again, "Completed")
    assert "resumed from" in site.log(again)
    assert site.metrics(run).read_bytes() == site.metrics("first").read_bytes()
    for file in ("train/model/model.safetensors", "evaluate/metrics.json"):
        assert (site.home / "runs" / run / file).read_bytes() == (site.home / "runs" / "first" / file).read_bytes()
