"""A shop and its episodes: the original's text environment, without a web server behind it."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from hiper.errors import DataError
from hiper.runtime.progress import Progress
from hiper.suites.base import StepResult
from hiper.suites.webshop import pages
from hiper.suites.webshop.catalogue import Catalogue, load_catalogue
from hiper.suites.webshop.goals import Goal, Goals
from hiper.suites.webshop.index import HITS
from hiper.suites.webshop.nouns import Tagger, find_tagger
from hiper.suites.webshop.pages import Kind, Mode, Run
from hiper.suites.webshop.product import Product
from hiper.suites.webshop.reward import Score, score
from hiper.suites.webshop.source import find_files

SEED = 233
"""Of goal order and prices; the original shuffles its goals with it."""


class Page(StrEnum):
    """Where one is."""

    start = "start"
    results = "search_results"
    item = "item_page"
    sub = "item_sub_page"
    done = "done"


@dataclass(frozen=True, slots=True)
class Available:
    """What can be done now."""

    has_search_bar: bool
    clickables: list[str]


@dataclass(frozen=True)
class Shop:
    """A catalogue with its goals; any number of episodes share it."""

    catalogue: Catalogue
    goals: Goals
    tagger: Tagger
    mended: bool
    """Leave out what serves nothing in the original: a next page beyond the last, a click on "search", actions after the end."""

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        seed: int = SEED,
        human: bool = False,
        tagger: Tagger | None = None,
        mended: bool = False,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> Shop:
        """Open the official files in a directory.

        Args:
            folder: holds `items_shuffle*.json` and `items_ins_v2*.json`; or, where it holds several, the product list itself.
            seed: of goal order and prices.
            human: goals people wrote (`items_human_ins*.json`) instead of synthetic ones.
            tagger: tells nouns for the reward; None: `find_tagger()`.
            mended: see the attribute.
            cache: where the index is kept, built once for each content; None: `hiper.suites.webshop.catalogue.cache_folder()`.
            progress: called with (products read, 0) while the index is built.

        Raises:
            DataError: files are missing or damaged, or hold no goals.
        """
        catalogue = load_catalogue(find_files(Path(folder)), cache, progress)
        return cls(catalogue, Goals(catalogue, seed, human=human), tagger or find_tagger(), mended)

    def episode(self, goal: int, mode: Mode | str = Mode.text) -> Episode:
        """An episode of one goal, at its start.

        Args:
            goal: its index.
            mode: how pages are written.

        Raises:
            DataError: there is no such goal.
        """
        if not 0 <= goal < len(self.goals):
            raise DataError(f"goal {goal} is not in this shop, which has goals 0 to {len(self.goals) - 1}.")
        return Episode(self, self.goals[goal], Mode(mode))

    def search(self, keywords: list[str], rng: random.Random) -> list[int]:
        """Numbers of the products a search finds, best first. A first word in angle brackets asks for a list instead.

        Args:
            keywords: the query, split at blanks.
            rng: for `<r>`, which draws products.
        """
        word, rest = keywords[0], " ".join(keywords[1:]).strip()
        if word == "<r>":
            return rng.sample(range(len(self.catalogue)), min(HITS, len(self.catalogue)))
        if word == "<c>":
            return self.catalogue.where("category", keywords[1].strip()) if len(keywords) > 1 else []
        if word == "<q>":
            return self.catalogue.where("query", rest)
        return [] if word == "<a>" else self.catalogue.index.search(" ".join(keywords))  # the original fails on <a>


class Episode:
    """One visit to the shop."""

    def __init__(self, shop: Shop, goal: Goal, mode: Mode) -> None:
        self.shop, self.goal, self.mode = shop, goal, mode
        self.score: Score | None = None
        """Of the purchase; None before one."""
        self._page = Page.start
        self._sub = pages.DESCRIPTION
        self._keywords: list[str] | None = None
        self._found: list[int] = []
        self._number = 1  # of the page of results
        self._draws = 0  # of random results
        self._product: Product | None = None
        self._options: dict[str, str] = {}
        self._visited: list[str] = []
        self._runs: list[Run] = []
        self._clickables: dict[str, Kind] = {}
        self._text: str | None = None  # of the page, once somebody reads it
        self._leave()

    def reset(self) -> str:
        """Start again; the start page."""
        self.score, self._draws = None, 0
        self._leave()
        return self.observation

    @property
    def terminated(self) -> bool:
        """Something was bought."""
        return self.score is not None

    @property
    def reward(self) -> float:
        """Of the purchase, 0 to 1; 0 before one."""
        return 0.0 if self.score is None else self.score.total

    @property
    def product(self) -> Product | None:
        """The one that is open."""
        return self._product

    @property
    def listed(self) -> list[Product]:
        """Those on the page of results."""
        return [self.shop.catalogue.product(number) for number in self._shown()] if self._page is Page.results else []

    @property
    def lines(self) -> list[str]:
        """The pieces of text on the page, as `text` mode joins them."""
        return [run.text.strip() for run in self._runs]

    @property
    def observation(self) -> str:
        """The page one is on."""
        if self._text is None:
            rich = self.mode is Mode.text_rich
            self._text = pages.write_rich(self._runs, self._visited, self._address) if rich else pages.write_text(self._runs)
        return self._text

    @property
    def available_actions(self) -> Available:
        """What can be done. After a purchase the original names the actions of another episode's start."""
        if self.shop.mended:
            listed = [text for text in self._clickables if text != pages.SEARCH.lower()]
            return Available(self._page is Page.start, [] if self.terminated else listed)
        if self.terminated:
            return Available(True, [pages.SEARCH.lower()])
        return Available(self._page is Page.start, list(self._clickables))

    def step(self, action: str) -> StepResult:
        """Do something: `search[words]`, on any page, or `click[what a page names]`; anything else changes nothing.

        Returns:
            The page that follows; the purchase's score, 0 to 1, on the step that buys and 0 on all others; whether that was it.
        """
        verb, argument = parse_action(action)
        bought = False
        if not self.terminated and argument:
            if verb == "search":
                self._search(argument.split(" "), 1)
            elif verb == "click" and argument in self._clickables and argument != pages.SEARCH.lower():
                self._click(argument)
                bought = self.terminated
        return StepResult(self.observation, self.reward if bought else 0.0, self.terminated)

    def state(self) -> dict[str, Any]:
        """The episode so far, as JSON."""
        return {
            "goal": self.goal.index,
            "page": self._page.value,
            "sub": self._sub,
            "keywords": self._keywords,
            "number": self._number,
            "product": self._product and self._product.asin,
            "options": dict(self._options),
            "visited": list(self._visited),
            "draws": self._draws,
        }

    def restore(self, state: Any) -> None:
        """Continue from a state of the same goal in the same shop.

        Raises:
            DataError: it belongs to another goal or catalogue, or is damaged; the episode is left as it was.
        """
        try:
            page, asin, options = Page(state["page"]), state["product"], dict(state["options"])
            keywords, number, sub, visited, draws = (state[name] for name in ("keywords", "number", "sub", "visited", "draws"))
            goal = state["goal"]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not the state of a WebShop episode: {str(state)[:80]!r}; pass back what Episode.state() returned") from error
        if goal != self.goal.index:
            raise DataError(f"a state of goal {goal} cannot be restored in an episode of goal {self.goal.index}.")
        found = self.shop.catalogue.find(asin) if isinstance(asin, str) else None
        if asin is not None and found is None:
            raise DataError(f"a state on product {asin} cannot be restored: this shop does not have it.")
        words = keywords is None or (isinstance(keywords, list) and bool(keywords) and all(isinstance(word, str) for word in keywords))
        there = {Page.start: True, Page.results: keywords is not None}.get(page, keywords is not None and asin is not None)
        texts = all(isinstance(text, str) for text in (*options, *options.values(), *visited))
        if not (words and there and texts and type(number) is type(draws) is int and sub in pages.SUB_PAGES):
            raise DataError(f"the state of goal {goal} is damaged: {str(state)[:160]!r}; pass back what Episode.state() returned")
        self.reset()
        self._keywords, self._number, self._sub, self._visited, self._draws = keywords, number, sub, list(visited), draws
        self._found = [] if keywords is None else self.shop.search(keywords, self._rng())
        self._product = None if found is None else self.shop.catalogue.product(found)
        self._options = options
        self._show(page)

    def _leave(self) -> None:
        """Go to the start page and forget the search."""
        self._keywords, self._found, self._number, self._visited = None, [], 1, []
        self._product, self._options = None, {}
        self._show(Page.start)

    def _search(self, keywords: list[str], number: int) -> None:
        drawn = keywords[0] == "<r>"  # anew for every page
        if drawn or keywords != self._keywords:
            self._draws += drawn
            self._found = self.shop.search(keywords, self._rng())
        self._keywords, self._number = keywords, number
        self._product, self._options = None, {}
        self._show(Page.results)

    def _click(self, argument: str) -> None:
        kind = self._clickables[argument]
        assert self._keywords is not None or argument == pages.BACK.lower()
        if argument == pages.BUY.lower():
            self._show(Page.done)
        elif argument == pages.BACK.lower():
            self._leave()
        elif argument == pages.NEXT.lower() and self._page is Page.results:
            self._turn(1)
        elif argument == pages.PREV.lower():
            self._back()
        elif argument in _SUB_PAGES:
            self._sub = _SUB_PAGES[argument]
            self._show(Page.sub)
        elif kind is Kind.product:
            number = next(number for number in self._shown() if self.shop.catalogue.asin(number).lower() == argument)
            self._product = self.shop.catalogue.product(number)
            self._visited.append(self._product.asin)
            self._show(Page.item)
        else:
            assert self._product is not None
            self._options[self._product.option_of[argument]] = argument
            self._show(Page.item)

    def _back(self) -> None:
        """`< Prev`. The original looks for names of pages in the address, which holds the query, too."""
        if Page.results in self._address:
            self._turn(-1)
        elif self._page is Page.item or Page.item in self._address:
            self._turn(0)
        else:
            self._show(Page.item)

    def _turn(self, pages_on: int) -> None:
        assert self._keywords is not None
        self._search(self._keywords, self._number + pages_on)

    def _shown(self) -> list[int]:
        """Products of this page of results; below page 1 it counts from the end, as the original does."""
        return self._found[(self._number - 1) * pages.PAGE_SIZE : self._number * pages.PAGE_SIZE]

    def _show(self, page: Page) -> None:
        """Go to a page."""
        self._page = page
        self._text = None
        instruction, product = self.goal.instruction, self._product
        if page is Page.start:
            self._runs = pages.start_page(instruction)
        elif page is Page.results:
            more = not self.shop.mended or self._number * pages.PAGE_SIZE < len(self._found)
            self._runs = pages.results_page(instruction, self.listed, self._number, len(self._found), more=more)
        else:
            assert product is not None
            if page is Page.item:
                self._runs = pages.item_page(instruction, product)
            elif page is Page.sub:
                self._runs = pages.sub_page(instruction, product, self._sub)
            else:
                self.score = self._judge(product)
                self._runs = pages.done_page(product.asin, self._options, self.score.total)
        self._clickables = pages.clickables(self._runs)

    def _judge(self, product: Product) -> Score:
        number = self.shop.catalogue.find(product.asin)
        assert number is not None
        wanted = self.shop.catalogue.product(self.goal.product)
        return score(product, wanted, self.goal, float(self.shop.goals.prices[number]), self._options, self.shop.tagger)

    @property
    def _address(self) -> str:
        """The parts of the original's URL that it looks for names in."""
        query = "+".join(self._keywords or [])
        asin = "" if self._product is None else self._product.asin
        tail = {Page.item: json.dumps(self._options), Page.sub: f"{self._sub}/{self._options}"}.get(self._page, "")
        return f"{self._page}/{asin}/{query}/{self._number}/{tail}"

    def _rng(self) -> random.Random:
        """For random results: the same for the same number of draws, so that an episode can be continued."""
        return random.Random(f"{self.shop.goals.seed}/{self.goal.index}/{self._draws}")


_SUB_PAGES = {name.lower(): name for name in pages.SUB_PAGES}


def parse_action(action: str) -> tuple[str, str | None]:
    """`search[Red shoes]` -> ("search", "red shoes"); what is no action has no argument.

    The last `[` that has something in it counts, up to the last `]` of the first line, as the original's pattern has it.
    """
    line = action.split("\n", 1)[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(end - 1, 0))
    return (action, None) if start < 1 else (line[:start], line[start + 1 : end].lower())
