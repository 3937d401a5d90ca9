"""What every estimator's settings share: the policy loss, reward shaping, how tasks are sampled, and what the estimator needs.

An estimator's own settings are a subclass in its file in `hiper/algos/`; `algo=NAME` chooses it. "Paper" is HiPER, arXiv:2602.16165.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hiper.config.checks import refuse, require
from hiper.config.dotted import flat

PROMISE = ("algo.preset", "algo.published")
"""What a preset says of itself: only files of conf/algo set it, and it changes no result that the values themselves do not."""


class Level(StrEnum):
    """A decision of a hierarchical turn: the action, the subgoal, to switch or not."""

    low = "low"
    high = "high"
    switch = "switch"

    @property
    def head(self) -> int:
        """Index of the level's value among the critic's (V_low, V_high, V_switch)."""
        return list(Level).index(self)


class Bootstrap(StrEnum):
    """Value after a truncated episode's last action."""

    none = "none"
    current = "current"
    next = "next"


class KLEstimator(StrEnum):
    """See `hiper.rl.losses.kl_terms`."""

    k1 = "k1"
    k2 = "k2"
    k3 = "k3"


class KLPlace(StrEnum):
    """Where the KL to the reference acts: as a term of the loss, or subtracted from the reward of each turn."""

    loss = "loss"
    reward = "reward"


class KeepMode(StrEnum):
    """How KEEP turns are penalised."""

    off = "off"
    fixed = "fixed"
    normalized = "normalized"


class CreditUnit(StrEnum):
    """What an advantage belongs to: each block of a reply (switch, subgoal, action), the whole reply, or each token."""

    block = "block"
    reply = "reply"
    token = "token"


@dataclass(frozen=True)
class Needs:
    """What an estimator asks of the trainer. The trainer looks here and never at which estimator runs."""

    values: tuple[Level, ...] = ()
    """Value heads it reads once a turn, and fits."""
    token_values: bool = False
    """V_low at every reply token, which it reads and fits."""
    keep_values: bool = False
    """V_low as if a SWITCH turn had kept the subgoal; costs one more forward pass per switch."""
    groups: bool = False
    """Several trajectories of the same task: `algo.group_size` of at least 2."""
    credit: CreditUnit = CreditUnit.reply
    standardise: bool = False
    """Subtract the mean and divide by the standard deviation of the advantages: of each level over the turns that have its block, of
    turns over all turns, or of tokens over all tokens, as `credit` says."""
    learns: tuple[Level, ...] = tuple(Level)
    """With `credit=block`: the decisions whose tokens are trained."""

    @property
    def critic(self) -> bool:
        """Whether it has a critic: without one, neither `trainer.critic_*` nor `trainer.lr_critic` is read."""
        return bool(self.values) or self.token_values


@dataclass
class ShapingConfig:
    """Penalties added to the environment's reward. Values are rewards, so a penalty is negative."""

    invalid: float = -0.1
    """Per turn whose reply has no usable form or an inadmissible action (paper: -0.1)."""
    keep: float = 0.0
    """KEEP penalty: per KEEP turn in `fixed` (paper, ALFWorld: -0.3), divided among them in `normalized` (WebShop: -3.5)."""
    keep_mode: KeepMode = KeepMode.off
    """Paper: `fixed` on ALFWorld, `normalized` on WebShop. Off here: KEEP penalties drive the switch rate towards 1 (docs/log.md)."""
    keep_mismatch: float = 0.0
    """Per KEEP turn whose subgoal text differs from the previous turn's (paper: -0.3)."""
    success_scale: float = 1.0
    """Factor on the environment's reward (paper, WebShop: 10)."""

    def __post_init__(self) -> None:
        for name in ("invalid", "keep", "keep_mismatch"):
            require(getattr(self, name) <= 0, f"algo.shaping.{name}", getattr(self, name), "0 or negative: it is added to the reward")


