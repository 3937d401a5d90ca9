"""Rules pinned: the same seed writes the same bytes, more products change no earlier one, every goal can be had in full, and what was there
before is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop import Shop
from hiper.suites.webshop.generate import generate_catalogue, make_product
from hiper.suites.webshop.nouns import closed_class


def test_bytes_follow_the_seed(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        generate_catalogue(tmp_path / name, 30, seed)
    read = {name: (tmp_path / name / "items_shuffle.json").read_bytes() for name in ("one", "again", "other")}
    assert read["one"] == read["again"] != read["other"]
    before = (tmp_path / "one" / "items_shuffle.json").stat().st_mtime_ns
    generate_catalogue(tmp_path / "one", 30, 3)
    assert (tmp_path / "one" / "items_shuffle.json").stat().st_mtime_ns == before
    generate_catalogue(tmp_path / "one", 40, 3)
    assert (tmp_path / "one" / "items_shuffle.json").read_bytes().startswith(read["one"][:-1])
    assert make_product(7, 3) == make_product(7, 3) != make_product(7, 4)


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="was not written by the generator"):
        generate_catalogue(tmp_path, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_every_goal_can_be_had_in_full(tmp_path: Path) -> None:
    shop = Shop.load(generate_catalogue(tmp_path, 96), tagger=closed_class())
    assert len(shop.goals) > 500
    assert {len(shop.catalogue.product(number).pricing) for number in range(len(shop.catalogue))} == {1, 2}
    for goal in shop.goals:
        episode = shop.episode(goal.index)
        episode.step(f"search[{goal.instruction}]")
        episode.step(f"click[{goal.asin}]")
        assert isinstance(goal.options, dict)
        for value in goal.options.values():
            episode.step(f"click[{value}]")
        assert episode.step("click[buy now]").reward == 1.0, goal
