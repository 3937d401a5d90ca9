"""Files of sweeps: those that ship compose, and what cannot stand is refused by name before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper.config.algo import KeepMode, Level
from hiper.errors import ConfigError
from hiper.experiments.sweep.spec import Dimension, SweepSpec, load_spec

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))
HAE = (
    "algo.lam_low",
    "algo.lam_high",
    "algo.lam_end",
    "algo.gamma",
    "algo.shaping.keep",
    "algo.shaping.keep_mode",
    "algo.switch_entropy_coef",
    "algo.levels",
    "algo.kl_coef",
    "trainer.lr_actor",
    "trainer.lr_critic",
)
"""What the sweep over HAE searches at least."""

GOOD = "name: one\nbase: [experiment=smoke]\nspace: {algo.gamma: {low: 0.9, high: 1.0}}\n"


def load(folder: Path, text: str, *overrides: str) -> SweepSpec:
    (folder / "one.yaml").write_text(text, encoding="utf-8")
    return load_spec(folder / "one.yaml", overrides)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_that_ships_can_begin(path: Path) -> None:
    """Every end of every range, and every choice, is a config that would run."""
    spec = load_spec(path)
    assert spec.name == path.stem
    assert f"hiper sweep sweeps/{path.name}" in path.read_text(encoding="utf-8").splitlines()[0]
    if path.stem == "hae":
        assert set(HAE) <= spec.space.keys()


def test_settings_of_a_trial_are_composed(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, "trials=3")
    cfg = spec.compose({"algo": "grpo", "algo.gamma": 0.93, "algo.shaping.keep_mode": "off", "env.max_turns": 7}, 4, tmp_path / "run")
    assert (spec.trials, cfg.name, cfg.seed, cfg.paths.run) == (3, "one", 4, str(tmp_path / "run"))
    assert (cfg.algo.name, cfg.algo.gamma, cfg.algo.shaping.keep_mode) == ("grpo", 0.93, KeepMode.off)
    assert spec.compose({"algo.levels": "[low,high]"}, 0, tmp_path).algo.levels == [Level.low, Level.high]


def test_what_changes_a_study_changes_its_mark() -> None:
    one = SweepSpec(name="one", base=["experiment=smoke"], space={"algo.gamma": Dimension(low=0.9, high=1.0)})
    same = SweepSpec(name="one", base=["experiment=smoke"], space={"algo.gamma": Dimension(low=0.9, high=1.0)}, trials=99, directory="x")
    other = SweepSpec(name="one", base=["experiment=smoke"], space={"algo.gamma": Dimension(low=0.8, high=1.0)})
    assert one.mark() == same.mark() != other.mark()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: one\nspacce: {}\n", "spacce"),
        ("name: one\nspace: {", "is not YAML"),
        ("name: one\n", "space is empty"),
        (GOOD.replace("one", "../one"), "they name a directory and a file"),
        (GOOD + "trials: 0\n", "trials=0 must be at least 1"),
        (GOOD + "seeds: [1, 1]\n", "must be different numbers"),
        (GOOD.replace("experiment=smoke", "seed=3"), "which the sweep gives to each trial itself"),
        (GOOD.replace("experiment=smoke", "experiment=smok"), "base: there is no experiment=smok"),
        (GOOD.replace("algo.gamma", "algo.gama"), "did you mean 'algo.gamma'"),
        (GOOD.replace("high: 1.0", "high: 1.5"), "algo.gamma=1.5 is out of range"),
        (GOOD.replace("high: 1.0", "high: 0.5"), "must lie below high=0.5"),
        (GOOD.replace("low: 0.9", "low: 0, log: true"), "must be above 0 for a log scale"),
        (GOOD.replace("high: 1.0", "choices: [1.0]"), "choices stand alone"),
        (GOOD.replace("low: 0.9, high: 1.0", "choices: [[a]]"), "is written as text"),
        (GOOD.replace("high: 1.0", "high: 1.0, when: {algo.lam_low: [1.0]}"), "must be listed before it"),
        (GOOD.replace("[experiment=smoke]", "[experiment=smoke, trainer.eval_every=0]"), "never evaluates"),
    ],
)
def test_what_cannot_stand_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)


def test_a_missing_file_is_named_with_those_there_are(tmp_path: Path) -> None:
    load(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"there is no sweep .*two\.yaml.*one\.yaml"):
        load_spec(tmp_path / "two.yaml")
