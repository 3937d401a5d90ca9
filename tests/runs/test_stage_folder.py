"""A stage's folder: what was finished stays as it was, whatever happens to what comes after.

Rules:
1. A stage that fails leaves nothing behind and the old one untouched; one that can resume keeps its partial folder.
2. Unfinished work is continued where settings and sources are the same, or the settings that differ may be extended; else it is set aside.
3. A process killed between the moves of a swap loses neither folder. A folder is on the disk before it takes the place of another.
4. "Finished" means that the files are those that were written: a damaged one is named, with the command that makes it anew.
5. A symbolic link in place of a folder is read through, and replaced as a link.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import DataError
from hiper.runs import stage_folder as module
from hiper.runs.stage_folder import (
    BEGUN,
    MANIFEST,
    SEEN,
    STAGE,
    TIMES,
    Begun,
    clear_partial,
    continue_finished,
    read_stage,
    read_times,
    recover,
    set_aside,
    stage_folder,
    verify_stage,
)


def begun(mark: str = "a", lineage: str | None = None, sources: dict[str, str] | None = None, **settings: Any) -> Begun:
    return Begun(mark, lineage or mark, settings, sources or {})


def finish(run: Path, text: str, mark: str = "a", **settings: Any) -> None:
    with stage_folder(run, "train", begun(mark, **settings)) as folder:
        (folder.path / "weights").write_text(text, encoding="utf-8")
        (folder.path / "checkpoints").mkdir()
        folder.facts["loss"] = 0.5


def interrupt(run: Path, mark: Begun, text: str = "half") -> None:
    with pytest.raises(KeyboardInterrupt), stage_folder(run, "train", mark, resumable=True) as folder:
        (folder.path / "checkpoint").write_text(text, encoding="utf-8")
        raise KeyboardInterrupt


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_stage_has_its_record(tmp_path: Path) -> None:
    finish(tmp_path, "one", gamma=0.9)
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert (record.stage, record.fingerprint, record.facts, record.settings) == ("train", "a", {"loss": 0.5}, {"gamma": 0.9})
    assert names(tmp_path) == ["train"]
    assert verify_stage(tmp_path, "train", full=True) == record


def test_a_failure_leaves_the_finished_one_alone(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    with pytest.raises(RuntimeError), stage_folder(tmp_path, "train", begun("b")) as folder:
        (folder.path / "weights").write_text("two", encoding="utf-8")
        raise RuntimeError
    assert (tmp_path / "train" / "weights").read_text(encoding="utf-8") == "one"
    assert names(tmp_path) == ["train"]


def test_a_redone_stage_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    finish(tmp_path, "two", "b")
    assert (tmp_path / "train" / "weights").read_text(encoding="utf-8") == "two"
    assert names(tmp_path) == ["train"]


def test_the_digest_is_of_what_later_stages_read(tmp_path: Path) -> None:
    digests = []
    for text, seconds in (("one", "1"), ("one", "2"), ("two", "1")):
        with stage_folder(tmp_path, "train", begun()) as folder:
            (folder.path / "model").mkdir()
            (folder.path / "model" / "weights").write_text(text, encoding="utf-8")
            (folder.path / "timings.jsonl").write_text(seconds, encoding="utf-8")
            (folder.path / "model" / MANIFEST).write_text("not a stage's own", encoding="utf-8")
        record = read_stage(tmp_path, "train")
        assert record is not None
        digests.append(record.digest)
    assert digests[0] == digests[1] != digests[2]
    assert f"model/{MANIFEST}" in json.loads((tmp_path / "train" / MANIFEST).read_text(encoding="utf-8"))
    assert read_times(tmp_path, "train")["seconds"] >= 0


@pytest.mark.parametrize(("mark", "sources", "resumed"), [("a", "1", True), ("b", "1", False), ("a", "2", False)])
def test_unfinished_work_is_continued_only_where_it_fits(tmp_path: Path, mark: str, sources: str, resumed: bool) -> None:
    interrupt(tmp_path, begun("a", sources={"tasks": "1"}))
    with stage_folder(tmp_path, "train", begun(mark, sources={"tasks": sources}), resumable=True) as folder:
        assert folder.resumed is resumed
        assert (folder.path / "checkpoint").exists() is resumed


def test_what_does_not_fit_is_set_aside_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unfinished training was deleted without a word."""
    interrupt(tmp_path, begun("a", gamma=0.9), "first")
    interrupt(tmp_path, begun("b", gamma=0.8), "second")
    interrupt(tmp_path, begun("c", gamma=0.7), "third")
    assert names(tmp_path) == ["train.partial", "train.partial.1", "train.partial.2"]
    kept = [(tmp_path / name / "checkpoint").read_text(encoding="utf-8") for name in names(tmp_path)]
    assert kept == ["third", "first", "second"]
    assert "gamma was 0.9 and is 0.8" in caplog.text and "train.partial.1" in caplog.text and "hiper clean" in caplog.text
    assert [path.name for path in set_aside(tmp_path)] == ["train.partial.1", "train.partial.2"]


