"""Rules pinned: the list, its order, prices and caps come from one stream, as the original draws them, here written out plainly."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop.catalogue import Catalogue, load_catalogue
from hiper.suites.webshop.goals import NO_CAP, Goals
from hiper.suites.webshop.source import find_files

from .conftest import PRODUCTS, record, values, write_catalogue


@pytest.fixture
def opened(catalogue: Path) -> Catalogue:
    """The tiny catalogue."""
    return load_catalogue(find_files(catalogue))


def plainly(opened: Catalogue, seed: int) -> tuple[list[float], list[tuple[str, float]]]:
    """Prices, and text and cap of every goal in order."""
    rng = random.Random(seed)
    products = [opened.product(number) for number in range(len(opened))]
    prices = [rng.uniform(*product.pricing) if len(product.pricing) == 2 else product.pricing[0] for product in products]
    goals = []
    for product, price in zip(products, prices, strict=True):
        if product.instruction is None:
            continue
        above = [10.0 * step for step in range(1, 100) if 10.0 * step > price][:4]
        cap = sorted(rng.sample(above, 2))[1] if len(above) > 1 else NO_CAP
        names = sorted(product.options)
        for chosen in itertools.product(*(product.options[name] for name in names)):
            text = ", and ".join(f"{name}: {value}" for name, value in zip(names, chosen, strict=True))
            limit = f", and price lower than {cap:.2f} dollars" if cap < NO_CAP else ""
            goals.append((product.instruction + (f" with {text}" if text else "") + limit, cap))
    rng.seed(seed)
    rng.shuffle(goals)
    return prices, goals


@pytest.mark.parametrize("seed", [0, 1, 233])
def test_goals_prices_and_order(opened: Catalogue, seed: int) -> None:
    prices, expected = plainly(opened, seed)
    for goals in (Goals(opened, seed), Goals(opened, seed)):  # drawn, and from the cache
        assert goals.prices.tolist() == prices
        assert [(goal.instruction, goal.cap) for goal in goals] == expected
        assert [goal.index for goal in goals] == list(range(len(goals))) == list(range(4 + 2 + 1))
    assert goals[-1] == goals[len(goals) - 1]
    assert goals[1:3] == [goals[1], goals[2]]
    with pytest.raises(IndexError):
        goals[len(goals)]


def test_weights_and_dear_products(opened: Catalogue) -> None:
    by_asin = {goal.asin: goal for goal in Goals(opened, 5)}
    # 4 goals carry "rubber sole", 4 + 2 "hand wash", 1 "solid wood"
    assert by_asin["B000000001"].weight == pytest.approx((1 / 4 + 1 / 6) / 2)
    assert by_asin["B000000003"].weight == 1.0
    assert by_asin["B000000003"].cap == NO_CAP  # at $989 only one cap is left, of which no two can be drawn
    assert "price" not in by_asin["B000000003"].instruction


def test_an_instruction_without_combinations_still_draws_a_cap(tmp_path: Path) -> None:
    empty = record("B000000000", "Empty shelf", customization_options={"size": []})
    facts = {
        "B000000000": {"attributes": ["a"], "instruction": "Find me a", "instruction_attributes": ["a"]},
        "B000000002": {"attributes": ["a"], "instruction": "Find me b", "instruction_attributes": ["a"]},
    }
    opened = load_catalogue(find_files(write_catalogue(tmp_path, [empty, *PRODUCTS], facts)))
    assert [(goal.instruction, goal.cap) for goal in Goals(opened, 3)] == plainly(opened, 3)[1]


def test_human_goals(opened: Catalogue) -> None:
    goals = Goals(opened, 1, human=True)
    assert len(goals) == 1  # one asks for nothing, one for a product that is not sold
    assert goals[0].instruction.startswith("i want warm boots, and price lower than ")
    assert (goals[0].options, goals[0].attributes, goals[0].weight) == (("7",), ("hand wash",), 1.0)


def test_instructions_that_lack_something_are_refused(tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path)
    (folder / "items_human_ins.json").write_text('{"B000000002": [{"instruction": "i want boots", "instruction_attributes": ["warm"]}]}')
    with pytest.raises(DataError, match="near byte 15: an instruction for B000000002 lacks"):
        Goals(load_catalogue(find_files(folder)), 1, human=True)


def test_a_catalogue_without_goals_is_refused(tmp_path: Path) -> None:
    opened = load_catalogue(find_files(write_catalogue(tmp_path, facts={})))
    with pytest.raises(DataError, match="gives no goals"):
        Goals(opened, 0)
    (tmp_path / "items_human_ins.json").unlink()
    with pytest.raises(DataError, match=r"no items_human_ins\*\.json"):
        Goals(load_catalogue(find_files(tmp_path)), 0, human=True)


def test_many_options_are_counted_not_listed(tmp_path: Path) -> None:
    sizes, colours = (values(*(f"{name}{number}" for number in range(60))) for name in ("s", "c"))
    many = record("B000000000", "Shirt", customization_options={"size": sizes, "color": colours})
    facts = {"B000000000": {"attributes": ["a"], "instruction": "Find me a", "instruction_attributes": ["a"]}}
    opened = load_catalogue(find_files(write_catalogue(tmp_path, [many], facts)))
    goals = Goals(opened, 2)
    assert len(goals) == 3600
    assert len({tuple(goal.options.items()) for goal in goals if isinstance(goal.options, dict)}) == 3600
