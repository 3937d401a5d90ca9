"""Settings that only ALFWorld reads: the section `alfworld`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hiper.config.checks import require

TRAIN = "train"
SPLITS = (TRAIN, "valid_seen", "valid_unseen")

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""The six task types, in the order of their ALFRED numbers (`pick_two` is 6; `movable`, 5, is left out)."""


class Engine(StrEnum):
    """Which program plays a game file."""

    native = "native"
    textworld = "textworld"


@dataclass
class ALFWorldConfig:
    """What only ALFWorld has: its generator, its engine, and how its demonstrations vary."""

    train: int = 1000
    """Generated training games (train scenes)."""
    valid_seen: int = 120
    """Generated games in train scenes with layouts never trained on."""
    valid_unseen: int = 120
    """Generated games in scenes never trained on."""
    max_receptacles: int = 40
    """Most receptacles a generated scene keeps; real floor plans have up to about 40."""
    max_objects: int = 60
    """Most objects the generator places in a scene."""
    task_types: list[str] = field(default_factory=lambda: list(TASK_TYPES))
    """Which of the six task types to keep."""
    engine: Engine = Engine.native
    """`native`: ours; `textworld`: the original `alfworld` package, hundreds of times slower."""
    fresh: bool = False
    """Generate a new training game in memory for every demonstration (tasks.source=generated): variety beats epochs."""
    renumber: bool = True
    """Give the objects and receptacles of a scene new numbers in each demonstration."""
    scatter: float = 0.0
    """Share of demonstrations before which the things in a training game are laid out anew, unless that wins it; rooms and tasks stay."""
    detours: float = 0.0
    """Probability that a search turn of a demonstration visits a random place, not the likeliest one; shows recovery from dead ends."""

    def __post_init__(self) -> None:
        for name in SPLITS:
            require(getattr(self, name) >= 1, f"alfworld.{name}", getattr(self, name), "at least 1")
        require(self.max_receptacles >= 6, "alfworld.max_receptacles", self.max_receptacles, "at least 6")
        require(self.max_objects >= 10, "alfworld.max_objects", self.max_objects, "at least 10")
        unknown = [name for name in self.task_types if name not in TASK_TYPES]
        known = not unknown and bool(self.task_types)
        require(known, "alfworld.task_types", unknown or self.task_types, f"some of {', '.join(TASK_TYPES)}")
        for name in ("scatter", "detours"):
            require(0.0 <= getattr(self, name) <= 1.0, f"alfworld.{name}", getattr(self, name), "between 0 and 1")