@dataclass
class AlgoConfig:
    """Settings that every estimator has."""

    name: str = "???"
    """The name the estimator is registered under; its own class says it."""
    preset: str | None = None
    """Name of the published setting that these are; only files of conf/algo set it, together with `published`."""
    published: dict[str, Any] = field(default_factory=dict)
    """Setting -> value as published. They hold under any experiment: they are applied last, and what contradicts them is refused."""
    gamma: float = 1.0
    """Discount per turn, in [0, 1]."""
    group_size: int = 1
    """Rollouts per task, in an iteration. `grpo`, `rloo` and `gigpo` compare them and need at least 2."""
    dynamic_sampling: int = 0
    """Most times an iteration samples again, to replace groups whose members all earned the same reward (DAPO); 0: never."""
    clip: float = 0.2
    """PPO clip: how far the probability ratio may move from 1 (paper: 0.2)."""
    clip_high: float | None = None
    """Clip above 1; unset: `clip`. DAPO's clip-higher: 0.28."""
    tis_cap: float | None = None
    """Truncated importance sampling: cap on the weight trainer probability / sampler probability of a token; unset: no weight."""
    kl_coef: float = 0.01
    """Weight of the KL to the SFT model, at least 0 (paper: 0.01)."""
    kl_estimator: KLEstimator = KLEstimator.k3
    """`k3` as published; `k2` has a bounded gradient on tokens the policy has dropped; `k1`, for the reward only, may be negative."""
    kl_in: KLPlace = KLPlace.loss
    """Where the KL to the reference acts: a term of the loss (published), or off the reward of each turn."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus per token, at least 0."""
    switch_entropy_coef: float = 0.0
    """Weight of the entropy bonus on the switch decision alone, per turn, at least 0."""
    switch_rate_target: float | None = None
    """Desired share of turns after the first that start a segment, in (0, 1); unset: no such loss."""
    switch_rate_coef: float = 1.0
    """Weight of the squared distance to `switch_rate_target`, at least 0."""
    shaping: ShapingConfig = field(default_factory=ShapingConfig)

    def __post_init__(self) -> None:
        between_0_and_1(self, "gamma")
        at_least_0(self, "kl_coef", "entropy_coef", "switch_entropy_coef", "switch_rate_coef", "dynamic_sampling")
        least = 2 if self.needs.groups else 1
        require(self.group_size >= least, "algo.group_size", self.group_size, f"at least {least} for algo.name={self.name}")
        useful = self.dynamic_sampling == 0 or self.group_size > 1
        require(useful, "algo.dynamic_sampling", self.dynamic_sampling, "0 where algo.group_size=1: nothing to compare")
        require(
            self.kl_estimator is not KLEstimator.k1 or self.kl_in is KLPlace.reward,
            "algo.kl_estimator",
            str(self.kl_estimator),
            "k2 or k3 with algo.kl_in=loss: the gradient of k1 is zero on average",
        )
        require(self.clip > 0, "algo.clip", self.clip, "above 0")
        for name in ("clip_high", "tis_cap"):
            require(getattr(self, name) is None or getattr(self, name) > 0, f"algo.{name}", getattr(self, name), "above 0, or null")
        target = self.switch_rate_target
        require(target is None or 0.0 < target < 1.0, "algo.switch_rate_target", target, "above 0 and below 1, or null")
        self._keep_promise()

    @property
    def needs(self) -> Needs:
        """What the estimator asks of the trainer under these settings."""
        return Needs()

    def _keep_promise(self) -> None:
        for key, value in flat(self.published).items():
            found: Any = self
            for part in key.split("."):
                found = getattr(found, part, None)
            if found != value:
                refuse(f"algo.{key}", broken_promise(self.preset, key, found, value))


@dataclass
class CriticConfig(AlgoConfig):
    """Settings that every estimator with a critic has."""

    bootstrap: Bootstrap = Bootstrap.next
    """Value after truncation: none, the last acting turn's own (the authors' code), or the final observation's."""
    normalize: bool = True
    """Standardise advantages: each level's over the turns that have its block (`hae`), or over all turns (`turn_gae`) or tokens (`gae`)."""
    value_clip: float = 0.5
    """Most a value may move from its old value before its loss is clipped, above 0 (paper: 0.5)."""
    value_coef: float = 0.5
    """Weight of the value loss, at least 0. Not read with `trainer.value_fit=least_squares`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_0(self, "value_coef")
        require(self.value_clip > 0, "algo.value_clip", self.value_clip, "above 0")


def broken_promise(preset: str | None, key: str, found: object, published: object) -> str:
    """Why a value cannot stand beside a published one."""
    return (
        f"algo.{key}={found} stands against algo={preset}, which promises the published algo.{key}={published}. "
        f"Leave algo.{key} out, or choose the estimator by its own name (such as algo=hae) and set its values yourself."
    )


def between_0_and_1(settings: AlgoConfig, *names: str) -> None:
    """See that settings are shares.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        require(0.0 <= getattr(settings, name) <= 1.0, f"algo.{name}", getattr(settings, name), "between 0 and 1")


def at_least_0(settings: AlgoConfig, *names: str) -> None:
    """See that settings are not negative.

    Raises:
        ConfigError: one is.
    """
    for name in names:
        require(getattr(settings, name) >= 0, f"algo.{name}", getattr(settings, name), "at least 0")
