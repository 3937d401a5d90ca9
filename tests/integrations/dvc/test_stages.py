"""dvc.yaml, written from the table of the stages.

1. The one in the checkout is what the table has it be.
2. Changing any one setting does the same stages again by DVC as by a run's fingerprints, whichever suite is played. Left out are paths, for
   another directory is another run, and settings of other suites: a run refuses them.
3. The exceptions: where `sft.seed` is set, DVC does the warm start again under another `seed`, too, and training under another name
   of a preset with the same values. It cannot tell.
4. (slow) DVC itself says so of a few settings.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.config.algo import PROMISE
from hiper.config.dotted import flat
from hiper.errors import ConfigError
from hiper.integrations.dvc import PARAMS
from hiper.integrations.dvc.__main__ import main
from hiper.integrations.dvc.stages import DVC_FILE, dvc_file
from hiper.runs.fingerprint import stage_fingerprint
from hiper.runs.run_dir import load_config, save_config
from hiper.runs.stage import STAGES
from hiper.runtime.reading import read_yaml
from hiper.suites import registry
from hiper.suites.registry import register_suite, suites
from hiper.suites.suite import OwnSettings
from hiper.suites.webshop.suite import WebShop
from tests.checkout import dvc, make_checkout

BASES = {
    "alfworld": ["experiment=smoke"],
    "alfworld, as published": ["experiment=alfworld_paper"],
    "webshop": ["experiment=webshop_quickstart"],
}


def settings_of(cfg: RunConfig) -> Iterator[str]:
    yield from flat(cfg.sections())


def changed(cfg: RunConfig, key: str) -> RunConfig:
    """With another value for one setting, in range or not: what is done again depends on no range."""
    if key == "env.name":
        return replace(cfg, env=replace(cfg.env, name=another(key, cfg.env.name)), suite=None)
    other = copy.deepcopy(cfg)
    *groups, name = key.split(".")
    section: Any = other
    for group in groups:
        section = other.suite if group == cfg.env.name else getattr(section, group)
    setattr(section, name, another(key, getattr(section, name)))
    return other


def another(key: str, value: Any) -> Any:
    if key == "env.name":
        return next(name for name in suites() if name != value)
    if isinstance(value, Enum):
        return next(one for one in type(value) if one is not value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, list):
        return value[:-1] if len(value) > 1 else [*value, *value]
    return 7 if value is None else f"{value}x"


def within(key: str, places: Sequence[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def redone_by_a_run(before: RunConfig, after: RunConfig) -> list[str]:
    return [name for name in STAGES if stage_fingerprint(before, name) != stage_fingerprint(after, name)]


def redone_by_dvc(key: str) -> list[str]:
    """Stages that watch a setting, or read what another one that is done again makes."""
    redone: list[str] = []
    for name, stage in dvc_file()["stages"].items():
        watches = within(key, stage["params"])
        reads = {out for upstream in redone for out in dvc_file()["stages"][upstream]["outs"]} & set(stage["deps"])
        if watches or reads:
            redone.append(name)
    return redone


def test_dvc_yaml_is_what_the_table_has_it_be(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == ConfigError.exit_code
    assert "has no .dvc/" in capsys.readouterr().err
    (tmp_path / ".dvc").mkdir()
    assert main(tmp_path) == 0
    assert (root / DVC_FILE).read_text(encoding="utf-8") == (tmp_path / DVC_FILE).read_text(encoding="utf-8"), "make dvc.yaml"
    assert read_yaml(root / DVC_FILE) == dvc_file()


def test_a_stage_is_its_command_with_what_it_reads_and_makes() -> None:
    stages = dvc_file()["stages"]
    assert list(stages) == list(STAGES)
    assert stages["sft"]["cmd"] == "hiper sft --config params.yaml"
    assert stages["report"]["cmd"] == "hiper report --config params.yaml --no-timestamps"
    assert stages["train"]["deps"] == ["hiper/__init__.py", "${paths.run}/tasks", "${paths.run}/sft"]
    assert stages["train"]["outs"] == ["${paths.run}/train"]
    assert dvc_file()["metrics"] == ["${paths.run}/evaluate/metrics.json"]


@pytest.mark.parametrize("base", BASES)
def test_dvc_does_again_what_a_run_does_again(base: str) -> None:
    cfg = compose(BASES[base])
    differ, checked = {}, 0
    for key in settings_of(cfg):
        if key.startswith(("paths.", *PROMISE)):
            continue
        by_run, by_dvc = redone_by_a_run(cfg, changed(cfg, key)), redone_by_dvc(key)
        checked += bool(by_run)
        if by_run != by_dvc:
            differ[key] = (by_run, by_dvc)
    assert differ == {}
    assert checked > 100, "most settings decide something"


def test_what_differs_when_the_warm_start_has_a_seed_of_its_own() -> None:
    cfg = compose(["experiment=smoke", "sft.seed=5"])
    assert redone_by_a_run(cfg, changed(cfg, "seed")) == ["train", "evaluate", "report"]
    assert redone_by_dvc("seed") == ["sft", "train", "evaluate", "report"]


def test_what_is_left_out_is_refused() -> None:
    assert "webshop.products" not in settings_of(compose(["experiment=smoke"]))
    with pytest.raises(ConfigError, match=r"webshop\.products"):
        compose(["experiment=smoke", "webshop.products=7"])


def test_dvc_finds_the_settings_of_every_suite_that_it_watches(tmp_path: Path) -> None:
    cfg = compose(["experiment=smoke"])
    save_config(cfg, tmp_path / PARAMS, every=True)
    assert load_config(tmp_path / PARAMS) == cfg
    written = flat(read_yaml(tmp_path / PARAMS))
    watched = {key for stage in dvc_file()["stages"].values() for key in stage["params"]}
    assert "webshop.products" in watched
    assert not [key for key in watched if not any(within(name, [key]) for name in written)]


@pytest.mark.parametrize("base", BASES)
def test_no_suite_is_taken_for_another(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for one that reads the same settings."""

    class Mine(WebShop):
        """Another shop."""

        own = OwnSettings()

    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register_suite("mine", Mine)
    cfg = compose(BASES[base])
    for name in suites():
        other = replace(cfg, env=replace(cfg.env, name=name), suite=cfg.suite if name == cfg.env.name else None)
        assert redone_by_a_run(cfg, other) == ([] if name == cfg.env.name else list(STAGES))


@pytest.mark.slow
def test_dvc_says_so_itself(tmp_path: Path, small_settings: list[str], finished_run: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout", "dvc.yaml", "hiper/__init__.py")
    cfg = compose([*small_settings, "paths.run=runs/small"])
    save_config(cfg, checkout / PARAMS, every=True)
    copytree(finished_run, checkout / "runs" / "small")
    dvc(checkout, "commit", "--force")
    assert json.loads(dvc(checkout, "status", "--json")) == {}
    for key in ("alfworld.train", "env.name", "rollout.constrain", "trainer.save_every", "name", "seed"):
        after = changed(cfg, key)
        save_config(after, checkout / PARAMS, every=True)
        said = json.loads(dvc(checkout, "status", "--json"))
        watching = {name for name, stage in dvc_file()["stages"].items() if {key, key.split(".")[0]} & set(stage["params"])}
        assert set(said) == watching
        assert redone_by_dvc(key) == redone_by_a_run(cfg, after)
