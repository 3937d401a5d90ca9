"""What a sweep is: the files of `sweeps/`, their schema and the checks that need no training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from hiper.composition.compose import compose, override, read_settings
from hiper.config import RunConfig
from hiper.config.places import is_group
from hiper.errors import ConfigError
from hiper.runs.fingerprint import fingerprint

OWN = ("name", "seed", "paths.run")
"""Settings that a sweep gives to its trials itself."""


class SamplerName(StrEnum):
    """Who proposes the next trial's settings."""

    tpe = "tpe"
    random = "random"


class PrunerName(StrEnum):
    """Who stops a trial that does worse than others did at the same iteration."""

    none = "none"
    median = "median"
    hyperband = "hyperband"


@dataclass
class Dimension:
    """The values one setting may take: a range (`low`, `high`), or `choices`."""

    low: Any = None
    high: Any = None
    log: bool = False
    """Equal shares of a range's magnitudes, not of its values."""
    whole: bool = False
    """Whole numbers only."""
    choices: list[Any] | None = None
    """As on the command line; a list is text: "[low,high]"."""
    when: dict[str, list[Any]] = field(default_factory=dict)
    """Only where each of these settings, listed before this one, has one of the values."""

    def extremes(self) -> list[Any]:
        """The choices, or the ends of the range."""
        if self.choices is not None:
            return self.choices
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    def where(self) -> dict[str, Any]:
        """Settings under which it is part of a trial: the first value of each condition."""
        return {key: values[0] for key, values in self.when.items() if values}


@dataclass
class Sampler:
    """How the settings of a trial are drawn."""

    name: SamplerName = SamplerName.tpe
    seed: int = 0
    startup: int = 10
    """Trials drawn at random before the sampler learns from them."""


@dataclass
class Pruner:
    """When a trial that does badly is stopped."""

    name: PrunerName = PrunerName.median
    startup: int = 5
    """`median`: complete trials before any is stopped."""
    warmup: int = 0
    """`median`: iterations a trial always gets."""
    reduction: int = 3
    """`hyperband`: of so many trials, one goes on to so many times the iterations."""


@dataclass
class SweepSpec:
    """One study."""

    name: str = "???"
    base: list[str] = field(default_factory=list)
    """Overrides all trials share, such as experiment=quickstart."""
    space: dict[str, Dimension] = field(default_factory=dict)
    """Setting -> its values."""
    trials: int = 24
    seeds: list[int] = field(default_factory=lambda: [0])
    """A trial trains once with each; its objective is the mean."""
    last: int = 5
    """The objective is the mean success of a training's last so many evaluations."""
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    budget: int | None = None
    """Turns of the environment after which no trial is begun; unset: no limit."""
    storage: str | None = None
    """SQLAlchemy URL that all workers reach; unset: SQLite in `directory`. A password comes from outside: ${oc.env:STUDY_DB}."""
    directory: str | None = None
    """Where trials lie; unset: runs/sweeps/NAME."""
    best: str | None = None
    """Name of the experiment file the best settings are written to; unset: NAME_best."""
    heartbeat: int = 30
    """Seconds between a worker's heartbeats; a worker without one for four times as long has died."""
    retries: int = 3
    """How often a trial is taken up again after its worker died or was stopped."""

    @property
    def place(self) -> Path:
        """The sweep's directory."""
        return Path(self.directory or f"runs/sweeps/{self.name}")

    @property
    def best_name(self) -> str:
        """The name of the experiment file."""
        return self.best or f"{self.name}_best"

    def mark(self) -> str:
        """Hash of what must not change while a study grows; more trials, another pruner or sampler do no harm."""
        parts = dataclasses.asdict(self)
        return fingerprint({name: parts[name] for name in ("name", "base", "space", "seeds", "last")})

    def compose(self, settings: Mapping[str, Any], seed: int, run: Path) -> RunConfig:
        """The config of one training.

        Args:
            settings: of the space, those that apply.
            seed: of the training.
            run: its directory.

        Raises:
            ConfigError: settings that cannot stand together.
        """
        chosen = {key: as_override(key, value) for key, value in settings.items()}
        files = [text for key, text in chosen.items() if is_group(key)]
        values = [text for text in chosen.values() if text not in files]
        return override(_composed(*self.base, *files), [*values, f"name={self.name}", f"seed={seed}", f"paths.run={run}"])

    def ends(self, seed: int) -> Iterator[RunConfig]:
        """Configs with one setting each at the ends of its range, or at each of its choices."""
        for key, one in self.space.items():
            for value in one.extremes():
                yield self.compose({**one.where(), key: value}, seed, self.place)


