"""A comparison's file: what is compared, from which warm start, with which seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.runs.plan import has_sft
from hiper.runtime.reading import read_yaml

BASE = "base"
"""Folder of the warm start's run; no arm has this name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison."""

    arm: str
    seed: int
    cfg: RunConfig


@dataclass(frozen=True)
class Comparison:
    """Arms times seeds."""

    name: str
    base: tuple[str, ...]
    """Overrides that all arms share; with one warm start, what composes its run."""
    arms: Mapping[str, tuple[str, ...]]
    """Name -> overrides on top of the base."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the training; one warm start for all has the base's own."""
    thresholds: tuple[float, ...] = field(default=(0.5, 0.7, 0.8, 0.9))
    """Success rates whose first reach is reported in environment turns."""
    own_start: bool = False
    """Every run does all stages itself and has a warm start of its own seed; else all go on from one. Demonstrations are `demos.seed`'s."""

    @property
    def one_start(self) -> bool:
        """Whether all runs go on from one warm start. Where the suite has no expert, each starts from the base model of its own seed."""
        return not self.own_start and has_sft(self.base_cfg)

    @property
    def folder(self) -> Path:
        """Where its runs live."""
        return Path("runs") / self.name

    @property
    def base_cfg(self) -> RunConfig:
        """The run that makes tasks, demonstrations and warm start, and evaluates that."""
        return compose([*self.base, f"paths.run={self.folder / BASE}"])

    def cell(self, part: str) -> Cell:
        """The cell ARM/SEED.

        Raises:
            ConfigError: the comparison has none of that name, or an arm's settings do not compose.
        """
        found = {f"{one.arm}/{one.seed}": one for one in self.cells()}
        if part not in found:
            parts = [*([BASE] if self.one_start else []), *found]
            raise ConfigError(f"comparison {self.name!r} has no part {part!r}; it has {', '.join(parts)}.")
        return found[part]

    def cells(self) -> list[Cell]:
        """Every arm with every seed, the seeds of an arm together last: what is done early says something of all arms.

        Raises:
            ConfigError: an arm's settings do not compose.
        """
        base = self.base_cfg
        shared = (f"sft.seed={base.sft_seed}", "evaluate.baseline=false", f"paths.base={base.paths.run}")
        start = shared if self.one_start else ("evaluate.baseline=true",)
        found = []
        for seed in self.seeds:
            for arm, changes in self.arms.items():
                place = self.folder / arm / f"seed-{seed}"
                overrides = (*self.base, *changes, f"seed={seed}", *start, f"paths.run={place}")
                try:
                    found.append(Cell(arm, seed, compose(overrides)))
                except ConfigError as error:
                    raise ConfigError(f"arm {arm!r} of comparison {self.name!r}: {error}") from error
        return found


def load_comparison(path: Path, changes: Sequence[str] = ()) -> Comparison:
    """Read a comparison from YAML.

    Args:
        path: a file with the keys of `Comparison`.
        changes: overrides that go on top of the base, for all arms.

    Raises:
        ConfigError: no such file, not YAML, or a key that is missing, unknown or of the wrong kind.
    """
    if not path.exists():
        raise ConfigError(f"there is no comparison at {path}. Ours are in comparisons/: hiper compare comparisons/estimators.yaml.")
    try:
        found = read_yaml(path)
    except DataError as error:
        raise ConfigError(str(error)) from error
    known = [entry.name for entry in fields(Comparison)]
    if not isinstance(found, dict) or not {"name", "base", "arms"} <= found.keys() or not found.keys() <= set(known):
        raise ConfigError(f"{path} is not a comparison: it needs name, base and arms, and may have {', '.join(known[3:])}, nothing else.")
    try:
        return Comparison(
            name=_name(found["name"], "name"),
            base=(*_words(found["base"], "base"), *changes),
            arms={_name(arm, "arms"): _words(words or [], f"arms.{arm}") for arm, words in _mapping(found["arms"]).items()},
            seeds=tuple(_seed(seed) for seed in found.get("seeds", Comparison.seeds)),
            thresholds=tuple(_share(value) for value in found.get("thresholds", (0.5, 0.7, 0.8, 0.9))),
            own_start=_yes_or_no(found.get("own_start", False), "own_start"),
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _name(value: Any, key: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{key}: {value!r} cannot name a folder; use letters, digits, '-', '_' and '.'.")
    return value


def _words(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{key} must be a list of overrides such as [algo.gamma=0.9]; got {value!r}.")
    return tuple(value)


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"arms must map a name to a list of overrides; got {value!r}.")
    return value


def _yes_or_no(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false; got {value!r}.")
    return value


def _share(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError(f"thresholds must be success rates from 0 to 1; got {value!r}.")
    return float(value)


def _seed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"seeds must be whole numbers of at least 0; got {value!r}.")
    return value
