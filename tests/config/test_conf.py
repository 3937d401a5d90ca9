"""Every file under conf/ composes, alone and as part of an experiment, and Hydra finds the schemas without `hiper.composition.compose`."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hiper.algos.gae import GAEConfig
from hiper.algos.grpo import GRPOConfig
from hiper.composition.compose import compose, override
from hiper.config import Constrain, Context, RunConfig
from hiper.config.algo import KeepMode, KLEstimator, flat
from hiper.config.places import config_dir
from hiper.errors import ConfigError
from hiper.experiments.reevaluate import load_plan
from hiper.runs.run_dir import load_config, save_config
from hiper.suites import splits_of
from hiper.suites.webshop.settings import Pay

CHOICES = sorted((path.parent.name, path.stem) for path in config_dir().glob("*/*.yaml") if path.parent.name != "reevaluate")
PLANS = sorted((config_dir() / "reevaluate").glob("*.yaml"))


def test_there_are_files_to_test() -> None:
    assert {"algo", "env", "experiment", "tasks", "model"} <= {group for group, _ in CHOICES}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_it_composes(group: str, choice: str) -> None:
    assert isinstance(compose([f"{group}={choice}"]), RunConfig)


@pytest.mark.parametrize(("group", "choice"), [pair for pair in CHOICES if pair[0] == "experiment"])
def test_an_experiment_names_itself_and_its_command(group: str, choice: str) -> None:
    cfg = compose([f"{group}={choice}"])
    text = (config_dir() / group / f"{choice}.yaml").read_text(encoding="utf-8")
    assert cfg.name == choice
    assert text.startswith("# @package _global_\n")
    assert f"experiment={choice}" in text.splitlines()[1]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_of_reevaluations_names_its_command_and_models(path: Path) -> None:
    assert load_plan(path).models
    assert f"hiper reevaluate conf/reevaluate/{path.name}" in path.read_text(encoding="utf-8").splitlines()[0]


def test_the_published_setting_is_as_published() -> None:
    cfg = compose(["experiment=alfworld_paper"])
    assert (cfg.algo.gamma, cfg.algo.lam_low, cfg.algo.lam_high, cfg.algo.lam_end) == (1.0, 1.0, 0.95, 0.0)
    assert (cfg.algo.clip, cfg.algo.kl_coef, cfg.algo.value_clip) == (0.2, 0.01, 0.5)
    shaping = cfg.algo.shaping
    assert (shaping.invalid, shaping.keep_mode, shaping.keep, shaping.keep_mismatch) == (-0.1, KeepMode.fixed, -0.3, -0.3)
    assert (cfg.trainer.lr_actor, cfg.trainer.lr_critic, cfg.trainer.iterations) == (1e-6, 1e-5, 150)
    assert (cfg.rollout.trajectories, cfg.rollout.max_reply_tokens, cfg.env.max_turns) == (128, 512, 50)
    assert (cfg.protocol.context, cfg.protocol.history, cfg.evaluate.temperature) == (Context.window, 2, 0.4)
    assert cfg.rollout.constrain is Constrain.free


PRESETS = sorted(path.stem for path in (config_dir() / "algo").glob("*.yaml") if "\npublished:" in path.read_text(encoding="utf-8"))
EXPERIMENTS = [choice for group, choice in CHOICES if group == "experiment"]


def promised(preset: str) -> dict[str, Any]:
    """Dotted keys and values that the files of a preset state, the preset it builds on included."""
    read = yaml.safe_load((config_dir() / "algo" / f"{preset}.yaml").read_text(encoding="utf-8"))
    base = next(name for name in read["defaults"] if name != "_self_")
    assert read["preset"] == preset
    return {**(promised(base) if base in PRESETS else {}), **dict(flat(read["published"]))}


def test_there_are_presets_to_test() -> None:
    assert PRESETS == ["hae_paper", "hae_webshop"]
    assert promised("hae_webshop")["shaping.keep"] == -3.5 and promised("hae_webshop")["gamma"] == promised("hae_paper")["gamma"] == 1.0


@pytest.mark.parametrize("algo", [choice for group, choice in CHOICES if group == "algo"])
def test_every_estimator_and_preset_goes_with_every_experiment(algo: str) -> None:
    """What a preset publishes holds under all of them: `algo=hae_paper` under quickstart changed one value of eight."""
    for experiment in EXPERIMENTS:
        settings = compose([f"experiment={experiment}", f"algo={algo}"]).algo
        for key, value in (promised(algo) if algo in PRESETS else {}).items():
            found: Any = settings
            for part in key.split("."):
                found = getattr(found, part)
            assert found == value, (experiment, key)


def test_an_experiment_sets_what_its_algo_file_leaves_open() -> None:
    cfg = compose(["experiment=quickstart"])
    assert (cfg.algo.gamma, cfg.algo.kl_coef, cfg.algo.shaping.keep_mismatch) == (0.95, 0.1, 0.0)
    assert compose(["experiment=quickstart", "algo=grpo"]).algo == GRPOConfig(gamma=0.95, kl_coef=0.1, kl_estimator=KLEstimator.k2)


@pytest.mark.parametrize("text", ["algo.gamma=0.9", "algo.shaping.keep_mode=off", "algo.kl_estimator=k2"])
def test_an_override_against_a_preset_is_refused(text: str, tmp_path: Path) -> None:
    key, value = text.split("=")
    published = promised("hae_paper")[key.removeprefix("algo.")]
    said = f"{key}={value} stands against algo=hae_paper, which promises the published {key}={published}. Leave {key} out, or choose"
    for words in (["algo=hae_paper", text], ["experiment=quickstart", "algo=hae_paper", text], ["experiment=alfworld_paper", text]):
        with pytest.raises(ConfigError, match=re.escape(said)):
            compose(words)
    save_config(compose(["algo=hae_paper"]), tmp_path / "config.yaml")
    saved = load_config(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(said)):
        override(saved, [text])
    with pytest.raises(ConfigError, match=r"algo.gamma=0.5 stands against algo=hae_paper"):
        replace(saved.algo, gamma=0.5)


def test_an_override_that_agrees_with_a_preset_or_is_not_of_it_stands() -> None:
    cfg = compose(["algo=hae_paper", "algo.gamma=1", "algo.shaping.keep_mode=fixed", "algo.entropy_coef=0.1"])
    assert (cfg.algo.gamma, cfg.algo.entropy_coef) == (1.0, 0.1)
    with pytest.raises(ConfigError, match="there is no setting 'algo.preset'"):
        compose(["algo.preset=null"])


def test_an_experiment_that_sets_what_the_estimator_does_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [hiper_config, {algo: hae}, _self_, {experiment: null}]\n", encoding="utf-8")
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nalgo: {lam: 0.9}\n", encoding="utf-8")
    assert compose(["experiment=mine", "algo=gae"], tmp_path).algo == GAEConfig(lam=0.9)
    with pytest.raises(ConfigError, match=r"experiment/mine.*algo.lam is read by gae, turn_gae. An experiment's algo block holds"):
        compose(["experiment=mine"], tmp_path)


def test_a_preset_that_publishes_no_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [hiper_config, {algo: odd}, _self_]\n", encoding="utf-8")
    (tmp_path / "algo" / "odd.yaml").write_text("defaults: [hiper_grpo, _self_]\npreset: odd\npublished: {lam_low: 1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="algo=odd publishes algo.lam_low=1: .*lam_low"):
        compose([], tmp_path)


def test_what_dvc_composes_keeps_the_promise_too(tmp_path: Path) -> None:
    """Hydra alone lets the experiment's values through; reading its file does not."""
    save_config(compose(["experiment=quickstart", "algo=hae_paper"]), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "config.yaml").write_text(text.replace("\n  gamma: 1.0\n", "\n  gamma: 0.95\n"), encoding="utf-8")
    assert load_config(tmp_path).algo.gamma == 1.0


