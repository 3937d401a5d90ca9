"""Rules pinned: tasks are read as they are written, by program or by people; the expert buys nearly all that generated goals ask for; it
finds back from errors; a lapse leaves the options alone and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean

import pytest

from hiper.suites.expert import Demonstration, demonstrate
from hiper.suites.webshop import Shop
from hiper.suites.webshop.env import ShopEnv
from hiper.suites.webshop.expert import Expert, Wanted, parse_task
from hiper.suites.webshop.generate import generate_catalogue
from hiper.suites.webshop.nouns import closed_class
from hiper.suites.webshop.settings import Pay

TURNS = 15


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("generated")
    return Shop.load(generate_catalogue(folder / "data", 240), tagger=closed_class(), cache=folder)


def shopping(shop: Shop, count: int, slips: float = 0.0, *, lapse: bool = False, labels: bool = False) -> list[tuple[Demonstration, float]]:
    found = []
    for number in range(count):
        env = ShopEnv(shop.episode(number), Pay.score, labels=labels)
        demo = demonstrate(env, Expert(labels=labels), TURNS, slips, random.Random(number), lapse=lapse)
        found.append((demo, env.score))
    return found


ENDLESS = float("inf")


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        (
            "Find me hand wash, wash cold women's sweaters with long sleeve for daily wear with color: red, and size: x-large, and price "
            "lower than 60.00 dollars",
            Wanted(
                "hand wash, wash cold women's sweaters with long sleeve for daily wear with color: red, and size: x-large",
                "hand wash, wash cold women's sweaters",
                {"color": "red", "size": "x-large"},
                60.0,
            ),
        ),
        (
            'Find me rugs with size: 28" x 28", and color: black, and white',
            Wanted(
                'rugs with size: 28" x 28", and color: black, and white',
                "rugs",
                {"size": '28" x 28"', "color": "black, and white"},
                ENDLESS,
            ),
        ),
        ("Find me tables with solid wood", Wanted("tables with solid wood", "tables", {}, ENDLESS)),
        (
            "i need [a] 120 ml hair mask that i could use every single day, and price lower than 140.00 dollars",
            Wanted("i need  a  120 ml hair mask that i could use every single day", "i need a 120 ml hair mask that", {}, 140.0),
        ),
    ],
)
def test_tasks_are_read(task: str, wanted: Wanted) -> None:
    assert parse_task(task) == wanted


def test_the_expert_buys_what_is_asked_for(generated: Shop) -> None:
    plays = shopping(generated, 150)
    assert fmean(score for _, score in plays) > 0.95
    for demo, _ in plays:
        steps = [step for _, step in demo.turns]
        assert steps[0].switch
        assert steps[0].subgoal.startswith("find ")
        assert (steps[-1].subgoal, steps[-1].action) == ("buy it", "click[buy now]")
        for before, after in zip(steps, steps[1:], strict=False):
            assert after.switch == (after.subgoal != before.subgoal)


def test_it_finds_back_from_errors(generated: Shop) -> None:
    plays = shopping(generated, 150, 0.2)
    assert sum(step.slip for demo, _ in plays for _, step in demo.turns) > 100
    assert fmean(score for _, score in plays) > 0.85


def test_a_lapse_leaves_the_options_alone(generated: Shop) -> None:
    for (whole, score), (lapsed, less) in zip(shopping(generated, 40), shopping(generated, 40, lapse=True), strict=True):
        if score == 1.0:
            left = [turn for turn in whole.turns if not turn[1].subgoal.startswith("choose ")]
            assert [step.action for _, step in left] == [step.action for _, step in lapsed.turns]
            assert less < 1.0
        assert lapsed.complete


def test_labels_change_words_only(generated: Shop) -> None:
    for (plain, score), (labelled, same) in zip(shopping(generated, 60, 0.1), shopping(generated, 60, 0.1, labels=True), strict=True):
        assert score == same
        assert len(plain.turns) == len(labelled.turns)
        assert [step.subgoal for _, step in plain.turns] == [step.subgoal for _, step in labelled.turns]


def test_people_and_real_catalogues(shared: Path, tmp_path: Path) -> None:
    root = shared / "data" / "webshop"
    if not root.is_dir():  # other people's data, not ours to carry
        pytest.skip(f"no WebShop catalogue in {root}")
    real, human = (Shop.load(root, human=human, tagger=closed_class(), cache=tmp_path) for human in (False, True))
    assert fmean(score for _, score in shopping(real, 60)) > 0.85
    assert all(demo.turns for demo, _ in shopping(human, len(human.goals)))
