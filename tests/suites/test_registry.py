"""Rules of suites.

1. They are chosen by name, and one can be registered from outside.
2. A suite's own settings are a section named after it, with its defaults and ranges; those of another suite are refused.
3. They decide the stages that the suite says, and a run's config holds no other suite's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hiper.composition.compose import compose, override
from hiper.composition.reference import settings_page
from hiper.config import RunConfig
from hiper.config.checks import require
from hiper.errors import ConfigError
from hiper.integrations.dvc.stages import dvc_file
from hiper.runs.fingerprint import stage_settings
from hiper.runs.run_dir import load_config, save_config, shown_config
from hiper.suites import registry
from hiper.suites.registry import register_suite, settings_of_suite, suite_named, suites
from hiper.suites.suite import OwnSettings
from hiper.suites.webshop.suite import WebShop


@dataclass
class BoutiqueConfig:
    """A boutique's own."""

    shelves: int = 4
    """Shelves, at least 1."""
    mirror: bool = False
    """Whether an agent sees itself."""

    def __post_init__(self) -> None:
        require(self.shelves >= 1, "boutique.shelves", self.shelves, "at least 1")


class Boutique(WebShop):
    """A suite from outside."""

    own = OwnSettings(text=("mirror",))


@dataclass
class NoDefault:
    """Not every setting has a default."""

    shelves: int


@dataclass
class NoType:
    """A type that no file can hold."""

    shelves: Path | set[int] = Path()


@pytest.fixture
def boutique(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """It is registered for a test."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register_suite("boutique", Boutique, BoutiqueConfig)
    yield "boutique"


def test_one_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    with pytest.raises(ConfigError, match="known are alfworld, webshop. One of your own is registered before"):
        compose(["env.name=boutique"])
    register_suite("boutique", Boutique)
    register_suite("boutique", Boutique)
    assert isinstance(suite_named(compose(["env.name=boutique"]).env.name), Boutique)
    with pytest.raises(ConfigError, match="there is a suite 'boutique' already"):
        register_suite("boutique", WebShop)
    with pytest.raises(ConfigError, match="there is a suite 'boutique' already"):
        register_suite("boutique", Boutique, BoutiqueConfig)
    with pytest.raises(ConfigError, match="cannot be named 'My Shop'"):
        register_suite("My Shop", Boutique)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("tasks", BoutiqueConfig, "the suite 'tasks' cannot have settings: tasks names others"),
        ("shop", dict, "they must be a dataclass"),
        ("shop", NoDefault, "NoDefault cannot be the settings of suite 'shop'.*Give each a type and a default"),
        ("shop", NoType, "NoType cannot be the settings of suite 'shop'.*Give each a type and a default"),
    ],
)
def test_settings_that_cannot_be_a_section_are_refused(name: str, settings: type[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        register_suite(name, Boutique, settings)
    assert name not in suites()


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'alfworld'"):
        compose(["env.name=alfwrld"])


@pytest.mark.parametrize("override", ["train=5", "task_types=[pick_and_place_simple]", "fresh=true", "scatter=0.5", "engine=textworld"])
def test_what_a_suite_does_not_read_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match=rf"alfworld\.{override.split('=')[0]}=.*: env.name=webshop does not read it. Leave it at "):
        compose(["env=webshop", f"alfworld.{override}"])
    compose([f"alfworld.{override}"])
    with pytest.raises(ConfigError, match="webshop.products=5: env.name=alfworld does not read it"):
        compose(["webshop.products=5"])


def test_its_own_settings_are_a_section(boutique: str) -> None:
    cfg = compose(["env.name=boutique", "boutique.shelves=6"])
    assert cfg.own(BoutiqueConfig) == BoutiqueConfig(shelves=6)
    assert override(cfg, ["boutique.mirror=true"]).own(BoutiqueConfig) == BoutiqueConfig(shelves=6, mirror=True)
    for words, said in {
        "boutique.shelvs=6": "there is no setting 'boutique.shelvs'; did you mean 'boutique.shelves'",
        "boutique.shelves=many": "boutique.shelves=many has the wrong type: it must be a whole number",
        "boutique.shelves=0": "boutique.shelves=0 is out of range: it must be at least 1",
        f"boutique.shelves={2**40}": "boutique.shelves=.* is out of range: it must be between",
    }.items():
        with pytest.raises(ConfigError, match=said):
            compose(["env.name=boutique", words])
    with pytest.raises(ConfigError, match="boutique.shelves=6: env.name=alfworld does not read it. Leave it at 4"):
        compose(["boutique.shelves=6"])
    assert "| `boutique.shelves` | a whole number | `4` | Shelves, at least 1. |" in settings_page()


def test_in_a_program_they_are_of_the_suite_that_is_named(boutique: str) -> None:
    assert RunConfig().own(settings_of_suite("alfworld")) == RunConfig().suite  # type: ignore[arg-type]  # it has settings
    with pytest.raises(ConfigError, match="env.name=alfworld has ALFWorldConfig for settings"):
        RunConfig(suite=BoutiqueConfig())
    with pytest.raises(ConfigError, match="env.name=alfworld has no settings of BoutiqueConfig"):
        RunConfig().own(BoutiqueConfig)


def test_a_run_keeps_those_of_its_own_suite(boutique: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run of another suite can be read where this one is not installed."""
    mine, other = compose(["env.name=boutique", "boutique.shelves=6"]), compose([])
    save_config(mine, tmp_path / "mine.yaml")
    save_config(other, tmp_path / "other.yaml")
    assert "boutique:\n  shelves: 6\n" in shown_config(mine) and "alfworld:" not in shown_config(mine)
    assert "boutique:" in shown_config(other, every=True)
    assert load_config(tmp_path / "mine.yaml") == mine
    monkeypatch.undo()
    assert load_config(tmp_path / "other.yaml") == other
    with pytest.raises(ConfigError, match="boutique"):
        load_config(tmp_path / "mine.yaml")


def test_they_decide_the_stages_that_it_says(boutique: str) -> None:
    cfg = compose(["env.name=boutique"])
    assert {"boutique.shelves", "env.name"} <= stage_settings(cfg, "tasks").keys()
    assert "boutique.mirror" in stage_settings(cfg, "train") and "boutique.mirror" not in stage_settings(cfg, "tasks")
    assert "boutique.shelves" in dvc_file()["stages"]["tasks"]["params"] and "boutique.mirror" in dvc_file()["stages"]["demos"]["params"]
    Boutique.own = OwnSettings(reward=("miror",))
    try:
        with pytest.raises(ConfigError, match="the suite 'boutique' says what miror decides, and has no such setting"):
            stage_settings(cfg, "tasks")
    finally:
        Boutique.own = OwnSettings(text=("mirror",))


@pytest.mark.parametrize("name", suites())
def test_what_it_names_exists(name: str) -> None:
    suite = suite_named(name)
    assert "train" in suite.splits
    assert suite.wording.tasks.startswith(suite.wording.task)
