"""Settings of the tasks, their environments and the demonstrations on them, as far as all suites share them.

"Paper" is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hiper.config.checks import require


class Source(StrEnum):
    """Where tasks come from."""

    generated = "generated"
    official = "official"


@dataclass
class TasksConfig:
    """The task index and, for `generated`, the tasks themselves."""

    source: Source = Source.generated
    """`generated`: made by the suite; `official`: the released tasks."""
    data: str | None = None
    """Official data directory; unset: where the suite looks (ALFWorld: $ALFWORLD_DATA, fetched when missing; WebShop: $WEBSHOP_DATA)."""
    seed: int = 0
    """Seed of the generator; apart from the run's seed so that seeds of a comparison share their tasks."""
    limit: int | None = None
    """Keep at most this many tasks per split; unset: all."""

    def __post_init__(self) -> None:
        require(self.limit is None or self.limit >= 1, "tasks.limit", self.limit, "at least 1, or null for all")


@dataclass
class EnvConfig:
    """The environment an agent acts in."""

    name: str = "alfworld"
    """The suite of tasks, see `hiper.suites.registry`."""
    max_turns: int = 50
    """Turns before an episode is truncated (paper, ALFWorld: 50; WebShop, by its log: 15)."""

    def __post_init__(self) -> None:
        require(self.max_turns >= 1, "env.max_turns", self.max_turns, "at least 1")


@dataclass
class DemosConfig:
    """Plan-execute demonstrations for the warm start, always from the training split."""

    count: int = 1000
    """Demonstrations written; tasks are cycled through with fresh names when there are fewer tasks."""
    processes: int = 1
    """Processes that share the tasks. Another number of them changes what is drawn, and so the demonstrations."""
    seed: int = 0
    slips: float = 0.0
    """Probability that a turn is an error made on purpose, shown but not learned: what follows teaches the way back."""
    rounds: float = 0.0
    """Probability that a turn begins a walk of 2 to 6 turns round places seen already, shown but not learned: what follows ends it."""
    lapses: float = 0.0
    """Share of demonstrations in which something is left undone for reward to teach: what, the suite says (`Wording.lapses`)."""

    def __post_init__(self) -> None:
        require(self.count >= 1, "demos.count", self.count, "at least 1")
        require(1 <= self.processes <= max(1, self.count), "demos.processes", self.processes, f"1 to demos.count={self.count}")
        require(0.0 <= self.slips < 1.0, "demos.slips", self.slips, "at least 0 and below 1")
        require(0.0 <= self.rounds < 1.0, "demos.rounds", self.rounds, "at least 0 and below 1")
        require(0.0 <= self.lapses <= 1.0, "demos.lapses", self.lapses, "between 0 and 1")
