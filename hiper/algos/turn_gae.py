"""GAE over turns: PPO with one critic and one advantage for the whole reply. HAE without its hierarchy. GAE: arXiv:1506.02438."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, ValueTarget, one_for_all
from hiper.config.algo import CriticConfig, Level, Needs, between_0_and_1

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


@dataclass
class TurnGAEConfig(CriticConfig):
    """Settings of GAE over turns."""

    name: str = "turn_gae"
    lam: float = 1.0
    """Lambda per turn, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between_0_and_1(self, "lam")

    @property
    def needs(self) -> Needs:
        return Needs(values=(Level.high,), standardise=self.normalize)


class TurnGAE(Estimator[TurnGAEConfig]):
    """See `hiper.rl.gae`. Its critic is V_high, which is read before any decision of the turn."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.gae import turn_advantages

        found = turn_advantages(
            rewards,
            forward.value(Level.high),
            batch.terminated,
            batch.mask,
            gamma=self.settings.gamma,
            lam=self.settings.lam,
            bootstrap=self.settings.bootstrap.value,
            v_final=forward.final_value(Level.high),
        )
        return Estimate(one_for_all(found.advantages), (ValueTarget(Level.high, found.targets, batch.mask),))


register_algorithm("turn_gae", TurnGAEConfig, TurnGAE)
