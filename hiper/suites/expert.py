"""What experts of all environments share: their decisions, and playing an episode with one.

`demonstrate` can spoil an expert's play on purpose, in two of the ways human action fails (Reason, Human Error, 1990): by slips, things
done that were not meant, so that demonstrations show the way back from an agent's likely errors; and by lapses, things meant and not done,
so that they are left to reward to teach.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from hiper.suites.base import TextEnv


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One decision: whether to start a new subgoal, the subgoal in force, and the command."""

    switch: bool
    subgoal: str
    action: str
    slip: bool = False
    """Not the expert's own choice: an error made on purpose, to be shown but not to be learned."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An episode played by the expert."""

    task: str
    turns: list[tuple[str, PlanStep]]
    """The observation each decision was taken on, and the decision."""
    admissible: list[list[str]]
    """Commands that did something, turn by turn."""
    won: bool
    complete: bool
    """Whether the expert came to its end: won, or all done but for a lapse."""
    final_observation: str


# A network that has gone to and fro a few times finds going on like that the likeliest. Walks of so many turns show how one ends.
_ROUND_TURNS = (2, 6)


class Expert(Protocol):
    """Plays by what it sees: the task, observations and admissible commands."""

    @property
    def through(self) -> bool:
        """It takes itself to be done, whatever the environment says."""

    @property
    def stops(self) -> bool:
        """Nothing more is to be shown."""

    def start(self, task: str, observation: str, lapse: bool = False) -> None:
        """Begin an episode; `lapse`: leave out what is to be left to reward."""

    def act(self, observation: str, admissible: list[str]) -> PlanStep:
        """The next decision, on what the environment said last."""

    def slip(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep:
        """An error instead of the decision just taken; play it, then `act` again."""

    def stray(self, step: PlanStep, admissible: list[str], rng: random.Random) -> PlanStep | None:
        """A step of going round in what it has seen already, instead of the decision just taken; None: there is none."""


def demonstrate(
    env: TextEnv,
    expert: Expert,
    max_turns: int,
    slips: float = 0.0,
    rng: random.Random | None = None,
    *,
    lapse: bool = False,
    rounds: float = 0.0,
) -> Demonstration:
    """Let the expert play one task.

    Args:
        env: reset here.
        expert: started here.
        max_turns: turns before giving up.
        slips: probability that a turn is an error made on purpose.
        rng: needed for slips.
        lapse: let the expert leave something undone; the episode ends where it has no more to show.
        rounds: probability that a turn begins a walk of several turns round what it has seen already, each an error made on purpose.

    Raises:
        DataError: the task is in none of the official wordings.
    """
    observation = env.reset()
    expert.start(env.task, observation, lapse)
    rng = rng if rng is not None else random.Random(0)
    turns, commands = [], []
    straying = 0
    for _ in range(max_turns):
        admissible = env.admissible_commands
        step = expert.act(observation, admissible)
        if rounds and not straying and rng.random() < rounds:
            straying = rng.randint(*_ROUND_TURNS)
        strayed = expert.stray(step, admissible, rng) if straying else None
        straying = straying - 1 if strayed is not None else 0
        if strayed is not None:
            step = strayed
        elif slips and rng.random() < slips:
            step = expert.slip(step, admissible, rng)
        turns.append((observation, step))
        commands.append(admissible)
        result = env.step(step.action)
        observation = result.observation
        if result.terminated or expert.stops:
            break
    return Demonstration(env.task, turns, commands, env.won, env.won or expert.through, observation)