def test_an_extended_stage_continues(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    interrupt(tmp_path, begun("four", "kin", iterations=4))
    with stage_folder(tmp_path, "train", begun("five", "kin", iterations=5), resumable=True) as folder:
        assert folder.resumed
    assert "iterations was 4 and is 5" in caplog.text
    record = read_stage(tmp_path, "train")
    assert record is not None and (record.fingerprint, record.settings) == ("five", {"iterations": 5})


def test_the_stage_may_refuse_to_go_on_with_work_of_its_own(tmp_path: Path) -> None:
    interrupt(tmp_path, begun("four", "kin"))
    with stage_folder(tmp_path, "train", begun("two", "kin"), resumable=True, fits=lambda partial: False) as folder:
        assert not folder.resumed
    assert names(tmp_path) == ["train", "train.partial.1"]


def test_a_finished_stage_can_be_continued_and_stays_until_then(tmp_path: Path) -> None:
    with stage_folder(tmp_path, "train", begun("four", "kin", iterations=4)) as folder:
        (folder.path / "checkpoints").mkdir()
        (folder.path / "checkpoints" / "4").write_text("four", encoding="utf-8")
        (folder.path / "checkpoints" / MANIFEST).write_text("a checkpoint's own", encoding="utf-8")
    longer = begun("five", "kin", iterations=5)
    assert not continue_finished(tmp_path, "train", begun("five", "another kin"))
    assert not continue_finished(tmp_path, "train", begun("five", "kin", sources={"tasks": "others"}))
    assert continue_finished(tmp_path, "train", longer)
    with stage_folder(tmp_path, "train", longer, resumable=True) as folder:
        assert folder.resumed
        assert (folder.path / "checkpoints" / "4").read_text(encoding="utf-8") == "four"
        assert (folder.path / "checkpoints" / MANIFEST).exists()
        assert not (folder.path / STAGE).exists()
        finished = read_stage(tmp_path, "train")
        assert finished is not None and finished.fingerprint == "four"
    finished = read_stage(tmp_path, "train")
    assert finished is not None and finished.fingerprint == "five"


def test_nothing_is_set_aside_where_nothing_was_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stage_folder(tmp_path, "train", begun(), resumable=True):
        raise KeyboardInterrupt
    clear_partial(tmp_path, "train")
    assert names(tmp_path) == []


def test_a_kill_between_the_two_moves_of_a_swap_is_mended(tmp_path: Path) -> None:
    """Killed after the old folder was set aside and before the new one took its place."""
    finish(tmp_path, "one")
    finish(tmp_path, "two", "b")
    (tmp_path / "train").rename(tmp_path / "train.partial")
    finish(tmp_path / "elsewhere", "one")
    (tmp_path / "elsewhere" / "train").rename(tmp_path / ".train.replaced")
    recover(tmp_path, "train")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "b"
    assert not (tmp_path / ".train.replaced").exists()


def test_a_kill_before_the_new_one_was_whole_brings_the_old_one_back(tmp_path: Path) -> None:
    finish(tmp_path, "one")
    (tmp_path / "train").rename(tmp_path / ".train.replaced")
    recover(tmp_path, "train")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "a"


@pytest.mark.parametrize("name", [TIMES, MANIFEST, SEEN, STAGE])
def test_a_kill_while_the_record_was_written_leaves_no_file_of_it(tmp_path: Path, name: str) -> None:
    """The half-written file was listed in the manifest, and the stage was damaged for ever."""
    interrupt(tmp_path, begun())
    (tmp_path / "train.partial" / f"{name}.tmp").write_text("{", encoding="utf-8")
    with stage_folder(tmp_path, "train", begun(), resumable=True) as folder:
        assert folder.resumed
    verify_stage(tmp_path, "train")
    assert f"{name}.tmp" not in names(tmp_path / "train")


def test_a_kill_while_the_old_one_was_deleted_leaves_nothing_of_it(tmp_path: Path) -> None:
    """It stayed, with its checkpoints, for as long as the run had its directory."""
    finish(tmp_path / "elsewhere", "one")
    finish(tmp_path, "two", "b")
    (tmp_path / "elsewhere" / "train").rename(tmp_path / ".train.replaced")
    recover(tmp_path, "train")
    record = read_stage(tmp_path, "train")
    assert record is not None
    assert record.fingerprint == "b"
    assert not (tmp_path / ".train.replaced").exists()


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 5000, '{"stage": 1e999}', '{"stage": []}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    finish(tmp_path, "one")
    (tmp_path / "train" / STAGE).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"stage\.json"):
        read_stage(tmp_path, "train")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(bytes(data))


