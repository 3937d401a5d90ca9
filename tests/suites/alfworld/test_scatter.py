"""Training games laid out anew.

Rules pinned here:
* portable things, and those alone, move, each to a place of a kind where its kind lies in training games, and stand where that stands;
* task, furniture and wordings stay; the record that was read stays as it was;
* the same generator gives the same layout, another another;
* demonstrations with `alfworld.scatter` are of games that are not won before they start, and their expert wins them;
* an error in such a game names its file.
"""

from __future__ import annotations

import copy
import json
import random
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from hiper.composition.compose import compose
from hiper.errors import ConfigError, TaskError
from hiper.suites import suite_of
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.games import index_games
from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.alfworld.scatter import scatter
from hiper.suites.alfworld.settings import ALFWorldConfig
from hiper.suites.alfworld.world import World
from hiper.suites.expert import demonstrate
from hiper.suites.tasks import TaskIndex


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> TaskIndex:
    pytest.importorskip("alfworld", reason="the generator reads the floor plans of the alfworld package")
    from hiper.suites.alfworld.generate import generate_games

    return index_games(generate_games(tmp_path_factory.mktemp("games") / "out", ALFWorldConfig(train=60, valid_seen=6, valid_unseen=6)))


def facts(record: dict[str, Any], predicate: str) -> dict[str, str]:
    start = record["pddl_problem"].partition("(:goal")[0]
    return dict(re.findall(rf"\({predicate} (\S+) (\S+)\)", start))


def records(games: TaskIndex) -> list[dict[str, Any]]:
    return [json.loads(games.resolve(entry).read_text()) for entry in games.split("train")]


def test_portable_things_move_to_where_their_kind_lies(games: TaskIndex) -> None:
    prior = LocationPrior.learn(games)
    moved = stayed = 0
    for number, record in enumerate(records(games)):
        before = copy.deepcopy(record)
        after = scatter(record, prior, random.Random(number))
        assert record == before
        assert after["grammar"] == record["grammar"]
        assert "walkthrough" not in after
        portable = set(re.findall(r"\(pickupable (\S+)\)", record["pddl_problem"]))
        kinds = {**facts(record, "objectType"), **facts(record, "receptacleType")}
        was, lies = facts(record, "inReceptacle"), facts(after, "inReceptacle")
        stands, located = facts(after, "receptacleAtLocation"), facts(after, "objectAtLocation")
        assert stands == facts(record, "receptacleAtLocation")
        assert lies.keys() == was.keys()
        for thing, place in lies.items():
            if thing in portable:
                moved += place != was[thing]
                assert prior.score(*(kinds[name].removesuffix("Type").lower() for name in (thing, place))) > 0
            else:
                stayed += 1
                assert place == was[thing]
            assert located[thing] == stands[place]
    assert moved > 500
    assert stayed > 5


def test_the_generator_decides(games: TaskIndex) -> None:
    prior, record = LocationPrior.learn(games), records(games)[0]
    assert scatter(record, prior, random.Random(1)) == scatter(record, prior, random.Random(1))
    assert scatter(record, prior, random.Random(1)) != scatter(record, prior, random.Random(2))


def test_a_vessel_with_something_in_it_stays(tmp_path: Path) -> None:
    problem = (
        "(objectType Bowl_bar_1 BowlType)(objectType Egg_bar_1 EggType)(pickupable Bowl_bar_1)(pickupable Egg_bar_1)"
        "(receptacleType Shelf_bar_1 ShelfType)(receptacleType Shelf_bar_2 ShelfType)"
        "(receptacleAtLocation Shelf_bar_1 loc_1)(receptacleAtLocation Shelf_bar_2 loc_2)"
        "(inReceptacle Bowl_bar_1 Shelf_bar_1)(objectAtLocation Bowl_bar_1 loc_1)(inReceptacleObject Egg_bar_1 Bowl_bar_1)"
    )
    (tmp_path / "game").write_text(json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": problem}))
    prior = LocationPrior.count([tmp_path / "game"])
    empty = {"pddl_problem": problem.replace("(inReceptacleObject Egg_bar_1 Bowl_bar_1)", "")}
    places = [[facts(scatter(r, prior, random.Random(n)), "inReceptacle") for n in range(20)] for r in ({"pddl_problem": problem}, empty)]
    assert {place["Bowl_bar_1"] for place in places[0]} == {"Shelf_bar_1"}
    assert {place["Bowl_bar_1"] for place in places[1]} == {"Shelf_bar_1", "Shelf_bar_2"}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_demonstrations_are_of_games_that_can_be_won(games: TaskIndex, share: float) -> None:
    cfg = compose([f"alfworld.scatter={share}", "alfworld.fresh=false", "alfworld.renumber=false"])
    suite = suite_of(cfg)
    rng = random.Random(0)
    expert = suite.expert(games, cfg, rng)
    moved = 0
    for entry, make in islice(suite.training_tasks(games, cfg, rng), 120):
        game = make(rng)
        assert isinstance(game, Game)
        assert not game.won
        moved += game.world.digest != World.load(games.resolve(entry)).digest
        assert demonstrate(game, expert, 100).won
    assert moved == 0 if share == 0 else moved > 100


def test_there_is_nothing_to_scatter_in_fresh_games(games: TaskIndex) -> None:
    cfg = compose(["alfworld.scatter=0.5", "alfworld.fresh=true"])
    with pytest.raises(ConfigError, match=r"alfworld\.scatter=0\.5"):
        suite_of(cfg).training_tasks(games, cfg, random.Random(0))


def test_what_is_wrong_with_a_changed_game_names_its_file(games: TaskIndex) -> None:
    path = games.resolve(games.split("train")[0])
    with pytest.raises(TaskError, match=re.escape(str(path))):
        World.load(path, lambda record: {**record, "pddl_domain": "(define (domain other))"})
