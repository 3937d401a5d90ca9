"""A tiny catalogue in the official format, with the oddities of the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hiper.suites.webshop import Shop
from hiper.suites.webshop.nouns import closed_class

Record = dict[str, Any]


def record(asin: str, name: str, **changes: Any) -> Record:
    """A product as `items_shuffle.json` has it."""
    return {
        "asin": asin,
        "name": name,
        "full_description": "",
        "pricing": "$12.50",
        "images": ["x.jpg"],
        "product_category": "Clothing › Women › Shoes › Pumps",
        "small_description": ["Soft and light "],
        "customization_options": "",
        "category": "fashion",
        "query": "Women's pumps ",
        **changes,
    }


def values(*names: str) -> list[Record]:
    """Option values."""
    return [{"value": name, "image": None} for name in names]


SHOE = record(
    "B000000001",
    "Red suede pumps",
    full_description="Pumps for <b>every</b> day & night.",
    small_description=["Rubber sole ", "", " Hand wash"],
    pricing="$10.00$30.00",
    customization_options={"Size": values("5", " 6/6.5 "), "Color": values("Red", "Navy blue")},
)
BOOT = record("B000000002", "Leather boots", customization_options={"size": values("5", "7")}, query="women's boots", pricing=None)
TABLE = record(
    "B000000003", "Oak coffee table", product_category="Home › Furniture › Tables", category="garden", query="tables", pricing="$989.00"
)
LAMP = record("B000000004", "Lamp", product_category="Home › Lighting", category="garden", query="lamps", small_description=" Bright")
PRODUCTS = [SHOE, BOOT, TABLE, LAMP]
FACTS: dict[str, Record] = {
    "B000000001": {
        "attributes": ["rubber sole", "hand wash"],
        "instruction": "Find me hand wash women's pumps with rubber sole",
        "instruction_attributes": ["hand wash", "rubber sole"],
    },
    "B000000002": {"attributes": ["hand wash"], "instruction": "Find me boots", "instruction_attributes": ["hand wash"]},
    "B000000003": {"attributes": ["solid wood"], "instruction": "Find me tables", "instruction_attributes": ["solid wood"]},
    "B999999999": {"attributes": ["of a product that is not sold"], "instruction": "Find me nothing", "instruction_attributes": ["x"]},
}
HUMAN = {
    "B000000002": [
        {"instruction": "i want warm boots.", "instruction_attributes": ["hand wash"], "instruction_options": ["7"]},
        {"instruction": "asks for nothing", "instruction_attributes": [], "instruction_options": []},
    ],
    "B999999999": [{"instruction": "gone", "instruction_attributes": ["x"], "instruction_options": []}],
}


def write_catalogue(folder: Path, products: list[Record] | None = None, facts: dict[str, Record] | None = None) -> Path:
    """A catalogue directory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items_shuffle_1000.json").write_text(json.dumps(PRODUCTS if products is None else products))
    (folder / "items_ins_v2_1000.json").write_text(json.dumps(FACTS if facts is None else facts))
    (folder / "items_human_ins.json").write_text(json.dumps(HUMAN))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or leaves anything in the user's cache."""
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny catalogue on disk; nobody writes in it."""
    return write_catalogue(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture
def shop(catalogue: Path) -> Shop:
    """Its shop."""
    return Shop.load(catalogue, tagger=closed_class())