def delete(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("damage", [flip, delete, empty, pipe])
@pytest.mark.parametrize("file", ["weights", MANIFEST])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, damage: Any, file: str) -> None:
    """Digests were recorded and never compared."""
    finish(tmp_path, "one")
    damage(tmp_path / "train" / file)
    with pytest.raises(DataError, match=rf"{file}.*hiper train --config .* --force"):
        verify_stage(tmp_path, "train")


def test_files_that_look_as_they_did_are_not_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(tmp_path, "one")
    hashed: list[str] = []
    real = module._sha256
    monkeypatch.setattr(module, "_sha256", lambda file: hashed.append(file.name) or real(file))
    verify_stage(tmp_path, "train")
    assert hashed == []
    verify_stage(tmp_path, "train", full=True)
    assert hashed == ["weights"]
    (tmp_path / "train" / SEEN).unlink()  # as in a run that came from another machine
    verify_stage(tmp_path, "train")
    verify_stage(tmp_path, "train")
    assert hashed == ["weights"] * 2
    os.utime(tmp_path / "train" / "weights", (1, 1))
    verify_stage(tmp_path, "train")
    assert hashed == ["weights"] * 3


def test_a_whole_verification_sees_what_hides_behind_its_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(tmp_path, "one")
    seen = json.loads((tmp_path / "train" / SEEN).read_text(encoding="utf-8"))
    flip(tmp_path / "train" / "weights")
    monkeypatch.setattr(module, "_stat", lambda file: seen["weights"])
    verify_stage(tmp_path, "train")
    with pytest.raises(DataError, match="weights is not what the train stage wrote"):
        verify_stage(tmp_path, "train", full=True)


def test_everything_is_on_the_disk_before_the_old_folder_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after "done" left empty files: the order of syncs and moves is what forbids it. `make prove-durable` cuts the power."""
    finish(tmp_path, "one")
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        events.append(("move", str(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    with stage_folder(tmp_path, "train", begun("b")) as folder:
        (folder.path / "model").mkdir()
        (folder.path / "model" / "weights").write_text("two", encoding="utf-8")
        events.clear()
    partial = tmp_path / "train.partial"
    order = [("sync", str(partial / "model" / "weights")), ("sync", str(partial / "model")), ("move", str(partial / STAGE))]
    order += [("move", str(tmp_path / ".train.replaced")), ("move", str(tmp_path / "train")), ("sync", str(tmp_path))]
    places = [events.index(event) if event[0] == "move" else len(events) - 1 - events[::-1].index(event) for event in order]
    assert places == sorted(places)


def test_a_folder_that_is_a_link_is_read_through_and_replaced(tmp_path: Path) -> None:
    """It ended in NotADirectoryError for ever."""
    finish(tmp_path / "run", "one")
    (tmp_path / "run" / "train").rename(tmp_path / "large disk")
    (tmp_path / "run" / "train").symlink_to(tmp_path / "large disk")
    verify_stage(tmp_path / "run", "train")
    for text in ("two", "three"):
        finish(tmp_path / "run", text, text)
        assert (tmp_path / "run" / "train" / "weights").read_text(encoding="utf-8") == text
        assert names(tmp_path / "run") == ["train"]
    assert (tmp_path / "large disk" / "weights").read_text(encoding="utf-8") == "one", "what a link leads to is not ours to delete"


def test_a_dangling_link_is_no_finished_stage(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(tmp_path / "gone")
    (tmp_path / "train.partial").symlink_to(tmp_path / "gone too")
    assert read_stage(tmp_path, "train") is None
    with stage_folder(tmp_path, "train", begun(), resumable=True) as folder:
        (folder.path / "weights").write_text("one", encoding="utf-8")
    assert (tmp_path / "train" / "weights").read_text(encoding="utf-8") == "one"
    assert not (tmp_path / "train" / BEGUN).exists()
