"""Prefect's server with its database on a real Postgres; slow.

Rules: a deployment run of the pipeline completes; a schedule's run appears by itself; a database that restarts under the server costs no
run: what was running completes, what is asked for afterwards does, and the schedule goes on.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.prefect.test_deployments import ITERATIONS, SMALL, Site, site, wait_for, worker
from tests.postgres import Postgres, postgres_server

__all__ = ["site", "worker"]  # fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[Postgres]:
    """What the server of `site` finds in its environment: a database of a Postgres that has Prefect's extension."""
    with postgres_server(extension="pg_trgm") as server, pytest.MonkeyPatch.context() as patch:
        server.create("prefect")
        patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", server.url("prefect", "postgresql+asyncpg"))
        yield server


def scheduled(site: Site, *states: str) -> int:
    """How many runs of schedules are in these states."""
    asked = {"flow_runs": {"state": {"type": {"any_": states}}, "tags": {"all_": ["auto-scheduled"]}}}
    found = site.ask("flow_runs/filter", asked)["all"]
    assert isinstance(found, list)
    return len(found)


def test_a_deployment_run_and_a_schedule_on_postgres(site: Site, worker: subprocess.Popen[bytes], database: Postgres) -> None:
    settings = [*SMALL, f"trainer.iterations={ITERATIONS}", "paths.run=runs/first"]
    parameters = (f"overrides={json.dumps(settings)}", "experiment=smoke", "how=process")
    arguments = [word for one in parameters for word in ("--param", one)]
    site.prefect("deployment", "run", "pipeline/cpu", *arguments, "--watch", "--watch-timeout", "900")
    assert len(site.metrics("first").read_text(encoding="utf-8").splitlines()) == ITERATIONS
    assert database.ask("SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'", "prefect") == [(1,)], "it is all in Postgres"
    assert not list(Path(site.environment["PREFECT_HOME"]).glob("*.db")), "and nothing beside it"

    site.prefect("deployment", "schedule", "create", "reevaluate/nightly", "--cron", "* * * * *")
    log = site.home / "worker.log"
    wait_for(lambda: scheduled(site, "COMPLETED") >= 1, lambda: log.read_text(encoding="utf-8"))
    site.prefect("deployment", "schedule", "pause", "--all")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_database_that_restarts_costs_no_run(mode: str, site: Site, worker: subprocess.Popen[bytes], database: Postgres) -> None:
    """Away for ten seconds in mid-training."""
    name = f"during-{mode}"
    running = site.begin(name)
    metrics = site.metrics(name, "train.partial")
    wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 2, lambda: site.log(running))
    began = time.monotonic()
    database.restart(mode, away=10)
    site.until(running, "Completed")
    assert len(site.metrics(name).read_text(encoding="utf-8").splitlines()) == ITERATIONS

    later = site.begin(f"after-{mode}")
    site.until(later, "Completed")
    before = scheduled(site, "COMPLETED", "FAILED")  # the latter where there is no run to evaluate
    site.prefect("deployment", "schedule", "create", "reevaluate/nightly", "--cron", "* * * * *")
    wait_for(lambda: scheduled(site, "COMPLETED", "FAILED") > before, lambda: (site.home / "worker.log").read_text(encoding="utf-8"))
    site.prefect("deployment", "schedule", "pause", "--all")
    print(f"\n{mode}: all of it took {time.monotonic() - began:.0f} s")
