"""Rules pinned, by hand: score = kind * (attributes + options + price) / (attributes asked + options asked + 1), with the oddities of the
original."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hiper.suites.webshop.goals import Goal
from hiper.suites.webshop.nouns import Tagger, all_words, closed_class, find_tagger
from hiper.suites.webshop.product import Product, make_product
from hiper.suites.webshop.reward import Score, score

from .conftest import BOOT, FACTS, SHOE, TABLE

SHOES, BOOTS, TABLES = (make_product(record, FACTS[record["asin"]]) for record in (SHOE, BOOT, TABLE))
GOAL = Goal(
    index=0,
    product=0,
    asin=SHOES.asin,
    instruction="",
    attributes=("hand wash", "rubber sole"),
    options={"color": "red", "size": "5"},
    cap=30.0,
    weight=1.0,
    query=SHOES.query,
    title=SHOES.title,
    category=SHOES.category,
    product_category=SHOES.product_category,
)


def judge(bought: Product, goal: Goal = GOAL, price: float = 20.0, tagger: Tagger | None = None, **chosen: str) -> Score:
    return score(bought, SHOES, goal, price, chosen, tagger or closed_class())


def test_all_that_was_asked_is_worth_one() -> None:
    found = judge(SHOES, color="red", size="5")
    assert (found.total, found.kind, found.attributes, found.options, found.price) == (1.0, 1.0, 1.0, 1.0, True)


@pytest.mark.parametrize(
    ("chosen", "price", "total"),
    [
        ({}, 20.0, 3 / 5),  # 2 attributes, price
        ({"color": "red"}, 20.0, 4 / 5),
        ({"color": "red"}, 30.0, 4 / 5),  # the cap itself is not too much
        ({"color": "red"}, 30.01, 3 / 5),
        ({"color": "navy blue", "size": "5"}, 20.0, 4 / 5),
        ({"material": "5", "x": "bright red"}, 20.0, 1.0),  # names do not matter, and a value is as good as its colour
    ],
)
def test_shares(chosen: dict[str, str], price: float, total: float) -> None:
    assert judge(SHOES, price=price, **chosen).total == pytest.approx(total)


def test_colours_hide_inside_words() -> None:
    """`rectangular` is chosen as `tan` but asked for as `('shape', 'rectangular')`: it cannot be had. A colour and another alike can."""
    assert judge(SHOES, replace(GOAL, options={"shape": "rectangular"}), shape="rectangular").options == 0.0
    assert judge(SHOES, replace(GOAL, options={"shape": "square"}), shape="square").options == 1.0
    assert judge(SHOES, replace(GOAL, options={"color": "black"}), color="black | red").options == 1.0
    assert judge(SHOES, replace(GOAL, options=("black | white",)), color="black | red").options == 1.0
    assert judge(SHOES, replace(GOAL, options={})).options is None


def test_attributes_are_found_in_lists_and_in_words() -> None:
    assert judge(SHOES, replace(GOAL, attributes=("hand washable", "for <b>every</b> day", "suede", "green"))).attributes == 2 / 4
    assert judge(SHOES, replace(GOAL, attributes=("sole rubber",))).attributes == 1.0  # the order of words does not matter


def test_kinds() -> None:
    assert judge(SHOES).kind == 1.0
    # boots share three steps of the category with pumps, but no noun: worth nothing
    found = judge(BOOTS)
    assert (found.category_match, found.query_match, found.title_score, found.kind, found.total) == (True, False, 0.0, 0.0, 0.0)
    assert judge(TABLES).kind == 0.0
    one_of_ten = replace(SHOES, title="pumps")
    for words, kind in ((3, 1.0), (5, 0.5), (10, 0.5), (11, 0.1)):  # one noun shared, of so many
        wanted = replace(SHOES, title=" ".join(["pumps", *(f"{chr(97 + place) * 3}" for place in range(words - 1))]))
        bought = replace(one_of_ten, query="other", product_category="Other")
        assert score(bought, wanted, GOAL, 20.0, {}, closed_class()).kind == kind, words
    assert score(SHOES, replace(SHOES, title="12 / 34"), GOAL, 20.0, {}, closed_class()).title_score == 0.2


def test_taggers_say_who_they_are() -> None:
    assert closed_class().nouns("Pumps for the Office, 12 cm") == ("pumps", "office", "cm")
    assert all_words().nouns("Pumps for the Office, 12 cm") == ("pumps", "for", "the", "office", "cm")
    assert judge(SHOES, tagger=all_words()).tagger == "all words"
    assert find_tagger().name in ("closed-class rule",) or find_tagger().name.startswith("spacy en_core_web_")
