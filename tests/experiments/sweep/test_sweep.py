"""A sweep as a command and as a flow; and, slowly, the whole of one with a worker killed half way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from hiper.cli.main import main
from hiper.composition.compose import compose, override
from hiper.config.places import config_dir
from hiper.evaluation.history import history
from hiper.experiments.sweep.outcome import tally
from hiper.experiments.sweep.spec import SweepSpec, load_spec
from hiper.experiments.sweep.study import WORKER, SweepStudy, slot_number
from hiper.experiments.sweep.trial import folder, shared_stages
from hiper.pipeline.stages import STAGES
from hiper.report.curves import evaluations
from hiper.tracking import read_metrics


@pytest.fixture
def file(finished_sweep: tuple[SweepSpec, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished sweep's file, beside the conf/ it wrote to."""
    spec, conf = finished_sweep
    monkeypatch.setenv("HIPER_CONF", str(conf))
    path = tmp_path / "small.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(spec)), encoding="utf-8")
    return path


def test_a_finished_sweep_is_not_done_again(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(file), "--direct", "--workers", "2"]) == 0
    printed = capsys.readouterr()
    assert "2 trials: 2 complete" in printed.out
    assert "small_best.yaml" in printed.out
    assert "at work" not in printed.err


def test_options_and_changes_come_in_any_order(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(file), "--workers", "1", "trials=0"]) == 2
    assert "trials=0 must be at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sweep", str(file), "--workers", "0"])
    with pytest.raises(SystemExit):
        main(["doctor", "--json", "trials=1"])


def test_the_flow_shows_what_came_of_it(prefect_server: None, file: Path) -> None:
    from prefect.client.orchestration import get_client

    from hiper.integrations.prefect.sweep import sweep

    summary = sweep(str(file))
    assert summary.tally.complete == 2
    with get_client(sync_client=True) as client:
        artifacts: dict[str | None, Any] = {one.key: one for one in client.read_artifacts()}
        names = {one.name for one in client.read_flow_runs()}
    assert "sweep-small" in names
    assert "2 trials: 2 complete" in artifacts["sweep"].data
    assert artifacts["sweep-history"].data.startswith("data:image/svg+xml;base64,")


@pytest.fixture
def smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SweepSpec, subprocess.Popen[bytes]]]:
    """`hiper sweep sweeps/smoke.yaml --workers 2` at work, in a place of its own."""
    monkeypatch.setenv("HIPER_CONF", str(shutil.copytree(config_dir(), tmp_path / "conf")))
    file, place = Path(__file__).parents[3] / "sweeps" / "smoke.yaml", f"directory={tmp_path / 'sweep'}"
    command = [sys.executable, "-m", "hiper", "sweep", str(file), "--direct", "--workers", "2", place]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            yield load_spec(file, [place]), process
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_killed_worker_costs_a_sweep_no_trial(smoke: tuple[SweepSpec, subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """24 trials of real training, two workers, one killed with SIGKILL half way."""
    spec, process = smoke
    study, killed = _wait_until_half(spec, process)
    os.kill(int(killed.user_attrs[WORKER].rpartition(":")[2]), signal.SIGKILL)
    assert process.wait(timeout=3600) == 0

    attempts = study.study.get_trials(deepcopy=False)
    kept = [trial for trial in attempts if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert sorted(slot_number(trial) for trial in kept) == list(range(24)), "each trial ended once"
    assert [(trial.number, trial.state) for trial in attempts if trial not in kept] == [(killed.number, TrialState.FAIL)]
    complete = [slot for slot in study.slots() if slot.last.state is TrialState.COMPLETE]
    pruned = [slot for slot in study.slots() if slot.last.state is TrialState.PRUNED]
    assert tally(study).open == 0
    assert pruned, "the sweep prunes"
    assert max(max(slot.last.intermediate_values) for slot in pruned) < 6
    assert sum(slot.turns for slot in pruned) / len(pruned) < sum(slot.turns for slot in complete) / len(complete)

    # The trial that was taken up again is the one an undisturbed worker would have had.
    slot = study.slots()[slot_number(killed)]
    logs = "".join(log.read_text(encoding="utf-8") for log in (spec.place / "logs").iterdir())
    assert "resumed from" in logs
    assert dict(slot.last.params) == dict(killed.params)
    again = spec.compose(slot.last.params, 0, tmp_path / "again")
    metrics = _train(spec, again)
    found = next(folder(spec, slot.number).glob("seed-0/train*/metrics.jsonl")).read_bytes()
    assert metrics.read_bytes().startswith(found)

    # The best settings give their objective again.
    best = max(complete, key=lambda slot: slot.last.value or 0.0)
    metrics = _train(spec, compose(["experiment=smoke_best", "seed=0", f"paths.run={tmp_path / 'best'}"]))
    reached = history(evaluations(read_metrics(metrics)), spec.last)
    assert reached is not None
    assert reached.mean_last == best.last.value > 0


def _wait_until_half(spec: SweepSpec, process: subprocess.Popen[bytes]) -> tuple[SweepStudy, FrozenTrial]:
    """The study when half of its trials have ended, and one in the middle of its training."""
    while process.poll() is None:
        time.sleep(0.5)
        if not (spec.place / "logs").is_dir():
            continue
        study = SweepStudy.join(spec)
        if sum(slot.ended for slot in study.slots()) >= 11:
            for trial in study.study.get_trials(states=(TrialState.RUNNING,)):
                if 2 <= max(trial.intermediate_values, default=0) <= 4:
                    return study, trial
    raise AssertionError("the sweep ended before it was half done")


def _train(spec: SweepSpec, cfg: Any) -> Path:
    run = Path(cfg.paths.run)
    STAGES["train"](override(cfg, [f"paths.base={shared_stages(spec, cfg)}"]))
    return run / "train" / "metrics.jsonl"
