"""Every file under conf/ composes, alone and as part of an experiment, and Hydra finds the schemas without `hiper.config.compose`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiper.config import Constrain, Context, Pay, RunConfig
from hiper.config.algo import KeepMode
from hiper.config.compose import compose, config_dir
from hiper.evaluation.reevaluate import load_plan

CHOICES = sorted((path.parent.name, path.stem) for path in config_dir().glob("*/*.yaml") if path.parent.name != "reevaluate")
PLANS = sorted((config_dir() / "reevaluate").glob("*.yaml"))


def test_there_are_files_to_test() -> None:
    assert {"algo", "env", "experiment", "games", "model"} <= {group for group, _ in CHOICES}


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


def test_the_default_estimator_credits_actions_beyond_their_segment() -> None:
    assert compose([]).algo.lam_end == compose(["experiment=quickstart"]).algo.lam_end == 0.95


@pytest.mark.parametrize("experiment", ["alfworld_scratch", "webshop_quickstart"])
def test_experiments_measured_before_it_stay_as_they_were_measured(experiment: str) -> None:
    assert compose([f"experiment={experiment}"]).algo.lam_end == 0.0


def test_what_is_published_for_webshop_is_as_published() -> None:
    cfg = compose(["env=webshop", "algo=hae_webshop"])
    shaping = cfg.algo.shaping
    assert (shaping.invalid, shaping.keep_mode, shaping.keep, shaping.keep_mismatch) == (-0.1, KeepMode.normalized, -3.5, -0.3)
    assert (shaping.success_scale, cfg.webshop.pay, cfg.webshop.test) == (10.0, Pay.success, 500)
    assert (cfg.env.max_turns, cfg.algo.lam_high, cfg.webshop.human, cfg.webshop.mended) == (15, 0.95, False, False)
    assert cfg.evaluate.splits == ["valid", "test"]


def test_hydra_finds_the_schemas_in_another_tool() -> None:
    """As `dvc exp run` composes: Hydra alone, `hiper` never imported by the caller."""
    code = (
        "from hydra import compose, initialize_config_dir\n"
        f"with initialize_config_dir({str(config_dir())!r}, version_base='1.3'):\n"
        "    print(compose('config', overrides=['experiment=smoke', 'algo.lam_high=0.5']).algo.lam_high)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(sys.prefix))
    assert ran.stdout.strip() == "0.5", ran.stderr
