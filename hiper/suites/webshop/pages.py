"""The shop's pages as the agent reads them: the visible text of the original's HTML, and what can be clicked.

A page is a list of runs, the pieces of text that stand between two tags. `text` joins them stripped, `text_rich` writes one a line and
marks buttons. As in the original's HTML parser, a run of blanks alone is dropped if it has a line break, and is one blank otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

from hiper.suites.webshop.product import Product

SEPARATOR = " [SEP] "
SEARCH, BACK, PREV, NEXT, BUY = "Search", "Back to Search", "< Prev", "Next >", "Buy Now"
DESCRIPTION, FEATURES, REVIEWS = "Description", "Features", "Reviews"
SUB_PAGES = (DESCRIPTION, FEATURES, REVIEWS)
PAGE_SIZE = 10
"""Products a page of results shows."""

_HTML_BLANKS = " \n\t\f\r"


class Mode(StrEnum):
    """How a page is written."""

    text = "text"
    text_rich = "text_rich"


class Kind(StrEnum):
    """What a run is."""

    plain = "plain"
    button = "button"
    product = "product"
    option = "option"


class Run(NamedTuple):
    """A piece of text between two tags."""

    text: str
    kind: Kind = Kind.plain


def start_page(instruction: str) -> list[Run]:
    """Where an episode begins."""
    return _runs("WebShop", "Instruction: ", instruction, Run(SEARCH, Kind.button))


def results_page(instruction: str, products: Sequence[Product], page: int, total: int, *, more: bool = True) -> list[Run]:
    """One page of search results.

    Args:
        instruction: the goal's.
        products: those of this page.
        page: its number, from 1; the original can reach 0 and below.
        total: results on all pages.
        more: whether there is a button to the next page; the original always has one.
    """
    listed = (run for product in products for run in (Run(product.asin, Kind.product), product.title, product.price_tag))
    return _runs(
        *("Instruction:", instruction, Run(BACK, Kind.button), f"Page {page} (Total results: {total})"),
        *([Run(PREV, Kind.button)] if page > 1 else []),
        *([Run(NEXT, Kind.button)] if more else []),
        *listed,
    )


def item_page(instruction: str, product: Product) -> list[Run]:
    """A product with its options."""
    options: list[Run | str] = []
    for name, values in product.options.items():
        options += [name, *(Run(value, Kind.option) for value in values)]
    buttons = (Run(name, Kind.button) for name in (*SUB_PAGES, BUY))
    return _runs(
        *("Instruction:", instruction, Run(BACK, Kind.button), Run(PREV, Kind.button)),
        *options,
        *(product.title, f"Price: {product.price_tag}", "Rating: N.A."),
        *buttons,
    )


def sub_page(instruction: str, product: Product, name: str) -> list[Run]:
    """A product's description, features or (always empty) reviews."""
    body = {DESCRIPTION: [product.description], FEATURES: [f" {bullet}" for bullet in product.bullets], REVIEWS: []}[name]
    return _runs("Instruction:", instruction, Run(BACK, Kind.button), Run(PREV, Kind.button), *body)


def done_page(asin: str, options: dict[str, str], total: float) -> list[Run]:
    """What follows a purchase; the original leaves most of it blank."""
    written = json.dumps(options, sort_keys=True)
    for mark in "<>&'":
        written = written.replace(mark, f"\\u{ord(mark):04x}")
    none = [text for name in ("attrs", "category", "query", "product category") for text in (name, "None")]
    target = ("asin", "options", "attrs", "price upper", "instuction text", "category", "product category", "query", "Goal ", "None")
    return _runs(
        *("Thank you for shopping with us!", "Your code: ", "None", " (Paste it in your MTurk interface.)"),
        *("Purchased", "asin", asin, "options", written, *none),
        *("Target", *target),
        *("Reward", "Your score (min 0.0, max 1.0)", repr(total), "Reward Details ", "None"),
    )


def clickables(runs: Iterable[Run]) -> dict[str, Kind]:
    """What can be clicked, lower-cased: buttons, then products, then options."""
    found: dict[Kind, list[str]] = {kind: [] for kind in Kind}
    for run in runs:
        found[run.kind].append(run.text if run.kind is Kind.option else run.text.lower())
    return {text: kind for kind in (Kind.button, Kind.product, Kind.option) for text in found[kind]}


def write_text(runs: Iterable[Run]) -> str:
    """A page in `text` mode."""
    return SEPARATOR.join(run.text.strip() for run in runs)


def write_rich(runs: Iterable[Run], visited: Collection[str], address: str) -> str:
    """A page in `text_rich` mode.

    Args:
        runs: the page.
        visited: ASINs of the products seen so far.
        address: of the page; an option is shown as chosen if its value stands in it, in quotation marks.
    """
    lines: list[str] = []
    chosen: list[str] = []
    for text, kind in runs:
        if kind is Kind.button:
            lines.append(f"[button] {text} [button_]")
        elif kind is Kind.product:
            mark = "clicked button" if text in visited else "button"
            lines.append(f"\n[{mark}] {text} [{mark}_]")
        elif kind is Kind.option:
            mark = "clicked button" if f'"{text}"' in address else "button"
            chosen += [f"You have clicked {text}."] if mark != "button" else []
            lines.append(f"  [{mark}] {text} [{mark}_]")
        else:
            lines.append(text)
    return "".join(f"{line}\n" for line in (*reversed(chosen), *lines))


def _runs(*pieces: Run | str) -> list[Run]:
    found = (piece if isinstance(piece, Run) else Run(piece) for piece in pieces)
    return [shown for run in found if (shown := _shown(run)) is not None]


def _shown(run: Run) -> Run | None:
    """A run as an HTML parser hands it on."""
    if run.text.strip(_HTML_BLANKS):
        return run
    return Run(" ", run.kind) if run.text and "\n" not in run.text else None
