"""The environment: a key in one of some boxes, and a chest that it opens. Its interface is `hiper.suites.base.TextEnv`."""

from __future__ import annotations

import random
from typing import Any

from hiper.suites.base import StepResult

COLOURS = ("red", "blue", "green", "grey", "white", "black")
CHEST = "unlock chest"


class Vault:
    """One task; its number says where the key is."""

    task = "open the chest"

    def __init__(self, number: int, boxes: int) -> None:
        self._colours = COLOURS[:boxes]
        self._place = random.Random(number).choice(self._colours)
        self.reset()

    def reset(self) -> str:
        self._opened: list[str] = []
        self.won = False
        return f"You see a chest, and boxes: {', '.join(self._colours)}."

    @property
    def score(self) -> float:
        return float(self.won)

    @property
    def admissible_commands(self) -> list[str]:
        return [*(f"open {colour} box" for colour in self._colours if colour not in self._opened), *([CHEST] if self._has_key else [])]

    @property
    def _has_key(self) -> bool:
        return self._place in self._opened

    def step(self, command: str) -> StepResult:
        if command not in self.admissible_commands:
            return StepResult("Nothing happens.", 0.0, False)
        if command == CHEST:
            self.won = True
            return StepResult("The chest is open.", 1.0, True)
        self._opened.append(command.split()[1])
        return StepResult("You find the key." if self._has_key else "The box is empty.", 0.0, False)

    def state(self) -> Any:
        return {"opened": self._opened, "won": self.won}

    def restore(self, state: Any) -> None:
        self._opened, self.won = list(state["opened"]), state["won"]
