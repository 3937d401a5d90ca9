"""A config as files and overrides have it: what every experiment has, and a section for each suite that has settings of its own.

A `RunConfig` holds the settings of its own suite alone. While one is composed, its suite is not yet known: the sections of all suites are
there, and those of the others have to stay as they are by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hiper.config import RunConfig, SharedConfig
from hiper.config.algo import AlgoConfig
from hiper.suites.registry import settings_of_suite, suites


def suite_sections(names: Sequence[str] | None = None) -> dict[str, type[Any]]:
    """Section -> the class of its settings, of the suites named that have some; None: of all."""
    found = {name: settings_of_suite(name) for name in (suites() if names is None else names)}
    return {name: kind for name, kind in found.items() if kind is not None}


def schema(names: Sequence[str] | None = None) -> type[SharedConfig]:
    """`SharedConfig` with those sections."""
    return _schema(tuple(suite_sections(names).items()))


@lru_cache(maxsize=32)
def _schema(sections: tuple[tuple[str, type[Any]], ...]) -> type[SharedConfig]:
    extra = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in sections]
    return dataclasses.make_dataclass("Schema", extra, bases=(SharedConfig,))


def default_node(algo: AlgoConfig) -> DictConfig:
    """Every setting's default, with these settings of an estimator, as a node to compose in."""
    node: DictConfig = OmegaConf.structured(schema()(algo=algo))
    return node


def as_node(config: RunConfig, *, every: bool = True) -> DictConfig:
    """A config as a node.

    Args:
        config: the config.
        every: with the sections of all suites; without, that of its own alone, so that it can be read where the others are not installed.
    """
    shared = {item.name: getattr(config, item.name) for item in dataclasses.fields(SharedConfig)}
    own = {} if config.suite is None else {config.env.name: config.suite}
    node: DictConfig = OmegaConf.structured(schema(None if every else [config.env.name])(**shared, **own))
    return node


def as_config(composed: SharedConfig) -> RunConfig:
    """The config that was composed.

    Raises:
        ConfigError: there is no such suite.
    """
    shared = {item.name: getattr(composed, item.name) for item in dataclasses.fields(SharedConfig)}
    return RunConfig(**shared, suite=getattr(composed, composed.env.name) if settings_of_suite(composed.env.name) else None)
