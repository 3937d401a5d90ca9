"""A run's directory: what was finished stays as it was, whatever happens to what comes after.

Rules: a stage that fails leaves nothing behind and the old one untouched; one that can resume keeps its partial folder and gets it back
under the same settings and sources only; a process killed between the moves of a swap loses neither folder; two processes never share
a run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hiper.compose import compose
from hiper.errors import ConfigError, DataError
from hiper.runs import begin_run, fingerprint, git_state, locked, read_stage, read_times, stage_folder
from hiper.stages import SETTINGS, STAGES, UPSTREAM, stage_fingerprint


def finish(run: Path, text: str, mark: str = "a") -> None:
    with stage_folder(run, "train", mark) as folder:
        (folder.path / "weights").write_text(text, encoding="utf-8")
        folder.facts["loss"] = 0.5


def test_a_finished_stage_has_its_record(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert (record.stage, record.fingerprint, record.facts) == ("train", "a", {"loss": 0.5})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]


def test_a_failure_leaves_the_finished_one_alone(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    with pytest.raises(RuntimeError), stage_folder(tmp_path, "train", "b") as folder:
        (folder.path / "weights").write_text("two", encoding="utf-8")
        raise RuntimeError
    assert (tmp_path / "train" / "weights").read_text(encoding="utf-8") == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]


def test_a_redone_stage_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    finish(tmp_path, "two", "b")
    assert (tmp_path / "train" / "weights").read_text(encoding="utf-8") == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train"]


def test_the_digest_is_of_what_later_stages_read(tmp_path: Path) -> None:
    digests = []
    for text, seconds in (("one", "1"), ("one", "2"), ("two", "1")):
        with stage_folder(tmp_path, "train", "a") as folder:
            (folder.path / "model").mkdir()
            (folder.path / "model" / "weights").write_text(text, encoding="utf-8")
            (folder.path / "timings.jsonl").write_text(seconds, encoding="utf-8")
        record = read_stage(tmp_path, "train")
        assert record is not None
        digests.append(record.digest)
    assert digests[0] == digests[1] != digests[2]
    assert read_times(tmp_path, "train")["seconds"] >= 0


def test_a_run_of_an_earlier_version_stays_finished(tmp_path: Path) -> None:
    """Its stages were known by the time they were finished."""
    (tmp_path / "train").mkdir()
    old = {"stage": "train", "fingerprint": "a", "seconds": 1.5, "finished": "2026-11-25T10:00", "facts": {}, "sources": {"games": "then"}}
    (tmp_path / "train" / "stage.json").write_text(json.dumps(old), encoding="utf-8")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert (record.digest, record.sources) == ("2026-11-25T10:00", {"games": "then"})


@pytest.mark.parametrize(
    ("mark", "sources", "resumed"), [("a", {"games": "1"}, True), ("b", {"games": "1"}, False), ("a", {"games": "2"}, False)]
)
def test_unfinished_work_is_continued_only_where_it_fits(tmp_path: Path, mark: str, sources: dict[str, str], resumed: bool) -> None:
    with pytest.raises(KeyboardInterrupt), stage_folder(tmp_path, "train", "a", {"games": "1"}, resumable=True) as folder:
        (folder.path / "checkpoint").write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    with stage_folder(tmp_path, "train", mark, sources, resumable=True) as folder:
        assert folder.resumed is resumed
        assert (folder.path / "checkpoint").exists() is resumed


def test_a_kill_between_the_two_moves_of_a_swap_is_mended(tmp_path: Path) -> None:
    """Killed after the old folder was set aside and before the new one took its place."""
    finish(tmp_path, "one")
    finish(tmp_path, "two", "b")
    (tmp_path / "train").rename(tmp_path / "train.partial")
    finish(tmp_path / "elsewhere", "one")
    (tmp_path / "elsewhere" / "train").rename(tmp_path / ".train.replaced")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "b"
    assert not (tmp_path / ".train.replaced").exists()


def test_a_kill_before_the_new_one_was_whole_brings_the_old_one_back(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    (tmp_path / "train").rename(tmp_path / ".train.replaced")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "a"


def test_a_kill_while_the_old_one_was_deleted_leaves_nothing_of_it(tmp_path: Path) -> None:
    """It stayed, with its checkpoints, for as long as the run had its directory."""
    finish(tmp_path / "elsewhere", "one")
    finish(tmp_path, "two", "b")
    (tmp_path / "elsewhere" / "train").rename(tmp_path / ".train.replaced")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "b"
    assert not (tmp_path / ".train.replaced").exists()


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    (tmp_path / "train" / "stage.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"stage\.json is damaged"):
        read_stage(tmp_path, "train")


def test_two_processes_do_not_share_a_run(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigError, match="another process works in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


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


def test_every_stage_has_its_settings_and_sources() -> None:
    assert list(STAGES) == list(UPSTREAM) == list(SETTINGS)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("games.seed=1", "games"),
        ("demos.count=7", "demos"),
        ("warm_start.lr=0.1", "warm_start"),
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


def test_a_setting_that_came_later_leaves_trainings_from_before_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[dict[str, Any]] = []
    monkeypatch.setattr("hiper.stages.fingerprint", lambda parts: hashed.append(parts) or "")
    stage_fingerprint(compose(["experiment=smoke", "algo.lam_end=0"]), "train")
    assert not {"processes", "lam_end"} & {key for parts in hashed for group in ("trainer", "algo") for key in parts.get(group, {})}


@pytest.mark.parametrize("change", ["device=cpu", "threads=2", "paths.run=elsewhere", "tracking=wandb_offline"])
def test_where_a_run_happens_changes_no_fingerprint(change: str) -> None:
    before, after = compose(["experiment=smoke"]), compose(["experiment=smoke", change])
    assert all(stage_fingerprint(before, name) == stage_fingerprint(after, name) for name in STAGES)


def test_fingerprints_see_values_and_not_order() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) != fingerprint({"a": 1, "b": 3})