def test_the_default_estimator_credits_actions_beyond_their_segment() -> None:
    assert compose([]).algo.lam_end == compose(["experiment=quickstart"]).algo.lam_end == 0.95


@pytest.mark.parametrize("experiment", ["alfworld_scratch", "webshop_quickstart"])
def test_experiments_measured_before_it_stay_as_they_were_measured(experiment: str) -> None:
    assert compose([f"experiment={experiment}"]).algo.lam_end == 0.0


def test_what_is_published_for_webshop_is_as_published() -> None:
    cfg = compose(["env=webshop", "algo=hae_webshop"])
    shaping = cfg.algo.shaping
    assert (shaping.invalid, shaping.keep_mode, shaping.keep, shaping.keep_mismatch) == (-0.1, KeepMode.normalized, -3.5, -0.3)
    assert (shaping.success_scale, cfg.suite.pay, cfg.suite.test) == (10.0, Pay.success, 500)
    assert (cfg.env.max_turns, cfg.algo.lam_high, cfg.suite.human, cfg.suite.mended) == (15, 0.95, False, False)
    assert splits_of(cfg) == ["valid", "test"]


def test_hydra_finds_the_schemas_in_another_tool() -> None:
    """As `dvc exp run` composes: Hydra alone, `hiper` never imported by the caller."""
    code = (
        "from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(config_dir())!r}, version_base='1.3'):\n"
        "    print(compose('config', overrides=['experiment=smoke', 'algo.lam_high=0.5']).algo.lam_high)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(sys.prefix))
    assert ran.stdout.strip() == "0.5", ran.stderr
