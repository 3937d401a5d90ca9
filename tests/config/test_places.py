"""Rules of where settings lie: a user's own `conf/` is found beside ours, ours comes first, $HIPER_CONF stands for both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.config.places import config_dir, config_dirs, is_group, own_config_dir
from hiper.errors import ConfigError

MINE = """# @package _global_
defaults: [smoke]
name: mine
trainer: {iterations: 7}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an experiment and an estimator's file of one's own."""
    monkeypatch.delenv("HIPER_CONF", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, text in {"experiment/mine": MINE, "algo/gentle": "defaults: [hiper_grpo, _self_]\nkl_coef: 0.5\n"}.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return tmp_path


def test_an_experiment_of_ones_own_is_found(place: Path) -> None:
    cfg = compose(["experiment=mine", "algo=gentle"])
    assert (cfg.name, cfg.trainer.iterations, cfg.algo.name, cfg.algo.kl_coef) == ("mine", 7, "grpo", 0.5)
    assert config_dirs() == (config_dir(), place / "conf")
    assert is_group("experiment") and not is_group("trainer.iterations") and not is_group("")
    assert own_config_dir() == place / "conf"


def test_what_is_not_found_says_where_was_looked(place: Path) -> None:
    with pytest.raises(ConfigError, match=f"no experiment=yours.* {place}/conf/experiment has: .*mine"):
        compose(["experiment=yours"])


def test_ours_comes_first(place: Path) -> None:
    (place / "conf" / "experiment" / "smoke.yaml").write_text("# @package _global_\nname: other\n")
    assert compose(["experiment=smoke"]).name == "smoke"


def test_a_damaged_file_of_ones_own_is_named(place: Path) -> None:
    (place / "conf" / "experiment" / "mine.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"mine\.yaml is not YAML"):
        compose(["experiment=mine"])


def test_a_directory_without_the_schema_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.yaml does not compose an experiment"):
        compose([], tmp_path)


def test_a_directory_that_was_named_is_the_only_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIPER_CONF", str(config_dir()))
    with pytest.raises(ConfigError, match="no experiment=mine"):
        compose(["experiment=mine"])


def test_another_hydra_program_is_not_disturbed(tmp_path: Path) -> None:
    """With schemas and groups that have the names of ours, in an environment where our plugin is read."""
    (tmp_path / "conf" / "algo").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("defaults: [base_config, {algo: hae}, _self_]\n")
    (tmp_path / "conf" / "algo" / "hae.yaml").write_text("defaults: [base_algo, _self_]\nrate: 2\n")
    program = tmp_path / "app.py"
    program.write_text(
        "from dataclasses import dataclass, field\nimport hydra\nfrom hydra.core.config_store import ConfigStore\n"
        "@dataclass\nclass Algo:\n    rate: int = 1\n"
        "@dataclass\nclass Config:\n    mine: int = 3\n    algo: Algo = field(default_factory=Algo)\n"
        "ConfigStore.instance().store(name='base_config', node=Config)\n"
        "ConfigStore.instance().store(group='algo', name='base_algo', node=Algo)\n"
        "@hydra.main(config_path='conf', config_name='config', version_base='1.3')\n"
        "def main(cfg):\n    import hydra_plugins.hiper_schemas\n    print(dict(cfg))\nmain()\n"
    )
    ran = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.stdout.strip() == "{'mine': 3, 'algo': {'rate': 2}}", ran.stderr
