"""The game as its callers see it: saving and restoring, renumbering, wording of both releases, arbitrary commands.

Equality with the `alfworld` package is pinned in test_reference.py and test_official.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiper.errors import DataError
from hiper.suites.alfworld import Game
from hiper.suites.alfworld.world import World
from hiper.suites.base import StepResult, TextEnv

WINNING = ["go to shelf 2", "take mug 2 from shelf 2", "go to cabinet 1", "open cabinet 1", "move mug 2 to cabinet 1"]
GOALS = ["place", "clean", "heat", "cool", "two", "light"]


def test_intro_names_number_from_the_highest_id_down(tiny: Any) -> None:
    assert Game(tiny.world()).reset() == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, a countertop 1, a fridge 1,"
        " a microwave 1, a shelf 2, a shelf 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a mug in cabinet."
    )


def test_a_game_is_won_and_over(tiny: Any) -> None:
    game: TextEnv = Game(tiny.world())
    game.reset()
    for command in WINNING[:-1]:
        assert command in game.admissible_commands
        result = game.step(command)
        assert (result.reward, result.terminated, game.won) == (0.0, False, False)
    last = game.step(WINNING[-1])
    assert last == StepResult("You move the mug 2 to the cabinet 1.", 1.0, True)
    assert game.won
    assert game.step("take mug 2 from cabinet 1") == last
    game.reset()
    assert not game.won
    assert "take mug 2 from cabinet 1" not in game.admissible_commands


def test_wording_comes_from_the_file(tiny: Any) -> None:
    data = tiny.game_data()
    data["grammar"] = str(data["grammar"]).replace('"move {o} to {r}"', '"put {o} in/on {r}"').replace("You move the", "You put the")
    game = Game(World.from_data(data, Path("tiny")))
    for command in WINNING[:-1]:
        game.step(command)
    assert game.step(WINNING[-1]).observation == "Nothing happens."
    assert game.step("put mug 2 in/on cabinet 1").observation == "You put the mug 2 to the cabinet 1."


def test_which_receptacles_clean_comes_from_the_file(tiny: Any) -> None:
    data = tiny.game_data()
    data["pddl_domain"] = str(data["pddl_domain"]).replace("(receptacleType ?r SinkBasinType)", "(receptacleType ?r ShelfType)")
    game = Game(World.from_data(data, Path("tiny")))
    game.step("go to shelf 2")
    game.step("take mug 2 from shelf 2")
    assert {"clean mug 2 with shelf 1", "clean mug 2 with shelf 2"} <= set(game.admissible_commands)


@pytest.mark.parametrize("goal", GOALS)
def test_state_restores_at_every_moment(tiny: Any, goal: str) -> None:
    world, rng = tiny.world(goal), random.Random(goal)
    game, other = Game(world), Game(world)
    for _ in range(150):
        result = game.step(rng.choice(game.admissible_commands))
        other.restore(json.loads(json.dumps(game.state())))
        assert (other.admissible_commands, other.won, other.state()) == (game.admissible_commands, game.won, game.state())
        command = rng.choice([*game.admissible_commands, "look", "inventory", "nonsense"])
        if result.terminated:
            assert other.step(command) == result
            game.reset()
        else:
            assert other.step(command) == game.step(command)


def test_reset_leaves_no_trace(tiny: Any) -> None:
    world, rng = tiny.world(), random.Random(0)
    game = Game(world)
    for _ in range(30):
        for _ in range(20):
            game.step(rng.choice(game.admissible_commands))
        assert game.reset() == Game(world).reset()
        assert game.state() == Game(world).state()
        assert game.facts.unary == world.facts.unary
        assert {p: {k: v for k, v in t.items() if v} for p, t in game.facts.second.items()} == {
            p: {k: v for k, v in t.items() if v} for p, t in world.facts.second.items()
        }


def test_renumbering_permutes_within_a_kind_and_survives_saving(tiny: Any) -> None:
    world = tiny.world()
    plain = Game(world)
    seen = set()
    for seed in range(20):
        game = Game(world, random.Random(seed))
        assert sorted(game.objects) == sorted(plain.objects)
        assert sorted(game.receptacles) == sorted(plain.receptacles)
        seen.add((tuple(game.objects), tuple(game.receptacles)))
        names = dict(zip(plain.receptacles + plain.objects, game.receptacles + game.objects, strict=True))
        for command in (f"go to {names['shelf 2']}", f"take {names['mug 2']} from {names['shelf 2']}"):
            assert game.step(command).observation != "Nothing happens."
        plain.restore(game.state())
        assert plain.admissible_commands == game.admissible_commands
        plain.restore(Game(world).state())
    assert len(seen) > 5
    assert Game(world, random.Random(3)).objects == Game(world, random.Random(3)).objects


def test_what_experts_read(tiny: Any) -> None:
    game = Game(tiny.world("cool"))
    assert game.goal is not None
    assert game.goal._asdict() == {
        "object_type": "apple",
        "receptacle_type": "countertop",
        "conditions": ("cool",),
        "copies": 1,
        "light_type": None,
    }
    assert game.type_of("sinkbasin 1") == "sinkbasin"
    assert game.contents("shelf 1") == ["book 1", "butterknife 1"]
    assert game.has("cabinet 1", "openable")
    assert not game.has("cabinet 1", "opened")
    assert (game.held, game.here) == (None, [])
    game.step("go to sinkbasin 1")
    game.step("take apple 1 from countertop 1")
    assert (game.held, game.here) == ("apple 1", ["countertop 1", "sinkbasin 1"])
    assert game.command("PutObject", "apple 1", "fridge 1") == "move apple 1 to fridge 1"
    with pytest.raises(KeyError):
        game.type_of("unicorn 1")


@pytest.mark.parametrize(("goal", "copies", "light"), [("two", 2, None), ("light", 1, "desklamp")])
def test_goal_summary_of_the_other_forms(tiny: Any, goal: str, copies: int, light: str | None) -> None:
    summary = Game(tiny.world(goal)).goal
    assert summary is not None
    assert (summary.copies, summary.light_type) == (copies, light)


def test_two_of_a_kind_must_be_two(tiny: Any) -> None:
    game = Game(tiny.world("two"))  # knife 2 lies on the counter from the start
    game.step("go to countertop 1")
    game.step("take knife 2 from countertop 1")
    assert not game.step("move knife 2 to countertop 1").terminated


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: None,
        lambda state: [],
        lambda state: {**state, "extra": 1},
        lambda state: {**state, "game": "0" * 32},
        lambda state: {**state, "changed": None},
        lambda state: {**state, "changed": [3]},
        lambda state: {**state, "changed": [[]]},
        lambda state: {**state, "changed": [["opened", "nobody", True]]},
        lambda state: {**state, "changed": [["opened", "cabinet_bar_1", 1]]},
        lambda state: {**state, "changed": [["openable", "cabinet_bar_1", True]]},
        lambda state: {**state, "changed": [[["opened"], "cabinet_bar_1", True]]},
        lambda state: {**state, "changed": [["opened", ["cabinet_bar_1"], True]]},
        lambda state: {**state, "changed": [["atlocation", "agent1", place, True] for place in ("loc_bar_1", "loc_bar_2")]},
        lambda state: {**state, "changed": [["atlocation", "agent1", "loc_bar_9", False]]},
        lambda state: {**state, "changed": [["atlocation", "loc_bar_1", "loc_bar_9", True]]},
        lambda state: {**state, "numbers": "x"},
        lambda state: {**state, "numbers": [1]},
        lambda state: {**state, "numbers": [1] * 99},
        lambda state: {**state, "ended": 3},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(tiny: Any, damage: Callable[[Any], Any]) -> None:
    game = Game(tiny.world())
    game.step("go to cabinet 1")
    before = game.state()
    with pytest.raises(DataError):
        game.restore(damage(json.loads(json.dumps(before))))
    assert game.state() == before


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(WINNING), st.builds(str.upper, st.sampled_from(WINNING))), max_size=6))
def test_any_string_is_a_command(tiny: Any, commands: list[str]) -> None:
    game = Game(tiny.world())
    for command in commands:
        admissible = command.strip() in game.admissible_commands
        before = game.state()
        result = game.step(command)
        assert (result.observation != "Nothing happens.") == admissible or before["ended"]
        if not admissible:
            assert game.state() == before


def test_loading_a_file_is_loading_its_world(tiny: Any, tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "game.tw-pddl", {**tiny.game_data(task='put it ä \\"there\\".'), "walkthrough": WINNING})
    game = Game.load(path)
    assert game.walkthrough == tuple(WINNING)
    assert game.task == 'put it ä "there".'.replace('"', "")
