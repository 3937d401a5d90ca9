"""A run's directory, and what decides the files of its stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.errors import ConfigError
from hiper.runs.fingerprint import differences, fingerprint, stage_fingerprint, stage_lineage, stage_settings, told
from hiper.runs.run_dir import begin_run, git_state
from hiper.runs.stage import STAGES
from hiper.runtime.lock import locked


def test_a_run_says_what_it_ran_on(tmp_path: Path) -> None:
    run = begin_run(compose(["experiment=smoke", f"paths.run={tmp_path / 'run'}"]))
    record = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert record["versions"]["torch"]
    assert record["python"]
    assert set(record["git"] or {"commit": "", "dirty": ""}) == {"commit", "dirty"}
    assert git_state(tmp_path) is None


@pytest.mark.parametrize(("place", "says"), [("run", "is a file; it must name a directory"), ("run/within", "cannot make the directory")])
def test_a_run_cannot_be_a_file(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "run").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        begin_run(compose([f"paths.run={tmp_path / place}"]))
    with pytest.raises(ConfigError, match=says), locked(tmp_path / place):
        pass


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("tasks.seed=1", "tasks"),
        ("demos.count=7", "demos"),
        ("demos.processes=2", "demos"),
        ("sft.lr=0.1", "sft"),
        ("algo.lam_high=0.5", "train"),
        ("algo.lam_end=0.5", "train"),
        ("trainer.processes=2", "train"),
        ("evaluate.temperature=1", "evaluate"),
    ],
)
def test_a_setting_marks_its_stage_and_those_after_it(change: str, first: str) -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", change])
    names = list(STAGES)
    changed = [name for name in names if stage_fingerprint(before, name) != stage_fingerprint(after, name)]
    assert changed == names[names.index(first) :]


def test_a_setting_that_came_later_leaves_trainings_from_before_as_they_are() -> None:
    settings = stage_settings(compose(["experiment=smoke", "algo.lam_end=0"]), "train")
    assert not {"trainer.processes", "algo.lam_end"} & settings.keys()
    assert stage_settings(compose(["experiment=smoke", "algo.lam_end=0.5"]), "train")["algo.lam_end"] == 0.5


@pytest.mark.parametrize("change", ["trainer.save_every=3", "trainer.keep_last=7", "evaluate.processes=2"])
def test_how_work_is_saved_and_shared_changes_no_fingerprint(change: str) -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", change])
    assert all(stage_fingerprint(before, name) == stage_fingerprint(after, name) for name in STAGES)


@pytest.mark.parametrize(("change", "same"), [("trainer.iterations=9", True), ("trainer.env_turns=99", True), ("algo.gamma=0.5", False)])
def test_a_longer_training_is_of_the_same_lineage(change: str, same: bool) -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", change])
    assert stage_fingerprint(before, "train") != stage_fingerprint(after, "train")
    lineages = [stage_lineage(cfg, "train") for cfg in (before, after)]
    assert (lineages[0] == lineages[1]) is same


def test_differences_are_told_by_name() -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", "algo.gamma=0.5", "trainer.env_turns=9"])
    changed = differences(stage_settings(before, "train"), stage_settings(after, "train"))
    assert told(changed) == f"algo.gamma was {before.algo.gamma} and is 0.5, trainer.env_turns was unset and is 9"


def test_only_the_chosen_estimators_settings_count_and_a_presets_name_does_not() -> None:
    flat = stage_settings(compose(["algo=grpo"]), "train")
    assert "algo.group_scale" in flat and not {"algo.lam_high", "algo.value_coef"} & flat.keys()
    preset, config = compose(["algo=hae_paper"]), compose(["algo=hae_cut", *PUBLISHED])
    assert stage_fingerprint(preset, "train") == stage_fingerprint(config, "train")


PUBLISHED = ["algo.bootstrap=current", "algo.shaping.keep_mode=fixed"]
"""In what the published setting differs from algo=hae_cut."""


@pytest.mark.parametrize("change", ["device=cpu", "threads=2", "paths.run=elsewhere", "tracking=wandb_offline"])
def test_where_a_run_happens_changes_no_fingerprint(change: str) -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", change])
    assert all(stage_fingerprint(before, name) == stage_fingerprint(after, name) for name in STAGES)


def test_fingerprints_see_values_and_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
