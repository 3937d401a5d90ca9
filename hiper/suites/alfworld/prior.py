"""Where things usually lie, counted in training games: all that the expert knows before it looks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hiper.suites.alfworld.world import read_game_file
from hiper.suites.tasks import TaskIndex

TYPE = re.compile(r"\((?:object|receptacle)Type (\S+) (\w+)Type\)")
INSIDE = re.compile(r"\(inReceptacle (\S+) (\S+)\)")
_RECEPTACLE = re.compile(r"\(receptacleType (\S+) (\w+)Type\)")
_OPENABLE = re.compile(r"\(openable (\S+)\)")


@dataclass(frozen=True, slots=True)
class LocationPrior:
    """Mean number of objects of a type in one receptacle of a type."""

    counts: dict[str, dict[str, float]]
    """Object type -> receptacle type -> objects found there, in lower case."""
    instances: dict[str, dict[str, float]]
    """Object type -> receptacle type -> receptacles of that type in the games that have the object."""
    openable: dict[str, float]
    """Receptacle type -> share that starts closed: opening takes a turn more."""

    def score(self, thing: str, receptacle: str) -> float:
        """How much one receptacle of this type is worth a visit when looking for such an object; 0 for a pair never seen."""
        found = self.counts.get(thing, {}).get(receptacle, 0.0)
        return found / self.instances[thing][receptacle] if found else 0.0

    @classmethod
    def learn(cls, index: TaskIndex, split: str = "train") -> LocationPrior:
        """Count the initial places in the games of a split.

        Raises:
            DataError: the split is empty, or a game file cannot be read.
        """
        return cls.count(index.resolve(entry) for entry in index.split(split))

    @classmethod
    def count(cls, files: Iterable[Path]) -> LocationPrior:
        """Count the initial places in game files.

        Raises:
            DataError: a file cannot be read.
        """
        counts: dict[str, Counter[str]] = {}
        instances: dict[str, Counter[str]] = {}
        shut: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for file in files:
            problem = _problem(file)
            types = {name: kind.lower() for name, kind in TYPE.findall(problem)}
            furniture = Counter(kind.lower() for _, kind in _RECEPTACLE.findall(problem))
            total.update(furniture)
            shut.update(types[place] for place in _OPENABLE.findall(problem) if place in types)
            pairs = [(types[thing], types[place]) for thing, place in INSIDE.findall(problem) if thing in types and place in types]
            for thing, place in pairs:
                counts.setdefault(thing, Counter())[place] += 1
            for thing in {thing for thing, _ in pairs}:
                instances.setdefault(thing, Counter()).update(furniture)
        return cls(
            counts={thing: dict(places) for thing, places in counts.items()},
            instances={thing: dict(places) for thing, places in instances.items()},
            openable={place: shut[place] / total[place] for place in shut},
        )


def _problem(file: Path) -> str:
    return str(read_game_file(file)["pddl_problem"])
