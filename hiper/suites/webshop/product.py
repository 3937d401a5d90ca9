"""One product: what the original's loader makes of a record of `items_shuffle*.json` and one of `items_ins_v2*.json`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hiper.errors import DataError

UNPRICED = 100.0
"""Dollars a product without a price is sold at."""
NO_ATTRIBUTES = ("DUMMY_ATTR",)
"""Attributes of a product that the attribute file does not list."""

_NOT_PRICE = re.compile(r"[^\d.]")


@dataclass(frozen=True)
class Product:
    """A product as pages and rewards see it."""

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    pricing: tuple[float, ...]
    """Dollars: one price, or the two ends of a range."""
    options: dict[str, tuple[str, ...]]
    """Option name -> values, lower-cased, in the file's order."""
    category: str
    query: str
    product_category: str
    attributes: tuple[str, ...]
    instruction: str | None
    """What the synthetic goals for this product begin with; None: it has none."""
    instruction_attributes: tuple[str, ...]

    @property
    def price_tag(self) -> str:
        """The price as pages show it."""
        return " to ".join(f"${price}" for price in self.pricing)

    @property
    def search_text(self) -> str:
        """What the search index holds of it."""
        options = ", ".join(f"{name}: {', '.join(values)}" for name, values in self.options.items())
        return " ".join([self.title, self.description, self.bullets[0] if self.bullets else "", options]).lower()

    @cached_property
    def prose(self) -> tuple[str, str, str]:
        """Title, all bullets and description, lower-cased, where attributes are looked for."""
        return self.title.lower(), " ".join(self.bullets).lower(), self.description.lower()

    @cached_property
    def option_of(self) -> dict[str, str]:
        """Option value -> the name of its option; the last one that has it."""
        return {value: name for name, values in self.options.items() for value in values}


def make_product(record: Mapping[str, Any], facts: Mapping[str, Any] | None) -> Product:
    """Clean a record.

    Args:
        record: of the product file.
        facts: of the attribute file; None: it has none for this product.

    Raises:
        DataError: something a page needs is missing or of the wrong kind, or a price does not parse.
    """
    asin = _text(record, "asin", "")
    if not asin:
        raise DataError("a product has no asin; every product is named by one.")
    try:
        bullets = record.get("small_description")
        facts = facts or {}
        instruction = facts.get("instruction")
        wanted = tuple(_clean(value) for value in facts.get("instruction_attributes") or ()) if instruction is not None else ()
        if instruction is not None and not wanted:
            raise DataError("its instruction asks for no attributes")
        return Product(
            asin=asin,
            title=_text(record, "name"),
            description=_text(record, "full_description", ""),
            bullets=tuple(_clean(bullet) for bullet in (bullets if isinstance(bullets, list) else [bullets]) if bullet is not None),
            pricing=parse_price(record.get("pricing")),
            options=_options(record.get("customization_options")),
            category=_text(record, "category"),
            query=_text(record, "query").lower().strip(),
            product_category=_text(record, "product_category"),
            attributes=tuple(_clean(value) for value in facts["attributes"]) if "attributes" in facts else NO_ATTRIBUTES,
            instruction=None if instruction is None else _clean(instruction),
            instruction_attributes=wanted,
        )
    except (DataError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"product {asin}: {error}. Mend its record, or leave it out of the file.") from error


def parse_price(text: Any) -> tuple[float, ...]:
    """One price or the ends of a range, from text such as "$9.99" or "$5.99 to $12.99"; nothing at all is `UNPRICED`.

    Raises:
        DataError: there is text, but no price in it.
    """
    if not text:
        return (UNPRICED,)
    try:
        prices = tuple(float(_NOT_PRICE.sub("", piece)) for piece in str(text).split("$")[1:])
    except ValueError:
        prices = ()
    if not prices or not all(map(math.isfinite, prices)):
        raise DataError(f"pricing {str(text)[:40]!r} holds no price such as $9.99")
    return prices[:2]


def _options(record: Any) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, contents in (record or {}).items():
        if contents is not None:
            found[_clean(name).lower()] = tuple(_clean(content["value"]).strip().replace("/", " | ").lower() for content in contents)
    return found


def _text(record: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key)
    if value is None and default is None:
        raise DataError(f"it has no {key!r}")
    return _clean(default if value is None else value)


def _clean(value: Any) -> str:
    """Text that can be written anywhere: half a character, which JSON can spell, becomes a question mark."""
    if not isinstance(value, str):
        raise DataError(f"expected text, found {value!r:.40}")
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
