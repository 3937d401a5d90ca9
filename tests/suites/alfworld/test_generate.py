"""The generator.

Rules pinned here:
* the same seed writes the same bytes, and asking for more games changes none of the earlier ones;
* task types take turns; unseen rooms are ALFRED's held-out ones, the other splits never play there;
* caps hold, and scenes are as large as the bar asks where caps allow;
* no game is won at its start, everything lies where the tables allow, and every walkthrough wins in our engine;
* a scene can be searched through within the 50-turn budget;
* a complete directory is left alone, a half-written one is made again, anything else is refused;
* (slow) a sample is solved by the planner behind the `alfworld` package, in the same words as in our engine;
* (slow) 1,000 games take less than a minute.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from time import process_time
from typing import Any

import pytest

pytest.importorskip("alfworld", reason="the generator reads the floor plans of the alfworld package")

from hiper.errors import DataError, MissingDependencyError
from hiper.suites.alfworld import floorplans
from hiper.suites.alfworld.floorplans import HELD_OUT_SCENES, floor_plan, scenes, tables
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.games import index_games
from hiper.suites.alfworld.generate import MANIFEST, GeneratedGame, generate_games, make_game
from hiper.suites.alfworld.layout import SEARCH_TURNS, tasks_in
from hiper.suites.alfworld.problem import display_names
from hiper.suites.alfworld.settings import SPLITS, TASK_TYPES, ALFWorldConfig
from hiper.suites.tasks import TaskIndex

SMALL: dict[str, Any] = {"train": 12, "valid_seen": 6, "valid_unseen": 6}


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> TaskIndex:
    """A small generation with the caps of a CPU-sized run."""
    return index_games(
        generate_games(tmp_path_factory.mktemp("games") / "out", ALFWorldConfig(**SMALL, max_receptacles=14, max_objects=26))
    )


def digest(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def sample(count: int, split: str = "train", **caps: Any) -> list[GeneratedGame]:
    cfg = ALFWorldConfig(**caps)
    return [make_game(f"g{number}", split, TASK_TYPES[number % 6], random.Random(f"t/{number}"), cfg) for number in range(count)]


def test_same_seed_same_bytes(games: TaskIndex, tmp_path: Path) -> None:
    again = index_games(generate_games(tmp_path / "again", ALFWorldConfig(**SMALL, max_receptacles=14, max_objects=26)))
    assert digest(again.root) == digest(games.root)
    other = index_games(generate_games(tmp_path / "other", ALFWorldConfig(**SMALL, max_receptacles=14, max_objects=26), 1))
    shared = {entry.path for entry in other.entries} & {entry.path for entry in games.entries}
    assert len(shared) < len(games.entries) / 2


def test_more_games_change_none_of_the_earlier(games: TaskIndex, tmp_path: Path) -> None:
    more = index_games(generate_games(tmp_path / "more", ALFWorldConfig(**{**SMALL, "train": 18}, max_receptacles=14, max_objects=26)))
    before, after = digest(games.root), digest(more.root)
    assert {path: after.get(path) for path in before if path != MANIFEST} == {path: before[path] for path in before if path != MANIFEST}


def test_task_types_take_turns_and_rooms_are_kept_apart(games: TaskIndex) -> None:
    assert games.counts() == {split: dict.fromkeys(TASK_TYPES, count // 6) for split, count in SMALL.items()}
    assert {entry.scene for entry in games.split("valid_unseen")} <= HELD_OUT_SCENES
    assert not {entry.scene for split in ("train", "valid_seen") for entry in games.split(split)} & HELD_OUT_SCENES
    assert games.left_out == {}


def test_every_task_type_has_seen_and_unseen_rooms() -> None:
    assert len(scenes()) == 120
    assert set(scenes()) > HELD_OUT_SCENES
    for task_type in TASK_TYPES:
        rooms = {scene for scene in scenes() if tasks_in(scene, task_type)}
        assert len(rooms & HELD_OUT_SCENES) >= 3
        assert len(rooms - HELD_OUT_SCENES) >= 20


def test_unseen_rooms_hold_no_type_that_training_rooms_lack() -> None:
    def types(rooms: frozenset[int]) -> set[str]:
        plans = [floor_plan(scene) for scene in rooms]
        return {kind for plan in plans for kind in plan.contents} | {thing.type for plan in plans for thing in plan.receptacles}

    assert types(HELD_OUT_SCENES) <= types(frozenset(scenes()) - HELD_OUT_SCENES)


@pytest.mark.parametrize("caps", [{"max_receptacles": 6, "max_objects": 10}, {"max_receptacles": 14, "max_objects": 22}, {}])
def test_caps_and_sizes(caps: dict[str, Any]) -> None:
    found = sample(60, "valid_unseen", **caps)
    cfg = ALFWorldConfig(**caps)
    receptacles, objects = [len(game.layout.receptacles) for game in found], [game.layout.objects for game in found]
    assert max(receptacles) <= cfg.max_receptacles
    assert max(objects) <= cfg.max_objects
    assert fmean(receptacles) >= min(10, cfg.max_receptacles - 1)
    assert fmean(objects) >= min(20, cfg.max_objects)


def test_things_lie_where_the_tables_allow_and_the_room_can_be_searched() -> None:
    for game in sample(60):
        kinds = {receptacle.id: receptacle.type for receptacle in game.layout.receptacles}
        for thing in game.layout.things:
            if thing.receptacle is not None and thing.type != floorplans.LAMP:
                assert thing.type in tables().holds[kinds[thing.receptacle]], (thing, game.task)
        assert len({thing.id for thing in game.layout.things}) == len(game.layout.things)
        assert sum(1 + receptacle.openable for receptacle in game.layout.receptacles) <= SEARCH_TURNS


def test_start_is_open_and_the_walkthrough_wins(games: TaskIndex) -> None:
    for entry in games.entries:
        game = Game.load(games.resolve(entry))
        game.reset()
        record = json.loads(games.resolve(entry).read_text())
        assert not game.won
        assert record["solvable"] is True
        for command in record["walkthrough"]:
            assert not game.won, "the walkthrough goes on after the win"
            assert command in game.admissible_commands
            game.step(command)
        assert game.won


def test_nothing_of_the_goal_holds_at_the_start() -> None:
    for game in sample(60):
        if game.task.type in (TASK_TYPES[0], TASK_TYPES[5]):
            kinds = {receptacle.id: receptacle.type for receptacle in game.layout.receptacles}
            places = [kinds[thing.receptacle] for thing in game.layout.things if thing.type == game.task.object and thing.receptacle]
            assert len(places) >= (2 if game.task.type == TASK_TYPES[5] else 1)
            assert game.task.target not in places


def test_goal_and_domain_are_those_of_the_package() -> None:
    (game,) = sample(1)
    assert game.record["pddl_domain"] == tables().domain
    assert "UNKNOWN GOAL" in tables().grammar
    assert f'"Your task is to: {game.sentence}."' in game.record["grammar"]
    goal = re.sub(r"\s+", " ", game.record["pddl_problem"].partition("(:goal")[2])
    assert f"(objectType ?o {game.task.object}Type) (receptacleType ?r {game.task.target}Type)" in goal


def test_names_count_down_the_sorted_ids() -> None:
    # Sorted as PDDL symbols, lower case: '+' is escaped to `_plus_`, '-' to `_minus_`, so minus sorts before plus.
    ids = ["Mug|+00.10|+01.00|+00.00", "Mug|-00.10|+01.00|+00.00", "Sink|+00.00|+00.00|+00.00|SinkBasin", "Sink|+00.00|+00.00|+00.00"]
    assert [display_names(ids)[name] for name in ids] == ["mug 1", "mug 2", "sinkbasin 1", "sink 1"]


def test_a_complete_directory_is_left_alone(games: TaskIndex) -> None:
    def fail(done: int, total: int) -> None:
        raise AssertionError("wrote a game again")

    before = {path: path.stat().st_mtime_ns for path in games.root.rglob("*")}
    assert index_games(generate_games(games.root, ALFWorldConfig(**SMALL, max_receptacles=14, max_objects=26), progress=fail)) == games
    assert {path: path.stat().st_mtime_ns for path in games.root.rglob("*")} == before


def test_an_interrupted_directory_is_made_again(tmp_path: Path, games: TaskIndex) -> None:
    cfg = ALFWorldConfig(**SMALL, max_receptacles=14, max_objects=26)

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_games(tmp_path / "out", cfg, progress=stop)
    assert json.loads((tmp_path / "out" / MANIFEST).read_text())["complete"] is False
    seen: list[tuple[int, int]] = []
    generate_games(tmp_path / "out", cfg, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number + 1, 24) for number in range(24)]
    assert digest(tmp_path / "out") == digest(games.root)


def test_another_configuration_replaces_the_games_and_a_lost_game_is_noticed(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"train": 2, "valid_seen": 1, "valid_unseen": 1}
    generate_games(tmp_path / "out", ALFWorldConfig(**{**counts, "train": 3}))
    index = index_games(generate_games(tmp_path / "out", ALFWorldConfig(**counts)))
    assert len(index.split("train")) == 2
    index.resolve(index.split("train")[0]).unlink()
    assert len(index_games(generate_games(tmp_path / "out", ALFWorldConfig(**counts))).split("train")) == 2


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    precious = tmp_path / "train" / "precious"
    precious.mkdir(parents=True)
    with pytest.raises(DataError, match="is not empty and was not written by the generator"):
        generate_games(tmp_path, ALFWorldConfig(**SMALL))
    assert precious.is_dir()


def test_without_the_package_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    caches = (floorplans._package, floorplans.tables)
    for cache in caches:
        cache.cache_clear()
    try:
        with pytest.raises(MissingDependencyError, match="pip install --no-deps alfworld=="):
            generate_games(tmp_path / "out", ALFWorldConfig(**SMALL))
        assert not (tmp_path / "out").exists()
    finally:
        for cache in caches:
            cache.cache_clear()


def test_generating_does_not_import_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Importing `alfworld` makes a folder in the home directory and sets $ALFWORLD_DATA."""
    code = (
        "import os, sys; from pathlib import Path; from hiper.suites.alfworld.settings import ALFWorldConfig; "
        "from hiper.suites.alfworld.generate import generate_games; "
        f"generate_games(Path({str(tmp_path / 'out')!r}), ALFWorldConfig(train=1, valid_seen=1, valid_unseen=1)); "
        "assert 'alfworld' not in sys.modules and 'torch' not in sys.modules and not os.environ.get('ALFWORLD_DATA')"
    )
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_planner_solves_a_sample_in_the_same_words(tmp_path: Path) -> None:
    arguments = sys.argv
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs import PddlEnv

    # In a large kitchen the planner needs minutes for two objects, in the official games as well.
    index = index_games(
        generate_games(tmp_path / "out", ALFWorldConfig(train=18, valid_seen=6, valid_unseen=6, max_receptacles=14, max_objects=26))
    )
    for entry in index.entries:
        sys.argv = arguments  # the planner's translator overwrites it
        infos = textworld.EnvInfos(admissible_commands=True, won=True, policy_commands=True)
        env: Any = AlfredInfos(AlfredDemangler(PddlEnv(infos)))
        env.load(str(index.resolve(entry)))
        state, ours = env.reset(), Game.load(index.resolve(entry))
        plan = list(state["policy_commands"])
        infos.policy_commands = False  # else every step plans again
        assert ours.reset() == state.feedback
        assert plan
        for command in plan:
            state, _, _ = env.step(command)
            assert ours.step(command).observation == state.feedback
            assert ours.admissible_commands == list(state["admissible_commands"])
            assert ours.won == state["won"]
        assert ours.won
    sys.argv = arguments


@pytest.mark.slow
def test_a_thousand_games_take_less_than_a_minute(tmp_path: Path) -> None:
    started = process_time()
    index = index_games(generate_games(tmp_path / "out", ALFWorldConfig(train=998, valid_seen=1, valid_unseen=1)))
    assert process_time() - started < 60
    assert len(index_games(tmp_path / "out", SPLITS).entries) == len(index.entries) == 1000
