"""Settings: defaults compose, mistakes are refused together and by name, a saved config comes back as it was.

Rules: an unknown key names the closest one; a wrong type or range names the setting and what it must be; all problems of a command are
shown at once; a saved config needs neither conf/ nor Hydra. Every float is finite, every whole number and seed has bounds, every text is
one printable line. Nothing of the environment gets into a saved config, but for the places of things.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hiper.algos.registry import algorithms
from hiper.composition.compose import PLACES, compose, override
from hiper.composition.sections import schema
from hiper.config import RunConfig, Source, TrackingConfig
from hiper.config.algo import Bootstrap
from hiper.config.checks import collect_problems
from hiper.errors import ConfigError
from hiper.runs.run_dir import config_beside, load_config, save_config


def _settings(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for item in fields(node):
        value = getattr(node, item.name)
        yield from _settings(value, f"{prefix}{item.name}.") if is_dataclass(value) else [(prefix + item.name, value)]


DEFAULTS = list(_settings(schema()()))


INTERPOLATIONS = (
    "${oc.env:SECRET}",
    "my-${oc.env:SECRET,x}",
    "${oc.decode:${oc.env:SECRET}}",
    "${${name}:SECRET}",
    "${.wandb}",
    "\\${oc.env:SECRET}",
)


@pytest.fixture(scope="module")
def composed() -> RunConfig:
    """The default config: composing takes a while, and changing one does not."""
    return compose()


def test_without_overrides_the_schema_defaults_hold() -> None:
    assert compose() == RunConfig(paths=compose().paths)
    for name, algorithm in algorithms().items():
        assert compose([f"algo={name}"]).algo == algorithm.settings()


def test_overrides_change_values_and_groups() -> None:
    cfg = compose(["algo=turn_gae", "tasks=official", "algo.lam=0.9", "seed=3", "name=study"])
    assert (cfg.algo.lam, cfg.algo.bootstrap, cfg.tasks.source) == (0.9, Bootstrap.next, Source.official)
    assert cfg.paths.run == "runs/study/seed-3"


def test_it_composes_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose(["experiment=smoke"]).name == "smoke"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("algo.gama=1", "there is no setting 'algo.gama'; did you mean 'algo.gamma'?"),
        ("lam_low=1", "did you mean 'algo.lam_low'?"),
        ("experiment=quikstart", "did you mean 'quickstart'?"),
        ("tasks=oficial", "did you mean 'official'?"),
        ("algo.lam_high=high", "algo.lam_high=high has the wrong type: it must be a number."),
        ("alfworld.engine=java", "it must be one of native, textworld."),
        ("evaluate.splits=3", "it must be a list such as [a] or null."),
        ("tasks.limit=few", "it must be a whole number or null."),
        ("algo.clip=0.1,0.2", "names several values; a run takes one"),
        ("+algo.extra=1", "cannot be added or deleted"),
        ("~algo", "cannot be added or deleted"),
        ("quickstart", "'quickstart' is not an override"),
        ("algo.gamma=1.5", "algo.gamma=1.5 is out of range: it must be between 0 and 1."),
        (
            "algo.name=grpo",
            "algo.name=grpo: an estimator comes with settings of its own; choose it by its file or name instead: write algo=grpo",
        ),
        ("algo=grop", "did you mean 'grpo'?"),
        ("algo.lam=0.5", "algo.lam is not a setting of hae; it reads algo.gamma, algo.group_size,"),
        ("algo.group_size=5", "algo.group_size=5 is out of range: it must be a divisor of rollout.trajectories=128"),
        ("algo.levels=[]", "algo.levels=[] is out of range: it must be at least one of low, high, switch"),
        ("algo.kl_estimator=k1", "algo.kl_estimator='k1' is out of range: it must be k2 or k3 with algo.kl_in=loss"),
        ("algo.dynamic_sampling=2", "algo.dynamic_sampling=2 is out of range: it must be 0 where algo.group_size=1"),
        ("model.value_heads=4", "model.value_heads=4 is out of range: it must be 1, 2 or 3"),
        ("model.tiny.heads=0", "model.tiny.heads=0 is out of range"),
        ("seed=-1", "seed=-1 is out of range"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([text])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sft.max_steps=0", "sft.max_steps=0 is out of range: it must be at least 1, or -1"),
        ("sft.warmup_ratio=1", "sft.warmup_ratio=1.0 is out of range: it must be at least 0 and below 1"),
        ("rollout.temperature=1e-9", "rollout.temperature=1e-09 is out of range: it must be between 0.001 and 1000"),
        ("evaluate.temperature=1e-9", "evaluate.temperature=1e-09 is out of range: it must be 0, or between 0.001 and 1000"),
        ("name=../../x", "name='../../x' is out of range: it must be letters, digits, _, - and ., which does not come first"),
        ("name=a/b", "name='a/b' is out of range"),
        ("name=..", "name='..' is out of range"),
        ("name=.hidden", "name='.hidden' is out of range"),
        ("name=''", "name='' is out of range"),
        ("paths.run=''", "paths.run='' is out of range: it must be a directory other than /"),
        ("paths.run=/", "paths.run='/' is out of range"),
        ("paths.base=//..", "paths.base='//..' is out of range"),
    ],
)
def test_a_value_out_of_range_is_named(composed: RunConfig, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(composed, [text])
    assert said in str(caught.value)


@pytest.mark.parametrize("value", ["-inf", "nan"])
def test_every_float_is_finite(composed: RunConfig, value: str) -> None:
    floats = [key for key, default in DEFAULTS if isinstance(default, float)]
    assert {"sft.lr", "evaluate.temperature", "algo.shaping.success_scale", "alarms.kl_max"} <= set(floats)
    with pytest.raises(ConfigError) as caught:
        override(composed, [f"{key}={value}" for key in (*floats, "algo.clip_high", "algo.switch_rate_target")])
    for key in floats:
        assert f"  - {key}=" in str(caught.value)


@pytest.mark.parametrize("value", [2**70, -(2**31)])
def test_every_whole_number_has_bounds(composed: RunConfig, value: int) -> None:
    whole = [key for key, default in DEFAULTS if isinstance(default, int) and not isinstance(default, bool)]
    assert {"evaluate.seed", "tasks.seed", "demos.seed", "webshop.goal_seed", "model.tiny.hidden"} <= set(whole)
    with pytest.raises(ConfigError) as caught:
        override(composed, [f"{key}={value}" for key in (*whole, "sft.seed", "tasks.limit")])
    for key in (*whole, "sft.seed", "tasks.limit"):
        assert f"  - {key}={value} is out of range" in str(caught.value)


def test_every_seed_is_at_least_0(composed: RunConfig) -> None:
    seeds = [*(key for key, _ in DEFAULTS if key.endswith("seed"))]
    assert len(seeds) == 6
    with pytest.raises(ConfigError) as caught:
        override(composed, [f"{key}=-1" for key in seeds])
    for key in seeds:
        assert f"{key}=-1 is out of range: it must be at least 0 and below 2**31" in str(caught.value)


@pytest.mark.parametrize("text", ["a\nb", "a\0b", "\x1b[2J", "\udcff", "x" * 5000], ids=["newline", "nul", "escape", "bytes", "long"])
def test_text_is_one_printable_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking.project=.* it must be printable text of at most 4096 characters"):
        RunConfig(tracking=TrackingConfig(project=text))


@pytest.mark.parametrize("how", ["composed", "changed", "loaded", "built"])
def test_the_environment_does_not_get_into_a_saved_config(
    composed: RunConfig, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    for text in INTERPOLATIONS[:1] if how == "composed" else INTERPOLATIONS:
        with pytest.raises(ConfigError, match="tracking.project") as caught:
            if how == "composed":
                compose([f"tracking.project='{text}'"])
            elif how == "changed":
                override(composed, [f"tracking.project='{text}'"])
            elif how == "loaded":
                (tmp_path / "config.yaml").write_text(f"tracking: {{project: '{text}'}}\n", encoding="utf-8")
                load_config(tmp_path)
            else:
                RunConfig(tracking=TrackingConfig(project=text))
        assert "hunter2" not in str(caught.value)


def test_places_may_come_from_the_environment(composed: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "/data")
    assert compose(["tasks.data='${oc.env:DATA}/x-${seed}'", "seed=3"]).tasks.data == "/data/x-3"
    for key in PLACES:
        assert dict(_settings(override(composed, [f"{key}='${{oc.env:DATA}}/x-${{seed}}'"])))[key] == "/data/x-0"
    assert override(composed, ["tasks.data='${oc.env:MISSING,/else}'"]).tasks.data == "/else"
    with pytest.raises(ConfigError, match="MISSING"):
        override(composed, ["tasks.data='${oc.env:MISSING}'"])
    with pytest.raises(ConfigError, match="refers to model.path, which may come from an environment variable"):
        override(composed, ["tracking.project='${model.path}'"])
    monkeypatch.setenv("DATA", "${oc.env:SECRET}")
    with pytest.raises(ConfigError, match="tasks.data="):
        override(composed, ["tasks.data='${oc.env:DATA}'"])


def test_other_settings_can_be_referred_to(composed: RunConfig) -> None:
    changed = override(composed, ["seed=5", "evaluate.seed='${seed}'", "tracking.project='of-${name}'"])
    assert (changed.evaluate.seed, changed.tracking.project) == (5, "of-default")
    with pytest.raises(ConfigError, match="refers to 'nam', which is no setting; did you mean 'name'"):
        override(composed, ["tracking.project='${nam}'"])


def test_a_setting_has_one_problem_at_a_time() -> None:
    with collect_problems() as problems:
        replace(RunConfig(), seed=-1, name="a/b", device="tpu")
    assert [problem.partition("=")[0] for problem in problems] == ["seed", "name", "device"]


def test_all_mistakes_are_shown_at_once() -> None:
    with pytest.raises(ConfigError) as misspelt:
        compose(["algo.gama=1", "experiment=quikstart", "trainer.iterations=many"])
    assert str(misspelt.value).startswith("3 settings cannot stand:")
    with pytest.raises(ConfigError) as ranges:
        compose(["algo.gamma=2", "algo.clip=-1", "model.tiny.heads=0", "seed=-1"])
    for name in ("algo.gamma=2.0", "algo.clip=-1.0", "model.tiny.heads=0", "seed=-1"):
        assert name in str(ranges.value)


def test_a_setting_the_estimator_does_not_read_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["algo=turn_gae", "algo.levels=[low]", "algo.lam_low=1", "algo.lam=0.5"])
    assert str(caught.value).startswith("2 settings cannot stand:")
    for key in ("algo.levels", "algo.lam_low"):
        assert f"{key} is not a setting of turn_gae; it reads algo.gamma," in str(caught.value)
    with pytest.raises(ConfigError, match=r"algo.group_size=1 is out of range: it must be at least 2 for algo.name=grpo"):
        compose(["algo=grpo", "algo.group_size=1"])


def test_a_rule_still_raises_outside_composition() -> None:
    with pytest.raises(ConfigError, match="seed=-1"):
        RunConfig(seed=-1)


def test_a_typo_in_a_config_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "algo").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [hiper_config, {algo: odd}, _self_]\n", encoding="utf-8")
    (tmp_path / "algo" / "odd.yaml").write_text("defaults: [hiper_hae, _self_]\ngama: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gama"):
        compose([], tmp_path)


def test_a_saved_config_comes_back(tmp_path: Path) -> None:
    cfg = compose(["experiment=alfworld_paper", "seed=5", "alfworld.task_types=[look_at_obj_in_light]", "evaluate.limit=7"])
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(tmp_path) == load_config(tmp_path / "config.yaml") == cfg


def test_a_saved_config_needs_no_hydra(tmp_path: Path) -> None:
    """A bare GPU node trains from a saved config."""
    save_config(compose(["experiment=smoke"]), tmp_path / "config.yaml")
    code = (
        "import sys; from pathlib import Path; from hiper.runs.run_dir import load_config; "
        f"cfg = load_config(Path({str(tmp_path)!r})); assert cfg.name == 'smoke'; "
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('hydra', 'prefect', 'torch')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("algo: {gama: 1}\n", "gama"),
        ("algo: {name: grpo, lam_low: 1}\n", "algo.lam_low is not a setting of grpo; it reads .*algo.group_scale"),
        ("algo: {name: grop}\n", "no algorithm 'grop'; known are"),
        ("algo: {name: [a]}\n", "no algorithm"),
        ("{not: [yaml", "is not YAML"),
        ("algo: {gamma: 7}\n", "algo.gamma=7"),
        ("- 1\n", "is not a config"),
    ],
)
def test_a_damaged_saved_config_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        load_config(tmp_path)


def test_a_config_of_another_version_says_how_to_go_on(tmp_path: Path) -> None:
    model = tmp_path / "train" / "model"
    model.mkdir(parents=True)
    (model.parent / "config.yaml").write_text("warm_start: {lr: 0.1}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{model.parent / 'config.yaml'} is not .*'warm_start'.*environment.json in its run names"):
        load_config(model.parent)
    with pytest.raises(ConfigError, match=rf"copy {model} out of the run and give its settings as overrides"):
        config_beside(model)
    assert config_beside(model.rename(tmp_path / "model")) is None


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is not a run"):
        load_config(tmp_path)


def test_a_composed_config_takes_single_values_only() -> None:
    cfg = compose(["experiment=smoke"])
    assert override(cfg, ["trainer.iterations=7"]).trainer.iterations == 7
    with pytest.raises(ConfigError, match="already composed"):
        override(cfg, ["model=tiny"])
    with pytest.raises(ConfigError, match=r"algo\.gamma"):
        override(cfg, ["algo.gama=1"])
    with pytest.raises(ConfigError, match="algo.name=grpo: .* composed for another. Compose one with algo=grpo"):
        override(cfg, ["algo.name=grpo"])
    with pytest.raises(ConfigError, match="'algo=grpo' chooses a config file"):
        override(cfg, ["algo=grpo"])
    assert override(cfg, ["algo.name=hae"]) == cfg
