"""A WebShop episode as agents play it: a `hiper.suites.base.TextEnv`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from hiper.suites.base import WORDS, StepResult
from hiper.suites.webshop.pages import SEARCH
from hiper.suites.webshop.settings import Pay
from hiper.suites.webshop.shop import Episode

_ACTION = re.compile(r"\s*(search|click)\s*\[\s*([^\[\]]+?)\s*\]\s*")
_LOOSE = re.compile(r"[\s.,:;!?]+")


class Commands(list[str]):
    """Commands that do something now; `in` also knows other spellings of them, and what stands for words of one's own."""

    def __init__(self, clickables: Iterable[tuple[str, str]], *, searches: bool) -> None:
        """List them.

        Args:
            clickables: label, or nothing, and text of each.
            searches: whether there is a search bar.
        """
        named = [(f"{label}: {text}" if label else text, text) for label, text in clickables]
        self._texts = {_loose(spelling): text for name, text in named for spelling in (text, name)}
        super().__init__([f"search[{WORDS}]"] * searches + [f"click[{name}]" for name, _ in named])

    def spelled(self, command: str) -> str:
        """The command as the shop reads it: without a label or blanks at the brackets, with the page's own punctuation."""
        found = _ACTION.fullmatch(command)
        if found is None:
            return command
        verb, text = found.groups()
        return f"{verb}[{self._texts.get(_loose(text), text) if verb == 'click' else text}]"

    def __contains__(self, command: object) -> bool:
        found = _ACTION.fullmatch(command) if isinstance(command, str) else None
        if found is None:
            return False
        return super().__contains__(f"search[{WORDS}]") if found[1] == "search" else _loose(found[2]) in self._texts


def _loose(text: str) -> str:
    return _LOOSE.sub(" ", text.lower()).strip()


class ShopEnv:
    """Words the task and pages for an agent, and pays it."""

    def __init__(self, episode: Episode, pay: Pay, *, labels: bool = False) -> None:
        """Wrap an episode.

        Args:
            episode: of `Shop.episode`.
            pay: `success`: 1 for a score of exactly 1; `score`: the score. Both on the purchase.
            labels: products come with their place on the page, options with their name.
        """
        self._episode, self._pay, self._labels = episode, pay, labels

    @property
    def task(self) -> str:
        """The goal's instruction."""
        return self._episode.goal.instruction

    @property
    def admissible_commands(self) -> list[str]:
        """Commands that do something now: a search with any words, where there is a search bar, and clicks."""
        if self._episode.terminated:
            return []
        available = self._episode.available_actions
        clickables = [text for text in available.clickables if text != SEARCH.lower()]  # listed by the original, but dead
        labels = self._label_of()
        return Commands(((labels.get(text, ""), text) for text in clickables), searches=available.has_search_bar)

    @property
    def won(self) -> bool:
        """Whether what was bought is all that was asked for."""
        return self.score == 1.0

    @property
    def score(self) -> float:
        """Of the purchase; 0 before one."""
        return self._episode.reward

    def reset(self) -> str:
        """Start the episode again; the task and the start page."""
        self._episode.reset()
        return f"Your task is to: {self.task}\n\n{self._page()}"

    def step(self, command: str) -> StepResult:
        """Play one command; an unknown one changes nothing."""
        admissible = self.admissible_commands
        result = self._episode.step(admissible.spelled(command) if isinstance(admissible, Commands) else command)
        paid = result.reward if self._pay is Pay.score else float(result.reward == 1.0)
        return StepResult(self._page(), paid, result.terminated)

    def state(self) -> Any:
        """The episode so far, as JSON."""
        return self._episode.state()

    def restore(self, state: Any) -> None:
        """Continue from a state of the same goal."""
        self._episode.restore(state)

    def _page(self) -> str:
        """The page, a line for each piece of text, without the instruction that every page repeats."""
        labels = self._label_of() if self._episode.product is None else {}
        lines = [f"{labels[line.lower()]}: {line}" if line.lower() in labels else line for line in self._episode.lines]
        return "\n".join(lines[lines.index(self.task) + 1 :] if self.task in lines else lines)

    def _label_of(self) -> dict[str, str]:
        """What is labelled on this page -> its label."""
        if not self._labels:
            return {}
        if self._episode.product is not None:
            return self._episode.product.option_of
        return {product.asin.lower(): str(place) for place, product in enumerate(self._episode.listed, start=1)}
