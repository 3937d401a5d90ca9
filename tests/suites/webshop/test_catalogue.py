"""Rules pinned: the index is built once for a content; a damaged cache is built again; odd files are refused before anything is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop import Shop
from hiper.suites.webshop import catalogue as module
from hiper.suites.webshop.catalogue import load_catalogue
from hiper.suites.webshop.source import find_files

from .conftest import PRODUCTS, SHOE, record, write_catalogue


def test_built_once_and_shared_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write_catalogue(tmp_path / "first"), write_catalogue(tmp_path / "second")
    built = load_catalogue(find_files(first), tmp_path / "cache")
    monkeypatch.setattr(module, "_build", None)  # whoever builds again fails
    again = load_catalogue(find_files(second), tmp_path / "cache")
    assert built.folder == again.folder
    assert [again.product(number) for number in range(len(again))] == [built.product(number) for number in range(len(built))]


def test_products_are_found_by_asin_and_label(catalogue: Path) -> None:
    opened = load_catalogue(find_files(catalogue))
    assert [opened.find(product["asin"]) for product in PRODUCTS] == [0, 1, 2, 3]
    assert [opened.find(asin) for asin in ("B0", "B000000009", "B00000000001", "é", "\ud800", "")] == [None] * 6
    assert opened.where("category", "garden") == [2, 3]
    assert opened.where("query", "lamps") == [3]
    assert opened.where("query", "ships") == []


def test_a_damaged_cache_is_built_again(tmp_path: Path, catalogue: Path) -> None:
    cache = tmp_path / "cache"
    folder = load_catalogue(find_files(catalogue), cache).folder
    damages: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(path.read_bytes()[:-3] + b"\xff\x00\xff"),  # of the old size
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.write_bytes(b"[" * 100_000),
    ]
    for damage in damages:
        for name in ("index_scores.npy", "labels.json", "notes.json"):
            damage(folder / name)
            assert load_catalogue(find_files(catalogue), cache).index.search("pumps") == [0]


def test_duplicates_and_names_that_are_none_are_dropped(tmp_path: Path) -> None:
    twin = {**SHOE, "name": "Another"}
    odd = [record("nan", "x"), record("B0000000012", "eleven letters")]
    folder = write_catalogue(tmp_path, [*PRODUCTS, twin, *odd])
    opened = load_catalogue(find_files(folder))
    assert len(opened) == len(PRODUCTS)
    assert opened.product(0).title == SHOE["name"]


def test_bad_files_are_refused_and_leave_nothing_half_done(tmp_path: Path) -> None:
    folder, cache = write_catalogue(tmp_path / "c"), tmp_path / "cache"
    path = folder / "items_shuffle_1000.json"
    whole = path.read_text()
    for text, said in (
        (whole[:-40], r"not a whole JSON file.*near byte"),
        (json.dumps([*PRODUCTS, {"name": "x"}]), "element 4 is no product, it has no asin"),
        (json.dumps([*PRODUCTS, record("B000000009", "x", pricing="$free")]), r"near byte \d+: product B000000009: pricing '\$free'"),
        ("[]", "holds no products"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            load_catalogue(find_files(folder), cache)
        assert [child.name for child in (cache / "webshop").iterdir()] == ["digests"]
    (folder / "items_ins_v2_1000.json").write_text("[")
    with pytest.raises(DataError, match="items_ins_v2_1000.json is not a whole JSON file"):
        load_catalogue(find_files(folder), cache)


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, catalogue: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DataError, match="set HIPER_CACHE"):
        Shop.load(catalogue, cache=blocked)
