"""Rules of suites: they are chosen by name, one can be registered from outside, and settings that one does not read are refused."""

from __future__ import annotations

import pytest

from hiper.composition.compose import compose
from hiper.config import SUITE_SETTINGS
from hiper.errors import ConfigError
from hiper.suites import registry
from hiper.suites.registry import register_suite, suite_named, suites
from hiper.suites.webshop.suite import WebShop


class Boutique(WebShop):
    """A suite from outside."""


def test_one_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    with pytest.raises(ConfigError, match="known are alfworld, webshop. One of your own is registered before"):
        compose(["env.name=boutique"])
    register_suite("boutique", Boutique)
    register_suite("boutique", Boutique)
    assert isinstance(suite_named(compose(["env.name=boutique"]).env.name), Boutique)
    with pytest.raises(ConfigError, match="there is a suite 'boutique' already"):
        register_suite("boutique", WebShop)
    with pytest.raises(ConfigError, match="cannot be named 'My Shop'"):
        register_suite("My Shop", Boutique)


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'alfworld'"):
        compose(["env.name=alfwrld"])


@pytest.mark.parametrize(
    "override",
    ["tasks.train=5", "tasks.task_types=[pick_and_place_simple]", "demos.fresh=true", "demos.scatter=0.5", "env.engine=textworld"],
)
def test_what_a_suite_does_not_read_is_refused(override: str) -> None:
    key = override.split("=")[0]
    with pytest.raises(ConfigError, match=f"{key}=.*: env.name=webshop does not read it. Leave it at "):
        compose(["env=webshop", override])
    compose([override])
    with pytest.raises(ConfigError, match="webshop.products=5: env.name=alfworld does not read it"):
        compose(["webshop.products=5"])


@pytest.mark.parametrize("name", suites())
def test_what_it_reads_exists(name: str) -> None:
    suite = suite_named(name)
    assert set(suite.reads) <= set(SUITE_SETTINGS)
    assert "train" in suite.splits
    assert suite.wording.tasks.startswith(suite.wording.task)
