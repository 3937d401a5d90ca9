"""Rules pinned: prices, options and texts are read as the original reads them; what a page could not show is refused, by name."""

from __future__ import annotations

from typing import Any

import pytest

from hiper.errors import DataError
from hiper.suites.webshop.product import UNPRICED, make_product, parse_price

from .conftest import SHOE, record, values


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        (None, (UNPRICED,)),
        ("", (UNPRICED,)),
        ("$9.99", (9.99,)),
        ("$1,234.50", (1234.5,)),
        ("$5.99 to $12", (5.99, 12.0)),
        ("$5.99$12.00$40.00", (5.99, 12.0)),
    ],
)
def test_prices(text: str | None, prices: tuple[float, ...]) -> None:
    assert parse_price(text) == prices


@pytest.mark.parametrize("text", ["9.99", "free", "$", "$1.2.3", "$5 to $x", 12])
def test_prices_that_do_not_parse_are_refused(text: object) -> None:
    with pytest.raises(DataError, match="holds no price"):
        parse_price(text)
    with pytest.raises(DataError, match=r"product B1: pricing .* Mend its record"):
        make_product(record("B1", "x", pricing=text), None)


def test_a_record_is_cleaned() -> None:
    product = make_product(SHOE, None)
    assert product.options == {"size": ("5", "6 | 6.5"), "color": ("red", "navy blue")}
    assert (product.price_tag, product.query, product.attributes) == ("$10.0 to $30.0", "women's pumps", ("DUMMY_ATTR",))
    assert product.search_text == (
        "red suede pumps pumps for <b>every</b> day & night. rubber sole  size: 5, 6 | 6.5, color: red, navy blue"
    )
    single = make_product(record("B1", "x", small_description="one", customization_options={"size": None}), None)
    assert (single.bullets, single.options) == (("one",), {})
    assert make_product(record("B1", "half \ud800"), None).title == "half ?"


@pytest.mark.parametrize(
    ("changes", "facts", "said"),
    [
        ({"name": None}, None, "no 'name'"),
        ({"query": 3}, None, "expected text, found 3"),
        ({"customization_options": "red"}, None, "product B1"),
        ({"customization_options": {"size": [{"no": "value"}]}}, None, "product B1"),
        ({}, {"attributes": [], "instruction": "Find me", "instruction_attributes": []}, "asks for no attributes"),
    ],
)
def test_what_cannot_be_sold_is_refused(changes: dict[str, Any], facts: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(DataError, match=said):
        make_product({**record("B1", "x"), **changes}, facts)


def test_options_of_several_names_belong_to_the_last() -> None:
    product = make_product(record("B1", "x", customization_options={"a": values("same"), "b": values("same", "other")}), None)
    assert product.option_of == {"same": "b", "other": "b"}
