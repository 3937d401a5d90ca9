"""Rules pinned: agents see the page without the instruction it repeats; commands may be spelled with other blanks and without marks; pay is
for the purchase, in full or by score."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper.suites.base import WORDS
from hiper.suites.webshop import Shop
from hiper.suites.webshop.env import Commands, ShopEnv
from hiper.suites.webshop.expert import parse_task
from hiper.suites.webshop.settings import Pay

from .conftest import SHOE


def env_for(shop: Shop, asin: str, pay: Pay = Pay.success) -> ShopEnv:
    return ShopEnv(shop.episode(next(goal.index for goal in shop.goals if goal.asin == asin)), pay)


def test_what_an_agent_sees(shop: Shop) -> None:
    env = env_for(shop, SHOE["asin"])
    assert env.reset() == f"Your task is to: {env.task}\n\nSearch"
    assert env.admissible_commands == [f"search[{WORDS}]"]
    result = env.step("search[pumps]")
    assert result.observation == "Back to Search\nPage 1 (Total results: 1)\nNext >\nB000000001\nRed suede pumps\n$10.0 to $30.0"
    assert env.admissible_commands == ["click[back to search]", "click[next >]", "click[b000000001]"]
    assert env.step("look around").observation == result.observation


@pytest.mark.parametrize(
    ("command", "spelled", "known"),
    [
        ("click[size 10.5]", "click[size 10.5]", True),
        ("click [ Size 10 5 ]", "click[size 10.5]", True),
        ("click[ < prev ]", "click[< prev]", True),
        ("click[size: size 10.5]", "click[size 10.5]", True),
        ("search [ red shoes ]", "search[red shoes]", True),
        ("click[nothing]", "click[nothing]", False),
        ("search[]", "search[]", False),
        ("search[a][b]", "search[a][b]", False),
        ("search", "search", False),
        ("look", "look", False),
    ],
)
def test_other_spellings(command: str, spelled: str, known: bool) -> None:
    commands = Commands([("", "< prev"), ("size", "size 10.5")], searches=True)
    assert (commands.spelled(command), command in commands) == (spelled, known)
    assert "search[red shoes]" not in Commands([("", "< prev")], searches=False)


@pytest.mark.parametrize(("pay", "paid"), [(Pay.success, 0.0), (Pay.score, 3 / 5)])
def test_pay(shop: Shop, pay: Pay, paid: float) -> None:
    env = env_for(shop, SHOE["asin"], pay)
    env.reset()
    results = [env.step(command) for command in ("search[pumps]", "click[b000000001]", "click [ buy now ]")]
    assert [result.reward for result in results] == [0.0, 0.0, paid]
    assert (env.won, env.score, env.admissible_commands) == (False, 3 / 5, [])
    assert "Thank you for shopping with us!" in results[-1].observation
    env.reset()
    chosen = parse_task(env.task).options.values()
    for command in ("search[pumps]", "click[b000000001]", *(f"click[{value}]" for value in chosen), "click[buy now]"):
        result = env.step(command)
    assert (result.reward, env.won) == (1.0, True)


def test_labels(shop: Shop) -> None:
    plain = env_for(shop, SHOE["asin"])
    env = ShopEnv(shop.episode(next(goal.index for goal in shop.goals if goal.asin == SHOE["asin"])), Pay.success, labels=True)
    for one in (plain, env):
        one.step("search[pumps]")
    assert env.admissible_commands == ["click[back to search]", "click[next >]", "click[1: b000000001]"]
    assert "\n1: B000000001\nRed suede pumps" in env.step("look").observation
    assert env.step("click[1: b000000001]") == plain.step("click[b000000001]")
    assert env.admissible_commands[6:] == ["click[size: 5]", "click[size: 6 | 6.5]", "click[color: red]", "click[color: navy blue]"]
    for commands in (("click [ color red ]", "click[red]"), ("click[6 | 6.5]", "click[6 | 6.5]"), ("click[features]", "click[features]")):
        assert commands[0] in env.admissible_commands
        assert env.step(commands[0]) == plain.step(commands[1])
        assert env.state() == plain.state()


def test_a_state_comes_back(shop: Shop) -> None:
    env, other = (env_for(shop, SHOE["asin"]) for _ in range(2))
    env.step("search[pumps]")
    env.step("click[b000000001]")
    other.restore(env.state())
    assert other.step("click[features]") == env.step("click[features]")


def test_human_goals_are_played_too(catalogue: Path) -> None:
    env = ShopEnv(Shop.load(catalogue, human=True).episode(0), Pay.score)
    assert env.reset().startswith("Your task is to: i want warm boots, and price lower than ")
