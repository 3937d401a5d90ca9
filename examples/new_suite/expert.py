"""The expert: it opens boxes until it finds the key, and then the chest. Its interface is `hiper.suites.expert.Expert`."""

from __future__ import annotations

import random

from vault import CHEST

from hiper.suites.expert import PlanStep


class VaultExpert:
    """Two subgoals: find the key, open the chest."""

    stops = False
    """Nothing is left out of its demonstrations."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.through = False

    def start(self, task: str, observation: str, lapse: bool = False) -> None:
        self._subgoal = ""
        self.through = False

    def act(self, observation: str, admissible: list[str]) -> PlanStep:
        self.through = CHEST in admissible
        subgoal = "open the chest" if self.through else "find the key"
        switch, self._subgoal = subgoal != self._subgoal, subgoal
        return PlanStep(switch, subgoal, CHEST if self.through else self._rng.choice(admissible))

    def slip(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep:
        return PlanStep(step.switch, step.subgoal, rng.choice(admissible), slip=True)

    def stray(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep | None:
        return None
