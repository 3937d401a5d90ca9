"""Settings of the tasks, their environments and the demonstrations on them.

"Paper" is HiPER, arXiv:2602.16165; "log" is one of its authors' committed training logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hiper.config.checks import require


class Source(StrEnum):
    """Where tasks come from."""

    generated = "generated"
    official = "official"


class Engine(StrEnum):
    """Which program plays a task file."""

    native = "native"
    textworld = "textworld"


class Pay(StrEnum):
    """What an episode of WebShop pays: 1 for a score of exactly 1 and nothing for less (published), or its score."""

    success = "success"
    score = "score"


TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""ALFWorld's six task types, in the order of their ALFRED numbers (`pick_two` is 6; `movable`, 5, is left out)."""


SPLITS = ("train", "valid_seen", "valid_unseen")


SUITE_SETTINGS = (
    "env.engine",
    *(f"tasks.{name}" for name in ("train", "valid_seen", "valid_unseen", "max_receptacles", "max_objects", "task_types")),
    *(f"demos.{name}" for name in ("fresh", "renumber", "scatter", "detours")),
    "webshop",
)
"""Settings, and sections, that are not for every suite; which of them one reads, it says itself (`hiper.suites.suite.Suite.reads`)."""


@dataclass
class TasksConfig:
    """The task index and, for `generated`, the tasks themselves."""

    source: Source = Source.generated
    """`generated`: from the floor plans `alfworld` ships; `official`: the released tasks."""
    data: str | None = None
    """Official data directory; unset: $ALFWORLD_DATA, fetched with `alfworld-download` when missing."""
    seed: int = 0
    """Seed of the generator; apart from the run's seed so that seeds of a comparison share their tasks."""
    train: int = 1000
    """Generated training tasks (train scenes)."""
    valid_seen: int = 120
    """Generated tasks in train scenes with layouts never trained on."""
    valid_unseen: int = 120
    """Generated tasks in scenes never trained on."""
    max_receptacles: int = 40
    """Most receptacles a generated scene keeps; real floor plans have up to about 40."""
    max_objects: int = 60
    """Most objects the generator places in a scene."""
    task_types: list[str] = field(default_factory=lambda: list(TASK_TYPES))
    """Which of the six task types to keep."""
    limit: int | None = None
    """Keep at most this many tasks per split; unset: all."""

    def __post_init__(self) -> None:
        for name in ("train", "valid_seen", "valid_unseen"):
            require(getattr(self, name) >= 1, f"tasks.{name}", getattr(self, name), "at least 1")
        require(self.max_receptacles >= 6, "tasks.max_receptacles", self.max_receptacles, "at least 6")
        require(self.max_objects >= 10, "tasks.max_objects", self.max_objects, "at least 10")
        require(self.limit is None or self.limit >= 1, "tasks.limit", self.limit, "at least 1, or null for all")
        unknown = [name for name in self.task_types if name not in TASK_TYPES]
        require(not unknown and bool(self.task_types), "tasks.task_types", unknown or self.task_types, f"some of {', '.join(TASK_TYPES)}")


@dataclass
class EnvConfig:
    """The environment an agent acts in."""

    name: str = "alfworld"
    """The suite of tasks, see `hiper.suites.registry`."""
    engine: Engine = Engine.native
    """ALFWorld, `native`: ours; `textworld`: the original `alfworld` package, hundreds of times slower."""
    max_turns: int = 50
    """Turns before an episode is truncated (paper, ALFWorld: 50; WebShop, by its log: 15)."""

    def __post_init__(self) -> None:
        require(self.max_turns >= 1, "env.max_turns", self.max_turns, "at least 1")


@dataclass
class WebShopConfig:
    """What only WebShop has; the catalogue is that of `tasks.source`, `tasks.data` and `tasks.seed`."""

    products: int = 240
    """Generated products."""
    goal_seed: int = 233
    """Seed of true prices, price caps and the order of the goals (the original shuffles with 233)."""
    human: bool = False
    """Goals that people wrote (`items_human_ins.json`) instead of synthetic ones (published: synthetic)."""
    test: int = 500
    """Goals held out, from the start of the list (published: 500)."""
    valid: int = 100
    """Goals after those, kept out of training, too, to watch it by (published: none; Princeton's scripts keep 1,000)."""
    pay: Pay = Pay.success
    labels: bool = False
    """Agents read and write products with their place on the page and options with their name: `click[1: b09...]`, `click[color: red]`
    (published: without). A small model can say what stands out from the rest long before it can copy from afar."""
    mended: bool = False
    """Leave out a next page beyond the last (published: it is there)."""

    def __post_init__(self) -> None:
        for name in ("products", "test", "valid"):
            require(getattr(self, name) >= 1, f"webshop.{name}", getattr(self, name), "at least 1")


@dataclass
class DemosConfig:
    """Plan-execute demonstrations for the warm start, always from the training split."""

    count: int = 1000
    """Demonstrations written; tasks are cycled through with fresh names when there are fewer tasks."""
    seed: int = 0
    fresh: bool = False
    """Generate a new training task in memory for every demonstration (tasks.source=generated): variety beats epochs."""
    renumber: bool = True
    """Give the objects and receptacles of a scene new numbers in each demonstration."""
    scatter: float = 0.0
    """Share of demonstrations before which the things in a training task are laid out anew, unless that wins it; rooms and tasks stay."""
    detours: float = 0.0
    """Probability a search turn visits a random place instead of the likeliest one; shows recovery from dead ends."""
    slips: float = 0.0
    """Probability that a turn is an error made on purpose, shown but not learned: what follows teaches the way back."""
    rounds: float = 0.0
    """Probability that a turn begins a walk of 2 to 6 turns round places seen already, shown but not learned: what follows ends it."""
    lapses: float = 0.0
    """Share of demonstrations in which a thing is taken to its appliance or lamp and only examined there: reward must teach their use."""

    def __post_init__(self) -> None:
        require(self.count >= 1, "demos.count", self.count, "at least 1")
        require(0.0 <= self.detours <= 1.0, "demos.detours", self.detours, "between 0 and 1")
        require(0.0 <= self.slips < 1.0, "demos.slips", self.slips, "at least 0 and below 1")
        require(0.0 <= self.rounds < 1.0, "demos.rounds", self.rounds, "at least 0 and below 1")
        require(0.0 <= self.scatter <= 1.0, "demos.scatter", self.scatter, "between 0 and 1")
        require(0.0 <= self.lapses <= 1.0, "demos.lapses", self.lapses, "between 0 and 1")
