"""What a run lacks is found before its first stage, all of it at once; what it will not use is not looked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import (
    Critic,
    EnvConfig,
    EvaluateConfig,
    ModelConfig,
    PathsConfig,
    RunConfig,
    SFTConfig,
    Source,
    TasksConfig,
    TinyConfig,
    TrackingConfig,
    TrainerConfig,
    WandbMode,
)
from hiper.errors import ConfigError
from hiper.model.actor import Actor, save_actor
from hiper.model.tiny import build_tiny
from hiper.pipeline.preflight import check
from hiper.pipeline.stages import STAGES
from hiper.rollout.chat import ChatCodec
from hiper.suites.alfworld.settings import ALFWorldConfig, Engine

ALL = list(STAGES)
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def problem(cfg: RunConfig, stages: Sequence[str] = ALL) -> str:
    with pytest.raises(ConfigError) as caught:
        check(cfg, stages)
    return str(caught.value)


def hub(name: str = "someone/model") -> RunConfig:
    return RunConfig(model=ModelConfig(path=name))


def absent(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_this_machine_can_run_the_default() -> None:
    check(RunConfig(), ALL)
    check(RunConfig(device="cpu", trainer=TrainerConfig(processes=2)), ALL)


@NO_CUDA
def test_a_gpu_that_is_not_there() -> None:
    cfg = RunConfig(device="cuda")
    assert "device=cuda, but torch sees no GPU here" in problem(cfg)
    assert "device=cuda" in problem(cfg, ["evaluate"])
    check(cfg, ["tasks", "demos", "report"])


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    cfg = RunConfig(trainer=TrainerConfig(processes=2))
    assert "trainer.processes=2, but there are 1 GPUs here" in problem(cfg)
    assert "sft.processes=2 is for CPUs" in problem(RunConfig(sft=SFTConfig(processes=2)))
    assert "evaluate.processes=2 is for CPUs" in problem(RunConfig(evaluate=EvaluateConfig(processes=2)))
    check(cfg, ["sft", "evaluate"])


@pytest.mark.parametrize(
    ("cfg", "module", "stage", "said"),
    [
        (RunConfig(), "trl", "sft", "the warm start needs the package trl"),
        (RunConfig(), "datasets", "sft", "the warm start needs the package datasets"),
        (RunConfig(), "alfworld", "tasks", "tasks.source=generated needs the package alfworld"),
        (
            RunConfig(suite=ALFWorldConfig(engine=Engine.textworld)),
            "textworld",
            "evaluate",
            "alfworld.engine=textworld needs the package textworld",
        ),
        (
            RunConfig(suite=ALFWorldConfig(engine=Engine.textworld)),
            "fast_downward",
            "train",
            "alfworld.engine=textworld needs the package fast_downward",
        ),
        (RunConfig(tracking=TrackingConfig(wandb=WandbMode.offline)), "wandb", "train", "tracking.wandb=offline needs the package wandb"),
    ],
)
def test_a_package_that_is_not_installed(cfg: RunConfig, module: str, stage: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(cfg, [stage])
    absent(monkeypatch, module)
    assert said in problem(cfg)
    assert said in problem(cfg, [stage])
    check(cfg, ["report"])


def test_everything_that_lacks_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "trl", "wandb")
    cfg = RunConfig(tracking=TrackingConfig(wandb=WandbMode.offline), evaluate=EvaluateConfig(splits=["valid", "valid_seen"]))
    said = problem(cfg)
    assert said.startswith("this machine lacks 3 things that the run needs:\n  - ")
    assert "trl" in said and "wandb" in said and "evaluate.splits=['valid']: env.name=alfworld has train, valid_seen, valid_unseen" in said


def test_a_base_brings_its_warm_start(monkeypatch: pytest.MonkeyPatch) -> None:
    absent(monkeypatch, "trl", "alfworld")
    check(replace(hub(), paths=PathsConfig(base="runs/other")), ALL)


def test_wandb_online_needs_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cfg = RunConfig(tracking=TrackingConfig(wandb=WandbMode.online))
    assert "tracking.wandb=online needs a key" in problem(cfg)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n", encoding="utf-8")
    (tmp_path / "netrc").chmod(0o600)
    check(cfg, ALL)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "key")
    check(cfg, ALL)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (
            RunConfig(suite=ALFWorldConfig(fresh=True), tasks=TasksConfig(source=Source.official)),
            "alfworld.fresh=true needs tasks.source=generated",
        ),
        (RunConfig(suite=ALFWorldConfig(fresh=True, scatter=0.5)), "alfworld.scatter=0.5 is for games played again"),
        (
            RunConfig(env=EnvConfig(name="webshop"), evaluate=EvaluateConfig(splits=["valid_seen", "test"])),
            "evaluate.splits=['valid_seen']: env.name=webshop has train, valid, test",
        ),
    ],
)
def test_settings_that_only_a_later_stage_would_refuse(cfg: RunConfig, said: str) -> None:
    assert said in problem(cfg)


def test_a_model_that_can_be_had_nowhere(tmp_path: Path) -> None:
    """Tests run with HF_HUB_OFFLINE."""
    assert "is not a directory, nor whole in the cache, and HF_HUB_OFFLINE is set" in problem(hub())
    assert "is neither a directory nor the id of a hub's model" in problem(hub(str(tmp_path / "missing")))
    check(hub(), ["tasks", "demos", "train", "evaluate", "report"])


def test_a_hub_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads its settings once. Nothing listens on this port."""
    code = (
        "from hiper.config import ModelConfig, RunConfig\nfrom hiper.pipeline.preflight import check\n"
        "check(RunConfig(model=ModelConfig(path='someone/model')), ['sft'])"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    began = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert (
        "ConfigError: model.path='someone/model' is not a directory, nor whole in the cache, and cannot be had from the hub" in ran.stderr
    )
    assert time.monotonic() - began < 60


@pytest.fixture
def model(words: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    tiny = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48)
    save_actor(Actor(build_tiny(tiny, words, seed=0), Critic.shared), words, tmp_path / "model", ChatCodec(words).generation(40))
    return tmp_path / "model"


def test_a_model_directory_is_looked_at_without_its_weights(model: Path) -> None:
    check(hub(str(model)), ALL)
    (model / "model.safetensors").write_bytes(b"")  # numbers are read in their stage
    check(hub(str(model)), ALL)
    (model / "model.safetensors").unlink()
    assert "has no weights" in problem(hub(str(model)))
    (model / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
    said = problem(hub(str(model)))
    assert "lacks 2 things" in said and "has no weights" in said and "does not write a conversation" in said


def test_a_model_of_another_kind_is_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "vit"}), encoding="utf-8")
    assert "is no causal language model: its config is a ViTConfig" in problem(hub(str(model)))


def test_a_run_on_a_cpu_is_looked_through_without_heavy_imports() -> None:
    code = (
        "import sys; from hiper.config import RunConfig; from hiper.pipeline.preflight import check; "
        "from hiper.suites.alfworld.settings import ALFWorldConfig; "
        "check(RunConfig(suite=ALFWorldConfig(fresh=True)), ['tasks', 'demos', 'sft', 'train', 'evaluate', 'report']); "
        "print(sorted(name for name in sys.modules if name in ('torch', 'transformers', 'trl', 'wandb', 'hydra', 'prefect')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
