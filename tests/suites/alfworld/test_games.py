"""The game index and the search for the official games.

Rules pinned here:
* games are found in the official layout, directly or under `json_2.1.1`, sorted by split and path;
* movable receptacles, sliced objects, other task types and games not known to be solvable are left out, and counted;
* an empty, unknown or missing split says what there is instead;
* an index survives being saved, moved with its games, and loaded;
* the official games are downloaded only where there are none, and a failed download says so.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import DataError, MissingDependencyError
from hiper.suites.alfworld import official
from hiper.suites.alfworld.games import GAME_FILE, index_games
from hiper.suites.alfworld.settings import SPLITS, TASK_TYPES
from hiper.suites.tasks import Task, TaskIndex

SIMPLE, LOOK = TASK_TYPES[0], TASK_TYPES[1]


def add_game(root: Path, split: str, folder: str, trial: str = "trial_1", **record: Any) -> Path:
    """A game file with just what an index reads."""
    directory = root / split / folder / trial
    directory.mkdir(parents=True)
    path = directory / GAME_FILE
    path.write_text(json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": "", "solvable": True, "walkthrough": [], **record}))
    return path


def test_finds_games_in_both_layouts(tmp_path: Path) -> None:
    for root in (tmp_path / "flat", tmp_path / "data" / "json_2.1.1"):
        add_game(root, "valid_seen", f"{LOOK}-Book-None-DeskLamp-301")
        add_game(root, "train", f"{SIMPLE}-Mug-None-Shelf-7")
    flat, nested = index_games(tmp_path / "flat"), index_games(tmp_path / "data")
    assert flat.entries == (
        Task(f"train/{SIMPLE}-Mug-None-Shelf-7/trial_1/{GAME_FILE}", "train", SIMPLE, 7),
        Task(f"valid_seen/{LOOK}-Book-None-DeskLamp-301/trial_1/{GAME_FILE}", "valid_seen", LOOK, 301),
    )
    assert [entry.path for entry in nested.entries] == [f"json_2.1.1/{entry.path}" for entry in flat.entries]
    assert all(nested.resolve(entry).is_file() for entry in nested.entries)
    assert flat.counts() == {"train": {SIMPLE: 1}, "valid_seen": {LOOK: 1}}


def test_leaves_out_what_upstream_leaves_out(tmp_path: Path) -> None:
    add_game(tmp_path, "train", f"{SIMPLE}-Mug-None-Shelf-7")
    add_game(tmp_path, "train", "pick_and_place_with_movable_recep-Pen-Mug-Shelf-301")
    add_game(tmp_path, "train", f"{SIMPLE}-AppleSliced-None-Fridge-7")
    add_game(tmp_path, "train", f"{SIMPLE}-Cup-None-Shelf-7", solvable=False)
    add_game(tmp_path, "train", f"{SIMPLE}-Pan-None-Shelf-7", solvable=None)
    add_game(tmp_path, "train", f"{LOOK}-Book-None-DeskLamp-301")
    unchecked = tmp_path / "train" / f"{SIMPLE}-Pot-None-Shelf-7" / "trial_1" / GAME_FILE
    unchecked.parent.mkdir(parents=True)
    unchecked.write_text('{"pddl_problem": ""}')
    index = index_games(tmp_path, task_types=[SIMPLE])
    assert [entry.path.split("/")[1] for entry in index.entries] == [f"{SIMPLE}-Mug-None-Shelf-7"]
    assert index.left_out == {"movable receptacle or sliced object": 2, "not known to be solvable": 3, "other task type": 1}


def test_limit_spreads_over_the_sorted_games(tmp_path: Path) -> None:
    for number in range(10):
        add_game(tmp_path, "train", f"{SIMPLE}-Mug-None-Shelf-{number + 1}", trial=f"trial_{number}")
    index = index_games(tmp_path, limit=5)
    everything = index_games(tmp_path).entries
    assert index.entries == everything[::2]
    assert index.left_out == {"beyond tasks.limit": 5}


def test_an_empty_split_says_what_there_is(tmp_path: Path) -> None:
    add_game(tmp_path, "train", f"{SIMPLE}-Mug-None-Shelf-7")
    add_game(tmp_path, "valid_seen", f"{SIMPLE}-Mug-None-Shelf-7", solvable=False)
    index = index_games(tmp_path)
    assert len(index.split("train")) == 1
    with pytest.raises(DataError, match=r"'valid_seen' has no tasks .* it has train \(1\)\. 1 left out: not known to be solvable"):
        index.split("valid_seen")
    with pytest.raises(DataError, match="has no valid_unseen folder; it has train, valid_seen"):
        index_games(tmp_path, ["valid_unseen"])
    with pytest.raises(DataError, match="has no train or valid_seen or valid_unseen folder; it has no folders"):
        index_games(tmp_path / "nowhere")


def test_task_type_and_scene_from_the_description_when_the_folder_does_not_say(tmp_path: Path) -> None:
    file = add_game(tmp_path, "train", "odd")
    with pytest.raises(DataError, match="neither the folder name 'odd' nor traj_data.json"):
        index_games(tmp_path)
    file.with_name("traj_data.json").write_text(json.dumps({"task_type": LOOK, "scene": {"scene_num": 309}}))
    (entry,) = index_games(tmp_path).entries
    assert (entry.task_type, entry.scene) == (LOOK, 309)


def test_a_damaged_game_file_is_named(tmp_path: Path) -> None:
    file = add_game(tmp_path, "train", f"{SIMPLE}-Mug-None-Shelf-7")
    file.write_text('{"pddl_domain": ')
    with pytest.raises(DataError, match="game.tw-pddl is not a game file"):
        index_games(tmp_path)


def test_an_index_moves_with_its_games(tmp_path: Path) -> None:
    add_game(tmp_path / "run" / "games", "train", f"{SIMPLE}-Mug-None-Shelf-7")
    index_games(tmp_path / "run" / "games").save(tmp_path / "run" / "index.json")
    (tmp_path / "run").rename(tmp_path / "moved")
    index = TaskIndex.load(tmp_path / "moved" / "index.json")
    assert index.resolve(index.split("train")[0]).is_file()
    (tmp_path / "moved" / "index.json").write_text("{}")
    with pytest.raises(DataError, match="not a task index"):
        TaskIndex.load(tmp_path / "moved" / "index.json")


def test_counts_of_the_released_games(official_games: Path) -> None:
    older = index_games(official_games / "2.1.1")
    assert {split: sum(counts.values()) for split, counts in older.counts().items()} == {"train": 3553, "valid_seen": 140}
    assert older.counts()["train"] == dict(zip(TASK_TYPES, (790, 308, 650, 459, 533, 813), strict=True))


def complete(root: Path) -> None:
    for split in SPLITS:
        add_game(root / "json_2.1.1", split, f"{SIMPLE}-Mug-None-Shelf-7")


def test_games_already_there_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(official.VARIABLE, str(tmp_path))
    assert official.official_data() == tmp_path
    assert official.official_data(str(tmp_path / "json_2.1.1")) == tmp_path / "json_2.1.1"


def test_a_named_directory_is_never_downloaded_into(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.data=.* has no game\.tw-pddl under train, valid_seen, valid_unseen"):
        official.official_data(str(tmp_path))


def python_beside(tool: Path) -> str:
    """A Python whose directory holds no programs but `tool`."""
    python = tool.with_name("python")
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.mark.parametrize("code", [0, 1])
def test_fetches_with_alfworld_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    complete(tmp_path / "source")
    tool = tmp_path / "bin" / "alfworld-download"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\n[ "$1" = --data-dir ] && cp -r "{tmp_path}/source" "$2"\nexit {code}\n')
    tool.chmod(0o755)
    monkeypatch.setattr(sys, "executable", python_beside(tool))
    monkeypatch.setenv(official.VARIABLE, str(tmp_path / "data"))
    assert len(index_games(official.official_data()).entries) == 3


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "alfworld-download"
    tool.parent.mkdir()
    monkeypatch.setattr(sys, "executable", python_beside(tool))
    monkeypatch.setenv(official.VARIABLE, str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="alfworld-download, which fetches them, is not installed"):
        official.official_data()
    tool.write_text("#!/bin/sh\nexit 7\n")
    tool.chmod(0o755)
    with pytest.raises(DataError, match=r"ended with code 7 .* tasks\.source=generated"):
        official.official_data()
