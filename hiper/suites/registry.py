"""The suites there are, by name: `env.name`.

Ours are named here and imported when one is asked for. Another package's are found by the entry-point group `hiper.suites`, whose entries
name a function without arguments that calls `register_suite`; or a program calls it before it composes a config. Only entry points are
known to every process that hiper starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hiper.errors import ConfigError
from hiper.runtime.plugins import call_entry_points, check_name
from hiper.runtime.text import nearest

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.suites.base import TextEnv
    from hiper.suites.suite import Suite

GROUP = "hiper.suites"
"""The entry-point group."""


class Registered(NamedTuple):
    """One entry."""

    make: Callable[[], Suite]
    settings: Callable[[], type[Any] | None]
    """Gives the class of its own settings, a dataclass; None: it has none."""


def _ours(package: str, suite: str, settings: str) -> Registered:
    def find(module: str, name: str) -> Any:
        return getattr(import_module(f"{package}.{module}"), name)

    return Registered(lambda: find("suite", suite)(), lambda: find("settings", settings))


_registered: dict[str, Registered] = {
    "alfworld": _ours("hiper.suites.alfworld", "ALFWorld", "ALFWorldConfig"),
    "webshop": _ours("hiper.suites.webshop", "WebShop", "WebShopConfig"),
}


def register_suite(name: str, make: Callable[[], Suite], settings: type[Any] | None = None) -> None:
    """Make a suite choosable as `env.name=NAME`; registering the same again changes nothing.

    Args:
        name: lower-case letters, digits and `_`.
        make: gives the suite, a class or a function without arguments; called each time one is needed, so it should cost little.
        settings: a dataclass of the settings that no other suite reads, with their defaults and, in docstrings, what they do; ranges are
            checked in its `__post_init__`, with `hiper.config.checks.require`. They are the section NAME: `NAME.boxes=6`.

    Raises:
        ConfigError: the name is taken or impossible, or `settings` is not as above.
    """
    check_name("a suite", name)
    old = _registered.get(name)
    if old is not None and (old.make is not make or old.settings() is not settings):
        raise ConfigError(f"there is a suite {name!r} already. Register yours under another name.")
    if old is None:
        _check_settings(name, settings)
        _registered[name] = Registered(make, lambda: settings)


def _check_settings(name: str, settings: type[Any] | None) -> None:
    """See that a suite's settings can be a section of every config."""
    if settings is None:
        return
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from hiper.config import SharedConfig

    if name in (*(item.name for item in fields(SharedConfig)), "experiment", "hydra", "suite"):
        raise ConfigError(f"the suite {name!r} cannot have settings: {name} names others in every config. Choose another name.")
    if not (isinstance(settings, type) and is_dataclass(settings)):
        raise ConfigError(f"the settings of suite {name!r} are {settings!r}: they must be a dataclass.")
    try:
        OmegaConf.structured(settings())
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        problem = f"{settings.__name__} cannot be the settings of suite {name!r}: {' '.join(str(error).split()).rstrip('.')}."
        raise ConfigError(f"{problem} Give each a type and a default.") from error


def suites() -> list[str]:
    """The names of all suites."""
    _load_entry_points()
    return list(_registered)


def suite_named(name: str) -> Suite:
    """The suite of a name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    return _entry(name).make()


def settings_of_suite(name: str) -> type[Any] | None:
    """The class of the settings that only this suite reads; None: it has none.

    Raises:
        ConfigError: there is no such suite; the message lists those there are.
    """
    return _entry(name).settings()


def suite_of(cfg: RunConfig) -> Suite:
    """The suite that a config names.

    Raises:
        ConfigError: there is none of that name.
    """
    return suite_named(cfg.env.name)


def splits_of(cfg: RunConfig) -> list[str]:
    """The splits that are evaluated: those that `evaluate.splits` names, or all of the suite but `train`."""
    return [split for split in suite_of(cfg).splits if split != "train"] if cfg.evaluate.splits is None else cfg.evaluate.splits


def make_env(cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
    """An environment for one task, as `Suite.make_env`."""
    return suite_of(cfg).make_env(cfg, path, rng)


def _entry(name: str) -> Registered:
    known = suites()
    if name not in known:
        close = nearest(name, known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"env.name={name!r}: there is no such suite; known are {', '.join(known)}.{hint} One of your own is registered before "
            f"composing (hiper.register_suite), or by an entry point of the group {GROUP}."
        )
    return _registered[name]


@cache
def _load_entry_points() -> None:
    call_entry_points(GROUP)
