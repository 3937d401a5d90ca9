"""Our engine against the `alfworld` package itself.

Rules pinned: observation, admissible commands in their order, reward, end and `won` are equal after every command, be it
admissible, misspelt or absurd, in worlds where receptacles share locations and objects lie in two receptacles at once; and
after the end.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import DataError, TaskError
from hiper.suites.alfworld import Game
from hiper.suites.alfworld.conformance import bench, choose_command
from hiper.suites.alfworld.textworld import TextWorldGame

pytest.importorskip("alfworld")

GOALS = ["place", "clean", "heat", "cool", "two", "light"]


def assert_equal(ours: Game, reference: TextWorldGame, command: str | None) -> bool:
    """Play `command` (None: reset) in both; whether the game is over."""
    if command is None:
        assert ours.reset() == reference.reset()
        over = False
    else:
        result, expected = ours.step(command), reference.step(command)
        assert result == expected, command
        over = result.terminated
    assert ours.admissible_commands == reference.admissible_commands, command
    assert ours.won == reference.won, command
    return over


def compare_random_play(tiny: Any, goal: str, rng: random.Random, commands: int, path: Path) -> None:
    tiny.write(path, tiny.game_data(goal, tiny.scattered(rng)))
    ours, reference = Game.load(path), TextWorldGame.load(path)
    assert_equal(ours, reference, None)
    for _ in range(commands):
        if assert_equal(ours, reference, choose_command(ours, rng)):
            assert_equal(ours, reference, "look")  # after the end, the last result again
            assert_equal(ours, reference, None)
    reference.close()


@pytest.mark.parametrize("goal", GOALS)
def test_random_play_in_scattered_worlds(tiny: Any, goal: str, tmp_path: Path) -> None:
    compare_random_play(tiny, goal, random.Random(goal), 20, tmp_path / "game.tw-pddl")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("goal", GOALS)
def test_long_random_play_in_scattered_worlds(tiny: Any, goal: str, seed: int, tmp_path: Path) -> None:
    compare_random_play(tiny, goal, random.Random(f"{goal} {seed}"), 150, tmp_path / "game.tw-pddl")


def test_oddities_of_shared_locations_and_objects_in_two_places(tiny: Any, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "game.tw-pddl", tiny.game_data())
    ours, reference = Game.load(path), TextWorldGame.load(path)
    script = """
        look | inventory | go to shelf 1 | go to shelf 2 | look | take book 1 from shelf 1 | look | examine book 1 | move book 1
        to shelf 2 | look | examine shelf 2 | use desklamp 1 | use desklamp 1 | examine desklamp 1 | take book 1 from shelf 2 |
        go to cabinet 2 | open cabinet 2 | examine cabinet 2 | take book 1 from cabinet 2 | move book 1 to cabinet 2 | take book
        1 from cabinet 2 | move book 1 to cabinet 2 | close cabinet 2 | go to countertop 1 | take knife 2 from countertop 1 |
        slice apple 1 with knife 2 | examine knife 2 | clean knife 2 with sinkbasin 1 | examine knife 2 | move knife 2 to
        sinkbasin 1 | look | take apple 1 from countertop 1 | examine apple 1 | go to fridge 1 | cool apple 1 with fridge 1 |
        examine apple 1 | go to microwave 1 | heat apple 1 with microwave 1 | examine apple 1 | go to fridge 1 | open fridge 1 |
        move apple 1 to fridge 1 | take mug 1 from fridge 1 | examine mug 1 | go to cabinet 1 | open cabinet 1 | move mug 1 to
        cabinet 1 | look | help
    """
    assert_equal(ours, reference, None)
    for command in " ".join(script.split()).split(" | "):
        over = assert_equal(ours, reference, command)
    assert over, "the script ends with a win"
    reference.close()


def test_original_engine_saves_by_playing_again(tiny: Any, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "game.tw-pddl", tiny.game_data())
    game = TextWorldGame.load(path)
    assert game.task == "put a mug in cabinet."
    game.reset()
    game.step("go to shelf 1")
    state, commands = game.state(), game.admissible_commands
    game.step("take mug 2 from shelf 1")
    game.restore(state)
    assert game.admissible_commands == commands
    with pytest.raises(DataError, match="another|is of the game"):
        game.restore({"game": "x", "commands": []})
    with pytest.raises(DataError, match="not the state"):
        game.restore(None)
    game.close()


def test_original_engine_names_the_file_it_cannot_load(tiny: Any, tmp_path: Path) -> None:
    data = tiny.game_data()
    data["pddl_problem"] = str(data["pddl_problem"])[:400]
    game = TextWorldGame.load(tiny.write(tmp_path / "game.tw-pddl", data))
    with pytest.raises(TaskError, match=r"game\.tw-pddl.*cannot load"):
        game.reset()
    game.close()


def test_bench_counts_a_difference(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "split" / "a" / "b"
    folder.mkdir(parents=True)
    tiny.write(folder / "game.tw-pddl", tiny.game_data())
    report = bench(tmp_path, "split", games=3, commands=6)
    assert (report["games"], report["commands"], report["mismatches"]) == (1, 6, 0)
    assert report["steps_per_second"] > report["reference_steps_per_second"] > 0
    monkeypatch.setattr("hiper.suites.alfworld.game.NOTHING_HAPPENS", "Nothing happened.")
    assert bench(tmp_path, "split", games=1, commands=8, seed=1)["mismatches"] > 0
    with pytest.raises(DataError, match="no games of the split 'other'"):
        bench(tmp_path, "other", games=1)