def load_spec(path: Path, overrides: Sequence[str] = ()) -> SweepSpec:
    """Read and check the file of a sweep.

    Args:
        path: a YAML file such as sweeps/hae.yaml.
        overrides: changes to it: trials=8, sampler.seed=1.

    Raises:
        ConfigError: no such file, unknown or impossible settings, of the sweep or of its trials; all of the space's at once.
    """
    if not path.exists():
        known = ", ".join(sorted(map(str, path.parent.glob("*.yaml")))) or f"none in {path.parent}"
        raise ConfigError(f"there is no sweep {path}. Sweeps there: {known}.")
    try:
        spec = read_settings(SweepSpec, path, overrides)
    except ConfigError as error:
        raise ConfigError(f"{error} It does not state a sweep; sweeps/hae.yaml does.") from error
    problems = [*_own_problems(spec), *(problem for key in spec.space for problem in _space_problems(spec, key))] or _base_problems(spec)
    if problems:
        raise ConfigError(f"{path} cannot stand:\n" + "\n".join(f"  - {problem}" for problem in problems))
    return spec


def _own_problems(spec: SweepSpec) -> Iterator[str]:
    if not spec.name.replace("_", "").replace("-", "").isalnum() or not spec.best_name.replace("_", "").replace("-", "").isalnum():
        yield f"name={spec.name!r}, best={spec.best_name!r} must be letters, digits, - and _: they name a directory and a file."
    if not spec.space:
        yield "space is empty: state at least one setting and its values."
    if not spec.seeds or len(set(spec.seeds)) != len(spec.seeds):
        yield f"seeds={spec.seeds} must be different numbers, at least one."
    for name, least in (("trials", 1), ("last", 1), ("heartbeat", 1), ("retries", 0), ("budget", 1)):
        value = getattr(spec, name)
        if value is not None and value < least:
            yield f"{name}={value} must be at least {least}."
    if spec.pruner.reduction < 2:
        yield f"pruner.reduction={spec.pruner.reduction} must be at least 2."
    for text in spec.base:
        if text.split("=")[0].strip() in OWN:
            yield f"base sets {text!r}, which the sweep gives to each trial itself."


def _space_problems(spec: SweepSpec, key: str) -> Iterator[str]:
    one = spec.space[key]
    if key in OWN:
        yield f"space.{key} is given to each trial by the sweep itself."
    if one.choices is not None:
        if not one.choices or one.low is not None or one.high is not None or one.log or one.whole:
            yield f"space.{key}: choices stand alone, and there is at least one."
        if any(not isinstance(choice, str | int | float | bool | None) for choice in one.choices):
            yield f'space.{key}: a choice that is a list is written as text: "[low,high]".'
    elif not all(isinstance(end, int | float) and not isinstance(end, bool) for end in (one.low, one.high)):
        yield f"space.{key} needs numbers low and high, or choices."
    elif one.low >= one.high or not math.isfinite(one.low) or not math.isfinite(one.high):
        yield f"space.{key}: low={one.low} must lie below high={one.high}."
    elif one.log and one.low <= 0:
        yield f"space.{key}: low={one.low} must be above 0 for a log scale."
    elif one.whole and (one.low != int(one.low) or one.high != int(one.high)):
        yield f"space.{key}: whole numbers lie between whole numbers, not {one.low} and {one.high}."
    before = list(spec.space)[: list(spec.space).index(key)]
    for condition in one.when:
        if condition not in before:
            yield f"space.{key}: when names {condition!r}, which must be listed before it."


def _base_problems(spec: SweepSpec) -> list[str]:
    """What the base, and each end and choice of the space on top of it, would be refused for."""
    try:
        cfg = spec.compose({}, spec.seeds[0], spec.place)
    except ConfigError as error:
        return [f"base: {error}"]
    problems = []
    for key, one in spec.space.items():
        for value in one.extremes():
            try:
                spec.compose({**one.where(), key: value}, spec.seeds[0], spec.place)
            except ConfigError as error:
                problems.append(f"space.{key}: {error}")
    if cfg.trainer.eval_every == 0:
        problems.append("base: trainer.eval_every=0 never evaluates, and the objective is the mean of evaluations.")
    return problems


@cache
def _composed(*overrides: str) -> RunConfig:
    return compose(overrides)


def as_override(key: str, value: Any) -> str:
    """A setting of the space as it is written on the command line."""
    return f"{key}=" + ("null" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
