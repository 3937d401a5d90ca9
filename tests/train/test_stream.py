"""Rules of the task stream.

1. Every game is played once before any is played again, each pass in a fresh order; a seed fixes the order.
2. A group is one game several times in a row; the games follow as they would alone.
3. A stream put back continues exactly where it stood, over the same number of games only.
"""

from __future__ import annotations

import json

import pytest

from hiper.errors import CheckpointError
from hiper.suites.tasks import Task
from hiper.train.stream import TaskStream

GAMES = [Task(f"train/{number}/game.tw-pddl", "train", "pick_and_place_simple", number) for number in range(7)]


def test_passes_are_permutations() -> None:
    drawn = TaskStream(GAMES, seed=0).draw(21)
    passes = [drawn[start : start + 7] for start in (0, 7, 14)]
    assert all(sorted(games, key=lambda g: g.scene) == GAMES for games in passes)
    assert passes[0] != passes[1] != passes[2]


def test_how_many_are_drawn_at_once_does_not_matter() -> None:
    whole, parts = TaskStream(GAMES, seed=3), TaskStream(GAMES, seed=3)
    assert whole.draw(20) == [game for count in (1, 6, 0, 9, 4) for game in parts.draw(count)]
    assert TaskStream(GAMES, seed=3).draw(20) != TaskStream(GAMES, seed=4).draw(20)


def test_groups_repeat_games() -> None:
    alone, grouped = TaskStream(GAMES, seed=3), TaskStream(GAMES, seed=3)
    assert grouped.draw(12, repeat=3) == [game for game in alone.draw(4) for _ in range(3)]


@pytest.mark.parametrize("position", [0, 3, 7, 10, 14])
def test_a_stream_put_back_goes_on(position: int) -> None:
    stream = TaskStream(GAMES, seed=1)
    stream.draw(position)
    state = json.loads(json.dumps(stream.state()))
    expected = stream.draw(25)
    other = TaskStream(GAMES, seed=99)
    other.draw(5)
    other.restore(state)
    assert other.draw(25) == expected


def test_other_games_are_refused() -> None:
    with pytest.raises(CheckpointError, match="was training on 7 tasks, but the index now has 5"):
        TaskStream(GAMES[:5], seed=1).restore(TaskStream(GAMES, seed=1).state())
