"""The suites there are, by name: `env.name`.

Ours are named here and imported when one is asked for. Another package's are found by the entry-point group `hiper.suites`, whose entries
name a function without arguments that calls `register_suite`; or a program calls it before it composes a config. Only entry points are
known to every process that hiper starts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.errors import ConfigError
from hiper.runtime.plugins import call_entry_points, check_name
from hiper.runtime.text import nearest

if TYPE_CHECKING:
    from hiper.config import RunConfig
    from hiper.suites.base import TextEnv
    from hiper.suites.suite import Suite

GROUP = "hiper.suites"
"""The entry-point group."""


def _ours(module: str, name: str) -> Callable[[], Suite]:
    def make() -> Suite:
        suite: Suite = getattr(import_module(module), name)()
        return suite

    return make


_registered: dict[str, Callable[[], Suite]] = {
    "alfworld": _ours("hiper.suites.alfworld.suite", "ALFWorld"),
    "webshop": _ours("hiper.suites.webshop.suite", "WebShop"),
}


def register_suite(name: str, make: Callable[[], Suite]) -> None:
    """Make a suite choosable as `env.name=NAME`; registering the same again changes nothing.

    Args:
        name: lower-case letters, digits and `_`.
        make: gives the suite, a class or a function without arguments; called each time one is needed, so it should cost little.

    Raises:
        ConfigError: the name is taken or impossible.
    """
    check_name("a suite", name)
    if _registered.get(name, make) is not make:
        raise ConfigError(f"there is a suite {name!r} already. Register yours under another name.")
    _registered[name] = make


def suites() -> list[str]:
    """The names of all suites."""
    _load_entry_points()
    return list(_registered)


def suite_named(name: str) -> Suite:
    """The suite of a name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    known = suites()
    if name not in known:
        close = nearest(name, known)
        hint = f" Did you mean {close!r}?" if close else ""
        raise ConfigError(
            f"env.name={name!r}: there is no such suite; known are {', '.join(known)}.{hint} One of your own is registered before "
            f"composing (hiper.register_suite), or by an entry point of the group {GROUP}."
        )
    return _registered[name]()


def suite_of(cfg: RunConfig) -> Suite:
    """The suite that a config names.

    Raises:
        ConfigError: there is none of that name.
    """
    return suite_named(cfg.env.name)


def make_env(cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
    """An environment for one task, as `Suite.make_env`."""
    return suite_of(cfg).make_env(cfg, path, rng)


@cache
def _load_entry_points() -> None:
    call_entry_points(GROUP)
