"""The Prefect flow: the stages in order, its artifacts, its names; and that only a download is tried again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hiper.cli import main as cli
from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError, WorkflowError
from hiper.integrations.prefect import artifacts as shared
from hiper.integrations.prefect import tasks as module
from hiper.integrations.prefect.pipeline import FROM_MODEL, TO_MODEL, evaluate, pipeline, settings
from hiper.integrations.prefect.tasks import How, result_table
from hiper.pipeline.stages import STAGES
from hiper.runs.run_dir import begin_run, load_config, save_config
from hiper.runs.stage_folder import read_stage
from hiper.runtime.lock import locked
from hiper.runtime.process import run_process


def test_a_task_is_a_call_into_the_library(tmp_path: Path, small_settings: list[str]) -> None:
    cfg = compose([*small_settings, f"paths.run={tmp_path / 'run'}"])
    run = begin_run(cfg)
    with pytest.MonkeyPatch.context() as patch:
        reports: list[float] = []
        patch.setattr(shared, "create_progress_artifact", lambda progress, **rest: reports.append(progress))
        patch.setattr(shared, "update_progress_artifact", lambda progress, **rest: reports.append(progress))
        patch.setattr(shared, "_id", lambda created: created)
        result = module.TASKS["tasks"].fn(cfg, How.here)
    assert (result.stage, result.directory, result.reused) == ("tasks", run / "tasks", False)
    assert read_stage(run, "tasks") is not None
    assert reports[-1] == 100.0


def test_every_stage_is_a_task_of_its_name() -> None:
    assert [task.name for task in module.TASKS.values()] == ["tasks", "demos", "sft", "train", "evaluate", "report"]
    assert [name for name, task in module.TASKS.items() if task.retry_condition_fn is not None] == ["tasks"]
    assert len({task.task_key for task in module.TASKS.values()}) == len(STAGES)


def test_the_flows_are_halves_of_the_whole() -> None:
    assert [*TO_MODEL, *FROM_MODEL] == list(STAGES)
    assert (TO_MODEL[-1], FROM_MODEL[0]) == ("train", "evaluate")


def test_settings_are_composed_or_loaded(tmp_path: Path) -> None:
    assert settings(["algo.lam_high=0.5"], experiment="smoke", seed=4).paths.run == "runs/smoke/seed-4"
    save_config(compose(["experiment=smoke", "algo.lam_high=0.25"]), tmp_path / "config.yaml")
    loaded = settings(["threads=1"], run=str(tmp_path))
    assert (loaded.algo.lam_high, loaded.threads, loaded.paths.run) == (0.25, 1, str(tmp_path))


def test_a_run_goes_on_where_a_deployment_names_an_experiment(tmp_path: Path) -> None:
    """`prefect deployment run pipeline/cpu -p run=...` failed: prefect.yaml gives that deployment `experiment: quickstart`."""
    save_config(compose(["experiment=smoke", "algo.lam_high=0.25"]), tmp_path / "config.yaml")
    assert settings([], experiment="quickstart", run=str(tmp_path)) == settings([], run=str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "retries"), [(["tasks=official"], True), (["tasks=official", "tasks.data=here"], False), (["tasks=generated"], False)]
)
def test_only_a_download_is_tried_again(overrides: list[str], retries: bool) -> None:
    assert module.may_download(compose(overrides)) is retries


@pytest.mark.parametrize(("error", "again"), [(DataError("cut off"), True), (OSError("no route"), True), (ConfigError("typo"), False)])
def test_a_mistake_is_not_tried_again(error: Exception, again: bool) -> None:
    class Failed:
        def result(self, raise_on_failure: bool) -> Exception:
            return error

    assert module._worth_retrying(None, None, Failed()) is again


def test_without_evaluations_there_is_no_table(tmp_path: Path) -> None:
    assert result_table(tmp_path) == []


def test_the_flow_does_what_is_not_done_and_shows_it(prefect_server: None, finished_run: Path, tmp_path: Path) -> None:
    from prefect.client.orchestration import get_client

    run = shutil.copytree(finished_run, tmp_path / "run")
    results = pipeline(overrides=["evaluate.limit=2"], seed=0, run=str(run))
    assert [result.stage for result in results if not result.reused] == ["evaluate", "report"]
    with get_client(sync_client=True) as client:
        flow_runs = client.read_flow_runs()
        artifacts: list[Any] = client.read_artifacts()
    found = [one for one in flow_runs if one.name == "smoke-seed-0"]  # other tests' flows are on this server, too
    assert {one.state_name for one in found} == {"Completed"}
    assert {"evaluate", "evaluation", "report", "curve-success"} <= {one.key for one in artifacts}
    assert all({"experiment:smoke", "seed:0", "algo:hae"} <= set(one.tags) for one in found)
    rows = result_table(run / "evaluate")
    kinds = {(row["model"], row["split"]): row["tasks"] for row in rows if row["task type"] == "all"}
    assert kinds == {(model, split): 2 for model in ("trained", "sft") for split in ("valid_seen", "valid_unseen")}


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The overrides of each config that is composed from here on."""
    made: list[Sequence[str]] = []

    def counting(overrides: Sequence[str] = ()) -> RunConfig:
        made.append(overrides)
        return compose(overrides)

    monkeypatch.setattr("hiper.composition.compose.compose", counting)
    monkeypatch.setattr("hiper.integrations.prefect.pipeline.compose", counting)
    return made


