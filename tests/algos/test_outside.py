"""An estimator from outside `hiper/`, that of `examples/new_estimator.py`: it is chosen by its name, with settings of its own, trains,
resumes to the bit, counts in fingerprints and is reported."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from hiper.algos import registry
from hiper.algos.registry import algorithms, settings_of
from hiper.cli.main import main
from hiper.composition.compose import compose, override
from hiper.errors import ConfigError
from hiper.runs import checkpoint as ckpt
from hiper.runs.fingerprint import differences, stage_settings
from hiper.runs.run_dir import load_config, save_config
from hiper.suites.tasks import TaskIndex
from hiper.train.trainer import train
from tests.train.running import Killed, assert_same, bits, config, killer

EXAMPLE = Path(__file__).parents[2] / "examples" / "new_estimator.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example, registered for the length of a test."""
    algorithms()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    spec = importlib.util.spec_from_file_location("new_estimator", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "new_estimator", module)  # where dataclasses look up annotations
    spec.loader.exec_module(module)
    module.register()
    yield module


def test_before_it_is_registered_it_is_unknown() -> None:
    with pytest.raises(ConfigError, match="there is no algo=moving_average"):
        compose(["algo=moving_average"])


def test_it_composes_with_its_own_settings(example: ModuleType, tmp_path: Path) -> None:
    cfg = compose(["experiment=quickstart", "algo=moving_average", "algo.memory=0.5"])
    assert cfg.algo == example.MovingAverageConfig(**(vars(cfg.algo) | {"memory": 0.5}))
    assert (cfg.algo.gamma, cfg.algo.kl_coef) == (0.95, 0.1), "what the experiment says for every estimator holds for it"
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(tmp_path) == cfg
    assert override(cfg, ["algo.memory=0.25"]).algo == replace(cfg.algo, memory=0.25)  # type: ignore[call-arg]
    for text, said in {
        "algo.lam_low=1": "algo.lam_low is not a setting of moving_average; it reads .*algo.memory",
        "algo.memory=1": "algo.memory=1.0 is out of range: it must be at least 0 and below 1",
        "algo.memory=much": "algo.memory=much has the wrong type: it must be a number",
        "algo.memry=0": "did you mean 'algo.memory'",
    }.items():
        with pytest.raises(ConfigError, match=said):
            compose(["algo=moving_average", text])
        with pytest.raises(ConfigError, match=said):
            override(cfg, [text])


def test_its_settings_count_in_fingerprints(example: ModuleType) -> None:
    mine, other = (stage_settings(compose(["algo=moving_average", f"algo.memory={memory}"]), "train") for memory in (0.5, 0.25))
    assert differences(mine, other) == {"algo.memory": (0.5, 0.25)}
    assert {key for key in mine if key.startswith("algo.lam")} == set()


def test_it_resumes_with_what_it_remembers(example: ModuleType, speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(iterations=3, eval_every=0)
    cfg.algo = settings_of("moving_average")(shaping=cfg.algo.shaping)
    train(cfg, speaker, task_index, tmp_path / "whole")
    with pytest.raises(Killed):
        train(cfg, speaker, task_index, tmp_path / "parts", progress=killer(2))
    train(cfg, speaker, task_index, tmp_path / "parts", resume=True)
    assert_same(bits(tmp_path / "parts"), bits(tmp_path / "whole"))
    states = [ckpt.load_state(path)["estimator"]["average"] for path in ckpt.list_checkpoints(tmp_path / "whole" / "checkpoints")]
    assert len(set(states)) == len(states) > 1, "the average moves, so that forgetting it would show"


def test_a_run_of_it_is_trained_and_reported(
    example: ModuleType, finished_run: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["run", "--direct", *small_settings, "algo=moving_average", f"paths.base={finished_run}", f"paths.run={run}"]
    assert main(words) == 0
    rows = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all("hae/adv_low_std" in row and not any(key.startswith("value/") for key in row) for row in rows)
    assert (run / "report" / "report.html").is_file()
    capsys.readouterr()
    assert main(words) == 0
    assert "train: already done" in capsys.readouterr().err.replace("\n", " ")
