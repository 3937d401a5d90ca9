"""Rules of the page of settings: every one is on it, with what it is by default and what it does."""

from __future__ import annotations

import pytest

from hiper.algos.registry import algorithms
from hiper.composition.compose import compose
from hiper.composition.keys import known_keys
from hiper.composition.reference import Setting, settings_of_schema, settings_page
from hiper.composition.sections import suite_sections
from hiper.config import SharedConfig

PLAIN = {
    "seed", "algo.clip", "algo.value_clip", "algo.value_coef", "algo.entropy_coef", "demos.seed", "protocol.context", "protocol.dialect",
    "protocol.style", "model.critic", "trainer.iterations", "trainer.lr_actor", "trainer.lr_critic", "trainer.max_grad_norm",
    "trainer.value_fit", "trainer.trainable", "trainer.eval_tasks", "evaluate.seed", "tracking.wandb", "tracking.project",
}  # fmt: skip
"""Settings whose name, type and section say it all."""


def every() -> list[Setting]:
    own = [one for found in algorithms().values() for one in settings_of_schema(found.settings, "algo.")]
    of_suites = [one for name, kind in suite_sections().items() for one in settings_of_schema(kind, f"{name}.")]
    return [*settings_of_schema(SharedConfig), *of_suites, *own]


def test_every_setting_is_on_the_page() -> None:
    page = settings_page()
    for key in known_keys():
        assert f"| `{key}` |" in page, f"{key} is missing"


@pytest.mark.parametrize("setting", every(), ids=lambda one: one.key)
def test_a_setting_says_what_it_does(setting: Setting) -> None:
    known = setting.text or setting.key in PLAIN or setting.key.startswith(("model.tiny.", "sft.", "rollout."))
    assert known or setting.key == "algo.name", f"{setting.key} has no docstring below it"


def test_defaults_are_those_that_compose() -> None:
    cfg = compose(["trainer=default"])
    shown = {one.key: one.default for one in settings_of_schema(SharedConfig)}
    assert shown["trainer.minibatch"] == str(cfg.trainer.minibatch)
    assert shown["evaluate.splits"] == "null"
    assert shown["tasks.limit"] == "null"