def test_the_command_composes_once_and_hands_the_flow_a_held_run(
    prefect_server: None,
    finished_run: Path,
    tmp_path: Path,
    small_settings: list[str],
    monkeypatch: pytest.MonkeyPatch,
    composed: list[Sequence[str]],
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    given: list[dict[str, Any]] = []
    saved: list[int | None] = []

    def flow(**parameters: Any) -> Any:
        given.append(parameters)
        with pytest.raises(ConfigError, match="another process works in"), locked(run):
            pass
        saved.append(load_config(run).evaluate.limit)
        return pipeline(**parameters)

    monkeypatch.setattr("hiper.integrations.prefect.start.start_prefect", lambda: None)
    monkeypatch.setattr("hiper.integrations.prefect.pipeline.pipeline", flow)
    assert cli.main(["run", *small_settings, "evaluate.limit=2", f"paths.run={run}"]) == 0
    assert len(composed) == 1
    assert cli.main(["resume", str(run), "evaluate.limit=1"]) == 0
    assert len(composed) == 1, "a saved config is not composed"
    assert [parameters.keys() for parameters in given] == [{"run", "force", "how", "lock"}] * 2
    assert saved == [2, 1], "under the lock"
    record = read_stage(run, "evaluate")
    assert record is not None and record.settings["evaluate.limit"] == 1
    with locked(run):
        pass


def test_a_deployments_flow_composes_once(
    prefect_server: None, finished_run: Path, tmp_path: Path, small_settings: list[str], composed: list[Sequence[str]]
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    results = pipeline(overrides=[*small_settings, f"paths.run={run}"])
    assert all(result.reused for result in results)
    assert len(composed) == 1


def test_a_mistake_comes_out_of_the_flow_as_it_is(prefect_server: None) -> None:
    with pytest.raises(ConfigError, match=r"algo\.gamma"):
        pipeline(overrides=["algo.gama=1"])


def test_a_stage_can_have_a_process_of_its_own(prefect_server: None, finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    results = evaluate(run=str(run), force=True, how=How.process)
    assert [(result.stage, result.reused) for result in results] == [("evaluate", False), ("report", False)]
    results = evaluate(run=str(run), how=How.process)
    assert [result.reused for result in results] == [True, True]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_process_is_heard_and_followed(tmp_path: Path) -> None:
    said: list[str] = []
    reported: list[tuple[int, int]] = []
    code = """
from hiper.runtime.progress import track
with track("work") as report:
    print("begun")
    report(3, 3)
"""
    run_process(python(code), os.environ, said.append, lambda *done: reported.append(done))
    assert said == ["begun"]
    assert reported[-1] == (3, 3)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print('one'); raise SystemExit(3)", r"ended with exit code 3.*Its last lines:\none"),
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL, perhaps for lack of memory"),
    ],
)
def test_a_process_that_fails_shows_its_last_lines(code: str, said: str) -> None:
    with pytest.raises(WorkflowError, match=f"(?s){said}"):
        run_process(python(code), os.environ, lambda line: None, lambda *done: None)


def test_what_stops_the_flow_stops_the_process(tmp_path: Path) -> None:
    """And what that process started: here a child that would write in a minute."""
    late = f"import time; time.sleep(60); open({str(tmp_path / 'late')!r}, 'w')"
    code = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {late!r}])"

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_process(python(code), os.environ, stop, lambda *done: None)
    assert time.monotonic() - begun < 50
    listed = subprocess.run(["ps", "-ef"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "late") not in listed


@pytest.mark.slow
def test_the_flow_runs_all_stages(prefect_server: None, tmp_path: Path, small_settings: list[str]) -> None:
    results = pipeline(overrides=[*small_settings, f"paths.run={tmp_path / 'run'}"], seed=3)
    assert [result.stage for result in results] == list(STAGES)
    assert not any(result.reused for result in results)
