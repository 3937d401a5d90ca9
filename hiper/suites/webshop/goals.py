"""Goals: what to buy, in the original's list, order and price caps, drawn from one seeded stream of Python's `random`.

First every range of prices is settled, product by product; then every product with an instruction (or every instruction people wrote)
draws its cap; then the stream starts again and shuffles the list. A million products have millions of goals, so a goal is kept as a number
and worded when asked for. Source: princeton-nlp/WebShop at 64fa2a5, as observed.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hiper.errors import DataError
from hiper.runtime.files import replacing
from hiper.suites.webshop.catalogue import Catalogue, load_array
from hiper.suites.webshop.intact import intact, note
from hiper.suites.webshop.product import Product
from hiper.suites.webshop.source import elements

NO_CAP = 1_000_000.0
"""Price cap, in dollars, of a goal that names none."""
CAPS = tuple(10.0 * step for step in range(1, 100))
"""Dollars a goal may name; the cap is drawn from the first four above the price."""
TEST_GOALS = 500
"""Goals 0 to 499 of the list are for evaluation, the rest for training. (Princeton's scripts also keep 500 to 1499 for development.)"""


@dataclass(frozen=True, slots=True)
class Goal:
    """One task."""

    index: int
    """In the shuffled list."""
    product: int
    """The number of the product it was made from."""
    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: dict[str, str] | tuple[str, ...]
    """Name -> value; values alone where a person wrote the goal."""
    cap: float
    """Dollars the price must not exceed."""
    weight: float
    """In a draw without an index; not normalised."""
    query: str
    title: str
    category: str
    product_category: str


class Goals(Sequence[Goal]):
    """The goals of a catalogue under one seed."""

    def __init__(self, catalogue: Catalogue, seed: int, *, human: bool = False) -> None:
        """Draw prices, caps and order, or take them from the cache.

        Args:
            catalogue: the products.
            seed: of the stream.
            human: take the instructions people wrote instead of the synthetic ones.

        Raises:
            DataError: there are no goals, or there is no file of human instructions.
        """
        self.seed = seed
        self._catalogue = catalogue
        self._written = _read_human(catalogue) if human else None
        if self._written is None:
            self._owners = np.flatnonzero(catalogue.goals >= 0)
            counts = catalogue.goals[self._owners]
        else:
            self._owners = np.array([number for number, _ in self._written], np.int64)
            counts = np.ones(len(self._owners), np.int64)
        self._ends: list[int] = np.cumsum(counts).tolist()
        if not self._ends or not self._ends[-1]:
            raise DataError(f"{catalogue.files.products.parent} gives no goals: none of its products has an instruction.")
        self.prices, self._caps, self._order = self._drawn(cached=not human)
        """`prices`: what each product truly costs, in dollars, hidden where pages show a range."""

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Goal]:
        return (self._goal(index) for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Goal: ...
    @overload
    def __getitem__(self, index: slice) -> list[Goal]: ...
    def __getitem__(self, index: int | slice) -> Goal | list[Goal]:
        if isinstance(index, slice):
            return [self._goal(number) for number in range(*index.indices(len(self)))]
        return self._goal(range(len(self))[index])

    def _goal(self, index: int) -> Goal:
        number = int(self._order[index])
        block = bisect.bisect_right(self._ends, number)
        owner, cap = int(self._owners[block]), float(self._caps[block])
        product = self._catalogue.product(owner)
        limit = f", and price lower than {cap:.2f} dollars" if cap < NO_CAP else ""
        options: dict[str, str] | tuple[str, ...]
        if self._written is None:
            options = _combination(product, number - (self._ends[block - 1] if block else 0))
            with_options = ", and ".join(f"{name}: {value}" for name, value in options.items())
            text = (product.instruction or "") + (f" with {with_options}" if with_options else "") + limit
            attributes, weight = product.instruction_attributes, float(self._catalogue.weights[owner])
        else:
            record = self._written[block][1]
            text = record["instruction"].strip(".") + limit
            attributes, options, weight = tuple(record["instruction_attributes"]), tuple(record["instruction_options"]), 1.0
        return Goal(
            index=index,
            product=owner,
            asin=product.asin,
            instruction=text,
            attributes=attributes,
            options=options,
            cap=cap,
            weight=weight,
            query=product.query,
            title=product.title,
            category=product.category,
            product_category=product.product_category,
        )

    def _drawn(self, cached: bool) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Prices by product, caps by owner, and which goal of the unshuffled list stands where."""
        paths = [self._catalogue.folder / f"goals_{self.seed}_{name}.npy" for name in ("prices", "caps", "order")]
        notes = f"goals_{self.seed}.json"
        if cached and intact(self._catalogue.folder, notes):
            prices, caps, order = (load_array(path) for path in paths)
            if (len(prices), len(caps), len(order)) == (len(self._catalogue), len(self._owners), len(self)):
                return prices, caps, order
        rng = random.Random(self.seed)
        prices = np.array(self._catalogue.prices[:, 0])
        for product in np.flatnonzero(~np.isnan(self._catalogue.prices[:, 1])).tolist():
            prices[product] = rng.uniform(*self._catalogue.prices[product].tolist())
        caps = np.array([_draw_cap(price, rng) for price in prices[self._owners].tolist()])
        shuffled = list(range(len(self)))
        rng.seed(self.seed)
        rng.shuffle(shuffled)
        order = np.array(shuffled, np.int64)
        if cached:
            for path, values in zip(paths, (prices, caps, order), strict=True):
                with replacing(path, durable=False, shared=True) as temporary, temporary.open("wb") as file:
                    np.save(file, values)
            note(self._catalogue.folder, [path.name for path in paths], notes)
        return prices, caps, order


def _draw_cap(price: float, rng: random.Random) -> float:
    first = bisect.bisect_right(CAPS, price)
    choices = CAPS[first : first + 4]
    return max(rng.sample(choices, 2)) if len(choices) >= 2 else NO_CAP


def _combination(product: Product, number: int) -> dict[str, str]:
    """One of the combinations of option values: names in alphabetical order, the last name changes first."""
    chosen = {}
    for name in sorted(product.options, reverse=True):
        number, place = divmod(number, len(product.options[name]))
        chosen[name] = product.options[name][place]
    return dict(reversed(chosen.items()))


def _read_human(catalogue: Catalogue) -> list[tuple[int, dict[str, Any]]]:
    """Product number and record of every instruction people wrote, in the order of products; those for products not here are left out."""
    path = catalogue.files.human
    if path is None:
        raise DataError(f"{catalogue.files.products.parent} has no items_human_ins*.json, which human goals need.")
    found = []
    for element in elements(path):
        product = catalogue.find(element.key or "")
        if product is None:
            continue
        for record in element.value:
            try:
                wanted, text, options = (record[name] for name in ("instruction_attributes", "instruction", "instruction_options"))
                whole = isinstance(wanted, list) and isinstance(options, list)
                whole = whole and all(isinstance(value, str) for value in (text, *wanted, *options))
            except (KeyError, TypeError, IndexError):
                whole = False
            if not whole:
                raise DataError(
                    f"{path}, near byte {element.start}: an instruction for {element.key} lacks its text, attributes or options."
                )
            if wanted:
                found.append((product, record))
    return sorted(found, key=lambda pair: pair[0])
