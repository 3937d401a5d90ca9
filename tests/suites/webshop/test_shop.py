"""Rules pinned: pages, buttons and the flow between them, the original's oddities, and that an episode can be put down and taken up."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop import Episode, Shop
from hiper.suites.webshop.nouns import closed_class
from hiper.suites.webshop.shop import parse_action

from .conftest import record, values, write_catalogue

SHOE = "click[b000000001]"


def goal_for(shop: Shop, asin: str) -> int:
    return next(goal.index for goal in shop.goals if goal.asin == asin)


@pytest.fixture
def episode(shop: Shop) -> Episode:
    """An episode whose goal is the shoe."""
    return shop.episode(goal_for(shop, "B000000001"))


@pytest.mark.parametrize(
    ("action", "parsed"),
    [
        ("search[Red Shoes]", ("search", "red shoes")),
        ("click[< Prev] and more", ("click", "< prev")),
        ("search[a][b]", ("search[a]", "b")),
        ("click[[buy now]]", ("click[", "buy now]")),
        ("search[x] click[y]", ("search[x] click", "y")),
        ("search[a[]", ("search", "a[")),
        ("search[]", ("search[]", None)),
        ("[x]", ("[x]", None)),
        ("search[red\nshoes]", ("search[red\nshoes]", None)),
        ("", ("", None)),
    ],
)
def test_actions_are_read_as_the_original_reads_them(action: str, parsed: tuple[str, str | None]) -> None:
    assert parse_action(action) == parsed


def test_a_purchase(episode: Episode) -> None:
    assert episode.reset() == f"WebShop [SEP] Instruction: [SEP] {episode.goal.instruction} [SEP] Search"
    assert (episode.available_actions.has_search_bar, episode.available_actions.clickables) == (True, ["search"])
    lead = f"Instruction: [SEP] {episode.goal.instruction} [SEP] Back to Search [SEP] "
    assert episode.step("search[pumps]").observation == (
        lead + "Page 1 (Total results: 1) [SEP] Next > [SEP] B000000001 [SEP] Red suede pumps [SEP] $10.0 to $30.0"
    )
    assert episode.available_actions.clickables == ["back to search", "next >", "b000000001"]
    item = lead + (
        "< Prev [SEP] size [SEP] 5 [SEP] 6 | 6.5 [SEP] color [SEP] red [SEP] navy blue [SEP] Red suede pumps [SEP] "
        "Price: $10.0 to $30.0 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    assert episode.step(SHOE).observation == item
    buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
    assert episode.available_actions.clickables == [*buttons, "5", "6 | 6.5", "red", "navy blue"]
    assert episode.step("click[description]").observation == lead + "< Prev [SEP] Pumps for <b>every</b> day & night."
    assert episode.available_actions.clickables == ["back to search", "< prev"]
    assert episode.step("click[< prev]").observation == item
    assert episode.step("click[Features]").observation == lead + "< Prev [SEP] Rubber sole [SEP]  [SEP] Hand wash"
    assert episode.step("click[< prev]").observation == item
    assert episode.step("click[reviews]").observation == lead + "< Prev"
    episode.step("click[< prev]")
    assert isinstance(episode.goal.options, dict)
    for value in episode.goal.options.values():
        assert episode.step(f"click[{value}]").observation == item  # a choice does not show in this mode
    assert not episode.terminated
    result = episode.step("click[buy now]")
    assert (result.reward, result.terminated, episode.reward) == (1.0, True, 1.0)
    assert result.observation.startswith(
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.)"
    )
    assert "Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP]" in result.observation
    assert episode.score is not None and episode.score.tagger == "closed-class rule"
    assert (episode.available_actions.has_search_bar, episode.available_actions.clickables) == (True, ["search"])
    after = episode.step("search[boots]")  # the end is the end, and paid once
    assert (after.observation, after.reward, after.terminated) == (result.observation, 0.0, True)


@pytest.mark.parametrize(
    "action",
    ["", "look", "search", "search[]", "search[", "click[search]", "click[b000000009]", "Search[pumps]", " search[pumps]", "click[red]"]
    + ["search[a][b]", "click[[red]]", "search[red\nshoes]", "click[" + "[" * 10_000, "x" * 10_000, "\x00\x1b[2J"],
)
def test_anything_else_changes_nothing(episode: Episode, action: str) -> None:
    before = episode.state()
    result = episode.step(action)
    assert (result.observation, result.reward, result.terminated) == (episode.reset(), 0.0, False)
    assert episode.state() == before


def test_searches_work_anywhere_and_let_go_of_everything(episode: Episode) -> None:
    for action in ("search[pumps]", SHOE, "click[red]", "click[features]", "search[boots]"):
        episode.step(action)
    assert "Leather boots" in episode.observation
    assert episode.state()["options"] == {}
    assert "Page 1 (Total results: 0)" in episode.step("search[ ]").observation
    assert "Page 1 (Total results: 0)" in episode.step(f"search[{'pu mps ' * 1_500}]").observation
    assert "WebShop" in episode.step("click[back to search]").observation


def test_prefix_searches(episode: Episode) -> None:
    assert "Total results: 2" in episode.step("search[<c> garden]").observation
    assert "Oak coffee table" in episode.step("search[<q> tables]").observation
    for query in ("<a> red", "<a>", "<c>", "<q>", "<q> nothing", "<c>  garden"):
        assert "Total results: 0" in episode.step(f"search[{query}]").observation, query
    assert "Total results: 4" in episode.step("search[<r>]").observation  # 50 at random, or all there are


def test_pages_of_results(tmp_path: Path) -> None:
    products = [record(f"B0000000{number:02d}", f"pumps {number}") for number in range(25)]
    facts = {"B000000000": {"attributes": ["a"], "instruction": "Find me", "instruction_attributes": ["a"]}}
    folder = write_catalogue(tmp_path, products, facts)
    episode = Shop.load(folder).episode(0)
    assert len(episode.step("search[pumps]").observation.split("[SEP]")) == 5 + 30
    episode.step("click[next >]")
    assert episode.available_actions.clickables[:3] == ["back to search", "< prev", "next >"]
    third = episode.step("click[next >]").observation
    assert ("Page 3 (Total results: 25) [SEP] < Prev [SEP] Next >" in third, len(third.split("[SEP]"))) == (True, 6 + 15)
    assert "Page 4 (Total results: 25) [SEP] < Prev [SEP] Next >" in episode.step("click[next >]").observation  # never blocked
    episode.step("click[< prev]")
    episode.step("click[b000000020]")
    assert episode.step("click[< prev]").observation == third

    mended = Shop.load(folder, mended=True).episode(0)
    assert mended.available_actions.clickables == []
    for action in ("search[pumps]", "click[next >]", "click[next >]"):
        mended.step(action)
    assert "next >" not in mended.available_actions.clickables
    mended.step("click[b000000020]")
    mended.step("click[buy now]")
    assert (mended.available_actions.has_search_bar, mended.available_actions.clickables) == (False, [])


def test_a_query_that_names_a_page_leads_astray(episode: Episode) -> None:
    """The original tells the page from its address, which holds the query."""
    for action in ("search[search_results pumps]", SHOE):
        episode.step(action)
    assert "Page 0 (Total results: 1)" in episode.step("click[< prev]").observation
    for action in ("search[item_page pumps]", SHOE, "click[features]"):
        episode.step(action)
    assert "Page 1 (Total results: 1)" in episode.step("click[< prev]").observation


def test_rich_pages_show_what_was_chosen(shop: Shop) -> None:
    episode = shop.episode(goal_for(shop, "B000000001"), "text_rich")
    assert episode.reset() == f"WebShop\nInstruction: \n{episode.goal.instruction}\n[button] Search [button_]\n"
    for action in ("search[pumps]", SHOE, "click[red]", "click[5]"):
        episode.step(action)
    assert episode.observation.startswith("You have clicked red.\nYou have clicked 5.\nInstruction:\n")
    assert "  [clicked button] red [clicked button_]\n  [button] navy blue [button_]\n" in episode.observation
    assert episode.step("click[features]").observation.endswith("[button] < Prev [button_]\n Rubber sole \n \n  Hand wash\n")
    episode.step("click[< prev]")
    assert "\n[clicked button] B000000001 [clicked button_]\n" in episode.step("click[< prev]").observation


def test_text_of_products_stays_text(tmp_path: Path) -> None:
    nasty = record(
        "B000000000",
        'Pumps <script>alert(1)</script> {{7*7}} [SEP] [button] Buy Now [button_] "',
        full_description="\x00\x1b[31m &amp; \u202e",
        small_description=["\n \n", "   ", "\u00a0"],
        customization_options={"<b>": values("description", "buy now", "a|b", "")},
    )
    facts = {"B000000000": {"attributes": ["a"], "instruction": "Find <me>", "instruction_attributes": ["a"]}}
    episode = Shop.load(write_catalogue(tmp_path, [nasty], facts)).episode(0)
    episode.step("search[pumps]")
    page = episode.step("click[b000000000]").observation
    assert "Pumps <script>alert(1)</script> {{7*7}}" in page
    assert "[SEP] \x00\x1b[31m &amp; \u202e" in episode.step("click[description]").observation
    episode.step("click[< prev]")
    # blanks with a line break vanish, others leave an empty piece
    assert episode.step("click[features]").observation.endswith("< Prev [SEP]  [SEP] ")
    episode.step("click[< prev]")
    assert not episode.step("click[a|b]").terminated
    assert episode.step("click[buy now]").terminated


def test_an_episode_can_be_taken_up_where_it_was_left(shop: Shop) -> None:
    rng = random.Random(4)
    for mode in ("text", "text_rich"):
        episode = shop.episode(goal_for(shop, "B000000001"), mode)
        other = shop.episode(episode.goal.index, mode)
        for _ in range(300):
            choices = [f"click[{text}]" for text in episode.available_actions.clickables if text != "buy now" or rng.random() < 0.1]
            action = rng.choice([*choices, "search[pumps]", "search[search_results pumps]", "search[<r>]", "search[<c> garden]"])
            result = episode.step(action)
            other.restore(json.loads(json.dumps(episode.state())))
            assert (other.observation, other.available_actions, other.reward) == (
                result.observation,
                episode.available_actions,
                episode.reward,
            )
            if result.terminated:
                episode.reset()
    with pytest.raises(DataError, match="goal 0 cannot be restored in an episode of goal 1"):
        shop.episode(1).restore(shop.episode(0).state())
    fresh = shop.episode(1)
    with pytest.raises(DataError, match="product B777777777 cannot be restored"):
        fresh.restore({**fresh.state(), "product": "B777777777"})
    fresh.step("search[pumps]")
    before = fresh.state()
    damaged: list[object] = [None, {}, {**before, "page": "cellar"}, {**before, "page": "item_page"}, {**before, "keywords": [3]}]
    damaged += [{**before, "number": "1"}, {**before, "sub": "Attributes"}, {**before, "options": {"size": 3}}]
    for state in damaged:
        with pytest.raises(DataError, match=r"Episode\.state\(\)"):
            fresh.restore(state)
        assert fresh.state() == before


def test_a_goal_that_is_not_there_is_refused(shop: Shop) -> None:
    for goal in (-1, len(shop.goals)):
        with pytest.raises(DataError, match="which has goals 0 to 6"):
            shop.episode(goal)


def test_human_goals_are_judged_by_their_values(catalogue: Path) -> None:
    episode = Shop.load(catalogue, human=True, tagger=closed_class()).episode(0)
    for action in ("search[boots]", "click[b000000002]", "click[7]", "click[buy now]"):
        episode.step(action)
    assert episode.reward == 1.0
