"""A catalogue without a download: seeded products, attributes, options, prices and instructions in the official file format.

Products come in two dozen kinds (`kinds.json`) of the original's five categories. Those of one kind differ in brand, attributes, options
and price, so that a goal has near misses to tell it from. Each product has its own random stream: asking for more products changes none
of the earlier ones. No option value hides a colour's name, so every goal can be reached in full on its own product.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.runtime.files import write_text
from hiper.runtime.reading import read_json_object

VERSION = 1
"""Of the generator: raised whenever the same settings write other bytes."""
MANIFEST = "manifest.json"
ROLES = ("is", "with", "for")
"""What an attribute is to its product, as instructions put it: "... and <is> thing with <with> for <for>"."""

_FIRST_ASIN = 1_000_000_000
_RANGE, _UNPRICED = 0.15, 0.05  # shares of products with a range of prices, and with none


def generate_catalogue(out: Path, products: int, seed: int = 0) -> Path:
    """Write a catalogue that `Shop.load` opens.

    Args:
        out: a new or empty directory, or one that this function wrote; one that holds this very catalogue is left as it is.
        products: how many.
        seed: of all draws.

    Returns:
        `out`.

    Raises:
        DataError: `out` holds something else.
    """
    settings = {"products": products, "seed": seed, "generator": VERSION}
    if (known := _read_manifest(out)) == settings:
        return out
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and known is None)):
        raise DataError(f"{out} is not empty and was not written by the generator (no {MANIFEST}). Choose another directory, or empty it.")
    made = [make_product(number, seed) for number in range(products)]
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)
    _write(out / "items_shuffle.json", [record for record, _ in made])
    _write(out / "items_ins_v2.json", {record["asin"]: facts for record, facts in made})
    _write(out / "items_human_ins.json", {})
    _write(out / MANIFEST, settings)  # last: what has a manifest is whole
    return out


def make_product(number: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `number`-th product under a seed: its record in the product file and in the attribute file."""
    rng = random.Random(f"webshop-{seed}-{number}")
    table = _table()
    kind = table["kinds"][number % len(table["kinds"])]
    attributes = {role: rng.sample(kind[role], rng.randint(1, 2)) for role in ROLES}
    wanted = {role: [name for name in names if rng.random() < 0.6] for role, names in attributes.items()}
    if not any(wanted.values()):
        wanted["is"] = attributes["is"][:1]
    noun, brand = rng.choice(kind["nouns"]), rng.choice(table["brands"])
    listed = [name for role in ROLES for name in attributes[role]]
    # The kind's own name is in every title: by the nouns of titles the reward tells whether two products are of a kind.
    title = f"{brand} {rng.choice(listed)} {kind['query']} {noun}"
    record = {
        "name": " ".join(word[0].upper() + word[1:] for word in title.split()),
        "full_description": f"{brand} {noun.lower()} for those who look for {kind['query']}: {', '.join(listed)}.",
        "pricing": _price(kind["price"], rng),
        "images": ["none"],
        "product_category": kind["path"],
        "average_rating": "",
        "small_description": [f"{kind['query'].capitalize()} with {', '.join(listed)} ", f"By {brand} "],
        "customization_options": {
            name.title(): [{"value": value, "image": None} for value in _some(values, rng)] for name, values in kind["options"].items()
        },
        "asin": str(_FIRST_ASIN + number),
        "category": kind["category"],
        "query": kind["query"],
        "page": 1 + number // len(table["kinds"]),
    }
    facts = {
        "attributes": listed,
        "instruction": _instruction(kind["query"], wanted),
        "instruction_attributes": [name for role in ROLES for name in wanted[role]],
    }
    return record, facts


def _some(values: Sequence[str], rng: random.Random) -> list[str]:
    """At least two of the values, in their order."""
    kept = set(rng.sample(range(len(values)), rng.randint(2, min(5, len(values)))))
    return [value for place, value in enumerate(values) if place in kept]


def _price(bounds: Sequence[float], rng: random.Random) -> str:
    price = round(rng.uniform(*bounds)) - 0.01
    draw = rng.random()
    if draw < _UNPRICED:
        return ""
    return f"${price:.2f}$" + f"{price * rng.uniform(1.1, 1.6):.2f}" if draw < _UNPRICED + _RANGE else f"${price:.2f}"


def _instruction(query: str, wanted: Mapping[str, Sequence[str]]) -> str:
    parts = ["Find me", ", ".join(wanted["is"]), query]
    parts += [f"{word} {', '.join(wanted[word])}" for word in ("with", "for") if wanted[word]]
    return " ".join(part for part in parts if part)


@cache
def _table() -> dict[str, Any]:
    """Brands and kinds."""
    found: dict[str, Any] = json.loads((Path(__file__).with_name("kinds.json")).read_text(encoding="utf-8"))
    return found


def _write(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False))


def _read_manifest(out: Path) -> dict[str, Any] | None:
    try:
        return read_json_object(out / MANIFEST)
    except DataError:
        return None
