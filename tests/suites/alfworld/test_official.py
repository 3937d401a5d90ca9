"""The official games.

Rules pinned: recorded episodes of other people's agents end as they did, with as many inadmissible commands; every game of both
releases loads; every walkthrough wins on its last command; the `alfworld` package agrees command by command (slow).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hiper.suites.alfworld import Game
from hiper.suites.alfworld.conformance import bench, find_games


def test_recorded_episodes_end_as_they_did(shared: Path, official_games: Path) -> None:
    lines = (shared / "conformance" / "alfworld_valid_seen_actions.jsonl").read_text().splitlines()
    assert len(lines) == 279
    wrong = []
    for line in lines:
        recorded = json.loads(line)
        game = Game.load(official_games / "2.1.2" / "json_2.1.1" / recorded["game"] / "game.tw-pddl")
        inadmissible = 0
        for command in recorded["actions"]:
            inadmissible += command not in game.admissible_commands
            game.step(command)
        if (game.won, inadmissible) != (recorded["won"], recorded["n_inadmissible"]):
            wrong.append(recorded["game"])
    assert not wrong


def test_every_walkthrough_wins_on_its_last_command(official_games: Path) -> None:
    files = find_games(official_games / "2.1.2", "valid_seen")
    assert len(files) == 140
    for file in files:
        game = Game.load(file)
        assert game.walkthrough
        results = [game.step(command) for command in game.walkthrough]
        assert [result.terminated for result in results] == [False] * (len(results) - 1) + [True], file


def test_the_older_release_loads(official_games: Path) -> None:
    files = find_games(official_games / "2.1.1", "valid_seen")
    assert len(files) == 140
    for file in files:
        game = Game.load(file)
        assert game.goal is not None
        assert game.reset().endswith(f"Your task is to: {game.task}")
        assert "help" not in game.admissible_commands


@pytest.mark.slow
def test_every_training_game_loads(official_games: Path) -> None:
    files = find_games(official_games / "2.1.1", "train")
    assert len(files) == 3553
    for file in files:
        game = Game.load(file)
        assert game.goal is not None
        assert game.reset().endswith(f"Your task is to: {game.task}")
        assert not game.won


@pytest.mark.slow
@pytest.mark.parametrize(("release", "split"), [("2.1.1", "train"), ("2.1.2", "valid_seen")])
def test_the_alfworld_package_agrees(official_games: Path, release: str, split: str) -> None:
    pytest.importorskip("alfworld")
    report = bench(official_games / release, split, games=3, commands=40, seed=7)
    assert report["mismatches"] == 0, report["examples"]
    assert report["ratio"] >= 500
    assert report["load_ratio"] >= 100
