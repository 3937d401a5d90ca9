"""An expert that shops by what it reads: the task, the page and what can be clicked.

It searches for all that the task says but the price, opens the first product that is not too dear, goes back if an option it needs
is not to be had, chooses options, and buys. Its subgoals: `find ...` with the words the task begins with, `choose color: red` for each
option as the task writes it, `buy it`. After an error it goes on from the page it finds itself on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from dataclasses import dataclass

from hiper.suites.expert import PlanStep
from hiper.suites.webshop.pages import BACK, BUY, NEXT, PREV, SUB_PAGES

TRIES = 4
"""Products looked at before the best of them is bought, whatever it lacks."""

_PRICE = re.compile(r",? and price lower than ([\d.]+) dollars$")
_NAME = r"(?:(?! with )[^:,])+"  # of an option
_OPTIONS = re.compile(rf" with ({_NAME}: .+)$")
_BUY = "buy it"
_THING = 8  # words of it; else a task without a form would fill the subgoal


@dataclass(frozen=True)
class Wanted:
    """What a task asks for."""

    query: str
    """All of it but the price: "hand wash women's sweaters with long sleeve with color: red"."""
    thing: str
    """How that begins: "hand wash women's sweaters"."""
    options: dict[str, str]
    """Name -> value."""
    cap: float
    """Most it may cost, in dollars."""


def parse_task(task: str) -> Wanted:
    """Read an instruction, which has no such form where a person wrote it."""
    price = _PRICE.search(task)
    query = re.sub(r"[\[\]]", " ", _PRICE.sub("", task).removeprefix("Find me "))
    listed = _OPTIONS.search(query)
    options = dict(part.split(": ", 1) for part in re.split(rf", and (?={_NAME}: )", listed[1])) if listed else {}
    thing = " ".join(re.split(r" with | for ", query, maxsplit=1)[0].split()[:_THING])
    return Wanted(query, thing, options, float(price[1]) if price else float("inf"))


class Expert:
    """Shops.

    Args:
        labels: whether products and options come with labels.
    """

    def __init__(self, *, labels: bool = False) -> None:
        self._labels = labels

    def start(self, task: str, observation: str, lapse: bool = False) -> None:
        """Begin an episode.

        Args:
            task: the instruction.
            observation: the first one.
            lapse: buy without choosing options.
        """
        self._wanted, self._lapse = parse_task(task), lapse
        self._tried: dict[str, int] = {}  # ASIN, as clicked -> options it lacks
        self._product: str | None = None
        self._chosen: dict[str, str] = {}
        self._subgoal: str | None = None
        self._before: tuple[str | None, dict[str, str]] = (None, {})
        self._bought = False

    @property
    def through(self) -> bool:
        """It has bought something and left out nothing but what a lapse is to leave out."""
        return self._bought and self._lapse

    @property
    def stops(self) -> bool:
        """Never: a purchase ends the episode."""
        return False

    def act(self, observation: str, admissible: list[str]) -> PlanStep:
        """The next decision.

        Args:
            observation: what the environment said last.
            admissible: commands that do something now.
        """
        commands = self._commands(admissible)
        self._before = self._product, dict(self._chosen)
        subgoal, text = self._decide([self._plain(line) for line in observation.split("\n")], commands)
        self._went(text, commands)
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        return PlanStep(switch, subgoal, commands.get(text, text))

    def slip(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep:
        """An error instead of the decision just taken: any click but the purchase, or a search for something else.

        Args:
            step: what `act` returned.
            admissible: commands that do something now.
            rng: advanced.
        """
        self._product, self._chosen = self._before
        self._bought = False
        commands = self._commands(admissible)
        clicks = [text for text, command in commands.items() if text != BUY.lower() and command != step.action]
        if clicks:
            text = rng.choice(clicks)
        else:
            words = self._wanted.query.split()
            text = f"search[{' '.join(rng.sample(words, (len(words) + 1) // 2))}]"
        subgoals = [f"find {self._wanted.thing}", _BUY, *(_choosing(*option) for option in self._wanted.options.items())]
        switch, subgoal = step.switch, step.subgoal
        if rng.random() < 0.5:
            switch, subgoal = True, rng.choice([other for other in subgoals if other != step.subgoal])
        self._subgoal = subgoal
        self._went(text, commands)
        return PlanStep(switch, subgoal, commands.get(text, text), slip=True)

    def stray(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep | None:
        """Never: in a shop there is no going round."""
        return None

    def _decide(self, lines: list[str], clickables: Collection[str]) -> tuple[str, str]:
        """Subgoal, and the text to click or a whole search."""
        find = f"find {self._wanted.thing}"
        if BACK.lower() not in clickables:
            return find, f"search[{self._wanted.query}]"
        if NEXT.lower() in clickables or any(line.startswith("Page ") for line in lines[1:2]):
            return find, self._open(lines, clickables)
        if BUY.lower() not in clickables:
            return self._subgoal or find, PREV.lower()
        lacking = [value for value in self._wanted.options.values() if value not in clickables]
        if self._product is not None and lacking and self._product not in self._tried:
            self._tried[self._product] = len(lacking)
            return find, PREV.lower()
        for name, value in self._wanted.options.items():
            if not self._lapse and value in clickables and self._chosen.get(name) != value:
                return _choosing(name, value), value
        return _BUY, BUY.lower()

    def _open(self, lines: list[str], clickables: Collection[str]) -> str:
        """A product of a page of results."""
        offers = [
            (place, line.lower()) for place, line in enumerate(lines) if line.lower() in clickables and line not in (BACK, PREV, NEXT)
        ]
        if not offers:
            return BACK.lower()
        prices = {asin: re.match(r"\$([\d.]+)", (lines[place : place + 3] + ["", ""])[2]) for place, asin in offers}
        fit = [asin for asin, price in prices.items() if price is None or float(price[1]) <= self._wanted.cap] or list(prices)
        fresh = [asin for asin in fit if asin not in self._tried]
        if fresh and len(self._tried) < TRIES:
            return fresh[0]
        return min(fit, key=lambda asin: self._tried.get(asin, len(self._wanted.options)))

    def _went(self, text: str, clickables: Collection[str]) -> None:
        """Remember which product is open and what has been chosen: pages do not show it."""
        if text not in clickables or text == BACK.lower():
            self._product, self._chosen = None, {}
        elif text == PREV.lower():
            if BUY.lower() in clickables:
                self._product, self._chosen = None, {}
        elif text == BUY.lower():
            self._bought = True
        elif BUY.lower() in clickables:
            if text not in (name.lower() for name in SUB_PAGES):
                name = next((name for name, value in self._wanted.options.items() if value == text), None)
                if name is None:
                    self._chosen = {}  # which option that was is not known; choose all again
                else:
                    self._chosen[name] = text
        elif text != NEXT.lower():
            self._product, self._chosen = text, {}

    def _commands(self, admissible: list[str]) -> dict[str, str]:
        """Text of what can be clicked -> the command."""
        clicks = (command for command in admissible if command.startswith("click["))
        return {self._plain(command.removeprefix("click[").removesuffix("]")): command for command in clicks}

    def _plain(self, text: str) -> str:
        """A line or text without its label."""
        label, mark, rest = text.partition(": ")
        return rest if self._labels and mark and label == label.lower() else text


def _choosing(name: str, value: str) -> str:
    return f"choose {name}: {value}"
