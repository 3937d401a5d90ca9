"""What the collector needs of an environment: text in, text out, and a state that can be put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

WORDS = "<your query>"
"""In a command: words of the agent's own."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """Outcome of one command."""

    observation: str
    reward: float
    """The environment's own units; ALFWorld: 1 on the winning step, else 0."""
    terminated: bool
    """The task ended. A turn limit is the collector's business and is not reported here."""


class TextEnv(Protocol):
    """One episode at a time of a text environment."""

    @property
    def task(self) -> str:
        """The goal sentence, without its lead-in."""

    @property
    def admissible_commands(self) -> list[str]:
        """Commands that do something now, in the environment's own order. One may hold `WORDS` once."""

    @property
    def won(self) -> bool:
        """Whether the goal holds."""

    @property
    def score(self) -> float:
        """How much of the goal is reached, 0 to 1; 1 is won."""

    def reset(self) -> str:
        """Start the episode again; the first observation."""

    def step(self, command: str) -> StepResult:
        """Play one command; an unknown one changes nothing."""

    def state(self) -> Any:
        """A JSON-able snapshot of the episode."""

    def restore(self, state: Any) -> None:
        """Continue from a snapshot of the same task."""
