"""What decides the files of a stage: its settings, those of the stages it reads, and this version.

A finished stage is reused only under the same fingerprint. Unfinished work is continued under the same settings, or settings that differ in
what may change half-way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from hiper import __version__
from hiper.config import RunConfig
from hiper.config.algo import PROMISE
from hiper.config.dotted import flat
from hiper.errors import ConfigError
from hiper.runs.plan import upstream_of
from hiper.runs.stage import STAGES, Stage
from hiper.suites.registry import settings_of_suite, suite_named, suite_of, suites

Settings = Mapping[str, Any]
"""Dotted key -> value, JSON."""


def stage_settings(cfg: RunConfig, stage: str) -> dict[str, Any]:
    """The settings that decide a stage's files, by dotted key; those of the stages it reads are not among them."""
    one, every = STAGES[stage], flat(cfg.sections())
    alone = one.without_upstream if len(upstream_of(cfg, stage)) < len(one.upstream) else ()
    chosen = {key: value for name in (*one.settings, *alone) for key, value in every.items() if key == name or key.startswith(f"{name}.")}
    own_seed = chosen.pop(one.own_seed) if one.own_seed is not None else None
    if own_seed is not None:
        chosen["seed"] = own_seed
    chosen = {key: value for key, value in chosen.items() if key not in one.neutral and not key.startswith(PROMISE)}
    chosen = {key: value for key, value in chosen.items() if key not in one.added or value != one.added[key]}
    own = {key: value for key, value in _suite_settings(cfg, one, every).items() if key not in chosen}
    return json.loads(json.dumps({**chosen, **own}, default=str))  # type: ignore[no-any-return]  # enums become their values, as they are read back


def watched_settings(stage: str) -> list[str]:
    """The settings, or whole groups of them, in which two configs must agree for a stage to be the same under both.

    For tools that compare settings and know nothing of `stage_settings`. In two cases they do more than need be: `seed` is among them also
    where `own_seed` is set and stands for it, and with the whole of `algo` what a preset promises, which changes no result by itself.
    """
    one = STAGES[stage]
    found = [key for name in (*one.settings, *one.without_upstream) for key in _without(name, one.neutral)]
    suite = ["env.name"] if one.suite and "env" not in found else []
    own = [key for name in suites() for key in _own_settings(name, one.suite)]
    return list(dict.fromkeys([*found, *suite, *own]))


def stage_fingerprint(cfg: RunConfig, stage: str, but: Collection[str] = ()) -> str:
    """Hash of all that decides a stage's files: its settings, this version, and the fingerprints of the stages it reads.

    Args:
        cfg: everything.
        stage: its name.
        but: settings of its own that are left out.
    """
    settings = {key: value for key, value in stage_settings(cfg, stage).items() if key not in but}
    upstream = [stage_fingerprint(cfg, name) for name in upstream_of(cfg, stage)]
    return fingerprint({"settings": settings, "upstream": upstream, "version": __version__})


def stage_lineage(cfg: RunConfig, stage: str) -> str:
    """The fingerprint without the settings that may be extended: work of the same lineage can be continued."""
    return stage_fingerprint(cfg, stage, but=STAGES[stage].extendable)


def fingerprint(parts: Mapping[str, Any]) -> str:
    """A short hash of JSON-able settings; equal settings, equal hash."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Settings that differ: dotted key -> (before, after); one that only one side has counts as null on the other."""
    keys = [*before, *(key for key in after if key not in before)]
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def told(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Differences in words: "algo.gamma was 1.0 and is 0.9"."""
    return ", ".join(f"{key} was {_value(before)} and is {_value(after)}" for key, (before, after) in changes.items())


def _value(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)


def _suite_settings(cfg: RunConfig, stage: Stage, every: Settings) -> dict[str, Any]:
    """What decides a stage's files beside the settings that all suites share."""
    if not stage.suite:
        return {}
    found = {key: every[key] for key in _own_settings(cfg.env.name, stage.suite)}
    return {"env.name": cfg.env.name, **found, **(suite_of(cfg).source(cfg) if "tasks" in stage.suite else {})}


def _own_settings(name: str, parts: Collection[str]) -> list[str]:
    """The settings that a suite alone reads and that decide some of these parts, by dotted key.

    Raises:
        ConfigError: the suite's `own` names a setting that it does not have.
    """
    kind, own = settings_of_suite(name), dataclasses.asdict(suite_named(name).own)
    names = [] if kind is None else [item.name for item in dataclasses.fields(kind)]
    named = {setting for settings in own.values() for setting in settings}
    if not named <= set(names):
        raise ConfigError(f"the suite {name!r} says what {', '.join(sorted(named - set(names)))} decides, and has no such setting.")
    own["tasks"] = [setting for setting in names if setting not in named]
    return [f"{name}.{setting}" for setting in names if any(setting in own[part] for part in parts)]


@cache
def _defaults() -> Settings:
    return flat(RunConfig().sections())


def _without(name: str, left_out: Collection[str]) -> list[str]:
    """A group as its settings without some of them; as a whole, where it has none of them."""
    if not any(key.startswith(f"{name}.") for key in left_out):
        return [name]
    return [key for key in _defaults() if key.startswith(f"{name}.") and key not in left_out]
