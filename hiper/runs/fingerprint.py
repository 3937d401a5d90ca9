"""What decides the files of a stage: its settings, those of the stages it reads, and this version.

A finished stage is reused only under the same fingerprint. Unfinished work is continued under the same settings, or settings that differ in
what may change half-way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from hiper import __version__
from hiper.config import RunConfig
from hiper.config.algo import PROMISE
from hiper.suites import suite_of

UPSTREAM: Mapping[str, tuple[str, ...]] = {
    "games": (),
    "demos": ("games",),
    "warm_start": ("demos",),
    "train": ("games", "warm_start"),
    "evaluate": ("games", "warm_start", "train"),
    "report": ("train", "evaluate"),
}
"""Every stage, in order, and the stages whose files it reads."""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "games": ("games",),
    "demos": ("demos", "env", "protocol"),
    "warm_start": ("warm_start", "model", "protocol", "rollout.constrain", "seed"),
    "train": ("algo", "trainer", "rollout", "env", "protocol", "model", "seed"),
    "evaluate": ("evaluate", "rollout", "env", "protocol", "model"),
    "report": ("name", "seed"),
}
"""The settings, or groups of them, that each stage's files depend on. Device, threads, tracking and paths change no result that is meant to
be one. Nor do alarms, so that a run which one has stopped can be resumed under others."""

NEUTRAL = ("trainer.save_every", "trainer.keep_last", "warm_start.save_every", "evaluate.save_every")
"""Settings within these that change how often work is saved, and no result."""

EXTENDABLE = ("trainer.iterations", "trainer.env_turns")
"""Settings that say how long training goes on: more of them continues a training, finished or not."""

ADDED: Mapping[str, Any] = {"trainer.processes": 1, "algo.lam_end": 0.0}
"""Settings that came after trainings had been made, and the value under which a training from before is not another one."""

Settings = Mapping[str, Any]
"""Dotted key -> value, JSON."""


def stage_settings(cfg: RunConfig, stage: str) -> dict[str, Any]:
    """The settings that decide a stage's files, by dotted key; those of the stages it reads are not among them."""
    every = _flat(dataclasses.asdict(cfg))
    chosen = {key: value for name in SETTINGS[stage] for key, value in every.items() if key == name or key.startswith(f"{name}.")}
    if stage == "warm_start":
        chosen["seed"] = cfg.warm_start_seed
        del chosen["warm_start.seed"]
    for key in NEUTRAL:
        chosen.pop(key, None)
    chosen = {key: value for key, value in chosen.items() if not key.startswith(PROMISE)}
    if stage == "train":
        chosen = {key: value for key, value in chosen.items() if key not in ADDED or value != ADDED[key]}
    own = {key: value for key, value in suite_of(cfg).settings(cfg, stage).items() if key not in chosen}
    return json.loads(json.dumps({**chosen, **_flat(own)}, default=str))  # type: ignore[no-any-return]  # enums become their values, as they are read back


def stage_fingerprint(cfg: RunConfig, stage: str, but: Collection[str] = ()) -> str:
    """Hash of all that decides a stage's files: its settings, this version, and the fingerprints of the stages it reads.

    Args:
        cfg: everything.
        stage: its name.
        but: settings of its own that are left out.
    """
    settings = {key: value for key, value in stage_settings(cfg, stage).items() if key not in but}
    upstream = [stage_fingerprint(cfg, name) for name in UPSTREAM[stage]]
    return fingerprint({"settings": settings, "upstream": upstream, "version": __version__})


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


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return flat
