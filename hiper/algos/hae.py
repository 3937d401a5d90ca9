"""HAE, hierarchical advantage estimation: the switch, subgoal and action of a turn are credited apart. HiPER, arXiv:2602.16165."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, ValueTarget
from hiper.config.algo import CreditUnit, CriticConfig, Level, Needs, ShapingConfig, between_0_and_1
from hiper.config.checks import require

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


class SwitchCredit(StrEnum):
    """How the decision to switch is credited; see `hiper.rl.hae`."""

    segment_return = "segment_return"
    option_value = "option_value"


@dataclass
class HAEConfig(CriticConfig):
    """Settings of HAE. By default, unlike the paper, what follows a segment counts for its actions (`lam_end`), and KEEP costs nothing."""

    name: str = "hae"
    lam_low: float = 1.0
    """Lambda within a segment, for the low level, in [0, 1] (paper: 1)."""
    lam_high: float = 0.95
    """Lambda across segments, for the high level, in [0, 1] (paper: 0.95)."""
    lam_end: float = 0.95
    """Lambda across segment boundaries, for the low level and the switch, in [0, 1]. 0 bootstraps from V_high at every boundary (paper)."""
    switch_credit: SwitchCredit = SwitchCredit.segment_return
    """`segment_return` (the authors' code), or `option_value` (the paper's text), which reads no V_switch and costs one more forward pass
    per switch."""
    levels: list[Level] = field(default_factory=lambda: list(Level))
    """Decisions that are trained; the others stay as the SFT model makes them."""
    shaping: ShapingConfig = field(default_factory=lambda: ShapingConfig(keep=-0.3, keep_mismatch=-0.3))

    def __post_init__(self) -> None:
        super().__post_init__()
        between_0_and_1(self, "lam_low", "lam_high", "lam_end")
        require(bool(self.levels), "algo.levels", self.levels, "at least one of low, high, switch")

    @property
    def needs(self) -> Needs:
        by_value = self.switch_credit is SwitchCredit.option_value
        return Needs(
            values=(Level.low, Level.high) if by_value else tuple(Level),
            keep_values=by_value,
            credit=CreditUnit.block,
            standardise=self.normalize,
            learns=tuple(self.levels),
        )


class HAE(Estimator[HAEConfig]):
    """See `hiper.rl.hae`."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.hae import hierarchical_advantages

        cfg = self.settings
        found = hierarchical_advantages(
            rewards,
            forward.value(Level.low),
            forward.value(Level.high),
            forward.value(Level.switch),
            batch.segment_starts,
            batch.terminated,
            batch.mask,
            gamma=cfg.gamma,
            lam_low=cfg.lam_low,
            lam_high=cfg.lam_high,
            lam_end=cfg.lam_end,
            switch_credit=cfg.switch_credit.value,
            bootstrap=cfg.bootstrap.value,
            v_low_final=forward.final_value(Level.low),
            v_high_final=forward.final_value(Level.high),
            switch_probability=batch.switch_probability(forward.logprobs),
            v_low_keep=forward.keep_values,
        )
        targets = {
            Level.low: ValueTarget(Level.low, found.low_target, batch.mask),
            Level.high: ValueTarget(Level.high, found.high_target, batch.mask & batch.segment_starts),
            Level.switch: ValueTarget(Level.switch, found.switch_target, batch.mask),
        }
        levels = {Level.low: found.low, Level.high: found.high, Level.switch: found.switch}
        return Estimate(levels, tuple(targets[level] for level in cfg.needs.values))


register_algorithm("hae", HAEConfig, HAE)
