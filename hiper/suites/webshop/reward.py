"""What a purchase is worth: 0 to 1, 1 only if kind, attributes, options and price are all as the goal asks.

    score = kind * (attributes matched + options matched + price ok) / (attributes + options + 1)

Source: princeton-nlp/WebShop at 64fa2a5, as observed; its oddities are kept, for they are in every published number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz, utils

from hiper.suites.webshop.goals import Goal
from hiper.suites.webshop.nouns import Tagger
from hiper.suites.webshop.product import Product

ALIKE = 85
"""Two phrases match above this token-set ratio, rounded to a whole number as thefuzz does."""
_COLOURS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo caramel champagne
charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal dark denim eggplant elephant espresso
fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime
magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange peach pewter pink plum
purple rainbow red rose royal rust sand sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger
turquoise violet walnut wheat white wine yellow
"""
COLOURS = tuple(_COLOURS.split())
"""The original's colour names (`normalize.py`), in its order, which decides among several."""


@dataclass(frozen=True, slots=True)
class Score:
    """A purchase's worth and what it is made of; ratios are 0 to 1."""

    total: float
    kind: float
    """Factor for the product's type: 1, 0.5, 0.1 or 0."""
    attributes: float
    options: float | None
    """None: the goal asks for no options."""
    price: bool
    query_match: bool
    category_match: bool
    title_score: float
    """Share of the wanted title's nouns that the bought one has."""
    tagger: str
    """How nouns were told."""


def score(bought: Product, wanted: Product, goal: Goal, price: float, chosen: Mapping[str, str], tagger: Tagger) -> Score:
    """Judge a purchase.

    Args:
        bought: the product.
        wanted: the product the goal was made from.
        goal: what was asked for.
        price: true price of the bought one, in dollars.
        chosen: option name -> value chosen.
        tagger: tells nouns.
    """
    kind, title_score, query_match, category_match = _kind(bought, wanted, tagger)
    attributes = sum(_has(bought, attribute) for attribute in goal.attributes)
    pairs = goal.options.items() if isinstance(goal.options, dict) else goal.options
    asked = [_asked(option) for option in pairs]
    values = [_colour(value) for value in chosen.values()]
    options = sum(any(_alike(value, option) for value in values) for option in asked)
    affordable = price <= goal.cap
    return Score(
        total=(attributes + options + affordable) / (len(goal.attributes) + len(asked) + 1) * kind,
        kind=kind,
        attributes=attributes / len(goal.attributes),
        options=options / len(asked) if asked else None,
        price=affordable,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        tagger=tagger.name,
    )


def _kind(bought: Product, wanted: Product, tagger: Tagger) -> tuple[float, float, bool, bool]:
    query_match = bought.query == wanted.query
    category_match = len(_steps(bought.product_category) & _steps(wanted.product_category)) >= 2
    nouns = tagger.nouns(wanted.title)
    # distinct nouns above, all of them below: a product can score below 1 against itself
    title_score = len(set(nouns) & set(tagger.nouns(bought.title))) / len(nouns) if nouns else 0.2
    kind = 1.0 if query_match or category_match or title_score > 0.2 else 0.5
    if title_score < 0.1:
        kind = 0.1 if title_score > 0 else 0.0
    return kind, title_score, query_match, category_match


def _steps(product_category: str) -> set[str]:
    return {step.strip() for step in product_category.split("›")}


def _has(product: Product, attribute: str) -> bool:
    """Whether a product has an attribute: by its list, else by its words."""
    return any(_alike(own, attribute) for own in product.attributes) or any(attribute in text for text in product.prose)


def _asked(option: str | tuple[str, str]) -> str:
    """A goal's option as it is compared.

    For a pair the original asks whether a colour is a member, so that only a value or name that is a colour becomes one; else it is the
    pair's printed form that is compared.
    """
    return next((colour for colour in COLOURS if colour in option), str(option))


def _colour(value: str) -> str:
    """A chosen value as it is compared: the first colour of the list that occurs in it, be it inside a word."""
    return next((colour for colour in COLOURS if colour in value), value)


@lru_cache(maxsize=100_000)
def _alike(one: str, other: str) -> bool:
    return round(fuzz.token_set_ratio(_plain(one), _plain(other))) > ALIKE


def _plain(text: str) -> str:
    """Letters and digits in lower case, as thefuzz prepares them; it drops what Latin-1 has beyond ASCII."""
    return utils.default_process("".join(letter for letter in text if not "\x80" <= letter <= "\xff"))
