"""The estimators there are, by name.

Ours are the files of this package, each of which registers itself. Another package's are found by the entry-point group
`hiper.algorithms`, whose entries name a function without arguments that calls `register_algorithm`; or a program calls it before it
composes a config. Only entry points are known to every process that hiper starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, NamedTuple

from hiper.algos.types import Estimator
from hiper.config.algo import AlgoConfig, CriticConfig
from hiper.errors import ConfigError
from hiper.runtime.plugins import call_entry_points, check_name
from hiper.runtime.text import nearest

GROUP = "hiper.algorithms"
"""The entry-point group."""


class Algorithm(NamedTuple):
    """One entry."""

    settings: type[AlgoConfig]
    estimator: Callable[[Any], Estimator[Any]]
    """Settings -> the estimator of one training."""


_registered: dict[str, Algorithm] = {}


def register_algorithm(name: str, settings: type[AlgoConfig], estimator: Callable[[Any], Estimator[Any]]) -> None:
    """Make an estimator choosable as `algo=NAME`; registering the same again changes nothing.

    Args:
        name: lower-case letters, digits and `_`.
        settings: a dataclass below `AlgoConfig` (`CriticConfig`, where it has a critic) that declares `name: str = NAME`, its settings with
            their defaults, and the property `needs`.
        estimator: a subclass of `Estimator`, or what makes one of the settings.

    Raises:
        ConfigError: the name is taken or impossible, or `settings` is not as above.
    """
    check_name("an algorithm", name)
    if not (isinstance(settings, type) and issubclass(settings, AlgoConfig) and is_dataclass(settings)):
        raise ConfigError(
            f"the settings of algorithm {name!r} are {settings!r}: they must be a dataclass below hiper.config.algo.AlgoConfig."
        )
    if settings().name != name:
        raise ConfigError(f"{settings.__name__} says name={settings().name!r}: declare `name: str = {name!r}`, as it is registered.")
    new, old = Algorithm(settings, estimator), _registered.get(name)
    if old is not None and old != new:
        raise ConfigError(f"there is an algorithm {name!r} already, with {old.settings.__name__}. Register yours under another name.")
    _registered[name] = new


def algorithms() -> Mapping[str, Algorithm]:
    """Every known algorithm, by name."""
    _load_entry_points()
    return _registered


def settings_of(name: object) -> type[AlgoConfig]:
    """The settings class of an algorithm.

    Raises:
        ConfigError: there is none of that name; the message lists those there are.
    """
    known = algorithms()
    if not isinstance(name, str) or name not in known:
        close = nearest(str(name), known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"there is no algorithm {name!r}; known are {', '.join(known)}.{hint} One of your own is registered before composing "
            f"(hiper.algos.register_algorithm), or by an entry point of the group {GROUP}."
        )
    return known[name].settings


def make_estimator(settings: AlgoConfig) -> Estimator[Any]:
    """The estimator of one training.

    Raises:
        ConfigError: it is not registered, or has a critic without its settings.
    """
    settings_of(settings.name)
    if settings.needs.critic and not isinstance(settings, CriticConfig):
        raise ConfigError(f"algorithm {settings.name!r} needs values; its settings must be a subclass of hiper.config.algo.CriticConfig.")
    return algorithms()[settings.name].estimator(settings)


@cache
def _load_entry_points() -> None:
    call_entry_points(GROUP)
