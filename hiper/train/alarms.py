"""Watching a run for what undoes hierarchies: a switch that is always or never pressed, masks that miss their blocks, a policy that
runs away or stops exploring, numbers that are none.

An alarm is a metric outside its limits for `alarms.patience` iterations in a row (not-a-number: at once). What then happens is the
setting named like the alarm: warn, stop, or go back to the last checkpoint from before the trouble.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from hiper.config import AlarmsConfig, OnAlarm

logger = logging.getLogger(__name__)

ALARMS = ("collapse", "mask_coverage", "kl", "entropy", "nan")

ADVICE: Mapping[str, str] = {
    "collapse": "Try algo.switch_entropy_coef, a larger algo.kl_coef, another algo.shaping.keep or algo.switch_credit.",
    "mask_coverage": "Replies lack blocks: see rollout/valid_rate and samples.jsonl; try rollout=grammar or a longer warm start.",
    "kl": "Lower trainer.lr_actor or raise algo.kl_coef.",
    "entropy": "Raise algo.entropy_coef, algo.switch_entropy_coef or rollout.temperature.",
    "nan": "Lower trainer.lr_actor or trainer.lr_critic; model.dtype=float32 rules out overflow.",
}


class Limits(NamedTuple):
    """What a metric may be."""

    metric: str
    low: float
    high: float


class Alarm(NamedTuple):
    """One that went off."""

    name: str
    iteration: int
    metric: str
    value: float
    limits: str
    iterations: int
    """In a row."""
    action: OnAlarm

    def __str__(self) -> str:
        lasted = f" for {self.iterations} iterations" if self.iterations > 1 else ""
        return f"alarm {self.name} in iteration {self.iteration}: {self.metric} is {self.value:.4g}, outside {self.limits}{lasted}."


class Watch:
    """Counts, for each alarm, the iterations in a row that were outside its limits; part of the run's state."""

    def __init__(self, cfg: AlarmsConfig) -> None:
        self._cfg = cfg
        self._streaks = dict.fromkeys(ALARMS, 0)
        self.events: list[dict[str, Any]] = []
        """Every alarm that went off, as JSON."""

    @property
    def quiet(self) -> bool:
        """Whether nothing is outside its limits that may end in a return: what is saved now is worth going back to."""
        return not any(streak for name, streak in self._streaks.items() if getattr(self._cfg, name) is OnAlarm.rollback)

    def look(self, iteration: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """Alarms that go off on an iteration's metrics; a metric that is not there is not judged."""
        fired = []
        for name in ALARMS:
            action: OnAlarm = getattr(self._cfg, name)
            found = None if action is OnAlarm.off else self._outside(name, metrics)
            self._streaks[name] = 0 if found is None else self._streaks[name] + 1
            patience = 1 if name == "nan" else self._cfg.patience
            if found is not None and self._streaks[name] % patience == 0:
                limits, value = found
                fired.append(Alarm(name, iteration, limits.metric, value, _range(limits), self._streaks[name], action))
        for alarm in fired:
            logger.warning("%s %s", alarm, ADVICE[alarm.name])
            number = alarm.value if math.isfinite(alarm.value) else str(alarm.value)
            self.events.append({**alarm._asdict(), "value": number, "action": alarm.action.value})
        return fired

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as JSON."""
        return {"streaks": dict(self._streaks), "events": list(self.events)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._streaks = {name: int(state["streaks"].get(name, 0)) for name in ALARMS}
        self.events = list(state["events"])

    def _outside(self, name: str, metrics: Mapping[str, float]) -> tuple[Limits, float] | None:
        if name == "nan":
            bad = next(((key, value) for key, value in metrics.items() if not math.isfinite(value)), None)
            return None if bad is None else (Limits(bad[0], -math.inf, math.inf), bad[1])
        for limits in self._limits()[name]:
            value = metrics.get(limits.metric)
            if value is not None and not limits.low <= value <= limits.high:
                return limits, value
        return None

    def _limits(self) -> dict[str, list[Limits]]:
        cfg = self._cfg
        return {
            "collapse": [Limits("switch/rate", cfg.switch_rate_min, cfg.switch_rate_max)],
            "mask_coverage": [
                Limits("hae/mask_coverage", cfg.mask_coverage_min, 1.0),
                Limits("hae/mask_coverage_subgoal", cfg.mask_coverage_min, 1.0),
            ],
            "kl": [Limits("optim/kl_ref", -math.inf, cfg.kl_max), Limits("optim/approx_kl", -math.inf, cfg.step_kl_max)],
            "entropy": [
                Limits("optim/entropy", cfg.entropy_min, math.inf),
                Limits("switch/entropy", cfg.switch_entropy_min, math.inf),
            ],
        }


def _range(limits: Limits) -> str:
    if limits.low == -math.inf:
        return "the finite numbers" if limits.high == math.inf else f"at most {limits.high:g}"
    return f"at least {limits.low:g}" if limits.high == math.inf else f"{limits.low:g} to {limits.high:g}"
