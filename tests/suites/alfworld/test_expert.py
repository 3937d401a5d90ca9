"""Goal sentences, the location prior and the expert.

Rules pinned here:
* every official wording of the six task types is understood, and nothing else is;
* the prior is the mean number of objects of a type in one receptacle of a type, from the games given and no others;
* the expert sees observations, commands and the task, nothing more; it wins, with no needless `look` or `examine`;
* it starts a segment exactly where its subgoal changes, and both KEEP and SWITCH are common;
* detours change the way and not the result, and are reproducible;
* slips are marked, are no choice of its own, and do not keep it from winning;
* rounds go to places it has seen, are marked, and do not keep it from winning;
* a lapse leaves out the appliance or lamp and nothing else: the episode ends where it takes itself to be done.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import fmean

import pytest

from hiper.errors import DataError
from hiper.suites.alfworld.expert import Expert, indefinite
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.games import index_games
from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.alfworld.settings import TASK_TYPES, ALFWorldConfig
from hiper.suites.alfworld.tasks import TaskSpec, Treatment, parse_task
from hiper.suites.expert import Demonstration, PlanStep, demonstrate
from hiper.suites.tasks import TaskIndex

ROOM = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see {}.\n\n"
    "Your task is to: {}."
)


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> TaskIndex:
    pytest.importorskip("alfworld", reason="the generator reads the floor plans of the alfworld package")
    from hiper.suites.alfworld.generate import generate_games

    cfg = ALFWorldConfig(train=120, valid_seen=6, valid_unseen=60, max_receptacles=14, max_objects=26)
    return index_games(generate_games(tmp_path_factory.mktemp("games") / "out", cfg))


def play(index: TaskIndex, split: str, expert: Expert) -> list[Demonstration]:
    return [demonstrate(Game.load(index.resolve(entry)), expert, 50) for entry in index.split(split)]


@pytest.mark.parametrize(
    ("sentence", "spec"),
    [
        ("put some mug on shelf.", TaskSpec(TASK_TYPES[0], "mug", "shelf", None, None, 1)),
        ("Your task is to: put a cd in safe", TaskSpec(TASK_TYPES[0], "cd", "safe", None, None, 1)),
        ("look at book under the desklamp.", TaskSpec(TASK_TYPES[1], "book", None, "desklamp", None, 1)),
        ("examine the alarmclock with the desklamp.", TaskSpec(TASK_TYPES[1], "alarmclock", None, "desklamp", None, 1)),
        ("clean some cloth and put it in drawer.", TaskSpec(TASK_TYPES[2], "cloth", "drawer", None, Treatment.clean, 1)),
        ("put a hot egg in fridge.", TaskSpec(TASK_TYPES[3], "egg", "fridge", None, Treatment.heat, 1)),
        ("put a cool pan in stoveburner.", TaskSpec(TASK_TYPES[4], "pan", "stoveburner", None, Treatment.cool, 1)),
        ("find two pen and put them in desk.", TaskSpec(TASK_TYPES[5], "pen", "desk", None, None, 2)),
    ],
)
def test_reads_a_goal_sentence(sentence: str, spec: TaskSpec) -> None:
    assert parse_task(sentence) == spec


def test_reads_every_template_of_the_package() -> None:
    pytest.importorskip("alfworld")
    from hiper.suites.alfworld.floorplans import tables

    for task_type, templates in tables().sentences.items():
        for template in templates:
            spec = parse_task(template.format(obj="plate", recep="cabinet", toggle="desklamp"))
            assert (spec.task_type, spec.object) == (task_type, "plate")
            assert spec.receptacle == (None if spec.lamp else "cabinet")


@pytest.mark.parametrize("sentence", ["", "put the mug away", "put a clean slice of apple in fridge", "put a bowl of apple in fridge"])
def test_refuses_other_sentences(sentence: str) -> None:
    with pytest.raises(DataError, match="in none of the official wordings"):
        parse_task(sentence)


def write_game(path: Path, places: dict[str, str], openable: tuple[str, ...] = ()) -> Path:
    """A problem with just what the prior reads; names are `Type_bar_N`."""
    names = set(places) | set(places.values())
    facts = [f"({'receptacle' if name in places.values() else 'object'}Type {name} {name.split('_')[0]}Type)" for name in sorted(names)]
    facts += [f"(inReceptacle {thing} {place})" for thing, place in places.items()] + [f"(openable {name})" for name in openable]
    path.write_text(json.dumps({"pddl_domain": "", "grammar": "", "pddl_problem": "\n".join(facts)}))
    return path


def test_prior_by_hand(tmp_path: Path) -> None:
    first = write_game(
        tmp_path / "a", {"Mug_bar_1": "Shelf_bar_1", "Mug_bar_2": "Shelf_bar_1", "Pen_bar_1": "Shelf_bar_2", "Pen_bar_2": "Safe_bar_1"}
    )
    second = write_game(tmp_path / "b", {"Mug_bar_1": "Safe_bar_1", "Cup_bar_1": "Shelf_bar_1"}, openable=("Safe_bar_1",))
    prior = LocationPrior.count([first, second])
    # Two mugs on 2 + 1 shelves, one mug in 1 + 1 safes; pens are in the first game only: one on 2 shelves, one in 1 safe.
    assert prior.score("mug", "shelf") == pytest.approx(2 / 3)
    assert prior.score("mug", "safe") == pytest.approx(1 / 2)
    assert prior.score("pen", "shelf") == pytest.approx(1 / 2)
    assert prior.score("pen", "safe") == 1.0
    assert prior.score("cup", "safe") == prior.score("spoon", "shelf") == 0.0
    assert prior.openable == {"safe": 0.5}


def test_prior_reads_the_training_split_only(games: TaskIndex) -> None:
    train = TaskIndex(games.root, tuple(games.split("train")))
    assert LocationPrior.learn(games) == LocationPrior.learn(train) != LocationPrior.learn(games, "valid_unseen")


def test_opening_counts_as_a_turn() -> None:
    """One shelf with 0.6 mugs beats a cabinet with 1: the cabinet takes two turns to look into."""
    prior = LocationPrior({"mug": {"shelf": 0.6, "cabinet": 1.0}}, {"mug": {"shelf": 1.0, "cabinet": 1.0}}, {"cabinet": 1.0})
    expert = Expert(prior)
    intro = ROOM.format("a cabinet 1, a desk 1, and a shelf 1", "put a mug in desk")
    expert.start("put a mug in desk", intro)
    room = ["go to cabinet 1", "go to desk 1", "go to shelf 1", "look"]
    assert expert.act(intro, room) == PlanStep(True, "find a mug", "go to shelf 1")
    step = expert.act("You arrive at shelf 1. On the shelf 1, you see nothing.", room)
    assert step == PlanStep(False, "find a mug", "go to cabinet 1")
    step = expert.act("You arrive at cabinet 1. The cabinet 1 is closed.", [*room, "open cabinet 1"])
    assert step == PlanStep(False, "find a mug", "open cabinet 1")
    step = expert.act("You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 2.", [*room, "take mug 2 from cabinet 1"])
    assert step == PlanStep(False, "find a mug", "take mug 2 from cabinet 1")
    step = expert.act("You pick up the mug 2 from the cabinet 1.", room)
    assert step == PlanStep(True, "put the mug in the desk", "go to desk 1")


@pytest.mark.parametrize("put", ["put pen 1 in/on desk 1", "move pen 1 to desk 1"])
def test_speaks_both_releases(put: str) -> None:
    expert = Expert(LocationPrior({}, {}, {}))
    expert.start("put a pen in desk", ROOM.format("a desk 1, and a shelf 1", "put a pen in desk"))
    expert.act("", ["go to desk 1", "go to shelf 1"])
    expert.act("You arrive at loc 3. On the shelf 1, you see a pen 1.", ["go to desk 1", "take pen 1 from shelf 1"])
    expert.act("You pick up the pen 1 from the shelf 1.", ["go to desk 1"])
    assert expert.act("You arrive at loc 4. On the desk 1, you see nothing.", ["go to shelf 1", put]).action == put


@pytest.mark.parametrize("split", ["train", "valid_unseen"])
def test_wins_every_generated_game(games: TaskIndex, split: str) -> None:
    demonstrations = play(games, split, Expert(LocationPrior.learn(games)))
    assert all(demonstration.won for demonstration in demonstrations)
    steps = [[step for _, step in demonstration.turns] for demonstration in demonstrations]
    assert fmean(len(turns) for turns in steps) < 11
    assert not any(step.action.startswith(("look", "inventory", "help")) for turns in steps for step in turns)
    for turns in steps:
        assert turns[0].switch
        for before, after in zip(turns, turns[1:], strict=False):
            assert after.switch == (after.subgoal != before.subgoal)
    switches = sum(step.switch for turns in steps for step in turns)
    total = sum(len(turns) for turns in steps)
    assert 0.25 <= switches / total <= 0.5
    assert total / switches >= 2


def test_subgoals_name_the_task(games: TaskIndex) -> None:
    for demonstration in play(games, "valid_unseen", Expert(LocationPrior.learn(games))):
        spec = parse_task(demonstration.task)
        subgoals = [step.subgoal for _, step in demonstration.turns if step.switch]
        assert subgoals[0].startswith("find a")
        last = f"look at the {spec.object} under the {spec.lamp}" if spec.lamp else f"put the {spec.object} in the {spec.receptacle}"
        assert subgoals[-1] == last
        assert (f"{spec.treatment} the {spec.object}" in subgoals) == (spec.treatment is not None)
        assert (f"find another {spec.object}" in subgoals) == (spec.count == 2)


def test_the_prior_is_worth_having(games: TaskIndex) -> None:
    known = play(games, "valid_unseen", Expert(LocationPrior.learn(games)))
    blind = play(games, "valid_unseen", Expert(LocationPrior({}, {}, {})))
    assert fmean(len(episode.turns) for episode in known) < 0.75 * fmean(len(episode.turns) for episode in blind)


def test_detours_are_reproducible_and_still_win(games: TaskIndex) -> None:
    prior = LocationPrior.learn(games)
    straight = play(games, "valid_unseen", Expert(prior))
    first, second = (play(games, "valid_unseen", Expert(prior, detours=0.3, rng=random.Random(5))) for _ in range(2))
    assert first == second != straight
    assert all(demonstration.won for demonstration in first)
    assert sum(len(episode.turns) for episode in first) > sum(len(episode.turns) for episode in straight)


def test_slips_are_marked_and_it_finds_its_way_back(games: TaskIndex) -> None:
    prior = LocationPrior.learn(games)
    clumsy = [
        demonstrate(Game.load(games.resolve(entry)), Expert(prior), 50, 0.3, random.Random(number))
        for number, entry in enumerate(games.split("valid_unseen"))
    ]
    steps = [step for demo in clumsy for _, step in demo.turns]
    assert 0.2 < fmean(step.slip for step in steps) < 0.4
    assert fmean(demo.won for demo in clumsy) > 0.95
    assert {step.action.split()[0] for step in steps if step.slip} > {"go", "take", "look", "inventory", "examine"}
    for demo in clumsy:
        for (_, step), admissible in zip(demo.turns, demo.admissible, strict=True):
            assert step.action in admissible
        for (_, before), (_, after) in zip(demo.turns, demo.turns[1:], strict=False):
            assert after.switch or after.subgoal == before.subgoal
            assert after.slip or after.switch == (after.subgoal != before.subgoal)
    # Empty-handed among other things: it searches, and a slip is as likely as not to take one of them.
    takes = [
        step.action.startswith("take ")
        for demo in clumsy
        for (_, step), admissible in zip(demo.turns, demo.admissible, strict=True)
        if step.slip
        and not any(command.startswith(("put ", "move ", f"take {parse_task(demo.task).object} ")) for command in admissible)
        and any(command.startswith("take ") for command in admissible)
    ]
    assert len(takes) > 30 and 0.45 < fmean(takes) < 0.85
    assert not any(step.slip for demo in play(games, "valid_unseen", Expert(prior)) for _, step in demo.turns)


def test_rounds_go_where_it_has_been_and_end(games: TaskIndex) -> None:
    prior = LocationPrior.learn(games)
    entries = games.split("valid_unseen")
    strays = [
        demonstrate(Game.load(games.resolve(entry)), Expert(prior), 100, rng=random.Random(number), rounds=0.3)
        for number, entry in enumerate(entries)
    ]
    assert all(demo.won for demo in strays)
    lengths = []
    for demo in strays:
        been: set[str] = set()
        row = 0
        for (_, step), admissible in zip(demo.turns, demo.admissible, strict=True):
            assert step.action in admissible
            if step.slip:
                assert step.action.removeprefix("go to ") in been, "a place it has been to"
                row += 1
            elif row:
                lengths.append(row)
                row = 0
            if step.action.startswith(("go to ", "open ")):
                been.add(step.action.removeprefix("go to ").removeprefix("open "))
        subgoals = [step.subgoal for _, step in demo.turns]
        assert [step.switch for _, step in demo.turns[1:]] == [a != b for a, b in zip(subgoals, subgoals[1:], strict=False)]
    assert len(lengths) > 20 and max(lengths) >= 6 and sum(length > 1 for length in lengths) > 10


def test_a_lapse_leaves_one_thing_out(games: TaskIndex) -> None:
    prior = LocationPrior.learn(games)
    tools = {**{treatment.value: treatment.value for treatment in Treatment}, "look": "use"}
    for entry in games.split("train"):
        whole, lapsed = (demonstrate(Game.load(games.resolve(entry)), Expert(prior), 50, lapse=lapse) for lapse in (False, True))
        spec = parse_task(lapsed.task)
        assert lapsed.complete
        assert lapsed.won == (spec.treatment is None and spec.lamp is None)
        rest = [] if lapsed.won else lapsed.turns[-4:]
        assert all(step.action == "look" for _, step in rest), "it takes itself to be done"
        if rest and spec.treatment is not None:
            assert [step.subgoal for _, step in rest] == [f"find {indefinite(spec.object)}"] * 4, "what a new try begins with"
        for (_, right), (_, step) in zip(whole.turns, lapsed.turns[: len(lapsed.turns) - len(rest)], strict=True):
            skipped = right.action.startswith(tools.get(right.subgoal.split()[0], "nothing"))
            assert (step.switch, step.subgoal) == (right.switch, right.subgoal)
            assert step.action.startswith(f"examine {spec.object} ") if skipped else step.action == right.action


def test_a_wrong_thing_is_put_down(games: TaskIndex) -> None:
    """A fixed bug: whatever it held it took for what it was sent for, and it counted anything put anywhere as done."""
    prior = LocationPrior.learn(games)
    entry = next(entry for entry in games.split("train") if entry.task_type == TASK_TYPES[0])
    game, expert = Game.load(games.resolve(entry)), Expert(prior)
    observation = game.reset()
    expert.start(game.task, observation)
    thing, wrong = parse_task(game.task).object, None
    while wrong is None:
        step = expert.act(observation, game.admissible_commands)
        observation = game.step(step.action).observation
        takes = [c for c in game.admissible_commands if c.startswith("take ") and c.split()[1] != thing]
        wrong = takes[0] if takes else None
    observation = game.step(wrong).observation
    for _ in range(40):
        step = expert.act(observation, game.admissible_commands)
        observation = game.step(step.action).observation
    assert game.won


def test_wins_with_names_dealt_anew(games: TaskIndex) -> None:
    expert = Expert(LocationPrior.learn(games))
    for number, entry in enumerate(games.split("valid_unseen")):
        assert demonstrate(Game.load(games.resolve(entry), random.Random(number)), expert, 50).won


def test_gives_up_at_the_turn_limit(games: TaskIndex) -> None:
    demonstration = demonstrate(Game.load(games.resolve(games.entries[0])), Expert(LocationPrior.learn(games)), 2)
    assert not demonstration.won
    assert len(demonstration.turns) == 2


@pytest.mark.slow
def test_wins_the_official_games(official_games: Path) -> None:
    prior = LocationPrior.learn(index_games(official_games / "2.1.1", ["train"]))
    for release in ("2.1.1", "2.1.2"):
        demonstrations = play(index_games(official_games / release, ["valid_seen"]), "valid_seen", Expert(prior))
        assert len(demonstrations) == 140
        assert all(demonstration.won for demonstration in demonstrations)
        assert 6 < fmean(len(demonstration.turns) for demonstration in demonstrations) < 8


@pytest.mark.slow
def test_wins_a_thousand_full_size_games(tmp_path: Path) -> None:
    pytest.importorskip("alfworld")
    from hiper.suites.alfworld.generate import generate_games

    index = index_games(generate_games(tmp_path / "out", ALFWorldConfig(train=1000, valid_seen=1, valid_unseen=1)))
    assert all(demonstration.won for demonstration in play(index, "train", Expert(LocationPrior.learn(index))))
