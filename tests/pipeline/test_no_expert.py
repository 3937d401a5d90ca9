"""A suite without an expert: its runs go from tasks to training, which starts from the base model.

1. The whole pipeline trains and reports; what is left out is said once, and what it left leads to the same bits again.
2. The commands of the stages left out, and the expert, are refused by the suite's name.
3. Fingerprints, DVC, comparisons and sweeps know no stage that the run has not.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import hiper
from hiper.cli.main import main
from hiper.composition.compose import compose, override
from hiper.errors import ConfigError
from hiper.experiments.comparison.spec import Comparison
from hiper.integrations.dvc import versioned_settings
from hiper.integrations.dvc.__main__ import main as write_dvc
from hiper.integrations.dvc.stages import DVC_FILE, dvc_file
from hiper.model.actor import load_tokenizer
from hiper.pipeline.preflight import check
from hiper.pipeline.state import task_index
from hiper.pipeline.verify import verify_run
from hiper.runs.fingerprint import stage_fingerprint
from hiper.runs.plan import stages_of
from hiper.suites import registry, suite_of
from hiper.suites.suite import Suite

STAGES = ["tasks", "train", "evaluate", "report"]
SETTINGS = [
    *("env.name=quiet_vault", "env.max_turns=6", "threads=1", "rollout=grammar", "protocol.style=terse"),
    *("model.tiny.hidden=64", "model.tiny.layers=2", "model.tiny.intermediate=128", "rollout.trajectories=8", "rollout.slots=8"),
    *("trainer.iterations=2", "trainer.minibatch=4", "trainer.eval_every=1", "trainer.eval_tasks=4", "trainer.lr_actor=1.0e-4"),
]


@pytest.fixture(autouse=True)
def quiet_vault(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The suite of examples/new_suite, whose expert keeps silent."""
    monkeypatch.syspath_prepend(str(root / "examples" / "new_suite"))
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    before = set(sys.modules)
    from settings import VaultConfig  # type: ignore[import-not-found]  # as the example finds it
    from suite import VaultSuite  # type: ignore[import-not-found]  # likewise

    silent: Any = type("QuietVault", (VaultSuite,), {"expert": Suite.expert})
    registry.register_suite("quiet_vault", silent, VaultConfig)
    yield
    for name in set(sys.modules) - before:
        if name in ("suite", "settings", "expert", "vault"):
            del sys.modules[name]


def test_it_trains_from_the_base_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    cfg = compose([*SETTINGS, f"paths.run={run}"])
    with caplog.at_level(logging.INFO):
        assert [result.stage for result in hiper.run(cfg)] == STAGES
    said = "env.name=quiet_vault has no expert: demos and sft are left out, and training starts from the base model."
    assert caplog.text.count(said) == 1
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == sorted(STAGES)
    assert {"red", "open", "unlock", "chest", "key"} <= load_tokenizer(run / "train" / "base").get_vocab().keys()
    metrics = json.loads((run / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics.keys() == {"base", "trained", "tasks"} and metrics["tasks"] == {"valid": 10, "test": 10}
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "points over the base model" in page and "warm start" not in page.lower()
    assert (run / "report" / "tasks.csv").read_text(encoding="utf-8").startswith("tasks,trained,base\n")
    assert all(sound for _, sound in verify_run(run))
    assert all(result.reused for result in hiper.run(cfg))
    again = override(cfg, [f"paths.run={tmp_path / 'again'}"])
    hiper.run(again)
    for name in ("base/model.safetensors", "base/tokenizer.json", "model/model.safetensors", "metrics.jsonl"):
        assert (run / "train" / name).read_bytes() == (tmp_path / "again" / "train" / name).read_bytes(), name


def test_what_it_has_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("demos", "sft"):
        assert main([command, *SETTINGS]) == ConfigError.exit_code
        assert "env.name=quiet_vault has no expert: demos and sft are left out" in (said := capsys.readouterr().err)
        assert f"nothing for `hiper {command}` to do" in said
        assert not (tmp_path / "runs").exists()
    assert main(["play", "--expert", *SETTINGS]) == ConfigError.exit_code
    assert "env.name=quiet_vault has no expert" in capsys.readouterr().err
    cfg = compose([*SETTINGS, f"paths.run={tmp_path / 'run'}"])
    with pytest.raises(ConfigError, match="env.name=quiet_vault has no expert"):
        suite_of(cfg).expert(suite_of(cfg).index(tmp_path, cfg), cfg, Random(0))


def test_a_base_model_that_cannot_be_had_is_named_before_the_first_stage() -> None:
    with pytest.raises(ConfigError, match="model.path='/no/where'"):
        check(compose([*SETTINGS, "model.path=/no/where"]), STAGES)


def test_everything_that_lists_stages_follows(tmp_path: Path) -> None:
    cfg = compose([*SETTINGS, f"paths.run={tmp_path / 'run'}"])
    assert stages_of(cfg) == STAGES
    for change, redone in {"sft.seed=3": STAGES[1:], "sft.lr=0.1": [], "demos.count=3": [], "seed=3": STAGES[1:]}.items():
        other = override(cfg, [change])
        assert [name for name in STAGES if stage_fingerprint(cfg, name) != stage_fingerprint(other, name)] == redone, change
    stages = dvc_file("quiet_vault")["stages"]
    assert list(stages) == STAGES and stages["train"]["deps"] == ["hiper/__init__.py", "${paths.run}/tasks"]
    comparison = Comparison("quiet", tuple(SETTINGS), {"hae": (), "gae": ("algo=gae",)}, seeds=(0, 1))
    assert not comparison.one_start
    assert {(cell.cfg.seed, cell.cfg.sft_seed, cell.cfg.paths.base, cell.cfg.evaluate.baseline) for cell in comparison.cells()} == {
        (seed, seed, None, True) for seed in (0, 1)
    }


def test_a_versioned_run_needs_the_stages_that_it_has(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / DVC_FILE).write_bytes((root / DVC_FILE).read_bytes())
    cfg = compose([*SETTINGS, "paths.run=runs/quiet"])
    refused = pytest.raises(ConfigError, match=r"has the stages tasks, demos, sft, .* python -m hiper.integrations.dvc quiet_vault")
    with refused, versioned_settings(tmp_path, cfg):
        pass
    assert write_dvc(tmp_path, "quiet_vault") == 0
    with versioned_settings(tmp_path, cfg):
        assert "quiet_vault:\n  boxes: 4\n" in (tmp_path / "params.yaml").read_text(encoding="utf-8")


def test_a_sweep_shares_the_tasks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hiper.experiments.sweep.spec import load_spec
    from hiper.experiments.sweep.trial import shared_stages

    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(
        f"name: quiet\nbase: {json.dumps(SETTINGS)}\nspace:\n  algo.gamma: {{low: 0.9, high: 1.0}}\ntrials: 1\nlast: 1\n", encoding="utf-8"
    )
    spec = load_spec(tmp_path / "sweep.yaml")
    base = shared_stages(spec, compose(SETTINGS))
    assert [path.name for path in base.iterdir() if path.is_dir()] == ["tasks"]
    assert len(task_index(compose([*SETTINGS, f"paths.base={base}"])).split("train")) == 40
